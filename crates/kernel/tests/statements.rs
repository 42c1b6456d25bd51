//! Every statement of the kernel is understood by both engines.
#![allow(clippy::unwrap_used)]

use semel_kernel::inbox::{Intake, IntakeOptions, Notice, Receipt};
use semel_kernel::store::Sql;
use semel_kernel::store::migrate::{KERNEL, Room};
use semel_kernel::{cron, history, inbox, jobs, keys, leases, retention};

const ROOMS: &[Room] = &[KERNEL];
const ALL: [&[(&str, Sql)]; 7] = [
    cron::STATEMENTS,
    history::STATEMENTS,
    inbox::STATEMENTS,
    jobs::STATEMENTS,
    keys::STATEMENTS,
    leases::STATEMENTS,
    retention::STATEMENTS,
];

semel_kernel::each_store! { ROOMS;
    async fn every_statement_can_be_prepared(t: TestStore) {
        for statements in ALL {
            assert!(!statements.is_empty());
            t.prepare(statements).await;
        }
    }

    /// The intake's statement over arrays stands in no list: taking one notice prepares it.
    async fn the_intake_can_be_prepared(t: TestStore) {
        let options = IntakeOptions { pull_kind: "test.look", resolve_kind: "test.resolve", lane: "test", attempts: 3 };
        let intake = Intake::start(t.store.clone(), t.chance.clone(), options);
        let notice = Notice {
            source: "provider".into(),
            account: "shop".into(),
            event_id: "event".into(),
            event: "paid".into(),
            subject: None,
            says: String::new(),
            body: vec![0, 255, 7],
            headers: "{}".into(),
            peer: None,
            verified: true,
        };
        assert_eq!(intake.accept(notice).await, Ok(Receipt::New));
    }
}

mod a_statement_that_an_engine_does_not_know {
    use semel_kernel::store::Sql;
    use semel_kernel::testing::TestStore;

    const WRONG: &[(&str, Sql)] = &[("WRONG", Sql::both("select nothing from nowhere where id = $1"))];

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "WRONG")]
    async fn is_told_on_sqlite() {
        TestStore::sqlite(super::ROOMS).await.prepare(WRONG).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "WRONG")]
    async fn is_told_on_postgres() {
        TestStore::postgres(super::ROOMS).await.prepare(WRONG).await;
    }
}
