//! Webhooks on their way: who sends them from where, what counts as delivered, and each provider's schedule of retries.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the fake world has its own plain HTTP client: providers do not send through the program's outbound room"
)]

use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::options::{Delivery, Options};
use crate::outbox::{Event, HookId, HookOutcome, HookState, HookView, Notice};
use crate::payments::Provider;
use crate::truth::GtHook;
use crate::world::{World, lock};

/// CrystalPay waits this long for an answer; the others do not say and get the same.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Lower-case SHA-256.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An address of the provider's published networks.
fn genuine_address(provider: Provider) -> &'static str {
    match provider {
        Provider::Yookassa => "185.71.76.5",
        Provider::Heleket => "31.133.220.8",
        Provider::CrystalPay => "193.141.53.171",
    }
}

/// Whether the provider takes this status as "delivered".
fn is_acknowledged(provider: Provider, status: u16) -> bool {
    match provider {
        Provider::Yookassa => status == 200,
        Provider::Heleket => (200..300).contains(&status),
        Provider::CrystalPay => matches!(status, 200 | 429),
    }
}

/// The wait after so many attempts, `waited` in all so far; nothing when the provider gives up.
///
/// CrystalPay documents N minutes after N attempts, ten at most. YooKassa documents 24 hours and no intervals, Heleket nothing:
/// both are assumed to start fast and settle at five minutes.
fn wait_after(provider: Provider, attempts: u32, waited: Duration) -> Option<Duration> {
    let seconds = match (provider, attempts) {
        (Provider::CrystalPay, 10..) => return None,
        (Provider::CrystalPay, attempts) => u64::from(attempts) * 60,
        (_, 1) => 10,
        (_, 2) => 30,
        (_, 3) => 60,
        _ => 300,
    };
    if waited >= DAY { None } else { Some(Duration::from_secs(seconds)) }
}

/// The client that sends webhooks.
pub(crate) struct Sender(reqwest::Client);

impl Sender {
    /// On a machine without root certificates it speaks plain HTTP only.
    pub(crate) fn new() -> io::Result<Sender> {
        // A second installation in one process is refused and changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = || reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(ANSWER_TIMEOUT);
        builder()
            .build()
            .or_else(|_| builder().tls_certs_only(Vec::<reqwest::Certificate>::new()).build())
            .map(Sender)
            .map_err(io::Error::other)
    }
}

impl World {
    /// Where this provider's webhooks go: the payment's own address, or the one set at YooKassa.
    fn address_of(&self, event: &Event) -> Option<String> {
        match event.provider {
            Provider::Yookassa => lock(&self.yookassa_hook_url).clone(),
            _ => event.url.clone(),
        }
    }

    /// Puts an event into the outbox; in automatic mode it is on its way.
    pub(crate) fn queue(&self, event: Event) -> Vec<HookId> {
        let Some(url) = self.address_of(&event) else { return Vec::new() };
        let ids = lock(&self.hooks).put(&event, &url);
        if self.options.mode == Delivery::Auto {
            for id in &ids {
                self.spawn(deliver(self.clone(), *id));
            }
        }
        ids
    }

    pub(crate) fn drop_hook(&self, id: HookId) {
        lock(&self.hooks).set_state(id, HookState::Dropped);
    }

    /// One attempt, whatever the state of the event; its outcome is logged if an answer came.
    pub(crate) async fn send_hook(&self, id: HookId) -> HookOutcome {
        let found = {
            let mut outbox = lock(&self.hooks);
            let forwarded = outbox.knobs.forwarded_for.clone();
            outbox.get_mut(id).map(|hook| {
                hook.attempts += 1;
                (hook.clone(), forwarded)
            })
        };
        let Some((hook, forwarded)) = found else { return HookOutcome { status: None, took_ms: 0 } };
        let headers = headers_of(hook.provider, forwarded);
        let (outcome, sent_at) = self.post(&hook.url, &headers, hook.body.clone()).await;
        let Some(status) = outcome.status else { return outcome };
        self.answered(&hook, status, sent_at, outcome.took_ms);
        outcome
    }

    /// Notes an attempt that somebody else made.
    pub(crate) fn told(&self, id: HookId, status: u16) {
        let found = lock(&self.hooks).get_mut(id).map(|hook| {
            hook.attempts += 1;
            hook.clone()
        });
        if let Some(hook) = found {
            self.answered(&hook, status, clock::now_ms(), 0);
        }
    }

    fn answered(&self, hook: &HookView, status: u16, sent_at: i64, took_ms: u64) {
        lock(&self.truth).hook(GtHook {
            provider: hook.provider,
            merchant: merchant(&self.options, hook.provider).to_owned(),
            event_id: hook.event_id.clone(),
            body_hash: sha256_hex(&hook.body),
            status,
            sent_at,
            answered_at: sent_at + i64::try_from(took_ms).unwrap_or(i64::MAX),
        });
        let mut outbox = lock(&self.hooks);
        if let Some(kept) = outbox.get_mut(hook.id) {
            kept.last_status = Some(status);
            if is_acknowledged(hook.provider, status) {
                kept.state = HookState::Delivered;
            }
        }
    }

    /// Posts any bytes where this provider's webhooks go. Not logged as truth: the provider never said it.
    pub(crate) async fn forge(&self, provider: Provider, headers: &[(&str, &str)], body: Bytes) -> HookOutcome {
        let url = match provider {
            Provider::Yookassa => lock(&self.yookassa_hook_url).clone(),
            _ => lock(&self.payments).of(provider).rev().find_map(|payment| payment.callback_url.clone()),
        };
        let Some(url) = url else { return HookOutcome { status: None, took_ms: 0 } };
        let forwarded = lock(&self.hooks).knobs.forwarded_for.clone();
        let mut all = headers_of(provider, forwarded);
        all.retain(|(name, _)| !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.post(&url, &all, body).await.0
    }

    pub(crate) async fn post(&self, url: &str, headers: &[(String, String)], body: Bytes) -> (HookOutcome, i64) {
        let mut request = self.sender.0.post(url).body(body);
        for (name, value) in headers {
            request = request.header(name.as_str(), value.as_str());
        }
        let sent_at = clock::now_ms();
        let answer = request.send().await;
        let took_ms = u64::try_from(clock::now_ms() - sent_at).unwrap_or(0);
        let status = match answer {
            Ok(answer) => {
                let status = answer.status().as_u16();
                // Read to the end, so that the connection can be used again; the body itself means nothing to a provider.
                drop(answer.bytes().await);
                Some(status)
            }
            Err(error) => {
                tracing::debug!(%error, "a webhook got no answer");
                None
            }
        };
        (HookOutcome { status, took_ms }, sent_at)
    }

    /// An event as bytes for somebody else to send.
    pub(crate) fn notice(&self, event: Event) -> Notice {
        let forwarded = lock(&self.hooks).knobs.forwarded_for.clone();
        Notice {
            provider: event.provider,
            url: self.address_of(&event),
            headers: headers_of(event.provider, forwarded),
            event_id: event.event_id,
            body: event.body,
        }
    }
}

/// Whose account the provider reports about.
pub(crate) fn merchant(options: &Options, provider: Provider) -> &str {
    match provider {
        Provider::Yookassa => &options.yookassa_shop_id,
        Provider::Heleket => &options.heleket_merchant_id,
        Provider::CrystalPay => &options.crystalpay_login,
    }
}

fn headers_of(provider: Provider, forwarded: Option<String>) -> Vec<(String, String)> {
    let forwarded = forwarded.unwrap_or_else(|| genuine_address(provider).to_owned());
    vec![("content-type".into(), "application/json".into()), ("x-forwarded-for".into(), forwarded)]
}

/// Sends an event until it is acknowledged, dropped, or the provider gives up.
async fn deliver(world: World, id: HookId) {
    let (provider, pause_ms) = {
        let outbox = lock(&world.hooks);
        let Some(hook) = outbox.get(id) else { return };
        (hook.provider, outbox.knobs.delay_ms + clock::up_to_ms(outbox.knobs.jitter_ms))
    };
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    let mut waited = Duration::ZERO;
    for attempts in 1.. {
        if !lock(&world.hooks).is_pending(id) {
            return;
        }
        world.send_hook(id).await;
        if !lock(&world.hooks).is_pending(id) {
            return;
        }
        let Some(wait) = wait_after(provider, attempts, waited) else { break };
        waited += wait;
        tokio::time::sleep(wait / world.options.time_scale.max(1)).await;
    }
    lock(&world.hooks).set_state(id, HookState::GivenUp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crystalpay_tries_ten_times_within_45_minutes() {
        let mut waited = Duration::ZERO;
        let mut attempts = 1;
        while let Some(wait) = wait_after(Provider::CrystalPay, attempts, waited) {
            waited += wait;
            attempts += 1;
        }
        assert_eq!((attempts, waited), (10, Duration::from_secs(45 * 60)));
    }

    #[test]
    fn yookassa_tries_for_a_day_and_takes_only_200() {
        assert_eq!(wait_after(Provider::Yookassa, 1, Duration::ZERO), Some(Duration::from_secs(10)));
        assert_eq!(wait_after(Provider::Yookassa, 400, DAY), None);
        assert!(!is_acknowledged(Provider::Yookassa, 204));
        assert!(is_acknowledged(Provider::Heleket, 204));
        assert!(is_acknowledged(Provider::CrystalPay, 429));
    }
}
