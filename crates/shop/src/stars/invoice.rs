//! The invoice: how a payment in Stars is opened, and when it is over.

use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::store::Tx;

use super::INVOICE;
use crate::checkout::flows as payments;
use crate::checkout::{Payment, PaymentState};
use crate::messages::flows::queue;
use crate::messages::{Body, Class, Language, New};
use crate::orders::Order;
use crate::orders::flows as order_flows;
use crate::{Error, Shop, customers};

/// How long after the deadline of its order an unpaid invoice is over: whoever was let through at the last moment has paid by then.
const CLOSE_AFTER: Duration = Duration::from_secs(3600);

/// Opens a payment that was just written: queues its invoice, in the transaction of the order. No call is made for it, so the payment
/// waits for its customer from now on.
pub(crate) fn send(tx: &mut Tx, shop: &Shop, order: &Order, payment: &mut Payment) -> Result<(), Error> {
    payments::advance(tx, payment, PaymentState::Pending, None)?;
    let items = order_flows::items(tx, &order.id)?;
    let customer = customers::flows::find(tx, &order.customer)?;
    let language = Language::of(customer.language.as_deref());
    let more = items.len().saturating_sub(1);
    let first = items.first().map(|item| item.title.clone()).unwrap_or_default();
    let title = if first.trim().is_empty() { order.id.to_string() } else { first };
    let number = order.id.as_str();
    let description = match (language, more) {
        (Language::Russian, 0) => format!("Заказ {number}"),
        (Language::Russian, _) => format!("Заказ {number}, и ещё позиций: {more}"),
        (Language::English, 0) => format!("Order {number}"),
        (Language::English, _) => format!("Order {number}, and {more} more"),
    };
    let body = Body::Invoice {
        payment: payment.id.clone(),
        order: order.id.clone(),
        title,
        description,
        stars: payment.amount.minor(),
    };
    let new = New {
        dedup_key: format!("{INVOICE}:{}", payment.id),
        chat_id: customer.telegram_id,
        // Twice the same invoice is one payment: who pays or has paid is let through no more.
        class: Class::AtLeastOnce,
        kind: INVOICE,
        body,
        order: Some(&order.id),
    };
    queue(tx, shop, new)
}

/// Whether a payment of which the list told nothing at `asked_at` is over: nobody is let through to pay it any more. Money that comes
/// all the same is late money.
pub(crate) fn is_over(tx: &mut Tx, payment: &Payment, asked_at: Time) -> Result<bool, Error> {
    let order = order_flows::find(tx, &payment.order)?;
    Ok(asked_at > order.deadline + CLOSE_AFTER)
}
