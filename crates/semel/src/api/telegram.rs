//! Telegram's webhook: look at the secret, make durable, acknowledge. Nothing is done here.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use semel_shop::web::Problem;

use super::Doors;
use crate::app::updates;

/// Telegram repeats what is not answered, and waits longer each time.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const SECRET: &str = "x-telegram-bot-api-secret-token";

pub(super) fn routes() -> Router<Doors> {
    Router::new().route("/telegram/webhook/{path}", post(receive))
}

async fn receive(
    State(doors): State<Doors>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("there is no such address");
    let door = doors.telegram.as_ref().ok_or_else(unknown)?;
    if !is_same(path.as_bytes(), &door.path) {
        return Err(unknown());
    }
    let said = headers.get(SECRET).map(http::HeaderValue::as_bytes).unwrap_or_default();
    if !is_same(said, &door.secret) {
        doors.counters.update("refused");
        tracing::warn!("an update was refused: the secret is not ours");
        return Err(Problem::forbidden("the secret does not match"));
    }
    let Ok(update) = serde_json::from_slice::<Value>(&body) else {
        doors.counters.update("refused");
        return Err(Problem::bad_request("an update is JSON"));
    };
    let Some(id) = update.get("update_id").and_then(Value::as_i64) else {
        doors.counters.update("refused");
        return Err(Problem::bad_request("an update has an update_id"));
    };
    let one = vec![(id, update)];
    // Before anything is written: whoever is about to pay is answered also while the database is slow.
    if let Some(bot) = &doors.shop.bot {
        updates::answer_checkouts(&doors.shop, bot, &one);
    }
    if !doors.ready.is_open() {
        doors.counters.update("unavailable");
        return Err(
            Problem::unavailable(Duration::from_secs(5)).with_detail("the database is not ready; send it again")
        );
    }
    let stored = tokio::time::timeout(ANSWER_WITHIN, updates::take_in(&doors.shop, &door.bot, one));
    match stored.await {
        Ok(Ok(came)) => {
            doors.counters.update(if came.new > 0 { "accepted" } else { "repeated" });
            if let Some(bot) = &doors.shop.bot {
                updates::answer_soon(&doors.shop, bot, came.presses);
            }
            // Answer 200 only after the commit: Telegram stops repeating when we do.
            Ok((StatusCode::OK, Json(json!({ "ok": true }))).into_response())
        }
        Ok(Err(error)) => {
            doors.counters.update("unavailable");
            tracing::warn!(update.id = id, %error, "an update could not be stored");
            Err(Problem::unavailable(Duration::from_secs(5)).with_detail("the database did not take it; send it again"))
        }
        Err(_) => {
            doors.counters.update("unavailable");
            tracing::warn!(update.id = id, "an update was not stored in time");
            Err(Problem::unavailable(Duration::from_secs(5)).with_detail("the database did not answer; send it again"))
        }
    }
}

/// Whether two texts are the same, without telling by its time how much of them is.
fn is_same(said: &[u8], wanted: &str) -> bool {
    said.ct_eq(wanted.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        assert!(is_same(b"abc", "abc"));
        for other in [&b""[..], b"ab", b"abd", b"abcd"] {
            assert!(!is_same(other, "abc"));
        }
    }
}
