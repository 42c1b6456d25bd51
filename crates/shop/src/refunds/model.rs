//! What a refund is.

use serde::Deserialize;

use semel_kernel::clock::Time;
use semel_money::Amount;

use crate::checkout::PaymentId;
use crate::orders::{OrderId, State};

semel_kernel::id!(RefundId, "ref", "Money on its way back.");

/// What the owner asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRefundRequest {
    /// How much, as decimal text in the order's currency; all that is left when missing.
    #[serde(default)]
    pub amount: Option<String>,
    /// Where to.
    #[serde(default)]
    pub to: Target,
    /// Where crypto goes back to; the payer must name it.
    #[serde(default)]
    pub address: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Where money goes back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The customer's balance, at once.
    #[default]
    Balance,
    /// The provider that took it, where it can give back.
    Provider,
    /// Nowhere any more: it was given back in the cabinet of a provider that does not tell how much. Only booked, with the
    /// sum that the request names.
    Made,
}

impl Target {
    /// The word in rows; what was made at the provider went there, too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Provider | Self::Made => "provider",
        }
    }
}

/// The word in rows for a refund that was made at the provider with money that had not paid the order: it had gone to the
/// balance, so it takes nothing from the order.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// A refund's row.
#[derive(Clone, Debug)]
pub struct Refund {
    /// Its id; also the key of its call.
    pub id: RefundId,
    /// What is given back.
    pub order: OrderId,
    /// Through which payment.
    pub payment: Option<PaymentId>,
    /// The provider's id of it, once known.
    pub provider_refund_id: Option<String>,
    /// How much.
    pub amount: Amount,
    /// `pending`, `succeeded` or `failed`.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Where the order goes afterwards, when it is not refunded in full.
    pub after: State,
    /// Where crypto goes back to.
    pub address: Option<String>,
    /// When it was begun.
    pub created_at: Time,
}
