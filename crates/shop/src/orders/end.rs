//! How an unpaid order ends.

use semel_kernel::jobs;
use semel_kernel::store::Tx;

use super::flows::{advance, lock};
use super::{ExpireOrder, Order, OrderId, State};
use crate::{Error, Shop, catalog, events};

/// Lets an unpaid order go at its deadline. Changes nothing in any other state.
pub fn expire(tx: &mut Tx, shop: &Shop, id: &OrderId) -> Result<(), Error> {
    let mut order = lock(tx, id)?;
    if order.state != State::Pending {
        return Ok(());
    }
    catalog::flows::release(tx, id)?;
    advance(tx, &mut order, State::Expired, "deadline", None)?;
    let data = serde_json::json!({ "order": order.id });
    events::flows::publish(tx, shop, "order.expired", id, data, &format!("order.expired:{id}"))
}

/// Calls an unpaid order off and gives its stock back. Money that still comes goes to the customer's balance.
pub fn cancel(tx: &mut Tx, shop: &Shop, id: &OrderId, actor: &str, reason: &str) -> Result<Order, Error> {
    let mut order = lock(tx, id)?;
    if order.state == State::Cancelled {
        return Ok(order);
    }
    if order.state != State::Pending {
        let state = order.state.as_str();
        return Err(Error::Conflict(format!(
            "order {id} is {state}: only an unpaid order can be cancelled; a paid one is refunded"
        )));
    }
    catalog::flows::release(tx, id)?;
    advance(tx, &mut order, State::Cancelled, actor, Some(reason))?;
    jobs::cancel(tx, <ExpireOrder as jobs::Job>::KIND, id.as_str())?;
    let data = serde_json::json!({ "order": order.id, "reason": reason });
    events::flows::publish(tx, shop, "order.cancelled", id, data, &format!("order.cancelled:{id}"))?;
    Ok(order)
}
