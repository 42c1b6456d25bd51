//! Money that went back takes its time with it.
//!
//! A part of the money takes the same part of the time, rounded in the customer's favour; all of it takes all. Of an order with
//! other lines money counts for access only when it exceeds what those cost. Time that has run already cannot be taken, nor
//! time that was added later: nothing ends in the past, and nobody loses what another payment bought.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Expect, Tx};

use super::flows::{keep, lock};
use super::{PeriodId, State, Subscription, SubscriptionId, by_hand, clock, sql};
use crate::catalog::Kind;
use crate::orders::{self, Order};
use crate::{Error, Shop};

/// Time that an order bought.
struct Bought {
    period: PeriodId,
    subscription: SubscriptionId,
    seconds: i64,
    taken: i64,
    at: Time,
}

/// Takes time back for what of an order's money went back so far: `gone`, in smallest units. After each refund that succeeded;
/// a repeat takes nothing more. The order's row must be held.
///
/// A subscription of which nothing is left after a full refund is revoked.
pub fn refunded(tx: &mut Tx, shop: &Shop, order: &Order, gone: i64) -> Result<(), Error> {
    let mut periods = Vec::new();
    for row in tx.rows(sql::OF_ORDER, args![&order.id])? {
        periods.push(Bought {
            period: row.get(0)?,
            subscription: row.get(1)?,
            seconds: row.get(2)?,
            taken: row.get(3)?,
            at: row.get(4)?,
        });
    }
    if periods.is_empty() {
        return Ok(());
    }
    let (total, access) = (order.total.minor(), price_of_access(tx, order)?);
    let full = gone >= total;
    for bought in periods {
        let due = if full { bought.seconds } else { share(bought.seconds, for_access(gone, total, access), access) };
        if due <= bought.taken {
            continue;
        }
        let mut subscription = lock(tx, &bought.subscription)?;
        tx.later(sql::TAKE, args![&bought.period, bought.taken, due], Expect::Rows(1))?;
        let later: i64 = tx.one(sql::GIVEN_LATER, args![&bought.subscription, bought.at, &bought.period])?.get(0)?;
        let taken = Taken { back: time(due - bought.taken), later: time(later), full };
        take(tx, shop, &mut subscription, order, &taken)?;
    }
    Ok(())
}

/// What an order's lines of access cost, in smallest units.
fn price_of_access(tx: &mut Tx, order: &Order) -> Result<i64, Error> {
    let mut sum = 0;
    for item in orders::flows::items(tx, &order.id)?.iter().filter(|item| item.kind == Kind::Vpn) {
        sum += item.price.times(item.quantity)?.minor();
    }
    Ok(sum)
}

/// Of what went back of an order, what went back for access: a refund is for the other lines as long as it can be.
fn for_access(gone: i64, total: i64, access: i64) -> i64 {
    gone.saturating_sub(total.saturating_sub(access)).clamp(0, access.max(0))
}

fn time(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// What a refund takes from a subscription.
struct Taken {
    /// The time that it is worth.
    back: Duration,
    /// What was added later, and is not this refund's.
    later: Duration,
    /// Whether all of the order's money went back.
    full: bool,
}

fn take(tx: &mut Tx, shop: &Shop, subscription: &mut Subscription, order: &Order, taken: &Taken) -> Result<(), Error> {
    let now = tx.now();
    let actor = order.id.as_str();
    match after(subscription, taken, now) {
        After::Nothing => Ok(()),
        After::Revoked => by_hand::end(tx, shop, subscription, "refunded", actor),
        After::Until(until) => {
            let back = subscription.paid_until.since(until);
            subscription.paid_until = until;
            subscription.since = now;
            let detail = format!("{} s, until {until}", back.as_secs());
            keep(tx, subscription, "time was taken back", actor, &detail)?;
            clock::pull(tx, subscription)
        }
    }
}

/// Of `seconds`, what belongs to `refunded` of `total`: rounded down, so the customer keeps the broken second.
fn share(seconds: i64, refunded: i64, total: i64) -> i64 {
    if total <= 0 {
        return 0;
    }
    if refunded >= total {
        return seconds;
    }
    let part = i128::from(seconds) * i128::from(refunded.max(0)) / i128::from(total);
    i64::try_from(part).unwrap_or(seconds)
}

/// What becomes of a subscription.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// It was over for good already, or the time that was refunded had run.
    Nothing,
    /// Nothing is left of it.
    Revoked,
    /// It goes on until then.
    Until(Time),
}

fn after(subscription: &Subscription, taken: &Taken, now: Time) -> After {
    // Where its time stands: now, unless it stands still.
    let stands = subscription.frozen_at.unwrap_or(now);
    // What was added later runs last.
    let unused = subscription.paid_until.since(stands).saturating_sub(taken.later);
    let left = subscription.paid_until - taken.back.min(unused);
    match subscription.state {
        State::Revoked => After::Nothing,
        _ if taken.full && taken.later.is_zero() && left <= stands => After::Revoked,
        _ if left == subscription.paid_until => After::Nothing,
        _ => After::Until(left),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::tests::subscription;
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u32) -> Time {
        Time::from_millis(1_800_000_000_000) + DAY * days
    }

    #[test]
    fn a_part_of_the_money_takes_the_same_part_of_the_time() {
        assert_eq!(share(30 * 86_400, 10_000, 30_000), 10 * 86_400);
        assert_eq!(share(100, 1, 3), 33, "the broken second is the customer's");
        assert_eq!(share(100, 3, 3), 100);
        assert_eq!(share(100, 5, 3), 100);
        assert_eq!(share(100, 0, 3), 0);
        assert_eq!(share(100, 0, 0), 0, "what cost nothing goes with the whole order only");
        assert_eq!(share(i64::MAX, i64::MAX - 1, i64::MAX), i64::MAX - 1);
    }

    proptest! {
        #[test]
        fn refunds_in_parts_take_no_more_than_one_of_the_sum(
            seconds in 1_i64..400_000_000_000,
            total in 1_i64..1_000_000_000_000,
            parts in proptest::collection::vec(1_i64..1_000_000_000, 1..20),
        ) {
            let (mut refunded, mut taken) = (0, 0);
            for part in parts {
                refunded = (refunded + part).min(total);
                let due = share(seconds, refunded, total);
                prop_assert!(due >= taken, "time is never given back by a refund");
                prop_assert!(i128::from(due) * i128::from(total) <= i128::from(seconds) * i128::from(refunded));
                taken = due;
            }
            prop_assert_eq!(taken == seconds, refunded == total || share(seconds, refunded, total) == seconds);
        }
    }

    #[test]
    fn money_for_other_lines_takes_no_time() {
        // 300 for access, 700 for other goods.
        let of_access = |gone| for_access(gone, 1000, 300);
        assert_eq!([0, 500, 700].map(of_access), [0, 0, 0], "it may have been for the other goods");
        assert_eq!([701, 850, 1000].map(of_access), [1, 150, 300]);
        assert_eq!(of_access(5000), 300, "one refund too many");
        assert_eq!([0, 100, 300].map(|gone| for_access(gone, 300, 300)), [0, 100, 300]);
        assert_eq!(for_access(400, 1000, 0), 0);
    }

    proptest! {
        #[test]
        fn access_and_the_other_lines_share_what_went_back(
            access in 0_i64..1_000_000_000,
            others in 0_i64..1_000_000_000,
            part in 0_i64..1_000_000,
        ) {
            let total = access + others;
            let gone = i64::try_from(i128::from(total) * i128::from(part) / 1_000_000).unwrap();
            let of_access = for_access(gone, total, access);
            prop_assert!((0..=access).contains(&of_access));
            prop_assert!(gone - of_access <= others, "the other lines gave no more than they cost");
            prop_assert!(of_access == 0 || gone - of_access == others, "they gave all they cost before access gave any");
            prop_assert!(for_access(gone + 1, total, access) >= of_access);
        }
    }

    fn part(days: u32) -> Taken {
        Taken { back: DAY * days, later: Duration::ZERO, full: false }
    }

    fn full(days: u32) -> Taken {
        Taken { full: true, ..part(days) }
    }

    #[test]
    fn a_full_refund_revokes_unless_other_time_is_left() {
        let sub = subscription(State::Active, at(30));
        assert_eq!(after(&sub, &full(30), at(1)), After::Revoked);
        assert_eq!(after(&sub, &full(20), at(1)), After::Until(at(10)));
        let over = subscription(State::Expired, at(30));
        assert_eq!(after(&over, &full(30), at(50)), After::Revoked, "its address is given up");
        assert_eq!(after(&subscription(State::Revoked, at(30)), &full(1), at(1)), After::Nothing);
    }

    #[test]
    fn a_part_never_ends_anything_in_the_past() {
        let sub = subscription(State::Active, at(30));
        assert_eq!(after(&sub, &part(15), at(1)), After::Until(at(15)));
        assert_eq!(after(&sub, &part(15), at(20)), After::Until(at(20)));
        let over = subscription(State::Grace, at(30));
        assert_eq!(after(&over, &part(15), at(31)), After::Nothing);
    }

    #[test]
    fn of_frozen_time_what_is_left_counts() {
        let mut sub = subscription(State::Frozen, at(30));
        sub.frozen_at = Some(at(10));
        assert_eq!(after(&sub, &part(15), at(100)), After::Until(at(15)));
        assert_eq!(after(&sub, &full(30), at(100)), After::Revoked);
        assert_eq!(after(&sub, &part(25), at(100)), After::Until(at(10)));
        let paid_again = Taken { later: DAY * 15, ..full(30) };
        assert_eq!(after(&sub, &paid_again, at(100)), After::Until(at(25)));
    }

    #[test]
    fn an_old_order_takes_nothing_of_what_a_newer_one_bought() {
        let month_later = |taken: Taken| Taken { later: DAY * 30, ..taken };
        let sub = subscription(State::Active, at(60));
        assert_eq!(after(&sub, &month_later(full(30)), at(5)), After::Until(at(35)), "25 of its days are left");
        assert_eq!(after(&sub, &month_later(part(10)), at(5)), After::Until(at(50)));
        assert_eq!(after(&sub, &month_later(part(10)), at(25)), After::Until(at(55)));
        assert_eq!(after(&sub, &month_later(full(30)), at(40)), After::Nothing, "its days have run");
        let over = subscription(State::Expired, at(60));
        assert_eq!(after(&over, &month_later(full(30)), at(70)), After::Nothing, "who paid again keeps the address");
    }

    proptest! {
        #[test]
        fn in_whatever_order_two_months_are_refunded_no_paid_second_is_lost(
            day in 0_u32..60,
            older_first in proptest::bool::ANY,
        ) {
            // Two months from one day on: the older is the first to run.
            let mut sub = subscription(State::Active, at(60));
            let mut newer_left = DAY * 30;
            for older in [older_first, !older_first] {
                let later = if older { newer_left } else { Duration::ZERO };
                let stood = sub.paid_until;
                match after(&sub, &Taken { later, ..full(30) }, at(day)) {
                    After::Until(until) => sub.paid_until = until,
                    After::Revoked => sub.state = State::Revoked,
                    After::Nothing => {}
                }
                if !older {
                    newer_left = Duration::ZERO;
                }
                let taken = stood.since(sub.paid_until);
                prop_assert!(taken <= DAY * 30);
                prop_assert!(sub.paid_until >= at(day), "nothing ends in the past");
                let unused = newer_left.min(at(60).since(at(day)));
                prop_assert!(sub.state == State::Revoked || sub.paid_until.since(at(day)) >= unused);
            }
            prop_assert!(sub.state == State::Revoked || sub.paid_until == at(day), "nothing is left when both went back");
        }
    }
}
