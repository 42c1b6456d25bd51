//! Messages to one chat each: to customers and to the owner.
//!
//! A message is a row, written in the transaction of its cause, with a job that sends it. The claimed job is the written
//! intent, so nothing is written between the claim and the call. Telegram has no key against doubles, so each message
//! says by its [`Class`] what happens when nobody told us whether it arrived: goods and notices about money go again
//! with the same content and the order's number in it, alerts never do. What stays untold is `unknown`, never guessed.
//!
//! Each call takes its turn at the bot's [`Pace`]: goods before news, a chat at its own pace, and silence where Telegram asks for it.
//!
//! A message of the class [`Class::Ordered`] has a place in the line of its chat and begins only when everything before it there has
//! ended. What is too long for one message follows in others, in order (`fit`). Whom nothing reaches is remembered for campaigns,
//! which leave them out; everything else is tried, and what arrives ends it.
//!
//! Goods are not copied into a message: they are read when it is sent, the same content every time. So is the file of a VPN
//! device; its QR picture and the how-to are messages of their own, each queued in the transaction that ends the one before.

mod fit;
pub mod flows;
pub mod http;
mod model;
mod pace;
mod send;
pub(crate) mod silence;
mod sql;
pub(crate) mod text;
mod verdict;
mod vpn;
mod vpn_text;

pub use model::*;
pub use pace::{Heard, NotNow, Pace, Quiet, Turn, lane_of};
pub(crate) use send::host_key;
pub use send::{DeliverMessage, under_pace_of};
pub(crate) use silence::LONGEST_SILENCE;
pub use silence::{allow_until, heard, hold_back, recall_silence};
pub use sql::STATEMENTS;
pub(crate) use text::{alert as alert_html, sum};

use semel_kernel::jobs::Workers;

use crate::Shop;

/// Teaches `workers` this feature's jobs.
pub fn jobs(workers: Workers<Shop>) -> Workers<Shop> {
    workers.with::<DeliverMessage>()
}
