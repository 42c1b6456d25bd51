//! Leases: the right to be the only one, for a while.
//!
//! A lease is a row with a holder, a fence and an end on the database's clock. It needs no session and no connection.
//! A holder that stops keeping it loses it by time; whoever takes it next holds a higher fence, and writes that carry
//! the old fence change nothing.

use std::time::Duration;

use crate::args;
use crate::clock::millis;
use crate::store::{StoreError, Tx};

crate::statements! {
    END_EXPIRED = "update lease_terms set ended_at = semel_now(), end_kind = 'expired', ended_by = $2
        where lease = $1 and ended_at is null and expires_at <= semel_now()";
    TAKE = "insert into lease_terms (lease, fence, owner, acquired_at, expires_at)
        select $1, coalesce(max(fence), 0) + 1, $2, semel_now(), semel_now() + $3 from lease_terms where lease = $1
        having sum(case when ended_at is null then 1 else 0 end) is null or sum(case when ended_at is null then 1 else 0 end) = 0
        on conflict do nothing returning fence";
    SUPERSEDE = "update lease_terms set ended_at = semel_now(), end_kind = 'superseded', ended_by = $2
        where lease = $1 and ended_at is null";
    KEEP = "update lease_terms set expires_at = semel_now() + $4
        where lease = $1 and fence = $2 and owner = $3 and ended_at is null and expires_at > semel_now()";
    RELEASE = "update lease_terms set ended_at = semel_now(), end_kind = 'released', ended_by = owner
        where lease = $1 and fence = $2 and owner = $3 and ended_at is null and expires_at > semel_now()";
    HOLDER = "select owner, fence from lease_terms where lease = $1 and ended_at is null and expires_at > semel_now()";
}

/// A term of a lease: whoever holds the highest fence may act.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is about.
    pub name: String,
    /// Who holds it.
    pub owner: String,
    /// Grows with every term.
    pub fence: i64,
}

/// Takes the lease `name` for `owner`, if nobody holds it.
pub fn take(tx: &mut Tx, name: &str, owner: &str, term: Duration) -> Result<Option<Lease>, StoreError> {
    tx.execute(END_EXPIRED, args![name, owner])?;
    let Some(row) = tx.first(TAKE, args![name, owner, millis(term)])? else { return Ok(None) };
    Ok(Some(Lease { name: name.to_owned(), owner: owner.to_owned(), fence: row.get(0)? }))
}

/// Takes the lease `name` from whoever holds it. Only for who knows that the holder is dead: a program on SQLite does,
/// because the lock beside its file lets one program run at a time.
pub fn supersede(tx: &mut Tx, name: &str, owner: &str, term: Duration) -> Result<Option<Lease>, StoreError> {
    tx.execute(SUPERSEDE, args![name, owner])?;
    take(tx, name, owner, term)
}

/// Keeps `lease` for another `term`. False when it was lost: stop at once.
pub fn keep(tx: &mut Tx, lease: &Lease, term: Duration) -> Result<bool, StoreError> {
    Ok(tx.execute(KEEP, args![&lease.name, lease.fence, &lease.owner, millis(term)])? == 1)
}

/// Gives `lease` back. False when it was lost before: somebody else's term is not touched.
pub fn release(tx: &mut Tx, lease: &Lease) -> Result<bool, StoreError> {
    Ok(tx.execute(RELEASE, args![&lease.name, lease.fence, &lease.owner])? == 1)
}

/// Who holds `name` now, and under which fence.
pub fn holder(tx: &mut Tx, name: &str) -> Result<Option<(String, i64)>, StoreError> {
    tx.first(HOLDER, args![name])?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}
