//! How many calls may be under way at once: as many as the pace needs at the latency that there is, and half as many again.
//!
//! The latency is that of the slower calls, not of the middle one: a window that a few slow calls fill would make all others
//! wait. It follows upwards at once and downwards slowly.

use std::time::Duration;

use super::Rate;

/// Never fewer: one slow call shall not stop everything.
const LEAST: u64 = 2;
/// Never more: the Bot API's server turns against who has hundreds of calls open.
const MOST: u64 = 64;
/// What is assumed before the first answer.
const FIRST_GUESS: Duration = Duration::from_millis(500);
/// No call counts as slower.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    latency: Duration,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { latency: FIRST_GUESS }
    }

    /// A call was answered after `took`.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = took.min(LONGEST);
        self.latency = if took > self.latency {
            self.latency + (took - self.latency) / 2
        } else {
            self.latency - (self.latency - took) / 64
        };
    }

    /// How many calls may be under way at this rate.
    pub(super) fn size(&self, rate: Rate) -> usize {
        let per = rate.per.as_micros().max(1);
        let wanted = (self.latency.as_micros() * u128::from(rate.messages) * 3).div_ceil(per * 2);
        usize::try_from(wanted.clamp(u128::from(LEAST), u128::from(MOST))).unwrap_or(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(took: &[u64]) -> Window {
        let mut window = Window::new();
        took.iter().for_each(|ms| window.answered(Duration::from_millis(*ms)));
        window
    }

    #[test]
    fn the_window_is_latency_times_rate_and_a_half_more() {
        let rate = Rate::per_second(30);
        assert_eq!(after(&[]).size(rate), 23);
        assert_eq!(after(&[60; 1_000]).size(rate), 3);
        assert_eq!(after(&[1; 2_000]).size(rate), 2, "never one alone");
        assert_eq!(after(&[60_000; 50]).size(rate), 64, "never hundreds");
    }

    #[test]
    fn a_few_slow_calls_widen_it_before_they_fill_it() {
        let mut calls = vec![60; 1_000];
        calls.extend([2_000, 60, 60, 2_000]);
        assert!(after(&calls).size(Rate::per_second(30)) >= 40);
    }
}
