//! Growth: whether a long past slows the present down.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use semel_kernel::args;
use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::jobs::STATEMENTS;
use semel_kernel::store::{Store, StoreError, StoreOptions};

use crate::database::Database;
use crate::intake::bursts;
use crate::pg::Postgres;
use crate::place::Place;
use crate::report::{Section, per_second};
use crate::server;
use crate::{Lengths, fill};

/// Claims that are timed, and how many jobs each may take.
const CLAIMS: u64 = 300;
const TAKEN: u64 = 8;
/// The aim: with the past at most this many times slower.
const AIM: f64 = 1.2;

/// Measures everything of this part.
pub async fn measure(place: &Place, lengths: &Lengths) -> Result<Section> {
    let mut section = Section::new("Growth");
    section.how(format!(
        "The same loads on a database without a past and on one that holds {} ended orders, each with its customer, item, payment, ended \
         job and applied notice (filled in by SQL; no history and no ledger entries, which intake and claims do not touch). Intake is the \
         burst of the part above. A claim is the queue's own statement through the store, alone, {TAKEN} jobs at a time; the median of \
         {CLAIMS} is told.",
        lengths.ended
    ));
    let postgres = Postgres::start(place, false).await?;
    for name in ["SQLite", "PostgreSQL"] {
        let mut seen = Vec::new();
        for past in [0, lengths.ended] {
            eprintln!("-- growth on {name}, {past} ended orders");
            let database = match name {
                "SQLite" => Database::file(place, "growth")?,
                _ => Database::on(&postgres, "growth").await?,
            };
            seen.push(with_past(place, lengths, &database, past).await?);
        }
        let [empty, full] = seen.as_slice() else { bail!("both databases were to be measured") };
        let slower = empty.rate / full.rate;
        section.aimed(
            format!("Intake, {name}, {} ended orders", lengths.ended),
            per_second(full.rate),
            format!("{} without a past: {slower:.2} times slower", per_second(empty.rate)),
            format!("within {AIM:.1} times"),
            slower <= AIM,
        );
        let slower = full.claim.as_secs_f64() / empty.claim.as_secs_f64().max(0.000_001);
        section.aimed(
            format!("Claim, {name}, {} ended jobs", lengths.ended),
            format!("{:.3} ms", full.claim.as_secs_f64() * 1000.0),
            format!("{:.3} ms without a past: {slower:.2} times slower", empty.claim.as_secs_f64() * 1000.0),
            format!("within {AIM:.1} times"),
            slower <= AIM,
        );
    }
    postgres.stop().await?;
    Ok(section)
}

struct Seen {
    rate: f64,
    claim: Duration,
}

async fn with_past(place: &Place, lengths: &Lengths, database: &Database, past: u64) -> Result<Seen> {
    server::migrate(place, database).await?;
    let now = Clock::system().now().millis();
    if past > 0 {
        fill::ended(database, past, now).await?;
    }
    fill::live(database, lengths.live_payments(), now).await?;
    fill::due(database, CLAIMS * TAKEN, now).await?;
    database.settle_down().await?;
    let measured = bursts(place, lengths, database, false).await?;
    let claim = claim(database).await?;
    Ok(Seen { rate: measured.burst.rate(), claim })
}

/// The median time of a claim.
async fn claim(database: &Database) -> Result<Duration> {
    let found = STATEMENTS.iter().find(|(name, _)| *name == "CLAIM");
    let claim = found.map(|(_, sql)| *sql).context("the queue has a statement CLAIM")?;
    let store = Store::open(&database.store_url(), StoreOptions::default(), Clock::system())?;
    let mut times = Vec::new();
    for _ in 0..CLAIMS {
        let watch = Stopwatch::start();
        let rows = store
            .single("bench.claim", move |tx| {
                let (lease, most) = (60_000_i64, i64::try_from(TAKEN).unwrap_or(1));
                let rows = tx.rows(claim, args![fill::LANE, "bench", lease, most])?;
                // A row without an id says when the next job is due.
                Ok::<_, StoreError>(rows.iter().filter(|row| row.get::<String>(0).is_ok()).count())
            })
            .await?;
        times.push(watch.elapsed());
        if rows == 0 {
            bail!("a claim took nothing: the jobs were not there");
        }
    }
    times.sort();
    times.get(times.len() / 2).copied().context("claims were timed")
}
