//! What a webhook gives us: a reason to look, and nothing to believe.

use std::net::IpAddr;

/// An authentic, well-formed notice. Everything in it is what the sender *says*; the provider's API decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The same for every delivery of the same event: `yookassa:payment.succeeded:<id>`, `heleket:payment:<uuid>:paid`
    /// (wallets add the transaction), `crystalpay:invoice:<id>:payed`.
    pub event_id: String,
    /// The event's kind in the provider's words: `payment.succeeded`, `payment`, `invoice`.
    pub event: String,
    /// What to ask about.
    pub subject: Subject,
    /// The state that the notice claims, in the provider's words.
    pub says_state: String,
    /// The amount that the notice claims, as written there: `499.00 RUB`.
    pub says_amount: Option<String>,
}

/// The thing that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A payment into our account.
    Payment {
        /// The provider's id: payment, invoice or wallet.
        provider_id: String,
        /// Our payment id as the notice carries it, if it does.
        ours: Option<String>,
        /// Only for wallets that take many transfers: which one.
        transaction: Option<String>,
    },
    /// A refund of such a payment.
    Refund {
        /// The provider's id of the refund.
        refund_id: String,
        /// The provider's id of the payment.
        provider_id: String,
    },
    /// Payouts, deals and the like: recorded and ignored.
    Other,
}

/// Why a webhook is not believed to come from the provider. Nothing of it may be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The sender's address is not on the list. A wrong proxy setting looks the same, so say it loudly.
    #[error("sender {} is not in the provider's networks", shown(.peer))]
    Source {
        /// Who sent it, if that is known.
        peer: Option<IpAddr>,
    },
    /// The key that would prove it is not configured, so nothing can be proved.
    #[error("no {what} is configured, the notice cannot be verified")]
    NoSecret {
        /// Which key is missing.
        what: &'static str,
    },
    /// Not a notice of this provider.
    #[error("not a notice of this provider: {0}")]
    Malformed(String),
    /// The signature is missing or belongs to other content or another key.
    #[error("the signature is missing or does not match")]
    Signature,
}

fn shown(peer: &Option<IpAddr>) -> String {
    peer.map_or_else(|| "unknown".to_string(), |address| address.to_string())
}
