//! Idle: what a shop costs while nobody buys.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use semel_kernel::clock::Clock;
use tokio::time::sleep;

use crate::database::Database;
use crate::place::Place;
use crate::report::Section;
use crate::server::{self, Server, World};
use crate::{Lengths, fill};

const STARTS: usize = 5;
const MEMORY_KIB: u64 = 48 * 1024;
const READY: Duration = Duration::from_millis(500);
/// When the program's own schedules are due: second of the hour of the sweep, second of the day of the nightly cleaning.
const SWEEP_AT: i64 = 17 * 60;
const CLEANING_AT: i64 = 3 * 3600 + 41 * 60;

/// Measures everything of this part.
pub async fn measure(place: &Place, lengths: &Lengths) -> Result<Section> {
    let mut section = Section::new("Idle");
    section.how(format!(
        "On an existing SQLite database with {} ended orders. Start to ready: from the start of the process to the first 200 of \
         `/readyz`, asked every 5 ms; the slowest of {STARTS} starts is told. Statements: every statement on SQLite runs on one of \
         the store's own threads, which sleep until one comes, so over {} s without a request and without a schedule due their wake-ups \
         (voluntary context switches in /proc) are counted, together with changes of the database's files. Memory is VmRSS at the end \
         of that time.",
        lengths.past_of_idle,
        lengths.idle.as_secs()
    ));
    eprintln!("-- idle");
    let database = Database::file(place, "idle")?;
    server::migrate(place, &database).await?;
    fill::ended(&database, lengths.past_of_idle, Clock::system().now().millis()).await?;
    database.settle_down().await?;
    let nowhere = World { yookassa: "http://127.0.0.1:9/v3".into(), telegram: "http://127.0.0.1:9".into() };
    let mut slowest = Duration::ZERO;
    for _ in 0..STARTS {
        let server = Server::start(place, &database, &nowhere, false).await?;
        slowest = slowest.max(server.ready_after);
        server.stop().await?;
    }
    section.aimed(
        "Start to ready",
        format!("{:.0} ms", slowest.as_secs_f64() * 1000.0),
        "",
        format!("at most {} ms", READY.as_millis()),
        slowest <= READY,
    );
    stay_clear_of_schedules(lengths.idle).await;
    let server = Server::start(place, &database, &nowhere, false).await?;
    let pid = server.pid();
    // The work of the start comes to rest.
    sleep(Duration::from_secs(5)).await;
    let (threads, files) = (store_threads(pid)?, files(&database)?);
    anyhow::ensure!(!threads.is_empty(), "the store's threads were not found: this figure would mean nothing");
    sleep(lengths.idle).await;
    let (threads_after, files_after) = (store_threads(pid)?, self::files(&database)?);
    let woken: u64 = threads_after
        .iter()
        .map(|(thread, count)| count.saturating_sub(threads.get(thread).copied().unwrap_or(0)))
        .sum();
    let touched = if files == files_after { "files untouched" } else { "files changed" };
    section.aimed(
        format!("Wake-ups of the store's threads in {} s", lengths.idle.as_secs()),
        format!("{woken}"),
        format!("{} threads; {touched}", threads.len()),
        "no statement in ten minutes",
        woken == 0 && files == files_after,
    );
    let memory = status(&format!("/proc/{pid}/status"), "VmRSS")?;
    section.aimed(
        "Resident memory",
        format!("{:.1} MiB", memory as f64 / 1024.0),
        format!("peak {:.1} MiB", status(&format!("/proc/{pid}/status"), "VmHWM")? as f64 / 1024.0),
        "at most 48 MiB",
        memory <= MEMORY_KIB,
    );
    server.stop().await?;
    Ok(section)
}

/// Waits while a schedule would fall into the next `window`: its tick is work due.
async fn stay_clear_of_schedules(window: Duration) {
    let window = i64::try_from(window.as_secs()).unwrap_or(600) + 15;
    loop {
        let now = Clock::system().now().millis() / 1000;
        let falls_into = |now: i64, at: i64, every: i64| (at - now).rem_euclid(every) <= window;
        if !falls_into(now, SWEEP_AT, 3600) && !falls_into(now, CLEANING_AT, 86_400) {
            return;
        }
        eprintln!("   waiting until the program's own schedule is over");
        sleep(Duration::from_secs(20)).await;
    }
}

/// Voluntary context switches of the store's threads, by thread id.
fn store_threads(pid: u32) -> Result<BTreeMap<String, u64>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = entry?.path();
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if name.starts_with("store-") {
            let count = status(&folder.join("status").to_string_lossy(), "voluntary_ctxt_switches")?;
            threads.insert(folder.to_string_lossy().into_owned(), count);
        }
    }
    Ok(threads)
}

/// The first number of a line in a status file of /proc.
fn status(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.with_context(|| format!("{path} has no {name}"))?.parse::<u64>().with_context(|| format!("{name} in {path}"))
}

/// Length and time of change of the database's files.
fn files(database: &Database) -> Result<Vec<(String, u64, i64)>> {
    use std::os::unix::fs::MetadataExt;
    let Database::Sqlite(path) = database else { return Ok(Vec::new()) };
    let mut seen = Vec::new();
    for ending in ["", "-wal"] {
        let name = format!("{}{ending}", path.display());
        if let Ok(meta) = fs::metadata(&name) {
            let changed = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
            seen.push((name, meta.len(), changed));
        }
    }
    Ok(seen)
}
