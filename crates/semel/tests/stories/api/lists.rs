//! Lists with cursors, their filters, and the person behind the orders.

use std::time::Duration;

use semel_kernel::each_store;
use serde_json::json;

use super::{ORDERS, get, ids};
use crate::app::{CUSTOMER, ROOMS, TestShop};

/// The pages of a list, followed by their cursors.
async fn pages(shop: &TestShop, path: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = path.to_owned();
    loop {
        let answer = get(shop, &next).await;
        let page = answer.json();
        assert_eq!(answer.status, 200, "{page}");
        pages.push(ids(&page));
        assert!(pages.len() < 20, "the list never ends");
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}&cursor={cursor}"),
            None => return pages,
        }
    }
}

each_store! { ROOMS;
    async fn five_orders_come_in_three_pages_without_a_repeat(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3", "KEY-4", "KEY-5"]).await;
        let mut made = Vec::new();
        for customer in [CUSTOMER, CUSTOMER + 1, CUSTOMER, CUSTOMER + 1, CUSTOMER] {
            made.push(shop.order_by(customer, &key, "yookassa").await.id);
            shop.advance(Duration::from_secs(1)).await;
        }
        made.reverse();

        let found = pages(&shop, &format!("{ORDERS}?limit=2")).await;
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(found.concat(), made, "the newest first, each once");
        assert_eq!(pages(&shop, &format!("{ORDERS}?limit=5")).await, [made.clone()], "a full page may be the last");
        let first = get(&shop, &format!("{ORDERS}?limit=2&cursor=")).await.json();
        assert_eq!(ids(&first), made[..2], "an empty cursor is none");

        let of_one = pages(&shop, &format!("{ORDERS}?limit=2&customer={CUSTOMER}")).await;
        assert_eq!(of_one.concat(), [made[0].clone(), made[2].clone(), made[4].clone()]);
        assert_eq!(pages(&shop, &format!("{ORDERS}?customer=777")).await, [Vec::<String>::new()]);

        let (status, _) = shop.post(&format!("{ORDERS}/{}/cancel", made[3]), json!({})).await;
        assert_eq!(status, 200);
        assert_eq!(pages(&shop, &format!("{ORDERS}?status=cancelled")).await, [vec![made[3].clone()]]);
        let waiting = pages(&shop, &format!("{ORDERS}?limit=3&status=pending")).await;
        assert_eq!(waiting.concat(), [made[0].clone(), made[1].clone(), made[2].clone(), made[4].clone()]);
        let both = pages(&shop, &format!("{ORDERS}?status=pending&customer={}", CUSTOMER + 1)).await;
        assert_eq!(both, [vec![made[1].clone()]]);

        let jobs = pages(&shop, "/api/v1/jobs?limit=3&state=ready").await.concat();
        let mut once = jobs.clone();
        once.sort();
        once.dedup();
        assert!(jobs.len() > 3 && once.len() == jobs.len(), "each job once: {jobs:?}");
        shop.finish().await;
    }

    async fn a_customer_has_orders_and_balances(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let price = json!({ "amount": "1000.00", "currency": "RUB" });
        let topup = shop.product_of(json!({ "title": "Balance", "kind": "topup", "price": price })).await;
        shop.sell(&topup, "yookassa").await;
        let bought = shop.sell(&key, "balance").await;
        assert_eq!(shop.status(&bought).await, "delivered");

        let (status, person) = shop.get(&format!("/api/v1/customers/{CUSTOMER}")).await;
        assert_eq!((status, &person["telegram_id"]), (200, &json!(CUSTOMER)));
        assert_eq!(person["balances"], json!([{ "amount": "10.00", "currency": "RUB" }]));
        assert_eq!(person["subscriptions"], json!([]));
        let orders = person["orders"].as_array().expect("orders");
        assert_eq!(orders.len(), 2);
        assert!(orders.iter().all(|order| order["status"] == "delivered"), "{person}");
        shop.finish().await;
    }
}
