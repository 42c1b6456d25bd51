//! The customer's bot: a shop that is used by commands and buttons.
//!
//! Each update of Telegram is a row before it counts as received, and a job works it off ([`WorkUpdate`]): what it causes
//! commits together with its end, so an update that comes again does nothing. Answers are messages like all others.
//!
//! A button that only shows something names it (`model`'s doors). A button that does something is a row of its own, once
//! for one person (`intents`): ten presses make one order, and an old price buys nothing. Whatever comes back from a
//! customer's hands may be forged, so a door shows only the own things of whoever asks.

mod access;
mod account;
mod admin;
mod broadcast;
mod buy;
mod catalog;
mod dialogs;
pub mod flows;
mod intents;
mod job;
mod model;
mod orders;
mod owner_texts;
mod scene;
mod settings;
mod sql;
mod still;
mod support;
mod texts;

pub use flows::{Came, PressCame};
pub use job::WorkUpdate;
pub use sql::STATEMENTS;
pub use still::{Asked, SLOW, Still, Waiting, host_key, show as show_still, waiting};
pub use texts::commands;

use semel_kernel::jobs::Workers;

use crate::Shop;

/// What the bot's answers are about, as messages: they go before everything else.
pub const ANSWER: &str = "answer";

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<WorkUpdate>()
}
