//! The owner's hand: give, add time, stop for a while, go on, end. Each with a reason, which stands in the story.
//!
//! The row in the owner's log is written by the transaction itself (`Shop::write`), for whoever acts.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::jobs;
use semel_kernel::store::Tx;

use super::flows::{self, New, advance, lock, tell};
use super::{PeriodKind, State, Subscription, SubscriptionId, SubscriptionNotice, clock, sql};
use crate::customers::{self, Customer, NewCustomer};
use crate::orders::HandOver;
use crate::vpn::{self, Fate};
use crate::{Error, Shop, owner_log};

const DAY_S: u64 = 86_400;
/// Longer gifts are a slip of the hand.
const DAYS_AT_MOST: u64 = 3650;
const DEVICES_AT_MOST: i64 = 10;

/// What the owner gives away.
#[derive(Clone, Debug)]
pub struct Grant {
    /// To whom; a new customer becomes known by it.
    pub customer: NewCustomer,
    /// How long.
    pub time: Duration,
    /// For how many devices: 1 to 10.
    pub devices: i64,
    /// Why.
    pub reason: String,
}

/// Begins a subscription that nobody paid for, beside those that the customer has.
///
/// # Errors
/// [`Error::Invalid`] when time or devices make no sense; [`Error::Conflict`] when no address is free, or there is no VPN;
/// [`Error::SafeMode`].
pub fn grant(tx: &mut Tx, shop: &Shop, grant: &Grant, actor: &str) -> Result<Subscription, Error> {
    let (begun, customer) = begin(tx, shop, grant, actor)?;
    let notice = SubscriptionNotice::Granted { until: begun.paid_until };
    tell(tx, shop, &customer, "vpn_granted", format!("sub:{}:granted", begun.id), notice)?;
    Ok(begun)
}

/// The same for a customer whose device has access already, from before Semel: there is no file to promise, so nobody is told.
///
/// # Errors
/// As [`grant`].
pub fn take_over(tx: &mut Tx, shop: &Shop, grant: &Grant, actor: &str) -> Result<Subscription, Error> {
    Ok(begin(tx, shop, grant, actor)?.0)
}

fn begin(tx: &mut Tx, shop: &Shop, grant: &Grant, actor: &str) -> Result<(Subscription, Customer), Error> {
    vpn::of(shop)?;
    flows::permit(tx, shop)?;
    let time = sound(grant.time)?;
    if !(1..=DEVICES_AT_MOST).contains(&grant.devices) {
        let reason = format!("between 1 and {DEVICES_AT_MOST}, not {}", grant.devices);
        return Err(Error::invalid("devices", reason));
    }
    let customer = customers::flows::upsert(tx, shop, &grant.customer)?;
    let new = New {
        customer: &customer.id,
        product: None,
        state: State::Active,
        time,
        devices: grant.devices,
        actor,
        reason: Some(&grant.reason),
    };
    let Some(begun) = flows::begin(tx, shop, &new)? else { return Err(no_address()) };
    flows::add_period(tx, shop, &begun.id, None, PeriodKind::Hand, seconds(time), Some(&grant.reason))?;
    owner_log::about(begun.id.as_str());
    Ok((begun, customer))
}

/// Adds time that nobody paid for; what had expired is open again.
///
/// # Errors
/// [`Error::Invalid`] when the time makes no sense; [`Error::Conflict`] when it was revoked, or no address is free;
/// [`Error::SafeMode`].
pub fn extend(
    tx: &mut Tx,
    shop: &Shop,
    id: &SubscriptionId,
    time: Duration,
    reason: &str,
    actor: &str,
) -> Result<Subscription, Error> {
    let time = sound(time)?;
    flows::permit(tx, shop)?;
    let mut subscription = lock(tx, id)?;
    let devices = subscription.devices;
    if !flows::add_time(tx, shop, &mut subscription, time, devices, actor, Some(reason))? {
        return Err(no_address());
    }
    flows::add_period(tx, shop, id, None, PeriodKind::Hand, seconds(time), Some(reason))?;
    let until = subscription.paid_until;
    tell_of(tx, shop, &subscription, "vpn_extended", until.millis(), SubscriptionNotice::Extended { until })?;
    Ok(subscription)
}

/// Closes a subscription and stops its time. A repeat changes nothing.
///
/// # Errors
/// [`Error::Conflict`] when no time runs that could be stopped.
pub fn freeze(tx: &mut Tx, shop: &Shop, id: &SubscriptionId, reason: &str, actor: &str) -> Result<Subscription, Error> {
    let mut subscription = lock(tx, id)?;
    let now = tx.now();
    if subscription.state == State::Frozen {
        return Ok(subscription);
    }
    // Its clock may be a moment late.
    if subscription.paid_until <= now {
        return Err(Error::Conflict(format!("the time of subscription {id} is over: there is nothing to stop")));
    }
    subscription.frozen_at = Some(now);
    advance(tx, &mut subscription, State::Frozen, actor, Some(reason))?;
    clock::stop(tx, &subscription)?;
    vpn::flows::close(tx, shop, id, Fate::Sticky)?;
    tell_of(tx, shop, &subscription, "vpn_frozen", subscription.version, SubscriptionNotice::Frozen)?;
    Ok(subscription)
}

/// Lets a frozen subscription go on with the time that was left. A repeat changes nothing.
///
/// # Errors
/// [`Error::Conflict`] when it is not frozen, or when no address is free for a device whose own was given away meanwhile;
/// [`Error::SafeMode`].
pub fn unfreeze(
    tx: &mut Tx,
    shop: &Shop,
    id: &SubscriptionId,
    reason: &str,
    actor: &str,
) -> Result<Subscription, Error> {
    let mut subscription = lock(tx, id)?;
    let now = tx.now();
    let Some(frozen_at) = subscription.frozen_at else {
        if subscription.state.is_open() {
            return Ok(subscription);
        }
        let state = subscription.state.as_str();
        return Err(Error::Conflict(format!("subscription {id} is {state}, not frozen")));
    };
    flows::permit(tx, shop)?;
    if !flows::open(tx, shop, &mut subscription)? {
        return Err(no_address());
    }
    subscription.paid_until = subscription.paid_until + now.since(frozen_at);
    subscription.since = now;
    subscription.frozen_at = None;
    let is_paid = tx.first(sql::IS_PAID, args![id])?.is_some();
    clock::start(tx, shop, &mut subscription)?;
    advance(tx, &mut subscription, if is_paid { State::Active } else { State::Trial }, actor, Some(reason))?;
    let notice = SubscriptionNotice::Unfrozen { until: subscription.paid_until };
    tell_of(tx, shop, &subscription, "vpn_unfrozen", subscription.version, notice)?;
    Ok(subscription)
}

/// Ends a subscription for good: its addresses and keys are given up at once. Its money is the business of refunds. A repeat
/// changes nothing.
///
/// # Errors
/// [`Error::NotFound`] when there is no such subscription.
pub fn revoke(tx: &mut Tx, shop: &Shop, id: &SubscriptionId, reason: &str, actor: &str) -> Result<Subscription, Error> {
    let mut subscription = lock(tx, id)?;
    if subscription.state != State::Revoked {
        end(tx, shop, &mut subscription, reason, actor)?;
    }
    Ok(subscription)
}

/// Revokes a subscription whose row is held.
pub(super) fn end(
    tx: &mut Tx,
    shop: &Shop,
    subscription: &mut Subscription,
    reason: &str,
    actor: &str,
) -> Result<(), Error> {
    subscription.frozen_at = None;
    advance(tx, subscription, State::Revoked, actor, Some(reason))?;
    clock::stop(tx, subscription)?;
    vpn::flows::close(tx, shop, &subscription.id, Fate::Freed)?;
    // What is paid and was not handed over yet never will be: each such order tells the owner.
    let now = tx.now();
    for row in tx.rows(sql::UNSERVED, args![&subscription.id])? {
        jobs::enqueue(tx, &HandOver { order: row.get(0)? }, now, &shop.chance)?;
    }
    tell_of(tx, shop, subscription, "vpn_revoked", subscription.version, SubscriptionNotice::Revoked)
}

/// Tells the customer; `which` tells notices of one kind about one subscription apart.
fn tell_of(
    tx: &mut Tx,
    shop: &Shop,
    subscription: &Subscription,
    kind: &'static str,
    which: i64,
    notice: SubscriptionNotice,
) -> Result<(), Error> {
    let customer = customers::flows::find(tx, &subscription.customer)?;
    tell(tx, shop, &customer, kind, format!("sub:{}:{kind}:{which}", subscription.id), notice)
}

fn no_address() -> Error {
    Error::Conflict("no address is free, or nobody has looked at the server yet: `semel wg plan` says which; try again in a moment, or add a network".into())
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn sound(time: Duration) -> Result<Duration, Error> {
    let seconds = time.as_secs();
    if (1..=DAYS_AT_MOST * DAY_S).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(Error::invalid("duration", format!("between a second and {DAYS_AT_MOST} days")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gift_is_neither_nothing_nor_endless() {
        assert_eq!(sound(Duration::from_millis(1500)).unwrap(), Duration::from_secs(1));
        assert!(sound(Duration::from_millis(999)).is_err());
        assert!(sound(Duration::from_secs(DAYS_AT_MOST * DAY_S)).is_ok());
        assert!(sound(Duration::from_secs(DAYS_AT_MOST * DAY_S + 1)).is_err());
    }
}
