//! Several copies of the program on one PostgreSQL, under load, and a nemesis that breaks everything between them.
//!
//! A round has a PostgreSQL of its own, a sandbox of the outside world, three real copies, a proxy on each of their ways,
//! and one before them all. While sales of every manner go on ([`load`]), access to a VPN among them, whose one `wg0.conf` all
//! copies write, while people buy by the bot's buttons and news go to everybody ([`talk`]), the nemesis draws its steps from the
//! seed ([`nemesis`]), and each is undone before the next. Then everything is healed, and within two minutes all must be at
//! rest: every promise holds before the witness of the sandbox, nothing is lost, nothing is there twice. A long campaign is
//! many rounds, each with the next seed and a fresh database, so that a failure can be seen again in minutes.
//!
//! The clock of one copy is set by a small library that is preloaded into it and needs a C compiler; without one those
//! steps are left out, which the table tells.

mod load;
mod nemesis;
mod proxy;
mod talk;
mod verdict;
mod watch;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use semel_kernel::testing::PgServer;
use semel_prove::report::{Figure, Options};
use semel_sandbox::{HELEKET_PAYOUT_KEY, HookKnobs};

use self::load::{Load, Shelf};
use self::nemesis::{LEASE, OneCopy, Stage};
use self::proxy::{Backend, Proxy, Speech, Target};
use self::verdict::{Ending, Witness};
use self::watch::{About, Diary, Plight, Watched};
use crate::program::{Door, TOKEN, World};

/// Connections of each copy's pool; the last copy has hardly any.
const POOLS: [usize; 3] = [6, 6, 2];
/// The longest round.
const ROUND: Duration = Duration::from_secs(300);
/// More people than this may not get news without a second word of the owner.
const MOST_READERS: u64 = 900;
/// The shortest time of trouble.
const SHORTEST: u64 = 40;
/// How long a round may take beyond its trouble: start, the end of all sales, rest, stop.
const AROUND: Duration = Duration::from_secs(720);

/// Plays as many rounds as the minutes allow and tells what came of them.
///
/// # Errors
/// None: whatever goes wrong is a trouble in a figure.
pub async fn run(options: &Options) -> Result<Vec<Figure>> {
    let seconds = (options.minutes * 60).max(SHORTEST);
    let count = seconds.div_ceil(ROUND.as_secs()).max(1);
    let each = Duration::from_secs(seconds.div_ceil(count));
    let mut rounds = Vec::new();
    for number in 0..count {
        let seed = options.seed.wrapping_add(number);
        let diary = Arc::new(Diary::of(seed));
        let mut playing = tokio::spawn(play(options.semel.clone(), seed, each, Arc::clone(&diary)));
        let numbers = match timeout(each * 3 + AROUND, &mut playing).await {
            Ok(Ok(Ok(numbers))) => Some(numbers),
            Ok(Ok(Err(error))) => {
                diary.trouble(About::Program, format!("the round could not be played to its end: {error:#}"));
                None
            }
            Ok(Err(panic)) => {
                diary.trouble(About::Program, format!("the round failed: {panic}"));
                None
            }
            Err(_) => {
                playing.abort();
                // What it had started ends with it.
                let _ = playing.await;
                diary.trouble(About::Rest, "the round did not come to its end");
                None
            }
        };
        rounds.push(Round { diary, numbers });
    }
    Ok(figures(&rounds, each))
}

struct Round {
    diary: Arc<Diary>,
    /// None when it did not come to its end.
    numbers: Option<Numbers>,
}

/// What was counted in one round.
struct Numbers {
    load: Arc<load::Counts>,
    watch: Arc<watch::Counts>,
    slowest_webhook: Duration,
    slowest_ready_ms: u64,
    kills_measured: u64,
    commits_cut: u64,
    unknowns_told: u64,
    clocks_left_out: u64,
    ending: Ending,
}

/// One round: the world, the copies, the trouble, the end.
async fn play(semel: PathBuf, seed: u64, time: Duration, diary: Arc<Diary>) -> Result<Numbers> {
    let server = Arc::new(tokio::task::spawn_blocking(PgServer::private).await?);
    server.create("shop", "template0").await;
    // A killed server shall lose nothing that it called committed: the cluster's own settings do not promise that.
    server.run("postgres", "alter database shop set synchronous_commit = on").await;

    let (mut stage, conf) = set(semel, seed, &server, &diary).await?;
    for at in 0..stage.copies.len() {
        if stage.start(at).await.is_none() {
            bail!("the copies do not start");
        }
    }
    let sandbox = stage.world.sandbox.clone();
    let load = Arc::new(Load {
        door: stage.front.address(),
        sandbox: sandbox.clone(),
        seed,
        diary: Arc::clone(&diary),
        counts: Arc::default(),
        closing: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    let shelf = load.shelf().await.context("the products cannot be put on sale")?;
    let readers = (time.as_secs() * 3).clamp(100, MOST_READERS);
    server.run("shop", &talk::readers(readers)).await;
    load.news().await.context("the news cannot be begun")?;
    let watch_counts: Arc<watch::Counts> = Arc::default();
    let mut watching = watchers(&stage, &server, &diary, &watch_counts);
    watching.spawn(watch::file(conf.clone(), Arc::clone(&diary), Arc::clone(&watch_counts)));
    let (mut selling, mut notifying) = begin(&load, &shelf);

    sleep(Duration::from_secs(2)).await;
    let troubled = stage.trouble(seed, time).await;
    if let Err(error) = troubled {
        bail!("the nemesis cannot go on: {error:#}");
    }
    stage.heal().await;

    load.closing.store(true, Ordering::SeqCst);
    join(&mut selling, "the sales", &diary).await;
    load.closed.store(true, Ordering::SeqCst);
    join(&mut notifying, "the webhooks", &diary).await;
    let lost_answers: Vec<String> = stage.copies.iter().flat_map(|copy| copy.telegram.lost()).collect();
    let witness = Witness { server: &server, sandbox: &sandbox, diary: &diary, lost_answers: &lost_answers };
    let mut ending = witness.rest().await?;
    witness.goods().await?;
    witness.unknowns(&mut ending).await?;
    witness.talk(load.counts.last_update.load(Ordering::SeqCst), &mut ending).await?;
    witness.news(&mut ending).await?;
    witness.file(&conf, &mut ending).await?;
    watching.shutdown().await;

    stage.stop().await?;
    let numbers = Numbers {
        load: Arc::clone(&load.counts),
        watch: watch_counts,
        slowest_webhook: stage.front.slowest_webhook(),
        slowest_ready_ms: stage.slowest_ready_ms,
        kills_measured: stage.kills_measured,
        commits_cut: stage.copies.iter().map(|copy| copy.database.commits_cut()).sum(),
        unknowns_told: stage.unknowns_told.load(Ordering::SeqCst),
        clocks_left_out: stage.clocks_left_out,
        ending,
    };
    sandbox.stop().await;
    // The server waits for its own end, which is nothing for a thread that others need.
    tokio::task::spawn_blocking(move || drop((stage, server))).await?;
    Ok(numbers)
}

/// Builds the world and the copies; nothing runs yet but the proxies and the sandbox. Answers the VPN server's file, too.
async fn set(semel: PathBuf, seed: u64, server: &Arc<PgServer>, diary: &Arc<Diary>) -> Result<(Stage, PathBuf)> {
    let mut addresses = Vec::new();
    for _ in POOLS {
        addresses.push(free_address()?);
    }
    let plights: Vec<Arc<Plight>> = addresses.iter().map(|_| Arc::default()).collect();
    let doors = addresses.iter().zip(&plights);
    let doors = doors.map(|(at, plight)| Backend { target: Target::Tcp(*at), plight: Some(Arc::clone(plight)) });
    let front = Arc::new(Proxy::start(Speech::Door, doors.collect(), seed ^ 0x646f_6f72).await?);

    let public = format!("http://{}", front.address());
    let lease = format!("{}s", LEASE.as_secs());
    let lifetime = format!("{}s", load::LIFETIME.as_secs());
    let of_all = [
        ("SEMEL_PUBLIC_URL", public.as_str()),
        ("SEMEL_JOB_LEASE", lease.as_str()),
        ("SEMEL_SHOP_ORDER_LIFETIME", lifetime.as_str()),
        ("SEMEL_STOP_BUDGET", "8s"),
        ("SEMEL_HELEKET_PAYOUT_KEY", HELEKET_PAYOUT_KEY),
        ("SEMEL_TELEGRAM_UPDATES", "polling"),
        ("SEMEL_VPN_GRACE_HOURS", "0"),
        // Five a second: the news are on their way while most of the trouble comes.
        ("BROADCAST_BATCH_SIZE", "5"),
        ("BROADCAST_BATCH_SLEEP", "1s"),
    ];
    let mut world = World::at(server.url("shop"), &of_all).await;
    let conf = world.sells_vpn();
    let world = Arc::new(world);
    world.sandbox.set_yookassa_hook_url(format!("{public}/webhook/yookassa"));
    world.sandbox.set_hook_knobs(HookKnobs { drop_percent: 10, ..HookKnobs::default() });

    let folder = world.path("");
    let shim = clock_shim(&folder);
    let mut copies = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let ways = ways(&world, server, seed).await?;
        let mut settings = settings(&world, *address, POOLS[at], &ways);
        let clock = match &shim {
            Some(shim) if at == 0 => {
                let file = folder.join("clock-offset");
                nemesis::write_offset(&file, 0)?;
                settings.push(("LD_PRELOAD".into(), shim.display().to_string()));
                settings.push(("CLOCKSTEP_FILE".into(), file.display().to_string()));
                Some(file)
            }
            _ => None,
        };
        let mut copy = OneCopy::new(Door::at(*address, TOKEN), Arc::clone(&plights[at]), ways, settings);
        copy.clock = clock;
        copies.push(copy);
    }
    let stage = Stage {
        world,
        semel,
        server: Arc::clone(server),
        copies,
        front,
        diary: Arc::clone(diary),
        slowest_ready_ms: 0,
        kills_measured: 0,
        unknowns_told: AtomicU64::new(0),
        clocks_left_out: 0,
    };
    Ok((stage, conf))
}

/// A copy's proxies: to the database, to the providers, to Telegram.
async fn ways(world: &World, server: &PgServer, seed: u64) -> Result<[Arc<Proxy>; 3]> {
    let socket = server.folder().join(format!(".s.PGSQL.{}", server.port()));
    let outside: SocketAddr = world.sandbox.url().trim_start_matches("http://").parse().context("the box's address")?;
    let leads_to = |target: Target| vec![Backend { target, plight: None }];
    Ok([
        Arc::new(Proxy::start(Speech::Postgres, leads_to(Target::Unix(socket)), seed).await?),
        Arc::new(Proxy::start(Speech::Http, leads_to(Target::Tcp(outside)), seed).await?),
        Arc::new(Proxy::start(Speech::Http, leads_to(Target::Tcp(outside)), seed).await?),
    ])
}

/// What a copy has for itself: its address, its pool, and its proxies in place of the world.
fn settings(world: &World, address: SocketAddr, pool: usize, ways: &[Arc<Proxy>; 3]) -> Vec<(String, String)> {
    let [database, providers, telegram] = ways;
    let sandbox = &world.sandbox;
    let through = |url: String, proxy: &Proxy| url.replace(&sandbox.url(), &format!("http://{}", proxy.address()));
    let database = format!("postgres://postgres@{}/shop?sslmode=disable", database.address());
    let pairs = [
        ("SEMEL_LISTEN", address.to_string()),
        ("SEMEL_DATABASE_URL", database.clone()),
        ("SEMEL_DATABASE_LISTEN_URL", database),
        ("SEMEL_POOL_MAX", pool.to_string()),
        ("SEMEL_YOOKASSA_API_URL", through(sandbox.yookassa_url(), providers)),
        ("SEMEL_HELEKET_API_URL", through(sandbox.heleket_url(), providers)),
        ("SEMEL_CRYSTALPAY_API_URL", through(sandbox.crystalpay_url(), providers)),
        ("SEMEL_TELEGRAM_API_URL", through(sandbox.telegram_url(), telegram)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// An address for a copy that dies and comes back to it: below the ports that the system hands out by itself, and above
/// those that the stories use.
fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..2000 {
        let step = u64::from(std::process::id()) * 17 + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = u16::try_from(30_000 + step % 2_700)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("there is no free port from 30000 to 32700")
}

/// The library that sets a copy's clock; nothing when it cannot be made here.
fn clock_shim(folder: &Path) -> Option<PathBuf> {
    let (source, made) = (folder.join("clockstep.c"), folder.join("clockstep.so"));
    std::fs::write(&source, include_str!("clockstep.c")).ok()?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&made).arg(&source).arg("-ldl");
    compiler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    compiler.status().is_ok_and(|status| status.success()).then_some(made)
}

/// Those who look while it runs.
fn watchers(stage: &Stage, server: &Arc<PgServer>, diary: &Arc<Diary>, counts: &Arc<watch::Counts>) -> JoinSet<()> {
    let watched: Vec<Watched> = stage
        .copies
        .iter()
        .zip(POOLS)
        .enumerate()
        .map(|(at, (copy, pool))| Watched {
            number: at + 1,
            door: copy.door.clone(),
            plight: Arc::clone(&copy.plight),
            database: Arc::clone(&copy.database),
            sessions: pool + 1,
        })
        .collect();
    let mut watching = JoinSet::new();
    watching.spawn(watch::sessions(Arc::clone(server), watched.clone(), Arc::clone(diary), Arc::clone(counts)));
    for copy in watched {
        watching.spawn(watch::readiness(copy, Arc::clone(diary), Arc::clone(counts)));
    }
    watching
}

/// Opens the shop: the sales with their stock, the people who talk to the bot, and the providers with their webhooks.
fn begin(load: &Arc<Load>, shelf: &Shelf) -> (JoinSet<()>, JoinSet<()>) {
    let (mut selling, mut notifying) = (JoinSet::new(), JoinSet::new());
    selling.spawn(Arc::clone(load).sell(shelf.clone()));
    selling.spawn(Arc::clone(load).talk(shelf.clone()));
    selling.spawn(Arc::clone(load).stock(shelf.clone()));
    notifying.spawn(Arc::clone(load).notify());
    (selling, notifying)
}

/// Waits for the end of tasks, and not for ever.
async fn join(tasks: &mut JoinSet<()>, what: &str, diary: &Diary) {
    let ending = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                diary.trouble(About::Program, format!("{what} of the campaign failed: {error}"));
            }
        }
    };
    let in_time = timeout(Duration::from_secs(300), ending).await.is_ok();
    if !in_time {
        diary.trouble(About::Rest, format!("{what} did not end within 300 s after all was healed"));
        tasks.shutdown().await;
    }
}

/// The table's lines of all rounds.
fn figures(rounds: &[Round], each: Duration) -> Vec<Figure> {
    let played: Vec<&Numbers> = rounds.iter().filter_map(|round| round.numbers.as_ref()).collect();
    let sum = |count: fn(&Numbers) -> u64| played.iter().map(|one| count(one)).sum::<u64>();
    let most = |count: fn(&Numbers) -> u64| played.iter().map(|one| count(one)).max().unwrap_or(0);
    let troubles = |about: About| rounds.iter().flat_map(|round| round.diary.troubles(about)).collect::<Vec<String>>();
    let read = |count: &AtomicU64| count.load(Ordering::SeqCst);

    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in rounds.iter().flat_map(|round| round.diary.steps()) {
        *kinds.entry(kind).or_default() += count;
    }
    let steps: u64 = kinds.values().sum();
    let list: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for (state, count) in played.iter().flat_map(|one| &one.ending.orders) {
        *states.entry(state.as_str()).or_default() += count;
    }
    let states: Vec<String> = states.iter().map(|(state, count)| format!("{state} {count}")).collect();
    let mut news: BTreeMap<&str, u64> = BTreeMap::new();
    for (state, count) in played.iter().flat_map(|one| &one.ending.news) {
        *news.entry(state.as_str()).or_default() += count;
    }
    let news: Vec<String> = news.iter().map(|(state, count)| format!("{state} {count}")).collect();
    let begun: u64 = played.iter().map(|one| read(&one.load.begun)).sum();
    let acknowledged: u64 = played.iter().map(|one| read(&one.load.acknowledged)).sum();
    let refused: u64 = played.iter().map(|one| read(&one.load.not_acknowledged)).sum();
    let paid: u64 = played.iter().map(|one| read(&one.load.paid)).sum();
    let refunds: u64 = played.iter().map(|one| read(&one.load.refunds)).sum();
    let repeated: u64 = played.iter().map(|one| read(&one.load.repeated)).sum();
    let looks: u64 = played.iter().map(|one| read(&one.watch.looks)).sum();
    let asked: u64 = played.iter().map(|one| read(&one.watch.asked_without_database)).sum();
    let sessions = played.iter().map(|one| one.watch.most_sessions.load(Ordering::SeqCst)).max().unwrap_or(0);
    let bound: usize = POOLS.iter().map(|pool| pool + 1).sum();
    let webhook = played.iter().map(|one| one.slowest_webhook).max().unwrap_or_default();
    let rest = most(|one| one.ending.rest_s);
    let ready_ms = most(|one| one.slowest_ready_ms);
    let (held, promises) = (sum(|one| one.ending.promises_held), sum(|one| one.ending.promises));
    let (recorded, lost_answers) = (sum(|one| one.ending.unknowns_recorded), sum(|one| one.ending.unknowns_injected));

    let none_of = |name: &str, about: About| {
        let found = troubles(about);
        let well = found.is_empty() && played.len() == rounds.len();
        Figure { troubles: found.clone(), ..Figure::judged(name, found.len().to_string(), "0", well) }
    };
    vec![
        Figure::told(
            "Copies: trouble",
            format!("{} copies, {} rounds of {} s, {steps} steps", POOLS.len(), rounds.len(), each.as_secs()),
        ),
        Figure::told("Copies: steps by kind", list.join(", ")),
        Figure::told(
            "Copies: clock steps left out for want of a C compiler",
            sum(|one| one.clocks_left_out).to_string(),
        ),
        Figure::at_least("Copies: sales begun", begun, 1),
        Figure::told("Copies: what became of them", states.join(", ")),
        Figure::told(
            "Copies: payments, refunds, requests sent again",
            format!("{paid} payments, {refunds} refunds, {repeated} requests sent again"),
        ),
        Figure::told("Copies: webhooks", format!("{acknowledged} acknowledged, {refused} attempts were not")),
        Figure::told(
            "Copies: updates of the bot, each taken once",
            format!("{} by {} people", sum(|one| one.ending.updates), sum(|one| one.ending.talkers)),
        ),
        Figure::told("Copies: news to everybody", news.join(", ")),
        Figure::told(
            "Copies: wg0.conf, whole at every look",
            format!(
                "{} looks; {} peers at the end",
                played.iter().map(|one| read(&one.watch.looks_at_file)).sum::<u64>(),
                sum(|one| one.ending.peers)
            ),
        ),
        none_of("Copies: lost", About::Lost),
        none_of("Copies: doubled", About::Doubled),
        Figure::all_of(
            "Copies: promises hold at rest, ground truth included",
            held,
            promises,
            troubles(About::Promise),
        ),
        Figure::judged(
            "Copies: from the end of trouble to rest, slowest",
            format!("{rest} s"),
            "at most 120 s",
            rest <= 120,
        )
        .timed(),
        none_of("Copies: what did not come to its end", About::Rest),
        Figure::judged(
            "Copies: ready after a kill, slowest",
            format!("{ready_ms} ms of {} kills", sum(|one| one.kills_measured)),
            "at most 5 s",
            ready_ms <= 5000,
        )
        .timed(),
        Figure::judged(
            "Copies: slowest answer to a webhook",
            format!("{} ms", webhook.as_millis()),
            "under 5 s",
            webhook < Duration::from_secs(5),
        )
        .timed(),
        Figure::all_of(
            "Copies: answers of Telegram that were cut off are recorded as unknown",
            recorded,
            lost_answers,
            Vec::new(),
        ),
        Figure::told(
            "Copies: messages that came again after that",
            sum(|one| one.ending.messages_repeated).to_string(),
        ),
        Figure::told(
            "Copies: COMMITs cut off from their answers",
            format!("{}; told in the logs {}", sum(|one| one.commits_cut), sum(|one| one.unknowns_told)),
        ),
        none_of("Copies: ready without the database", About::Ready),
        Figure::told("Copies: asked about readiness without the database", asked.to_string()),
        none_of("Copies: too many sessions, or locks of a session", About::Sessions),
        Figure::told("Copies: most sessions at once", format!("{sessions} of {bound} in {looks} looks")),
        none_of("Copies: the program's own failures", About::Program),
    ]
}
