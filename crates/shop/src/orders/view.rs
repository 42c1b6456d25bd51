//! An order as the API and the command line show it.

use serde::Serialize;

use semel_kernel::history::{self, Told};
use semel_kernel::inbox;
use semel_kernel::store::Tx;
use semel_money::Amount;

use super::{Order, OrderId, State, flows, paths};
use crate::checkout::{self, Payment};
use crate::ledger::{self, Went};
use crate::{Error, Shop, catalog, customers};

const TIMELINE_ROWS: i64 = 200;

/// An order with its lines, payment and story.
#[derive(Clone, Debug, Serialize)]
pub struct OrderView {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub status: State,
    /// Who ordered.
    pub customer: CustomerView,
    /// What it costs.
    pub total: Amount,
    /// Its lines; delivered goods stand in `goods`.
    pub items: Vec<ItemView>,
    /// The latest payment.
    pub payment: Option<PaymentView>,
    /// All payments, the latest first.
    pub payments: Vec<PaymentView>,
    /// Where its money went, when it was more than what the goods took: some went back, or to the balance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<MoneyView>,
    /// Until when stock is held, RFC 3339.
    pub deadline: String,
    /// Why it ended as it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it was paid, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<String>,
    /// Everything that happened to it.
    pub timeline: Vec<Told>,
}

/// Where the money of an order went.
#[derive(Clone, Debug, Serialize)]
pub struct MoneyView {
    /// What came in.
    pub received: Amount,
    /// What went back to whoever paid.
    pub to_payer: Amount,
    /// What went to the customer's balance.
    pub to_balance: Amount,
}

/// Who ordered.
#[derive(Clone, Debug, Serialize)]
pub struct CustomerView {
    /// The Telegram id.
    pub telegram_id: i64,
}

/// A line of an order.
#[derive(Clone, Debug, Serialize)]
pub struct ItemView {
    /// Its id.
    pub id: String,
    /// The product's id.
    pub product: String,
    /// The product's title when it was ordered.
    pub title: String,
    /// How many.
    pub quantity: i64,
    /// Price of one.
    pub price: Amount,
    /// When it is promised, for what is made to order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promised_at: Option<String>,
    /// The subscription that it renews, for access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// What was delivered.
    pub goods: Vec<String>,
}

/// A payment of an order.
#[derive(Clone, Debug, Serialize)]
pub struct PaymentView {
    /// Its id.
    pub id: String,
    /// Where it is paid.
    pub provider: String,
    /// The id there, once known.
    pub provider_id: Option<String>,
    /// Where the customer pays.
    pub url: Option<String>,
    /// Where it stands.
    pub status: checkout::PaymentState,
    /// What is asked for.
    pub amount: Amount,
    /// What came in.
    pub received: Amount,
    /// What went back.
    pub refunded: Amount,
}

impl From<&Payment> for PaymentView {
    fn from(payment: &Payment) -> Self {
        Self {
            id: payment.id.to_string(),
            provider: payment.provider.as_str().into(),
            provider_id: payment.provider_id.clone(),
            url: payment.url.clone(),
            status: payment.state,
            amount: payment.amount,
            received: payment.received,
            refunded: payment.refunded,
        }
    }
}

impl OrderView {
    /// Reads an order with all that belongs to it.
    pub async fn load(shop: &Shop, id: &OrderId) -> Result<Self, Error> {
        let id = id.clone();
        shop.read("order.view", move |tx| Self::read(tx, &id)).await
    }

    /// The same inside a transaction.
    pub fn read(tx: &mut Tx, id: &OrderId) -> Result<Self, Error> {
        let order = flows::find(tx, id)?;
        let customer = customers::flows::find(tx, &order.customer)?;
        let goods = if order.paid_at.is_some() { catalog::flows::contents(tx, id)? } else { Vec::new() };
        let items = flows::items(tx, id)?.into_iter().map(|item| ItemView {
            goods: goods.iter().filter(|(of, ..)| *of == item.id).map(|(.., content)| content.clone()).collect(),
            id: item.id.to_string(),
            product: item.product.to_string(),
            title: item.title,
            quantity: item.quantity,
            price: item.price,
            promised_at: item.promised_at.map(|at| at.to_string()),
            subscription: item.subscription.map(|id| id.to_string()),
        });
        let items = items.collect();
        let payments: Vec<PaymentView> = checkout::flows::of_order(tx, id)?.iter().map(PaymentView::from).collect();
        let came = payments.iter().any(|payment| payment.received.is_positive());
        let money = if came { money_of(tx, &order)? } else { None };
        let timeline = timeline(tx, id, &payments)?;
        let Order { state, total, deadline, reason, created_at, paid_at, .. } = order;
        Ok(Self {
            id: id.to_string(),
            status: state,
            customer: CustomerView { telegram_id: customer.telegram_id },
            total,
            items,
            payment: payments.first().cloned(),
            payments,
            money,
            deadline: deadline.to_string(),
            reason,
            created_at: created_at.to_string(),
            paid_at: paid_at.map(|at| at.to_string()),
            timeline,
        })
    }
}

/// Nothing for an order whose money simply bought its goods.
fn money_of(tx: &mut Tx, order: &Order) -> Result<Option<MoneyView>, Error> {
    let Went { received, to_payer, to_balance } = ledger::went(tx, &order.id, order.currency())?;
    let is_told = to_payer.is_positive() || to_balance.is_positive();
    Ok(is_told.then_some(MoneyView { received, to_payer, to_balance }))
}

/// The order's history with the path of its money and the notices that came about its payments, in the order in which things
/// happened.
fn timeline(tx: &mut Tx, id: &OrderId, payments: &[PaymentView]) -> Result<Vec<Told>, Error> {
    let mut told = history::story(tx, id.as_str(), TIMELINE_ROWS)?;
    told.extend(paths::lines(tx, id, TIMELINE_ROWS)?);
    for payment in payments {
        for notice in inbox::about(tx, &payment.id, TIMELINE_ROWS)? {
            let repeats = (notice.seen > 1).then(|| format!("came {} times", notice.seen));
            told.push(Told {
                at: notice.received_at.to_string(),
                entity: "notice".into(),
                entity_id: notice.id.to_string(),
                event: notice.event,
                actor: Some(notice.source),
                from: None,
                to: Some(notice.state),
                took_ms: None,
                detail: notice.reason.or(repeats),
            });
        }
    }
    told.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(told)
}
