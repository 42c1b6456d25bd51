//! The self-audit and the owner's log over HTTP.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use semel_kernel::clock::Time;
use semel_shop::audit::stops::{self, StopId};
use semel_shop::owner_log::{Entry, flows};
use semel_shop::web::{Problem, Strict, page_size};

use super::Doors;
use super::auth::Caller;
use super::care::{Page, misfit, not_there, page};

pub(super) fn routes() -> Router<Doors> {
    Router::new()
        .route("/api/v1/audit/stops", get(list_stops))
        .route("/api/v1/audit/stops/{id}/release", post(release))
        .route("/api/v1/audit/log", get(log))
}

const STOP_STATES: &[&str] = &["open", "released"];

async fn list_stops(State(doors): State<Doors>, Query(asked): Query<Page>) -> Result<Response, Problem> {
    let (limit, state) = (asked.limit()?, asked.state(STOP_STATES)?);
    let before = asked.cursor(|cursor| StopId::parse(cursor).is_some())?;
    let rows = doors
        .shop
        .read("audit.stops", move |tx| Ok(stops::list_stops(tx, state.as_deref(), before.as_deref(), limit + 1)?))
        .await?;
    Ok(page(rows.iter().map(|row| json!(row)).collect(), limit))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    reason: String,
}

async fn release(
    State(doors): State<Doors>,
    caller: Option<Extension<Caller>>,
    Path(id): Path<String>,
    Strict(body): Strict<Release>,
) -> Result<Response, Problem> {
    let stop = StopId::parse(&id).ok_or_else(|| not_there("stop", &id))?;
    let by = caller.map_or_else(|| "api".to_owned(), |Extension(caller)| caller.id);
    Ok(Json(stops::release(&doors.shop, stop, &body.reason, &by).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogPage {
    after: Option<i64>,
    cursor: Option<i64>,
    limit: Option<i64>,
}

/// The newest first; with `after`, in the order of the chain from there.
async fn log(State(doors): State<Doors>, Query(asked): Query<LogPage>) -> Result<Response, Problem> {
    let limit = page_size(asked.limit)?;
    if asked.after.is_some() && asked.cursor.is_some() {
        return Err(misfit("after", "give either after or cursor".into()).into());
    }
    let read = doors.shop.read("owner_log.list", move |tx| {
        // The head first: what is written meanwhile may be on the page and not yet in the head, never the other way round.
        let head = flows::head(tx)?;
        let entries = match asked.after {
            Some(seq) => flows::after(tx, seq, limit)?,
            None => flows::below(tx, asked.cursor.unwrap_or(i64::MAX), limit)?,
        };
        Ok((head, entries))
    });
    let (head, entries) = read.await?;
    let full = i64::try_from(entries.len()).unwrap_or(i64::MAX) == limit;
    let next = entries.last().filter(|_| full && asked.after.is_none()).map(|entry| entry.seq).filter(|seq| *seq > 1);
    let items: Vec<Value> = entries.iter().map(shown).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next, "head": head })).into_response())
}

fn shown(entry: &Entry) -> Value {
    let mut value = json!(entry);
    value["at"] = json!(Time::from_millis(entry.at_ms).to_string());
    value
}
