//! Beginning a refund that the owner asks for.

use semel_kernel::args;
use semel_kernel::jobs;
use semel_kernel::keys::{self, Key};
use semel_kernel::store::Tx;
use semel_money::Amount;
use semel_payments::Provider;

use super::{NewRefundRequest, Refund, RefundId, RunRefund, Target, by_hand, end, rows, sql, topup};
use crate::checkout::flows as payments;
use crate::checkout::{Payment, PaymentState};
use crate::ledger;
use crate::orders::flows as order_flows;
use crate::orders::{Order, OrderId, OrderView, State};
use crate::{Error, Shop, safety};

/// Begins a refund: to the balance it is done when this returns, to the provider it is on its way, and one that was made
/// there by hand is booked. Its idempotency key commits with it, so that a repeat finds it begun.
pub async fn begin(
    shop: &Shop,
    id: OrderId,
    request: NewRefundRequest,
    key: Option<Key>,
    actor: String,
) -> Result<OrderView, Error> {
    if request.to == Target::Made {
        by_hand::book(shop, &id, &request, key).await?;
        return OrderView::load(shop, &id).await;
    }
    safety::flows::permit(shop).await?;
    let of = id.clone();
    shop.write("refund.begin", move |tx, shop| {
        if let Some(key) = &key {
            keys::bind(tx, key, of.as_str())?;
        }
        write_refund(tx, shop, &of, &request, &actor)
    })
    .await?;
    OrderView::load(shop, &id).await
}

fn write_refund(tx: &mut Tx, shop: &Shop, id: &OrderId, request: &NewRefundRequest, actor: &str) -> Result<(), Error> {
    let mut order = order_flows::lock(tx, id)?;
    if order.state.event_to(State::RefundPending).is_none() {
        let state = order.state.as_str();
        return Err(Error::Conflict(format!(
            "order {id} is {state}: only a paid order without a running refund can be refunded"
        )));
    }
    let given: i64 = tx.one(sql::GIVEN, args![id])?.get(0)?;
    let left = Amount::new(order.total.minor() - given, order.currency());
    let amount = match &request.amount {
        None => left,
        Some(text) => Amount::parse(text, order.currency())?,
    };
    if !amount.is_positive() || amount.minor() > left.minor() {
        return Err(Error::invalid(
            "amount",
            format!("between {} and {left} can be refunded", Amount::new(1, order.currency())),
        ));
    }
    let payment = match request.to {
        Target::Provider => Some(refundable(tx, shop, &order, amount, request.address.clone())?),
        Target::Balance | Target::Made => None,
    };
    let now = tx.now();
    let refund = Refund {
        id: RefundId::new(now, &shop.chance),
        order: id.clone(),
        payment: payment.as_ref().map(|p| p.id.clone()),
        provider_refund_id: None,
        amount,
        state: "pending".into(),
        reason: request.reason.clone().unwrap_or_else(|| "asked by the owner".into()),
        after: order.state,
        address: request.address.clone(),
        created_at: now,
    };
    if payment.is_none() && topup::share(tx, &refund, &order)? == amount {
        return Err(Error::Conflict(format!(
            "order {id} put this money on the customer's balance already: refund it to the provider"
        )));
    }
    rows::insert(tx, &refund, request.to.as_str())?;
    order_flows::advance(tx, &mut order, State::RefundPending, actor, Some(&refund.reason))?;
    match payment {
        None => end::succeed(tx, shop, &refund, &mut order, None),
        Some(payment) => {
            topup::hold(tx, shop, &refund, &order)?;
            jobs::enqueue(
                tx,
                &RunRefund { refund: refund.id.clone(), order: id.clone(), provider: payment.provider },
                now,
                &shop.chance,
            )?;
            // It holds nobody back while it is not waiting.
            order_flows::serve_soon(tx, shop, id)
        }
    }
}

/// The payment of `order` that can give `amount` back through its provider.
fn refundable(
    tx: &mut Tx,
    shop: &Shop,
    order: &Order,
    amount: Amount,
    address: Option<String>,
) -> Result<Payment, Error> {
    let paid = match ledger::paid_by(tx, &order.id, order.currency())? {
        Some((id, there)) => payments::of_order(tx, &order.id)?
            .into_iter()
            .find(|payment| payment.id.as_str() == id && payment.state == PaymentState::Paid)
            .map(|payment| Payment { provider_id: Some(there), ..payment }),
        None => None,
    };
    let Some(payment) = paid else {
        return Err(Error::Conflict("no provider took money for this order: refund it to the balance".into()));
    };
    let rail = shop.rail(payment.provider)?;
    let Some(provider_id) = &payment.provider_id else {
        return Err(Error::Conflict("the provider's id of the payment is not known yet: try again later".into()));
    };
    if payment.provider == Provider::Stars && amount != payment.amount {
        return Err(Error::Conflict(format!(
            "Telegram gives a payment in Stars back whole or not at all: {} came, {amount} were asked for; a part goes to the balance",
            payment.amount
        )));
    }
    let probe = semel_payments::NewRefund {
        provider_id: provider_id.clone(),
        amount,
        key: "probe".into(),
        reason: String::new(),
        address,
        payer: Some(1),
        customer_email: Some("probe@example.com".into()),
        customer_phone: None,
        lines: vec![semel_payments::Line { title: "probe".into(), quantity: 1, price: amount }],
    };
    rail.refund(&probe).map_err(|error| Error::Conflict(format!("{error}; refund it to the balance instead")))?;
    Ok(payment)
}
