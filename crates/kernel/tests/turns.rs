//! A caller waits a bounded time for its turn, on SQLite as on PostgreSQL: told "busy", nothing of its work ever happens;
//! once its work has begun, it hears how that ended.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Clock;
use semel_kernel::store::{Store, StoreError, StoreOptions, StoreUrl};
use semel_kernel::testing::{eventually, options};

const ADD: &str = "insert into things (name) values ($1)";
const WAIT: Duration = Duration::from_millis(500);
const BUSY: StoreError = StoreError::Busy { waited_ms: 500 };

/// An embedded database whose callers are impatient.
async fn impatient() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(folder.path().join("semel.db"));
    let store = Store::open(&url, StoreOptions { wait: WAIT, ..options() }, Clock::system()).unwrap();
    let made = store.write("table", |tx| tx.execute("create table things (name text primary key) strict", &[]));
    made.await.unwrap();
    (folder, store)
}

async fn names(store: &Store) -> Vec<String> {
    let rows = store.rows("names", "select name from things order by name", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_for_the_writer_is_told_so_and_changes_nothing() {
    let (_folder, store) = impatient().await;
    let (begun, has_begun) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let slow = store.clone();
    let slow = tokio::spawn(async move {
        slow.write("slow", move |tx| {
            let _ = begun.send(());
            let _ = gate.recv();
            tx.execute(ADD, args!["slow"])
        })
        .await
    });
    has_begun.recv().unwrap();
    // Two of them: the one behind waits for the one before, and both for the slow one.
    let late = store.write("late", |tx| tx.execute(ADD, args!["late"]));
    let later = store.single("later", |tx| tx.execute(ADD, args!["later"]));
    assert_eq!(tokio::join!(late, later), (Err(BUSY), Err(BUSY)));
    assert_eq!(names(&store).await, Vec::<String>::new(), "readers have turns of their own");

    // It has worked for longer than anybody may wait for a turn, and is waited for all the same.
    open.send(()).unwrap();
    assert_eq!(slow.await.unwrap(), Ok(1));
    assert_eq!(store.write("after", |tx| tx.execute(ADD, args!["after"])).await, Ok(1));
    assert_eq!(names(&store).await, ["after", "slow"], "what was told as busy ran later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_for_a_reader_is_told_so() {
    const CROWD: usize = 32;
    let (_folder, store) = impatient().await;
    let began = Arc::new(AtomicUsize::new(0));
    let (mut gates, mut crowd) = (Vec::new(), Vec::new());
    for _ in 0..CROWD {
        let (store, began) = (store.clone(), Arc::clone(&began));
        let (open, gate) = mpsc::channel::<()>();
        gates.push(open);
        crowd.push(tokio::spawn(async move {
            let slow = store.read("slow", move |tx| {
                began.fetch_add(1, Ordering::SeqCst);
                let _ = gate.recv();
                tx.rows("select 1", &[]).map(|rows| rows.len())
            });
            slow.await
        }));
    }
    // Each of them reads or was sent away, so no reader is free.
    eventually("the crowd is sorted", async || {
        crowd.iter().filter(|one| one.is_finished()).count() + began.load(Ordering::SeqCst) == CROWD
    })
    .await;
    assert_eq!(store.rows("late", "select 1", &[]).await, Err(BUSY));
    assert_eq!(store.write("meanwhile", |tx| tx.execute(ADD, args!["written"])).await, Ok(1));

    drop(gates);
    let told: Vec<Result<usize, StoreError>> =
        futures_util::future::join_all(crowd).await.into_iter().map(|one| one.unwrap()).collect();
    let read = told.iter().filter(|one| **one == Ok(1)).count();
    assert_eq!(read, began.load(Ordering::SeqCst), "whoever began to read is answered: {told:?}");
    assert!(told.iter().filter(|one| **one != Ok(1)).all(|one| *one == Err(BUSY)), "{told:?}");
    assert_eq!(names(&store).await, ["written"]);
}
