//! Telegram's pace, whatever happens to the program: one copy at a time sends, another follows a dead one with care, and a
//! silence that Telegram asked for is kept by whoever sends next.

use std::ops::Range;
use std::time::Duration;

use serde_json::json;

use semel_kernel::args;
use semel_kernel::clock::{Chance, Clock};
use semel_kernel::jobs;
use semel_kernel::store::{Engine, StoreError};
use semel_sandbox::{Fault, Target};
use semel_shop::messages::{self, Body, Class, DeliverMessage, MessageId, New};

use super::program::{Killed, Patience, Program, World};
use crate::app::{CUSTOMER, ROOMS, TestShop, TestStore, minutes};

/// Jobs of a dead copy wait no longer than its lease as a sender does; else the story waits for these.
const SETTINGS: &[(&str, &str)] = &[("SEMEL_JOB_LEASE", "15s")];

const HOLDER: &str =
    "select owner from lease_terms where lease like 'sender:%' and ended_at is null and expires_at > semel_now()";

/// Writes a message to each of these chats in one transaction, as any copy may.
async fn write_to(world: &World, chats: Range<i64>) {
    let chance = Chance::system();
    let store = world.store();
    let written = store.write("story.write", move |tx| {
        let now = tx.now();
        for chat in chats.clone() {
            let message = MessageId::new(now, &chance);
            let body = json!({ "type": "text", "html": format!("news for {chat}") }).to_string();
            tx.execute(
                "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
                 values ($1, $2, $3, 'at_least_once', 'news', $4, 'queued', $5)",
                args![&message, format!("news:{chat}"), chat, body, now],
            )?;
            jobs::enqueue(tx, &DeliverMessage { message, order: None }, now, &chance)?;
        }
        Ok::<(), StoreError>(())
    });
    written.await.expect("messages are written");
}

async fn arrived(world: &World, chats: Range<i64>) {
    let patience = Patience::of(format!("a message came to each of the chats {chats:?}"), 90);
    while chats.clone().any(|chat| world.sandbox.chat(chat).is_empty()) {
        patience.wait().await;
    }
}

async fn texts(world: &World, sql: &'static str) -> Vec<String> {
    let rows = world.store().rows("story.texts", sql, &[]).await.expect("the database answers");
    rows.iter().map(|row| row.get(0).expect("a text")).collect()
}

/// Waits until a copy other than those in `known` holds the right to send, and answers which.
async fn sender(world: &World, known: &[String]) -> String {
    let patience = Patience::of("another copy has the right to send", 60);
    loop {
        if let Some(owner) = texts(world, HOLDER).await.into_iter().find(|owner| !known.contains(owner)) {
            return owner;
        }
        patience.wait().await;
    }
}

/// How often a copy said that another one sends.
fn stood_by(copy: &Program) -> usize {
    let log = copy.process.log();
    let told = |line: &&str| line.contains("Job already running in another instance") && line.contains("sender:");
    log.lines().filter(told).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_sends_and_another_follows_when_it_dies() {
    let world = World::with(Engine::Postgres, SETTINGS).await;
    let mut one = world.start().await;
    let first = sender(&world, &[]).await;
    let mut two = world.launch_copy(&[]);
    two.ready().await;
    let patience = Patience::of("the second copy stands by", 20);
    while stood_by(&two) == 0 {
        patience.wait().await;
    }

    write_to(&world, 1_000..1_040).await;
    arrived(&world, 1_000..1_040).await;
    one.at_rest().await;
    let owners = "select distinct r.owner from audit_run r join audit_job j on j.job_id = r.job_id
        where j.kind = 'message.send' and r.outcome = 'ok'";
    assert_eq!(texts(&world, owners).await, std::slice::from_ref(&first), "one copy made all calls");

    write_to(&world, 2_000..2_040).await;
    let patience = Patience::of("the sender is in the middle of it", 20);
    while (2_000..2_040).all(|chat| world.sandbox.chat(chat).is_empty()) {
        patience.wait().await;
    }
    one.process.kill_9();
    let died = Clock::system().now().millis();
    let second = sender(&world, std::slice::from_ref(&first)).await;
    let waited =
        texts(&world, "select cast(max(acquired_at) as text) from lease_terms where lease like 'sender:%'").await;
    let waited = waited[0].parse::<i64>().expect("a moment") - died;
    assert!(waited <= 20_000, "the second copy took over after {waited} ms");
    assert_eq!(stood_by(&two), 1, "it said once that it stood by");
    arrived(&world, 2_000..2_040).await;

    // In the place of the first one comes a third, and the second goes as it should.
    let three = world.start().await;
    two.terminate().await;
    sender(&world, &[first, second]).await;
    let ends = "select coalesce(end_kind, 'open') from lease_terms where lease like 'sender:%' order by fence";
    assert_eq!(texts(&world, ends).await, ["expired", "released", "open"]);
    write_to(&world, 3_000..3_005).await;
    arrived(&world, 3_000..3_005).await;
    world.finish(three, Killed::AfterTelegram).await;
}

/// Queues a text for the customer.
async fn say(shop: &TestShop, words: &'static str) {
    let queued = shop.shop().write("story.say", move |tx, shop| {
        let body = Body::Text { html: words.to_owned() };
        let (dedup_key, class) = (words.to_owned(), Class::AtLeastOnce);
        let new = New { dedup_key, chat_id: CUSTOMER, class, kind: "news", body, order: None };
        messages::flows::queue(tx, shop, new)
    });
    queued.await.expect("a message is queued");
}

/// In simulated time, because the box has to agree on it: T2 is judged by its word.
async fn a_silence_outlives_the_program(store: TestStore) {
    let mut shop = TestShop::by_hand(store, 5, &[]).await;
    shop.sandbox.fault(Target::Telegram("sendMessage".to_owned()), Fault::TooMany { retry_after: 30 }, Some(1));
    say(&shop, "before").await;
    shop.run_jobs().await;
    shop.catch_up().await;
    assert_eq!(shop.sandbox.truth().gt_tg.len(), 1, "Telegram asked for silence");

    shop.restart(0).await;
    say(&shop, "after").await;
    shop.run_jobs().await;
    assert_eq!(shop.sandbox.truth().gt_tg.len(), 1, "the new program spoke during the silence");
    shop.wait(Duration::from_secs(25)).await;
    assert_eq!(shop.sandbox.truth().gt_tg.len(), 1, "the new program spoke before the end of the silence");

    shop.wait(Duration::from_secs(6)).await;
    let mut words = shop.chat(CUSTOMER);
    words.sort();
    assert_eq!(words, ["after", "before"], "each once, now that the silence is over");
    assert_eq!(shop.sandbox.truth().gt_tg.len(), 3);
    assert_eq!(shop.number("select count(*) from messages where uncertain > 0").await, 0);

    // The next silence takes the place of the one that is over.
    shop.catch_up().await;
    shop.sandbox.fault(Target::Telegram("sendMessage".to_owned()), Fault::TooMany { retry_after: 60 }, Some(1));
    say(&shop, "later").await;
    shop.run_jobs().await;
    shop.catch_up().await;
    assert_eq!(shop.number("select count(*) from marks where name like 'silence:%'").await, 1);
    shop.wait(minutes(2)).await;
    assert_eq!(shop.chat(CUSTOMER).len(), 3);
    shop.finish().await;
}

#[tokio::test]
async fn a_silence_outlives_the_program_on_sqlite() {
    a_silence_outlives_the_program(TestStore::sqlite(ROOMS).await).await;
}

#[tokio::test]
async fn a_silence_outlives_the_program_on_postgres() {
    a_silence_outlives_the_program(TestStore::postgres(ROOMS).await).await;
}
