//! Events out: `order.paid`, `order.delivered`, `order.refunded` and others for who keeps the own bot.
//!
//! An event is a row, written in the transaction of what it tells about, with a job that posts it to the owner's
//! address after the Standard Webhooks specification. Its bytes are fixed when it is written; `webhook-id` is the same
//! in every try, so a receiver that keeps it handles each event once.

mod deliver;
pub mod flows;
mod model;
mod sign;
mod sql;

pub use deliver::DeliverEvent;
pub use model::EventId;
pub use sign::{key, sign};
pub use sql::STATEMENTS;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<DeliverEvent>()
}
