//! A build with failpoints: every place looks whether something shall happen to it.

use std::fs::File;
use std::future::{Future, pending};
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use tokio::task::{AbortHandle, JoinHandle, yield_now};
use tokio::time::sleep;

use super::plan::{Action, Plan};
use super::told;

static TRACE: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os("SEMEL_FAILPOINT_TRACE")?;
    File::options().create(true).append(true).open(path).ok().map(Mutex::new)
});

static ARMED: LazyLock<Option<Mutex<Plan>>> = LazyLock::new(|| {
    let text = std::env::var("SEMEL_FAILPOINT").ok()?;
    match Plan::parse(&text) {
        Ok(plan) => Some(Mutex::new(plan)),
        Err(wrong) => {
            // A campaign with a misspelt rule would prove nothing: it shall not seem to go well.
            let _ = writeln!(std::io::stderr().lock(), "SEMEL_FAILPOINT: {wrong}");
            std::process::exit(64)
        }
    }
});

tokio::task_local! {
    /// The task that [`spawn`] started, for a place inside it that shall cancel it.
    static RUN: Arc<OnceLock<AbortHandle>>;
}

/// Reaches a place that cannot fail by itself: it may kill, delay or panic.
pub fn hit(place: &str, label: &str) {
    let _ = obey(reached(place, label), place, label);
}

/// Reaches a place; true when its step shall fail.
#[must_use]
pub fn fail(place: &str, label: &str) -> bool {
    obey(reached(place, label), place, label)
}

/// Reaches a place of a task; true when its step shall fail. Here alone a run can be cancelled.
pub async fn reach(place: &str, label: &str) -> bool {
    obey_in_task(reached(place, label), place, label).await
}

/// Runs `work` in a task of its own, which a place inside may cancel.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let run = Arc::new(OnceLock::new());
    let task = tokio::spawn(RUN.scope(Arc::clone(&run), work));
    let _ = run.set(task.abort_handle());
    task
}

/// Notes that a place was reached; answers what shall happen there now.
fn reached(place: &str, label: &str) -> Option<Action> {
    if let Some(trace) = &*TRACE {
        // One write, so that several copies may share a file.
        let _ = lock(trace).write_all(format!("{place}:{label}\n").as_bytes());
    }
    let plan = ARMED.as_ref()?;
    lock(plan).meets(place, label)
}

fn obey(action: Option<Action>, place: &str, label: &str) -> bool {
    match action {
        None | Some(Action::Cancel) => false,
        Some(Action::Error) => true,
        Some(Action::Delay(time)) => {
            thread::sleep(time);
            false
        }
        Some(Action::Panic) => panic!("{}", told(place, label)),
        Some(Action::Kill) => kill_self(),
    }
}

async fn obey_in_task(action: Option<Action>, place: &str, label: &str) -> bool {
    match action {
        Some(Action::Delay(time)) => {
            sleep(time).await;
            false
        }
        Some(Action::Cancel) => {
            cancel_run().await;
            false
        }
        other => obey(other, place, label),
    }
}

/// Drops the future that was given to [`spawn`], from inside it. Outside of one there is nothing to cancel.
async fn cancel_run() {
    let Ok(run) = RUN.try_with(Arc::clone) else { return };
    loop {
        if let Some(task) = run.get() {
            task.abort();
            return pending().await;
        }
        // Whoever started this task has not put its handle down yet.
        yield_now().await;
    }
}

/// Signal 9 to this very process; nothing after it runs.
fn kill_self() -> ! {
    let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
    loop {
        thread::park();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_place_that_nobody_armed_is_nothing() {
        hit("test.place", "nobody");
        assert!(!fail("test.place", "nobody"));
        assert!(super::super::check("test.place", "nobody").is_ok());
    }

    #[test]
    fn an_error_fails_the_step_and_a_cancelling_outside_of_tasks_is_nothing() {
        assert!(obey(Some(Action::Error), "test.place", "step"));
        assert!(!obey(Some(Action::Cancel), "test.place", "step"));
        assert!(!obey(Some(Action::Delay(Duration::ZERO)), "test.place", "step"));
        assert!(!obey(None, "test.place", "step"));
    }

    #[test]
    #[should_panic(expected = "the failpoint test.place:step says so")]
    fn a_panic_names_its_place() {
        obey(Some(Action::Panic), "test.place", "step");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_in_a_task_lets_others_go_on() {
        let before = tokio::time::Instant::now();
        assert!(!obey_in_task(Some(Action::Delay(Duration::from_millis(250))), "test.place", "step").await);
        assert_eq!(before.elapsed(), Duration::from_millis(250));
    }

    #[tokio::test]
    async fn an_error_in_a_task_fails_the_step() {
        assert!(obey_in_task(Some(Action::Error), "test.place", "step").await);
        assert!(!obey_in_task(None, "test.place", "step").await);
    }

    #[tokio::test]
    async fn a_cancelled_run_ends_at_its_place_and_whoever_waits_for_it_hears_so() {
        let passed = Arc::new(OnceLock::new());
        let told = Arc::clone(&passed);
        let run = spawn(async move {
            obey_in_task(Some(Action::Cancel), "test.place", "step").await;
            let _ = told.set(());
        });
        let ended = run.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the run went on");
        assert!(passed.get().is_none(), "the run went on behind its place");
        // Nobody's run: the place is passed as if nothing had been asked for.
        assert!(!obey_in_task(Some(Action::Cancel), "test.place", "step").await);
    }
}
