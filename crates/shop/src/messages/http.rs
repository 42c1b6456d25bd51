//! Messages over HTTP: a list by state and kind. Never what they say, because that may be goods.

use axum::Router;
use axum::extract::{Query, State as Extract};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::{MessageId, MessageView, State, flows};
use crate::web::{self, Problem, cursor, page, page_size};
use crate::{Error, Shop};

/// `/api/v1/messages`.
pub fn routes() -> Router<Shop> {
    Router::new().route("/api/v1/messages", get(list))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    state: Option<String>,
    kind: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list(Extract(shop): Extract<Shop>, Query(filter): Query<Filter>) -> Result<Response, Problem> {
    let limit = page_size(filter.limit)?;
    let state = match filter.state.as_deref() {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| Error::invalid("state", "no such state of a message"))?),
    };
    let before = cursor(filter.cursor.as_deref(), MessageId::parse)?;
    let kind = web::filter("kind", filter.kind)?;
    let items = shop
        .read("messages.list", move |tx| flows::list(tx, before.as_ref(), state, kind.as_deref(), limit + 1))
        .await?;
    Ok(page(items, limit, |message: &MessageView| message.id.clone()))
}
