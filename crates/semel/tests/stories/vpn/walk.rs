//! A long random walk: whatever is done in whatever order, file, interface and database end as one.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use semel_kernel::clock::Chance;
use semel_kernel::each_store;
use semel_wireguard::Conf;

use super::wg::Does;
use super::{NO_BOT, VpnShop, client_key, hours, person};
use crate::app::{Api, ROOMS, minutes, text};

const STEPS: usize = 300;

/// Reads the file again and again, as anybody may: it is whole at each moment. Answers how often it was read.
struct Reader {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    fn of(shop: &VpnShop) -> Reader {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (path, told, count) = (shop.conf.clone(), Arc::clone(&stop), Arc::clone(&reads));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let conf = Conf::parse(&fs::read(&path).expect("the file is there")).expect("it can be read");
                assert!(conf.whole(), "it is what was written");
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Reader { stop, reads, thread }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("each time that it was read it was whole");
        self.reads.load(Ordering::SeqCst)
    }
}

/// One of `all`, if there is one.
fn pick<T: Clone>(chance: &Chance, all: &[T]) -> Option<T> {
    let at = chance.below(u64::try_from(all.len()).unwrap());
    all.get(usize::try_from(at).unwrap()).cloned()
}

/// Asks for something that may be impossible just now.
async fn attempt(door: &Api, path: &str, body: serde_json::Value) -> Option<serde_json::Value> {
    let (status, answer) = door.post(path, body).await;
    assert!(matches!(status, 200 | 201 | 409), "{path}: {status} {answer}");
    (status != 409).then_some(answer)
}

async fn walk(shop: &VpnShop, seed: u64) {
    let chance = Chance::seeded(seed);
    let rival = shop.rival().await;
    let doors = [shop.program.api.clone(), rival.api.clone()];
    let mut subs: Vec<String> = Vec::new();
    let mut foreign = 0_u8;
    for step in 0..STEPS {
        let door = &doors[step % 2];
        let sub = pick(&chance, &subs);
        let path = |deed: &str| sub.as_ref().map(|sub| format!("/api/v1/subscriptions/{sub}/{deed}"));
        let because = || json!({ "reason": "a walk" });
        match chance.below(16) {
            0..=3 => {
                let customer = 1000 + i64::try_from(chance.below(40)).unwrap();
                let (days, devices) = (1 + chance.below(9), 1 + chance.below(2));
                let body =
                    json!({ "customer": person(customer), "days": days, "devices": devices, "reason": "a walk" });
                if let Some(made) = attempt(door, "/api/v1/subscriptions", body).await {
                    subs.push(text(&made["id"]));
                }
            }
            4 | 5 => {
                if let Some(path) = path("revoke") {
                    attempt(door, &path, because()).await;
                }
            }
            6 => {
                if let Some(path) = path("extend") {
                    attempt(door, &path, json!({ "days": 1 + chance.below(9), "reason": "a walk" })).await;
                }
            }
            7 => {
                if let Some(path) = path("freeze") {
                    attempt(door, &path, because()).await;
                }
            }
            8 => {
                if let Some(path) = path("unfreeze") {
                    attempt(door, &path, because()).await;
                }
            }
            9 => {
                let peers = door.get("/api/v1/peers?limit=200").await.1;
                let all = peers["items"].as_array().cloned().unwrap_or_default();
                if let Some(peer) = pick(&chance, &all) {
                    attempt(door, &format!("/api/v1/peers/{}/rotate", text(&peer["id"])), json!({})).await;
                }
            }
            10 => shop.advance(hours(1 + chance.below(36))).await,
            11 => {
                let verb = ["show", "addconf", "set"][usize::try_from(chance.below(3)).unwrap()];
                let what = [Does::Fail, Does::Lie, Does::FailAfter, Does::Work, Does::Work];
                shop.wg.does(verb, what[usize::try_from(chance.below(5)).unwrap()]);
            }
            12 => {
                let there: Vec<String> = shop.wg.peers().into_keys().collect();
                if let Some(key) = pick(&chance, &there) {
                    shop.wg.remove_by_hand(&key);
                }
            }
            13 if foreign < 3 => {
                foreign += 1;
                shop.wg.add_by_hand(&client_key(200 + foreign), &format!("10.8.0.{}/32", 50 + foreign));
            }
            14 => {
                tokio::join!(shop.run_jobs(), rival.run_jobs());
            }
            _ => {
                shop.run_jobs().await;
            }
        }
    }
    for verb in ["show", "addconf", "set"] {
        shop.wg.does(verb, Does::Work);
    }
    // The longest wait after a failure is half a minute.
    for _ in 0..3 {
        shop.wait(minutes(1)).await;
        rival.run_jobs().await;
    }
}

each_store! { ROOMS;
    async fn a_walk_of_hundreds_of_steps_ends_with_one_truth(t: TestStore) {
        let shop = VpnShop::with(t, &[
            NO_BOT,
            ("SEMEL_VPN_NETWORK", "10.8.0.0/26"),
            ("SEMEL_VPN_GRACE_HOURS", "1"),
            ("SEMEL_VPN_STICKY_DAYS", "2"),
            ("SEMEL_VPN_QUARANTINE_DAYS", "1"),
        ])
        .await;
        let reader = Reader::of(&shop);
        walk(&shop, 20_261_121).await;
        let reads = reader.end();
        assert!(reads > 100, "the file was looked at {reads} times");
        shop.is_in_step().await;
        // Every address is with somebody, kept, resting or free, and none of them twice.
        let held = "select count(*) from addresses a where a.state = 'held' and a.peer is not null and not exists
            (select 1 from peer_addresses t where t.server = a.server and t.ip = a.ip and t.peer = a.peer and t.freed_at is null)";
        let lost = "select count(*) from peer_addresses t join peers p on p.id = t.peer where t.freed_at is null and (p.state = 'freed'
            or not exists (select 1 from addresses a where a.server = t.server and a.ip = t.ip and a.peer = t.peer and a.state = 'held'))";
        assert_eq!((shop.number(held).await, shop.number(lost).await), (0, 0), "no address is lost");
        assert!(shop.number("select count(*) from peers where state = 'freed'").await > 10, "many came and went");
        for n in 201..=203 {
            assert!(!shop.in_file().contains_key(&client_key(n)), "what is foreign is none of ours");
        }
        shop.finish().await;
    }
}
