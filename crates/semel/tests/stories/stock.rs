//! Goods that are made to order: who gets what comes into stock, and when.

use std::time::Duration;

use serde_json::json;

use semel_kernel::each_store;
use semel_sandbox::{Fault, Provider, Target};

use crate::app::{CUSTOMER, OrderHandle, ROOMS, TestShop, minutes};

/// A product that is promised within a day.
async fn portraits(shop: &TestShop) -> String {
    let price = json!({ "amount": "1500.00", "currency": "RUB" });
    let portrait = json!({
        "title": "Portrait", "kind": "stock", "price": price, "delivery": "made_to_order", "promise_hours": 24,
    });
    shop.product_of(portrait).await
}

/// So many of a product for this customer, ordered and paid a second after everything before.
async fn bought(shop: &TestShop, customer: i64, product: &str, quantity: i64) -> OrderHandle {
    shop.advance(Duration::from_secs(1)).await;
    let wanted = json!({
        "customer": { "telegram_id": customer },
        "items": [{ "product": product, "quantity": quantity }],
        "provider": "yookassa",
    });
    let (status, made) = shop.post("/api/v1/orders", wanted).await;
    assert_eq!(status, 201, "an order is made: {made}");
    let order = OrderHandle::read(&made);
    shop.pay(&order);
    hear(shop).await;
    order
}

/// Goods come in a second after everything before, and what follows from it happens.
async fn import(shop: &TestShop, product: &str, items: &[&str]) {
    shop.advance(Duration::from_secs(1)).await;
    shop.stock(product, items).await;
    shop.run_jobs().await;
}

/// The webhooks come, and what they set in motion happens.
async fn hear(shop: &TestShop) {
    shop.receive_all().await;
    shop.run_jobs().await;
}

/// YooKassa makes no refund until this is lifted.
fn no_refunds(shop: &TestShop) {
    shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /refunds".into()), Fault::Status(500), None);
}

each_store! { ROOMS;
    async fn what_came_in_by_mistake_goes_out_whole_or_not_at_all_and_may_come_again(t: TestStore) {
        let shop = TestShop::start(t).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3", "KEY-4"]).await;
        shop.product_with("Another", "10.00", &["OTHER-1"]).await;
        let sold = bought(&shop, CUSTOMER, &product, 1).await;
        let unpaid = json!({
            "customer": { "telegram_id": 7 }, "items": [{ "product": product }], "provider": "yookassa",
        });
        let (status, held) = shop.post("/api/v1/orders", unpaid).await;
        assert_eq!(status, 201, "{held}");
        let held = held["id"].as_str().expect("an order");
        let out = format!("/api/v1/products/{product}/stock/withdraw");

        let all = json!({ "items": ["KEY-1", "KEY-2", "KEY-3", "KEY-4", "OTHER-1", "KEY-5"] });
        let (status, refused) = shop.post(&out, all).await;
        assert_eq!(status, 409, "{refused}");
        let why = refused["detail"].as_str().expect("a reason");
        for wanted in [
            format!("was sold (order {})", sold.id),
            format!("is held (order {held})"),
            "line 5 is not in its stock".to_owned(),
            "line 6 is not in its stock".to_owned(),
        ] {
            assert!(why.contains(&wanted), "{wanted}: {why}");
        }
        assert!(!why.contains("KEY-") && !why.contains("line 3"), "{why}");
        assert_eq!(shop.available(&product).await, 2, "nothing is half done");

        let mistaken = json!({ "items": ["KEY-3", "KEY-4", "KEY-3"] });
        for _ in 0..2 {
            let (status, gone) = shop.post_with_key(&out, mistaken.clone(), "withdraw").await;
            assert_eq!((status, gone), (200, json!({ "withdrawn": 2 })));
        }
        assert_eq!(shop.post(&out, mistaken).await.0, 409, "they are gone already");
        assert_eq!(shop.available(&product).await, 0);
        let notes = "select cast(count(*) as bigint) from history where event = 'stock withdrawn' and detail = '2 withdrawn'";
        assert_eq!(shop.number(notes).await, 1);
        let kept = "select cast(count(*) as bigint) from units where content in ('KEY-3', 'KEY-4')";
        assert_eq!(shop.number(kept).await, 0);

        let items = json!({ "items": ["KEY-1", "KEY-2", "KEY-3"] });
        let (status, again) = shop.post(&format!("/api/v1/products/{product}/stock"), items).await;
        assert_eq!((status, again), (200, json!({ "added": 1, "duplicates": 2 })), "what was sold comes never again");
        bought(&shop, 8, &product, 1).await;
        assert_eq!(shop.delivered_to(8), ["KEY-3"]);
        shop.finish().await;
    }

    async fn a_unit_is_bought_or_withdrawn_and_never_both(t: TestStore) {
        let shop = TestShop::start(t).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let wanted = json!({
            "customer": { "telegram_id": CUSTOMER }, "items": [{ "product": product }], "provider": "yookassa",
        });
        let out = format!("/api/v1/products/{product}/stock/withdraw");
        let (bought, withdrawn) =
            tokio::join!(shop.post("/api/v1/orders", wanted), shop.post(&out, json!({ "items": ["KEY-1"] })));
        assert!(matches!((bought.0, withdrawn.0), (201, 409) | (409, 200)), "{bought:?} {withdrawn:?}");
        assert_eq!(shop.available(&product).await, 0);
        shop.finish().await;
    }
}

each_store! { ROOMS;
    async fn who_paid_first_is_served_first(t: TestStore) {
        let shop = TestShop::start(t).await;
        let portrait = portraits(&shop).await;
        bought(&shop, CUSTOMER, &portrait, 2).await;
        bought(&shop, 7, &portrait, 2).await;
        import(&shop, &portrait, &["P-1", "P-2", "P-3"]).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["P-1", "P-2"]);
        assert!(shop.delivered_to(7).is_empty(), "a line is filled whole or not at all");

        import(&shop, &portrait, &["P-4"]).await;
        assert_eq!(shop.delivered_to(7), ["P-3", "P-4"]);
        shop.finish().await;
    }

    async fn a_large_order_does_not_hold_small_ones_back(t: TestStore) {
        let shop = TestShop::start(t).await;
        let portrait = portraits(&shop).await;
        let large = bought(&shop, CUSTOMER, &portrait, 3).await;
        let small = bought(&shop, 7, &portrait, 1).await;
        import(&shop, &portrait, &["P-1", "P-2"]).await;
        assert_eq!(shop.delivered_to(7), ["P-1"]);
        assert_eq!(shop.status(&small).await, "delivered");
        assert_eq!((shop.status(&large).await, shop.available(&portrait).await), ("awaiting_stock".to_owned(), 1));

        bought(&shop, 8, &portrait, 1).await;
        assert_eq!(shop.delivered_to(8), ["P-2"], "the same rule for a new order");
        import(&shop, &portrait, &["P-3", "P-4", "P-5"]).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["P-3", "P-4", "P-5"]);
        assert_eq!(shop.status(&large).await, "delivered");
        shop.finish().await;
    }

    async fn a_large_order_is_passed_over_until_its_promised_time_only(t: TestStore) {
        let shop = TestShop::start(t).await;
        let portrait = portraits(&shop).await;
        bought(&shop, CUSTOMER, &portrait, 3).await;
        shop.wait(minutes(23 * 60)).await;
        bought(&shop, 7, &portrait, 1).await;
        shop.wait(minutes(2 * 60)).await;
        import(&shop, &portrait, &["P-1", "P-2"]).await;
        let new = bought(&shop, 8, &portrait, 1).await;
        assert_eq!((shop.status(&new).await, shop.available(&portrait).await), ("awaiting_stock".to_owned(), 2));
        assert!(shop.delivered_to(7).is_empty() && shop.delivered_to(8).is_empty(), "units gather for the large one");
        assert!(shop.alerts().iter().any(|alert| alert.contains("are kept for it")), "{:?}", shop.alerts());

        import(&shop, &portrait, &["P-3"]).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["P-1", "P-2", "P-3"]);
        import(&shop, &portrait, &["P-4", "P-5"]).await;
        assert_eq!((shop.delivered_to(7), shop.delivered_to(8)), (vec!["P-4".to_owned()], vec!["P-5".to_owned()]));
        shop.finish().await;
    }
}

each_store! { ROOMS;
    /// Whether the refund of a part is refused or made.
    async fn stock_that_came_during_a_refund_reaches_the_order_when_that_ends(t: TestStore) {
        let shop = TestShop::start(t).await;
        let portrait = portraits(&shop).await;
        let mut delivered = Vec::new();
        for (unit, refused) in [("P-1", true), ("P-2", false)] {
            no_refunds(&shop);
            let order = bought(&shop, CUSTOMER, &portrait, 1).await;
            assert_eq!(shop.refund(&order, "provider", Some("100.00")).await.0, 200);
            shop.run_jobs().await;
            import(&shop, &portrait, &[unit]).await;
            assert_eq!((shop.status(&order).await, shop.available(&portrait).await), ("refund_pending".to_owned(), 1));
            assert_eq!(shop.delivered_to(CUSTOMER), delivered, "nothing is handed out while money is on its way back");

            shop.sandbox.clear_faults();
            if refused {
                let refusal = Target::Api(Provider::Yookassa, "POST /refunds".into());
                shop.sandbox.fault(refusal, Fault::Status(400), Some(1));
            }
            shop.wait(minutes(10)).await;
            delivered.push(unit.to_owned());
            assert_eq!(shop.delivered_to(CUSTOMER), delivered, "refused: {refused}");
            assert_eq!(shop.status(&order).await, "delivered", "refused: {refused}");
            hear(&shop).await;
        }
        shop.finish().await;
    }

    async fn what_was_kept_for_an_order_goes_to_others_when_its_money_goes_back(t: TestStore) {
        let shop = TestShop::start(t).await;
        let portrait = portraits(&shop).await;
        let large = bought(&shop, CUSTOMER, &portrait, 3).await;
        bought(&shop, 7, &portrait, 1).await;
        shop.wait(minutes(25 * 60)).await;
        import(&shop, &portrait, &["P-1"]).await;
        assert!(shop.delivered_to(7).is_empty(), "the unit is kept for the large one");

        assert_eq!(shop.refund(&large, "balance", None).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.status(&large).await, "refunded");
        assert_eq!(shop.delivered_to(7), ["P-1"]);
        shop.finish().await;
    }

    async fn an_order_whose_money_is_on_its_way_back_holds_nobody_back(t: TestStore) {
        let shop = TestShop::start(t).await;
        let portrait = portraits(&shop).await;
        let large = bought(&shop, CUSTOMER, &portrait, 3).await;
        bought(&shop, 7, &portrait, 1).await;
        shop.wait(minutes(25 * 60)).await;
        import(&shop, &portrait, &["P-1"]).await;
        no_refunds(&shop);
        assert_eq!(shop.refund(&large, "provider", None).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.status(&large).await, "refund_pending");
        assert_eq!(shop.delivered_to(7), ["P-1"]);

        shop.sandbox.clear_faults();
        shop.wait(minutes(10)).await;
        assert_eq!(shop.status(&large).await, "refunded");
        hear(&shop).await;
        shop.finish().await;
    }
}
