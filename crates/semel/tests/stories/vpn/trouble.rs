//! A tool that fails, hangs or lies, a file that cannot be written, a program that dies: the next request does not notice,
//! the state ends right, and the owner hears of it once.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};

use semel_kernel::each_store;
use semel_kernel::store::Engine;
use semel_wireguard::Target;

use super::wg::Does;
use super::{TROUBLE, VpnShop};
use crate::app::{CUSTOMER, ROOMS, minutes};

const HALF_MINUTE: Duration = Duration::from_secs(30);

/// A tool that is given up after a moment.
async fn hurry(shop: &mut VpnShop) {
    shop.restart_with_vpn(|vpn| {
        let Some(Target::Both { tool, .. }) = &mut vpn.target else { panic!("there is an interface") };
        tool.deadline = Duration::from_secs(2);
    })
    .await;
    shop.run_jobs().await;
}

each_store! { ROOMS;
    async fn who_pays_while_the_tool_misbehaves_waits_and_nobody_else_does(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        let key = shop.product_with("Licence key", "990.00", &["K-1", "K-2", "K-3", "K-4", "K-5"]).await;
        shop.buy(100, &month).await;
        let misbehaviour = [
            ("show", Does::Fail),
            ("show", Does::Lie),
            ("show", Does::Garbage),
            ("addconf", Does::Fail),
            ("addconf", Does::Lie),
        ];
        for (n, (verb, what)) in (1_u32..).zip(misbehaviour) {
            let customer = 100 + i64::from(n);
            let told = usize::try_from(n).unwrap();
            shop.wg.does(verb, what);
            let order = shop.buy(customer, &month).await;
            for _ in 0..3 {
                shop.wait(HALF_MINUTE).await;
            }
            assert_eq!(shop.status(&order).await, "paid", "{verb} {what:?}");
            assert!(shop.files_to(customer).is_empty(), "{verb} {what:?}: nobody gets a file that does not work");
            assert_eq!(shop.warned(TROUBLE), told, "{verb} {what:?}: once, however often it is tried: {:?}", shop.alerts());
            let server = shop.server().await;
            assert!(server["in_step"] == false && server["trouble"].is_string(), "{verb} {what:?}: {server}");

            let other = shop.sell(&key, "yookassa").await;
            assert_eq!(shop.status(&other).await, "delivered", "{verb} {what:?}: everything else goes on");
            assert_eq!(shop.file(100).await, shop.files_to(100)[0], "{verb} {what:?}: so does who was there before");

            shop.wg.does(verb, Does::Work);
            shop.wait(minutes(1)).await;
            assert_eq!(shop.status(&order).await, "delivered", "{verb} {what:?}");
            let server = shop.server().await;
            assert_eq!((&server["in_step"], &server["trouble"]), (&json!(true), &Value::Null), "{verb} {what:?}: {server}");
            assert_eq!(shop.files_to(customer).len(), 1);
            shop.is_in_step().await;
        }
        assert_eq!(shop.warned(TROUBLE), 5);
        shop.finish().await;
    }

    async fn who_shall_go_goes_when_the_tool_works_again_and_rests_only_then(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        for (n, what) in (1_u32..).zip([Does::Fail, Does::Lie]) {
            let (leaves, comes) = (100 + i64::from(n), 200 + i64::from(n));
            shop.buy(leaves, &month).await;
            let (key, address) = (shop.key(leaves).await, shop.address(leaves).await);
            shop.wg.does("set", what);
            shop.by_owner(leaves, "revoke", json!({})).await;
            let order = shop.buy(comes, &month).await;
            assert_eq!(shop.stands(&address).await, "held", "{what:?}: the old peer may still be there");
            assert_ne!(shop.address(comes).await, address);
            shop.wg.does("set", Does::Work);
            shop.wait(minutes(1)).await;
            assert!(!shop.wg.has(&key), "{what:?}");
            assert_eq!((shop.stands(&address).await, shop.status(&order).await), ("quarantine".into(), "delivered".into()));
            assert_eq!(shop.warned(TROUBLE), usize::try_from(n).unwrap(), "{what:?}: {:?}", shop.alerts());
            shop.is_in_step().await;
        }
        shop.finish().await;
    }

    /// The tool did it and says that it failed: the interface is what counts.
    async fn a_call_that_was_made_and_told_as_a_failure_is_not_made_again(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.wg.does("addconf", Does::FailAfter);
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!((shop.status(&order).await, shop.warned(TROUBLE)), ("delivered".into(), 0));
        assert_eq!(shop.wg.calls("addconf").len(), 1);
        shop.wg.does("addconf", Does::Work);
        shop.finish().await;
    }

    async fn a_tool_that_hangs_is_given_up_and_the_next_run_mends_it(t: TestStore) {
        let mut shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        hurry(&mut shop).await;
        for (n, (verb, what)) in (1_u32..).zip([("show", Does::Hang), ("addconf", Does::Hang), ("addconf", Does::HangAfter)]) {
            let customer = 100 + i64::from(n);
            shop.wg.does(verb, what);
            let order = shop.order_access(customer, &month).await;
            shop.pay(&order);
            shop.receive_all().await;
            // Nobody who asks meanwhile waits for it.
            let (_, other) = tokio::join!(shop.run_jobs(), shop.order_access(customer + 100, &month));
            assert_eq!(shop.status(&other).await, "pending");
            assert_eq!(shop.status(&order).await, "paid", "{verb} {what:?}");
            assert_eq!(shop.warned(TROUBLE), usize::try_from(n).unwrap(), "{verb} {what:?}: {:?}", shop.alerts());
            shop.wg.does(verb, Does::Work);
            shop.wait(HALF_MINUTE + HALF_MINUTE).await;
            assert_eq!(shop.status(&order).await, "delivered", "{verb} {what:?}");
            shop.is_in_step().await;
        }
        shop.finish().await;
    }

    async fn who_goes_while_the_tool_hangs_is_gone_at_the_next_run(t: TestStore) {
        let mut shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let key = shop.key(CUSTOMER).await;
        hurry(&mut shop).await;
        shop.wg.does("set", Does::Hang);
        shop.by_owner(CUSTOMER, "revoke", json!({})).await;
        assert_eq!(shop.warned(TROUBLE), 1);
        shop.wg.does("set", Does::Work);
        shop.wait(minutes(1)).await;
        assert!(!shop.wg.has(&key));
        shop.finish().await;
    }

    async fn a_planted_lock_or_a_broken_file_stops_nothing_but_the_apply(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(100, &month).await;
        let lock = shop.conf.with_file_name(".wg0.conf.lock");
        let victim = shop.conf.with_file_name("victim");
        fs::write(&victim, "precious").unwrap();
        fs::remove_file(&lock).unwrap();
        symlink(&victim, &lock).unwrap();
        let order = shop.buy(101, &month).await;
        assert_eq!((shop.status(&order).await, shop.warned(TROUBLE)), ("paid".into(), 1), "{:?}", shop.alerts());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(&lock).unwrap();
        shop.wait(minutes(1)).await;
        assert_eq!(shop.status(&order).await, "delivered");

        // Half of a fence: nobody guesses what it should be.
        let whole = fs::read_to_string(&shop.conf).unwrap();
        let broken: String = whole.lines().filter(|line| !line.starts_with("# semel: end")).map(|line| format!("{line}\n")).collect();
        fs::write(&shop.conf, &broken).unwrap();
        let order = shop.buy(102, &month).await;
        assert_eq!((shop.status(&order).await, shop.warned(TROUBLE)), ("paid".into(), 2), "{:?}", shop.alerts());
        assert_eq!(fs::read_to_string(&shop.conf).unwrap(), broken, "it is left as it is");
        fs::write(&shop.conf, whole).unwrap();
        shop.wait(minutes(1)).await;
        assert_eq!(shop.status(&order).await, "delivered");
        shop.finish().await;
    }

    async fn trouble_that_passes_while_nothing_happens_is_noticed_and_mended(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let key = shop.key(CUSTOMER).await;
        // The machine was started anew without its peers, and the tool is not there yet.
        shop.wg.remove_by_hand(&key);
        shop.wg.does("show", Does::Fail);
        shop.wait(minutes(1)).await;
        shop.wait(minutes(1)).await;
        assert_eq!(shop.warned(TROUBLE), 1, "{:?}", shop.alerts());
        shop.wg.does("show", Does::Work);
        shop.wait(minutes(2)).await;
        assert!(shop.wg.has(&key));
        shop.finish().await;
    }

    async fn a_program_that_dies_between_payment_and_file_goes_on_where_it_stopped(t: TestStore) {
        let mut shop = VpnShop::start(t).await;
        // What a program held when it died is given back at its next start on SQLite alone, where one file has one program.
        let held = if shop.store.engine() == Engine::Sqlite { 10 } else { 0 };
        let month = shop.access(30, 1).await;
        let order = shop.order_access(CUSTOMER, &month).await;
        shop.pay(&order);
        shop.receive_all().await;
        shop.restart(held).await;
        shop.wg.does("addconf", Does::Fail);
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "paid");
        shop.advance(minutes(1)).await;
        shop.restart(held).await;
        shop.wg.does("addconf", Does::Work);
        shop.wait(minutes(1)).await;
        assert_eq!((shop.status(&order).await, shop.files_to(CUSTOMER).len()), ("delivered".into(), 1));
        let rows = (shop.number("select count(*) from peers").await, shop.number("select count(*) from periods").await);
        assert_eq!(rows, (1, 1), "one sale, one peer, one period");
        assert_eq!(shop.until(CUSTOMER).await, "2026-03-31T09:00:00.000Z");
        shop.finish().await;
    }
}
