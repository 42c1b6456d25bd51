//! The HTTP server: sockets, limits, refusals. It knows nothing of the shop.
//!
//! A request passes these rooms in order: `accept` gives it a connection and a seat, [`base`] an id, its client's
//! address and a log line, `limits` its whole body and a task of its own, and only then a handler sees it. Every
//! refusal on the way is a [`Problem`]. A client that is slow, greedy or gone costs one seat for a bounded time and
//! never cancels work that has begun.

mod accept;
mod client_ip;
mod limits;
#[cfg(test)]
mod tests;

use semel_shop::web::{Problem, in_request};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;

pub use accept::{Peer, serve};
pub use client_ip::{ClientIp, TrustedProxies};
pub use limits::{Limits, Panicked, detached};

/// What every request is measured with.
pub struct Base {
    /// The bounds of a body and of an answer.
    pub limits: Limits,
    /// Who may say in `X-Forwarded-For` where a request came from.
    pub proxies: TrustedProxies,
    /// Makes the id of a request that brings none. Visible ASCII, unique for as long as logs are kept.
    pub fresh_id: Arc<dyn Fn() -> String + Send + Sync>,
    /// Time since some fixed moment, never going back; only differences are used.
    pub uptime: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// Puts the common rooms around `app`: problems for unknown routes and methods, body limits and time-outs, a request
/// id, the client's address ([`ClientIp`] as an extension), one log line, and a net for panics. Call it last, with
/// every route in place; `app` must have no fallback that it wants to keep.
pub fn base(app: Router, base: Base) -> Router {
    let limits = base.limits;
    app.fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        // Our own limit comes first and is the only one; axum's 2 MB would contradict a larger setting.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(limits, limits::bounded))
        .layer(from_fn_with_state(Arc::new(base), observe))
        .layer(CatchPanicLayer::custom(panic_answer))
}

async fn no_such_route() -> Problem {
    Problem::not_found("there is nothing at this address")
}

async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
        "this address does not answer that method; the Allow header names those it does",
    )
}

/// The last net, for a panic in the layers themselves; a handler's panic is caught by its own task.
fn panic_answer(payload: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal(Panicked::from(payload)).into_response()
}

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_MAX: usize = 64;

/// Names the request, finds its client, and writes one line about its end.
async fn observe(State(base): State<Arc<Base>>, mut request: Request, next: Next) -> Response {
    let id: Arc<str> = asked_id(&request).unwrap_or_else(|| (base.fresh_id)()).into();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let client = peer.and_then(|peer| base.proxies.client(peer, request.headers()));
    request.extensions_mut().insert(ClientIp(client));
    let begun = (base.uptime)();
    let mut line = AccessLine {
        id: Arc::clone(&id),
        method: request.method().clone(),
        route: request.extensions().get::<MatchedPath>().cloned(),
        client,
        begun,
        status: None,
        base,
    };

    let mut answer = in_request(Arc::clone(&id), next.run(request)).await;

    line.status = Some(answer.status());
    if let Ok(value) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert(REQUEST_ID, value);
    }
    answer
}

/// The caller's own request id, if it can stand in a log line: short, and nothing but letters, digits, `.`, `_`, `-`.
fn asked_id(request: &Request) -> Option<String> {
    let asked = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let sane = (1..=REQUEST_ID_MAX).contains(&asked.len()) && asked.bytes().all(plain);
    sane.then(|| asked.to_owned())
}

/// The log line of one request, written when it is dropped: so a client that leaves early has a line, too. It names the
/// route rather than the path: paths and queries hold ids of people and secrets of webhooks.
struct AccessLine {
    base: Arc<Base>,
    id: Arc<str>,
    method: Method,
    route: Option<MatchedPath>,
    client: Option<IpAddr>,
    begun: Duration,
    status: Option<StatusCode>,
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let took = (self.base.uptime)().saturating_sub(self.begun);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let route = self.route.as_ref().map_or("(no route)", MatchedPath::as_str);
        let client = self.client.map(tracing::field::display);
        match self.status {
            Some(status) => tracing::info!(
                request.id = %self.id,
                http.method = %self.method,
                http.route = route,
                http.status = status.as_u16(),
                client.ip = client,
                took_ms,
                "answered {} {route} with {}",
                self.method,
                status.as_u16()
            ),
            None => tracing::info!(
                request.id = %self.id,
                http.method = %self.method,
                http.route = route,
                client.ip = client,
                took_ms,
                "the client of {} {route} left before the answer",
                self.method
            ),
        }
    }
}
