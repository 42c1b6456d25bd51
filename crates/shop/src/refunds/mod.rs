//! Refunds: money back to the customer's balance at once, or to the provider by a keyed call.
//!
//! A refund to a provider lives as a row and a job until the provider says how it ended. What the provider refunded
//! without us (in its own cabinet) is booked once, whichever way we learn of it: a notice, its list, a look at the payment.

mod begin;
mod by_hand;
mod end;
mod find;
pub mod flows;
mod look;
mod model;
mod outside;
mod rows;
mod run;
mod sql;
mod topup;

pub use find::FindRefunds;
pub use model::*;
pub use run::RunRefund;
pub use sql::STATEMENTS;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<RunRefund>().with::<FindRefunds>()
}
