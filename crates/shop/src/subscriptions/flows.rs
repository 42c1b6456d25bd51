//! Subscriptions as rows, the one way from state to state, and what all that happens to them shares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs;
use semel_kernel::store::{Expect, Tx};
use serde::Serialize;

use super::{
    HandOverFiles, PeriodId, PeriodKind, State, Subscription, SubscriptionId, SubscriptionNotice, clock, deliver, sql,
};
use crate::catalog::ProductId;
use crate::customers::{Customer, CustomerId};
use crate::messages;
use crate::orders::{self, HandOver, ItemId, OrderId};
use crate::vpn::{self, PeerId, PeerState, ServerId};
use crate::{Error, Shop, safety};

/// Time that ran for longer than this before anybody could use it is given back.
const LATE: Duration = Duration::from_secs(600);

/// A subscription by id.
pub fn find(tx: &mut Tx, id: &SubscriptionId) -> Result<Subscription, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(sql::subscription(&row.ok_or_else(|| Error::missing("subscription", id))?)?)
}

/// A subscription by id, its row held until the transaction ends.
pub fn lock(tx: &mut Tx, id: &SubscriptionId) -> Result<Subscription, Error> {
    let row = tx.first(sql::LOCK, args![id])?;
    Ok(sql::subscription(&row.ok_or_else(|| Error::missing("subscription", id))?)?)
}

/// A customer's latest subscriptions.
pub fn of_customer(tx: &mut Tx, customer: &CustomerId, limit: i64) -> Result<Vec<Subscription>, Error> {
    let rows = tx.rows(sql::OF_CUSTOMER, args![customer, limit])?;
    Ok(rows.iter().map(sql::subscription).collect::<Result<_, _>>()?)
}

/// Subscriptions, the newest first: of a customer, in a state, below the id `before`.
pub fn list(
    tx: &mut Tx,
    customer: Option<&CustomerId>,
    state: Option<State>,
    before: Option<&SubscriptionId>,
    limit: i64,
) -> Result<Vec<Subscription>, Error> {
    let rows = tx.rows(sql::LIST, args![customer, state.map(State::as_str), before, limit])?;
    Ok(rows.iter().map(sql::subscription).collect::<Result<_, _>>()?)
}

/// Time that was added to a subscription, as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct PeriodView {
    /// Its id.
    pub id: PeriodId,
    /// The line of an order that paid for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemId>,
    /// The order that the line belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// `trial`, `sale` or `hand`.
    pub kind: String,
    /// How long.
    pub seconds: i64,
    /// How much of it refunds took back.
    pub taken: i64,
    /// The owner's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was added, RFC 3339.
    pub created_at: String,
}

/// All time that was added to a subscription, the oldest first.
pub fn periods(tx: &mut Tx, id: &SubscriptionId) -> Result<Vec<PeriodView>, Error> {
    let mut periods = Vec::new();
    for row in tx.rows(sql::PERIODS, args![id])? {
        periods.push(PeriodView {
            id: row.get(0)?,
            item: row.get(1)?,
            order: row.get(2)?,
            kind: row.get(3)?,
            seconds: row.get(4)?,
            taken: row.get(5)?,
            reason: row.get(6)?,
            created_at: row.get::<Time>(7)?.to_string(),
        });
    }
    Ok(periods)
}

/// Whether a sale for `devices` devices may name this subscription as the one to renew: asked at the quote, so that nobody
/// pays for what cannot be.
///
/// # Errors
/// [`Error::NotFound`] when it is not the customer's; [`Error::Conflict`] when it takes no such sale.
pub fn renewable(tx: &mut Tx, customer: &CustomerId, id: &SubscriptionId, devices: i64) -> Result<(), Error> {
    let subscription = find(tx, id)?;
    if subscription.customer != *customer {
        return Err(Error::missing("subscription", id));
    }
    if subscription.takes(devices) {
        return Ok(());
    }
    Err(Error::Conflict(match subscription.state {
        State::Revoked => format!("subscription {id} was revoked: order without it, for a new one"),
        _ => format!(
            "subscription {id} is for {} devices and this product for {devices}: order one for as many",
            subscription.devices
        ),
    }))
}

/// Has everything handed over that waited for these peers, which are on the server now. Called by the one who brought them
/// there, in the transaction that notes it.
///
/// It takes jobs: whoever holds the rows of peers must wait for no order, and thousands of peers may come at once.
pub fn connected(tx: &mut Tx, shop: &Shop, peers: &[PeerId]) -> Result<(), Error> {
    if peers.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = peers.iter().map(PeerId::as_str).collect();
    let mut waiting: BTreeMap<SubscriptionId, BTreeSet<OrderId>> = BTreeMap::new();
    for row in tx.rows(sql::CONNECTED, args![serde_json::Value::from(ids).to_string()])? {
        let orders = waiting.entry(row.get(0)?).or_default();
        orders.extend(row.get::<Option<OrderId>>(1)?);
    }
    let now = tx.now();
    for (subscription, orders) in waiting {
        if orders.is_empty() {
            jobs::enqueue(tx, &HandOverFiles { subscription }, now, &shop.chance)?;
            continue;
        }
        for order in orders {
            jobs::enqueue(tx, &HandOver { order }, now, &shop.chance)?;
        }
    }
    Ok(())
}

/// Has paid lines that wait for an address looked at, as soon as this transaction is committed. For whenever addresses came
/// free.
pub fn serve_waiting_soon(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    orders::flows::serve_access_soon(tx, shop)
}

/// Notes that the file of a peer, which was on its way, will not come. It is handed over again when its device has access
/// again; `now_too` when nobody else sees to it that it is if the device has it already.
pub fn not_given(tx: &mut Tx, shop: &Shop, peer: &PeerId, now_too: bool) -> Result<(), Error> {
    let Some(row) = tx.first(sql::NOT_GIVEN, args![peer])? else { return Ok(()) };
    // Whoever brings a peer to its server has its file handed over by itself.
    if now_too && row.get::<PeerState>(1)? == PeerState::Active {
        let now = tx.now();
        jobs::enqueue(tx, &HandOverFiles { subscription: row.get(0)? }, now, &shop.chance)?;
    }
    Ok(())
}

/// Refuses what gives addresses out while safe mode is on: which were given out after the backup is not known before the
/// owner has looked.
///
/// # Errors
/// [`Error::SafeMode`].
pub(super) fn permit(tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
    if safety::flows::is_on(tx, shop)? { Err(Error::SafeMode) } else { Ok(()) }
}

/// What a paid line of an order bought, handed over as far as it can be now. Once; the caller moves the line's deliveries on.
pub fn hand_over(tx: &mut Tx, shop: &Shop, order: &OrderId, item: &ItemId) -> Result<deliver::Step, Error> {
    deliver::access(tx, shop, order, item)
}

/// Tells a customer that a paid line waits for an address.
pub fn tell_waiting(tx: &mut Tx, shop: &Shop, customer: &Customer, item: &ItemId) -> Result<(), Error> {
    tell(tx, shop, customer, "vpn_waiting", format!("vpn-waiting:{item}"), SubscriptionNotice::Waiting)
}

/// Tells a customer something about a subscription, once for each key.
pub(super) fn tell(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    kind: &'static str,
    dedup_key: String,
    notice: SubscriptionNotice,
) -> Result<(), Error> {
    let Some(html) = messages::text::subscription_for(tx, customer, kind, &notice)? else { return Ok(()) };
    messages::flows::notice(tx, shop, customer, kind, dedup_key, html)
}

/// A subscription that is about to begin.
pub(super) struct New<'a> {
    pub(super) customer: &'a CustomerId,
    pub(super) product: Option<&'a ProductId>,
    pub(super) state: State,
    pub(super) time: Duration,
    pub(super) devices: i64,
    pub(super) actor: &'a str,
    pub(super) reason: Option<&'a str>,
}

/// Begins a subscription with a peer for each device. None when no server has an address for each; then nothing is written.
pub(super) fn begin(tx: &mut Tx, shop: &Shop, new: &New) -> Result<Option<Subscription>, Error> {
    let now = tx.now();
    for server in open_servers(tx, shop)? {
        let subscription = Subscription {
            id: SubscriptionId::new(now, &shop.chance),
            customer: new.customer.clone(),
            product: new.product.cloned(),
            server,
            state: new.state,
            paid_until: now + new.time,
            since: now,
            frozen_at: None,
            devices: new.devices,
            version: 1,
            clock: 1,
            created_at: now,
            ended_at: None,
        };
        let args = args![
            &subscription.id,
            &subscription.customer,
            subscription.product.clone(),
            &subscription.server,
            subscription.state.as_str(),
            subscription.paid_until,
            now,
            subscription.devices,
            subscription.version,
            subscription.clock,
            now
        ];
        tx.later(sql::INSERT, args, Expect::Rows(1))?;
        if !vpn::flows::issue(tx, shop, &subscription)? {
            tx.later(sql::FORGET, args![&subscription.id], Expect::Rows(1))?;
            continue;
        }
        let step = Entry {
            n: Some(1),
            event: "subscription made",
            actor: Some(new.actor),
            to: Some(new.state.as_str()),
            detail: new.reason,
            ..entry(&subscription)
        };
        history::append(tx, &step)?;
        clock::run(tx, shop, &subscription)?;
        return Ok(Some(subscription));
    }
    Ok(None)
}

/// Servers that a subscription may go to, the best first.
fn open_servers(tx: &mut Tx, shop: &Shop) -> Result<Vec<ServerId>, Error> {
    let rows = tx.rows(sql::OPEN_SERVERS, args![&vpn::of(shop)?.server.name])?;
    Ok(rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?)
}

/// Opens what was closed. Where nothing is kept of its old peers and its server has no address for new ones, it goes on on
/// another server; the caller writes its row. False when there is no address; then nothing is written.
pub(super) fn open(tx: &mut Tx, shop: &Shop, subscription: &mut Subscription) -> Result<bool, Error> {
    if vpn::flows::open(tx, shop, subscription)? {
        return Ok(true);
    }
    if !vpn::flows::of_subscription(tx, &subscription.id)?.is_empty() {
        return Ok(false);
    }
    let old = subscription.server.clone();
    for server in open_servers(tx, shop)? {
        if server == old {
            continue;
        }
        subscription.server = server;
        if vpn::flows::issue(tx, shop, subscription)? {
            return Ok(true);
        }
    }
    subscription.server = old;
    Ok(false)
}

/// Gives back the time that ran while nobody could use it: since the end of the time was last written, for somebody who never
/// had a file, because no peer came to the server. In memory; the caller writes the row, which must be held. True when there
/// was such time.
pub(super) fn give_wait_back(tx: &mut Tx, subscription: &mut Subscription) -> Result<bool, Error> {
    if !may_have_waited(subscription, tx.now()) || tx.first(sql::EVER_GIVEN, args![&subscription.id])?.is_some() {
        return Ok(false);
    }
    let now = tx.now();
    subscription.paid_until = subscription.paid_until + now.since(subscription.since);
    subscription.since = now;
    Ok(true)
}

/// Whether [`give_wait_back`] may have to give anything back, as far as the row alone tells.
pub(super) fn may_have_waited(subscription: &Subscription, now: Time) -> bool {
    matches!(subscription.state, State::Trial | State::Active) && now.since(subscription.since) > LATE
}

/// Writes the row after [`give_wait_back`].
pub(super) fn keep_wait(tx: &mut Tx, subscription: &Subscription, actor: &str) -> Result<(), Error> {
    let detail = format!("until {}", subscription.paid_until);
    keep(tx, subscription, "its time begins with its peers", actor, &detail)
}

/// Writes the time that a subscription got.
pub(super) fn add_period(
    tx: &mut Tx,
    shop: &Shop,
    subscription: &SubscriptionId,
    item: Option<&ItemId>,
    kind: PeriodKind,
    seconds: i64,
    reason: Option<&str>,
) -> Result<(), Error> {
    let now = tx.now();
    let id = PeriodId::new(now, &shop.chance);
    let args = args![id, subscription, item.cloned(), kind.as_str(), seconds, reason, now];
    Ok(tx.later(sql::INSERT_PERIOD, args, Expect::Rows(1))?)
}

/// Adds time, and opens what was closed. The row must be held. False when a device would get no address; then nothing is
/// written.
///
/// # Errors
/// [`Error::Conflict`] for one that was revoked.
pub(super) fn add_time(
    tx: &mut Tx,
    shop: &Shop,
    subscription: &mut Subscription,
    time: Duration,
    devices: i64,
    actor: &str,
    reason: Option<&str>,
) -> Result<bool, Error> {
    let now = tx.now();
    let before = subscription.clone();
    give_wait_back(tx, subscription)?;
    let Some(until) = subscription.end_with(time, now) else {
        return Err(Error::Conflict(format!("subscription {} was revoked: it gets no more time", subscription.id)));
    };
    subscription.paid_until = until;
    subscription.since = now;
    subscription.devices = before.devices.max(devices);
    let there = match before.state {
        State::Expired => open(tx, shop, subscription)?,
        // Frozen devices get their peers when it goes on.
        State::Frozen => true,
        _ if subscription.devices > before.devices => vpn::flows::issue(tx, shop, subscription)?,
        _ => true,
    };
    if !there {
        *subscription = before;
        return Ok(false);
    }
    match before.state {
        State::Active | State::Frozen => {
            let added = format!("until {until}");
            keep(tx, subscription, "time was added", actor, &added)?;
            clock::pull(tx, subscription)?;
        }
        State::Expired => {
            clock::start(tx, shop, subscription)?;
            advance(tx, subscription, State::Active, actor, reason)?;
        }
        State::Trial | State::Grace | State::Revoked => {
            advance(tx, subscription, State::Active, actor, reason)?;
            clock::pull(tx, subscription)?;
        }
    }
    Ok(true)
}

/// Moves a subscription to `to`, if the table has such a step, and writes its row as it stands in memory. The row must be
/// held.
pub(super) fn advance(
    tx: &mut Tx,
    subscription: &mut Subscription,
    to: State,
    actor: &str,
    reason: Option<&str>,
) -> Result<(), Error> {
    let from = subscription.state;
    let Some(event) = from.event_to(to) else {
        return Err(Error::Conflict(format!(
            "subscription {} is {} and cannot become {}",
            subscription.id,
            from.as_str(),
            to.as_str()
        )));
    };
    let step = Entry {
        n: Some(subscription.version + 1),
        event,
        actor: Some(actor),
        from: Some(from.as_str()),
        to: Some(to.as_str()),
        detail: reason,
        ..entry(subscription)
    };
    history::append(tx, &step)?;
    let version = subscription.version;
    subscription.version += 1;
    subscription.state = to;
    subscription.ended_at = matches!(to, State::Expired | State::Revoked).then(|| tx.now());
    write(tx, subscription, version)
}

/// Writes a subscription's row after a change that leaves its state, with a line for its story.
pub(super) fn keep(
    tx: &mut Tx,
    subscription: &Subscription,
    event: &str,
    actor: &str,
    detail: &str,
) -> Result<(), Error> {
    history::append(tx, &Entry { event, actor: Some(actor), detail: Some(detail), ..entry(subscription) })?;
    write(tx, subscription, subscription.version)
}

fn write(tx: &mut Tx, subscription: &Subscription, version: i64) -> Result<(), Error> {
    let args = args![
        &subscription.id,
        version,
        subscription.state.as_str(),
        subscription.version,
        subscription.paid_until,
        subscription.since,
        subscription.frozen_at,
        subscription.devices,
        subscription.clock,
        subscription.ended_at,
        &subscription.server
    ];
    Ok(tx.later(sql::WRITE, args, Expect::Rows(1))?)
}

/// The beginning of a row of history about a subscription.
fn entry(subscription: &Subscription) -> Entry<'_> {
    let id = subscription.id.as_str();
    Entry { entity: "subscription", entity_id: id, thread: Some(id), ..Entry::default() }
}
