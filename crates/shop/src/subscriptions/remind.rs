//! What is due in a subscription's life, and when the next thing is: pure rules over moments.
//!
//! All moments are counted from the end of the time or from the beginning of the connection, in milliseconds of UTC: neither
//! midnight nor daylight saving doubles or skips one. Of reminders that are due together (nothing ran for days), only the
//! newest is told; the older ones would be untrue by now.

use std::time::Duration;

use semel_kernel::clock::Time;

use super::{State, Subscription};

/// The owner's rules about time.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// How long a subscription stays open after its end.
    pub(super) grace: Duration,
    /// How long before the end a customer is reminded.
    pub(super) remind: Vec<Duration>,
    /// How long after the beginning a customer is asked whether connecting needs help.
    pub(super) unconnected: Vec<Duration>,
}

impl Terms {
    /// The reminder that is due at `now`: how long before the end it belongs. A moment before the time got its end is none:
    /// who buys a day is not reminded of three days.
    pub(super) fn reminder(&self, since: Time, paid_until: Time, now: Time) -> Option<Duration> {
        if now >= paid_until {
            return None;
        }
        let due = |before: &&Duration| (paid_until - **before) > since && (paid_until - **before) <= now;
        self.remind.iter().filter(due).min().copied()
    }

    /// The question about connecting that is due at `now`: how long after the beginning it belongs.
    pub(super) fn question(&self, began: Time, now: Time) -> Option<Duration> {
        self.unconnected.iter().filter(|after| (began + **after) <= now).max().copied()
    }

    /// Where a subscription that is open stands at `now`, as its time says.
    pub(super) fn stands(&self, subscription: &Subscription, now: Time) -> State {
        if now >= subscription.paid_until + self.grace {
            State::Expired
        } else if now >= subscription.paid_until {
            State::Grace
        } else {
            subscription.state
        }
    }

    /// The first moment after `now` at which something is due for a subscription that is open. `waits_since` is when its peers
    /// were ready, while no device has connected.
    pub(super) fn next(&self, subscription: &Subscription, waits_since: Option<Time>, now: Time) -> Time {
        let Subscription { paid_until, since, .. } = *subscription;
        let reminders = self.remind.iter().map(|before| paid_until - *before).filter(|at| *at > since);
        let questions =
            waits_since.into_iter().flat_map(|began| self.unconnected.iter().map(move |after| began + *after));
        let ends = [paid_until, paid_until + self.grace];
        let moments = reminders.filter(|at| *at < paid_until).chain(questions).chain(ends);
        moments.filter(|at| *at > now).min().unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::tests::subscription;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn terms() -> Terms {
        Terms { grace: DAY, remind: vec![DAY * 3, DAY, HOUR * 3], unconnected: vec![HOUR * 2, DAY, DAY * 5] }
    }

    fn start() -> Time {
        Time::from_millis(1_800_000_000_000)
    }

    #[test]
    fn the_next_moment_is_the_nearest_of_all() {
        let terms = terms();
        let mut sub = subscription(State::Active, start() + DAY * 30);
        sub.since = start();
        assert_eq!(terms.next(&sub, None, start()), start() + DAY * 27);
        assert_eq!(terms.next(&sub, Some(start()), start()), start() + HOUR * 2);
        assert_eq!(terms.next(&sub, None, start() + DAY * 27), start() + DAY * 29);
        assert_eq!(terms.next(&sub, None, start() + DAY * 29), start() + DAY * 30 - HOUR * 3);
        assert_eq!(terms.next(&sub, None, start() + DAY * 30 - HOUR), start() + DAY * 30);
        assert_eq!(terms.next(&sub, None, start() + DAY * 30), start() + DAY * 31);
    }

    #[test]
    fn who_buys_a_day_is_not_reminded_of_three() {
        let (terms, end) = (terms(), start() + DAY);
        assert_eq!(terms.reminder(start(), end, start()), None);
        assert_eq!(terms.reminder(start(), end, end - HOUR * 3), Some(HOUR * 3));
    }

    #[test]
    fn of_what_was_missed_only_the_newest_is_told() {
        let (terms, end) = (terms(), start() + DAY * 30);
        assert_eq!(terms.reminder(start(), end, end - DAY * 2), Some(DAY * 3));
        assert_eq!(terms.reminder(start(), end, end - HOUR), Some(HOUR * 3));
        assert_eq!(terms.reminder(start(), end, end), None, "then it ended, which is another notice");
        assert_eq!(terms.question(start(), start() + DAY * 9), Some(DAY * 5));
        assert_eq!(terms.question(start(), start() + HOUR), None);
    }

    #[test]
    fn time_leads_through_grace_to_the_end() {
        let (terms, end) = (terms(), start() + DAY * 30);
        let sub = subscription(State::Trial, end);
        assert_eq!(terms.stands(&sub, end - HOUR), State::Trial);
        assert_eq!(terms.stands(&sub, end), State::Grace);
        assert_eq!(terms.stands(&sub, end + DAY), State::Expired);
        let none = Terms { grace: Duration::ZERO, ..terms };
        assert_eq!(none.stands(&sub, end), State::Expired);
    }

    /// Runs the clock as its job does: at each next moment, late by what `late` says, and at `extra` moments besides. Answers
    /// the reminders that a run found due, a repeat of the last one left out as the message's key does.
    fn reminders(days: u64, late: &[u64], extra: &[u64]) -> Vec<Duration> {
        let terms = terms();
        let mut sub = subscription(State::Active, start() + DAY * u32::try_from(days).unwrap());
        sub.since = start();
        let mut told: Vec<Duration> = Vec::new();
        let (mut now, mut late) = (start(), late.iter().cycle());
        let mut extra: Vec<Time> = extra.iter().map(|minutes| start() + Duration::from_secs(minutes * 60)).collect();
        extra.sort();
        for _ in 0..1000 {
            if let Some(due) = terms.reminder(sub.since, sub.paid_until, now)
                && told.last() != Some(&due)
            {
                told.push(due);
            }
            if terms.stands(&sub, now) == State::Expired {
                return told;
            }
            let next = terms.next(&sub, None, now);
            assert!(next > now, "a clock that stands still never ends");
            let planned = next + Duration::from_secs(late.next().copied().unwrap_or(0) * 60);
            now = match extra.iter().copied().find(|at| *at > now && *at < planned) {
                Some(pulled) => pulled,
                None => planned,
            };
        }
        panic!("the subscription never ended");
    }

    proptest! {
        #[test]
        fn on_time_each_reminder_comes_once_and_in_order(
            days in 1_u64..400,
            extra in proptest::collection::vec(0_u64..400 * 1440, 0..30),
        ) {
            let told = reminders(days, &[0], &extra);
            let wanted: Vec<Duration> =
                terms().remind.into_iter().filter(|before| *before < DAY * u32::try_from(days).unwrap()).collect();
            prop_assert_eq!(told, wanted);
        }

        #[test]
        fn late_or_early_no_reminder_comes_twice_or_after_a_newer_one(
            days in 1_u64..60,
            late in proptest::collection::vec(0_u64..5 * 1440, 1..20),
            extra in proptest::collection::vec(0_u64..70 * 1440, 0..30),
        ) {
            let told = reminders(days, &late, &extra);
            prop_assert!(told.windows(2).all(|pair| pair[0] > pair[1]), "{:?}", told);
        }
    }
}
