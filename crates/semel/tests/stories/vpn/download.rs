//! Links that give a file once.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use semel_kernel::each_store;

use super::{VpnShop, days};
use crate::app::{Answer, Api, CUSTOMER, ROOMS, minutes, text};

/// A new link to a customer's file: where it leads on each copy.
async fn link(shop: &VpnShop, customer: i64) -> String {
    let id = text(&shop.subscription(customer).await["id"]);
    let (status, link) = shop.post(&format!("/api/v1/subscriptions/{id}/link"), json!({})).await;
    assert_eq!(status, 201, "a link is made: {link}");
    let url = text(&link["url"]);
    let at = url.find("/vpn/").unwrap_or_else(|| panic!("no link: {url}"));
    url[at..].to_owned()
}

async fn take(door: &Api, path: &str) -> Answer {
    door.send(Method::POST, path, &[], Bytes::new()).await
}

each_store! { ROOMS;
    async fn a_link_gives_the_file_once_and_looking_uses_nothing_up(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let door = shop.program.api.clone();
        let path = link(&shop, CUSTOMER).await;
        for _ in 0..3 {
            let page = door.send(Method::GET, &path, &[], Bytes::new()).await;
            assert_eq!((page.status, page.header("cache-control")), (200, "no-store"), "a preview of a messenger");
            assert!(!String::from_utf8_lossy(&page.body).contains("PrivateKey"));
        }
        let given = take(&door, &path).await;
        assert_eq!((given.status, given.header("cache-control")), (200, "no-store"));
        assert_eq!(given.header("content-disposition"), "attachment; filename=\"vpn-16-1.conf\"");
        assert_eq!(String::from_utf8_lossy(&given.body), shop.file(CUSTOMER).await);
        let again = take(&door, &path).await;
        assert_eq!(again.status, 410);
        let page = door.send(Method::GET, &path, &[], Bytes::new()).await;
        let told = String::from_utf8_lossy(&page.body).into_owned();
        assert_eq!(page.status, 410, "{told}");
        assert!(!told.contains("<button>") && told.contains("ask for a new link"), "{told}");
        assert!(told.contains("href=\"https://t.me/shop_help\""), "and whom to ask: {told}");
        assert!(!String::from_utf8_lossy(&again.body).contains("PrivateKey"));
        assert_eq!(take(&door, "/vpn/never-made").await.status, 410, "nobody is told which links there were");
        assert_eq!(take(&door, &format!("/vpn/{}", "x".repeat(65))).await.status, 410);
        let kept = shop.store.texts("select token_hash from downloads").await;
        assert!(kept.iter().all(|hash| !path.contains(hash.as_str())), "only its hash is kept");
        shop.finish().await;
    }

    async fn of_many_at_once_one_gets_it(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let rival = shop.rival().await;
        shop.grant(CUSTOMER, 30, 1).await;
        let doors = [shop.program.api.clone(), rival.api.clone()];
        for _ in 0..5 {
            let path = link(&shop, CUSTOMER).await;
            let crowd: Vec<_> = (0..6)
                .map(|n| {
                    let (door, path) = (doors[n % 2].clone(), path.clone());
                    tokio::spawn(async move { take(&door, &path).await.status })
                })
                .collect();
            let mut answers = Vec::new();
            for one in crowd {
                answers.push(one.await.unwrap());
            }
            answers.sort();
            assert_eq!(answers, [200, 410, 410, 410, 410, 410]);
        }
        shop.finish().await;
    }

    async fn a_link_ends_after_a_day_and_with_the_access(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let door = shop.program.api.clone();
        let (old, young) = (link(&shop, CUSTOMER).await, link(&shop, CUSTOMER).await);
        assert_ne!(old, young);
        shop.wait(days(1) - minutes(1)).await;
        assert_eq!(take(&door, &young).await.status, 200);
        shop.wait(minutes(1)).await;
        assert_eq!(take(&door, &old).await.status, 410);

        let late = link(&shop, CUSTOMER).await;
        shop.by_owner(CUSTOMER, "revoke", json!({})).await;
        assert_eq!(take(&door, &late).await.status, 410, "whoever was revoked gets no file any more");
        shop.finish().await;
    }
}
