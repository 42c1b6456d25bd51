//! The self-audit in production: what it finds broken stops the flows that it touches, money still comes in, and only the
//! owner lets it go on. And the log of the owner's actions.

use serde_json::{Value, json};

use semel_kernel::each_store;
use semel_kernel::jobs;
use semel_kernel::store::{Engine, StoreError};
use semel_sandbox::Provider;
use semel_shop::audit::{NightAudit, stops};
use semel_shop::owner_log::{Broken, Chain, Entry, Head};

use crate::app::{CUSTOMER, ROOMS, TestShop, an_order, minutes, refusal, text};

/// Does something to the database that no code of the program can do.
async fn plant(shop: &TestShop, statements: &'static [&'static str]) {
    let planted = shop.store.store.write("story.plant", move |tx| {
        for sql in statements {
            tx.execute(*sql, &[])?;
        }
        Ok::<(), StoreError>(())
    });
    planted.await.expect("the lie is planted");
}

/// A booking that does not balance, and what balances it again: entries of the books can be added and never taken back.
const LIE: &[&str] = &[
    "insert into postings (id, key, kind, posted_at) values ('txn_lie', 'lie', 'sale', semel_now())",
    "insert into entries (posting, account, currency, amount) values ('txn_lie', 'sales:shop:RUB', 'RUB', 5)",
];
const MEND: &[&str] =
    &["insert into entries (posting, account, currency, amount) values ('txn_lie', 'sales:shop:RUB', 'RUB', -5)"];

async fn open_stops(shop: &TestShop) -> Vec<Value> {
    let (status, answer) = shop.get("/api/v1/audit/stops?state=open").await;
    assert_eq!(status, 200, "stops are shown: {answer}");
    answer["items"].as_array().cloned().unwrap_or_default()
}

async fn release(shop: &TestShop, stop: &str, reason: &str) -> (u16, Value) {
    shop.post(&format!("/api/v1/audit/stops/{stop}/release"), json!({ "reason": reason })).await
}

/// What the schedule does at night.
async fn night(shop: &TestShop) {
    let chance = shop.store.chance.clone();
    let tick = shop.store.store.write("story.night", move |tx| {
        let now = tx.now();
        jobs::enqueue(tx, &NightAudit { tick: now.millis() }, now, &chance).map(|_| ())
    });
    let ticked: Result<(), StoreError> = tick.await;
    ticked.expect("the night's job is written");
    shop.run_jobs().await;
}

async fn log(shop: &TestShop) -> (Vec<Entry>, Head) {
    let (status, mut answer) = shop.get("/api/v1/audit/log?after=0&limit=200").await;
    assert_eq!(status, 200, "the log is shown: {answer}");
    let entries = serde_json::from_value(answer["items"].take()).expect("entries");
    (entries, serde_json::from_value(answer["head"].take()).expect("a head"))
}

fn read(entries: &[Entry], head: &Head) -> Result<(), Broken> {
    let mut chain = Chain::new(None);
    entries.iter().try_for_each(|entry| chain.take(entry))?;
    chain.end(head)
}

each_store! { ROOMS;
    async fn a_lie_in_fresh_rows_stops_the_money_and_money_still_comes_in(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let first = shop.sell(&key, "yookassa").await;
        let waiting = shop.order(&key, "yookassa").await;
        plant(&shop, LIE).await;
        shop.wait(minutes(1)).await;

        let open = open_stops(&shop).await;
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!(open[0]["predicate"], "M1");
        assert_eq!(open[0]["flows"], json!(["sales", "deliveries", "refunds", "payouts"]));
        assert_eq!(open[0]["rows"], json!(["(txn_lie,RUB)"]));
        let stop = text(&open[0]["id"]);
        assert!(shop.alerts().iter().any(|told| told.contains("M1") && told.contains(&stop)), "{:?}", shop.alerts());

        let refused = shop.post("/api/v1/orders", an_order(CUSTOMER, &key, "yookassa")).await;
        assert_eq!(refusal(&refused), "503 stopped");
        assert!(text(&refused.1["detail"]).starts_with("sales are stopped: "), "{}", refused.1);
        let link = shop.post(&format!("/api/v1/orders/{}/pay", waiting.id), json!({ "provider": "heleket" })).await;
        assert_eq!(refusal(&link), "503 stopped");
        assert_eq!(refusal(&shop.refund(&first, "balance", None).await), "503 stopped");
        // The stop is a row, so whoever else works on this database obeys it.
        let rival = shop.rival().await;
        let refused = rival.api.post("/api/v1/orders", an_order(CUSTOMER, &key, "yookassa")).await;
        assert_eq!(refusal(&refused), "503 stopped");

        shop.pay(&waiting);
        assert_eq!(shop.receive_all().await, 1, "the webhook is taken");
        shop.run_jobs().await;
        assert_eq!(shop.status(&waiting).await, "paid");
        assert_eq!(shop.number("select count(*) from postings where kind = 'capture'").await, 2);
        shop.wait(minutes(30)).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"], "the goods wait");
        assert_eq!(shop.show(&waiting).await["items"][0]["goods"], json!([]), "they are not shown either");

        assert_eq!(refusal(&release(&shop, &stop, " ").await), "422 invalid");
        let (status, released) = release(&shop, &stop, "a test of mine").await;
        assert_eq!((status, text(&released["state"])), (200, "released".to_owned()), "{released}");
        assert_eq!((text(&released["released_by"]), text(&released["reason"])), ("first".into(), "a test of mine".into()));
        assert_eq!(refusal(&release(&shop, &stop, "once more").await), "409 conflict");
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2"], "what waited goes on, once");
        assert_eq!(shop.status(&waiting).await, "delivered");

        // What the owner has looked at is known; the books cannot forget it.
        shop.stock(&key, &["KEY-3"]).await;
        shop.sell(&key, "yookassa").await;
        shop.wait(minutes(2)).await;
        assert!(open_stops(&shop).await.is_empty());
        assert_eq!(shop.delivered_to(CUSTOMER).len(), 3);
        plant(&shop, MEND).await;
        shop.finish().await;
    }

    async fn the_night_finds_what_fresh_rows_cannot_show_and_stops_only_what_it_touches(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        plant(&shop, &["update units set state = 'delivered' where state = 'available'"]).await;
        shop.wait(minutes(1)).await;
        assert!(open_stops(&shop).await.is_empty(), "an old row that changed is no new row");

        night(&shop).await;
        let open = open_stops(&shop).await;
        assert_eq!((open.len(), &open[0]["predicate"]), (1, &json!("D2")), "{open:?}");
        assert_eq!(open[0]["flows"], json!(["deliveries"]));
        shop.stock(&key, &["KEY-3"]).await;
        let second = shop.order(&key, "heleket").await;
        for paid in [&order, &second] {
            shop.pay(paid);
        }
        shop.receive_all().await;
        shop.run_jobs().await;
        for paid in [&order, &second] {
            assert_eq!(shop.status(paid).await, "paid", "sales go on, goods wait");
        }
        assert!(shop.delivered_to(CUSTOMER).is_empty());

        plant(&shop, &["update units set state = 'available' where state = 'delivered' and item is null"]).await;
        assert_eq!(release(&shop, &text(&open[0]["id"]), "the shelf was set right").await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER).len(), 2);
        shop.advance(minutes(1)).await;
        night(&shop).await;
        assert!(open_stops(&shop).await.is_empty());
        shop.finish().await;
    }

    async fn one_lie_is_one_stop_whoever_finds_it(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sell(&key, "yookassa").await;
        plant(&shop, LIE).await;
        night(&shop).await;
        shop.wait(minutes(1)).await;
        shop.advance(minutes(1)).await;
        night(&shop).await;
        assert_eq!(shop.number("select count(*) from audit_stops").await, 1);
        let told = shop.alerts().iter().filter(|told| told.contains("M1")).count();
        assert_eq!(told, 1, "the owner is told once: {:?}", shop.alerts());

        plant(&shop, MEND).await;
        let stop = text(&open_stops(&shop).await[0]["id"]);
        assert_eq!(release(&shop, &stop, "balanced again").await.0, 200);
        shop.finish().await;
    }

    async fn a_refund_on_its_way_waits_for_the_release(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.refund(&order, "provider", None).await.0, 200);
        plant(&shop, &[
            "insert into audit_stops (id, predicate, flows, found, state, at) values ('stp_story', 'M5', 'refunds', '[]', 'open', 1)",
        ]).await;
        stops::refresh(shop.shop()).await.unwrap();
        shop.run_jobs().await;
        shop.wait(minutes(20)).await;
        let given = || shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded;
        assert_eq!((given(), shop.status(&order).await.as_str()), (0, "refund_pending"));

        assert_eq!(release(&shop, "stp_story", "looked at").await.0, 200);
        shop.run_jobs().await;
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!((given(), shop.status(&order).await.as_str()), (99_000, "refunded"));
        shop.finish().await;
    }

    async fn a_state_that_somebody_changed_past_the_program_stops_what_leaves_the_shop(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        plant(&shop, &["update orders set state = 'paid'"]).await;
        shop.wait(minutes(1)).await;
        let open = open_stops(&shop).await;
        assert_eq!((open.len(), &open[0]["predicate"]), (1, &json!("G5s")), "{open:?}");
        assert_eq!(open[0]["flows"], json!(["deliveries", "refunds", "payouts"]));
        assert_eq!(open[0]["rows"], json!([format!("(order,{})", order.id)]));

        plant(&shop, &["update orders set state = 'delivered'"]).await;
        assert_eq!(release(&shop, &text(&open[0]["id"]), "it was me").await.0, 200);
        shop.finish().await;
    }

    async fn a_shop_in_which_nothing_happens_is_asked_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        let audits = "select count(*) from jobs where kind = 'audit.fresh'";
        assert_eq!(shop.number(audits).await, 0);
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sell(&key, "yookassa").await;
        assert_eq!(shop.number(audits).await, 1, "one for all that happened in a minute");
        for _ in 0..5 {
            shop.wait(minutes(1)).await;
        }
        assert_eq!(shop.number(audits).await, 1);
        assert_eq!(shop.number("select count(*) from jobs where kind = 'audit.fresh' and state = 'done'").await, 1);
        shop.finish().await;
    }

    async fn each_action_of_the_owner_is_one_entry_of_the_log(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product("Licence key", "990.00").await;
        let stock = format!("/api/v1/products/{key}/stock");
        for _ in 0..2 {
            let (status, _) = shop.post_with_key(&stock, json!({ "items": ["KEY-1", "KEY-2"] }), "import-1").await;
            assert_eq!(status, 200, "a repeat gets the answer of the first");
        }
        let order = shop.order(&key, "yookassa").await;
        let cancel = format!("/api/v1/orders/{}/cancel", order.id);
        assert_eq!(shop.post(&cancel, json!({ "reason": "changed my mind" })).await.0, 200);
        let sold = shop.sell(&key, "yookassa").await;
        assert_eq!(refusal(&shop.post(&format!("/api/v1/orders/{}/cancel", sold.id), json!({})).await), "409 conflict");
        assert_eq!(shop.patch(&format!("/api/v1/products/{key}"), json!({ "active": false })).await.0, 200);
        assert_eq!(shop.refund(&sold, "balance", Some("90.00")).await.0, 200);

        let (entries, head) = log(&shop).await;
        let told: Vec<String> =
            entries.iter().map(|entry| format!("{} {} {}", entry.action, entry.subject, entry.detail)).collect();
        assert_eq!(
            told,
            [
                r#"product.create  title Licence key; kind stock; price {"amount":"990.00","currency":"RUB"}"#.to_owned(),
                format!("stock.import {key} items 2"),
                format!("order.cancel {} reason changed my mind", order.id),
                format!("product.change {key} active false"),
                format!("order.refund {} to balance; amount 90.00; reason asked for", sold.id),
            ]
        );
        assert!(entries.iter().all(|entry| entry.actor == "first"));
        assert_eq!(read(&entries, &head), Ok(()));
        assert_eq!(shop.number("select count(*) from audit_log").await, 5, "the contract's view shows it");
        shop.finish().await;
    }

    async fn actions_of_two_copies_at_once_make_one_chain(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let key = shop.product("Licence key", "990.00").await;
        let doors = [shop.program.api.clone(), rival.api.clone()];
        let crowd: Vec<_> = (0..20)
            .map(|n| {
                let (door, path) = (doors[n % 2].clone(), format!("/api/v1/products/{key}/stock"));
                tokio::spawn(async move { door.post(&path, json!({ "items": [format!("KEY-{n}")] })).await.0 })
            })
            .collect();
        for import in crowd {
            assert_eq!(import.await.unwrap(), 200);
        }
        let (entries, head) = log(&shop).await;
        assert_eq!((entries.len(), head.seq), (21, 21));
        assert_eq!(read(&entries, &head), Ok(()));
        shop.finish().await;
    }

    async fn an_entry_that_was_changed_is_found(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let refused: Result<u64, StoreError> = shop
            .store
            .store
            .write("story.tamper", |tx| tx.execute("update audit_entries set detail = 'nothing' where seq = 1", &[]))
            .await;
        assert!(refused.is_err(), "entries of the log never change");
        let unlock: &[&str] = match shop.store.engine() {
            Engine::Sqlite => &["drop trigger audit_entries_no_update"],
            Engine::Postgres => &["drop trigger audit_entries_fixed on audit_entries"],
        };
        plant(&shop, unlock).await;
        plant(&shop, &["update audit_entries set detail = 'nothing' where seq = 1"]).await;
        assert_eq!(shop.patch(&format!("/api/v1/products/{key}"), json!({ "active": false })).await.0, 200);
        let (entries, head) = log(&shop).await;
        let broken = read(&entries, &head).expect_err("somebody was here");
        assert_eq!((broken.seq, broken.why.contains("it was changed")), (1, true), "{broken}");
        shop.finish().await;
    }
}
