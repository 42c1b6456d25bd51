//! What people write to the bot and what becomes of it: questions to the owner, second thoughts about a way to pay, and a broadcast
//! that has to stop.

use serde_json::json;

use semel_kernel::each_store;
use semel_sandbox::Provider;

use crate::app::{ADMIN, ROOMS, TestShop, minutes};
use crate::bot::{FRIEND, STRANGER, come_to_pay, last, orders, pay_newest, press, said, tell};

const LOST: &str = "I understand commands";

fn asked(shop: &TestShop, words: &str) -> usize {
    shop.alerts().iter().filter(|alert| alert.contains(words)).count()
}

each_store! { ROOMS;
    /// A command that is tapped in Telegram's menu comes alone.
    async fn the_words_after_support_reach_the_owner(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        tell(&shop, STRANGER, "/support").await;
        tell(&shop, STRANGER, "my key <b>fails</b>").await;
        assert!(last(&shop, STRANGER).starts_with("The shop's owner has it"), "{}", last(&shop, STRANGER));
        assert_eq!(asked(&shop, "asks for help: my key <b>fails</b>"), 1, "{:?}", shop.alerts());
        tell(&shop, STRANGER, "and these are only words").await;
        assert!(last(&shop, STRANGER).starts_with(LOST), "{}", last(&shop, STRANGER));

        tell(&shop, STRANGER, "/paysupport").await;
        tell(&shop, STRANGER, "where are my Stars").await;
        assert_eq!(asked(&shop, "has a question about a payment: where are my Stars"), 1, "{:?}", shop.alerts());
        shop.finish().await;
    }

    async fn a_command_a_button_or_time_ends_the_question(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        tell(&shop, STRANGER, "/support").await;
        tell(&shop, STRANGER, "/cancel").await;
        assert!(last(&shop, STRANGER).starts_with("All right"), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "after a command").await;
        tell(&shop, STRANGER, "/support").await;
        press(&shop, STRANGER, "Balance").await;
        tell(&shop, STRANGER, "after a button").await;
        tell(&shop, STRANGER, "/support").await;
        shop.wait(minutes(11)).await;
        tell(&shop, STRANGER, "after a while").await;
        assert!(last(&shop, STRANGER).starts_with(LOST), "{}", last(&shop, STRANGER));
        assert_eq!(asked(&shop, "after a"), 0, "{:?}", shop.alerts());
        shop.finish().await;
    }

    async fn the_owner_sees_who_asks_and_about_what(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        tell(&shop, STRANGER, "/support nothing works").await;
        let order = shop.store.texts("select id from orders").await.pop().expect("an order");
        let chat = shop.sandbox.chat(ADMIN);
        let alert = chat.iter().find(|message| message.text.contains("asks for help")).expect("the owner is told");
        assert!(alert.text.ends_with(&format!("Latest order: {order}")), "{}", alert.text);
        let link = alert.buttons.iter().find(|button| button.text == STRANGER.to_string());
        let url = link.and_then(|link| link.url.clone());
        assert_eq!(url, Some(format!("tg://user?id={STRANGER}")));

        shop.sandbox.set_language(ADMIN, "en");
        tell(&shop, ADMIN, "/admin").await;
        let told = last(&shop, ADMIN);
        assert!(told.contains("customers' questions in the last day: 1"), "{told}");
        assert!(told.contains("sold out: Licence key"), "{told}");
        assert!(told.contains("Came in, YooKassa: 990.00 RUB · payments: 1") && !told.contains("Given back"), "{told}");
        let refund = shop.post(&format!("/api/v1/orders/{order}/refund"), json!({ "to": "balance", "reason": "asked for" })).await;
        assert_eq!(refund.0, 200, "{}", refund.1);
        shop.run_jobs().await;
        tell(&shop, ADMIN, "/admin").await;
        let told = last(&shop, ADMIN);
        assert!(told.contains("Given back, to balances: 990.00 RUB"), "{told}");
        shop.finish().await;
    }

    async fn a_wrong_way_to_pay_is_given_up_for_another(t: TestStore) {
        let shop = TestShop::start(t).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "CrystalPAY").await;
        assert_eq!(shop.available(&product).await, 0);
        press(&shop, STRANGER, "Another way to pay").await;
        assert!(last(&shop, STRANGER).contains("is cancelled. A new one"), "{}", last(&shop, STRANGER));
        press(&shop, STRANGER, "Card").await;
        let states = shop.store.texts("select state from orders order by state").await;
        assert_eq!(states, ["cancelled", "pending"], "nothing is held twice");
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        tell(&shop, STRANGER, "/orders").await;
        let chat = shop.sandbox.chat(STRANGER);
        let titled = chat.last().expect("a list").buttons.iter().filter(|button| button.text.starts_with("Licence key · "));
        assert_eq!(titled.count(), 2);
        shop.finish().await;
    }

    async fn an_order_is_called_off_below_its_link(t: TestStore) {
        let shop = TestShop::start(t).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        press(&shop, STRANGER, "Cancel the order").await;
        assert!(last(&shop, STRANGER).ends_with("is cancelled."), "{}", last(&shop, STRANGER));
        assert_eq!((shop.available(&product).await, orders(&shop).await), (1, 1));
        shop.finish().await;
    }

    async fn a_broadcast_on_its_way_is_stopped_by_cancel(t: TestStore) {
        let slowly = [("BROADCAST_BATCH_SIZE", "1"), ("BROADCAST_BATCH_SLEEP", "60s")];
        let shop = TestShop::with(t, &slowly).await;
        for person in [STRANGER, FRIEND, ADMIN] {
            shop.sandbox.set_language(person, "en");
            tell(&shop, person, "/start").await;
        }
        tell(&shop, ADMIN, "/broadcast").await;
        tell(&shop, ADMIN, "A draft").await;
        press(&shop, ADMIN, "Throw away").await;
        assert!(last(&shop, ADMIN).starts_with("The draft is thrown away: nobody"), "{}", last(&shop, ADMIN));

        tell(&shop, ADMIN, "/broadcast").await;
        tell(&shop, ADMIN, "Good evening").await;
        press(&shop, ADMIN, "Start: 3").await;
        let begun = shop.sandbox.chat(ADMIN).into_iter().find(|message| message.text.contains("on its way to 3"));
        let buttons = begun.expect("it has begun").buttons;
        assert!(buttons.iter().any(|button| button.text == "Stop it"), "{buttons:?}");
        tell(&shop, ADMIN, "/cancel").await;
        let told = said(&shop, ADMIN);
        assert!(told.iter().any(|text| text.starts_with("A broadcast is on its way. Stop it?")), "{told:?}");
        press(&shop, ADMIN, "of 3").await;
        let states = shop.store.texts("select state from campaigns order by id").await;
        assert_eq!(states, ["cancelled", "cancelled"]);
        tell(&shop, ADMIN, "/cancel").await;
        let told = said(&shop, ADMIN);
        assert!(told.iter().any(|text| text.starts_with("There is no unpaid order")), "{told:?}");
        shop.finish().await;
    }

    async fn the_bot_greets_in_the_owners_words_and_promises_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        for person in [STRANGER, ADMIN] {
            shop.sandbox.set_language(person, "en");
        }
        for kind in ["start", "help"] {
            let own = json!({ "language": "en", "html": format!("<b>My</b> {kind}") });
            assert_eq!(shop.post(&format!("/api/v1/notices/{kind}"), own).await.0, 200);
        }
        tell(&shop, STRANGER, "/start").await;
        assert_eq!(last(&shop, STRANGER), "My start");
        let chat = shop.sandbox.chat(STRANGER);
        let buttons = &chat.last().expect("a greeting").buttons;
        assert!(!buttons.iter().any(|button| button.text.contains("Invite")), "nobody is rewarded: {buttons:?}");
        tell(&shop, STRANGER, "/ref").await;
        assert!(last(&shop, STRANGER).starts_with("Your link for friends"), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "/help").await;
        let told = last(&shop, STRANGER);
        assert!(told.starts_with("My help\n\n/start") && !told.contains("/admin") && !told.contains("/ref"), "{told}");
        tell(&shop, ADMIN, "/help").await;
        let told = last(&shop, ADMIN);
        assert!(told.contains("/admin") && told.contains("/broadcast"), "{told}");
        shop.finish().await;
    }
}
