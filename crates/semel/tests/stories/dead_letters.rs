//! Jobs that die for good: what they were to look after ends all the same, and a hand can go on from there.

use std::time::Duration;

use serde_json::json;

use semel_kernel::jobs::Job;
use semel_kernel::{args, each_store};
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::Error;
use semel_shop::checkout::{ConfirmPayment, ResolveHint};
use semel_shop::messages::{self, Body, Class, DeliverMessage, New};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, text};

const LOST: &str = "refund.succeeded quarantined: the job that looks into it gave up: the worker was lost";

/// The waiting job of this kind is in its last attempt, and its worker has stopped renewing the claim.
async fn runs_for_the_last_time(shop: &TestShop, kind: &'static str) {
    let lost = shop.shop().write("story.lost", move |tx, _| {
        let claimed = tx.execute(
            "update jobs set state = 'running', attempts = max_attempts, fence = fence + 1, owner = 'gone', claimed_at = semel_now(),
             lease_until = semel_now() - 1 where kind = $1 and state = 'ready'",
            args![kind],
        )?;
        Ok::<_, Error>(claimed)
    });
    assert_eq!(lost.await.unwrap(), 1, "one job of the kind {kind} waits");
}

/// The worker of the waiting job of this kind is lost in the last attempt.
async fn is_lost(shop: &TestShop, kind: &'static str) {
    runs_for_the_last_time(shop, kind).await;
    assert_eq!(shop.program.app.workers().recover().await, Ok(1));
}

/// The dead letters, the newest first.
async fn dead(shop: &TestShop) -> Vec<String> {
    let (status, listed) = shop.get("/api/v1/jobs?state=dead").await;
    assert_eq!(status, 200, "jobs are listed: {listed}");
    listed["items"].as_array().unwrap().iter().map(|job| text(&job["id"])).collect()
}

async fn retry(shop: &TestShop, job: &str) {
    let (status, answer) = shop.post(&format!("/api/v1/jobs/{job}/retry"), json!({})).await;
    assert_eq!(status, 202, "a job is retried: {answer}");
    shop.run_jobs().await;
}

/// A sold key whose money went back in YooKassa's cabinet; the notice of it came, and nobody has looked into it yet.
async fn refunded_elsewhere(shop: &TestShop) -> OrderHandle {
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let order = shop.sell(&key, "yookassa").await;
    let amount = json!({ "value": "990.00", "currency": "RUB" });
    shop.at_yookassa("/refunds", json!({ "payment_id": order.provider_id, "amount": amount })).await;
    shop.receive_all().await;
    order
}

/// How the notice of the refund stands.
async fn refund_notice(shop: &TestShop) -> String {
    shop.inbox().await.into_iter().find(|notice| notice.starts_with("refund.succeeded")).unwrap_or_default()
}

/// The worker of the waiting job of this kind is lost in a try that is not the last.
async fn is_lost_on_the_way(shop: &TestShop, kind: &'static str) {
    let lost = shop.shop().write("story.lost", move |tx, _| {
        let claimed = tx.execute(
            "update jobs set state = 'running', attempts = attempts + 1, fence = fence + 1, owner = 'gone', claimed_at = semel_now(),
             lease_until = semel_now() - 1 where kind = $1 and state = 'ready'",
            args![kind],
        )?;
        Ok::<_, Error>(claimed)
    });
    assert_eq!(lost.await.unwrap(), 1, "one job of the kind {kind} waits");
    assert_eq!(shop.program.app.workers().recover().await, Ok(1));
}

each_store! { ROOMS;
    /// The call of a worker that died may have arrived, whatever becomes of the job afterwards.
    async fn a_retry_by_hand_does_not_forget_the_try_of_a_lost_worker(t: TestStore) {
        let shop = TestShop::start(t).await;
        let away = shop.sandbox.fault(Target::Telegram("sendMessage".to_owned()), Fault::Status(409), None);
        let said = shop.shop().write("story.say", |tx, shop| {
            let body = Body::Text { html: "news".to_owned() };
            let (dedup_key, class) = ("news".to_owned(), Class::AtLeastOnce);
            messages::flows::queue(tx, shop, New { dedup_key, chat_id: CUSTOMER, class, kind: "news", body, order: None })
        });
        said.await.unwrap();
        is_lost_on_the_way(&shop, DeliverMessage::KIND).await;
        shop.run_jobs().await;
        let fate = "select state || ' ' || uncertain from messages where kind = 'news'";
        assert_eq!(shop.store.texts(fate).await, ["queued 0"], "this try certainly sent nothing");

        let (status, waiting) = shop.get("/api/v1/jobs?state=ready").await;
        assert_eq!(status, 200, "{waiting}");
        let jobs = waiting["items"].as_array().unwrap();
        let job = jobs.iter().find(|job| job["kind"] == DeliverMessage::KIND).map(|job| text(&job["id"]));
        shop.sandbox.lift_fault(away);
        retry(&shop, &job.expect("the message waits")).await;
        assert_eq!(shop.store.texts(fate).await, ["sent 1"]);
        shop.finish().await;
    }

    async fn a_notice_whose_worker_was_lost_for_good_is_kept_and_a_retry_applies_it(t: TestStore) {
        let shop = TestShop::start(t).await;
        let order = refunded_elsewhere(&shop).await;
        is_lost(&shop, ResolveHint::KIND).await;
        shop.run_jobs().await;
        assert_eq!(refund_notice(&shop).await, LOST);
        assert_eq!(shop.status(&order).await, "delivered");
        assert!(shop.alerts().iter().any(|alert| alert.contains("gave up: the worker was lost")), "{:?}", shop.alerts());

        let dead = dead(&shop).await;
        assert_eq!(dead.len(), 1);
        retry(&shop, &dead[0]).await;
        assert_eq!(refund_notice(&shop).await, "refund.succeeded applied");
        assert_eq!(shop.status(&order).await, "refunded");
        shop.finish().await;
    }

    /// The replay's job dies like the first one.
    async fn a_replayed_notice_ends_too_and_an_old_job_takes_nothing_back(t: TestStore) {
        let shop = TestShop::start(t).await;
        let order = refunded_elsewhere(&shop).await;
        is_lost(&shop, ResolveHint::KIND).await;
        shop.advance(Duration::from_secs(1)).await;
        let (_, listed) = shop.get("/api/v1/inbox?state=quarantined").await;
        let replay = format!("/api/v1/inbox/{}/replay", text(&listed["items"][0]["id"]));
        assert_eq!(shop.post(&replay, json!({})).await.0, 202);
        assert_eq!(refund_notice(&shop).await, "refund.succeeded received");
        is_lost(&shop, ResolveHint::KIND).await;
        assert_eq!(refund_notice(&shop).await, LOST);

        shop.advance(Duration::from_secs(1)).await;
        assert_eq!(shop.post(&replay, json!({})).await.0, 202);
        shop.run_jobs().await;
        assert_eq!(refund_notice(&shop).await, "refund.succeeded applied");
        let dead = dead(&shop).await;
        assert_eq!(dead.len(), 2);
        for job in dead {
            retry(&shop, &job).await;
            assert_eq!(refund_notice(&shop).await, "refund.succeeded applied");
            assert_eq!(shop.status(&order).await, "refunded");
        }
        shop.finish().await;
    }

    async fn a_notice_whose_job_cannot_be_read_is_kept_for_the_owner(t: TestStore) {
        let shop = TestShop::start(t).await;
        let order = refunded_elsewhere(&shop).await;
        for (now, wanted) in [("notice", "letter"), ("letter", "notice")] {
            let changed = shop.shop().write("story.payload", move |tx, _| {
                let change = "update jobs set payload = replace(payload, $1, $2) where kind = 'hint.resolve'";
                Ok::<_, Error>(tx.execute(change, args![now, wanted])?)
            });
            assert_eq!(changed.await.unwrap(), 1);
            if wanted == "letter" {
                shop.run_jobs().await;
                let notice = refund_notice(&shop).await;
                assert!(notice.contains(" quarantined: ") && notice.contains("the payload cannot be read"), "{notice}");
            }
        }
        retry(&shop, &dead(&shop).await[0]).await;
        assert_eq!(refund_notice(&shop).await, "refund.succeeded applied");
        assert_eq!(shop.status(&order).await, "refunded");
        shop.finish().await;
    }

    async fn a_payment_whose_job_died_is_still_looked_into_for_the_notice_that_came(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        shop.receive_all().await;
        is_lost(&shop, ConfirmPayment::KIND).await;
        shop.run_jobs().await;
        assert_eq!(shop.inbox().await, ["payment.succeeded applied"]);
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);

        retry(&shop, &dead(&shop).await[0]).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    /// The first copy of the notice came too early and ended with that; the second one tells the truth, pulls the job while it
    /// runs, and that run is lost. CrystalPay has no list in which the payment would be found later.
    async fn a_repeat_that_pulled_the_run_in_which_the_job_died_is_not_used_up(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "crystalpay").await;
        let told = shop.sandbox.notice(Provider::CrystalPay, &order.provider_id, "payed").unwrap().body;
        assert_eq!(shop.program.api.receive(Provider::CrystalPay, told.clone()).await.status, 200);
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "pending");
        assert_eq!(shop.number("select count(*) from inbox where state = 'applied'").await, 1);

        shop.pay(&order);
        shop.lose_all();
        runs_for_the_last_time(&shop, ConfirmPayment::KIND).await;
        assert_eq!(shop.program.api.receive(Provider::CrystalPay, told).await.status, 200);
        assert_eq!(shop.number("select count(*) from inbox where seen = 2").await, 1, "the same bytes");
        assert_eq!(shop.number("select count(*) from jobs where pulled and state = 'running'").await, 1);
        assert_eq!(shop.program.app.workers().recover().await, Ok(1));
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);

        retry(&shop, &dead(&shop).await[0]).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }
}
