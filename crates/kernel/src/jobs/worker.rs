//! Workers: claim what is due, run it, write how it ended.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Claim, Ended, Job, JobError, JobId, Outcome, Retry, sql};
use crate::args;
use crate::clock::{Chance, Stopwatch, Time, millis};
use crate::failpoint::{check, hit, reach, spawn, told};
use crate::history::{self, Entry};
use crate::store::{Engine, Row, Store, StoreError, Tx, Value};

/// How workers behave.
#[derive(Clone, Debug)]
pub struct WorkersOptions {
    /// This process: unique among copies, new at each start.
    pub owner: String,
    /// How long a claim lasts without renewal.
    pub lease: Duration,
    /// How often PostgreSQL is asked for work that another copy wrote. Rarely, when other copies tell of it
    /// ([`Store::hears_copies`]); SQLite has no other copy and is never asked.
    pub poll: Duration,
    /// Jobs of one lane that run at the same time.
    pub concurrency: usize,
}

impl WorkersOptions {
    /// Sensible values for the process `owner`.
    pub fn new(owner: String) -> Self {
        Self { owner, lease: Duration::from_secs(60), poll: Duration::from_secs(2), concurrency: 32 }
    }
}

/// A job that became a dead letter.
#[derive(Clone, Debug)]
pub struct Dead {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: String,
    /// Its story.
    pub thread: Option<String>,
    /// The last error.
    pub error: String,
}

/// How often PostgreSQL is asked while other copies tell of their work: only a notice that was lost is found so.
const POLL_WHEN_TOLD: Duration = Duration::from_secs(15);

/// How long a lane that is at work lets jobs and free places gather before it claims: one claim then takes several jobs. A
/// lane without work claims at once.
const GATHERING: Duration = Duration::from_millis(1);

/// How soon a lane looks again after a job that ended well: it is due once more if it was pulled while it ran.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits between tries to write how a run failed, in seconds. Giving up leaves the job to the end of its claim.
const FAILURE_PAUSES_S: [u64; 6] = [1, 2, 4, 8, 16, 30];

type Running = Pin<Box<dyn Future<Output = Result<Ended, JobError>> + Send>>;
type Runner<C> = Arc<dyn Fn(&str, C, Claim) -> Result<Running, JobError> + Send + Sync>;
type OnDead = Arc<dyn Fn(&mut Tx, &Dead) -> Result<(), StoreError> + Send + Sync>;

/// What a claim found.
struct Claimed {
    /// Payloads with the right to run them.
    claims: Vec<(String, Claim)>,
    /// In how many milliseconds the next job is due, when fewer were claimed than could be.
    next: Option<i64>,
}

struct Kind<C> {
    run: Runner<C>,
    retry: Retry,
}

/// The kinds that this program can run, and who runs them.
pub struct Workers<C> {
    store: Store,
    chance: Chance,
    options: WorkersOptions,
    kinds: HashMap<&'static str, Kind<C>>,
    lanes: Vec<&'static str>,
    on_dead: Option<OnDead>,
    /// Claims that this process works on now.
    running: Mutex<HashSet<(String, i64)>>,
    /// The lanes that are served now.
    served: TaskTracker,
    /// Whether some end could not be written: then claims of this process may have to run out.
    stranded: AtomicBool,
}

impl<C: Clone + Send + Sync + 'static> Workers<C> {
    /// Workers without kinds.
    pub fn new(store: Store, chance: Chance, options: WorkersOptions) -> Self {
        Self {
            store,
            chance,
            options,
            kinds: HashMap::new(),
            lanes: Vec::new(),
            on_dead: None,
            running: Mutex::default(),
            served: TaskTracker::new(),
            stranded: AtomicBool::new(false),
        }
    }

    /// Adds a kind.
    pub fn with<J: Job<Context = C>>(mut self) -> Self {
        let run: Runner<C> = Arc::new(|payload, cx, claim| {
            let job: J = serde_json::from_str(payload).map_err(|error| JobError::DeadLetter {
                text: format!("the payload cannot be read: {error}"),
                outcome: Outcome::Failed,
            })?;
            Ok(Box::pin(async move { job.run(&cx, claim).await }))
        });
        self.kinds.insert(J::KIND, Kind { run, retry: J::RETRY });
        if !self.lanes.contains(&J::LANE) {
            self.lanes.push(J::LANE);
        }
        self
    }

    /// Runs in the transaction that buries a job.
    pub fn on_dead(mut self, f: impl Fn(&mut Tx, &Dead) -> Result<(), StoreError> + Send + Sync + 'static) -> Self {
        self.on_dead = Some(Arc::new(f));
        self
    }

    /// The lanes of all kinds.
    pub fn lanes(&self) -> &[&'static str] {
        &self.lanes
    }

    /// Gives back what earlier runs of this program left behind. On SQLite nobody else can hold a job of this file; on
    /// PostgreSQL only claims that ran out are taken.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let me = (self.store.engine() == Engine::Sqlite).then(|| self.options.owner.clone());
        self.take_lost(me).await
    }

    /// Claims and runs the jobs of `lane` until `stop`; then waits for the running ones.
    pub async fn serve(self: Arc<Self>, lane: &'static str, cx: C, stop: CancellationToken) -> Result<(), StoreError> {
        let _served = self.served.token();
        let wake = self.store.waker(lane);
        let slots = Arc::new(Semaphore::new(self.options.concurrency));
        let running = TaskTracker::new();
        let result = self.serve_loop(lane, &cx, &stop, &wake, &slots, &running).await;
        running.close();
        running.wait().await;
        result
    }

    async fn serve_loop(
        self: &Arc<Self>,
        lane: &'static str,
        cx: &C,
        stop: &CancellationToken,
        wake: &Notify,
        slots: &Arc<Semaphore>,
        running: &TaskTracker,
    ) -> Result<(), StoreError> {
        // Told by jobs that ended well.
        let ended = Arc::new(Notify::new());
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                slot = Arc::clone(slots).acquire_owned() => slot.map_err(|_| StoreError::Closed)?,
            };
            if !running.is_empty() {
                tokio::time::sleep(GATHERING).await;
            }
            let mut free = vec![first];
            while let Ok(more) = Arc::clone(slots).try_acquire_owned() {
                free.push(more);
            }
            check("lane.claim", lane)?;
            let Claimed { claims, next } = self.claim(lane, free.len()).await?;
            hit("lane.claimed", lane);
            let full = claims.len() == free.len();
            for (payload, claim) in claims {
                let (this, cx, slot, ended) = (Arc::clone(self), cx.clone(), free.pop(), Arc::clone(&ended));
                running.spawn(async move {
                    let lives = this.perform(&payload, cx, claim).await;
                    drop(slot);
                    // It may be due again sooner than this lane, which saw it running, would look.
                    if lives {
                        this.store.waker(lane).notify_one();
                    } else {
                        ended.notify_one();
                    }
                });
            }
            drop(free);
            if full {
                continue;
            }
            let pause = self.pause(next);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = ended.notified() => {
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = wake.notified() => {}
                        () = tokio::time::sleep(pause.min(LOOK_AGAIN)) => {}
                    }
                }
            }
        }
    }

    /// Claims and runs everything that is due in all lanes, one after another, until nothing is; answers how many ran.
    /// For tests and for commands that work without a server.
    pub async fn run_due(&self, cx: &C) -> Result<usize, StoreError> {
        let mut ran = 0;
        loop {
            let before = ran;
            for lane in &self.lanes {
                for (payload, claim) in self.claim(lane, 8).await?.claims {
                    self.perform(&payload, cx.clone(), claim).await;
                    ran += 1;
                }
            }
            if ran == before {
                return Ok(ran);
            }
        }
    }

    /// Renews this process's claims and gives back those of others that ran out, until `stop`, and until the lanes that are served
    /// have ended after it: what still runs then must not look lost, or another copy would do it once more.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) -> Result<(), StoreError> {
        let over = async {
            stop.cancelled().await;
            self.served.close();
            self.served.wait().await;
        };
        let mut over = pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                () = tokio::time::sleep(self.options.lease / 3) => {}
            }
            match self.keep_once().await {
                // Nobody starts this again while the program stops.
                Err(error) if stop.is_cancelled() => {
                    tracing::warn!(%error, "could not renew the claims of what still runs; trying again");
                }
                kept => kept?,
            }
        }
    }

    async fn keep_once(&self) -> Result<(), StoreError> {
        // An idle program renews nothing, so an embedded database sees no statement from it.
        let held: Vec<serde_json::Value> =
            claims(&self.running).iter().map(|(job, fence)| serde_json::json!([job, fence])).collect();
        if !held.is_empty() {
            let (owner, lease) = (self.options.owner.clone(), millis(self.options.lease));
            let held = serde_json::Value::from(held).to_string();
            self.store.single("jobs.renew", move |tx| tx.execute(sql::RENEW, args![&owner, lease, &held])).await?;
        }
        if self.store.engine() == Engine::Postgres || self.stranded.load(Ordering::SeqCst) {
            self.take_lost(None).await?;
        }
        Ok(())
    }

    /// How long to wait for the job that is due next, `next` milliseconds from now.
    fn pause(&self, next: Option<i64>) -> Duration {
        let due = match next {
            Some(due) => Duration::from_millis(u64::try_from(due.max(1)).unwrap_or(1)),
            None => Duration::from_secs(24 * 3600),
        };
        if self.store.engine() == Engine::Postgres { due.min(self.poll()) } else { due }
    }

    fn poll(&self) -> Duration {
        if self.store.hears_copies() { self.options.poll.max(POLL_WHEN_TOLD) } else { self.options.poll }
    }

    async fn claim(&self, lane: &'static str, most: usize) -> Result<Claimed, StoreError> {
        let (owner, lease) = (self.options.owner.clone(), millis(self.options.lease));
        let claimed = self.store.single("jobs.claim", move |tx| {
            let limit = i64::try_from(most).unwrap_or(1);
            let mut rows = tx.rows(sql::CLAIM, args![lane, &owner, lease, limit])?;
            let next: Option<i64> = match tx.engine() {
                // A row without an id tells it.
                Engine::Postgres => match rows.iter().position(|row| row.values().first() == Some(&Value::Null)) {
                    Some(place) => rows.remove(place).get(7)?,
                    None => None,
                },
                Engine::Sqlite if rows.len() < most => {
                    tx.first(sql::NEXT_DUE, args![lane])?.map(|row| row.get(0)).transpose()?
                }
                Engine::Sqlite => None,
            };
            Ok::<_, StoreError>((rows, next))
        });
        let (rows, next) = claimed.await?;
        let mut claims: Vec<(String, Claim)> =
            rows.iter().map(|row| self.claim_of(row)).collect::<Result<_, StoreError>>()?;
        // In the order in which they were written, whatever order a database gives its answer.
        claims.sort_by(|(_, one), (_, other)| one.job.as_str().cmp(other.job.as_str()));
        Ok(Claimed { claims, next })
    }

    fn claim_of(&self, row: &Row) -> Result<(String, Claim), StoreError> {
        let claim = Claim {
            job: row.get(0)?,
            kind: row.get(1)?,
            fence: row.get(3)?,
            attempts: row.get(4)?,
            max_attempts: row.get(5)?,
            owner: self.options.owner.clone(),
            thread: row.get(6)?,
            started: Stopwatch::start(),
        };
        Ok((row.get(2)?, claim))
    }

    /// Runs a job and writes how it ended. Whether it lives on.
    async fn perform(&self, payload: &str, cx: C, claim: Claim) -> bool {
        let _working = Working::on(&self.running, &claim);
        let error = match self.kinds.get_key_value(claim.kind.as_str()) {
            None => JobError::Later {
                at: self.store.now() + Duration::from_secs(60),
                text: format!("this program does not know the kind {}; a newer copy may", claim.kind),
            },
            Some((&name, kind)) => match (kind.run)(payload, cx, claim.clone()) {
                Err(error) => error,
                // A task of its own, so that a panic ends this run and nothing else.
                Ok(running) => match spawn(between_places(name, running)).await {
                    Ok(Ok(ended)) => return ended.lives,
                    Ok(Err(error)) => error,
                    Err(panic) => JobError::Retry(format!("the job panicked: {panic}")),
                },
            },
        };
        match &error {
            JobError::NotItsTurn { .. } => {
                tracing::debug!(job.id = %claim.job, job.kind = %claim.kind, %error, "job waits for its turn");
            }
            _ => {
                tracing::warn!(job.id = %claim.job, job.kind = %claim.kind, attempt = claim.attempts, %error, "job did not end");
            }
        }
        let error = Arc::new(error);
        let mut pauses = FAILURE_PAUSES_S.into_iter();
        while let Err(failed) = self.write_failure(&claim, &error).await {
            tracing::error!(job.id = %claim.job, error = %failed, "could not write how the job failed");
            let Some(pause) = pauses.next().filter(|_| failed.is_passing()) else {
                // The claim is not renewed any more: it runs out, and the job is due again.
                self.stranded.store(true, Ordering::SeqCst);
                return true;
            };
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
        true
    }

    async fn write_failure(&self, claim: &Claim, error: &Arc<JobError>) -> Result<(), StoreError> {
        let retry = self
            .kinds
            .get(claim.kind.as_str())
            .map_or(Retry::backoff(Duration::from_secs(60), Duration::from_secs(60), 1), |kind| kind.retry);
        let claim = claim.clone();
        let wait = retry.wait(claim.attempts, &self.chance);
        let on_dead = self.on_dead.clone();
        let text = short(&error.to_string());
        let error = Arc::clone(error);
        self.store
            .write("jobs.fail", move |tx| {
                let now = tx.now();
                let again = |tx: &mut Tx, at: Time, free: i64| {
                    tx.execute(sql::FAIL, args![&claim.job, claim.fence, at, &text, free])
                };
                let buried = match &*error {
                    JobError::Later { at, .. } | JobError::NotItsTurn { at, .. } => {
                        again(tx, *at, 1).map(|rows| (rows, false))
                    }
                    JobError::Retry(_) if !claim.is_last() => again(tx, now + wait, 0).map(|rows| (rows, false)),
                    JobError::Retry(_) => bury(tx, &claim, &text, Outcome::Unknown).map(|rows| (rows, true)),
                    JobError::DeadLetter { outcome, .. } => bury(tx, &claim, &text, *outcome).map(|rows| (rows, true)),
                }?;
                let (rows, dead) = buried;
                if rows == 0 {
                    return Ok(()); // Another worker holds a higher fence: this run changes nothing.
                }
                let how = match &*error {
                    JobError::NotItsTurn { .. } => "waiting",
                    _ if dead => "failed",
                    _ => "retry",
                };
                claim.tell(tx, how, Some(&text))?;
                if dead && let Some(on_dead) = &on_dead {
                    let dead = Dead {
                        job: claim.job.clone(),
                        kind: claim.kind.clone(),
                        thread: claim.thread.clone(),
                        error: text.clone(),
                    };
                    on_dead(tx, &dead)?;
                }
                Ok(())
            })
            .await
    }

    async fn take_lost(&self, others_than: Option<String>) -> Result<usize, StoreError> {
        let on_dead = self.on_dead.clone();
        let lanes = self.lanes.clone();
        self.store
            .write("jobs.lost", move |tx| {
                let rows = tx.rows(sql::LOST, args![others_than.clone()])?;
                let now = tx.now();
                for row in &rows {
                    let (id, kind, thread): (JobId, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(5)?);
                    let claimed: Option<Time> = row.get(6)?;
                    history::append(
                        tx,
                        &Entry {
                            entity: "job",
                            entity_id: id.as_str(),
                            event: &kind,
                            to: Some("lost"),
                            fence: Some(row.get(2)?),
                            took_ms: claimed.map(|at| millis(now.since(at))),
                            thread: thread.as_deref(),
                            detail: Some("the worker was lost"),
                            ..Entry::default()
                        },
                    )?;
                    if row.get::<String>(3)? == "dead"
                        && let Some(on_dead) = &on_dead
                    {
                        on_dead(tx, &Dead { job: id, kind, thread, error: "the worker was lost".into() })?;
                    }
                }
                if !rows.is_empty() {
                    lanes.iter().for_each(|lane| tx.wake(lane));
                }
                Ok(rows.len())
            })
            .await
    }
}

/// The run of a job of this kind, with a place before it and one after it.
async fn between_places(kind: &'static str, running: Running) -> Result<Ended, JobError> {
    if reach("job.claimed", kind).await {
        return Err(JobError::Retry(told("job.claimed", kind)));
    }
    let ended = running.await;
    // What the run achieved is written; an error here is one that came too late to matter.
    if reach("job.ended", kind).await {
        return Err(JobError::Retry(told("job.ended", kind)));
    }
    ended
}

fn claims(of: &Mutex<HashSet<(String, i64)>>) -> std::sync::MutexGuard<'_, HashSet<(String, i64)>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One claim more that is worked on, while it lives.
struct Working<'a> {
    of: &'a Mutex<HashSet<(String, i64)>>,
    claim: (String, i64),
}

impl<'a> Working<'a> {
    fn on(of: &'a Mutex<HashSet<(String, i64)>>, claim: &Claim) -> Self {
        let claim = (claim.job.to_string(), claim.fence);
        claims(of).insert(claim.clone());
        Self { of, claim }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        claims(self.of).remove(&self.claim);
    }
}

fn bury(tx: &mut Tx, claim: &Claim, text: &str, outcome: Outcome) -> Result<u64, StoreError> {
    tx.execute(sql::BURY, args![&claim.job, claim.fence, text, outcome.as_str()])
}

/// An error as a row keeps it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(500).collect()
}
