//! Orders: a frozen quote, stock held until a deadline, and where each order stands.
//!
//! An order is made in one transaction with its held stock, its payment and the jobs that look after both. Its state
//! changes only along [`TRANSITIONS`], each change once, each with a row in the history.

mod access;
mod deadline;
mod end;
pub mod flows;
mod hand_over;
pub mod http;
mod make;
mod model;
mod paths;
mod pay;
mod sql;
mod view;
mod waiting;
mod withheld;

pub use access::ServeAccess;
pub use deadline::ExpireOrder;
pub use model::*;
pub use sql::STATEMENTS;
pub use view::{OrderView, PaymentView};
pub use waiting::ServeWaiting;
pub use withheld::HandOver;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<ExpireOrder>().with::<ServeWaiting>().with::<ServeAccess>().with::<HandOver>()
}
