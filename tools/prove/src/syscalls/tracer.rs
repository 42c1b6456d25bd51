//! The same from further outside, by strace: a sample of deaths, and the check that the shim sees every call that strace
//! sees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::bail;

use super::deaths::Tally;
use super::ground::{Shared, data, last_words, parts, spread};
use super::plan::{Plan, rest};
use super::shim::{Acks, Control};
use crate::power::trace::{Change, Trace};
use crate::program::{Patience, Program, World};

/// All that could change a file and is no mapping into memory.
const CHANGES: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,ftruncate,fallocate,\
                       copy_file_range,sendfile,splice";

/// Makes sure that strace is there and may trace.
///
/// # Errors
/// It is not, and cannot be had, or tracing is forbidden; the sentence says what to do.
pub fn check() -> anyhow::Result<()> {
    if !answers("strace", &["--version"]) && is_root() {
        let _ = answers("apt-get", &["install", "-y", "--no-install-recommends", "strace"]);
    }
    if !answers("strace", &["--version"]) {
        bail!("strace is not installed: install it, or run the campaign as root where apt-get can");
    }
    if !answers("strace", &["-f", "-o", "/dev/null", "true"]) {
        bail!("strace may not trace here: allow ptrace, in a container with the capability SYS_PTRACE");
    }
    Ok(())
}

fn answers(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|said| said.stdout.trim_ascii() == b"0")
}

/// The program under strace. When this goes, the program dies: without its tracer it would live on.
struct Traced {
    program: Program,
}

impl Traced {
    /// Starts the program under strace and waits for nothing. What is seen goes to the file `seen`.
    fn start(
        ground: &Shared,
        world: &World,
        seen: &Path,
        wanted: &[&str],
        inside: &[(&'static str, String)],
    ) -> Traced {
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "4", "-o"]).arg(seen);
        wanted.iter().for_each(|expression| {
            command.args(["-e", expression]);
        });
        // For the program alone, not for strace.
        inside.iter().for_each(|(name, value)| {
            command.arg("-E").arg(format!("{name}={value}"));
        });
        command.arg(&ground.semel).arg("serve");
        world.dress(&mut command, &[]);
        Traced { program: world.adopt(command) }
    }

    /// Waits until the program is ready; false when it died before.
    async fn is_up(&mut self) -> bool {
        let patience = Patience::of("the program under strace is ready", 90);
        loop {
            if self.program.is_ready().await {
                return true;
            }
            if self.program.process.ended().is_some() {
                return false;
            }
            patience.wait().await;
        }
    }

    fn signal(&self, name: &str) {
        let tracer = self.program.process.pid();
        let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let _ = Command::new("kill").args([name, child]).status();
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.program.process.ended().is_none() {
            self.signal("-KILL");
        }
    }
}

/// What strace saw in one run of a plan.
pub struct Seen {
    /// Calls of each kind in the thread that made most of them: strace counts by thread.
    pub calls: BTreeMap<&'static str, u64>,
    /// Differences between what strace and the shim saw.
    pub troubles: Vec<String>,
    /// Calls on the database that both saw.
    pub both: u64,
}

/// Runs a plan with the shim and under strace, and compares.
///
/// # Errors
/// The plan did not go well.
pub async fn compare(ground: Shared, plan: Plan) -> Result<Seen, String> {
    let world = ground.world().await;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let (log, seen) = (world.path("disk.log"), world.path("strace.log"));
    let inside = control.environment(&ground.shim, &data(&world), Some(&log));
    let mut traced = Traced::start(&ground, &world, &seen, &[CHANGES], &inside);
    if !traced.is_up().await {
        return Err(format!("the program does not start under strace:\n{}", last_words(&traced.program.process)));
    }
    let acks = Acks::new(control);
    plan.run(&world, &traced.program.door, &ground.product, &acks).await.map_err(|died| died.0)?;
    rest(&traced.program.door).await.map_err(|died| died.0)?;
    traced.signal("-TERM");
    traced.program.process.wait_exit(60).await;
    drop(traced);
    let text = fs::read_to_string(&seen).map_err(|error| format!("what strace saw cannot be read: {error}"))?;
    let trace = Trace::read(&[log]).map_err(|error| error.to_string())?;
    world.sandbox.clone().stop().await;

    let (by_strace, calls) = seen_by_strace(&text);
    let mut by_shim: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    for record in &trace.records {
        let what = match record.change {
            Change::Write => "write",
            Change::Sync => "sync",
            Change::Resize => "resize",
            _ => continue,
        };
        *by_shim.entry((record.name.clone(), what)).or_default() += 1;
    }
    let mut troubles = Vec::new();
    let places: BTreeSet<_> = by_strace.keys().chain(by_shim.keys()).collect();
    for place in places {
        let count = |of: &BTreeMap<(String, &'static str), u64>| of.get(place).copied().unwrap_or(0);
        if count(&by_strace) != count(&by_shim) {
            let (name, what) = place;
            let (strace, shim) = (count(&by_strace), count(&by_shim));
            troubles.push(format!("{}: {what} of {name}: strace saw {strace}, the shim {shim}", plan.name));
        }
    }
    Ok(Seen { calls, troubles, both: by_shim.values().sum() })
}

/// How often strace saw a file changed in each way, and the calls by kind of the busiest thread.
#[allow(clippy::type_complexity, reason = "counts by file and kind, and by kind")]
fn seen_by_strace(text: &str) -> (BTreeMap<(String, &'static str), u64>, BTreeMap<&'static str, u64>) {
    let mut places: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    let mut threads: BTreeMap<String, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        let Some((kind, what)) = kind_of(name) else { continue };
        *threads.entry(thread.to_owned()).or_default().entry(kind).or_default() += 1;
        // `7</path/of/the/file>, …`
        let path = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path);
        let file = Path::new(path).file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        if parts().contains(&file) {
            *places.entry((file, what)).or_default() += 1;
        }
    }
    let busiest = threads.into_values().max_by_key(|calls| calls.get("pwrite64").copied().unwrap_or(0));
    (places, busiest.unwrap_or_default())
}

fn kind_of(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "write" => ("write", "write"),
        "writev" => ("writev", "write"),
        "pwrite64" => ("pwrite64", "write"),
        "pwritev" | "pwritev2" | "copy_file_range" | "sendfile" | "splice" | "fallocate" => ("other", "write"),
        "fsync" => ("fsync", "sync"),
        "fdatasync" => ("fdatasync", "sync"),
        "sync_file_range" => ("other", "sync"),
        "ftruncate" => ("ftruncate", "resize"),
        _ => return None,
    })
}

/// A death by strace: at the n-th call of this kind that one thread of the program makes.
#[derive(Clone, Debug)]
pub struct Cut {
    plan: Plan,
    call: &'static str,
    nth: u64,
}

/// So many cuts of a plan, by chance.
pub fn cuts(plan: &Plan, seen: &Seen, count: usize, rng: &mut fastrand::Rng) -> Vec<Cut> {
    let kinds = ["pwrite64", "fsync"].map(|call| (call, seen.calls.get(call).copied().unwrap_or(0)));
    let (writes, syncs) = (kinds[0], kinds[1]);
    let one = |turn: usize, rng: &mut fastrand::Rng| {
        let (call, most) = if turn % 4 == 3 && syncs.1 > 0 { syncs } else { writes };
        Cut { plan: plan.clone(), call, nth: rng.u64(1..=most.max(1)) }
    };
    (0..count).map(|turn| one(turn, rng)).collect()
}

/// Lets the program die at each of the cuts.
pub async fn deaths(ground: &Shared, at_once: usize, cuts: Vec<Cut>) -> Tally {
    let mut tally = Tally::default();
    for (cut, outcome) in spread(at_once, cuts, |cut| death(ground.clone(), cut)).await {
        tally.add(&format!("{} at {} {} by strace on SQLite", cut.plan.name, cut.call, cut.nth), outcome);
    }
    tally
}

async fn death(ground: Shared, cut: Cut) -> Result<Option<Duration>, String> {
    let world = ground.world().await;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let wanted = [format!("trace={}", cut.call), format!("inject={}:signal=KILL:when={}", cut.call, cut.nth)];
    let wanted = [wanted[0].as_str(), wanted[1].as_str()];
    let mut traced = Traced::start(&ground, &world, &world.path("strace.log"), &wanted, &[]);
    if traced.is_up().await {
        let acks = Acks::new(control);
        let mut ran = cut.plan.run(&world, &traced.program.door, &ground.product, &acks).await;
        if ran.is_ok() {
            ran = rest(&traced.program.door).await;
        }
        if ran.is_ok() {
            drop(traced);
            world.sandbox.clone().stop().await;
            return Ok(None);
        }
    }
    let status = traced.program.process.wait_exit(30).await;
    // strace ends as its program did.
    if status.signal() != Some(9) {
        return Err(format!("ended with {status} and did not die:\n{}", last_words(&traced.program.process)));
    }
    drop(traced);
    ground.second_life(world, &cut.plan).await.map(Some)
}
