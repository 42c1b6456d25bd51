//! A build without failpoints: every place is nothing.

use std::future::{Future, Ready, ready};

use tokio::task::JoinHandle;

/// Reaches a place that cannot fail by itself: it may kill, delay or panic.
#[inline(always)]
pub fn hit(_place: &str, _label: &str) {}

/// Reaches a place; true when its step shall fail.
#[must_use]
#[inline(always)]
pub fn fail(_place: &str, _label: &str) -> bool {
    false
}

/// Reaches a place of a task; true when its step shall fail. Here alone a run can be cancelled.
#[inline(always)]
pub fn reach(_place: &str, _label: &str) -> Ready<bool> {
    ready(false)
}

/// Runs `work` in a task of its own, which a place inside may cancel.
#[inline(always)]
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(work)
}
