//! From a verified webhook to a notice in the inbox.

use serde::{Deserialize, Serialize};

use semel_kernel::inbox::{self, InboxId, IntakeOptions, Notice};
use semel_kernel::jobs::{self, Dead, Job};
use semel_kernel::store::{StoreError, Tx};
use semel_payments::{Hint, Provider, Rail, Subject};

use super::{ConfirmPayment, PaymentId, ResolveHint};
use crate::shop::Lanes;
use crate::{Error, Shop};

/// Notices about one payment that are looked at together; the oldest come first.
const NOTICES_AT_MOST: i64 = 1000;

/// What a notice says, as its row keeps it: enough to ask the provider, nothing to believe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Says {
    /// Which provider.
    pub provider: Provider,
    /// The payment's id there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The refund's id there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_id: Option<String>,
    /// Our payment id as it was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<String>,
    /// The state it claims.
    pub state: String,
    /// The sum it claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
}

/// The notice that `hint` becomes.
pub fn notice(rail: &Rail, hint: Hint, body: Vec<u8>, headers: String, peer: Option<String>) -> Notice {
    let mut says = Says {
        provider: rail.provider(),
        provider_id: None,
        refund_id: None,
        ours: None,
        state: hint.says_state,
        amount: hint.says_amount,
    };
    let mut subject = None;
    match hint.subject {
        Subject::Payment { provider_id, ours, .. } => {
            subject = ours.as_deref().and_then(PaymentId::parse).map(|id| id.to_string());
            (says.provider_id, says.ours) = (Some(provider_id), ours);
        }
        Subject::Refund { refund_id, provider_id } => {
            (says.provider_id, says.refund_id) = (Some(provider_id), Some(refund_id));
        }
        Subject::Other => {}
    }
    Notice {
        source: rail.provider().as_str().into(),
        account: rail.merchant().into(),
        event_id: hint.event_id,
        event: hint.event,
        subject,
        says: serde_json::to_string(&says).unwrap_or_default(),
        body,
        headers,
        peer,
        verified: true,
    }
}

/// What a notice sets in motion in this shop.
pub fn intake_options() -> IntakeOptions {
    IntakeOptions {
        pull_kind: ConfirmPayment::KIND,
        resolve_kind: ResolveHint::KIND,
        lane: Lanes::MONEY,
        attempts: ResolveHint::RETRY.attempts,
    }
}

/// Makes a waiting notice be looked at anew, by a job of its own.
pub fn look_again(tx: &mut Tx, shop: &Shop, notice: &InboxId) -> Result<(), Error> {
    Ok(resolve(tx, shop, notice)?)
}

fn resolve(tx: &mut Tx, shop: &Shop, notice: &InboxId) -> Result<(), StoreError> {
    let now = tx.now();
    // A resolving job of this notice may have ended before: its slot is taken for ever, so the new one says when.
    let job = ResolveHint { notice: notice.clone(), again: Some(now.millis()) };
    jobs::enqueue(tx, &job, now, &shop.chance)?;
    Ok(())
}

/// Sees to the notices that a job which became a dead letter leaves waiting. Belongs into the transaction that buries the
/// job; changes nothing for jobs of other kinds.
///
/// The notice of a [`ResolveHint`] is quarantined: the worker was lost in the last attempt, or never came as far as
/// ending it. A replay of the notice or a retry of the job looks again and overrules that. The notices that had pulled a
/// [`ConfirmPayment`] are each looked into by a job of its own, as if they had found none; the newest also when it has
/// ended, because a repeat of it leaves no trace but the run that it pulled, and that may be the one that died.
pub fn buried(tx: &mut Tx, shop: &Shop, dead: &Dead) -> Result<(), StoreError> {
    let (resolving, confirming) = (dead.kind == ResolveHint::KIND, dead.kind == ConfirmPayment::KIND);
    if !resolving && !confirming {
        return Ok(());
    }
    let slot = jobs::why(tx, &dead.job)?.and_then(|(job, _)| job.slot).unwrap_or_default();
    if confirming {
        let about = inbox::about(tx, &slot, NOTICES_AT_MOST)?;
        let newest = about.last().map(|notice| &notice.id);
        for notice in about.iter().filter(|notice| notice.state == "received" || Some(&notice.id) == newest) {
            resolve(tx, shop, &notice.id)?;
        }
        return Ok(());
    }
    // A payload may be unreadable; the slot begins with the notice's id all the same.
    let Some(notice) = slot.split(':').next().and_then(InboxId::parse) else { return Ok(()) };
    inbox::end(tx, &notice, "quarantined", Some(&format!("the job that looks into it gave up: {}", dead.error)))
}

/// Ends the quarantined notices about a payment that was asked about since: the asking answered them, too.
pub fn overrule(tx: &mut Tx, payment: &PaymentId) -> Result<(), StoreError> {
    for notice in inbox::about(tx, payment.as_str(), NOTICES_AT_MOST)? {
        if notice.state == "quarantined" && inbox::reopen(tx, &notice.id)? {
            inbox::end(tx, &notice.id, "applied", None)?;
        }
    }
    Ok(())
}
