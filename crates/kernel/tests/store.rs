//! What both engines promise: all or nothing, told only after the commit, and never a wait without an end.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use semel_kernel::args;
use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::migrate::{KERNEL, Migration, Room};
use semel_kernel::store::{Engine, Expect, ManySql, Store, StoreError, StoreOptions, StoreUrl, Tx};
use semel_kernel::testing::{PgServer, TestStore, eventually, options};

const THINGS: Room = Room {
    name: "things",
    steps: &[Migration {
        number: 1,
        name: "things",
        sqlite: "create table things (name text primary key, n integer not null default 0) strict;",
        postgres: "create table things (name text primary key, n bigint not null default 0);",
    }],
};
const ROOMS: &[Room] = &[KERNEL, THINGS];

const ADD: &str = "insert into things (name) values ($1)";
const BUMP: &str = "update things set n = n + 1 where name = $1";
/// Volatile, so that no plan leaves the sleep out.
const SLEEP: &str = "select 1 from (select pg_sleep(0.02)) s";

/// What this process holds in memory.
fn resident_mb() -> u64 {
    let told = fs::read_to_string("/proc/self/statm").expect("the system tells");
    let pages: u64 = told.split_whitespace().nth(1).expect("resident pages").parse().expect("a number");
    pages * 4096 / 1_000_000
}

async fn names(t: &TestStore) -> Vec<String> {
    t.texts("select name from things order by name").await
}

semel_kernel::each_store! { ROOMS;
    /// On SQLite those who wait together share one commit; on PostgreSQL they only stand beside each other.
    async fn a_failing_neighbour_harms_nobody(t: TestStore) {
        let (open, gate) = mpsc::channel::<()>();
        let first = t.store.write("first", move |tx| {
            let _ = gate.recv();
            tx.execute(ADD, args!["first"])
        });
        let twice = t.store.write("twice", |tx| {
            tx.execute(ADD, args!["twice"])?;
            tx.execute(ADD, args!["twice"])
        });
        let swallows = t.store.write("swallows", |tx| {
            tx.execute(ADD, args!["swallowed"])?;
            let _ = tx.execute(ADD, args!["swallowed"]);
            Ok::<(), StoreError>(())
        });
        let regrets = t.store.write("regrets", |tx| {
            tx.execute(ADD, args!["regretted"])?;
            Err::<(), StoreError>(StoreError::Closed)
        });
        let panics = t.store.write("panics", |tx| -> Result<u64, StoreError> {
            tx.execute(ADD, args!["panicked"])?;
            panic!("a mistake in a closure")
        });
        let last = t.store.write("last", |tx| tx.execute(ADD, args!["last"]));
        // Each is submitted when it is polled first, and the gate opens after the last one.
        let opens = async move { open.send(()).unwrap() };
        let (first, twice, swallows, regrets, panics, last, ()) =
            tokio::join!(first, twice, swallows, regrets, panics, last, opens);

        assert_eq!(first, Ok(1));
        assert!(matches!(twice, Err(StoreError::Constraint(_))), "{twice:?}");
        assert!(matches!(swallows, Err(StoreError::Constraint(_))), "an undone closure was told Ok: {swallows:?}");
        assert_eq!(regrets, Err(StoreError::Closed));
        assert_eq!(panics, Err(StoreError::Panicked("panics")));
        assert_eq!(last, Ok(1));
        assert_eq!(names(&t).await, ["first", "last"]);
    }

    /// The ground truth of a long campaign is a text of megabytes, thousands of times.
    async fn a_text_of_run_time_is_forgotten_with_its_answer(t: TestStore) {
        let (padding, before) = ("x".repeat(1_000_000), resident_mb());
        for n in 0..256 {
            let rows = t.store.rows_of("test.once", format!("select '{n}' /* {padding} */")).await.unwrap();
            assert_eq!(rows[0].get::<String>(0).unwrap(), n.to_string());
        }
        let grown = resident_mb().saturating_sub(before);
        assert!(grown < 128, "256 texts of a megabyte left {grown} MB behind");
        let wrong = t.store.rows_of("test.once", "select nothing from nowhere".to_owned()).await;
        assert!(matches!(&wrong, Err(StoreError::Statement(told)) if told.contains("nowhere")), "{wrong:?}");
    }

    async fn a_panic_is_undone_and_the_next_one_works(t: TestStore) {
        let told = t
            .store
            .write("panics", |tx| -> Result<u64, StoreError> {
                tx.execute(ADD, args!["half"])?;
                panic!("a mistake in a closure")
            })
            .await;
        assert_eq!(told, Err(StoreError::Panicked("panics")));
        assert!(names(&t).await.is_empty());
        assert_eq!(t.store.write("next", |tx| tx.execute(ADD, args!["whole"])).await, Ok(1));
        assert_eq!(names(&t).await, ["whole"]);
    }

    async fn a_constraint_error_ends_and_undoes_even_when_the_closure_goes_on(t: TestStore) {
        let told = t
            .store
            .write("swallows", |tx| {
                tx.execute(ADD, args!["a"])?;
                let _ = tx.execute(ADD, args!["a"]);
                Ok::<&'static str, StoreError>("fine")
            })
            .await;
        assert!(matches!(told, Err(StoreError::Constraint(_))), "{told:?}");
        assert!(names(&t).await.is_empty());
    }

    async fn a_deferred_statement_that_touches_other_rows_than_it_must_undoes_all(t: TestStore) {
        let told = t
            .store
            .write("later", |tx| {
                tx.execute(ADD, args!["a"])?;
                tx.later(BUMP, args!["nobody"], Expect::Rows(1))?;
                tx.later(ADD, args!["b"], Expect::Any)
            })
            .await;
        assert!(matches!(told, Err(StoreError::Unexpected { wanted: 1, found: 0, .. })), "{told:?}");
        assert!(names(&t).await.is_empty());
    }

    async fn deferred_statements_are_seen_by_the_next_question(t: TestStore) {
        let seen = t
            .store
            .write("later", |tx| {
                tx.later(ADD, args!["a"], Expect::Rows(1))?;
                tx.later(BUMP, args!["a"], Expect::Rows(1))?;
                tx.one("select n from things where name = $1", args!["a"])?.get::<i64>(0)
            })
            .await;
        assert_eq!(seen, Ok(1));
        assert_eq!(t.number("select n from things").await, 1);
    }

    async fn reading_changes_nothing(t: TestStore) {
        let told = t.store.read("read", |tx| tx.execute(ADD, args!["a"])).await;
        assert!(told.is_err(), "a reading transaction wrote: {told:?}");
        assert!(names(&t).await.is_empty());
    }

    async fn one_statement_serves_many_rows(t: TestStore) {
        const MANY: ManySql = ManySql {
            sqlite: "insert into things (name, n) values ($1, $2) returning name",
            postgres: "insert into things (name, n) select * from unnest($1::text[], $2::bigint[]) returning name",
        };
        let rows = t
            .store
            .single("many", |tx| {
                let rows = (0..5).map(|n| args![format!("thing {n}"), i64::from(n)].to_vec()).collect();
                tx.many(MANY, rows)
            })
            .await
            .unwrap();
        assert_eq!(rows.len(), 5);
        assert_eq!(t.number("select cast(sum(n) as bigint) from things").await, 10);
    }

    async fn a_wake_comes_with_the_commit_and_not_without(t: TestStore) {
        let waker = t.store.waker("things");
        let undone = t
            .store
            .write("undone", |tx| {
                tx.wake("things");
                Err::<(), StoreError>(StoreError::Closed)
            })
            .await;
        assert_eq!(undone, Err(StoreError::Closed));
        assert!(waker.notified().now_or_never().is_none(), "something undone woke somebody");
        let done = t.store.write("done", |tx| {
            tx.wake("things");
            tx.execute(ADD, args!["a"])
        });
        assert_eq!(done.await, Ok(1));
        assert!(waker.notified().now_or_never().is_some(), "a commit woke nobody");
    }

    async fn the_database_answers_a_ping(t: TestStore) {
        assert_eq!(t.store.ping(Duration::from_secs(10)).await, Ok(()));
    }
}

/// How often a closure runs that shares its commit with `neighbour`, which is undone.
async fn runs_beside<F>(t: &TestStore, name: &'static str, neighbour: F) -> usize
where
    F: FnMut(&mut Tx) -> Result<(), StoreError> + Send + 'static,
{
    let (open, gate) = mpsc::channel::<()>();
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel::<()>();
    let store = t.store.clone();
    let holds = tokio::spawn(async move {
        let hold = move |_: &mut Tx| {
            let _ = begin.send(());
            let _ = gate.recv();
            Ok::<(), StoreError>(())
        };
        store.write("holds", hold).await
    });
    // What is asked for from here on waits together: the writer is held.
    begun.recv().await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&runs);
    let counted = t.store.write("counted", move |tx| {
        counts.fetch_add(1, Ordering::SeqCst);
        tx.execute(ADD, args![name])
    });
    let neighbour = t.store.write("neighbour", neighbour);
    let opens = async move { open.send(()).unwrap() };
    let (held, counted, neighbour, ()) = tokio::join!(holds, counted, neighbour, opens);
    assert_eq!((held.unwrap(), counted, neighbour), (Ok(()), Ok(1), Err(StoreError::Closed)));
    runs.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_on_sqlite_runs_again_only_to_undo_what_one_of_it_wrote() {
    let t = TestStore::sqlite(ROOMS).await;
    let refuses = |tx: &mut Tx| tx.rows("select name from things", &[]).and(Err(StoreError::Closed));
    assert_eq!(runs_beside(&t, "one", refuses).await, 1);
    let regrets = |tx: &mut Tx| tx.execute(ADD, args!["regretted"]).and(Err(StoreError::Closed));
    assert_eq!(runs_beside(&t, "two", regrets).await, 2);
    assert_eq!(runs_beside(&t, "three", regrets).await, 1, "the next few batches run under savepoints at once");
    assert_eq!(names(&t).await, ["one", "three", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_belongs_to_one_program() {
    let t = TestStore::sqlite(ROOMS).await;
    let StoreUrl::Sqlite(path) = t.url() else { panic!("SQLite lies in a file") };
    let second = Store::open(&t.url(), options(), Clock::system()).err().unwrap();
    let sentence = format!(
        "the database {} is in use by a running semel; stop it first, or let the command go through it",
        path.display()
    );
    assert_eq!(second, StoreError::InUse(sentence));
    assert_eq!(t.store.write("first", |tx| tx.execute(ADD, args!["still ours"])).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_database_of_its_own() {
    let t = TestStore::sqlite(ROOMS).await;
    t.store.write("add", |tx| tx.execute(ADD, args!["kept"])).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    t.store.backup_to(copy.clone()).await.unwrap();
    t.store.write("add", |tx| tx.execute(ADD, args!["too late"])).await.unwrap();

    let copy = Store::open(&StoreUrl::Sqlite(copy), options(), t.clock.clone()).unwrap();
    let rows = copy.rows("names", "select name from things", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<String>(0), Ok("kept".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_statement_in_a_single_one_is_refused_on_postgres() {
    let t = TestStore::postgres(ROOMS).await;
    let told = t
        .store
        .single("two", |tx| {
            tx.execute(ADD, args!["a"])?;
            tx.execute(ADD, args!["b"])
        })
        .await;
    assert!(matches!(&told, Err(StoreError::Statement(text)) if text.contains("second")), "{told:?}");
    let deferred = t.store.single("later", |tx| tx.later(ADD, args!["c"], Expect::Any)).await;
    assert!(matches!(deferred, Err(StoreError::Statement(_))), "{deferred:?}");
    assert_eq!(names(&t).await, ["a"]);
}

/// Locks both things, waiting in its first run until the other one holds the first of his. Answers how often it ran.
async fn cross(store: &Store, meet: Arc<Barrier>, order: [&'static str; 2]) -> u32 {
    let mut runs = 0;
    let crossing = store.write("crossing", move |tx| {
        runs += 1;
        tx.execute(BUMP, args![order[0]])?;
        if runs == 1 {
            meet.wait();
        }
        tx.execute(BUMP, args![order[1]])?;
        Ok::<u32, StoreError>(runs)
    });
    crossing.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_deadlock_runs_again_and_both_succeed() {
    let t = TestStore::postgres(ROOMS).await;
    t.store
        .write("add", |tx| {
            tx.execute(ADD, args!["a"])?;
            tx.execute(ADD, args!["b"])
        })
        .await
        .unwrap();
    let meet = Arc::new(Barrier::new(2));
    let (one, other) = tokio::join!(cross(&t.store, Arc::clone(&meet), ["a", "b"]), cross(&t.store, meet, ["b", "a"]));
    assert_eq!(one + other, 3, "exactly one of them lost");
    assert_eq!(t.number("select min(n) from things").await, 2);
    assert_eq!(t.number("select max(n) from things").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serialization_failure_runs_again() {
    const FAIL: &str = "do $$ begin raise exception 'concurrent update' using errcode = '40001'; end $$";
    let t = TestStore::postgres(ROOMS).await;
    let mut runs = 0;
    let told = t
        .store
        .write("unlucky", move |tx| {
            runs += 1;
            tx.execute(ADD, args!["a"])?;
            if runs < 3 {
                tx.execute(FAIL, &[])?;
            }
            Ok::<u32, StoreError>(runs)
        })
        .await;
    assert_eq!(told, Ok(3));
    assert_eq!(names(&t).await, ["a"]);

    let told = t
        .store
        .write("hopeless", |tx| {
            tx.execute(ADD, args!["b"])?;
            tx.execute(FAIL, &[])
        })
        .await;
    assert!(matches!(told, Err(StoreError::Contention(_))), "{told:?}");
    assert_eq!(names(&t).await, ["a"]);
}

fn quick(pool_max: usize) -> StoreOptions {
    StoreOptions { pool_max, wait: Duration::from_millis(500), statement: Duration::from_secs(1) }
}

/// A store on an empty database of `server`, with one table.
async fn shop_on(server: &PgServer, options: StoreOptions) -> Store {
    server.create("shop", "template1").await;
    // This must survive a kill at any moment after it.
    let tables = "set synchronous_commit to on; create schema semel;
        create table semel.things (name text primary key, n bigint not null default 0)";
    server.run("shop", tables).await;
    Store::open(&server.url("shop"), options, Clock::system()).unwrap()
}

async fn add(store: &Store, name: &str) -> Result<u64, StoreError> {
    let name = name.to_owned();
    store.write("add", move |tx| tx.execute(ADD, args![&name])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_at_start_is_told_in_time_and_used_when_it_comes() {
    let server = PgServer::private();
    let store = shop_on(&server, quick(2)).await;
    server.stop_fast();
    let watch = Stopwatch::start();
    let told = add(&store, "early").await;
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    assert!(watch.elapsed() < Duration::from_secs(5), "it took {:?}", watch.elapsed());

    server.start();
    assert_eq!(add(&store, "in time").await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_uses_is_not_noticed() {
    let server = PgServer::private();
    let store = shop_on(&server, options()).await;
    let sleep = || store.read("warm", |tx| tx.rows(SLEEP, &[]).map(|_| ()));
    let (one, two, three) = tokio::join!(sleep(), sleep(), sleep());
    assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
    server.stop_fast();
    server.start();
    // A single statement travels with its commit: on a dead connection its outcome would be unknown.
    let one = store.single("one", |tx| tx.execute(ADD, args!["one"]));
    let two = store.single("two", |tx| tx.execute(ADD, args!["two"]));
    let three = add(&store, "three");
    assert_eq!(tokio::join!(one, two, three), (Ok(1), Ok(1), Ok(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_fails_what_was_under_way_and_nothing_else() {
    let server = PgServer::private();
    let store = shop_on(&server, quick(2)).await;
    let slow = store.clone();
    let under_way = tokio::spawn(async move {
        slow.write("slow", |tx| {
            tx.execute(ADD, args!["lost"])?;
            tx.rows("select 1 from (select pg_sleep(0.9)) s", &[]).map(|_| ())
        })
        .await
    });
    eventually("a session works", async || server.sessions().await > 0).await;
    server.kill_9();
    let told = under_way.await.unwrap();
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");

    server.start();
    assert_eq!(add(&store, "next").await, Ok(1));
    let rows = store.rows("names", "select name from things where name = 'lost'", &[]).await.unwrap();
    assert!(rows.is_empty(), "what was told as failed is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_is_given_up_in_time_and_taken_back_without_extra_sessions() {
    let server = PgServer::private();
    let store = shop_on(&server, quick(2)).await;
    let (one, two) = tokio::join!(add(&store, "one"), add(&store, "two"));
    assert_eq!((one, two), (Ok(1), Ok(1)));

    server.pause();
    let watch = Stopwatch::start();
    let callers: Vec<_> = (0..6).map(|n| add(&store, ["a", "b", "c", "d", "e", "f"][n])).collect();
    let told = futures_util::future::join_all(callers).await;
    let took = watch.elapsed();
    server.resume();
    for answer in &told {
        assert!(matches!(answer, Err(StoreError::Busy { .. } | StoreError::Unavailable(_))), "{answer:?}");
    }
    assert!(took < Duration::from_secs(8), "callers waited {took:?}");

    eventually("it works again", async || add(&store, "after").await.is_ok()).await;
    eventually("the given-up sessions are gone", async || server.sessions().await <= 2).await;
    let rows = store.rows("names", "select name from things order by name", &[]).await.unwrap();
    let found: Vec<String> = rows.iter().map(|row| row.get(0).unwrap()).collect();
    assert_eq!(found, ["after", "one", "two"], "nothing that was told as not done is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_unknown_and_runs_once() {
    let server = Arc::new(PgServer::private());
    let store = shop_on(&server, quick(2)).await;
    let (pauses, mut runs) = (Arc::clone(&server), 0);
    let told = store
        .write("paused", move |tx| {
            runs += 1;
            assert_eq!(runs, 1, "a commit of unknown fate was run again");
            tx.execute(ADD, args!["perhaps"])?;
            pauses.pause();
            Ok::<(), StoreError>(())
        })
        .await;
    server.resume();
    assert!(matches!(told, Err(StoreError::Unknown(_))), "{told:?}");
    // Its caller looks by key. Here it did happen.
    eventually("the look by key finds it", async || {
        let found = store.rows("look", "select 1 from things where name = 'perhaps'", &[]).await;
        found.is_ok_and(|rows| rows.len() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_sessions_than_the_pool_may_have() {
    let server = PgServer::private();
    let store = shop_on(&server, StoreOptions { pool_max: 3, ..options() }).await;
    let callers: Vec<_> = (0..60)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.read("slow", |tx| tx.rows(SLEEP, &[]).map(|_| ())).await })
        })
        .collect();
    let mut most = 0;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(server.sessions().await);
    }
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    assert!((1..=3).contains(&most), "{most} sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_told_that_the_database_is_busy() {
    let server = PgServer::private();
    let options = StoreOptions { pool_max: 1, wait: Duration::from_millis(200), ..options() };
    let store = shop_on(&server, options).await;
    let long = store.read("long", |tx| tx.rows("select 1 from (select pg_sleep(0.8)) s", &[]).map(|_| ()));
    let late = add(&store, "late");
    let (long, late) = tokio::join!(long, late);
    assert_eq!(long, Ok(()));
    assert_eq!(late, Err(StoreError::Busy { waited_ms: 200 }));
    let rows = store.rows("names", "select name from things", &[]).await.unwrap();
    assert!(rows.is_empty(), "what was told as busy ran later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_of_one_test_share_its_clock() {
    let t = TestStore::postgres(ROOMS).await;
    let before = t.number("select semel_now()").await;
    t.advance(Duration::from_secs(90)).await;
    let second = t.second_copy();
    let rows = second.rows("now", "select semel_now()", &[]).await.unwrap();
    assert_eq!(rows[0].get::<i64>(0), Ok(before + 90_000));
    assert_eq!(second.now(), t.store.now());
    assert_eq!(second.now().millis(), before + 90_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_time_is_the_database_s_own() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let t = TestStore::real_time(engine, ROOMS).await;
        let (system, database) = (t.clock.now().millis(), t.number("select semel_now()").await);
        assert!((database - system).abs() < 30_000, "{engine:?}: {database} is not near {system}");
    }
}

#[test]
fn a_cluster_leaves_nothing_behind() {
    let server = PgServer::private();
    let folder = server.folder().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}

/// Runs itself in a process that starts a cluster and dies without a word.
#[test]
fn a_test_process_that_dies_leaves_no_cluster_behind() {
    const TELL: &str = "SEMEL_TEST_TELL_FOLDER_TO";
    if let Some(file) = std::env::var_os(TELL) {
        let server = PgServer::private();
        fs::write(file, server.folder().to_str().unwrap()).unwrap();
        std::process::abort();
    }
    let told = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_test_process_that_dies_leaves_no_cluster_behind"])
        .env(TELL, told.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let folder = PathBuf::from(fs::read_to_string(told.path()).unwrap());
    assert!(folder.is_absolute(), "the process told no folder");
    let watch = Stopwatch::start();
    while folder.exists() {
        assert!(watch.elapsed() < Duration::from_secs(30), "{} is still there", folder.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}
