//! Stops: a broken promise that was found, and the flows of money that wait until the owner releases them.
//!
//! A stop is a row, so it survives a restart and holds in every copy. What a flow asks on its way is a number in memory,
//! which follows the rows: at once in the process that found or released something, within two seconds in the others. Who
//! finds that number set looks at the rows before it turns somebody away, so a release counts at once everywhere.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs;
use semel_kernel::store::{Engine, Row, Store, StoreError, Tx};

use super::flow::{self, Flow};
use super::{MOST, gates, sql};
use crate::{Error, Shop, alerts};

semel_kernel::id!(StopId, "stp", "A broken promise and what waits because of it.");

/// What wakes who follows the stops: see [`Store::waker`].
const WAKE: &str = "stops";
/// How often another copy's stops and releases are looked for.
const POLL: Duration = Duration::from_secs(2);
/// Waiting jobs that are looked through or woken at once.
const BATCH: i64 = 200;
const REASON_CHARS: usize = 500;

/// What the running program knows of the stops.
#[derive(Debug, Default)]
pub struct Stops {
    flows: AtomicU8,
    open: Mutex<Vec<Open>>,
}

/// An open stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The stop.
    pub id: StopId,
    /// The broken promise.
    pub predicate: String,
    /// What waits.
    pub flows: Vec<Flow>,
}

impl Stops {
    /// Whether `flow` is stopped, as far as this process knows: a look at one number.
    pub fn has(&self, flow: Flow) -> bool {
        self.flows.load(Ordering::SeqCst) & flow.bit() != 0
    }

    /// The oldest stop that holds `flow`.
    pub fn of(&self, flow: Flow) -> Option<Open> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().find(|stop| stop.flows.contains(&flow)).cloned()
    }

    fn set(&self, stops: Vec<Open>) {
        let flows = stops.iter().flat_map(|stop| &stop.flows).fold(0, |bits, flow| bits | flow.bit());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if *open != stops {
            tracing::warn!(open = stops.len(), flows, "what the self-audit stopped has changed");
        }
        *open = stops;
        self.flows.store(flows, Ordering::SeqCst);
    }
}

/// Reads which stops are open. Call it at start, and after every change.
///
/// # Errors
/// The database did not answer; what was known stays.
pub async fn refresh(shop: &Shop) -> Result<(), StoreError> {
    let rows = shop.store.rows("audit.open", sql::OPEN, &[]).await?;
    let open = rows.iter().map(open_of).collect::<Result<Vec<_>, _>>()?;
    shop.stops().set(open);
    Ok(())
}

fn open_of(row: &Row) -> Result<Open, StoreError> {
    Ok(Open { id: row.get(0)?, predicate: row.get(1)?, flows: flow::read(&row.get::<String>(2)?) })
}

/// Whether `flow` is stopped now, by the rows: for who has found it stopped by [`Stops::has`].
///
/// # Errors
/// The database did not answer.
pub async fn holds(shop: &Shop, flow: Flow) -> Result<bool, StoreError> {
    if !shop.stops().has(flow) {
        return Ok(false);
    }
    refresh(shop).await?;
    Ok(shop.stops().has(flow))
}

/// Whether an open stop holds `flow`, inside a transaction that writes because of the answer: no stop can be released
/// before that commits.
pub(super) fn still_holds(tx: &mut Tx, flow: Flow) -> Result<bool, StoreError> {
    for row in &tx.rows(sql::OPEN_SHARED, &[])? {
        if open_of(row)?.flows.contains(&flow) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why `flow` does not go on now, in a sentence for whoever wanted it.
pub fn sentence(shop: &Shop, flow: Flow) -> String {
    let cause = match shop.stops().of(flow) {
        Some(stop) => format!("the self-audit found promise {} broken (stop {})", stop.predicate, stop.id),
        None => "the self-audit found a promise broken".to_owned(),
    };
    format!("{} are stopped: {cause}, and the owner has not released it yet", flow.as_str())
}

/// Follows what other copies stop and release, until `stop`. With SQLite there is no other copy, and nothing is asked.
///
/// # Errors
/// The database did not answer: run it under a supervisor.
pub async fn follow(shop: Shop, stop: impl Future<Output = ()> + Send) -> Result<(), StoreError> {
    let mut stop = std::pin::pin!(stop);
    let wake = shop.store.waker(WAKE);
    loop {
        refresh(&shop).await?;
        let pause = pause(&shop.store);
        tokio::select! {
            () = stop.as_mut() => return Ok(()),
            () = wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn pause(store: &Store) -> Duration {
    if store.engine() == Engine::Postgres { POLL } else { Duration::from_secs(24 * 3600) }
}

/// A broken promise with the rows that break it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) predicate: &'static str,
    pub(super) rows: Vec<String>,
}

impl Finding {
    /// Adds what one query of `predicate` found.
    pub(super) fn add(findings: &mut Vec<Finding>, predicate: &'static str, rows: Vec<String>) {
        if rows.is_empty() {
            return;
        }
        match findings.iter_mut().find(|finding| finding.predicate == predicate) {
            Some(finding) => finding.rows.extend(rows),
            None => findings.push(Finding { predicate, rows }),
        }
    }
}

/// Stops what `findings` touch, tells the owner, and makes the flags of this process say so.
pub(super) async fn stop(shop: &Shop, findings: &[Finding]) -> Result<(), Error> {
    let findings = findings.to_vec();
    let of = shop.clone();
    shop.store
        .write("audit.stop", move |tx| {
            for finding in &findings {
                stop_one(tx, &of, finding)?;
            }
            Ok::<_, Error>(())
        })
        .await?;
    Ok(refresh(shop).await?)
}

fn stop_one(tx: &mut Tx, shop: &Shop, finding: &Finding) -> Result<(), Error> {
    let rows = tx.rows(sql::OF_PREDICATE, args![finding.predicate])?;
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut open: Option<(String, Vec<String>)> = None;
    for row in &rows {
        let found = list(row.get(2)?)?;
        known.extend(found.iter().cloned());
        if row.get::<String>(1)? == "open" {
            open = Some((row.get(0)?, found));
        }
    }
    // A row that was released once is known: entries of the books cannot be taken back, and the owner has looked at it.
    let news: BTreeSet<&String> = finding.rows.iter().filter(|row| !known.contains(*row)).collect();
    if news.is_empty() {
        return Ok(());
    }
    if let Some((id, mut found)) = open {
        found.extend(news.into_iter().cloned());
        found.truncate(MOST);
        tx.execute(sql::ADD_FOUND, args![id, json(&found)])?;
        return Ok(());
    }
    let found: Vec<String> = news.into_iter().take(MOST).cloned().collect();
    let now = tx.now();
    let (id, flows) = (StopId::new(now, &shop.chance), flow::stopped_by(finding.predicate));
    let args = args![&id, finding.predicate, flow::words(flows), json(&found), now];
    if tx.execute(sql::STOP, args)? == 1 {
        tx.wake(WAKE);
        alerts::flows::raise(tx, shop, format!("audit:{id}"), alarm(&id, finding.predicate, flows, &found))?;
    }
    Ok(())
}

/// What the owner is told.
fn alarm(id: &StopId, predicate: &str, flows: &[Flow], found: &[String]) -> String {
    let promise = super::words::of(predicate).unwrap_or(predicate);
    let first: Vec<&str> = found.iter().take(3).map(String::as_str).collect();
    let flows: Vec<&str> = flows.iter().map(|flow| flow.as_str()).collect();
    let effect = match flows.as_slice() {
        [] => "Nothing is stopped by it".to_owned(),
        flows => format!("Stopped: {}; money that comes in is still taken", flows.join(", ")),
    };
    format!(
        "The self-audit found promise {predicate} broken ({promise}): {} rows, such as {}. {effect}. Look with `semel verify`; \
         when it is understood, `semel audit release {id} --reason …`",
        found.len(),
        first.join(" ")
    )
}

fn json(rows: &[String]) -> String {
    serde_json::Value::from(rows.to_vec()).to_string()
}

fn list(text: String) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(&text)
        .map_err(|error| StoreError::Decode { wanted: "a list of rows", found: error.to_string() })
}

/// A stop as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct StopView {
    /// Its id.
    pub id: String,
    /// The broken promise.
    pub predicate: String,
    /// What was promised, in words.
    pub meaning: String,
    /// What waits, or waited; nothing where a broken promise only alerts.
    pub flows: Vec<&'static str>,
    /// The rows that break it.
    pub rows: Vec<String>,
    /// `open` or `released`.
    pub state: String,
    /// When it was found, RFC 3339.
    pub at: String,
    /// When it was released, RFC 3339.
    pub released_at: Option<String>,
    /// Who released it.
    pub released_by: Option<String>,
    /// Why it was released.
    pub reason: Option<String>,
}

fn view(row: &Row) -> Result<StopView, StoreError> {
    let predicate: String = row.get(1)?;
    Ok(StopView {
        id: row.get(0)?,
        meaning: super::words::of(&predicate).unwrap_or_default().to_owned(),
        predicate,
        flows: flow::read(&row.get::<String>(2)?).into_iter().map(Flow::as_str).collect(),
        rows: list(row.get(3)?)?,
        state: row.get(4)?,
        at: row.get::<Time>(5)?.to_string(),
        released_at: row.get::<Option<Time>>(6)?.map(|at| at.to_string()),
        released_by: row.get(7)?,
        reason: row.get(8)?,
    })
}

/// Stops, the newest first: those in `state` if given, below the id `before` if given.
///
/// # Errors
/// The database did not answer.
pub fn list_stops(
    tx: &mut Tx,
    state: Option<&str>,
    before: Option<&str>,
    limit: i64,
) -> Result<Vec<StopView>, StoreError> {
    tx.rows(sql::LIST, args![state, before, limit])?.iter().map(view).collect()
}

/// Releases a stop by hand: what it held goes on, and the rows that it names stop nothing again.
///
/// # Errors
/// [`Error::Invalid`] without a reason, [`Error::NotFound`], and [`Error::Conflict`] when it was released before.
pub async fn release(shop: &Shop, id: StopId, reason: &str, by: &str) -> Result<StopView, Error> {
    let reason = reason.trim().to_owned();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS || reason.chars().any(char::is_control) {
        return Err(Error::invalid(
            "reason",
            format!("say in one line of at most {REASON_CHARS} characters why it may go on"),
        ));
    }
    let by = by.to_owned();
    let released = shop
        .write("audit.release", move |tx, _| {
            let now = tx.now();
            let touched = tx.execute(sql::RELEASE, args![&id, now, &by, &reason])?;
            let stop = tx.first(sql::FIND, args![&id])?.ok_or_else(|| Error::missing("stop", &id))?;
            if touched == 0 {
                return Err(Error::Conflict(format!("stop {id} was released before")));
            }
            tx.wake(WAKE);
            Ok(view(&stop)?)
        })
        .await?;
    refresh(shop).await?;
    wake_waiting(shop).await?;
    Ok(released)
}

/// Makes the jobs due that waited for a flow which is free again. One that is missed here looks by itself within minutes.
async fn wake_waiting(shop: &Shop) -> Result<(), Error> {
    let mut before: Option<String> = None;
    loop {
        let below = before.clone();
        let rows =
            shop.read("audit.waiting", move |tx| Ok(jobs::list(tx, Some("ready"), below.as_deref(), BATCH)?)).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        before = Some(last.id.clone());
        let waiting: Vec<(&'static str, &'static str, String)> = rows
            .into_iter()
            .filter_map(|job| {
                let known = gates::waits(shop, &job.kind, job.error.as_deref()?)?;
                Some((known.kind, known.lane, job.slot?))
            })
            .collect();
        if waiting.is_empty() {
            continue;
        }
        let pulled = shop.store.write("audit.wake", move |tx| {
            for (kind, lane, slot) in &waiting {
                jobs::pull(tx, kind, lane, slot)?;
            }
            Ok::<_, StoreError>(())
        });
        pulled.await?;
    }
}
