//! The nemesis: what it may do, what it draws from a seed, and how it does it and undoes it.
//!
//! The steps are cards of a deck. Each round of the deck has every card, in an order that the seed gives; the same seed
//! draws the same steps, whatever time they take.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep, timeout};

use semel_kernel::clock::Stopwatch;
use semel_kernel::testing::PgServer;

use super::proxy::{Mode, Proxy};
use super::watch::{About, Diary, Plight, look_in};
use crate::program::{Door, Process, World};

/// A copy's job lease, as it is set for all of them.
pub const LEASE: Duration = Duration::from_secs(4);
/// How long a copy may take to be ready, or to stop, before that is a trouble.
const PATIENCE: Duration = Duration::from_secs(40);

/// Whom a copy talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// PostgreSQL.
    Database,
    /// The payment providers.
    Providers,
    /// Telegram.
    Telegram,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Database => "the database",
            Side::Providers => "the providers",
            Side::Telegram => "Telegram",
        })
    }
}

/// One thing that the nemesis does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// Kills a copy (SIGKILL) and starts it again.
    Kill(usize),
    /// Stops a copy (SIGSTOP) for longer than its lease and lets it go on.
    Freeze(usize),
    /// Stops PostgreSQL in its fast way and starts it again.
    DatabaseStop,
    /// Kills all of PostgreSQL and starts it again.
    DatabaseKill,
    /// Ends every second session of the copies.
    Sessions(u8),
    /// A proxy between a copy and a side turns bad.
    Link(usize, Side, Mode),
    /// The proxy before all copies turns bad.
    Door(Mode),
    /// The wall clock of the first copy is set, by so many seconds.
    Clock(i64),
    /// All copies are restarted in order, one after another.
    Rolling,
}

impl Deed {
    /// What it is counted as.
    pub fn kind(&self) -> String {
        match self {
            Deed::Kill(_) => "kill -9".into(),
            Deed::Freeze(_) => "stop beyond the lease".into(),
            Deed::DatabaseStop => "PostgreSQL fast stop".into(),
            Deed::DatabaseKill => "PostgreSQL kill -9".into(),
            Deed::Sessions(_) => "sessions ended".into(),
            Deed::Link(_, side, mode) => format!("{}: {}", side.to_string().trim_start_matches("the "), mode.name()),
            Deed::Door(mode) => format!("door: {}", mode.name()),
            Deed::Clock(_) => "clock set".into(),
            Deed::Rolling => "rolling restart".into(),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Kill(copy) => write!(f, "kill -9 copy {}", copy + 1),
            Deed::Freeze(copy) => write!(f, "stop copy {} beyond its lease", copy + 1),
            Deed::DatabaseStop => f.write_str("stop PostgreSQL fast"),
            Deed::DatabaseKill => f.write_str("kill -9 PostgreSQL"),
            Deed::Sessions(part) => write!(f, "end sessions with pid % 2 = {part}"),
            Deed::Link(copy, side, mode) => write!(f, "{} between copy {} and {side}", mode.name(), copy + 1),
            Deed::Door(mode) => write!(f, "{} at the front door", mode.name()),
            Deed::Clock(seconds) => write!(f, "set the clock of copy 1 by {seconds} s"),
            Deed::Rolling => f.write_str("restart all copies in turn"),
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Quiet before it.
    pub pause: Duration,
    /// How long it lasts before it is undone.
    pub hold: Duration,
    /// What is done.
    pub deed: Deed,
    /// A bad proxy at the same time, until the step is undone.
    pub beside: Option<(usize, Side, Mode)>,
}

impl Step {
    /// Whether it may keep a copy from writing down what it has just done outside.
    fn keeps_from_writing(&self) -> bool {
        let at_database = |side: Side| side == Side::Database;
        let deed = match self.deed {
            Deed::Link(_, side, _) => at_database(side),
            Deed::Door(_) | Deed::Clock(_) => false,
            _ => true,
        };
        deed || self.beside.is_some_and(|(_, side, _)| at_database(side))
    }
}

/// The steps of a seed, without end.
pub struct Deck {
    chance: fastrand::Rng,
    copies: usize,
    cards: Vec<Deed>,
}

const LINK_MODES: [Mode; 6] =
    [Mode::Delay(0), Mode::Trickle, Mode::CutBefore, Mode::CutAfter, Mode::BlackHole, Mode::Reset];

impl Deck {
    /// The deck of `seed` for so many copies.
    pub fn of(seed: u64, copies: usize) -> Deck {
        Deck {
            chance: fastrand::Rng::with_seed(seed ^ 0x6e65_6d65_7369_7321),
            copies: copies.max(1),
            cards: Vec::new(),
        }
    }

    fn a_copy(&mut self) -> usize {
        self.chance.usize(0..self.copies)
    }

    fn span(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.chance.u64(from_ms..to_ms))
    }

    fn with_delay(&mut self, mode: Mode) -> Mode {
        if let Mode::Delay(_) = mode { Mode::Delay(self.chance.u64(20..400)) } else { mode }
    }

    fn shuffle(&mut self) {
        let (first, second, third, fourth) = (self.a_copy(), self.a_copy(), self.a_copy(), self.a_copy());
        let mut cards = vec![
            Deed::Kill(first),
            Deed::Kill(second),
            Deed::Kill(third),
            Deed::Freeze(fourth),
            Deed::DatabaseStop,
            Deed::DatabaseKill,
            Deed::Sessions(0),
            Deed::Sessions(1),
            Deed::Rolling,
        ];
        let sizes = [-7200, -600, -90, 45, 900, 7200];
        cards.push(Deed::Clock(sizes[self.chance.usize(0..sizes.len())]));
        for side in [Side::Database, Side::Providers, Side::Telegram] {
            for mode in LINK_MODES {
                let (copy, mode) = (self.a_copy(), self.with_delay(mode));
                cards.push(Deed::Link(copy, side, mode));
            }
        }
        // The most delicate moment of all gets more than one card.
        for _ in 0..3 {
            let copy = self.a_copy();
            cards.push(Deed::Link(copy, Side::Database, Mode::CutAfterCommit));
        }
        for mode in LINK_MODES {
            let mode = self.with_delay(mode);
            cards.push(Deed::Door(mode));
        }
        self.chance.shuffle(&mut cards);
        self.cards = cards;
    }

    fn a_companion(&mut self) -> Option<(usize, Side, Mode)> {
        if self.chance.u8(0..4) != 0 {
            return None;
        }
        let sides = [Side::Database, Side::Providers, Side::Telegram];
        let (copy, side) = (self.a_copy(), sides[self.chance.usize(0..sides.len())]);
        let mode = LINK_MODES[self.chance.usize(0..LINK_MODES.len())];
        Some((copy, side, self.with_delay(mode)))
    }
}

impl Iterator for Deck {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.cards.is_empty() {
            self.shuffle();
        }
        let deed = self.cards.pop()?;
        let pause = self.span(300, 1500);
        let hold = match deed {
            Deed::Freeze(_) => LEASE + self.span(1000, 2500),
            Deed::Kill(_) | Deed::DatabaseStop | Deed::DatabaseKill => self.span(100, 1800),
            Deed::Sessions(_) | Deed::Rolling => self.span(0, 300),
            Deed::Clock(_) => self.span(1500, 3000),
            Deed::Link(..) | Deed::Door(_) => self.span(800, 2300),
        };
        // A rolling restart waits for each copy, and shall not wait for a proxy that nobody mends meanwhile.
        let beside = if deed == Deed::Rolling { None } else { self.a_companion() };
        // One proxy has one manner at a time.
        let beside =
            beside.filter(|(copy, side, _)| !matches!(deed, Deed::Link(at, other, _) if at == *copy && other == *side));
        Some(Step { pause, hold, deed, beside })
    }
}

/// One copy of the program.
pub struct OneCopy {
    /// Its own door, without a proxy.
    pub door: Door,
    /// What is done to it.
    pub plight: Arc<Plight>,
    /// Its ways to the others.
    pub database: Arc<Proxy>,
    /// To the payment providers.
    pub providers: Arc<Proxy>,
    /// To Telegram.
    pub telegram: Arc<Proxy>,
    /// Its settings beside those of all.
    pub settings: Vec<(String, String)>,
    /// The file that holds the offset of its clock, if it has one.
    pub clock: Option<PathBuf>,
    process: Option<Process>,
}

impl OneCopy {
    /// A copy that does not run yet.
    pub fn new(door: Door, plight: Arc<Plight>, ways: [Arc<Proxy>; 3], settings: Vec<(String, String)>) -> OneCopy {
        let [database, providers, telegram] = ways;
        OneCopy { door, plight, database, providers, telegram, settings, clock: None, process: None }
    }

    fn way(&self, side: Side) -> &Proxy {
        match side {
            Side::Database => &self.database,
            Side::Providers => &self.providers,
            Side::Telegram => &self.telegram,
        }
    }
}

/// All that the nemesis can reach.
pub struct Stage {
    /// The world; its sandbox stays untouched.
    pub world: Arc<World>,
    /// The program.
    pub semel: PathBuf,
    /// PostgreSQL.
    pub server: Arc<PgServer>,
    /// The copies.
    pub copies: Vec<OneCopy>,
    /// The proxy before all of them.
    pub front: Arc<Proxy>,
    /// Where everything is written down.
    pub diary: Arc<Diary>,
    /// The longest time from the start of a killed copy to its being ready, in milliseconds, with nothing else in its way.
    pub slowest_ready_ms: u64,
    /// Kills of copies whose way back was measured.
    pub kills_measured: u64,
    /// How often the copies said in their logs that nobody told them whether a commit happened.
    pub unknowns_told: AtomicU64,
    /// Clock steps that were left out because there is no shim.
    pub clocks_left_out: u64,
}

/// What a program says whose commit was not answered.
const UNKNOWN: &str = "did not tell whether the commit happened";

impl Stage {
    /// Starts a copy and waits until it is ready. Answers how long that took; nothing when it did not come true in time,
    /// which is then a trouble of the diary.
    pub async fn start(&mut self, copy: usize) -> Option<Duration> {
        self.launch(copy);
        self.ready(copy).await
    }

    fn launch(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        let mut command = Command::new(&self.semel);
        command.arg("serve");
        let settings: Vec<(&str, &str)> =
            copy.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.world.dress(&mut command, &settings);
        copy.process = Some(Process::start(command, &self.world.path("")));
    }

    async fn ready(&mut self, at: usize) -> Option<Duration> {
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            let asked = timeout(Duration::from_secs(2), self.copies[at].door.try_get("/readyz")).await;
            if let Ok(Ok(answer)) = asked
                && answer.status == 200
            {
                return Some(watch.elapsed());
            }
            self.mourn(at);
            sleep(Duration::from_millis(20)).await;
        }
        let log = self.last_words(at);
        self.diary
            .trouble(About::Program, format!("copy {} is not ready after {} s: {log}", at + 1, PATIENCE.as_secs()));
        None
    }

    /// A copy that ended by itself is a trouble, and is started again.
    fn mourn(&mut self, at: usize) {
        let ended = self.copies[at].process.as_mut().and_then(Process::ended);
        if let Some(status) = ended {
            let log = self.last_words(at);
            self.diary.trouble(About::Program, format!("copy {} ended by itself with {status}: {log}", at + 1));
            self.bury(at);
            self.launch(at);
        }
    }

    fn last_words(&self, at: usize) -> String {
        let log = self.copies[at].process.as_ref().map(Process::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }

    /// Lets go of a process that ended, and keeps what it told.
    fn bury(&mut self, at: usize) {
        if let Some(process) = self.copies[at].process.take() {
            let told = process.log().matches(UNKNOWN).count();
            self.unknowns_told.fetch_add(told as u64, Ordering::SeqCst);
        }
    }

    /// Makes trouble for so long.
    ///
    /// # Errors
    /// PostgreSQL does not stop or start any more: the round is over.
    pub async fn trouble(&mut self, seed: u64, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let deck = Deck::of(seed, self.copies.len());
        for step in deck {
            if Instant::now() >= end {
                break;
            }
            sleep(step.pause).await;
            (0..self.copies.len()).for_each(|at| self.mourn(at));
            self.play(step).await?;
        }
        Ok(())
    }

    async fn play(&mut self, step: Step) -> Result<()> {
        let words = match step.beside {
            Some((copy, side, mode)) => format!("{}, beside {}", step.deed, Deed::Link(copy, side, mode)),
            None => step.deed.to_string(),
        };
        self.diary.step(&step.deed.kind(), &words);
        let window = step.keeps_from_writing().then(|| self.diary.opens());
        if let Some((copy, side, mode)) = step.beside {
            self.spoil(copy, side, mode);
        }
        let done = self.act(step).await;
        if let Some((copy, side, mode)) = step.beside {
            // A start into bad company gets a while of it.
            if matches!(step.deed, Deed::Kill(_) | Deed::DatabaseStop | Deed::DatabaseKill) {
                sleep(Duration::from_millis(800)).await;
            }
            self.mend(copy, side, mode);
        }
        if let Deed::Kill(at) = step.deed {
            self.returns(at, step).await;
        }
        if let Some(window) = window {
            self.diary.closes(window);
        }
        done
    }

    async fn act(&mut self, step: Step) -> Result<()> {
        match step.deed {
            Deed::Kill(at) => self.kill(at, step.hold).await,
            Deed::Freeze(at) => self.freeze(at, step.hold).await?,
            Deed::DatabaseStop => self.without_database(PgServer::stop_fast, step.hold).await?,
            Deed::DatabaseKill => self.without_database(PgServer::kill_9, step.hold).await?,
            Deed::Sessions(part) => {
                self.end_sessions(part).await;
                sleep(step.hold).await;
            }
            Deed::Link(at, side, mode) => {
                self.spoil(at, side, mode);
                sleep(step.hold).await;
                self.mend(at, side, mode);
            }
            Deed::Door(mode) => {
                self.front.set(mode);
                sleep(step.hold).await;
                self.front.set(Mode::Pass);
            }
            Deed::Clock(seconds) => self.set_clock(seconds, step.hold).await?,
            Deed::Rolling => {
                for at in 0..self.copies.len() {
                    self.restart_in_order(at).await?;
                }
            }
        }
        Ok(())
    }

    fn spoil(&self, at: usize, side: Side, mode: Mode) {
        self.copies[at].way(side).set(mode);
        if side == Side::Database && mode == Mode::BlackHole {
            self.copies[at].plight.loses_database();
        }
    }

    fn mend(&self, at: usize, side: Side, mode: Mode) {
        if side == Side::Database && mode == Mode::BlackHole {
            self.copies[at].plight.regains_database();
        }
        self.copies[at].way(side).set(Mode::Pass);
    }

    /// Kills a copy and starts it again.
    async fn kill(&mut self, at: usize, hold: Duration) {
        self.copies[at].plight.stalls();
        if let Some(process) = &mut self.copies[at].process {
            process.kill_9();
        }
        self.bury(at);
        sleep(hold).await;
        self.copies[at].plight.goes_on();
        self.launch(at);
    }

    /// Waits for the way back of a copy that was killed and has just been started.
    async fn returns(&mut self, at: usize, step: Step) {
        let took = self.ready(at).await;
        // A proxy that was bad at the same time has its own part in how long it takes.
        if let (Some(took), None) = (took, step.beside) {
            self.kills_measured += 1;
            self.slowest_ready_ms = self.slowest_ready_ms.max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
    }

    async fn freeze(&mut self, at: usize, hold: Duration) -> Result<()> {
        let Some(pid) = self.copies[at].process.as_ref().map(Process::pid) else { return Ok(()) };
        self.copies[at].plight.stalls();
        signal("STOP", pid)?;
        sleep(hold).await;
        signal("CONT", pid)?;
        self.copies[at].plight.goes_on();
        Ok(())
    }

    async fn without_database(&mut self, end: fn(&PgServer), hold: Duration) -> Result<()> {
        on_server(&self.server, end).await.context("PostgreSQL does not stop")?;
        self.copies.iter().for_each(|copy| copy.plight.loses_database());
        sleep(hold).await;
        self.copies.iter().for_each(|copy| copy.plight.regains_database());
        on_server(&self.server, PgServer::start).await.context("PostgreSQL does not start again")
    }

    async fn end_sessions(&self, part: u8) {
        let Some(client) = look_in(&self.server).await else { return };
        let sql = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name in ('semel', 'semel-listen') and pid % 2 = {part}"
        );
        let _ = timeout(Duration::from_secs(5), client.batch_execute(&sql)).await;
    }

    async fn set_clock(&mut self, seconds: i64, hold: Duration) -> Result<()> {
        let Some(file) = self.copies[0].clock.clone() else {
            self.clocks_left_out += 1;
            return Ok(());
        };
        write_offset(&file, seconds)?;
        sleep(hold).await;
        write_offset(&file, 0)
    }

    /// Asks a copy to stop, as a service manager does, and starts it again.
    async fn restart_in_order(&mut self, at: usize) -> Result<()> {
        self.stop_in_order(at).await?;
        self.start(at).await;
        Ok(())
    }

    async fn stop_in_order(&mut self, at: usize) -> Result<()> {
        self.mourn(at);
        let Some(pid) = self.copies[at].process.as_ref().map(Process::pid) else { return Ok(()) };
        self.copies[at].plight.stalls();
        signal("TERM", pid)?;
        let watch = Stopwatch::start();
        let status = loop {
            if let Some(status) = self.copies[at].process.as_mut().and_then(Process::ended) {
                break Some(status);
            }
            if watch.elapsed() > PATIENCE {
                break None;
            }
            sleep(Duration::from_millis(20)).await;
        };
        let log = self.last_words(at);
        match status {
            Some(status) if status.success() => {}
            Some(status) => self
                .diary
                .trouble(About::Program, format!("copy {} was asked to stop and ended with {status}: {log}", at + 1)),
            None => {
                let text = format!("copy {} was asked to stop and did not in {} s: {log}", at + 1, PATIENCE.as_secs());
                self.diary.trouble(About::Program, text);
                if let Some(process) = &mut self.copies[at].process {
                    process.kill_9();
                }
            }
        }
        self.bury(at);
        self.copies[at].plight.goes_on();
        Ok(())
    }

    /// Undoes whatever may still stand, and waits until every copy is ready.
    pub async fn heal(&mut self) {
        self.front.set(Mode::Pass);
        for at in 0..self.copies.len() {
            for side in [Side::Database, Side::Providers, Side::Telegram] {
                self.copies[at].way(side).set(Mode::Pass);
            }
            self.mourn(at);
            self.ready(at).await;
        }
    }

    /// Stops all copies in order.
    ///
    /// # Errors
    /// A signal could not be sent.
    pub async fn stop(&mut self) -> Result<()> {
        for at in 0..self.copies.len() {
            self.stop_in_order(at).await?;
        }
        Ok(())
    }
}

/// Does something with the server that blocks its thread.
async fn on_server(server: &Arc<PgServer>, act: fn(&PgServer)) -> Result<()> {
    let server = Arc::clone(server);
    let acting = tokio::task::spawn_blocking(move || act(&server));
    match timeout(Duration::from_secs(90), acting).await {
        Ok(done) => Ok(done?),
        Err(_) => bail!("it takes longer than 90 s"),
    }
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status()?;
    if !status.success() {
        bail!("kill -{name} {pid} failed with {status}");
    }
    Ok(())
}

/// Moves the clock of whoever mapped `file`. The file is never shorter than its eight bytes: a reader would die of it.
pub fn write_offset(file: &Path, seconds: i64) -> Result<()> {
    let nanoseconds = seconds.saturating_mul(1_000_000_000);
    let file = File::options().create(true).truncate(false).write(true).open(file)?;
    Ok(file.write_all_at(&nanoseconds.to_ne_bytes(), 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_steps() {
        let steps = |seed| Deck::of(seed, 3).take(200).collect::<Vec<Step>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn every_kind_comes_in_each_round_of_the_deck() {
        let kinds: std::collections::BTreeSet<String> = Deck::of(1, 3).take(37).map(|step| step.deed.kind()).collect();
        assert_eq!(kinds.len(), 7 + 3 * 6 + 1 + 6, "{kinds:?}");
    }
}
