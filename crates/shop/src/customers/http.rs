//! A customer over HTTP: balances, latest orders and subscriptions.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use semel_kernel::store::Tx;
use semel_money::Amount;
use serde::Serialize;

use super::flows;
use crate::orders::{Order, OrderId};
use crate::web::Problem;
use crate::{Error, Shop, ledger, orders, subscriptions};

const ORDERS: i64 = 50;
const SUBSCRIPTIONS: i64 = 50;

/// `/api/v1/customers/{telegram_id}`.
pub fn routes() -> Router<Shop> {
    Router::new().route("/api/v1/customers/{telegram_id}", get(one))
}

#[derive(Serialize)]
struct View {
    telegram_id: i64,
    balances: Vec<Amount>,
    orders: Vec<OrderLine>,
    subscriptions: Vec<subscriptions::view::Line>,
}

#[derive(Serialize)]
struct OrderLine {
    id: OrderId,
    status: &'static str,
    total: Amount,
    created_at: String,
}

impl From<Order> for OrderLine {
    fn from(order: Order) -> Self {
        let created_at = order.created_at.to_string();
        Self { id: order.id, status: order.state.as_str(), total: order.total, created_at }
    }
}

async fn one(State(shop): State<Shop>, Path(telegram_id): Path<String>) -> Result<impl IntoResponse, Problem> {
    let unknown = || Error::missing("customer", format!("{telegram_id:.40}"));
    let telegram_id: i64 = telegram_id.parse().map_err(|_| unknown())?;
    let view = shop.read("customers.one", move |tx| view(tx, telegram_id)).await?;
    Ok(Json(view))
}

fn view(tx: &mut Tx, telegram_id: i64) -> Result<View, Error> {
    let customer = flows::find_by_telegram(tx, telegram_id)?;
    let customer = customer.ok_or_else(|| Error::missing("customer", telegram_id))?;
    let latest = orders::flows::of_customer(tx, &customer.id, ORDERS)?;
    Ok(View {
        telegram_id: customer.telegram_id,
        balances: ledger::balances(tx, &customer.id)?,
        orders: latest.into_iter().map(OrderLine::from).collect(),
        subscriptions: subscriptions::view::list(tx, Some(telegram_id), None, None, SUBSCRIPTIONS)?,
    })
}
