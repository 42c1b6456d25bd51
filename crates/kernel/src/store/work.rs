//! One caller's closure on its way through an engine's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

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

/// Whether a caller still waits for its turn: `WAITING`, then `STARTED` or `GIVEN_UP`, once. Work whose caller was told
/// "busy" never runs, and a caller whose work runs is never told "busy".
#[derive(Default)]
pub(super) struct Turn(AtomicU8);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Turn {
    /// Begins the work, or goes on with it; false when its caller has given up.
    fn start(&self) -> bool {
        let was = self.0.compare_exchange(WAITING, STARTED, Ordering::SeqCst, Ordering::SeqCst);
        matches!(was, Ok(_) | Err(STARTED))
    }

    /// True unless the work has begun.
    fn give_up(&self) -> bool {
        self.0.compare_exchange(WAITING, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Waits for the outcome: `wait` at most for the turn, then for as long as the work takes.
    pub(super) async fn answered<T, E: From<StoreError>>(
        &self,
        mut receiver: oneshot::Receiver<Result<T, E>>,
        wait: Duration,
    ) -> Result<T, E> {
        let closed = || Err(StoreError::Closed.into());
        match tokio::time::timeout(wait, &mut receiver).await {
            Ok(answer) => answer.unwrap_or_else(|_| closed()),
            Err(_) if self.give_up() => {
                Err(StoreError::Busy { waited_ms: u64::try_from(wait.as_millis()).unwrap_or(0) }.into())
            }
            Err(_) => receiver.await.unwrap_or_else(|_| closed()),
        }
    }
}

/// A closure with its place for the outcome, its types forgotten.
pub(super) trait Work: Send {
    fn label(&self) -> &'static str;
    fn abandoned(&self) -> bool;
    /// Ends the wait for a turn, for an engine that has something to do before it can run the closure, such as connecting.
    /// False when nobody waits for the outcome any more: then the work is dropped.
    fn start(&self) -> bool;
    fn run(&mut self, tx: &mut Tx) -> Verdict;
    /// Tells the caller: its own outcome, or the engine's error.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

pub(super) struct Task<T, E, F> {
    label: &'static str,
    f: F,
    outcome: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
    turn: Arc<Turn>,
    wakes: Arc<Wakes>,
    woken: Vec<&'static str>,
}

impl<T, E, F> Task<T, E, F> {
    pub(super) fn new(
        label: &'static str,
        f: F,
        answer: oneshot::Sender<Result<T, E>>,
        turn: Arc<Turn>,
        wakes: Arc<Wakes>,
    ) -> Self {
        Self { label, f, outcome: None, answer, turn, wakes, woken: Vec::new() }
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

    fn start(&self) -> bool {
        self.turn.start() && !self.abandoned()
    }

    fn run(&mut self, tx: &mut Tx) -> Verdict {
        if !self.turn.start() {
            return Verdict::Undo; // Its caller was told that nothing was done.
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_started_or_given_up_and_never_both() {
        let (started, given_up) = (Turn::default(), Turn::default());
        assert!(started.start() && started.start(), "work may run again after a serialization failure");
        assert!(!started.give_up(), "a caller whose work runs is told that it is busy");
        assert!(given_up.give_up());
        assert!(!given_up.start(), "work runs whose caller was told that it is busy");
    }
}
