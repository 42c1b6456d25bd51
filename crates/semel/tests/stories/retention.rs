//! What only takes room goes when it is old, and nothing that anybody could still ask for goes with it.

use std::time::Duration;

use semel_kernel::{each_store, jobs};
use semel_shop::Error;
use semel_shop::retention::Retention;

use crate::app::{CUSTOMER, ROOMS, TestShop};
use crate::bot::{STRANGER, tell};

const DAY: Duration = Duration::from_secs(24 * 3600);

const BODIES: &str = "select count(*) from inbox where length(body) > 0";
const CONFIRMS: &str = "select count(*) from jobs where kind = 'payment.confirm'";
const SENDS: &str = "select count(*) from jobs where kind = 'message.send'";
const ANSWERS: &str = "select count(*) from messages where kind = 'answer'";
const UPDATES: &str = "select count(*) from jobs where kind = 'bot.update'";
const ALERTS: &str = "select count(*) from jobs where kind = 'owner.alert'";

/// The night's tick comes, and its job is run.
async fn night(shop: &TestShop) {
    let ticked = shop.shop().write("story.night", move |tx, shop| {
        let now = tx.now();
        jobs::enqueue(tx, &Retention { tick: now.millis() }, now, &shop.chance)?;
        Ok::<_, Error>(())
    });
    ticked.await.unwrap();
    shop.run_jobs().await;
}

each_store! { ROOMS;
    async fn after_ninety_days_bodies_and_jobs_go_and_every_promise_can_still_be_proved(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        shop.sell(&key, "yookassa").await;
        let short = shop.order(&key, "heleket").await;
        shop.pay_amount(&short, "900.00");
        shop.receive_all().await;
        shop.run_jobs().await;
        let old = shop.sandbox.hooks();
        shop.advance(DAY * 91).await;
        shop.run_jobs().await;
        let young = shop.sell(&key, "crystalpay").await;
        assert_eq!((shop.number(BODIES).await, shop.number(CONFIRMS).await), (3, 3));
        let (alerts, messages) = (shop.number(ALERTS).await, shop.number("select count(*) from messages").await);
        assert!(alerts > 0 && shop.number(SENDS).await >= 4, "there is something to forget");
        let runs = "select count(*) from history where entity = 'job' and event = 'payment.confirm' and to_state = 'ok'";
        let ran = shop.number(runs).await;

        night(&shop).await;
        assert_eq!((shop.number(BODIES).await, shop.number(CONFIRMS).await), (1, 1), "the young ones stay");
        assert_eq!(shop.number("select count(*) from inbox where length(body_hash) = 64").await, 3);
        let of_old = "select count(*) from jobs j join messages m on m.id = j.slot where j.kind = 'message.send'
            and m.queued_at < semel_now() - 86400000";
        assert_eq!(shop.number(of_old).await, 0);
        assert_eq!(shop.number("select count(*) from messages").await, messages, "messages themselves stay");
        assert_eq!(shop.number(ALERTS).await, alerts, "an alert is told once for ever");
        assert_eq!(shop.number(runs).await, ran, "what was done stands in the history");

        // The provider repeats itself after a quarter of a year: it is answered as ever, and nothing happens twice.
        for hook in &old {
            assert_eq!(shop.sandbox.send_hook(hook.id).await.status, Some(200));
        }
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2"]);
        assert_eq!(shop.status(&young).await, "delivered");
        let repeated = shop.number("select count(*) from inbox where seen = 2 and length(body) = 0").await;
        assert_eq!((shop.number("select count(*) from inbox").await, repeated), (3, 2));
        assert_eq!(shop.number("select count(*) from postings where kind = 'capture'").await, 3);
        assert_eq!(shop.number(ALERTS).await, alerts);

        // Nothing is left to do the next night.
        shop.advance(DAY).await;
        night(&shop).await;
        assert_eq!((shop.number(BODIES).await, shop.number(CONFIRMS).await), (1, 1));
        shop.finish().await;
    }

    async fn what_the_bot_answered_goes_and_what_was_sold_stays(t: TestStore) {
        let shop = TestShop::start(t).await;
        tell(&shop, STRANGER, "/start").await;
        tell(&shop, STRANGER, "/support where is it").await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sell(&key, "yookassa").await;
        shop.advance(DAY * 91).await;
        tell(&shop, STRANGER, "/help").await;
        let words = "select count(*) from messages where dedup_key like 'alert:support:%'";
        assert_eq!((shop.number(ANSWERS).await, shop.number(words).await, shop.number(UPDATES).await), (3, 1, 3));
        let others = "select count(*) from messages where kind <> 'answer' and dedup_key not like 'alert:support:%'";
        let sold = shop.number(others).await;

        night(&shop).await;
        assert_eq!((shop.number(ANSWERS).await, shop.number(words).await, shop.number(UPDATES).await), (1, 0, 1));
        assert_eq!(shop.number(others).await, sold, "goods, money and alerts stay");
        shop.finish().await;
    }

    async fn an_owner_may_keep_everything(t: TestStore) {
        let keep = [("SEMEL_RETENTION_INBOX_DAYS", "0"), ("SEMEL_RETENTION_JOBS_DAYS", "0")];
        let shop = TestShop::with(t, &keep).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sell(&key, "yookassa").await;
        shop.advance(DAY * 4000).await;
        night(&shop).await;
        assert_eq!((shop.number(BODIES).await, shop.number(CONFIRMS).await), (1, 1));
        shop.finish().await;
    }

    async fn a_waiting_payment_and_its_notice_are_never_too_old(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_RETENTION_INBOX_DAYS", "1"), ("SEMEL_RETENTION_JOBS_DAYS", "1")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        shop.receive_all().await;
        // The workers stand still for three days, as after a bad update; only the night's work is done.
        shop.advance(DAY * 3).await;
        let store = &shop.store.store;
        let before = store.now() - DAY;
        let bodies = store.write("story.bodies", move |tx| semel_kernel::retention::empty_bodies(tx, before, 500));
        assert_eq!(bodies.await.unwrap().changed, 0);
        let kinds = semel_shop::retention::FORGOTTEN;
        let forgotten =
            store.write("story.jobs", move |tx| semel_kernel::retention::forget_jobs(tx, kinds, before, 500));
        assert_eq!(forgotten.await.unwrap().changed, 0);

        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }
}
