//! Leases: one holder at a time, and nothing done under an old fence.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::leases::{Lease, Sole, holder, keep, release, serve, supersede, take};
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{Engine, Store, StoreError};
use semel_kernel::testing::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ROOMS: &[Room] = &[KERNEL];
const TERM: Duration = Duration::from_secs(30);

async fn takes(store: &Store, owner: &str) -> Option<Lease> {
    let owner = owner.to_owned();
    store.write("take", move |tx| take(tx, "sender", &owner, TERM)).await.unwrap()
}

async fn keeps(store: &Store, lease: &Lease) -> bool {
    let lease = lease.clone();
    store.write("keep", move |tx| keep(tx, &lease, TERM)).await.unwrap()
}

async fn releases(store: &Store, lease: &Lease) -> bool {
    let lease = lease.clone();
    store.write("release", move |tx| release(tx, &lease)).await.unwrap()
}

async fn held_by(store: &Store) -> Option<(String, i64)> {
    store.read("holder", |tx| holder(tx, "sender")).await.unwrap()
}

semel_kernel::each_store! { ROOMS;
    async fn fifty_takers_of_two_copies_make_one_holder(t: TestStore) {
        let rival = t.rival();
        let takers: Vec<_> = (0..50)
            .map(|n| {
                let store = if n % 2 == 0 { t.store.clone() } else { rival.clone() };
                tokio::spawn(async move { takes(&store, &format!("taker {n}")).await })
            })
            .collect();
        let mut holders = Vec::new();
        for taker in takers {
            holders.extend(taker.await.unwrap());
        }
        assert_eq!(holders.len(), 1, "{holders:?}");
        assert_eq!(held_by(&t.store).await, Some((holders[0].owner.clone(), 1)));
        assert_eq!(t.number("select count(*) from lease_terms").await, 1);
    }

    async fn an_expired_lease_is_taken_under_a_higher_fence(t: TestStore) {
        let first = takes(&t.store, "first").await.unwrap();
        t.advance(TERM - Duration::from_millis(1)).await;
        assert_eq!(takes(&t.store, "second").await, None, "it was taken before its end");
        t.advance(Duration::from_millis(1)).await;
        assert_eq!(held_by(&t.store).await, None);

        let second = takes(&t.store, "second").await.unwrap();
        assert!(second.fence > first.fence);
        assert!(!keeps(&t.store, &first).await, "a lost lease was kept");
        assert!(!releases(&t.store, &first).await, "a lost lease was released");
        assert_eq!(held_by(&t.store).await, Some(("second".into(), second.fence)));
        let ends = t.texts("select coalesce(end_kind || ' by ' || ended_by, 'open') from lease_terms order by fence").await;
        assert_eq!(ends, ["expired by second", "open"]);
    }

    async fn a_lease_that_ran_out_cannot_be_kept_even_when_nobody_took_it(t: TestStore) {
        let lease = takes(&t.store, "first").await.unwrap();
        t.advance(TERM).await;
        assert!(!keeps(&t.store, &lease).await);
        assert!(!releases(&t.store, &lease).await);
    }

    async fn a_holder_that_keeps_its_lease_holds_it(t: TestStore) {
        let lease = takes(&t.store, "first").await.unwrap();
        for _ in 0..5 {
            t.advance(TERM - Duration::from_secs(1)).await;
            assert!(keeps(&t.store, &lease).await);
            assert_eq!(takes(&t.store, "second").await, None);
        }
    }

    async fn who_does_not_hold_it_releases_nothing(t: TestStore) {
        let lease = takes(&t.store, "first").await.unwrap();
        let thief = Lease { owner: "thief".into(), ..lease.clone() };
        let early = Lease { fence: lease.fence + 1, ..lease.clone() };
        assert!(!releases(&t.store, &thief).await);
        assert!(!releases(&t.store, &early).await);
        assert!(!keeps(&t.store, &thief).await);
        assert_eq!(held_by(&t.store).await, Some(("first".into(), lease.fence)));
        assert!(keeps(&t.store, &lease).await);
    }

    async fn a_released_lease_is_free_at_once(t: TestStore) {
        let first = takes(&t.store, "first").await.unwrap();
        assert!(releases(&t.store, &first).await);
        assert!(!releases(&t.store, &first).await, "it was released twice");
        let second = takes(&t.store, "second").await.unwrap();
        assert!(second.fence > first.fence);
    }

    /// A lock of a session belongs to one connection of a pool: it keeps that from everybody else, and what is freed on another
    /// stays locked.
    async fn a_lease_is_a_row_and_no_lock_of_a_session(t: TestStore) {
        let first = takes(&t.store, "first").await.unwrap();
        if t.engine() == Engine::Postgres {
            let locks = "select count(*) from pg_locks where locktype = 'advisory'
                and database = (select oid from pg_database where datname = current_database())";
            assert_eq!(t.number(locks).await, 0);
        }
        let elsewhere = t.rival();
        assert!(releases(&elsewhere, &first).await, "whoever can show it gives it back, on any connection");
        assert!(takes(&elsewhere, "second").await.is_some());
    }

    async fn a_holder_that_is_known_to_be_dead_is_superseded(t: TestStore) {
        let first = takes(&t.store, "first").await.unwrap();
        let second = t.store.write("supersede", |tx| supersede(tx, "sender", "second", TERM)).await.unwrap().unwrap();
        assert!(second.fence > first.fence);
        assert!(!keeps(&t.store, &first).await);
        assert_eq!(t.texts("select end_kind from lease_terms where fence = 1").await, ["superseded"]);
    }

    async fn leases_of_two_names_do_not_meet(t: TestStore) {
        assert!(takes(&t.store, "first").await.is_some());
        let other = t.store.write("take", |tx| take(tx, "scheduler", "second", TERM)).await.unwrap().unwrap();
        assert_eq!(other.fence, 1);
    }
}

/// Work that notes what it is told.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<&'static str>>>);

impl Diary {
    fn note(&self, word: &'static str) {
        self.0.lock().unwrap().push(word);
    }

    fn read(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }

    async fn says(&self, words: &[&'static str]) {
        eventually(&format!("the diary says {words:?}"), async || self.read() == words).await;
    }
}

impl Sole for Diary {
    fn holds(&self, until: Time) {
        let (word, last) = (if until.millis() == 0 { "may not" } else { "may" }, self.read().last().copied());
        // Keeping says again what taking said.
        if word == "may not" || last != Some("works") {
            self.note(word);
        }
    }

    async fn work(&self, clean: bool, stop: CancellationToken) -> Result<(), StoreError> {
        if !clean {
            self.note("takes care");
        }
        self.note("works");
        stop.cancelled().await;
        self.note("ends");
        Ok(())
    }
}

/// A process that works while it holds the lease.
struct Instance {
    diary: Diary,
    stop: CancellationToken,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Instance {
    fn start(store: Store, owner: &'static str, term: Duration) -> Instance {
        let (diary, stop) = (Diary::default(), CancellationToken::new());
        let (work, token) = (diary.clone(), stop.clone());
        let task = tokio::spawn(async move { serve(&store, "sender:1", owner, term, &work, token).await });
        Instance { diary, stop, task }
    }
}

semel_kernel::each_store! { ROOMS;
    async fn who_is_asked_to_stop_ends_the_work_first_and_the_next_begins_without_care(t: TestStore) {
        let first = Instance::start(t.store.clone(), "first", TERM);
        first.diary.says(&["may", "works"]).await;
        let second = Instance::start(t.rival(), "second", TERM);
        first.stop.cancel();
        first.task.await.unwrap().unwrap();
        assert_eq!(first.diary.read(), ["may", "works", "ends", "may not"]);
        assert_eq!(t.texts("select end_kind from lease_terms where fence = 1").await, ["released"]);
        second.diary.says(&["may", "works"]).await;
        second.stop.cancel();
        second.task.await.unwrap().unwrap();
    }

    async fn a_dead_holder_is_followed_with_care_once_its_term_is_over(t: TestStore) {
        let first = Instance::start(t.store.clone(), "first", TERM);
        first.diary.says(&["may", "works"]).await;
        first.task.abort();
        let second = Instance::start(t.rival(), "second", TERM);
        t.advance(TERM - Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        assert!(second.diary.read().is_empty(), "the term is not over");
        t.advance(Duration::from_millis(1)).await;
        second.diary.says(&["may", "takes care", "works"]).await;
        assert_eq!(t.texts("select end_kind from lease_terms where fence = 1").await, ["expired"]);
        second.stop.cancel();
        second.task.await.unwrap().unwrap();
    }

    async fn a_lost_lease_ends_the_work_at_once_and_the_loser_stands_by(t: TestStore) {
        let copy = Instance::start(t.store.clone(), "first", Duration::from_secs(3));
        copy.diary.says(&["may", "works"]).await;
        let thief = t.rival();
        let taken = thief.write("steal", |tx| supersede(tx, "sender:1", "thief", TERM)).await;
        assert!(taken.unwrap().is_some_and(|lease| lease.fence == 2));
        copy.diary.says(&["may", "works", "may not", "ends"]).await;
        copy.stop.cancel();
        copy.task.await.unwrap().unwrap();
        assert_eq!(t.number("select count(*) from lease_terms").await, 2, "it took the lease of somebody else");
    }

    async fn a_lease_that_this_process_holds_without_knowing_is_taken_up(t: TestStore) {
        let lost = t.store.write("take", |tx| take(tx, "sender:1", "first", TERM)).await.unwrap().unwrap();
        let copy = Instance::start(t.store.clone(), "first", TERM);
        copy.diary.says(&["may", "takes care", "works"]).await;
        copy.stop.cancel();
        copy.task.await.unwrap().unwrap();
        let ended = t.texts("select owner || ' ' || end_kind from lease_terms").await;
        assert_eq!((lost.fence, ended), (1, vec!["first released".to_owned()]));
    }
}
