//! Refunds: time goes back with its money.

use serde_json::json;

use semel_kernel::each_store;

use super::wg::Does;
use super::{VpnShop, days};
use crate::app::{CUSTOMER, ROOMS, minutes, text};

/// Seconds that the only subscription is paid for, from its beginning.
const PAID_SECONDS: &str = "select (paid_until - created_at) / 1000 from subscriptions";

each_store! { ROOMS;
    async fn all_of_the_money_takes_the_access_with_it(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 2).await;
        let order = shop.buy(CUSTOMER, &month).await;
        let key = shop.key(CUSTOMER).await;
        shop.wait(days(3)).await;
        let (status, shown) = shop.refund(&order, "balance", None).await;
        assert_eq!((status, text(&shown["status"])), (200, "refunded".into()));
        shop.run_jobs().await;
        assert_eq!(shop.state(CUSTOMER).await, "revoked");
        assert!(!shop.wg.has(&key) && shop.wg.peers().is_empty() && shop.in_file().is_empty());
        assert_eq!(shop.stands("10.8.0.2").await, "quarantine");
        assert_eq!(shop.told(CUSTOMER, "Your VPN access was closed."), 1);
        assert_eq!(shop.balance(CUSTOMER).await, "300.00 RUB");
        assert_eq!(shop.config(CUSTOMER, "").await.status, 404, "its file is over");
        assert_eq!(shop.number("select count(*) from peers where private_key is not null").await, 0, "and its keys are gone");

        // The same customer may come again, with another file.
        let again = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&again).await, "delivered");
        assert_ne!(shop.key(CUSTOMER).await, key);
        assert_eq!(shop.subscriptions(CUSTOMER).await.len(), 2);
        shop.finish().await;
    }

    async fn money_that_goes_back_to_the_provider_does_the_same_when_it_arrived(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.refund(&order, "provider", None).await.0, 200);
        shop.run_jobs().await;
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!((shop.status(&order).await, shop.state(CUSTOMER).await), ("refunded".into(), "revoked".into()));
        assert!(shop.wg.peers().is_empty());
        shop.finish().await;
    }

    async fn a_part_of_the_money_takes_the_same_part_of_the_time_and_the_broken_second_is_the_customers(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access_for("300.01", 30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.number(PAID_SECONDS).await, 2_592_000);
        // 100.00 of 300.01 is 863,971.2 seconds.
        assert_eq!(shop.refund(&order, "balance", Some("100.00")).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.number(PAID_SECONDS).await, 2_592_000 - 863_971);
        assert_eq!((shop.state(CUSTOMER).await, shop.status(&order).await), ("active".into(), "delivered".into()));
        assert_eq!(shop.wg.peers().len(), 1);

        // Parts take no more than their sum: 200.00 of 300.01 is 1,727,942.4 seconds.
        assert_eq!(shop.refund(&order, "balance", Some("100.00")).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.number(PAID_SECONDS).await, 2_592_000 - 1_727_942);
        assert_eq!(shop.refund(&order, "balance", None).await.0, 200);
        shop.run_jobs().await;
        assert_eq!((shop.state(CUSTOMER).await, shop.status(&order).await), ("revoked".into(), "refunded".into()));
        assert_eq!(shop.number("select taken from periods").await, 2_592_000);
        shop.finish().await;
    }

    async fn half_of_the_money_at_half_of_the_time_ends_it_now_and_no_earlier(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        shop.wait(days(20)).await;
        assert_eq!(shop.refund(&order, "balance", Some("150.00")).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.until(CUSTOMER).await, "2026-03-21T09:00:00.000Z", "nothing ends in the past");
        assert_eq!(shop.state(CUSTOMER).await, "grace");
        shop.wait(days(1)).await;
        assert_eq!(shop.state(CUSTOMER).await, "expired");
        shop.finish().await;
    }

    async fn a_refunded_renewal_leaves_what_was_paid_before(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let key = shop.key(CUSTOMER).await;
        let renewal = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.until(CUSTOMER).await, "2026-04-30T09:00:00.000Z");
        assert_eq!(shop.refund(&renewal, "balance", None).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-03-31T09:00:00.000Z".into()));
        assert!(shop.wg.has(&key), "its session goes on");
        shop.finish().await;
    }

    async fn a_refund_while_the_peer_is_on_its_way_leaves_nobody_on_the_server(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.wg.does("addconf", Does::Fail);
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "paid");
        let key = shop.key(CUSTOMER).await;
        assert_eq!(shop.refund(&order, "balance", None).await.0, 200);
        shop.wg.does("addconf", Does::Work);
        shop.wait(minutes(1)).await;
        assert_eq!((shop.status(&order).await, shop.state(CUSTOMER).await), ("refunded".into(), "revoked".into()));
        assert!(!shop.wg.has(&key));
        assert!(shop.files_to(CUSTOMER).is_empty(), "nobody got a file");
        assert_eq!(shop.stands("10.8.0.2").await, "quarantine");
        shop.finish().await;
    }

    /// The call was made and told as a failure: the peer is on the interface all the same.
    async fn a_refund_after_a_call_that_only_seemed_to_fail_takes_the_peer_away(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.wg.does("addconf", Does::FailAfter);
        let order = shop.buy(CUSTOMER, &month).await;
        let key = shop.key(CUSTOMER).await;
        assert!(shop.wg.has(&key) && shop.status(&order).await == "delivered");
        assert_eq!(shop.refund(&order, "balance", None).await.0, 200);
        shop.wait(minutes(1)).await;
        assert!(!shop.wg.has(&key), "whoever has the money has no access");
        assert_eq!(shop.state(CUSTOMER).await, "revoked");
        shop.wg.does("addconf", Does::Work);
        shop.finish().await;
    }

    async fn a_refund_at_the_moment_of_the_issue_ends_in_one_of_both_and_never_in_both(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let rival = shop.rival().await;
        let month = shop.access(30, 1).await;
        for customer in [101, 102, 103, 104] {
            let order = shop.order_access(customer, &month).await;
            shop.pay(&order);
            shop.receive_all().await;
            let door = shop.program.api.clone();
            let path = format!("/api/v1/orders/{}/refund", order.id);
            let refund = async {
                // Until it is paid there is nothing to give back.
                for _ in 0..200 {
                    if door.post(&path, json!({ "to": "balance", "reason": "at once" })).await.0 == 200 {
                        return true;
                    }
                }
                false
            };
            let (refunded, ..) = tokio::join!(refund, rival.run_jobs(), shop.run_jobs());
            shop.wait(minutes(2)).await;
            if !refunded {
                assert_eq!(shop.refund(&order, "balance", None).await.0, 200);
                shop.run_jobs().await;
            }
            assert_eq!((shop.status(&order).await, shop.state(customer).await), ("refunded".into(), "revoked".into()));
            shop.is_in_step().await;
        }
        assert!(shop.wg.peers().is_empty());
        shop.finish().await;
    }

    async fn a_half_refund_while_frozen_counts_from_when_it_stopped(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        shop.wait(days(10)).await;
        shop.by_owner(CUSTOMER, "freeze", json!({})).await;
        shop.wait(days(5)).await;
        assert_eq!(shop.refund(&order, "balance", Some("150.00")).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(shop.state(CUSTOMER).await, "frozen");
        shop.by_owner(CUSTOMER, "unfreeze", json!({})).await;
        // Of thirty days fifteen are left in all, ten of them are gone, and five did not run.
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-03-21T09:00:00.000Z".into()));
        shop.finish().await;
    }
}
