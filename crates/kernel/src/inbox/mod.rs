//! The inbox: every foreign notice is one durable row *before* it is acknowledged.
//!
//! A notice is a hint. It never carries a decision; it only makes us look sooner. A repeat costs a lookup and pulls its
//! subject's job to now again, so an early, forged or lying hint can never use up a later true one. The same event with
//! other bytes is kept beside the first and acts on nothing by itself.

mod intake;
mod sql;

pub use intake::{Intake, IntakeOptions, accept};
pub use sql::STATEMENTS;

use crate::args;
use crate::clock::Time;
use crate::store::{Expect, Row, StoreError, Tx};

crate::id!(InboxId, "inb", "A notice from outside.");

/// A verified notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Who sends: `yookassa`.
    pub source: String,
    /// Which account of ours it is about.
    pub account: String,
    /// The sender's id of the event, or one made of what identifies it.
    pub event_id: String,
    /// What it says happened.
    pub event: String,
    /// The thing it is about, as the jobs that look after it are keyed; `None` when only asking can tell.
    pub subject: Option<String>,
    /// What it claims about state and sum, to compare two bodies of one event.
    pub says: String,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// Headers worth keeping, as JSON.
    pub headers: String,
    /// The sender's address.
    pub peer: Option<String>,
    /// Whether origin or signature were proved.
    pub verified: bool,
}

/// What became of a notice at the door. Each of them is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It was new.
    New,
    /// It was here before, byte for byte.
    Repeat,
    /// Its event was here before with other bytes.
    Differs,
}

/// Ends all waiting notices about `subject` that arrived before `before`: their subject was asked after that.
pub fn apply(tx: &mut Tx, subject: &str, before: Time) -> Result<(), StoreError> {
    let now = tx.now();
    tx.later(sql::APPLY, args![subject, before, now], Expect::Any)
}

/// Ends one notice.
pub fn end(tx: &mut Tx, id: &InboxId, state: &str, reason: Option<&str>) -> Result<(), StoreError> {
    let now = tx.now();
    tx.later(sql::END, args![id, state, reason, now], Expect::Any)
}

/// Says what a notice is about, once asking has told.
pub fn name_subject(tx: &mut Tx, id: &InboxId, subject: &str) -> Result<(), StoreError> {
    tx.later(sql::NAME, args![id, subject], Expect::Any)
}

/// What a notice says and how it stands.
pub fn says(tx: &mut Tx, id: &InboxId) -> Result<Option<(String, String)>, StoreError> {
    tx.first(sql::SAYS, args![id])?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// A stored notice.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its id.
    pub id: InboxId,
    /// Who sent it.
    pub source: String,
    /// Which account of ours.
    pub account: String,
    /// The sender's id of the event.
    pub event_id: String,
    /// What it says happened.
    pub event: String,
    /// What it is about.
    pub subject: Option<String>,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// `received`, `applied`, `ignored` or `quarantined`.
    pub state: String,
    /// Why it was ignored or quarantined.
    pub reason: Option<String>,
    /// How often it came.
    pub seen: i64,
    /// When it came first.
    pub received_at: Time,
    /// When it ended.
    pub terminal_at: Option<Time>,
}

/// Above every id: those are hexadecimal.
const ABOVE_ALL: &str = "inb_z";

fn stored(row: &Row) -> Result<Stored, StoreError> {
    Ok(Stored {
        id: row.get(0)?,
        source: row.get(1)?,
        account: row.get(2)?,
        event_id: row.get(3)?,
        event: row.get(4)?,
        subject: row.get(5)?,
        body: row.get(6)?,
        state: row.get(7)?,
        reason: row.get(8)?,
        seen: row.get(9)?,
        received_at: row.get(10)?,
        terminal_at: row.get(11)?,
    })
}

/// One notice by id.
pub fn find(tx: &mut Tx, id: &InboxId) -> Result<Option<Stored>, StoreError> {
    tx.first(sql::FIND, args![id])?.as_ref().map(stored).transpose()
}

/// The notices about one subject, the oldest first.
pub fn about(tx: &mut Tx, subject: &str, limit: i64) -> Result<Vec<Stored>, StoreError> {
    tx.rows(sql::ABOUT, args![subject, limit])?.iter().map(stored).collect()
}

/// Notices, the newest first: those in `state` if given, below the id `before` if given.
pub fn list(tx: &mut Tx, state: Option<&str>, before: Option<&str>, limit: i64) -> Result<Vec<Stored>, StoreError> {
    let below = before.unwrap_or(ABOVE_ALL);
    let rows = match state {
        None => tx.rows(sql::LIST, args![below, limit])?,
        Some("applied") => tx.rows(sql::LIST_APPLIED, args![below, limit])?,
        Some("received") => tx.rows(sql::LIST_RECEIVED, args![below, limit])?,
        Some(aside) => tx.rows(sql::LIST_ASIDE, args![below, limit, aside])?,
    };
    rows.iter().map(stored).collect()
}

/// Makes an ended notice wait again, so that its subject is asked anew. False when it waits already.
pub fn reopen(tx: &mut Tx, id: &InboxId) -> Result<bool, StoreError> {
    Ok(tx.execute(sql::REOPEN, args![id])? == 1)
}
