//! Lines that wait for stock: who gets what comes in, and when.
//!
//! A line is filled whole or not at all. Units go to the line whose order was paid first, but a line that the shelf cannot
//! fill is passed over, so that a large one does not hold small ones back. It is passed over only until the time that its
//! buyer was promised: from then on nobody who paid later gets any, and units gather on the shelf until they fill it. So no
//! line waits for ever while there is an import now and then. The rule is one for [`serve_waiting`] and for a new order in
//! [`take_or_promise`], which is the one that paid last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::{Expect, Row, StoreError, Tx};

use super::access::serve_access_soon;
use super::flows::{items, lock};
use super::hand_over::{Count, deliveries, settle_state};
use super::{Item, ItemId, Order, OrderId, sql};
use crate::catalog::{self, Held, ProductId};
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, customers, messages};

const WAITING_AT_ONCE: i64 = 200;

/// A line that is paid and has nothing yet.
struct Line {
    item: ItemId,
    order: OrderId,
    quantity: i64,
    promised_at: Option<Time>,
    paid_at: Time,
}

impl Line {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            item: row.get(0)?,
            order: row.get(1)?,
            quantity: row.get(2)?,
            promised_at: row.get(3)?,
            paid_at: row.get(4)?,
        })
    }

    /// Whether it is passed over no more.
    fn is_overdue(&self, now: Time) -> bool {
        self.promised_at.is_some_and(|promised| promised <= now)
    }
}

/// Gives the units of `product` on the shelf to lines that wait for them: in the order of payment, each line whole. A line
/// that cannot be filled is passed over until its promised time; after that the shelf is kept for it, and the owner is told.
///
/// The product's row must be held ([`catalog::flows::find_held`]): who promises and who serves do not pass each other unseen.
pub fn serve_waiting(tx: &mut Tx, shop: &Shop, product: &ProductId) -> Result<(), Error> {
    let now = tx.now();
    let mut left = catalog::flows::available(tx, product)?;
    let (mut paid_at, mut order) = (Time::from_millis(0), String::new());
    while left > 0 {
        let rows = tx.rows(sql::WAITING, args![product, paid_at, &order, WAITING_AT_ONCE])?;
        for row in &rows {
            let line = Line::read(row)?;
            (paid_at, order) = (line.paid_at, line.order.to_string());
            if line.quantity > left {
                if line.is_overdue(now) {
                    return keep_for(tx, shop, product, &line, left);
                }
                continue;
            }
            if serve(tx, shop, &line.order, &line.item)? {
                left -= line.quantity;
            }
            if left == 0 {
                return Ok(());
            }
        }
        if i64::try_from(rows.len()).unwrap_or(0) < WAITING_AT_ONCE {
            return Ok(());
        }
    }
    Ok(())
}

/// Tells the owner, once for each line, why units stay on the shelf although others wait for them.
fn keep_for(tx: &mut Tx, shop: &Shop, product: &ProductId, line: &Line, left: i64) -> Result<(), Error> {
    let text = format!(
        "Order {} waits for {} of product {product} past the promised time: the {left} on the shelf are kept for it. \
         Import the rest, or refund the order",
        line.order, line.quantity
    );
    alerts::flows::raise(tx, shop, format!("stock-kept:{}", line.item), text)
}

/// Gives units to one waiting line. False when its order went another way before its row was held.
fn serve(tx: &mut Tx, shop: &Shop, id: &OrderId, item: &ItemId) -> Result<bool, Error> {
    let mut order = lock(tx, id)?;
    let served: i64 = tx.one(sql::SERVED, args![item])?.get(0)?;
    let Some(item) = items(tx, id)?.into_iter().find(|known| known.id == *item) else { return Ok(false) };
    if !order.state.takes_goods() || served > 0 {
        return Ok(false);
    }
    let units = take(tx, id, &item)?;
    let (rows, withheld) = deliveries(tx, shop, &item, units)?;
    tx.many_later(sql::DELIVER_MANY, rows, Expect::Rows(1))?;
    if shop.delivers_by_message() && !withheld {
        let customer = customers::flows::find(tx, &order.customer)?;
        messages::flows::goods(tx, shop, &order, &customer, item.id.as_str())?;
    }
    let count = Count::read(tx, id)?;
    settle_state(tx, shop, &mut order, &count, "stock")?;
    Ok(true)
}

/// Holds all units of a line. The shelf was looked at before, and it may have changed since: then the whole transaction
/// runs again.
fn take(tx: &mut Tx, order: &OrderId, item: &Item) -> Result<Vec<Held>, Error> {
    catalog::flows::hold(tx, &item.id, &item.product, item.quantity).map_err(|error| match error {
        Error::SoldOut { .. } => Error::Store(StoreError::Contention("stock changed while it was handed out".into())),
        other => other,
    })?;
    let held = catalog::flows::held_for(tx, order)?;
    Ok(held.into_iter().filter(|held| held.item == item.id).collect())
}

/// Takes the units of a new line that is made to order, if they are there and not kept for somebody who has waited for too
/// long; else promises them, and answers none.
pub(super) fn take_or_promise(tx: &mut Tx, order: &Order, item: &Item) -> Result<Vec<Held>, Error> {
    let product = catalog::flows::find_held(tx, &item.product)?;
    let now = tx.now();
    let free = catalog::flows::available(tx, &item.product)? >= item.quantity
        && tx.first(sql::OVERDUE, args![&item.product, now])?.is_none();
    if !free {
        let promised = now + Duration::from_secs(u64::try_from(product.promise_s).unwrap_or(0));
        tx.later(sql::PROMISE, args![&item.id, promised], Expect::Rows(1))?;
        return Ok(Vec::new());
    }
    take(tx, &order.id, item)
}

/// Has those who wait for what `order` lacks looked at again, as soon as this transaction is committed. For whenever an
/// order comes back to waiting, or stops to wait and to hold others back.
///
/// Not in this transaction: it holds the order's row, and who serves takes the product's row first.
pub fn serve_soon(tx: &mut Tx, shop: &Shop, order: &OrderId) -> Result<(), Error> {
    let now = tx.now();
    for row in tx.rows(sql::UNSERVED, args![order])? {
        let job = ServeWaiting { product: row.get(0)?, order: order.clone() };
        jobs::enqueue(tx, &job, now, &shop.chance)?;
    }
    if tx.first(sql::LACKS_ACCESS, args![order])?.is_some() {
        serve_access_soon(tx, shop)?;
    }
    Ok(())
}

/// Gives what is on the shelf to those who wait for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServeWaiting {
    /// The product.
    pub product: ProductId,
    /// The order that came back, or went.
    pub order: OrderId,
}

impl Job for ServeWaiting {
    type Context = Shop;
    const KIND: &'static str = "stock.serve";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 500);

    /// None: each look is one of its own, and one that ended says nothing about the next.
    fn slot(&self) -> Option<String> {
        None
    }

    fn thread(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let product = self.product;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            catalog::flows::find_held(tx, &product)?;
            serve_waiting(tx, shop, &product)?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}
