//! Handing goods over, taking them back, and what an order's deliveries say about its state.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::ids::new_id;
use semel_kernel::jobs;
use semel_kernel::store::{Expect, Tx, Value};

use super::flows::{advance, lock};
use super::waiting::serve_soon;
use super::withheld::HandOver;
use super::{Item, Order, OrderId, State, sql};
use crate::catalog::{self, Held};
use crate::subscriptions::Step;
use crate::{Error, Shop, events, safety};

/// Notes that the message with the order's goods, those that had joined it by `goods_at`, reached the customer.
pub fn delivered(tx: &mut Tx, shop: &Shop, id: &OrderId, goods_at: Time) -> Result<(), Error> {
    let mut order = lock(tx, id)?;
    let now = tx.now();
    tx.later(sql::DELIVERED, args![id, now, goods_at], Expect::Any)?;
    let count = Count::read(tx, id)?;
    settle_state(tx, shop, &mut order, &count, "telegram")
}

/// Notes that the messages with an order's access reached the customer.
pub fn delivered_vpn(tx: &mut Tx, shop: &Shop, id: &OrderId) -> Result<(), Error> {
    let mut order = lock(tx, id)?;
    let now = tx.now();
    tx.later(sql::DELIVERED_VPN, args![id, now], Expect::Any)?;
    let count = Count::read(tx, id)?;
    settle_state(tx, shop, &mut order, &count, "telegram")
}

/// Notes that the messages with an order's access were called off and nothing of it reached the customer: it is handed over
/// once its peers are on the server again. True when there was any on its way. The order's row must be held.
pub fn recall_vpn(tx: &mut Tx, shop: &Shop, id: &OrderId) -> Result<bool, Error> {
    let now = tx.now();
    if tx.execute(sql::RECALL_VPN, args![id, now])? == 0 {
        return Ok(false);
    }
    // They may be there again already, or never be.
    jobs::enqueue(tx, &HandOver { order: id.clone() }, now, &shop.chance)?;
    Ok(true)
}

/// Lets an order go on after a refund that left something of it: from the state `after` that it had before, and on to what
/// was delivered meanwhile. What came into stock meanwhile reaches it at once, if it waits for that.
pub fn resume(tx: &mut Tx, shop: &Shop, order: &mut Order, after: State, reason: Option<&str>) -> Result<(), Error> {
    advance(tx, order, after, "refund", reason)?;
    let count = Count::read(tx, &order.id)?;
    settle_state(tx, shop, order, &count, "refund")?;
    serve_soon(tx, shop, &order.id)
}

/// Takes undelivered goods back from an order whose money goes back. Units whose message failed for good return to the
/// shelf; a unit that a customer may have seen is burned.
pub fn take_back(tx: &mut Tx, order: &OrderId, seen: bool) -> Result<(), Error> {
    tx.later(sql::VOID, args![order], Expect::Any)?;
    if seen { catalog::flows::burn(tx, order) } else { catalog::flows::release(tx, order) }
}

/// The row of the `n`-th delivery for `item`.
pub(super) fn delivery(tx: &Tx, shop: &Shop, item: &Item, n: i64, held: Option<Held>, state: &str) -> Vec<Value> {
    let now = tx.now();
    let (unit, hash) = held.map_or((None, None), |held| (Some(held.unit), Some(held.content_hash)));
    vec![
        Value::from(new_id("dlv", now, &shop.chance)),
        Value::from(&item.id),
        Value::from(n),
        Value::from(unit),
        Value::from(state),
        Value::from(hash),
        Value::from(now),
    ]
}

/// The deliveries that `units` become for `item`, and whether they are withheld after a restore ([`super::withheld`]).
pub(super) fn deliveries(
    tx: &mut Tx,
    shop: &Shop,
    item: &Item,
    units: Vec<Held>,
) -> Result<(Vec<Vec<Value>>, bool), Error> {
    let found = i64::try_from(units.len()).unwrap_or(0);
    if found != item.quantity {
        return Err(Error::Conflict(format!("{found} units are held for {} of {}", item.quantity, item.id)));
    }
    let withheld = safety::flows::withholds(tx, shop, &units)?;
    let state = match (withheld, shop.delivers_by_message()) {
        (true, _) => "reserved",
        (false, true) => "sending",
        (false, false) => "delivered",
    };
    let rows = (1..).zip(units).map(|(n, held)| delivery(tx, shop, item, n, Some(held), state)).collect();
    Ok((rows, withheld))
}

/// How many units an order wants, how many are with the customer, how many on their way.
#[derive(Default)]
pub(super) struct Count {
    pub(super) wanted: i64,
    pub(super) done: i64,
    pub(super) moving: i64,
}

impl Count {
    /// Counts a line of access.
    pub(super) fn add(&mut self, item: &Item, step: Step) {
        match step {
            Step::Waits | Step::Sending => self.moving += item.quantity,
            Step::Delivered => self.done += item.quantity,
        }
    }

    pub(super) fn read(tx: &mut Tx, order: &OrderId) -> Result<Self, Error> {
        let mut count = Self::default();
        for row in tx.rows(sql::COUNTS, args![order])? {
            count.wanted += row.get::<i64>(1)?;
            count.done += row.get::<i64>(2)?;
            count.moving += row.get::<i64>(3)?;
        }
        Ok(count)
    }
}

/// Brings the order's state up to what its deliveries say.
pub(super) fn settle_state(
    tx: &mut Tx,
    shop: &Shop,
    order: &mut Order,
    count: &Count,
    actor: &str,
) -> Result<(), Error> {
    let Count { wanted, done, moving } = *count;
    let target = if done == wanted {
        State::Delivered
    } else if done > 0 && moving == 0 {
        State::Partial
    } else if done + moving == 0 {
        State::AwaitingStock
    } else {
        order.state
    };
    if target == State::Delivered || target == State::Partial {
        catalog::flows::mark_delivered(tx, &order.id)?;
    }
    // Goods that arrive now do not end the refund: [`resume`] counts them afterwards.
    if order.state == State::RefundPending {
        return Ok(());
    }
    if target == order.state || order.state.event_to(target).is_none() {
        return Ok(());
    }
    advance(tx, order, target, actor, None)?;
    if target == State::Delivered {
        let data = serde_json::json!({ "order": order.id, "total": order.total });
        events::flows::publish(tx, shop, "order.delivered", &order.id, data, &format!("order.delivered:{}", order.id))?;
    }
    Ok(())
}
