//! Killed between any two steps from a paid order to the file in the chat, and from "revoke" to the peer that is gone, and
//! plainly started again: the configuration file is one whole version at every moment, within 30 seconds it and the
//! interface are as the database wants them, and the customer has one file that opens what he bought.
//!
//! As with the sale of a key, a deed that goes well is traced first, and then one dies at each place that it passed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use semel_kernel::store::Engine;
use semel_sandbox::HookId;

use super::fake::Interface;
use super::{Keys, Watch, in_file, key_of, wanted};
use crate::process::program::{Answer, Killed, Order, Patience, Program, World, items, text};

const CUSTOMER: i64 = 42;
/// File and interface are as the database wants them so soon after a start.
const HEALED: Duration = Duration::from_secs(30);
/// The key of the request that takes access away: it is repeated until it is answered.
const REVOKE: &str = "revoke-once";

/// Steps between which something that lasts changes. Around the deed that takes access away only those that are its own:
/// the others are passed on the way in, too.
const STEPS: &[(Deed, &[&str])] = &[
    (Deed::Sell, &["webhook.", "job.claimed:", "call.", "commit.", "vpn."]),
    (
        Deed::Revoke,
        &[
            "vpn.",
            "commit.before:vpn.",
            "commit.after:vpn.",
            "commit.before:subscription.",
            "commit.after:subscription.",
        ],
    ),
];

/// What the program does beside the path, now and then.
const BESIDE: &[&str] = &["store.ping", "jobs.renew", "jobs.lost", "cron.", "lease.", "vpn.traffic"];

/// Places that every sale passes, beside those of every change of the server. Should one be missing, the trace is broken
/// and the kills would prove nothing.
const OF_A_SALE: &[&str] = &[
    "webhook.durable:yookassa",
    "commit.after:payment.confirm",
    "job.claimed:vpn.apply",
    "vpn.tool:addconf.before",
    "vpn.tool:addconf.after",
    "job.claimed:order.hand_over",
    "job.claimed:message.send",
    "call.before:telegram.send",
    "call.after:telegram.send",
    "commit.before:message.sent",
    "commit.after:message.sent",
];
/// The same for the end of access.
const OF_AN_END: &[&str] = &[
    "commit.before:subscription.revoke",
    "commit.after:subscription.revoke",
    "vpn.tool:remove.before",
    "vpn.tool:remove.after",
];
/// The same for whatever changes the server.
const OF_A_CHANGE: &[&str] = &[
    "vpn.file:lock.before",
    "vpn.file:lock.after",
    "vpn.file:write.before",
    "vpn.file:write.after",
    "vpn.file:sync.before",
    "vpn.file:sync.after",
    "vpn.file:rename.before",
    "vpn.file:rename.after",
    "vpn.file:dirsync.before",
    "vpn.file:dirsync.after",
    "vpn.tool:show.before",
    "vpn.tool:show.after",
    "commit.before:vpn.apply",
    "commit.after:vpn.apply",
];

/// A dead copy's jobs wait for this long on PostgreSQL. Not less: a crowded machine may stall a living copy for a second.
const SETTINGS: &[(&str, &str)] = &[("SEMEL_JOB_LEASE", "3s")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_of_access_survives_a_kill_at_every_place_on_sqlite() {
    every_place(Engine::Sqlite, Deed::Sell, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_of_access_survives_a_kill_at_every_place_on_postgres() {
    every_place(Engine::Postgres, Deed::Sell, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_access_survives_a_kill_at_every_place_on_sqlite() {
    every_place(Engine::Sqlite, Deed::Revoke, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_access_survives_a_kill_at_every_place_on_postgres() {
    every_place(Engine::Postgres, Deed::Revoke, 5).await;
}

/// What is done while the program may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// An order is paid, and its file arrives.
    Sell,
    /// A customer who has the file loses access.
    Revoke,
}

/// A place, and which of its passings is meant.
#[derive(Clone, Debug)]
struct Place {
    name: String,
    /// Passings before the deed.
    before: usize,
    /// The passing at which the program dies, counted from its start.
    nth: usize,
}

async fn every_place(engine: Engine, deed: Deed, at_once: usize) {
    if !cfg!(feature = "failpoints") {
        panic!("this build has no places to be killed at: run ./test, or cargo test with --features semel/failpoints");
    }
    let (mut waiting, mut running) = (places(engine, deed).await.into_iter(), JoinSet::new());
    let mut failed = Vec::new();
    loop {
        while running.len() < at_once
            && let Some(place) = waiting.next()
        {
            let told = format!("{}#{}", place.name, place.nth - place.before);
            running.spawn(async move { (told, tokio::spawn(kill_at(engine, deed, place)).await) });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((_, Ok(())))) => {}
            Some(Ok((place, Err(error)))) => failed.push(format!("{place}: {error}")),
            Some(Err(error)) => failed.push(error.to_string()),
        }
    }
    assert!(failed.is_empty(), "access did not survive its death at\n  {}", failed.join("\n  "));
}

/// A world in which somebody is about to do the deed: an order waits for its money, or a customer has the file.
struct Scene {
    world: World,
    file: PathBuf,
    interface: Interface,
    deed: Deed,
    /// The order that is paid.
    order: Option<Order>,
    /// The subscription that ends.
    subscription: String,
}

impl Scene {
    async fn set(engine: Engine, deed: Deed) -> Scene {
        let mut world = World::with(engine, SETTINGS).await;
        let file = world.sells_vpn();
        let interface = Interface::of(&mut world);
        let program = world.start().await;
        let (mut order, mut subscription) = (None, String::new());
        match deed {
            Deed::Sell => {
                let product = program.access(30, 1).await;
                order = Some(program.order(&product, CUSTOMER).await);
            }
            Deed::Revoke => {
                subscription = program.grant(CUSTOMER, 1).await;
                program.vpn_settles(30).await;
                let patience = Patience::of("the customer has the file and how to use it", 60);
                // That access was given, the file, the picture, the words.
                while world.sandbox.chat(CUSTOMER).len() < 4 {
                    patience.wait().await;
                }
            }
        }
        program.at_rest().await;
        program.terminate().await;
        Scene { world, file, interface, deed, order, subscription }
    }

    /// Does the deed as far as the program lives. Answers the webhook, if there is one, and the status of what was asked.
    async fn act(&self) -> (Option<HookId>, Option<u16>) {
        match &self.order {
            Some(order) => {
                let hook = self.world.pay(order);
                (Some(hook), self.world.sandbox.send_hook(hook).await.status)
            }
            None => (None, self.revoke().await.ok().map(|answer| answer.status)),
        }
    }

    async fn revoke(&self) -> Result<Answer, String> {
        let path = format!("/api/v1/subscriptions/{}/revoke", self.subscription);
        self.world.door().try_post_with_key(&path, &json!({ "reason": "resold" }), REVOKE).await
    }

    /// Does what the world repeats by itself after a death: a webhook that was not acknowledged, a request without an
    /// answer.
    async fn repeat(&self, place: &Place, hook: Option<HookId>, status: Option<u16>) {
        match hook {
            // At every other place the next program must not need it: the job behind the payment asks by itself.
            Some(hook) if place.name == "commit.before:inbox.accept" => {
                assert_ne!(status, Some(200), "nothing is acknowledged before it is durable");
                self.world.acknowledged(hook).await;
            }
            Some(_) => {}
            None => {
                let patience = Patience::of("the request to revoke is answered", 60);
                while !self.revoke().await.is_ok_and(|answer| answer.body["state"] == "revoked") {
                    patience.wait().await;
                }
            }
        }
    }

    /// Waits for the end of the deed.
    async fn done(&self, program: &mut Program) {
        if let Some(order) = &self.order {
            program.delivered(order).await;
        }
        program.at_rest().await;
        program.vpn_settles(30).await;
        let keys = wanted(program).await;
        assert_eq!(keys.len(), usize::from(self.deed == Deed::Sell), "peers that the database wants");
        assert_eq!(in_file(&self.file), keys, "the file is as the database wants it");
        assert_eq!(self.interface.peers(), keys, "the interface is as the database wants it");
        let left: Vec<PathBuf> = fs::read_dir(self.file.parent().expect("a folder"))
            .expect("it can be read")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert!(left.iter().all(|path| *path == self.file || path.ends_with(".wg0.conf.lock")), "left over: {left:?}");
        self.told(program, &keys).await;
    }

    /// What the customer got. Of what comes once, one more may have come when the program died beside Telegram.
    async fn told(&self, program: &Program, keys: &Keys) {
        let chat = self.world.sandbox.chat(CUSTOMER);
        let files: Vec<_> = chat.iter().filter_map(|message| message.document.as_ref()).collect();
        assert!(!files.is_empty(), "the file is in the chat: {chat:?}");
        for file in &files {
            assert_eq!((&file.name, &file.bytes), (&files[0].name, &files[0].bytes), "another file came");
        }
        if self.deed == Deed::Sell {
            let client = String::from_utf8(files[0].bytes.to_vec()).expect("the file is text");
            let key = key_of(&client).to_string();
            assert!(keys.contains_key(&key), "the file does not open what is on the server: {keys:?}");
            let address = keys[&key].iter().next().cloned().unwrap_or_default();
            assert!(client.contains(&format!("Address = {address}/32")), "{address} is missing in the file");
            let listed = program.door.get(&format!("/api/v1/subscriptions?customer={CUSTOMER}")).await;
            let states: Vec<String> = items(&listed).iter().map(|one| text(&one["state"])).collect();
            assert_eq!(states, ["active"], "one subscription was sold");
        }
    }

    /// How many messages the customer has in the end, and how many of these are the file.
    fn messages(&self) -> (usize, usize) {
        // The file, the picture, the words; around the end of access also that it was given and that it was taken.
        let chat = self.world.sandbox.chat(CUSTOMER);
        (chat.len(), chat.iter().filter(|message| message.document.is_some()).count())
    }

    fn messages_wanted(&self) -> usize {
        if self.deed == Deed::Sell { 3 } else { 5 }
    }
}

/// Does the deed once without a death; answers every place that the program passed meanwhile, its first passings.
async fn places(engine: Engine, deed: Deed) -> Vec<Place> {
    let scene = Scene::set(engine, deed).await;
    let trace = scene.world.path("trace");
    let told_in = trace.to_string_lossy().into_owned();
    let mut program = scene.world.start_with(&[("SEMEL_FAILPOINT_TRACE", told_in.as_str())]).await;
    program.at_rest().await;
    quiet(deed, &trace).await;
    let start = passed(deed, &trace);
    let watch = Watch::over(scene.file.clone());
    assert_eq!(scene.act().await.1, Some(200), "what is asked for is answered");
    let patience = Patience::of("the customer has all messages", 60);
    while scene.messages().0 < scene.messages_wanted() {
        patience.wait().await;
    }
    scene.done(&mut program).await;
    watch.end("nobody died, and");
    let whole = passed(deed, &trace);
    assert_eq!(scene.messages(), (scene.messages_wanted(), 1), "each message comes once");
    scene.world.finish(program, Killed::BesideTelegram).await;

    let mut before: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &start {
        *before.entry(name).or_default() += 1;
    }
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for name in &whole[start.len()..] {
        let count = found.entry(name).or_default();
        *count += 1;
        // Somebody else may be told of a sale first.
        let most = if name.contains("message") || name.contains("telegram") { 3 } else { 2 };
        if *count <= most {
            let before = before.get(name.as_str()).copied().unwrap_or(0);
            places.push(Place { name: name.clone(), before, nth: before + *count });
        }
    }
    let missing: Vec<&str> = certain(deed).filter(|name| !found.contains_key(name)).collect();
    assert!(missing.is_empty(), "the trace misses {missing:?}; it passed {:#?}", &whole[start.len()..]);
    places
}

/// The places that every such deed passes.
fn certain(deed: Deed) -> impl Iterator<Item = &'static str> {
    let own = if deed == Deed::Sell { OF_A_SALE } else { OF_AN_END };
    own.iter().chain(OF_A_CHANGE).copied()
}

/// The end of one program and the work of the next.
async fn kill_at(engine: Engine, deed: Deed, place: Place) {
    let scene = Scene::set(engine, deed).await;
    let trace = scene.world.path("trace");
    let armed = format!("{}#{}", place.name, place.nth);
    let told_in = trace.to_string_lossy().into_owned();
    let changes = [("SEMEL_FAILPOINT", armed.as_str()), ("SEMEL_FAILPOINT_TRACE", told_in.as_str())];
    let mut program = scene.world.launch(&changes);
    // As far as before the deed when it went well.
    let patience = Patience::of(format!("the program armed with {armed} is ready"), 60);
    while program.process.ended().is_none()
        && !(program.is_ready().await && count(deed, &trace, &place.name) >= place.before)
    {
        patience.wait().await;
    }

    let watch = Watch::over(scene.file.clone());
    let (hook, status) = scene.act().await;
    let killed = if let Some(ended) = program.process.exit_within(60).await {
        assert_eq!(ended.signal(), Some(9), "the program dies at {armed}, not with {ended}");
        let passed = passes(&trace);
        let times = |name: &str| passed.iter().filter(|passed| *passed == name).count();
        let in_flight = times("call.before:telegram.send") > times("commit.after:message.sent");
        drop(program);
        let began = Instant::now();
        program = scene.world.start().await;
        let left = HEALED.saturating_sub(began.elapsed()).as_secs().max(1);
        program.vpn_settles(left).await;
        scene.repeat(&place, hook, status).await;
        if in_flight { Killed::AfterTelegram } else { Killed::BesideTelegram }
    } else {
        // What one deed passed by chance, as the end of a try that failed, another need not pass.
        let certain = place.nth == place.before + 1 && certain(deed).any(|name| name == place.name);
        assert!(!certain, "the program never came to {armed}");
        Killed::BesideTelegram
    };
    // What a dead copy had claimed is claimed anew when that has run out.
    let patience = Patience::of(format!("the customer has all messages after {armed}"), 60);
    while scene.messages().0 < scene.messages_wanted() {
        patience.wait().await;
    }
    scene.done(&mut program).await;
    watch.end(&format!("killed at {armed},"));

    let (messages, files) = scene.messages();
    let spare = usize::from(killed == Killed::AfterTelegram);
    let most = scene.messages_wanted() + spare;
    assert!((scene.messages_wanted()..=most).contains(&messages), "killed at {armed}, {messages} messages came");
    assert!((1..=1 + spare).contains(&files), "killed at {armed}, the file came {files} times");
    scene.world.finish(program, killed).await;
}

/// All places that a program passed so far.
fn passes(trace: &Path) -> Vec<String> {
    fs::read_to_string(trace).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Those on the path of the deed.
fn passed(deed: Deed, trace: &Path) -> Vec<String> {
    let steps = STEPS.iter().find(|(of, _)| *of == deed).map_or(&[][..], |(_, steps)| steps);
    let on_path = |name: &String| {
        let label = name.split_once(':').map_or("", |(_, label)| label);
        steps.iter().any(|step| name.starts_with(*step)) && !BESIDE.iter().any(|beside| label.starts_with(*beside))
    };
    passes(trace).into_iter().filter(on_path).collect()
}

fn count(deed: Deed, trace: &Path, name: &str) -> usize {
    passed(deed, trace).iter().filter(|passed| *passed == name).count()
}

/// Waits until a program that has just started has nothing to do.
async fn quiet(deed: Deed, trace: &Path) {
    let patience = Patience::of("the program has nothing to do", 30);
    let (mut known, mut since) = (0, Instant::now());
    loop {
        let now = passed(deed, trace).len();
        if now != known {
            (known, since) = (now, Instant::now());
        } else if since.elapsed() > Duration::from_millis(300) {
            return;
        }
        patience.wait().await;
    }
}
