//! The same for `wg0.conf`: the program dies at any call that makes, writes, syncs or renames the file of the VPN server, by
//! the shim and by strace; and any of these calls fails.
//!
//! Right after each death the file is one whole version. Plainly started again, the program brings it to what its database
//! wants within 30 seconds, and what was asked for is done once. What is whole is judged here by hand, without the code
//! that writes the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use semel_kernel::clock::Stopwatch;
use semel_prove::report::{Figure, Options};

use super::deaths::Tally;
use super::ground::{Shared, data, judge, last_words, spread};
use super::plan::{Died, rest};
use super::shim::{Action, Control, Kind};
use super::{tracer, well};
use crate::program::{Door, Killed, OWN_CONF, Patience, Process, Program, World, text, truth_rows};

/// After a death the file is as the database wants it within this.
const HEALED: Duration = Duration::from_secs(30);
const FIRST: i64 = 7001;
const SECOND: i64 = 7002;
/// Of the first customer.
const DEVICES: u32 = 2;
/// The calls that strace lets die.
const TRACED: &str =
    "trace=openat,fchmod,write,fsync,fdatasync,ftruncate,?rename,?renameat,?renameat2,?unlink,unlinkat";
/// Names that one program gives its temporary files before the campaign is over with it.
const TEMPORARY: u32 = 16;

/// Runs this part; answers its figures and the slowest start after a death.
pub async fn run(ground: &Shared, options: &Options) -> (Vec<Figure>, Duration) {
    let (mut figures, mut slowest) = (Vec::new(), Duration::ZERO);
    let counted = match spread(1, vec![()], |()| counts(ground.clone())).await.pop() {
        Some((_, Ok(counted))) => counted,
        Some((_, Err(error))) => return (vec![failed("wg0.conf: a plan without a death", error)], slowest),
        None => return (figures, slowest),
    };
    let all: u64 = counted.iter().map(|(_, count)| count).sum();
    figures.push(Figure::told("wg0.conf: calls on it in the plan, each a place to die", all.to_string()));

    let rounds = if options.small { 1 } else { 10 };
    let mut deaths = Vec::new();
    for round in 0..rounds {
        for (kind, count) in &counted {
            // Syncs of the folder are places to die, and are not counted where nobody dies.
            let most = if *kind == Kind::Sync { count * 2 } else { *count };
            deaths.extend((1..=most).map(|nth| Cut { what: How::Shim(*kind, Action::Death), nth, round }));
        }
    }
    let wanted = all * rounds;
    let tally = tried(ground, options.at_once, deaths).await;
    slowest = slowest.max(tally.slowest);
    let name = "wg0.conf: deaths at a write, sync, creation, removal or renaming";
    figures.push(Figure::at_least(name, tally.tried, wanted));
    figures.push(well("Of these: one whole version, as the database wants it within 30 s", tally));

    let fails = |kind: &Kind| matches!(kind, Kind::Write | Kind::Sync | Kind::Rename);
    let mut failures = Vec::new();
    for (kind, count) in counted.iter().filter(|(kind, _)| fails(kind)) {
        failures.extend((1..=*count).map(|nth| Cut { what: How::Shim(*kind, Action::Failure), nth, round: 0 }));
    }
    let wanted = failures.len() as u64;
    let tally = tried(ground, options.at_once, failures).await;
    figures.push(Figure::at_least("wg0.conf: writes, syncs and renamings that fail", tally.tried, wanted));
    figures.push(well("Of these: the owner was told, and the next run mended it", tally));

    let (more, took) = traced(ground, options).await;
    figures.extend(more);
    (figures, slowest.max(took))
}

/// The deaths by strace, which knows nothing of the shim.
async fn traced(ground: &Shared, options: &Options) -> (Vec<Figure>, Duration) {
    if let Err(error) = tracer::check() {
        return (vec![failed("wg0.conf: deaths by strace", error.to_string())], Duration::ZERO);
    }
    let seen = match spread(1, vec![()], |()| seen(ground.clone())).await.pop() {
        Some((_, Ok(seen))) => seen,
        Some((_, Err(error))) => return (vec![failed("wg0.conf: a change under strace", error)], Duration::ZERO),
        None => return (Vec::new(), Duration::ZERO),
    };
    let certain = |call: &String| call == "write" || call == "fsync" || call.starts_with("rename");
    let mut cuts = Vec::new();
    for (call, count) in seen.iter().filter(|(call, _)| !options.small || certain(call)) {
        cuts.extend((1..=*count).map(|nth| Cut { what: How::Strace(call.clone()), nth, round: 0 }));
    }
    // One write, the file's sync and the folder's, one renaming.
    let has = |call: &str, least: u64| seen.iter().any(|(name, count)| name.starts_with(call) && *count >= least);
    let complete = has("write", 1) && has("fsync", 2) && has("rename", 1);
    let told: Vec<String> = seen.iter().map(|(call, count)| format!("{call} {count}")).collect();
    let name = "wg0.conf: calls of one change that strace sees";
    let sees = Figure::judged(name, told.join(", "), "a write, two syncs, a renaming", complete);
    let wanted = cuts.len() as u64;
    let tally = tried(ground, options.at_once, cuts).await;
    let took = tally.slowest;
    let count = Figure::at_least("wg0.conf: deaths by strace", tally.tried, wanted);
    (vec![sees, count, well("Of these: one whole version, as the database wants it within 30 s", tally)], took)
}

fn failed(name: &str, trouble: String) -> Figure {
    Figure { troubles: vec![trouble], ..Figure::judged(name, "could not be tried", "all", false) }
}

/// Where something happens.
#[derive(Clone, Debug)]
struct Cut {
    what: How,
    nth: u64,
    round: u64,
}

#[derive(Clone, Debug)]
enum How {
    /// At the n-th call of a kind since the plan began.
    Shim(Kind, Action),
    /// At the n-th call of this name on the file, its temporary names and its folder.
    Strace(String),
}

async fn tried(ground: &Shared, at_once: usize, cuts: Vec<Cut>) -> Tally {
    let mut tally = Tally::default();
    for (cut, outcome) in spread(at_once, cuts, |cut| one(ground.clone(), cut)).await {
        let Cut { what, nth, round } = cut;
        tally.add(&format!("wg0.conf at {what:?} {nth}, round {round}").to_lowercase(), outcome);
    }
    tally
}

async fn one(ground: Shared, cut: Cut) -> Result<Option<Duration>, String> {
    match cut.what {
        How::Shim(kind, Action::Death) => death(ground, kind, cut.nth).await,
        How::Shim(kind, Action::Failure) => failure(ground, kind, cut.nth).await,
        How::Strace(call) => traced_death(ground, &call, cut.nth).await,
    }
}

/// A shop that sells access, whose server's file is the owner's own.
async fn scene() -> (World, PathBuf) {
    let mut world = World::in_file("data/semel.db", &[]).await;
    let file = world.sells_vpn();
    (world, file)
}

/// The calls of each kind that the plan makes on the file and its folder when nobody dies.
async fn counts(ground: Shared) -> Result<Vec<(Kind, u64)>, String> {
    let (world, file) = scene().await;
    let (program, control) = shimmed(&ground, &world, &file).await?;
    control.count();
    plan(&program.door).await.map_err(|died| died.0)?;
    rest(&program.door).await.map_err(|died| died.0)?;
    let counts = Kind::ALL.map(|kind| (kind, control.counted(kind)));
    agrees(&program.door, &file).await?;
    program.terminate().await;
    world.sandbox.clone().stop().await;
    if counts.iter().any(|(kind, count)| *kind == Kind::Rename && *count >= 3) {
        Ok(counts.to_vec())
    } else {
        Err(format!("the shim does not see three changes of the file: {counts:?}"))
    }
}

/// The program with the shim around the file's folder, at rest.
async fn shimmed(ground: &Shared, world: &World, file: &Path) -> Result<(Program, Control), String> {
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let (program, _) = ground.start(world, &control.environment(&ground.shim, folder, None)).await;
    settled(&program.door).await.map_err(|died| died.0)?;
    rest(&program.door).await.map_err(|died| died.0)?;
    Ok((program, control))
}

async fn death(ground: Shared, kind: Kind, nth: u64) -> Result<Option<Duration>, String> {
    let (world, file) = scene().await;
    let (mut program, control) = shimmed(&ground, &world, &file).await?;
    control.arm(kind, nth, Action::Death);
    let ran = plan(&program.door).await;
    if !control.has_struck() {
        return missed(world, program, ran).await;
    }
    let status = program.process.wait_exit(30).await;
    if status.signal() != Some(9) {
        return Err(format!("ended with {status} and did not die"));
    }
    drop(program);
    second_life(&ground, world, &file).await.map(Some)
}

/// The call was never made: then nothing may have gone wrong.
async fn missed(world: World, program: Program, ran: Result<(), Died>) -> Result<Option<Duration>, String> {
    let words = last_words(&program.process);
    drop(program);
    world.sandbox.clone().stop().await;
    ran.map(|()| None).map_err(|died| format!("broke off, and not where it was meant to: {}\n{words}", died.0))
}

/// The n-th call of a kind fails once, and the program goes on.
async fn failure(ground: Shared, kind: Kind, nth: u64) -> Result<Option<Duration>, String> {
    let (world, file) = scene().await;
    let (program, control) = shimmed(&ground, &world, &file).await?;
    control.arm(kind, nth, Action::Failure);
    let ran = plan(&program.door).await;
    if !control.has_struck() {
        return missed(world, program, ran).await;
    }
    ran.map_err(|died| format!("broke off: {}\n{}", died.0, last_words(&program.process)))?;
    rest(&program.door).await.map_err(|died| died.0)?;
    agrees(&program.door, &file).await?;
    let owner = world.sandbox.chat(1);
    if !owner.iter().any(|message| message.text.contains("The VPN server could not be brought to what is wanted")) {
        return Err(format!("the owner was told {owner:?}"));
    }
    over(world, program).await.map(|()| Some(Duration::ZERO))
}

/// What strace sees of one change, by the names of the calls, in the thread that makes it.
async fn seen(ground: Shared) -> Result<BTreeMap<String, u64>, String> {
    let (world, file) = scene().await;
    let (program, _) = ground.start(&world, &[]).await;
    settled(&program.door).await.map_err(|died| died.0)?;
    rest(&program.door).await.map_err(|died| died.0)?;
    let log = world.path("strace.log");
    let mut tracer = attached(&world, &program, &file, &log, None).await?;
    given(&program.door, FIRST, DEVICES).await.map_err(|died| died.0)?;
    settled(&program.door).await.map_err(|died| died.0)?;
    // Asked to stop, it lets the program go on and writes all that it saw.
    let asked = Command::new("kill").args(["-TERM", &tracer.pid().to_string()]).status();
    asked.map_err(|error| error.to_string())?;
    tracer.wait_exit(20).await;
    program.terminate().await;
    world.sandbox.clone().stop().await;
    let text = fs::read_to_string(&log).map_err(|error| format!("what strace saw cannot be read: {error}"))?;
    let mut threads: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        // `<... fsync resumed>)` is the second half of a line that was seen already.
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            *threads.entry(thread).or_default().entry(name.to_owned()).or_default() += 1;
        }
    }
    let of_change = threads.into_values().find(|calls| calls.keys().any(|name| name.starts_with("rename")));
    of_change.ok_or_else(|| format!("strace saw no renaming:\n{text}"))
}

/// strace on the running program, looking at the file, its temporary names and its folder; `cut` kills the program there.
async fn attached(
    world: &World,
    program: &Program,
    file: &Path,
    log: &Path,
    cut: Option<(&str, u64)>,
) -> Result<Process, String> {
    let (pid, folder) = (program.process.pid(), file.parent().unwrap_or(Path::new("/")));
    let mut command = Command::new("strace");
    command.args(["-f", "-s", "4", "-e", TRACED, "-o"]).arg(log);
    command.arg("-P").arg(file).arg("-P").arg(folder);
    for number in 0..TEMPORARY {
        command.arg("-P").arg(folder.join(format!(".wg0.conf.semel-{pid}-{number}")));
    }
    if let Some((call, nth)) = cut {
        command.arg("-e").arg(format!("inject={call}:signal=KILL:when={nth}"));
    }
    command.arg("-p").arg(pid.to_string());
    let mut tracer = Process::start(command, &world.path("."));
    let patience = Patience::of("strace looks at the program", 30);
    while !tracer.log().contains(" attached") {
        if let Some(status) = tracer.ended() {
            return Err(format!("strace ended with {status}: {}", tracer.log()));
        }
        patience.wait().await;
    }
    Ok(tracer)
}

async fn traced_death(ground: Shared, call: &str, nth: u64) -> Result<Option<Duration>, String> {
    let (world, file) = scene().await;
    let (mut program, _) = ground.start(&world, &[]).await;
    settled(&program.door).await.map_err(|died| died.0)?;
    rest(&program.door).await.map_err(|died| died.0)?;
    let tracer = attached(&world, &program, &file, &world.path("strace.log"), Some((call, nth))).await?;
    let mut ran = given(&program.door, FIRST, DEVICES).await.map(|_| ());
    if ran.is_ok() {
        ran = settled(&program.door).await;
    }
    if ran.is_ok() {
        drop(tracer);
        return missed(world, program, ran).await;
    }
    let status = program.process.wait_exit(30).await;
    if status.signal() != Some(9) {
        return Err(format!("ended with {status} and did not die: {}", last_words(&program.process)));
    }
    drop(tracer);
    drop(program);
    second_life(&ground, world, &file).await.map(Some)
}

/// The life after a death: the file is whole at once, right soon, and at the end everything was done once.
async fn second_life(ground: &Shared, world: World, file: &Path) -> Result<Duration, String> {
    let before = version(file).map_err(|wrong| format!("right after the death {wrong}"))?;
    if before.len() > 3 {
        return Err(format!("right after the death the file has the keys {before:?}"));
    }
    let watch = Stopwatch::start();
    let (program, ready) = ground.start(&world, &[]).await;
    settled(&program.door).await.map_err(|died| died.0)?;
    let healed = watch.elapsed();
    if healed > HEALED {
        return Err(format!("the file was as the database wants it after {} s", healed.as_secs()));
    }
    agrees(&program.door, file).await?;
    plan(&program.door).await.map_err(|died| format!("the second program broke off: {}", died.0))?;
    rest(&program.door).await.map_err(|died| died.0)?;
    let left = agrees(&program.door, file).await?;
    if left != 1 {
        return Err(format!("in the end {left} peers are wanted, and not one"));
    }
    over(world, program).await.map(|()| ready)
}

/// Ends the program, which must find nothing wrong, and reads its database as the audit does.
async fn over(world: World, program: Program) -> Result<(), String> {
    let verdict = program.door.get("/api/v1/verify?at_rest=true").await;
    let mut wrong = Vec::new();
    if verdict.body["clean"] != true {
        wrong.push(format!("the program itself finds: {}", verdict.text));
    }
    program.terminate().await;
    // A message may have been on its way when the program died.
    let truth = truth_rows(&world.sandbox.truth(), Killed::AfterTelegram);
    let (more, _) = judge(&data(&world).join("semel.db"), &truth, true).await;
    wrong.extend(more);
    world.sandbox.clone().stop().await;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// What the owner wants: two customers get access, and the first one loses it again. Asked again with the same keys it
/// changes nothing.
async fn plan(door: &Door) -> Result<(), Died> {
    let first = given(door, FIRST, DEVICES).await?;
    settled(door).await?;
    given(door, SECOND, 1).await?;
    settled(door).await?;
    let path = format!("/api/v1/subscriptions/{first}/revoke");
    ask(door, &path, &json!({ "reason": "resold" }), "conf-revoke").await?;
    settled(door).await
}

async fn given(door: &Door, customer: i64, devices: u32) -> Result<String, Died> {
    let gift = json!({ "customer": { "telegram_id": customer }, "days": 30, "devices": devices, "reason": "a gift" });
    let made = ask(door, "/api/v1/subscriptions", &gift, &format!("conf-{customer}")).await?;
    Ok(text(&made["id"]))
}

/// Asks until there is an answer that is no "later".
async fn ask(door: &Door, path: &str, body: &Value, key: &str) -> Result<Value, Died> {
    let patience = Patience::of(format!("POST {path} is answered for good"), 90);
    loop {
        let answer = door.try_post_with_key(path, body, key).await.map_err(Died)?;
        if !matches!(answer.status, 409 | 425 | 429 | 500..) {
            assert!(answer.status < 300, "POST {path} is done: {}", answer.text);
            return Ok(answer.body);
        }
        patience.wait().await;
    }
}

/// Waits until the program says that the file is as the database wants it.
async fn settled(door: &Door) -> Result<(), Died> {
    let patience = Patience::of("the file is as the database wants it", 90);
    loop {
        let server = door.try_get("/api/v1/servers/local").await.map_err(Died)?;
        if server.body["in_step"] == true {
            return Ok(());
        }
        patience.wait().await;
    }
}

/// Compares the file with the database; answers how many peers both have.
async fn agrees(door: &Door, file: &Path) -> Result<usize, String> {
    let mut wanted = BTreeSet::new();
    for state in ["pending", "active"] {
        let listed = door.try_get(&format!("/api/v1/peers?server=local&state={state}&limit=200")).await?;
        wanted.extend(listed.body["items"].as_array().into_iter().flatten().map(|peer| text(&peer["public_key"])));
    }
    let found = version(file)?;
    if found != wanted {
        return Err(format!("the file has {found:?} and the database wants {wanted:?}"));
    }
    let folder = fs::read_dir(file.parent().unwrap_or(Path::new("/"))).map_err(|error| error.to_string())?;
    let names: Vec<String> = folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.iter().find(|name| name.contains(".semel-")) {
        Some(name) => Err(format!("{name} was left behind")),
        None => Ok(found.len()),
    }
}

/// The customers' keys in a configuration file, if it is one whole version: the owner's own lines, then nothing or one pair
/// of fence lines whose hash is that of what stands between.
///
/// # Errors
/// What is wrong with it.
pub fn version(file: &Path) -> Result<BTreeSet<String>, String> {
    let bytes = fs::read(file).map_err(|error| format!("the file cannot be read: {error}"))?;
    let mode = fs::metadata(file).map_err(|error| error.to_string())?.permissions().mode() & 0o777;
    if mode != 0o600 {
        return Err(format!("the file has the mode {mode:o}"));
    }
    whole(bytes)
}

/// The same of the bytes of such a file.
///
/// # Errors
/// What is wrong with them.
pub fn whole(bytes: Vec<u8>) -> Result<BTreeSet<String>, String> {
    let text = String::from_utf8(bytes).map_err(|_| "the file is no text".to_owned())?;
    let ours = text.strip_prefix(OWN_CONF).ok_or_else(|| format!("the owner's own lines are gone:\n{text}"))?;
    if ours.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (begin, rest) = ours.split_once('\n').unwrap_or((ours, ""));
    let (between, end) = rest.rfind("# semel: end ").map_or((rest, ""), |at| rest.split_at(at));
    let hash = hex::encode(Sha256::digest(between.as_bytes()));
    if !begin.starts_with("# semel: begin") || end != format!("# semel: end sha256={hash}\n") {
        return Err(format!("the file is not whole:\n{text}"));
    }
    let keys: BTreeSet<String> =
        between.lines().filter_map(|line| line.strip_prefix("PublicKey = ")).map(str::to_owned).collect();
    if keys.len() == between.matches("[Peer]").count() {
        Ok(keys)
    } else {
        Err(format!("a peer stands twice or without a key:\n{text}"))
    }
}
