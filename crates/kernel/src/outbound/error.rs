//! What can go wrong with a call, sorted by what the caller does next.

use crate::clock::Time;

/// The breaker of the host key is open: nothing is sent before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side keeps failing; no calls before {until}")]
pub struct BreakerOpen {
    /// When a probe may go.
    pub until: Time,
}

/// Why a call brought no answer. The texts name a host at most: never a path, a query, a token or a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Not sent: the breaker is open. Come back at [`OutboundError::retry_at`].
    #[error(transparent)]
    Refused(#[from] BreakerOpen),
    /// Nothing of the request reached the other side: no address, no connection, no TLS.
    #[error("not sent: {text}")]
    NotSent {
        /// Host and cause.
        text: String,
    },
    /// The request may have been carried out; nobody told us. Only its manner says what to do now.
    #[error("sent, outcome unknown: {text}")]
    Unclear {
        /// Host and cause.
        text: String,
    },
    /// There was an answer, larger than we read. The request was carried out or refused; the answer would say.
    #[error("the answer is larger than allowed")]
    TooLarge,
    /// Not sent: a user's address leads into a private network.
    #[error("{host} is not on the public internet")]
    PrivateAddress {
        /// The host as the user wrote it.
        host: String,
    },
    /// Not sent: the other side asked for a pause, or the pace has no slot, within the deadline; or another process has the
    /// right to call this host key now.
    #[error("no call allowed before {until}")]
    Paused {
        /// When the next call fits.
        until: Time,
    },
    /// The client could not be set up: a setting is wrong. Only [`Outbound::new`](super::Outbound::new) says it.
    #[error("cannot set up the HTTP client: {text}")]
    Setup {
        /// What to mend.
        text: String,
    },
}

impl OutboundError {
    /// Whether it is certain that the other side saw nothing: the effect did not happen and may be tried again.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::NotSent { .. }
            | Self::PrivateAddress { .. }
            | Self::Paused { .. }
            | Self::Setup { .. } => true,
            Self::Unclear { .. } | Self::TooLarge => false,
        }
    }

    /// When to come back, if something asked us to stay away. Such a delay costs a job no attempt.
    pub fn retry_at(&self) -> Option<Time> {
        match self {
            Self::Refused(open) => Some(open.until),
            Self::Paused { until } => Some(*until),
            _ => None,
        }
    }
}
