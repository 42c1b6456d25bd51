//! A campaign from its first word to its end: a test that does not arrive, a pause, people who cannot be reached, a slow-down, a
//! refusal, a call that breaks off, those who failed once more; and another one, with a file, that is called off before its time.

use std::collections::BTreeMap;
use std::time::Duration;

use semel_kernel::clock::Clock;
use semel_sandbox::{ChatState, Fault, Target};
use serde_json::{Value, json};

use super::{Flow, OWNER, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, text};

/// The first of those who get it.
const FIRST: i64 = 2_001;
/// How many they are: every one of the segment.
const PEOPLE: i64 = 10;
/// The last two cannot be reached.
const BLOCKED: i64 = 2_009;
const GONE: i64 = 2_010;

/// Ten people who speak Russian.
const CUSTOMERS: &[&str] = &["insert into customers (id, telegram_id, language, created_at) values
    ('cus_00000000000000000000000000000001', 2001, 'ru', 1), ('cus_00000000000000000000000000000002', 2002, 'ru', 2),
    ('cus_00000000000000000000000000000003', 2003, 'ru', 3), ('cus_00000000000000000000000000000004', 2004, 'ru', 4),
    ('cus_00000000000000000000000000000005', 2005, 'ru', 5), ('cus_00000000000000000000000000000006', 2006, 'ru', 6),
    ('cus_00000000000000000000000000000007', 2007, 'ru', 7), ('cus_00000000000000000000000000000008', 2008, 'ru', 8),
    ('cus_00000000000000000000000000000009', 2009, 'ru', 9), ('cus_00000000000000000000000000000010', 2010, 'ru', 10)"];
const WORDS: &str = "Весна пришла";

/// News for everybody, and news for nobody.
#[derive(Default)]
pub struct Campaign {
    id: String,
    called_off: String,
}

fn sending() -> Target {
    Target::Telegram("sendMessage".into())
}

fn path(id: &str, what: &str) -> String {
    format!("/api/v1/campaigns/{id}{what}")
}

/// How often a person has the news.
fn copies(stage: &Stage, chat: i64) -> usize {
    stage.world.sandbox.chat(chat).iter().filter(|message| message.text.contains(WORDS)).count()
}

impl Campaign {
    async fn view(stage: &Stage, id: &str) -> Value {
        let shown = stage.get(&path(id, "")).await;
        assert_eq!(shown.status, 200, "a campaign is shown: {}", shown.text);
        shown.body
    }

    async fn until(stage: &Stage, id: &str, states: &[&str]) {
        let patience = Patience::of(format!("the campaign is {states:?}"), 150);
        while !states.contains(&text(&Self::view(stage, id).await["state"]).as_str()) {
            pause(&patience).await;
        }
    }

    /// Does something about a campaign. Whoever asks again hears that it is done already.
    async fn act(stage: &Stage, id: &str, what: &str, key: &str) {
        stage.by_hand(&path(id, &format!("/{what}")), &json!({}), key, &[200, 409]).await;
    }

    /// A draft that was looked at.
    async fn ready(stage: &Stage, title: &str) -> String {
        let draft = json!({
            "title": title, "segment": "everybody", "texts": { "ru": { "html": format!("<b>{WORDS}</b>") } },
        });
        let made = stage.by_hand("/api/v1/campaigns", &draft, title, &[201]).await;
        let id = text(&made["id"]);
        Self::act(stage, &id, "preview", &format!("{title}-preview")).await;
        id
    }

    /// Waits until its owner has it as a test. One that got lost is asked for again.
    async fn tested(stage: &Stage, id: &str) {
        let patience = Patience::of("the test arrives", 150);
        let mut round = 0;
        while Self::view(stage, id).await["tested"] != true {
            round += 1;
            Self::act(stage, id, "test", &format!("{id}-test-{round}")).await;
            stage.rest().await;
            pause(&patience).await;
        }
    }

    /// Where everybody stands; and insists that they sum to the recipients.
    async fn states(stage: &Stage, id: &str) -> BTreeMap<String, i64> {
        let shown = Self::view(stage, id).await;
        let states = shown["progress"]["states"].as_object().cloned().unwrap_or_default();
        let states: BTreeMap<String, i64> =
            states.into_iter().map(|(state, count)| (state, count.as_i64().unwrap_or(-1))).collect();
        assert_eq!(
            Some(states.values().sum::<i64>()),
            shown["recipients"].as_i64(),
            "the states sum to the snapshot: {shown}"
        );
        states
    }
}

impl Flow for Campaign {
    fn name(&self) -> &'static str {
        "campaign"
    }

    /// Three at a time and a second between, so that there is a middle.
    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("BROADCAST_BATCH_SIZE".into(), "3".into()), ("BROADCAST_BATCH_SLEEP".into(), "1s".into())]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.plant(CUSTOMERS).await;
            stage.world.sandbox.set_chat_state(BLOCKED, ChatState::Blocked);
            stage.world.sandbox.set_chat_state(GONE, ChatState::Deactivated);
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let sandbox = &stage.world.sandbox;
            let nobody = json!({ "name": "everybody", "rule": { "tag": "spring" } });
            stage.by_hand("/api/v1/segments", &nobody, "segment", &[201, 409]).await;
            let people: Vec<i64> = (FIRST..FIRST + PEOPLE).collect();
            stage.by_hand("/api/v1/tags/spring", &json!({ "add": people }), "tag", &[200]).await;
            let rule = json!({ "rule": { "tag": "spring", "language": "ru" } });
            let changed = stage.patch("/api/v1/segments/everybody", &rule).await;
            assert_eq!(
                (changed.status, &changed.body["audience"]["people"]),
                (200, &json!(PEOPLE)),
                "{}",
                changed.text
            );

            self.id = Self::ready(stage, "Spring").await;
            let renamed = stage.patch(&path(&self.id, ""), &json!({ "title": "Spring sale" })).await;
            assert_eq!(renamed.status, 200, "a draft is changed: {}", renamed.text);
            Self::act(stage, &self.id, "preview", "preview-again").await;
            // The first test breaks off on its way, which its owner hears.
            let cut = sandbox.fault(sending(), Fault::CutBefore, Some(1));
            Self::act(stage, &self.id, "test", "test").await;
            stage.rest().await;
            sandbox.lift_fault(cut);
            Self::tested(stage, &self.id).await;
            stage.rest().await;

            // The first one is told to wait, the second refused, the call to the third breaks off.
            sandbox.fault(sending(), Fault::TooMany { retry_after: 1 }, Some(1));
            sandbox.fault(sending(), Fault::Status(400), Some(1));
            sandbox.fault(sending(), Fault::CutBefore, Some(1));
            Self::act(stage, &self.id, "start", "start").await;
            Self::act(stage, &self.id, "pause", "pause").await;
            Self::until(stage, &self.id, &["paused", "finished"]).await;
            Self::act(stage, &self.id, "resume", "resume").await;
            Self::until(stage, &self.id, &["finished"]).await;
            sandbox.clear_faults();
            Self::act(stage, &self.id, "resend-failed", "resend").await;
            Self::until(stage, &self.id, &["finished"]).await;

            self.called_off = Self::ready(stage, "Autumn").await;
            let file = path(&self.called_off, "/media?kind=document&name=leaves.json");
            let attached = stage.by_hand(&file, &json!({ "leaves": 7 }), "attach", &[200]).await;
            assert_eq!(attached["previewed"], false, "with a file it has to be looked at again: {attached}");
            Self::act(stage, &self.called_off, "preview", "preview-file").await;
            Self::tested(stage, &self.called_off).await;
            let tomorrow = Clock::system().now() + Duration::from_secs(86_400);
            let at = json!({ "starts_at": tomorrow.to_string() });
            stage.by_hand(&path(&self.called_off, "/schedule"), &at, "schedule", &[200, 409]).await;
            Self::act(stage, &self.called_off, "cancel", "cancel").await;
            Self::until(stage, &self.called_off, &["cancelled"]).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(Self::view(stage, &self.id).await["state"], "finished");
            assert_eq!(Self::view(stage, &self.called_off).await["state"], "cancelled");
            let states = Self::states(stage, &self.id).await;
            let of = |state: &str| states.get(state).copied().unwrap_or(0);
            assert_eq!(states.values().sum::<i64>(), PEOPLE, "everybody of the segment and nobody else: {states:?}");
            assert_eq!(of("queued") + of("sending") + of("cancelled"), 0, "everybody's row has its end: {states:?}");
            let has: Vec<usize> = (FIRST..FIRST + PEOPLE).map(|chat| copies(stage, chat)).collect();
            assert!(has.iter().all(|copies| *copies <= 1), "nobody has it twice: {has:?}");
            let arrived = i64::try_from(has.iter().sum::<usize>()).unwrap_or(i64::MAX);
            assert!(
                of("sent") <= arrived && arrived <= of("sent") + of("unknown"),
                "{arrived} arrived, and the campaign says {states:?}"
            );
            assert_eq!((copies(stage, BLOCKED), copies(stage, GONE)), (0, 0));
            assert!(copies(stage, OWNER) >= 2, "the owner had both tests");
            if !stage.was_disturbed() {
                let told = ["sent", "unknown", "blocked", "gone", "failed"].map(of);
                assert_eq!(told, [7, 1, 1, 1, 0], "sent, unknown, blocked, gone, failed of {states:?}");
            }
        })
    }
}
