//! A database of an older program is brought up to the present: its rows stay, and its schema is that of a new one.

use serde_json::json;

use semel::PROGRAM;
use semel_kernel::store::migrate::{KERNEL, Room, migrate, shape};
use semel_kernel::store::{Engine, StoreError};
use semel_kernel::{args, each_store, jobs};
use semel_shop::SHOP;
use semel_shop::messages::{DeliverMessage, MessageId};

use crate::app::{CUSTOMER, ROOMS, TestShop, TestStore};

/// The steps that the program knew before it talked to customers.
const OLDER: &[Room] = &[first(KERNEL, 1), first(SHOP, 4), first(PROGRAM, 1)];

const fn first(room: Room, steps: usize) -> Room {
    Room { name: room.name, steps: room.steps.split_at(steps).0 }
}

/// What that program wrote.
const ROWS: &[&str] = &[
    "insert into customers (id, telegram_id, created_at) values ('cus_1', 101, 1), ('cus_2', 102, 2)",
    "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
        values ('msg_1', 'd1', 101, 'at_least_once', 'balance', '{}', 'queued', 3)",
    "insert into jobs (id, kind, slot, lane, payload, manner, request_hash, state, max_attempts, run_at, created_at)
        values ('job_1', 'message.send', 'msg_1', 'messages', '{}', 'blind', 'h', 'ready', 24, 3, 3)",
    "insert into history (at, entity, entity_id, n, event, to_state) values
        (1, 'order', 'ord_1', 1, 'order made', 'pending'), (2, 'order', 'ord_2', 1, 'order made', 'pending')",
    "insert into accounts (id, kind, owner, currency, balance, floor, created_at) values
        ('sales', 'sales', 'shop', 'RUB', null, null, 1), ('customer', 'customer', 'cus_1', 'RUB', 100, 0, 1)",
    "insert into postings (id, key, kind, posted_at) values ('txn_1', 'k1', 'sale', 1)",
    "insert into entries (posting, account, currency, amount) values
        ('txn_1', 'sales', 'RUB', -100), ('txn_1', 'customer', 'RUB', 100)",
    "insert into servers (id, name, interface, endpoint, public_key, dns, keepalive, allowed_ips, ipv6, state, created_at)
        values ('srv_1', 'one', 'wg0', 'vpn.example.org:51820', 'k', '', 25, '0.0.0.0/0', 'off', 'open', 1)",
    "insert into subscriptions (id, customer, server, state, paid_until, since, devices, created_at) values
        ('sub_1', 'cus_1', 'srv_1', 'active', 9, 1, 2, 1), ('sub_2', 'cus_1', 'srv_1', 'active', 9, 1, 1, 1),
        ('sub_3', 'cus_2', 'srv_1', 'active', 9, 1, 1, 1)",
    "insert into peers (id, subscription, server, device, public_key, preshared_key, state, created_at) values
        ('peer_1', 'sub_1', 'srv_1', 1, 'k1', 's', 'active', 10), ('peer_2', 'sub_2', 'srv_1', 1, 'k2', 's', 'active', 5),
        ('peer_3', 'sub_1', 'srv_1', 2, 'k3', 's', 'active', 20), ('peer_4', 'sub_3', 'srv_1', 1, 'k4', 's', 'active', 1)",
    "insert into peer_addresses (peer, server, ip, family, since) values ('peer_1', 'srv_1', '10.8.0.2', 4, 10)",
    "insert into downloads (token_hash, peer, form, expires_at, created_at) values ('h', 'peer_1', 'conf', 9, 10)",
];

const NOTICE: &str = "insert into inbox
    (id, source, account, event_id, event, body_hash, body, headers, verified, says, state, received_at)
    values ('inb_1', 'yookassa', 'shop', 'e1', 'paid', 'h', $1, '{}', true, '', 'received', 3)";

/// Everything but the columns that [`shape`] tells: indexes, constraints, triggers and what views mean.
async fn rules(t: &TestStore) -> Vec<String> {
    let asked = match t.engine() {
        Engine::Sqlite => "select coalesce(sql, name) from sqlite_schema where name not like 'sqlite_%' order by 1",
        Engine::Postgres => {
            "select r.rule from (select indexdef as rule from pg_indexes where schemaname = 'semel'
                union all select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
                union all select conrelid::regclass::text || ' ' || pg_get_constraintdef(oid) from pg_constraint
                    where connamespace = 'semel'::regnamespace
                union all select viewname || ' ' || definition from pg_views where schemaname = 'semel') r
             order by r.rule collate \"C\""
        }
    };
    t.texts(asked).await
}

each_store! { OLDER;
    async fn an_older_database_comes_up_with_the_schema_of_a_new_one_and_all_its_rows(t: TestStore) {
        let written = t.store.write("story.older", |tx| {
            ROWS.iter().try_for_each(|row| tx.execute(*row, &[]).map(|_| ()))?;
            tx.execute(NOTICE, args![b"{}".to_vec()])
        });
        assert_eq!(written.await, Ok::<_, StoreError>(1));
        migrate(&t.store, ROOMS).await.unwrap();

        let new = match t.engine() {
            Engine::Sqlite => TestStore::sqlite(ROOMS).await,
            Engine::Postgres => TestStore::postgres(ROOMS).await,
        };
        assert_eq!(shape(&t.store).await.unwrap(), shape(&new.store).await.unwrap());
        assert_eq!(rules(&t).await, rules(&new).await);

        for (kept, wanted) in [
            ("select count(*) from customers where blocked_at is null", 2),
            ("select count(*) from messages where state = 'queued' and place = 0", 1),
            ("select count(*) from chat_lines", 0),
            ("select count(*) from jobs where state = 'ready' and slot = 'msg_1'", 1),
            ("select count(*) from inbox where state = 'received' and length(body) = 2", 1),
            ("select count(*) from peer_addresses where peer = 'peer_1'", 1),
            ("select count(*) from downloads where peer = 'peer_1'", 1),
            ("select count(*) from audit_msg where msg_id = 'msg_1' and broadcast_id is null", 1),
            ("select count(*) from audit_recipient", 0),
        ] {
            assert_eq!(t.number(kept).await, wanted, "{kept}");
        }
        let peers = t.texts("select id || ' ' || number from peers order by id").await;
        assert_eq!(peers, ["peer_1 2", "peer_2 1", "peer_3 3", "peer_4 1"], "of each customer in the order of their making");
        let history = t.texts("select seq || ' ' || entity_id || ' ' || at from history order by seq").await;
        assert_eq!(history, ["1 ord_1 1", "2 ord_2 2"]);
        let entries = t.texts("select seq || ' ' || account_id || ' ' || amount from audit_entry order by seq").await;
        assert_eq!(entries, ["1 sales -100", "2 customer 100"]);
    }

    async fn numbers_go_on_after_an_upgrade_and_the_books_still_never_change(t: TestStore) {
        let written = t.store.write("story.older", |tx| ROWS.iter().try_for_each(|row| tx.execute(*row, &[]).map(|_| ())));
        assert_eq!(written.await, Ok::<_, StoreError>(()));
        migrate(&t.store, ROOMS).await.unwrap();

        let more = t.store.write("story.more", |tx| {
            tx.execute("insert into history (at, entity, entity_id, event) values (3, 'order', 'ord_3', 'seen')", &[])?;
            tx.execute("insert into entries (posting, account, currency, amount) values ('txn_1', 'sales', 'RUB', -1)", &[])
        });
        assert_eq!(more.await, Ok::<_, StoreError>(1));
        assert_eq!(t.number("select seq from history where entity_id = 'ord_3'").await, 3);
        assert_eq!(t.number("select seq from entries where amount = -1").await, 3);
        for change in ["update entries set amount = 2", "delete from entries"] {
            let changed: Result<u64, StoreError> = t.store.write("story.change", move |tx| tx.execute(change, &[])).await;
            assert!(changed.is_err(), "{change}");
        }
    }

    async fn a_message_that_an_older_program_queued_is_sent_after_the_upgrade(t: TestStore) {
        let chance = t.chance.clone();
        let queued = t.store.write("story.older", move |tx| {
            let now = tx.now();
            let message = MessageId::new(now, &chance);
            let body = json!({ "type": "text", "html": "Your money came" }).to_string();
            tx.execute("insert into customers (id, telegram_id, created_at) values ('cus_1', $1, $2)", args![CUSTOMER, now])?;
            tx.execute(
                "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
                 values ($1, 'd1', $2, 'at_least_once', 'balance', $3, 'queued', $4)",
                args![&message, CUSTOMER, body, now],
            )?;
            jobs::enqueue(tx, &DeliverMessage { message, order: None, next: None, several: false }, now, &chance)?;
            Ok::<_, StoreError>(())
        });
        queued.await.unwrap();

        let shop = TestShop::start(t).await;
        shop.run_jobs().await;
        assert_eq!(shop.chat(CUSTOMER), ["Your money came"]);
        shop.finish().await;
    }
}
