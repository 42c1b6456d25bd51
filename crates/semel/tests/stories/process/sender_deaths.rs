//! Campaigns of the real program: killed twenty times in the middle of them, and overtaken by a paid key.
//!
//! Two campaigns run at the same time, one whose lost answers stay unknown and one whose lost answers go again. Wherever the
//! program dies, the next one goes on by itself: every recipient has an end, the ends sum to the snapshot, nobody has it twice
//! for whom it may not go twice, and nobody more often than answers were lost.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use semel_kernel::clock::Chance;
use semel_kernel::store::{Engine, Row, Store, StoreError};
use semel_sandbox::GtTg;
use semel_shop::audit::{self, Parameters, TruthRows};

use super::program::{Killed, Patience, Program, World, text, truth_rows};

/// The first of the people, a range for each campaign.
const FIRST: i64 = 100_000;
const RANGE: i64 = 10_000;
const CUSTOMER: i64 = 42;
/// The most that Telegram takes in a second.
const CAP: usize = 30;

/// A dead copy's leases last so long on PostgreSQL. Pieces of five, so that a death leaves few whose fate is not known.
const SETTINGS: &[(&str, &str)] =
    &[("SEMEL_JOB_LEASE", "3s"), ("BROADCAST_BATCH_SIZE", "5"), ("BROADCAST_BATCH_SLEEP", "200ms")];

/// Every step of a send, and some of them later in the life of a program.
const STEPS: [&str; 12] = [
    "job.claimed:campaign.run",
    "commit.before:campaign.open",
    "commit.after:campaign.open",
    "commit.before:campaign.piece",
    "commit.after:campaign.piece",
    "call.before:telegram.campaign",
    "call.after:telegram.campaign",
    "commit.before:campaign.piece#3",
    "commit.after:campaign.piece#4",
    "call.before:telegram.campaign#8",
    "call.after:telegram.campaign#9",
    "call.after:telegram.campaign#14",
];
/// Deaths behind any call of a life, up to so many.
const AT_RANDOM: usize = 8;
const LATEST_CALL: u64 = 18;

impl Program {
    /// A draft to so many people. Answers its id.
    async fn campaign_draft(&self, first: i64, people: i64, class: &str) -> String {
        let list: Vec<i64> = (first..first + people).collect();
        let texts = json!({ "ru": { "html": "Весна" } });
        let draft = json!({ "title": "Spring", "class": class, "rule": { "list": list }, "texts": texts });
        let made = self.door.post("/api/v1/campaigns", &draft).await;
        assert_eq!(made.status, 201, "{}", made.text);
        text(&made.body["id"])
    }

    /// The same, looked at and arrived as a test.
    async fn campaign_to(&self, first: i64, people: i64, class: &str) -> String {
        let id = self.campaign_draft(first, people, class).await;
        self.campaign_act(&id, "preview", json!({})).await;
        self.campaign_act(&id, "test", json!({})).await;
        let patience = Patience::of("a test has arrived", 60);
        while self.campaign(&id).await["tested"] != true {
            patience.wait().await;
        }
        id
    }

    async fn campaign_act(&self, id: &str, what: &str, body: Value) {
        let answer = self.door.post(&format!("/api/v1/campaigns/{id}/{what}"), &body).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
    }

    async fn campaign(&self, id: &str) -> Value {
        self.door.get(&format!("/api/v1/campaigns/{id}")).await.body
    }

    /// Waits until these campaigns are finished, each with everybody's end.
    async fn campaigns_finished(&self, ids: &[String]) {
        let patience = Patience::of("the campaigns are finished", 180);
        for id in ids {
            loop {
                let shown = self.campaign(id).await;
                if shown["state"] == "finished" {
                    let states = shown["progress"]["states"].as_object().cloned().unwrap_or_default();
                    let all: i64 = states.values().filter_map(Value::as_i64).sum();
                    assert_eq!(Some(all), shown["recipients"].as_i64(), "the states sum to the snapshot: {shown}");
                    break;
                }
                assert_eq!(shown["state"], "running", "{shown}");
                patience.wait().await;
            }
        }
    }
}

/// The calls of campaigns that the box got, in their order.
fn campaign_calls(world: &World) -> Vec<GtTg> {
    let calls = world.sandbox.truth().gt_tg.into_iter();
    calls.filter(|call| call.msg_id.starts_with("cmp_") && call.chat_id.is_some_and(|chat| chat >= FIRST)).collect()
}

fn needs_failpoints() {
    if !cfg!(feature = "failpoints") {
        panic!("this build has no places to be killed at: run ./test, or cargo test with --features semel/failpoints");
    }
}

/// What a recipient's row says: where it stands, and how many tries have no known end.
type Ends = BTreeMap<String, (String, i64)>;

async fn ends(store: &Store) -> Ends {
    let sql = "select campaign || ':' || cast(chat_id as text), state, uncertain from recipients";
    let rows = store.rows("story.ends", sql, &[]).await.expect("the database answers");
    let read = |row: &Row| -> (String, (String, i64)) {
        (row.get(0).expect("an id"), (row.get(1).expect("a state"), row.get(2).expect("a number")))
    };
    rows.iter().map(read).collect()
}

/// The witness's rows, with as many lost answers of each message as its row says that there were.
fn with_lost_answers(mut truth: TruthRows, ends: &Ends) -> TruthRows {
    let mut lost: BTreeMap<&str, i64> = BTreeMap::new();
    for call in truth.tg.iter_mut().filter(|call| call.accepted) {
        let Some((id, (_, uncertain))) = call.msg_id.as_deref().and_then(|id| ends.get_key_value(id)) else { continue };
        let count = lost.entry(id.as_str()).or_default();
        if *count < *uncertain {
            *count += 1;
            call.answer_lost = true;
        }
    }
    truth
}

async fn twenty_deaths(engine: Engine) {
    needs_failpoints();
    const PEOPLE: i64 = 300;
    let world = World::with(engine, SETTINGS).await;
    let chance = Chance::seeded(20);
    let program = world.start().await;
    let once = program.campaign_to(FIRST, PEOPLE, "at_most_once").await;
    let again = program.campaign_to(FIRST + RANGE, PEOPLE, "at_least_once").await;
    for id in [&once, &again] {
        program.campaign_act(id, "start", json!({})).await;
    }
    program.terminate().await;

    for step in STEPS {
        let mut program = world.launch(&[("SEMEL_FAILPOINT", step)]);
        let status = program.process.wait_exit(90).await;
        assert_eq!(status.signal(), Some(9), "the program dies at {step}, not with {status}");
    }
    for death in 0..AT_RANDOM {
        let last = 1 + usize::try_from(chance.below(LATEST_CALL)).expect("small");
        let end = campaign_calls(&world).len() + last;
        let mut program = world.launch(&[]);
        let patience = Patience::of(format!("the program makes {last} calls before its random death {death}"), 90);
        while campaign_calls(&world).len() < end {
            patience.wait().await;
        }
        program.process.kill_9();
    }

    // Nobody lends a hand.
    let program = world.start().await;
    program.campaigns_finished(&[once.clone(), again.clone()]).await;
    program.at_rest().await;
    let verdict = world.cli(&["verify", "--at-rest"]).await.good();
    assert!(verdict.contains("every promise that can be checked here holds"), "{verdict}");
    program.terminate().await;

    let store = world.store();
    let ends = ends(&store).await;
    let mut arrived: BTreeMap<String, i64> = BTreeMap::new();
    for call in campaign_calls(&world).into_iter().filter(|call| call.accepted) {
        *arrived.entry(call.msg_id).or_default() += 1;
    }
    for (id, (state, uncertain)) in &ends {
        let count = arrived.get(id).copied().unwrap_or(0);
        match state.as_str() {
            "sent" if id.starts_with(&once) => assert_eq!(count, 1, "{id} is sent, once"),
            "sent" => {
                assert!((1..=1 + uncertain).contains(&count), "{id} came {count} times, {uncertain} answers lost")
            }
            "unknown" if id.starts_with(&once) => assert!(count <= 1, "{id} came {count} times"),
            "unknown" => assert!(count <= *uncertain, "{id} came {count} times, {uncertain} answers lost"),
            other => panic!("{id} is {other}"),
        }
    }
    assert_eq!(ends.len(), usize::try_from(2 * PEOPLE).expect("small"), "nobody is forgotten");
    let truth = with_lost_answers(truth_rows(&world.sandbox.truth(), Killed::BesideTelegram), &ends);
    let verdicts = audit::check_with_truth(&store, &truth, Parameters::default(), true).await;
    for verdict in verdicts.expect("the audit can ask") {
        assert!(verdict.holds(), "{} ({}): {:?}", verdict.id, verdict.meaning, verdict.violations);
    }
    world.sandbox.clone().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_deaths_in_one_campaign_forget_nobody_on_sqlite() {
    twenty_deaths(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_deaths_in_one_campaign_forget_nobody_on_postgres() {
    twenty_deaths(Engine::Postgres).await;
}

/// A piece is written down and the program does not learn it: nobody of it was called, so nobody of it may count as told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_whose_commit_was_not_heard_of_is_sent_all_the_same() {
    needs_failpoints();
    const PEOPLE: i64 = 20;
    let world = World::with(Engine::Postgres, SETTINGS).await;
    let program = world.start_with(&[("SEMEL_FAILPOINT", "commit.after:campaign.piece=error")]).await;
    let id = program.campaign_to(FIRST, PEOPLE, "at_most_once").await;
    program.campaign_act(&id, "start", json!({})).await;
    program.campaigns_finished(std::slice::from_ref(&id)).await;
    let shown = program.campaign(&id).await;
    assert_eq!(shown["progress"]["states"]["sent"], PEOPLE, "{shown}");
    program.terminate().await;
    world.sandbox.clone().stop().await;
}

/// More campaigns than there are places for them, and somebody pays: by the box's own count, no more than a second's worth of
/// other messages comes before the key. All campaigns get their share, and all are finished.
async fn a_paid_key_overtakes_campaigns(engine: Engine) {
    const CAMPAIGNS: i64 = 20;
    const PEOPLE: i64 = 25;
    let world = World::on(engine).await;
    let program = world.start().await;
    let order = program.sell_one(CUSTOMER).await;
    let mut ids = Vec::new();
    for n in 0..CAMPAIGNS {
        ids.push(program.campaign_draft(FIRST + n * RANGE, PEOPLE, "at_most_once").await);
    }
    program.terminate().await;
    // Twenty tests to one owner would take a minute: what is told here is not about them.
    let store = world.store();
    let seen: Result<u64, StoreError> = store
        .write("story.seen", |tx| tx.execute("update campaigns set previewed = content, tested = content", &[]))
        .await;
    assert_eq!(seen.expect("campaigns can be changed"), CAMPAIGNS.unsigned_abs());
    drop(store);
    let mut program = world.start().await;
    for id in &ids {
        program.campaign_act(id, "start", json!({})).await;
    }
    let patience = Patience::of("the campaigns are on their way", 60);
    while campaign_calls(&world).len() < 40 {
        patience.wait().await;
    }
    let ready = program.door.get("/readyz").await;
    let sender = &ready.body["leases"][0];
    assert_eq!((&sender["name"], &sender["here"]), (&json!("sender"), &json!(true)), "{}", ready.text);

    let hook = world.pay(&order);
    world.acknowledged(hook).await;
    program.delivered(&order).await;
    program.campaigns_finished(&ids).await;
    assert_eq!(world.keys(CUSTOMER).len(), 1);
    let all = world.sandbox.truth().gt_tg;
    let key = all.iter().find(|call| call.chat_id == Some(CUSTOMER) && call.accepted).expect("the key arrived").clone();
    let begun = campaign_calls(&world).into_iter().filter(|call| call.at < key.at).count();
    assert!(begun < usize::try_from(CAMPAIGNS * PEOPLE).expect("small"), "the campaigns were over before the key left");
    let queued = "select min(m.queued_at) from messages m where m.chat_id = 42";
    let queued = world.finish_asking(program, Killed::BesideTelegram, &[queued]).await[0];
    let between = all.iter().filter(|call| call.at >= queued && call.at < key.at).count();
    assert!(between <= CAP, "{between} messages came between the key's queueing and its arrival");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_key_overtakes_campaigns_on_sqlite() {
    a_paid_key_overtakes_campaigns(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_key_overtakes_campaigns_on_postgres() {
    a_paid_key_overtakes_campaigns(Engine::Postgres).await;
}
