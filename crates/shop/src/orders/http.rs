//! Orders over HTTP.

use axum::extract::{Path, Query, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::Deserialize;

use super::flows::{self, NewOrder};
use super::{Order, OrderId, OrderView, State};
use crate::web::{KeyInHand, Problem, Strict, cursor, in_hand, page, page_size};
use crate::{Error, Shop, checkout, customers, refunds};

/// The routes of this feature.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/api/v1/orders", post(create).get(list))
        .route("/api/v1/orders/{id}", get(show))
        .route("/api/v1/orders/{id}/pay", post(pay))
        .route("/api/v1/orders/{id}/cancel", post(cancel))
        .route("/api/v1/orders/{id}/refund", post(refund))
        .route("/api/v1/payments/{id}/assign", post(assign))
}

const REASON_CHARS: usize = 500;

fn order_id(text: &str) -> Result<OrderId, Problem> {
    OrderId::parse(text).ok_or_else(|| Error::missing("order", format!("{text:.80}")).into())
}

/// Why the owner does a thing, as it stands on the timeline afterwards: short, and nothing that a database or a terminal
/// would stumble over.
fn reason(text: Option<String>) -> Result<Option<String>, Error> {
    let Some(text) = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > REASON_CHARS || text.chars().any(char::is_control) {
        return Err(Error::invalid("reason", format!("one line of at most {REASON_CHARS} characters")));
    }
    Ok(Some(text))
}

async fn create(
    Extract(shop): Extract<Shop>,
    key: Option<Extension<KeyInHand>>,
    Strict(new): Strict<NewOrder>,
) -> Result<Response, Problem> {
    let (key, resume) = in_hand(key);
    let resume = resume.as_deref().and_then(OrderId::parse);
    let view = checkout::flows::order(&shop, new, key, resume).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    customer: Option<i64>,
    status: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list(Extract(shop): Extract<Shop>, Query(filter): Query<Filter>) -> Result<Response, Problem> {
    let limit = page_size(filter.limit)?;
    let state = match filter.status.as_deref() {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| unknown_status(word))?),
    };
    let before = cursor(filter.cursor.as_deref(), OrderId::parse)?;
    let rows = shop
        .read("orders.list", move |tx| {
            let customer = match filter.customer {
                None => None,
                Some(telegram_id) => match customers::flows::find_by_telegram(tx, telegram_id)? {
                    Some(customer) => Some(customer.id),
                    None => return Ok(Vec::new()),
                },
            };
            flows::list(tx, customer.as_ref(), state, before.as_ref(), limit + 1)
        })
        .await?;
    let items = rows.iter().map(line).collect();
    Ok(page(items, limit, |line: &serde_json::Value| line["id"].clone()))
}

fn unknown_status(word: &str) -> Error {
    let known: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
    Error::invalid("status", format!("{word:.40} is not one of {}", known.join(", ")))
}

/// An order in a list.
fn line(order: &Order) -> serde_json::Value {
    serde_json::json!({
        "id": order.id, "status": order.state, "total": order.total,
        "provider": order.provider, "created_at": order.created_at.to_string(),
    })
}

async fn show(Extract(shop): Extract<Shop>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(OrderView::load(&shop, &order_id(&id)?).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PayOtherwise {
    provider: String,
}

async fn pay(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<PayOtherwise>,
) -> Result<Response, Problem> {
    let (key, resume) = in_hand(key);
    let view = checkout::flows::pay_otherwise(&shop, &order_id(&id)?, &body.provider, key, resume.is_some()).await?;
    Ok(Json(view).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    #[serde(default)]
    reason: Option<String>,
}

async fn cancel(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<Cancel>,
) -> Result<Response, Problem> {
    let id = order_id(&id)?;
    let of = id.clone();
    let reason = reason(body.reason)?.unwrap_or_else(|| "called off".into());
    shop.write("order.cancel", move |tx, shop| flows::cancel(tx, shop, &of, "api", &reason).map(|_| ())).await?;
    Ok(Json(OrderView::load(&shop, &id).await?).into_response())
}

async fn refund(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<refunds::NewRefundRequest>,
) -> Result<Response, Problem> {
    let (key, resume) = in_hand(key);
    let id = order_id(&id)?;
    let view = match resume {
        Some(_) => OrderView::load(&shop, &id).await?, // Begun by the request that died; its job goes on by itself.
        None => {
            let body = refunds::NewRefundRequest { reason: reason(body.reason)?, ..body };
            refunds::flows::begin(&shop, id, body, key, "api".into()).await?
        }
    };
    Ok(Json(view).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assign {
    order: String,
}

async fn assign(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<Assign>,
) -> Result<Response, Problem> {
    // The provider's id, in no form that we know; but no provider writes control characters.
    if id.chars().any(char::is_control) {
        return Err(Error::missing("unassigned payment", format!("{id:.80}")).into());
    }
    let view = checkout::flows::assign(&shop, id, order_id(&body.order)?, "api".into()).await?;
    Ok(Json(view).into_response())
}
