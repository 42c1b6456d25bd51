//! The supervisor's promises, told on a runtime whose timers jump: hours pass in no time.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use semel_kernel::clock::{Chance, Clock, Time};
use semel_kernel::supervise::{Supervisor, TaskState, TaskView, Trouble};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);

fn supervisor() -> Supervisor {
    Supervisor::new(Clock::manual(Time::from_millis(1_700_000_000_000)), Chance::seeded(11))
}

fn only(supervisor: &Supervisor) -> TaskView {
    let mut view = supervisor.view();
    assert_eq!(view.len(), 1);
    view.remove(0)
}

/// Every alert, in order.
fn alerts(supervisor: &Supervisor) -> mpsc::UnboundedReceiver<Trouble> {
    let (tell, alerts) = mpsc::unbounded_channel();
    supervisor.on_trouble(move |trouble| tell.send(trouble.clone()).unwrap());
    alerts
}

/// A task that fails at once, for ever; the counter says how often it was started.
fn always_failing(supervisor: &Supervisor) -> Arc<AtomicU32> {
    let starts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&starts);
    supervisor.spawn("failing", move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err("the door is shut") }
    });
    starts
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_is_started_again_until_it_works() {
    let supervisor = supervisor();
    let (tell, mut works) = mpsc::unbounded_channel();
    let starts = AtomicU32::new(0);
    supervisor.spawn("poller", move |token| {
        let start = starts.fetch_add(1, Ordering::SeqCst);
        let tell = tell.clone();
        async move {
            if start < 3 {
                return Err(format!("start {start} went wrong"));
            }
            tell.send(()).unwrap();
            token.cancelled().await;
            Ok(())
        }
    });
    works.recv().await.unwrap();

    let view = only(&supervisor);
    assert_eq!((view.name, view.state, view.restarts), ("poller", TaskState::Running, 3));
    assert_eq!(view.last_error.as_deref(), Some("start 2 went wrong"));
    assert_eq!(supervisor.stop(MINUTE).await, Vec::<&str>::new());
    assert_eq!(only(&supervisor).state, TaskState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_raise_one_alert_and_the_task_is_probed_for_ever() {
    let supervisor = supervisor();
    let mut alerts = alerts(&supervisor);
    let starts = always_failing(&supervisor);

    let trouble = alerts.recv().await.unwrap();
    assert_eq!((trouble.name, trouble.failures_in_a_row), ("failing", 5));
    assert_eq!(trouble.last_error, "the door is shut");
    assert_eq!(only(&supervisor).state, TaskState::Probing);

    sleep(10 * MINUTE).await;
    let early = starts.load(Ordering::SeqCst);
    sleep(60 * MINUTE).await;
    let hourly = starts.load(Ordering::SeqCst) - early;
    assert!((40..=120).contains(&hourly), "about once a minute, not {hourly} times an hour");
    assert!(alerts.try_recv().is_err(), "one alert for the whole series");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_minute_ends_the_series() {
    let supervisor = supervisor();
    let mut alerts = alerts(&supervisor);
    supervisor.spawn("flaky", |_| async {
        sleep(MINUTE + Duration::from_secs(1)).await;
        Err("lost the connection")
    });
    sleep(30 * MINUTE).await;

    let view = only(&supervisor);
    assert!(view.restarts > 20, "{view:?}");
    assert!(view.failures_in_a_row <= 1, "{view:?}");
    assert!(alerts.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_endless_task_that_ends_has_failed() {
    let supervisor = supervisor();
    let mut alerts = alerts(&supervisor);
    supervisor.spawn("quitter", |_| async { Ok::<(), std::io::Error>(()) });

    assert_eq!(alerts.recv().await.unwrap().last_error, "ended by itself");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_caught_with_its_place_and_hurts_nobody_else() {
    let supervisor = supervisor();
    let mut alerts = alerts(&supervisor);
    let fuel = "none".parse::<u32>().ok();
    supervisor.spawn("engine", move |_| async move {
        let left = fuel.expect("fuel in the tank");
        Err(format!("{left} left"))
    });
    supervisor.spawn("radio", |token| async move {
        token.cancelled().await;
        Ok::<(), String>(())
    });

    let trouble = alerts.recv().await.unwrap();
    assert!(trouble.last_error.contains("fuel in the tank"), "{}", trouble.last_error);
    assert!(trouble.last_error.contains("supervise.rs:"), "{}", trouble.last_error);
    assert!(trouble.backtrace.is_some());
    let radio = supervisor.view().remove(1);
    assert_eq!((radio.name, radio.state, radio.restarts), ("radio", TaskState::Running, 0));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_stops_neither_the_task_nor_the_others() {
    let supervisor = supervisor();
    supervisor.on_trouble(|_| panic!("the pager is broken"));
    let mut alerts = alerts(&supervisor);
    let starts = always_failing(&supervisor);

    assert_eq!(alerts.recv().await.unwrap().name, "failing");
    sleep(10 * MINUTE).await;
    assert!(starts.load(Ordering::SeqCst) > 10);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_polite_and_names_and_drops_the_late() {
    let supervisor = supervisor();
    let (running, mut both_run) = mpsc::unbounded_channel();
    let polite = running.clone();
    supervisor.spawn("polite", move |token| {
        let running = polite.clone();
        async move {
            running.send(()).unwrap();
            token.cancelled().await;
            sleep(Duration::from_secs(2)).await; // Finishes what it has in hand.
            Ok::<(), String>(())
        }
    });
    let (held, dropped) = oneshot::channel::<()>();
    let held = std::sync::Mutex::new(Some(held));
    supervisor.spawn("stubborn", move |_| {
        let held = held.lock().unwrap().take();
        let running = running.clone();
        async move {
            running.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(held);
            Ok::<(), String>(())
        }
    });
    both_run.recv().await.unwrap();
    both_run.recv().await.unwrap();

    let late = timeout(Duration::from_secs(6), supervisor.stop(Duration::from_secs(5))).await.unwrap();
    assert_eq!(late, ["stubborn"]);
    assert!(dropped.await.is_err(), "what the late task held is dropped");
    let states: Vec<TaskState> = supervisor.view().into_iter().map(|view| view.state).collect();
    assert_eq!(states, [TaskState::Stopped, TaskState::Abandoned]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_its_next_start_stops_at_once() {
    let supervisor = supervisor();
    let mut alerts = alerts(&supervisor);
    let starts = always_failing(&supervisor);
    alerts.recv().await.unwrap();
    let before = starts.load(Ordering::SeqCst);

    let late = timeout(Duration::from_millis(1), supervisor.stop(MINUTE)).await.unwrap();
    assert_eq!(late, Vec::<&str>::new());
    assert_eq!(starts.load(Ordering::SeqCst), before);
    assert!(supervisor.token().is_cancelled());
}
