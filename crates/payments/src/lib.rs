//! YooKassa, Heleket, CrystalPay, Telegram Stars: verify, parse, create, ask, refund.
//!
//! A [`Rail`] is one configured account. It builds requests and reads answers; it opens no socket, reads no clock and keeps no state, so
//! whoever calls it decides when to send, how long to wait and what to repeat. Two rules hold everywhere:
//!
//! - a webhook becomes a [`Hint`], which says where to look and never what to believe; only an answer read by [`Rail::asked`] or
//!   [`Rail::listed`] becomes a [`Seen`];
//! - money is read from the literal text of an answer, never through a binary float.
//!
//! Errors are sorted by what the caller may do next, see [`CallError`]. Secrets are held in [`Secret`], which does not print.

mod answer;
mod crystalpay;
mod error;
mod heleket;
mod hint;
mod json;
mod payment;
mod provider;
mod rail;
mod request;
mod secret;
mod source;
pub mod stars;
mod yookassa;

pub use crystalpay::{CrystalPay, DEFAULT_API_URL as CRYSTALPAY_API_URL, DEFAULT_NETWORKS as CRYSTALPAY_NETWORKS};
pub use error::{CallError, ConfigError, Unsupported};
pub use heleket::{DEFAULT_API_URL as HELEKET_API_URL, DEFAULT_NETWORKS as HELEKET_NETWORKS, Heleket};
pub use hint::{Hint, Rejected, Subject};
pub use payment::{
    Created, Line, NewPayment, NewRefund, Page, PaymentRef, RefundPage, RefundState, Seen, SeenRefund, SeenState,
    WhichRefunds,
};
pub use provider::{Provider, UnknownProvider};
pub use rail::Rail;
pub use request::BaseUrl;
pub use secret::Secret;
pub use stars::Stars;
pub use yookassa::{
    DEFAULT_API_URL as YOOKASSA_API_URL, DEFAULT_NETWORKS as YOOKASSA_NETWORKS, ReceiptSettings, YooKassa,
};

/// A request ready to be sent. The body is final: for a signed call these very bytes must go out.
pub type Request = http::Request<Vec<u8>>;

/// An answer as it came, whatever its status.
pub type Response = http::Response<Vec<u8>>;
