//! Retention: what only takes room goes when it is old, as the owner set it.
//!
//! The bodies of ended notices are emptied; their rows stay with their keys and hashes, because they prove what was
//! acknowledged and keep an old repeat from being new. Rows of jobs that are done go only for the kinds in [`FORGOTTEN`], and of
//! messages only what the bot answered and what customers wrote to the owner.
//! Money, goods, what was told of them, the owner's log and the history are never touched.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_kernel::retention::{Piece, empty_bodies, forget_jobs};

use crate::Shop;
use crate::audit::{FreshAudit, NightAudit};
use crate::bot::WorkUpdate;
use crate::checkout::{ConfirmPayment, ResolveHint, SweepProvider};
use crate::events::DeliverEvent;
use crate::messages::{self, DeliverMessage};
use crate::orders::{ExpireOrder, HandOver, ServeAccess, ServeWaiting};
use crate::shop::Lanes;
use crate::subscriptions::{HandOverFiles, SubscriptionClock};
use crate::vpn::{Apply, ReadTraffic, ReleaseAddresses};

/// Kinds whose rows may go once they are done, each because its slot is never written again, or may be without harm.
///
/// Payments, orders, messages, events and notices are rows of their own with keys of their own, which stay: the job of each is
/// written once with it, and looking into a notice twice changes nothing. An update and an answer to it have rows of their own for
/// longer than Telegram repeats one. A tick and a minute do not come back, and three kinds
/// have no slot at all. A change of a VPN server is brought about once by its number, and a clock of a subscription has a number
/// of its own; both only grow.
///
/// What is not here stays for ever: `owner.alert`, whose slot is what tells an alert once; `refund.find`, whose slot says that
/// this sum was asked about; `refund.run`, `referral.reward` and `safety.reconcile`, which move money and are few; and those of
/// campaigns, which are as few as campaigns.
pub const FORGOTTEN: &[&str] = &[
    ConfirmPayment::KIND,
    ResolveHint::KIND,
    DeliverMessage::KIND,
    WorkUpdate::KIND,
    DeliverEvent::KIND,
    ExpireOrder::KIND,
    ServeWaiting::KIND,
    HandOver::KIND,
    SweepProvider::KIND,
    ServeAccess::KIND,
    SubscriptionClock::KIND,
    HandOverFiles::KIND,
    Apply::KIND,
    ReadTraffic::KIND,
    ReleaseAddresses::KIND,
    FreshAudit::KIND,
    NightAudit::KIND,
    Retention::KIND,
];

/// Rows that one transaction looks at: who waits for the writer waits for milliseconds.
const PIECE: i64 = 500;
/// Pieces of one night. A shop that begins to forget after years takes a few nights.
const PIECES_AT_MOST: usize = 2_000;

/// Does the forgetting of one night.
#[derive(Debug, Serialize, Deserialize)]
pub struct Retention {
    /// The tick, in milliseconds.
    pub tick: i64,
}

impl Job for Retention {
    type Context = Shop;
    const KIND: &'static str = "retention";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(60), Duration::from_secs(3600), 5);

    fn slot(&self) -> Option<String> {
        Some(self.tick.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let now = shop.now();
        let bodies = match shop.rules.bodies_kept {
            Some(kept) => bodies(shop, now - kept).await?,
            None => 0,
        };
        let jobs = match shop.rules.jobs_kept {
            Some(kept) => jobs(shop, now - kept).await?,
            None => 0,
        };
        let answers = match shop.rules.jobs_kept {
            Some(kept) => answers(shop, now - kept).await?,
            None => 0,
        };
        let ended = shop.store.write(Self::KIND, move |tx| claim.finish(tx)).await?;
        if bodies + jobs + answers > 0 {
            tracing::info!(bodies, jobs, answers, "emptied old notices and forgot old jobs and answers");
        }
        Ok(ended)
    }
}

/// Empties the bodies of notices that came before `before`; answers how many.
async fn bodies(shop: &Shop, before: Time) -> Result<u64, JobError> {
    let mut changed = 0;
    for _ in 0..PIECES_AT_MOST {
        let piece: Piece = shop.store.write("retention.inbox", move |tx| empty_bodies(tx, before, PIECE)).await?;
        changed += piece.changed;
        if !piece.more {
            break;
        }
    }
    Ok(changed)
}

/// Forgets jobs that were written before `before` and are done; answers how many.
async fn jobs(shop: &Shop, before: Time) -> Result<u64, JobError> {
    let mut changed = 0;
    for _ in 0..PIECES_AT_MOST {
        let piece: Piece =
            shop.store.write("retention.jobs", move |tx| forget_jobs(tx, FORGOTTEN, before, PIECE)).await?;
        changed += piece.changed;
        if !piece.more {
            break;
        }
    }
    Ok(changed)
}

/// Forgets what the bot answered before `before`, and what customers wrote to the owner; answers how many messages that were.
async fn answers(shop: &Shop, before: Time) -> Result<u64, JobError> {
    let mut changed = 0;
    for _ in 0..PIECES_AT_MOST {
        let piece: Piece = shop
            .store
            .write("retention.messages", move |tx| messages::flows::forget_answers(tx, before, PIECE))
            .await?;
        changed += piece.changed;
        if !piece.more {
            break;
        }
    }
    Ok(changed)
}
