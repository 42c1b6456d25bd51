//! What is known after a try to send.

use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::outbound::OutboundError;
use semel_telegram::{Gone, Outcome, Sent};

use super::{Heard, LONGEST_SILENCE};

/// What a try came to, sorted by what happens next. No text in it holds a token or what the message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Telegram took it and gave it this number.
    Sent { telegram_id: i64 },
    /// Certainly not sent, and it may go later; not before `at` if somebody said so.
    NotYet { at: Option<Time>, text: String },
    /// Certainly not sent: Telegram asks for so many seconds of silence. The pace tells whose.
    Silence { seconds: u64 },
    /// Certainly not sent: Telegram does not know the token.
    BadToken { text: String },
    /// Certainly not sent: the group lives on under this id.
    Moved { to: i64 },
    /// Certainly not sent: nothing reaches this chat until something changes there.
    Gone { reason: Gone, text: String },
    /// Certainly not sent: Telegram refuses what it says, in any chat.
    Poison { text: String },
    /// Certainly not sent, and no repeat can help.
    Refused { text: String },
    /// Perhaps sent: nobody told us.
    Unclear { text: String },
}

impl Verdict {
    /// Sorts what came back from Telegram, or what kept it from coming.
    pub(super) fn of(answer: Result<Outcome<Sent>, OutboundError>) -> Self {
        match answer {
            Ok(Outcome::Ok(sent)) => Self::Sent { telegram_id: sent.message_id },
            Ok(Outcome::RetryAfter { seconds }) => {
                Self::Silence { seconds: u64::try_from(seconds).unwrap_or(1).clamp(1, LONGEST_SILENCE.as_secs()) }
            }
            Ok(Outcome::ChatGone { reason, text }) => Self::Gone { reason, text },
            Ok(Outcome::BadPayload { text }) => Self::Poison { text },
            Ok(Outcome::Benign { text }) => Self::Refused { text },
            Ok(Outcome::Migrated { to }) => Self::Moved { to },
            Ok(Outcome::BadToken { text }) => Self::BadToken { text },
            Ok(Outcome::Conflict { text }) => Self::NotYet { at: None, text },
            // The text of such an answer is left out: what broke off may be Telegram's copy of our own words.
            Ok(Outcome::Unclear { status, .. }) => Self::Unclear {
                text: format!("Telegram answered {status} and did not tell whether it took the message"),
            },
            Err(error) if error.never_sent() => Self::NotYet { at: error.retry_at(), text: error.to_string() },
            Err(error) => Self::Unclear { text: error.to_string() },
        }
    }

    /// Whether the person cannot be written to by anybody of this bot from now on.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Gone { reason, .. } if reason.is_unreachable())
    }

    /// What the pace is told about it.
    pub(super) fn heard(&self) -> Heard {
        match self {
            Self::Sent { .. } => Heard::Sent,
            Self::Silence { seconds } => Heard::TooMany { retry_after: Duration::from_secs(*seconds) },
            _ => Heard::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use semel_kernel::outbound::BreakerOpen;

    use super::*;

    #[test]
    fn only_an_answer_with_a_number_means_sent() {
        let sent = Sent { message_id: 7, file_id: None };
        assert_eq!(Verdict::of(Ok(Outcome::Ok(sent))), Verdict::Sent { telegram_id: 7 });
    }

    #[test]
    fn what_may_have_arrived_is_unclear_and_quotes_nothing() {
        let answer = Outcome::Unclear { status: 200, text: r#"{"ok":true,"result":{"text":"KEY-1"#.into() };
        match Verdict::of(Ok(answer)) {
            Verdict::Unclear { text } => assert!(!text.contains("KEY-1"), "{text}"),
            other => panic!("{other:?}"),
        }
        for error in [OutboundError::Unclear { text: "reset".into() }, OutboundError::TooLarge] {
            assert!(matches!(Verdict::of(Err(error)), Verdict::Unclear { .. }));
        }
    }

    #[test]
    fn what_never_left_waits_as_long_as_it_was_told_to() {
        let until = Time::from_millis(5_000);
        let open = OutboundError::Refused(BreakerOpen { until });
        assert!(matches!(Verdict::of(Err(open)), Verdict::NotYet { at: Some(at), .. } if at == until));
        let refused = OutboundError::NotSent { text: "no address".into() };
        assert!(matches!(Verdict::of(Err(refused)), Verdict::NotYet { at: None, .. }));
    }

    #[test]
    fn refusals_are_sorted_by_what_happens_next() {
        let text = String::from("no");
        for (reason, unreachable) in [
            (Gone::Blocked, true),
            (Gone::Deactivated, true),
            (Gone::NotFound, true),
            (Gone::NeverStarted, true),
            (Gone::Kicked, false),
            (Gone::NoRights, false),
        ] {
            let gone = Verdict::of(Ok(Outcome::ChatGone { reason, text: text.clone() }));
            assert_eq!(gone, Verdict::Gone { reason, text: text.clone() });
            assert_eq!(gone.is_unreachable(), unreachable, "{reason:?}");
        }
        let poison = Verdict::of(Ok(Outcome::BadPayload { text: text.clone() }));
        assert_eq!(poison, Verdict::Poison { text: text.clone() });
        let benign = Verdict::of(Ok(Outcome::Benign { text: text.clone() }));
        assert_eq!(benign, Verdict::Refused { text: text.clone() });
        assert_eq!(Verdict::of(Ok(Outcome::BadToken { text: text.clone() })), Verdict::BadToken { text });
        assert_eq!(Verdict::of(Ok(Outcome::Migrated { to: -100 })), Verdict::Moved { to: -100 });
        assert_eq!(Verdict::of(Ok(Outcome::RetryAfter { seconds: 7 })), Verdict::Silence { seconds: 7 });
        assert_eq!(Verdict::of(Ok(Outcome::RetryAfter { seconds: -1 })), Verdict::Silence { seconds: 1 });
        let silence = Verdict::of(Ok(Outcome::RetryAfter { seconds: i64::MAX }));
        assert_eq!(silence, Verdict::Silence { seconds: LONGEST_SILENCE.as_secs() });
        assert_eq!(silence.heard(), Heard::TooMany { retry_after: LONGEST_SILENCE });
        assert_eq!(Verdict::Moved { to: -100 }.heard(), Heard::Other);
    }
}
