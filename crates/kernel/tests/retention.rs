//! Old rows that only take room go in pieces; what is not over, and what makes a thing happen once, stays.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::{Chance, Time};
use semel_kernel::ids::{least_id, new_id};
use semel_kernel::inbox::{Intake, IntakeOptions, Notice, Receipt};
use semel_kernel::retention::{Piece, empty_bodies, forget_jobs};
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::testing::{START, TestStore};

const ROOMS: &[Room] = &[KERNEL];
const DAY: Duration = Duration::from_secs(24 * 3600);

fn intake(t: &TestStore) -> Intake {
    let options = IntakeOptions { pull_kind: "test.look", resolve_kind: "test.resolve", lane: "test", attempts: 3 };
    Intake::start(t.store.clone(), t.chance.clone(), options)
}

fn notice(event_id: &str) -> Notice {
    Notice {
        source: "provider".into(),
        account: "shop".into(),
        event_id: event_id.into(),
        event: "paid".into(),
        subject: None,
        says: "paid".into(),
        body: format!("{{\"event\":\"{event_id}\"}}").into_bytes(),
        headers: "{}".into(),
        peer: None,
        verified: true,
    }
}

async fn change(t: &TestStore, sql: &'static str) -> u64 {
    t.store.write("change", move |tx| tx.execute(sql, &[])).await.unwrap()
}

async fn empty(t: &TestStore, before: Time, most: i64) -> Piece {
    t.store.write("empty", move |tx| empty_bodies(tx, before, most)).await.unwrap()
}

async fn forget(t: &TestStore, before: Time, most: i64) -> Piece {
    t.store.write("forget", move |tx| forget_jobs(tx, &["test.chore", "test.errand"], before, most)).await.unwrap()
}

/// A job as its row stands after its time.
async fn job(
    t: &TestStore,
    kind: &'static str,
    slot: &'static str,
    state: &'static str,
    outcome: Option<&'static str>,
) {
    let chance = t.chance.clone();
    let written = t.store.write("job", move |tx| {
        let now = tx.now();
        tx.execute(
            "insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, created_at, outcome)
             values ($1, $2, $3, 'test', '{}', $4, 1, $5, $5, $6)",
            args![new_id("job", now, &chance), kind, slot, state, now, outcome],
        )
    });
    assert_eq!(written.await, Ok(1));
}

semel_kernel::each_store! { ROOMS;
    async fn the_bodies_of_ended_notices_go_in_pieces_and_their_keys_stay(t: TestStore) {
        let door = intake(&t);
        for event in ["1", "2", "3", "4", "5"] {
            assert_eq!(door.accept(notice(event)).await, Ok(Receipt::New));
            t.advance(Duration::from_secs(1)).await;
        }
        change(&t, "update inbox set state = 'applied', terminal_at = semel_now() where event_id <> '4'").await;
        change(&t, "update inbox set state = 'quarantined', reason = 'a test said so' where event_id = '2'").await;
        t.advance(DAY).await;
        assert_eq!(door.accept(notice("young")).await, Ok(Receipt::New));
        change(&t, "update inbox set state = 'ignored', reason = 'a test said so' where event_id = 'young'").await;

        let before = t.clock.now() - DAY / 2;
        let pieces = [empty(&t, before, 2).await, empty(&t, before, 2).await, empty(&t, before, 2).await];
        let wanted = [(2, true), (1, true), (1, false)].map(|(changed, more)| Piece { changed, more });
        assert_eq!(pieces, wanted, "the fourth is not over and is passed by");
        let left = "select event_id from inbox where length(body) > 0 order by id";
        assert_eq!(t.texts(left).await, ["4", "young"]);
        assert_eq!(t.number("select count(*) from inbox where length(body_hash) = 64").await, 6);
        assert_eq!(empty(&t, before, 2).await, Piece { changed: 0, more: false }, "a look that finds nothing changes nothing");

        // An old repeat is known by its hash, and tells its state by what it says.
        assert_eq!(door.accept(notice("1")).await, Ok(Receipt::Repeat));
        let mut other = notice("1");
        other.body.push(b' ');
        assert_eq!(door.accept(other).await, Ok(Receipt::Differs));
        assert_eq!(t.number("select count(*) from inbox where event_id = '1' and says = 'paid'").await, 2);

        // The walk goes on where it ended.
        assert_eq!(empty(&t, t.clock.now() + DAY, 500).await, Piece { changed: 2, more: false });
        assert_eq!(t.texts(left).await, ["4"]);
    }

    async fn jobs_that_are_done_go_unless_somebody_still_needs_them(t: TestStore) {
        for (kind, slot, state, outcome) in [
            ("test.chore", "done", "done", None),
            ("test.chore", "confirmed", "done", Some("confirmed")),
            ("test.errand", "done", "done", Some("confirmed")),
            ("test.chore", "unknown", "done", Some("unknown")),
            ("test.chore", "refused", "done", Some("failed")),
            ("test.chore", "ready", "ready", None),
            ("test.chore", "running", "running", None),
            ("test.chore", "dead", "dead", None),
            ("test.chore", "cancelled", "cancelled", None),
            ("test.once", "done", "done", None),
        ] {
            job(&t, kind, slot, state, outcome).await;
            t.advance(Duration::from_secs(1)).await;
        }
        t.advance(DAY).await;
        job(&t, "test.chore", "young", "done", None).await;

        let before = t.clock.now() - DAY / 2;
        let (mut gone, mut pieces) = (0, 0);
        loop {
            let piece = forget(&t, before, 3).await;
            (gone, pieces) = (gone + piece.changed, pieces + 1);
            if !piece.more {
                break;
            }
        }
        assert_eq!((gone, pieces), (3, 4));
        let left = t.texts("select kind || ' ' || slot from jobs order by id").await;
        let wanted = ["unknown", "refused", "ready", "running", "dead", "cancelled"].map(|slot| format!("test.chore {slot}"));
        assert_eq!(left[..6], wanted);
        assert_eq!(left[6..], ["test.once done", "test.chore young"]);
        assert_eq!(forget(&t, before, 500).await, Piece { changed: 0, more: false });
    }

    async fn a_piece_that_is_undone_is_done_again(t: TestStore) {
        assert_eq!(intake(&t).accept(notice("1")).await, Ok(Receipt::New));
        change(&t, "update inbox set state = 'applied', terminal_at = semel_now()").await;
        t.advance(DAY).await;
        let before = t.clock.now();
        let undone = t.store.write("empty", move |tx| {
            empty_bodies(tx, before, 500)?;
            Err::<(), _>(semel_kernel::store::StoreError::Closed)
        });
        assert!(undone.await.is_err());
        assert_eq!(t.number("select count(*) from marks").await, 0);
        assert_eq!(empty(&t, before, 500).await, Piece { changed: 1, more: false });
    }
}

#[test]
fn ids_of_one_moment_lie_between_its_least_id_and_that_of_the_next() {
    let chance = Chance::seeded(5);
    let next = START + Duration::from_millis(1);
    let id = new_id("inb", START, &chance);
    assert!(least_id("inb", START) <= id && id < least_id("inb", next));
    assert_eq!(least_id("inb", Time::from_millis(-1)), "inb_000000000000");
}
