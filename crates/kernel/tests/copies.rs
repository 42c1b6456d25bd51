//! Copies of the program on one PostgreSQL: what a commit wakes in one of them is heard in the others, without a poll, in
//! few notices, and through the death of a connection.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use semel_kernel::args;
use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{Store, StoreError, StoreUrl};
use semel_kernel::supervise::Supervisor;
use semel_kernel::testing::{TestStore, eventually};
use tokio::sync::{Notify, mpsc};
use tokio_postgres::{AsyncMessage, NoTls};
use tokio_util::sync::CancellationToken;

const ROOMS: &[Room] = &[KERNEL];
const LANE: &str = "errands";
const OTHER_LANE: &str = "letters";
/// The sessions that listen on this database.
const LISTENERS: &str =
    "select pid from pg_stat_activity where application_name = 'semel-listen' and datname = current_database()";
/// Ends them; answers how many there were.
const KILL: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity
    where application_name = 'semel-listen' and datname = current_database()";

fn address(t: &TestStore) -> String {
    let StoreUrl::Postgres(url) = t.url() else { panic!("copies share PostgreSQL") };
    url
}

/// Commits something that wakes `lane`.
async fn work_for(store: &Store, lane: &'static str) {
    let written = store.write("work", move |tx| {
        tx.wake(lane);
        tx.execute("insert into marks (name, value) values ($1, 'x') on conflict do nothing", args![lane]).map(|_| ())
    });
    written.await.unwrap_or_else(|error: StoreError| panic!("work is written: {error}"));
}

async fn woken(what: &str, waker: &Notify) {
    let woken = tokio::time::timeout(Duration::from_secs(20), waker.notified()).await;
    assert!(woken.is_ok(), "nobody was woken: {what}");
}

/// A copy that tells, and one that hears under a supervisor.
struct Copies {
    t: TestStore,
    hearing: Store,
    waker: Arc<Notify>,
    supervisor: Supervisor,
}

impl Copies {
    async fn meet() -> Copies {
        let t = TestStore::postgres(ROOMS).await;
        let hearing = t.second_copy();
        let waker = hearing.waker(LANE);
        let supervisor = Supervisor::new(Clock::system(), t.chance.clone());
        let store = t.store.clone();
        supervisor.spawn("notify", move |stop| {
            let store = store.clone();
            async move { store.tell_copies("one", stop).await }
        });
        let (store, url) = (hearing.clone(), address(&t));
        supervisor.spawn("listen", move |stop| {
            let (store, url) = (store.clone(), url.clone());
            async move { store.hear_copies(&url, "two", stop).await }
        });
        woken("whoever begins to hear may have missed something", &waker).await;
        eventually("the copy hears others", async || hearing.hears_copies()).await;
        Copies { t, hearing, waker, supervisor }
    }

    /// The sessions that listen on this database; one that was killed may take its time to go.
    async fn listeners(&self) -> Vec<i64> {
        self.t.rows(LISTENERS).await.iter().map(|row| row.get(0).unwrap()).collect()
    }

    async fn part(self) {
        assert_eq!(self.supervisor.stop(Duration::from_secs(10)).await, Vec::<&str>::new());
        assert!(!self.hearing.hears_copies());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_in_one_copy_is_heard_in_the_other() {
    let copies = Copies::meet().await;
    assert!(!copies.t.store.hears_copies(), "who only tells hears nothing");
    for n in 0..3 {
        work_for(&copies.t.store, LANE).await;
        woken(&format!("work {n}"), &copies.waker).await;
    }
    // What nobody committed is not told.
    let undone = copies.t.store.write("undone", |tx| {
        tx.wake(LANE);
        Err::<(), StoreError>(StoreError::Closed)
    });
    assert_eq!(undone.await, Err(StoreError::Closed));
    let other = copies.hearing.waker(OTHER_LANE);
    work_for(&copies.t.store, OTHER_LANE).await;
    woken("work in another lane", &other).await;
    assert!(copies.waker.notified().now_or_never().is_none(), "something undone was told");
    copies.part().await;
}

/// A command writes and ends: nobody tells for it later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_woke_is_told_once_before_it_ends() {
    let copies = Copies::meet().await;
    let (command, other) = (copies.t.second_copy(), copies.hearing.waker(OTHER_LANE));
    work_for(&command, OTHER_LANE).await;
    command.note_wakes();
    command.tell_once("command").await;
    work_for(&command, LANE).await;
    command.tell_once("command").await;
    woken("work of a command", &copies.waker).await;
    command.tell_once("command").await;

    // Notices come in the order in which they were told.
    work_for(&command, "the last").await;
    let last = copies.hearing.waker("the last");
    command.tell_once("command").await;
    woken("the last work of a command", &last).await;
    assert!(copies.waker.notified().now_or_never().is_none(), "it was told twice");
    assert!(other.notified().now_or_never().is_none(), "nothing was noted yet when that was written");
    copies.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_session_is_killed_comes_back_and_misses_nothing() {
    let copies = Copies::meet().await;
    for _ in 0..3 {
        let before = copies.listeners().await;
        assert_eq!(before.len(), 1, "a copy has one connection for hearing");
        assert_eq!(copies.t.number(KILL).await, 1);
        // Heard before the death or told after it: it wakes.
        work_for(&copies.t.store, LANE).await;
        woken("work that came with the death of the session", &copies.waker).await;

        eventually("another session listens", async || {
            let now = copies.listeners().await;
            now.len() == 1 && now != before && copies.hearing.hears_copies()
        })
        .await;
        let _ = copies.waker.notified().now_or_never();
        work_for(&copies.t.store, LANE).await;
        woken("work after it", &copies.waker).await;
    }
    copies.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_make_few_notices() {
    let t = TestStore::postgres(ROOMS).await;
    let (told, mut notices) = mpsc::unbounded_channel();
    let (client, mut connection) = tokio_postgres::connect(&address(&t), NoTls).await.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notice) = message {
                let _ = told.send(notice.payload().to_owned());
            }
        }
    });
    client.batch_execute("listen semel_wake").await.unwrap();
    let stop = CancellationToken::new();
    let (store, stopped) = (t.store.clone(), stop.clone());
    let telling = tokio::spawn(async move { store.tell_copies("one", stopped).await });

    let watch = Stopwatch::start();
    // Nothing is gathered before the task runs, so the first one is repeated until it is heard.
    let first = loop {
        work_for(&t.store, LANE).await;
        if let Ok(first) = tokio::time::timeout(Duration::from_millis(200), notices.recv()).await {
            break first;
        }
    };
    assert_eq!(first.as_deref(), Some("one:errands"));
    for n in 0..200 {
        work_for(&t.store, [LANE, OTHER_LANE][n % 2]).await;
    }
    work_for(&t.store, "the last").await;
    let mut count: i64 = 1;
    loop {
        let notice = tokio::time::timeout(Duration::from_secs(20), notices.recv()).await;
        let notice = notice.ok().flatten().expect("the last one is told");
        count += 1;
        let names = notice.strip_prefix("one:").unwrap_or_else(|| panic!("{notice} says who tells"));
        assert!(names.split(',').all(|name| [LANE, OTHER_LANE, "the last"].contains(&name)), "{notice}");
        if names.contains("the last") {
            break;
        }
    }
    let most = watch.millis() / 100 + 2;
    assert!(count <= most, "{count} notices of more than 200 commits within {} ms", watch.millis());
    stop.cancel();
    assert_eq!(telling.await.unwrap(), Ok(()));
    drop(client);
}

/// Silence means that there is nothing to do only where the notices really arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_to_another_database_is_refused() {
    let (t, elsewhere) = (TestStore::postgres(ROOMS).await, TestStore::postgres(ROOMS).await);
    assert_eq!(t.store.can_hear_copies(&address(&t), "one").await, Ok(true));
    let told = t.store.hear_copies(&address(&elsewhere), "one", CancellationToken::new()).await;
    let Err(StoreError::Unavailable(sentence)) = told else { panic!("{told:?}") };
    assert!(sentence.ends_with("both must lead to one database"), "{sentence}");
    assert!(!t.store.hears_copies());
}
