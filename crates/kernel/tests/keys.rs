//! Idempotency keys: one request happens once, and its repeats get its answer.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use semel_kernel::keys::{Key, Standing, answer, bind, busy_ms, claim, forget, release};
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{Store, StoreError};

const ROOMS: &[Room] = &[KERNEL];
const DAY: Duration = Duration::from_secs(24 * 3600);

fn key(owner: &str) -> Key {
    Key { scope: "owner POST /orders".into(), key: "k-1".into(), fingerprint: "body 1".into(), owner: owner.into() }
}

async fn claims_knowing(store: &Store, key: &Key, alive: Option<bool>) -> Standing {
    let key = key.clone();
    store.write("claim", move |tx| claim(tx, &key, &|_| alive)).await.unwrap()
}

/// Claims without knowing anything about the owner: he may belong to another copy.
async fn claims(store: &Store, key: &Key) -> Standing {
    claims_knowing(store, key, None).await
}

async fn binds(store: &Store, key: &Key, resource: &'static str) -> Result<(), StoreError> {
    let key = key.clone();
    store.write("bind", move |tx| bind(tx, &key, resource)).await
}

async fn answers(store: &Store, key: &Key, status: u16, body: &'static [u8]) -> bool {
    let key = key.clone();
    store.write("answer", move |tx| answer(tx, &key, status, body)).await.unwrap()
}

fn busy_at_most(standing: &Standing) -> Duration {
    match standing {
        Standing::Busy { wait } => *wait,
        other => panic!("not busy: {other:?}"),
    }
}

semel_kernel::each_store! { ROOMS;
    async fn a_repeat_gets_the_first_answer_byte_for_byte(t: TestStore) {
        let body: &[u8] = b"{\"id\": \"ord_1\"}\r\n \xff\x00";
        assert_eq!(claims(&t.store, &key("first")).await, Standing::New);
        assert!(answers(&t.store, &key("first"), 201, body).await);
        let again = claims(&t.store, &key("second")).await;
        assert_eq!(again, Standing::Answered { status: 201, body: body.to_vec() });
        assert!(!answers(&t.store, &key("second"), 500, b"").await, "an answer was overwritten");
        assert_eq!(claims(&t.store, &key("third")).await, again);
    }

    async fn of_two_at_once_one_is_first_and_one_waits(t: TestStore) {
        let rival = t.rival();
        for round in 0..10 {
            let of = |owner: &str| Key { key: format!("k-{round}"), ..key(owner) };
            let (one, other) = (of("one"), of("other"));
            let told = tokio::join!(claims(&t.store, &one), claims(&rival, &other));
            match told {
                (Standing::New, Standing::Busy { wait }) | (Standing::Busy { wait }, Standing::New) => {
                    assert!(wait >= Duration::from_secs(1), "{wait:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn another_body_under_the_same_key_is_a_mismatch(t: TestStore) {
        assert_eq!(claims(&t.store, &key("first")).await, Standing::New);
        let other = Key { fingerprint: "body 2".into(), ..key("second") };
        assert_eq!(claims(&t.store, &other).await, Standing::Mismatch);
        assert!(answers(&t.store, &key("first"), 200, b"one").await);
        assert_eq!(claims(&t.store, &other).await, Standing::Mismatch);
    }

    async fn keys_of_two_callers_do_not_meet(t: TestStore) {
        let other = Key { scope: "somebody else POST /orders".into(), ..key("second") };
        assert_eq!(claims(&t.store, &key("first")).await, Standing::New);
        assert_eq!(claims(&t.store, &other).await, Standing::New);
    }

    async fn after_a_death_the_next_request_resumes_what_was_begun(t: TestStore) {
        assert_eq!(claims(&t.store, &key("dead")).await, Standing::New);
        binds(&t.store, &key("dead"), "ord_1").await.unwrap();
        assert!(busy_at_most(&claims(&t.store, &key("early")).await) <= Duration::from_secs(30));

        t.advance(Duration::from_millis(busy_ms().unsigned_abs())).await;
        assert_eq!(claims(&t.store, &key("next")).await, Standing::Resume("ord_1".into()));
        busy_at_most(&claims(&t.store, &key("third")).await);
        assert!(!answers(&t.store, &key("dead"), 201, b"late").await, "who lost the key answered it");
        assert!(answers(&t.store, &key("next"), 201, b"resumed").await);
        let told = claims(&t.store, &key("fourth")).await;
        assert_eq!(told, Standing::Answered { status: 201, body: b"resumed".to_vec() });
    }

    async fn who_knows_that_the_first_one_is_dead_need_not_wait(t: TestStore) {
        assert_eq!(claims(&t.store, &key("first")).await, Standing::New);
        assert_eq!(claims_knowing(&t.store, &key("second"), Some(false)).await, Standing::New);
        binds(&t.store, &key("second"), "ord_2").await.unwrap();
        assert_eq!(claims_knowing(&t.store, &key("third"), Some(false)).await, Standing::Resume("ord_2".into()));
    }

    async fn who_knows_that_the_first_one_lives_waits_longer(t: TestStore) {
        assert_eq!(claims(&t.store, &key("slow")).await, Standing::New);
        t.advance(DAY / 2).await;
        let wait = busy_at_most(&claims_knowing(&t.store, &key("second"), Some(true)).await);
        assert!(wait >= Duration::from_secs(1));
        assert!(answers(&t.store, &key("slow"), 200, b"at last").await);
    }

    /// The slow request wakes up after another one took its key over: what it begins must not stay.
    async fn a_request_that_lost_its_key_begins_nothing(t: TestStore) {
        assert_eq!(claims(&t.store, &key("slow")).await, Standing::New);
        t.advance(Duration::from_secs(31)).await;
        assert_eq!(claims(&t.store, &key("next")).await, Standing::New);
        let slow = key("slow");
        let told = t
            .store
            .write("begin", move |tx| {
                tx.execute("insert into marks (name, value) values ('ord_slow', '')", &[])?;
                bind(tx, &slow, "ord_slow")
            })
            .await;
        assert!(matches!(told, Err(StoreError::Unexpected { .. })), "{told:?}");
        assert_eq!(t.number("select count(*) from marks").await, 0);
        binds(&t.store, &key("next"), "ord_next").await.unwrap();
        assert!(answers(&t.store, &key("next"), 201, b"next").await);
    }

    async fn a_refused_request_frees_its_key(t: TestStore) {
        assert_eq!(claims(&t.store, &key("refused")).await, Standing::New);
        for owner in ["somebody else", "refused"] {
            let key = key(owner);
            t.store.write("release", move |tx| release(tx, &key)).await.unwrap();
            let left = if owner == "refused" { 0 } else { 1 };
            assert_eq!(t.number("select count(*) from keys").await, left);
        }
        let corrected = Key { fingerprint: "body 2".into(), ..key("corrected") };
        assert_eq!(claims(&t.store, &corrected).await, Standing::New);
    }

    async fn a_key_that_began_something_is_never_freed_or_forgotten(t: TestStore) {
        assert_eq!(claims(&t.store, &key("first")).await, Standing::New);
        binds(&t.store, &key("first"), "ord_1").await.unwrap();
        let first = key("first");
        t.store.write("release", move |tx| release(tx, &first)).await.unwrap();
        assert!(answers(&t.store, &key("first"), 201, b"one").await);
        t.advance(DAY * 400).await;
        assert_eq!(t.store.write("forget", forget).await.unwrap(), 0);
        assert_eq!(claims(&t.store, &key("second")).await, Standing::Answered { status: 201, body: b"one".to_vec() });
    }

    async fn a_key_that_began_nothing_is_forgotten_after_a_day(t: TestStore) {
        assert_eq!(claims(&t.store, &key("first")).await, Standing::New);
        assert!(answers(&t.store, &key("first"), 200, b"one").await);
        t.advance(DAY - Duration::from_secs(1)).await;
        assert!(matches!(claims(&t.store, &key("second")).await, Standing::Answered { .. }));
        t.advance(Duration::from_secs(2)).await;
        let other = Key { fingerprint: "body 2".into(), ..key("third") };
        assert_eq!(claims(&t.store, &other).await, Standing::New, "an expired key stood in the way");
        assert!(answers(&t.store, &other, 200, b"two").await);
        t.advance(DAY + Duration::from_secs(1)).await;
        assert_eq!(t.store.write("forget", forget).await.unwrap(), 1);
        assert_eq!(t.number("select count(*) from keys").await, 0);
    }
}
