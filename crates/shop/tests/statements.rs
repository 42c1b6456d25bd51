//! Every statement of the shop means something to both engines, and both have the same tables.

use semel_kernel::each_store;
use semel_kernel::store::migrate;
use semel_kernel::testing::TestStore;
use semel_shop::{
    ROOMS, audit, bot, campaigns, catalog, checkout, customers, events, ledger, messages, notices, orders, owner_log,
    referrals, refunds, safety, stars, subscriptions, vpn,
};

each_store! { ROOMS;
    async fn every_statement_can_be_prepared(t: TestStore) {
        for statements in [
            audit::STATEMENTS,
            bot::STATEMENTS,
            campaigns::STATEMENTS,
            catalog::STATEMENTS,
            checkout::STATEMENTS,
            customers::STATEMENTS,
            events::STATEMENTS,
            ledger::STATEMENTS,
            messages::STATEMENTS,
            notices::STATEMENTS,
            orders::STATEMENTS,
            owner_log::STATEMENTS,
            referrals::STATEMENTS,
            refunds::STATEMENTS,
            safety::STATEMENTS,
            stars::STATEMENTS,
            subscriptions::STATEMENTS,
            subscriptions::view::STATEMENTS,
            vpn::STATEMENTS,
            vpn::view::STATEMENTS,
        ] {
            assert!(!statements.is_empty());
            t.prepare(statements).await;
        }
    }
}

#[tokio::test]
async fn both_engines_have_the_same_tables_and_columns() {
    let (sqlite, postgres) = (TestStore::sqlite(ROOMS).await, TestStore::postgres(ROOMS).await);
    let of_sqlite = migrate::shape(&sqlite.store).await.unwrap();
    let of_postgres = migrate::shape(&postgres.store).await.unwrap();
    assert!(of_sqlite.len() > 150, "the schema has {} columns only", of_sqlite.len());
    assert_eq!(of_sqlite, of_postgres);
}
