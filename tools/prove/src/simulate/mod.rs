//! Simulation: many small shops, each lived from one seed on simulated time, as fast as the machine can.
//!
//! A shop is the whole program in this process on an embedded database, with the outside world in a box; clock, dice and
//! the order of all things are in our hands, so a seed is a whole life and can be lived again. [`program`] draws the life,
//! [`run`] lives it and asks every promise on the way, [`model`] and [`access`] say what must have come of it, [`shrink`] cuts a
//! failing one down.
//!
//! Only the program itself is simulated in time: its deadlines, polls, back-offs and pauses. What a call may take at most
//! is watched by the machine's clock and is far away; the box lets each call take a moment of simulated time.

pub mod access;
pub mod model;
pub mod program;
pub mod run;
pub mod shrink;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use semel_kernel::clock::Stopwatch;
use semel_kernel::store::Engine;
use semel_prove::report::{Figure, Options};

use self::program::{Kind, Line};
use self::run::{Plan, Report};
use crate::app::{ROOMS, TestStore};

/// Lines of one life: about an hour of a busy shop.
const LINES: usize = 1_500;
/// Every so-many-th life begins a second time, and has to go the same way for so many lines.
const CHECKED: u64 = 3;
const PREFIX: usize = 150;
/// So many failing lives are cut down, each for so long: the others tell their seed.
const CUT_DOWN: usize = 3;
const CUTTING: Duration = Duration::from_secs(120);
const STACK: usize = 16 * 1024 * 1024;
/// A folder that lives in memory. A power cut is tried elsewhere; here a sync would only cost time.
const MEMORY: &str = "/dev/shm";

/// The campaign: lives, until enough hours are simulated or the time is over.
///
/// # Errors
/// None of a life: what went wrong in one is a trouble of its figure. Only when the campaign itself cannot run.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || campaign(&options)).await.context("the simulation")
}

/// What all lives came to.
#[derive(Default)]
struct Tally {
    programs: u64,
    kept: u64,
    agreed: u64,
    checks: u64,
    same: u64,
    operations: u64,
    faults: u64,
    jobs: u64,
    simulated_ms: u64,
    cut_down: usize,
    broken: Vec<String>,
    unlike: Vec<String>,
    astray: Vec<String>,
}

fn campaign(options: &Options) -> Vec<Figure> {
    live_in_memory();
    let hours = if options.small { 100 } else { 1_000 };
    let limit = Duration::from_secs(options.minutes.max(1) * 60);
    let watch = Stopwatch::start();
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    thread::scope(|scope| {
        for _ in 0..options.at_once.max(1) {
            scope.spawn(|| {
                while watch.elapsed() < limit && lock(&tally).simulated_ms < hours * 3_600_000 {
                    one_life(options.seed, next.fetch_add(1, Ordering::SeqCst), &tally);
                }
            });
        }
    });
    let took_ms = u64::try_from(watch.millis()).unwrap_or(1).max(1);
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    figures(tally, hours, took_ms)
}

fn figures(tally: Tally, hours: u64, took_ms: u64) -> Vec<Figure> {
    let per_hour = |count: u64| count.saturating_mul(3_600_000) / tally.simulated_ms.max(1);
    let speed = tally.simulated_ms / took_ms;
    let told = format!("{} with {} operations, {} jobs", tally.programs, tally.operations, tally.jobs);
    // Where the time was too short for a single life, there is no rate.
    let rate = |figure: Figure| if tally.programs == 0 { figure.timed() } else { figure };
    vec![
        Figure::at_least("simulated hours", tally.simulated_ms / 3_600_000, hours).timed(),
        rate(Figure::at_least("simulation: operations per simulated hour", per_hour(tally.operations), 1_000)),
        rate(Figure::at_least("simulation: faults per simulated hour", per_hour(tally.faults), 10)),
        Figure::judged("simulation: speed", format!("{speed} times real time"), "at least 1000 times", speed >= 1_000)
            .timed(),
        Figure::told("simulation: programs", told),
        Figure::all_of("simulation: programs that kept every promise", tally.kept, tally.programs, tally.broken),
        Figure::all_of("simulation: programs that end as the model says", tally.agreed, tally.kept, tally.unlike),
        Figure::all_of("simulation: same seed, same trace", tally.same, tally.checks, tally.astray),
    ]
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Test databases are made in the usual temporary folder. The first word counts: if somebody set it before, it stays.
fn live_in_memory() {
    if Path::new(MEMORY).is_dir()
        && let Err(other) = tempfile::env::override_temp_dir(Path::new(MEMORY))
    {
        tracing::debug!(folder = %other.display(), "the temporary folder was chosen before");
    }
}

fn one_life(campaign: u64, index: u64, tally: &Mutex<Tally>) {
    let seed = mixed(campaign, index);
    let program = program::draw(seed, LINES, Kind::Stormy);
    let checked = index.is_multiple_of(CHECKED);
    let plan = Plan { rest: true, probe_at: checked.then_some(PREFIX), ..Plan::default() };
    let outcome = lived(Engine::Sqlite, seed, program.clone(), plan.clone());
    let (report, broken, unlike) = match outcome {
        Ok(report) => {
            let (broken, unlike) = (report.broken.first().cloned(), report.unlike.first().cloned());
            (report, broken, unlike)
        }
        Err(panic) => (Report::default(), Some(format!("it panicked: {panic}")), None),
    };
    let astray = if checked && report.trace.len() >= PREFIX { way(&report, seed, &program) } else { None };
    let failed = broken.clone().or_else(|| unlike.clone());
    let short = failed.and_then(|_| cut_down(seed, program, &report, tally)).unwrap_or_default();
    let mut tally = lock(tally);
    tally.programs += 1;
    tally.operations += report.operations;
    tally.faults += report.faults;
    tally.jobs += report.jobs;
    tally.simulated_ms += report.simulated_ms;
    match (broken, unlike) {
        (Some(sentence), _) => tally.broken.push(format!("seed {seed}: {sentence}{short}")),
        (None, Some(sentence)) => {
            tally.kept += 1;
            tally.unlike.push(format!("seed {seed}: {sentence}{short}"));
        }
        (None, None) => {
            tally.kept += 1;
            tally.agreed += 1;
        }
    }
    if let Some(way) = astray {
        tally.checks += 1;
        match way {
            Ok(()) => tally.same += 1,
            Err(sentence) => tally.astray.push(format!("seed {seed}: {sentence}")),
        }
    }
}

/// Lives the beginning once more; says where it went another way.
fn way(report: &Report, seed: u64, program: &[Line]) -> Option<Result<(), String>> {
    let plan = Plan { probe_at: Some(PREFIX), ..Plan::default() };
    let again = match lived(Engine::Sqlite, seed, program[..PREFIX].to_vec(), plan) {
        Ok(again) => again,
        Err(panic) => return Some(Err(format!("the same seed panicked the second time: {panic}"))),
    };
    let differs = report.trace.iter().zip(&again.trace).position(|(one, other)| one != other);
    Some(match differs {
        None if again.trace.len() >= PREFIX => Ok(()),
        None => Err(format!("the same seed ended after {} lines the second time", again.trace.len())),
        Some(line) => Err(format!("the same seed went another way at line {} ({:?})", line + 1, program[line].step)),
    })
}

/// The shortest program that still fails, as text, for the first few that do.
fn cut_down(seed: u64, program: Vec<Line>, report: &Report, tally: &Mutex<Tally>) -> Option<String> {
    {
        let mut tally = lock(tally);
        if tally.cut_down >= CUT_DOWN {
            return None;
        }
        tally.cut_down += 1;
    }
    let fails = |lines: &[Line]| {
        let plan = Plan { rest: true, ..Plan::default() };
        !lived(Engine::Sqlite, seed, lines.to_vec(), plan).is_ok_and(|report| report.is_well())
    };
    let mut program = program;
    // What came after the broken promise has no part in it.
    if !report.broken.is_empty() && !report.trace.is_empty() {
        let begin = program[..report.trace.len().min(program.len())].to_vec();
        if fails(&begin) {
            program = begin;
        }
    }
    let short = shrink::shorten(program, CUTTING, fails);
    Some(format!("\n  the shortest program found for seed {seed}: {}", program::print(&short)))
}

/// Lives `program` in a thread of its own: time and dice of the box belong to a thread, and a panic ends nothing else.
///
/// # Errors
/// The words of the panic.
pub fn lived(engine: Engine, seed: u64, program: Vec<Line>, plan: Plan) -> Result<Report, String> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = match engine {
                Engine::Sqlite => TestStore::sqlite(ROOMS).await,
                Engine::Postgres => TestStore::postgres(ROOMS).await,
            };
            run::live(store, seed, &program, &plan).await
        })
    };
    let started = thread::Builder::new().name("simulated-shop".to_owned()).stack_size(STACK).spawn(work);
    let life = started.map_err(|error| format!("no thread: {error}"))?;
    life.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The seed of the so-many-th life: far from its neighbours (the finisher of SplitMix64).
fn mixed(campaign: u64, index: u64) -> u64 {
    let mut z = campaign.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
