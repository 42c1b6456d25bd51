//! Refunds as rows.

use semel_kernel::args;
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_money::Amount;

use super::{Refund, RefundId, sql};
use crate::Error;
use crate::checkout::PaymentId;
use crate::orders::OrderId;
use crate::shop::currency;

fn refund_of(row: &Row) -> Result<Refund, StoreError> {
    let unit = currency(&row.get::<String>(4)?)?;
    Ok(Refund {
        id: row.get(0)?,
        order: row.get(1)?,
        payment: row.get(2)?,
        provider_refund_id: row.get(3)?,
        amount: Amount::new(row.get(5)?, unit),
        state: row.get(6)?,
        reason: row.get(7)?,
        after: row.get(8)?,
        address: row.get(9)?,
        created_at: row.get(10)?,
    })
}

/// A refund by id.
pub fn find(tx: &mut Tx, id: &RefundId) -> Result<Refund, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(refund_of(&row.ok_or_else(|| Error::missing("refund", id))?)?)
}

/// The refund that the provider knows by this id.
pub(super) fn by_provider(tx: &mut Tx, provider_refund_id: &str) -> Result<Option<Refund>, Error> {
    Ok(tx.first(sql::BY_PROVIDER, args![provider_refund_id])?.as_ref().map(refund_of).transpose()?)
}

/// The refund of `payment` that is on its way.
pub(super) fn live(tx: &mut Tx, payment: &PaymentId) -> Result<Option<Refund>, Error> {
    let Some(row) = tx.first(sql::LIVE, args![payment])? else { return Ok(None) };
    find(tx, &row.get(0)?).map(Some)
}

/// Whether a refund of `payment` is on its way.
pub fn is_running(tx: &mut Tx, payment: &PaymentId) -> Result<bool, Error> {
    Ok(tx.first(sql::LIVE, args![payment])?.is_some())
}

/// What of an order's money has gone back so far, in smallest units.
pub fn given_back(tx: &mut Tx, order: &OrderId) -> Result<i64, Error> {
    Ok(tx.one(sql::GIVEN_BACK, args![order])?.get(0)?)
}

/// Writes a refund; `target` is its word in rows.
pub(super) fn insert(tx: &mut Tx, refund: &Refund, target: &str) -> Result<(), Error> {
    let ended = (refund.state != "pending").then_some(refund.created_at);
    let args = args![
        &refund.id,
        &refund.order,
        refund.payment.clone(),
        target,
        refund.amount.currency().code(),
        refund.amount.minor(),
        &refund.state,
        &refund.reason,
        refund.id.as_str(),
        refund.after.as_str(),
        refund.provider_refund_id.clone(),
        refund.created_at,
        ended,
        refund.address.clone()
    ];
    tx.later(sql::INSERT, args, Expect::Rows(1))?;
    Ok(())
}

/// Notes the provider's id of a refund.
pub(super) fn linked(tx: &mut Tx, refund: &Refund, provider_refund_id: &str) -> Result<(), Error> {
    tx.later(sql::SET_PROVIDER_ID, args![&refund.id, provider_refund_id], Expect::Any)?;
    Ok(())
}

/// Notes the id of a refund before its only call, where the provider honours no key. False when another refund of the
/// same payment has it: such a provider gives a payment back once.
pub(super) fn sending(tx: &mut Tx, refund: &RefundId, provider_refund_id: &str) -> Result<bool, Error> {
    Ok(tx.execute(sql::SET_PROVIDER_ID, args![refund, provider_refund_id])? == 1)
}

/// Takes [`sending`] back after a call that certainly did nothing.
pub(super) fn not_sent(tx: &mut Tx, refund: &RefundId) -> Result<(), Error> {
    Ok(tx.later(sql::UNLINK, args![refund], Expect::Any)?)
}
