//! Bounds around a request: how long its body may be, how long it may take to come, how long an answer may take.
//!
//! Nearly every route of ours takes a small body, so the whole of it is read here, once, before a handler is called. What has
//! been read completely is then worked on in a task of its own: a client that hangs up, or an answer that is late, does
//! not stop work with money half-way.

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use tokio::time::timeout;
use tracing::Instrument;

use super::accept::Slot;
use semel_kernel::failpoint::{reach, spawn};
use semel_shop::web::{Problem, current_request_id, in_request};

/// What one client may cost us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest body of a request, in bytes. Memory is bounded by about this times `connections`.
    pub body_bytes: usize,
    /// Connections at one time, together with work whose client has left. More wait in the system's queue.
    pub connections: usize,
    /// How long a client may take to send a request's head; also how long a connection may be idle.
    pub header_timeout: Duration,
    /// How long a client may take to send a whole body, and the longest pause it may make while taking an answer.
    pub body_timeout: Duration,
    /// How long a client waits for an answer before it gets a 503. The work goes on.
    pub request_timeout: Duration,
    /// Routes that read a longer body themselves, once they know whose it is, within bounds of their own.
    pub read_inside: &'static [&'static str],
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 256 * 1024,
            connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            read_inside: &[],
        }
    }
}

/// Work that ended in a panic instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the work panicked: {0}")]
pub struct Panicked(String);

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        let text = payload
            .downcast_ref::<&'static str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "no message".to_owned()))
    }
}

/// Runs `work` in a task of its own and waits for it. Dropping the returned future does not stop the work: once begun,
/// it runs to its end (or to the end of the process). It keeps the request id and the tracing span of its caller.
///
/// # Errors
/// [`Panicked`] when the work panics, or when the runtime is taken down under it.
pub async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, Panicked> {
    let work = work.in_current_span();
    let task = match current_request_id() {
        Some(id) => spawn(in_request(id, work)),
        None => spawn(work),
    };
    task.await.map_err(|error| match error.try_into_panic() {
        Ok(payload) => Panicked::from(payload),
        Err(_) => Panicked("the runtime was taken down".to_owned()),
    })
}

/// Reads the whole body within the limits, then lets the rest of the server work on the request undisturbed.
pub(super) async fn bounded(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    // The work keeps the connection's seat: else a client that asks and leaves, over and over, would pile up work
    // without bound, and a graceful stop would not know of it.
    let slot = request.extensions_mut().remove::<Slot>();
    let route = request.extensions().get::<MatchedPath>();
    if route.is_some_and(|route| limits.read_inside.contains(&route.as_str())) {
        let _slot = slot;
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = match whole(body, limits).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let request = Request::from_parts(parts, Body::from(body));
    let work = detached(async move {
        let _slot = slot;
        if reach("request.taken", "http").await {
            return late().into_response();
        }
        let answer = next.run(request).await;
        if reach("request.done", "http").await {
            return late().into_response();
        }
        answer
    });
    match timeout(limits.request_timeout, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => Problem::internal(panicked).into_response(),
        Err(_) => late().into_response(),
    }
}

/// Not a time-out of the gateway kind: payment providers resend after a 503, and the API's own keys answer a repeat.
fn late() -> Problem {
    Problem::unavailable(Duration::from_secs(5))
        .with_detail("the answer takes longer than usual; the work goes on, and a repeat with the same key finds it")
        .closing()
}

async fn whole(body: Body, limits: Limits) -> Result<Bytes, Problem> {
    // The announced length, from Content-Length: refused before a byte of it is read.
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return Err(Problem::too_large(limits.body_bytes));
    }
    match timeout(limits.body_timeout, gather(body, limits.body_bytes)).await {
        Ok(gathered) => gathered,
        Err(_) => Err(Problem::too_slow(format!("the body did not arrive within {:?}", limits.body_timeout))),
    }
}

/// Copies the frames together: kept as they come, a body of one-byte chunks would hold many times its length in memory.
async fn gather(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body is broken off or wrongly framed").closing())?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit - whole.len() {
            return Err(Problem::too_large(limit));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
