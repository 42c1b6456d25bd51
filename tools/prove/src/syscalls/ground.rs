//! What every run of this campaign needs: a shop with stock in a file, the program on it, and a judge who reads the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::error::Elapsed;

use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::{Store, StoreUrl};
use semel_kernel::testing;
use semel_prove::report::{Options, is_out_of_time};
use semel_sandbox::Truth;
use semel_shop::audit::{self, Parameters, TruthRows};

use super::plan::Plan;
use super::shim::{Acks, Control};
use crate::program::{Killed, Patience, Process, Program, World, truth_rows};

/// The database's name below its folder.
const FILE: &str = "semel.db";
/// No scenario takes longer than this.
const LONGEST: Duration = Duration::from_secs(300);
/// Scenarios that are run once more because they were late. More of them are no bad luck.
const MOST_AGAIN: usize = 8;

/// The folder of a world's database: nothing else lies in it.
pub fn data(world: &World) -> PathBuf {
    world.path("data")
}

/// The program, the shim, and a shop with goods that each run begins with.
pub struct Ground {
    /// The program.
    pub semel: PathBuf,
    /// The shim.
    pub shim: PathBuf,
    /// A database with a product and its stock, as a program left it that ended well.
    template: PathBuf,
    /// The product.
    pub product: String,
}

impl Ground {
    /// Builds the shim and the first shop in `folder`.
    ///
    /// # Errors
    /// The shim cannot be built, or the folder not be written.
    pub async fn prepare(semel: &Path, folder: &Path) -> anyhow::Result<Ground> {
        let shim = super::shim::build(folder)?;
        let template = folder.join("template");
        let empty = Ground { semel: semel.to_owned(), shim, template: template.clone(), product: String::new() };
        let world = World::in_file("data/semel.db", &[]).await;
        let (program, _) = empty.start(&world, &[]).await;
        let goods: Vec<String> = (1..=80).map(|n| format!("KEY-{n:03}")).collect();
        let product = program.product(&goods).await;
        program.terminate().await;
        copy(&data(&world), &template)?;
        world.sandbox.clone().stop().await;
        Ok(Ground { product, ..empty })
    }

    /// A world whose database is the first shop.
    pub async fn world(&self) -> World {
        let world = World::in_file("data/semel.db", &[]).await;
        copy(&self.template, &data(&world)).expect("the first shop can be copied");
        world
    }

    /// Starts the program and waits until it is ready; answers how long that took.
    pub async fn start(&self, world: &World, environment: &[(&'static str, String)]) -> (Program, Duration) {
        let changes: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let patience = Patience::of("the program is ready", 60);
        loop {
            let mut command = Command::new(&self.semel);
            command.arg("serve");
            world.dress(&mut command, &changes);
            let watch = Stopwatch::start();
            let mut program = world.adopt(command);
            while program.process.ended().is_none() {
                if program.is_ready().await {
                    return (program, watch.elapsed());
                }
                patience.wait().await;
            }
            let log = program.process.log();
            assert!(log.contains("cannot listen"), "the program does not start:\n{}", last_words(&program.process));
            patience.wait().await;
        }
    }

    /// The life after a crash: the program starts plainly, gets all that was wanted, comes to rest, and every promise is
    /// kept, before the witness of the outside world. Answers how long it took to be ready.
    ///
    /// # Errors
    /// What is not as promised.
    pub async fn second_life(&self, world: World, plan: &Plan) -> Result<Duration, String> {
        let outcome = self.live_again(&world, plan).await;
        world.sandbox.clone().stop().await;
        outcome
    }

    async fn live_again(&self, world: &World, plan: &Plan) -> Result<Duration, String> {
        let crash = world.path("crash");
        copy(&data(world), &crash).map_err(|error| format!("the files cannot be copied: {error}"))?;
        let before = world.sandbox.truth();
        let rows = truth_rows(&before, Killed::AfterTelegram);
        let (mut wrong, noted) = judge(&crash.join(FILE), &rows, false).await;
        wrong.iter_mut().for_each(|sentence| sentence.insert_str(0, "right after the crash: "));

        let (program, ready) = self.start(world, &[]).await;
        let acks = Acks::new(Control::new(world.path("control-2")).map_err(|error| error.to_string())?);
        if let Err(died) = plan.run(world, &program.door, &self.product, &acks).await {
            return Err(format!("the second program broke off: {}\n{}", died.0, last_words(&program.process)));
        }
        program.at_rest().await;
        wrong.extend(plan.check_goods(world));
        let verdict = program.door.get("/api/v1/verify?at_rest=true").await;
        if verdict.body["clean"] != true {
            wrong.push(format!("the program itself finds: {}", verdict.text));
        }
        program.terminate().await;

        let truth = world.sandbox.truth();
        let repeated = repeats(&before, &truth, &noted, &mut wrong);
        let killed = if repeated { Killed::AfterTelegram } else { Killed::BesideTelegram };
        let (at_rest, _) = judge(&data(world).join(FILE), &truth_rows(&truth, killed), true).await;
        wrong.extend(at_rest);
        if wrong.is_empty() { Ok(ready) } else { Err(wrong.join("; ")) }
    }
}

/// Messages that went twice. One may, if the program died after Telegram had it and before that was noted, and then once.
fn repeats(before: &Truth, after: &Truth, noted: &BTreeSet<String>, wrong: &mut Vec<String>) -> bool {
    let (before, after) = (accepted(before), accepted(after));
    let mut any = false;
    for (message, times) in after.iter().filter(|(_, times)| **times > 1) {
        any = true;
        let first = before.get(message).copied().unwrap_or(0);
        if first != 1 || *times != 2 || noted.contains(message) {
            let known = if noted.contains(message) { "noted as sent" } else { "not noted" };
            wrong.push(format!(
                "message {message} went {times} times, {first} of them before the crash, and was {known}"
            ));
        }
    }
    any
}

fn accepted(truth: &Truth) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in truth.gt_tg.iter().filter(|call| call.accepted) {
        *counts.entry(call.msg_id.clone()).or_insert(0) += 1;
    }
    counts
}

/// Reads a database as the audit does: what is wrong, and the messages that it calls sent.
pub async fn judge(file: &Path, truth: &TruthRows, at_rest: bool) -> (Vec<String>, BTreeSet<String>) {
    let store = match open(file, Clock::system()) {
        Ok(store) => store,
        Err(error) => return (vec![error], BTreeSet::new()),
    };
    let mut wrong = integrity(&store).await;
    match audit::check_with_truth(&store, truth, Parameters::default(), at_rest).await {
        Ok(verdicts) => wrong.extend(broken(&verdicts)),
        Err(error) => wrong.push(format!("the audit cannot ask: {error}")),
    }
    if at_rest {
        let left = "select state || ' ' || kind || coalesce(' (' || error || ')', '') from jobs
             where state in ('running', 'dead') or (state = 'ready' and run_at <= semel_now() and kind <> 'audit.fresh') order by id";
        let left = texts(&store, left).await;
        wrong.extend(left.into_iter().map(|job| format!("a job is left: {job}")));
    }
    let noted = texts(&store, "select msg_id from audit_msg where state = 'sent'").await;
    (wrong, noted.into_iter().collect())
}

/// The verdicts that do not hold, in words.
pub fn broken(verdicts: &[audit::Verdict]) -> Vec<String> {
    let bad = verdicts.iter().filter(|verdict| !verdict.holds());
    bad.map(|verdict| format!("{} ({}): {}", verdict.id, verdict.meaning, verdict.violations.join(" "))).collect()
}

/// Opens a database as the program does.
///
/// # Errors
/// It cannot be opened.
pub fn open(file: &Path, clock: Clock) -> Result<Store, String> {
    let opened = Store::open(&StoreUrl::Sqlite(file.to_owned()), testing::options(), clock);
    opened.map_err(|error| format!("the database does not open: {error}"))
}

/// What SQLite itself finds wrong with the file.
pub async fn integrity(store: &Store) -> Vec<String> {
    let mut wrong = Vec::new();
    match store.rows("prove.integrity", "pragma integrity_check", &[]).await {
        Ok(rows) => {
            let said: Vec<String> = rows.iter().filter_map(|row| row.get(0).ok()).collect();
            if said != ["ok"] {
                wrong.push(format!("the file is corrupt: {}", said.join(" ")));
            }
        }
        Err(error) => wrong.push(format!("the file is corrupt: {error}")),
    }
    match store.rows("prove.foreign", "pragma foreign_key_check", &[]).await {
        Ok(rows) if rows.is_empty() => {}
        Ok(rows) => wrong.push(format!("{} rows point at nothing", rows.len())),
        Err(error) => wrong.push(format!("the file is corrupt: {error}")),
    }
    wrong
}

/// The first column of all rows; a query that fails is a sentence among them, which no caller takes for an answer.
pub async fn texts(store: &Store, sql: &'static str) -> Vec<String> {
    match store.rows("prove.texts", sql, &[]).await {
        Ok(rows) => rows.iter().filter_map(|row| row.get(0).ok()).collect(),
        Err(error) => vec![format!("the database does not answer: {error}")],
    }
}

/// Copies a database: its file, its log and its journal. The index of the log is made anew by whoever opens the copy.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in parts() {
        if from.join(&name).exists() {
            fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// The names of the files that hold a database.
pub fn parts() -> [String; 3] {
    ["", "-wal", "-journal"].map(|end| format!("{FILE}{end}"))
}

/// The end of a program's log.
pub fn last_words(process: &Process) -> String {
    let log = process.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Runs `scenario` for each item, so many at a time; answers in the order of the items. One that panics or takes too long
/// is an error and ends nothing else. What was late among others is run once more by itself.
pub async fn spread<I, T, F, R>(at_once: usize, items: Vec<I>, scenario: F) -> Vec<(I, Result<T, String>)>
where
    I: Clone + Send + 'static,
    T: Send + 'static,
    F: Fn(I) -> R,
    R: Future<Output = Result<T, String>> + Send + 'static,
{
    let (mut waiting, mut running, mut done) = (items.into_iter().enumerate(), JoinSet::new(), Vec::new());
    loop {
        while running.len() < at_once.max(1)
            && let Some((place, item)) = waiting.next()
        {
            let one = tokio::spawn(tokio::time::timeout(LONGEST, scenario(item.clone())));
            running.spawn(async move { (place, item, one.await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let Ok((place, item, outcome)) = ended else { continue }; // Only waits for another task; nothing in it can panic.
        done.push((place, item, ended_as(outcome)));
    }
    let late = |outcome: &Result<T, String>| outcome.as_ref().is_err_and(|trouble| is_out_of_time(trouble));
    for (_, item, outcome) in done.iter_mut().filter(|(.., outcome)| late(outcome)).take(MOST_AGAIN) {
        *outcome = ended_as(tokio::spawn(tokio::time::timeout(LONGEST, scenario(item.clone()))).await);
    }
    done.sort_by_key(|(place, ..)| *place);
    done.into_iter().map(|(_, item, outcome)| (item, outcome)).collect()
}

/// What came of a scenario that had a task of its own.
fn ended_as<T>(outcome: Result<Result<Result<T, String>, Elapsed>, JoinError>) -> Result<T, String> {
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(format!("not over within {} s", LONGEST.as_secs())),
        Err(panic) => Err(panic.to_string()),
    }
}

/// The same ground for many tasks.
pub type Shared = Arc<Ground>;

/// Prepares the ground of a part of the campaign, in a folder of this name.
///
/// # Errors
/// As [`Ground::prepare`]; also when the first shop does not come to life.
pub async fn prepared(options: &Options, name: &str) -> anyhow::Result<Shared> {
    let (semel, folder) = (options.semel.clone(), options.work.join(name));
    let ground = tokio::spawn(async move { Ground::prepare(&semel, &folder).await }).await??;
    Ok(Arc::new(ground))
}
