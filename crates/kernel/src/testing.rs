//! Tests on real databases: each story runs on SQLite and on PostgreSQL, and time moves only when the test moves it.
//!
//! PostgreSQL is a cluster of our own, started at first use and gone with the test process, however that ends. Only
//! with the feature `testing`; panics instead of errors, because nobody but a test calls this.
//!
//! ```text
//! semel_kernel::each_store! { ROOMS;
//!     /// A rule.
//!     async fn a_webhook_sent_twice_is_one_row(t: TestStore) {
//!         …
//!     }
//! }
//! ```

mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

pub use server::PgServer;

use crate::clock::{Chance, Clock, Time, millis};
use crate::store::migrate::{self, Room};
use crate::store::{Engine, Row, Sql, Store, StoreError, StoreOptions, StoreUrl, Value};

/// Where every manual clock starts: 2026-03-01T09:00:00Z.
pub const START: Time = Time::from_millis(1_772_355_600_000);

/// A migrated database for one test.
pub struct TestStore {
    /// The database.
    pub store: Store,
    /// The test's clock; it stands until [`TestStore::advance`].
    pub clock: Clock,
    /// Seeded: the same in every run.
    pub chance: Chance,
    place: Place,
}

enum Place {
    Sqlite { path: PathBuf, _folder: TempDir },
    Postgres { server: &'static PgServer, database: String },
}

/// Options that bear a crowded test machine.
pub fn options() -> StoreOptions {
    StoreOptions { pool_max: 6, wait: Duration::from_secs(15), statement: Duration::from_secs(15) }
}

impl TestStore {
    /// A database in a file of its own. Without rooms it stays empty.
    pub async fn sqlite(rooms: &'static [Room]) -> Self {
        Self::on(Engine::Sqlite, rooms, Clock::manual(START)).await
    }

    /// A database of the shared cluster. Without rooms it stays empty.
    pub async fn postgres(rooms: &'static [Room]) -> Self {
        Self::on(Engine::Postgres, rooms, Clock::manual(START)).await
    }

    /// A database on the system's clock, with its clock function untouched: for tests of whole processes.
    pub async fn real_time(engine: Engine, rooms: &'static [Room]) -> Self {
        Self::on(engine, rooms, Clock::system()).await
    }

    async fn on(engine: Engine, rooms: &'static [Room], clock: Clock) -> Self {
        let place = match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                Place::Sqlite { path: folder.path().join("semel.db"), _folder: folder }
            }
            Engine::Postgres => {
                let server = PgServer::shared();
                let database = fresh_database(server, rooms).await;
                if clock.is_manual() && !rooms.is_empty() {
                    server.run(&database, &clock_by_hand(clock.now())).await;
                }
                Place::Postgres { server, database }
            }
        };
        let store = Store::open(&place.url(), options(), clock.clone()).expect("the test's database opens");
        if engine == Engine::Sqlite && !rooms.is_empty() {
            migrate::migrate(&store, rooms).await.expect("the test's database is migrated");
        }
        Self { store, clock, chance: Chance::seeded(7), place }
    }

    /// Moves the test's clock, and with it the database's.
    pub async fn advance(&self, by: Duration) {
        assert!(self.clock.is_manual(), "a test in real time cannot move the time");
        if let Place::Postgres { server, database } = &self.place {
            let step = format!("update public.semel_test_clock set at = at + {}", millis(by));
            server.run(database, &step).await;
        }
        self.clock.advance(by);
    }

    /// Which engine this is.
    pub fn engine(&self) -> Engine {
        self.store.engine()
    }

    /// Where the database is, for a program of its own.
    pub fn url(&self) -> StoreUrl {
        self.place.url()
    }

    /// A second copy of the program on the same database. Panics on SQLite, where one file has one program.
    pub fn second_copy(&self) -> Store {
        assert!(self.engine() == Engine::Postgres, "SQLite has no second copy: one file belongs to one program");
        Store::open(&self.url(), options(), self.clock.clone()).expect("the second copy opens")
    }

    /// Whoever may compete with this store: a second copy on PostgreSQL, another task of the same program on SQLite.
    pub fn rival(&self) -> Store {
        match self.engine() {
            Engine::Postgres => self.second_copy(),
            Engine::Sqlite => self.store.clone(),
        }
    }

    /// All rows of a query.
    pub async fn rows(&self, sql: &'static str) -> Vec<Row> {
        self.store.rows("test.rows", sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The number that a query answers.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let rows = self.rows(sql).await;
        let row = rows.first().unwrap_or_else(|| panic!("no row: {sql}"));
        row.get(0).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The first column of all rows, as text.
    pub async fn texts(&self, sql: &'static str) -> Vec<String> {
        let rows = self.rows(sql).await;
        rows.iter().map(|row| row.get(0).unwrap_or_else(|error| panic!("{sql}: {error}"))).collect()
    }

    /// Lets the engine prepare each statement, and panics with the names of those that it does not understand.
    pub async fn prepare(&self, statements: &[(&'static str, Sql)]) {
        let mut wrong = Vec::new();
        for (name, sql) in statements {
            let answer = match &self.place {
                Place::Sqlite { .. } => self.explain(sql.sqlite).await.map_err(|error| error.to_string()),
                Place::Postgres { server, database } => server.prepare(database, sql.postgres).await,
            };
            if let Err(error) = answer {
                wrong.push(format!("{name}: {error}"));
            }
        }
        assert!(wrong.is_empty(), "{:?} does not understand:\n{}", self.engine(), wrong.join("\n"));
    }

    /// How the engine would run a statement, a line a step with the names of its indexes. `values` are the parameters as
    /// they stand in SQL. PostgreSQL looks at what its tables hold first, as it does by itself sooner or later; the program
    /// never lets SQLite do that.
    pub async fn plan(&self, sql: Sql, values: &[&str]) -> String {
        let (word, text, column) = match &self.place {
            Place::Sqlite { .. } => ("explain query plan", sql.sqlite, 3),
            Place::Postgres { server, database } => {
                server.run(database, "analyze").await;
                ("explain", sql.postgres, 0)
            }
        };
        let mut text = format!("{word} {text}");
        // The last one first: the name of the tenth begins with that of the first.
        for (index, value) in values.iter().enumerate().rev() {
            text = text.replace(&format!("${}", index + 1), value);
        }
        let rows = self.rows(Box::leak(text.into_boxed_str())).await;
        let lines: Vec<String> = rows.iter().map(|row| row.get(column).expect("a line of a plan")).collect();
        lines.join("\n")
    }

    async fn explain(&self, text: &'static str) -> Result<(), StoreError> {
        let args = vec![Value::Null; parameters(text)];
        let text: &'static str = Box::leak(format!("explain {text}").into_boxed_str());
        self.store.rows("test.explain", text, &args).await.map(|_| ())
    }
}

impl Place {
    fn url(&self) -> StoreUrl {
        match self {
            Place::Sqlite { path, .. } => StoreUrl::Sqlite(path.clone()),
            Place::Postgres { server, database } => server.url(database),
        }
    }
}

/// The highest `$n` of a statement.
fn parameters(text: &str) -> usize {
    let number =
        |after: &str| after.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<usize>().unwrap_or(0);
    text.split('$').skip(1).map(number).max().unwrap_or(0)
}

/// Every test gets a copy of a template, which is migrated once a process and set of rooms.
async fn fresh_database(server: &'static PgServer, rooms: &'static [Room]) -> String {
    static TEMPLATES: tokio::sync::Mutex<BTreeMap<String, String>> = tokio::sync::Mutex::const_new(BTreeMap::new());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let database = format!("t{}", COUNT.fetch_add(1, Ordering::SeqCst));
    let mut templates = TEMPLATES.lock().await;
    let key: Vec<String> = rooms.iter().map(|room| format!("{} {}", room.name, room.steps.len())).collect();
    let key = key.join(", ");
    if !templates.contains_key(&key) {
        let template = format!("template_of_rooms_{}", templates.len());
        server.create(&template, "template0").await;
        if !rooms.is_empty() {
            let store = Store::open(&server.url(&template), options(), Clock::system()).expect("the template opens");
            migrate::migrate(&store, rooms).await.expect("the template is migrated");
        }
        templates.insert(key.clone(), template);
    }
    server.create(&database, &templates[&key]).await;
    database
}

/// The database's clock as a row that the test moves. Its table lies outside our schema, which holds nothing foreign.
fn clock_by_hand(now: Time) -> String {
    format!(
        "create table public.semel_test_clock (at bigint not null);
         insert into public.semel_test_clock values ({});
         create or replace function semel.semel_now() returns bigint language sql stable as
             'select c.at from public.semel_test_clock c';",
        now.millis()
    )
}

/// Waits until `holds`; panics with `what` when it does not hold within twenty seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true that {what}");
}

/// Makes two tests of each story, one on SQLite and one on PostgreSQL: `each_store! { ROOMS; async fn a_rule(t: TestStore) { … } }`.
#[macro_export]
macro_rules! each_store {
    ($rooms:expr; $($(#[$doc:meta])* async fn $name:ident($store:ident: TestStore) $story:block)+) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn story($store: $crate::testing::TestStore) $story

            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                story($crate::testing::TestStore::sqlite($rooms).await).await;
            }

            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                story($crate::testing::TestStore::postgres($rooms).await).await;
            }
        }
    )+};
}
