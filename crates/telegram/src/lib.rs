//! Telegram Bot API: requests, answers, error classes.
//!
//! This crate builds requests and reads answers. It opens no socket and knows no clock: whoever sends a request hands the
//! answer back to [`Bot::read`] or [`Bot::sent`], which say what is known now as an [`Outcome`]. Which message goes when is
//! what a [`Pacer`](pacer::Pacer) says; it waits for nothing itself.
//!
//! The Bot API has no idempotency key. An answer that is missing, cut off or a server error leaves the message's fate
//! open ([`Outcome::Unclear`]); every other outcome but [`Outcome::Ok`] means that nothing was sent.
//!
//! The address of every request holds the bot's token. Never log a [`Request`] or its address; everything else here
//! ([`Bot`], [`BotError`], the texts of an [`Outcome`]) is free of it.

mod answer;
mod bot;
mod cut;
mod entities;
mod invoice;
mod message;
mod methods;
mod multipart;
pub mod pacer;
mod refusals;
mod text;
mod update;

pub use answer::{Gone, Me, Outcome, Sent};
pub use bot::{Bot, BotError};
pub use cut::{cut_html, html_tags};
pub use entities::html_of;
pub use invoice::SendInvoice;
pub use message::{Button, File, ParseMode, Press, SendDocument, SendMessage, SendPhoto};
pub use methods::{ALLOWED_UPDATES, Batch, CALLBACK_TEXT_LIMIT, UPDATES_LIMIT};
pub use text::{CALLBACK_DATA_LIMIT, CAPTION_LIMIT, ENTITY_LIMIT, TEXT_LIMIT, html_escape, split_text, utf16_len};
pub use update::{Checkout, Command, Membership, Paid, Person, Pressed, Said, Update, UpdateError, What};

/// A call to the Bot API, ready to be sent. Its address holds the token: never log it.
pub type Request = http::Request<Vec<u8>>;

/// What came back, whole.
pub type Response = http::Response<Vec<u8>>;
