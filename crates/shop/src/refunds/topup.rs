//! The part of a refund that comes out of the customer's balance: what the order put there goes back from there.

use semel_kernel::args;
use semel_kernel::store::Tx;
use semel_money::Amount;

use super::{Refund, sql};
use crate::catalog::Kind;
use crate::ledger::{self, Account, Posting};
use crate::orders::Order;
use crate::orders::flows as order_flows;
use crate::{Error, Shop, alerts};

/// How much of a refund comes out of what its order put on the customer's balance: earlier refunds took theirs first.
pub(super) fn share(tx: &mut Tx, refund: &Refund, order: &Order) -> Result<Amount, Error> {
    let unit = order.currency();
    let mut topped = Amount::zero(unit);
    for item in order_flows::items(tx, &order.id)?.iter().filter(|item| item.kind == Kind::Topup) {
        topped = topped.checked_add(item.price.times(item.quantity)?)?;
    }
    if !topped.is_positive() {
        return Ok(topped);
    }
    let before: i64 = tx.one(sql::BEFORE, args![&order.id, &refund.id])?.get(0)?;
    let left = topped.minor().saturating_sub(before).max(0);
    Ok(Amount::new(left.min(refund.amount.minor()), unit))
}

fn hold_key(refund: &Refund) -> String {
    format!("refund-hold:{}", refund.id)
}

/// Takes what topped the balance up from there before the provider is asked to give it back: it must not be spent
/// meanwhile. It waits in the order's account for the end of the refund.
///
/// # Errors
/// [`Error::Insufficient`] when the customer has spent it.
pub(super) fn hold(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &Order) -> Result<(), Error> {
    let share = share(tx, refund, order)?;
    if !share.is_positive() {
        return Ok(());
    }
    let unit = order.currency();
    let entries =
        vec![(Account::customer(&order.customer, unit), share.neg()), (Account::order(&order.id, unit), share)];
    ledger::post(tx, shop, &Posting::new("refund_hold", hold_key(refund), entries)?.for_order(&order.id))?;
    Ok(())
}

/// Gives back what [`hold`] took, after a refund that will not happen.
pub(super) fn release(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &Order) -> Result<(), Error> {
    if !ledger::is_posted(tx, &hold_key(refund))? {
        return Ok(());
    }
    let (unit, share) = (order.currency(), share(tx, refund, order)?);
    let entries =
        vec![(Account::order(&order.id, unit), share.neg()), (Account::customer(&order.customer, unit), share)];
    let key = format!("refund-release:{}", refund.id);
    ledger::post(tx, shop, &Posting::new("refund_release", key, entries)?.for_order(&order.id))?;
    Ok(())
}

/// Where the part of a refund that was on the balance comes from, and how much of it is there.
///
/// To a provider that is also what came beyond the order's price: it went to the balance when it came.
pub(super) fn source(
    tx: &mut Tx,
    shop: &Shop,
    refund: &Refund,
    order: &Order,
    to_provider: bool,
) -> Result<(Account, Amount), Error> {
    let unit = order.currency();
    let share = share(tx, refund, order)?;
    let customer = Account::customer(&order.customer, unit);
    if !to_provider {
        return Ok((customer, share));
    }
    if share.is_positive() && ledger::is_posted(tx, &hold_key(refund))? {
        return Ok((Account::order(&order.id, unit), share));
    }
    let beyond = refund.amount.minor().saturating_sub(order.total.minor()).max(0);
    let wanted = share.checked_add(Amount::new(beyond, unit))?;
    if !wanted.is_positive() {
        return Ok((customer, wanted));
    }
    let there = left(tx, shop, refund, order, wanted)?;
    Ok((customer, there))
}

/// How much of `wanted` the customer still has, for a refund that was made at the provider: the money has left, so the
/// books say so, whatever is left. What is missing is a loss, and the owner is told.
pub(super) fn left(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &Order, wanted: Amount) -> Result<Amount, Error> {
    let there = ledger::balance(tx, &order.customer, wanted.currency())?;
    if there.minor() >= wanted.minor() {
        return Ok(wanted);
    }
    let text = format!(
        "{} of order {} went back through the provider, but the customer has only {there} of it left: the rest is a loss",
        refund.amount, order.id
    );
    alerts::flows::raise(tx, shop, format!("refund-loss:{}", refund.id), text)?;
    Ok(Amount::new(there.minor().max(0), wanted.currency()))
}
