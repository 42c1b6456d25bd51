//! Money on its way back: whose it was, what it takes along, and that it goes once.

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use semel_kernel::each_store;
use semel_kernel::jobs::{self, Job};
use semel_kernel::testing::eventually;
use semel_payments::Provider as Rail;
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::Error;
use semel_shop::checkout::{ConfirmPayment, SweepProvider};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, an_order, minutes, refusal, text};

/// Nobody gets alerts, so that a fault of Telegram hits the customer's message.
const NO_OWNER: [(&str, &str); 1] = [("SEMEL_TELEGRAM_ADMIN_IDS", "")];

/// YooKassa makes no refund until this is lifted.
fn no_refunds(shop: &TestShop) {
    shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /refunds".into()), Fault::Status(500), None);
}

/// The owner gives money back in YooKassa's cabinet. The notice waits in the box.
async fn refund_in_the_cabinet(shop: &TestShop, order: &OrderHandle, amount: &str) {
    let amount = json!({ "value": amount, "currency": "RUB" });
    shop.at_yookassa("/refunds", json!({ "payment_id": order.provider_id, "amount": amount })).await;
}

/// The webhooks come, and what they set in motion happens.
async fn hear(shop: &TestShop) {
    shop.receive_all().await;
    shop.run_jobs().await;
}

/// Pays an unpaid order at another provider.
async fn pay_at(shop: &TestShop, order: &OrderHandle, provider: &str) -> OrderHandle {
    shop.advance(Duration::from_secs(1)).await;
    let (status, shown) = shop.post(&format!("/api/v1/orders/{}/pay", order.id), json!({ "provider": provider })).await;
    assert_eq!(status, 200, "{shown}");
    OrderHandle::read(&shown)
}

/// Money that came too late for an order whose goods are gone: it is on the balance.
async fn late_and_sold_out(shop: &TestShop) -> OrderHandle {
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let late = shop.order(&key, "yookassa").await;
    shop.wait(minutes(31)).await;
    let other = shop.order_by(7, &key, "heleket").await;
    for order in [&other, &late] {
        shop.pay(order);
        hear(shop).await;
    }
    assert_eq!(shop.balance(CUSTOMER).await, "990.00 RUB");
    late
}

each_store! { ROOMS;
    async fn late_money_refunded_in_the_cabinet_leaves_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let late = late_and_sold_out(&shop).await;
        refund_in_the_cabinet(&shop, &late, "990.00").await;
        hear(&shop).await;

        let shown = shop.show(&late).await;
        assert_eq!((text(&shown["status"]), text(&shown["payment"]["status"])), ("expired".into(), "refunded".into()));
        expect![[r#"
            customer 42     0.00 RUB
            heleket      -990.00 RUB
            sales        +990.00 RUB
            yookassa        0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn what_the_customer_has_spent_of_it_is_a_loss_that_the_owner_hears_of(t: TestStore) {
        let shop = TestShop::start(t).await;
        let late = late_and_sold_out(&shop).await;
        let sticker = shop.product_with("Sticker", "600.00", &["STICKER-1"]).await;
        shop.sell(&sticker, "balance").await;
        refund_in_the_cabinet(&shop, &late, "990.00").await;
        hear(&shop).await;

        assert!(shop.alerts().iter().any(|alert| alert.contains("the rest is a loss")), "{:?}", shop.alerts());
        expect![[r#"
            customer 42     0.00 RUB
            heleket      -990.00 RUB
            sales        +990.00 RUB
            yookassa        0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_second_payment_refunded_in_the_cabinet_leaves_the_order_alone(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_REFERRAL_REWARD_PERCENT", "10")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.order_by(7, &key, "crystalpay").await;
        let mut wanted = an_order(CUSTOMER, &key, "yookassa");
        wanted["customer"]["referrer_telegram_id"] = json!(7);
        let (status, made) = shop.post("/api/v1/orders", wanted).await;
        assert_eq!(status, 201, "{made}");
        let second = OrderHandle::read(&made);
        let first = pay_at(&shop, &second, "heleket").await;
        for payment in [&first, &second] {
            shop.pay(payment);
            hear(&shop).await;
        }
        assert_eq!(shop.balance(CUSTOMER).await, "990.00 RUB");

        refund_in_the_cabinet(&shop, &second, "990.00").await;
        hear(&shop).await;
        let shown = shop.show(&second).await;
        assert_eq!((text(&shown["status"]), &shown["items"][0]["goods"]), ("delivered".into(), &json!(["KEY-2"])));
        expect![[r#"
            bonus         -99.00 RUB
            customer 42     0.00 RUB
            customer 7    +99.00 RUB
            heleket      -990.00 RUB
            sales        +990.00 RUB
            yookassa        0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_refund_goes_through_the_payment_that_bought_the_goods(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let first = shop.order(&key, "yookassa").await;
        let second = pay_at(&shop, &first, "heleket").await;
        for payment in [&first, &second] {
            shop.pay(payment);
            hear(&shop).await;
        }
        let (status, shown) = shop.refund(&first, "provider", None).await;
        assert_eq!(status, 200, "{shown}");
        hear(&shop).await;

        assert_eq!(shop.status(&first).await, "refunded");
        expect![[r#"
            customer 42  +990.00 RUB
            heleket      -990.00 RUB
            sales           0.00 RUB
            yookassa        0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        hear(&shop).await;
        shop.finish().await;
    }

    async fn a_wrong_sum_refunded_in_the_cabinet_leaves_the_waiting_order_its_goods(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay_amount(&order, "1990.00");
        hear(&shop).await;
        for part in ["90.00", "1900.00"] {
            refund_in_the_cabinet(&shop, &order, part).await;
            hear(&shop).await;
        }
        assert_eq!((shop.status(&order).await, shop.available(&key).await), ("pending".to_owned(), 0));
        assert_eq!(shop.number("select count(*) from suspense where state = 'open'").await, 0);

        let other = pay_at(&shop, &order, "heleket").await;
        shop.pay(&other);
        hear(&shop).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            heleket   -990.00 RUB
            sales     +990.00 RUB
            suspense     0.00 RUB
            yookassa     0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// Whichever is heard of first, the payment or its refund.
    async fn a_payment_that_went_back_before_we_saw_it_buys_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        for refund_is_told_first in [false, true] {
            let order = shop.order(&key, "yookassa").await;
            shop.pay(&order);
            shop.lose_all();
            refund_in_the_cabinet(&shop, &order, "990.00").await;
            if refund_is_told_first {
                hear(&shop).await;
            }
            shop.wait(Duration::from_secs(30)).await;
            hear(&shop).await;
            shop.wait(minutes(1)).await;
            assert_eq!(shop.status(&order).await, "pending");
        }
        assert!(shop.delivered_to(CUSTOMER).is_empty());
        assert_eq!(shop.inbox().await, ["refund.succeeded applied", "refund.succeeded applied"]);
        expect![[r#"
            suspense  0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn goods_wait_while_a_refund_is_on_its_way(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sandbox.fault(Target::Telegram("sendMessage".into()), Fault::Status(409), Some(1));
        let order = shop.sell(&key, "yookassa").await;
        assert_eq!(shop.status(&order).await, "paid");
        no_refunds(&shop);
        assert_eq!(shop.refund(&order, "provider", Some("100.00")).await.0, 200);
        shop.run_jobs().await;
        shop.wait(minutes(1)).await;
        assert_eq!(shop.status(&order).await, "refund_pending");
        assert!(shop.delivered_to(CUSTOMER).is_empty());

        shop.sandbox.clear_faults();
        shop.wait(minutes(10)).await;
        shop.wait(minutes(10)).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(shop.status(&order).await, "delivered");
        expect![[r#"
            sales     +890.00 RUB
            yookassa  -890.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        hear(&shop).await;
        shop.finish().await;
    }

    /// The message was under way when the refund began.
    async fn goods_that_arrive_during_a_refund_do_not_end_it_and_are_not_forgotten(t: TestStore) {
        let shop = TestShop::with(t, &NO_OWNER).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        for refused in [false, true] {
            no_refunds(&shop);
            shop.sandbox.fault(Target::Telegram("sendMessage".into()), Fault::Delay(1500), Some(1));
            let order = shop.order(&key, "yookassa").await;
            shop.pay(&order);
            shop.receive_all().await;
            let refund = async {
                let moving = "select count(*) from jobs where kind = 'message.send' and state = 'running'";
                eventually("the goods are under way", async || shop.number(moving).await == 1).await;
                shop.refund(&order, "provider", Some("100.00")).await
            };
            let (_, (status, shown)) = tokio::join!(shop.run_jobs(), refund);
            assert_eq!(status, 200, "{shown}");
            shop.run_jobs().await;
            assert_eq!(shop.status(&order).await, "refund_pending");
            assert_eq!(shop.delivered_to(CUSTOMER).len(), if refused { 2 } else { 1 });

            shop.sandbox.clear_faults();
            if refused {
                let refusal = Target::Api(Provider::Yookassa, "POST /refunds".into());
                shop.sandbox.fault(refusal, Fault::Status(400), Some(1));
            }
            shop.wait(minutes(10)).await;
            assert_eq!(shop.status(&order).await, "delivered", "refused: {refused}");
            hear(&shop).await;
        }
        expect![[r#"
            sales     +1880.00 RUB
            yookassa  -1880.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    /// YooKassa forgets a key after a day: the same call would then be a second refund.
    async fn a_refund_with_a_forgotten_key_is_not_sent_again(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /refunds".into()), Fault::CutAfter, None);
        assert_eq!(shop.refund(&order, "provider", Some("100.00")).await.0, 200);
        shop.run_jobs().await;
        shop.sandbox.clear_faults();
        shop.wait(minutes(25 * 60)).await;
        assert_eq!(shop.status(&order).await, "refund_pending", "nobody knows whether it was made");

        hear(&shop).await;
        assert_eq!(shop.status(&order).await, "delivered", "its notice tells");
        assert_eq!(shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded, 10_000);
        shop.wait(minutes(60)).await;
        shop.finish().await;
    }

    /// Heleket honours no key: what may have been sent is only asked about.
    async fn a_refund_of_a_coin_goes_out_once_although_the_answer_is_lost(t: TestStore) {
        let shop = TestShop::start(t).await;
        let price = json!({ "amount": "10.00", "currency": "USDT" });
        let key = shop.product_of(json!({ "title": "Licence key", "kind": "stock", "price": price })).await;
        shop.stock(&key, &["KEY-1"]).await;
        let order = shop.sell(&key, "heleket").await;
        assert_eq!(shop.status(&order).await, "delivered");
        let refund = format!("/api/v1/orders/{}/refund", order.id);
        let wanted = json!({ "to": "provider", "amount": "4.00", "address": "TXk9Qm2v7WnB4rYh8sLpJd3fGz6cVtA1Ex" });
        shop.sandbox.fault(Target::Api(Provider::Heleket, "/v1/payment/refund".into()), Fault::CutAfter, None);
        let (status, shown) = shop.post(&refund, wanted).await;
        assert_eq!((status, text(&shown["status"])), (200, "refund_pending".to_owned()), "{shown}");
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "refund_pending");
        shop.wait(minutes(5)).await;
        shop.sandbox.clear_faults();
        shop.wait(minutes(10)).await;

        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.sandbox.payment(Provider::Heleket, &order.provider_id).unwrap().refunded, 4_000_000);
        hear(&shop).await;
        expect![[r#"
            heleket  -6.000000 USDT
            sales    +6.000000 USDT
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn a_notice_that_comes_before_its_refund_is_asked_about_again(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.sell(&key, "yookassa").await;
        refund_in_the_cabinet(&shop, &order, "990.00").await;
        shop.sandbox.fault(Target::Api(Provider::Yookassa, "GET /refunds".into()), Fault::Status(404), Some(2));
        hear(&shop).await;
        assert_eq!(shop.status(&order).await, "delivered", "nobody knows of a refund yet");
        for _ in 0..3 {
            shop.wait(minutes(1)).await;
        }
        assert_eq!(shop.status(&order).await, "refunded");

        let other = shop.sell(&key, "yookassa").await;
        shop.sandbox.lie(Provider::Yookassa, &other.provider_id, "refund.succeeded").unwrap();
        hear(&shop).await;
        for _ in 0..6 {
            shop.wait(minutes(1)).await;
        }
        assert_eq!(shop.status(&other).await, "delivered", "a refund that never was takes nothing");
        assert_eq!(
            shop.inbox().await,
            [
                "payment.succeeded applied",
                "payment.succeeded applied",
                "refund.succeeded applied",
                "refund.succeeded ignored: the provider does not know this refund",
            ]
        );
        shop.finish().await;
    }

    /// Its payment comes into the books only after the last try.
    async fn a_notice_that_nobody_could_look_into_is_kept_for_the_owner(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay(&order);
        shop.lose_all();
        let slot = order.payment.clone();
        let lost = shop.shop().write("story.lost", move |tx, _| {
            jobs::cancel(tx, ConfirmPayment::KIND, &slot)?;
            Ok::<_, Error>(())
        });
        lost.await.unwrap();
        refund_in_the_cabinet(&shop, &order, "990.00").await;
        hear(&shop).await;
        // Its job gives up after its last try, two hours later.
        for _ in 0..130 {
            shop.wait(minutes(2)).await;
        }
        let inbox = shop.inbox().await;
        assert!(inbox.len() == 1 && inbox[0].starts_with("refund.succeeded quarantined: "), "{inbox:?}");
        assert!(shop.alerts().iter().any(|alert| alert.contains("could not be looked into")), "{:?}", shop.alerts());

        let swept = shop.shop().write("story.sweep", |tx, shop| {
            let now = tx.now();
            jobs::enqueue(tx, &SweepProvider { provider: Rail::YooKassa, tick: now.millis() }, now, &shop.chance)?;
            Ok::<_, Error>(())
        });
        swept.await.unwrap();
        shop.run_jobs().await;
        let notice = shop.store.texts("select id from inbox").await.remove(0);
        assert_eq!(shop.post(&format!("/api/v1/inbox/{notice}/replay"), json!({})).await.0, 202);
        shop.run_jobs().await;
        assert_eq!(shop.inbox().await, ["refund.succeeded applied"]);
        expect![[r#"
            suspense  0.00 RUB
            yookassa  0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn a_topup_is_not_refunded_to_the_balance_that_it_filled(t: TestStore) {
        let shop = TestShop::start(t).await;
        let price = json!({ "amount": "1000.00", "currency": "RUB" });
        let topup = shop.product_of(json!({ "title": "Balance", "kind": "topup", "price": price })).await;
        let order = shop.sell(&topup, "yookassa").await;
        let told = shop.chat(CUSTOMER).len();
        for amount in [None, Some("400.00")] {
            let refused = shop.refund(&order, "balance", amount).await;
            assert_eq!(refusal(&refused), "409 conflict");
            assert!(text(&refused.1["detail"]).contains("refund it to the provider"), "{}", refused.1);
        }
        shop.run_jobs().await;
        assert_eq!((shop.status(&order).await, shop.chat(CUSTOMER).len()), ("delivered".to_owned(), told));
        assert_eq!(shop.number("select count(*) from refunds").await, 0);

        assert_eq!(shop.refund(&order, "provider", None).await.0, 200);
        hear(&shop).await;
        assert_eq!(shop.status(&order).await, "refunded");
        expect![[r#"
            customer 42  0.00 RUB
            yookassa     0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        hear(&shop).await;
        shop.finish().await;
    }

    async fn a_topup_that_is_spent_cannot_be_refunded_and_nothing_changes(t: TestStore) {
        let shop = TestShop::start(t).await;
        let price = json!({ "amount": "1000.00", "currency": "RUB" });
        let topup = shop.product_of(json!({ "title": "Balance", "kind": "topup", "price": price })).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&topup, "yookassa").await;
        shop.sell(&key, "balance").await;
        let before = shop.ledger().await;
        assert_eq!(refusal(&shop.refund(&order, "provider", None).await), "409 insufficient-balance");
        shop.run_jobs().await;

        assert_eq!((shop.status(&order).await, shop.ledger().await), ("delivered".to_owned(), before));
        assert_eq!(shop.number("select count(*) from refunds").await, 0);
        assert_eq!(shop.sandbox.payment(Provider::Yookassa, &order.provider_id).unwrap().refunded, 0);
        shop.finish().await;
    }

    async fn an_order_refunded_in_parts_gives_its_topup_back_once(t: TestStore) {
        let shop = TestShop::start(t).await;
        let price = json!({ "amount": "500.00", "currency": "RUB" });
        let topup = shop.product_of(json!({ "title": "Balance", "kind": "topup", "price": price })).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let mut wanted = an_order(CUSTOMER, &key, "yookassa");
        wanted["items"] = json!([{ "product": key, "quantity": 1 }, { "product": topup, "quantity": 1 }]);
        let (status, made) = shop.post("/api/v1/orders", wanted).await;
        assert_eq!(status, 201, "{made}");
        let order = OrderHandle::read(&made);
        shop.pay(&order);
        hear(&shop).await;
        assert_eq!(shop.balance(CUSTOMER).await, "500.00 RUB");

        for (part, balance, state) in [(Some("300.00"), "200.00 RUB", "delivered"), (None, "0.00 RUB", "refunded")] {
            shop.advance(Duration::from_secs(1)).await;
            assert_eq!(shop.refund(&order, "provider", part).await.0, 200);
            hear(&shop).await;
            assert_eq!((shop.balance(CUSTOMER).await.as_str(), shop.status(&order).await.as_str()), (balance, state));
        }
        hear(&shop).await;
        expect![[r#"
            customer 42  0.00 RUB
            sales        0.00 RUB
            yookassa     0.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }
}
