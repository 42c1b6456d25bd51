//! The owner's hand after a restore: what safe mode waits for, reconciling, releasing, ending it; and the copy that a backup
//! is made of.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use semel_kernel::failpoint::check;
use semel_kernel::store::Engine;
use semel_payments::Provider;
use semel_shop::Error;
use semel_shop::catalog::ProductId;
use semel_shop::safety;
use semel_shop::web::{Problem, Strict};

use super::Doors;
use super::auth::Caller;

pub(super) fn routes() -> Router<Doors> {
    Router::new()
        .route("/api/v1/safe", get(status))
        .route("/api/v1/safe/reconcile", post(reconcile))
        .route("/api/v1/safe/leave", post(leave))
        .route("/api/v1/stock/release", post(release))
}

const REASON_CHARS: usize = 500;

async fn status(State(doors): State<Doors>) -> Result<Response, Problem> {
    Ok(Json(safety::flows::view(&doors.shop).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rail {
    provider: Provider,
    /// Why the rail counts as reconciled although no list was read.
    by_hand: Option<String>,
}

async fn reconcile(
    State(doors): State<Doors>,
    caller: Option<Extension<Caller>>,
    Strict(rail): Strict<Rail>,
) -> Result<Response, Problem> {
    match rail.by_hand {
        None => safety::flows::reconcile(&doors.shop, rail.provider).await?,
        Some(reason) => {
            let reason = sentence("by_hand", &reason)?;
            safety::flows::reconcile_by_hand(&doors.shop, rail.provider, reason, actor(caller)).await?;
        }
    }
    Ok((StatusCode::ACCEPTED, Json(safety::flows::view(&doors.shop).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leave {
    reason: String,
    #[serde(default)]
    force: bool,
}

async fn leave(
    State(doors): State<Doors>,
    caller: Option<Extension<Caller>>,
    Strict(wanted): Strict<Leave>,
) -> Result<Response, Problem> {
    let reason = sentence("reason", &wanted.reason)?;
    safety::flows::leave(&doors.shop, reason, wanted.force, actor(caller)).await?;
    Ok(Json(safety::flows::view(&doors.shop).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    /// The product; all when left out.
    product: Option<String>,
    reason: String,
}

async fn release(
    State(doors): State<Doors>,
    caller: Option<Extension<Caller>>,
    Strict(wanted): Strict<Release>,
) -> Result<Response, Problem> {
    let reason = sentence("reason", &wanted.reason)?;
    let product = match wanted.product {
        None => None,
        Some(id) => {
            let missing = || Error::NotFound { what: "product", id: format!("{id:.80}") };
            Some(ProductId::parse(&id).ok_or_else(missing)?)
        }
    };
    let units = safety::flows::release(&doors.shop, product, reason, actor(caller)).await?;
    Ok(Json(json!({ "released": units })).into_response())
}

fn actor(caller: Option<Extension<Caller>>) -> String {
    caller.map_or_else(|| "api".to_owned(), |Extension(caller)| caller.id)
}

/// A reason as it stands in the history: there, short, and in one line.
fn sentence(field: &str, text: &str) -> Result<String, Error> {
    let text = text.trim();
    let sound = (1..=REASON_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if sound {
        return Ok(text.to_owned());
    }
    let reason = format!("say why in one line of at most {REASON_CHARS} characters");
    Err(Error::Invalid { field: field.to_owned(), reason })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCopy {
    /// Where to; there must be nothing yet.
    path: PathBuf,
}

/// Copies the embedded database, as it is at one moment, into a file that only its owner reads. The program goes on meanwhile.
pub(super) async fn take_copy(State(doors): State<Doors>, Strict(copy): Strict<NewCopy>) -> Result<Response, Problem> {
    let store = &doors.shop.store;
    if store.engine() != Engine::Sqlite {
        return Err(Problem::conflict("PostgreSQL is backed up by pg_dump"));
    }
    let taken_at = store.now();
    check("backup.copy", "database").map_err(Error::from)?;
    let made = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&copy.path);
    if let Err(error) = made {
        return Err(Problem::conflict(format!("cannot make {}: {error}", copy.path.display())));
    }
    let copied = store.backup_to(copy.path.clone()).await;
    if let Err(error) = copied.and_then(|()| check("backup.copied", "database")) {
        let _ = std::fs::remove_file(&copy.path);
        return Err(Error::from(error).into());
    }
    let schema = crate::backup::schema_of(store).await.map_err(Error::from)?;
    Ok(Json(json!({ "path": copy.path, "taken_at": taken_at, "schema": schema })).into_response())
}
