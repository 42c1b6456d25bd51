//! The outbox: events on their way to the shop, and the knobs that lead them astray.
//!
//! An event is a snapshot: its bytes are printed when the state changes and stay the same in every attempt.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::payments::Provider;

/// An event in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HookId(pub u64);

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HookOutcome {
    /// The status of the answer; none if no answer came (or there was nothing to send).
    pub status: Option<u16>,
    /// Milliseconds until the answer's head arrived or the attempt failed.
    pub took_ms: u64,
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// Not acknowledged yet.
    Pending,
    /// The receiver answered what this provider takes as an acknowledgement.
    Delivered,
    /// Lost on purpose.
    Dropped,
    /// The provider's attempts are used up.
    GivenUp,
}

/// An event as a test sees it.
#[derive(Clone, Debug, Serialize)]
pub struct HookView {
    /// Its id here.
    pub id: HookId,
    /// Who sends it.
    pub provider: Provider,
    /// The provider's payment.
    pub payment_id: String,
    /// The event, as in [`crate::GtHook::event_id`].
    pub event_id: String,
    /// Where it goes.
    pub url: String,
    /// Where it stands.
    pub state: HookState,
    /// Attempts so far.
    pub attempts: u32,
    /// The status of the last answer.
    pub last_status: Option<u16>,
    /// The bytes that are sent.
    #[serde(skip)]
    pub body: Bytes,
}

/// How webhooks go wrong or astray. The default does nothing.
#[derive(Clone, Debug, Default)]
pub struct HookKnobs {
    /// So many extra copies of every event.
    pub duplicate: u32,
    /// In [`crate::Delivery::Auto`]: wait before the first attempt, milliseconds (not divided by the time scale).
    pub delay_ms: u64,
    /// In [`crate::Delivery::Auto`]: a random wait below this on top, milliseconds. Events overtake each other.
    pub jitter_ms: u64,
    /// Drop the next so many events.
    pub drop_next: u32,
    /// Drop every event of this share of all payments, 0 to 100. The payment's id decides, so a payment loses all or none.
    pub drop_percent: u8,
    /// Say this in `X-Forwarded-For` in place of the provider's genuine address.
    pub forwarded_for: Option<String>,
}

/// An event before it is in the outbox.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) provider: Provider,
    pub(crate) payment_id: String,
    pub(crate) event_id: String,
    /// The address that the payment names; YooKassa has one for all.
    pub(crate) url: Option<String>,
    pub(crate) body: Bytes,
}

/// An authentic webhook as bytes, to be sent by whoever likes.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Who would send it.
    pub provider: Provider,
    /// The event, as in [`crate::GtHook::event_id`].
    pub event_id: String,
    /// Where it would go, if that is known.
    pub url: Option<String>,
    /// Headers that belong to it.
    pub headers: Vec<(String, String)>,
    /// The body, signed where the provider signs.
    pub body: Bytes,
}

/// All events, in the order they came; the id is the place, counted from one.
#[derive(Default)]
pub(crate) struct Outbox {
    hooks: Vec<HookView>,
    pub(crate) knobs: HookKnobs,
}

impl Outbox {
    pub(crate) fn get(&self, id: HookId) -> Option<&HookView> {
        self.hooks.get(usize::try_from(id.0.checked_sub(1)?).ok()?)
    }

    pub(crate) fn get_mut(&mut self, id: HookId) -> Option<&mut HookView> {
        self.hooks.get_mut(usize::try_from(id.0.checked_sub(1)?).ok()?)
    }

    pub(crate) fn is_pending(&self, id: HookId) -> bool {
        self.get(id).is_some_and(|hook| hook.state == HookState::Pending)
    }

    pub(crate) fn set_state(&mut self, id: HookId, state: HookState) {
        if let Some(hook) = self.get_mut(id) {
            hook.state = state;
        }
    }

    pub(crate) fn views(&self) -> Vec<HookView> {
        self.hooks.clone()
    }

    pub(crate) fn pending(&self) -> Vec<HookId> {
        self.hooks.iter().filter(|hook| hook.state == HookState::Pending).map(|hook| hook.id).collect()
    }

    /// The newest event of a payment.
    pub(crate) fn last_of(&self, provider: Provider, payment_id: &str) -> Option<HookId> {
        let same = |hook: &&HookView| hook.provider == provider && hook.payment_id == payment_id;
        self.hooks.iter().rev().find(same).map(|hook| hook.id)
    }

    /// Puts an event in, with the knobs applied; the ids that are to be sent.
    pub(crate) fn put(&mut self, event: &Event, url: &str) -> Vec<HookId> {
        let lost = self.is_lost(&event.payment_id);
        let mut ids = Vec::new();
        for _ in 0..=self.knobs.duplicate {
            let id = HookId(self.hooks.len() as u64 + 1);
            self.hooks.push(HookView {
                id,
                provider: event.provider,
                payment_id: event.payment_id.clone(),
                event_id: event.event_id.clone(),
                url: url.to_owned(),
                state: if lost { HookState::Dropped } else { HookState::Pending },
                attempts: 0,
                last_status: None,
                body: event.body.clone(),
            });
            ids.push(id);
        }
        if lost { Vec::new() } else { ids }
    }

    fn is_lost(&mut self, payment_id: &str) -> bool {
        if self.knobs.drop_next > 0 {
            self.knobs.drop_next -= 1;
            return true;
        }
        let digest = Sha256::digest(payment_id);
        let number = u32::from(digest[0]) * 256 + u32::from(digest[1]);
        number % 100 < u32::from(self.knobs.drop_percent)
    }
}
