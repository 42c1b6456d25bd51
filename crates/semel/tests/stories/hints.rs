//! Webhooks are hints: what the provider says when asked is what counts.

use expect_test::expect;
use http::Method;
use serde_json::{Value, json};

use semel_kernel::{each_store, jobs};
use semel_sandbox::Provider;
use semel_shop::Error;
use semel_shop::checkout::SweepProvider;

use crate::app::{CUSTOMER, ROOMS, TestShop, minutes, refusal, text};

/// A webhook of YooKassa about a payment that nobody made.
const INVENTED: &str = r#"{"type":"notification","event":"payment.succeeded","object":{"id":"2e1f0a54-000f-5000-8000-1b68e7b15f3f",
    "status":"succeeded","paid":true,"amount":{"value":"990.00","currency":"RUB"}}}"#;

each_store! { ROOMS;
    async fn a_hint_that_lies_uses_nothing_up(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        for (provider, paid) in [("yookassa", "succeeded"), ("heleket", "paid"), ("crystalpay", "payed")] {
            let order = shop.order(&key, provider).await;
            shop.sandbox.lie(order.at(), &order.provider_id, paid).unwrap();
            shop.receive_all().await;
            shop.run_jobs().await;
            assert_eq!(shop.status(&order).await, "pending", "{provider} has no money");

            shop.pay(&order);
            shop.receive_all().await;
            shop.run_jobs().await;
            assert_eq!(shop.status(&order).await, "delivered", "{provider} has the money");
        }
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2", "KEY-3"]);
        shop.finish().await;
    }

    async fn the_same_event_in_other_bytes_is_kept_beside_the_first(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.sell(&key, "yookassa").await;
        let mut other = shop.sandbox.hooks()[0].body.to_vec();
        other.push(b' ');
        assert_eq!(shop.program.api.receive(Provider::Yookassa, other).await.status, 200);
        shop.run_jobs().await;

        assert_eq!(
            shop.inbox().await,
            [
                "payment.succeeded applied",
                "payment.succeeded ignored: the same event came before with another body",
            ]
        );
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn an_invented_payment_is_ignored(t: TestStore) {
        let shop = TestShop::start(t).await;
        let outcome = shop.sandbox.forge(Provider::Yookassa, INVENTED, &[]).await;
        assert_eq!(outcome.status, Some(200), "from the right network it is a hint like any other");
        shop.run_jobs().await;
        assert_eq!(shop.inbox().await, ["payment.succeeded ignored: the provider does not know this payment"]);
        assert_eq!(shop.ledger().await, "");
        shop.finish().await;
    }

    async fn a_foreign_payment_is_ignored_without_money_and_waits_in_suspense_with_it(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let foreign = json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
        let foreign = text(&shop.at_yookassa("/payments", foreign).await["id"]);
        shop.sandbox.lie(Provider::Yookassa, &foreign, "succeeded").unwrap();
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(
            shop.inbox().await,
            ["payment.succeeded ignored: not a payment of ours, and no money came by it"]
        );

        shop.sandbox.pay(Provider::Yookassa, &foreign).unwrap();
        shop.receive_all().await;
        shop.run_jobs().await;
        assert!(shop.alerts().iter().any(|alert| alert.contains("no order of ours asked for it")));
        expect![[r#"
            suspense  +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);

        let order = shop.order(&key, "heleket").await;
        let assign = format!("/api/v1/payments/{foreign}/assign");
        let (status, shown) = shop.post(&assign, json!({ "order": order.id })).await;
        assert_eq!(status, 200, "{shown}");
        assert_eq!(refusal(&shop.post(&assign, json!({ "order": order.id })).await), "404 not-found");
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            sales     +990.00 RUB
            suspense     0.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn another_sum_than_asked_for_buys_nothing_and_is_not_lost(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay_amount(&order, "1.00");
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "pending");
        expect![[r#"
            suspense  +1.00 RUB
            yookassa  -1.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);

        let assign = format!("/api/v1/payments/{}/assign", order.provider_id);
        assert_eq!(shop.post(&assign, json!({ "order": order.id })).await.0, 200);
        assert_eq!(shop.balance(CUSTOMER).await, "1.00 RUB");
        assert!(shop.delivered_to(CUSTOMER).is_empty());
        shop.finish().await;
    }

    async fn another_currency_than_asked_for_buys_nothing_and_is_not_lost(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        let cheap = json!({
            "amount": { "value": "990.00", "currency": "EUR" }, "capture": true, "metadata": { "payment_id": order.payment },
        });
        let cheap = text(&shop.at_yookassa("/payments", cheap).await["id"]);
        shop.sandbox.pay(Provider::Yookassa, &cheap).unwrap();
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "pending");
        assert!(shop.delivered_to(CUSTOMER).is_empty());

        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"], "the true payment still counts");
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn what_is_not_signed_by_the_provider_leaves_no_trace(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let heleket = shop.order(&key, "heleket").await;
        let crystalpay = shop.order(&key, "crystalpay").await;

        let signed = shop.sandbox.notice(Provider::Heleket, &heleket.provider_id, "fail").unwrap().body;
        let tampered = String::from_utf8(signed.to_vec()).unwrap().replace("\"fail\"", "\"paid\"");
        let unsigned = json!({ "type": "payment", "uuid": heleket.provider_id, "order_id": heleket.payment, "status": "paid" });
        for body in [tampered, unsigned.to_string()] {
            let outcome = shop.sandbox.forge(Provider::Heleket, body.clone(), &[]).await;
            assert_eq!(outcome.status, Some(403), "{body}");
        }
        let unsigned = json!({ "id": crystalpay.provider_id, "extra": crystalpay.payment, "state": "payed" });
        let mut of_another_id = unsigned.clone();
        of_another_id["signature"] = json!("6511a609dd980c88cc9ff205faeb98f1b5586cf9");
        for body in [unsigned, of_another_id] {
            let outcome = shop.sandbox.forge(Provider::CrystalPay, body.to_string(), &[]).await;
            assert_eq!(outcome.status, Some(403), "{body}");
        }
        assert_eq!(shop.number("select count(*) from inbox").await, 0);
        shop.finish().await;
    }

    async fn what_does_not_come_from_the_providers_network_leaves_no_trace(t: TestStore) {
        let shop = TestShop::start(t).await;
        let wrong = [
            ("a stranger", "8.8.8.8"),
            ("a stranger who wrote YooKassa's address first", "185.71.76.5, 8.8.8.8"),
            ("a stranger behind two proxies of ours", "185.71.76.5, 8.8.8.8, 127.0.0.1"),
            ("our own machine", "127.0.0.1"),
            ("no address", "unknown"),
        ];
        for (who, forwarded) in wrong {
            let outcome = shop.sandbox.forge(Provider::Yookassa, INVENTED, &[("X-Forwarded-For", forwarded)]).await;
            assert_eq!(outcome.status, Some(403), "{who}");
        }
        let bare = shop.program.api.send(Method::POST, "/webhook/yookassa", &[], INVENTED.into()).await;
        assert_eq!(bare.status, 403, "nobody was named");
        assert_eq!(shop.number("select count(*) from inbox").await, 0);
        shop.finish().await;
    }

    /// The provider's word alone tells whose it is. The payment's own job has nothing left to wait for then.
    async fn a_webhook_that_does_not_name_our_payment_leaves_no_job_waiting_for_it(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        let mut notice: Value = serde_json::from_slice(&shop.sandbox.hooks()[0].body).unwrap();
        let metadata = notice["object"].as_object_mut().unwrap().remove("metadata");
        assert!(metadata.is_some(), "the provider gives our id back");
        shop.lose_all();
        assert_eq!(shop.program.api.receive(Provider::Yookassa, notice.to_string()).await.status, 200);
        let waits = "select count(*) from jobs where kind = 'payment.confirm' and state = 'ready'";
        let due = "select count(*) from jobs where kind = 'payment.confirm' and state = 'ready' and run_at <= semel_now()";
        assert_eq!((shop.number(waits).await, shop.number(due).await), (1, 0), "nothing pulled it");

        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(shop.number(waits).await, 0, "it looked once more and ended");
        let ended = "select count(*) from jobs where kind = 'payment.confirm' and state = 'done'";
        assert_eq!(shop.number(ended).await, 1);
        assert_eq!(shop.inbox().await, ["payment.succeeded applied"]);
        shop.finish().await;
    }

    /// The same for what the provider's list told first.
    async fn a_payment_found_in_the_list_leaves_no_job_waiting_for_it(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        shop.lose_all();
        let swept = shop.shop().write("story.sweep", move |tx, shop| {
            let now = tx.now();
            let sweep = SweepProvider { provider: semel_payments::Provider::YooKassa, tick: now.millis() };
            jobs::enqueue(tx, &sweep, now, &shop.chance)?;
            Ok::<_, Error>(())
        });
        swept.await.unwrap();
        shop.run_jobs().await;

        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.number("select count(*) from jobs where kind = 'payment.confirm' and state <> 'done'").await, 0);
        shop.finish().await;
    }

    /// Two desks have two salts: a callback of the other one proves nothing here, and our money is found all the same.
    async fn a_callback_of_another_desk_is_refused_and_the_money_is_found_by_asking(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_CRYSTALPAY_SALT", "the-salt-of-another-desk")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "crystalpay").await;
        shop.pay(&order);
        let refused: Vec<_> = shop.sandbox.send_all().await.into_iter().map(|outcome| outcome.status).collect();
        assert_eq!(refused, [Some(403)]);
        assert_eq!(shop.number("select count(*) from inbox").await, 0);

        shop.wait(minutes(1)).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    /// The customer pays when `payment.succeeded` is due; what comes before it is too early, what comes after it is late or
    /// a lie.
    async fn the_order_in_which_webhooks_come_changes_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        let keys: Vec<String> = (1..=30).map(|n| format!("KEY-{n:02}")).collect();
        let items: Vec<&str> = keys.iter().map(String::as_str).collect();
        let key = shop.product_with("Licence key", "990.00", &items).await;
        let events = ["waiting_for_capture", "succeeded", "canceled", "refund.succeeded"];
        let mut told = 0;
        for order_of_events in permutations() {
            let order = shop.order(&key, "yookassa").await;
            for event in order_of_events.map(|place| events[place]) {
                let body = if event == "succeeded" {
                    shop.pay(&order);
                    shop.sandbox.hooks().pop().unwrap().body
                } else {
                    shop.sandbox.notice(Provider::Yookassa, &order.provider_id, event).unwrap().body
                };
                assert_eq!(shop.program.api.receive(Provider::Yookassa, body).await.status, 200);
                shop.run_jobs().await;
            }
            assert_eq!(shop.status(&order).await, "delivered", "{order_of_events:?}");
            told += 1;
            assert_eq!(shop.delivered_to(CUSTOMER).len(), told, "{order_of_events:?}");
        }
        assert_eq!(shop.delivered_to(CUSTOMER), keys[..24]);
        assert_eq!(shop.receive_all().await, 24);
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), keys[..24]);
        expect![[r#"
            sales     +23760.00 RUB
            yookassa  -23760.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// CrystalPay takes 429 for an acknowledgement and would never send the callback again.
    async fn a_shop_that_is_not_ready_says_503_and_never_429(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "crystalpay").await;
        shop.pay(&order);
        shop.program.app.doors.ready.close();
        for outcome in shop.sandbox.send_all().await {
            assert_eq!(outcome.status, Some(503));
        }
        shop.program.app.doors.ready.open();
        assert_eq!(shop.receive_all().await, 1, "so it comes again");
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }
}

/// The 24 orders of four things.
fn permutations() -> Vec<[usize; 4]> {
    let all = (0..256).map(|n| [n % 4, n / 4 % 4, n / 16 % 4, n / 64]);
    all.filter(|order| (0..4).all(|place| order.contains(&place))).collect()
}

#[test]
fn there_are_24_orders_of_four_things() {
    assert_eq!(permutations().len(), 24);
}
