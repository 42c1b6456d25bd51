//! A subscription, its states and what may follow what; the periods that made it; what its customer is told.

use std::time::Duration;

use semel_kernel::clock::Time;

use crate::catalog::ProductId;
use crate::customers::CustomerId;
use crate::vpn::ServerId;

semel_kernel::id!(SubscriptionId, "sub", "Somebody's access to the VPN.");
semel_kernel::id!(PeriodId, "per", "Time that was added to a subscription.");

crate::states! {
    /// Where a subscription stands.
    State {
        /// Open, for nothing, until its end.
        Trial = "trial",
        /// Open: paid for, or given by the owner.
        Active = "active",
        /// Its time is over; it stays open for a little while.
        Grace = "grace",
        /// Closed: its time is over. Addresses and keys are kept for a while, so that a renewal revives the same file.
        Expired = "expired",
        /// Closed by the owner; its time stands still.
        Frozen = "frozen",
        /// Closed for good: refunded in full, or by the owner.
        Revoked = "revoked",
    }
    /// What may follow what. Code, tests, pages and the drawing in the docs read this table.
    TRANSITIONS {
        Trial --"time was added"--> Active,
        Trial --"time ran out"--> Grace,
        Trial --"time ran out, closed"--> Expired,
        Trial --"frozen"--> Frozen,
        Trial --"revoked"--> Revoked,
        Active --"time ran out"--> Grace,
        Active --"time ran out, closed"--> Expired,
        Active --"frozen"--> Frozen,
        Active --"revoked"--> Revoked,
        Grace --"time was added"--> Active,
        Grace --"grace ran out"--> Expired,
        Grace --"revoked"--> Revoked,
        Expired --"time was added"--> Active,
        Expired --"revoked"--> Revoked,
        Frozen --"unfrozen"--> Active,
        Frozen --"unfrozen, still a trial"--> Trial,
        Frozen --"revoked"--> Revoked,
    }
}

impl State {
    /// Whether its peers are wanted on the server.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Trial | Self::Active | Self::Grace)
    }
}

/// A subscription's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose it is.
    pub customer: CustomerId,
    /// What was bought first; none for a trial and for what the owner gave.
    pub product: Option<ProductId>,
    /// The server that its peers are on.
    pub server: ServerId,
    /// Where it stands.
    pub state: State,
    /// The end of its time. While it is frozen this does not move, and what was left at `frozen_at` is left.
    pub paid_until: Time,
    /// When `paid_until` got its value.
    pub since: Time,
    /// When it was frozen, while it is.
    pub frozen_at: Option<Time>,
    /// How many devices it is for, each with a peer of its own.
    pub devices: i64,
    /// State changes so far.
    pub version: i64,
    /// Which of its clocks runs, by number.
    pub clock: i64,
    /// When it began.
    pub created_at: Time,
    /// When it expired or was revoked.
    pub ended_at: Option<Time>,
}

impl Subscription {
    /// The end of its time with `more`: time that runs or stands still is added to, time that ran out begins again now. None
    /// for one that was revoked: that never lives again.
    pub fn end_with(&self, more: Duration, now: Time) -> Option<Time> {
        match self.state {
            State::Trial | State::Active => Some(self.paid_until.max(now) + more),
            State::Frozen => Some(self.paid_until + more),
            State::Grace | State::Expired => Some(now + more),
            State::Revoked => None,
        }
    }

    /// Whether a sale for `devices` devices renews it. More devices than it has would make the time that is left worth more
    /// than was paid, fewer would make one file of several worthless; so they must be equal, unless nothing paid is left and
    /// the devices only become more.
    pub fn takes(&self, devices: i64) -> bool {
        match self.state {
            State::Revoked => false,
            State::Active | State::Frozen => self.devices == devices,
            State::Trial | State::Grace | State::Expired => self.devices <= devices,
        }
    }
}

/// Where a period came from. The words are stored: never renamed, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodKind {
    /// The free beginning.
    Trial,
    /// A line of an order.
    Sale,
    /// The owner's gift.
    Hand,
}

impl PeriodKind {
    /// The word in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Sale => "sale",
            Self::Hand => "hand",
        }
    }
}

/// What a customer is told about a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionNotice {
    /// Its time ends soon.
    EndsIn {
        /// When.
        until: Time,
        /// How soon, in words.
        left: Left,
    },
    /// Its time ended.
    Ended {
        /// When.
        until: Time,
    },
    /// A payment added time; the same file goes on working.
    Renewed {
        /// The new end.
        until: Time,
    },
    /// It began as a trial or by the owner's hand. The files come by themselves.
    Granted {
        /// Its end.
        until: Time,
    },
    /// The owner added time.
    Extended {
        /// The new end.
        until: Time,
    },
    /// The owner stopped it for a while; its time stands still.
    Frozen,
    /// It goes on.
    Unfrozen {
        /// The new end.
        until: Time,
    },
    /// It is over for good.
    Revoked,
    /// No device has connected yet: does the customer need help?
    NotConnected,
    /// It is paid, and no address is free for it right now.
    Waiting,
}

/// How much time is left, in the words of a reminder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Some days: three, as a rule.
    Days3,
    /// About a day.
    Day1,
    /// It ends today.
    Today,
}

impl Left {
    /// The words for a reminder that comes `before` the end.
    pub fn of(before: Duration) -> Self {
        match before.as_secs() / 3600 {
            0..12 => Self::Today,
            12..36 => Self::Day1,
            _ => Self::Days3,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use semel_kernel::clock::Chance;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: i64) -> Time {
        Time::from_millis(days * 86_400_000)
    }

    pub(crate) fn subscription(state: State, paid_until: Time) -> Subscription {
        let (then, chance) = (Time::from_millis(0), Chance::seeded(1));
        Subscription {
            id: SubscriptionId::new(then, &chance),
            customer: CustomerId::new(then, &chance),
            product: None,
            server: ServerId::new(then, &chance),
            state,
            paid_until,
            since: then,
            frozen_at: None,
            devices: 2,
            version: 1,
            clock: 1,
            created_at: then,
            ended_at: None,
        }
    }

    #[test]
    fn time_that_runs_is_added_to_and_time_that_ran_out_begins_again_now() {
        let end = |state, paid_until, now| subscription(state, at(paid_until)).end_with(DAY * 30, at(now));
        assert_eq!(end(State::Active, 10, 5), Some(at(40)));
        assert_eq!(end(State::Trial, 10, 5), Some(at(40)));
        assert_eq!(end(State::Active, 10, 11), Some(at(41)), "its clock is late: nobody loses a day by that");
        assert_eq!(end(State::Grace, 10, 11), Some(at(41)));
        assert_eq!(end(State::Expired, 10, 100), Some(at(130)));
        assert_eq!(end(State::Frozen, 10, 100), Some(at(40)), "frozen time stands still");
        assert_eq!(end(State::Revoked, 10, 5), None);
    }

    #[test]
    fn a_sale_renews_what_is_for_as_many_devices() {
        let takes = |state, devices| subscription(state, at(10)).takes(devices);
        for state in State::ALL.iter().copied().filter(|state| *state != State::Revoked) {
            assert!(takes(state, 2), "{state:?}");
            assert!(!takes(state, 1), "{state:?}: nobody's file is taken away");
        }
        assert!(!takes(State::Revoked, 2));
        assert!(!takes(State::Active, 10), "a day for ten devices must not make a year for one worth ten");
        assert!(!takes(State::Frozen, 10));
        assert!(takes(State::Trial, 10) && takes(State::Grace, 10) && takes(State::Expired, 10));
    }

    #[test]
    fn what_is_revoked_stays_so_and_everything_can_be() {
        assert!(TRANSITIONS.iter().all(|(from, ..)| *from != State::Revoked));
        for state in State::ALL.iter().filter(|state| **state != State::Revoked) {
            assert!(state.event_to(State::Revoked).is_some(), "{state:?}");
        }
        assert_eq!(State::Expired.event_to(State::Active), Some("time was added"));
        assert_eq!(State::Expired.event_to(State::Frozen), None);
        assert_eq!(State::parse("grace"), Some(State::Grace));
    }

    #[test]
    fn the_same_step_is_named_once() {
        for (index, (from, _, to)) in TRANSITIONS.iter().enumerate() {
            assert!(!TRANSITIONS[..index].iter().any(|(f, _, t)| f == from && t == to), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn a_reminder_says_how_soon() {
        assert_eq!(Left::of(DAY * 3), Left::Days3);
        assert_eq!(Left::of(DAY), Left::Day1);
        assert_eq!(Left::of(Duration::from_secs(3 * 3600)), Left::Today);
    }
}
