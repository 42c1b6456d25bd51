//! Payments as the sandbox keeps them: one record for all providers; each provider's file knows its words and its wire form.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{amount, clock};

/// A payment provider of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Cards and the like, for roubles.
    Yookassa,
    /// Crypto; invoices may be paid late, short and over.
    Heleket,
    /// Crypto; callbacks prove the id only.
    CrystalPay,
}

impl Provider {
    /// All of them.
    pub const ALL: [Provider; 3] = [Provider::Yookassa, Provider::Heleket, Provider::CrystalPay];

    /// The name in paths, tables and event ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Yookassa => "yookassa",
            Provider::Heleket => "heleket",
            Provider::CrystalPay => "crystalpay",
        }
    }

    /// The path of its API below the sandbox's address.
    pub(crate) fn base_path(self) -> &'static str {
        match self {
            Provider::Yookassa => "/yookassa/v3",
            Provider::Heleket => "/heleket",
            Provider::CrystalPay => "/crystalpay/v3",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = PayError;

    fn from_str(text: &str) -> Result<Self, PayError> {
        let same = |provider: &Provider| provider.as_str() == text;
        Provider::ALL.into_iter().find(same).ok_or_else(|| PayError::Provider(text.to_owned()))
    }
}

/// Why the customer's side of a payment could not move.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// No such provider.
    #[error("there is no provider {0:?}: say yookassa, heleket or crystalpay")]
    Provider(String),
    /// No such payment.
    #[error("{provider} knows no payment {id}")]
    Unknown {
        /// The provider asked.
        provider: Provider,
        /// The id asked for.
        id: String,
    },
    /// In this state the payment does not go that way.
    #[error("payment {id} is {status} and cannot go that way any more")]
    Over {
        /// The payment.
        id: String,
        /// Its state in the provider's words.
        status: String,
    },
    /// The sum cannot be read in the payment's currency.
    #[error("{0:?} is no positive sum in the payment's currency")]
    Amount(String),
}

/// What the customer, or the provider for the customer, does with a payment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    /// Pays this sum, or what is still missing.
    Pay(Option<i64>),
    /// The payment is refused.
    Decline,
    /// The time to pay runs out.
    Expire,
    /// The money is seen but not final.
    Hold,
}

/// A payment at a provider.
#[derive(Clone)]
pub(crate) struct Payment {
    pub(crate) provider: Provider,
    pub(crate) id: String,
    /// The shop's own id in `metadata`, `order_id` or `extra`.
    pub(crate) ours: Option<String>,
    pub(crate) currency: String,
    /// Decimals of the smallest unit.
    pub(crate) scale: u32,
    pub(crate) asked: i64,
    /// The asked sum as the shop wrote it.
    pub(crate) asked_text: String,
    /// In the provider's words.
    pub(crate) status: String,
    /// What the customer sent, final or not.
    pub(crate) received: i64,
    /// What of it is final.
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
    pub(crate) callback_url: Option<String>,
    /// The pay page.
    pub(crate) url: String,
    pub(crate) created_at: i64,
    pub(crate) changed_at: i64,
    pub(crate) finished_at: Option<i64>,
    pub(crate) expires_at: i64,
    /// The chain transaction, once the customer paid.
    pub(crate) txid: Option<String>,
    /// YooKassa's party and reason of a cancellation.
    pub(crate) cancelled_by: Option<(&'static str, &'static str)>,
    /// What the shop sent when it made the payment, without credentials.
    pub(crate) request: Map<String, Value>,
}

impl Payment {
    /// A payment that nobody has paid yet.
    pub(crate) fn open(provider: Provider, id: String, currency: &str, asked: i64, asked_text: &str) -> Payment {
        let now = clock::now_ms();
        Payment {
            provider,
            id,
            ours: None,
            currency: currency.to_owned(),
            scale: amount::scale(currency),
            asked,
            asked_text: asked_text.to_owned(),
            status: String::new(),
            received: 0,
            captured: 0,
            refunded: 0,
            callback_url: None,
            url: String::new(),
            created_at: now,
            changed_at: now,
            finished_at: None,
            expires_at: now + 3_600_000,
            txid: None,
            cancelled_by: None,
            request: Map::new(),
        }
    }

    pub(crate) fn over(&self) -> PayError {
        PayError::Over { id: self.id.clone(), status: self.status.clone() }
    }

    /// A text member of the shop's request.
    pub(crate) fn asked_for(&self, name: &str) -> Option<&str> {
        self.request.get(name).and_then(Value::as_str)
    }

    /// The customer's chat, if the shop wrote a Telegram id into the payment.
    pub(crate) fn chat(&self) -> Option<i64> {
        const NAMES: [&str; 5] = ["telegram_id", "tg_user", "chat_id", "customer", "user_id"];
        let metadata = self.request.get("metadata").and_then(Value::as_object).unwrap_or(&self.request);
        NAMES.iter().find_map(|name| match metadata.get(*name)? {
            Value::String(text) => text.parse().ok(),
            other => other.as_i64(),
        })
    }

    pub(crate) fn view(&self) -> PaymentView {
        PaymentView {
            provider: self.provider,
            id: self.id.clone(),
            ours: self.ours.clone(),
            status: self.status.clone(),
            amount: amount::fixed(self.asked, self.scale, 0),
            amount_minor: self.asked,
            currency: self.currency.clone(),
            captured: self.captured,
            refunded: self.refunded,
            callback_url: self.callback_url.clone(),
            url: self.url.clone(),
        }
    }
}

/// A payment as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PaymentView {
    /// The provider.
    pub provider: Provider,
    /// The provider's id.
    pub id: String,
    /// The shop's own id: YooKassa's `metadata.payment_id` (else `metadata.order_id`), Heleket's `order_id`, CrystalPay's `extra`.
    pub ours: Option<String>,
    /// The state in the provider's words.
    pub status: String,
    /// The asked sum as decimal text.
    pub amount: String,
    /// The asked sum in smallest units.
    pub amount_minor: i64,
    /// Its currency.
    pub currency: String,
    /// Finally taken from the customer, smallest units.
    pub captured: i64,
    /// Given back, smallest units.
    pub refunded: i64,
    /// Where its webhooks go, if the payment says so itself.
    pub callback_url: Option<String>,
    /// The pay page.
    pub url: String,
}

/// A refund at YooKassa; the others keep only the sum.
#[derive(Clone)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) payment_id: String,
    pub(crate) amount: i64,
    pub(crate) created_at: i64,
    pub(crate) description: Option<String>,
}

/// All payments, in the order they were made.
#[derive(Default)]
pub(crate) struct Register {
    list: Vec<Payment>,
    by_id: HashMap<(Provider, String), usize>,
    by_ours: HashMap<(Provider, String), usize>,
    pub(crate) refunds: Vec<Refund>,
}

impl Register {
    pub(crate) fn insert(&mut self, payment: Payment) {
        let place = self.list.len();
        self.by_id.insert((payment.provider, payment.id.clone()), place);
        if let Some(ours) = &payment.ours {
            self.by_ours.insert((payment.provider, ours.clone()), place);
        }
        self.list.push(payment);
    }

    pub(crate) fn get(&self, provider: Provider, id: &str) -> Option<&Payment> {
        self.list.get(*self.by_id.get(&(provider, id.to_owned()))?)
    }

    pub(crate) fn get_mut(&mut self, provider: Provider, id: &str) -> Option<&mut Payment> {
        let place = *self.by_id.get(&(provider, id.to_owned()))?;
        self.list.get_mut(place)
    }

    /// The newest payment that carries the shop's id.
    pub(crate) fn by_ours(&self, provider: Provider, ours: &str) -> Option<&Payment> {
        self.list.get(*self.by_ours.get(&(provider, ours.to_owned()))?)
    }

    /// Oldest first.
    pub(crate) fn of(&self, provider: Provider) -> impl DoubleEndedIterator<Item = &Payment> {
        self.list.iter().filter(move |payment| payment.provider == provider)
    }

    /// Newest first, of all providers.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Payment> {
        self.list.iter().rev()
    }
}
