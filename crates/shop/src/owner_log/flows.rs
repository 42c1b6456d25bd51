//! Writing and reading the log.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Expect, Row, StoreError, Tx};

use super::{Act, Entry, Head, sql};

/// Writes the row of `act` into the transaction that does it. Call it last: who appends makes all others wait who append.
pub(crate) fn append(tx: &mut Tx, act: &Act) -> Result<(), StoreError> {
    let before = head_of(&tx.one(sql::HEAD_HELD, &[])?)?;
    let now = tx.now();
    let entry = Entry::after(&before, &act.actor, act.action, &act.subject(), &act.detail, now);
    let row = args![
        entry.seq,
        &entry.prev_hash,
        &entry.hash,
        &entry.actor,
        &entry.action,
        &entry.subject,
        &entry.detail,
        entry.at_ms
    ];
    tx.later(sql::APPEND, row, Expect::Rows(1))?;
    tx.later(sql::MOVE_HEAD, args![entry.seq, &entry.hash, before.seq], Expect::Rows(1))
}

fn head_of(row: &Row) -> Result<Head, StoreError> {
    Ok(Head { seq: row.get(0)?, hash: row.get(1)? })
}

/// The last link.
///
/// # Errors
/// The database did not answer, or the link is gone.
pub fn head(tx: &mut Tx) -> Result<Head, StoreError> {
    head_of(&tx.one(sql::HEAD, &[])?)
}

/// Entries in the order in which they were written, those after the number `seq`.
///
/// # Errors
/// The database did not answer.
pub fn after(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<Entry>, StoreError> {
    tx.rows(sql::AFTER, args![seq, limit])?.iter().map(entry_of).collect()
}

/// Entries, the newest first, those below the number `seq`.
///
/// # Errors
/// The database did not answer.
pub fn below(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<Entry>, StoreError> {
    tx.rows(sql::BELOW, args![seq, limit])?.iter().map(entry_of).collect()
}

fn entry_of(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        seq: row.get(0)?,
        prev_hash: row.get(1)?,
        hash: row.get(2)?,
        actor: row.get(3)?,
        action: row.get(4)?,
        subject: row.get(5)?,
        detail: row.get(6)?,
        at_ms: row.get::<Time>(7)?.millis(),
    })
}
