//! Measures Semel against its limits and against the usual way. Started by `bench/run`, which prepares what it needs;
//! never a part of the tests.
//!
//! Each part answers a question of an owner: how many webhooks can come at once (`intake`), how many sales (`sale`), how
//! long a customer waits when everything is far away (`path`), whether a long past slows the shop down (`growth`), what it
//! costs while nobody buys (`idle`), what addresses and peers of a VPN cost (`vpn`), how close to Telegram's limit it sends
//! (`talk`). Whatever cannot be measured as described ends the run: a wrong figure is worse than none. Only a peer that
//! cannot be set up is told instead of measured.
#![allow(
    clippy::float_arithmetic,
    clippy::print_stdout,
    reason = "rates and ratios are no money, and a program that people start may print"
)]

/// The same as the program's, so that the limits are limits of the same server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod database;
mod fill;
mod growth;
mod http_client;
mod idle;
mod intake;
mod limits;
mod load;
mod machine;
mod notices;
mod path;
mod pg;
mod place;
mod proxy;
mod report;
mod sale;
mod server;
mod stub;
mod talk;
mod usual;
mod vpn;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use semel_kernel::clock::Clock;

use crate::place::Place;
use crate::report::{Report, Section};

#[derive(Parser)]
#[command(about = "The benchmark of Semel; start it with bench/run")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Measure and write the results
    Run(RunArgs),
    /// A limit: the program's HTTP server, answering without storing
    AnswerOnly(limits::AnswerArgs),
    /// A limit: the same rows, written by a plain loop
    WriteOnly(limits::WriteArgs),
}

#[derive(Args)]
struct RunArgs {
    /// File of the results
    #[arg(long)]
    out: PathBuf,
    /// Short phases, for trying the benchmark itself
    #[arg(long)]
    quick: bool,
    /// One part only
    #[arg(long)]
    only: Option<Part>,
    /// Orders of the sale
    #[arg(long)]
    sales: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Intake,
    Sale,
    Path,
    Growth,
    Idle,
    Vpn,
    Talk,
}

/// How long and how much.
pub struct Lengths {
    /// Load before the measured one.
    pub warm_up: Duration,
    /// One measured load.
    pub phase: Duration,
    /// Orders of the sale. Few enough that no order's own job looks before its webhook comes.
    pub sales: usize,
    /// Measured sales of the path.
    pub paths: usize,
    /// Ended orders of a long past.
    pub ended: u64,
    /// Ended orders behind an idle shop.
    pub past_of_idle: u64,
    /// How long nothing happens.
    pub idle: Duration,
    /// Recipients of the campaign.
    pub recipients: usize,
    /// Recipients of each peer.
    pub peer_recipients: usize,
    /// Keys that are sold while a campaign runs.
    pub keys: usize,
}

impl Lengths {
    fn of(args: &RunArgs) -> Lengths {
        let mut lengths = if args.quick {
            Lengths {
                warm_up: Duration::from_secs(1),
                phase: Duration::from_secs(3),
                sales: 200,
                paths: 3,
                ended: 50_000,
                past_of_idle: 1_000,
                idle: Duration::from_secs(30),
                recipients: 300,
                peer_recipients: 200,
                keys: 10,
            }
        } else {
            Lengths {
                warm_up: Duration::from_secs(2),
                phase: Duration::from_secs(10),
                sales: 500,
                paths: 9,
                ended: 1_000_000,
                past_of_idle: 10_000,
                idle: Duration::from_secs(600),
                recipients: 5_000,
                peer_recipients: 1_000,
                keys: 60,
            }
        };
        lengths.sales = args.sales.unwrap_or(lengths.sales).max(1);
        lengths
    }

    /// Payments that wait for a notice, so that the three loads of an intake never run out of them.
    pub fn live_payments(&self) -> u64 {
        (self.warm_up + 2 * self.phase).as_secs() * 20_000
    }

    /// The same for the usual way, which takes fewer.
    pub fn usual_payments(&self) -> u64 {
        (self.warm_up + 2 * self.phase).as_secs() * 2_000
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run(args) => run(args).await,
        Verb::AnswerOnly(args) => limits::answer_only(args).await,
        Verb::WriteOnly(args) => limits::write_only(args).await,
    }
}

async fn run(args: RunArgs) -> Result<ExitCode> {
    let place = Place::from_environment()?;
    let lengths = Lengths::of(&args);
    let mut report = Report { run: about(&place, &args).await?, sections: Vec::new() };
    for part in Part::value_variants() {
        if args.only.is_none_or(|only| only == *part) {
            report.sections.push(measure(*part, &place, &lengths).await?);
        }
    }
    let text = match std::fs::read_to_string(&args.out) {
        Ok(before) if args.only.is_some() => report.put_into(&before),
        _ => report.text(),
    };
    if let Some(folder) = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.out, &text).with_context(|| format!("cannot write {}", args.out.display()))?;
    println!("{text}");
    eprintln!("written to {}", args.out.display());
    Ok(ExitCode::SUCCESS)
}

async fn measure(part: Part, place: &Place, lengths: &Lengths) -> Result<Section> {
    match part {
        Part::Intake => intake::measure(place, lengths).await.context("intake"),
        Part::Sale => sale::measure(place, lengths).await.context("sale"),
        Part::Path => path::measure(place, lengths).await.context("path"),
        Part::Growth => growth::measure(place, lengths).await.context("growth"),
        Part::Idle => idle::measure(place, lengths).await.context("idle"),
        Part::Vpn => vpn::measure(place).await.context("vpn"),
        Part::Talk => talk::measure(place, lengths).await.context("talk"),
    }
}

/// Date, commit, versions, machine.
async fn about(place: &Place, args: &RunArgs) -> Result<Vec<String>> {
    let commit = std::env::var("BENCH_COMMIT").unwrap_or_else(|_| "unknown".to_owned());
    let python = place.bare(&place.python).arg("--version").output().await?;
    let postgres = pg::Postgres::start(place, false).await?;
    let version = postgres.version().await?;
    postgres.stop().await?;
    let mut lines = vec![format!("Date: {}, commit: {commit}", Clock::system().now())];
    if args.quick {
        lines.push("**Short phases: for trying the benchmark itself, not for results.**".to_owned());
    }
    lines.push(format!(
        "PostgreSQL {version} over its Unix socket ({}), SQLite {} (WAL, synchronous=FULL), {}",
        pg::SETTINGS.join(", "),
        rusqlite::version(),
        String::from_utf8_lossy(&python.stdout).trim()
    ));
    lines.extend(machine::describe(&place.work)?);
    Ok(lines)
}
