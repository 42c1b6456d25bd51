//! What a caller says about a call before it is made.

use std::time::Duration;

use super::pace::Pace;

/// How the other side takes the same bytes twice. It decides what may be repeated inside one call; the same words
/// stand on jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manner {
    /// The call only looks.
    Read,
    /// The other side honours a key in the request: the second time it answers what it answered the first time.
    Keyed,
    /// The call states what is wanted; stating it twice is stating it.
    Convergent,
    /// After an unclear outcome we ask first, so nothing that may have arrived is repeated here.
    Asked,
    /// The other side offers nothing: what may have arrived is never repeated here.
    Blind,
}

impl Manner {
    /// The word as rows, logs and metrics hold it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Keyed => "keyed",
            Self::Convergent => "convergent",
            Self::Asked => "asked",
            Self::Blind => "blind",
        }
    }

    /// Whether bytes that may have arrived may be sent again without asking.
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Read | Self::Keyed | Self::Convergent)
    }
}

/// The terms of one call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the call is, for logs: `payment.ask`. Never a value out of data.
    pub label: &'static str,
    /// Whose breaker, pace and pauses apply: `yookassa`, `telegram:<bot id>`. Appears in logs and views, so no secret.
    pub host_key: String,
    /// The longest the whole call may take, with its waits and repeats.
    pub deadline: Duration,
    /// The longest one try may take, from the connection to the last byte of the answer.
    pub attempt_timeout: Duration,
    /// What may be repeated.
    pub manner: Manner,
    /// The address came from a user: refuse everything that is not on the public internet. Such a call never goes
    /// through the proxy, because the proxy would look the name up where we cannot check it.
    pub public_only: bool,
    /// The pace of this host key, if it has one.
    pub pace: Option<Pace>,
    /// The caller keeps the pauses that a 429 asks for, because one may be about less than the whole host, as a chat, or about
    /// more than this host key. So a 429 is never repeated here: it is the answer.
    pub own_pauses: bool,
}

impl Call {
    /// A call with the usual terms: 30 seconds in all, 10 for one try, no pace, our own address.
    pub fn new(label: &'static str, host_key: impl Into<String>, manner: Manner) -> Self {
        Self {
            label,
            host_key: host_key.into(),
            deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            manner,
            public_only: false,
            pace: None,
            own_pauses: false,
        }
    }
}

/// What it took to get an answer. Every answer of a call carries it in its extensions.
///
/// A refusal that follows an unclear try does not prove that nothing happened: the first try may have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// How often the request was sent, the answered time included.
    pub sent: u32,
    /// An earlier try may have been carried out without our learning it.
    pub unclear_before: bool,
}
