//! The HTTP contract: webhooks in, the API, health, metrics.

mod audit;
mod auth;
mod care;
mod door;
mod health;
mod idempotency;
mod leases;
mod metrics;
mod openapi;
mod safe;
mod telegram;
mod uploads;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use semel_kernel::inbox::Intake;
use semel_kernel::supervise::Supervisor;
use semel_shop::Shop;
use semel_shop::web::Problem;

pub use auth::{Caller, Scope, hash_token};
pub use health::Ready;
pub use metrics::Counters;
pub use uploads::ROUTES as UPLOADS;

use crate::app::updates::TelegramDoor;

/// What the doors share.
#[derive(Clone)]
pub struct Doors(Arc<Shared>);

/// The parts of [`Doors`].
pub struct Shared {
    /// The shop behind them.
    pub shop: Shop,
    /// Where webhooks go in.
    pub intake: Intake,
    /// Whether the database is up to date and the workers run.
    pub ready: Ready,
    /// The long-lived tasks.
    pub supervisor: Supervisor,
    /// What is counted.
    pub counters: Counters,
    /// Where Telegram posts updates, if it does.
    pub telegram: Option<TelegramDoor>,
    /// The token from the settings, hashed.
    pub first_token: Option<String>,
    /// This process, as it stands on leases and claims.
    pub owner: String,
    /// Lanes of the shop's jobs, for commands that wake them.
    pub lanes: Vec<&'static str>,
    /// Requests whose idempotency key is in hand.
    pub in_hand: idempotency::InHand,
    /// Whether a forwarding proxy is declared.
    pub proxy_declared: bool,
}

impl std::ops::Deref for Doors {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Doors {
    /// Doors of these parts.
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

/// No requests yet.
pub fn nobody() -> idempotency::InHand {
    idempotency::InHand::default()
}

/// Every route. `trusted` is for the owner's own socket and for commands inside the process: no token is asked.
pub fn routes(doors: &Doors, trusted: bool) -> Router {
    let features = Router::new()
        .merge(semel_shop::campaigns::http::routes())
        .merge(semel_shop::catalog::http::routes())
        .merge(semel_shop::customers::http::routes())
        .merge(semel_shop::messages::http::routes())
        .merge(semel_shop::notices::http::routes())
        .merge(semel_shop::orders::http::routes())
        .merge(semel_shop::subscriptions::http::routes())
        .merge(semel_shop::vpn::http::routes())
        .with_state(doors.shop.clone());
    let mut api = Router::new()
        .merge(features)
        .merge(care::routes(trusted).with_state(doors.clone()))
        .merge(safe::routes().with_state(doors.clone()))
        .merge(audit::routes().with_state(doors.clone()))
        .layer(from_fn_with_state(doors.clone(), door::watch))
        .layer(map_response(as_problem))
        .layer(from_fn_with_state(doors.clone(), idempotency::once))
        .layer(from_fn(uploads::whole));
    let mut watched = Router::new().merge(metrics::routes().with_state(doors.clone()));
    if !trusted {
        api = api.layer(from_fn_with_state(doors.clone(), auth::bearer));
        watched = watched.layer(from_fn_with_state(doors.clone(), auth::bearer));
    } else {
        api = api.layer(axum::Extension(Caller::operator()));
    }
    Router::new()
        .merge(api)
        .merge(watched)
        .merge(webhooks::routes().with_state(doors.clone()))
        .merge(telegram::routes().with_state(doors.clone()))
        .merge(health::routes().with_state(doors.clone()))
        .merge(openapi::routes())
        .merge(semel_shop::vpn::http::public().with_state(doors.shop.clone()))
}

/// The longest sentence of an extractor that is taken over.
const SENTENCE_BYTES: usize = 4096;

/// A query or a path that cannot be read is refused by an extractor, in plain text: the caller gets it as a problem, in
/// the one form that all refusals have.
async fn as_problem(answer: Response) -> Response {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if answer.status() != StatusCode::BAD_REQUEST || !kind.is_some_and(|kind| kind.starts_with("text/plain")) {
        return answer;
    }
    match to_bytes(answer.into_body(), SENTENCE_BYTES).await {
        Ok(text) => Problem::bad_request(String::from_utf8_lossy(&text)).into_response(),
        Err(_) => Problem::bad_request("the address cannot be read").into_response(),
    }
}
