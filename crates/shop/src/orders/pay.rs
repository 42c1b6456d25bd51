//! What its money does to an order: the sale is booked, and what was bought is on its way.

use semel_kernel::jobs;
use semel_kernel::store::{Expect, Tx};
use semel_money::Amount;

use super::access;
use super::flows::advance;
use super::hand_over::{Count, deliveries, delivery, settle_state};
use super::waiting::take_or_promise;
use super::{Item, Order, State, sql};
use crate::catalog::{self, Delivery, Held, Kind};
use crate::customers::Customer;
use crate::ledger::{self, Account, Posting};
use crate::referrals::RewardReferrer;
use crate::{Error, Shop, alerts, events, messages};

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
    let (mut count, mut rows, mut leaves) = (Count::default(), Vec::new(), false);
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
        if item.kind == Kind::Vpn {
            let Some(step) = access::sell(tx, shop, order, item, customer)? else { continue };
            rows.extend((1..=item.quantity).map(|n| delivery(tx, shop, item, n, None, step.delivery())));
            count.add(item, step);
            continue;
        }
        let units = match item.delivery {
            Delivery::Instant => held.iter().filter(|held| held.item == item.id).cloned().collect(),
            Delivery::MadeToOrder => take_or_promise(tx, order, item)?,
        };
        if item.delivery == Delivery::MadeToOrder && units.is_empty() {
            continue;
        }
        let (lines, withheld) = deliveries(tx, shop, item, units)?;
        rows.extend(lines);
        if withheld || shop.delivers_by_message() {
            count.moving += item.quantity
        } else {
            count.done += item.quantity
        }
        leaves |= !withheld && shop.delivers_by_message();
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
    if leaves {
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
