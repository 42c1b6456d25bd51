//! Leases: one holder at a time, and nothing done under an old fence.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use semel_kernel::leases::{Lease, holder, keep, release, supersede, take};
use semel_kernel::store::Store;
use semel_kernel::store::migrate::{KERNEL, Room};

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
