//! Talking to customers, where only a mistake on purpose would show: what was not kept is not confirmed, and an audience is the
//! one of the start.

use std::time::Duration;

use serde_json::json;

use semel::app::updates::poll_once;
use semel_kernel::each_store;

use crate::app::{ROOMS, TestShop, text};

/// The first of the people of these stories.
const FIRST: i64 = 7_100;
/// Two at a time and ten seconds between: a story sees what is in the middle.
const SLOWLY: &[(&str, &str)] = &[("BROADCAST_BATCH_SIZE", "2"), ("BROADCAST_BATCH_SLEEP", "10s")];

/// Somebody says hello, and is a customer from then on.
async fn comes(shop: &TestShop, person: i64) {
    let bot = shop.shop().bot.clone().expect("the story has a bot");
    shop.sandbox.say(person, "/start");
    let polled = poll_once(shop.shop(), &bot, None, 0).await.expect("updates come");
    poll_once(shop.shop(), &bot, polled.next, 0).await.expect("what came is confirmed");
    shop.run_jobs().await;
}

/// How often a person has the news.
fn copies(shop: &TestShop, person: i64) -> usize {
    shop.chat(person).iter().filter(|words| words.as_str() == "Spring has come").count()
}

each_store! { ROOMS;
    async fn an_update_that_was_not_kept_comes_again(t: TestStore) {
        let shop = TestShop::start(t).await;
        let bot = shop.shop().bot.clone().expect("the story has a bot");
        shop.sandbox.say(FIRST, "/balance");
        shop.change("alter table updates rename to updates_elsewhere").await;
        let away = poll_once(shop.shop(), &bot, None, 0).await;
        assert!(away.is_err(), "nothing was kept, so nothing may be confirmed: {away:?}");
        shop.change("alter table updates_elsewhere rename to updates").await;

        let polled = poll_once(shop.shop(), &bot, None, 0).await.expect("updates come");
        assert_eq!(polled.came.new, 1, "Telegram has it still");
        poll_once(shop.shop(), &bot, polled.next, 0).await.expect("what came is confirmed");
        shop.run_jobs().await;
        assert_eq!(shop.sandbox.chat(FIRST).iter().filter(|message| !message.own).count(), 1, "one answer");
        shop.finish().await;
    }

    async fn who_comes_after_the_start_is_not_in_it(t: TestStore) {
        let shop = TestShop::with(t, SLOWLY).await;
        for person in FIRST..FIRST + 4 {
            comes(&shop, person).await;
        }
        let draft = json!({ "title": "Spring", "rule": {}, "texts": { "ru": { "html": "Spring has come" } } });
        let (status, made) = shop.post("/api/v1/campaigns", draft).await;
        assert_eq!(status, 201, "{made}");
        let id = text(&made["id"]);
        for what in ["preview", "test"] {
            let (status, told) = shop.post(&format!("/api/v1/campaigns/{id}/{what}"), json!({})).await;
            assert_eq!(status, 200, "{told}");
            shop.run_jobs().await;
        }
        let (status, begun) = shop.post(&format!("/api/v1/campaigns/{id}/start"), json!({})).await;
        assert_eq!((status, &begun["recipients"]), (200, &json!(4)), "{begun}");
        shop.run_jobs().await;
        assert_eq!(shop.campaign_view(&id).await["progress"]["states"]["sent"], 2, "it is in the middle");

        comes(&shop, FIRST + 4).await;
        for _ in 0..20 {
            shop.wait(Duration::from_secs(5)).await;
        }
        let shown = shop.campaign_view(&id).await;
        assert_eq!((&shown["state"], &shown["recipients"]), (&json!("finished"), &json!(4)), "{shown}");
        assert_eq!(shown["progress"]["states"]["sent"], 4, "{shown}");
        let has: Vec<usize> = (FIRST..FIRST + 5).map(|person| copies(&shop, person)).collect();
        assert_eq!(has, [1, 1, 1, 1, 0], "who comes later gets the next one");
        shop.finish().await;
    }
}
