//! `semel-prove`: tries to lose or double something, and prints what it reached. `./prove` at the root builds and runs it.

mod broken;
mod copies;
mod crashes;
mod fuzz;
mod power;
mod same_history;
mod simulate;
mod syscalls;

/// The shop in this process, as the stories have it.
#[allow(dead_code, clippy::unwrap_used, reason = "a helper of tests, of which the stories use more")]
#[path = "../../../crates/semel/tests/stories/app.rs"]
pub mod app;
/// The program as a process of its own, as the stories have it.
#[allow(dead_code, clippy::unwrap_used, reason = "a helper of tests, of which the stories use more")]
#[path = "../../../crates/semel/tests/stories/process/program.rs"]
pub mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use semel_kernel::clock::{Clock, Stopwatch};
use semel_prove::models;
use semel_prove::report::{Figure, Options, table};

/// The parts of a campaign, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Small models of the protocols, explored to the last state
    Models,
    /// Foreign bytes thrown at every parser
    Fuzz,
    /// Years of shop life from a seed, against a small model of what must come out
    Simulate,
    /// One life on both engines gives the same books
    SameHistory,
    /// Killed, and failed, at every failpoint of every flow
    Crashes,
    /// Killed at every write, sync and rename; syncs that fail
    Syscalls,
    /// What a disk may hold after the power went
    Power,
    /// Several copies, and everything between them breaks
    Copies,
    /// Known mistakes are put in, and the tests must catch them
    Broken,
}

/// Tries to lose or double something, and prints what it reached
#[derive(Debug, Parser)]
#[command(name = "prove", version)]
struct Args {
    /// Only these parts; all when none is named
    parts: Vec<Part>,
    /// The small campaign of each change
    #[arg(long)]
    small: bool,
    /// About how long each part that could go on for ever may take
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Where all randomness starts; the commit's own when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Scenarios at the same time
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Only scenarios with this in their name
    #[arg(long)]
    only: Option<String>,
    /// The program, built with failpoints
    #[arg(long, default_value = "target/debug/semel")]
    semel: PathBuf,
    /// Where databases lie meanwhile: a folder on a real disk
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Write the figures into this file, between its two marks
    #[arg(long)]
    write: Option<PathBuf>,
}

const BEGIN: &str = "<!-- figures: written by ./prove -->";
const END: &str = "<!-- end of figures -->";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let commit = commit();
    let seed = args.seed.unwrap_or_else(|| u64::from_str_radix(commit.get(..12).unwrap_or("1"), 16).unwrap_or(1));
    let work = tempfile::Builder::new().prefix("semel-prove-").tempdir_in(&args.dir).context("a folder to work in")?;
    let semel = fs::canonicalize(&args.semel)
        .with_context(|| format!("{} is not there: ./prove builds it", args.semel.display()))?;
    let options = Options {
        seed,
        small: args.small,
        minutes: args.minutes.max(1),
        at_once: args.at_once.max(1),
        semel,
        work: work.path().to_owned(),
        only: args.only.clone(),
    };
    let began = Stopwatch::start();
    let mut figures = Vec::new();
    for part in Part::value_variants().iter().filter(|part| args.parts.is_empty() || args.parts.contains(part)) {
        let name = part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        say(&format!("== {name}"));
        let took = Stopwatch::start();
        match run(*part, &options).await {
            Ok(found) => figures.extend(found),
            Err(error) => {
                figures.push(Figure::judged(format!("{name} could be run"), format!("{error:#}"), "yes", false))
            }
        }
        figures.push(Figure::told(format!("{name}: time"), format!("{} s", took.elapsed().as_secs())));
    }
    let size = if options.small { "small" } else { "large" };
    let head = format!(
        "{} campaign, seed {seed}, commit {commit}, {}, {} s in all\n",
        size,
        Clock::system().now(),
        began.elapsed().as_secs()
    );
    let told = format!("{head}\n{}", table(&figures));
    say(&told);
    if let Some(path) = &args.write {
        write_between(path, &told)?;
    }
    let bad = figures.iter().filter(|figure| figure.fails()).count();
    let slow = figures.iter().filter(|figure| !figure.good && figure.timed).count();
    if slow > 0 {
        say(&format!(
            "{slow} figures of time are not reached: this machine is too slow or too busy for them, or slower than before"
        ));
    }
    say(&if bad == 0 { "every promise held".into() } else { format!("{bad} figures are not reached") });
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(part: Part, options: &Options) -> Result<Vec<Figure>> {
    match part {
        Part::Models => Ok(explore()),
        Part::Fuzz => fuzz::run(options),
        Part::Simulate => simulate::run(options).await,
        Part::SameHistory => same_history::run(options).await,
        Part::Crashes => crashes::run(options).await,
        Part::Syscalls => syscalls::run(options).await,
        Part::Power => power::run(options).await,
        Part::Copies => copies::run(options).await,
        Part::Broken => broken::run(options).await,
    }
}

fn explore() -> Vec<Figure> {
    let reports = models::run_all();
    let (mut proved, mut refuted, mut states) = ((0, 0), (0, 0), 0);
    let (mut wrong, mut missed) = (Vec::new(), Vec::new());
    for report in &reports {
        states += report.states;
        let (count, troubles) = if report.refuted { (&mut refuted, &mut missed) } else { (&mut proved, &mut wrong) };
        count.1 += 1;
        if report.is_as_expected() {
            count.0 += 1;
        } else {
            troubles.push(format!("{}: {:?} {}", report.name, report.properties, report.path.join(" → ")));
        }
    }
    vec![
        Figure::all_of("models: the product's protocols hold", proved.0, proved.1, wrong),
        Figure::all_of("models: protocols without a guard are refuted", refuted.0, refuted.1, missed),
        Figure::told("models: states explored", states.to_string()),
    ]
}

fn commit() -> String {
    let told = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    told.ok()
        .filter(|told| told.status.success())
        .map_or_else(|| "unknown".into(), |told| String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

fn write_between(path: &Path, told: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, rest) = text.split_once(BEGIN).context("the file has no mark where figures begin")?;
    let (_, after) = rest.split_once(END).context("the file has no mark where figures end")?;
    fs::write(path, format!("{before}{BEGIN}\n\n{told}\n{END}{after}")).context("cannot write the figures")
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    println!("{text}");
}
