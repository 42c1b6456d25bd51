//! Customers: people known by their Telegram id.
//!
//! A customer comes to be with the first order. Who sent them is remembered then and never changes; contact data may be
//! filled in later and is never emptied by who leaves it out.

pub mod flows;
pub mod http;
mod model;
mod sql;

pub use model::*;
pub use sql::STATEMENTS;
