//! A run of sales whose every change is written down, over several lives of the program.
//!
//! Beside the database lies the file of a VPN server, so that the same log tells of its writing, syncs and renamings, in their order
//! among the database's own. News to everybody begin in the second life, which dies, and end in the third.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use semel_kernel::clock::{Clock, Time};
use semel_sandbox::Sandbox;

use super::disk::Disk;
use super::trace::Trace;
use crate::program::{Door, OWN_CONF, Patience, Program, World, text, write_private};
use crate::syscalls::ground::{Shared, data};
use crate::syscalls::plan::{Died, Plan, rest};
use crate::syscalls::shim::{Acknowledged, Acks, Action, Control, Kind};

/// The file of the VPN server, beside the database.
pub const CONF: &str = "wg0.conf";
/// 32 bytes that seal customers' keys. The program would make them itself, by a hard link, which the shim does not see.
const KEY: &str = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=";

/// What is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Which recording this is; its name in a trouble.
    pub number: usize,
    /// Sales at each provider, in each of three lives.
    pub sales: i64,
    /// Whether so much comes into stock that SQLite moves its log into the file.
    pub checkpoint: bool,
}

/// A recorded run.
pub struct Recording {
    /// The disk before it.
    pub start: Disk,
    /// Every change.
    pub trace: Trace,
    /// Everything that was acknowledged, in its order.
    pub acknowledged: Vec<Acknowledged>,
    /// When it was over.
    pub end: Time,
}

/// Records: the first life begins with no file at all and ends well, the second one dies
/// between a write and its sync, the third one comes back from what it finds.
///
/// # Errors
/// Something did not go well, though nothing was cut.
pub async fn record(ground: Shared, wish: Wish) -> Result<Recording, String> {
    let mut world = World::in_file("data/semel.db", &[]).await;
    let file = world.private_folder("data").join(CONF);
    write_private(&file, OWN_CONF);
    world.set("SEMEL_VPN_HOST", "vpn.example.com");
    world.set("SEMEL_VPN_CONFIG_PATH", file.to_string_lossy());
    world.set("SEMEL_VPN_APPLY", "file");
    world.set("SEMEL_VPN_TRAFFIC_EVERY", "1h");
    world.set("SEMEL_VPN_KEY", KEY);
    world.set("BROADCAST_BATCH_SIZE", "2");
    world.set("BROADCAST_BATCH_SLEEP", "1s");
    let recording = live(&ground, &world, wish).await;
    world.sandbox.clone().stop().await;
    recording
}

async fn live(ground: &Shared, world: &World, wish: Wish) -> Result<Recording, String> {
    let folder = data(world);
    let start = Disk::of(&folder).map_err(|error| error.to_string())?;
    let control = Control::new(world.path("control")).map_err(|error| error.to_string())?;
    let acks = Arc::new(Acks::new(control.clone()));
    let mut hearing = JoinSet::new();
    hearing.spawn(hear_news(world.sandbox.clone(), Arc::clone(&acks)));
    let quiet =
        Plan { name: "quiet", sales: wish.sales, together: false, import: 0, second_thoughts: true, from: 5000 };
    let first = Plan { name: "first", import: 200, ..quiet.clone() };
    let second = Plan { name: "second", together: true, from: 6000, ..quiet.clone() };
    let third = Plan { name: "third", together: true, import: 200, from: 7000, ..quiet };
    let access_of = |name, from| Plan { name, sales: 1, together: true, import: 0, second_thoughts: true, from };
    let devices = [access_of("devices-1", 8000), access_of("devices-2", 8100), access_of("devices-3", 8200)];
    let (mut logs, mut product, mut access, mut news) = (Vec::new(), String::new(), String::new(), String::new());
    for life in 1..=3 {
        let log = world.path(&format!("disk-{life}.log"));
        let environment = control.environment(&ground.shim, &folder, Some(&log));
        logs.push(log);
        let (mut program, _) = ground.start(world, &environment).await;
        let door = program.door.clone();
        if life == 1 {
            let goods: Vec<String> = (0..wish.sales * 12).map(|n| format!("KEY-{n:04}")).collect();
            product = program.product(&goods).await;
            gone(first.run(world, &door, &product, &acks).await)?;
            // Nothing is given out before somebody looked whose addresses are in use.
            program.vpn_settles(60).await;
            access = program.access(30, 1).await;
            gone(devices[0].run(world, &door, &access, &acks).await)?;
        } else if life == 2 {
            if wish.checkpoint {
                fill_the_log(world, &program, &product).await;
            }
            news = draft(&door).await?;
            // Written and not synced: the next life finds it in the log, and must not say yes to what a cut could undo.
            control.arm(Kind::Sync, 6 + 5 * wish.number as u64, Action::Death);
            begin(&door, &news).await;
            let selling = second.run(world, &door, &product, &acks);
            let (sold, given) = tokio::join!(selling, devices[1].run(world, &door, &access, &acks));
            let ran = sold.and(given);
            if control.has_struck() {
                program.process.wait_exit(30).await;
            } else {
                gone(ran)?;
                program.process.kill_9();
            }
            continue;
        } else {
            gone(second.run(world, &door, &product, &acks).await)?;
            gone(devices[1].run(world, &door, &access, &acks).await)?;
            gone(third.run(world, &door, &product, &acks).await)?;
            gone(devices[2].run(world, &door, &access, &acks).await)?;
            until_over(&door, &news).await;
        }
        gone(rest(&door).await)?;
        program.terminate().await;
    }
    let trace = read(&logs)?;
    hearing.shutdown().await;
    Ok(Recording { start, trace, acknowledged: acks.all(), end: Clock::system().now() })
}

/// News for everybody who has bought something so far, looked at and tested. Answers where they are.
async fn draft(door: &Door) -> Result<String, String> {
    let news = json!({ "title": "News", "rule": {}, "texts": { "ru": { "html": "Everything goes on" } } });
    let made = door.post_with_key("/api/v1/campaigns", &news, "news").await;
    if made.status != 201 {
        return Err(format!("news are not made: {}", made.text));
    }
    let path = format!("/api/v1/campaigns/{}", text(&made.body["id"]));
    for what in ["preview", "test"] {
        let done = door.post_with_key(&format!("{path}/{what}"), &json!({}), &format!("news-{what}")).await;
        if done.status != 200 {
            return Err(format!("{what} of the news is refused: {}", done.text));
        }
    }
    let patience = Patience::of("the test of the news arrives", 60);
    while door.get(&path).await.body["tested"] != true {
        patience.wait().await;
    }
    Ok(path)
}

/// Lets the news begin, if the program lives.
async fn begin(door: &Door, news: &str) {
    let _ = door.try_post_with_key(&format!("{news}/start"), &json!({}), "news-start").await;
}

/// Waits until everybody has them. They may not have begun before the program died.
async fn until_over(door: &Door, news: &str) {
    let patience = Patience::of("the news are over", 120);
    loop {
        match text(&door.get(news).await.body["state"]).as_str() {
            "finished" => return,
            "draft" => begin(door, news).await,
            _ => {}
        }
        patience.wait().await;
    }
}

/// Notes which messages of the campaign Telegram took. That is seen a moment later than it happened, which proves a little less
/// and nothing false.
async fn hear_news(sandbox: Sandbox, acks: Arc<Acks>) {
    let (mut seen, mut known) = (0, BTreeSet::new());
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let calls = sandbox.truth().gt_tg;
        // The test for the owner has more parts.
        let is_news = |id: &str| id.starts_with("cmp_") && id.split(':').count() == 2;
        for call in calls.iter().skip(seen).filter(|call| call.accepted && is_news(&call.msg_id)) {
            if known.insert(call.msg_id.clone()) {
                acks.note(Acknowledged::News(call.msg_id.clone()));
            }
        }
        seen = calls.len();
    }
}

/// A program that broke off although nothing was cut.
fn gone(ran: Result<(), Died>) -> Result<(), String> {
    ran.map_err(|died| format!("the program broke off: {}", died.0))
}

fn read(logs: &[PathBuf]) -> Result<Trace, String> {
    Trace::read(logs).map_err(|error| error.to_string())
}

/// Brings stock in until SQLite has moved its log into the file, which grows by that.
async fn fill_the_log(world: &World, program: &Program, product: &str) {
    let file = data(world).join("semel.db");
    let length = || fs::metadata(&file).map_or(0, |about| about.len());
    let (before, patience) = (length(), Patience::of("SQLite moves its log into the file", 240));
    let mut turn = 0;
    while length() <= before {
        turn += 1;
        let goods: Vec<String> = (0..500).map(|n| format!("KEY-more-{n}-{turn}")).collect();
        let path = format!("/api/v1/products/{product}/stock");
        let stock = program.door.post(&path, &json!({ "items": goods })).await;
        assert_eq!(stock.status, 200, "stock comes in: {}", stock.text);
        patience.wait().await;
    }
}
