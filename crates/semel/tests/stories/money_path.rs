//! Where an order's money went stands on its timeline, with sum and reason, whenever it did not simply buy the goods.

use std::time::Duration;

use serde_json::json;

use semel_kernel::each_store;

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, minutes, text};

/// The lines about money on an order's timeline, without their moments.
async fn path(shop: &TestShop, order: &OrderHandle) -> Vec<String> {
    let shown = shop.show(order).await;
    let timeline = shown["timeline"].as_array().cloned().unwrap_or_default();
    let moments: Vec<String> = timeline.iter().map(|row| text(&row["at"])).collect();
    assert!(moments.is_sorted(), "a timeline goes forward: {moments:?}");
    let money = timeline.iter().filter(|row| row["entity"] == "money");
    money.map(|row| format!("{}: {}", text(&row["event"]), text(&row["detail"]))).collect()
}

/// The webhooks come, and what they set in motion happens.
async fn hear(shop: &TestShop) {
    shop.receive_all().await;
    shop.run_jobs().await;
}

each_store! { ROOMS;
    async fn an_order_that_was_simply_paid_has_no_line_about_its_money(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        for provider in ["yookassa", "heleket", "crystalpay"] {
            let order = shop.sell(&key, provider).await;
            assert_eq!(shop.status(&order).await, "delivered");
            assert!(path(&shop, &order).await.is_empty(), "{provider}");
        }
        shop.finish().await;
    }

    async fn too_little_and_too_much_are_found_on_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let short = shop.order(&key, "heleket").await;
        let surplus = shop.order_by(7, &key, "heleket").await;
        shop.pay_amount(&short, "900.00");
        shop.pay_amount(&surplus, "1000.00");
        hear(&shop).await;
        assert_eq!(path(&shop, &short).await, ["went to the balance: 900.00 RUB, short"]);
        assert_eq!(path(&shop, &surplus).await, ["went to the balance: 10.00 RUB, surplus"]);
        shop.finish().await;
    }

    async fn late_money_is_followed_to_the_balance_and_back_to_its_payer(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let late = shop.order(&key, "yookassa").await;
        shop.wait(minutes(31)).await;
        let other = shop.order_by(7, &key, "heleket").await;
        shop.pay(&other);
        hear(&shop).await;
        shop.pay(&late);
        hear(&shop).await;
        assert_eq!(path(&shop, &late).await, ["went to the balance: 990.00 RUB, sold out"]);

        shop.advance(Duration::from_secs(1)).await;
        let amount = json!({ "value": "990.00", "currency": "RUB" });
        shop.at_yookassa("/refunds", json!({ "payment_id": late.provider_id, "amount": amount })).await;
        hear(&shop).await;
        let wanted = [
            "went to the balance: 990.00 RUB, sold out",
            "went back from the balance: 990.00 RUB, made at the provider",
        ];
        assert_eq!(path(&shop, &late).await, wanted);
        shop.finish().await;
    }

    async fn of_two_payments_the_second_is_found_on_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let first = shop.order(&key, "yookassa").await;
        shop.advance(Duration::from_secs(1)).await;
        let (status, other) = shop.post(&format!("/api/v1/orders/{}/pay", first.id), json!({ "provider": "heleket" })).await;
        assert_eq!(status, 200, "{other}");
        let second = OrderHandle::read(&other);
        for payment in [&first, &second] {
            shop.pay(payment);
            hear(&shop).await;
        }
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(path(&shop, &first).await, ["went to the balance: 990.00 RUB, second"]);
        shop.finish().await;
    }

    async fn money_in_suspense_is_followed_on_both_orders(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.pay_amount(&order, "1.00");
        hear(&shop).await;
        let came = format!(
            "went to suspense, where it is nobody's yet: 1.00 RUB, payment {} asks for 1.00 RUB there and 990.00 RUB here",
            order.payment
        );
        assert_eq!(path(&shop, &order).await, [came.as_str()]);

        let other = shop.order_by(7, &key, "heleket").await;
        let assign = format!("/api/v1/payments/{}/assign", order.provider_id);
        assert_eq!(shop.post(&assign, json!({ "order": other.id })).await.0, 200);
        let left = format!("left suspense for the balance, with order {}: 1.00 RUB, by api", other.id);
        assert_eq!(path(&shop, &order).await, [came, left]);
        assert_eq!(path(&shop, &other).await, ["left suspense for the balance: 1.00 RUB, by api"]);
        assert_eq!(shop.balance(7).await, "1.00 RUB");
        shop.finish().await;
    }

    async fn money_that_belonged_to_nobody_tells_where_it_came_from(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let foreign = json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
        let foreign = text(&shop.at_yookassa("/payments", foreign).await["id"]);
        shop.sandbox.pay(semel_sandbox::Provider::Yookassa, &foreign).unwrap();
        hear(&shop).await;
        let order = shop.order(&key, "heleket").await;
        let assign = format!("/api/v1/payments/{foreign}/assign");
        assert_eq!(shop.post(&assign, json!({ "order": order.id })).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(path(&shop, &order).await, ["left suspense and paid this order: 990.00 RUB, by api"]);
        shop.finish().await;
    }
}
