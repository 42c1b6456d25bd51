//! Killed between any two steps from the first byte of a webhook to the delivered message, and plainly started again:
//! delivered once, and nothing waits for the provider to repeat itself.
//!
//! A sale that goes well is traced first, which names every place that it passes. Then a sale dies at each of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use semel_kernel::store::Engine;

use super::program::{Killed, Order, Patience, World};

const CUSTOMER: i64 = 42;

/// The steps of the path: between any two of them nothing that lasts changes. What lies between (queues, tasks, threads,
/// sockets) is broken by the campaign in `tools/prove`, which knows every place of the program.
const STEPS: &[&str] = &["webhook.", "job.claimed:", "call.", "commit."];

/// What the program does beside the path, now and then. Looking whether it is ready is a statement, too.
const BESIDE: &[&str] = &["store.ping", "jobs.renew", "jobs.lost", "cron.", "lease."];

/// Places that every sale passes. Should one be missing, the trace is broken and the kills would prove nothing.
const CERTAIN: &[&str] = &[
    "webhook.verified:yookassa",
    "commit.before:inbox.accept",
    "commit.after:inbox.accept",
    "webhook.durable:yookassa",
    "commit.before:jobs.claim",
    "job.claimed:payment.confirm",
    "commit.before:payment.confirm",
    "commit.after:payment.confirm",
    "job.claimed:message.send",
    "call.before:telegram.send",
    "call.after:telegram.send",
    "commit.before:message.sent",
    "commit.after:message.sent",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_survives_a_kill_at_every_place_on_sqlite() {
    every_place(Engine::Sqlite, 3).await;
}

/// More at a time than on SQLite: here the jobs of the dead copy wait until its claims have run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_survives_a_kill_at_every_place_on_postgres() {
    every_place(Engine::Postgres, 5).await;
}

/// A place, and which of its passings is meant.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    /// Passings before the webhook.
    before: usize,
    /// The passing at which the program dies, counted from its start.
    nth: usize,
}

async fn every_place(engine: Engine, at_once: usize) {
    if !cfg!(feature = "failpoints") {
        panic!("this build has no places to be killed at: run ./test, or cargo test with --features semel/failpoints");
    }
    let places = places(engine).await;
    let (mut waiting, mut running, mut failed) = (places.into_iter(), JoinSet::new(), Vec::new());
    loop {
        while running.len() < at_once
            && let Some(place) = waiting.next()
        {
            let told = format!("{}#{}", place.name, place.nth - place.before);
            running.spawn(async move { (told, tokio::spawn(kill_at(engine, place)).await) });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((_, Ok(())))) => {}
            Some(Ok((place, Err(error)))) => failed.push(format!("{place}: {error}")),
            Some(Err(error)) => failed.push(error.to_string()),
        }
    }
    assert!(failed.is_empty(), "a sale did not survive its death at\n  {}", failed.join("\n  "));
}

/// Sells once without a death; answers every place that the program passed from the webhook to the delivered message, its
/// first two passings.
async fn places(engine: Engine) -> Vec<Place> {
    let world = World::with(engine, SETTINGS).await;
    let order = world.first_order().await;
    let trace = world.path("trace");
    let told_in = trace.to_string_lossy().into_owned();
    let mut program = world.start_with(&[("SEMEL_FAILPOINT_TRACE", told_in.as_str())]).await;
    program.at_rest().await;
    quiet(&trace).await;
    let start = passed(&trace);
    let hook = world.pay(&order);
    assert_eq!(world.sandbox.send_hook(hook).await.status, Some(200), "a webhook is acknowledged");
    program.delivered(&order).await;
    let patience = Patience::of("the trace is complete", 60);
    while !passed(&trace).iter().any(|name| name == "commit.after:message.sent") {
        patience.wait().await;
    }
    let whole = passed(&trace);
    assert_eq!(world.keys(CUSTOMER).len(), 1, "one key is delivered");
    world.finish(program, Killed::BesideTelegram).await;

    let mut before: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &start {
        *before.entry(name).or_default() += 1;
    }
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for name in &whole[start.len()..] {
        let count = found.entry(name).or_default();
        *count += 1;
        if *count <= 2 {
            let before = before.get(name.as_str()).copied().unwrap_or(0);
            places.push(Place { name: name.clone(), before, nth: before + *count });
        }
    }
    let missing: Vec<&&str> = CERTAIN.iter().filter(|name| !found.contains_key(**name)).collect();
    assert!(missing.is_empty(), "the trace of a sale misses {missing:?}; it passed {:#?}", &whole[start.len()..]);
    places
}

/// A dead copy's jobs wait for this long on PostgreSQL. Not less: a crowded machine may stall a living copy for a second.
const SETTINGS: &[(&str, &str)] = &[("SEMEL_JOB_LEASE", "3s")];

/// The end of one program and the work of the next.
async fn kill_at(engine: Engine, place: Place) {
    let world = World::with(engine, SETTINGS).await;
    let order = world.first_order().await;
    let trace = world.path("trace");
    let armed = format!("{}#{}", place.name, place.nth);
    let told_in = trace.to_string_lossy().into_owned();
    let mut program = world.launch(&[("SEMEL_FAILPOINT", armed.as_str()), ("SEMEL_FAILPOINT_TRACE", told_in.as_str())]);
    // As far as before the webhook in the sale that went well; on PostgreSQL, where a look at the queue is such a place,
    // it may die already now.
    let patience = Patience::of(format!("the program armed with {armed} is ready"), 60);
    while program.process.ended().is_none() && !(program.is_ready().await && count(&trace, &place.name) >= place.before)
    {
        patience.wait().await;
    }

    let hook = world.pay(&order);
    let outcome = world.sandbox.send_hook(hook).await;
    let killed = if let Some(status) = program.process.exit_within(60).await {
        assert_eq!(status.signal(), Some(9), "the program dies at {armed}, not with {status}");
        let passed = passed(&trace);
        // Messages go side by side: one may be with Telegram and not yet noted while another passes its places.
        let times = |name: &str| passed.iter().filter(|passed| *passed == name).count();
        let in_flight = times("call.before:telegram.send") > times("commit.after:message.sent");
        drop(program);
        program = world.start().await;
        // A provider repeats what was not acknowledged. Only here: at every other place the next program must not need it.
        // Where nothing was durable yet, the job behind the payment asks by itself.
        if place.name == "commit.before:inbox.accept" {
            assert_ne!(outcome.status, Some(200), "nothing is acknowledged before it is durable");
            world.acknowledged(hook).await;
        }
        if in_flight { Killed::AfterTelegram } else { Killed::BesideTelegram }
    } else {
        // What one sale passed by chance, as the end of a try that failed, another need not pass.
        let certain = place.nth == place.before + 1 && CERTAIN.contains(&place.name.as_str());
        assert!(!certain, "the program never came to {armed}");
        Killed::BesideTelegram
    };
    program.delivered(&order).await;
    program.at_rest().await;

    let keys = world.keys(CUSTOMER);
    let most = if killed == Killed::AfterTelegram { 2 } else { 1 };
    assert!((1..=most).contains(&keys.len()), "killed at {armed}, the customer got {keys:?}");
    assert!(keys.iter().all(|key| *key == keys[0]), "killed at {armed}, the customer got different goods: {keys:?}");
    let words = world.sandbox.chat(CUSTOMER);
    assert_eq!(words.len(), keys.len(), "no other message came: {words:?}");
    assert!(words.iter().all(|message| message.text == words[0].text), "what comes twice is seen to be one: {words:?}");
    world.finish(program, killed).await;
}

impl World {
    /// A product, its stock and an order that waits for its money, made by a program that has ended well since.
    async fn first_order(&self) -> Order {
        let program = self.start().await;
        let order = program.sell_one(CUSTOMER).await;
        program.terminate().await;
        order
    }
}

/// The places that a program passed so far, without what happens beside the path.
fn passed(trace: &Path) -> Vec<String> {
    let text = fs::read_to_string(trace).unwrap_or_default();
    let on_path = |name: &&str| {
        let label = name.split_once(':').map_or("", |(_, label)| label);
        STEPS.iter().any(|step| name.starts_with(*step)) && !BESIDE.iter().any(|beside| label.starts_with(*beside))
    };
    text.lines().filter(on_path).map(str::to_owned).collect()
}

fn count(trace: &Path, name: &str) -> usize {
    passed(trace).iter().filter(|passed| *passed == name).count()
}

/// Waits until a program that has just started has nothing to do.
async fn quiet(trace: &Path) {
    let patience = Patience::of("the program has nothing to do", 30);
    let (mut known, mut since) = (0, Instant::now());
    loop {
        let now = passed(trace).len();
        if now != known {
            (known, since) = (now, Instant::now());
        } else if since.elapsed() > Duration::from_millis(300) {
            return;
        }
        patience.wait().await;
    }
}
