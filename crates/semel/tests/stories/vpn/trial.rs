//! Trials: once per person, for ever.

use serde_json::json;

use semel_kernel::each_store;

use super::{VpnShop, days, person};
use crate::app::{CUSTOMER, ROOMS, refusal, text};

const TRIAL: (&str, &str) = ("SEMEL_VPN_TRIAL_DAYS", "3");

each_store! { ROOMS;
    async fn a_trial_is_a_file_for_three_days_once_per_person(t: TestStore) {
        let shop = VpnShop::with(t, &[TRIAL]).await;
        let (status, begun) = shop.begin_trial(CUSTOMER, None).await;
        assert_eq!((status, text(&begun["state"])), (201, "trial".into()), "{begun}");
        assert_eq!(text(&begun["paid_until"]), "2026-03-04T09:00:00.000Z");
        assert_eq!(shop.wg.peers().len(), 1);
        assert_eq!(shop.told(CUSTOMER, "You have VPN access until"), 1);
        let messages = shop.sandbox.chat(CUSTOMER);
        let file = messages.iter().position(|message| message.document.is_some());
        let picture = messages.iter().position(|message| message.photo.is_some());
        let howto = messages.iter().position(|message| message.text.starts_with("How to connect"));
        assert!(file.is_some() && file < picture && picture < howto, "{messages:?}");

        assert_eq!(refusal(&shop.begin_trial(CUSTOMER, None).await), "409 conflict");
        shop.wait(days(3)).await;
        shop.wait(days(1)).await;
        assert_eq!(shop.state(CUSTOMER).await, "expired");
        assert_eq!(refusal(&shop.begin_trial(CUSTOMER, None).await), "409 conflict");
        shop.wait(days(60)).await;
        assert_eq!(refusal(&shop.begin_trial(CUSTOMER, None).await), "409 conflict", "for ever");
        shop.finish().await;
    }

    async fn a_referral_link_gives_nobody_a_second_trial(t: TestStore) {
        let shop = VpnShop::with(t, &[TRIAL]).await;
        assert_eq!(shop.begin_trial(CUSTOMER, None).await.0, 201);
        assert_eq!(refusal(&shop.begin_trial(CUSTOMER, Some(7)).await), "409 conflict");
        assert_eq!(shop.begin_trial(7, Some(CUSTOMER)).await.0, 201, "a friend has one of their own");
        assert_eq!(refusal(&shop.begin_trial(7, Some(8)).await), "409 conflict");
        assert_eq!(refusal(&shop.begin_trial(7, None).await), "409 conflict");
        assert_eq!(shop.wg.peers().len(), 2);
        shop.finish().await;
    }

    async fn of_ten_at_once_one_begins(t: TestStore) {
        let shop = VpnShop::with(t, &[TRIAL]).await;
        let rival = shop.rival().await;
        let doors = [shop.program.api.clone(), rival.api.clone()];
        let crowd: Vec<_> = (0..10)
            .map(|n| {
                let (door, body) = (doors[n % 2].clone(), json!({ "customer": person(CUSTOMER) }));
                tokio::spawn(async move { door.post("/api/v1/subscriptions/trial", body).await.0 })
            })
            .collect();
        let mut answers = Vec::new();
        for begun in crowd {
            answers.push(begun.await.unwrap());
        }
        answers.sort();
        assert_eq!((answers[0], answers[1], answers[9]), (201, 409, 409), "{answers:?}");
        shop.run_jobs().await;
        assert_eq!((shop.wg.peers().len(), shop.files_to(CUSTOMER).len()), (1, 1));
        shop.finish().await;
    }

    async fn who_has_paid_needs_no_trial(t: TestStore) {
        let shop = VpnShop::with(t, &[TRIAL]).await;
        let month = shop.access(30, 1).await;
        shop.buy(CUSTOMER, &month).await;
        assert_eq!(refusal(&shop.begin_trial(CUSTOMER, None).await), "409 conflict");
        shop.finish().await;
    }

    async fn where_there_are_no_trials_nobody_gets_one(t: TestStore) {
        let shop = VpnShop::start(t).await;
        assert_eq!(refusal(&shop.begin_trial(CUSTOMER, None).await), "409 conflict");
        assert!(shop.subscriptions(CUSTOMER).await.is_empty());
        shop.finish().await;
    }

    async fn a_purchase_during_the_trial_adds_to_it_and_keeps_the_file(t: TestStore) {
        let shop = VpnShop::with(t, &[TRIAL]).await;
        shop.begin_trial(CUSTOMER, None).await;
        let (key, file) = shop.held(CUSTOMER).await;
        let month = shop.access(30, 1).await;
        shop.wait(days(1)).await;
        let order = shop.buy(CUSTOMER, &month).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.at(CUSTOMER).await, ("active".into(), "2026-04-03T09:00:00.000Z".into()));
        assert_eq!(shop.held(CUSTOMER).await, (key, file));
        assert_eq!(shop.files_to(CUSTOMER).len(), 1);
        shop.finish().await;
    }

    async fn a_larger_purchase_during_the_trial_brings_the_missing_files(t: TestStore) {
        let shop = VpnShop::with(t, &[TRIAL]).await;
        shop.begin_trial(CUSTOMER, None).await;
        let key = shop.key(CUSTOMER).await;
        let family = shop.access(30, 3).await;
        let order = shop.buy(CUSTOMER, &family).await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(shop.key(CUSTOMER).await, key, "the first device goes on as it was");
        assert_eq!((shop.wg.peers().len(), shop.files_to(CUSTOMER).len()), (3, 3));
        shop.finish().await;
    }
}
