//! Safe mode: after a restore of an older backup nothing is sold, handed over or paid out until the owner says so.
//!
//! A backup does not know what happened after it. Money may have come, goods may have gone, refunds may have been made. So
//! a restored database begins in safe mode. Webhooks are taken and payments are booked as always; new orders and links are
//! refused; goods, refunds and events wait; each rail is reconciled by its provider's own list, or by hand where there is
//! none. Stock that the backup calls available stays held back, also after safe mode, until the owner releases it.
//!
//! Safe mode is a row in the kernel's `marks`: it begins only with a restore, when no program runs on the database, and it
//! ends only by the owner's hand. Each process remembers what it read ([`Safety`]) and looks again only while that says
//! "on", so a shop that was never restored pays nothing for it.

pub mod flows;
mod model;
mod reconcile;
mod sql;

pub use model::*;
pub use reconcile::Reconcile;
pub use sql::STATEMENTS;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<Reconcile>()
}
