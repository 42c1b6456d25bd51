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

use super::Doors;

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
    let reason = match (&database, open) {
        (Err(error), _) => Some(error.clone()),
        (_, false) => Some("the program is starting or stopping".to_owned()),
        _ => None,
    };
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "status": if good { "ready" } else { "not ready" }, "reason": reason, "tasks": tasks });
    (status, Json(body)).into_response()
}
