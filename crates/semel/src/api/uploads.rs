//! Files that come in: the few routes whose body is longer than any other's.
//!
//! Their body is read here and not at the door, so that nobody's megabytes are taken before it is known who sends them, and only
//! a few at a time: memory is bounded by these and not by the number of connections.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use semel_shop::campaigns::http::UPLOAD_BYTES;
use semel_shop::web::Problem;

use crate::server::detached;

/// The routes, as they are registered.
pub const ROUTES: &[&str] = &["/api/v1/campaigns/{id}/media"];

/// Files that are taken at the same time.
const AT_ONCE: usize = 2;
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);
/// How long a client may take to send one.
const PATIENCE: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(5);

/// Reads the whole file, then lets the work on it go on even if its client leaves. Every other request passes.
pub(super) async fn whole(request: Request, next: Next) -> Result<Response, Problem> {
    let is_upload = request.extensions().get::<MatchedPath>().is_some_and(|route| ROUTES.contains(&route.as_str()));
    if !is_upload {
        return Ok(next.run(request).await);
    }
    let Ok(place) = PLACES.try_acquire() else {
        return Err(Problem::unavailable(SOON)
            .with_detail("other files are being taken; repeat it as it is")
            .closing());
    };
    let (parts, body) = request.into_parts();
    // The announced length: refused before a byte of it is read.
    if body.size_hint().lower() > UPLOAD_BYTES as u64 {
        return Err(Problem::too_large(UPLOAD_BYTES));
    }
    let body = match timeout(PATIENCE, to_bytes(body, UPLOAD_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err(refused(&error)),
        Err(_) => return Err(Problem::too_slow(format!("the file did not arrive within {PATIENCE:?}"))),
    };
    let request = Request::from_parts(parts, Body::from(body));
    let work = detached(async move {
        let _place = place;
        next.run(request).await
    });
    work.await.map_err(Problem::internal)
}

fn refused(error: &axum::Error) -> Problem {
    match std::error::Error::source(error) {
        Some(cause) if cause.is::<LengthLimitError>() => Problem::too_large(UPLOAD_BYTES),
        _ => Problem::bad_request("the body is broken off or wrongly framed").closing(),
    }
}
