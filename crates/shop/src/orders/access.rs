//! Lines that sell access to the VPN: when they are sold, who waits for an address, and when they are handed over.
//!
//! Such a line has no units. Its time is sold when it is paid, if every device gets an address; else it waits, and is served
//! when addresses come free, in the order of payment. A line that wants more than there is is passed over, but not for ever:
//! once it has waited for a day, nobody who paid later gets an address, and addresses gather until they are enough. It is
//! handed over when its peers are on the server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::{Expect, Row, StoreError, Tx};

use super::flows::{items, lock};
use super::hand_over::{Count, delivery, settle_state};
use super::{Item, ItemId, Order, OrderId, sql};
use crate::customers::{self, Customer};
use crate::shop::Lanes;
use crate::subscriptions::sell::{self, Turn};
use crate::subscriptions::{self, Step};
use crate::{Error, Shop, alerts, refunds, safety};

/// Lines that one run looks at.
const WAITING_AT_ONCE: i64 = 50;
/// Who has waited for longer is overtaken by nobody.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// A line that has to wait is looked at once more after this: an address may have come free while it was being written.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_MS: i64 = 5_000;

/// Sells the time of a line whose order is paid, and hands over what can be. None when it has to wait for an address; the
/// customer and the owner are told then.
pub(super) fn sell(
    tx: &mut Tx,
    shop: &Shop,
    order: &Order,
    item: &Item,
    customer: &Customer,
) -> Result<Option<Step>, Error> {
    // Which addresses were given out after a backup is not known before the owner has looked.
    let is_safe_mode = safety::flows::is_on(tx, shop)?;
    if !is_safe_mode && sell::sold(tx, shop, order, item, customer, Turn::Last)? {
        return Ok(Some(subscriptions::flows::hand_over(tx, shop, &order.id, &item.id)?));
    }
    subscriptions::flows::tell_waiting(tx, shop, customer, &item.id)?;
    let why = if is_safe_mode { "safe mode is on" } else { "no address is free" };
    let text = format!(
        "Order {} is paid and waits for VPN access: {why}. It is served when that is over; add a network, or refund the order",
        order.id
    );
    alerts::flows::raise(tx, shop, format!("vpn-waits:{}", item.id), text)?;
    // Those who come to wait at one time are looked at together.
    let tick = tx.now().millis().div_euclid(LOOK_AGAIN_MS) + 2;
    let job = ServeAccess { after: None, tick: Some(tick) };
    jobs::enqueue(tx, &job, Time::from_millis(tick * LOOK_AGAIN_MS), &shop.chance)?;
    Ok(None)
}

/// Whether somebody who paid has waited for access for too long: new addresses are theirs.
pub fn is_access_overdue(tx: &mut Tx) -> Result<bool, Error> {
    let since = tx.now() - PATIENCE;
    Ok(tx.first(sql::OVERDUE_ACCESS, args![since])?.is_some())
}

/// Hands over the lines of an order whose peers are on the server by now. True when there was one. The order's row must be
/// held.
pub(super) fn hand_over(tx: &mut Tx, shop: &Shop, order: &OrderId) -> Result<bool, Error> {
    let now = tx.now();
    let mut any = false;
    for row in tx.rows(sql::UNCONNECTED, args![order])? {
        let item: ItemId = row.get(0)?;
        let step = subscriptions::flows::hand_over(tx, shop, order, &item)?;
        if step != Step::Waits {
            tx.later(sql::HAND_OVER_ITEM, args![&item, step.delivery(), now], Expect::Any)?;
            any = true;
        }
    }
    Ok(any)
}

/// Has lines that wait for an address looked at, as soon as this transaction is committed: by this copy, or by another one
/// that has the VPN.
pub fn serve_access_soon(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    let now = tx.now();
    jobs::enqueue(tx, &ServeAccess { after: None, tick: None }, now, &shop.chance)?;
    Ok(())
}

/// A place in the line of those who wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    paid_at: Time,
    order: String,
    item: String,
    /// Whether free addresses are kept for somebody before it, who has waited for too long.
    #[serde(default)]
    kept: bool,
}

impl Place {
    fn first() -> Self {
        Self { paid_at: Time::from_millis(0), order: String::new(), item: String::new(), kept: false }
    }
}

/// Gives free addresses to those who wait for them.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServeAccess {
    /// Where the run before ended, when there were more than one run looks at.
    #[serde(default)]
    pub after: Option<Place>,
    /// The moment that it is for, counted in the time after which lines are looked at once more.
    #[serde(default)]
    pub tick: Option<i64>,
}

impl Job for ServeAccess {
    type Context = Shop;
    const KIND: &'static str = "access.serve";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 500);

    /// One for each tick. Without one each look is one of its own, and one that ended says nothing about the next.
    fn slot(&self) -> Option<String> {
        self.tick.map(|tick| tick.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let start = self.after.unwrap_or_else(Place::first);
        let waiting = lines(shop, &start).await?;
        if shop.vpn.is_none() && !waiting.is_empty() {
            let at = shop.now() + LOOK_AGAIN;
            return Err(JobError::Later { at, text: "VPN access is not set up".into() });
        }
        let is_full = i64::try_from(waiting.len()).unwrap_or(0) >= WAITING_AT_ONCE;
        let (mut kept, mut wrong, mut last) = (start.kept, Vec::new(), None);
        for line in waiting {
            last =
                Some(Place { paid_at: line.paid_at, order: line.order.to_string(), item: line.item.to_string(), kept });
            let served = line.serve(shop, kept).await;
            match served {
                Ok(is_kept) => kept |= is_kept,
                Err(Error::Store(error)) if error.is_passing() => return Err(error.into()),
                // One line that cannot be served must not hold the others back.
                Err(error) => wrong.push((line, error.to_string())),
            }
        }
        let next = last.filter(|_| is_full).map(|place| Place { kept, ..place });
        let ended = shop.write(Self::KIND, move |tx, shop| {
            for (line, error) in &wrong {
                let text = format!(
                    "Order {} waits for VPN access and cannot be served: {error}. Others are; mend it, or refund the order",
                    line.order
                );
                alerts::flows::raise(tx, shop, format!("vpn-unserved:{}", line.item), text)?;
            }
            if let Some(after) = &next {
                let now = tx.now();
                jobs::enqueue(tx, &ServeAccess { after: Some(after.clone()), tick: None }, now, &shop.chance)?;
            }
            Ok::<_, Error>(claim.finish(tx)?)
        });
        ended.await.map_err(|error| JobError::Retry(error.to_string()))
    }
}

/// A paid line that has nothing yet.
#[derive(Clone)]
struct Line {
    item: ItemId,
    order: OrderId,
    paid_at: Time,
}

/// Lines behind `start`, in the order of payment.
async fn lines(shop: &Shop, start: &Place) -> Result<Vec<Line>, JobError> {
    let start = start.clone();
    let found = shop.look("access.waiting", move |tx| {
        let rows = tx.rows(sql::WAITING_ACCESS, args![start.paid_at, &start.order, &start.item, WAITING_AT_ONCE])?;
        let line = |row: &Row| -> Result<Line, StoreError> {
            Ok(Line { item: row.get(0)?, order: row.get(1)?, paid_at: row.get(2)? })
        };
        Ok(rows.iter().map(line).collect::<Result<Vec<Line>, StoreError>>()?)
    });
    Ok(found.await?)
}

impl Line {
    /// Serves it, in a transaction of its own: it takes the rows of its order and its customer, and whoever held those of
    /// another line at the same time could wait for who waits for them. True when free addresses are kept for it from now on.
    async fn serve(&self, shop: &Shop, kept: bool) -> Result<bool, Error> {
        let line = self.clone();
        let served = shop.write("access.line", move |tx, shop| {
            let turn = if kept { Turn::NotYet } else { Turn::Now };
            let is_served = serve(tx, shop, &line.order, &line.item, turn)?;
            // They are kept for one line at a time; the others wait behind it.
            if is_served || kept || line.paid_at > tx.now() - PATIENCE {
                return Ok(false);
            }
            let text = format!(
                "Order {} has waited for VPN access for more than a day: addresses that come free are kept for it. Add a \
                 network, or refund the order",
                line.order
            );
            alerts::flows::raise(tx, shop, format!("vpn-kept:{}", line.item), text)?;
            Ok(true)
        });
        served.await
    }
}

/// Serves one line. False when there are not enough addresses for it.
fn serve(tx: &mut Tx, shop: &Shop, id: &OrderId, item: &ItemId, turn: Turn) -> Result<bool, Error> {
    let mut order = lock(tx, id)?;
    let served: i64 = tx.one(sql::SERVED, args![item])?.get(0)?;
    let Some(item) = items(tx, id)?.into_iter().find(|known| known.id == *item) else { return Ok(true) };
    // It has its time, or needs none any more.
    if !order.state.takes_goods() || served > 0 {
        return Ok(true);
    }
    let customer = customers::flows::find(tx, &order.customer)?;
    if !sell::sold(tx, shop, &order, &item, &customer, turn)? {
        return Ok(false);
    }
    // What went back while it waited takes its time at once.
    let gone = refunds::flows::given_back(tx, id)?;
    subscriptions::refund::refunded(tx, shop, &order, gone)?;
    let step = subscriptions::flows::hand_over(tx, shop, id, &item.id)?;
    let rows = (1..=item.quantity).map(|n| delivery(tx, shop, &item, n, None, step.delivery())).collect();
    tx.many_later(sql::DELIVER_MANY, rows, Expect::Rows(1))?;
    let count = Count::read(tx, id)?;
    settle_state(tx, shop, &mut order, &count, "vpn")?;
    Ok(true)
}
