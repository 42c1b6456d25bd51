//! Old rows that only take room: the bodies of notices that ended long ago, and the rows of jobs that are done.
//!
//! What makes a thing happen once stays for ever: a notice keeps its row with its keys, its hash and what it says, and of jobs
//! only kinds go that their caller names. What is not over is never touched.
//!
//! The work is done in pieces, a short transaction each, along the ids, which begin with their moment: a piece costs the same
//! however many rows lie before and behind it, and needs no index of its own. How far it came stands in `marks` and commits
//! with the piece, so a crash repeats nothing. What was not over when its turn came is passed by and stays: such rows are few.

use crate::args;
use crate::clock::Time;
use crate::ids::least_id;
use crate::store::{Sql, StoreError, Tx};

crate::statements! {
    REACHED = "select value from marks where name = $1";
    /// Never back: a worker that was thought dead may still write its piece.
    REACH = "insert into marks (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value
        where marks.value < excluded.value";
    NOTICES = "select max(id), count(*) from (select id from inbox where id > $1 and id < $2 order by id limit $3) piece";
    EMPTY = "update inbox set body = $3 where id > $1 and id <= $2 and state in ('applied', 'ignored', 'quarantined') and length(body) > 0";
    JOBS = "select max(id), count(*) from (select id from jobs where id > $1 and id < $2 order by id limit $3) piece";
    /// A call whose fate nobody told, or that was refused, stays on record. Kinds come as one JSON list; each engine opens it
    /// with its own function.
    FORGET = {
        sqlite: "delete from jobs where id > $1 and id <= $2 and state = 'done' and (outcome is null or outcome = 'confirmed')
            and kind in (select value from json_each($3))",
        postgres: "delete from jobs where id > $1 and id <= $2 and state = 'done' and (outcome is null or outcome = 'confirmed')
            and kind in (select json_array_elements_text(cast($3 as json)))",
    };
}

/// What one piece came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Rows that it changed.
    pub changed: u64,
    /// Whether there may be more to look at.
    pub more: bool,
}

/// Empties the bodies of ended notices that came before `before`: of the next `most` at most. A body's hash stays, and with it
/// the proof of what was acknowledged.
pub fn empty_bodies(tx: &mut Tx, before: Time, most: i64) -> Result<Piece, StoreError> {
    let Some(span) = Span::next(tx, "retention.inbox", NOTICES, &least_id("inb", before), most)? else {
        return Ok(Piece { changed: 0, more: false });
    };
    let changed = tx.execute(EMPTY, args![&span.after, &span.last, Vec::<u8>::new()])?;
    span.reached(tx)?;
    Ok(Piece { changed, more: span.more })
}

/// Deletes jobs of `kinds` that are done and were written before `before`: of the next `most` rows at most. A job's runs stay in
/// the history. Name only kinds whose slot guards nothing: once its row is gone, the same job could be written again.
pub fn forget_jobs(tx: &mut Tx, kinds: &[&str], before: Time, most: i64) -> Result<Piece, StoreError> {
    let Some(span) = Span::next(tx, "retention.jobs", JOBS, &least_id("job", before), most)? else {
        return Ok(Piece { changed: 0, more: false });
    };
    let changed = tx.execute(FORGET, args![&span.after, &span.last, serde_json::json!(kinds).to_string()])?;
    span.reached(tx)?;
    Ok(Piece { changed, more: span.more })
}

/// The next ids of a walk along a table: those after `after`, up to `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Span {
    mark: &'static str,
    /// The last id of the piece before; empty at the beginning.
    pub after: String,
    /// The last id of this one.
    pub last: String,
    /// Whether there may be more to look at.
    pub more: bool,
}

impl Span {
    /// The next `most` ids below `below`, from where the mark says that the walk has come. None when nothing is left. `ids` answers the
    /// greatest of them and how many they are, for the id that it begins after, the one that it ends before, and their number.
    ///
    /// # Errors
    /// What the store says.
    pub fn next(tx: &mut Tx, mark: &'static str, ids: Sql, below: &str, most: i64) -> Result<Option<Self>, StoreError> {
        let reached = tx.first(REACHED, args![mark])?;
        let after: String = reached.map(|row| row.get(0)).transpose()?.unwrap_or_default();
        let row = tx.one(ids, args![&after, below, most])?;
        let (last, found): (Option<String>, i64) = (row.get(0)?, row.get(1)?);
        Ok(last.map(|last| Self { mark, after, last, more: found == most }))
    }

    /// Writes that the walk has come past these ids.
    ///
    /// # Errors
    /// What the store says.
    pub fn reached(&self, tx: &mut Tx) -> Result<(), StoreError> {
        tx.execute(REACH, args![self.mark, &self.last]).map(|_| ())
    }
}
