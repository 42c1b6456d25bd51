//! A world with a program in it that may die at any moment, and the patient client that talks to it.
//!
//! The stage knows every process that ran: what it was armed with, what it passed, how it ended. While a flow is played,
//! [`Stage::keep`] does what a service manager does, and starts the program again whenever it is gone.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::future::pending;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::{Engine, StoreUrl};
use semel_kernel::testing::PgServer;

use super::places::{self, Action, Place, Point, passed, times};
use crate::program::{Answer, Door, Killed, Patience, Process, Program, Said, World, items, moment};

/// A dead copy's jobs wait for this long on PostgreSQL. Not less: a crowded machine may stall a living copy for a second.
const LEASE: (&str, &str) = ("SEMEL_JOB_LEASE", "3s");
/// More than this many processes in one scenario are no recovery.
const RUNS: usize = 10;
/// For refusals that pass, such as an idempotency key that a dead copy held: it is busy for half a minute.
const PATIENT_S: u64 = 100;
/// A program that has nothing to do passes no place for this long.
const SILENCE: Duration = Duration::from_millis(300);
/// In this time every look at the queue comes round, once a program has nothing else to do.
const LOOKS: Duration = Duration::from_secs(10);
/// Begun and ended statements at a server.
const ASKED: &str = "store.taken:session";
const TOLD: &str = "store.told:session";
/// The code with which the program ends when it cannot read what it is armed with.
const MISREAD: i32 = 64;

/// Commits that note what became of a call of Telegram.
const NOTED: [&str; 6] = [
    "commit.after:message.sent",
    "commit.after:message.silence",
    "commit.after:message.end",
    "commit.after:message.unclear",
    "commit.after:message.moved",
    "commit.after:message.given_up",
];
const CALLED: &str = "call.before:telegram.send";
/// The call whose lost answer nobody can ask about.
pub const UNHEARD: &str = "call.after:telegram.send";

/// One process of the program.
struct Run {
    armed: Option<Point>,
    /// Whether something fails in it by the flow's own wish.
    troubled: bool,
    trace: PathBuf,
    end: Option<ExitStatus>,
    /// The end of its log, once it ended.
    last_words: String,
}

impl Run {
    fn reached(&self) -> bool {
        self.armed.as_ref().is_some_and(|point| point.is_in(&passed(&self.trace)))
    }

    /// Messages of which this process left nobody knowing whether they arrived.
    fn lost(&self) -> usize {
        let passed = passed(&self.trace);
        let unheard = self.armed.as_ref().is_some_and(Point::is_unheard) && self.reached();
        let flying = match self.end {
            Some(end) if !end.success() => {
                let noted: usize = NOTED.iter().map(|name| times(&passed, name)).sum();
                times(&passed, CALLED).saturating_sub(noted)
            }
            _ => 0,
        };
        flying + usize::from(unheard)
    }
}

impl Point {
    /// Whether it makes an answer of Telegram go unheard, and nothing else.
    pub fn is_unheard(&self) -> bool {
        self.place.name == UNHEARD && self.action == Action::Error
    }
}

#[derive(Default)]
struct Inner {
    program: Option<Program>,
    runs: Vec<Run>,
    /// What the next processes are armed with.
    plan: VecDeque<Point>,
    restarts: Vec<Duration>,
    traces: usize,
    /// Settings that came later than those of the world.
    worn: Vec<(String, String)>,
    /// What fails in every process that is not plain, whatever it is armed with.
    trouble: String,
}

/// What a process gets beside the settings of its world.
fn changes<'a>(worn: &'a [(String, String)], trace: &'a str, rules: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut changes: Vec<(&str, &str)> = worn.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    changes.push(("SEMEL_FAILPOINT_TRACE", trace));
    if !rules.is_empty() {
        changes.push(("SEMEL_FAILPOINT", rules));
    }
    changes
}

/// A world, the program in it, and a client.
pub struct Stage {
    /// Everything around the program.
    pub world: World,
    folder: PathBuf,
    main: Door,
    door: Mutex<Door>,
    inner: Mutex<Inner>,
}

/// Setting up.
impl Stage {
    /// A stage without a program. Traces go to `folder`; `empty` leaves the making of the tables to the program.
    pub async fn open(engine: Engine, settings: &[(String, String)], empty: bool, folder: &Path) -> Stage {
        fs::create_dir_all(folder).expect("a folder for traces");
        let mut changes = vec![LEASE];
        changes.extend(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let world = if empty { World::empty(engine, &changes).await } else { World::with(engine, &changes).await };
        let main = world.door();
        let door = Mutex::new(main.clone());
        Stage { world, folder: folder.to_owned(), main, door, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fresh file for the places that a process passes.
    pub fn fresh_trace(&self) -> PathBuf {
        let mut inner = self.inner();
        inner.traces += 1;
        self.folder.join(format!("trace-{}", inner.traces))
    }

    /// Arms the process after the next one.
    pub fn plan(&self, point: Option<Point>) {
        self.inner().plan.extend(point);
    }

    /// From now on every process has this setting, too.
    pub fn wear(&self, name: &str, value: impl Into<String>) {
        self.inner().worn.push((name.to_owned(), value.into()));
    }

    /// From now on copies hear each other, where there can be several.
    pub fn hear_copies(&self) {
        if let StoreUrl::Postgres(url) = self.world.database_url() {
            self.wear("SEMEL_DATABASE_LISTEN_URL", url);
        }
    }

    /// The settings that came later than those of the world.
    pub fn worn(&self) -> Vec<(String, String)> {
        self.inner().worn.clone()
    }

    /// From now on these rules hold in every process beside what it is armed with; not in those that nothing is done to.
    pub fn trouble(&self, rules: impl Into<String>) {
        self.inner().trouble = rules.into();
    }

    /// Starts the program and waits for nothing.
    pub fn launch(&self, armed: Option<Point>) {
        let trouble = self.inner().trouble.clone();
        self.launch_with(armed, trouble);
    }

    fn launch_with(&self, armed: Option<Point>, trouble: String) {
        let (trace, worn) = (self.fresh_trace(), self.worn());
        let told_in = trace.to_string_lossy().into_owned();
        let troubled = !trouble.is_empty();
        // The point comes first: of two rules that one passing completes, the first one acts.
        let rules: Vec<String> =
            armed.as_ref().map(Point::rule).into_iter().chain(troubled.then_some(trouble)).collect();
        let program = self.world.launch(&changes(&worn, &told_in, &rules.join(";")));
        let mut inner = self.inner();
        inner.program = Some(program);
        inner.runs.push(Run { armed, troubled, trace, end: None, last_words: String::new() });
    }

    /// Runs a command of the program to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Said {
        self.cli_armed(arguments, "").await
    }

    /// The same, broken as this rule says.
    pub async fn cli_armed(&self, arguments: &[&str], rule: &str) -> Said {
        let (trace, worn) = (self.fresh_trace().to_string_lossy().into_owned(), self.worn());
        self.world.cli_with(arguments, &changes(&worn, &trace, rule)).await
    }

    /// Starts a command of the program that goes on until it is asked to stop.
    pub fn begin(&self, arguments: &[&str]) -> Process {
        let (trace, worn) = (self.fresh_trace().to_string_lossy().into_owned(), self.worn());
        self.world.begin(arguments, &changes(&worn, &trace, ""))
    }

    /// Starts the program, armed with nothing, and waits until it is ready.
    pub async fn start_plain(&self) {
        for _ in 0..3 {
            self.launch_with(None, String::new());
            if self.ready_or_gone().await {
                return;
            }
        }
        panic!("the program does not start: {}", self.last_words());
    }

    /// Ends the program as an operator does, and insists that it ends well.
    pub async fn stop_plain(&self) {
        let program = self.inner().program.take().expect("a program runs");
        program.terminate().await;
        self.note_end(ExitStatus::from_raw(0), String::new());
    }

    /// Puts a program that is armed with nothing in the place of one that is, or that is gone.
    pub async fn plain_again(&self) {
        let gone = self.is_gone();
        let plain = self.inner().runs.last().is_some_and(|run| run.armed.is_none() && !run.troubled);
        if plain && !gone {
            return;
        }
        if gone {
            self.judge_the_end();
        }
        let program = self.inner().program.take();
        if let Some(mut program) = program {
            // It may die of what it is armed with on its way out.
            terminate(program.process.pid());
            let status = program.process.wait_exit(40).await;
            let words = last_lines(&program.process);
            self.note_end(status, words);
        }
        self.start_plain().await;
    }
}

fn terminate(pid: u32) {
    let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
}

fn last_lines(process: &Process) -> String {
    let log = process.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// Its processes.
impl Stage {
    fn note_end(&self, status: ExitStatus, last_words: String) {
        if let Some(run) = self.inner().runs.last_mut() {
            run.end = Some(status);
            run.last_words = last_words;
        }
    }

    /// Whether no program is there; notes how it ended.
    pub fn is_gone(&self) -> bool {
        let mut inner = self.inner();
        let Some(program) = inner.program.as_mut() else { return true };
        let Some(status) = program.process.ended() else { return false };
        let words = last_lines(&program.process);
        inner.program = None;
        drop(inner);
        self.note_end(status, words);
        true
    }

    /// Waits until the program is ready; false when it ended instead. Its log tells: asking would make it pass places, and
    /// every time another number of them.
    pub async fn ready_or_gone(&self) -> bool {
        let patience = Patience::of("the program says that it is ready", 60);
        loop {
            if self.is_gone() {
                return false;
            }
            if self.said_ready() {
                return true;
            }
            patience.wait().await;
        }
    }

    fn said_ready(&self) -> bool {
        let log = self.inner().program.as_ref().map(|program| program.process.log()).unwrap_or_default();
        log.lines().any(|line| line.trim_end().ends_with("INFO ready"))
    }

    /// Waits until a program is ready, whichever it is.
    pub async fn ready(&self) {
        let patience = Patience::of("a program is ready", 60);
        while !self.said_ready() {
            patience.wait().await;
        }
    }

    /// Starts the program again whenever it is gone, armed as planned. Not `kept`, it stays dead. Never ends.
    pub async fn keep(&self, kept: bool) {
        if !kept {
            pending::<()>().await;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if !self.is_gone() {
                continue;
            }
            self.judge_the_end();
            let watch = Stopwatch::start();
            let next = self.inner().plan.pop_front();
            self.launch(next);
            if self.ready_or_gone().await {
                self.inner().restarts.push(watch.elapsed());
            }
        }
    }

    /// A program that nothing was done to must not end by itself.
    fn judge_the_end(&self) {
        let inner = self.inner();
        let Some(run) = inner.runs.last() else { return };
        let Some(end) = run.end else { return };
        assert!(end.code() != Some(MISREAD), "the program cannot read what it is armed with: {}", run.last_words);
        let excused = end.success() || run.reached() || run.last_words.contains("cannot listen");
        assert!(excused, "the program ended with {end} although nothing was done to it: {}", run.last_words);
        assert!(inner.runs.len() < RUNS, "the program ends again and again, last with {end}: {}", run.last_words);
    }

    /// Asks the program to stop, as an operator does, and waits for nothing.
    pub fn ask_to_stop(&self) {
        if let Some(program) = &self.inner().program {
            terminate(program.process.pid());
        }
    }

    /// How many processes there were.
    pub fn runs(&self) -> usize {
        self.inner().runs.len()
    }

    /// What the process of this number passed, counted from zero.
    pub fn passed(&self, run: usize) -> Vec<String> {
        let trace = self.inner().runs.get(run).map(|run| run.trace.clone());
        trace.map(|trace| passed(&trace)).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        self.inner().runs.last().map(|run| run.last_words.clone()).unwrap_or_default()
    }

    /// Waits until the program has nothing to do. It may die before. Nothing is asked of it, as in [`Stage::ready_or_gone`].
    pub async fn quiet(&self, run: usize) {
        let patience = Patience::of("the program has nothing to do", 60);
        let (mut known, mut since) = (0, Stopwatch::start());
        while !self.is_gone() {
            let passed = self.passed(run);
            let now = passed.iter().filter(|name| !places::is_beside(name)).count();
            // On a busy machine silence alone says nothing: the program waits for its turn, or for the database.
            let asks = times(&passed, ASKED) > times(&passed, TOLD);
            if now != known || asks || !self.is_asleep() {
                (known, since) = (now, Stopwatch::start());
            } else if since.elapsed() > SILENCE {
                return;
            }
            patience.wait().await;
        }
    }

    /// Whether every thread of the program waits for something to happen: none wants the processor or a disk.
    fn is_asleep(&self) -> bool {
        let Some(pid) = self.inner().program.as_ref().map(|program| program.process.pid()) else { return true };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut told = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        // The state stands behind the name, which is in brackets and may hold anything.
        told.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S')))
    }

    /// Waits until an armed program is where the good one was when the flow began: ready, and as often past its place. On
    /// PostgreSQL, where a look at the queue is such a place, it may die already now; or come there too late, when it has nothing
    /// else to do, and begin so.
    pub async fn as_far_as(&self, place: &Place) {
        if !self.ready_or_gone().await {
            return;
        }
        let (run, watch) = (self.runs() - 1, Stopwatch::start());
        while times(&self.passed(run), &place.name) < place.before {
            if self.is_gone() {
                return;
            }
            if watch.elapsed() > LOOKS {
                return self.quiet(run).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether any process died or was hit by an error.
    pub fn was_disturbed(&self) -> bool {
        self.inner().runs.iter().any(|run| run.reached() || run.end.is_some_and(|end| !end.success()))
    }

    /// Messages of which some process left nobody knowing whether they arrived: so many may have come twice.
    pub fn lost(&self) -> usize {
        self.inner().runs.iter().map(Run::lost).sum()
    }
}

/// What is known at the end.
pub struct Ended {
    /// Of each armed process, in order: whether it came to its point.
    pub reached: Vec<bool>,
    /// From each start after a death until ready.
    pub restarts: Vec<Duration>,
    /// Messages whose fate a process left open.
    pub lost: usize,
    /// Messages that came once more.
    pub doubled: usize,
    /// Tries to send whose outcome the program says it does not know.
    pub unknown: i64,
}

/// The end.
impl Stage {
    /// Ends a stage whose program is armed with nothing: every promise must hold before the witness of the box, nothing may
    /// have come twice that no death excuses, and what came twice must be known as uncertain.
    pub async fn finish(self) -> Ended {
        for run in &self.inner().runs {
            let lives_on = run.reached()
                && run.armed.as_ref().is_some_and(|point| point.action == Action::Kill)
                && run.end.and_then(|end| end.signal()) != Some(9);
            assert!(!lives_on, "the program passed the place where it was to be killed, and lived");
        }
        let (lost, doubled) = (self.lost(), self.doubled());
        assert!(doubled <= lost, "{doubled} messages came again, and only {lost} answers were lost");
        let Stage { world, inner, .. } = self;
        let Inner { program, runs, restarts, .. } = inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        let program = program.expect("a program runs");
        let killed = if lost > 0 { Killed::AfterTelegram } else { Killed::BesideTelegram };
        let url = world.database_url();
        let uncertain = "select coalesce(cast(sum(uncertain) as bigint), 0) from messages";
        let unknown = world.finish_asking(program, killed, &[uncertain]).await.first().copied().unwrap_or(0);
        drop_database(&url).await;
        let known = usize::try_from(unknown).unwrap_or(0);
        assert!(doubled <= known, "{doubled} messages came again, and the program knows of {unknown} uncertain ones");
        let reached = runs.iter().filter(|run| run.armed.is_some()).map(Run::reached).collect();
        Ended { reached, restarts, lost, doubled, unknown }
    }

    /// How many messages Telegram took once more.
    fn doubled(&self) -> usize {
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for call in self.world.sandbox.truth().gt_tg.into_iter().filter(|call| call.accepted) {
            *taken.entry(call.msg_id).or_default() += 1;
        }
        taken.values().map(|count| count - 1).sum()
    }
}

/// Thousands of databases would fill the disk.
async fn drop_database(url: &StoreUrl) {
    let StoreUrl::Postgres(text) = url else { return };
    let name = text.trim_start_matches("postgres:///").split('?').next().unwrap_or_default();
    PgServer::shared().run("postgres", &format!("drop database if exists {name} with (force)")).await;
}

/// The client: it repeats what broke off, with the same key, as a good client does.
impl Stage {
    fn door(&self) -> Door {
        self.door.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Talks to another copy from now on, or to the first one again.
    pub fn talk_to(&self, door: Option<Door>) {
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = door.unwrap_or_else(|| self.main.clone());
    }

    /// `GET`, until there is an answer other than "not now".
    pub async fn get(&self, path: &str) -> Answer {
        let patience = Patience::of(format!("GET {path} is answered"), PATIENT_S);
        loop {
            if let Ok(answer) = self.door().try_get(path).await
                && answer.status < 500
            {
                return answer;
            }
            pause(&patience).await;
        }
    }

    /// `POST` with this key, until there is an answer other than "not now" or "still at it".
    pub async fn post(&self, path: &str, body: &Value, key: &str) -> Answer {
        let patience = Patience::of(format!("POST {path} is answered"), PATIENT_S);
        loop {
            if let Ok(answer) = self.door().try_post_with_key(path, body, key).await {
                let busy = answer.status == 409 && answer.text.contains("idempotency-key-busy");
                if !busy && (answer.status < 500 || answer.status == 502) {
                    return answer;
                }
            }
            pause(&patience).await;
        }
    }

    /// `PATCH`, until there is an answer other than "not now".
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        let patience = Patience::of(format!("PATCH {path} is answered"), PATIENT_S);
        loop {
            if let Ok(answer) = self.door().try_patch(path, body).await
                && answer.status < 500
            {
                return answer;
            }
            pause(&patience).await;
        }
    }

    /// `POST` with this key through the owner's socket, until there is an answer other than "not now" or "still at it".
    pub async fn at_the_socket(&self, path: &str, body: &Value, key: &str) -> Answer {
        let patience = Patience::of(format!("POST {path} is answered at the socket"), PATIENT_S);
        loop {
            if let Ok(answer) = self.world.at_the_socket(path, body, key).await {
                let busy = answer.status == 409 && answer.text.contains("idempotency-key-busy");
                if !busy && answer.status < 500 {
                    return answer;
                }
            }
            pause(&patience).await;
        }
    }

    /// Telegram posts an update to the bot's webhook, again and again until it is taken. Path and secret are made of the bot's
    /// token, as the program makes them.
    pub async fn update(&self, update: &Value) {
        let made = |what: &str| hex::encode(Sha256::digest(format!("semel {what} {}", semel_sandbox::BOT_TOKEN)));
        let (path, secret) = (format!("/telegram/webhook/{}", &made("webhook path")[..32]), made("webhook secret"));
        let patience = Patience::of("Telegram's update is taken", PATIENT_S);
        while self.door().try_update(&path, &secret, update).await != Ok(200) {
            pause(&patience).await;
        }
    }

    /// `POST` once, whatever comes of it.
    pub async fn post_once(&self, path: &str, body: &Value, key: &str) {
        let _ = self.door().try_post_with_key(path, body, key).await;
    }

    /// Waits until nothing runs, nothing is due, and nothing that failed waits for its next try.
    pub async fn rest(&self) {
        let patience = Patience::of("the program comes to rest", 180);
        loop {
            let running = items(&self.get("/api/v1/jobs?state=running&limit=200").await);
            let ready = items(&self.get("/api/v1/jobs?state=ready&limit=200").await);
            let now = Clock::system().now().millis();
            let waits = |job: &Value| moment(&job["run_at"]) <= now || !job["error"].is_null();
            if running.is_empty() && !ready.iter().any(waits) {
                return;
            }
            pause(&patience).await;
        }
    }
}

/// A moment that leaves the machine to others.
pub async fn pause(patience: &Patience) {
    tokio::time::sleep(Duration::from_millis(40)).await;
    patience.wait().await;
}
