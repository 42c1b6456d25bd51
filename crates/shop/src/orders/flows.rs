//! What happens to an order. Each step stands in the file of its subject; here is what all of them share: orders as rows,
//! and the one way from state to state.

use semel_kernel::args;
use semel_kernel::history::{self, Entry};
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_money::Amount;

pub use super::access::{is_access_overdue, serve_access_soon};
pub use super::end::{cancel, expire};
pub use super::hand_over::{delivered, delivered_vpn, recall_vpn, resume, take_back};
pub use super::make::{NewItem, NewOrder, Placed, place};
pub use super::pay::{fulfil, hold_again};
pub use super::waiting::{serve_soon, serve_waiting};
pub use super::withheld::hand_over_soon;

use super::{Item, ItemId, Order, OrderId, PayBy, State, sql};
use crate::Error;
use crate::customers::CustomerId;
use crate::shop::currency;
use crate::subscriptions::SubscriptionId;

fn order_of(row: &Row) -> Result<Order, StoreError> {
    order_at(row, 0)
}

/// Reads an order whose columns begin at `from`.
pub(crate) fn order_at(row: &Row, from: usize) -> Result<Order, StoreError> {
    let code: String = row.get(from + 3)?;
    Ok(Order {
        id: row.get(from)?,
        customer: row.get(from + 1)?,
        state: row.get(from + 2)?,
        total: Amount::new(row.get(from + 4)?, currency(&code)?),
        provider: row.get(from + 5)?,
        deadline: row.get(from + 6)?,
        version: row.get(from + 7)?,
        created_at: row.get(from + 8)?,
        paid_at: row.get(from + 9)?,
        reason: row.get(from + 10)?,
    })
}

/// An order by id.
pub fn find(tx: &mut Tx, id: &OrderId) -> Result<Order, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(order_of(&row.ok_or_else(|| Error::missing("order", id))?)?)
}

/// An order by id, its row held until the transaction ends.
pub fn lock(tx: &mut Tx, id: &OrderId) -> Result<Order, Error> {
    let row = tx.first(sql::LOCK, args![id])?;
    Ok(order_of(&row.ok_or_else(|| Error::missing("order", id))?)?)
}

/// A customer's latest orders.
pub fn of_customer(tx: &mut Tx, customer: &CustomerId, limit: i64) -> Result<Vec<Order>, Error> {
    let rows = tx.rows(sql::OF_CUSTOMER, args![customer, limit])?;
    Ok(rows.iter().map(order_of).collect::<Result<_, _>>()?)
}

/// Above every id: those are hexadecimal.
const ABOVE_ALL: &str = "ord_z";

/// Orders, the newest first: of a customer, in a state, below the id `before`.
pub fn list(
    tx: &mut Tx,
    customer: Option<&CustomerId>,
    state: Option<State>,
    before: Option<&OrderId>,
    limit: i64,
) -> Result<Vec<Order>, Error> {
    let below = before.map_or(ABOVE_ALL, OrderId::as_str);
    let rows = match (customer, state.map(State::as_str)) {
        (None, None) => tx.rows(sql::LIST, args![below, limit])?,
        (None, Some(state)) => tx.rows(sql::LIST_STATE, args![below, limit, state])?,
        (Some(customer), None) => tx.rows(sql::LIST_CUSTOMER, args![below, limit, customer])?,
        (Some(customer), Some(state)) => tx.rows(sql::LIST_BOTH, args![below, limit, customer, state])?,
    };
    Ok(rows.iter().map(order_of).collect::<Result<_, _>>()?)
}

/// An order's lines.
pub fn items(tx: &mut Tx, order: &OrderId) -> Result<Vec<Item>, Error> {
    tx.rows(sql::ITEMS, args![order])?
        .iter()
        .map(|row| {
            let code: String = row.get(9)?;
            Ok(Item {
                id: row.get(0)?,
                product: row.get(1)?,
                title: row.get(2)?,
                kind: row.get(3)?,
                delivery: row.get(4)?,
                price: Amount::new(row.get(5)?, currency(&code)?),
                quantity: row.get(6)?,
                refunded: row.get(7)?,
                promised_at: row.get(8)?,
                duration_s: row.get(10)?,
                devices: row.get(11)?,
                subscription: row.get(12)?,
            })
        })
        .collect()
}

/// Moves `order` to `to`, if the table has such a step. The order must have been read in this transaction.
pub fn advance(tx: &mut Tx, order: &mut Order, to: State, actor: &str, reason: Option<&str>) -> Result<(), Error> {
    let Some(event) = order.state.event_to(to) else {
        return Err(Error::Conflict(format!(
            "order {} is {} and cannot become {}",
            order.id,
            order.state.as_str(),
            to.as_str()
        )));
    };
    let now = tx.now();
    tx.later(sql::ADVANCE, args![&order.id, order.version, to.as_str(), reason, now], Expect::Rows(1))?;
    let step = Entry {
        n: Some(order.version + 1),
        event,
        actor: Some(actor),
        from: Some(order.state.as_str()),
        to: Some(to.as_str()),
        detail: reason,
        ..entry(order)
    };
    history::append(tx, &step)?;
    order.version += 1;
    order.state = to;
    if to == State::Paid && order.paid_at.is_none() {
        order.paid_at = Some(now);
    }
    Ok(())
}

/// Names the way in which an unpaid order is to be paid from now on.
pub fn pay_by(tx: &mut Tx, order: &mut Order, way: PayBy) -> Result<(), Error> {
    tx.later(sql::SET_PROVIDER, args![&order.id, way.as_str()], Expect::Rows(1))?;
    order.provider = way.as_str().into();
    Ok(())
}

/// Notes on a line which subscription got its time.
pub fn renews(tx: &mut Tx, item: &ItemId, subscription: &SubscriptionId) -> Result<(), Error> {
    Ok(tx.later(sql::RENEWS, args![item, subscription], Expect::Rows(1))?)
}

/// The beginning of a row of history about `order`.
pub(super) fn entry(order: &Order) -> Entry<'_> {
    Entry { entity: "order", entity_id: order.id.as_str(), thread: Some(order.id.as_str()), ..Entry::default() }
}
