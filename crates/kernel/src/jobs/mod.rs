//! Durable jobs in the same database: a call to the outside is written in the transaction of its cause.
//!
//! A claimed row is the written intent. A worker that dies stops renewing, its claim runs out, and the job is due
//! again under a higher fence; finishing names the fence, so a worker that was merely slow changes nothing. Finishing
//! happens inside the transaction of what the job achieved. After the last attempt a job is a dead letter: kept,
//! shown, replayable.

mod admin;
mod claim;
mod sql;
mod worker;

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use admin::{JobView, list, retry, why};
pub use claim::{Claim, Ended};
pub use sql::STATEMENTS;
pub use worker::{Dead, Workers, WorkersOptions};

use crate::args;
use crate::clock::{Chance, Time};
use crate::store::{Expect, StoreError, Tx};

crate::id!(JobId, "job", "A job.");

/// What a call to the outside offers when its outcome is unclear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The other side honours a key: repeat the same bytes freely.
    Keyed,
    /// A wanted state is declared and reconciled: repeat freely.
    Convergent,
    /// Ask whether it happened, then repeat the same bytes.
    Asked,
    /// The other side offers nothing.
    Blind,
}

impl Manner {
    /// The word in rows and views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keyed => "keyed",
            Self::Convergent => "convergent",
            Self::Asked => "asked",
            Self::Blind => "blind",
        }
    }
}

/// What became of a call to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side said yes.
    Confirmed,
    /// The other side said no, for good.
    Failed,
    /// Nobody told us.
    Unknown,
}

impl Outcome {
    /// The word in rows and views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// How often and how soon a failed job runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The wait after the first failure; it doubles.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// After so many attempts the job is a dead letter.
    pub attempts: u32,
}

impl Retry {
    /// Doubling waits from `first` to `longest`, `attempts` runs in all.
    pub const fn backoff(first: Duration, longest: Duration, attempts: u32) -> Self {
        Self { first, longest, attempts }
    }

    /// The wait after `failures` failed attempts, with jitter.
    pub fn wait(&self, failures: i64, chance: &Chance) -> Duration {
        let doublings = u32::try_from(failures.clamp(1, 20) - 1).unwrap_or(0);
        chance.jitter(self.first.saturating_mul(1 << doublings).min(self.longest))
    }
}

/// A kind of job. Its fields are its payload, stored as JSON.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// What the job runs with.
    type Context: Clone + Send + Sync + 'static;

    /// The stored name: never renamed, never reused.
    const KIND: &'static str;
    /// Jobs of one lane share its workers; a slow lane delays no other.
    const LANE: &'static str;
    /// How a failure is tried again.
    const RETRY: Retry;
    /// Set for a job whose purpose is a call that changes something outside.
    const MANNER: Option<Manner> = None;

    /// Two jobs of one kind with one slot are one job, for ever.
    fn slot(&self) -> Option<String>;

    /// The story that the job belongs to.
    fn thread(&self) -> Option<String> {
        None
    }

    /// Does it. The end of the job commits together with what it achieved: [`Claim::finish`] or [`Claim::again`].
    fn run(self, cx: &Self::Context, claim: Claim) -> impl Future<Output = Result<Ended, JobError>> + Send;
}

/// Why a run did not end its job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Try again; counts as an attempt.
    #[error("{0}")]
    Retry(String),
    /// Try again at the moment that the other side asked for; costs no attempt.
    #[error("{text} (again at {at})")]
    Later {
        /// When.
        at: Time,
        /// Why.
        text: String,
    },
    /// The same where nothing is wrong: by our own rule others go first. No warning, since a busy hour is full of these.
    #[error("{text} (again at {at})")]
    NotItsTurn {
        /// When.
        at: Time,
        /// Whom it waits for.
        text: String,
    },
    /// No repeat can help: a person decides.
    #[error("{text}")]
    DeadLetter {
        /// Why.
        text: String,
        /// What became of the outside call.
        outcome: Outcome,
    },
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Retry(error.to_string())
    }
}

/// Writes `job` to run at `at`, unless one of its kind and slot is there. Its effect takes place after the commit.
pub fn enqueue<J: Job>(tx: &mut Tx, job: &J, at: Time, chance: &Chance) -> Result<JobId, StoreError> {
    let id = JobId::new(tx.now(), chance);
    let payload = serde_json::to_string(job).map_err(|error| StoreError::Statement(error.to_string()))?;
    let manner = J::MANNER.map(Manner::as_str);
    let hash = J::MANNER.map(|_| hash_of(&payload));
    let now = tx.now();
    tx.gather(
        sql::INSERT,
        args![&id, J::KIND, job.slot(), J::LANE, payload, manner, hash, J::RETRY.attempts, at, job.thread(), now],
    )?;
    tx.wake(J::LANE);
    Ok(id)
}

/// Brings the live job of this kind and slot forward to now. False when there is none: it ended or never was.
pub fn pull(tx: &mut Tx, kind: &str, lane: &'static str, slot: &str) -> Result<bool, StoreError> {
    let touched = tx.execute(sql::PULL, args![kind, slot])?;
    tx.wake(lane);
    Ok(touched > 0)
}

/// The same where nobody waits to hear whether there was one.
pub fn pull_later(tx: &mut Tx, kind: &str, lane: &'static str, slot: &str) -> Result<(), StoreError> {
    tx.later(sql::PULL, args![kind, slot], Expect::Any)?;
    tx.wake(lane);
    Ok(())
}

/// Takes a job that has not run out of the queue. False when it ended already or is running now.
pub fn cancel(tx: &mut Tx, kind: &str, slot: &str) -> Result<bool, StoreError> {
    let now = tx.now();
    Ok(tx.execute(sql::CANCEL, args![kind, slot, now])? > 0)
}

pub(crate) fn hash_of(text: &str) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(text))
}
