//! The end of what was paid: grace, the way off the server, the time of keeping, quarantine.

use std::time::Duration;

use serde_json::json;

use semel_kernel::each_store;

use super::{NO_BOT, VpnShop, days, hours};
use crate::app::{CUSTOMER, ROOMS, minutes};

const ENDED: &str = "Your paid VPN time ended on";

each_store! { ROOMS;
    async fn an_end_is_brought_about_within_a_minute_and_told_once(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let rival = shop.rival().await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let key = shop.key(CUSTOMER).await;

        shop.wait(days(30) - Duration::from_millis(1)).await;
        assert_eq!((shop.state(CUSTOMER).await, shop.told(CUSTOMER, ENDED)), ("active".into(), 0));
        shop.advance(Duration::from_millis(1)).await;
        tokio::join!(shop.run_jobs(), rival.run_jobs());
        assert_eq!((shop.state(CUSTOMER).await, shop.told(CUSTOMER, ENDED)), ("grace".into(), 1));
        assert!(shop.wg.has(&key), "whoever renews late is not cut off");

        shop.wait(hours(24) - Duration::from_millis(1)).await;
        assert_eq!(shop.state(CUSTOMER).await, "grace");
        shop.advance(Duration::from_millis(1)).await;
        tokio::join!(shop.run_jobs(), rival.run_jobs());
        assert_eq!((shop.state(CUSTOMER).await, shop.told(CUSTOMER, ENDED)), ("expired".into(), 1));
        shop.run_jobs().await;
        assert!(!shop.wg.has(&key) && shop.in_file().is_empty());
        assert_eq!(shop.device(CUSTOMER, 1).await["state"], "sticky");
        shop.finish().await;
    }

    async fn without_grace_the_end_is_the_end(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_GRACE_HOURS", "0")]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.wait(days(30)).await;
        assert_eq!((shop.state(CUSTOMER).await, shop.told(CUSTOMER, ENDED)), ("expired".into(), 1));
        assert!(shop.wg.peers().is_empty());
        shop.finish().await;
    }

    async fn an_address_is_kept_then_rests_then_goes_to_somebody_else(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT, ("SEMEL_VPN_NETWORK", "10.8.0.0/30")]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.stands("10.8.0.2").await, "held");
        shop.wait(days(30)).await;
        shop.wait(days(1)).await;
        let waiting = shop.buy(7, &month).await;
        assert_eq!((shop.stands("10.8.0.2").await, shop.status(&waiting).await), ("held".into(), "awaiting_stock".into()));

        shop.wait(days(30) - minutes(2)).await;
        assert_eq!(shop.stands("10.8.0.2").await, "held", "to the last minute");
        shop.wait(minutes(4)).await;
        assert_eq!(shop.stands("10.8.0.2").await, "quarantine");
        shop.wait(days(7) - minutes(10)).await;
        assert_eq!((shop.stands("10.8.0.2").await, shop.status(&waiting).await), ("quarantine".into(), "awaiting_stock".into()));
        shop.wait(minutes(15)).await;
        assert_eq!((shop.stands("10.8.0.2").await, shop.status(&waiting).await), ("held".into(), "delivered".into()));
        assert_eq!(shop.address(7).await, "10.8.0.2");

        let who = shop.get("/api/v1/addresses/10.8.0.2").await.1;
        let holders: Vec<i64> = who["holders"].as_array().unwrap().iter().filter_map(|h| h["telegram_id"].as_i64()).collect();
        assert_eq!(holders, [7, CUSTOMER], "the latest first: {who}");
        let then = shop.get("/api/v1/addresses/10.8.0.2?at=2026-03-15T00:00:00Z").await.1;
        assert_eq!((then["holders"].as_array().map(Vec::len), &then["holders"][0]["telegram_id"]), (Some(1), &json!(CUSTOMER)));
        shop.finish().await;
    }

    async fn what_nobody_ran_for_is_made_up_for_at_the_next_start(t: TestStore) {
        let mut shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.buy(7, &month).await;
        shop.advance(days(100)).await;
        shop.restart_with_vpn(|_| {}).await;
        shop.run_jobs().await;
        for customer in [CUSTOMER, 7] {
            assert_eq!((shop.state(customer).await, shop.told(customer, ENDED)), ("expired".into(), 1));
            assert_eq!(shop.told(customer, "Your VPN access ends"), 0, "reminders of the past are no news");
        }
        assert!(shop.wg.peers().is_empty());
        shop.finish().await;
    }

    async fn neighbours_do_not_notice_that_somebody_goes(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT]).await;
        let (week, month) = (shop.access(7, 1).await, shop.access(30, 1).await);
        for customer in [101, 102, 103] {
            shop.buy(customer, &week).await;
        }
        shop.buy(7, &month).await;
        let (key, before) = (shop.key(7).await, shop.wg.calls("set").len() + shop.wg.calls("addconf").len());
        shop.wg.count(&key, 1_772_355_600, 1_000, 2_000);
        shop.wait(days(7)).await;
        shop.wait(days(1)).await;
        assert_eq!(shop.wg.peers().keys().collect::<Vec<_>>(), [&key]);
        let calls: Vec<String> = [shop.wg.calls("set"), shop.wg.calls("addconf")].concat();
        assert!(calls.iter().all(|call| !call.contains(&key)) && calls.len() > before, "{calls:?}");
        let peer = shop.device(7, 1).await;
        assert_eq!((&peer["received"], &peer["sent"]), (&json!(1_000), &json!(2_000)), "its session goes on: {peer}");
        shop.finish().await;
    }
}
