//! Products, the two words that say how each is sold, and how many units there are.

use semel_kernel::clock::Time;
use semel_kernel::store::{FromValue, StoreError, Value};
use semel_money::Amount;
use serde::{Deserialize, Serialize};

use crate::orders::ItemId;

semel_kernel::id!(ProductId, "prd", "A product.");
semel_kernel::id!(UnitId, "unt", "One unit of stock: a key, a code, an account.");

/// What kind of thing a product is. The words are stored: never renamed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Each piece is a unit of stock.
    Stock,
    /// Money on the customer's balance: as much as it costs.
    Topup,
    /// Access to the VPN: for so long, on so many devices.
    Vpn,
}

impl Kind {
    /// The word in rows and requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Topup => "topup",
            Self::Vpn => "vpn",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Stock, Self::Topup, Self::Vpn].into_iter().find(|kind| kind.as_str() == word)
    }
}

impl FromValue for Kind {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        Self::parse(&word).ok_or(StoreError::Decode { wanted: "a kind of product", found: word })
    }
}

/// When a paid unit goes out. The words are stored: never renamed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// At once; what is not in stock is not sold.
    Instant,
    /// When there are units: sold without stock, with a promised time.
    MadeToOrder,
}

impl Delivery {
    /// The word in rows and requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::MadeToOrder => "made_to_order",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Instant, Self::MadeToOrder].into_iter().find(|delivery| delivery.as_str() == word)
    }
}

impl FromValue for Delivery {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let word = String::from_value(value)?;
        Self::parse(&word).ok_or(StoreError::Decode { wanted: "a manner of delivery", found: word })
    }
}

/// A product as it is offered now. Orders freeze their own copy of the quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// What customers read.
    pub title: String,
    /// More of it; may be empty.
    pub description: String,
    /// What kind of thing.
    pub kind: Kind,
    /// Instant or made to order; never changes.
    pub delivery: Delivery,
    /// How many seconds after payment a unit is promised; zero for instant delivery.
    pub promise_s: i64,
    /// The price of one; positive.
    pub price: Amount,
    /// Whether it is on sale.
    pub active: bool,
    /// Grows with every change, from 1.
    pub version: i64,
    /// When it was made.
    pub created_at: Time,
    /// How many seconds of access one is; only for the kind `vpn`.
    pub duration_s: Option<i64>,
    /// For how many devices; only for the kind `vpn`.
    pub devices: Option<i64>,
    /// Units of it, where a view asked for them.
    pub stock: Option<Levels>,
}

/// How many units of a product there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Levels {
    /// On the shelf, to be sold.
    pub available: i64,
    /// On the shelf and not sold: held back after a restore until the owner releases them.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_back: i64,
    /// Held by an order, paid or not.
    pub held: i64,
    /// With their buyers.
    pub delivered: i64,
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_in_json_is_the_word_in_rows() {
        for kind in [Kind::Stock, Kind::Topup, Kind::Vpn] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
            assert_eq!(Kind::from_value(kind.as_str().into()), Ok(kind));
        }
        for delivery in [Delivery::Instant, Delivery::MadeToOrder] {
            assert_eq!(serde_json::to_value(delivery).unwrap(), delivery.as_str());
            assert_eq!(Delivery::parse(delivery.as_str()), Some(delivery));
            assert_eq!(Delivery::from_value(delivery.as_str().into()), Ok(delivery));
        }
    }

    #[test]
    fn an_unknown_word_in_a_row_is_an_error_that_quotes_it() {
        assert_eq!(Kind::parse("digest"), None);
        let error = Delivery::from_value("later".into()).unwrap_err();
        assert_eq!(error.to_string(), "expected a manner of delivery, found later");
    }
}

/// A unit that is held for a line of an order.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Held {
    /// The line.
    pub item: ItemId,
    /// The unit.
    pub unit: UnitId,
    /// The fingerprint of its content.
    pub content_hash: String,
}
