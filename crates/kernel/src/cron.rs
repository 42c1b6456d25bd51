//! Cron rows: a tick of a schedule is a unique job.
//!
//! Each schedule is a row with the moment of its next tick. Whoever finds that moment passed moves it on by a
//! compare-and-set and writes the tick's job in the same transaction, so a tick is written once, whoever looks and
//! however often. The lease `scheduler` only saves the others the work.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::clock::Time;
use crate::failpoint::check;
use crate::leases::{self, Lease};
use crate::store::{Engine, Store, StoreError, Tx};

crate::statements! {
    REGISTER = "insert into cron (name, expression, catch_up, next_at) values ($1, $2, $3, $4)
        on conflict (name) do update set expression = excluded.expression, catch_up = excluded.catch_up,
            next_at = case when cron.expression = excluded.expression then cron.next_at else excluded.next_at end
        where cron.expression <> excluded.expression or cron.catch_up <> excluded.catch_up";
    DUE = "select name, expression, catch_up, next_at from cron where next_at <= $1 order by name";
    MOVE_ON = "update cron set next_at = $3 where name = $1 and next_at = $2";
    COMING = "select name, next_at from cron order by next_at";
}

/// The lease that one scheduler holds.
pub const LEASE: &str = "scheduler";
/// What wakes a sleeping scheduler of this process: see [`Store::waker`].
pub const WAKE: &str = "cron";

/// A tick that is written later than this was missed.
const GRACE: Duration = Duration::from_secs(60);
/// Ticks of one schedule that are written in one transaction; the rest follows in the next one.
const MOST: usize = 1000;
const TERM: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(5);
/// Without another copy there is nobody to hand over to, so the term only has to outlast the longest sleep.
const TERM_ALONE: Duration = Duration::from_secs(48 * 3600);
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

/// What becomes of ticks that passed while no scheduler ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// They are dropped; a tick that is at most a minute late still counts as on time.
    Skip,
    /// One job for all of them, with the latest one's time.
    Once,
    /// One job each.
    All,
}

impl CatchUp {
    /// The word in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "all" => Self::All,
            "once" => Self::Once,
            _ => Self::Skip,
        }
    }
}

/// Something that shall happen again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The stored name: never reused for something else.
    pub name: &'static str,
    /// Five fields of cron (six with seconds in front), in UTC.
    pub expression: &'static str,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
}

/// Makes the rows of `schedules` what the program says. The next tick stays unless the expression changed.
/// [`StoreError::Schema`] names an expression that cannot be read.
pub fn register(tx: &mut Tx, schedules: &[Schedule]) -> Result<(), StoreError> {
    let now = tx.now();
    for schedule in schedules {
        let next = Ticks::of(schedule.name, schedule.expression)?.after(now)?;
        tx.execute(REGISTER, args![schedule.name, schedule.expression, schedule.catch_up.as_str(), next])?;
    }
    tx.wake(WAKE);
    Ok(())
}

/// Writes the jobs of all ticks that have passed and moves their schedules on; answers how many it wrote.
///
/// `enqueue` gets the schedule's name and the tick; the job it writes has the tick's time as its slot. Rows of a name
/// that is not among `schedules` belong to another version of the program and are left alone.
pub fn due(
    tx: &mut Tx,
    schedules: &[Schedule],
    mut enqueue: impl FnMut(&mut Tx, &'static str, Time) -> Result<(), StoreError>,
) -> Result<usize, StoreError> {
    let now = tx.now();
    let mut written = 0;
    for row in &tx.rows(DUE, args![now])? {
        let (name, expression): (String, String) = (row.get(0)?, row.get(1)?);
        let (catch_up, planned): (String, Time) = (row.get(2)?, row.get(3)?);
        let Some(schedule) = schedules.iter().find(|schedule| schedule.name == name) else { continue };
        let (passed, next) = plan(&Ticks::of(&name, &expression)?, CatchUp::of(&catch_up), planned, now)?;
        if tx.execute(MOVE_ON, args![&name, planned, next])? != 1 {
            continue; // Another scheduler was here first, and wrote these ticks.
        }
        for tick in passed {
            enqueue(tx, schedule.name, tick)?;
            written += 1;
        }
    }
    Ok(written)
}

/// When the next tick of any of `schedules` comes.
pub fn next_at(tx: &mut Tx, schedules: &[Schedule]) -> Result<Option<Time>, StoreError> {
    for row in &tx.rows(COMING, &[])? {
        let name: String = row.get(0)?;
        if schedules.iter().any(|schedule| schedule.name == name) {
            return row.get(1).map(Some);
        }
    }
    Ok(None)
}

/// Which of the ticks from `planned` to `now` get a job, and when the next one comes.
fn plan(ticks: &Ticks, catch_up: CatchUp, planned: Time, now: Time) -> Result<(Vec<Time>, Time), StoreError> {
    if catch_up == CatchUp::All {
        let mut passed = vec![planned];
        let mut next = ticks.after(planned)?;
        while next <= now && passed.len() < MOST {
            passed.push(next);
            next = ticks.after(next)?;
        }
        return Ok((passed, next));
    }
    let latest = ticks.until(now)?.max(planned);
    let wanted = catch_up == CatchUp::Once || now.since(latest) <= GRACE;
    Ok((if wanted { vec![latest] } else { Vec::new() }, ticks.after(now)?))
}

/// The moments of one expression.
struct Ticks {
    cron: Cron,
    title: String,
}

impl Ticks {
    fn of(name: &str, expression: &str) -> Result<Self, StoreError> {
        let title = format!("the schedule {name} ({expression})");
        match Cron::from_str(expression) {
            Ok(cron) => Ok(Self { cron, title }),
            Err(error) => Err(StoreError::Schema(format!("{title} cannot be read: {error}"))),
        }
    }

    /// The first tick after `at`.
    fn after(&self, at: Time) -> Result<Time, StoreError> {
        self.found(self.cron.find_next_occurrence(&self.utc(at)?, false))
    }

    /// The last tick at or before `at`.
    fn until(&self, at: Time) -> Result<Time, StoreError> {
        self.found(self.cron.find_previous_occurrence(&self.utc(at)?, true))
    }

    fn utc(&self, at: Time) -> Result<Zoned, StoreError> {
        let stamp = Timestamp::from_millisecond(at.millis()).map_err(|error| self.fails(&error))?;
        Ok(stamp.to_zoned(TimeZone::UTC))
    }

    fn found(&self, tick: Result<Zoned, croner::errors::CronError>) -> Result<Time, StoreError> {
        match tick {
            Ok(tick) => Ok(Time::from_millis(tick.timestamp().as_millisecond())),
            Err(error) => Err(self.fails(&error)),
        }
    }

    fn fails(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Schema(format!("{} has no tick: {error}", self.title))
    }
}

/// Registers `schedules` and writes the job of each tick in its time, until `stop`.
///
/// One scheduler works, the others wait for its lease. With SQLite, where there is no other copy, it sleeps until the
/// next tick and asks nothing meanwhile; with PostgreSQL it looks every five seconds. An error ends it: run it under a
/// supervisor.
pub async fn serve<F>(
    store: Store,
    owner: String,
    schedules: &'static [Schedule],
    enqueue: F,
    stop: CancellationToken,
) -> Result<(), StoreError>
where
    F: Fn(&mut Tx, &'static str, Time) -> Result<(), StoreError> + Clone + Send + 'static,
{
    let wake = store.waker(WAKE);
    store.write("cron.register", move |tx| register(tx, schedules)).await?;
    let mut held: Option<Lease> = None;
    let mut stood_by = false;
    loop {
        check("cron.look", LEASE)?;
        let (before, owner, enqueue) = (held.take(), owner.clone(), enqueue.clone());
        let round = store.write("cron.tick", move |tx| round(tx, before.as_ref(), &owner, schedules, &enqueue)).await?;
        check("cron.looked", LEASE)?;
        let pause = match round {
            Some((lease, next)) => {
                stood_by = false;
                held = Some(lease);
                pause(store.engine(), next.map(|next| next.since(store.now())))
            }
            None => {
                if !stood_by {
                    tracing::info!(lease.name = LEASE, "Job already running in another instance");
                }
                stood_by = true;
                POLL
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    if let Some(lease) = held {
        // Lost meanwhile or not: there is nothing left to give back then.
        store.write("cron.release", move |tx| leases::release(tx, &lease)).await?;
    }
    Ok(())
}

/// One look at the schedules under the lease; `None` while another copy holds it.
fn round<F>(
    tx: &mut Tx,
    held: Option<&Lease>,
    owner: &str,
    schedules: &[Schedule],
    enqueue: &F,
) -> Result<Option<(Lease, Option<Time>)>, StoreError>
where
    F: Fn(&mut Tx, &'static str, Time) -> Result<(), StoreError>,
{
    let alone = tx.engine() == Engine::Sqlite;
    let term = if alone { TERM_ALONE } else { TERM };
    let kept = match held {
        Some(lease) if leases::keep(tx, lease, term)? => Some(lease.clone()),
        _ => None,
    };
    let lease = match kept {
        Some(lease) => Some(lease),
        None if alone => leases::supersede(tx, LEASE, owner, term)?,
        None => leases::take(tx, LEASE, owner, term)?,
    };
    let Some(lease) = lease else { return Ok(None) };
    due(tx, schedules, enqueue)?;
    let next = next_at(tx, schedules)?;
    Ok(Some((lease, next)))
}

fn pause(engine: Engine, next: Option<Duration>) -> Duration {
    let longest = if engine == Engine::Postgres { POLL } else { LONGEST_SLEEP };
    next.map_or(longest, |next| next.min(longest))
}
