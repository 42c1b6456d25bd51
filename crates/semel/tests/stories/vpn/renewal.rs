//! Renewals: time is added, and the same file goes on working.

use serde_json::json;

use semel_kernel::each_store;

use super::wg::Does;
use super::{VpnShop, access_order, days, hours};
use crate::app::{CUSTOMER, OrderHandle, ROOMS, minutes, refusal, text};

const RENEWED: &str = "Thank you! Your VPN access goes on until";

each_store! { ROOMS;
    async fn while_it_runs_a_renewal_adds_to_its_end_and_sends_no_new_file(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, file) = shop.held(CUSTOMER).await;
        shop.wait(days(10)).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.until(CUSTOMER).await, "2026-04-30T09:00:00.000Z");
        assert_eq!(shop.subscriptions(CUSTOMER).await.len(), 1);
        assert_eq!(shop.held(CUSTOMER).await, (key, file));
        assert_eq!((shop.files_to(CUSTOMER).len(), shop.told(CUSTOMER, RENEWED)), (1, 1));
        assert!(shop.wg.calls("set").is_empty(), "its session was not touched");
        shop.finish().await;
    }

    async fn in_grace_a_renewal_starts_now_and_nothing_was_interrupted(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.wait(days(30) + hours(5)).await;
        assert_eq!(shop.state(CUSTOMER).await, "grace");
        shop.is_in_step().await;
        assert_eq!(shop.wg.peers().len(), 1, "it goes on for a little while");
        shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-04-30T14:00:00.000Z".into()));
        assert!(shop.wg.calls("set").is_empty());
        assert_eq!((shop.files_to(CUSTOMER).len(), shop.told(CUSTOMER, RENEWED)), (1, 1));
        shop.finish().await;
    }

    async fn after_the_end_a_renewal_revives_the_same_file(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, address, file) = (shop.key(CUSTOMER).await, shop.address(CUSTOMER).await, shop.file(CUSTOMER).await);
        shop.wait(days(30)).await;
        shop.wait(days(1)).await;
        assert_eq!(shop.state(CUSTOMER).await, "expired");
        assert!(shop.wg.peers().is_empty() && shop.in_file().is_empty(), "nobody gets in who has not paid");
        shop.is_in_step().await;

        // Others come meanwhile; the address is kept.
        shop.buy(7, &month).await;
        shop.wait(days(20)).await;
        assert_ne!(shop.address(7).await, address);
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.state(CUSTOMER).await, "active");
        assert_eq!(shop.until(CUSTOMER).await, "2026-05-21T09:00:00.000Z");
        assert_eq!((shop.key(CUSTOMER).await, shop.address(CUSTOMER).await, shop.file(CUSTOMER).await), (key.clone(), address, file));
        assert!(shop.wg.has(&key));
        assert_eq!((shop.files_to(CUSTOMER).len(), shop.told(CUSTOMER, RENEWED)), (1, 1));
        shop.finish().await;
    }

    async fn after_the_time_of_keeping_a_renewal_is_a_new_file_with_another_address(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, address) = (shop.key(CUSTOMER).await, shop.address(CUSTOMER).await);
        shop.wait(days(30)).await;
        shop.wait(days(1)).await;
        assert_eq!(shop.stands(&address).await, "held");
        shop.wait(days(30) + minutes(2)).await;
        assert_eq!(shop.stands(&address).await, "quarantine");

        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_ne!(shop.key(CUSTOMER).await, key);
        assert_ne!(shop.address(CUSTOMER).await, address, "it rests");
        assert_eq!(shop.files_to(CUSTOMER).len(), 2, "the old file works no more");
        shop.wait(days(7) + minutes(2)).await;
        assert_eq!(shop.stands(&address).await, "free");
        let who = shop.get(&format!("/api/v1/addresses/{address}")).await.1;
        assert_eq!(who["holders"][0]["telegram_id"], CUSTOMER, "who had it when is kept: {who}");
        shop.finish().await;
    }

    async fn a_sale_for_other_devices_is_a_subscription_beside_the_first(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let (month, family) = (shop.access(30, 1).await, shop.access(30, 2).await);
        shop.buy(CUSTOMER, &month).await;
        shop.advance(minutes(1)).await;
        shop.buy(CUSTOMER, &family).await;
        let all = shop.subscriptions(CUSTOMER).await;
        let devices: Vec<&serde_json::Value> = all.iter().map(|sub| &sub["devices"]).collect();
        assert_eq!(devices, [2, 1], "a day for two must not make a month for one worth two");
        assert_eq!(shop.wg.peers().len(), 3);
        shop.finish().await;
    }

    async fn a_line_may_name_the_subscription_that_it_renews(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let (month, family) = (shop.access(30, 1).await, shop.access(30, 2).await);
        let older = shop.grant(CUSTOMER, 30, 1).await;
        shop.advance(minutes(1)).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let foreign = shop.grant(7, 30, 1).await;
        let naming = |product: &str, sub: &str| {
            let mut wanted = access_order(CUSTOMER, product);
            wanted["items"][0]["subscription"] = json!(sub);
            wanted
        };
        let others = shop.post("/api/v1/orders", naming(&month, &foreign)).await;
        assert_eq!(refusal(&others), "404 not-found", "nobody is told whose it is");
        assert_eq!(refusal(&shop.post("/api/v1/orders", naming(&family, &older)).await), "409 conflict");

        let (status, made) = shop.post("/api/v1/orders", naming(&month, &older)).await;
        assert_eq!(status, 201, "{made}");
        shop.pay(&OrderHandle::read(&made));
        shop.receive_all().await;
        shop.run_jobs().await;
        let renewed = shop.get(&format!("/api/v1/subscriptions/{older}")).await.1;
        assert_eq!(text(&renewed["paid_until"]), "2026-04-30T09:00:00.000Z");
        assert_eq!(shop.until(CUSTOMER).await, "2026-03-31T09:01:00.000Z", "the newest stays as it is");
        shop.finish().await;
    }

    async fn what_is_bought_while_frozen_is_added_and_stays_frozen(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.by_owner(CUSTOMER, "freeze", json!({})).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.at(CUSTOMER).await, ("frozen".into(), "2026-04-30T09:00:00.000Z".into()));
        assert!(shop.wg.peers().is_empty());
        shop.by_owner(CUSTOMER, "unfreeze", json!({})).await;
        assert_eq!(shop.wg.peers().len(), 1);
        shop.finish().await;
    }

    async fn a_renewal_at_the_moment_of_the_end_leaves_it_open(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let rival = shop.rival().await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, file) = shop.held(CUSTOMER).await;
        shop.wait(days(30)).await;
        shop.wait(hours(24) - minutes(1)).await;
        let order = shop.order_access(CUSTOMER, &month).await;
        shop.pay(&order);
        // The end of grace and the payment are due together.
        shop.advance(minutes(1)).await;
        shop.receive_all().await;
        tokio::join!(rival.run_jobs(), shop.run_jobs());
        shop.wait(minutes(1)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.state(CUSTOMER).await, "active");
        assert!(shop.until(CUSTOMER).await.starts_with("2026-05-01T09:0"), "thirty days from now");
        assert_eq!(shop.held(CUSTOMER).await, (key.clone(), file));
        assert!(shop.wg.has(&key), "whoever paid gets in");
        shop.finish().await;
    }

    async fn who_pays_while_the_old_peer_is_being_taken_away_keeps_it(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, file) = shop.held(CUSTOMER).await;
        shop.wait(days(30)).await;
        shop.wg.does("set", Does::Fail);
        shop.wait(days(1)).await;
        assert_eq!(shop.device(CUSTOMER, 1).await["state"], "removing");
        assert!(shop.wg.has(&key), "it could not be taken away");

        let order = shop.buy(CUSTOMER, &month).await;
        shop.wg.does("set", Does::Work);
        shop.wait(minutes(1)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.device(CUSTOMER, 1).await["state"], "active");
        assert_eq!(shop.held(CUSTOMER).await, (key, file));
        shop.finish().await;
    }
}
