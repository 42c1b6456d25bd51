//! Two engines, one face: [`Store::write`] and [`Store::read`] run a synchronous closure inside one transaction.
//!
//! The closure does database work and nothing else, and it may run again after a serialization failure or a deadlock.
//! An error ends it and undoes it; an `Ok` is told only after the commit is durable. A commit whose answer was lost is
//! [`StoreError::Unknown`]: never repeated blindly, its caller looks by key. Whoever holds a [`Tx`] waits for nothing
//! else. Waiting for the database is bounded and ends with a sentence that says what to do.

mod listen;
pub mod migrate;
mod postgres;
mod sql;
mod sqlite;
mod tx;
mod value;
mod wakes;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub use sql::{ManySql, Sql};
pub use tx::{Expect, Tx};
pub use value::{FromValue, Row, Value};

use crate::clock::{Clock, Time};
use work::{Task, Turn, Work};

/// Which database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The embedded database.
    Sqlite,
    /// PostgreSQL 13 or newer.
    Postgres,
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file; made when missing.
    Sqlite(PathBuf),
    /// A connection string, `postgres://…` or key-value.
    Postgres(String),
}

/// How a store behaves.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The most connections to PostgreSQL at any time.
    pub pool_max: usize,
    /// How long a caller waits for its turn before "database busy".
    pub wait: Duration,
    /// How long one statement, commit or connection attempt may take before the connection is given up.
    pub statement: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { pool_max: 8, wait: Duration::from_secs(3), statement: Duration::from_secs(8) }
    }
}

/// Why the database did not do it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing was done; the database did not take the work in time.
    #[error(
        "database busy: no turn within {waited_ms} ms; try again, and raise the pool or look for long transactions if it stays"
    )]
    Busy {
        /// How long the caller waited.
        waited_ms: u64,
    },
    /// Nothing was committed; the database cannot be reached or broke off.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The commit was sent and its answer was lost: it may have happened.
    #[error("the database did not tell whether the commit happened: {0}")]
    Unknown(String),
    /// The disk is full; reading goes on.
    #[error("the database's disk is full: free some space; nothing was changed")]
    Full,
    /// A constraint said no.
    #[error("the database refused: {0}")]
    Constraint(String),
    /// A serialization failure or a deadlock that did not clear in several runs.
    #[error("the database could not order concurrent changes: {0}")]
    Contention(String),
    /// A statement failed.
    #[error("statement failed: {0}")]
    Statement(String),
    /// A statement touched another number of rows than it must.
    #[error("{statement:.80} touched {found} rows instead of {wanted}")]
    Unexpected {
        /// The statement.
        statement: &'static str,
        /// Rows it must touch.
        wanted: u64,
        /// Rows it touched.
        found: u64,
    },
    /// A row that must be there is not.
    #[error("no row from {statement:.80}")]
    Missing {
        /// The statement.
        statement: &'static str,
    },
    /// A column held something else.
    #[error("expected {wanted}, found {found}")]
    Decode {
        /// What the code wanted.
        wanted: &'static str,
        /// What stood there.
        found: String,
    },
    /// Another program holds the database file.
    #[error("{0}")]
    InUse(String),
    /// The schema is not one this program may use.
    #[error("{0}")]
    Schema(String),
    /// The closure panicked; its work was undone.
    #[error("the transaction {0} panicked and was undone")]
    Panicked(&'static str),
    /// The store was closed.
    #[error("the database is closed: the program is stopping")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed soon without anybody's help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable(_) | Self::Contention(_) | Self::Unknown(_) | Self::Full)
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Contention(_))
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    options: StoreOptions,
    backend: Backend,
    wakes: Arc<wakes::Wakes>,
}

enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Store {
    /// Opens the database. On SQLite this takes the file for this process alone; on PostgreSQL nothing is connected
    /// before the first use, so a database that is down at start is met by the first caller, not here.
    pub fn open(url: &StoreUrl, options: StoreOptions, clock: Clock) -> Result<Store, StoreError> {
        let backend = match url {
            StoreUrl::Sqlite(path) => Backend::Sqlite(sqlite::Sqlite::open(path, &clock)?),
            StoreUrl::Postgres(text) => Backend::Postgres(postgres::Postgres::open(text, &options, &clock)?),
        };
        Ok(Store { inner: Arc::new(Inner { clock, options, backend, wakes: Arc::default() }) })
    }

    /// Which engine this is.
    pub fn engine(&self) -> Engine {
        match &self.inner.backend {
            Backend::Sqlite(_) => Engine::Sqlite,
            Backend::Postgres(_) => Engine::Postgres,
        }
    }

    /// Now, on the database's clock as far as it is known without asking.
    pub fn now(&self) -> Time {
        match &self.inner.backend {
            Backend::Sqlite(_) => self.inner.clock.now(),
            Backend::Postgres(postgres) => postgres.now(&self.inner.clock),
        }
    }

    /// What [`Tx::wake`] wakes in this process, and in other copies that hear of it ([`Store::hear_copies`]). One waiter
    /// a name; a wake while nobody waits is kept for the next wait.
    pub fn waker(&self, name: &'static str) -> Arc<tokio::sync::Notify> {
        self.inner.wakes.of(name)
    }

    /// The clock that this store was opened with.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Runs `f` in a transaction that may change things, and answers after the commit is durable.
    pub async fn write<T, E, F>(&self, label: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.run(label, Mode::Write, f).await
    }

    /// Like [`Store::write`] for a closure that runs **one** statement: on PostgreSQL one round trip in all.
    pub async fn single<T, E, F>(&self, label: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.run(label, Mode::Single, f).await
    }

    /// Runs `f` in a transaction that only reads.
    pub async fn read<T, E, F>(&self, label: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.run(label, Mode::Read, f).await
    }

    /// Like [`Store::read`] for a closure that runs **one** statement: on PostgreSQL one round trip in all.
    pub async fn look<T, E, F>(&self, label: &'static str, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.run(label, Mode::Look, f).await
    }

    /// Rows of one query, for views and pages.
    pub async fn rows(&self, label: &'static str, sql: impl Into<Sql>, args: &[Value]) -> Result<Vec<Row>, StoreError> {
        let (sql, args) = (sql.into(), args.to_vec());
        self.run(label, Mode::Look, move |tx| tx.rows(sql, &args)).await
    }

    /// Rows of a query whose text is only known at run time: predicates and tests. Never with foreign text. The text is
    /// forgotten with its answer; what is asked again and again has a constant text and goes through [`Store::rows`].
    pub async fn rows_of(&self, label: &'static str, text: String) -> Result<Vec<Row>, StoreError> {
        self.run(label, Mode::Look, move |tx| tx.rows_of(&text)).await
    }

    /// Takes a consistent copy of an embedded database while it is in use.
    pub async fn backup_to(&self, path: PathBuf) -> Result<(), StoreError> {
        match &self.inner.backend {
            Backend::Sqlite(_) => {
                let path = path.to_string_lossy().into_owned();
                self.run("store.backup", Mode::Read, move |tx| {
                    tx.execute("vacuum into $1", &[Value::Text(path.clone())]).map(|_| ())
                })
                .await
            }
            Backend::Postgres(_) => Err(StoreError::Schema("use pg_dump to back up PostgreSQL".into())),
        }
    }

    /// Whether a write would be taken now: a transaction that changes nothing, within `within`.
    pub async fn ping(&self, within: Duration) -> Result<(), StoreError> {
        let probe = self.run("store.ping", Mode::Write, |tx| tx.rows("select 1", &[]).map(|_| ()));
        match tokio::time::timeout(within, probe).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Busy { waited_ms: u64::try_from(within.as_millis()).unwrap_or(0) }),
        }
    }

    async fn run<T, E, F>(&self, label: &'static str, mode: Mode, f: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let turn = Arc::new(Turn::default());
        let wakes = Arc::clone(&self.inner.wakes);
        let task: Box<dyn Work> = Box::new(Task::new(label, f, sender, Arc::clone(&turn), wakes));
        match &self.inner.backend {
            Backend::Sqlite(sqlite) => sqlite.submit(mode, task)?,
            Backend::Postgres(postgres) => postgres.submit(mode, task)?,
        }
        turn.answered(receiver, self.inner.options.wait).await
    }
}

/// Alters an embedded database that no program uses, such as one that comes out of a backup: looks whether the file is
/// whole, runs `change` in one transaction, and leaves one synced file without a journal beside it.
///
/// # Errors
/// [`StoreError::Schema`] when the file is damaged, [`StoreError::Unavailable`] when it cannot be opened or synced; and
/// whatever `change` says. The file then holds what it held before.
pub fn change_copy<T, E>(path: &Path, clock: &Clock, change: impl FnOnce(&mut Tx) -> Result<T, E>) -> Result<T, E>
where
    E: From<StoreError>,
{
    sqlite::change_copy(path, clock, change)
}

/// Takes an embedded database's file for this process alone without opening it, until the answer is dropped.
///
/// # Errors
/// [`StoreError::InUse`] when a program holds it.
pub fn hold_file(path: &Path) -> Result<std::fs::File, StoreError> {
    sqlite::lock_beside(path)
}

/// What kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Write,
    Single,
    Read,
    Look,
}
