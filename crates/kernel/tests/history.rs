//! The history: what happened, told once and in order.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use semel_kernel::history::{self, Entry, append};
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::store::{StoreError, Tx};

const ROOMS: &[Room] = &[KERNEL];

fn step(tx: &mut Tx, n: i64, from: &str, to: &str) -> Result<(), StoreError> {
    let entry = Entry {
        entity: "order",
        entity_id: "ord_1",
        n: Some(n),
        event: to,
        actor: Some("test"),
        from: Some(from),
        to: Some(to),
        fence: Some(3),
        took_ms: Some(12),
        thread: Some("ord_1"),
        detail: None,
    };
    append(tx, &entry)
}

semel_kernel::each_store! { ROOMS;
    async fn the_same_change_of_a_thing_happens_once(t: TestStore) {
        t.store.write("first", |tx| step(tx, 1, "new", "paid")).await.unwrap();
        let told = t.store.write("again", |tx| step(tx, 1, "new", "cancelled")).await;
        assert!(matches!(told, Err(StoreError::Constraint(_))), "{told:?}");
        assert_eq!(t.texts("select to_state from history").await, ["paid"]);
    }

    async fn events_without_a_change_of_state_may_repeat(t: TestStore) {
        for _ in 0..2 {
            let entry = Entry { entity: "order", entity_id: "ord_1", event: "looked at", ..Entry::default() };
            t.store.write("look", move |tx| append(tx, &entry)).await.unwrap();
        }
        assert_eq!(t.number("select count(*) from history").await, 2);
    }

    async fn a_story_is_told_from_its_beginning(t: TestStore) {
        t.store.write("first", |tx| step(tx, 1, "new", "paid")).await.unwrap();
        t.advance(Duration::from_millis(1500)).await;
        t.store
            .write("second", |tx| {
                step(tx, 2, "paid", "delivered")?;
                append(tx, &Entry { entity: "order", entity_id: "ord_2", event: "other", thread: Some("ord_2"), ..Entry::default() })
            })
            .await
            .unwrap();
        let told = t.store.read("story", |tx| history::story(tx, "ord_1", 10)).await.unwrap();
        let events: Vec<_> = told.iter().map(|row| (row.at.as_str(), row.event.as_str())).collect();
        assert_eq!(events, [("2026-03-01T09:00:00.000Z", "paid"), ("2026-03-01T09:00:01.500Z", "delivered")]);
        assert_eq!(told[1].from.as_deref(), Some("paid"));
        assert_eq!(told[1].took_ms, Some(12));
        assert_eq!(t.store.read("story", |tx| history::story(tx, "ord_1", 1)).await.unwrap().len(), 1);
    }
}
