//! What becomes of money and goods when a sale does not go by the book.

use std::collections::BTreeMap;

use expect_test::expect;
use serde_json::{Value, json};

use semel_kernel::each_store;

use crate::app::{Api, CUSTOMER, OrderHandle, ROOMS, TestShop, an_order, minutes, money, refusal, text};

each_store! { ROOMS;
    async fn money_that_comes_late_still_buys_what_is_left(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.wait(minutes(31)).await;
        assert_eq!(shop.status(&order).await, "expired");
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            sales     +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn money_that_comes_when_all_is_sold_goes_to_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let late = shop.order(&key, "heleket").await;
        shop.wait(minutes(31)).await;
        let other = shop.order_by(7, &key, "yookassa").await;
        for order in [&other, &late] {
            shop.pay(order);
            shop.receive_all().await;
            shop.run_jobs().await;
        }
        assert_eq!(shop.delivered_to(7), ["KEY-1"]);
        assert!(shop.delivered_to(CUSTOMER).is_empty());
        assert_eq!(shop.status(&late).await, "expired");
        assert!(shop.alerts().iter().any(|alert| alert.contains("balance: sold out")));
        expect![[r#"
            customer 42  +990.00 RUB
            heleket      -990.00 RUB
            sales        +990.00 RUB
            yookassa     -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn an_owner_may_sell_nothing_late(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_LATE_DELIVER", "false")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "crystalpay").await;
        shop.wait(minutes(31)).await;
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!((shop.status(&order).await, shop.available(&key).await), ("expired".to_owned(), 1));
        expect![[r#"
            crystalpay   -990.00 RUB
            customer 42  +990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn money_for_a_cancelled_order_goes_to_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "yookassa").await;
        shop.post(&format!("/api/v1/orders/{}/cancel", order.id), json!({})).await;
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!((shop.status(&order).await, shop.available(&key).await), ("cancelled".to_owned(), 1));
        assert_eq!(shop.balance(CUSTOMER).await, "990.00 RUB");
        shop.finish().await;
    }

    async fn too_little_goes_to_the_balance_and_the_order_waits_on(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "heleket").await;
        shop.pay_amount(&order, "900.00");
        shop.receive_all().await;
        shop.run_jobs().await;

        let shown = shop.show(&order).await;
        assert_eq!((text(&shown["status"]), text(&shown["payment"]["status"])), ("pending".into(), "short".into()));
        assert_eq!(money(&shown["payment"]["received"]), "900.00 RUB");
        expect![[r#"
            customer 42  +900.00 RUB
            heleket      -900.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);

        shop.wait(minutes(31)).await;
        assert_eq!((shop.status(&order).await, shop.available(&key).await), ("expired".to_owned(), 1));
        shop.finish().await;
    }

    async fn a_quote_stays_when_the_price_changes(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let before = shop.order(&key, "yookassa").await;
        let dearer = json!({ "price": { "amount": "1500.00", "currency": "RUB" } });
        assert_eq!(shop.patch(&format!("/api/v1/products/{key}"), dearer).await.0, 200);
        let after = shop.order_by(7, &key, "yookassa").await;
        assert_eq!(money(&shop.show(&before).await["total"]), "990.00 RUB");
        assert_eq!(money(&shop.show(&after).await["total"]), "1500.00 RUB");
        shop.pay(&before);
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn another_sum_at_crystalpay_is_money_too(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "crystalpay").await;
        shop.pay_amount(&order, "100.00");
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.status(&order).await, "pending");
        expect![[r#"
            crystalpay   -100.00 RUB
            customer 42  +100.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn too_much_buys_the_goods_and_the_rest_goes_to_the_balance(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.order(&key, "heleket").await;
        shop.pay_amount(&order, "1000.00");
        shop.receive_all().await;
        shop.run_jobs().await;

        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        expect![[r#"
            customer 42    +10.00 RUB
            heleket      -1000.00 RUB
            sales         +990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn of_a_hundred_buyers_one_gets_the_last_item(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let wanted = (1001..=1100).map(|customer| an_order(customer, &key, "yookassa"));
        let answers = all_at_once(&[&shop.program.api, &rival.api], wanted).await;
        let (made, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 201);
        assert_eq!(count(&others), [("409 sold-out".to_owned(), 99)]);
        assert_eq!(made.len(), 1);

        let order = OrderHandle::read(&made[0].1);
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(order.customer), ["KEY-1"]);
        expect![[r#"
            sales     +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn two_hundred_spends_at_once_take_what_the_balance_covers(t: TestStore) {
        let shop = TestShop::start(t).await;
        let rival = shop.rival().await;
        let price = json!({ "amount": "750.00", "currency": "RUB" });
        let topup = shop.product_of(json!({ "title": "Balance", "kind": "topup", "price": price })).await;
        shop.sell(&topup, "yookassa").await;
        let items: Vec<String> = (1..=200).map(|n| format!("STICKER-{n:03}")).collect();
        let items: Vec<&str> = items.iter().map(String::as_str).collect();
        let sticker = shop.product_with("Sticker", "100.00", &items).await;

        let wanted = (0..200).map(|_| an_order(CUSTOMER, &sticker, "balance"));
        let answers = all_at_once(&[&shop.program.api, &rival.api], wanted).await;
        let (made, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 201);
        assert_eq!(count(&others), [("409 insufficient-balance".to_owned(), 193)]);
        assert_eq!(made.len(), 7);
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER).len(), 7);
        assert_eq!(shop.available(&sticker).await, 193);
        expect![[r#"
            customer 42   +50.00 RUB
            sales        +700.00 RUB
            yookassa     -750.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn a_customer_holds_so_many_unpaid_orders_and_no_more(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_UNPAID_ORDERS_PER_CUSTOMER", "2")]).await;
        let rival = shop.rival().await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3", "KEY-4"]).await;
        let wanted = (0..10).map(|_| an_order(CUSTOMER, &key, "yookassa"));
        let answers = all_at_once(&[&shop.program.api, &rival.api], wanted).await;
        let (made, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, _)| *status == 201);
        assert_eq!(count(&others), [("409 too-many-unpaid-orders".to_owned(), 8)]);
        assert_eq!((made.len(), shop.available(&key).await), (2, 2));

        shop.order_by(7, &key, "yookassa").await;
        let one = OrderHandle::read(&made[0].1);
        shop.post(&format!("/api/v1/orders/{}/cancel", one.id), json!({})).await;
        shop.order(&key, "yookassa").await;
        shop.finish().await;
    }
}

/// Orders all of these at the same time, at each door in turn.
async fn all_at_once(doors: &[&Api], wanted: impl Iterator<Item = Value>) -> Vec<(u16, Value)> {
    let mut tasks = Vec::new();
    for (n, order) in wanted.enumerate() {
        let door = doors[n % doors.len()].clone();
        tasks.push(tokio::spawn(async move { door.post("/api/v1/orders", order).await }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// How often each refusal was given.
fn count(answers: &[(u16, Value)]) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(refusal(answer)).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}
