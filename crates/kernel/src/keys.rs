//! Idempotency keys of our own API.
//!
//! A key belongs to a caller and a route, and remembers the fingerprint of its request. While its first request is
//! answered, others are told to wait; afterwards they get the same answer byte for byte. When the first request died,
//! the next one resumes what it had begun, found by the key's `resource`.

use std::time::Duration;

use crate::args;
use crate::clock::{Time, millis};
use crate::store::{Expect, StoreError, Tx};

crate::statements! {
    INSERT = "insert into keys (scope, key, fingerprint, state, owner, busy_until, created_at, expires_at)
        values ($1, $2, $3, 'in_flight', $4, $5, $6, $7) on conflict do nothing";
    FIND = { sqlite: "select fingerprint, state, owner, busy_until, resource, status, body, expires_at from keys where scope = $1 and key = $2",
        postgres: "select fingerprint, state, owner, busy_until, resource, status, body, expires_at from keys where scope = $1 and key = $2 for update" };
    TAKE_OVER = "update keys set owner = $3, busy_until = $4 where scope = $1 and key = $2 and state = 'in_flight'";
    RENEW = "update keys set fingerprint = $3, state = 'in_flight', owner = $4, busy_until = $5, resource = null, status = null, body = null,
        created_at = $6, expires_at = $7 where scope = $1 and key = $2";
    BIND = "update keys set resource = $3, expires_at = null where scope = $1 and key = $2 and owner = $4 and state = 'in_flight'";
    ANSWER = "update keys set state = 'answered', status = $3, body = $4 where scope = $1 and key = $2 and owner = $5 and state = 'in_flight'";
    DROP_KEY = "delete from keys where scope = $1 and key = $2 and owner = $3 and state = 'in_flight' and resource is null";
    FORGET = "delete from keys where expires_at is not null and expires_at < $1";
}

/// A request's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The caller and the route.
    pub scope: String,
    /// What the caller sent.
    pub key: String,
    /// Of method, path and body.
    pub fingerprint: String,
    /// Of this very request: unique.
    pub owner: String,
}

/// What a key says about its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The first request: go on, and answer the key.
    New,
    /// A request before this one died on the way: go on with what it began.
    Resume(String),
    /// Answered before: the same answer again.
    Answered {
        /// HTTP status.
        status: u16,
        /// The body's bytes.
        body: Vec<u8>,
    },
    /// The key was used with another request.
    Mismatch,
    /// The first request is still being answered.
    Busy {
        /// How long at most.
        wait: Duration,
    },
}

const BUSY: Duration = Duration::from_secs(30);
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Claims `key` at `now`, or says how it stands. `alive` tells whether a request of this process is still running,
/// given its owner; `None` when it belongs to another process.
pub fn claim(tx: &mut Tx, key: &Key, alive: &dyn Fn(&str) -> Option<bool>) -> Result<Standing, StoreError> {
    let now = tx.now();
    let (until, expires) = (now + BUSY, now + KEPT);
    if tx.execute(INSERT, args![&key.scope, &key.key, &key.fingerprint, &key.owner, until, now, expires])? == 1 {
        return Ok(Standing::New);
    }
    let Some(row) = tx.first(FIND, args![&key.scope, &key.key])? else {
        // Its request was refused and freed it at this very moment: the next try finds it free.
        return Ok(Standing::Busy { wait: Duration::from_secs(1) });
    };
    let expires_at: Option<Time> = row.get(7)?;
    if expires_at.is_some_and(|at| at <= now) {
        let args = args![&key.scope, &key.key, &key.fingerprint, &key.owner, until, now, expires];
        tx.later(RENEW, args, Expect::Rows(1))?;
        return Ok(Standing::New);
    }
    if row.get::<String>(0)? != key.fingerprint {
        return Ok(Standing::Mismatch);
    }
    if row.get::<String>(1)? == "answered" {
        let status = u16::try_from(row.get::<i64>(5)?).unwrap_or(500);
        return Ok(Standing::Answered { status, body: row.get::<Option<Vec<u8>>>(6)?.unwrap_or_default() });
    }
    let (owner, busy_until): (String, Time) = (row.get(2)?, row.get(3)?);
    let busy = alive(&owner).unwrap_or(busy_until > now);
    if busy {
        return Ok(Standing::Busy { wait: busy_until.since(now).clamp(Duration::from_secs(1), BUSY) });
    }
    tx.later(TAKE_OVER, args![&key.scope, &key.key, &key.owner, until], Expect::Rows(1))?;
    Ok(match row.get::<Option<String>>(4)? {
        Some(resource) => Standing::Resume(resource),
        None => Standing::New,
    })
}

/// Ties what the request begins to its key, in the transaction that begins it. The key then lives as long as that.
/// A request that lost its key to a later one ends here with its whole transaction: it begins nothing.
pub fn bind(tx: &mut Tx, key: &Key, resource: &str) -> Result<(), StoreError> {
    tx.later(BIND, args![&key.scope, &key.key, resource, &key.owner], Expect::Rows(1))
}

/// Stores the answer. False when another request took the key over meanwhile: answer nothing of your own then.
pub fn answer(tx: &mut Tx, key: &Key, status: u16, body: &[u8]) -> Result<bool, StoreError> {
    Ok(tx.execute(ANSWER, args![&key.scope, &key.key, i64::from(status), body, &key.owner])? == 1)
}

/// Frees the key of a request that was refused before it began anything.
pub fn release(tx: &mut Tx, key: &Key) -> Result<(), StoreError> {
    tx.later(DROP_KEY, args![&key.scope, &key.key, &key.owner], Expect::Any)
}

/// Forgets keys that expired.
pub fn forget(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now();
    tx.execute(FORGET, args![now])
}

/// Milliseconds that a request may keep its key before another may take it over.
pub fn busy_ms() -> i64 {
    millis(BUSY)
}
