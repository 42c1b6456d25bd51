//! PostgreSQL: at most `pool_max` connections, each driven by a thread of its own.
//!
//! A transaction sends `begin` together with its first statement, statements that nobody waits for together with the
//! next one, and no session state at all, so a transaction pooler in between is fine. A connection that failed or
//! fell silent is dropped; what had not reached its commit runs once more on a fresh one.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};

use super::tx::Database;
use super::work::{Verdict, Work};
use super::{Engine, Expect, ManySql, Mode, Row, Sql, StoreError, StoreOptions, Tx, Value};
use crate::clock::{Clock, Stopwatch, Time};
use crate::failpoint::hit;

const QUEUE: usize = 4096;
const RUNS: usize = 6;
const BEGIN: &str = "begin; set local search_path to semel; set local statement_timeout to '10s'";
const BEGIN_READ: &str = "begin read only; set local search_path to semel; set local statement_timeout to '10s'";

pub(super) struct Postgres {
    pool: Arc<Pool>,
}

struct Pool {
    config: Config,
    statement: Duration,
    clock: Clock,
    most: usize,
    /// The database's clock when a connection was last made, and how long ago that was.
    synced: Mutex<Option<(i64, Stopwatch)>>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Mode, Box<dyn Work>, Arc<Turn>)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Whether a caller still waits for its turn: `WAITING`, then `STARTED` or `GIVEN_UP`, once.
#[derive(Default)]
pub(super) struct Turn(AtomicU8);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Turn {
    fn take(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Postgres {
    pub(super) fn open(text: &str, options: &StoreOptions, clock: &Clock) -> Result<Self, StoreError> {
        let parsed: Result<Config, _> = text.parse();
        let mut config =
            parsed.map_err(|error| StoreError::Schema(format!("the database address is not valid: {error}")))?;
        config.connect_timeout(options.statement.min(Duration::from_secs(5))).application_name("semel");
        let pool = Pool {
            config,
            statement: options.statement,
            clock: clock.clone(),
            most: options.pool_max.max(1),
            synced: Mutex::new(None),
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        };
        Ok(Self { pool: Arc::new(pool) })
    }

    pub(super) fn now(&self, clock: &Clock) -> Time {
        if clock.is_manual() {
            return clock.now();
        }
        match &*lock(&self.pool.synced) {
            Some((at, since)) => Time::from_millis(at.saturating_add(since.millis())),
            None => clock.now(),
        }
    }

    pub(super) fn submit(&self, mode: Mode, work: Box<dyn Work>, wait: Duration) -> Result<Arc<Turn>, StoreError> {
        let turn = Arc::new(Turn::default());
        let mut state = lock(&self.pool.state);
        if state.queue.len() >= QUEUE {
            return Err(StoreError::Busy { waited_ms: u64::try_from(wait.as_millis()).unwrap_or(0) });
        }
        state.queue.push_back((mode, work, Arc::clone(&turn)));
        if state.idle < state.queue.len() && state.threads < self.pool.most {
            state.threads += 1;
            let pool = Arc::clone(&self.pool);
            let started = thread::Builder::new().name("store-postgres".into()).spawn(move || serve(&pool));
            if let Err(error) = started {
                state.threads -= 1;
                if state.threads == 0 {
                    state.queue.pop_back();
                    return Err(StoreError::Unavailable(format!("cannot start a thread: {error}")));
                }
            }
        }
        drop(state);
        self.pool.wake.notify_one();
        Ok(turn)
    }

    /// Waits for the outcome: a bounded time for the turn, then as long as the thread's own limits allow.
    pub(super) async fn answered<T, E: From<StoreError>>(
        &self,
        turn: Arc<Turn>,
        mut receiver: oneshot::Receiver<Result<T, E>>,
        options: &StoreOptions,
    ) -> Result<T, E> {
        let closed = || Err(StoreError::Closed.into());
        match tokio::time::timeout(options.wait, &mut receiver).await {
            Ok(answer) => answer.unwrap_or_else(|_| closed()),
            Err(_) if turn.take(GIVEN_UP) => {
                Err(StoreError::Busy { waited_ms: u64::try_from(options.wait.as_millis()).unwrap_or(0) }.into())
            }
            Err(_) => receiver.await.unwrap_or_else(|_| closed()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        lock(&self.pool.state).closed = true;
        self.pool.wake.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(pool: &Pool) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a database thread");
            lock(&pool.state).threads -= 1;
            return;
        }
    };
    let mut session = Session { runtime, client: None, carrier: None };
    loop {
        let mut state = lock(&pool.state);
        let (mode, work, turn) = loop {
            if let Some(next) = state.queue.pop_front() {
                break next;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            state = pool.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        };
        drop(state);
        if turn.take(STARTED) && !work.abandoned() {
            perform(pool, &mut session, mode, work);
        }
    }
}

struct Session {
    runtime: Runtime,
    client: Option<Client>,
    /// Carries the client's bytes; it moves only while the runtime runs something.
    carrier: Option<JoinHandle<()>>,
}

impl Session {
    /// Whether a connection lies ready. A server that went away meanwhile has closed its side, and the carrier sees that
    /// once it gets a few turns: better now than in the middle of a commit, whose outcome nobody could tell.
    fn is_alive(&mut self) -> bool {
        let Some(client) = &self.client else { return false };
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
        let alive = !client.is_closed();
        if !alive {
            self.part();
        }
        alive
    }

    fn connect(&mut self, pool: &Pool) -> Result<(), StoreError> {
        let limit = pool.statement.min(Duration::from_secs(5));
        let late = || StoreError::Unavailable(format!("no connection within {} ms", limit.as_millis()));
        let connecting = pool.config.connect(NoTls);
        let (client, connection) = match self.runtime.block_on(async { tokio::time::timeout(limit, connecting).await })
        {
            Ok(connected) => connected.map_err(|error| StoreError::Unavailable(reason(&error)))?,
            Err(_) => return Err(late()),
        };
        self.carrier = Some(self.runtime.spawn(async move {
            // The error reaches whoever waits for an answer.
            let _ = connection.await;
        }));
        let asking = client.query_typed_one("select (extract(epoch from clock_timestamp()) * 1000)::bigint", &[]);
        let asked = self.runtime.block_on(async { tokio::time::timeout(limit, asking).await });
        let at = match asked {
            Ok(row) => {
                row.and_then(|row| row.try_get::<_, i64>(0)).map_err(|error| StoreError::Unavailable(reason(&error)))
            }
            Err(_) => Err(late()),
        };
        match at {
            Ok(at) => {
                // A new connection reads the clock late by its own latency: the pool's time never goes back for it.
                let mut synced = lock(&pool.synced);
                let before = synced.as_ref().map(|(at, since)| at.saturating_add(since.millis()));
                *synced = Some((before.map_or(at, |before| before.max(at)), Stopwatch::start()));
                drop(synced);
                self.client = Some(client);
                Ok(())
            }
            Err(error) => {
                drop(client);
                self.part();
                Err(error)
            }
        }
    }

    /// Closes the connection now: what it left open must not keep its locks until this thread has work again.
    fn part(&mut self) {
        self.client = None;
        if let Some(carrier) = self.carrier.take() {
            carrier.abort();
            let _ = self.runtime.block_on(carrier);
        }
    }
}

fn perform(pool: &Pool, session: &mut Session, mode: Mode, mut work: Box<dyn Work>) {
    let mut outcome = Err(StoreError::Contention("gave up after several runs".into()));
    let mut reconnected = false;
    let label = work.label();
    for run in 0..RUNS {
        if !session.is_alive() {
            if let Err(error) = session.connect(pool) {
                outcome = Err(error);
                break;
            }
            reconnected = true;
        }
        let Some(client) = session.client.take() else { continue };
        let now = if pool.clock.is_manual() { pool.clock.now() } else { now_of(pool) };
        let mut database = OnPostgres {
            session,
            client: &client,
            pool,
            mode,
            begun: false,
            ended: false,
            pending: Vec::new(),
            gathered: Vec::new(),
        };
        let mut tx = Tx { database: &mut database, engine: Engine::Postgres, now, failed: None, woken: Vec::new() };
        if mode == Mode::Single {
            hit("commit.before", label);
        }
        let verdict = work.run(&mut tx);
        let ended = match &verdict {
            Verdict::Commit => {
                if mode == Mode::Write {
                    hit("commit.before", label);
                }
                let committed = database.commit();
                if !matches!(mode, Mode::Read | Mode::Look) {
                    hit("commit.after", label);
                }
                committed
            }
            // The connection is given up below, and its transaction with it.
            Verdict::Broken(StoreError::Unavailable(_) | StoreError::Unknown(_)) => Ok(()),
            _ => {
                database.undo();
                Ok(())
            }
        };
        let silent =
            matches!(verdict, Verdict::Broken(StoreError::Unavailable(_)) | Verdict::Broken(StoreError::Unknown(_)))
                || matches!(ended, Err(StoreError::Unavailable(_) | StoreError::Unknown(_)));
        if silent {
            drop(client);
            session.part();
        } else {
            session.client = Some(client);
        }
        let at_commit = verdict == Verdict::Commit;
        let error = match (verdict, ended) {
            (Verdict::Commit | Verdict::Undo, Ok(())) => {
                outcome = Ok(());
                break;
            }
            (Verdict::Again(error) | Verdict::Broken(error), Ok(())) | (_, Err(error)) => error,
        };
        let again = match &error {
            // What travelled with the commit met a change that came after the read: the closure reads anew and decides.
            StoreError::Constraint(_) | StoreError::Unexpected { .. } => at_commit && run < 2,
            StoreError::Contention(_) => {
                thread::sleep(Duration::from_millis(5 << run.min(5)));
                true
            }
            // A connection that died while it lay idle: nothing was committed, a fresh one may do.
            StoreError::Unavailable(_) => !reconnected,
            _ => false,
        };
        outcome = Err(error);
        if !again {
            break;
        }
    }
    work.finish(outcome);
}

fn now_of(pool: &Pool) -> Time {
    match &*lock(&pool.synced) {
        Some((at, since)) => Time::from_millis(at.saturating_add(since.millis())),
        None => pool.clock.now(),
    }
}

struct Pending {
    sql: Sql,
    args: Arguments,
    expect: Expect,
}

struct OnPostgres<'a> {
    session: &'a Session,
    client: &'a Client,
    pool: &'a Pool,
    mode: Mode,
    begun: bool,
    ended: bool,
    pending: Vec<Pending>,
    /// Rows that nothing builds on, by statement; they go after what is pending.
    gathered: Vec<(ManySql, Vec<Vec<Value>>)>,
}

/// The arguments of a pending statement: values, or a column of values each.
enum Arguments {
    Plain(Vec<Value>),
    Columns(Vec<Vec<Value>>),
}

impl Arguments {
    fn parameters(&self) -> Vec<(Parameter, Type)> {
        match self {
            Self::Plain(values) => values.iter().map(parameter).collect(),
            Self::Columns(rows) => columns(rows),
        }
    }
}

fn columns(rows: &[Vec<Value>]) -> Vec<(Parameter, Type)> {
    let count = rows.first().map_or(0, Vec::len);
    (0..count).map(|column| array(rows.iter().map(move |row| &row[column]))).collect()
}

/// What PostgreSQL says about the division in [`Pending::checked`].
const WRONG_COUNT: &str = "division by zero";

impl Pending {
    /// The statement, failing in the database itself when it touches another number of rows.
    fn checked(&self) -> Cow<'static, str> {
        match self.expect {
            Expect::Any => Cow::Borrowed(self.sql.postgres),
            Expect::Rows(rows) => Cow::Owned(format!(
                "with touched as ({} returning 1) select 1 / (case when count(*) = {rows} then 1 else 0 end) from touched",
                self.sql.postgres
            )),
        }
    }

    fn unexpected(&self) -> StoreError {
        let wanted = if let Expect::Rows(rows) = self.expect { rows } else { 0 };
        // The database told that the count is wrong, not which it was.
        StoreError::Unexpected { statement: self.sql.postgres, wanted, found: 0 }
    }
}

enum Piece {
    Plain(&'static str),
    Typed(Cow<'static, str>, Vec<(Parameter, Type)>),
}

type Parameter = Box<dyn ToSql + Sync>;
type Answer = (Vec<tokio_postgres::Row>, u64);

impl OnPostgres<'_> {
    /// Sends what is pending and `last` in one go; answers `last`.
    fn flush(
        &mut self,
        last: Option<(&'static str, Vec<(Parameter, Type)>)>,
        then_commit: bool,
    ) -> Result<Answer, StoreError> {
        let mut pieces = Vec::with_capacity(self.pending.len() + 3);
        let opening = !self.begun;
        if opening {
            pieces.push(Piece::Plain(if matches!(self.mode, Mode::Read | Mode::Look) { BEGIN_READ } else { BEGIN }));
        }
        let mut pending = std::mem::take(&mut self.pending);
        for (sql, rows) in std::mem::take(&mut self.gathered) {
            let sql = Sql::both(sql.postgres);
            pending.push(Pending { sql, args: Arguments::Columns(rows), expect: Expect::Any });
        }
        pieces.extend(pending.iter().map(|p| {
            let text = if then_commit { p.checked() } else { Cow::Borrowed(p.sql.postgres) };
            Piece::Typed(text, p.args.parameters())
        }));
        let wanted = last.is_some();
        if let Some((sql, params)) = last {
            pieces.push(Piece::Typed(Cow::Borrowed(sql), params));
        }
        if then_commit {
            pieces.push(Piece::Plain("commit"));
        }
        self.begun = true;
        self.ended |= then_commit;
        let from = usize::from(opening);
        let mut answers =
            self.send(pieces, then_commit).map_err(|(position, error)| match (error, position.checked_sub(from)) {
                (StoreError::Statement(text), Some(at)) if text == WRONG_COUNT && at < pending.len() => {
                    pending[at].unexpected()
                }
                (error, _) => error,
            })?;
        for (position, p) in pending.iter().enumerate().filter(|_| !then_commit) {
            let found = answers.get(from + position).map_or(0, |answer| answer.1);
            if let Expect::Rows(rows) = p.expect
                && rows != found
            {
                return Err(StoreError::Unexpected { statement: p.sql.postgres, wanted: rows, found });
            }
        }
        if then_commit {
            answers.pop();
        }
        if wanted { answers.pop().ok_or(StoreError::Closed) } else { Ok((Vec::new(), 0)) }
    }

    /// Sends all in one go. The first error is told with its position.
    fn send(&self, pieces: Vec<Piece>, committing: bool) -> Result<Vec<Answer>, (usize, StoreError)> {
        let client = self.client;
        let limit = self.pool.statement;
        let sent = self.session.runtime.block_on(async {
            let futures = pieces.into_iter().map(|piece| Box::pin(run(client, piece)) as Running<'_>).collect();
            tokio::time::timeout(limit, all(futures)).await
        });
        let Ok(answers) = sent else {
            let text = format!("no answer within {} s", limit.as_secs());
            return Err((0, if committing { StoreError::Unknown(text) } else { StoreError::Unavailable(text) }));
        };
        let mut good = Vec::with_capacity(answers.len());
        for (position, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) => good.push(answer),
                Err(error) => {
                    let error = match store_error(&error) {
                        StoreError::Unavailable(text) if committing => StoreError::Unknown(text),
                        other => other,
                    };
                    return Err((position, error));
                }
            }
        }
        Ok(good)
    }

    fn ask(&mut self, sql: &'static str, params: Vec<(Parameter, Type)>) -> Result<Answer, StoreError> {
        if self.ended {
            return Err(StoreError::Statement(format!("a single-statement transaction ran a second one: {sql:.80}")));
        }
        self.flush(Some((sql, params)), matches!(self.mode, Mode::Single | Mode::Look))
    }

    /// Commits. What is pending travels together with the commit: the counts are checked inside the database, where a
    /// wrong one fails the transaction, so that the commit behind it becomes a rollback.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.ended || (!self.begun && self.pending.is_empty() && self.gathered.is_empty()) {
            return Ok(());
        }
        self.flush(None, true).map(|_| ())
    }

    fn undo(&mut self) {
        self.pending.clear();
        self.gathered.clear();
        if self.begun && !self.ended && !self.client.is_closed() {
            self.ended = true;
            let _ = self.send(vec![Piece::Plain("rollback")], false).map_err(|(_, error)| error);
        }
    }
}

impl Database for OnPostgres<'_> {
    fn rows(&mut self, sql: Sql, args: &[Value]) -> Result<Vec<Row>, StoreError> {
        let (rows, _) = self.ask(sql.postgres, args.iter().map(parameter).collect())?;
        rows.iter().map(row_of).collect()
    }

    fn execute(&mut self, sql: Sql, args: &[Value]) -> Result<u64, StoreError> {
        Ok(self.ask(sql.postgres, args.iter().map(parameter).collect())?.1)
    }

    fn later(&mut self, sql: Sql, args: Vec<Value>, expect: Expect) -> Result<(), StoreError> {
        if matches!(self.mode, Mode::Single | Mode::Look) {
            return Err(StoreError::Statement("a single-statement transaction has no later".into()));
        }
        self.pending.push(Pending { sql, args: Arguments::Plain(args), expect });
        Ok(())
    }

    fn many_later(&mut self, sql: ManySql, rows: Vec<Vec<Value>>, expect: Expect) -> Result<(), StoreError> {
        let expect = if expect == Expect::Any { expect } else { Expect::Rows(rows.len() as u64) };
        self.pending.push(Pending { sql: Sql::both(sql.postgres), args: Arguments::Columns(rows), expect });
        Ok(())
    }

    fn gather(&mut self, sql: ManySql, row: Vec<Value>) -> Result<(), StoreError> {
        match self.gathered.iter_mut().find(|(known, _)| *known == sql) {
            Some((_, rows)) => rows.push(row),
            None => self.gathered.push((sql, vec![row])),
        }
        Ok(())
    }

    fn many(&mut self, sql: ManySql, rows: Vec<Vec<Value>>) -> Result<Vec<Row>, StoreError> {
        let params = columns(&rows);
        let (rows, _) = self.ask(sql.postgres, params)?;
        rows.iter().map(row_of).collect()
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Answer, tokio_postgres::Error>> + 'a>>;

async fn run(client: &Client, piece: Piece) -> Result<Answer, tokio_postgres::Error> {
    match piece {
        Piece::Plain(text) => client.batch_execute(text).await.map(|()| (Vec::new(), 0)),
        Piece::Typed(text, params) => {
            let stream = client.query_typed_raw(&text, params).await?;
            let mut stream = std::pin::pin!(stream);
            let mut rows = Vec::new();
            while let Some(row) = stream.try_next().await? {
                rows.push(row);
            }
            let touched = stream.rows_affected().unwrap_or(0);
            Ok((rows, touched))
        }
    }
}

/// Polls each in order from the start, so that the requests leave in order and travel together.
async fn all(mut futures: Vec<Running<'_>>) -> Vec<Result<Answer, tokio_postgres::Error>> {
    let mut answers: Vec<Option<Result<Answer, tokio_postgres::Error>>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut waiting = false;
        for (future, answer) in futures.iter_mut().zip(answers.iter_mut()) {
            if answer.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *answer = Some(done),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    answers.into_iter().flatten().collect()
}

fn parameter(value: &Value) -> (Parameter, Type) {
    match value {
        Value::Null => (Box::new(None::<String>), Type::UNKNOWN),
        Value::Int(v) => (Box::new(*v), Type::INT8),
        Value::Bool(v) => (Box::new(*v), Type::BOOL),
        Value::Text(v) => (Box::new(v.clone()), Type::TEXT),
        Value::Blob(v) => (Box::new(v.clone()), Type::BYTEA),
    }
}

/// One column of many rows as an array; its type is that of the first value that is not null.
fn array<'v>(column: impl Iterator<Item = &'v Value> + Clone) -> (Parameter, Type) {
    macro_rules! collect {
        ($variant:ident, $type:ident) => {{
            let values: Vec<_> = column
                .map(|value| match value {
                    Value::$variant(v) => Some(v.clone()),
                    _ => None,
                })
                .collect();
            (Box::new(values) as Parameter, Type::$type)
        }};
    }
    match column.clone().find(|value| !matches!(value, Value::Null)) {
        Some(Value::Int(_)) => collect!(Int, INT8_ARRAY),
        Some(Value::Bool(_)) => collect!(Bool, BOOL_ARRAY),
        Some(Value::Blob(_)) => collect!(Blob, BYTEA_ARRAY),
        _ => collect!(Text, TEXT_ARRAY),
    }
}

fn row_of(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        let told =
            |error: tokio_postgres::Error| StoreError::Decode { wanted: "a readable column", found: error.to_string() };
        let kind = column.type_();
        values.push(if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(index).map_err(told)?.into()
        } else if *kind == Type::INT4 {
            row.try_get::<_, Option<i32>>(index).map_err(told)?.into()
        } else if *kind == Type::BOOL {
            row.try_get::<_, Option<bool>>(index).map_err(told)?.into()
        } else if *kind == Type::BYTEA {
            row.try_get::<_, Option<Vec<u8>>>(index).map_err(told)?.into()
        } else if [Type::TEXT, Type::VARCHAR, Type::NAME, Type::UNKNOWN].contains(kind) {
            row.try_get::<_, Option<String>>(index).map_err(told)?.into()
        } else {
            return Err(StoreError::Decode {
                wanted: "an integer, flag, text or bytes",
                found: kind.name().to_owned(),
            });
        });
    }
    Ok(Row(values))
}

/// The error's text without the statement or the connection string.
fn reason(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => told.message().to_owned(),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn store_error(error: &tokio_postgres::Error) -> StoreError {
    let text = reason(error);
    let Some(code) = error.code().map(tokio_postgres::error::SqlState::code) else {
        return StoreError::Unavailable(text);
    };
    match code {
        "40001" | "40P01" => StoreError::Contention(text),
        "53100" => StoreError::Full,
        "57014" => StoreError::Unavailable(format!("{text}; a statement ran too long")),
        _ if code.starts_with("23") => StoreError::Constraint(text),
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("57") => {
            StoreError::Unavailable(text)
        }
        _ => StoreError::Statement(text),
    }
}
