//! The queue: each job runs until it ended once, through crashes, slow workers, repeats and mistakes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use semel_kernel::args;
use semel_kernel::jobs::{
    self, Claim, Ended, Job, JobError, JobId, JobView, Manner, Outcome, Retry, Workers, WorkersOptions,
};
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{Engine, Store, StoreError};
use semel_kernel::testing::{TestStore, eventually};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const ROOMS: &[Room] = &[KERNEL];
const LANE: &str = "errands";
const LEASE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What an errand does when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Doing {
    /// Finishes.
    Finish,
    /// Waits until the test opens the gate, then finishes.
    Wait,
    /// Fails.
    Fail,
    /// Makes a mistake.
    Panic,
    /// Is told to come back in ten minutes.
    ComeBack,
    /// Says that nothing can help.
    GiveUp,
    /// Stays alive for another day.
    Again,
    /// Stays alive for another day, the first time with a hint that comes while it runs.
    AgainPulled,
    /// Lets others go first.
    MakeWay,
}

#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    name: String,
    doing: Doing,
}

/// What errands run with.
#[derive(Clone)]
struct Desk {
    store: Store,
    /// Who ran, in order, and what became of the gated ones.
    log: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

impl Desk {
    fn new(store: &Store) -> Self {
        Self { store: store.clone(), log: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    fn note(&self, text: impl Into<String>) {
        self.log.lock().unwrap().push(text.into());
    }

    fn told(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn ran(&self, name: &str) -> usize {
        self.told().iter().filter(|told| *told == name).count()
    }
}

impl Job for Errand {
    type Context = Desk;
    const KIND: &'static str = "test.errand";
    const LANE: &'static str = LANE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(60), 3);
    const MANNER: Option<Manner> = Some(Manner::Asked);

    fn slot(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn thread(&self) -> Option<String> {
        Some(format!("story of {}", self.name))
    }

    async fn run(self, cx: &Desk, claim: Claim) -> Result<Ended, JobError> {
        cx.note(self.name.clone());
        match self.doing {
            Doing::Fail => return Err(JobError::Retry("the shop was closed".into())),
            Doing::Panic => panic!("a mistake in an errand"),
            Doing::ComeBack => {
                let at = cx.store.now() + Duration::from_secs(600);
                return Err(JobError::Later { at, text: "come back in ten minutes".into() });
            }
            Doing::MakeWay => {
                let at = cx.store.now() + DAY;
                return Err(JobError::NotItsTurn { at, text: "others go first".into() });
            }
            Doing::GiveUp => {
                return Err(JobError::DeadLetter { text: "there is no such shop".into(), outcome: Outcome::Failed });
            }
            Doing::Wait => cx.gate.acquire().await.unwrap().forget(),
            Doing::AgainPulled if cx.ran(&self.name) == 1 => {
                let name = self.name.clone();
                let pulled = cx.store.write("pull", move |tx| jobs::pull(tx, Self::KIND, LANE, &name)).await?;
                assert!(pulled, "a running job can be pulled");
            }
            Doing::Finish | Doing::Again | Doing::AgainPulled => {}
        }
        let lives = matches!(self.doing, Doing::Again | Doing::AgainPulled);
        let tomorrow = cx.store.now() + DAY;
        let ended =
            cx.store.write("errand", move |tx| if lives { claim.again(tx, tomorrow) } else { claim.finish(tx) }).await;
        if let Err(error) = &ended {
            cx.note(format!("{} could not end: {error}", self.name));
        }
        Ok(ended?)
    }
}

/// Another kind in the same lane.
#[derive(Serialize, Deserialize)]
struct Stroll;

impl Job for Stroll {
    type Context = Desk;
    const KIND: &'static str = "test.stroll";
    const LANE: &'static str = LANE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(60), 3);

    fn slot(&self) -> Option<String> {
        None
    }

    async fn run(self, cx: &Desk, claim: Claim) -> Result<Ended, JobError> {
        Ok(cx.store.write("stroll", move |tx| claim.finish(tx)).await?)
    }
}

fn workers(t: &TestStore, store: &Store, owner: &str) -> Workers<Desk> {
    workers_for(t, store, owner, LEASE)
}

fn workers_for(t: &TestStore, store: &Store, owner: &str, lease: Duration) -> Workers<Desk> {
    let options = WorkersOptions { lease, ..WorkersOptions::new(owner.into()) };
    let workers = Workers::new(store.clone(), t.chance.clone(), options).with::<Errand>();
    workers.on_dead(|tx, dead| {
        let value = format!("{}: {}", dead.thread.clone().unwrap_or_default(), dead.error);
        let noted = tx.execute("insert into marks (name, value) values ($1, $2)", args![&dead.job, value])?;
        assert_eq!(noted, 1);
        Ok(())
    })
}

async fn order(t: &TestStore, name: &str, doing: Doing) -> JobId {
    order_in(t, name, doing, Duration::ZERO).await
}

async fn order_in(t: &TestStore, name: &str, doing: Doing, wait: Duration) -> JobId {
    let (errand, chance) = (Errand { name: name.into(), doing }, t.chance.clone());
    let ordered = t.store.write("order", move |tx| {
        let at = tx.now() + wait;
        jobs::enqueue(tx, &errand, at, &chance)
    });
    ordered.await.unwrap()
}

async fn view(t: &TestStore, id: &JobId) -> (JobView, String) {
    let id = id.clone();
    t.store.read("why", move |tx| jobs::why(tx, &id)).await.unwrap().unwrap()
}

async fn state(t: &TestStore, id: &JobId) -> (String, i64) {
    let (job, _) = view(t, id).await;
    (job.state, job.attempts)
}

async fn retry(t: &TestStore, id: &JobId) -> bool {
    let id = id.clone();
    t.store.write("retry", move |tx| jobs::retry(tx, &id, &[LANE], "the owner")).await.unwrap()
}

/// A worker that claims `name` and never comes back from it: its process is gone, its claim stands.
async fn claim_and_die(t: &TestStore, store: &Store, owner: &str, name: &str) {
    let (workers, desk) = (workers(t, store, owner), Desk::new(store));
    let seen = desk.clone();
    let run = tokio::spawn(async move { workers.run_due(&desk).await });
    eventually("the worker has claimed it", async || seen.ran(name) == 1).await;
    run.abort();
}

semel_kernel::each_store! { ROOMS;
    async fn a_job_runs_and_its_end_is_told(t: TestStore) {
        let desk = Desk::new(&t.store);
        let id = order(&t, "bread", Doing::Finish).await;
        assert_eq!(workers(&t, &t.store, "one").run_due(&desk).await, Ok(1));
        assert_eq!(desk.told(), ["bread"]);
        let (job, why) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.outcome.as_deref()), ("done", Some("confirmed")));
        assert_eq!(why, "It ended at 2026-03-01T09:00:00.000Z.");
        let told = t.texts("select actor || ' ' || event || ' ' || to_state || ' ' || thread from history").await;
        assert_eq!(told, ["one test.errand ok story of bread"]);
        assert_eq!(workers(&t, &t.store, "one").run_due(&desk).await, Ok(0));
    }

    async fn a_job_whose_cause_is_undone_was_never_there(t: TestStore) {
        let chance = t.chance.clone();
        let told = t.store.write("undone", move |tx| {
            let now = tx.now();
            jobs::enqueue(tx, &Errand { name: "bread".into(), doing: Doing::Finish }, now, &chance)?;
            Err::<(), StoreError>(StoreError::Closed)
        });
        assert_eq!(told.await, Err(StoreError::Closed));
        assert_eq!(workers(&t, &t.store, "one").run_due(&Desk::new(&t.store)).await, Ok(0));
    }

    async fn two_jobs_with_one_slot_are_one_job_for_ever(t: TestStore) {
        let desk = Desk::new(&t.store);
        order(&t, "bread", Doing::Finish).await;
        order(&t, "bread", Doing::Finish).await;
        assert_eq!(t.number("select count(*) from jobs").await, 1);
        assert_eq!(workers(&t, &t.store, "one").run_due(&desk).await, Ok(1));
        order(&t, "bread", Doing::Finish).await;
        assert_eq!(workers(&t, &t.store, "one").run_due(&desk).await, Ok(0));
        assert_eq!(desk.told(), ["bread"]);
    }

    async fn a_job_waits_for_its_time_and_a_pull_brings_it_forward(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        order_in(&t, "bread", Doing::Finish, DAY).await;
        let milk = order_in(&t, "milk", Doing::Finish, DAY).await;
        assert_eq!(workers.run_due(&desk).await, Ok(0));
        let (_, why) = view(&t, &milk).await;
        assert!(why.starts_with("It waits until 2026-03-02T09:00:00.000Z: it is scheduled for then"), "{why}");

        let pull = |name: &'static str| t.store.write("pull", move |tx| jobs::pull(tx, Errand::KIND, LANE, name));
        assert_eq!(pull("bread").await, Ok(true));
        assert_eq!(pull("nothing").await, Ok(false));
        assert_eq!(workers.run_due(&desk).await, Ok(1));
        assert_eq!(pull("bread").await, Ok(false), "an ended job was pulled");
        assert_eq!(desk.told(), ["bread"]);
        t.advance(DAY).await;
        assert_eq!(workers.run_due(&desk).await, Ok(1));
        assert_eq!(desk.told(), ["bread", "milk"]);
    }

    async fn two_copies_share_two_hundred_jobs_without_overlap(t: TestStore) {
        let rival = t.rival();
        let chance = t.chance.clone();
        let ordered = t.store.write("order", move |tx| {
            let now = tx.now();
            (0..200).try_for_each(|n| {
                jobs::enqueue(tx, &Errand { name: format!("errand {n:03}"), doing: Doing::Finish }, now, &chance).map(|_| ())
            })
        });
        ordered.await.unwrap();
        let desk = Desk::new(&t.store);
        let at_work: Vec<_> = [("one", &t.store), ("two", &rival), ("three", &t.store), ("four", &rival)]
            .map(|(owner, store)| {
                let (workers, desk) = (workers(&t, store, owner), Desk { store: store.clone(), ..desk.clone() });
                tokio::spawn(async move { workers.run_due(&desk).await })
            })
            .into();
        let mut ran = 0;
        for one in at_work {
            ran += one.await.unwrap().unwrap();
        }
        assert_eq!(ran, 200);
        let told = desk.told();
        assert_eq!(told.len(), 200, "a job ran twice");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 200);
        assert_eq!(t.number("select count(*) from jobs where state = 'done' and attempts = 1 and fence = 1").await, 200);
    }

    async fn a_slow_worker_under_an_old_fence_changes_nothing(t: TestStore) {
        let rival = t.rival();
        let id = order(&t, "bread", Doing::Wait).await;
        let slow = Desk::new(&t.store);
        let (workers_of_slow, desk) = (workers(&t, &t.store, "slow"), slow.clone());
        let slow_run = tokio::spawn(async move { workers_of_slow.run_due(&desk).await });
        eventually("the slow one has begun", async || slow.ran("bread") == 1).await;

        t.advance(LEASE + Duration::from_secs(1)).await;
        let (quick, quick_workers) = (Desk::new(&rival), workers(&t, &rival, "quick"));
        quick.gate.add_permits(1);
        assert_eq!(quick_workers.recover().await, Ok(1));
        assert_eq!(quick_workers.run_due(&quick).await, Ok(1));
        let ended = view(&t, &id).await.0;
        assert_eq!((ended.state.as_str(), ended.fence, ended.attempts), ("done", 2, 2));

        slow.gate.add_permits(1);
        assert_eq!(slow_run.await.unwrap(), Ok(1));
        let told = slow.told();
        assert!(told.len() == 2 && told[1].starts_with("bread could not end"), "the slow one ended it too: {told:?}");
        let after = view(&t, &id).await.0;
        assert_eq!((after.state, after.fence, after.attempts, after.error), ("done".into(), 2, 2, None));
        assert_eq!(t.number("select count(*) from history where to_state = 'ok'").await, 1);
        assert_eq!(t.number("select count(*) from history where to_state = 'retry'").await, 0);
    }

    /// The state says "running" for both: only the fence tells the old holder from the new one.
    async fn a_slow_worker_cannot_end_what_another_is_running(t: TestStore) {
        let rival = t.rival();
        let id = order(&t, "bread", Doing::Wait).await;
        let slow = Desk::new(&t.store);
        let (workers_of_slow, desk) = (workers(&t, &t.store, "slow"), slow.clone());
        let slow_run = tokio::spawn(async move { workers_of_slow.run_due(&desk).await });
        eventually("the slow one has begun", async || slow.ran("bread") == 1).await;

        t.advance(LEASE + Duration::from_secs(1)).await;
        let (next, next_workers) = (Desk::new(&rival), workers(&t, &rival, "next"));
        assert_eq!(next_workers.recover().await, Ok(1));
        let desk = next.clone();
        let next_run = tokio::spawn(async move { next_workers.run_due(&desk).await });
        eventually("the next one has begun", async || next.ran("bread") == 1).await;

        slow.gate.add_permits(1);
        assert_eq!(slow_run.await.unwrap(), Ok(1));
        let told = slow.told();
        assert!(told.len() == 2 && told[1].starts_with("bread could not end"), "the slow one ended it: {told:?}");
        let between = view(&t, &id).await.0;
        assert_eq!((between.state.as_str(), between.fence), ("running", 2));

        next.gate.add_permits(1);
        assert_eq!(next_run.await.unwrap(), Ok(1));
        let after = view(&t, &id).await.0;
        assert_eq!((after.state.as_str(), after.fence), ("done", 2));
        assert_eq!(t.number("select count(*) from history where to_state = 'ok'").await, 1);
    }

    /// The run under the newer fence is gone, and only the old one hangs: nobody works on the job.
    async fn an_old_run_that_hangs_does_not_renew_a_newer_claim(t: TestStore) {
        let lease = Duration::from_millis(600);
        let (desk, workers) = (Desk::new(&t.store), Arc::new(workers_for(&t, &t.store, "one", lease)));
        let run = || {
            let (workers, desk) = (Arc::clone(&workers), desk.clone());
            tokio::spawn(async move { workers.run_due(&desk).await })
        };
        let bread = order(&t, "bread", Doing::Wait).await;
        let old = run();
        eventually("the old run has begun", async || desk.ran("bread") == 1).await;
        t.advance(lease + Duration::from_millis(1)).await;
        assert_eq!(workers.recover().await, Ok(1));
        let newer = run();
        eventually("the newer run has begun", async || desk.ran("bread") == 2).await;
        newer.abort();
        assert!(newer.await.unwrap_err().is_cancelled());
        order(&t, "milk", Doing::Wait).await;
        let another = run();
        eventually("it works on something else, too", async || desk.ran("milk") == 1).await;

        t.advance(Duration::from_millis(100)).await;
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(Arc::clone(&workers).keep(stop.clone()));
        eventually("what it works on is renewed", async || {
            t.number("select lease_until - semel_now() from jobs where slot = 'milk'").await == 600
        })
        .await;
        assert_eq!(t.number("select lease_until - semel_now() from jobs where slot = 'bread'").await, 500);
        stop.cancel();
        assert_eq!(keeping.await.unwrap(), Ok(()));

        t.advance(Duration::from_millis(501)).await;
        assert_eq!(workers.recover().await, Ok(1), "the claim of nobody runs out");
        let freed = view(&t, &bread).await.0;
        assert_eq!((freed.state.as_str(), freed.fence), ("ready", 2));
        old.abort();
        another.abort();
    }

    async fn a_lost_worker_s_job_comes_back(t: TestStore) {
        let rival = t.rival();
        let id = order(&t, "bread", Doing::Wait).await;
        claim_and_die(&t, &t.store, "dead", "bread").await;
        assert_eq!(state(&t, &id).await, ("running".into(), 1), "the attempt counts at the claim");
        let (next, desk) = (workers(&t, &rival, "next"), Desk::new(&rival));
        desk.gate.add_permits(1);
        if t.engine() == Engine::Postgres {
            assert_eq!(next.recover().await, Ok(0), "a claim that still holds was taken");
            assert_eq!(next.run_due(&desk).await, Ok(0));
            t.advance(LEASE + Duration::from_millis(1)).await;
        }
        // On SQLite a new program knows at once that nobody else can hold a job of this file.
        assert_eq!(next.recover().await, Ok(1));
        assert_eq!(next.run_due(&desk).await, Ok(1));
        assert_eq!(state(&t, &id).await, ("done".into(), 2));
        assert_eq!(t.texts("select to_state from history order by seq").await, ["lost", "ok"]);
    }

    async fn a_job_that_kills_its_worker_each_time_ends_as_a_dead_letter(t: TestStore) {
        let id = order(&t, "poison", Doing::Wait).await;
        for owner in ["first", "second", "third"] {
            claim_and_die(&t, &t.store, owner, "poison").await;
            t.advance(LEASE + Duration::from_millis(1)).await;
            assert_eq!(workers(&t, &t.store, "next").recover().await, Ok(1));
        }
        let (job, why) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.attempts, job.outcome.as_deref()), ("dead", 3, Some("unknown")));
        assert!(why.contains("dead letter after 3 attempts") && why.contains("the worker was lost"), "{why}");
        assert_eq!(t.texts("select value from marks").await, ["story of poison: the worker was lost"]);
        let desk = Desk::new(&t.store);
        order(&t, "bread", Doing::Finish).await;
        assert_eq!(workers(&t, &t.store, "next").run_due(&desk).await, Ok(1));
        assert_eq!(desk.told(), ["bread"], "the queue goes on without it");
    }

    async fn a_job_that_fails_for_good_is_kept_told_and_can_be_retried(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        let id = order(&t, "poison", Doing::Fail).await;
        order(&t, "bread", Doing::Finish).await;
        assert_eq!(workers.run_due(&desk).await, Ok(2));
        assert_eq!(state(&t, &id).await, ("ready".into(), 1));
        let (_, why) = view(&t, &id).await;
        assert!(why.contains("backs off") && why.contains("(1 of 3 attempts used)"), "{why}");
        assert!(why.contains("the shop was closed"), "{why}");
        for _ in 0..2 {
            assert_eq!(workers.run_due(&desk).await, Ok(0), "it did not back off");
            t.advance(Duration::from_secs(120)).await;
            assert_eq!(workers.run_due(&desk).await, Ok(1));
        }
        let (job, _) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.attempts, job.outcome.as_deref()), ("dead", 3, Some("unknown")));
        assert_eq!(t.texts("select value from marks").await, ["story of poison: the shop was closed"]);
        t.advance(DAY).await;
        assert_eq!(workers.run_due(&desk).await, Ok(0), "a dead letter ran");

        t.store.write("forget", |tx| tx.execute("delete from marks", &[])).await.unwrap();
        assert!(retry(&t, &id).await);
        assert_eq!(state(&t, &id).await, ("ready".into(), 0));
        assert!(!retry(&t, &id).await, "what is due already was retried");
        assert_eq!(workers.run_due(&desk).await, Ok(1));
        assert_eq!(state(&t, &id).await, ("ready".into(), 1));
        assert_eq!(desk.ran("poison"), 4);
        assert_eq!(t.number("select count(*) from history where event = 'retried by hand' and actor = 'the owner'").await, 1);
    }

    async fn what_no_repeat_can_help_is_a_dead_letter_at_once(t: TestStore) {
        let id = order(&t, "bread", Doing::GiveUp).await;
        assert_eq!(workers(&t, &t.store, "one").run_due(&Desk::new(&t.store)).await, Ok(1));
        let (job, _) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.attempts, job.outcome.as_deref()), ("dead", 1, Some("failed")));
        assert_eq!(t.texts("select value from marks").await, ["story of bread: there is no such shop"]);
    }

    async fn a_hint_that_comes_during_the_run_is_not_lost(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        order(&t, "hinted", Doing::AgainPulled).await;
        order(&t, "quiet", Doing::Again).await;
        assert_eq!(workers.run_due(&desk).await, Ok(3));
        assert_eq!((desk.ran("hinted"), desk.ran("quiet")), (2, 1));
        assert_eq!(workers.run_due(&desk).await, Ok(0));
        t.advance(DAY).await;
        assert_eq!(workers.run_due(&desk).await, Ok(2));
    }

    async fn staying_alive_costs_no_attempt(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        let id = order(&t, "bread", Doing::Again).await;
        for _ in 0..6 {
            assert_eq!(workers.run_due(&desk).await, Ok(1));
            assert_eq!(state(&t, &id).await, ("ready".into(), 0));
            t.advance(DAY).await;
        }
    }

    async fn an_asked_for_delay_is_honoured_and_costs_no_attempt(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        let id = order(&t, "bread", Doing::ComeBack).await;
        for _ in 0..6 {
            assert_eq!(workers.run_due(&desk).await, Ok(1));
            let (job, why) = view(&t, &id).await;
            assert_eq!((job.state.as_str(), job.attempts), ("ready", 0));
            assert!(why.contains("come back in ten minutes"), "{why}");
            t.advance(Duration::from_millis(599_999)).await;
            assert_eq!(workers.run_due(&desk).await, Ok(0), "it ran too early");
            t.advance(Duration::from_millis(1)).await;
        }
    }

    async fn a_job_that_waits_for_its_turn_is_told_as_waiting(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        let id = order(&t, "bread", Doing::MakeWay).await;
        assert_eq!(workers.run_due(&desk).await, Ok(1));
        let (job, why) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.attempts), ("ready", 0));
        assert!(why.contains("others go first"), "{why}");
        assert_eq!(t.number("select count(*) from history where to_state = 'waiting'").await, 1);
        assert_eq!(t.number("select count(*) from history where to_state = 'retry'").await, 0, "nothing was tried");
    }

    async fn a_panic_is_a_failed_attempt_and_nothing_more(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        let id = order(&t, "mistake", Doing::Panic).await;
        let bread = order(&t, "bread", Doing::Finish).await;
        assert_eq!(workers.run_due(&desk).await, Ok(2));
        assert_eq!(state(&t, &bread).await.0, "done");
        let (job, _) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.attempts), ("ready", 1));
        assert!(job.error.unwrap().contains("panicked"));
    }

    async fn an_unknown_kind_is_left_for_a_newer_copy(t: TestStore) {
        let desk = Desk::new(&t.store);
        let id = order(&t, "bread", Doing::Finish).await;
        let older = Workers::new(t.store.clone(), t.chance.clone(), WorkersOptions::new("older".into())).with::<Stroll>();
        assert_eq!(older.run_due(&desk).await, Ok(1));
        let (job, _) = view(&t, &id).await;
        assert_eq!((job.state.as_str(), job.attempts), ("ready", 0));
        assert!(job.error.unwrap().contains("test.errand"));
        t.advance(Duration::from_secs(60)).await;
        assert_eq!(workers(&t, &t.store, "newer").run_due(&desk).await, Ok(1));
        assert_eq!(state(&t, &id).await, ("done".into(), 1));
    }

    async fn a_payload_that_cannot_be_read_is_a_dead_letter(t: TestStore) {
        let id = order(&t, "bread", Doing::Finish).await;
        t.store.write("spoil", |tx| tx.execute("update jobs set payload = '{}'", &[])).await.unwrap();
        assert_eq!(workers(&t, &t.store, "one").run_due(&Desk::new(&t.store)).await, Ok(1));
        assert_eq!(state(&t, &id).await, ("dead".into(), 1));
    }

    async fn only_a_waiting_job_can_be_cancelled(t: TestStore) {
        let (desk, workers) = (Desk::new(&t.store), workers(&t, &t.store, "one"));
        let id = order(&t, "bread", Doing::Finish).await;
        let cancel = || t.store.write("cancel", |tx| jobs::cancel(tx, Errand::KIND, "bread"));
        assert_eq!(cancel().await, Ok(true));
        assert_eq!(cancel().await, Ok(false));
        assert_eq!(workers.run_due(&desk).await, Ok(0));
        assert!(retry(&t, &id).await);
        assert_eq!(workers.run_due(&desk).await, Ok(1));
        assert_eq!(cancel().await, Ok(false), "a done job was cancelled");
        assert_eq!(state(&t, &id).await.0, "done");
    }

    async fn the_list_shows_the_newest_first_page_by_page(t: TestStore) {
        for name in ["a", "b", "c"] {
            order(&t, name, Doing::Finish).await;
            t.advance(Duration::from_millis(5)).await;
        }
        let page = |before: Option<String>| {
            t.store.read("list", move |tx| jobs::list(tx, Some("ready"), before.as_deref(), 2))
        };
        let first = page(None).await.unwrap();
        let slots: Vec<_> = first.iter().map(|job| job.slot.as_deref().unwrap()).collect();
        assert_eq!(slots, ["c", "b"]);
        let second = page(Some(first[1].id.clone())).await.unwrap();
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].slot.as_deref(), Some("a"));
        assert!(t.store.read("list", |tx| jobs::list(tx, Some("dead"), None, 2)).await.unwrap().is_empty());
    }

    /// Each job wakes its lane when it is committed: nothing here waits for a poll or moves the clock.
    async fn a_serving_worker_takes_each_job_as_it_comes(t: TestStore) {
        let desk = Desk::new(&t.store);
        let (stop, workers) = (CancellationToken::new(), Arc::new(workers(&t, &t.store, "one")));
        let serving = tokio::spawn(Arc::clone(&workers).serve(LANE, desk.clone(), stop.clone()));
        for n in 1..=40 {
            order(&t, &format!("errand {n}"), Doing::Finish).await;
        }
        eventually("all are done", async || {
            t.number("select count(*) from jobs where state = 'done'").await == 40
        })
        .await;
        stop.cancel();
        assert_eq!(serving.await.unwrap(), Ok(()));
        assert_eq!(desk.told().len(), 40, "a job ran twice");
    }

    /// The wake of the pull came while it ran, so the lane finds it by looking again.
    async fn a_serving_worker_looks_again_at_a_job_that_was_pulled_while_it_ran(t: TestStore) {
        let desk = Desk::new(&t.store);
        let id = order(&t, "bread", Doing::Wait).await;
        let (stop, workers) = (CancellationToken::new(), Arc::new(workers(&t, &t.store, "one")));
        let serving = tokio::spawn(Arc::clone(&workers).serve(LANE, desk.clone(), stop.clone()));
        eventually("it runs", async || desk.ran("bread") == 1).await;
        let pulled = t.store.write("pull", |tx| jobs::pull(tx, Errand::KIND, LANE, "bread")).await;
        assert_eq!(pulled, Ok(true));
        desk.gate.add_permits(2);
        eventually("it is done", async || state(&t, &id).await.0 == "done").await;
        assert_eq!(desk.ran("bread"), 2, "the pull came after the first run had begun");
        stop.cancel();
        assert_eq!(serving.await.unwrap(), Ok(()));
    }

    async fn stopping_waits_for_the_running_jobs(t: TestStore) {
        let desk = Desk::new(&t.store);
        let id = order(&t, "bread", Doing::Wait).await;
        let (stop, workers) = (CancellationToken::new(), Arc::new(workers(&t, &t.store, "one")));
        let serving = tokio::spawn(Arc::clone(&workers).serve(LANE, desk.clone(), stop.clone()));
        eventually("it runs", async || desk.ran("bread") == 1).await;
        stop.cancel();
        desk.gate.add_permits(1);
        assert_eq!(serving.await.unwrap(), Ok(()));
        assert_eq!(state(&t, &id).await, ("done".into(), 1));
    }

    async fn a_database_that_fails_while_the_program_stops_costs_no_claim(t: TestStore) {
        let lease = Duration::from_millis(600);
        let (desk, workers) = (Desk::new(&t.store), Arc::new(workers_for(&t, &t.store, "one", lease)));
        let id = order(&t, "bread", Doing::Wait).await;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(Arc::clone(&workers).serve(LANE, desk.clone(), stop.clone()));
        let keeping = tokio::spawn(Arc::clone(&workers).keep(stop.clone()));
        eventually("it runs", async || desk.ran("bread") == 1).await;
        stop.cancel();
        tokio::time::sleep(Duration::from_millis(100)).await;
        t.store.write("hide", |tx| tx.execute("alter table jobs rename to hidden", &[])).await.unwrap();
        tokio::time::sleep(lease).await;
        t.store.write("show", |tx| tx.execute("alter table hidden rename to jobs", &[])).await.unwrap();
        t.advance(Duration::from_millis(400)).await;
        eventually("its claim is renewed all the same", async || {
            t.number("select lease_until - semel_now() from jobs where slot = 'bread'").await == 600
        })
        .await;
        desk.gate.add_permits(1);
        assert_eq!(serving.await.unwrap(), Ok(()));
        assert_eq!(keeping.await.unwrap(), Ok(()));
        assert_eq!(state(&t, &id).await, ("done".into(), 1));
    }

    async fn what_still_runs_while_the_program_stops_is_nobody_elses(t: TestStore) {
        let lease = Duration::from_millis(600);
        let (desk, workers) = (Desk::new(&t.store), Arc::new(workers_for(&t, &t.store, "one", lease)));
        let id = order(&t, "bread", Doing::Wait).await;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(Arc::clone(&workers).serve(LANE, desk.clone(), stop.clone()));
        let keeping = tokio::spawn(Arc::clone(&workers).keep(stop.clone()));
        eventually("it runs", async || desk.ran("bread") == 1).await;
        stop.cancel();
        t.advance(Duration::from_millis(400)).await;
        eventually("its claim is renewed all the same", async || {
            t.number("select lease_until - semel_now() from jobs where slot = 'bread'").await == 600
        })
        .await;
        desk.gate.add_permits(1);
        assert_eq!(serving.await.unwrap(), Ok(()));
        assert_eq!(keeping.await.unwrap(), Ok(()));
        assert_eq!(state(&t, &id).await, ("done".into(), 1));
    }
}
