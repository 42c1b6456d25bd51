//! The inbox: every notice is one durable row, and each one makes us look sooner.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use semel_kernel::inbox::{self, InboxId, Intake, IntakeOptions, Notice, Receipt, Stored};
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::Store;
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::testing::TestStore;
use serde::{Deserialize, Serialize};

const ROOMS: &[Room] = &[KERNEL];
const LANE: &str = "money";
const HOUR: Duration = Duration::from_secs(3600);

/// The job that looks after a payment. Nothing runs it here.
#[derive(Serialize, Deserialize)]
struct Confirm {
    payment: String,
}

impl Job for Confirm {
    type Context = ();
    const KIND: &'static str = "test.confirm";
    const LANE: &'static str = LANE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(60), 3);

    fn slot(&self) -> Option<String> {
        Some(self.payment.clone())
    }

    async fn run(self, _: &(), _: Claim) -> Result<Ended, JobError> {
        Err(JobError::Retry("nobody runs it".into()))
    }
}

fn intake(t: &TestStore, store: &Store) -> Intake {
    let options = IntakeOptions { pull_kind: Confirm::KIND, resolve_kind: "test.resolve", lane: LANE, attempts: 7 };
    Intake::start(store.clone(), t.chance.clone(), options)
}

/// What the provider sends about the payment `pay_1`.
fn notice(event_id: &str, body: &str) -> Notice {
    Notice {
        source: "yookassa".into(),
        account: "shop 1".into(),
        event_id: event_id.into(),
        event: "payment.succeeded".into(),
        subject: Some("pay_1".into()),
        says: "succeeded 499.00 RUB".into(),
        body: body.into(),
        headers: "{}".into(),
        peer: Some("192.0.2.7".into()),
        verified: true,
    }
}

/// A payment whose job looks again in an hour.
async fn payment(t: &TestStore) {
    let chance = t.chance.clone();
    let planned = t.store.write("plan", move |tx| {
        let at = tx.now() + HOUR;
        jobs::enqueue(tx, &Confirm { payment: "pay_1".into() }, at, &chance)
    });
    planned.await.unwrap();
}

/// How long until the payment's job is due.
async fn waits_ms(t: &TestStore) -> i64 {
    t.number("select run_at - semel_now() from jobs where kind = 'test.confirm'").await
}

/// All notices, the oldest first.
async fn all(t: &TestStore) -> Vec<Stored> {
    let mut rows = t.store.read("list", |tx| inbox::list(tx, None, None, 2000)).await.unwrap();
    rows.reverse();
    rows
}

async fn end(t: &TestStore, id: &InboxId, state: &'static str) {
    let id = id.clone();
    t.store.write("end", move |tx| inbox::end(tx, &id, state, Some("a test said so"))).await.unwrap();
}

semel_kernel::each_store! { ROOMS;
    async fn a_notice_is_kept_as_it_came(t: TestStore) {
        let sent = notice("evt-1", "{\"a\": 1} \u{0}\n");
        assert_eq!(intake(&t, &t.store).accept(sent.clone()).await, Ok(Receipt::New));
        let rows = all(&t).await;
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.source.as_str(), row.account.as_str(), row.event_id.as_str()), ("yookassa", "shop 1", "evt-1"));
        assert_eq!((row.event.as_str(), row.subject.as_deref()), ("payment.succeeded", Some("pay_1")));
        assert_eq!(row.body, sent.body);
        assert_eq!((row.state.as_str(), row.seen, row.received_at), ("received", 1, t.clock.now()));
        let id = row.id.clone();
        let found = t.store.read("find", move |tx| inbox::find(tx, &id)).await.unwrap().unwrap();
        assert_eq!(found.body, sent.body);
    }

    async fn a_thousand_repeats_are_one_row_and_pull_the_job_each_time(t: TestStore) {
        payment(&t).await;
        let intake = intake(&t, &t.store);
        assert_eq!(intake.accept(notice("evt-1", "paid")).await, Ok(Receipt::New));
        assert_eq!(waits_ms(&t).await, 0);
        for _ in 0..1000 {
            assert_eq!(intake.accept(notice("evt-1", "paid")).await, Ok(Receipt::Repeat));
        }
        assert_eq!(t.number("select count(*) from inbox").await, 1);
        assert_eq!(t.number("select seen from inbox").await, 1001);
        assert_eq!(t.number("select count(*) from jobs").await, 1, "a pulled job needs no resolving one");

        t.store.write("later", |tx| tx.execute("update jobs set run_at = run_at + 5000", &[])).await.unwrap();
        assert_eq!(waits_ms(&t).await, 5000);
        assert_eq!(intake.accept(notice("evt-1", "paid")).await, Ok(Receipt::Repeat));
        assert_eq!(waits_ms(&t).await, 0, "a repeat pulled nothing");
    }

    async fn fifty_at_once_from_two_copies_are_one_row(t: TestStore) {
        payment(&t).await;
        let doors = [intake(&t, &t.store), intake(&t, &t.rival())];
        let callers: Vec<_> = (0..50)
            .map(|n| {
                let door = doors[n % 2].clone();
                tokio::spawn(async move { door.accept(notice("evt-1", "paid")).await })
            })
            .collect();
        let mut fresh = 0;
        for caller in callers {
            match caller.await.unwrap() {
                Ok(Receipt::New) => fresh += 1,
                Ok(Receipt::Repeat) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(fresh, 1);
        assert_eq!(t.number("select count(*) from inbox").await, 1);
        assert_eq!(waits_ms(&t).await, 0);
        assert_eq!(t.number("select count(*) from jobs").await, 1);
    }

    async fn many_events_at_once_from_two_copies_are_each_one_row(t: TestStore) {
        let doors = [intake(&t, &t.store), intake(&t, &t.rival())];
        // Both copies get all events, in opposite orders.
        let callers: Vec<_> = (0..80)
            .map(|n| {
                let (copy, event) = (n % 2, if n % 2 == 0 { n / 2 } else { 39 - n / 2 });
                let door = doors[copy].clone();
                tokio::spawn(async move { door.accept(notice(&format!("evt-{event}"), "paid")).await })
            })
            .collect();
        let mut fresh = 0;
        for caller in callers {
            match caller.await.unwrap() {
                Ok(Receipt::New) => fresh += 1,
                Ok(Receipt::Repeat) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(fresh, 40);
        assert_eq!(t.number("select count(*) from inbox").await, 40);
        // One for the first of each event, and at most one a minute for its repeats.
        let jobs = t.number("select count(*) from jobs where kind = 'test.resolve'").await;
        assert!((40..=80).contains(&jobs), "{jobs} resolving jobs");
    }

    async fn the_same_event_with_another_body_is_kept_beside_the_first(t: TestStore) {
        let intake = intake(&t, &t.store);
        assert_eq!(intake.accept(notice("evt-1", "paid 499")).await, Ok(Receipt::New));
        t.advance(Duration::from_millis(5)).await;
        assert_eq!(intake.accept(notice("evt-1", "paid 1")).await, Ok(Receipt::Differs));
        assert_eq!(intake.accept(notice("evt-1", "paid 1")).await, Ok(Receipt::Repeat));
        assert_eq!(intake.accept(notice("evt-1", "paid 499")).await, Ok(Receipt::Repeat));
        let rows = all(&t).await;
        let told: Vec<_> = rows.iter().map(|row| (row.body.as_slice(), row.state.as_str(), row.seen)).collect();
        assert_eq!(told, [(&b"paid 499"[..], "received", 2), (&b"paid 1"[..], "ignored", 2)]);
        assert_eq!(rows[1].reason.as_deref(), Some("the same event came before with another body"));
        assert_eq!(rows[1].terminal_at, Some(t.clock.now()));
        let id = rows[1].id.clone();
        let reopened = t.store.write("reopen", move |tx| inbox::reopen(tx, &id)).await;
        assert_eq!(reopened, Ok(false), "two rows of one event were live");
    }

    /// An early lie that was found out must not use up the true notice with the same id.
    async fn a_quarantined_notice_stands_in_nobody_s_way(t: TestStore) {
        let intake = intake(&t, &t.store);
        assert_eq!(intake.accept(notice("evt-1", "a lie")).await, Ok(Receipt::New));
        end(&t, &all(&t).await[0].id, "quarantined").await;
        t.advance(Duration::from_millis(5)).await;
        assert_eq!(intake.accept(notice("evt-1", "the truth")).await, Ok(Receipt::New));
        let states: Vec<_> = all(&t).await.into_iter().map(|row| row.state).collect();
        assert_eq!(states, ["quarantined", "received"]);
    }

    async fn accounts_and_sources_do_not_meet(t: TestStore) {
        let intake = intake(&t, &t.store);
        let other_account = Notice { account: "shop 2".into(), ..notice("evt-1", "paid") };
        let other_source = Notice { source: "heleket".into(), ..notice("evt-1", "paid") };
        for sent in [notice("evt-1", "paid"), other_account, other_source] {
            assert_eq!(intake.accept(sent).await, Ok(Receipt::New));
        }
        assert_eq!(t.number("select count(*) from inbox").await, 3);
    }

    async fn a_notice_that_pulls_nothing_gets_a_resolving_job_and_its_repeats_one_a_minute(t: TestStore) {
        let intake = intake(&t, &t.store);
        let unknown = Notice { subject: None, ..notice("evt-1", "paid") };
        for _ in 0..3 {
            intake.accept(unknown.clone()).await.unwrap();
        }
        let id = all(&t).await[0].id.clone();
        let of = "select kind, slot, lane, payload, max_attempts, run_at - semel_now() from jobs order by length(slot), slot";
        let rows = t.rows(of).await;
        assert_eq!(rows.len(), 2, "the first and its repeats");
        let text = |column| rows[0].get::<String>(column).unwrap();
        assert_eq!((text(0), text(1), text(2)), ("test.resolve".into(), id.to_string(), LANE.into()));
        assert_eq!(text(3), format!("{{\"notice\":\"{id}\"}}"));
        assert_eq!((rows[0].get(4), rows[0].get(5)), (Ok(7_i64), Ok(0_i64)));
        let again = rows[1].get::<String>(3).unwrap();
        assert_eq!(again, format!("{{\"notice\":\"{id}\",\"again\":{}}}", t.clock.now().millis()));
        t.advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            intake.accept(unknown.clone()).await.unwrap();
        }
        assert_eq!(t.rows(of).await.len(), 3, "a repeat a minute later looks again, once");
    }

    /// A lie and the truth may be the same bytes within one minute, and what was asked in between says nothing about the truth.
    async fn a_repeat_that_comes_after_its_resolving_job_looked_makes_it_look_once_more(t: TestStore) {
        const STANDS: &str = "select state || ' ' || attempts || ' ' || (run_at - semel_now()) || case when ended_at is null then '' else ' ended' end
            || case when pulled then ' pulled' else '' end from jobs where slot like '%:%'";
        let intake = intake(&t, &t.store);
        let unknown = Notice { subject: None, ..notice("evt-1", "paid") };
        let comes = async || assert!(matches!(intake.accept(unknown.clone()).await, Ok(Receipt::New | Receipt::Repeat)));
        let becomes = async |change: &'static str| {
            assert_eq!(t.store.write("becomes", move |tx| tx.execute(change, &[])).await, Ok(1));
        };
        comes().await;
        comes().await;
        assert_eq!(t.texts(STANDS).await, ["ready 0 0"]);

        becomes("update jobs set state = 'running', attempts = 2, lease_until = semel_now() + 60000 where slot like '%:%'").await;
        comes().await;
        comes().await;
        assert_eq!(t.texts(STANDS).await, ["running 2 0 pulled"], "it may have asked already");

        becomes("update jobs set state = 'done', pulled = false, ended_at = semel_now() where slot like '%:%'").await;
        comes().await;
        comes().await;
        assert_eq!(t.texts(STANDS).await, ["ready 0 1000"], "once more, and at most once a second");

        for end in [
            "update jobs set state = 'done', attempts = 1, ended_at = semel_now() where slot like '%:%'",
            "update jobs set state = 'dead', attempts = 7, ended_at = semel_now() where slot like '%:%'",
        ] {
            becomes(end).await;
            t.advance(Duration::from_secs(5)).await;
            comes().await;
            assert_eq!(t.texts(STANDS).await, ["ready 0 0"]);
        }
        becomes("update jobs set state = 'cancelled', ended_at = semel_now() where slot like '%:%'").await;
        comes().await;
        assert_eq!(t.texts(STANDS).await, ["cancelled 0 0 ended"], "a hand has called it off");
    }

    async fn a_notice_about_an_ended_payment_gets_a_resolving_job(t: TestStore) {
        payment(&t).await;
        t.store.write("over", |tx| tx.execute("update jobs set state = 'done'", &[])).await.unwrap();
        assert_eq!(intake(&t, &t.store).accept(notice("evt-1", "paid")).await, Ok(Receipt::New));
        assert_eq!(t.number("select count(*) from jobs where kind = 'test.resolve'").await, 1);
        assert_eq!(waits_ms(&t).await, HOUR.as_millis() as i64, "an ended job was pulled");
    }

    async fn a_notice_pulls_the_job_that_runs_right_now(t: TestStore) {
        payment(&t).await;
        t.store.write("runs", |tx| tx.execute("update jobs set state = 'running'", &[])).await.unwrap();
        assert_eq!(intake(&t, &t.store).accept(notice("evt-1", "paid")).await, Ok(Receipt::New));
        assert_eq!(t.number("select count(*) from jobs where pulled and kind = 'test.confirm'").await, 1);
        assert_eq!(t.number("select count(*) from jobs").await, 1);
    }

    async fn an_answer_ends_only_the_notices_that_came_before_the_question(t: TestStore) {
        let intake = intake(&t, &t.store);
        intake.accept(notice("before", "paid")).await.unwrap();
        intake.accept(Notice { subject: Some("pay_2".into()), ..notice("other", "paid") }).await.unwrap();
        intake.accept(Notice { verified: false, ..notice("unproved", "paid") }).await.unwrap();
        t.advance(Duration::from_secs(1)).await;
        let asked_at = t.clock.now();
        t.advance(Duration::from_secs(1)).await;
        intake.accept(notice("after", "refunded")).await.unwrap();
        t.advance(Duration::from_secs(1)).await;
        t.store.write("apply", move |tx| inbox::apply(tx, "pay_1", asked_at)).await.unwrap();

        let state = |rows: &[Stored], event: &str| {
            let row = rows.iter().find(|row| row.event_id == event).unwrap();
            (row.state.clone(), row.terminal_at)
        };
        let rows = all(&t).await;
        assert_eq!(state(&rows, "before"), ("applied".into(), Some(t.clock.now())));
        for event in ["other", "unproved", "after"] {
            assert_eq!(state(&rows, event), ("received".into(), None), "{event}");
        }
    }

    async fn a_notice_without_a_subject_is_named_and_then_applied(t: TestStore) {
        intake(&t, &t.store).accept(Notice { subject: None, ..notice("evt-1", "paid") }).await.unwrap();
        let (id, now) = (all(&t).await[0].id.clone(), t.clock.now());
        t.store
            .write("name", move |tx| {
                inbox::name_subject(tx, &id, "pay_9")?;
                inbox::apply(tx, "pay_9", now)
            })
            .await
            .unwrap();
        assert_eq!(t.texts("select state || ' ' || subject from inbox").await, ["applied pay_9"]);
    }

    async fn an_ended_notice_can_be_looked_at_again(t: TestStore) {
        intake(&t, &t.store).accept(notice("evt-1", "paid")).await.unwrap();
        let id = all(&t).await[0].id.clone();
        let reopen = || {
            let id = id.clone();
            t.store.write("reopen", move |tx| inbox::reopen(tx, &id))
        };
        assert_eq!(reopen().await, Ok(false), "it waits already");
        end(&t, &id, "ignored").await;
        end(&t, &id, "applied").await;
        let row = &all(&t).await[0];
        assert_eq!((row.state.as_str(), row.reason.as_deref()), ("ignored", Some("a test said so")), "it ended twice");
        assert_eq!(reopen().await, Ok(true));
        let row = &all(&t).await[0];
        assert_eq!((row.state.as_str(), row.reason.as_deref(), row.terminal_at), ("received", None, None));
    }
}
