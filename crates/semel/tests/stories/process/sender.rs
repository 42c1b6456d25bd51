//! Telegram's pace, whatever happens to the program: one copy at a time sends, another follows a dead one with care, and a
//! silence that Telegram asked for is kept by whoever sends next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use semel::{parts, settings};
use semel_kernel::args;
use semel_kernel::clock::{Chance, Clock, Time};
use semel_kernel::jobs;
use semel_kernel::outbound::{Call, Manner, Outbound, OutboundError, OutboundOptions};
use semel_kernel::store::{Engine, StoreError};
use semel_sandbox::{self as outside, Fault, Options, Sandbox, Target};
use semel_shop::Shop;
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
            jobs::enqueue(tx, &DeliverMessage { message, order: None, next: None, several: false }, now, &chance)?;
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
    let patience = Patience::of("the second copy stands by", 60);
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
    let patience = Patience::of("the sender is in the middle of it", 60);
    while (2_000..2_040).all(|chat| world.sandbox.chat(chat).is_empty()) {
        patience.wait().await;
    }
    one.process.kill_9();
    let died = Clock::system().now().millis();
    let second = sender(&world, std::slice::from_ref(&first)).await;
    let waited =
        texts(&world, "select cast(max(acquired_at) as text) from lease_terms where lease like 'sender:%'").await;
    let waited = waited[0].parse::<i64>().expect("a moment") - died;
    assert!(waited <= 10_000, "the second copy took over after {waited} ms");
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

/// Nobody can tell a dead holder from a slow one, so its successor on the same machine waits for the end of the term, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_copy_that_was_killed_sends_again_within_ten_seconds() {
    let world = World::with(Engine::Postgres, SETTINGS).await;
    let mut one = world.start().await;
    sender(&world, &[]).await;
    one.process.kill_9();
    let died = Clock::system().now();
    write_to(&world, 1_000..1_001).await;
    let two = world.start().await;
    arrived(&world, 1_000..1_001).await;
    let waited = Clock::system().now().since(died);
    assert!(waited <= Duration::from_secs(10), "the next message left {} ms after the death", waited.as_millis());
    world.finish(two, Killed::BesideTelegram).await;
}

/// The machine's clock is set back by an hour while a copy holds the right to send. What it writes into the lease follows,
/// and the HTTP client, whose clock is steady, does not: for it the end of the term would lie an hour in the past.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_does_not_shut_the_holders_door() {
    const TERM: Duration = Duration::from_secs(6);
    let sandbox = Sandbox::start(Options::default()).await.expect("the box opens");
    let t = TestStore::sqlite(ROOMS).await;
    let mut environment = BTreeMap::new();
    for (name, value) in [
        ("SEMEL_TELEGRAM_BOT_TOKEN", outside::BOT_TOKEN.to_owned()),
        ("SEMEL_TELEGRAM_API_URL", sandbox.telegram_url()),
    ] {
        environment.insert(name.to_owned(), value);
    }
    let loaded = settings::load(Some(Path::new("/dev/null")), &environment, &[]).expect("the story's settings");
    let steady = Clock::manual(t.clock.now() + Duration::from_secs(3_600));
    let client = Outbound::new(steady.clone(), t.chance.clone(), OutboundOptions::default()).expect("the HTTP client");
    let shop = parts::shop_with(&loaded.settings, t.store.clone(), client, t.chance.clone()).expect("a shop");

    for round in 0..2 {
        messages::allow_until(&shop, t.clock.now() + TERM);
        assert!(call(&shop).await.is_ok(), "round {round}: the holder's door is shut");
        steady.advance(TERM - Duration::from_millis(1));
        t.advance(TERM - Duration::from_millis(1)).await;
        assert!(call(&shop).await.is_ok(), "round {round}: the right was lost before its end");
        steady.advance(Duration::from_millis(1));
        t.advance(Duration::from_millis(1)).await;
        let late = call(&shop).await;
        assert!(matches!(late, Err(OutboundError::Paused { .. })), "round {round}: the term is over, and {late:?}");
    }
    messages::allow_until(&shop, t.clock.now() + TERM);
    messages::allow_until(&shop, Time::from_millis(0));
    assert!(call(&shop).await.is_err(), "a right that was taken away is gone");
    sandbox.stop().await;
}

/// Any call of the bot, through the door that only the holder of the lease may go through.
async fn call(shop: &Shop) -> Result<u16, OutboundError> {
    let bot = shop.bot.as_ref().expect("a bot");
    let call = Call::new("telegram.send", format!("telegram:{}", bot.id()), Manner::Blind);
    shop.telegram.call(call, bot.get_me()).await.map(|answer| answer.status().as_u16())
}

/// The end of the run that was asked to be silent and the silence are one commit: who dies behind it knows both that
/// nothing was sent and how long to be silent.
async fn a_silence_and_its_run_end_together(engine: Engine) {
    if !cfg!(feature = "failpoints") {
        panic!("this build has no places to be killed at: run ./test, or cargo test with --features semel/failpoints");
    }
    const SILENCE_S: u32 = 12;
    let world = World::with(engine, SETTINGS).await;
    world.start().await.terminate().await;
    world.sandbox.fault(
        Target::Telegram("sendMessage".to_owned()),
        Fault::TooMany { retry_after: SILENCE_S.into() },
        Some(1),
    );
    write_to(&world, 1_000..1_001).await;
    let mut one = world.launch(&[("SEMEL_FAILPOINT", "commit.after:message.silence=kill")]);
    let end = one.process.wait_exit(60).await;
    assert!(!end.success(), "it dies where it was asked to: {end}");

    let two = world.start().await;
    arrived(&world, 1_000..1_001).await;
    let mut calls = world.sandbox.truth().gt_tg;
    calls.retain(|call| call.chat_id == Some(1_000));
    assert_eq!(calls.len(), 2, "one was refused and one arrived: {calls:?}");
    let kept = calls[1].at - calls[0].at;
    // Our clock and that of the box differ by the way of an answer.
    assert!(kept >= i64::from(SILENCE_S) * 1_000 - 250, "the next program spoke after {kept} ms");
    let uncertain = "select cast(sum(uncertain) as bigint) from messages";
    let counted = world.finish_asking(two, Killed::BesideTelegram, &[uncertain]).await;
    assert_eq!(counted, [0], "a try that certainly sent nothing is no uncertain one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_and_its_run_end_together_on_sqlite() {
    a_silence_and_its_run_end_together(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_and_its_run_end_together_on_postgres() {
    a_silence_and_its_run_end_together(Engine::Postgres).await;
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
