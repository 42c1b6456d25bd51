//! Subscriptions: for how long somebody has access to the VPN, what was paid for it, and what they are told about it.
//!
//! A subscription is time on a number of devices. It begins as a trial, by a sale or by the owner's hand; each of these adds
//! a *period*, and a refund takes a part of one back. Its state follows the time: a job of its own ([`SubscriptionClock`])
//! runs at each moment when something is due, and at no other. Peers, keys and addresses are the business of [`crate::vpn`]:
//! here they are opened and closed.
//!
//! Who holds several rows holds them in this order: the order, its payment, the customer, the subscription, then what is the
//! server's.

pub mod by_hand;
mod clock;
mod deliver;
pub mod flows;
pub mod http;
mod model;
pub mod refund;
mod remind;
pub mod sell;
mod sql;
pub mod trial;
pub mod view;

pub use clock::SubscriptionClock;
pub use deliver::{HandOverFiles, Step};
pub use model::*;
pub use sql::STATEMENTS;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<SubscriptionClock>().with::<HandOverFiles>()
}
