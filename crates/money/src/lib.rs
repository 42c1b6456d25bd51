//! Amounts in smallest units, currencies, basis points, rounding.
//!
//! Money is a whole number of a currency's smallest unit, kept beside the currency. It is read from and printed as decimal text and
//! never passes through a binary float. Whatever cannot be said exactly (too many digits, another currency, more than 64 bits hold)
//! is an error that names the values; nothing here wraps, saturates or rounds without being told how.

mod amount;
mod currency;
mod rounding;

pub use amount::{Amount, AmountError};
pub use currency::{Currency, UnknownCurrency};
pub use rounding::{BasisPoints, Rounding};
