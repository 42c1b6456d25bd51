//! Crashes from outside: the program dies at any write, sync, truncation, creation and removal of its files, and syncs fail.
//!
//! A shim between the program and its disk ([`shim`]) makes a death at the n-th call cheap; strace, which knows nothing of the
//! shim, does the same for a sample and shows that the shim misses no call. SQLite only: PostgreSQL's files are not ours. The
//! file of the VPN server has a part of its own ([`conf`]).

pub mod conf;
pub mod deaths;
pub mod failures;
pub mod ground;
pub mod plan;
pub mod shim;
pub mod tracer;

use std::time::Duration;

use semel_prove::report::{Figure, Options};

use deaths::{Point, Tally};
use ground::Shared;
use plan::Plan;
use shim::Kind;

/// After a death the program is ready within this.
const READY: Duration = Duration::from_secs(5);

/// Runs the campaign.
///
/// # Errors
/// It cannot begin: no C compiler, or a folder that cannot be written.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let ground = ground::prepared(options, "syscalls").await?;
    let mut rng = fastrand::Rng::with_seed(options.seed ^ 0x5c_a115);
    let (mut figures, mut slowest) = (Vec::new(), Duration::ZERO);
    if options.wants("syscalls:deaths") || options.wants("syscalls:failures") {
        match deaths::points(&ground, options.at_once, &mut rng).await {
            Ok(points) => {
                let (more, took) = shimmed(&ground, options, points).await;
                figures.extend(more);
                slowest = slowest.max(took);
            }
            Err(troubles) => figures.push(failed("Deaths and failures at a system call", troubles)),
        }
    }
    if options.wants("syscalls:strace") {
        let (more, took) = traced(&ground, options, &mut rng).await;
        figures.extend(more);
        slowest = slowest.max(took);
    }
    if options.wants("syscalls:conf") {
        let (more, took) = conf::run(&ground, options).await;
        figures.extend(more);
        slowest = slowest.max(took);
    }
    let told = format!("{} ms", slowest.as_millis());
    figures.push(
        Figure::judged("Ready again after a death from outside, slowest", told, "at most 5 s", slowest <= READY)
            .timed(),
    );
    Ok(figures)
}

/// Deaths and failed syncs by the shim.
async fn shimmed(ground: &Shared, options: &Options, points: Vec<Point>) -> (Vec<Figure>, Duration) {
    let (mut figures, mut slowest) = (Vec::new(), Duration::ZERO);
    if options.wants("syscalls:deaths") {
        let wanted = if options.small { 20 } else { 1500 };
        let tally = deaths::deaths(ground, options.at_once, &points, wanted).await;
        slowest = slowest.max(tally.slowest);
        let places = points.len().to_string();
        figures.push(Figure::told("Calls on files in the five plans, each a place to die", places));
        let name = "Deaths at a write, sync, truncation, creation or removal";
        figures.push(Figure::at_least(name, tally.tried, wanted as u64));
        figures.push(well("Of these: came back, all promises kept", tally));
    }
    if options.wants("syscalls:failures") {
        let (most, wanted) = if options.small { (6, 3) } else { (100, 50) };
        let syncs = points.into_iter().filter(|point| point.kind == Kind::Sync).take(most).collect();
        let tally = failures::failures(ground, options.at_once, syncs).await;
        slowest = slowest.max(tally.slowest);
        figures.push(Figure::at_least("Syncs that failed", tally.tried, wanted));
        figures.push(well("Of these: exit code 74, nothing said yes to afterwards, nothing lost", tally));
    }
    (figures, slowest)
}

/// The sample by strace.
async fn traced(ground: &Shared, options: &Options, rng: &mut fastrand::Rng) -> (Vec<Figure>, Duration) {
    if let Err(error) = tracer::check() {
        // Some containers let nobody trace; the same deaths are died by the shim.
        return (vec![Figure::told("Deaths by strace", format!("left out: {error}"))], Duration::ZERO);
    }
    let mut plans = Plan::all();
    if options.small {
        let chosen = rng.usize(0..plans.len());
        plans = vec![plans.swap_remove(chosen)];
    }
    let each = if options.small { 4 } else { 10 };
    let compared = ground::spread(options.at_once, plans, |plan| tracer::compare(ground.clone(), plan)).await;
    let (mut both, mut different, mut cuts) = (0, Vec::new(), Vec::new());
    for (plan, seen) in compared {
        match seen {
            Ok(seen) => {
                both += seen.both;
                cuts.extend(tracer::cuts(&plan, &seen, each, rng));
                different.extend(seen.troubles);
            }
            Err(error) => different.push(format!("{} under strace: {error}", plan.name)),
        }
    }
    let tally = tracer::deaths(ground, options.at_once, cuts).await;
    let took = tally.slowest;
    let good = different.is_empty() && both > 0;
    let told = format!("{both} calls, {} differences", different.len());
    let same =
        Figure::judged("The shim sees each change of the database that strace sees", told, "no difference", good);
    let same = Figure { troubles: different, ..same };
    (vec![same, well("Deaths by strace: came back, all promises kept", tally)], took)
}

/// How many of the tried went well.
fn well(name: &str, tally: Tally) -> Figure {
    let figure = Figure::all_of(name, tally.well, tally.tried, tally.troubles);
    if tally.tried == 0 { Figure { good: false, ..figure } } else { figure }
}

/// A part that could not even begin.
fn failed(name: &str, troubles: Vec<String>) -> Figure {
    Figure { troubles, ..Figure::judged(name, "could not be tried", "all", false) }
}
