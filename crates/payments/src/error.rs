//! Errors, sorted by what the caller may do next.

use crate::Provider;

/// A setting of an account that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value without which nothing can be verified or asked.
    #[error("{provider}: {name} is empty")]
    Empty {
        /// Whose account.
        provider: Provider,
        /// Which value, by its name in the settings.
        name: &'static str,
    },
    /// A value that cannot travel in a request header.
    #[error("{provider}: {name} must be visible ASCII without spaces")]
    NotPlain {
        /// Whose account.
        provider: Provider,
        /// Which value, by its name in the settings.
        name: &'static str,
    },
    /// Not the address of an API.
    #[error("{url:?} is no API address: {why}; write it like https://api.example.com/v3")]
    BaseUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The provider has no such call, or would refuse this one. Nothing was sent; the text says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {text}")]
pub struct Unsupported {
    /// Who cannot do it.
    pub provider: Provider,
    /// A sentence for a person.
    pub text: String,
}

impl Unsupported {
    pub(crate) fn new(provider: Provider, text: impl Into<String>) -> Unsupported {
        Unsupported { provider, text: text.into() }
    }
}

/// An answer that is not the hoped-for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Definitely not done. The same call will be refused again; another one needs another key.
    #[error("refused with HTTP {status}: {text} ({code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The provider's code, empty if it gives none.
        code: String,
        /// What the provider says.
        text: String,
    },
    /// Too many requests; not done. The same bytes later.
    #[error("asked to slow down")]
    Throttled {
        /// How long the provider wants us to wait.
        after_ms: Option<u64>,
    },
    /// Our keys or our address of the API are wrong: no call will work until a person mends it.
    #[error("the account's settings are refused with HTTP {status}: {text}")]
    Misconfigured {
        /// HTTP status.
        status: u16,
        /// What the provider says.
        text: String,
    },
    /// May have happened. Repeat the same bytes where the call is keyed, else ask first.
    #[error("unclear outcome{}: {text}", shown(.status))]
    Unclear {
        /// HTTP status, if there was an answer at all.
        status: Option<u16>,
        /// What we know.
        text: String,
    },
    /// The answer is about another account, payment or sum than ours. Apply nothing of it, tell a person.
    #[error("the answer is about another {what}: expected {expected}, got {got}")]
    Foreign {
        /// What differs.
        what: &'static str,
        /// Ours.
        expected: String,
        /// Theirs.
        got: String,
    },
    /// The shop must send fiscal data and the request had none: configure receipts.
    #[error("the provider wants fiscal receipt data: {text}")]
    ReceiptNeeded {
        /// What the provider says.
        text: String,
    },
}

fn shown(status: &Option<u16>) -> String {
    status.map_or_else(String::new, |status| format!(" (HTTP {status})"))
}
