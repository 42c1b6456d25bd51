//! The log of the owner's actions: one row for each, in the transaction of the action, each row chained to the one before.
//!
//! Who acts is known at the door ([`acting`]); the row is written where the action is committed (`Shop::write`), so an
//! action without its row and a row without its action are both impossible, and nobody has to remember the log. The first
//! transaction that an action commits carries its row; an action that commits nothing leaves none.
//!
//! A row's hash covers the row and the hash before it ([`Entry::linked`]). Who can write to the database can forge a whole
//! new chain, so `semel audit verify` prints the head: written down elsewhere, it is the anchor that a forged chain misses.

pub mod flows;
mod model;
mod sql;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use model::{Broken, Chain, Entry, GENESIS, Head};
pub use sql::STATEMENTS;

tokio::task_local! {
    static ACT: Arc<Act>;
}

/// An action of the owner on its way.
#[derive(Debug)]
pub struct Act {
    actor: String,
    action: &'static str,
    subject: Mutex<String>,
    detail: String,
    written: AtomicBool,
}

impl Act {
    /// `actor` (a token's id, or `operator`) does `action` to `subject`. `detail` is for the reader: never secrets, never
    /// goods.
    pub fn new(actor: &str, action: &'static str, subject: &str, detail: &str) -> Arc<Self> {
        Arc::new(Self {
            actor: model::clean(actor, model::ACTOR_CHARS),
            action,
            subject: Mutex::new(model::clean(subject, model::SUBJECT_CHARS)),
            detail: model::clean(detail, model::DETAIL_CHARS),
            written: AtomicBool::new(false),
        })
    }

    fn subject(&self) -> String {
        self.subject.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The transaction with its row is committed: what the action does further is the same action.
    pub(crate) fn done(&self) {
        self.written.store(true, Ordering::SeqCst);
    }
}

/// Runs `work` as an action of the owner.
pub async fn acting<T>(act: Arc<Act>, work: impl Future<Output = T>) -> T {
    ACT.scope(act, work).await
}

/// Names what the action in hand is about, where the door could not know: the id of what it is about to make.
pub fn about(subject: &str) {
    let _ = ACT.try_with(|act| {
        let subject = model::clean(subject, model::SUBJECT_CHARS);
        *act.subject.lock().unwrap_or_else(PoisonError::into_inner) = subject;
    });
}

/// The action that this task works for, if its row is not written yet.
pub(crate) fn current() -> Option<Arc<Act>> {
    ACT.try_with(Arc::clone).ok().filter(|act| !act.written.load(Ordering::SeqCst))
}
