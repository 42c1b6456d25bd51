//! A transaction as the code inside it sees it.

use super::{Engine, ManySql, Row, Sql, StoreError, Value};
use crate::clock::Time;

/// How many rows a statement must touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any number.
    Any,
    /// Exactly this many, or the transaction ends with [`StoreError::Unexpected`].
    Rows(u64),
}

/// What an engine does for a transaction.
pub(super) trait Database {
    fn rows(&mut self, sql: Sql, args: &[Value]) -> Result<Vec<Row>, StoreError>;
    fn rows_of(&mut self, text: &str) -> Result<Vec<Row>, StoreError>;
    fn execute(&mut self, sql: Sql, args: &[Value]) -> Result<u64, StoreError>;
    fn later(&mut self, sql: Sql, args: Vec<Value>, expect: Expect) -> Result<(), StoreError>;
    fn many(&mut self, sql: ManySql, rows: Vec<Vec<Value>>) -> Result<Vec<Row>, StoreError>;
    fn many_later(&mut self, sql: ManySql, rows: Vec<Vec<Value>>, expect: Expect) -> Result<(), StoreError>;
    fn gather(&mut self, sql: ManySql, row: Vec<Value>) -> Result<(), StoreError>;
}

/// A transaction. Short, plain and synchronous: it does database work and nothing else, and it may run again.
pub struct Tx<'a> {
    pub(super) database: &'a mut dyn Database,
    pub(super) engine: Engine,
    pub(super) now: Time,
    pub(super) failed: Option<StoreError>,
    pub(super) woken: Vec<&'static str>,
}

impl Tx<'_> {
    /// The moment of this transaction on the database's clock, as near as the program knows it without asking.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Which engine this runs on. For texts that truly differ; no business rule may ask.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Wakes who waits for `name` ([`super::Store::waker`]) once this transaction is committed.
    pub fn wake(&mut self, name: &'static str) {
        if !self.woken.contains(&name) {
            self.woken.push(name);
        }
    }

    /// Runs a statement and answers the number of rows it touched: look at it.
    pub fn execute(&mut self, sql: impl Into<Sql>, args: &[Value]) -> Result<u64, StoreError> {
        let answer = self.database.execute(sql.into(), args);
        self.note(answer)
    }

    /// Runs a statement whose answer nothing waits for, and which must touch as many rows as `expect` says.
    ///
    /// PostgreSQL sends such statements together with the next one, or before the commit: one round trip for all.
    pub fn later(&mut self, sql: impl Into<Sql>, args: &[Value], expect: Expect) -> Result<(), StoreError> {
        let answer = self.database.later(sql.into(), args.to_vec(), expect);
        self.note(answer)
    }

    /// All rows of a query, or of a statement with `returning`.
    pub fn rows(&mut self, sql: impl Into<Sql>, args: &[Value]) -> Result<Vec<Row>, StoreError> {
        let answer = self.database.rows(sql.into(), args);
        self.note(answer)
    }

    /// All rows of a query without parameters whose text is only known at run time. Nothing keeps the text: it is neither
    /// prepared nor remembered, so it may be as long and as many as there are questions. Never with foreign text.
    pub fn rows_of(&mut self, text: &str) -> Result<Vec<Row>, StoreError> {
        let answer = self.database.rows_of(text);
        self.note(answer)
    }

    /// The first row, if there is one.
    pub fn first(&mut self, sql: impl Into<Sql>, args: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, args)?.into_iter().next())
    }

    /// The one row that must be there.
    pub fn one(&mut self, sql: impl Into<Sql>, args: &[Value]) -> Result<Row, StoreError> {
        let sql = sql.into();
        match self.first(sql, args)? {
            Some(row) => Ok(row),
            None => Err(StoreError::Missing { statement: sql.sqlite }),
        }
    }

    /// Runs one statement for many rows whose answer nothing waits for; [`Expect::Any`], or all rows must be written.
    pub fn many_later(&mut self, sql: ManySql, rows: Vec<Vec<Value>>, expect: Expect) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let answer = self.database.many_later(sql, rows, expect);
        self.note(answer)
    }

    /// Writes one row that no other statement of this transaction builds on, whose answer nothing waits for: a row of
    /// history, a job, an entry. PostgreSQL gathers such rows and writes all rows of a kind with one statement, after
    /// everything that came before the next look or the commit.
    pub fn gather(&mut self, sql: ManySql, row: &[Value]) -> Result<(), StoreError> {
        let answer = self.database.gather(sql, row.to_vec());
        self.note(answer)
    }

    /// Runs one statement for many rows. Answers what its `returning` gave, in no promised order.
    pub fn many(&mut self, sql: ManySql, rows: Vec<Vec<Value>>) -> Result<Vec<Row>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.database.many(sql, rows);
        self.note(answer)
    }

    fn note<T>(&mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &answer
            && self.failed.is_none()
        {
            self.failed = Some(error.clone());
        }
        answer
    }
}
