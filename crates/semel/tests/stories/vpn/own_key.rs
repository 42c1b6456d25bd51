//! Keys that customers bring, and keys that are replaced.

use serde_json::{Value, json};

use semel_kernel::each_store;

use super::{VpnShop, client_key, server_key, setting};
use crate::app::{CUSTOMER, ROOMS, refusal, text};

/// Gives the first device of a customer this public key; what follows from it happens.
async fn bring(shop: &VpnShop, customer: i64, key: &str) -> (u16, Value) {
    let peer = text(&shop.device(customer, 1).await["id"]);
    let answer = shop.post(&format!("/api/v1/peers/{peer}/key"), json!({ "public_key": key })).await;
    shop.run_jobs().await;
    answer
}

each_store! { ROOMS;
    async fn of_a_customers_own_key_only_the_public_half_is_ever_here(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (old, address) = (shop.key(CUSTOMER).await, shop.address(CUSTOMER).await);
        let own = client_key(200);
        let (status, peer) = bring(&shop, CUSTOMER, &own).await;
        assert_eq!((status, &peer["own_key"], text(&peer["public_key"])), (200, &json!(true), own.clone()), "{peer}");
        assert!(shop.wg.has(&own) && !shop.wg.has(&old));
        assert_eq!(shop.number("select count(*) from peers where private_key is not null").await, 0);
        assert_eq!(shop.stands(&address).await, "quarantine", "whoever has the old key may go on sending");
        assert_ne!(shop.address(CUSTOMER).await, address);

        // The file has a place for the key, and what lacks it is no picture.
        let messages = shop.sandbox.chat(CUSTOMER);
        assert_eq!(messages.len(), 5, "file, picture, how-to; then file and how-to: {messages:?}");
        let file = shop.files_to(CUSTOMER).pop().expect("a file");
        assert!(file.contains("# PrivateKey = <yours>\n") && !file.contains("\nPrivateKey = "), "{file}");
        assert_eq!(setting(&file, "PresharedKey"), shop.wg.preshared(&own));
        assert!(messages[4].text.contains("Write your PrivateKey into the file"), "{}", messages[4].text);
        assert_eq!(shop.file(CUSTOMER).await, file);
        shop.finish().await;
    }

    async fn a_key_that_is_none_or_somebody_elses_is_refused(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.buy(7, &month).await;
        let (own, others) = (shop.key(CUSTOMER).await, shop.key(7).await);
        let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
        let section = "AAAA\n[Peer]\nPublicKey = AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
        for wrong in [zeros, section, String::new(), "x".repeat(44)] {
            let refused = bring(&shop, CUSTOMER, &wrong).await;
            assert_eq!(refusal(&refused), "422 invalid", "{wrong}");
        }
        assert_eq!(refusal(&bring(&shop, CUSTOMER, &others).await), "409 conflict", "two peers on one key");
        let servers = server_key().public().to_string();
        assert_eq!(refusal(&bring(&shop, CUSTOMER, &servers).await), "409 conflict", "the server's own");
        assert_eq!(refusal(&bring(&shop, CUSTOMER, &own).await), "409 conflict");
        assert_eq!(shop.key(CUSTOMER).await, own, "a refusal changes nothing");
        shop.finish().await;
    }

    async fn a_lost_phone_gets_fresh_keys_and_the_old_file_works_no_more(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let family = shop.access(30, 2).await;
        shop.buy(CUSTOMER, &family).await;
        let lost = shop.device(CUSTOMER, 2).await;
        let rotated = shop.post(&format!("/api/v1/peers/{}/rotate", text(&lost["id"])), json!({})).await;
        assert_eq!(rotated.0, 200, "{}", rotated.1);
        shop.run_jobs().await;
        let new = shop.device(CUSTOMER, 2).await;
        assert_ne!((&new["public_key"], &new["addresses"]), (&lost["public_key"], &lost["addresses"]));
        assert!(shop.wg.has(&text(&new["public_key"])) && !shop.wg.has(&text(&lost["public_key"])));
        assert_eq!(shop.files_to(CUSTOMER).len(), 3, "two at first, and the new one");
        let again = shop.post(&format!("/api/v1/peers/{}/rotate", text(&lost["id"])), json!({})).await;
        assert_eq!(refusal(&again), "409 conflict", "it is over already");
        shop.finish().await;
    }

    async fn a_key_of_one_who_is_gone_may_come_again(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let own = client_key(200);
        assert_eq!(bring(&shop, CUSTOMER, &own).await.0, 200);
        shop.by_owner(CUSTOMER, "revoke", json!({})).await;
        assert!(!shop.wg.has(&own));
        shop.advance(crate::app::minutes(1)).await;
        shop.buy(CUSTOMER, &month).await;
        assert_eq!(bring(&shop, CUSTOMER, &own).await.0, 200);
        assert!(shop.wg.has(&own));
        shop.finish().await;
    }
}
