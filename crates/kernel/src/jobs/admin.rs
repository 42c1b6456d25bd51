//! Looking at the queue, and helping it by hand.

use super::{JobId, sql};
use crate::args;
use crate::clock::Time;
use crate::history::{self, Entry};
use crate::store::{Row, StoreError, Tx};

/// A job as people see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// Its stored kind.
    pub kind: String,
    /// What makes it the only one of its kind.
    pub slot: Option<String>,
    /// `ready`, `running`, `done`, `dead`, `cancelled` or `parked`.
    pub state: String,
    /// Claims so far.
    pub attempts: i64,
    /// Claims before it is a dead letter.
    pub max_attempts: i64,
    /// When it is due, RFC 3339.
    pub run_at: String,
    /// Who runs it.
    pub owner: Option<String>,
    /// The latest fence.
    pub fence: i64,
    /// When the claim runs out, RFC 3339.
    pub lease_until: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
    /// The story it belongs to.
    pub thread: Option<String>,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// What became of its call to the outside.
    pub outcome: Option<String>,
    #[serde(skip)]
    due: Time,
}

/// Above every id: those are hexadecimal.
const ABOVE_ALL: &str = "job_z";

fn view(row: &Row) -> Result<JobView, StoreError> {
    let time = |index| Ok::<_, StoreError>(row.get::<Option<Time>>(index)?.map(|at| at.to_string()));
    let due: Time = row.get(6)?;
    Ok(JobView {
        id: row.get(0)?,
        kind: row.get(1)?,
        slot: row.get(2)?,
        state: row.get(3)?,
        attempts: row.get(4)?,
        max_attempts: row.get(5)?,
        run_at: due.to_string(),
        owner: row.get(7)?,
        fence: row.get(8)?,
        lease_until: time(9)?,
        error: row.get(10)?,
        thread: row.get(11)?,
        created_at: row.get::<Time>(12)?.to_string(),
        ended_at: time(13)?,
        outcome: row.get(14)?,
        due,
    })
}

/// Jobs, the newest first: those in `state` if given, below the id `before` if given.
pub fn list(tx: &mut Tx, state: Option<&str>, before: Option<&str>, limit: i64) -> Result<Vec<JobView>, StoreError> {
    let below = before.unwrap_or(ABOVE_ALL);
    let rows = match state {
        None => tx.rows(sql::LIST, args![below, limit])?,
        Some("done") => tx.rows(sql::LIST_DONE, args![below, limit])?,
        Some("dead") => tx.rows(sql::LIST_DEAD, args![below, limit])?,
        Some("ready") => tx.rows(sql::LIST_READY, args![below, limit])?,
        Some("running") => tx.rows(sql::LIST_RUNNING, args![below, limit])?,
        Some(aside) => tx.rows(sql::LIST_ASIDE, args![below, limit, aside])?,
    };
    rows.iter().map(view).collect()
}

/// Which rule holds a job back, in a sentence; `None` when there is no such job.
pub fn why(tx: &mut Tx, id: &JobId) -> Result<Option<(JobView, String)>, StoreError> {
    let Some(row) = tx.first(sql::SHOW, args![id])? else { return Ok(None) };
    let job = view(&row)?;
    let now = tx.now();
    let last = job.error.as_deref().map(|error| format!(" The last error: {error}.")).unwrap_or_default();
    let text = match job.state.as_str() {
        "ready" if job.due > now => {
            let reason =
                if job.attempts > 0 { "it backs off after a failed attempt" } else { "it is scheduled for then" };
            format!(
                "It waits until {}: {reason} ({} of {} attempts used).{last}",
                job.run_at, job.attempts, job.max_attempts
            )
        }
        "ready" => format!("It is due and waits for a free worker; is `semel serve` running?{last}"),
        "running" => format!(
            "It runs now at {} under fence {}; its claim lasts until {}.{last}",
            job.owner.as_deref().unwrap_or("somebody"),
            job.fence,
            job.lease_until.as_deref().unwrap_or("?")
        ),
        "done" => format!("It ended at {}.", job.ended_at.as_deref().unwrap_or("?")),
        "dead" => format!(
            "It is a dead letter after {} attempts: `semel job retry {}` runs it again.{last}",
            job.attempts, job.id
        ),
        other => format!("It is {other}: `semel job retry {}` runs it.{last}", job.id),
    };
    Ok(Some((job, text)))
}

/// Makes a dead, parked, cancelled or waiting job due now with fresh attempts. False when there is nothing to retry.
pub fn retry(tx: &mut Tx, id: &JobId, lanes: &[&'static str], actor: &str) -> Result<bool, StoreError> {
    let Some(row) = tx.first(sql::RETRY, args![id])? else { return Ok(false) };
    let lane: String = row.get(0)?;
    if let Some(lane) = lanes.iter().find(|known| **known == lane) {
        tx.wake(lane);
    }
    let entry = Entry {
        entity: "job",
        entity_id: id.as_str(),
        event: "retried by hand",
        actor: Some(actor),
        ..Entry::default()
    };
    history::append(tx, &entry)?;
    Ok(true)
}
