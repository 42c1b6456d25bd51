//! Audiences of campaigns: who has access, who had it, and who bought what.

use serde_json::{Value, json};

use semel_kernel::each_store;

use super::{VpnShop, days};
use crate::app::{OrderHandle, ROOMS};

/// A key for a customer, delivered.
async fn buys(shop: &VpnShop, customer: i64, product: &str) -> OrderHandle {
    let order = shop.order_by(customer, product, "yookassa").await;
    shop.pay(&order);
    shop.receive_all().await;
    shop.run_jobs().await;
    assert_eq!(shop.status(&order).await, "delivered");
    order
}

each_store! { ROOMS;
    async fn an_audience_is_by_access_by_what_was_bought_or_by_name(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_GRACE_HOURS", "0")]).await;
        let (month, week) = (shop.access(30, 1).await, shop.access(7, 1).await);
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.buy(101, &month).await;
        shop.buy(102, &week).await;
        buys(&shop, 103, &key).await;
        let regretted = buys(&shop, 104, &key).await;
        let (status, refunded) = shop.refund(&regretted, "balance", None).await;
        assert_eq!(status, 200, "{refunded}");
        shop.wait(days(8)).await;
        assert_eq!((shop.state(101).await.as_str(), shop.state(102).await.as_str()), ("active", "expired"));

        let audiences = [
            (json!({}), 4),
            (json!({ "access": "active" }), 1),
            (json!({ "access": "expired" }), 1),
            (json!({ "access": "never" }), 2),
            (json!({ "bought": key }), 1),
            (json!({ "not_bought": key }), 3),
            (json!({ "bought": week, "access": "expired" }), 1),
            (json!({ "bought": week, "access": "active" }), 0),
            (json!({ "list": [101, 103, 999] }), 3),
        ];
        for (n, (rule, people)) in audiences.into_iter().enumerate() {
            let (status, saved) =
                shop.post("/api/v1/segments", json!({ "name": format!("audience {n}"), "rule": rule })).await;
            assert_eq!((status, &saved["audience"]["people"]), (201, &Value::from(people)), "{saved}");
        }
        shop.finish().await;
    }
}
