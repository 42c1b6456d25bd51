//! The audit finds what breaks a promise, and nothing else, on both engines.
//!
//! Each story begins with an honest sale and plants one lie by raw SQL. Where a constraint stands in the way of a lie,
//! the story tears it down first; where it cannot be torn down, no lie can be planted: the business key of a posting
//! (M4, first query) and the fence of a lease (J2, second query) are keys of their tables. Promises about what is not
//! built yet read views that are always empty: payouts (M7), broadcasts (T6), the network (N1, N2, N5, N6), the chain
//! (S1), and effects under a lease (J3).

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::{Engine, StoreError};
use semel_kernel::testing::TestStore;
use semel_shop::ROOMS;
use semel_shop::audit::{
    self, HookRow, PREDICATES, Parameters, PayRow, RailRow, SupplierRow, TgRow, TruthRows, Verdict,
};

/// The views as the contract names them.
const VIEWS: &str = "
    audit_inbox(id, provider, merchant, event_id, body_hash, verified, state, reason, received_at, terminal_at)
    audit_tx(tx_id, tx_key, kind, provider, merchant, provider_payment_id, order_id, posted_at)
    audit_entry(seq, tx_id, account_id, currency, amount)
    audit_account(account_id, currency, kind, balance, floor)
    audit_order(order_id, account_id, user_id, currency, total, state)
    audit_item(item_id, order_id, qty, refunded_qty)
    audit_delivery(delivery_id, item_id, unit_id, n, state, fence, content_hash, at)
    audit_unit(unit_id, state, item_id, content_hash)
    audit_payout(payout_id, user_id, currency, amount, state, hold_tx, end_tx, effect_id)
    audit_effect(effect_id, kind, sink_class, lease, fence, request_hash, state, intent_at, ended_at)
    audit_msg(msg_id, dedup_key, chat_id, class, broadcast_id, state, queued_at, ended_at)
    audit_recipient(broadcast_id, chat_id)
    audit_job(job_id, kind, slot, state, attempts, max_attempts, run_at, lease_until, ended_at)
    audit_run(run_id, job_id, owner, fence, outcome, started_at, ended_at)
    audit_lease(lease, owner, fence, acquired_at, expires_at, ended_at, end_kind, ended_by)
    audit_sub(sub_id, user_id, state, paid_until)
    audit_peer(peer_id, sub_id, server, ip, pubkey, state, created_at, freed_at)
    audit_transition(entity, entity_id, seq, from_state, to_state, at)
    audit_state(entity, entity_id, order_id, state)
    audit_log(seq, prev_hash, hash, actor, action, at)
    payment_events(id, provider, event_id, event_type, payment_id, order_id, status, payload, received_at, processed_at)
";

/// One order of 9.00 RUB, paid with 10.00 and delivered; the rest went to the balance.
const SALE: &[&str] = &[
    "insert into customers (id, telegram_id, created_at) values ('cus_1', 100, 1)",
    "insert into products (id, title, description, kind, delivery, price, currency, active, created_at)
        values ('prd_1', 'Key', '', 'stock', 'instant', 900, 'RUB', true, 1)",
    "insert into orders (id, customer, state, currency, total, provider, deadline, version, created_at)
        values ('ord_1', 'cus_1', 'delivered', 'RUB', 900, 'yookassa', 1000, 3, 1)",
    "insert into items (id, order_id, position, product, title, kind, delivery, price, quantity)
        values ('itm_1', 'ord_1', 0, 'prd_1', 'Key', 'stock', 'instant', 900, 1)",
    "insert into units (id, product, content, content_hash, state, item, created_at)
        values ('unt_1', 'prd_1', 'KEY-1', 'h1', 'delivered', 'itm_1', 1)",
    "insert into deliveries (id, item, n, unit, state, content_hash, at) values ('dlv_1', 'itm_1', 1, 'unt_1', 'delivered', 'h1', 20)",
    "insert into payments (id, order_id, customer, provider, merchant, provider_id, state, currency, amount, received, key, created_at)
        values ('pay_1', 'ord_1', 'cus_1', 'yookassa', 'shop', 'p-1', 'paid', 'RUB', 900, 1000, 'pay_1', 1)",
    "insert into accounts (id, kind, owner, currency, balance, floor, created_at) values
        ('external:yookassa:shop:RUB', 'external', 'yookassa:shop', 'RUB', null, null, 1),
        ('order:ord_1:RUB', 'order', 'ord_1', 'RUB', null, 0, 1),
        ('customer:cus_1:RUB', 'customer', 'cus_1', 'RUB', 100, 0, 1),
        ('sales:shop:RUB', 'sales', 'shop', 'RUB', null, null, 1)",
    "insert into postings (id, key, kind, provider, merchant, provider_payment_id, order_id, posted_at) values
        ('txn_1', 'capture:yookassa:shop:p-1', 'capture', 'yookassa', 'shop', 'p-1', 'ord_1', 10),
        ('txn_2', 'sale:ord_1', 'sale', null, null, null, 'ord_1', 10)",
    "insert into entries (posting, account, currency, amount) values
        ('txn_1', 'external:yookassa:shop:RUB', 'RUB', -1000), ('txn_1', 'order:ord_1:RUB', 'RUB', 900),
        ('txn_1', 'customer:cus_1:RUB', 'RUB', 100), ('txn_2', 'order:ord_1:RUB', 'RUB', -900), ('txn_2', 'sales:shop:RUB', 'RUB', 900)",
    "insert into history (at, entity, entity_id, n, event, from_state, to_state) values
        (1, 'order', 'ord_1', 1, 'order made', null, 'pending'), (10, 'order', 'ord_1', 2, 'money came', 'pending', 'paid'),
        (20, 'order', 'ord_1', 3, 'goods delivered', 'paid', 'delivered'),
        (1, 'payment', 'pay_1', 1, 'payment written', null, 'created'), (10, 'payment', 'pay_1', 2, 'money came', 'created', 'paid')",
    "insert into jobs (id, kind, slot, lane, payload, manner, request_hash, outcome, state, attempts, max_attempts, run_at, created_at, ended_at)
        values ('job_1', 'message.send', 'msg_1', 'messages', '{}', 'blind', 'h2', 'confirmed', 'done', 1, 5, 10, 10, 20)",
    "insert into history (at, entity, entity_id, event, actor, to_state, took_ms) values
        (15, 'job', 'job_1', 'message.send', null, 'lost', null), (20, 'job', 'job_1', 'message.send', 'copy-a', 'ok', 3)",
    "insert into lease_terms (lease, fence, owner, acquired_at, expires_at, ended_at, end_kind, ended_by)
        values ('sender', 1, 'copy-a', 10, 100, 50, 'released', 'copy-a')",
    "insert into messages (id, dedup_key, chat_id, class, kind, body, state, order_id, queued_at, ended_at)
        values ('msg_1', 'goods:ord_1', 100, 'at_least_once', 'goods', '{}', 'sent', 'ord_1', 10, 20)",
];

/// A notice as it came in.
struct Came {
    id: &'static str,
    event: &'static str,
    body: &'static [u8],
    state: &'static str,
    verified: bool,
    reason: Option<&'static str>,
}

const HONEST: Came = Came { id: "inb_1", event: "evt-1", body: b"{}", state: "applied", verified: true, reason: None };

/// What the outside world logged about the sale.
fn truth() -> TruthRows {
    TruthRows {
        hooks: vec![hook("evt-1", "hash of inb_1", 200)],
        pays: vec![pay("p-1", 1000)],
        tg: vec![call("call-1", Some("msg_1"), 20)],
        ..TruthRows::default()
    }
}

fn hook(event: &str, body_hash: &str, status: i64) -> HookRow {
    HookRow {
        provider: "yookassa".into(),
        merchant: "shop".into(),
        event_id: event.into(),
        body_hash: body_hash.into(),
        status,
        sent_at: 9,
        answered_at: Some(10),
    }
}

fn pay(id: &str, captured: i64) -> PayRow {
    PayRow {
        provider: "yookassa".into(),
        merchant: "shop".into(),
        provider_payment_id: id.into(),
        currency: "RUB".into(),
        captured,
        refunded: 0,
    }
}

fn call(id: &str, message: Option<&str>, at: i64) -> TgRow {
    TgRow {
        call_id: id.into(),
        token: "bot".into(),
        chat_id: 100,
        method: "sendMessage".into(),
        msg_id: message.map(str::to_owned),
        accepted: true,
        answer_lost: false,
        retry_after: 0,
        scope: None,
        at,
    }
}

async fn plant(t: &TestStore, statements: &'static [&'static str]) {
    let planted: Result<(), StoreError> = t
        .store
        .write("test.plant", move |tx| {
            for statement in statements {
                tx.execute(*statement, &[])?;
            }
            Ok(())
        })
        .await;
    planted.unwrap_or_else(|error| panic!("{error}"));
}

async fn notice(t: &TestStore, came: Came) {
    let written: Result<u64, StoreError> = t
        .store
        .write("test.notice", move |tx| {
            let hash = format!("hash of {}", came.id);
            tx.execute(
                "insert into inbox (id, source, account, event_id, event, body_hash, body, headers, verified, subject, says,
                    state, reason, received_at) values ($1, 'yookassa', 'shop', $2, 'payment.succeeded', $3, $4, '{}', $5,
                    'pay_1', '{}', $6, $7, 10)",
                args![came.id, came.event, hash, came.body, came.verified, came.state, came.reason],
            )
        })
        .await;
    written.unwrap_or_else(|error| panic!("{error}"));
}

async fn sale(t: &TestStore) {
    plant(t, SALE).await;
    notice(t, HONEST).await;
}

async fn verdicts(t: &TestStore) -> Vec<Verdict> {
    audit::verify(&t.store, Parameters::default(), true).await.expect("every predicate can be asked")
}

fn names(verdicts: &[Verdict]) -> Vec<&'static str> {
    verdicts.iter().filter(|verdict| !verdict.holds()).map(|verdict| verdict.id).collect()
}

/// Which promises are broken, as far as the database alone can tell.
async fn broken(t: &TestStore) -> Vec<&'static str> {
    names(&verdicts(t).await)
}

/// How many rows break the promise `id`, and the first of them.
async fn violations(t: &TestStore, id: &str) -> (i64, Vec<String>) {
    let verdicts = verdicts(t).await;
    let verdict = verdicts.into_iter().find(|verdict| verdict.id == id).expect("this promise was asked about");
    (verdict.count, verdict.violations)
}

/// Which promises are broken by what the outside world logged.
async fn broken_by(t: &TestStore, truth: &TruthRows) -> Vec<&'static str> {
    let verdicts = audit::check_with_truth(&t.store, truth, Parameters::default(), true).await;
    names(&verdicts.expect("every predicate can be asked"))
}

semel_kernel::each_store! { ROOMS;
    /// Outside checkers read these by name and position.
    async fn every_view_has_the_columns_of_the_contract(t: TestStore) {
        for line in VIEWS.trim().lines() {
            let (view, columns) = line.trim().strip_suffix(')').and_then(|line| line.split_once('(')).expect("a view");
            let text = match t.engine() {
                Engine::Sqlite => format!("select name from pragma_table_info('{view}') order by cid"),
                Engine::Postgres => format!(
                    "select cast(column_name as text) from information_schema.columns
                     where table_schema = 'semel' and table_name = '{view}' order by ordinal_position"
                ),
            };
            let rows = t.store.rows_of("test.columns", text).await.expect("the columns of a view");
            let found: Vec<String> = rows.iter().map(|row| row.get(0).expect("a name")).collect();
            assert_eq!(found.join(", "), columns, "{view}");
        }
    }

    async fn an_empty_shop_breaks_no_promise(t: TestStore) {
        let verdicts = verdicts(&t).await;
        assert_eq!(names(&verdicts), [""; 0]);
        let asked: Vec<&str> = verdicts.iter().map(|verdict| verdict.id).collect();
        let alone = |query: &&str| !query.contains("gt_");
        let askable = PREDICATES.iter().filter(|predicate| predicate.queries.iter().any(alone));
        assert_eq!(asked, askable.map(|predicate| predicate.id).collect::<Vec<_>>());

        let all = audit::check_with_truth(&t.store, &TruthRows::default(), Parameters::default(), true).await.expect("all");
        assert_eq!(all.len(), PREDICATES.len());
        assert_eq!(names(&all), [""; 0]);
    }

    async fn an_honest_sale_breaks_no_promise(t: TestStore) {
        sale(&t).await;
        assert_eq!(broken(&t).await, [""; 0]);
        assert_eq!(broken_by(&t, &truth()).await, [""; 0]);
    }

    async fn entries_that_do_not_sum_to_zero_break_m1(t: TestStore) {
        sale(&t).await;
        plant(&t, &["insert into entries (posting, account, currency, amount) values ('txn_2', 'sales:shop:RUB', 'RUB', 5)"]).await;
        assert_eq!(broken(&t).await, ["M1"]);
        assert_eq!(violations(&t, "M1").await, (1, vec!["(txn_2,RUB)".to_owned()]));
    }

    async fn a_balance_that_is_not_the_sum_breaks_m2(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update accounts set balance = 700 where id = 'customer:cus_1:RUB'"]).await;
        assert_eq!(broken(&t).await, ["M2"]);
    }

    async fn a_floor_that_was_passed_once_breaks_m3_for_ever(t: TestStore) {
        sale(&t).await;
        // The table itself refuses a cached balance below the floor, so this lie is also one about the sum.
        plant(&t, &[
            "insert into postings (id, key, kind, posted_at) values ('txn_3', 'k3', 'spend', 30)",
            "insert into entries (posting, account, currency, amount) values
                ('txn_3', 'customer:cus_1:RUB', 'RUB', -150), ('txn_3', 'sales:shop:RUB', 'RUB', 150)",
        ]).await;
        assert_eq!(broken(&t).await, ["M2", "M3"]);
        plant(&t, &[
            "insert into postings (id, key, kind, posted_at) values ('txn_4', 'k4', 'gift', 40)",
            "insert into entries (posting, account, currency, amount) values
                ('txn_4', 'customer:cus_1:RUB', 'RUB', 150), ('txn_4', 'sales:shop:RUB', 'RUB', -150)",
        ]).await;
        assert_eq!(broken(&t).await, ["M3"]);
    }

    async fn a_payment_captured_twice_breaks_m4(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "drop index postings_capture",
            "insert into postings (id, key, kind, provider, merchant, provider_payment_id, posted_at)
                values ('txn_3', 'capture once more', 'capture', 'yookassa', 'shop', 'p-1', 30)",
            "insert into entries (posting, account, currency, amount) values
                ('txn_3', 'external:yookassa:shop:RUB', 'RUB', -1000), ('txn_3', 'sales:shop:RUB', 'RUB', 1000)",
        ]).await;
        assert_eq!(broken(&t).await, ["M4"]);
    }

    async fn more_money_back_than_came_breaks_m5(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into postings (id, key, kind, provider, merchant, provider_payment_id, posted_at)
                values ('txn_3', 'refund', 'refund', 'yookassa', 'shop', 'p-1', 30)",
            "insert into entries (posting, account, currency, amount) values
                ('txn_3', 'external:yookassa:shop:RUB', 'RUB', 1500), ('txn_3', 'sales:shop:RUB', 'RUB', -1500)",
        ]).await;
        assert_eq!(broken(&t).await, ["M5"]);
    }

    async fn orders_that_do_not_match_their_money_break_m9(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into orders (id, customer, state, currency, total, provider, deadline, created_at) values
                ('ord_2', 'cus_1', 'awaiting_stock', 'RUB', 500, 'yookassa', 1000, 1), ('ord_3', 'cus_1', 'expired', 'RUB', 500, 'yookassa', 1000, 1)",
            "insert into history (at, entity, entity_id, n, event, to_state) values
                (1, 'order', 'ord_2', 1, 'order made', 'awaiting_stock'), (1, 'order', 'ord_3', 1, 'order made', 'expired')",
            "insert into accounts (id, kind, owner, currency, floor, created_at) values ('order:ord_3:RUB', 'order', 'ord_3', 'RUB', 0, 1)",
            "insert into postings (id, key, kind, order_id, posted_at) values ('txn_3', 'k3', 'spend', 'ord_3', 30)",
            "insert into entries (posting, account, currency, amount) values
                ('txn_3', 'order:ord_3:RUB', 'RUB', 500), ('txn_3', 'sales:shop:RUB', 'RUB', -500)",
        ]).await;
        assert_eq!(broken(&t).await, ["M9"]);
        assert_eq!(violations(&t, "M9").await.0, 2);
    }

    async fn two_live_rows_of_one_event_break_g2(t: TestStore) {
        sale(&t).await;
        plant(&t, &["drop index inbox_live"]).await;
        notice(&t, Came { id: "inb_2", ..HONEST }).await;
        assert_eq!(broken(&t).await, ["G2"]);
    }

    async fn notices_without_end_or_reason_break_g3(t: TestStore) {
        sale(&t).await;
        notice(&t, Came { id: "inb_2", event: "evt-2", state: "received", ..HONEST }).await;
        notice(&t, Came { id: "inb_3", event: "evt-3", state: "ignored", ..HONEST }).await;
        notice(&t, Came { id: "inb_4", event: "evt-4", state: "ignored", reason: Some("not about a payment"), ..HONEST }).await;
        assert_eq!(broken(&t).await, ["G3"]);
        assert_eq!(violations(&t, "G3").await.0, 2);
    }

    async fn an_unproved_notice_that_acted_breaks_g4(t: TestStore) {
        sale(&t).await;
        notice(&t, Came { id: "inb_2", event: "evt-2", verified: false, ..HONEST }).await;
        assert_eq!(broken(&t).await, ["G4"]);
    }

    async fn gaps_and_breaks_in_a_story_break_g5(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into history (at, entity, entity_id, n, event, from_state, to_state) values
                (30, 'order', 'ord_1', 5, 'refund begun', 'delivered', 'refund_pending'),
                (20, 'payment', 'pay_1', 3, 'money came', 'pending', 'paid')",
        ]).await;
        assert_eq!(broken(&t).await, ["G5", "G5s"]);
        assert_eq!(violations(&t, "G5").await, (2, vec!["(order,ord_1)".to_owned(), "(pay_1)".to_owned()]));
        assert_eq!(violations(&t, "G5s").await, (1, vec!["(order,ord_1)".to_owned()]), "it still stands at delivered");
    }

    async fn a_state_that_no_history_led_to_breaks_g5s(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update orders set state = 'refunded' where id = 'ord_1'"]).await;
        assert_eq!(broken(&t).await, ["G5s"]);
        assert_eq!(violations(&t, "G5s").await, (1, vec!["(order,ord_1)".to_owned()]));
        plant(&t, &["update orders set state = 'delivered' where id = 'ord_1'", "update payments set state = 'pending'"]).await;
        assert_eq!(violations(&t, "G5s").await, (1, vec!["(payment,pay_1)".to_owned()]));
        plant(&t, &["update payments set state = 'paid'"]).await;
        assert_eq!(broken(&t).await, [""; 0]);

        plant(&t, &["update messages set state = 'queued'"]).await;
        assert_eq!(broken(&t).await, ["G5s", "T4"], "its job is done, and it waits all the same");
        plant(&t, &["update messages set state = 'sent'", "delete from history where entity = 'job' and to_state = 'ok'"]).await;
        assert_eq!(broken(&t).await, ["G5s"], "nobody sent it");
        assert_eq!(violations(&t, "G5s").await.1, ["(msg_1)"]);
    }

    async fn what_has_no_history_at_all_breaks_g5s(t: TestStore) {
        sale(&t).await;
        plant(&t, &["delete from history where entity = 'payment'"]).await;
        assert_eq!(broken(&t).await, ["G5s"]);
    }

    async fn a_position_delivered_twice_breaks_d1(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "drop index deliveries_position",
            "insert into deliveries (id, item, n, state, at) values ('dlv_2', 'itm_1', 1, 'sending', 30)",
        ]).await;
        assert_eq!(broken(&t).await, ["D1"]);
    }

    async fn a_unit_that_two_buyers_get_breaks_d2(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "drop index deliveries_unit",
            "insert into deliveries (id, item, n, unit, state, content_hash, at) values ('dlv_2', 'itm_1', 2, 'unt_1', 'sending', 'h1', 30)",
        ]).await;
        assert_eq!(broken(&t).await, ["D2"]);
    }

    async fn a_unit_that_went_to_nobody_breaks_d2(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into units (id, product, content, content_hash, state, created_at) values ('unt_2', 'prd_1', 'KEY-2', 'h9', 'delivered', 1)",
        ]).await;
        assert_eq!(broken(&t).await, ["D2"]);
    }

    /// The owner may take a bad key out of the trade after a buyer had it.
    async fn a_delivered_unit_that_is_taken_out_of_the_trade_breaks_nothing(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update units set state = 'void' where id = 'unt_1'"]).await;
        assert_eq!(broken(&t).await, [""; 0]);
    }

    async fn a_done_order_with_something_missing_breaks_d3(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update items set quantity = 2 where id = 'itm_1'"]).await;
        assert_eq!(broken(&t).await, ["D3"]);
    }

    async fn goods_before_the_money_break_d4(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update deliveries set at = 9 where id = 'dlv_1'"]).await;
        assert_eq!(broken(&t).await, ["D4"]);
    }

    async fn goods_other_than_the_reserved_ones_break_d5(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update deliveries set content_hash = 'other' where id = 'dlv_1'"]).await;
        assert_eq!(broken(&t).await, ["D5"]);
    }

    /// Time is the database's own, so it passes for the audit when it passes there.
    async fn a_message_that_never_ends_breaks_t4_after_the_deadline(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at)
                values ('msg_2', 'd2', 100, 'at_most_once', 'notice', '{}', 'queued', 1772355600000)",
        ]).await;
        t.advance(Duration::from_secs(15 * 60)).await;
        assert_eq!(broken(&t).await, [""; 0]);
        t.advance(Duration::from_millis(1)).await;
        assert_eq!(broken(&t).await, ["T4"]);

        let now = audit::verify(&t.store, Parameters::default(), false).await.expect("every predicate can be asked");
        assert!(now.iter().all(Verdict::holds), "what holds at rest only is not asked before");
    }

    async fn a_verdict_counts_all_and_shows_five(t: TestStore) {
        plant(&t, &[
            "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at) values
                ('msg_1', 'd1', 1, 'ordered', 'k', '{}', 'queued', 1), ('msg_2', 'd2', 1, 'ordered', 'k', '{}', 'queued', 1),
                ('msg_3', 'd3', 1, 'ordered', 'k', '{}', 'queued', 1), ('msg_4', 'd4', 1, 'ordered', 'k', '{}', 'sending', 1),
                ('msg_5', 'd5', 1, 'ordered', 'k', '{}', 'sending', 1), ('msg_6', 'd6', 1, 'ordered', 'k', '{}', 'sending', 1)",
        ]).await;
        let (count, shown) = violations(&t, "T4").await;
        assert_eq!((count, shown.len()), (6, 5));
    }

    async fn two_holders_at_once_break_j1(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into lease_terms (lease, fence, owner, acquired_at, expires_at, ended_at, end_kind, ended_by)
                values ('sender', 2, 'copy-b', 40, 100, 60, 'released', 'copy-b')",
        ]).await;
        assert_eq!(broken(&t).await, ["J1"]);
    }

    /// A lower fence after a higher one is also a holder beside another.
    async fn a_fence_that_shrinks_breaks_j2(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into lease_terms (lease, fence, owner, acquired_at, expires_at, ended_at, end_kind, ended_by) values
                ('sender', 3, 'copy-b', 70, 100, 75, 'released', 'copy-b'), ('sender', 2, 'copy-c', 80, 100, 90, 'expired', 'copy-b')",
        ]).await;
        assert_eq!(broken(&t).await, ["J1", "J2"]);
    }

    async fn a_slot_with_two_jobs_and_a_job_done_twice_break_j4(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "drop index jobs_slot",
            "insert into jobs (id, kind, slot, lane, payload, state, max_attempts, run_at, created_at)
                values ('job_2', 'message.send', 'msg_1', 'messages', '{}', 'cancelled', 5, 10, 10)",
            "insert into history (at, entity, entity_id, event, actor, to_state) values (30, 'job', 'job_1', 'message.send', 'copy-a', 'ok')",
        ]).await;
        assert_eq!(broken(&t).await, ["J4"]);
        assert_eq!(violations(&t, "J4").await, (2, vec!["(message.send,msg_1)".to_owned(), "(job_1)".to_owned()]));
    }

    async fn a_run_whose_claim_is_long_over_breaks_j5(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into jobs (id, kind, lane, payload, state, attempts, max_attempts, run_at, owner, fence, lease_until, created_at)
                values ('job_2', 'order.expire', 'care', '{}', 'running', 1, 5, 1772355600000, 'copy-a', 1, 1772355479999, 10)",
        ]).await;
        assert_eq!(broken(&t).await, ["J5"]);
    }

    async fn a_lease_released_by_another_hand_breaks_j6(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update lease_terms set ended_by = 'copy-b' where lease = 'sender'"]).await;
        assert_eq!(broken(&t).await, ["J6"]);
    }

    /// A job that is to run later is not lost, and what a hand did to a job is no run.
    async fn a_due_job_that_nobody_runs_breaks_j7(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into jobs (id, kind, lane, payload, state, max_attempts, run_at, created_at) values
                ('job_2', 'order.expire', 'care', '{}', 'ready', 5, 1772355600001, 10), ('job_3', 'order.expire', 'care', '{}', 'ready', 5, 20, 10)",
            "insert into history (at, entity, entity_id, event, actor) values (30, 'job', 'job_3', 'retried by hand', 'owner')",
        ]).await;
        assert_eq!(broken(&t).await, ["J7"]);
        assert_eq!(violations(&t, "J7").await.1, ["(job_3)"]);
        assert_eq!(t.number("select count(*) from audit_run").await, 2);
    }

    async fn endless_attempts_break_j8(t: TestStore) {
        sale(&t).await;
        plant(&t, &["update jobs set attempts = 10 where id = 'job_1'"]).await;
        assert_eq!(broken(&t).await, [""; 0]);
        plant(&t, &["update jobs set attempts = 11 where id = 'job_1'"]).await;
        assert_eq!(broken(&t).await, ["J8"]);
    }

    /// A job without a manner is no effect.
    async fn an_effect_without_an_end_breaks_e2(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into jobs (id, kind, lane, payload, manner, state, max_attempts, run_at, created_at) values
                ('job_2', 'refund.run', 'money', '{}', 'keyed', 'ready', 5, 1772355600000, 10),
                ('job_3', 'order.expire', 'care', '{}', null, 'ready', 5, 1772355600000, 10)",
        ]).await;
        assert_eq!(broken(&t).await, ["E2"]);
        assert_eq!(violations(&t, "E2").await.1, ["(job_2)"]);
    }

    /// The words of the contract for each state of a job that calls out.
    async fn an_effect_says_what_became_of_its_call(t: TestStore) {
        plant(&t, &[
            "insert into jobs (id, kind, lane, payload, manner, outcome, state, max_attempts, run_at, created_at) values
                ('job_1', 'k', 'l', '{}', 'keyed', null, 'ready', 5, 1, 1), ('job_2', 'k', 'l', '{}', 'keyed', null, 'running', 5, 1, 1),
                ('job_3', 'k', 'l', '{}', 'keyed', 'confirmed', 'done', 5, 1, 1), ('job_4', 'k', 'l', '{}', 'keyed', null, 'dead', 5, 1, 1),
                ('job_5', 'k', 'l', '{}', 'keyed', 'failed', 'dead', 5, 1, 1), ('job_6', 'k', 'l', '{}', 'keyed', null, 'cancelled', 5, 1, 1)",
        ]).await;
        let states = t.texts("select state from audit_effect order by effect_id").await;
        assert_eq!(states, ["intended", "sent", "confirmed", "unknown", "failed", "failed"]);
    }

    async fn money_that_the_provider_tells_otherwise_breaks_m8(t: TestStore) {
        sale(&t).await;
        assert_eq!(broken_by(&t, &TruthRows { pays: vec![pay("p-1", 1100)], ..truth() }).await, ["M8"]);
        assert_eq!(broken_by(&t, &TruthRows { pays: vec![], ..truth() }).await, ["M8"]);
        assert_eq!(broken_by(&t, &TruthRows { pays: vec![pay("p-1", 1000), pay("p-2", 7)], ..truth() }).await, ["M8"]);
    }

    async fn an_acknowledged_notice_without_a_row_breaks_g1(t: TestStore) {
        sale(&t).await;
        let mut told = truth();
        told.hooks.push(hook("evt-2", "hash of another", 503));
        assert_eq!(broken_by(&t, &told).await, [""; 0]);
        told.hooks.push(hook("evt-2", "hash of another", 200));
        assert_eq!(broken_by(&t, &told).await, ["G1"]);
    }

    async fn a_second_body_that_was_not_kept_breaks_g6(t: TestStore) {
        sale(&t).await;
        let mut told = truth();
        told.hooks.push(hook("evt-1", "hash of the second", 200));
        assert_eq!(broken_by(&t, &told).await, ["G1", "G6"]);
    }

    async fn a_rail_or_supplier_asked_without_need_is_found(t: TestStore) {
        sale(&t).await;
        let sent = |payout: &str| RailRow {
            rail: "ton".into(),
            reference: "eff_1".into(),
            payout_id: payout.into(),
            currency: "TON".into(),
            amount: 5,
            request_hash: "h".into(),
            at: 30,
        };
        assert_eq!(broken_by(&t, &TruthRows { rails: vec![sent("out_1")], ..truth() }).await, ["M7 ◷", "E1"]);
        let twice = vec![sent("out_1"), sent("out_1")];
        assert_eq!(broken_by(&t, &TruthRows { rails: twice, ..truth() }).await, ["M7", "M7 ◷", "E1"]);

        let asked = SupplierRow { reference: "eff_2".into(), item_id: "itm_1".into(), request_hash: "h".into(), at: 30 };
        assert_eq!(broken_by(&t, &TruthRows { suppliers: vec![asked.clone(), asked], ..truth() }).await, ["D6"]);
    }

    async fn calls_that_telegram_did_not_want_break_t1_and_t2(t: TestStore) {
        sale(&t).await;
        let mut told = truth();
        told.tg.extend((0..30).map(|n| call(&format!("fast-{n}"), Some(&format!("other-{n}")), 5000)));
        assert_eq!(broken_by(&t, &told).await, [""; 0]);
        told.tg.push(call("fast-30", Some("other-30"), 5999));
        assert_eq!(broken_by(&t, &told).await, ["T1"]);

        let slow_down = TgRow { accepted: false, retry_after: 5, scope: Some("token".into()), ..call("call-2", Some("other"), 1000) };
        let tg = |next: i64| vec![call("call-1", Some("msg_1"), 20), slow_down.clone(), call("call-3", Some("other"), next)];
        assert_eq!(broken_by(&t, &TruthRows { tg: tg(3000), ..truth() }).await, ["T2"]);
        assert_eq!(broken_by(&t, &TruthRows { tg: tg(6000), ..truth() }).await, [""; 0]);
    }

    async fn messages_that_came_twice_or_never_break_t3(t: TestStore) {
        sale(&t).await;
        let twice = |answer_lost| vec![TgRow { answer_lost, ..call("call-1", Some("msg_1"), 20) }, call("call-2", Some("msg_1"), 3000)];
        assert_eq!(broken_by(&t, &TruthRows { tg: twice(true), ..truth() }).await, [""; 0]);
        assert_eq!(broken_by(&t, &TruthRows { tg: twice(false), ..truth() }).await, ["T3"]);
        assert_eq!(broken_by(&t, &TruthRows { tg: vec![], ..truth() }).await, ["T3 ◷"]);
        plant(&t, &["update messages set class = 'at_most_once'"]).await;
        assert_eq!(broken_by(&t, &TruthRows { tg: twice(true), ..truth() }).await, ["T3"]);
    }

    async fn messages_in_another_order_than_promised_break_t5(t: TestStore) {
        sale(&t).await;
        plant(&t, &[
            "insert into messages (id, dedup_key, chat_id, class, kind, body, state, queued_at) values
                ('msg_2', 'd2', 100, 'ordered', 'k', '{}', 'sent', 1), ('msg_3', 'd3', 100, 'ordered', 'k', '{}', 'sent', 2)",
        ]).await;
        let mut told = truth();
        told.tg.push(call("call-2", Some("msg_3"), 3000));
        told.tg.push(call("call-3", Some("msg_2"), 6000));
        assert_eq!(broken_by(&t, &told).await, ["T5"]);
    }

    /// Owners of older bots read this name. A body that is no text must not break their report.
    async fn payment_events_are_readable_whatever_came_in(t: TestStore) {
        plant(&t, SALE).await;
        notice(&t, Came { body: "{\"from\":\"Анна\",\"path\":\"a\\\\b\"}".as_bytes(), ..HONEST }).await;
        notice(&t, Came { id: "inb_2", event: "evt-2", body: b"{\xff}", ..HONEST }).await;
        let rows = t.rows("select payload, payment_id, order_id, status, event_type from payment_events order by id").await;
        let column = |row: usize, index: usize| rows[row].get::<String>(index).expect("text");
        assert_eq!(column(0, 0), "{\"from\":\"Анна\",\"path\":\"a\\\\b\"}");
        assert_eq!((column(0, 1), column(0, 2), column(0, 3)), ("pay_1".into(), "ord_1".into(), "applied".into()));
        assert_eq!(column(0, 4), "payment.succeeded");
        assert!(column(1, 0).starts_with('{'));
    }
}
