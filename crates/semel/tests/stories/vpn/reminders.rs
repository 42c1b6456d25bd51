//! What customers are told about their time, each thing once, and what the interface counts.

use std::time::Duration;

use serde_json::json;

use semel_kernel::each_store;

use super::wg::Does;
use super::{VpnShop, days, hours};
use crate::app::{CUSTOMER, ROOMS, minutes, text};

const DAYS3: &str = "Your VPN access ends in a few days";
const DAY1: &str = "Your VPN access ends in about a day";
const TODAY: &str = "Your VPN access ends within hours";
const ENDED: &str = "Your paid VPN time ended on";
const UNCONNECTED: &str = "It looks like no device has connected to the VPN yet";

const MILLISECOND: Duration = Duration::from_millis(1);
/// The stories ask how somebody who never connects is asked.
const ASK: (&str, &str) = ("SEMEL_VPN_UNCONNECTED", "2h, 24h, 5d");

/// How often each was told.
fn told(shop: &VpnShop, customer: i64) -> [usize; 4] {
    [DAYS3, DAY1, TODAY, ENDED].map(|words| shop.told(customer, words))
}

each_store! { ROOMS;
    async fn each_reminder_of_a_period_comes_once_whoever_runs_and_however_often_it_starts(t: TestStore) {
        let mut shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let steps = [
            (days(27), [1, 0, 0, 0]),
            (days(2), [1, 1, 0, 0]),
            (hours(21), [1, 1, 1, 0]),
            (hours(3), [1, 1, 1, 1]),
            (hours(24), [1, 1, 1, 1]),
        ];
        for (step, wanted) in steps {
            shop.wait(step - MILLISECOND).await;
            let before = told(&shop, CUSTOMER);
            shop.advance(MILLISECOND).await;
            let rival = shop.rival().await;
            tokio::join!(shop.run_jobs(), rival.run_jobs());
            assert_eq!(told(&shop, CUSTOMER), wanted);
            assert!(before.iter().sum::<usize>() <= wanted.iter().sum::<usize>(), "none before its moment");
            shop.restart_with_vpn(|_| {}).await;
            shop.run_jobs().await;
            assert_eq!(told(&shop, CUSTOMER), wanted, "a new start says nothing again");
        }
        shop.finish().await;
    }

    async fn a_renewal_is_a_new_period_with_reminders_of_its_own(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.wait(days(27)).await;
        assert_eq!(told(&shop, CUSTOMER), [1, 0, 0, 0]);
        shop.buy(CUSTOMER, &month).await;
        shop.wait(days(3)).await;
        assert_eq!(told(&shop, CUSTOMER), [1, 0, 0, 0], "nothing ends any more");
        shop.wait(days(27)).await;
        assert_eq!(told(&shop, CUSTOMER), [2, 0, 0, 0]);
        shop.wait(days(2)).await;
        shop.wait(days(1)).await;
        assert_eq!(told(&shop, CUSTOMER), [2, 1, 0, 1], "what nobody ran for is not made up for");
        shop.finish().await;
    }

    async fn who_buys_a_day_is_not_reminded_of_three(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let day = shop.access(1, 1).await;
        shop.buy(CUSTOMER, &day).await;
        assert_eq!(told(&shop, CUSTOMER), [0, 0, 0, 0]);
        shop.wait(hours(21)).await;
        assert_eq!(told(&shop, CUSTOMER), [0, 0, 1, 0]);
        shop.finish().await;
    }

    /// The period ends at midnight of 1 April 2026, three days after the night in which Europe's clocks were changed.
    async fn neither_midnight_nor_a_changed_clock_doubles_or_loses_one(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let rival = shop.rival().await;
        let month = shop.access(30, 1).await;
        shop.wait(hours(15)).await;
        shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.until(CUSTOMER).await, "2026-04-01T00:00:00.000Z");
        let mut passed = Duration::ZERO;
        for (moment, wanted) in [
            (days(27), [1, 0, 0, 0]),
            (days(29), [1, 1, 0, 0]),
            (days(29) + hours(21), [1, 1, 1, 0]),
            (days(30), [1, 1, 1, 1]),
            (days(31), [1, 1, 1, 1]),
        ] {
            for to in [moment - MILLISECOND, moment, moment + MILLISECOND, moment + hours(1), moment + hours(2)] {
                shop.wait(to - passed).await;
                rival.run_jobs().await;
                passed = to;
            }
            assert_eq!(told(&shop, CUSTOMER), wanted, "{:?}", shop.chat(CUSTOMER));
        }
        shop.finish().await;
    }

    async fn after_days_without_anybody_only_the_newest_is_told(t: TestStore) {
        let mut shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.buy(7, &month).await;
        shop.advance(days(29) + hours(5)).await;
        shop.restart_with_vpn(|_| {}).await;
        shop.run_jobs().await;
        for customer in [CUSTOMER, 7] {
            assert_eq!(told(&shop, customer), [0, 1, 0, 0], "the older one would be untrue by now");
        }
        shop.finish().await;
    }

    async fn who_never_connects_is_asked_three_times_and_who_does_is_not(t: TestStore) {
        let shop = VpnShop::with(t, &[ASK]).await;
        let rival = shop.rival().await;
        let month = shop.access(30, 1).await;
        for customer in [CUSTOMER, 7, 8] {
            shop.buy(customer, &month).await;
        }
        // 7 connects within the hour, 8 within the day.
        shop.wg.count(&shop.key(7).await, 1_772_355_600 + 1_800, 148, 92);
        shop.wait(hours(2) - minutes(1)).await;
        assert_eq!([CUSTOMER, 7, 8].map(|customer| shop.told(customer, UNCONNECTED)), [0, 0, 0]);
        shop.wait(minutes(1)).await;
        rival.run_jobs().await;
        assert_eq!([CUSTOMER, 7, 8].map(|customer| shop.told(customer, UNCONNECTED)), [1, 0, 1]);
        shop.wg.count(&shop.key(8).await, 1_772_355_600 + 7_000, 148, 92);
        shop.wait(hours(1)).await;
        for (step, asked) in [(hours(21), 2), (days(4), 3), (days(3), 3)] {
            shop.wait(step).await;
            rival.run_jobs().await;
            assert_eq!([CUSTOMER, 7, 8].map(|customer| shop.told(customer, UNCONNECTED)), [asked, 0, 1]);
        }
        let eight = shop.device(8, 1).await;
        for handshake in ["first_handshake_at", "last_handshake_at"] {
            assert_eq!(text(&eight[handshake]), "2026-03-01T10:56:40.000Z");
        }
        shop.finish().await;
    }

    async fn the_question_waits_until_there_is_a_file_to_connect_with(t: TestStore) {
        let shop = VpnShop::with(t, &[ASK]).await;
        let month = shop.access(30, 1).await;
        shop.wg.does("addconf", Does::Fail);
        shop.buy(CUSTOMER, &month).await;
        shop.wait(hours(2)).await;
        assert_eq!(shop.told(CUSTOMER, UNCONNECTED), 0, "nobody can connect yet");
        shop.wg.does("addconf", Does::Work);
        shop.wait(minutes(1)).await;
        assert_eq!((shop.files_to(CUSTOMER).len(), shop.told(CUSTOMER, UNCONNECTED)), (1, 0), "the file came just now");
        shop.wait(hours(2)).await;
        assert_eq!(shop.told(CUSTOMER, UNCONNECTED), 1);
        shop.finish().await;
    }

    async fn bytes_are_counted_on_when_the_interface_begins_again_from_zero(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let key = shop.key(CUSTOMER).await;
        let start = 1_772_355_600;
        for (handshake, received, sent, sums) in [
            (start + 10, 1_000, 5_000, (1_000, 5_000)),
            (start + 70, 1_500, 9_000, (1_500, 9_000)),
            // The machine was started anew: it counts from zero and knows of no handshake.
            (0, 0, 0, (1_500, 9_000)),
            (start + 200, 300, 100, (1_800, 9_100)),
        ] {
            shop.wg.count(&key, handshake, received, sent);
            shop.wait(minutes(1)).await;
            let peer = shop.device(CUSTOMER, 1).await;
            assert_eq!((&peer["received"], &peer["sent"]), (&json!(sums.0), &json!(sums.1)), "{peer}");
            assert_eq!(text(&peer["first_handshake_at"]), "2026-03-01T09:00:10.000Z");
        }
        assert_eq!(text(&shop.device(CUSTOMER, 1).await["last_handshake_at"]), "2026-03-01T09:03:20.000Z");
        shop.finish().await;
    }
}
