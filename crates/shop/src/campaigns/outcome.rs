//! What became of one call, sorted by what happens to the recipient's row.

use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::outbound::OutboundError;
use semel_telegram::{Gone, Outcome, Sent};

use super::RecipientState;
use crate::messages::{Class, LONGEST_SILENCE};

/// Tries of which nobody told us what became of them, for what may go twice: then it counts as unknown.
pub(super) const UNCLEAR_AT_MOST: i64 = 5;
/// How long a try waits that may be repeated.
const SOON: Duration = Duration::from_secs(5);

/// What a call came to. No text in it holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Telegram took it.
    Sent {
        /// Its number of the message.
        telegram_id: i64,
        /// The attachment, to be sent again without an upload.
        file_id: Option<String>,
    },
    /// No call was made: the campaign stands still, or there was no turn in time.
    NotCalled {
        /// After how long there may be one.
        left: Option<Duration>,
    },
    /// Certainly not sent: not before so many seconds.
    Slow {
        /// How many.
        seconds: u64,
        /// Whether the whole bot has to be silent and not only to this chat.
        whole_bot: bool,
    },
    /// Certainly not sent, and it may go later.
    Later {
        /// Not before, on the clock of the HTTP client.
        at: Option<Time>,
        /// Why.
        text: String,
    },
    /// Certainly not sent: Telegram does not know the token.
    BadToken {
        /// Its words.
        text: String,
    },
    /// Certainly not sent: the chat lives on under this id.
    Moved {
        /// The new id.
        to: i64,
    },
    /// Certainly not sent: nothing reaches this chat.
    ChatGone {
        /// Why.
        reason: Gone,
        /// Telegram's words.
        text: String,
    },
    /// Certainly not sent: Telegram refuses the content, in whatever chat.
    Poison {
        /// Its words.
        text: String,
    },
    /// Certainly not sent, for another reason.
    Refused {
        /// Why.
        text: String,
    },
    /// Perhaps sent: nobody told us.
    Unclear {
        /// What there was of an answer.
        text: String,
    },
}

impl Fate {
    /// Sorts what came back from Telegram, or what kept it from coming.
    pub(super) fn of(answer: Result<Outcome<Sent>, OutboundError>) -> Self {
        match answer {
            Ok(Outcome::Ok(sent)) => Self::Sent { telegram_id: sent.message_id, file_id: sent.file_id },
            Ok(Outcome::RetryAfter { seconds }) => Self::Slow {
                seconds: u64::try_from(seconds).unwrap_or(1).clamp(1, LONGEST_SILENCE.as_secs()),
                whole_bot: false,
            },
            Ok(Outcome::ChatGone { reason, text }) => Self::ChatGone { reason, text },
            Ok(Outcome::Migrated { to }) => Self::Moved { to },
            Ok(Outcome::BadPayload { text }) => Self::Poison { text },
            Ok(Outcome::BadToken { text }) => Self::BadToken { text },
            Ok(Outcome::Conflict { text }) => Self::Later { at: None, text },
            Ok(Outcome::Benign { text }) => Self::Refused { text },
            // What broke off may be Telegram's copy of our own words.
            Ok(Outcome::Unclear { status, .. }) => Self::Unclear {
                text: format!("Telegram answered {status} and did not tell whether it took the message"),
            },
            Err(error) if error.never_sent() => Self::Later { at: error.retry_at(), text: error.to_string() },
            Err(error) => Self::Unclear { text: error.to_string() },
        }
    }

    /// Whether the person cannot be written to by anybody of this bot from now on.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::ChatGone { reason, .. } if reason.is_unreachable())
    }
}

/// What a recipient's row says after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct After {
    pub(super) state: RecipientState,
    pub(super) telegram_id: Option<i64>,
    pub(super) error: Option<String>,
    /// Not before; only of a row that waits again.
    pub(super) due: Time,
    pub(super) uncertain: i64,
    /// Whether it failed for its content.
    pub(super) poison: bool,
}

impl After {
    /// The row of a recipient whose `before` earlier tries have no known end. `mends` says that the owner is asked to mend what
    /// the campaign says, so that who was refused for it waits.
    pub(super) fn of(fate: &Fate, class: Class, before: i64, mends: bool, now: Time) -> Self {
        let ended = |state, error: Option<String>| Self {
            state,
            telegram_id: None,
            error,
            due: Time::from_millis(0),
            uncertain: before,
            poison: false,
        };
        // A refusal now does not prove that an earlier try did not arrive.
        let refused =
            |state, text: &String| ended(if before > 0 { RecipientState::Unknown } else { state }, Some(text.clone()));
        let waits = |due, text: Option<String>| Self { due, ..ended(RecipientState::Queued, text) };
        match fate {
            Fate::Sent { telegram_id, .. } => {
                Self { telegram_id: Some(*telegram_id), ..ended(RecipientState::Sent, None) }
            }
            Fate::NotCalled { left } => waits(left.map_or(Time::from_millis(0), |left| now + left), None),
            Fate::Slow { seconds, .. } => {
                let text = format!("Telegram asks for {seconds} s of silence");
                waits(now + Duration::from_secs(*seconds), Some(text))
            }
            Fate::Later { text, .. } => waits(now + SOON, Some(text.clone())),
            Fate::BadToken { text } => waits(now, Some(text.clone())),
            Fate::Moved { to } => refused(RecipientState::Failed, &format!("the chat moved on to {to}")),
            Fate::ChatGone { reason: Gone::Blocked, text } => refused(RecipientState::Blocked, text),
            Fate::ChatGone { reason: Gone::Deactivated | Gone::NotFound | Gone::NeverStarted | Gone::Kicked, text } => {
                refused(RecipientState::Gone, text)
            }
            Fate::ChatGone { reason: Gone::NoRights, text } | Fate::Refused { text } => {
                refused(RecipientState::Failed, text)
            }
            Fate::Poison { text } if mends => waits(Time::from_millis(0), Some(text.clone())),
            Fate::Poison { text } => {
                let after = refused(RecipientState::Failed, text);
                Self { poison: after.state == RecipientState::Failed, ..after }
            }
            Fate::Unclear { text } => {
                let uncertain = before + 1;
                let again = class == Class::AtLeastOnce && uncertain < UNCLEAR_AT_MOST;
                let after = if again {
                    waits(now + SOON, Some(text.clone()))
                } else {
                    ended(RecipientState::Unknown, Some(text.clone()))
                };
                Self { uncertain, ..after }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_700_000_000_000);

    fn after(fate: Fate, before: i64) -> After {
        After::of(&fate, Class::AtMostOnce, before, false, NOW)
    }

    fn text() -> String {
        "no".into()
    }

    #[test]
    fn a_429_never_loses_a_recipient() {
        let fate = Fate::of(Ok(Outcome::RetryAfter { seconds: 35 }));
        let after = after(fate, 0);
        assert_eq!((after.state, after.due), (RecipientState::Queued, NOW + Duration::from_secs(35)));
        assert_eq!(Fate::of(Ok(Outcome::RetryAfter { seconds: -1 })), Fate::Slow { seconds: 1, whole_bot: false });
        assert_eq!(
            Fate::of(Ok(Outcome::RetryAfter { seconds: i64::MAX })),
            Fate::Slow { seconds: LONGEST_SILENCE.as_secs(), whole_bot: false }
        );
    }

    #[test]
    fn each_refusal_has_its_class() {
        for (reason, state, unreachable) in [
            (Gone::Blocked, RecipientState::Blocked, true),
            (Gone::Deactivated, RecipientState::Gone, true),
            (Gone::NotFound, RecipientState::Gone, true),
            (Gone::NeverStarted, RecipientState::Gone, true),
            (Gone::Kicked, RecipientState::Gone, false),
            (Gone::NoRights, RecipientState::Failed, false),
        ] {
            let fate = Fate::ChatGone { reason, text: text() };
            assert_eq!(fate.is_unreachable(), unreachable, "{reason:?}");
            assert_eq!(after(fate.clone(), 0).state, state, "{reason:?}");
            assert_eq!(after(fate, 1).state, RecipientState::Unknown, "an earlier try may have arrived");
        }
        let poison = after(Fate::of(Ok(Outcome::BadPayload { text: text() })), 0);
        assert!(poison.poison && poison.state == RecipientState::Failed);
        let mends = After::of(&Fate::Poison { text: text() }, Class::AtMostOnce, 0, true, NOW);
        assert_eq!(mends.state, RecipientState::Queued, "the owner mends it, then it goes");
    }

    #[test]
    fn what_nobody_told_goes_again_only_where_it_may() {
        let unclear = Fate::Unclear { text: text() };
        let once = after(unclear.clone(), 0);
        assert_eq!((once.state, once.uncertain), (RecipientState::Unknown, 1));
        let again = |before| After::of(&unclear, Class::AtLeastOnce, before, false, NOW);
        assert_eq!((again(0).state, again(0).uncertain), (RecipientState::Queued, 1));
        assert_eq!(again(UNCLEAR_AT_MOST - 1).state, RecipientState::Unknown);
    }

    #[test]
    fn an_unclear_answer_quotes_nothing() {
        let answer = Outcome::Unclear { status: 502, text: "Hello, dear customer".into() };
        match Fate::of(Ok(answer)) {
            Fate::Unclear { text } => assert!(!text.contains("dear"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
