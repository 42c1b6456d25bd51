//! Why the shop did not do it. One variant for each reaction of a caller.

use semel_kernel::store::StoreError;
use semel_money::AmountError;

/// An error of a flow.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing: 404.
    #[error("there is no {what} {id}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// The request makes no sense: 422.
    #[error("{field}: {reason}")]
    Invalid {
        /// The member of the request.
        field: String,
        /// What is wrong and what to write.
        reason: String,
    },
    /// The thing is in a state that forbids it: 409.
    #[error("{0}")]
    Conflict(String),
    /// Not enough stock: 409.
    #[error("sold out: only {left} of {wanted} of {product} are left")]
    SoldOut {
        /// The product's id.
        product: String,
        /// Units asked for.
        wanted: i64,
        /// Units left.
        left: i64,
    },
    /// The customer's balance does not cover it: 409.
    #[error("the balance does not cover {wanted}")]
    Insufficient {
        /// The sum that was to be taken.
        wanted: String,
    },
    /// The customer has too many unpaid orders: 409.
    #[error("the customer has {open} unpaid orders already; pay or cancel one first")]
    TooManyUnpaid {
        /// Unpaid orders.
        open: i64,
    },
    /// The provider said no, for good: 502.
    #[error("{provider} refused: {text}")]
    ProviderRefused {
        /// Which.
        provider: String,
        /// Its words.
        text: String,
    },
    /// The provider did not answer clearly; repeating the request resumes it: 503.
    #[error("{provider} does not answer: {text}; repeat the request with the same Idempotency-Key")]
    ProviderAway {
        /// Which.
        provider: String,
        /// What happened.
        text: String,
    },
    /// Safe mode is on after a restore: nothing is sold or paid out now: 503.
    #[error(
        "safe mode: this shop was restored from a backup and sells and pays out nothing before its owner ends that; webhooks \
         are taken as always"
    )]
    SafeMode,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// The stable code of this error in answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::Invalid { .. } => "invalid",
            Self::Conflict(_) => "conflict",
            Self::SoldOut { .. } => "sold-out",
            Self::Insufficient { .. } => "insufficient-balance",
            Self::TooManyUnpaid { .. } => "too-many-unpaid-orders",
            Self::ProviderRefused { .. } => "provider-refused",
            Self::ProviderAway { .. } => "provider-unavailable",
            Self::SafeMode => "safe-mode",
            Self::Store(_) => "database-unavailable",
        }
    }

    /// The HTTP status that says it.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound { .. } => 404,
            Self::Invalid { .. } => 422,
            Self::Conflict(_) | Self::SoldOut { .. } | Self::Insufficient { .. } | Self::TooManyUnpaid { .. } => 409,
            Self::ProviderRefused { .. } => 502,
            Self::ProviderAway { .. } | Self::SafeMode => 503,
            Self::Store(error) if error.is_passing() => 503,
            Self::Store(_) => 500,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn missing(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
}

impl From<AmountError> for Error {
    fn from(error: AmountError) -> Self {
        Self::invalid("amount", error.to_string())
    }
}

impl From<Error> for semel_kernel::jobs::JobError {
    fn from(error: Error) -> Self {
        use semel_kernel::jobs::{JobError, Outcome};
        match error {
            Error::Store(error) => error.into(),
            Error::ProviderAway { .. } | Error::SafeMode => JobError::Retry(error.to_string()),
            other => JobError::DeadLetter { text: other.to_string(), outcome: Outcome::Failed },
        }
    }
}
