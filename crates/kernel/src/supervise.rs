//! Long-lived tasks by name, which nobody has to remember to restart.
//!
//! A task that fails, panics, or ends although it should run for ever is started again: after 100 ms, then after twice
//! as long each time, up to 30 seconds. The fifth failure in a row raises one alert for the whole series; when the
//! doubling has run out, the task is tried about once a minute, for ever. A run that lasts a minute ends the series.
//!
//! *How it fails.* Every end of a run is visible in [`Supervisor::view`] and logged once, a panic with its place and
//! backtrace. At shutdown the tasks see their token cancelled and have a budget to finish; who is late is named and
//! dropped at the next point where it waits. A task that blocks its thread cannot be dropped, only named.
//!
//! *What it never does:* give up for good, let one task's panic reach another, or wait without end at shutdown.

use std::any::Any;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Chance, Clock, Time, millis};
use crate::failpoint::{hit, reach, told};

/// The pause after the first failure of a series.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The doubling of the pause ends here.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause once the doubling has run out.
const SLOW_PROBE: Duration = Duration::from_secs(60);
/// A run that lasts this long ends the series of failures.
const STEADY: Duration = Duration::from_secs(60);
/// The failure of a series that raises the alert.
const ALERT_AT: u32 = 5;
/// Longest error text that is kept, in bytes.
const LONGEST_TEXT: usize = 1_000;
/// Longest backtrace that is kept, in bytes.
const LONGEST_BACKTRACE: usize = 16_000;

type BoxError = Box<dyn Error + Send + Sync>;
type Run = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;
type Make = dyn Fn(CancellationToken) -> Run + Send + Sync;
type Listener = dyn Fn(&Trouble) + Send + Sync;

/// A task that keeps failing: raised once per series, at the fifth failure in a row.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The task.
    pub name: &'static str,
    /// Failures in a row so far.
    pub failures_in_a_row: u32,
    /// What the last run said.
    pub last_error: String,
    /// Where the last run panicked, if it did.
    pub backtrace: Option<String>,
    /// When.
    pub at: Time,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It runs.
    Running,
    /// It failed and will be started again soon.
    Waiting,
    /// It failed five times in a row or more; it is still started again, ever more rarely.
    Probing,
    /// It ended at shutdown.
    Stopped,
    /// It did not end within the shutdown's budget.
    Abandoned,
}

impl TaskState {
    /// The word for pages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Probing => "probing",
            Self::Stopped => "stopped",
            Self::Abandoned => "abandoned",
        }
    }
}

/// One task as pages and metrics see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// The task.
    pub name: &'static str,
    /// What it is doing.
    pub state: TaskState,
    /// Starts beyond the first one.
    pub restarts: u64,
    /// Failures since it last ran for a minute.
    pub failures_in_a_row: u32,
    /// What the last failed run said.
    pub last_error: Option<String>,
    /// When it entered this state.
    pub since: Time,
}

/// Keeps the program's long-lived tasks alive. Clones are the same supervisor.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    clock: Clock,
    chance: Chance,
    token: CancellationToken,
    tracker: TaskTracker,
    tasks: Mutex<Vec<Arc<Task>>>,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new(clock: Clock, chance: Chance) -> Self {
        Self(Arc::new(Inner {
            clock,
            chance,
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            tasks: Mutex::new(Vec::new()),
            listeners: Mutex::new(Vec::new()),
        }))
    }

    /// Starts a task and keeps it running until [`Supervisor::stop`]. `make` is called for every run, with a token that
    /// is cancelled at shutdown: a run that sees it cancelled returns. Call inside a tokio runtime.
    pub fn spawn<F, Fut, E>(&self, name: &'static str, make: F)
    where
        F: Fn(CancellationToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        note_panics();
        let task = Arc::new(Task::new(name, self.0.clock.now()));
        lock(&self.0.tasks).push(Arc::clone(&task));
        let make: Arc<Make> = Arc::new(move |token| -> Run {
            let run = make(token);
            Box::pin(async move { run.await.map_err(|error| -> BoxError { error.into() }) })
        });
        let watching = self.0.tracker.spawn(watch(Arc::clone(&self.0), Arc::clone(&task), make));
        *lock(&task.handle) = Some(watching.abort_handle());
    }

    /// Calls `f` once for every series of failures, at the fifth. It must not block; should it panic, nobody minds.
    pub fn on_trouble(&self, f: impl Fn(&Trouble) + Send + Sync + 'static) {
        lock(&self.0.listeners).push(Arc::new(f));
    }

    /// Every task, in the order of their start.
    pub fn view(&self) -> Vec<TaskView> {
        lock(&self.0.tasks).iter().map(|task| task.view()).collect()
    }

    /// Cancels every task and waits for them, `budget` at most. Returns who was late; they are dropped.
    pub async fn stop(&self, budget: Duration) -> Vec<&'static str> {
        self.0.token.cancel();
        self.0.tracker.close();
        if timeout(budget, self.0.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let now = self.0.clock.now();
        lock(&self.0.tasks).iter().filter(|task| task.abandon(now)).map(|task| task.name).collect()
    }

    /// Cancelled when [`Supervisor::stop`] begins. Cancelling it by hand begins the shutdown of every task.
    pub fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }
}

/// One task and what is known about it.
struct Task {
    name: &'static str,
    seen: Mutex<Seen>,
    handle: Mutex<Option<AbortHandle>>,
}

struct Seen {
    state: TaskState,
    since: Time,
    runs: u64,
    failures_in_a_row: u32,
    last_error: Option<String>,
}

impl Task {
    fn new(name: &'static str, now: Time) -> Self {
        let seen = Seen { state: TaskState::Waiting, since: now, runs: 0, failures_in_a_row: 0, last_error: None };
        Self { name, seen: Mutex::new(seen), handle: Mutex::new(None) }
    }

    fn enter(&self, state: TaskState, now: Time) {
        let mut seen = lock(&self.seen);
        seen.state = state;
        seen.since = now;
        if state == TaskState::Running {
            seen.runs += 1;
        }
    }

    /// Books a failed run; returns how many there are in a row now.
    fn failed(&self, text: &str) -> u32 {
        let mut seen = lock(&self.seen);
        seen.failures_in_a_row = seen.failures_in_a_row.saturating_add(1);
        seen.last_error = Some(text.to_owned());
        seen.failures_in_a_row
    }

    fn steady(&self) {
        lock(&self.seen).failures_in_a_row = 0;
    }

    /// Drops the task unless it has stopped; true if it had to be dropped.
    fn abandon(&self, now: Time) -> bool {
        let mut seen = lock(&self.seen);
        if seen.state == TaskState::Stopped {
            return false;
        }
        seen.state = TaskState::Abandoned;
        seen.since = now;
        if let Some(handle) = lock(&self.handle).take() {
            handle.abort();
        }
        true
    }

    fn view(&self) -> TaskView {
        let seen = lock(&self.seen);
        TaskView {
            name: self.name,
            state: seen.state,
            restarts: seen.runs.saturating_sub(1),
            failures_in_a_row: seen.failures_in_a_row,
            last_error: seen.last_error.clone(),
            since: seen.since,
        }
    }
}

/// The life of one task: run, learn why it ended, pause, run again, until shutdown.
async fn watch(inner: Arc<Inner>, task: Arc<Task>, make: Arc<Make>) {
    while !inner.token.is_cancelled() {
        task.enter(TaskState::Running, inner.clock.now());
        let end = run_once(&inner, &task, &make).await;
        hit("task.ended", task.name);
        if inner.token.is_cancelled() {
            if let End::Failed { text, .. } = end {
                tracing::warn!(task.name = task.name, "task {} failed while stopping: {text}", task.name);
            }
            break;
        }
        let (text, backtrace) = match end {
            End::Returned => ("ended by itself".to_owned(), None),
            End::Failed { text, backtrace } => (text, backtrace),
        };
        let failures = task.failed(&text);
        let pause = inner.chance.jitter(pause_after(failures));
        task.enter(if failures < ALERT_AT { TaskState::Waiting } else { TaskState::Probing }, inner.clock.now());
        tracing::warn!(
            task.name = task.name,
            failures,
            pause_ms = millis(pause),
            backtrace = backtrace.as_deref().unwrap_or(""),
            "task {} failed: {text}",
            task.name
        );
        if failures == ALERT_AT {
            let at = inner.clock.now();
            inner.alert(&Trouble { name: task.name, failures_in_a_row: failures, last_error: text, backtrace, at });
        }
        tokio::select! {
            () = inner.token.cancelled() => break,
            () = sleep(pause) => {}
        }
        hit("task.again", task.name);
    }
    task.enter(TaskState::Stopped, inner.clock.now());
}

/// How a run ended.
enum End {
    Returned,
    Failed { text: String, backtrace: Option<String> },
}

/// Runs the task once, in a tokio task of its own so that a panic ends nothing else. Dropping this future drops the run.
async fn run_once(inner: &Inner, task: &Task, make: &Arc<Make>) -> End {
    let note = PanicNote::default();
    let make = Arc::clone(make);
    let (name, token) = (task.name, inner.token.child_token());
    let mut runs = JoinSet::new();
    // `make` is called inside the new task as well: it may panic before it returns its future.
    let run = async move {
        if reach("task.begun", name).await {
            return Err(BoxError::from(told("task.begun", name)));
        }
        let run = make(token);
        run.await
    };
    runs.spawn(PANIC.scope(Arc::clone(&note), run));

    let steady = sleep(STEADY);
    tokio::pin!(steady);
    let mut waiting = true;
    let joined = loop {
        tokio::select! {
            joined = runs.join_next() => break joined,
            () = &mut steady, if waiting => {
                waiting = false;
                task.steady();
            }
        }
    };
    match joined {
        Some(Ok(Ok(()))) | None => End::Returned,
        Some(Ok(Err(error))) => End::Failed { text: clip(chain(&*error), LONGEST_TEXT), backtrace: None },
        Some(Err(join)) => match join.try_into_panic() {
            Ok(payload) => panicked(&*payload, &note),
            Err(join) => End::Failed { text: join.to_string(), backtrace: None },
        },
    }
}

/// The pause after so many failures in a row, before jitter.
fn pause_after(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let before = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(2).min(20));
    if before >= LONGEST_PAUSE { SLOW_PROBE } else { doubled.min(LONGEST_PAUSE) }
}

impl Inner {
    fn alert(&self, trouble: &Trouble) {
        tracing::error!(task.name = trouble.name, "task {} keeps failing: {}", trouble.name, trouble.last_error);
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(trouble))).is_err() {
                tracing::error!(task.name = trouble.name, "a listener for trouble panicked");
            }
        }
    }
}

/// What the panic hook saw of a run's panic: the place and the way there.
#[derive(Debug)]
struct PanicSeen {
    place: String,
    backtrace: String,
}

type PanicNote = Arc<Mutex<Option<PanicSeen>>>;

tokio::task_local! {
    /// Where the panic hook leaves its note for the run that panics.
    static PANIC: PanicNote;
}

/// Makes panics of supervised runs leave a note; all others go where they went before. A hook that somebody installs
/// later without calling ours costs the place and the backtrace, not the message.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANIC.try_with(|note| {
                let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
                let backtrace = std::backtrace::Backtrace::force_capture().to_string();
                *lock(note) = Some(PanicSeen { place, backtrace });
            });
            if noted.is_err() {
                before(info);
            }
        }));
    });
}

fn panicked(payload: &(dyn Any + Send), note: &PanicNote) -> End {
    let message = match (payload.downcast_ref::<&'static str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "(no message)".to_owned(),
    };
    match lock(note).take() {
        Some(seen) => End::Failed {
            text: clip(format!("panicked at {}: {message}", seen.place), LONGEST_TEXT),
            backtrace: Some(clip(seen.backtrace, LONGEST_BACKTRACE)),
        },
        None => End::Failed { text: clip(format!("panicked: {message}"), LONGEST_TEXT), backtrace: None },
    }
}

/// An error with its causes, without saying the same twice.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

fn clip(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_half_a_minute_and_then_stay_at_a_minute() {
        let pauses: Vec<u128> = (1..=13).map(|failures| pause_after(failures).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 60_000, 60_000, 60_000]);
        assert_eq!(pause_after(u32::MAX), SLOW_PROBE);
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(clip("привет".to_owned(), 5), "пр…");
        assert_eq!(clip("short".to_owned(), 5), "short");
    }
}
