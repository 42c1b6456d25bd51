//! Goods that were bought after a restore and stay here for now: deliveries in the state `reserved`.
//!
//! In safe mode nothing is handed over, and a unit that the restore holds back may be somebody else's. The order is paid and
//! its units are its own all the same; only the handing over waits, until safe mode ends and the units are released.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::Tx;

use super::access::{self, serve_access_soon};
use super::flows::lock;
use super::hand_over::{Count, settle_state};
use super::{OrderId, State, sql};
use crate::shop::Lanes;
use crate::{Error, Shop, customers, messages, safety};

/// How long goods wait for the end of a refund before the next look.
const WHILE_REFUNDING: Duration = Duration::from_secs(60);

/// Has every order with withheld goods looked at, as soon as this transaction is committed.
pub fn hand_over_soon(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    let now = tx.now();
    for row in tx.rows(sql::WITHHELD, &[])? {
        jobs::enqueue(tx, &HandOver { order: row.get(0)? }, now, &shop.chance)?;
    }
    // In safe mode no address is given out either.
    if shop.vpn.is_some() { serve_access_soon(tx, shop) } else { Ok(()) }
}

/// Hands over what was withheld from one order, but for units that are still held back; and access whose peers are on the
/// server.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandOver {
    /// The order.
    pub order: OrderId,
}

impl Job for HandOver {
    type Context = Shop;
    const KIND: &'static str = "order.hand_over";
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
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let order = self.order;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            if hand_over(tx, shop, &order, claim.job().as_str())? {
                return Ok::<_, Error>(claim.finish(tx)?);
            }
            let at = tx.now() + WHILE_REFUNDING;
            Ok(claim.again(tx, at)?)
        });
        // Whoever waits for goods is not forgotten because of one error: it is tried again, whatever it was.
        ended.await.map_err(|error| JobError::Retry(error.to_string()))
    }
}

/// False while a refund decides whether the goods or the money are the customer's. `part` tells the messages of one order's
/// deliveries apart.
fn hand_over(tx: &mut Tx, shop: &Shop, id: &OrderId, part: &str) -> Result<bool, Error> {
    let mut order = lock(tx, id)?;
    if order.state == State::RefundPending {
        return Ok(false);
    }
    let by_message = shop.delivers_by_message();
    let now = tx.now();
    let state = if by_message { "sending" } else { "delivered" };
    let goods = tx.execute(sql::HAND_OVER, args![id, state, now])? > 0;
    if goods && by_message {
        let customer = customers::flows::find(tx, &order.customer)?;
        messages::flows::goods(tx, shop, &order, &customer, part)?;
    }
    let access = access::hand_over(tx, shop, id)?;
    if goods || access {
        let count = Count::read(tx, id)?;
        settle_state(tx, shop, &mut order, &count, if goods { "restore" } else { "vpn" })?;
    }
    Ok(true)
}
