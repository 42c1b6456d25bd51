//! A sale becomes time: on the subscription that it renews, or on a new one.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::Tx;

use super::flows::{self, New};
use super::{PeriodKind, State, Subscription, SubscriptionId, sql};
use crate::customers::Customer;
use crate::orders::{self, Item, Order};
use crate::{Error, Shop, vpn};

/// Whether a sale may take addresses that are free. One that needs none is made in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was paid just now: those who have waited for too long come first.
    Last,
    /// It may.
    Now,
    /// They are kept for somebody before it.
    NotYet,
}

/// Gives the customer the time that a paid line of their order bought. Once for each line, whoever asks how often. False
/// when no address is free for a device, or `turn` keeps it for others: then nothing is written, and the line waits.
///
/// It renews the subscription that the line names; else the customer's newest that takes such a sale
/// ([`Subscription::takes`]); else a new one begins. The order's row must be held.
///
/// # Errors
/// [`Error::Conflict`] when the line is not of the kind `vpn`.
pub fn sold(
    tx: &mut Tx,
    shop: &Shop,
    order: &Order,
    item: &Item,
    customer: &Customer,
    turn: Turn,
) -> Result<bool, Error> {
    let (Some(duration_s), Some(devices)) = (item.duration_s, item.devices) else {
        return Err(Error::Conflict(format!("line {} sells no time", item.id)));
    };
    if tx.first(sql::OF_ITEM, args![&item.id])?.is_some() {
        return Ok(true);
    }
    // Without the VPN's keys no peer can be made; the line waits until they are back.
    if shop.vpn.is_none() {
        return Ok(false);
    }
    tx.one(sql::HOLD_CUSTOMER, args![&customer.id])?;
    let seconds = duration_s.saturating_mul(item.quantity);
    let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let rows = tx.rows(sql::RENEWABLE, args![&customer.id])?;
    let known: Vec<Subscription> = rows.iter().rev().map(sql::subscription).collect::<Result<_, _>>()?;
    let actor = order.id.as_str();
    let chosen = choose(known, item.subscription.as_ref(), devices);
    if needs_addresses(tx, chosen.as_ref(), devices)? && !may_claim(tx, turn)? {
        return Ok(false);
    }
    let id = match chosen {
        Some(mut renewed) => {
            if !flows::add_time(tx, shop, &mut renewed, time, devices, actor, None)? {
                return Ok(false);
            }
            renewed.id
        }
        None => {
            let new = New {
                customer: &customer.id,
                product: Some(&item.product),
                state: State::Active,
                time,
                devices,
                actor,
                reason: None,
            };
            match flows::begin(tx, shop, &new)? {
                Some(begun) => begun.id,
                None => return Ok(false),
            }
        }
    };
    flows::add_period(tx, shop, &id, Some(&item.id), PeriodKind::Sale, seconds, None)?;
    orders::flows::renews(tx, &item.id, &id)?;
    Ok(true)
}

/// Whether a sale for `devices` devices gives a device an address that it has not, be it on the subscription that it renews
/// or on a new one.
fn needs_addresses(tx: &mut Tx, renewed: Option<&Subscription>, devices: i64) -> Result<bool, Error> {
    let Some(renewed) = renewed else { return Ok(true) };
    Ok(match renewed.state {
        State::Frozen => false,
        State::Expired => {
            let kept = vpn::flows::of_subscription(tx, &renewed.id)?.len();
            i64::try_from(kept).unwrap_or(0) < devices
        }
        _ => devices > renewed.devices,
    })
}

fn may_claim(tx: &mut Tx, turn: Turn) -> Result<bool, Error> {
    match turn {
        Turn::Now => Ok(true),
        Turn::NotYet => Ok(false),
        Turn::Last => Ok(!orders::flows::is_access_overdue(tx)?),
    }
}

/// Which of a customer's subscriptions, the newest first, a sale renews.
fn choose(known: Vec<Subscription>, named: Option<&SubscriptionId>, devices: i64) -> Option<Subscription> {
    let mut fit: Vec<Subscription> = known.into_iter().filter(|one| one.takes(devices)).collect();
    let index = named.and_then(|named| fit.iter().position(|one| one.id == *named)).unwrap_or(0);
    if fit.is_empty() { None } else { Some(fit.swap_remove(index)) }
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::{Chance, Time};

    use super::super::model::tests::subscription;
    use super::*;

    fn known() -> Vec<Subscription> {
        let (now, chance) = (Time::from_millis(5), Chance::seeded(9));
        [(State::Active, 1), (State::Expired, 2), (State::Active, 2), (State::Revoked, 2)]
            .map(|(state, devices)| Subscription {
                id: SubscriptionId::new(now, &chance),
                devices,
                ..subscription(state, now)
            })
            .into()
    }

    #[test]
    fn a_sale_renews_the_newest_that_takes_it() {
        let known = known();
        let chosen = |named: Option<&SubscriptionId>, devices| choose(known.clone(), named, devices).map(|one| one.id);
        assert_eq!(chosen(None, 2).as_ref(), Some(&known[1].id));
        assert_eq!(chosen(None, 1).as_ref(), Some(&known[0].id));
        assert_eq!(chosen(None, 5).as_ref(), Some(&known[1].id), "nothing of its time is left, so it may grow");
        assert_eq!(choose(vec![known[3].clone()], None, 2), None);
        assert_eq!(choose(Vec::new(), None, 2), None);
    }

    #[test]
    fn a_named_one_is_renewed_unless_it_went_away_meanwhile() {
        let known = known();
        let chosen = |named: &SubscriptionId| choose(known.clone(), Some(named), 2).map(|one| one.id);
        assert_eq!(chosen(&known[2].id).as_ref(), Some(&known[2].id));
        assert_eq!(chosen(&known[3].id).as_ref(), Some(&known[1].id));
    }
}
