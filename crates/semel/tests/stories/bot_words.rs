//! What people write to the bot and what becomes of it: questions to the owner, second thoughts about a way to pay, and a broadcast
//! that has to stop.

use serde_json::json;

use semel_kernel::each_store;
use semel_sandbox::{Fault, Provider, Target};

use crate::app::{ADMIN, ROOMS, TestShop, minutes};
use crate::bot::{FRIEND, STRANGER, button, come_to_pay, hear, last, orders, pay_newest, press, said, take, tell};

const LOST: &str = "I understand commands";

/// A shop that sends receipts through YooKassa.
const RECEIPTS: [(&str, &str); 3] = [
    ("SEMEL_YOOKASSA_RECEIPT_VAT", "1"),
    ("SEMEL_YOOKASSA_RECEIPT_SUBJECT", "service"),
    ("SEMEL_YOOKASSA_RECEIPT_MODE", "full_payment"),
];
const WHERE_TO: &str = "The receipt needs your e-mail or phone.";
const TO_PAY: &str = "waits for payment";

/// How often the bot said something like this in a chat.
fn told(shop: &TestShop, person: i64, words: &str) -> usize {
    said(shop, person).iter().filter(|text| text.contains(words)).count()
}

fn asked(shop: &TestShop, words: &str) -> usize {
    shop.alerts().iter().filter(|alert| alert.contains(words)).count()
}

/// Somebody replies to this message of their chat, with a text or with something else.
fn reply(shop: &TestShop, person: i64, message: i64, text: Option<&str>) {
    let mut said = json!({
        "message_id": 900_000, "date": 0, "chat": { "id": person, "type": "private" },
        "from": { "id": person, "is_bot": false, "language_code": "en" }, "reply_to_message": { "message_id": message },
    });
    if let Some(text) = text {
        said["text"] = json!(text);
    }
    shop.sandbox.send_update("message", said);
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

    async fn who_needs_a_receipt_says_once_where_it_goes_and_the_order_goes_on(t: TestStore) {
        let shop = TestShop::with(t, &RECEIPTS).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let (message, data) = button(&shop, STRANGER, "Card");
        for _ in 0..3 {
            shop.sandbox.press_data(STRANGER, message, &data);
        }
        take(&shop).await;
        let rival = shop.rival().await;
        tokio::join!(shop.program.run_jobs(), rival.run_jobs());
        shop.run_jobs().await;
        assert_eq!((told(&shop, STRANGER, WHERE_TO), orders(&shop).await), (1, 0), "{:?}", said(&shop, STRANGER));
        for wrong in ["whoever@nowhere", "call me", "0800"] {
            tell(&shop, STRANGER, wrong).await;
            assert!(last(&shop, STRANGER).starts_with("This is neither an e-mail"), "{}", last(&shop, STRANGER));
        }

        for _ in 0..2 {
            shop.sandbox.say(STRANGER, "buyer@example.com");
        }
        take(&shop).await;
        tokio::join!(shop.program.run_jobs(), rival.run_jobs());
        shop.run_jobs().await;
        shop.sandbox.repeat_updates();
        hear(&shop).await;
        assert_eq!((told(&shop, STRANGER, TO_PAY), orders(&shop).await), (1, 1), "{:?}", said(&shop, STRANGER));
        assert_eq!(shop.sandbox.payments(Provider::Yookassa).len(), 1);
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);

        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1", "KEY-2"]);
        assert_eq!(told(&shop, STRANGER, WHERE_TO), 1, "it is known by now");
        assert_eq!(shop.store.texts("select email from customers").await, ["buyer@example.com"]);
        drop(rival);
        shop.finish().await;
    }

    async fn who_thinks_better_of_a_receipt_orders_nothing_and_may_come_back(t: TestStore) {
        let shop = TestShop::with(t, &RECEIPTS).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        tell(&shop, STRANGER, "/cancel").await;
        assert!(last(&shop, STRANGER).starts_with("All right, nothing was ordered."), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "buyer@example.com").await;
        assert!(last(&shop, STRANGER).starts_with(LOST), "{}", last(&shop, STRANGER));
        assert_eq!(orders(&shop).await, 0);

        press(&shop, STRANGER, "Card").await;
        assert_eq!(told(&shop, STRANGER, WHERE_TO), 2);
        tell(&shop, STRANGER, "+7 (900) 123-45-67").await;
        assert_eq!(shop.store.texts("select phone from customers").await, ["79001234567"]);
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn an_order_with_a_receipt_waits_for_its_provider_whatever_is_said_meanwhile(t: TestStore) {
        let shop = TestShop::with(t, &RECEIPTS).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        let creating = Target::Api(Provider::Yookassa, "POST /payments".into());
        let away = shop.sandbox.fault(creating, Fault::Status(503), None);
        tell(&shop, STRANGER, "buyer@example.com").await;
        assert!(last(&shop, STRANGER).starts_with("Your order is made"), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "/support where is my link").await;
        shop.sandbox.lift_fault(away);
        shop.wait(minutes(3)).await;
        shop.wait(minutes(3)).await;
        assert_eq!((told(&shop, STRANGER, TO_PAY), orders(&shop).await), (1, 1), "{:?}", said(&shop, STRANGER));
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn a_slip_in_the_contact_of_receipts_is_mended_by_its_customer(t: TestStore) {
        let shop = TestShop::with(t, &RECEIPTS).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        let creating = Target::Api(Provider::Yookassa, "POST /payments".into());
        shop.sandbox.fault(creating, Fault::Status(400), Some(1));
        tell(&shop, STRANGER, "buyer@example.com,").await;
        assert!(last(&shop, STRANGER).contains("does not take the payment"), "{}", last(&shop, STRANGER));

        press(&shop, STRANGER, "Receipts").await;
        assert!(last(&shop, STRANGER).starts_with("Receipts go to buyer@example.com,."), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "+79001234567").await;
        assert!(last(&shop, STRANGER).starts_with("Done: receipts go there"), "{}", last(&shop, STRANGER));
        let known = "select coalesce(email, '-') || ' ' || coalesce(phone, '-') from customers";
        assert_eq!(shop.store.texts(known).await, ["- 79001234567"], "a refused one would be refused again");
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        assert!(last(&shop, STRANGER).contains(TO_PAY), "{}", last(&shop, STRANGER));
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);

        tell(&shop, STRANGER, "/settings").await;
        press(&shop, STRANGER, "Receipts").await;
        tell(&shop, STRANGER, "/cancel").await;
        assert!(last(&shop, STRANGER).starts_with("All right, everything is as it was"), "{}", last(&shop, STRANGER));
        assert_eq!(shop.store.texts(known).await, ["- 79001234567"]);
        shop.finish().await;
    }

    async fn an_owners_reply_reaches_who_asked_once_and_nobody_else(t: TestStore) {
        let shop = TestShop::start(t).await;
        for person in [STRANGER, FRIEND, ADMIN] {
            shop.sandbox.set_language(person, "en");
        }
        tell(&shop, STRANGER, "/support it fails").await;
        tell(&shop, FRIEND, "/support mine, too").await;
        let chat = shop.sandbox.chat(ADMIN);
        let question = chat.iter().find(|message| message.text.ends_with("asks for help: it fails")).expect("it came").id;

        // A broadcast was waited for: an answer to one person is none.
        tell(&shop, ADMIN, "/broadcast").await;
        reply(&shop, ADMIN, question, Some("Restart it & <try> again"));
        hear(&shop).await;
        shop.sandbox.repeat_updates();
        hear(&shop).await;
        assert!(last(&shop, STRANGER).starts_with("The shop answers:\nRestart it & <try> again"), "{}", last(&shop, STRANGER));
        assert_eq!((told(&shop, STRANGER, "Restart it"), told(&shop, FRIEND, "Restart it")), (1, 0));
        assert_eq!(asked(&shop, &format!("Customer {STRANGER} has your answer")), 1, "{:?}", shop.alerts());
        assert_eq!(shop.number("select cast(count(*) as bigint) from campaigns").await, 0);

        reply(&shop, ADMIN, question, None);
        hear(&shop).await;
        assert!(last(&shop, ADMIN).starts_with("Only words can be passed on"), "{}", last(&shop, ADMIN));
        let other = shop.sandbox.chat(ADMIN).pop().expect("a message").id;
        reply(&shop, ADMIN, other, Some("to nobody"));
        hear(&shop).await;
        assert!(last(&shop, ADMIN).starts_with("This was passed on to nobody"), "{}", last(&shop, ADMIN));
        reply(&shop, FRIEND, question, Some("I am no owner"));
        hear(&shop).await;
        assert!(last(&shop, FRIEND).starts_with(LOST), "{}", last(&shop, FRIEND));
        assert_eq!(told(&shop, STRANGER, "The shop answers:"), 1);
        shop.finish().await;
    }

    async fn an_owner_hears_that_a_reply_did_not_arrive(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        tell(&shop, STRANGER, "/support it fails").await;
        let question = shop.sandbox.chat(ADMIN).pop().expect("the owner is told").id;
        shop.sandbox.block(STRANGER);
        hear(&shop).await;
        reply(&shop, ADMIN, question, Some("Restart it"));
        hear(&shop).await;
        assert_eq!(told(&shop, STRANGER, "Restart it"), 0);
        let wanted = format!("Your answer to customer {STRANGER} did not reach the customer");
        assert_eq!(asked(&shop, &wanted), 1, "{:?}", shop.alerts());
        assert_eq!(asked(&shop, "has your answer"), 0);
        shop.finish().await;
    }
}
