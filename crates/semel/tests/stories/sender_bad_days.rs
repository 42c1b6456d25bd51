//! The sender's bad days: what Telegram does to a large campaign, and what may not follow from it.
//!
//! These run on both engines in simulated time, with 2,000 recipients where the number matters: a real database takes seconds for
//! them. The same days with 50,000 recipients, and the pace itself, are told of the pure pacer (`crates/telegram`, `pacer/tests`).
//! In simulated time a turn waits for silences only, so what is proved here is that nobody is lost, doubled, or spoken to in a
//! silence; how fast it goes is proved there. Deaths of the real program are in `process/sender_deaths.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use semel::app::updates::{Trouble, poll_once};
use semel::server::Peer;
use semel_kernel::each_store;
use semel_kernel::store::{StoreError, Value as Cell};
use semel_sandbox::{Fault, GtTg, Target, TelegramLimits};
use semel_shop::messages::{self, Body as Words, Class, New};

use crate::app::{ADMIN, ROOMS, TOKEN, TestShop, TestStore, refusal, send_message, sums, text};

/// The first of the people of these stories.
const FIRST: i64 = 10_000;
/// Twenty at a time, and a second from one batch to the next: what is under way reaches the box within a second.
const IN_BATCHES: &[(&str, &str)] = &[("BROADCAST_BATCH_SIZE", "20"), ("BROADCAST_BATCH_SLEEP", "1s")];

async fn act(shop: &TestShop, id: &str, what: &str, body: Value) -> (u16, Value) {
    shop.post(&format!("/api/v1/campaigns/{id}/{what}"), body).await
}

/// A campaign by this rule, looked at and tested. Answers its id.
async fn tested(shop: &TestShop, rule: Value) -> String {
    let draft = json!({ "title": "Spring", "rule": rule, "texts": { "ru": { "html": "<b>Весна</b>" } } });
    let (status, made) = shop.post("/api/v1/campaigns", draft).await;
    assert_eq!(status, 201, "{made}");
    let id = text(&made["id"]);
    assert_eq!(act(shop, &id, "preview", json!({})).await.0, 200);
    assert_eq!(act(shop, &id, "test", json!({})).await.0, 200);
    shop.run_jobs().await;
    shop.catch_up().await;
    assert_eq!(shop.campaign_view(&id).await["tested"], true, "{:?}", shop.alerts());
    id
}

/// The same to so many people, begun.
async fn begun(shop: &TestShop, people: i64) -> String {
    let list: Vec<i64> = (FIRST..FIRST + people).collect();
    let id = tested(shop, json!({ "list": list })).await;
    let (status, started) = act(shop, &id, "start", json!({ "confirm": people })).await;
    assert_eq!((status, text(&started["state"])), (200, "running".to_owned()), "{started}");
    id
}

/// Lets time pass until it runs no more. Answers how it stands then: `finished: sent 3`.
async fn until_over(shop: &TestShop, id: &str) -> String {
    for _ in 0..2_000 {
        shop.run_jobs().await;
        let shown = shop.campaign_view(id).await;
        if !matches!(shown["state"].as_str(), Some("starting" | "running")) {
            return sums(&shown);
        }
        shop.catch_up().await;
        shop.advance(Duration::from_secs(1)).await;
    }
    panic!("the campaign never ends: {}", sums(&shop.campaign_view(id).await));
}

/// Lets time pass until the box has got so many calls for people of the story.
async fn until_called(shop: &TestShop, count: usize) {
    for _ in 0..500 {
        if calls(shop).len() >= count {
            return;
        }
        shop.run_jobs().await;
        shop.catch_up().await;
        shop.advance(Duration::from_secs(1)).await;
    }
    panic!("the box never gets {count} calls: it has {}", calls(shop).len());
}

/// The calls that the box got for people of the story, in their order.
fn calls(shop: &TestShop) -> Vec<GtTg> {
    shop.sandbox.truth().gt_tg.into_iter().filter(|call| call.chat_id.is_some_and(|chat| chat >= FIRST)).collect()
}

/// Everybody has it, and nobody twice.
fn everybody_has_it_once(shop: &TestShop, people: i64) {
    for chat in FIRST..FIRST + people {
        assert_eq!(shop.sandbox.chat(chat).len(), 1, "messages to {chat}");
    }
}

/// A call of the campaign that reached the box between these moments, if there is one.
fn spoke(calls: &[GtTg], from: i64, to: i64) -> Option<&GtTg> {
    calls.iter().find(|call| call.at > from && call.at < to)
}

/// In the middle of it three chats are refused within a second, so the whole bot is to be silent for 35 seconds; and when it
/// speaks again, it is told so once more.
async fn a_long_silence_in_the_middle_of_a_large_campaign(store: TestStore) {
    const PEOPLE: i64 = 2_000;
    let shop = TestShop::in_a_hurry(store, 11, IN_BATCHES).await;
    let id = begun(&shop, PEOPLE).await;
    until_called(&shop, 900).await;
    let refuse = || shop.sandbox.fault(send_message(), Fault::TooMany { retry_after: 35 }, Some(3));
    refuse();
    shop.run_jobs().await;
    shop.catch_up().await;
    let first: Vec<GtTg> = calls(&shop).into_iter().filter(|call| call.retry_after > 0).collect();
    assert_eq!(first.len(), 3, "three chats were refused: {first:?}");
    assert_eq!(first[2].scope.as_deref(), Some("token"), "the third one is the bot's");
    refuse();
    let end = until_over(&shop, &id).await;
    assert_eq!(end, format!("finished: sent {PEOPLE}"));
    everybody_has_it_once(&shop, PEOPLE);

    let all = calls(&shop);
    let refused: Vec<&GtTg> = all.iter().filter(|call| call.retry_after > 0).collect();
    assert_eq!(refused.len(), 6, "{refused:?}");
    assert_eq!(all.len(), usize::try_from(PEOPLE).unwrap() + 6, "a refusal costs one call more and nothing else");
    for third in refused.iter().filter(|call| call.scope.as_deref() == Some("token")) {
        let early = spoke(&all, third.at + 1_000, third.at + 35_000);
        assert!(early.is_none(), "somebody was spoken to in the silence since {}: {early:?}", third.at);
    }
    let again = refused[3].at - refused[2].at;
    assert!((35_000..60_000).contains(&again), "it went on {again} ms after the silence began");
    assert_eq!(shop.number("select count(*) from recipients where uncertain > 0").await, 0);
    shop.finish().await;
}

#[tokio::test]
async fn a_long_silence_in_the_middle_of_a_large_campaign_on_sqlite() {
    a_long_silence_in_the_middle_of_a_large_campaign(TestStore::sqlite(ROOMS).await).await;
}

#[tokio::test]
async fn a_long_silence_in_the_middle_of_a_large_campaign_on_postgres() {
    a_long_silence_in_the_middle_of_a_large_campaign(TestStore::postgres(ROOMS).await).await;
}

/// One refused chat is its own trouble: all others go on meanwhile, and it gets its message when its silence is over.
async fn a_chats_429_stops_that_chat_only(store: TestStore) {
    const PEOPLE: i64 = 60;
    let shop = TestShop::in_a_hurry(store, 12, IN_BATCHES).await;
    let list: Vec<i64> = (FIRST..FIRST + PEOPLE).collect();
    let id = tested(&shop, json!({ "list": list })).await;
    shop.sandbox.fault(send_message(), Fault::TooMany { retry_after: 35 }, Some(1));
    assert_eq!(act(&shop, &id, "start", json!({})).await.0, 200);
    assert_eq!(until_over(&shop, &id).await, format!("finished: sent {PEOPLE}"));
    everybody_has_it_once(&shop, PEOPLE);

    let all = calls(&shop);
    let refused = all.iter().find(|call| call.retry_after > 0).expect("one was refused");
    assert_eq!(refused.scope.as_deref(), Some("chat"));
    let meanwhile = all.iter().filter(|call| call.accepted && call.at < refused.at + 35_000).count();
    assert_eq!(meanwhile, 59, "all others got it in its silence");
    let last = all.last().expect("calls");
    assert_eq!((last.chat_id, last.accepted), (refused.chat_id, true));
    assert!(last.at >= refused.at + 35_000, "{} ms after the refusal", last.at - refused.at);
    shop.finish().await;
}

#[tokio::test]
async fn a_chats_429_stops_that_chat_only_on_sqlite() {
    a_chats_429_stops_that_chat_only(TestStore::sqlite(ROOMS).await).await;
}

#[tokio::test]
async fn a_chats_429_stops_that_chat_only_on_postgres() {
    a_chats_429_stops_that_chat_only(TestStore::postgres(ROOMS).await).await;
}

/// From one moment to the next Telegram takes five a second in place of thirty. That the pace finds and keeps the new limit is
/// told of the pacer; here everybody gets it all the same, once.
async fn limits_that_were_lowered_without_notice_lose_nobody(store: TestStore) {
    const PEOPLE: i64 = 160;
    let shop = TestShop::in_a_hurry(store, 13, IN_BATCHES).await;
    let id = begun(&shop, PEOPLE).await;
    until_called(&shop, 60).await;
    shop.sandbox.set_telegram_limits(Some(TelegramLimits { per_second: 5, ..TelegramLimits::default() }));
    assert_eq!(until_over(&shop, &id).await, format!("finished: sent {PEOPLE}"));
    shop.sandbox.set_telegram_limits(None);
    everybody_has_it_once(&shop, PEOPLE);
    assert!(calls(&shop).iter().any(|call| call.retry_after > 0), "the lower limit was met");
    shop.finish().await;
}

#[tokio::test]
async fn limits_that_were_lowered_without_notice_lose_nobody_on_sqlite() {
    limits_that_were_lowered_without_notice_lose_nobody(TestStore::sqlite(ROOMS).await).await;
}

#[tokio::test]
async fn limits_that_were_lowered_without_notice_lose_nobody_on_postgres() {
    limits_that_were_lowered_without_notice_lose_nobody(TestStore::postgres(ROOMS).await).await;
}

/// A question for updates belongs to no chat, so a 429 to it means the bot. The copy that sends has heard nothing of it: the
/// database tells it.
async fn a_429_to_the_question_for_updates_silences_the_bot(store: TestStore) {
    let shop = TestShop::in_a_hurry(store, 14, &[]).await;
    let copy = shop.rival().await;
    let bot = shop.shop().bot.clone().expect("the story has a bot");
    shop.sandbox.fault(Target::Telegram("getUpdates".into()), Fault::TooMany { retry_after: 35 }, Some(1));
    let asked = poll_once(shop.shop(), &bot, None, 0).await;
    assert_eq!(asked.expect_err("it is told to wait"), Trouble::Asked(35));
    shop.catch_up().await;
    let truth = shop.sandbox.truth().gt_tg;
    let refused = truth.last().expect("the box writes down what it refused");
    assert_eq!((refused.scope.as_deref(), refused.retry_after), (Some("token"), 35));

    let queued = shop.shop().write("story.news", |tx, shop| {
        let body = Words::Text { html: "x".to_owned() };
        let (dedup_key, class) = ("story:news".to_owned(), Class::AtLeastOnce);
        messages::flows::queue(tx, shop, New { dedup_key, chat_id: FIRST, class, kind: "news", body, order: None })
    });
    queued.await.expect("a message is written");
    copy.run_jobs().await;
    assert!(calls(&shop).is_empty(), "somebody was spoken to in the silence");
    for _ in 0..60 {
        copy.run_jobs().await;
        shop.catch_up().await;
        shop.advance(Duration::from_secs(1)).await;
    }
    let all = calls(&shop);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].at >= refused.at + 35_000, "{} ms after the refusal", all[0].at - refused.at);
    shop.finish().await;
}

#[tokio::test]
async fn a_429_to_the_question_for_updates_silences_the_bot_on_sqlite() {
    a_429_to_the_question_for_updates_silences_the_bot(TestStore::sqlite(ROOMS).await).await;
}

#[tokio::test]
async fn a_429_to_the_question_for_updates_silences_the_bot_on_postgres() {
    a_429_to_the_question_for_updates_silences_the_bot(TestStore::postgres(ROOMS).await).await;
}

/// So many customers, whose ids sort as the program's own do.
async fn customers(shop: &TestShop, count: i64) {
    let made = "insert into customers (id, telegram_id, language, created_at)
        with recursive people (n) as (select cast(0 as bigint) union all select n + 1 from people where n + 1 < $1)
        select 'cus_' || cast(1000000 + n as text), 10000 + n, 'ru', n from people";
    let made = shop.store.store.write("story.customers", move |tx| tx.execute(made, &[Cell::from(count)]));
    let made: Result<u64, StoreError> = made.await;
    assert_eq!(made.expect("rows can be written"), count.unsigned_abs());
}

/// A campaign to everybody that says this, as a draft. Answers its id.
async fn drafted(shop: &TestShop, words: &str) -> String {
    let draft = json!({ "title": "Spring", "rule": {}, "texts": { "ru": { "html": words } } });
    let (status, made) = shop.post("/api/v1/campaigns", draft).await;
    assert_eq!(status, 201, "{made}");
    text(&made["id"])
}

async fn look_and_test(shop: &TestShop, id: &str) {
    assert_eq!(act(shop, id, "preview", json!({})).await.0, 200);
    assert_eq!(act(shop, id, "test", json!({})).await.0, 200);
    shop.run_jobs().await;
    assert_eq!(shop.campaign_view(id).await["tested"], true, "{:?}", shop.alerts());
}

/// Posts a body as it is, through the program's own layers and no socket: a refusal comes before the body is through.
async fn put(shop: &TestShop, path: &str, body: Vec<u8>) -> (u16, Value) {
    static KEYS: AtomicU64 = AtomicU64::new(1);
    let key = format!("file-{}", KEYS.fetch_add(1, Ordering::SeqCst));
    let request = Request::post(path).header("host", "shop.test").header("authorization", format!("Bearer {TOKEN}"));
    let request = request.header("idempotency-key", key).header("content-type", "application/pdf");
    let mut request = request.body(Body::from(body)).expect("a request");
    request.extensions_mut().insert(Peer(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
    let answer = shop.program.app.router(false).oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = answer.status().as_u16();
    let bytes = to_bytes(answer.into_body(), 1024 * 1024).await.expect("the whole answer comes");
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn upload(shop: &TestShop, id: &str, query: &str, file: Vec<u8>) -> (u16, Value) {
    put(shop, &format!("/api/v1/campaigns/{id}/media?{query}"), file).await
}

each_store! { ROOMS;
    async fn who_failed_is_sent_to_again_in_pieces(t: TestStore) {
        const PEOPLE: i64 = 5_001;
        let slowly = [("MAX_BROADCAST_USERS", "0"), ("BROADCAST_BATCH_SIZE", "1"), ("BROADCAST_BATCH_SLEEP", "1h")];
        let shop = TestShop::with(t, &slowly).await;
        let list: Vec<i64> = (FIRST..FIRST + PEOPLE).collect();
        let draft = json!({ "title": "Spring", "rule": { "list": list }, "texts": { "ru": { "html": "Весна" } } });
        let id = text(&shop.post("/api/v1/campaigns", draft).await.1["id"]);
        look_and_test(&shop, &id).await;
        assert_eq!(act(&shop, &id, "start", json!({ "confirm": PEOPLE })).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "running: queued 5000, sent 1");
        let failed = "update recipients set state = 'failed', error = 'no', ended_at = 1";
        assert_eq!(shop.change(failed).await, PEOPLE.unsigned_abs());
        shop.wait(Duration::from_secs(3600)).await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "finished: failed 5001");

        let again = act(&shop, &id, "resend-failed", json!({})).await.1;
        assert_eq!(sums(&again), "running: failed 1, queued 5000", "no transaction changes them all");
        let sent = "update recipients set state = 'sent', ended_at = 2 where state = 'queued'";
        assert_eq!(shop.change(sent).await, 5_000);
        for _ in 0..3 {
            shop.wait(Duration::from_secs(3600)).await;
        }
        assert_eq!(sums(&shop.campaign_view(&id).await), "finished: sent 5001", "and the last one after them");
        shop.finish().await;
    }

    async fn a_large_audience_is_written_down_in_pieces_and_only_then_written_to(t: TestStore) {
        const PEOPLE: i64 = 12_000;
        // One message, and then none for an hour: 12,000 calls are not what this story is about.
        let slowly = [("MAX_BROADCAST_USERS", "0"), ("BROADCAST_BATCH_SIZE", "1"), ("BROADCAST_BATCH_SLEEP", "1h")];
        let shop = TestShop::with(t, &slowly).await;
        customers(&shop, PEOPLE).await;
        let id = drafted(&shop, "Весна").await;
        look_and_test(&shop, &id).await;
        let (status, started) = act(&shop, &id, "start", json!({ "confirm": PEOPLE })).await;
        assert_eq!((status, text(&started["state"])), (200, "starting".to_owned()), "{started}");
        assert_eq!(sums(&started), "starting: queued 5000", "no transaction writes them all");
        let twice = act(&shop, &id, "start", json!({ "confirm": PEOPLE })).await;
        assert_eq!(refusal(&twice), "409 conflict", "it has begun");

        // Stopped in the middle of it, and meanwhile somebody comes who was no customer when it began.
        assert_eq!(text(&act(&shop, &id, "pause", json!({})).await.1["state"]), "paused");
        shop.wait(Duration::from_secs(60)).await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "paused: queued 5000");
        assert_eq!(calls(&shop).len(), 0, "nobody gets it before everybody is written down");
        let late = "insert into customers (id, telegram_id, created_at) values ('cus_1900000', 5, 1)";
        assert_eq!(shop.change(late).await, 1);
        assert_eq!(text(&act(&shop, &id, "resume", json!({})).await.1["state"]), "starting");
        shop.run_jobs().await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "running: queued 11999, sent 1");
        assert_eq!(shop.number("select count(*) from recipients where chat_id = 5").await, 0, "who came later is not in it");
        assert_eq!(shop.number("select count(distinct n) from recipients where n between 1 and 12000").await, PEOPLE);
        assert_eq!(calls(&shop)[0].chat_id, Some(FIRST), "in the order in which they came");

        // Calling it off is bounded in the same way.
        let cancelled = act(&shop, &id, "cancel", json!({})).await.1;
        assert_eq!(sums(&cancelled), "cancelled: cancelled 5000, queued 6999, sent 1");
        shop.run_jobs().await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "cancelled: cancelled 11999, sent 1");
        shop.finish().await;
    }

    async fn a_listed_audience_is_written_down_in_pieces_too(t: TestStore) {
        let slowly = [("MAX_BROADCAST_USERS", "0"), ("BROADCAST_BATCH_SIZE", "1"), ("BROADCAST_BATCH_SLEEP", "1h")];
        let shop = TestShop::with(t, &slowly).await;
        let list: Vec<i64> = (FIRST..FIRST + 5_001).rev().collect();
        let draft = json!({ "title": "Spring", "rule": { "list": list }, "texts": { "ru": { "html": "Весна" } } });
        let id = text(&shop.post("/api/v1/campaigns", draft).await.1["id"]);
        look_and_test(&shop, &id).await;
        let (_, started) = act(&shop, &id, "start", json!({ "confirm": 5_001 })).await;
        assert_eq!(sums(&started), "starting: queued 5000");
        shop.run_jobs().await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "running: queued 5000, sent 1");
        assert_eq!(shop.number("select max(n) from recipients").await, 5_001);
        assert_eq!(act(&shop, &id, "cancel", json!({})).await.0, 200);
        shop.run_jobs().await;
        shop.finish().await;
    }

    async fn an_audience_that_outgrew_the_limit_while_it_was_written_down_is_not_written_to(t: TestStore) {
        let shop = TestShop::with(t, &[("MAX_BROADCAST_USERS", "5500")]).await;
        customers(&shop, 6_000).await;
        assert_eq!(shop.change("update customers set blocked_at = 1 where telegram_id >= 15500").await, 500);
        let id = drafted(&shop, "Весна").await;
        look_and_test(&shop, &id).await;
        let (_, started) = act(&shop, &id, "start", json!({ "confirm": 5_500 })).await;
        assert_eq!(sums(&started), "starting: queued 5000");
        assert_eq!(shop.change("update customers set blocked_at = null").await, 6_000);
        shop.run_jobs().await;
        let shown = shop.campaign_view(&id).await;
        assert_eq!(sums(&shown), "paused: queued 6000", "all of them or nobody");
        let why = text(&shown["reason"]);
        assert!(why.contains("6000 people") && why.contains("limit is 5500"), "{why}");
        assert_eq!(refusal(&act(&shop, &id, "resume", json!({})).await), "409 conflict");
        assert_eq!(calls(&shop).len(), 0);
        assert_eq!(act(&shop, &id, "cancel", json!({})).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(sums(&shop.campaign_view(&id).await), "cancelled: cancelled 6000");
        shop.finish().await;
    }

    async fn a_campaign_whose_job_gave_up_stands_still_and_says_so(t: TestStore) {
        let shop = TestShop::start(t).await;
        customers(&shop, 4).await;
        let id = drafted(&shop, "Весна").await;
        look_and_test(&shop, &id).await;
        assert_eq!(act(&shop, &id, "start", json!({})).await.0, 200);
        let lane = "select count(*) from jobs where kind = 'campaign.run' and lane = 'campaigns'";
        assert_eq!(shop.number(lane).await, 1, "campaigns have places of their own");
        assert_eq!(shop.change("update jobs set payload = '{}' where kind = 'campaign.run'").await, 1);
        shop.run_jobs().await;
        let shown = shop.campaign_view(&id).await;
        assert_eq!(sums(&shown), "paused: queued 4");
        assert!(text(&shown["reason"]).contains("its job gave up"), "{shown}");
        let told = shop.alerts();
        let says = |alert: &String| alert.contains("stands still") && alert.contains("semel broadcast resume");
        assert!(told.iter().any(says), "{told:?}");

        assert_eq!(text(&act(&shop, &id, "resume", json!({})).await.1["state"]), "running");
        assert_eq!(until_over_here(&shop, &id).await, "finished: sent 4");
        everybody_has_it_once(&shop, 4);
        // The owner has looked at the dead letter.
        assert_eq!(shop.change("update jobs set state = 'cancelled' where state = 'dead'").await, 1);
        shop.finish().await;
    }

    async fn a_long_file_is_uploaded_as_it_is(t: TestStore) {
        let shop = TestShop::start(t).await;
        customers(&shop, 2).await;
        let id = drafted(&shop, "Цены").await;
        let file: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let attached = upload(&shop, &id, "kind=document&name=price.pdf", file.clone()).await;
        assert_eq!(attached.0, 200, "{}", attached.1);
        let media = &attached.1["media"];
        assert_eq!((&media["name"], &media["bytes"]), (&json!("price.pdf"), &json!(3_000_000)));
        assert_eq!(media["mime"], "application/pdf");
        assert_eq!(attached.1["tested"], false);

        for (query, length, wanted) in [
            ("kind=document", 0, "422 invalid"),
            ("kind=photo", 11 * 1024 * 1024, "422 invalid"),
            ("kind=document", 21 * 1024 * 1024, "413 too-large"),
        ] {
            assert_eq!(refusal(&upload(&shop, &id, query, vec![1; length]).await), wanted, "{query} {length}");
        }
        let other = drafted(&shop, &"x".repeat(2_000)).await;
        let refused = upload(&shop, &other, "kind=document", b"x".to_vec()).await;
        assert_eq!(refusal(&refused), "422 invalid", "words below a file are shorter");
        let elsewhere = put(&shop, &format!("/api/v1/campaigns/{id}/preview"), vec![b' '; 3_000_000]).await;
        assert_eq!(refusal(&elsewhere), "413 too-large", "only this address takes so much");

        look_and_test(&shop, &id).await;
        assert_eq!(act(&shop, &id, "start", json!({})).await.0, 200);
        assert_eq!(until_over_here(&shop, &id).await, "finished: sent 2");
        let document = |chat| shop.sandbox.chat(chat).into_iter().find_map(|message| message.document).expect("a file");
        let (tested, got) = (document(ADMIN), [document(FIRST), document(FIRST + 1)]);
        assert!(got.iter().all(|document| document.file_id == tested.file_id), "it is uploaded once");
        assert_eq!((got[0].bytes.len(), got[0].name.as_str()), (file.len(), "price.pdf"));
        shop.finish().await;
    }

    async fn what_runs_where_is_told(t: TestStore) {
        let shop = TestShop::start(t).await;
        let (status, ready) = shop.get("/readyz").await;
        assert_eq!((status, &ready["leases"]), (200, &json!([])), "no task of this program runs by itself: {ready}");
        let (status, jobs) = shop.get("/api/v1/jobs?state=running").await;
        assert_eq!(status, 200, "{jobs}");
        shop.finish().await;
    }
}

/// Lets time pass where the box has a clock of its own.
async fn until_over_here(shop: &TestShop, id: &str) -> String {
    for _ in 0..50 {
        shop.run_jobs().await;
        let shown = shop.campaign_view(id).await;
        if shown["state"] != "running" {
            return sums(&shown);
        }
        shop.advance(Duration::from_secs(5)).await;
    }
    panic!("the campaign never ends: {}", sums(&shop.campaign_view(id).await));
}
