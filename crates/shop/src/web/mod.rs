//! What all features say over HTTP in one way: strict JSON in, RFC 9457 problems out, pages of lists, and the id of the request.

pub mod json;
mod objects;
mod page;
mod problem;

use std::future::Future;
use std::sync::Arc;

pub use json::Strict;
pub use page::{cursor, filter, page, page_size};
pub use problem::Problem;

tokio::task_local! {
    static CURRENT_REQUEST: Arc<str>;
}

/// The id of the request that this task works for; none outside of a request.
pub fn current_request_id() -> Option<Arc<str>> {
    CURRENT_REQUEST.try_with(Arc::clone).ok()
}

/// Runs `work` as part of the request `id`.
pub async fn in_request<T>(id: Arc<str>, work: impl Future<Output = T>) -> T {
    CURRENT_REQUEST.scope(id, work).await
}

impl From<crate::Error> for Problem {
    fn from(error: crate::Error) -> Self {
        use http::StatusCode;
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match &error {
            crate::Error::Store(inner) if inner.is_passing() => {
                Problem::unavailable(std::time::Duration::from_secs(2)).with_detail(inner.to_string())
            }
            crate::Error::Store(_) => Problem::internal(error),
            crate::Error::ProviderAway { .. } => {
                Problem::new(status, error.code(), "The provider does not answer", error.to_string())
                    .with_retry_after(std::time::Duration::from_secs(5))
            }
            crate::Error::SafeMode => Problem::new(status, error.code(), "Safe mode is on", error.to_string())
                .with_retry_after(std::time::Duration::from_secs(300)),
            crate::Error::ProviderRefused { .. } => {
                Problem::new(status, error.code(), "The provider refused", error.to_string())
            }
            crate::Error::NotFound { .. } => Problem::new(status, error.code(), "Not found", error.to_string()),
            crate::Error::Invalid { .. } => {
                Problem::new(status, error.code(), "The request does not fit", error.to_string())
            }
            _ => Problem::new(status, error.code(), "Not possible now", error.to_string()),
        }
    }
}

/// The idempotency key of the request in hand, for a handler that begins something which a repeat shall resume.
#[derive(Clone, Debug)]
pub struct KeyInHand {
    /// The key, claimed.
    pub key: semel_kernel::keys::Key,
    /// What a request that died had begun under it.
    pub resume: Option<String>,
}

/// The key in hand, apart: what to bind, and what to resume.
pub fn in_hand(key: Option<axum::Extension<KeyInHand>>) -> (Option<semel_kernel::keys::Key>, Option<String>) {
    key.map(|axum::Extension(hand)| (Some(hand.key), hand.resume)).unwrap_or_default()
}
