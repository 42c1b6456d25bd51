//! The free beginning: once per person, for ever.

use semel_kernel::args;
use semel_kernel::store::Tx;

use super::flows::{self, New};
use super::{PeriodKind, State, Subscription, SubscriptionNotice, sql};
use crate::customers::{self, NewCustomer};
use crate::{Error, Shop, orders, owner_log, vpn};

/// Devices of a trial.
const DEVICES: i64 = 1;

/// Begins a trial for a person. A referral link changes nothing about how often: the person counts.
///
/// # Errors
/// [`Error::Conflict`] when there are no trials, when this person had one or has a subscription, or when no address is free
/// or somebody who paid has waited for one for too long; [`Error::SafeMode`].
pub fn start(tx: &mut Tx, shop: &Shop, person: &NewCustomer) -> Result<Subscription, Error> {
    let time = vpn::of(shop)?.rules.trial;
    if time.is_zero() {
        return Err(Error::Conflict("this shop gives no trials".into()));
    }
    flows::permit(tx, shop)?;
    let customer = customers::flows::upsert(tx, shop, person)?;
    tx.one(sql::HOLD_CUSTOMER, args![&customer.id])?;
    if tx.first(sql::HAD_TRIAL, args![&customer.id])?.is_some() {
        return Err(Error::Conflict("this person had a trial already".into()));
    }
    if !flows::of_customer(tx, &customer.id, 1)?.is_empty() {
        return Err(Error::Conflict("this person has a subscription already".into()));
    }
    let new = New {
        customer: &customer.id,
        product: None,
        state: State::Trial,
        time,
        devices: DEVICES,
        actor: "trial",
        reason: None,
    };
    let none_free = || Error::Conflict("no address is free now: try again later".into());
    if orders::flows::is_access_overdue(tx)? {
        return Err(none_free());
    }
    let begun = flows::begin(tx, shop, &new)?.ok_or_else(none_free)?;
    let now = tx.now();
    // Whoever came at the same moment decides by the key.
    if tx.execute(sql::TRIAL, args![&customer.id, &begun.id, now])? == 0 {
        return Err(Error::Conflict("this person had a trial already".into()));
    }
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).max(1);
    flows::add_period(tx, shop, &begun.id, None, PeriodKind::Trial, seconds, None)?;
    owner_log::about(begun.id.as_str());
    let notice = SubscriptionNotice::Granted { until: begun.paid_until };
    flows::tell(tx, shop, &customer, "vpn_granted", format!("sub:{}:granted", begun.id), notice)?;
    Ok(begun)
}
