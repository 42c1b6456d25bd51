//! The schema: the same on both engines, moved forward once, and never touched when it is not ours.
#![allow(clippy::unwrap_used)]

use semel_kernel::clock::Clock;
use semel_kernel::store::migrate::{KERNEL, Migration, Room, migrate, pending, pending_in_file, shape};
use semel_kernel::store::{Engine, Store, StoreError, StoreUrl};
use semel_kernel::testing::{PgServer, TestStore, options};

const ROOMS: &[Room] = &[KERNEL];
const SHELVES: Room = Room {
    name: "shelves",
    steps: &[
        Migration {
            number: 1,
            name: "shelves",
            sqlite: "create table shelves (id text primary key) strict;",
            postgres: "create table shelves (id text primary key);",
        },
        Migration {
            number: 2,
            name: "width",
            sqlite: "-- Older programs do not ask for it.\nalter table shelves add column width integer;",
            postgres: "-- Older programs do not ask for it.\nalter table shelves add column width bigint;",
        },
    ],
};
const MORE: &[Room] = &[KERNEL, SHELVES];
const CHANGED: &[Room] = &[
    KERNEL,
    Room {
        name: "shelves",
        steps: &[
            Migration {
                number: 1,
                name: "shelves",
                sqlite: "create table shelves (id text primary key, owner text) strict;",
                postgres: "create table shelves (id text primary key, owner text);",
            },
            SHELVES.steps[1],
        ],
    },
];
const BROKEN: &[Room] = &[
    KERNEL,
    Room {
        name: "shelves",
        steps: &[
            SHELVES.steps[0],
            Migration {
                number: 2,
                name: "wrong",
                sqlite: "alter table nothing add column x",
                postgres: "alter table nothing add column x int",
            },
        ],
    },
];
const NONE: &[Room] = &[];

fn schema_error<T: std::fmt::Debug>(told: Result<T, StoreError>) -> String {
    match told {
        Err(StoreError::Schema(sentence)) => sentence,
        other => panic!("not refused: {other:?}"),
    }
}

semel_kernel::each_store! { NONE;
    async fn an_empty_database_is_told_its_steps_and_takes_them_once(t: TestStore) {
        let steps = ["kernel/0001 base", "kernel/0002 history_numbers", "shelves/0001 shelves", "shelves/0002 width"];
        assert_eq!(pending(&t.store, MORE).await.unwrap(), steps);
        assert!(shape(&t.store).await.unwrap().is_empty(), "a dry run left something behind");
        assert_eq!(migrate(&t.store, ROOMS).await.unwrap(), steps[..2]);
        assert_eq!(pending(&t.store, MORE).await.unwrap(), steps[2..]);
        assert_eq!(migrate(&t.store, MORE).await.unwrap(), steps[2..]);
        assert!(migrate(&t.store, MORE).await.unwrap().is_empty());
        assert!(pending(&t.store, MORE).await.unwrap().is_empty());
        assert!(shape(&t.store).await.unwrap().contains(&"shelves.width".to_owned()));
    }

    async fn a_step_that_fails_leaves_the_schema_as_it_was(t: TestStore) {
        migrate(&t.store, ROOMS).await.unwrap();
        let before = shape(&t.store).await.unwrap();
        assert!(migrate(&t.store, BROKEN).await.is_err());
        assert_eq!(shape(&t.store).await.unwrap(), before);
        assert_eq!(migrate(&t.store, MORE).await.unwrap().len(), 2);
    }

    async fn a_newer_database_is_refused(t: TestStore) {
        migrate(&t.store, MORE).await.unwrap();
        let sentence = schema_error(migrate(&t.store, ROOMS).await);
        assert!(sentence.contains("newer than this program") && sentence.contains("shelves/0001"), "{sentence}");
    }

    async fn a_step_that_was_applied_with_another_text_is_refused(t: TestStore) {
        migrate(&t.store, MORE).await.unwrap();
        let sentence = schema_error(migrate(&t.store, CHANGED).await);
        assert!(sentence.contains("shelves/0001") && sentence.contains("another text"), "{sentence}");
        assert!(pending(&t.store, CHANGED).await.is_err(), "a dry run must refuse it too");
    }

    async fn a_foreign_schema_is_refused_and_left_alone(t: TestStore) {
        let foreign = match t.engine() {
            Engine::Sqlite => vec!["create table alien (x integer) strict"],
            Engine::Postgres => vec!["create schema semel", "create table semel.alien (x bigint)"],
        };
        let made = t.store.write("alien", move |tx| foreign.iter().try_for_each(|text| tx.execute(*text, &[]).map(|_| ())));
        made.await.unwrap();
        let sentence = schema_error(migrate(&t.store, ROOMS).await);
        assert!(sentence.contains("not Semel's (alien"), "{sentence}");
        assert_eq!(shape(&t.store).await.unwrap(), ["alien.x"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_a_file_are_told_while_a_program_uses_it() {
    let t = TestStore::sqlite(NONE).await;
    let StoreUrl::Sqlite(path) = t.url() else { panic!("a test on SQLite has a file") };
    let told = |rooms| pending_in_file(&path, &t.clock, rooms);
    let steps = ["kernel/0001 base", "kernel/0002 history_numbers", "shelves/0001 shelves", "shelves/0002 width"];
    assert_eq!(told(MORE).unwrap(), steps, "of an empty file all");
    assert!(shape(&t.store).await.unwrap().is_empty(), "a look left something behind");

    migrate(&t.store, ROOMS).await.unwrap();
    assert_eq!(told(MORE).unwrap(), steps[2..]);
    let (path_of_writer, clock) = (path.clone(), t.clock.clone());
    let while_it_writes = t.store.write("mark", move |tx| {
        tx.execute("insert into marks (name, value) values ('story', '1')", &[])?;
        pending_in_file(&path_of_writer, &clock, MORE)
    });
    assert_eq!(while_it_writes.await.unwrap(), steps[2..]);
    migrate(&t.store, MORE).await.unwrap();
    assert!(told(MORE).unwrap().is_empty());

    assert!(schema_error(told(ROOMS)).contains("newer than this program"));
    assert!(schema_error(told(CHANGED)).contains("another text"));
    t.store.write("work", |tx| tx.execute("delete from marks", &[])).await.unwrap();
    let nowhere = path.with_file_name("nowhere.db");
    assert!(matches!(pending_in_file(&nowhere, &t.clock, MORE), Err(StoreError::Unavailable(_))));
    assert!(!nowhere.exists(), "to look makes no database");

    let alien = TestStore::sqlite(NONE).await;
    alien.store.write("alien", |tx| tx.execute("create table alien (x integer) strict", &[])).await.unwrap();
    let StoreUrl::Sqlite(path) = alien.url() else { panic!("a test on SQLite has a file") };
    assert!(schema_error(pending_in_file(&path, &alien.clock, MORE)).contains("not Semel's (alien"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_have_one_schema() {
    let sqlite = shape(&TestStore::sqlite(ROOMS).await.store).await.unwrap();
    let postgres = shape(&TestStore::postgres(ROOMS).await.store).await.unwrap();
    assert_eq!(sqlite, postgres);
    assert!(sqlite.contains(&"jobs.fence".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_others_outside_our_schema_do_not_disturb() {
    let t = TestStore::postgres(NONE).await;
    t.store.write("neighbour", |tx| tx.execute("create table public.alien (x bigint)", &[])).await.unwrap();
    assert_eq!(migrate(&t.store, ROOMS).await.unwrap().len(), KERNEL.steps.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_start_together_migrate_once() {
    let t = TestStore::postgres(NONE).await;
    let second = t.second_copy();
    let (one, other) = tokio::join!(migrate(&t.store, MORE), migrate(&second, MORE));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.len() + other.len(), KERNEL.steps.len() + SHELVES.steps.len());
    assert!(one.is_empty() || other.is_empty(), "one did all, the other waited: {one:?} {other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_is_told_as_such() {
    let told = Store::open(&StoreUrl::Postgres("postgres://host:notaport/db".into()), options(), Clock::system());
    let sentence = schema_error(told.map(|_| ()));
    assert!(sentence.contains("address is not valid"), "{sentence}");
    let missing = Store::open(&PgServer::shared().url("no_such_database"), options(), Clock::system()).unwrap();
    let told = missing.ping(std::time::Duration::from_secs(10)).await;
    assert!(matches!(&told, Err(StoreError::Unavailable(text)) if text.contains("no_such_database")), "{told:?}");
}
