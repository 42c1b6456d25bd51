//! What is looked at while the copies are in trouble: the sessions of the database, and whether a copy calls itself ready
//! while its database is away. And the diary, in which everything is written down that a person needs to understand a
//! failure.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::testing::PgServer;

use super::proxy::Proxy;
use crate::program::Door;
use crate::syscalls::conf;

/// What is done to one copy from outside, as far as its answers may show it.
#[derive(Debug, Default)]
pub struct Plight {
    /// Why its database is out of its reach; several things may be wrong at once.
    away: AtomicUsize,
    /// The process is stopped, or dead.
    stalled: AtomicUsize,
    changes: AtomicU64,
}

impl Plight {
    /// Its database went out of reach: call when that is done.
    pub fn loses_database(&self) {
        self.away.fetch_add(1, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Its database comes back: call before that begins.
    pub fn regains_database(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.away.fetch_sub(1, Ordering::SeqCst);
    }

    /// Its process is about to be stopped.
    pub fn stalls(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.stalled.fetch_add(1, Ordering::SeqCst);
    }

    /// Its process goes on.
    pub fn goes_on(&self) {
        self.stalled.fetch_sub(1, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether its process is stopped or dead.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst) > 0
    }

    /// Whether its database is out of reach.
    pub fn is_without_database(&self) -> bool {
        self.away.load(Ordering::SeqCst) > 0
    }

    /// How often anything of this changed: the same number before and after something means that nothing changed
    /// meanwhile.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

/// What a trouble is about; each has its line in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// Something that was promised is not there.
    Lost,
    /// Something is there twice.
    Doubled,
    /// A promise that is a predicate.
    Promise,
    /// Readiness without a database.
    Ready,
    /// Too many sessions, or a lock of a session.
    Sessions,
    /// It did not come to rest.
    Rest,
    /// The program did what it never should: it ended by itself, failed inside, refused what is right.
    Program,
}

/// How many troubles of a kind are told in full.
const TOLD: usize = 12;

/// Everything that happened in one round.
pub struct Diary {
    seed: u64,
    watch: Stopwatch,
    clock: Clock,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    last: VecDeque<String>,
    steps: BTreeMap<String, u64>,
    /// From when to when something kept a copy from writing down what it had done, in milliseconds of the system's clock.
    windows: Vec<(i64, Option<i64>)>,
    troubles: BTreeMap<About, Vec<String>>,
    untold: BTreeMap<About, u64>,
}

impl Diary {
    /// The diary of the round with this seed, begun now.
    pub fn of(seed: u64) -> Diary {
        Diary { seed, watch: Stopwatch::start(), clock: Clock::system(), pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> String {
        format!("+{:.1} s", self.watch.elapsed().as_secs_f64())
    }

    /// A step begins. `kind` is what is counted, `words` what a person reads.
    pub fn step(&self, kind: &str, words: &str) {
        let line = format!("{} {words}", self.moment());
        let mut pages = self.pages();
        *pages.steps.entry(kind.to_owned()).or_default() += 1;
        pages.last.push_back(line);
        if pages.last.len() > 5 {
            pages.last.pop_front();
        }
    }

    /// Something begins that may keep a copy from writing down what it did. Answers what [`Diary::closes`] wants.
    pub fn opens(&self) -> usize {
        let now = self.clock.now().millis();
        let mut pages = self.pages();
        pages.windows.push((now, None));
        pages.windows.len() - 1
    }

    /// It is over.
    pub fn closes(&self, window: usize) {
        let now = self.clock.now().millis();
        if let Some(open) = self.pages().windows.get_mut(window) {
            open.1 = Some(now);
        }
    }

    /// Whether a copy may have been kept from writing down what it did between these moments of the system's clock.
    pub fn was_disturbed(&self, from: i64, to: i64) -> bool {
        let meets = |(start, end): &(i64, Option<i64>)| *start <= to && end.is_none_or(|end| end >= from);
        self.pages().windows.iter().any(meets)
    }

    /// Writes a trouble down, with all that is needed to see it again.
    pub fn trouble(&self, about: About, text: impl AsRef<str>) {
        let moment = self.moment();
        let mut pages = self.pages();
        let before = pages.last.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
        let line = format!("seed {}, {moment}: {} (before it: {before})", self.seed, text.as_ref());
        let told = pages.troubles.entry(about).or_default();
        if told.len() < TOLD {
            told.push(line);
        } else {
            *pages.untold.entry(about).or_default() += 1;
        }
    }

    /// Steps so far, by kind.
    pub fn steps(&self) -> BTreeMap<String, u64> {
        self.pages().steps.clone()
    }

    /// The troubles of a kind.
    pub fn troubles(&self, about: About) -> Vec<String> {
        let pages = self.pages();
        let mut lines = pages.troubles.get(&about).cloned().unwrap_or_default();
        if let Some(more) = pages.untold.get(&about) {
            lines.push(format!("seed {}: and {more} more like these", self.seed));
        }
        lines
    }
}

/// A copy as it is watched.
#[derive(Clone)]
pub struct Watched {
    /// Its number, from one.
    pub number: usize,
    /// Its own door, without a proxy.
    pub door: Door,
    /// What is done to it.
    pub plight: Arc<Plight>,
    /// Its way to the database.
    pub database: Arc<Proxy>,
    /// Sessions that it may have: its pool and one to listen.
    pub sessions: usize,
}

/// What the watchers counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Looks at the database's sessions.
    pub looks: AtomicU64,
    /// The most sessions in one look.
    pub most_sessions: AtomicI64,
    /// Answers about readiness while the database was out of reach.
    pub asked_without_database: AtomicU64,
    /// Looks at the VPN server's file.
    pub looks_at_file: AtomicU64,
}

/// How long the server may need to notice that a session's client is gone: a statement's own limit, and a moment.
const LINGER: Duration = Duration::from_secs(12);
const SESSIONS: &str = "select count(*) from pg_stat_activity where application_name in ('semel', 'semel-listen')";

/// Connects to the database of the shop, around every proxy; nothing if the server does not answer.
pub async fn look_in(server: &PgServer) -> Option<Client> {
    let mut config = Config::new();
    config.host_path(server.folder()).port(server.port()).user("postgres").dbname("shop");
    config.application_name("semel-prove");
    let (client, connection) = timeout(Duration::from_secs(2), config.connect(NoTls)).await.ok()?.ok()?;
    tokio::spawn(async move {
        // Whoever waits for an answer gets the error.
        let _ = connection.await;
    });
    Some(client)
}

/// Looks every 100 ms whether the copies hold more sessions than they may, as long as it is let.
pub async fn sessions(server: Arc<PgServer>, copies: Vec<Watched>, diary: Arc<Diary>, counts: Arc<Counts>) {
    let bound: usize = copies.iter().map(|copy| copy.sessions).sum();
    let mut over = vec![0_u32; copies.len()];
    let mut client: Option<Client> = None;
    let mut tick = interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for (copy, over) in copies.iter().zip(&mut over) {
            // A connection may be taken before the end of its forerunner is read: only what lasts is too much.
            *over = if copy.database.live() > copy.sessions { *over + 1 } else { 0 };
            if *over == 10 {
                let (live, most) = (copy.database.live(), copy.sessions);
                diary.trouble(
                    About::Sessions,
                    format!("copy {} holds {live} connections to the database, and may hold {most}", copy.number),
                );
            }
        }
        let Some(open) = &client else {
            client = look_in(&server).await;
            continue;
        };
        let Ok(Ok(row)) = timeout(Duration::from_secs(2), open.query_one(SESSIONS, &[])).await else {
            client = None;
            continue;
        };
        let found: i64 = row.get(0);
        counts.looks.fetch_add(1, Ordering::SeqCst);
        counts.most_sessions.fetch_max(found, Ordering::SeqCst);
        // A session whose connection broke ends when the server notices that, which may be after its statement.
        let going: usize = copies.iter().map(|copy| copy.database.ended_within(LINGER)).sum();
        if usize::try_from(found).unwrap_or(usize::MAX) > bound + going {
            diary.trouble(
                About::Sessions,
                format!(
                    "the database has {found} sessions of the copies; they may have {bound}, and {going} are ending"
                ),
            );
        }
    }
}

/// Asks a copy again and again whether it is ready, as long as it is let: never may it say so while its database is out of
/// its reach.
pub async fn readiness(copy: Watched, diary: Arc<Diary>, counts: Arc<Counts>) {
    loop {
        sleep(Duration::from_millis(100)).await;
        let (away, before) = (copy.plight.is_without_database(), copy.plight.changes());
        let asking = timeout(Duration::from_secs(3), copy.door.try_get("/readyz"));
        let Ok(Ok(answer)) = asking.await else { continue };
        if !away || copy.plight.changes() != before {
            continue;
        }
        counts.asked_without_database.fetch_add(1, Ordering::SeqCst);
        if answer.status == 200 {
            diary.trouble(About::Ready, format!("copy {} is ready without its database: {}", copy.number, answer.text));
        }
    }
}

/// Reads the VPN server's file a hundred times a second, as long as it is let: it is one whole version at every moment, whichever
/// copy writes it and dies over it.
pub async fn file(file: PathBuf, diary: Arc<Diary>, counts: Arc<Counts>) {
    loop {
        sleep(Duration::from_millis(10)).await;
        counts.looks_at_file.fetch_add(1, Ordering::SeqCst);
        if let Err(wrong) = conf::version(&file) {
            diary.trouble(About::Promise, format!("N4 (wg0.conf is whole at every moment): {wrong}"));
            return;
        }
    }
}
