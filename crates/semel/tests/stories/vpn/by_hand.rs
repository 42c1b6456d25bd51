//! The owner's hand: on subscriptions over the API, and on the server at the keyboard.

use std::fs;

use serde_json::json;

use semel_kernel::{each_store, jobs};
use semel_shop::vpn::{Apply, ServerId};

use super::{VpnShop, client_key, days, document, person};
use crate::app::{CUSTOMER, ROOMS, minutes, refusal, text};

each_store! { ROOMS;
    async fn access_is_given_prolonged_stopped_and_ended_each_with_a_reason(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 10, 2).await;
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-03-11T09:00:00.000Z".into()));
        assert_eq!((shop.wg.peers().len(), shop.files_to(CUSTOMER).len()), (2, 2));
        assert_eq!(shop.told(CUSTOMER, "You have VPN access until"), 1);

        let (status, longer) = shop.by_owner(CUSTOMER, "extend", json!({ "days": 5 })).await;
        assert_eq!((status, text(&longer["paid_until"])), (200, "2026-03-16T09:00:00.000Z".into()));
        assert_eq!(shop.told(CUSTOMER, "Your VPN access was extended until"), 1);
        assert_eq!(shop.by_owner(CUSTOMER, "revoke", json!({})).await.0, 200);
        assert_eq!(shop.state(CUSTOMER).await, "revoked");
        assert!(shop.wg.peers().is_empty());
        assert_eq!(refusal(&shop.by_owner(CUSTOMER, "extend", json!({ "days": 5 })).await), "409 conflict");
        assert_eq!(shop.by_owner(CUSTOMER, "revoke", json!({})).await.0, 200, "a repeat changes nothing");
        assert_eq!(shop.told(CUSTOMER, "Your VPN access was closed."), 1);

        let story = shop.subscription(CUSTOMER).await["timeline"].to_string();
        assert!(story.contains("a friend") && story.contains("the owner's"), "{story}");
        let actions = shop.store.texts("select action from audit_entries order by seq").await;
        assert_eq!(
            actions,
            ["subscription.grant", "subscription.extend", "subscription.revoke", "subscription.revoke"],
            "what was refused is none of the owner's deeds"
        );
        shop.finish().await;
    }

    /// Phones name a tunnel after its file: a second one of the same name would take the first one's place.
    async fn no_two_files_of_a_customer_have_one_name(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 10, 2).await;
        shop.grant(CUSTOMER, 10, 1).await;
        shop.grant(7, 10, 1).await;
        let names = |customer: i64| -> Vec<String> {
            shop.sandbox.chat(customer).iter().filter_map(document).map(|(name, _)| name).collect()
        };
        assert_eq!(names(CUSTOMER), ["vpn-16-1.conf", "vpn-16-2.conf", "vpn-16-3.conf"]);
        assert_eq!(names(7), ["vpn-7-1.conf"], "each customer counts from one");
        // A name is for life, and a new key has a name of its own.
        shop.by_owner(CUSTOMER, "freeze", json!({})).await;
        shop.by_owner(CUSTOMER, "unfreeze", json!({})).await;
        let named = async || shop.config(CUSTOMER, "").await.header("content-disposition").to_owned();
        assert_eq!(named().await, "attachment; filename=\"vpn-16-1.conf\"");
        let peer = text(&shop.device(CUSTOMER, 1).await["id"]);
        assert_eq!(shop.post(&format!("/api/v1/peers/{peer}/rotate"), json!({})).await.0, 200);
        shop.run_jobs().await;
        assert_eq!(named().await, "attachment; filename=\"vpn-16-4.conf\"");
        shop.finish().await;
    }

    async fn a_gift_without_sense_is_refused(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let gift = |days: i64, devices: i64, reason: &str| {
            json!({ "customer": person(CUSTOMER), "days": days, "devices": devices, "reason": reason })
        };
        for wrong in [gift(0, 1, "why"), gift(3651, 1, "why"), gift(1, 0, "why"), gift(1, 11, "why"), gift(1, 1, " ")] {
            let refused = shop.post("/api/v1/subscriptions", wrong.clone()).await;
            assert_eq!(refusal(&refused), "422 invalid", "{wrong}");
        }
        assert!(shop.subscriptions(CUSTOMER).await.is_empty());
        shop.finish().await;
    }

    async fn frozen_time_stands_still_and_the_same_file_goes_on(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let (key, file) = shop.held(CUSTOMER).await;
        shop.wait(days(10)).await;
        assert_eq!(shop.by_owner(CUSTOMER, "freeze", json!({})).await.0, 200);
        assert_eq!(shop.state(CUSTOMER).await, "frozen");
        assert!(!shop.wg.has(&key));
        shop.wait(days(25)).await;
        assert_eq!((shop.state(CUSTOMER).await, shop.told(CUSTOMER, "Your paid VPN time ended")), ("frozen".into(), 0));
        assert_eq!(shop.by_owner(CUSTOMER, "freeze", json!({})).await.0, 200, "a repeat changes nothing");

        assert_eq!(shop.by_owner(CUSTOMER, "unfreeze", json!({})).await.0, 200);
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-04-25T09:00:00.000Z".into()));
        assert_eq!(shop.held(CUSTOMER).await, (key.clone(), file));
        assert!(shop.wg.has(&key));
        assert_eq!(shop.files_to(CUSTOMER).len(), 1);
        assert_eq!(shop.by_owner(CUSTOMER, "unfreeze", json!({})).await.0, 200, "a repeat changes nothing");
        shop.wait(days(20)).await;
        assert_eq!(shop.state(CUSTOMER).await, "grace", "its clock runs again");
        assert_eq!(refusal(&shop.by_owner(CUSTOMER, "freeze", json!({})).await), "409 conflict", "no time runs");
        shop.finish().await;
    }

    async fn who_was_frozen_longer_than_files_are_kept_gets_a_new_one(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let key = shop.key(CUSTOMER).await;
        shop.by_owner(CUSTOMER, "freeze", json!({})).await;
        shop.wait(days(30) + minutes(2)).await;
        assert_eq!(shop.stands("10.8.0.2").await, "quarantine");
        assert_eq!(shop.by_owner(CUSTOMER, "unfreeze", json!({})).await.0, 200);
        assert_ne!(shop.key(CUSTOMER).await, key);
        assert_eq!((shop.wg.peers().len(), shop.files_to(CUSTOMER).len()), (1, 2));
        shop.finish().await;
    }

    async fn a_frozen_trial_goes_on_as_a_trial(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_TRIAL_DAYS", "3")]).await;
        shop.begin_trial(CUSTOMER, None).await;
        shop.by_owner(CUSTOMER, "freeze", json!({})).await;
        shop.wait(days(2)).await;
        shop.by_owner(CUSTOMER, "unfreeze", json!({})).await;
        assert_eq!(shop.at(CUSTOMER).await, ("trial".into(), "2026-03-06T09:00:00.000Z".into()));
        shop.finish().await;
    }

    async fn a_peer_that_was_taken_off_the_interface_comes_back(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        shop.buy(7, &month).await;
        let key = shop.key(CUSTOMER).await;
        shop.wg.remove_by_hand(&key);
        let plan = shop.get("/api/v1/servers/local/plan").await.1;
        assert_eq!((&plan["in_step"], &plan["interface"]["add"]), (&json!(false), &json!([key])), "{plan}");
        shop.wait(minutes(1)).await;
        assert!(shop.wg.has(&key));
        assert_eq!(shop.get("/api/v1/servers/local/plan").await.1["in_step"], true);
        assert_eq!(shop.files_to(CUSTOMER).len(), 1, "the customer hears nothing of it");

        // At once, when the owner says so.
        shop.wg.remove_by_hand(&key);
        assert_eq!(shop.post("/api/v1/servers/local/apply", json!({})).await.0, 202);
        shop.run_jobs().await;
        assert!(shop.wg.has(&key));
        shop.finish().await;
    }

    async fn an_apply_that_was_asked_for_while_it_ran_leaves_the_rest_to_the_next(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let server = ServerId::parse(&text(&shop.server().await["id"])).expect("it has an id");
        let looks = shop.wg.calls("show").len();
        // As the queue has it: due once more, behind changes that were brought about meanwhile.
        let due_again = shop.shop().write("story.again", move |tx, shop| {
            let now = tx.now();
            jobs::enqueue(tx, &Apply { server: server.clone(), after: -1 }, now, &shop.chance)?;
            Ok::<_, semel_shop::Error>(())
        });
        due_again.await.expect("the job is due");
        shop.run_jobs().await;
        assert_eq!(shop.wg.calls("show").len(), looks, "it does not work beside the one that follows it");
        assert_eq!(shop.server().await["in_step"], true);
        shop.is_in_step().await;
        shop.finish().await;
    }

    async fn a_revoked_peer_that_was_put_back_goes_again(t: TestStore) {
        let shop = VpnShop::start(t).await;
        shop.grant(CUSTOMER, 30, 1).await;
        let key = shop.key(CUSTOMER).await;
        shop.by_owner(CUSTOMER, "revoke", json!({})).await;
        assert!(!shop.wg.has(&key));
        let old = shop.wg.peers();
        shop.wg.add_by_hand(&key, "10.8.0.2/32");
        shop.wait(minutes(1)).await;
        assert!(!shop.wg.has(&key), "whoever restored an old state brings nobody back in");
        assert!(old.is_empty());
        shop.finish().await;
    }

    async fn foreign_peers_are_never_taken_away(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let (laptop, phone) = (client_key(200), client_key(201));
        shop.wg.add_by_hand(&laptop, "10.8.0.100/32");
        let month = shop.access(7, 1).await;
        let order = shop.buy(CUSTOMER, &month).await;
        shop.wg.add_by_hand(&phone, "10.9.0.0/24");
        shop.wait(days(7)).await;
        shop.wait(days(1)).await;
        assert_eq!((shop.state(CUSTOMER).await, shop.status(&order).await), ("expired".into(), "delivered".into()));
        assert!(shop.wg.peers().is_empty(), "ours are gone");
        assert!(shop.wg.has(&laptop) && shop.wg.has(&phone), "theirs stay");
        shop.finish().await;
    }

    async fn what_a_person_writes_into_the_file_is_kept_byte_for_byte(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let text_of = |shop: &VpnShop| fs::read_to_string(&shop.conf).unwrap();
        let key = client_key(200);
        let theirs =
            format!("\n# my own laptop\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.8.0.100/32\n\n\t# odd  blanks \n");
        fs::write(&shop.conf, text_of(&shop) + &theirs).unwrap();
        shop.buy(7, &month).await;
        let file = text_of(&shop);
        assert!(file.ends_with(&theirs), "{file}");
        assert_eq!(file.matches("# semel: begin").count(), 1);
        shop.by_owner(7, "revoke", json!({})).await;
        assert!(text_of(&shop).ends_with(&theirs));
        shop.finish().await;
    }

    async fn what_a_person_changes_between_our_lines_is_set_right(t: TestStore) {
        let shop = VpnShop::start(t).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        let right = fs::read_to_string(&shop.conf).unwrap();
        fs::write(&shop.conf, right.replace("10.8.0.2/32", "10.8.0.66/32")).unwrap();
        let plan = shop.get("/api/v1/servers/local/plan").await.1;
        assert_eq!((&plan["in_step"], &plan["whole"]), (&json!(false), &json!(false)), "{plan}");
        shop.wait(minutes(1)).await;
        assert_eq!(fs::read_to_string(&shop.conf).unwrap(), right);
        shop.finish().await;
    }
}
