//! Leases: the right to be the only one, for a while.
//!
//! A lease is a row with a holder, a fence and an end on the database's clock. It needs no session and no connection.
//! A holder that stops keeping it loses it by time; whoever takes it next holds a higher fence, and writes that carry
//! the old fence change nothing.
//!
//! [`serve`] holds a lease for as long as a process lives, for work that one of several copies may do ([`Sole`]).

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::clock::{Time, millis};
use crate::failpoint::check;
use crate::store::{Row, Store, StoreError, Tx};

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
    END_KIND = "select end_kind from lease_terms where lease = $1 and fence = $2";
    HELD = "select lease, owner, fence, expires_at from lease_terms where ended_at is null and expires_at > semel_now() order by lease";
}

/// How often a standby looks whether the lease is free.
const LOOK: Duration = Duration::from_secs(2);
/// How soon keeping is tried again after the database did not answer.
const SOON: Duration = Duration::from_secs(1);
/// Over on every clock.
const PAST: Time = Time::from_millis(0);

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
    check("lease.take.before", kind(name))?;
    tx.execute(END_EXPIRED, args![name, owner])?;
    let Some(row) = tx.first(TAKE, args![name, owner, millis(term)])? else { return Ok(None) };
    check("lease.take.after", kind(name))?;
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
    check("lease.keep.before", kind(&lease.name))?;
    let kept = tx.execute(KEEP, args![&lease.name, lease.fence, &lease.owner, millis(term)])? == 1;
    check("lease.keep.after", kind(&lease.name))?;
    Ok(kept)
}

/// Gives `lease` back. False when it was lost before: somebody else's term is not touched.
pub fn release(tx: &mut Tx, lease: &Lease) -> Result<bool, StoreError> {
    check("lease.release.before", kind(&lease.name))?;
    let released = tx.execute(RELEASE, args![&lease.name, lease.fence, &lease.owner])? == 1;
    check("lease.release.after", kind(&lease.name))?;
    Ok(released)
}

/// Who holds `name` now, and under which fence.
pub fn holder(tx: &mut Tx, name: &str) -> Result<Option<(String, i64)>, StoreError> {
    tx.first(HOLDER, args![name])?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// A lease that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it is about.
    pub name: String,
    /// Who holds it.
    pub owner: String,
    /// The term's number.
    pub fence: i64,
    /// When it ends unless it is kept, on the database's clock.
    pub expires_at: Time,
}

/// Every lease that somebody holds now, by name.
pub fn held(tx: &mut Tx) -> Result<Vec<Held>, StoreError> {
    let rows = tx.rows(HELD, &[])?;
    let read = |row: &Row| {
        Ok::<_, StoreError>(Held { name: row.get(0)?, owner: row.get(1)?, fence: row.get(2)?, expires_at: row.get(3)? })
    };
    rows.iter().map(read).collect()
}

/// Work that one copy at a time may do: see [`serve`].
pub trait Sole: Sync {
    /// From now on the right to work lasts until `until` on this process's clock, and not a moment longer, whatever this
    /// process learns or does not learn. A moment that has passed takes the right away.
    fn holds(&self, until: Time);

    /// Does the work until `stop`, then ends what it has in hand. `clean` says that the holder before, if there was one, gave
    /// the lease back when it had ended; otherwise some of its last deeds may still be under way.
    fn work(&self, clean: bool, stop: CancellationToken) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Does `work` while `owner`, unique to this process, holds the lease `name`, until `stop`; stands by while another holds it.
///
/// The lease is kept each third of `term`. Should it be lost, or not be kept in time for whatever reason, the work is
/// stopped. Whoever waits takes over two seconds after the end of the term at the latest. At `stop` the lease is given back
/// once the work has ended. An error of the work gives it back, too, and ends this: run it under a supervisor.
pub async fn serve<S: Sole>(
    store: &Store,
    name: &str,
    owner: &str,
    term: Duration,
    work: &S,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut stood_by = false;
    while !stop.is_cancelled() {
        // Both from before the question: the term on the database's clock begins later, so it ends later, too.
        let (asked, end) = (store.clock().now(), Box::pin(sleep(term)));
        let Some((lease, clean)) = win(store, name, owner, term).await? else {
            if !stood_by {
                tracing::info!(lease.name = name, "Job already running in another instance");
            }
            stood_by = true;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
            continue;
        };
        stood_by = false;
        work.holds(asked + term);
        let ending = stop.child_token();
        let mut working = pin!(work.work(clean, ending.clone()));
        let ended = tokio::select! {
            ended = &mut working => Some(ended),
            () = keep_on(store, &lease, term, work, end) => None,
        };
        work.holds(PAST);
        if let Some(ended) = ended {
            let released = store.write("lease.release", move |tx| release(tx, &lease)).await;
            return ended.and(released.map(|_| ()));
        }
        tracing::warn!(lease.name = name, "lost the lease {name}: its work stops here, another instance may do it");
        ending.cancel();
        working.await?;
    }
    Ok(())
}

/// Takes the lease if nobody else holds it, and says whether the term before ended well. Looking comes first, because a
/// standby looks all the time and shall write nothing.
async fn win(store: &Store, name: &str, owner: &str, term: Duration) -> Result<Option<(Lease, bool)>, StoreError> {
    let of = name.to_owned();
    let held = store.look("lease.look", move |tx| holder(tx, &of)).await?;
    if held.is_some_and(|(who, _)| who != owner) {
        return Ok(None);
    }
    let (of, me) = (name.to_owned(), owner.to_owned());
    let won = store.write("lease.take", move |tx| {
        // Ours already: the answer to an earlier taking or keeping was lost.
        if let Some((who, fence)) = holder(tx, &of)?
            && who == me
        {
            let lease = Lease { name: of.clone(), owner: who, fence };
            return Ok(keep(tx, &lease, term)?.then_some((lease, false)));
        }
        let Some(lease) = take(tx, &of, &me, term)? else { return Ok(None) };
        let clean = before_ended_well(tx, &lease)?;
        Ok(Some((lease, clean)))
    });
    won.await
}

/// Whether the term before this one was given back. The first term has nobody before it.
fn before_ended_well(tx: &mut Tx, lease: &Lease) -> Result<bool, StoreError> {
    let Some(row) = tx.first(END_KIND, args![&lease.name, lease.fence - 1])? else { return Ok(true) };
    Ok(row.get::<Option<String>>(0)?.as_deref() == Some("released"))
}

/// Keeps `lease` until it is lost; `end` is when its term is over unless it is kept.
async fn keep_on<S: Sole>(store: &Store, lease: &Lease, term: Duration, work: &S, mut end: Pin<Box<Sleep>>) {
    let mut pause = term / 3;
    loop {
        let round = async {
            sleep(pause).await;
            let (asked, fresh, of) = (store.clock().now(), Box::pin(sleep(term)), lease.clone());
            (store.write("lease.keep", move |tx| keep(tx, &of, term)).await, asked, fresh)
        };
        let (kept, asked, fresh) = tokio::select! {
            () = &mut end => return,
            kept = round => kept,
        };
        pause = term / 3;
        match kept {
            Ok(true) => {
                work.holds(asked + term);
                end = fresh;
            }
            Ok(false) => return,
            // It lasts until its end all the same, and the database may be back before.
            Err(error) => {
                tracing::warn!(lease.name = %lease.name, %error, "could not keep a lease");
                pause = pause.min(SOON);
            }
        }
    }
}

/// What a lease is about, without whose it is: the part of the name before the colon. Places to break the program at have
/// names that are known before it runs.
fn kind(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}
