//! Telegram Stars: buying without leaving the chat.
//!
//! An order that is paid with Stars is an order *in* Stars: its quote, its payment, its books and its refunds are in the currency `XTR`,
//! so no sum is ever compared with one of another currency ([`Worth`] says how prices come to Stars). Its payment is a payment like any
//! other, with one `payment.confirm`; what differs is how it is opened and how it is asked about.
//!
//! - **The invoice** is a message of the bot, written in the transaction of its order and sent once by the sender (`invoice.rs`).
//! - **Before anybody pays**, Telegram asks whether they may and waits ten seconds. The answer is given by the intake, outside of any
//!   queue, from one bounded look at the database ([`may_pay`]). It credits nothing, and while the database is slow it is no. A yes is
//!   a row first, and the next one for the same invoice is a minute away: a double tap is charged once.
//! - **That somebody paid** comes as an update. The update is genuine (it came over the bot's own connection, or with the webhook's
//!   secret), but it is taken for a hint like every other notice: it becomes a row of the inbox that pulls `payment.confirm`
//!   (`hint.rs`), and that asks the bot's own list of transactions (`list.rs`). So there is one way of crediting, an update that
//!   is lost, repeated or torn changes nothing, and the hourly sweep of the same list finds what no update told.
//! - **The charge** (`telegram_payment_charge_id`) is the provider's id of the payment: the books take it once, for ever.
//! - **A refund** gives a charge back whole, to the person who paid. Telegram does that once for each charge, so the call may be repeated.

mod gate;
mod hint;
mod invoice;
mod list;
mod price;
mod sql;

pub use gate::{Refusal, may_pay};
pub use price::Worth;
pub use sql::STATEMENTS;

pub(crate) use hint::{Told, take};
pub(crate) use invoice::{is_over, send};
pub(crate) use list::{ask, ask_charge, keep, list};
pub(crate) use price::{fits, price_of};

/// What messages with an invoice are about.
pub const INVOICE: &str = "invoice";
