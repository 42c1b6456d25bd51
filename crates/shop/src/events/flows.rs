//! Publishing events.

use serde_json::Value;

use semel_kernel::args;
use semel_kernel::jobs;
use semel_kernel::store::{Expect, Tx};

use super::{DeliverEvent, EventId, model, sql};
use crate::orders::OrderId;
use crate::{Error, Shop};

/// Tells the owner's program that `type_` happened to `order`, once for each `dedup`. Nothing is written when no address
/// is set. Takes place after the commit; where an event of this key was there, the job finds no row and ends.
pub fn publish(tx: &mut Tx, shop: &Shop, type_: &str, order: &OrderId, data: Value, dedup: &str) -> Result<(), Error> {
    if shop.rules.events.is_none() {
        return Ok(());
    }
    let now = tx.now();
    let id = EventId::new(now, &shop.chance);
    tx.later(sql::INSERT, args![&id, dedup, type_, order, model::body(type_, now, &data), now], Expect::Any)?;
    jobs::enqueue(tx, &DeliverEvent { event: id, order: order.clone() }, now, &shop.chance)?;
    Ok(())
}
