//! Making an order: what a customer wants becomes a frozen quote with its stock held.

use serde::Deserialize;

use semel_kernel::args;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs;
use semel_kernel::store::{Expect, Tx};
use semel_money::Amount;
use semel_payments::Provider;

use super::flows::entry;
use super::{ExpireOrder, Item, ItemId, Order, OrderId, PayBy, State, sql};
use crate::catalog::{self, Delivery, Kind, Product, ProductId};
use crate::customers::{self, Customer, NewCustomer};
use crate::subscriptions::{self, SubscriptionId};
use crate::{Error, Shop, stars, vpn};

const ITEMS_AT_MOST: usize = 50;
const UNITS_AT_MOST: i64 = 1000;

/// What a customer wants.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// Who buys.
    pub customer: NewCustomer,
    /// What.
    pub items: Vec<NewItem>,
    /// `yookassa`, `heleket`, `crystalpay`, `stars` or `balance`.
    pub provider: String,
    /// Whether the quote is in Telegram Stars. It always is for the provider `stars`; otherwise only the bot says so, for a balance of
    /// Stars.
    #[serde(skip)]
    pub in_stars: bool,
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
    /// For access: the subscription of this customer that it shall renew. Left out, it is the newest that it fits, or a new
    /// one.
    #[serde(default)]
    pub subscription: Option<String>,
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
        Error::invalid(
            "provider",
            format!("{:.40} is not one of yookassa, heleket, crystalpay, stars, balance", new.provider),
        )
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
    let mut products = catalog::flows::products(tx, &ids)?;
    if new.in_stars || pay_by == PayBy::Provider(Provider::Stars) {
        for product in &mut products {
            product.price = stars::price_of(shop, product)?;
        }
    }
    let (lines, total) = quote(&wanted, &products)?;
    if let PayBy::Provider(provider) = pay_by {
        stars::fits(provider, total.currency())?;
    }
    let mut renewed = Vec::with_capacity(lines.len());
    for (index, ((product, _), asked)) in lines.iter().zip(&new.items).enumerate() {
        renewed.push(renews(tx, shop, &customer, product, asked, index)?);
    }

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
    for (position, ((product, quantity), subscription)) in lines.into_iter().zip(renewed).enumerate() {
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
            duration_s: product.duration_s,
            devices: product.devices,
            subscription,
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
            quantity,
            item.duration_s,
            item.devices,
            item.subscription.clone()
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

/// The subscription that a line names, if it may: nobody shall pay for what cannot be.
fn renews(
    tx: &mut Tx,
    shop: &Shop,
    customer: &Customer,
    product: &Product,
    asked: &NewItem,
    index: usize,
) -> Result<Option<SubscriptionId>, Error> {
    let field = || format!("items[{index}].subscription");
    let Some(devices) = product.devices.filter(|_| product.kind == Kind::Vpn) else {
        return match asked.subscription {
            None => Ok(None),
            Some(_) => Err(Error::invalid(field(), "only access renews a subscription: leave it out")),
        };
    };
    vpn::of(shop)?;
    let Some(text) = &asked.subscription else { return Ok(None) };
    let id = SubscriptionId::parse(text)
        .ok_or_else(|| Error::invalid(field(), "this is not the id of a subscription, which looks like sub_…"))?;
    subscriptions::flows::renewable(tx, &customer.id, &id, devices)?;
    Ok(Some(id))
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
