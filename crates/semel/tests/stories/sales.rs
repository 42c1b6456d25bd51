//! From an order to the goods, and back.

use std::collections::BTreeSet;
use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use semel_kernel::each_store;
use semel_kernel::jobs::{self, Job};
use semel_payments::Provider as Rail;
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::Error;
use semel_shop::checkout::{ConfirmPayment, SweepProvider};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, an_order, minutes, refusal, text};

const PROVIDERS: [&str; 3] = ["yookassa", "heleket", "crystalpay"];

each_store! { ROOMS;
    async fn a_webhook_becomes_goods_at_every_provider(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        for provider in PROVIDERS {
            let order = shop.sell(&key, provider).await;
            assert!(order.url.starts_with(&shop.sandbox.url()), "the customer pays at {provider}");
            assert_eq!(shop.status(&order).await, "delivered", "{provider}");
        }
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1", "KEY-2", "KEY-3"]);
        expect![[r#"
            crystalpay   -990.00 RUB
            heleket      -990.00 RUB
            sales       +2970.00 RUB
            yookassa     -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_webhook_sent_twice_sells_one_key(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        let hook = shop.sandbox.pending_hooks()[0];
        for _ in 0..2 {
            assert_eq!(shop.sandbox.resend(hook).await.status, Some(200));
        }
        shop.run_jobs().await;
        assert_eq!(shop.sandbox.resend(hook).await.status, Some(200));
        shop.run_jobs().await;

        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            sales     +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_webhook_sent_a_thousand_times_sells_one_key_and_gets_one_answer(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        let body = shop.sandbox.hooks()[0].body.clone();
        let doors = [shop.program.api.clone(), rival.api.clone()];
        let mut answers = BTreeSet::new();
        for n in 0..1000 {
            answers.insert(doors[n % 2].receive(Provider::Yookassa, body.clone()).await.line());
            if n % 250 == 100 {
                shop.run_jobs().await;
            }
        }
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(answers.into_iter().collect::<Vec<_>>(), [r#"200 {"ok":true}"#]);
        assert_eq!(shop.number("select count(*) from inbox").await, 1);
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn a_webhook_sent_fifty_times_at_once_sells_one_key(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        let body = shop.sandbox.hooks()[0].body.clone();
        let doors = [shop.program.api.clone(), rival.api.clone()];
        let crowd: Vec<_> = (0..50)
            .map(|n| {
                let (door, body) = (doors[n % 2].clone(), body.clone());
                tokio::spawn(async move { door.receive(Provider::Yookassa, body).await.line() })
            })
            .collect();
        tokio::join!(shop.run_jobs(), rival.run_jobs());
        for answer in crowd {
            assert_eq!(answer.await.unwrap(), r#"200 {"ok":true}"#);
        }
        shop.receive_all().await;
        tokio::join!(shop.run_jobs(), rival.run_jobs());
        shop.wait(minutes(5)).await;

        assert_eq!(shop.number("select count(*) from inbox").await, 1);
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn a_lost_webhook_costs_half_a_minute(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        for provider in PROVIDERS {
            let order = shop.order(&key, provider).await;
            shop.pay(&order);
            shop.lose_all();
            shop.wait(Duration::from_secs(30)).await;
            assert_eq!(shop.status(&order).await, "delivered", "{provider}");
        }
        assert_eq!(shop.delivered_to(CUSTOMER).len(), 3);
        shop.finish().await;
    }

    async fn a_webhook_may_come_before_the_answer_of_the_create_call(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /payments".into()), Fault::CutAfter, None);
        let refused = shop.post_with_key("/api/v1/orders", an_order(CUSTOMER, &key, "yookassa"), "lost").await;
        assert_eq!(refusal(&refused), "503 provider-unavailable");
        shop.sandbox.clear_faults();

        let there = shop.sandbox.payments(Provider::Yookassa);
        assert_eq!(there.len(), 1, "the call is keyed: its repeats make no second payment");
        shop.sandbox.pay(Provider::Yookassa, &there[0].id).unwrap();
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            sales     +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_lost_answer_of_the_create_call_is_resumed_by_the_same_key(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3", "KEY-4"]).await;
        for (provider, call) in [(Provider::Yookassa, "POST /payments"), (Provider::Heleket, "/v1/payment")] {
            let wanted = an_order(CUSTOMER, &key, provider.as_str());
            shop.sandbox.fault(Target::Api(provider, call.into()), Fault::CutAfter, None);
            let refused = shop.post_with_key("/api/v1/orders", wanted.clone(), provider.as_str()).await;
            assert_eq!(refusal(&refused), "503 provider-unavailable", "{provider}");
            shop.sandbox.clear_faults();
            shop.advance(minutes(1)).await;

            let (status, made) = shop.post_with_key("/api/v1/orders", wanted.clone(), provider.as_str()).await;
            assert_eq!(status, 201, "{made}");
            let again = shop.post_with_key("/api/v1/orders", wanted, provider.as_str()).await;
            assert_eq!(again, (201, made.clone()), "from now on the answer is kept");
            assert_eq!(shop.sandbox.payments(provider).len(), 1, "{provider} has one payment");
            shop.pay(&OrderHandle::read(&made));
            shop.receive_all().await;
            shop.run_jobs().await;
        }
        assert_eq!(shop.number("select count(*) from orders").await, 2);
        assert_eq!(shop.delivered_to(CUSTOMER).len(), 2);
        shop.finish().await;
    }

    /// CrystalPay honours no key: each repeat of a lost call opens one more invoice, and the customer may hold any of them.
    async fn of_invoices_opened_twice_whichever_is_paid_counts(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.sandbox.fault(Target::Api(Provider::CrystalPay, "/invoice/create".into()), Fault::CutAfter, Some(1));
        let order = shop.order(&key, "crystalpay").await;
        let invoices = shop.sandbox.payments(Provider::CrystalPay);
        assert_eq!(invoices.len(), 2);
        let unknown = invoices.iter().find(|invoice| invoice.id != order.provider_id).unwrap();
        shop.sandbox.pay(Provider::CrystalPay, &unknown.id).unwrap();
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            crystalpay  -990.00 RUB
            sales       +990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_topup_fills_the_balance_and_the_balance_buys(t: TestStore) {
        let shop = TestShop::start(t).await;
        let price = json!({ "amount": "1000.00", "currency": "RUB" });
        let topup = shop.product_of(json!({ "title": "Balance", "kind": "topup", "price": price })).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.sell(&topup, "heleket").await;
        assert_eq!(shop.balance(CUSTOMER).await, "1000.00 RUB");

        let order = shop.sell(&key, "balance").await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        let refused = shop.post("/api/v1/orders", an_order(CUSTOMER, &key, "balance")).await;
        assert_eq!(refusal(&refused), "409 insufficient-balance");
        assert_eq!(shop.available(&key).await, 1, "a refused order holds nothing");
        expect![[r#"
            customer 42    +10.00 RUB
            heleket      -1000.00 RUB
            sales         +990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn goods_made_to_order_come_when_they_are_there(t: TestStore) {
        let shop = TestShop::start(t).await;
        let made = shop
            .product_of(json!({
                "title": "Portrait", "kind": "stock", "price": { "amount": "1500.00", "currency": "RUB" },
                "delivery": "made_to_order", "promise_hours": 24,
            }))
            .await;
        let order = shop.sell(&made, "yookassa").await;
        let shown = shop.show(&order).await;
        assert_eq!(text(&shown["status"]), "awaiting_stock");
        assert_eq!(text(&shown["items"][0]["promised_at"]), "2026-03-02T09:00:00.000Z");

        shop.advance(minutes(60)).await;
        shop.stock(&made, &["PORTRAIT-1", "PORTRAIT-2"]).await;
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["PORTRAIT-1"]);
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn a_referrer_is_rewarded_once_and_a_refund_takes_it_back(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_REFERRAL_REWARD_PERCENT", "10")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        shop.order_by(7, &key, "yookassa").await;
        let mut bought = Vec::new();
        for _ in 0..2 {
            let mut wanted = an_order(CUSTOMER, &key, "yookassa");
            wanted["customer"]["referrer_telegram_id"] = json!(7);
            let (status, made) = shop.post("/api/v1/orders", wanted).await;
            assert_eq!(status, 201, "{made}");
            let order = OrderHandle::read(&made);
            shop.pay(&order);
            shop.receive_all().await;
            shop.run_jobs().await;
            bought.push(order);
        }
        assert_eq!(shop.balance(7).await, "99.00 RUB", "for the first purchase only");
        expect![[r#"
            bonus         -99.00 RUB
            customer 7    +99.00 RUB
            sales       +1980.00 RUB
            yookassa    -1980.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);

        shop.refund(&bought[1], "balance", None).await;
        assert_eq!(shop.balance(7).await, "99.00 RUB");
        shop.refund(&bought[0], "balance", None).await;
        assert_eq!(shop.balance(7).await, "0.00 RUB");
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn a_refund_to_the_balance_is_there_at_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.sell(&key, "crystalpay").await;
        let (status, shown) = shop.refund(&order, "balance", None).await;
        assert_eq!((status, text(&shown["status"])), (200, "refunded".to_owned()));
        assert_eq!(shop.balance(CUSTOMER).await, "990.00 RUB");
        assert_eq!(shop.available(&key).await, 1, "a key that was seen is not sold again");
        assert_eq!(refusal(&shop.refund(&order, "balance", None).await), "409 conflict");
        expect![[r#"
            crystalpay   -990.00 RUB
            customer 42  +990.00 RUB
            sales           0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// CrystalPay has no refunds, and Heleket makes none without the payout key.
    async fn who_cannot_give_money_back_says_so_and_offers_the_balance(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_HELEKET_PAYOUT_KEY", "")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        for provider in ["crystalpay", "heleket"] {
            let order = shop.sell(&key, provider).await;
            let refused = shop.refund(&order, "provider", None).await;
            assert_eq!(refusal(&refused), "409 conflict", "{provider}");
            let told = text(&refused.1["detail"]);
            assert!(told.contains(provider) && told.ends_with("; refund it to the balance instead"), "{told}");
            assert_eq!(shop.status(&order).await, "delivered", "{provider}");
            let (status, shown) = shop.refund(&order, "balance", None).await;
            assert_eq!((status, text(&shown["status"])), (200, "refunded".to_owned()), "{provider}");
        }
        assert_eq!(shop.balance(CUSTOMER).await, "1980.00 RUB");
        shop.finish().await;
    }

    async fn a_refund_to_yookassa_goes_back_in_parts_and_never_twice(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        let (status, shown) = shop.refund(&order, "provider", Some("100.00")).await;
        assert_eq!((status, text(&shown["status"])), (200, "refund_pending".to_owned()));
        assert_eq!(refusal(&shop.refund(&order, "provider", None).await), "409 conflict", "one after the other");
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(refusal(&shop.refund(&order, "provider", Some("890.01")).await), "422 invalid");

        shop.refund(&order, "provider", None).await;
        shop.run_jobs().await;
        assert_eq!(shop.receive_all().await, 2, "YooKassa tells of both");
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "refunded");
        assert_eq!(shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded, 99_000);
        expect![[r#"
            sales     0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_refund_whose_answer_is_lost_is_made_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /refunds".into()), Fault::CutAfter, None);
        shop.refund(&order, "provider", Some("990.00")).await;
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "refund_pending");
        shop.sandbox.clear_faults();
        shop.receive_all().await;
        shop.wait(minutes(5)).await;

        assert_eq!(shop.status(&order).await, "refunded");
        assert_eq!(shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded, 99_000);
        shop.finish().await;
    }

    async fn a_refund_made_in_the_cabinet_is_found(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        for (part, status) in [("90.00", "delivered"), ("900.00", "refunded")] {
            let amount = json!({ "value": part, "currency": "RUB" });
            shop.at_yookassa("/refunds", json!({ "payment_id": order.provider_id, "amount": amount })).await;
            shop.receive_all().await;
            shop.run_jobs().await;
            assert_eq!(shop.status(&order).await, status, "after {part}");
        }
        expect![[r#"
            sales     0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_cancelled_order_gives_its_goods_back(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        assert_eq!(shop.available(&key).await, 0);
        let cancel = format!("/api/v1/orders/{}/cancel", order.id);
        let (status, shown) = shop.post(&cancel, json!({ "reason": "changed my mind" })).await;
        assert_eq!((status, text(&shown["status"])), (200, "cancelled".to_owned()));
        assert_eq!(shop.available(&key).await, 1);

        shop.sell(&key, "heleket").await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        let sold = shop.post(&cancel, json!({})).await;
        assert_eq!(sold.0, 200, "a repeat changes nothing");
        shop.finish().await;
    }

    async fn an_order_that_expires_gives_its_goods_back(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.wait(minutes(29)).await;
        assert_eq!((shop.status(&order).await, shop.available(&key).await), ("pending".to_owned(), 0));
        shop.wait(minutes(2)).await;
        assert_eq!((shop.status(&order).await, shop.available(&key).await), ("expired".to_owned(), 1));
        shop.finish().await;
    }

    async fn what_a_second_provider_brings_goes_to_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let first = shop.order(&key, "yookassa").await;
        shop.advance(Duration::from_secs(1)).await;
        let (status, other) =
            shop.post(&format!("/api/v1/orders/{}/pay", first.id), json!({ "provider": "heleket" })).await;
        assert_eq!(status, 200, "{other}");
        let second = OrderHandle::read(&other);
        assert_eq!((second.at(), &second.id), (Provider::Heleket, &first.id));
        shop.pay(&second);
        shop.pay(&first);
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            customer 42  +990.00 RUB
            heleket      -990.00 RUB
            sales        +990.00 RUB
            yookassa     -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// Neither a webhook nor the payment's own job told of it: the provider's list does.
    async fn a_payment_that_nobody_told_of_is_found_in_the_providers_list(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        for provider in [Rail::YooKassa, Rail::Heleket] {
            let order = shop.order(&key, provider.as_str()).await;
            shop.pay(&order);
            shop.lose_all();
            let slot = order.payment.clone();
            let swept = shop.shop().write("story.sweep", move |tx, shop| {
                jobs::cancel(tx, ConfirmPayment::KIND, &slot)?;
                let now = tx.now();
                jobs::enqueue(tx, &SweepProvider { provider, tick: now.millis() }, now, &shop.chance)?;
                Ok::<_, Error>(())
            });
            swept.await.unwrap();
            shop.run_jobs().await;
            assert_eq!(shop.status(&order).await, "delivered", "{}", provider.as_str());
        }
        expect![[r#"
            heleket    -990.00 RUB
            sales     +1980.00 RUB
            yookassa   -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}
