//! One caller's closure on its way through an engine's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::sync::Arc;

use tokio::sync::oneshot;

use super::wakes::Wakes;
use super::{StoreError, Tx};

/// What the engine shall do after the closure ran.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Commit,
    Undo,
    /// Undo and run it again.
    Again(StoreError),
    /// Undo; the connection or the batch is lost.
    Broken(StoreError),
}

/// A closure with its place for the outcome, its types forgotten.
pub(super) trait Work: Send {
    fn label(&self) -> &'static str;
    fn abandoned(&self) -> bool;
    fn run(&mut self, tx: &mut Tx) -> Verdict;
    /// Tells the caller: its own outcome, or the engine's error.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

pub(super) struct Task<T, E, F> {
    label: &'static str,
    f: F,
    outcome: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
    wakes: Arc<Wakes>,
    woken: Vec<&'static str>,
}

impl<T, E, F> Task<T, E, F> {
    pub(super) fn new(label: &'static str, f: F, answer: oneshot::Sender<Result<T, E>>, wakes: Arc<Wakes>) -> Self {
        Self { label, f, outcome: None, answer, wakes, woken: Vec::new() }
    }
}

impl<T, E, F> Work for Task<T, E, F>
where
    F: FnMut(&mut Tx) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn label(&self) -> &'static str {
        self.label
    }

    fn abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, tx: &mut Tx) -> Verdict {
        tx.failed = None;
        tx.woken.clear();
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| (self.f)(tx))) else {
            self.outcome = Some(Err(StoreError::Panicked(self.label).into()));
            return Verdict::Undo;
        };
        let verdict = match (&outcome, &tx.failed) {
            (Ok(_), None) => Verdict::Commit,
            // On PostgreSQL a failed statement has ended the transaction, so an `Ok` after one is a mistake in the closure.
            (Ok(_), Some(error)) => Verdict::Broken(error.clone()),
            (Err(_), Some(error)) if error.is_retryable() => Verdict::Again(error.clone()),
            (Err(_), Some(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Full))) => {
                Verdict::Broken(error.clone())
            }
            (Err(_), _) => Verdict::Undo,
        };
        self.outcome = Some(outcome);
        self.woken = std::mem::take(&mut tx.woken);
        verdict
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (outcome, self.outcome) {
            (Ok(()), Some(own)) => {
                if own.is_ok() {
                    self.woken.iter().for_each(|name| self.wakes.wake(name));
                }
                own
            }
            (Ok(()), None) => Err(StoreError::Closed.into()),
            (Err(error), _) => Err(error.into()),
        };
        // The caller may have gone away; what was committed stays committed.
        let _ = self.answer.send(answer);
    }
}
