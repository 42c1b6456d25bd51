//! One append-only table: who did what to which thing, from which state to which, under which fence, when, how long.
//!
//! State changes, job runs and a thing's timeline are views of it. A state change carries the number `n` of the
//! change of its thing, and a unique key makes the n-th change happen once.

use crate::args;
use crate::clock::Time;
use crate::store::{ManySql, Row, StoreError, Tx};

crate::statements! {
    OF_THREAD = "select at, entity, entity_id, event, actor, from_state, to_state, took_ms, detail from history
        where thread = $1 order by seq limit $2";
}

const INSERT: ManySql = ManySql {
    sqlite: "insert into history (at, entity, entity_id, n, event, actor, from_state, to_state, fence, took_ms, thread, detail)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    postgres: "insert into history (at, entity, entity_id, n, event, actor, from_state, to_state, fence, took_ms, thread, detail)
        select * from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bigint[], $10::bigint[], $11::text[], $12::text[])",
};

/// One row to be written.
#[derive(Clone, Debug, Default)]
pub struct Entry<'a> {
    /// The kind of thing: `order`, `payment`, `job`.
    pub entity: &'a str,
    /// Its id.
    pub entity_id: &'a str,
    /// The number of this state change of this thing, from 1; `None` when no state changed.
    pub n: Option<i64>,
    /// What happened.
    pub event: &'a str,
    /// Who did it.
    pub actor: Option<&'a str>,
    /// The state before.
    pub from: Option<&'a str>,
    /// The state after.
    pub to: Option<&'a str>,
    /// The fence it was done under.
    pub fence: Option<i64>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<i64>,
    /// The story it belongs to: an order's id.
    pub thread: Option<&'a str>,
    /// A sentence or a value for the reader. Never secrets, never goods.
    pub detail: Option<&'a str>,
}

/// Appends `entry` at the transaction's moment.
pub fn append(tx: &mut Tx, entry: &Entry) -> Result<(), StoreError> {
    let now = tx.now();
    let args = args![
        now,
        entry.entity,
        entry.entity_id,
        entry.n,
        entry.event,
        entry.actor,
        entry.from,
        entry.to,
        entry.fence,
        entry.took_ms,
        entry.thread,
        entry.detail
    ];
    tx.gather(INSERT, args)
}

/// A row of a story, for people.
#[derive(Clone, Debug, serde::Serialize, PartialEq, Eq)]
pub struct Told {
    /// When, in RFC 3339.
    pub at: String,
    /// The kind of thing.
    pub entity: String,
    /// Its id.
    pub entity_id: String,
    /// What happened.
    pub event: String,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The state before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The state after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<i64>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The story `thread` from its beginning, at most `limit` rows.
pub fn story(tx: &mut Tx, thread: &str, limit: i64) -> Result<Vec<Told>, StoreError> {
    tx.rows(OF_THREAD, args![thread, limit])?.iter().map(told).collect()
}

fn told(row: &Row) -> Result<Told, StoreError> {
    Ok(Told {
        at: row.get::<Time>(0)?.to_string(),
        entity: row.get(1)?,
        entity_id: row.get(2)?,
        event: row.get(3)?,
        actor: row.get(4)?,
        from: row.get(5)?,
        to: row.get(6)?,
        took_ms: row.get(7)?,
        detail: row.get(8)?,
    })
}
