//! A payment's states, and what may follow what.

use semel_kernel::clock::Time;
use semel_money::Amount;
use semel_payments::Provider;

use crate::customers::CustomerId;
use crate::orders::OrderId;
use crate::states;

semel_kernel::id!(PaymentId, "pay", "One try to pay an order at one provider.");

states! {
    /// Where a payment stands.
    PaymentState {
        /// Written down; the provider has not answered yet.
        Created = "created",
        /// The provider waits for the customer.
        Pending = "pending",
        /// The provider holds the money and waits for us to take it.
        Waiting = "waiting",
        /// Too little came.
        Short = "short",
        /// The money came.
        Paid = "paid",
        /// The money went back.
        Refunded = "refunded",
        /// Closed without money.
        Cancelled = "cancelled",
        /// Went wrong without money.
        Failed = "failed",
        /// Held by the provider's compliance check.
        Locked = "locked",
    }
    /// What may follow what. Money may come late: after a cancellation, a failure, a lock.
    PAYMENT_TRANSITIONS {
        Created --"link made"--> Pending,
        Created --"money held"--> Waiting,
        Created --"too little came"--> Short,
        Created --"money came"--> Paid,
        Created --"closed"--> Cancelled,
        Created --"failed"--> Failed,
        Created --"locked"--> Locked,
        Pending --"money held"--> Waiting,
        Pending --"too little came"--> Short,
        Pending --"money came"--> Paid,
        Pending --"closed"--> Cancelled,
        Pending --"failed"--> Failed,
        Pending --"locked"--> Locked,
        Waiting --"money came"--> Paid,
        Waiting --"closed"--> Cancelled,
        Waiting --"failed"--> Failed,
        Short --"the rest came"--> Paid,
        Cancelled --"late money came"--> Paid,
        Cancelled --"too little came late"--> Short,
        Failed --"late money came"--> Paid,
        Failed --"too little came late"--> Short,
        Locked --"released, money came"--> Paid,
        Locked --"closed"--> Cancelled,
        Locked --"failed"--> Failed,
        Paid --"money went back"--> Refunded,
    }
}

impl PaymentState {
    /// Whether the money came: nothing that a provider says about the payment itself changes that.
    pub fn has_money(self) -> bool {
        matches!(self, Self::Paid | Self::Refunded)
    }
}

/// A payment's row.
#[derive(Clone, Debug)]
pub struct Payment {
    /// Its id, which the provider gives back to us.
    pub id: PaymentId,
    /// What it pays.
    pub order: OrderId,
    /// Who pays.
    pub customer: CustomerId,
    /// Where.
    pub provider: Provider,
    /// Our account there.
    pub merchant: String,
    /// The id there, once known.
    pub provider_id: Option<String>,
    /// Where it stands.
    pub state: PaymentState,
    /// What is asked for.
    pub amount: Amount,
    /// What came in so far.
    pub received: Amount,
    /// What went back so far.
    pub refunded: Amount,
    /// The key of the create call.
    pub key: String,
    /// Where the customer pays.
    pub url: Option<String>,
    /// State changes so far.
    pub version: i64,
    /// When it was made.
    pub created_at: Time,
}
