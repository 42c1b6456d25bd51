//! Messages over HTTP: a list by state and kind. Never what they say, because that may be goods.

use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Row, StoreError, Tx};

use super::{MessageId, MessageView, State};
use crate::web::Problem;
use crate::{Error, Shop};

semel_kernel::statements! {
    LIST = "select id, kind, state, order_id, uncertain, error, queued_at, ended_at from messages
        where id < $1 and (cast($2 as text) is null or state = $2) and (cast($3 as text) is null or kind = $3)
        order by id desc limit $4";
}

/// `/api/v1/messages`.
pub fn routes() -> Router<Shop> {
    Router::new().route("/api/v1/messages", get(list))
}

const PAGE: i64 = 50;
const LONGEST_PAGE: i64 = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    state: Option<String>,
    kind: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list(Extract(shop): Extract<Shop>, Query(filter): Query<Filter>) -> Result<Response, Problem> {
    let limit = filter.limit.unwrap_or(PAGE);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("between 1 and {LONGEST_PAGE}, not {limit}")).into());
    }
    let state = match filter.state.as_deref() {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| Error::invalid("state", "no such state of a message"))?),
    };
    let before = match filter.cursor.filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(cursor) => Some(
            MessageId::parse(&cursor)
                .ok_or_else(|| Error::invalid("cursor", "give the next_cursor of the page before"))?,
        ),
    };
    let mut items = shop
        .read("messages.list", move |tx| page(tx, before.as_ref(), state, filter.kind.as_deref(), limit + 1))
        .await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > wanted;
    items.truncate(wanted);
    let next = more.then(|| items.last().map(|message| message.id.clone())).flatten();
    Ok(Json(json!({ "items": items, "next_cursor": next })).into_response())
}

/// Messages, the newest first: those before `before`, and only those of this state and kind. Recipients of campaigns are not
/// among them: they stand with their campaign.
///
/// # Errors
/// The database did not answer.
pub fn page(
    tx: &mut Tx,
    before: Option<&MessageId>,
    state: Option<State>,
    kind: Option<&str>,
    limit: i64,
) -> Result<Vec<MessageView>, Error> {
    let read = |row: &Row| {
        Ok::<_, StoreError>(MessageView {
            id: row.get(0)?,
            kind: row.get(1)?,
            state: row.get(2)?,
            order: row.get(3)?,
            uncertain: row.get(4)?,
            error: row.get(5)?,
            queued_at: row.get::<Time>(6)?.to_string(),
            ended_at: row.get::<Option<Time>>(7)?.map(|at| at.to_string()),
        })
    };
    let before = before.map_or("msg_z", MessageId::as_str);
    let rows = tx.rows(LIST, args![before, state.map(State::as_str), kind, limit])?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
