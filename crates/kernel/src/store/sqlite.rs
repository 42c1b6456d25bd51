//! SQLite: one writer thread with group commit, a few reader threads.
//!
//! What waits together shares one commit. A batch forms while the last one is being written, without a timer. Nearly
//! always all of it is kept, so its members run one after another without a savepoint, which would copy every page that
//! they touch; when one of them has to be undone after it wrote, the batch is rolled back and runs again, each under its
//! own savepoint, and so do the next few. Nobody is answered before the commit; a failed commit fails the whole batch; a
//! failed sync ends the process, because what the disk holds is unknown from then on.

mod copy;
mod peek;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement, ToSql, ffi, params_from_iter};

pub(super) use copy::change_copy;
pub(super) use peek::look_into;

use super::tx::Database;
use super::work::{Verdict, Work};
use super::{Engine, Expect, ManySql, Mode, Row, Sql, StoreError, Tx, Value};
use crate::clock::Clock;
use crate::failpoint::{check, fail, hit, told};

/// The oldest SQLite without the race between a commit and a checkpoint that loses the commit (fixed in 3.51.3).
const OLDEST: i32 = 3_051_003;
const BATCH: usize = 256;
const QUEUE: usize = 4096;
const READERS: usize = 3;
/// Batches that run under savepoints from the start after one that had to run twice: where some are undone, more will be.
const CAREFUL: u32 = 16;

pub(super) struct Sqlite {
    writer: SyncSender<Box<dyn Work>>,
    readers: SyncSender<Box<dyn Work>>,
    /// Held for the life of the store: one program per file.
    _lock: File,
}

impl Sqlite {
    pub(super) fn open(path: &Path, clock: &Clock) -> Result<Self, StoreError> {
        if rusqlite::version_number() < OLDEST {
            return Err(StoreError::Schema(format!(
                "SQLite {} can lose commits; 3.51.3 is needed",
                rusqlite::version()
            )));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            check("file.folder", "database")?;
            make_private_folder(folder)?;
        }
        check("file.lock", "database")?;
        let lock = lock_beside(path)?;
        check("file.locked", "database")?;
        let writer = connect(path, clock, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        check("file.opened", "database")?;
        make_private(path);
        check("file.private", "database")?;
        let (writes, write_queue) = sync_channel(QUEUE);
        let clock_of_writer = clock.clone();
        spawn("store-writer", move || write_loop(writer, &write_queue, &clock_of_writer))?;
        let (reads, read_queue) = sync_channel(QUEUE);
        let read_queue = Arc::new(Mutex::new(read_queue));
        for _ in 0..READERS {
            let connection = connect(path, clock, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let (queue, clock) = (Arc::clone(&read_queue), clock.clone());
            spawn("store-reader", move || read_loop(connection, &queue, &clock))?;
        }
        // The log beside the file is there now. SQLite syncs the folder when it first syncs the log, and does not look at
        // what became of that: without its name in the folder, what the log keeps would go with the power.
        sync_folder_of(path)?;
        check("file.synced", "database")?;
        Ok(Self { writer: writes, readers: reads, _lock: lock })
    }

    pub(super) fn submit(&self, mode: Mode, work: Box<dyn Work>) -> Result<(), StoreError> {
        let queue = if matches!(mode, Mode::Read | Mode::Look) { &self.readers } else { &self.writer };
        queue.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy { waited_ms: 0 },
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(|_| ()).map_err(|error| StoreError::Unavailable(format!("cannot start a thread: {error}")))
}

fn make_private_folder(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| StoreError::Unavailable(format!("cannot make the folder {}: {error}", folder.display())))
}

fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|opened| opened.sync_all());
    synced.map_err(|error| StoreError::Unavailable(format!("cannot sync the folder {}: {error}", folder.display())))
}

fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(file = %path.display(), %error, "cannot make the database readable for its owner only");
    }
}

/// The lock lies beside the file, because SQLite's own locks on it are taken and dropped with every transaction.
pub(super) fn lock_beside(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let open = File::options().create(true).truncate(false).write(true).open(&name);
    let file = open.map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", name.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(format!(
            "the database {} is in use by a running semel; stop it first, or let the command go through it",
            path.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(StoreError::Unavailable(format!("cannot lock {}: {error}", name.display())))
        }
    }
}

fn connect(path: &Path, clock: &Clock, flags: OpenFlags) -> Result<Connection, StoreError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let at = |error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display()));
    let connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection
        .execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;
             pragma busy_timeout = 2000; pragma journal_size_limit = 134217728; pragma cache_size = -12000; pragma wal_autocheckpoint = 16000;
             pragma temp_store = memory; pragma trusted_schema = off;",
        )
        .map_err(at)?;
    connection.set_prepared_statement_cache_capacity(256);
    // A plan that looks at bound values is made anew at each use. Ours need not: one plan a statement.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(at)?;
    teach_time(&connection, clock).map_err(at)?;
    Ok(connection)
}

/// Gives a connection the function `semel_now()`, which our statements ask.
fn teach_time(connection: &Connection, clock: &Clock) -> rusqlite::Result<()> {
    let clock = clock.clone();
    // "Deterministic" lets SQLite read the clock once a statement, which is just what PostgreSQL's `stable` does.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("semel_now", 0, flags, move |_| Ok(clock.now().millis()))
}

fn write_loop(mut connection: Connection, queue: &Receiver<Box<dyn Work>>, clock: &Clock) {
    let mut texts = Texts::default();
    let mut careful = 0;
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        if fail("store.taken", "writer") {
            batch.into_iter().for_each(|work| work.finish(Err(lost_by("store.taken", "writer"))));
            continue;
        }
        write_batch(&mut connection, &mut texts, batch, clock, &mut careful);
        hit("store.told", "writer");
    }
}

/// Runs `batch` and commits it. `careful` counts the batches to come that run under savepoints from the start.
fn write_batch(
    connection: &mut Connection,
    texts: &mut Texts,
    mut batch: Vec<Box<dyn Work>>,
    clock: &Clock,
    careful: &mut u32,
) {
    if let Err(error) = control(connection, "begin immediate") {
        let error = store_error(&error);
        batch.into_iter().for_each(|work| work.finish(Err(error.clone())));
        return;
    }
    // What is alone is undone with its transaction.
    let guarded = batch.len() > 1 && *careful > 0;
    *careful = careful.saturating_sub(1);
    let mut ran = run_batch(connection, texts, &mut batch, clock, guarded);
    if ran.again {
        *careful = CAREFUL;
        let anew = control(connection, "rollback").and_then(|()| control(connection, "begin immediate"));
        ran = match anew {
            Ok(()) => run_batch(connection, texts, &mut batch, clock, true),
            Err(error) => Ran { fates: vec![Ok(false); batch.len()], lost: Some(store_error(&error)), again: false },
        };
    }
    let Ran { fates, lost, .. } = ran;
    let outcome = match lost {
        Some(error) => Err(error),
        None if fates.contains(&Ok(true)) => {
            let kept = || batch.iter().zip(&fates).filter(|(_, fate)| **fate == Ok(true)).map(|(work, _)| work.label());
            // Every one is reached, also behind one that fails.
            let fails =
                kept().fold(None, |found, label| if fail("commit.before", label) { Some(label) } else { found });
            let committed = match fails {
                Some(label) => Err(lost_by("commit.before", label)),
                None => commit(connection),
            };
            if committed.is_ok() {
                // No error here: whoever waits for this commit lives and dies with the thread that made it.
                kept().for_each(|label| hit("commit.after", label));
            }
            committed
        }
        None => Ok(()),
    };
    if !connection.is_autocommit() {
        let _ = connection.execute_batch("rollback");
    }
    for (work, fate) in batch.into_iter().zip(fates) {
        // What was undone by its own error carries that error itself.
        work.finish(outcome.clone().and(fate.map(|_| ())));
    }
}

/// What running a batch came to.
struct Ran {
    /// For each of the batch, whether it shall be kept, or what its caller must hear although its closure said `Ok`.
    fates: Vec<Result<bool, StoreError>>,
    /// Why nothing of the batch can be kept.
    lost: Option<StoreError>,
    /// Something that was written has to be undone alone, which takes savepoints: the batch has to run again.
    again: bool,
}

fn run_batch(
    connection: &mut Connection,
    texts: &mut Texts,
    batch: &mut [Box<dyn Work>],
    clock: &Clock,
    guarded: bool,
) -> Ran {
    let alone = batch.len() == 1;
    let mut ran = Ran { fates: Vec::with_capacity(batch.len()), lost: None, again: false };
    for work in batch.iter_mut() {
        if ran.lost.is_some() || work.abandoned() {
            ran.fates.push(Ok(false));
            continue;
        }
        if guarded && let Err(error) = control(connection, "savepoint one") {
            ran.lost = Some(store_error(&error));
            ran.fates.push(Ok(false));
            continue;
        }
        let mut database = OnSqlite::new(connection, texts);
        let mut tx =
            Tx { database: &mut database, engine: Engine::Sqlite, now: clock.now(), failed: None, woken: Vec::new() };
        let verdict = work.run(&mut tx);
        let wrote = database.wrote;
        let fate = match &verdict {
            Verdict::Commit => Ok(true),
            Verdict::Undo => Ok(false),
            Verdict::Again(error) | Verdict::Broken(error) => Err(error.clone()),
        };
        // Some failures (disk full, out of memory) roll the whole transaction back by themselves.
        if connection.is_autocommit() {
            ran.lost = Some(match verdict {
                Verdict::Broken(error) => error,
                _ => StoreError::Unavailable("the database gave the batch up".into()),
            });
        } else if guarded {
            let undone = if fate == Ok(true) { Ok(()) } else { control(connection, "rollback to one") };
            ran.lost = undone.and_then(|()| control(connection, "release one")).err().map(|error| store_error(&error));
        } else if !alone && wrote && fate != Ok(true) {
            ran.again = true;
            return ran;
        }
        ran.fates.push(fate);
    }
    ran
}

fn lost_by(place: &str, label: &str) -> StoreError {
    StoreError::Unavailable(told(place, label))
}

/// A word that steers the transaction, prepared once.
fn control(connection: &Connection, word: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(word)?.execute([]).map(|_| ())
}

fn commit(connection: &Connection) -> Result<(), StoreError> {
    control(connection, "commit").map_err(|error| {
        if let rusqlite::Error::SqliteFailure(failure, _) = &error
            && matches!(failure.extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        {
            tracing::error!(%error, "a sync failed: what the disk holds is unknown, so the program ends");
            std::process::exit(74);
        }
        store_error(&error)
    })
}

fn read_loop(mut connection: Connection, queue: &Mutex<Receiver<Box<dyn Work>>>, clock: &Clock) {
    let mut texts = Texts::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut work) = next else { return };
        if work.abandoned() {
            continue;
        }
        if fail("store.taken", "reader") {
            work.finish(Err(lost_by("store.taken", "reader")));
            continue;
        }
        // `vacuum into` may not run inside a transaction.
        let plain = work.label() == "store.backup";
        if !plain && let Err(error) = control(&connection, "begin") {
            work.finish(Err(store_error(&error)));
            continue;
        }
        let mut database = OnSqlite::new(&mut connection, &mut texts);
        let mut tx =
            Tx { database: &mut database, engine: Engine::Sqlite, now: clock.now(), failed: None, woken: Vec::new() };
        let verdict = work.run(&mut tx);
        if !plain {
            let _ = control(&connection, "rollback");
        }
        work.finish(match verdict {
            Verdict::Broken(error) | Verdict::Again(error) => Err(error),
            Verdict::Commit | Verdict::Undo => Ok(()),
        });
        hit("store.told", "reader");
    }
}

/// Statements in SQLite's words: `$1` is a *named* parameter there, `?1` the numbered one.
#[derive(Default)]
struct Texts(HashMap<&'static str, String>);

impl Texts {
    fn of(&mut self, text: &'static str) -> &str {
        self.0.entry(text).or_insert_with(|| numbered(text))
    }
}

pub(super) fn numbered(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let parameter = c == '$' && chars.peek().is_some_and(char::is_ascii_digit);
        out.push(if parameter { '?' } else { c });
    }
    out
}

struct OnSqlite<'a> {
    connection: &'a mut Connection,
    texts: &'a mut Texts,
    /// Whether a statement ran that may have changed something.
    wrote: bool,
}

impl<'a> OnSqlite<'a> {
    fn new(connection: &'a mut Connection, texts: &'a mut Texts) -> Self {
        Self { connection, texts, wrote: false }
    }
}

impl Database for OnSqlite<'_> {
    fn rows(&mut self, sql: Sql, args: &[Value]) -> Result<Vec<Row>, StoreError> {
        let text = self.texts.of(sql.sqlite);
        let prepared = self.connection.prepare_cached(text);
        let mut statement = prepared.map_err(|error| statement_error(sql.sqlite, &error))?;
        self.wrote |= !statement.readonly();
        all_rows(&mut statement, args, sql.sqlite)
    }

    fn rows_of(&mut self, text: &str) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare(text).map_err(|error| statement_error(text, &error))?;
        self.wrote |= !statement.readonly();
        all_rows(&mut statement, &[], text)
    }

    fn execute(&mut self, sql: Sql, args: &[Value]) -> Result<u64, StoreError> {
        let text = self.texts.of(sql.sqlite);
        let told = |error| statement_error(sql.sqlite, &error);
        let mut statement = self.connection.prepare_cached(text).map_err(told)?;
        self.wrote |= !statement.readonly();
        let touched = statement.execute(params_from_iter(args)).map_err(told)?;
        Ok(touched as u64)
    }

    fn later(&mut self, sql: Sql, args: Vec<Value>, expect: Expect) -> Result<(), StoreError> {
        let found = self.execute(sql, &args)?;
        match expect {
            Expect::Rows(wanted) if wanted != found => {
                Err(StoreError::Unexpected { statement: sql.sqlite, wanted, found })
            }
            _ => Ok(()),
        }
    }

    fn many_later(&mut self, sql: ManySql, rows: Vec<Vec<Value>>, expect: Expect) -> Result<(), StoreError> {
        let each = if expect == Expect::Any { Expect::Any } else { Expect::Rows(1) };
        rows.into_iter().try_for_each(|row| self.later(Sql::both(sql.sqlite), row, each))
    }

    fn gather(&mut self, sql: ManySql, row: Vec<Value>) -> Result<(), StoreError> {
        self.later(Sql::both(sql.sqlite), row, Expect::Any)
    }

    fn many(&mut self, sql: ManySql, rows: Vec<Vec<Value>>) -> Result<Vec<Row>, StoreError> {
        let mut answers = Vec::new();
        for row in rows {
            answers.extend(self.rows(Sql::both(sql.sqlite), &row)?);
        }
        Ok(answers)
    }
}

fn all_rows(statement: &mut Statement<'_>, args: &[Value], text: &str) -> Result<Vec<Row>, StoreError> {
    let told = |error| statement_error(text, &error);
    let columns = statement.column_count();
    let mut found = statement.query(params_from_iter(args)).map_err(told)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(told)? {
        let mut values = Vec::with_capacity(columns);
        for index in 0..columns {
            values.push(value_of(row.get_ref(index).map_err(told)?)?);
        }
        rows.push(Row(values));
    }
    Ok(rows)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(v) => ValueRef::Integer(*v),
            Value::Bool(v) => ValueRef::Integer(i64::from(*v)),
            Value::Text(v) => ValueRef::Text(v.as_bytes()),
            Value::Blob(v) => ValueRef::Blob(v),
        }))
    }
}

fn value_of(found: ValueRef<'_>) -> Result<Value, StoreError> {
    Ok(match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(v) => Value::Int(v),
        ValueRef::Real(v) => return Err(StoreError::Decode { wanted: "no floating point", found: v.to_string() }),
        ValueRef::Text(v) => Value::Text(String::from_utf8_lossy(v).into_owned()),
        ValueRef::Blob(v) => Value::Blob(v.to_vec()),
    })
}

fn statement_error(statement: &str, error: &rusqlite::Error) -> StoreError {
    match store_error(error) {
        StoreError::Statement(text) => StoreError::Statement(format!("{text} in: {statement:.120}")),
        other => other,
    }
}

fn store_error(error: &rusqlite::Error) -> StoreError {
    let rusqlite::Error::SqliteFailure(failure, text) = error else {
        return StoreError::Statement(error.to_string());
    };
    let told = text.clone().unwrap_or_else(|| failure.to_string());
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full,
        ErrorCode::ConstraintViolation => StoreError::Constraint(told),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy { waited_ms: 2000 },
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::DatabaseCorrupt => {
            StoreError::Unavailable(told)
        }
        _ => StoreError::Statement(told),
    }
}
