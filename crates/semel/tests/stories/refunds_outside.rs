//! Money that the owner gave back in a provider's cabinet: booked once, whichever way the shop learns of it.

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use semel_kernel::each_store;
use semel_kernel::jobs;
use semel_payments::Provider as Rail;
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::Error;
use semel_shop::checkout::SweepProvider;

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, an_order, minutes, refusal, text};

/// The webhooks come, and what they set in motion happens.
async fn hear(shop: &TestShop) {
    shop.receive_all().await;
    shop.run_jobs().await;
}

/// The hour's sweep of a provider's lists is due; nobody runs it yet.
async fn sweep_is_due(shop: &TestShop, provider: Rail) {
    shop.advance(Duration::from_secs(1)).await; // Every sweep has a tick of its own.
    let due = shop.shop().write("story.sweep", move |tx, shop| {
        let now = tx.now();
        jobs::enqueue(tx, &SweepProvider { provider, tick: now.millis() }, now, &shop.chance)?;
        Ok::<_, Error>(())
    });
    due.await.unwrap();
}

/// The hour's sweep of a provider's lists.
async fn sweep(shop: &TestShop, provider: Rail) {
    sweep_is_due(shop, provider).await;
    shop.run_jobs().await;
}

/// A key for 10 USDT. Answers the product.
async fn coin_priced(shop: &TestShop, items: &[&str]) -> String {
    let price = json!({ "amount": "10.00", "currency": "USDT" });
    let key = shop.product_of(json!({ "title": "Licence key", "kind": "stock", "price": price })).await;
    shop.stock(&key, items).await;
    key
}

async fn refunds_in_the_books(shop: &TestShop) -> i64 {
    shop.number("select count(*) from postings where kind = 'refund'").await
}

fn was_told(shop: &TestShop, words: &str) -> bool {
    shop.alerts().iter().any(|alert| alert.contains(words))
}

each_store! { ROOMS;
    async fn a_refund_in_the_cabinet_is_booked_from_its_notice(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        shop.sandbox.refund_at_yookassa(&order.provider_id, None, true).unwrap();
        hear(&shop).await;
        assert_eq!(shop.status(&order).await, "refunded");

        sweep(&shop, Rail::YooKassa).await;
        assert_eq!(refunds_in_the_books(&shop).await, 1, "the list tells of the same refund");
        expect![[r#"
            sales     0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// The order, its goods and its reward go the same way as with the notice.
    async fn a_refund_whose_notice_was_lost_is_found_in_the_list(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_REFERRAL_REWARD_PERCENT", "10")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.order_by(7, &key, "crystalpay").await;
        let mut wanted = an_order(CUSTOMER, &key, "yookassa");
        wanted["customer"]["referrer_telegram_id"] = json!(7);
        let (status, made) = shop.post("/api/v1/orders", wanted).await;
        assert_eq!(status, 201, "{made}");
        let order = OrderHandle::read(&made);
        shop.pay(&order);
        hear(&shop).await;
        assert_eq!(shop.balance(7).await, "99.00 RUB");

        shop.sandbox.refund_at_yookassa(&order.provider_id, Some("90.00"), false).unwrap();
        sweep(&shop, Rail::YooKassa).await;
        assert_eq!(shop.status(&order).await, "delivered", "a part leaves the goods with the customer");
        assert_eq!((refunds_in_the_books(&shop).await, shop.balance(7).await), (1, "99.00 RUB".to_owned()));

        shop.sandbox.refund_at_yookassa(&order.provider_id, None, false).unwrap();
        for _ in 0..2 {
            sweep(&shop, Rail::YooKassa).await;
        }
        let shown = shop.show(&order).await;
        assert_eq!((text(&shown["status"]), text(&shown["payment"]["status"])), ("refunded".into(), "refunded".into()));
        assert_eq!(refunds_in_the_books(&shop).await, 2);
        assert!(shop.inbox().await.iter().all(|notice| notice.starts_with("payment.")), "no notice told of it");
        expect![[r#"
            bonus       0.00 RUB
            customer 7  0.00 RUB
            sales       0.00 RUB
            yookassa    0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_look_at_the_payment_finds_its_refund(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        for (provider, sum) in [("yookassa", Some("990.00")), ("heleket", None)] {
            let order = shop.sell(&key, provider).await;
            match order.at() {
                Provider::Heleket => shop.sandbox.refund_at_heleket(&order.provider_id, sum, false).unwrap(),
                _ => shop.sandbox.refund_at_yookassa(&order.provider_id, sum, false).unwrap(),
            };
            let (status, shown) = shop.post(&format!("/api/v1/payments/{}/replay", order.payment), json!({})).await;
            assert_eq!(status, 200, "{shown}");
            shop.run_jobs().await;
            assert_eq!(shop.status(&order).await, "refunded", "{provider}");
        }
        expect![[r#"
            heleket   0.00 RUB
            sales     0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_notice_and_a_sweep_at_once_book_one_refund(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        for provider in [Rail::YooKassa, Rail::Heleket] {
            let order = shop.sell(&key, provider.as_str()).await;
            match provider {
                Rail::Heleket => shop.sandbox.refund_at_heleket(&order.provider_id, None, true).unwrap(),
                _ => shop.sandbox.refund_at_yookassa(&order.provider_id, None, true).unwrap(),
            };
            shop.receive_all().await;
            sweep_is_due(&shop, provider).await;
            tokio::join!(shop.run_jobs(), rival.run_jobs());
            shop.wait(minutes(1)).await;
            assert_eq!(shop.status(&order).await, "refunded", "{}", provider.as_str());
        }
        assert_eq!(refunds_in_the_books(&shop).await, 2, "one for each payment");
        assert_eq!(shop.number("select count(*) from refunds").await, 2);
        expect![[r#"
            heleket   0.00 RUB
            sales     0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        drop(rival);
        shop.finish().await;
    }

    /// Money that is nobody's has no order to wait at, and still it goes back once.
    async fn a_refund_of_money_in_suspense_is_booked_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let foreign = json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
        let foreign = text(&shop.at_yookassa("/payments", foreign).await["id"]);
        shop.sandbox.pay(Provider::Yookassa, &foreign).unwrap();
        hear(&shop).await;
        shop.sandbox.refund_at_yookassa(&foreign, None, true).unwrap();
        shop.receive_all().await;
        sweep_is_due(&shop, Rail::YooKassa).await;
        tokio::join!(shop.run_jobs(), rival.run_jobs());
        shop.wait(minutes(1)).await;

        assert_eq!(refunds_in_the_books(&shop).await, 1);
        assert_eq!(shop.inbox().await, ["payment.succeeded applied", "refund.succeeded applied"]);
        expect![[r#"
            suspense  0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        drop(rival);
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn a_refund_of_ours_is_not_found_a_second_time(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.refund(&order, "provider", Some("100.00")).await.0, 200);
        shop.run_jobs().await;
        sweep(&shop, Rail::YooKassa).await;
        hear(&shop).await;
        sweep(&shop, Rail::YooKassa).await;

        assert_eq!((refunds_in_the_books(&shop).await, shop.status(&order).await), (1, "delivered".to_owned()));
        assert_eq!(shop.number("select count(*) from refunds").await, 1);
        expect![[r#"
            sales     +890.00 RUB
            yookassa  -890.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// It stands in the list before we know its id: it may only be ours.
    async fn a_refund_of_ours_whose_answer_was_lost_is_not_taken_for_another(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        let lost = shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /refunds".into()), Fault::CutAfter, None);
        assert_eq!(shop.refund(&order, "provider", Some("100.00")).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded, 10_000);
        sweep(&shop, Rail::YooKassa).await;
        assert_eq!((refunds_in_the_books(&shop).await, shop.status(&order).await), (0, "refund_pending".to_owned()));

        shop.sandbox.lift_fault(lost);
        for _ in 0..3 {
            shop.wait(minutes(10)).await;
        }
        assert_eq!(shop.status(&order).await, "delivered");
        sweep(&shop, Rail::YooKassa).await;
        hear(&shop).await;
        assert_eq!(shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded, 10_000);
        assert_eq!(refunds_in_the_books(&shop).await, 1);
        expect![[r#"
            sales     +890.00 RUB
            yookassa  -890.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_cabinet_refund_beside_one_of_ours_is_booked_as_well(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.refund(&order, "provider", Some("100.00")).await.0, 200);
        shop.sandbox.refund_at_yookassa(&order.provider_id, Some("100.00"), false).unwrap();
        sweep(&shop, Rail::YooKassa).await;
        sweep(&shop, Rail::YooKassa).await;
        hear(&shop).await;

        assert_eq!((refunds_in_the_books(&shop).await, shop.status(&order).await), (2, "delivered".to_owned()));
        expect![[r#"
            sales     +790.00 RUB
            yookassa  -790.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}

each_store! { ROOMS;
    /// Heleket says that a payment was given back, and no more: all of it, and the owner hears of the sum.
    async fn a_refund_in_helekets_cabinet_is_booked_from_notice_or_list(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = coin_priced(&shop, &["KEY-1", "KEY-2"]).await;
        for told in [true, false] {
            let order = shop.sell(&key, "heleket").await;
            assert_eq!(shop.status(&order).await, "delivered");
            shop.sandbox.refund_at_heleket(&order.provider_id, None, told).unwrap();
            if told {
                hear(&shop).await;
                assert_eq!(shop.status(&order).await, "refunded");
            }
            sweep(&shop, Rail::Heleket).await;
            assert_eq!(shop.status(&order).await, "refunded", "told: {told}");
        }
        assert_eq!(refunds_in_the_books(&shop).await, 2);
        assert!(was_told(&shop, "tells no sum: the books count all of it, 10.000000 USDT"), "{:?}", shop.alerts());
        expect![[r#"
            heleket  0.000000 USDT
            sales    0.000000 USDT
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_refund_of_ours_at_heleket_is_not_found_a_second_time(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = coin_priced(&shop, &["KEY-1"]).await;
        let order = shop.sell(&key, "heleket").await;
        let wanted = json!({ "to": "provider", "amount": "4.00", "address": "TXk9Qm2v7WnB4rYh8sLpJd3fGz6cVtA1Ex" });
        assert_eq!(shop.post(&format!("/api/v1/orders/{}/refund", order.id), wanted).await.0, 200);
        shop.run_jobs().await;
        sweep(&shop, Rail::Heleket).await;
        shop.wait(minutes(5)).await;
        sweep(&shop, Rail::Heleket).await;
        hear(&shop).await;

        assert_eq!((refunds_in_the_books(&shop).await, shop.status(&order).await), (1, "delivered".to_owned()));
        assert!(!was_told(&shop, "tells no sum"), "its sum is known: {:?}", shop.alerts());
        expect![[r#"
            heleket  -6.000000 USDT
            sales    +6.000000 USDT
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// The customer paid too much: it may be the surplus that went back, or all of it. Nothing is guessed.
    async fn a_refund_without_a_sum_that_may_be_a_part_waits_for_the_owner(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = coin_priced(&shop, &["KEY-1"]).await;
        let order = shop.order(&key, "heleket").await;
        shop.pay_amount(&order, "15.00");
        hear(&shop).await;
        assert_eq!((shop.status(&order).await, shop.balance(CUSTOMER).await), ("delivered".into(), "5.000000 USDT".into()));
        let path = format!("/api/v1/orders/{}/refund", order.id);
        let made = |sum: &str| json!({ "to": "made", "amount": sum });
        assert_eq!(refusal(&shop.post(&path, made("5.00")).await), "409 conflict", "Heleket tells of no refund");

        shop.sandbox.refund_at_heleket(&order.provider_id, Some("5.00"), true).unwrap();
        let before = shop.ledger().await;
        hear(&shop).await;
        sweep(&shop, Rail::Heleket).await;
        assert_eq!((shop.ledger().await, shop.status(&order).await), (before, "delivered".to_owned()));
        assert!(was_told(&shop, &format!("semel order refund {} --to made", order.id)), "{:?}", shop.alerts());

        assert_eq!(shop.post(&path, json!({ "to": "made" })).await.0, 422, "the sum is what is missing");
        assert_eq!(shop.post(&path, made("15.01")).await.0, 422, "so much never came");
        let (status, shown) = shop.post(&path, made("5.00")).await;
        assert_eq!((status, text(&shown["status"])), (200, "delivered".to_owned()), "{shown}");
        assert_eq!(refusal(&shop.post(&path, made("5.00")).await), "409 conflict", "it is booked once");
        sweep(&shop, Rail::Heleket).await;
        expect![[r#"
            customer 42    0.000000 USDT
            heleket      -10.000000 USDT
            sales        +10.000000 USDT
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}
