//! Refusals as RFC 9457 problem details: one form for every error that leaves the server.
//!
//! `type` is `/problems/<slug>`: a program branches on it, a person reads `detail`. The id of the request stands in
//! each problem, so that a complaint leads to its log line.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use super::current_request_id;

/// A refusal, ready to be answered.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// What kind of problem this is, for programs. Public: never renamed.
    pub type_slug: &'static str,
    /// The kind in a few words; the same for every problem of a kind.
    pub title: &'static str,
    /// What was wrong this time and what to do about it. Goes to the caller: no secrets, nothing from inside.
    pub detail: String,
    /// Further members, such as the path of a refused value. They cannot replace the standard ones.
    pub extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of a kind that has no name of its own here.
    pub fn new(status: StatusCode, type_slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, type_slug, title, detail: detail.into(), extra: Map::new(), headers: Vec::new() }
    }

    /// 400: the request cannot be read at all.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read", detail)
    }

    /// 401: no token, or none that we know. Says that a bearer token is wanted.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed", detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: we know who asks, and it may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not allowed", detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 408: the client did not send its body in time. Ends the connection, because the rest of the body may still come.
    pub fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The request took too long to arrive", detail).closing()
    }

    /// 409: the thing is in a state in which this cannot be done.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "This conflicts with the present state", detail)
    }

    /// 413: the body is longer than `limit` bytes. Ends the connection instead of reading the rest.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body is longer than {limit} bytes");
        let mut problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too long", detail);
        problem.extra.insert("limit_bytes".to_owned(), limit.into());
        problem.closing()
    }

    /// 415: the body is of a kind that we do not read here.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is of another type", detail)
    }

    /// 422: readable, but it does not say what is needed.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "The request does not make sense", detail)
    }

    /// 429: slower, please.
    pub fn too_many(retry_after: Duration) -> Self {
        let detail = "too many requests; wait as long as the Retry-After header says";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
            .with_retry_after(retry_after)
    }

    /// 503: not now; the same request may succeed later. The only way in which we shed load.
    pub fn unavailable(retry_after: Duration) -> Self {
        let detail = "the server cannot do this at the moment; try again after the time in the Retry-After header";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available at the moment", detail)
            .with_retry_after(retry_after)
    }

    /// 500: our own fault. Logs `error` with all its causes and tells the caller only the request id.
    pub fn internal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        let id = current_request_id();
        tracing::error!(request.id = id.as_deref(), error.chain = %chain(&*error), "a request failed inside");
        let detail = match id {
            Some(id) => format!("the server failed; the log has the reason under request {id}"),
            None => "the server failed; the log has the reason".to_owned(),
        };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed", detail)
    }

    /// The same problem, explained in other words.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds a member to the document. The names of the standard members are taken.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to come back: whole seconds, rounded up, at least one.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Ends the connection after this answer: what follows on it cannot be trusted to be a request.
    #[must_use]
    pub fn closing(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut members = self.extra;
        members.insert("type".to_owned(), format!("/problems/{}", self.type_slug).into());
        members.insert("title".to_owned(), self.title.into());
        members.insert("status".to_owned(), self.status.as_u16().into());
        members.insert("detail".to_owned(), self.detail.into());
        if let Some(id) = current_request_id() {
            members.insert("request_id".to_owned(), Value::from(&*id));
        }
        let mut answer = (self.status, Value::Object(members).to_string()).into_response();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// An error with all its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_time_is_rounded_up_to_whole_seconds() {
        let header = |wait| Problem::too_many(wait).into_response().headers()[RETRY_AFTER].clone();
        assert_eq!(header(Duration::ZERO), "1");
        assert_eq!(header(Duration::from_millis(1)), "1");
        assert_eq!(header(Duration::from_millis(2001)), "3");
        assert_eq!(header(Duration::from_secs(60)), "60");
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        let cause = std::io::Error::other("disk full");
        let error = std::io::Error::other(cause);
        assert!(chain(&error).contains("disk full"));
        assert_eq!(Problem::internal(error).status, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_missing_token_is_told_how_to_come() {
        let answer = Problem::unauthorized("no token").into_response();
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
