//! Thousands of issues and revokes at random, as fast as the database goes: each address is with one or nobody, and none is
//! lost.

use std::time::Duration;

use semel_kernel::clock::Chance;
use semel_kernel::each_store;
use semel_kernel::store::Engine;
use semel_shop::Error;
use semel_shop::customers::NewCustomer;
use semel_shop::subscriptions::SubscriptionId;
use semel_shop::subscriptions::by_hand::{self, Grant};

use super::{NO_BOT, VpnShop, hours};
use crate::app::{ROOMS, minutes};

/// Deeds of one transaction.
const AT_ONCE: usize = 100;

/// What is done next.
#[derive(Clone)]
enum Deed {
    Issue(i64),
    Revoke(SubscriptionId),
}

/// The deeds of one transaction; those who go leave `live`.
fn drawn(chance: &Chance, live: &mut Vec<SubscriptionId>) -> Vec<Deed> {
    let mut deeds = Vec::with_capacity(AT_ONCE);
    for _ in 0..AT_ONCE {
        let stays = live.is_empty() || chance.below(2) == 0;
        if stays {
            deeds.push(Deed::Issue(1000 + i64::try_from(chance.below(500)).unwrap()));
        } else {
            let at = chance.below(u64::try_from(live.len()).unwrap());
            deeds.push(Deed::Revoke(live.swap_remove(usize::try_from(at).unwrap())));
        }
    }
    deeds
}

/// Does them; answers who came.
async fn done(shop: &VpnShop, deeds: Vec<Deed>) -> Vec<SubscriptionId> {
    let written = shop.shop().write("story.churn", move |tx, shop| {
        let mut came = Vec::new();
        for deed in &deeds {
            match deed {
                Deed::Revoke(id) => {
                    by_hand::revoke(tx, shop, id, "a walk", "story")?;
                }
                Deed::Issue(customer) => {
                    let customer = NewCustomer {
                        telegram_id: *customer,
                        email: None,
                        phone: None,
                        language: None,
                        referrer_telegram_id: None,
                    };
                    let time = Duration::from_secs(60 * 24 * 3600);
                    let grant = Grant { customer, time, devices: 1, reason: "a walk".to_owned() };
                    match by_hand::grant(tx, shop, &grant, "story") {
                        Ok(given) => came.push(given.id),
                        // No address is free just now.
                        Err(Error::Conflict(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(came)
    });
    written.await.unwrap_or_else(|error| panic!("the deeds are written: {error}"))
}

each_store! { ROOMS;
    async fn a_burst_is_a_change_or_two_of_file_and_interface(t: TestStore) {
        let shop = VpnShop::with(t, &[NO_BOT]).await;
        let mut came = 0;
        for first in [1000, 1100] {
            came += done(&shop, (first..first + 100).map(Deed::Issue).collect()).await.len();
        }
        shop.run_jobs().await;
        shop.wait(minutes(1)).await;
        assert_eq!((came, shop.wg.peers().len()), (200, 200));
        let calls = shop.wg.calls("addconf").len();
        assert!(calls <= 2, "{calls} calls");
        shop.finish().await;
    }

    async fn thousands_who_come_and_go_never_share_an_address(t: TestStore) {
        let count = match t.engine() {
            Engine::Sqlite => 10_000,
            Engine::Postgres => 2_000,
        };
        let shop = VpnShop::with(t, &[NO_BOT, ("SEMEL_VPN_APPLY", "file"), ("SEMEL_VPN_QUARANTINE_DAYS", "1")]).await;
        let chance = Chance::seeded(20_261_122);
        let (mut live, mut came, mut refused) = (Vec::new(), 0, 0);
        for _ in 0..count / AT_ONCE {
            let deeds = drawn(&chance, &mut live);
            let issues = deeds.iter().filter(|deed| matches!(deed, Deed::Issue(_))).count();
            let given = done(&shop, deeds).await;
            came += given.len();
            refused += issues - given.len();
            live.extend(given);
            shop.run_jobs().await;
            shop.advance(hours(6)).await;
        }
        shop.run_jobs().await;
        assert!(came > count / 5 && refused > 0, "{came} came and {refused} found no address");
        // Every address is with somebody, resting or free, and none of them twice.
        assert_eq!(shop.number("select count(*) from addresses").await, 253);
        let held = "select count(*) from addresses a where a.state = 'held' and not exists
            (select 1 from peer_addresses t where t.server = a.server and t.ip = a.ip and t.peer = a.peer and t.freed_at is null)";
        let lost = "select count(*) from peer_addresses t join peers p on p.id = t.peer where t.freed_at is null and (p.state = 'freed'
            or not exists (select 1 from addresses a where a.server = t.server and a.ip = t.ip and a.peer = t.peer and a.state = 'held'))";
        assert_eq!((shop.number(held).await, shop.number(lost).await), (0, 0), "no address is lost");
        let with_somebody = shop.number("select count(*) from addresses where state = 'held'").await;
        assert_eq!(usize::try_from(with_somebody).unwrap(), live.len());
        // No two files of one customer ever had one name.
        let twice = "select count(*) from (select s.customer, p.number from peers p join subscriptions s on s.id = p.subscription
            group by s.customer, p.number having count(*) > 1) twice";
        assert_eq!(shop.number(twice).await, 0);
        shop.finish().await;
    }
}
