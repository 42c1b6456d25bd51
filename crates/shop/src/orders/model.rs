//! An order's states, and what may follow what.

use semel_kernel::clock::Time;
use semel_money::{Amount, Currency};

use crate::catalog::{Delivery, Kind, ProductId};
use crate::customers::CustomerId;
use crate::subscriptions::SubscriptionId;

semel_kernel::id!(OrderId, "ord", "An order.");
semel_kernel::id!(ItemId, "itm", "One line of an order.");

/// Declares states as data: the words in rows, and the one table of `(from, event, to)`.
#[macro_export]
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$sdoc:meta])* $state:ident = $word:literal),* $(,)? }
     $(#[$tdoc:meta])* $table:ident { $($from:ident --$event:literal--> $to:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
        pub enum $name { $($(#[$sdoc])* #[serde(rename = $word)] $state),* }

        impl $name {
            /// All states.
            pub const ALL: &'static [$name] = &[$($name::$state),*];

            /// The word in rows and answers.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$state => $word),* }
            }

            /// Reads the word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$state),)* _ => None }
            }

            /// The event that leads from this state to `to`, if one does.
            pub fn event_to(self, to: Self) -> Option<&'static str> {
                $table.iter().find(|(from, _, t)| *from == self && *t == to).map(|(_, event, _)| *event)
            }
        }

        impl semel_kernel::store::FromValue for $name {
            fn from_value(value: semel_kernel::store::Value) -> Result<Self, semel_kernel::store::StoreError> {
                let word = <String as semel_kernel::store::FromValue>::from_value(value)?;
                Self::parse(&word).ok_or(semel_kernel::store::StoreError::Decode { wanted: concat!("a state of ", stringify!($name)), found: word })
            }
        }

        $(#[$tdoc])*
        pub const $table: &[($name, &str, $name)] = &[$(($name::$from, $event, $name::$to)),*];
    };
}

states! {
    /// Where an order stands.
    State {
        /// Waits for its money; stock is held.
        Pending = "pending",
        /// Paid; goods are on their way.
        Paid = "paid",
        /// Paid; something is made to order and not there yet.
        AwaitingStock = "awaiting_stock",
        /// Paid; some goods are delivered, others not yet.
        Partial = "partial",
        /// Everything is with the customer.
        Delivered = "delivered",
        /// The deadline passed without money.
        Expired = "expired",
        /// Called off before it was paid.
        Cancelled = "cancelled",
        /// A refund is on its way.
        RefundPending = "refund_pending",
        /// The money went back.
        Refunded = "refunded",
    }
    /// What may follow what. Code, tests, pages and the drawing in the docs read this table.
    TRANSITIONS {
        Pending --"money came"--> Paid,
        Pending --"deadline passed"--> Expired,
        Pending --"called off"--> Cancelled,
        Expired --"late money came, stock was left"--> Paid,
        Paid --"waits for stock"--> AwaitingStock,
        Paid --"goods delivered"--> Delivered,
        Paid --"some goods delivered"--> Partial,
        AwaitingStock --"some goods delivered"--> Partial,
        AwaitingStock --"goods delivered"--> Delivered,
        Partial --"goods delivered"--> Delivered,
        Paid --"refund begun"--> RefundPending,
        AwaitingStock --"refund begun"--> RefundPending,
        Partial --"refund begun"--> RefundPending,
        Delivered --"refund begun"--> RefundPending,
        RefundPending --"money went back"--> Refunded,
        RefundPending --"refund ended, order goes on"--> Paid,
        RefundPending --"refund ended, order goes on"--> AwaitingStock,
        RefundPending --"refund ended, order goes on"--> Partial,
        RefundPending --"refund ended, order goes on"--> Delivered,
    }
}

impl State {
    /// Whether goods that it lacks may be handed over: it is paid, and no refund is on its way. The statements that look for
    /// waiting lines name the same states.
    pub fn takes_goods(self) -> bool {
        matches!(self, Self::Paid | Self::AwaitingStock | Self::Partial)
    }
}

/// How an order is to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayBy {
    /// At a provider.
    Provider(semel_payments::Provider),
    /// From the customer's balance.
    Balance,
}

impl PayBy {
    /// The word in rows and requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider(provider) => provider.as_str(),
            Self::Balance => "balance",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        if word == "balance" { Some(Self::Balance) } else { word.parse().ok().map(Self::Provider) }
    }
}

/// An order's row.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Who ordered.
    pub customer: CustomerId,
    /// Where it stands.
    pub state: State,
    /// What it costs.
    pub total: Amount,
    /// How it is to be paid.
    pub provider: String,
    /// Until when stock is held.
    pub deadline: Time,
    /// State changes so far.
    pub version: i64,
    /// When it was made.
    pub created_at: Time,
    /// When it was paid.
    pub paid_at: Option<Time>,
    /// Why it ended as it did.
    pub reason: Option<String>,
}

impl Order {
    /// The order's currency.
    pub fn currency(&self) -> Currency {
        self.total.currency()
    }
}

/// One line of an order, with the quote frozen.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// The product.
    pub product: ProductId,
    /// Its title when it was ordered.
    pub title: String,
    /// What kind of thing.
    pub kind: Kind,
    /// Instant or made to order.
    pub delivery: Delivery,
    /// Price of one, when it was ordered.
    pub price: Amount,
    /// How many.
    pub quantity: i64,
    /// How many went back.
    pub refunded: i64,
    /// When it is promised, for what is made to order.
    pub promised_at: Option<Time>,
    /// How many seconds of access one is; only for the kind `vpn`.
    pub duration_s: Option<i64>,
    /// For how many devices; only for the kind `vpn`.
    pub devices: Option<i64>,
    /// The subscription that it renews: the one that was asked for, and once it is paid the one that got the time.
    pub subscription: Option<SubscriptionId>,
}
