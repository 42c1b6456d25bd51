//! Checkout: payments, from the link to the money in the books.
//!
//! Each payment has one job, [`ConfirmPayment`], that lives until the payment is final. It asks the provider with
//! back-off and is pulled forward by every hint, so no delivery depends on a webhook. What the provider's API says is
//! settled in one transaction with the end of the asking; a repeat changes nothing, because a provider's payment is
//! captured once under its business key. Every confirmed payment is captured whatever the order's state; a policy
//! decides where its money goes.

mod confirm;
pub mod flows;
pub mod hints;
mod model;
mod resolve;
mod scene;
mod settle;
mod sql;
pub(crate) mod sweep;
pub mod talk;

pub use confirm::ConfirmPayment;
pub use model::*;
pub use resolve::ResolveHint;
pub use sql::STATEMENTS;
pub use sweep::SweepProvider;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<ConfirmPayment>().with::<ResolveHint>().with::<SweepProvider>()
}
