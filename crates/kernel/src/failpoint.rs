//! Named places where a test may break the program: around every commit, every outside call, every lease, every file step
//! and every handing-over between tasks.
//!
//! Without the build feature `failpoints` all of this is nothing. With it, `SEMEL_FAILPOINT` says what happens where:
//!
//! ```text
//! commit.before:payment.confirm                the process dies (signal 9) when it comes there
//! commit.before:payment.confirm#3=error        the third time, that step fails
//! call.after:*#7=kill;job.claimed:*#2=panic    two rules; any label, hits of all labels counted together
//! *#120                                        the 120th place of all, whichever it is
//! webhook.verified:yookassa#*=delay(50)        every time, 50 ms
//! ```
//!
//! A name is `place:label`. What a place does for each action:
//!
//! | Action | What happens |
//! |---|---|
//! | `kill` | signal 9 to the process itself, no clean-up; also what a rule without `=` means |
//! | `delay(MS)` | so many milliseconds pass; tasks wait, threads of the store sleep |
//! | `panic` | a panic in whoever is there; a job's run, a request and a supervised task are caught, a store's thread is not |
//! | `error` | the step fails as it would fail by itself; where it cannot ([`hit`]), nothing happens |
//! | `cancel` | the future of the job's run or of the request is dropped there; elsewhere nothing happens |
//!
//! What `error` means: nothing was committed (`commit.before`, lease changes); committed, and the answer was lost
//! (`commit.after`, PostgreSQL only: an embedded database has nobody who could lose it but the process itself); certainly not sent
//! (`call.before`); sent, and the outcome is not known (`call.after`); the run failed (`job.claimed`, `job.ended`); 503
//! (`webhook.*`, `request.*`).
//!
//! `SEMEL_FAILPOINT_TRACE=<file>` appends the name of each place as it is reached, so that a test can find all of them.
//! Every name stands in `crates/semel/failpoints.txt`, which `semel failpoints` prints and a test compares with the sources.

#[cfg(not(feature = "failpoints"))]
mod off;
#[cfg(feature = "failpoints")]
mod on;
#[cfg(any(test, feature = "failpoints"))]
mod plan;

#[cfg(not(feature = "failpoints"))]
pub use off::{fail, hit, reach, spawn};
#[cfg(feature = "failpoints")]
pub use on::{fail, hit, reach, spawn};

use crate::store::StoreError;

/// Whether this build reacts to `SEMEL_FAILPOINT`.
pub const BUILT_IN: bool = cfg!(feature = "failpoints");

/// Like [`fail`], as the store says it: nothing was done.
///
/// # Errors
/// [`StoreError::Unavailable`] when the place shall fail.
pub fn check(place: &str, label: &str) -> Result<(), StoreError> {
    if fail(place, label) { Err(StoreError::Unavailable(told(place, label))) } else { Ok(()) }
}

/// The words of an error that a place made.
pub fn told(place: &str, label: &str) -> String {
    format!("the failpoint {place}:{label} says so")
}
