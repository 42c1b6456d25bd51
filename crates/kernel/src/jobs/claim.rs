//! Claims: the right to run one job for a while.

use super::worker::short;
use super::{JobId, Outcome, sql};
use crate::args;
use crate::clock::{Stopwatch, Time};
use crate::history::{self, Entry};
use crate::store::{Expect, StoreError, Tx};

/// The right to run one job. Whoever holds the latest fence may end it; nobody else can.
#[must_use]
#[derive(Clone, Debug)]
pub struct Claim {
    pub(super) job: JobId,
    pub(super) kind: String,
    pub(super) fence: i64,
    pub(super) attempts: i64,
    pub(super) max_attempts: i64,
    pub(super) owner: String,
    pub(super) thread: Option<String>,
    pub(super) started: Stopwatch,
}

/// The proof that a run has written its end into a transaction.
#[must_use]
#[derive(Debug)]
pub struct Ended {
    /// Whether the job lives on and may be due again soon.
    pub(super) lives: bool,
}

impl Claim {
    /// The job's id.
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The fence of this claim; every write made under it may carry it.
    pub fn fence(&self) -> i64 {
        self.fence
    }

    /// Attempts so far, this one included.
    pub fn attempts(&self) -> i64 {
        self.attempts
    }

    /// Whether a failure now would be the last.
    pub fn is_last(&self) -> bool {
        self.attempts >= self.max_attempts
    }

    /// Ends the job. Call it in the transaction that holds what the job achieved. A job that was pulled during its run is
    /// due once more instead.
    pub fn finish(&self, tx: &mut Tx) -> Result<Ended, StoreError> {
        self.finish_as(tx, Outcome::Confirmed)
    }

    /// Ends the job and keeps what became of its call to the outside.
    pub fn finish_as(&self, tx: &mut Tx, outcome: Outcome) -> Result<Ended, StoreError> {
        tx.later(sql::FINISH, args![&self.job, self.fence, outcome.as_str()], Expect::Rows(1))?;
        let now = tx.now();
        // The row is there: `FINISH` has just touched it, or the transaction ends.
        tx.later(sql::FINISHED, args![&self.job, now, &self.owner, self.started.millis()], Expect::Any)?;
        Ok(Ended { lives: false })
    }

    /// Keeps the job alive until `at`, or runs it at once when it was pulled meanwhile. Costs no attempt.
    pub fn again(&self, tx: &mut Tx, at: Time) -> Result<Ended, StoreError> {
        tx.later(sql::AGAIN, args![&self.job, self.fence, at], Expect::Rows(1))?;
        self.tell(tx, "retry", None)?;
        Ok(Ended { lives: true })
    }

    /// The same as [`Claim::again`] without a row of history, for a look that comes again for ever and mostly finds nothing.
    pub fn again_quietly(&self, tx: &mut Tx, at: Time) -> Result<Ended, StoreError> {
        tx.later(sql::AGAIN, args![&self.job, self.fence, at], Expect::Rows(1))?;
        Ok(Ended { lives: true })
    }

    /// Puts the job off until `at`, or to now when it was pulled meanwhile: nothing was done, and it costs no attempt. Like
    /// [`JobError::Later`](super::JobError::Later), but in a transaction of the job's own, so that it commits together with
    /// what put the job off, or with a look that says so.
    pub fn put_off(&self, tx: &mut Tx, at: Time, why: &str) -> Result<Ended, StoreError> {
        let why = short(why);
        tx.later(sql::FAIL, args![&self.job, self.fence, at, &why, 1_i64], Expect::Rows(1))?;
        self.tell(tx, "retry", Some(&why))?;
        Ok(Ended { lives: true })
    }

    /// The same as [`Claim::again`] for a call that the other side took, and whose end it will tell later.
    pub fn again_as(&self, tx: &mut Tx, at: Time, outcome: Outcome) -> Result<Ended, StoreError> {
        tx.later(sql::SET_OUTCOME, args![&self.job, self.fence, outcome.as_str()], Expect::Rows(1))?;
        self.again(tx, at)
    }

    pub(super) fn tell(&self, tx: &mut Tx, outcome: &str, detail: Option<&str>) -> Result<(), StoreError> {
        history::append(
            tx,
            &Entry {
                entity: "job",
                entity_id: self.job.as_str(),
                event: &self.kind,
                actor: Some(&self.owner),
                to: Some(outcome),
                fence: Some(self.fence),
                took_ms: Some(self.started.millis()),
                thread: self.thread.as_deref(),
                detail,
                ..Entry::default()
            },
        )
    }
}
