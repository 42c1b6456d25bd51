//! `/healthz`: the process lives. `/readyz`: it can acknowledge money now, and if not, why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::json;

use semel_shop::safety;

use super::{Doors, leases};

/// Whether the schema is up to date and work may begin.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Opens the doors.
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Closes them: the program is stopping.
    pub fn close(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// Whether they are open.
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

pub(super) fn routes() -> Router<Doors> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

async fn alive() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

async fn ready(State(doors): State<Doors>) -> Response {
    let database = match doors.shop.store.ping(Duration::from_secs(1)).await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let open = doors.ready.is_open();
    let tasks: Vec<_> = doors
        .supervisor
        .view()
        .into_iter()
        .map(|task| json!({ "name": task.name, "state": task.state.as_str(), "restarts": task.restarts, "last_error": task.last_error }))
        .collect();
    let good = open && database.is_ok();
    let leases = if good { leases::standing(&doors).await } else { Vec::new() };
    // Money is acknowledged in safe mode as always, so the program is ready; what it does not do stands beside.
    let safe_mode = if good { safety::flows::mode(&doors.shop).await.ok().flatten() } else { None };
    let reason = match (&database, open, &safe_mode) {
        (Err(error), _, _) => Some(error.clone()),
        (_, false, _) => Some("the program is starting or stopping".to_owned()),
        (_, _, Some(mode)) => Some(format!(
            "restored from a backup of {}: nothing is sold, handed over or paid out; see `semel safe status`",
            mode.backup_at
        )),
        _ => None,
    };
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = match (good, &safe_mode) {
        (true, Some(_)) => "safe mode",
        (true, None) => "ready",
        (false, _) => "not ready",
    };
    let body = json!({ "status": word, "reason": reason, "tasks": tasks, "leases": leases });
    (status, Json(body)).into_response()
}
