//! After a restore: nothing is sold, handed over or paid out before the owner says so, and nothing that came is lost. The
//! restore itself, with its files and tools, is told in `process/restore.rs`.

use std::time::Duration;

use expect_test::expect;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use semel_kernel::each_store;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry, Workers, WorkersOptions};
use semel_kernel::store::StoreError;
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::Shop;
use semel_shop::safety::{self, Restored};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, minutes, refusal, text};

/// What a restore leaves to the first start: the database is a backup of this moment.
async fn restored(shop: &TestShop) {
    let now = shop.shop().now();
    let restored = Restored { backup_at: now, restored_at: now };
    let noted = shop.store.store.write("story.restored", move |tx| safety::flows::note_restored(tx, &restored));
    noted.await.unwrap();
    // A process that has read "no" before the restore does not live on in the world; here it does.
    safety::flows::settle(&shop.store.store).await.unwrap();
    let mode = safety::flows::load(shop.shop()).await.unwrap().expect("safe mode is on");
    safety::flows::begin(shop.shop(), &mode).await.unwrap();
}

async fn view(shop: &TestShop) -> Value {
    let (status, view) = shop.get("/api/v1/safe").await;
    assert_eq!(status, 200, "safe mode is shown: {view}");
    view
}

/// The rails that are reconciled.
fn reconciled(view: &Value) -> Vec<String> {
    let rails = view["rails"].as_array().cloned().unwrap_or_default();
    rails.iter().filter(|rail| rail["reconciled"] == true).map(|rail| text(&rail["provider"])).collect()
}

async fn leave(shop: &TestShop) {
    shop.run_jobs().await;
    let by_hand = json!({ "provider": "crystalpay", "by_hand": "compared with its cabinet" });
    let (status, view) = shop.post("/api/v1/safe/reconcile", by_hand).await;
    assert_eq!((status, reconciled(&view).len()), (202, 3), "{view}");
    let (status, view) = shop.post("/api/v1/safe/leave", json!({ "reason": "all is booked" })).await;
    assert_eq!((status, &view["safe_mode"]), (200, &json!(false)), "{view}");
    shop.run_jobs().await;
}

async fn release(shop: &TestShop, product: &str) -> i64 {
    let body = json!({ "product": product, "reason": "nobody has them" });
    let (status, released) = shop.post("/api/v1/stock/release", body).await;
    assert_eq!(status, 200, "{released}");
    shop.run_jobs().await;
    released["released"].as_i64().unwrap_or_default()
}

/// A job that has seen that safe mode is on and is about to wait for its end; perhaps the owner ends it at this very moment.
#[derive(Debug, Serialize, Deserialize)]
struct AboutToWait {
    ends_meanwhile: bool,
}

impl Job for AboutToWait {
    type Context = Shop;
    const KIND: &'static str = "story.about_to_wait";
    const LANE: &'static str = "story";
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(1), 3);

    fn slot(&self) -> Option<String> {
        Some(if self.ends_meanwhile { "second" } else { "first" }.to_owned())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        assert!(safety::flows::mode(shop).await?.is_some() || !self.ends_meanwhile, "safe mode is on");
        if self.ends_meanwhile {
            safety::flows::leave(shop, "all is booked".to_owned(), true, "operator".to_owned()).await?;
        }
        if let Some(ended) = safety::flows::put_off(shop, &claim).await? {
            return Ok(ended);
        }
        let ended = shop.write("story.went_on", move |tx, _| Ok(claim.finish(tx)?));
        Ok(ended.await?)
    }
}

async fn hear(shop: &TestShop) {
    shop.receive_all().await;
    shop.run_jobs().await;
}

each_store! { ROOMS;
    async fn in_safe_mode_money_is_booked_and_nothing_is_sold_or_handed_over(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let waiting = shop.order(&key, "yookassa").await;
        restored(&shop).await;

        let order = json!({ "customer": { "telegram_id": 7 }, "items": [{ "product": key }], "provider": "heleket" });
        assert_eq!(refusal(&shop.post("/api/v1/orders", order).await), "503 safe-mode");
        let pay = format!("/api/v1/orders/{}/pay", waiting.id);
        assert_eq!(refusal(&shop.post(&pay, json!({ "provider": "heleket" })).await), "503 safe-mode");
        assert_eq!(shop.available(&key).await, 0, "what the backup calls available may be sold by now");

        shop.pay(&waiting);
        hear(&shop).await;
        assert_eq!(shop.status(&waiting).await, "paid");
        assert!(shop.delivered_to(CUSTOMER).is_empty(), "nothing is handed over");
        expect![[r#"
            sales     +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        assert_eq!(refusal(&shop.refund(&waiting, "balance", None).await), "503 safe-mode");
        let seen = view(&shop).await;
        assert_eq!((&seen["safe_mode"], &seen["withheld_deliveries"]), (&json!(true), &json!(1)), "{seen}");
        assert_eq!(seen["held_back"][0]["units"], 2, "one on the shelf, one of the order that was not paid: {seen}");
        assert_eq!(reconciled(&seen), ["yookassa", "heleket"], "their lists were read");
        let (_, ready) = shop.get("/readyz").await;
        assert_eq!(ready["status"], "safe mode", "{ready}");
        assert!(shop.alerts().iter().any(|alert| alert.contains("Safe mode")), "{:?}", shop.alerts());

        let early = shop.post("/api/v1/safe/leave", json!({ "reason": "in a hurry" })).await;
        assert_eq!(refusal(&early), "409 conflict", "CrystalPay has no list and was not compared");
        assert!(early.1.to_string().contains("crystalpay"), "{}", early.1);
        leave(&shop).await;
        assert!(shop.delivered_to(CUSTOMER).is_empty(), "its unit may be somebody else's");
        assert_eq!(shop.available(&key).await, 0, "safe mode is over, and the stock is still held back");

        assert_eq!(release(&shop, &key).await, 2);
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(shop.status(&waiting).await, "delivered");
        shop.sell(&key, "yookassa").await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2"]);
        shop.finish().await;
    }

    /// Whoever begins to wait at that moment would sleep for minutes after the end.
    async fn nobody_sleeps_past_the_end_of_safe_mode(t: TestStore) {
        let shop = TestShop::start(t).await;
        restored(&shop).await;
        let (store, chance) = (shop.store.store.clone(), shop.store.chance.clone());
        let options = WorkersOptions::new("story".to_owned());
        let workers = Workers::new(store.clone(), chance.clone(), options).with::<AboutToWait>();
        let stand = "select slot || ' ' || state || ' ' || case when run_at > semel_now() then 'later' else 'now' end
            from jobs where kind = 'story.about_to_wait' order by slot";
        for (ends_meanwhile, wanted) in [(false, vec!["first ready later"]), (true, vec!["first done now", "second done now"])] {
            let chance = chance.clone();
            let written = store.write("story.enqueue", move |tx| {
                let now = tx.now();
                jobs::enqueue(tx, &AboutToWait { ends_meanwhile }, now, &chance).map(|_| ())
            });
            let written: Result<(), StoreError> = written.await;
            written.unwrap();
            workers.run_due(shop.shop()).await.unwrap();
            assert_eq!(shop.store.texts(stand).await, wanted);
        }
        assert_eq!(view(&shop).await["safe_mode"], false);
        shop.run_jobs().await;
        shop.finish().await;
    }

    async fn a_payment_that_the_backup_does_not_know_waits_in_suspense(t: TestStore) {
        let shop = TestShop::start(t).await;
        restored(&shop).await;
        let lost = json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
        let lost = text(&shop.at_yookassa("/payments", lost).await["id"]);
        shop.sandbox.pay(Provider::Yookassa, &lost).unwrap();
        shop.lose_all();
        shop.run_jobs().await;
        expect![[r#"
            suspense  +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        assert!(shop.alerts().iter().any(|alert| alert.contains("no order of ours asked for it")));

        let again = json!({ "provider": "yookassa" });
        assert_eq!(refusal(&shop.post("/api/v1/safe/reconcile", again).await), "409 conflict", "it is reconciled");
        leave(&shop).await;
        assert_eq!(shop.number("select count(*) from suspense").await, 1, "it is booked once");
        shop.finish().await;
    }

    /// Its goods may have gone out after the backup, so neither goods nor balance are given for it.
    async fn money_for_an_order_that_had_expired_is_the_owners_decision(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let late = shop.order(&key, "heleket").await;
        shop.wait(minutes(31)).await;
        assert_eq!(shop.status(&late).await, "expired");
        restored(&shop).await;
        shop.sandbox.expire(late.at(), &late.provider_id).unwrap();
        shop.pay(&late);
        hear(&shop).await;
        assert_eq!(shop.status(&late).await, "expired");
        assert_eq!(shop.balance(CUSTOMER).await, "nothing");
        assert_eq!(shop.number("select count(*) from suspense where state = 'open'").await, 1);
        assert!(shop.alerts().iter().any(|alert| alert.contains("had expired in the backup")), "{:?}", shop.alerts());
        leave(&shop).await;
        shop.finish().await;
    }

    async fn an_order_that_was_to_expire_is_looked_into_first(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        restored(&shop).await;
        shop.wait(minutes(31)).await;
        assert_eq!(shop.status(&order).await, "pending", "it may have been paid after the backup");
        leave(&shop).await;
        assert_eq!(shop.status(&order).await, "expired");
        assert_eq!(shop.available(&key).await, 0, "what it held is held back");
        assert_eq!(release(&shop, &key).await, 1);
        assert_eq!(shop.available(&key).await, 1);
        shop.finish().await;
    }

    async fn what_is_new_in_safe_mode_is_sold_after_it_without_a_release(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["OLD"]).await;
        restored(&shop).await;
        shop.stock(&key, &["NEW"]).await;
        leave(&shop).await;
        let order: OrderHandle = shop.sell(&key, "yookassa").await;
        assert_eq!((shop.status(&order).await, shop.delivered_to(CUSTOMER)), ("delivered".into(), vec!["NEW".to_owned()]));
        assert_eq!(view(&shop).await["held_back"][0]["units"], 1);
        shop.finish().await;
    }

    /// A message that may go twice goes again; one that may not is unknown, because it may have gone after the backup.
    async fn what_the_backup_still_had_to_say_is_said_again_only_where_twice_is_harmless(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let silent = shop.sandbox.fault(Target::Telegram(String::new()), Fault::Status(401), None);
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        hear(&shop).await;
        let waiting = "select distinct kind || ' ' || state from messages order by 1";
        assert_eq!(shop.store.texts(waiting).await, ["alert queued", "goods queued"], "Telegram takes nothing");
        restored(&shop).await;
        assert_eq!(shop.store.texts(waiting).await, ["alert unknown", "goods queued"]);
        shop.sandbox.lift_fault(silent);
        shop.wait(minutes(30)).await;
        assert!(shop.delivered_to(CUSTOMER).is_empty(), "goods wait for the end of safe mode");
        leave(&shop).await;
        shop.wait(minutes(30)).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }
}
