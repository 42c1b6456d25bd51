//! Addresses: no two customers on one, and who finds none free waits or gets the money back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use semel_kernel::each_store;

use super::{NO_BOT, VpnShop, access_order, client_key, days};
use crate::app::{Api, CUSTOMER, OrderHandle, ROOMS, minutes, text};

const WAITING: &str = "We have your payment, thank you! The VPN has no free place right now";

/// Orders for every one of `customers`, through two doors, a few at once.
async fn crowd(doors: [Api; 2], customers: std::ops::Range<i64>, product: &str) -> Vec<OrderHandle> {
    let mut orders = Vec::new();
    let all: Vec<i64> = customers.collect();
    for some in all.chunks(20) {
        let asked: Vec<_> = some
            .iter()
            .map(|customer| {
                let door = doors[usize::try_from(customer % 2).unwrap()].clone();
                let wanted = access_order(*customer, product);
                tokio::spawn(async move { door.post("/api/v1/orders", wanted).await })
            })
            .collect();
        for one in asked {
            let (status, made) = one.await.unwrap();
            assert_eq!(status, 201, "an order is made: {made}");
            orders.push(OrderHandle::read(&made));
        }
    }
    orders
}

/// Orders that wait for an address.
const WAIT: &str = "select id from orders where state = 'awaiting_stock'";

/// How many orders are delivered, wait, and were refunded.
async fn standing(shop: &VpnShop) -> [i64; 3] {
    let delivered = shop.number("select count(*) from orders where state = 'delivered'").await;
    let waiting = shop.number("select count(*) from orders where state = 'awaiting_stock'").await;
    [delivered, waiting, shop.number("select count(*) from orders where state = 'refunded'").await]
}

fn count(statuses: &[String], wanted: &str) -> usize {
    statuses.iter().filter(|status| status.as_str() == wanted).count()
}

async fn statuses(shop: &VpnShop, orders: &[OrderHandle]) -> Vec<String> {
    let mut statuses = Vec::new();
    for order in orders {
        statuses.push(shop.status(order).await);
    }
    statuses
}

each_store! { ROOMS;
    /// Twice as many orders as addresses, paid at once and settled by two copies.
    async fn a_crowd_at_a_full_network_gets_each_address_once_and_the_rest_waits(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT, ("SEMEL_VPN_QUARANTINE_DAYS", "1")]).await;
        let rival = shop.rival().await;
        let month = shop.access(30, 1).await;
        let orders = crowd([shop.program.api.clone(), rival.api.clone()], 1000..1500, &month).await;
        for order in &orders {
            shop.pay(order);
        }
        shop.receive_all().await;
        tokio::join!(shop.run_jobs(), rival.run_jobs(), shop.run_jobs(), rival.run_jobs());
        shop.wait(minutes(1)).await;

        assert_eq!(standing(&shop).await, [253, 247, 0]);
        assert_eq!(shop.number("select count(*) from addresses where state = 'held'").await, 253);
        let networks: BTreeSet<String> = shop.wg.peers().into_values().flatten().collect();
        assert_eq!(networks.len(), 253, "no address twice");
        shop.is_in_step().await;

        // Some of those who wait would rather have their money; some of the others leave.
        let waiting: BTreeSet<String> = shop.store.texts(WAIT).await.into_iter().collect();
        for order in orders.iter().filter(|order| waiting.contains(&order.id)).take(5) {
            let (status, shown) = shop.refund(order, "balance", None).await;
            assert_eq!((status, text(&shown["status"])), (200, "refunded".into()));
        }
        for order in orders.iter().filter(|order| !waiting.contains(&order.id)).take(10) {
            let id = text(&shop.subscriptions(order.customer).await[0]["id"]);
            let revoked = shop.post(&format!("/api/v1/subscriptions/{id}/revoke"), json!({ "reason": "gone" })).await;
            assert_eq!(revoked.0, 200, "{}", revoked.1);
        }
        shop.run_jobs().await;
        assert_eq!(standing(&shop).await, [253, 242, 5], "what is free again rests first");
        shop.advance(days(1) + minutes(2)).await;
        tokio::join!(shop.run_jobs(), rival.run_jobs());
        shop.wait(minutes(2)).await;

        assert_eq!(standing(&shop).await, [263, 232, 5]);
        assert_eq!(shop.number("select count(*) from addresses where state = 'held'").await, 253);
        assert_eq!(shop.wg.peers().len(), 253);
        shop.finish().await;
    }

    async fn who_finds_no_address_is_told_and_served_when_one_comes_free(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_NETWORK", "10.8.0.0/30")]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let second = shop.buy(7, &month).await;
        assert_eq!(shop.status(&second).await, "awaiting_stock");
        assert_eq!((shop.chat(7).len(), shop.told(7, WAITING)), (1, 1), "{:?}", shop.chat(7));
        assert_eq!(shop.warned("waits for VPN access: no address is free"), 1, "{:?}", shop.alerts());
        assert_eq!(shop.warned(&second.id), 2, "sold, and waiting");

        shop.advance(minutes(1)).await;
        let third = shop.buy(8, &month).await;
        assert_eq!(shop.refund(&second, "balance", None).await.0, 200);
        shop.by_owner(CUSTOMER, "revoke", json!({})).await;
        assert!(shop.wg.peers().is_empty());
        assert_eq!(shop.status(&third).await, "awaiting_stock", "it rests first");
        shop.wait(days(7) + minutes(2)).await;
        assert_eq!(shop.status(&third).await, "delivered");
        assert_eq!((shop.address(8).await.as_str(), shop.files_to(8).len()), ("10.8.0.2", 1));
        // Its month begins now, not when it was paid.
        let until = shop.until(8).await;
        assert!(until.starts_with("2026-04-07T09:0"), "{until}");
        assert!(shop.files_to(7).is_empty());
        shop.finish().await;
    }

    async fn who_paid_first_is_served_first(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT, ("SEMEL_VPN_NETWORK", "10.8.0.0/30")]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let mut waiting = Vec::new();
        for customer in [9, 8, 7] {
            shop.advance(minutes(1)).await;
            waiting.push(shop.buy(customer, &month).await);
        }
        for (n, holder) in [CUSTOMER, 9, 8].into_iter().enumerate() {
            shop.by_owner(holder, "revoke", json!({})).await;
            shop.wait(days(7) + minutes(2)).await;
            let now = statuses(&shop, &waiting).await;
            assert_eq!(count(&now, "delivered"), n + 1, "{now:?}");
            assert_eq!(now[n], "delivered", "{now:?}");
        }
        shop.finish().await;
    }

    async fn a_line_for_more_devices_than_there_are_addresses_gets_none_of_them(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT, ("SEMEL_VPN_NETWORK", "10.8.0.0/29")]).await;
        let (large, month) = (shop.access(30, 6).await, shop.access(30, 1).await);
        let waiting = shop.buy(CUSTOMER, &large).await;
        assert_eq!(shop.status(&waiting).await, "awaiting_stock");
        assert!(shop.subscriptions(CUSTOMER).await.is_empty());
        assert_eq!(shop.number("select count(*) from addresses where state = 'free'").await, 5, "nothing is held in vain");
        for customer in 101..=105 {
            let order = shop.buy(customer, &month).await;
            assert_eq!(shop.status(&order).await, "delivered", "it keeps nobody else waiting");
        }
        assert_eq!(shop.refund(&waiting, "balance", None).await.0, 200);
        shop.finish().await;
    }

    async fn the_owner_is_warned_at_four_fifths_once_a_day(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_NETWORK", "10.8.0.0/29")]).await;
        let month = shop.access(30, 1).await;
        let words = "IPv4 addresses of the VPN server local are used";
        for (customer, warned) in [(101, 0), (102, 0), (103, 0), (104, 1), (105, 1)] {
            shop.buy(customer, &month).await;
            assert_eq!(shop.warned(words), warned, "after {customer}: {:?}", shop.alerts());
        }
        assert_eq!(shop.warned("4 of 5 IPv4 addresses"), 1);
        shop.finish().await;
    }

    async fn addresses_that_are_not_to_be_given_out_are_not(t: TestStore) {
        let network = ("SEMEL_VPN_NETWORK", "10.8.0.0/29");
        let shop = VpnShop::with(t, &[NO_BOT, network, ("SEMEL_VPN_EXCLUDED", "10.8.0.2, 10.8.0.4/31")]).await;
        let month = shop.access(30, 1).await;
        for customer in [101, 102] {
            shop.buy(customer, &month).await;
        }
        let waiting = shop.buy(103, &month).await;
        assert_eq!((shop.address(101).await, shop.address(102).await), ("10.8.0.3".into(), "10.8.0.6".into()));
        assert!(shop.subscriptions(103).await.is_empty(), "the server, the network and the broadcast are nobody's");
        let pool = shop.server().await["pools"][0].clone();
        assert_eq!((&pool["size"], &pool["free"], &pool["held"]), (&json!(2), &json!(0), &json!(2)), "{pool}");
        assert_eq!(shop.refund(&waiting, "balance", None).await.0, 200);
        shop.finish().await;
    }

    /// A device with an address from there would connect and reach nothing.
    async fn a_network_in_which_the_interface_has_no_address_gives_none_out(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_NETWORK", "10.8.0.0/30, 10.9.0.0/24")]).await;
        assert_eq!(shop.warned("Nobody gets an address of 10.9.0.0/24"), 1, "{:?}", shop.alerts());
        assert_eq!(shop.warned("Address = 10.9.0.1/24"), 1, "and what to write is said");
        let month = shop.access(30, 1).await;
        shop.buy(101, &month).await;
        assert_eq!(shop.address(101).await, "10.8.0.2");
        let waiting = shop.buy(102, &month).await;
        assert_eq!(shop.status(&waiting).await, "awaiting_stock");
        assert_eq!(shop.number("select count(*) from addresses where ip like '10.9.%'").await, 0);
        assert_eq!(shop.refund(&waiting, "balance", None).await.0, 200);
        shop.finish().await;
    }

    async fn what_a_foreign_peer_has_is_given_to_nobody(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT]).await;
        shop.wg.add_by_hand(&client_key(200), "10.8.0.3/32");
        let month = shop.access(30, 1).await;
        for customer in [101, 102] {
            shop.buy(customer, &month).await;
        }
        let given: Vec<String> = vec![shop.address(101).await, shop.address(102).await];
        assert_eq!(given, ["10.8.0.2", "10.8.0.4"]);
        let who = shop.get("/api/v1/addresses/10.8.0.3").await.1;
        assert_eq!((&who["now"][0]["state"], &who["now"][0]["peer"]), (&json!("held"), &Value::Null), "{who}");
        assert!(shop.wg.has(&client_key(200)), "it stays as it is");
        shop.finish().await;
    }
}
