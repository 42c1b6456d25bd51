//! A transaction on one connection: what travels together, and what its answers mean.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

use super::error::{DIVISION, TOO_LONG, UNKNOWN_NAME, code, may_be_outdated, reason, store_error};
use super::lock;
use super::session::Link;
use super::values::{Parameter, columns, plain, row_of};
use crate::store::tx::Database;
use crate::store::{Expect, ManySql, Mode, Row, Sql, StoreError, Value};

/// What a session of our own is told once, so that its transactions need not be.
pub(super) const OURS: &str = "set search_path to semel; set statement_timeout to '10s'";
/// What a transaction that writes runs goes by keys, and keeps what has a partial index in its text: its plan need not know
/// its parameters and is made once for a statement and session, not anew for each of the first runs. What only looks may
/// ask for a range of all that ever was, whose plan depends on where the range begins.
const BEGIN: &str = "begin; set local plan_cache_mode to force_generic_plan";
const BEGIN_READ: &str = "begin read only";
/// Behind a pooler the next transaction may run in another session, so each one says it.
const BEGIN_ANYWHERE: &str = "begin; set local search_path to semel; set local statement_timeout to '10s'";
const BEGIN_READ_ANYWHERE: &str =
    "begin read only; set local search_path to semel; set local statement_timeout to '10s'";
/// How much longer a caller waits, whose commit is known, for statements that are prepared behind it.
const PREPARING: Duration = Duration::from_millis(250);

pub(super) struct OnPostgres<'a> {
    runtime: &'a Runtime,
    link: &'a mut Link,
    limit: Duration,
    mode: Mode,
    begun: bool,
    ended: bool,
    too_long: bool,
    pending: Vec<Pending>,
    /// Rows that nothing builds on, by statement; they go after what is pending.
    gathered: Vec<(ManySql, Vec<Vec<Value>>)>,
}

struct Pending {
    sql: Sql,
    args: Arguments,
    expect: Expect,
}

/// The arguments of a pending statement: values, or a column of values each.
enum Arguments {
    Plain(Vec<Value>),
    Columns(Vec<Vec<Value>>),
}

impl Pending {
    fn piece(&self) -> Piece<'_> {
        let params = match &self.args {
            Arguments::Plain(values) => plain(values),
            Arguments::Columns(rows) => columns(rows),
        };
        Piece::Text(self.sql.postgres, params)
    }

    /// The statement, failing in the database itself when it touches another number of rows.
    fn checked(&self) -> Piece<'_> {
        match (self.piece(), self.expect) {
            (Piece::Text(text, mut params), Expect::Rows(rows)) => {
                params.push(Parameter::Count(i64::try_from(rows).unwrap_or(i64::MAX)));
                Piece::Text(checked(text, params.len()), params)
            }
            (piece, _) => piece,
        }
    }

    fn unexpected(&self, found: u64) -> StoreError {
        let wanted = if let Expect::Rows(rows) = self.expect { rows } else { 0 };
        StoreError::Unexpected { statement: self.sql.postgres, wanted, found }
    }
}

/// `text`, dividing by zero unless it touches as many rows as its last parameter says. Made once for each statement.
fn checked(text: &'static str, last: usize) -> &'static str {
    type Texts = HashMap<(usize, usize, usize), &'static str>;
    static MADE: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
    let mut made = lock(&MADE);
    made.entry((text.as_ptr().addr(), text.len(), last)).or_insert_with(|| {
        let checked = format!(
            "with touched as ({text} returning 1) \
             select 1 / (case when count(*) = ${last} then 1 else 0 end) from touched"
        );
        Box::leak(checked.into_boxed_str())
    })
}

/// What is sent, with what it is made of.
enum Piece<'v> {
    Plain(&'static str),
    Text(&'static str, Vec<Parameter<'v>>),
    Prepared(Statement, Vec<Parameter<'v>>),
    /// A text that nobody keeps, without parameters.
    Once(&'v str),
}

type Answer = (Vec<tokio_postgres::Row>, u64);

/// The first error of what was sent.
struct Failure {
    position: usize,
    /// A division by zero: perhaps that of a checked statement.
    division: bool,
    error: StoreError,
}

impl<'a> OnPostgres<'a> {
    pub(super) fn new(runtime: &'a Runtime, link: &'a mut Link, limit: Duration, mode: Mode) -> Self {
        Self {
            runtime,
            link,
            limit,
            mode,
            begun: false,
            ended: false,
            too_long: false,
            pending: Vec::new(),
            gathered: Vec::new(),
        }
    }

    fn reads_only(&self) -> bool {
        matches!(self.mode, Mode::Read | Mode::Look)
    }

    /// Whether the server gave a statement up for its length: it would be no shorter on another connection.
    pub(super) fn ran_too_long(&self) -> bool {
        self.too_long
    }

    fn opening(&self) -> &'static str {
        match (self.reads_only(), self.link.direct) {
            (false, true) => BEGIN,
            (true, true) => BEGIN_READ,
            (false, false) => BEGIN_ANYWHERE,
            (true, false) => BEGIN_READ_ANYWHERE,
        }
    }

    /// Sends what is pending and `last` in one go; answers `last`.
    fn flush(&mut self, last: Option<Piece<'_>>, then_commit: bool) -> Result<Answer, StoreError> {
        let mut pending = std::mem::take(&mut self.pending);
        for (sql, rows) in std::mem::take(&mut self.gathered) {
            let sql = Sql::both(sql.postgres);
            pending.push(Pending { sql, args: Arguments::Columns(rows), expect: Expect::Any });
        }
        let wanted = last.is_some();
        // One statement that is all of its transaction is a transaction by itself, in a session that knows our schema.
        let alone = self.link.direct && then_commit && !self.begun && pending.len() + usize::from(wanted) == 1;
        let opening = !self.begun && !alone;
        let mut pieces = Vec::with_capacity(pending.len() + 3);
        if opening {
            pieces.push(Piece::Plain(self.opening()));
        }
        pieces.extend(pending.iter().map(|p| if then_commit { p.checked() } else { p.piece() }));
        pieces.extend(last);
        if then_commit && !alone {
            pieces.push(Piece::Plain("commit"));
        }
        self.begun = true;
        self.ended |= then_commit;
        let from = usize::from(opening);
        let mut answers = self.send(pieces, then_commit).map_err(|failure| {
            let failed = failure.position.checked_sub(from).and_then(|at| pending.get(at));
            match failed {
                // The database told that the count is wrong, not which it was.
                Some(p) if failure.division && p.expect != Expect::Any => p.unexpected(0),
                _ => failure.error,
            }
        })?;
        for (position, p) in pending.iter().enumerate().filter(|_| !then_commit) {
            let found = answers.get(from + position).map_or(0, |answer| answer.1);
            if let Expect::Rows(rows) = p.expect
                && rows != found
            {
                return Err(p.unexpected(found));
            }
        }
        if then_commit && !alone {
            answers.pop();
        }
        if wanted { answers.pop().ok_or(StoreError::Closed) } else { Ok((Vec::new(), 0)) }
    }

    /// Sends all in one go. With `committing` the transaction is over afterwards, and an answer that is lost leaves
    /// open whether its changes happened.
    fn send(&mut self, pieces: Vec<Piece<'_>>, committing: bool) -> Result<Vec<Answer>, Failure> {
        let unclear = committing && !self.reads_only();
        let link = &mut *self.link;
        let mut named = Vec::with_capacity(pieces.len());
        let mut pieces_to_send = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let piece = match piece {
                Piece::Text(text, params) if link.direct => match link.statements.meet(text, &params) {
                    Some(statement) => Piece::Prepared(statement, params),
                    None => Piece::Text(text, params),
                },
                piece => piece,
            };
            named.push(matches!(piece, Piece::Prepared(..)));
            pieces_to_send.push(piece);
        }
        let due = if committing { link.statements.take_due() } else { Vec::new() };

        let client = &link.client;
        let mut asking: Together<'_, Answer> = Together::default();
        for piece in pieces_to_send {
            asking.add(run(client, piece));
        }
        let mut preparing: Together<'_, Statement> = Together::default();
        for due in &due {
            preparing.add(client.prepare_typed(due.text, &due.types));
        }
        let limit = self.limit;
        self.runtime.block_on(async {
            // Each is polled in order from the start, so that the requests leave in order and travel together.
            let asked = poll_fn(|context| {
                let asked = asking.poll(context);
                let _ = preparing.poll(context);
                asked
            });
            let in_time = timeout(limit, asked).await.is_ok();
            if in_time && !due.is_empty() {
                let _ = timeout(PREPARING, poll_fn(|context| preparing.poll(context))).await;
            }
        });
        let (asked, prepared) = (asking.answers(), preparing.answers());
        for (due, statement) in due.iter().zip(prepared) {
            link.statements.learn(due, statement.and_then(Result::ok));
        }

        let mut good = Vec::with_capacity(asked.len());
        if asked.iter().any(Option::is_none) {
            let text = format!("no answer within {} s", limit.as_secs());
            let error = if unclear { StoreError::Unknown(text) } else { StoreError::Unavailable(text) };
            return Err(Failure { position: 0, division: false, error });
        }
        for (position, answer) in asked.into_iter().flatten().enumerate() {
            match answer {
                Ok(answer) => good.push(answer),
                Err(error) => {
                    let named = named.get(position) == Some(&true);
                    return Err(self.failure(position, &error, named, unclear));
                }
            }
        }
        Ok(good)
    }

    fn failure(&mut self, position: usize, error: &Error, named: bool, unclear: bool) -> Failure {
        let code = code(error);
        self.too_long |= code == TOO_LONG;
        let told = if named && may_be_outdated(code) {
            self.link.statements.clear();
            self.link.direct &= code != UNKNOWN_NAME;
            // The next run sends texts, and learns from them what is really wrong, if anything is.
            StoreError::Contention(format!("the schema changed under a prepared statement: {}", reason(error)))
        } else {
            match store_error(error) {
                StoreError::Unavailable(text) if unclear => StoreError::Unknown(text),
                other => other,
            }
        };
        Failure { position, division: code == DIVISION, error: told }
    }

    fn ask(&mut self, sql: &'static str, params: Vec<Parameter<'_>>) -> Result<Answer, StoreError> {
        self.ask_as(sql, Piece::Text(sql, params))
    }

    /// Asks `piece`, whose text is `text`.
    fn ask_as(&mut self, text: &str, piece: Piece<'_>) -> Result<Answer, StoreError> {
        if self.ended {
            return Err(StoreError::Statement(format!("a single-statement transaction ran a second one: {text:.80}")));
        }
        self.flush(Some(piece), matches!(self.mode, Mode::Single | Mode::Look))
    }

    /// Commits. What is pending travels together with the commit: the counts are checked inside the database, where a
    /// wrong one fails the transaction, so that the commit behind it becomes a rollback.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        if self.ended || (!self.begun && self.pending.is_empty() && self.gathered.is_empty()) {
            return Ok(());
        }
        self.flush(None, true).map(|_| ())
    }

    pub(super) fn undo(&mut self) {
        self.pending.clear();
        self.gathered.clear();
        if self.begun && !self.ended && !self.link.client.is_closed() {
            self.ended = true;
            let _ = self.send(vec![Piece::Plain("rollback")], false).map_err(|failure| failure.error);
        }
    }
}

impl Database for OnPostgres<'_> {
    fn rows(&mut self, sql: Sql, args: &[Value]) -> Result<Vec<Row>, StoreError> {
        let (rows, _) = self.ask(sql.postgres, plain(args))?;
        rows.iter().map(row_of).collect()
    }

    fn rows_of(&mut self, text: &str) -> Result<Vec<Row>, StoreError> {
        let (rows, _) = self.ask_as(text, Piece::Once(text))?;
        rows.iter().map(row_of).collect()
    }

    fn execute(&mut self, sql: Sql, args: &[Value]) -> Result<u64, StoreError> {
        Ok(self.ask(sql.postgres, plain(args))?.1)
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
        let (rows, _) = self.ask(sql.postgres, columns(&rows))?;
        rows.iter().map(row_of).collect()
    }
}

/// Requests under way, in the order in which they leave, each with its answer once it is there.
struct Together<'a, T> {
    running: Vec<Running<'a, T>>,
    answers: Vec<Option<Result<T, Error>>>,
}

type Running<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

impl<T> Default for Together<'_, T> {
    fn default() -> Self {
        Self { running: Vec::new(), answers: Vec::new() }
    }
}

impl<'a, T> Together<'a, T> {
    fn add(&mut self, request: impl Future<Output = Result<T, Error>> + 'a) {
        self.running.push(Box::pin(request));
        self.answers.push(None);
    }

    /// The answers that are there; what is still under way is given up.
    fn answers(self) -> Vec<Option<Result<T, Error>>> {
        self.answers
    }

    /// Moves each that has no answer yet; ready when all have one.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut all = Poll::Ready(());
        for (request, answer) in self.running.iter_mut().zip(&mut self.answers) {
            if answer.is_none() {
                match request.as_mut().poll(context) {
                    Poll::Ready(done) => *answer = Some(done),
                    Poll::Pending => all = Poll::Pending,
                }
            }
        }
        all
    }
}

async fn run(client: &Client, piece: Piece<'_>) -> Result<Answer, Error> {
    let rows = match piece {
        Piece::Plain(text) => return client.batch_execute(text).await.map(|()| (Vec::new(), 0)),
        Piece::Text(text, params) => {
            let typed = params.into_iter().map(|param| {
                let kind = param.kind();
                (param, kind)
            });
            client.query_typed_raw(text, typed).await?
        }
        Piece::Prepared(statement, params) => client.query_raw(&statement, params).await?,
        Piece::Once(text) => client.query_typed_raw(text, Vec::<(Parameter<'_>, Type)>::new()).await?,
    };
    let mut stream = std::pin::pin!(rows);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    let touched = stream.rows_affected().unwrap_or(0);
    Ok((rows, touched))
}
