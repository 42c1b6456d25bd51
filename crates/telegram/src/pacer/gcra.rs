//! The spacing of messages, in whole microseconds: the generic cell rate algorithm.
//!
//! One number says when the next message would be exactly on pace; a message may be early by as much as the burst allows. Each
//! one moves the number on by a step, and time that nobody used is lost, so from the first message to the n-th after it at least
//! `n * step - slack` pass. The steps are so long that a window of the limit's length never holds more than the limit, even when
//! the way to the other side takes a little longer for one message than for the next.

use std::time::Duration;

use super::Moment;

/// How much longer than the limit's window the same number of messages takes: the way there is not equally long each time.
const MARGIN: i64 = 20_000;
/// How far a message that a late timer sent may be made up for. Less than the margin: what is left is for the way there.
const LATENESS: i64 = 10_000;
/// Long before any moment, and far enough from the end of numbers.
const NEVER: i64 = i64::MIN / 4;

/// How far apart messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spacing {
    /// Microseconds between two messages on pace.
    step: i64,
    /// Microseconds by which a message may be early.
    slack: i64,
}

impl Spacing {
    /// At most `messages` in any window of the length `per`, of which `burst` may go at once. Where the burst is larger than
    /// the window allows, the window is a long run: after the burst, so many in each `per`.
    pub(super) fn of(messages: u32, per: Duration, burst: u32) -> Self {
        let (messages, spare) = (i64::from(messages.max(1)), i64::from(burst.max(1)) - 1);
        let steps = if messages > spare { messages - spare } else { messages };
        let window = i64::try_from(per.as_micros()).unwrap_or(i64::MAX / 8).saturating_add(MARGIN);
        let step = window / steps + i64::from(window % steps != 0);
        Self { step, slack: spare.saturating_mul(step) }
    }

    /// The same for messages that a timer lets go: when one is late, the next are earlier by as much, so that lateness does not
    /// add up.
    pub(super) fn by_timer(self) -> Self {
        Self { slack: self.slack + LATENESS.min(self.step / 2), ..self }
    }

    /// Milliseconds between two messages on pace, rounded up.
    pub(super) fn step_ms(self) -> i64 {
        millis(self.step)
    }
}

/// Where one pace stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gcra {
    /// When the next message would be exactly on pace, microseconds.
    on_pace: i64,
}

impl Gcra {
    pub(super) fn new() -> Self {
        Self { on_pace: NEVER }
    }

    /// The first moment at which a message may go.
    pub(super) fn earliest(&self, spacing: Spacing) -> Moment {
        millis(self.on_pace - spacing.slack)
    }

    /// A message goes at `now`.
    pub(super) fn take(&mut self, now: Moment, spacing: Spacing) {
        self.on_pace = self.on_pace.max(micros(now)).saturating_add(spacing.step);
    }

    /// No message before `at`, and no burst then.
    pub(super) fn not_before(&mut self, at: Moment, spacing: Spacing) {
        self.on_pace = self.on_pace.max(micros(at).saturating_add(spacing.slack));
    }

    /// Whether it stands as one that was never used.
    pub(super) fn is_rested(&self, now: Moment) -> bool {
        self.on_pace <= micros(now)
    }
}

fn micros(at: Moment) -> i64 {
    at.saturating_mul(1_000)
}

/// Rounded up: a moment too early is the one mistake that counts.
fn millis(micros: i64) -> i64 {
    micros.saturating_add(999).div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When messages go that all want to go at once.
    fn rush(spacing: Spacing, count: usize) -> Vec<Moment> {
        let (mut gcra, mut now) = (Gcra::new(), 0);
        let mut went = Vec::new();
        for _ in 0..count {
            now = gcra.earliest(spacing).max(now);
            gcra.take(now, spacing);
            went.push(now);
        }
        went
    }

    #[test]
    fn a_second_never_holds_more_than_the_limit_and_hardly_less() {
        for messages in [1, 5, 28, 30, 100] {
            let spacing = Spacing::of(messages, SECOND, 1).by_timer();
            let went = rush(spacing, 4_000);
            let window = usize::try_from(messages).expect("small");
            for (first, last) in went.iter().zip(went.iter().skip(window)) {
                assert!(last - first >= 1_009, "{messages} a second: {} ms", last - first);
            }
            let ideal = i64::try_from(went.len() - 1).expect("small") * 1_000 / i64::from(messages);
            assert!(went[went.len() - 1] <= ideal * 103 / 100, "{messages} a second in {} ms", went[went.len() - 1]);
        }
    }

    #[test]
    fn a_group_gets_its_burst_and_never_more_than_twenty_in_a_minute() {
        let went = rush(Spacing::of(20, Duration::from_secs(60), 3), 200);
        assert_eq!(&went[..3], [0, 0, 0]);
        for (first, last) in went.iter().zip(went.iter().skip(20)) {
            assert!(last - first > 60_000, "{} ms", last - first);
        }
    }

    #[test]
    fn a_person_gets_three_at_once_and_then_one_a_second() {
        assert_eq!(rush(Spacing::of(1, SECOND, 3), 6), [0, 0, 0, 1_020, 2_040, 3_060]);
    }

    #[test]
    fn a_late_timer_is_made_up_for_and_a_silence_is_not() {
        let spacing = Spacing::of(30, SECOND, 1).by_timer();
        let (mut gcra, mut now) = (Gcra::new(), 0);
        for n in 0..300 {
            now = gcra.earliest(spacing).max(now) + n % 5;
            gcra.take(now, spacing);
        }
        assert!(now <= 299 * 34 + 5, "{now} ms");
        gcra.take(60_000, spacing);
        assert_eq!(gcra.earliest(spacing), 60_024, "the minute that nobody used is gone");
    }

    #[test]
    fn whoever_begins_later_has_no_burst_at_first() {
        let spacing = Spacing::of(1, SECOND, 3);
        let mut gcra = Gcra::new();
        gcra.not_before(5_000, spacing);
        assert_eq!(gcra.earliest(spacing), 5_000);
        gcra.take(5_000, spacing);
        assert_eq!(gcra.earliest(spacing), 6_020);
        assert!(!gcra.is_rested(6_020) && gcra.is_rested(60_000));
    }
}
