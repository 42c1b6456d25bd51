//! Schedules: a tick is one job, whoever looks and however late.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use semel_kernel::clock::{Chance, Time};
use semel_kernel::cron::{self, CatchUp, Schedule, WAKE};
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::leases;
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{Store, StoreError, Tx};
use semel_kernel::testing::{TestStore, eventually};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

const ROOMS: &[Room] = &[KERNEL];
const HOUR: Duration = Duration::from_secs(3600);
/// Time starts at nine o'clock; the first tick of these is at ten.
const SKIP: &[Schedule] = &[Schedule { name: "hourly", expression: "0 * * * *", catch_up: CatchUp::Skip }];
const ONCE: &[Schedule] = &[Schedule { name: "hourly", expression: "0 * * * *", catch_up: CatchUp::Once }];
const ALL: &[Schedule] = &[Schedule { name: "hourly", expression: "0 * * * *", catch_up: CatchUp::All }];

/// What a tick sets in motion. Nothing runs it here.
#[derive(Serialize, Deserialize)]
struct Tick {
    name: String,
    at: Time,
}

impl Job for Tick {
    type Context = ();
    const KIND: &'static str = "test.tick";
    const LANE: &'static str = "ticks";
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(60), 3);

    fn slot(&self) -> Option<String> {
        Some(format!("{} {}", self.name, self.at))
    }

    async fn run(self, _: &(), _: Claim) -> Result<Ended, JobError> {
        Err(JobError::Retry("nobody runs it".into()))
    }
}

fn enqueue(
    chance: &Chance,
) -> impl Fn(&mut Tx, &'static str, Time) -> Result<(), StoreError> + Clone + Send + 'static + use<> {
    let chance = chance.clone();
    move |tx: &mut Tx, name: &'static str, at: Time| {
        let now = tx.now();
        jobs::enqueue(tx, &Tick { name: name.to_owned(), at }, now, &chance).map(|_| ())
    }
}

async fn registers(t: &TestStore, schedules: &'static [Schedule]) {
    t.store.write("register", move |tx| cron::register(tx, schedules)).await.unwrap();
}

/// Writes what is due and answers how many jobs that made.
async fn looks(t: &TestStore, store: &Store, schedules: &'static [Schedule]) -> usize {
    let enqueue = enqueue(&t.chance);
    store.write("due", move |tx| cron::due(tx, schedules, &enqueue)).await.unwrap()
}

async fn next(t: &TestStore, schedules: &'static [Schedule]) -> Option<String> {
    let next = t.store.read("next", move |tx| cron::next_at(tx, schedules)).await.unwrap();
    next.map(|at| at.to_string())
}

/// The ticks that have a job, in order.
async fn ticks(t: &TestStore) -> Vec<String> {
    t.texts("select slot from jobs order by slot").await
}

semel_kernel::each_store! { ROOMS;
    async fn a_tick_is_written_in_its_time_and_once(t: TestStore) {
        registers(&t, SKIP).await;
        assert_eq!(next(&t, SKIP).await.as_deref(), Some("2026-03-01T10:00:00.000Z"));
        t.advance(HOUR - Duration::from_millis(1)).await;
        assert_eq!(looks(&t, &t.store, SKIP).await, 0);
        t.advance(Duration::from_millis(1)).await;
        assert_eq!(looks(&t, &t.store, SKIP).await, 1);
        assert_eq!(looks(&t, &t.store, SKIP).await, 0);
        assert_eq!(ticks(&t).await, ["hourly 2026-03-01T10:00:00.000Z"]);
        assert_eq!(next(&t, SKIP).await.as_deref(), Some("2026-03-01T11:00:00.000Z"));
    }

    async fn missed_ticks_are_dropped_where_the_policy_says_skip(t: TestStore) {
        registers(&t, SKIP).await;
        // From nine to half past one: ten, eleven, twelve and one o'clock were missed.
        t.advance(HOUR * 4 + HOUR / 2).await;
        assert_eq!(looks(&t, &t.store, SKIP).await, 0);
        assert_eq!(next(&t, SKIP).await.as_deref(), Some("2026-03-01T14:00:00.000Z"));
        // A little late is not missed.
        t.advance(HOUR / 2 + Duration::from_secs(59)).await;
        assert_eq!(looks(&t, &t.store, SKIP).await, 1);
        assert_eq!(ticks(&t).await, ["hourly 2026-03-01T14:00:00.000Z"]);
    }

    async fn missed_ticks_make_one_job_where_the_policy_says_once(t: TestStore) {
        registers(&t, ONCE).await;
        t.advance(HOUR * 4 + HOUR / 2).await;
        assert_eq!(looks(&t, &t.store, ONCE).await, 1);
        assert_eq!(ticks(&t).await, ["hourly 2026-03-01T13:00:00.000Z"]);
        assert_eq!(next(&t, ONCE).await.as_deref(), Some("2026-03-01T14:00:00.000Z"));
    }

    async fn missed_ticks_make_a_job_each_where_the_policy_says_all(t: TestStore) {
        registers(&t, ALL).await;
        t.advance(HOUR * 4 + HOUR / 2).await;
        assert_eq!(looks(&t, &t.store, ALL).await, 4);
        let told = ticks(&t).await;
        assert_eq!(told.first().unwrap(), "hourly 2026-03-01T10:00:00.000Z");
        assert_eq!(told.last().unwrap(), "hourly 2026-03-01T13:00:00.000Z");
        assert_eq!(next(&t, ALL).await.as_deref(), Some("2026-03-01T14:00:00.000Z"));
    }

    /// A transaction stays short however long the program was away.
    async fn a_long_absence_is_made_up_a_thousand_ticks_at_a_time(t: TestStore) {
        registers(&t, ALL).await;
        t.advance(HOUR * 1500).await;
        assert_eq!(looks(&t, &t.store, ALL).await, 1000);
        assert_eq!(looks(&t, &t.store, ALL).await, 500);
        assert_eq!(looks(&t, &t.store, ALL).await, 0);
        assert_eq!(t.number("select count(*) from jobs").await, 1500);
    }

    async fn two_schedulers_make_one_job_of_one_tick(t: TestStore) {
        let rival = t.rival();
        registers(&t, ALL).await;
        for _ in 0..10 {
            t.advance(HOUR).await;
            let (one, other) = tokio::join!(looks(&t, &t.store, ALL), looks(&t, &rival, ALL));
            assert_eq!(one + other, 1);
        }
        assert_eq!(t.number("select count(*) from jobs").await, 10);
    }

    async fn a_new_start_keeps_the_next_tick_and_a_new_expression_moves_it(t: TestStore) {
        const MOVED: &[Schedule] = &[Schedule { name: "hourly", expression: "30 * * * *", catch_up: CatchUp::All }];
        registers(&t, SKIP).await;
        t.advance(HOUR * 2).await;
        registers(&t, ONCE).await;
        assert_eq!(next(&t, ONCE).await.as_deref(), Some("2026-03-01T10:00:00.000Z"), "a missed tick was forgotten");
        registers(&t, MOVED).await;
        assert_eq!(next(&t, MOVED).await.as_deref(), Some("2026-03-01T11:30:00.000Z"));
        assert_eq!(t.texts("select catch_up from cron").await, ["all"]);
    }

    async fn schedules_of_another_version_are_left_alone(t: TestStore) {
        const OTHER: &[Schedule] = &[Schedule { name: "daily", expression: "0 4 * * *", catch_up: CatchUp::Once }];
        registers(&t, ALL).await;
        registers(&t, OTHER).await;
        t.advance(HOUR * 2).await;
        assert_eq!(looks(&t, &t.store, OTHER).await, 0);
        assert_eq!(next(&t, OTHER).await.as_deref(), Some("2026-03-02T04:00:00.000Z"));
        assert_eq!(looks(&t, &t.store, ALL).await, 2);
    }

    async fn a_wrong_expression_is_named(t: TestStore) {
        const WRONG: &[Schedule] = &[Schedule { name: "wrong", expression: "sometimes", catch_up: CatchUp::Skip }];
        let told = t.store.write("register", |tx| cron::register(tx, WRONG)).await;
        let Err(StoreError::Schema(sentence)) = told else { panic!("{told:?}") };
        assert!(sentence.starts_with("the schedule wrong (sometimes) cannot be read"), "{sentence}");
        assert_eq!(next(&t, WRONG).await, None);
    }

    async fn a_tick_whose_job_cannot_be_written_stays_due(t: TestStore) {
        registers(&t, ALL).await;
        t.advance(HOUR).await;
        let told = t.store.write("due", |tx| cron::due(tx, ALL, |_, _, _| Err(StoreError::Closed))).await;
        assert_eq!(told, Err(StoreError::Closed));
        assert_eq!(looks(&t, &t.store, ALL).await, 1);
    }

    async fn a_serving_scheduler_writes_ticks_and_gives_its_lease_back(t: TestStore) {
        let stop = CancellationToken::new();
        let serving = cron::serve(t.store.clone(), "one".into(), ONCE, enqueue(&t.chance), stop.clone());
        let serving = tokio::spawn(serving);
        eventually("it is registered", async || next(&t, ONCE).await.is_some()).await;
        for hours in 1..=3 {
            t.advance(HOUR).await;
            t.store.waker(WAKE).notify_one();
            eventually("the tick has its job", async || {
                t.number("select count(*) from jobs").await == hours
            })
            .await;
        }
        let holder = t.store.read("holder", |tx| leases::holder(tx, cron::LEASE)).await.unwrap();
        assert_eq!(holder.map(|(owner, _)| owner).as_deref(), Some("one"));
        stop.cancel();
        assert_eq!(serving.await.unwrap(), Ok(()));
        assert_eq!(t.store.read("holder", |tx| leases::holder(tx, cron::LEASE)).await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_a_dead_scheduler() {
    let t = TestStore::postgres(ROOMS).await;
    let second = t.second_copy();
    let first =
        tokio::spawn(cron::serve(t.store.clone(), "first".into(), ALL, enqueue(&t.chance), CancellationToken::new()));
    let held_by = async || {
        let holder = t.store.read("holder", |tx| leases::holder(tx, cron::LEASE)).await.unwrap();
        holder.map(|(owner, _)| owner)
    };
    eventually("the first one holds the lease", async || held_by().await.as_deref() == Some("first")).await;
    first.abort();
    assert!(first.await.is_err());

    let stop = CancellationToken::new();
    let standby = cron::serve(second.clone(), "second".into(), ALL, enqueue(&t.chance), stop.clone());
    let standby = tokio::spawn(standby);
    t.advance(HOUR).await;
    second.waker(WAKE).notify_one();
    eventually("the tick has its job", async || t.number("select count(*) from jobs").await == 1).await;
    assert_eq!(held_by().await.as_deref(), Some("second"));
    stop.cancel();
    assert_eq!(standby.await.unwrap(), Ok(()));
}

/// On SQLite no other copy can live, so a new start does not wait for a lease that a crash left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_start_on_sqlite_does_not_wait_for_the_dead() {
    let t = TestStore::sqlite(ROOMS).await;
    let left = t.store.write("left", |tx| leases::take(tx, cron::LEASE, "dead", HOUR * 48)).await.unwrap();
    assert_eq!(left.unwrap().fence, 1);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(cron::serve(t.store.clone(), "new".into(), ALL, enqueue(&t.chance), stop.clone()));
    eventually("the new one holds the lease", async || {
        let holder = t.store.read("holder", |tx| leases::holder(tx, cron::LEASE)).await.unwrap();
        holder == Some(("new".to_owned(), 2))
    })
    .await;
    stop.cancel();
    assert_eq!(serving.await.unwrap(), Ok(()));
}
