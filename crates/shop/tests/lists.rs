//! Lists and views stay quick however much lies behind: each goes by an index that bears its filter and its order.
#![allow(clippy::unwrap_used)]

use semel_kernel::clock::Chance;
use semel_kernel::store::{Engine, Sql};
use semel_kernel::testing::{START, TestStore};
use semel_shop::customers::CustomerId;
use semel_shop::orders::{self, OrderId, State};
use semel_shop::{ROOMS, ledger, messages};

const CUSTOMERS: Sql = Sql {
    sqlite: "with recursive n (i) as (select 1 union all select i + 1 from n where i < 200)
        insert into customers (id, telegram_id, created_at) select 'cus_' || printf('%032d', i), i, i from n",
    postgres: "insert into customers (id, telegram_id, created_at)
        select 'cus_' || lpad(cast(i as text), 32, '0'), i, i from generate_series(1, 200) n (i)",
};

/// Twenty thousand orders of two hundred customers, delivered but for the oldest ones.
const ORDERS: Sql = Sql {
    sqlite: "with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into orders (id, customer, state, currency, total, provider, deadline, created_at)
        select 'ord_' || printf('%032d', i), 'cus_' || printf('%032d', 1 + i % 200),
            case i when 1 then 'pending' when 2 then 'refund_pending' when 3 then 'cancelled' else 'delivered' end,
            'RUB', 99000, 'yookassa', i, i from n",
    postgres: "insert into orders (id, customer, state, currency, total, provider, deadline, created_at)
        select 'ord_' || lpad(cast(i as text), 32, '0'), 'cus_' || lpad(cast(1 + i % 200 as text), 32, '0'),
            case i when 1 then 'pending' when 2 then 'refund_pending' when 3 then 'cancelled' else 'delivered' end,
            'RUB', 99000, 'yookassa', i, i from generate_series(1, 20000) n (i)",
};

/// Twenty thousand messages that were sent, but for the oldest ones: one of each other state.
const MESSAGES: Sql = Sql {
    sqlite: "with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
        select 'msg_' || printf('%032d', i), 'key ' || i, i, 'at_least_once', 'goods', '{}', case i when 1 then 'queued'
            when 2 then 'failed' when 3 then 'unknown' when 4 then 'cancelled' else 'sent' end, i from n",
    postgres: "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
        select 'msg_' || lpad(cast(i as text), 32, '0'), 'key ' || i, i, 'at_least_once', 'goods', '{}', case i when 1 then 'queued'
            when 2 then 'failed' when 3 then 'unknown' when 4 then 'cancelled' else 'sent' end, i from generate_series(1, 20000) n (i)",
};

fn text_of(statements: &[(&str, Sql)], wanted: &str) -> Sql {
    statements.iter().find(|(name, _)| *name == wanted).map(|(_, sql)| *sql).unwrap()
}

async fn fill(t: &TestStore, sql: Sql) -> u64 {
    t.store.write("fill", move |tx| tx.execute(sql, &[])).await.unwrap()
}

semel_kernel::each_store! { ROOMS;
    async fn a_list_of_orders_never_reads_what_it_does_not_show(t: TestStore) {
        assert_eq!((fill(&t, CUSTOMERS).await, fill(&t, ORDERS).await), (200, 20_000));
        let customer = format!("'cus_{:032}'", 3);
        let keys = if t.engine() == Engine::Sqlite { "sqlite_autoindex_orders_1" } else { "orders_pkey" };
        let wanted = [
            ("LIST", ["", ""], keys),
            ("LIST_STATE", ["'refund_pending'", ""], "orders_state"),
            ("LIST_CUSTOMER", [customer.as_str(), ""], "orders_customer"),
            ("LIST_BOTH", [customer.as_str(), "'cancelled'"], "orders_customer"),
            ("LIST_BOTH", [customer.as_str(), "'delivered'"], "orders_customer"),
        ];
        for (name, [third, fourth], index) in wanted {
            let plan = t.plan(text_of(orders::STATEMENTS, name), &["'ord_z'", "51", third, fourth]).await;
            assert!(plan.contains(index), "{name} {fourth} does not go by {index}:\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{name} {fourth} reads everything:\n{plan}");
        }

        let of = CustomerId::parse(&format!("cus_{:032}", 3)).unwrap();
        let waiting = Some(State::RefundPending);
        let read = t.store.read("list", move |tx| {
            let of_state = orders::flows::list(tx, None, waiting, None, 10)?;
            let of_both = orders::flows::list(tx, Some(&of), waiting, None, 10)?;
            let of_customer = orders::flows::list(tx, Some(&of), None, None, 1)?;
            let below = orders::flows::list(tx, Some(&of), None, of_customer.first().map(|order| &order.id), 1)?;
            Ok::<_, semel_shop::Error>([of_state, of_both, of_customer, below])
        });
        let found = read.await.unwrap().map(|page| page.into_iter().map(|order| order.id).collect::<Vec<_>>());
        let order = |n: i64| vec![OrderId::parse(&format!("ord_{n:032}")).unwrap()];
        assert_eq!(found, [order(2), order(2), order(19_802), order(19_602)]);
    }

    async fn a_list_of_messages_never_reads_what_it_does_not_show(t: TestStore) {
        use messages::State::{Cancelled, Failed, Queued, Sent, Unknown};

        assert_eq!(fill(&t, MESSAGES).await, 20_000);
        let keys = if t.engine() == Engine::Sqlite { "sqlite_autoindex_messages_1" } else { "messages_pkey" };
        let wanted = [
            ("LIST", "", keys),
            ("LIST_SENT", "", keys),
            ("LIST_ASIDE", "'queued'", "messages_aside"),
            ("LIST_ASIDE", "'failed'", "messages_aside"),
            ("LIST_ASIDE", "'cancelled'", "messages_aside"),
        ];
        for (name, state, index) in wanted {
            let plan = t.plan(text_of(messages::STATEMENTS, name), &["'msg_z'", "51", "null", state]).await;
            assert!(plan.contains(index), "{name} {state} does not go by {index}:\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{name} {state} reads everything:\n{plan}");
        }

        for (n, state) in [(1, Queued), (2, Failed), (3, Unknown), (4, Cancelled), (20_000, Sent)] {
            let read = t.store.read("list", move |tx| messages::flows::list(tx, None, Some(state), Some("goods"), 1));
            let found: Vec<String> = read.await.unwrap().into_iter().map(|message| message.id).collect();
            assert_eq!(found, [format!("msg_{n:032}")], "{state:?}");
        }
        let none = t.store.read("list", |tx| messages::flows::list(tx, None, Some(Failed), Some("balance"), 1)).await;
        assert!(none.unwrap().is_empty());
    }
}

/// What the timeline asks about an order's money begins at the order, and what waits in suspense at the payment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_path_of_an_orders_money_is_found_by_keys() {
    let t = TestStore::sqlite(ROOMS).await;
    let order = format!("'{}'", OrderId::new(START, &Chance::seeded(1)));
    let plan = t.plan(text_of(ledger::STATEMENTS, "MOVED"), &[&order, "100"]).await;
    for table in ["SCAN p", "SCAN y", "SCAN r", "SCAN e", "SCAN a"] {
        assert!(!plan.contains(table), "it reads everything:\n{plan}");
    }
    let plan = t.plan(text_of(ledger::STATEMENTS, "SUSPENDED"), &["'2d8f-1'"]).await;
    assert!(plan.contains("suspense_open"), "{plan}");
}
