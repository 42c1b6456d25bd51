//! The breaker of one host key: stop knocking at a door behind which nobody answers.
//!
//! Closed lets everything through. Five failures in a row open it; while it is open nothing is sent. When the
//! cool-down has passed, one call goes through as a probe: its success closes the breaker, its failure opens it again
//! for twice as long. Answers to calls that began before it opened change nothing, so a burst of slow failures cannot
//! push the end of the cool-down away, and a late success cannot close what a probe has not proved.
//!
//! A pure state machine: time and chance are arguments, nothing here waits.

use std::time::Duration;

use crate::clock::{Chance, Time};

/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u32 = 5;
/// The first cool-down; each failed probe doubles it.
const FIRST_COOLDOWN: Duration = Duration::from_secs(10);
/// The longest cool-down.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(60);
/// When to ask again while somebody else's probe is under way.
const WHILE_PROBED: Duration = Duration::from_secs(1);

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything goes through.
    Closed,
    /// Nothing goes through until the cool-down is over.
    Open,
    /// One probe is under way; everything else is refused.
    HalfOpen,
}

impl BreakerState {
    /// The word for logs, metrics and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: Time },
    HalfOpen,
}

/// The breaker of one host key.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    failures: u32,
    cooldown: Duration,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed, failures: 0, cooldown: FIRST_COOLDOWN }
    }

    /// When to come back, if a call that wants to start now has to stay out.
    pub(super) fn refuses(&self, now: Time) -> Option<Time> {
        match self.state {
            State::Closed => None,
            State::Open { until } => (now < until).then_some(until),
            State::HalfOpen => Some(now + WHILE_PROBED),
        }
    }

    /// Lets a call in that was not refused; true when it is the probe.
    pub(super) fn enter(&mut self) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { .. } | State::HalfOpen => {
                self.state = State::HalfOpen;
                true
            }
        }
    }

    /// The other side answered sensibly.
    pub(super) fn succeeded(&mut self, probe: bool) {
        if probe || matches!(self.state, State::Closed) {
            *self = Self::new();
        }
    }

    /// The other side failed: no connection, no answer, or a 5xx.
    pub(super) fn failed(&mut self, probe: bool, now: Time, chance: &Chance) {
        match self.state {
            State::Closed => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FAILURES_TO_OPEN {
                    self.open(now, chance);
                }
            }
            State::HalfOpen if probe => {
                self.failures = self.failures.saturating_add(1);
                self.cooldown = (self.cooldown * 2).min(LONGEST_COOLDOWN);
                self.open(now, chance);
            }
            State::Open { .. } | State::HalfOpen => {}
        }
    }

    /// The probe ended without telling anything (its caller went away): the next call may probe.
    pub(super) fn abandoned(&mut self, now: Time) {
        if matches!(self.state, State::HalfOpen) {
            self.state = State::Open { until: now };
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn open_until(&self) -> Option<Time> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        }
    }

    /// Half of the cool-down is certain, the rest is chance: many copies of the program do not probe together.
    fn open(&mut self, now: Time, chance: &Chance) {
        let half = self.cooldown / 2;
        let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX - 1);
        self.state = State::Open { until: now + half + Duration::from_millis(chance.below(spread + 1)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_millis(1_000_000);

    fn fail(breaker: &mut Breaker, times: u32, now: Time) {
        for _ in 0..times {
            assert_eq!(breaker.refuses(now), None);
            let probe = breaker.enter();
            breaker.failed(probe, now, &Chance::seeded(1));
        }
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut breaker = Breaker::new();
        fail(&mut breaker, 4, START);
        breaker.succeeded(false);
        fail(&mut breaker, 4, START);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, 1, START);
        assert_eq!(breaker.state(), BreakerState::Open);

        let until = breaker.open_until().expect("an open breaker says until when");
        assert!(until >= START + FIRST_COOLDOWN / 2 && until <= START + FIRST_COOLDOWN);
        assert_eq!(breaker.refuses(START), Some(until));
    }

    #[test]
    fn after_the_cool_down_one_probe_goes_through_and_closes_it() {
        let mut breaker = Breaker::new();
        fail(&mut breaker, 5, START);
        let later = START + FIRST_COOLDOWN;

        assert_eq!(breaker.refuses(later), None);
        assert!(breaker.enter());
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.refuses(later).is_some(), "a second call waits for the first one's probe");

        breaker.succeeded(true);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.failures(), 0);
        assert_eq!(breaker.refuses(later), None);
    }

    #[test]
    fn failed_probes_double_the_cool_down_up_to_a_minute() {
        let mut breaker = Breaker::new();
        fail(&mut breaker, 5, START);
        let mut now = START;
        for expected in [20_u64, 40, 60, 60] {
            now = now + LONGEST_COOLDOWN;
            fail(&mut breaker, 1, now);
            let until = breaker.open_until().expect("an open breaker says until when");
            let longest = Duration::from_secs(expected);
            assert!(until >= now + longest / 2 && until <= now + longest, "{expected} s: {:?}", until.since(now));
        }
    }

    #[test]
    fn stragglers_change_nothing_while_it_is_open() {
        let mut breaker = Breaker::new();
        fail(&mut breaker, 5, START);
        let until = breaker.open_until();
        breaker.failed(false, START + Duration::from_secs(3), &Chance::seeded(2));
        breaker.succeeded(false);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.open_until(), until);
    }

    #[test]
    fn a_probe_whose_caller_went_away_leaves_the_door_to_the_next_one() {
        let mut breaker = Breaker::new();
        fail(&mut breaker, 5, START);
        let later = START + FIRST_COOLDOWN;
        assert!(breaker.enter());
        breaker.abandoned(later);
        assert_eq!(breaker.refuses(later), None);
        assert!(breaker.enter());
    }
}
