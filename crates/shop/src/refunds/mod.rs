//! Refunds: money back to the customer's balance at once, or to the provider by a keyed call.
//!
//! A refund to a provider lives as a row and a job until the provider says how it ended. What the provider refunded
//! without us (in its own cabinet) is booked when a notice tells us to look.

pub mod flows;
mod model;
mod run;
mod sql;

pub use model::*;
pub use run::RunRefund;
pub use sql::STATEMENTS;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<RunRefund>()
}
