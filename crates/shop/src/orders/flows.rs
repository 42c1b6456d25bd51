//! What happens to an order.

use std::time::Duration;

use serde::Deserialize;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::ids::new_id;
use semel_kernel::jobs;
use semel_kernel::store::{Expect, Row, StoreError, Tx, Value};
use semel_money::Amount;

use super::{ExpireOrder, Item, ItemId, Order, OrderId, PayBy, State, sql};
use crate::catalog::{self, Delivery, Held, Kind, Product, ProductId};
use crate::customers::{self, Customer, CustomerId, NewCustomer};
use crate::ledger::{self, Account, Posting};
use crate::referrals::RewardReferrer;
use crate::shop::currency;
use crate::{Error, Shop, alerts, events, messages};

const ITEMS_AT_MOST: usize = 50;
const UNITS_AT_MOST: i64 = 1000;
const WAITING_AT_ONCE: i64 = 200;

/// What a customer wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// Who buys.
    pub customer: NewCustomer,
    /// What.
    pub items: Vec<NewItem>,
    /// `yookassa`, `heleket`, `crystalpay` or `balance`.
    pub provider: String,
}

/// One line of what a customer wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// The product's id.
    pub product: String,
    /// How many; one when left out.
    #[serde(default = "one")]
    pub quantity: i64,
}

fn one() -> i64 {
    1
}

/// A new order with what was read on the way.
pub struct Placed {
    /// The order.
    pub order: Order,
    /// Its lines.
    pub items: Vec<Item>,
    /// Its customer.
    pub customer: Customer,
    /// How it is to be paid.
    pub pay_by: PayBy,
}

/// Writes an order with a frozen quote and its stock held. The caller adds the payment in the same transaction.
pub fn place(tx: &mut Tx, shop: &Shop, new: &NewOrder) -> Result<Placed, Error> {
    let pay_by = PayBy::parse(&new.provider).ok_or_else(|| {
        Error::invalid("provider", format!("{:.40} is not one of yookassa, heleket, crystalpay, balance", new.provider))
    })?;
    if let PayBy::Provider(provider) = pay_by {
        shop.rail(provider)?;
    }
    let wanted = wanted(&new.items)?;
    let customer = customers::flows::upsert(tx, shop, &new.customer)?;
    let unpaid: i64 = tx.one(sql::COUNT_UNPAID, args![&customer.id])?.get(0)?;
    if pay_by != PayBy::Balance && unpaid >= i64::from(shop.rules.unpaid_orders) {
        return Err(Error::TooManyUnpaid { open: unpaid });
    }
    let ids: Vec<ProductId> = wanted.iter().map(|(id, _)| id.clone()).collect();
    let products = catalog::flows::products(tx, &ids)?;
    let (lines, total) = quote(&wanted, &products)?;

    let now = tx.now();
    let order = Order {
        id: OrderId::new(now, &shop.chance),
        customer: customer.id.clone(),
        state: State::Pending,
        total,
        provider: pay_by.as_str().into(),
        deadline: now + shop.rules.order_lifetime,
        version: 1,
        created_at: now,
        paid_at: None,
        reason: None,
    };
    let args =
        args![&order.id, &order.customer, total.currency().code(), total.minor(), &order.provider, order.deadline, now];
    tx.later(sql::INSERT, args, Expect::Rows(1))?;
    let mut items = Vec::with_capacity(lines.len());
    for (position, (product, quantity)) in lines.into_iter().enumerate() {
        let item = Item {
            id: ItemId::new(now, &shop.chance),
            product: product.id.clone(),
            title: product.title.clone(),
            kind: product.kind,
            delivery: product.delivery,
            price: product.price,
            quantity,
            refunded: 0,
            promised_at: None,
        };
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let args = args![
            &item.id,
            &order.id,
            position,
            &item.product,
            &item.title,
            item.kind.as_str(),
            item.delivery.as_str(),
            item.price.minor(),
            quantity
        ];
        tx.later(sql::INSERT_ITEM, args, Expect::Rows(1))?;
        items.push(item);
    }
    for item in items.iter().filter(|item| item.kind == Kind::Stock && item.delivery == Delivery::Instant) {
        catalog::flows::hold(tx, &item.id, &item.product, item.quantity)?;
    }
    history::append(tx, &Entry { n: Some(1), event: "order made", to: Some("pending"), ..entry(&order) })?;
    if pay_by != PayBy::Balance {
        jobs::enqueue(tx, &ExpireOrder { order: order.id.clone() }, order.deadline, &shop.chance)?;
    }
    Ok(Placed { order, items, customer, pay_by })
}

fn wanted(items: &[NewItem]) -> Result<Vec<(ProductId, i64)>, Error> {
    if items.is_empty() || items.len() > ITEMS_AT_MOST {
        return Err(Error::invalid(
            "items",
            format!("an order has 1 to {ITEMS_AT_MOST} lines, this one has {}", items.len()),
        ));
    }
    let mut wanted: Vec<(ProductId, i64)> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let field = |name: &str| format!("items[{index}].{name}");
        let id = ProductId::parse(&item.product).ok_or_else(|| {
            Error::invalid(field("product"), "this is not the id of a product, which looks like prd_…")
        })?;
        if !(1..=UNITS_AT_MOST).contains(&item.quantity) {
            return Err(Error::invalid(
                field("quantity"),
                format!("between 1 and {UNITS_AT_MOST}, not {}", item.quantity),
            ));
        }
        if wanted.iter().any(|(known, _)| *known == id) {
            return Err(Error::invalid(
                field("product"),
                "this product stands in another line already; raise its quantity",
            ));
        }
        wanted.push((id, item.quantity));
    }
    Ok(wanted)
}

/// Products with how many of each, and what all of them cost.
type Quote<'p> = (Vec<(&'p Product, i64)>, Amount);

fn quote<'p>(wanted: &[(ProductId, i64)], products: &'p [Product]) -> Result<Quote<'p>, Error> {
    let mut lines = Vec::with_capacity(wanted.len());
    let mut total: Option<Amount> = None;
    for (index, (id, quantity)) in wanted.iter().enumerate() {
        let product = products.iter().find(|product| product.id == *id).ok_or_else(|| Error::missing("product", id))?;
        if !product.active {
            return Err(Error::Conflict(format!("{} is not on sale", product.title)));
        }
        let sum = product.price.times(*quantity)?;
        total = Some(match total {
            None => sum,
            Some(before) => {
                before.checked_add(sum).map_err(|error| Error::invalid(format!("items[{index}]"), error.to_string()))?
            }
        });
        lines.push((product, *quantity));
    }
    total.map(|total| (lines, total)).ok_or_else(|| Error::invalid("items", "an order needs at least one line"))
}

fn entry(order: &Order) -> Entry<'_> {
    Entry { entity: "order", entity_id: order.id.as_str(), thread: Some(order.id.as_str()), ..Entry::default() }
}

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

/// Orders, the newest first: of a customer, in a state, below the id `before`.
pub fn list(
    tx: &mut Tx,
    customer: Option<&CustomerId>,
    state: Option<State>,
    before: Option<&OrderId>,
    limit: i64,
) -> Result<Vec<Order>, Error> {
    let rows = tx.rows(sql::LIST, args![customer, state.map(State::as_str), before, limit])?;
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

/// Tries to hold all that an expired order needs, for money that came late. False when something is sold out; then
/// nothing is held.
pub fn hold_again(tx: &mut Tx, order: &Order, items: &[Item]) -> Result<bool, Error> {
    for item in items.iter().filter(|item| item.kind == Kind::Stock && item.delivery == Delivery::Instant) {
        match catalog::flows::hold(tx, &item.id, &item.product, item.quantity) {
            Ok(()) => {}
            Err(Error::SoldOut { .. }) => {
                catalog::flows::release(tx, &order.id)?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Gives a paid order what it bought: books the sale, turns held units into deliveries, queues the message, tells the
/// owner, rewards the referrer. The order's account must hold its total; `held` are the units held for its lines.
pub fn fulfil(
    tx: &mut Tx,
    shop: &Shop,
    order: &mut Order,
    items: &[Item],
    held: &[Held],
    customer: &Customer,
    actor: &str,
) -> Result<(), Error> {
    advance(tx, order, State::Paid, actor, None)?;
    let zero = Amount::zero(order.currency());
    let (mut sold, mut topped) = (zero, zero);
    let (mut count, mut rows) = (Count::default(), Vec::new());
    for item in items {
        let sum = item.price.times(item.quantity)?;
        count.wanted += item.quantity;
        if item.kind == Kind::Topup {
            topped = topped.checked_add(sum)?;
            count.done += item.quantity;
            rows.extend((1..=item.quantity).map(|n| delivery(tx, shop, item, n, None, "delivered")));
            continue;
        }
        sold = sold.checked_add(sum)?;
        let units = match item.delivery {
            Delivery::Instant => held.iter().filter(|held| held.item == item.id).cloned().collect(),
            Delivery::MadeToOrder => take_or_promise(tx, order, item)?,
        };
        if item.delivery == Delivery::MadeToOrder && units.is_empty() {
            continue;
        }
        rows.extend(deliveries(tx, shop, item, units)?);
        if shop.delivers_by_message() { count.moving += item.quantity } else { count.done += item.quantity }
    }
    tx.many_later(sql::DELIVER_MANY, rows, Expect::Rows(1))?;
    let posting = Posting::new(
        "sale",
        format!("sale:{}", order.id),
        vec![
            (Account::order(&order.id, order.currency()), order.total.neg()),
            (Account::sales(order.currency()), sold),
            (Account::customer(&order.customer, order.currency()), topped),
        ],
    )?;
    ledger::post(tx, shop, &posting.for_order(&order.id))?;
    if topped.is_positive() {
        messages::flows::notify_balance(tx, shop, customer, topped, "topup", &format!("topup:{}", order.id))?;
    }
    if count.moving > 0 {
        messages::flows::goods(tx, shop, order, customer, "1")?;
    }
    let now = tx.now();
    if customer.referrer.is_some() && shop.rules.referral.0 > 0 {
        jobs::enqueue(tx, &RewardReferrer { order: order.id.clone() }, now, &shop.chance)?;
    }
    alerts::flows::sold(tx, shop, &order.id, order.total)?;
    let data = serde_json::json!({ "order": order.id, "total": order.total, "customer": { "telegram_id": customer.telegram_id } });
    events::flows::publish(tx, shop, "order.paid", &order.id, data, &format!("order.paid:{}", order.id))?;
    settle_state(tx, shop, order, &count, actor)
}

fn delivery(tx: &Tx, shop: &Shop, item: &Item, n: i64, held: Option<Held>, state: &str) -> Vec<Value> {
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

/// Takes the units of a line that is made to order, if they are there; else promises them, and answers none.
fn take_or_promise(tx: &mut Tx, order: &Order, item: &Item) -> Result<Vec<Held>, Error> {
    let product = catalog::flows::find_held(tx, &item.product)?;
    if catalog::flows::available(tx, &item.product)? < item.quantity {
        let promised = tx.now() + Duration::from_secs(u64::try_from(product.promise_s).unwrap_or(0));
        tx.later(sql::PROMISE, args![&item.id, promised], Expect::Rows(1))?;
        return Ok(Vec::new());
    }
    // Another buyer may have come between the look and the hold: then the whole settlement runs again.
    catalog::flows::hold(tx, &item.id, &item.product, item.quantity).map_err(|error| match error {
        Error::SoldOut { .. } => Error::Store(StoreError::Contention("stock changed during the settlement".into())),
        other => other,
    })?;
    let held = catalog::flows::held_for(tx, &order.id)?;
    Ok(held.into_iter().filter(|held| held.item == item.id).collect())
}

/// The deliveries that `units` become for `item`.
fn deliveries(tx: &mut Tx, shop: &Shop, item: &Item, units: Vec<Held>) -> Result<Vec<Vec<Value>>, Error> {
    let found = i64::try_from(units.len()).unwrap_or(0);
    if found != item.quantity {
        return Err(Error::Conflict(format!("{found} units are held for {} of {}", item.quantity, item.id)));
    }
    let state = if shop.delivers_by_message() { "sending" } else { "delivered" };
    Ok((1..).zip(units).map(|(n, held)| delivery(tx, shop, item, n, Some(held), state)).collect())
}

/// How many units an order wants, how many are with the customer, how many on their way.
#[derive(Default)]
struct Count {
    wanted: i64,
    done: i64,
    moving: i64,
}

impl Count {
    fn read(tx: &mut Tx, order: &OrderId) -> Result<Self, Error> {
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
fn settle_state(tx: &mut Tx, shop: &Shop, order: &mut Order, count: &Count, actor: &str) -> Result<(), Error> {
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

/// Notes that the message with the order's goods, those that had joined it by `goods_at`, reached the customer.
pub fn delivered(tx: &mut Tx, shop: &Shop, id: &OrderId, goods_at: Time) -> Result<(), Error> {
    let mut order = lock(tx, id)?;
    let now = tx.now();
    tx.later(sql::DELIVERED, args![id, now, goods_at], Expect::Any)?;
    let count = Count::read(tx, id)?;
    settle_state(tx, shop, &mut order, &count, "telegram")
}

/// Lets an order go on after a refund that left something of it: from the state `after` that it had before, and on to what
/// was delivered meanwhile.
pub fn resume(tx: &mut Tx, shop: &Shop, order: &mut Order, after: State, reason: Option<&str>) -> Result<(), Error> {
    advance(tx, order, after, "refund", reason)?;
    let count = Count::read(tx, &order.id)?;
    settle_state(tx, shop, order, &count, "refund")
}

/// Gives new units of `product` to orders that wait for them, the longest waiting first.
pub fn serve_waiting(tx: &mut Tx, shop: &Shop, product: &ProductId) -> Result<(), Error> {
    loop {
        let waiting = tx.rows(sql::WAITING, args![product, WAITING_AT_ONCE])?;
        for row in &waiting {
            let (item, id, quantity): (ItemId, OrderId, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if catalog::flows::available(tx, product)? < quantity {
                return Ok(());
            }
            serve(tx, shop, &id, &item)?;
        }
        if i64::try_from(waiting.len()).unwrap_or(0) < WAITING_AT_ONCE {
            return Ok(());
        }
    }
}

/// Gives units to one waiting line, unless its order went another way before its row was held.
fn serve(tx: &mut Tx, shop: &Shop, id: &OrderId, item: &ItemId) -> Result<(), Error> {
    let mut order = lock(tx, id)?;
    let waits = matches!(order.state, State::Paid | State::AwaitingStock | State::Partial);
    let served: i64 = tx.one(sql::SERVED, args![item])?.get(0)?;
    let Some(item) = items(tx, id)?.into_iter().find(|known| known.id == *item) else { return Ok(()) };
    if !waits || served > 0 {
        return Ok(());
    }
    catalog::flows::hold(tx, &item.id, &item.product, item.quantity)?;
    let held = catalog::flows::held_for(tx, id)?.into_iter().filter(|held| held.item == item.id).collect();
    let rows = deliveries(tx, shop, &item, held)?;
    tx.many_later(sql::DELIVER_MANY, rows, Expect::Rows(1))?;
    if shop.delivers_by_message() {
        let customer = customers::flows::find(tx, &order.customer)?;
        messages::flows::goods(tx, shop, &order, &customer, item.id.as_str())?;
    }
    let count = Count::read(tx, id)?;
    settle_state(tx, shop, &mut order, &count, "stock")
}

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

/// Takes undelivered goods back from an order whose money goes back. Units whose message failed for good return to the
/// shelf; a unit that a customer may have seen is burned.
pub fn take_back(tx: &mut Tx, order: &OrderId, seen: bool) -> Result<(), Error> {
    tx.later(sql::VOID, args![order], Expect::Any)?;
    if seen { catalog::flows::burn(tx, order) } else { catalog::flows::release(tx, order) }
}
