//! The pace of one host key: at most so many sends per second, with a small burst.
//!
//! The generic cell rate algorithm in whole microseconds: one number says when the next send would be exactly on
//! pace, and a send may be early by as much as the burst allows. In no window of any length `t` are more than
//! `burst + rate * t` slots given out. Slots are given in order and never taken back: a caller that goes away leaves
//! its slot empty, which is slower than allowed but never faster.
//!
//! Pure: time is an argument, nothing here waits.

use std::time::Duration;

use crate::clock::Time;

/// How often a host key may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Sends per second in the long run; zero counts as one.
    pub per_second: u32,
    /// Sends that may go at once after a silence; zero counts as one.
    pub burst: u32,
}

impl Pace {
    /// Microseconds between two sends, rounded up so that the rate is never passed.
    fn step(self) -> i64 {
        i64::from(1_000_000_u32.div_ceil(self.per_second.max(1)))
    }

    /// How late a slot may still be used: half a step, or those who missed theirs would leave together.
    pub(super) fn grace(self) -> Duration {
        Duration::from_micros(u64::try_from(self.step() / 2).unwrap_or(0))
    }

    /// How many microseconds early a send may be.
    fn slack(self) -> i64 {
        self.step().saturating_mul(i64::from(self.burst.max(1) - 1))
    }
}

/// The pace of one host key as it stands.
#[derive(Debug)]
pub(super) struct Pacer {
    /// When the next send would be exactly on pace, in microseconds since 1970.
    on_pace: i64,
}

impl Pacer {
    pub(super) fn new() -> Self {
        Self { on_pace: i64::MIN }
    }

    /// The first free slot that is not before `from`. Takes nothing.
    pub(super) fn slot(&self, from: Time, pace: Pace) -> Time {
        let earliest = self.on_pace.saturating_sub(pace.slack());
        let micros = earliest.max(micros(from));
        Time::from_millis(micros.saturating_add(999).div_euclid(1_000))
    }

    /// Takes the slot that [`Pacer::slot`] has just named.
    pub(super) fn take(&mut self, slot: Time, pace: Pace) {
        self.on_pace = self.on_pace.max(micros(slot)).saturating_add(pace.step());
    }
}

fn micros(time: Time) -> i64 {
    time.millis().saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Chance;

    /// Sends at the given moments, each as early as the pace allows; returns when they really go.
    fn send(pace: Pace, wishes: impl IntoIterator<Item = Time>) -> Vec<i64> {
        let mut pacer = Pacer::new();
        wishes
            .into_iter()
            .map(|wish| {
                let slot = pacer.slot(wish, pace);
                assert!(slot >= wish);
                pacer.take(slot, pace);
                slot.millis()
            })
            .collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let pace = Pace { per_second: 10, burst: 3 };
        let went = send(pace, [Time::from_millis(5_000); 6]);
        assert_eq!(went, [5_000, 5_000, 5_000, 5_100, 5_200, 5_300]);
    }

    #[test]
    fn a_silence_gives_the_burst_back_but_no_more() {
        let pace = Pace { per_second: 10, burst: 2 };
        let wishes = [0, 0, 60_000, 60_000, 60_000].map(Time::from_millis);
        assert_eq!(send(pace, wishes), [0, 0, 60_000, 60_000, 60_100]);
    }

    #[test]
    fn no_window_ever_holds_more_than_the_burst_and_the_rate_allow() {
        let chance = Chance::seeded(7);
        for (per_second, burst) in [(1, 1), (3, 1), (7, 4), (30, 30), (25, 5), (999, 2), (5_000, 1)] {
            let pace = Pace { per_second, burst };
            let mut at = Time::from_millis(1_700_000_000_000);
            let mut wishes = Vec::new();
            for _ in 0..300 {
                at = at + Duration::from_millis(chance.below(3_000 / u64::from(per_second) + 2));
                wishes.push(at);
            }
            let went = send(pace, wishes);
            for first in 0..went.len() {
                for last in first..went.len() {
                    let sends = i64::try_from(last - first + 1).expect("a small number");
                    let over = (sends - i64::from(burst)) * 1_000;
                    let allowed = i64::from(per_second) * (went[last] - went[first]);
                    assert!(over <= allowed, "{sends} sends in {} ms at {pace:?}", went[last] - went[first]);
                }
            }
        }
    }

    #[test]
    fn looking_takes_nothing_and_zeroes_count_as_ones() {
        let pace = Pace { per_second: 0, burst: 0 };
        let mut pacer = Pacer::new();
        let now = Time::from_millis(1_000);
        assert_eq!(pacer.slot(now, pace), now);
        assert_eq!(pacer.slot(now, pace), now);
        pacer.take(now, pace);
        assert_eq!(pacer.slot(now, pace), Time::from_millis(2_000));
    }
}
