//! The catalog: what is on sale, and the units of stock that stand behind it.
//!
//! A unit is a secret worth money: a key, a code, an account. It comes in once (its fingerprint is unique over all
//! imports), is held by one line of an order at a time, and reaches one buyer. Who holds it is decided by one statement,
//! never by a look before it.

pub mod flows;
mod goods;
pub mod http;
mod model;
mod offer;
mod sql;

pub use goods::{Goods, Imported};
pub use model::*;
pub use offer::{Change, NewProduct};
pub use sql::STATEMENTS;
