//! The few shapes of an HTTP answer.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

/// Marks an answer that must never arrive: the door closes the connection instead.
#[derive(Clone, Copy)]
pub(crate) struct CutMark;

fn answer(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn json(status: u16, value: &Value) -> Response {
    answer(status, "application/json", value.to_string())
}

pub(crate) fn json_bytes(status: u16, bytes: Bytes) -> Response {
    answer(status, "application/json", bytes)
}

pub(crate) fn text(status: u16, text: impl Into<String>) -> Response {
    answer(status, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn html(page: String) -> Response {
    answer(200, "text/html; charset=utf-8", page)
}

/// Sends a browser on after a form.
pub(crate) fn see_other(place: &str) -> Response {
    let mut response = text(303, "");
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

/// A 200 whose body is cut in the middle of a gateway's page.
pub(crate) fn garbage() -> Response {
    answer(200, "application/json", "<html><head><title>502 Bad Gatew")
}

/// The page of a gateway that got no answer from the service behind it.
pub(crate) fn page(status: u16) -> Response {
    let page = "<html><head><title>Bad Gateway</title></head><body><center><h1>Bad Gateway</h1></center></body></html>";
    answer(status, "text/html; charset=utf-8", page)
}

/// A refusal under the status of a success.
pub(crate) fn not_ok() -> Response {
    json(200, &serde_json::json!({ "ok": false, "description": "Bad Request: chat not found" }))
}

/// See [`CutMark`].
pub(crate) fn cut() -> Response {
    let mut response = text(500, "");
    response.extensions_mut().insert(CutMark);
    response
}

pub(crate) fn with_retry_after(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}
