//! The customer's bot: a stranger who has only a chat, and everything that chats do wrong.

use std::pin::pin;

use bytes::Bytes;
use expect_test::expect;
use http::Method;
use serde_json::{Value, json};

use semel::app::updates::{Trouble, answer, poll_once};
use semel_kernel::each_store;
use semel_kernel::testing::eventually;
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::bot::Came;

use crate::app::{ADMIN, CUSTOMER, ROOMS, TestShop, minutes};
use crate::vpn::VpnShop;

pub const STRANGER: i64 = 7_000_000_001;
pub const FRIEND: i64 = 7_000_000_002;
pub const NO_SUCH_BUTTON: &str = "This button does not work any more.";

/// Takes everything that waits, answers the presses, and lets everything happen.
pub async fn hear(shop: &TestShop) -> Came {
    let came = take(shop).await;
    shop.run_jobs().await;
    came
}

/// Takes everything that waits and does nothing about it yet.
pub async fn take(shop: &TestShop) -> Came {
    let bot = shop.shop().bot.clone().expect("the story has a bot");
    let polled = poll_once(shop.shop(), &bot, None, 0).await.expect("updates come");
    answer(shop.shop(), &bot, &polled.came.presses).await;
    if polled.next.is_some() {
        let rest = poll_once(shop.shop(), &bot, polled.next, 0).await.expect("what came is confirmed");
        assert_eq!(rest.next, None, "nothing is left");
    }
    polled.came
}

pub async fn tell(shop: &TestShop, person: i64, text: &str) {
    shop.sandbox.say(person, text);
    hear(shop).await;
}

pub async fn press(shop: &TestShop, person: i64, words: &str) {
    let pressed = shop.sandbox.press(person, words);
    assert!(pressed.is_some(), "there is a button {words:?} in {:#?}", said(shop, person));
    hear(shop).await;
}

/// What the bot said in a chat.
pub fn said(shop: &TestShop, person: i64) -> Vec<String> {
    shop.sandbox.chat(person).into_iter().filter(|message| !message.own).map(|message| message.text).collect()
}

pub fn last(shop: &TestShop, person: i64) -> String {
    said(shop, person).pop().unwrap_or_default()
}

/// The newest button with these words: its message and its data.
pub fn button(shop: &TestShop, person: i64, words: &str) -> (i64, String) {
    let chat = shop.sandbox.chat(person);
    let found = chat.iter().rev().find_map(|message| {
        let button = message.buttons.iter().find(|button| button.text.contains(words))?;
        Some((message.id, button.callback_data.clone()?))
    });
    found.unwrap_or_else(|| panic!("there is a button {words:?}"))
}

/// An English speaker comes to the ways to pay for the only product.
pub async fn come_to_pay(shop: &TestShop, person: i64, start: &str) {
    shop.sandbox.set_language(person, "en");
    tell(shop, person, start).await;
    press(shop, person, "Catalog").await;
    press(shop, person, "Licence key").await;
    press(shop, person, "Buy for").await;
}

/// Pays the newest payment of this provider; the webhook and everything after it happen.
pub async fn pay_newest(shop: &TestShop, provider: Provider) {
    let payment = shop.sandbox.payments(provider).pop().expect("there is a payment");
    shop.sandbox.pay(provider, &payment.id).expect("it can be paid");
    shop.receive_all().await;
    shop.run_jobs().await;
}

pub async fn orders(shop: &TestShop) -> i64 {
    shop.number("select cast(count(*) as bigint) from orders").await
}

each_store! { ROOMS;
    async fn a_stranger_buys_a_key_with_buttons_only(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        assert!(last(&shop, STRANGER).contains("waits for payment"), "{}", last(&shop, STRANGER));
        let chat = shop.sandbox.chat(STRANGER);
        let link = chat.iter().flat_map(|message| &message.buttons).find(|button| button.text == "Pay 990.00 RUB");
        let url = link.and_then(|button| button.url.clone()).expect("there is a link to pay");
        assert!(url.starts_with(&shop.sandbox.url()), "{url}");

        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        expect![[r#"
            sales     +990.00 RUB
            yookassa  -990.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        eventually("nobody who presses waits for the spinner", async || shop.sandbox.press_answers().len() == 4).await;
        shop.finish().await;
    }

    async fn who_was_sent_by_a_friend_pays_the_friend(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_REFERRAL_REWARD_PERCENT", "10")]).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        tell(&shop, FRIEND, "/start").await;
        come_to_pay(&shop, STRANGER, &format!("/start ref_{FRIEND}")).await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.balance(FRIEND).await, "99.00 RUB");

        // Who is known already cannot be sent any more, and nobody sends themselves.
        come_to_pay(&shop, FRIEND, &format!("/start ref_{STRANGER}")).await;
        press(&shop, FRIEND, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.balance(STRANGER).await, "nothing");
        tell(&shop, FRIEND, "/ref").await;
        assert!(last(&shop, FRIEND).contains(&format!("ref_{FRIEND}")), "{}", last(&shop, FRIEND));
        shop.finish().await;
    }

    async fn ten_presses_make_one_order(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let (message, data) = button(&shop, STRANGER, "Card");
        for _ in 0..10 {
            shop.sandbox.press_data(STRANGER, message, &data);
        }
        // The neighbour on the same card is the same decision.
        let (message, other) = button(&shop, STRANGER, "Crypto");
        shop.sandbox.press_data(STRANGER, message, &other);
        assert_eq!(take(&shop).await.new, 11);
        let rival = shop.rival().await;
        tokio::join!(shop.program.run_jobs(), rival.run_jobs());
        shop.run_jobs().await;
        assert_eq!(orders(&shop).await, 1);
        let told = said(&shop, STRANGER).into_iter().filter(|text| text.contains("waits for payment")).count();
        assert_eq!(told, 1, "the first press has the answer");

        // On a busy machine the word may not wait for the database, and then cannot say so.
        eventually("who presses late is told that it is done", async || {
            shop.sandbox.press_data(STRANGER, message, &data);
            hear(&shop).await;
            let shown = shop.sandbox.press_answers().pop().and_then(|answer| answer.text);
            shown.as_deref() == Some("Done already: the answer is in the chat.")
        })
        .await;
        assert_eq!(orders(&shop).await, 1);
        drop(rival);
        shop.finish().await;
    }

    async fn updates_that_come_again_and_numbers_that_never_come_change_nothing(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        shop.sandbox.skip_updates(1000);
        come_to_pay(&shop, STRANGER, "/start").await;
        shop.sandbox.skip_updates(1);
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        let before = said(&shop, STRANGER);
        for _ in 0..2 {
            shop.sandbox.repeat_updates();
            assert_eq!(hear(&shop).await.new, 0);
        }
        assert_eq!(said(&shop, STRANGER), before);
        assert_eq!(orders(&shop).await, 1);
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn a_button_is_nobody_elses_and_not_for_ever(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let (message, data) = button(&shop, STRANGER, "Card");
        shop.sandbox.set_language(FRIEND, "en");
        let forged = [data.as_str(), "AAAAAAAAAAAAAAAA", "buy:prd_1:0.01", "go:order:ord_1", "", "go:admin", "ключ"];
        for data in forged {
            shop.sandbox.press_data(FRIEND, message, data);
            hear(&shop).await;
            assert!(last(&shop, FRIEND).starts_with(NO_SUCH_BUTTON), "{data:?}: {}", last(&shop, FRIEND));
        }
        assert_eq!(orders(&shop).await, 0);

        shop.wait(minutes(49 * 60)).await;
        shop.sandbox.press_data(STRANGER, message, &data);
        hear(&shop).await;
        assert!(last(&shop, STRANGER).starts_with(NO_SUCH_BUTTON), "{}", last(&shop, STRANGER));
        assert_eq!(orders(&shop).await, 0);
        shop.finish().await;
    }

    async fn an_order_shows_itself_to_nobody_else(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        let order = shop.store.texts("select id from orders").await.pop().expect("an order");
        shop.sandbox.set_language(FRIEND, "en");
        shop.sandbox.press_data(FRIEND, 1, &format!("go:order:{order}"));
        hear(&shop).await;
        assert!(last(&shop, FRIEND).starts_with(NO_SUCH_BUTTON), "{}", last(&shop, FRIEND));
        assert!(said(&shop, FRIEND).iter().all(|text| !text.contains(&order)));
        shop.finish().await;
    }

    async fn an_old_price_buys_nothing_and_shows_the_new_one(t: TestStore) {
        let shop = TestShop::start(t).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let price = json!({ "price": { "amount": "1200.00", "currency": "RUB" } });
        let (status, changed) = shop.patch(&format!("/api/v1/products/{product}"), price).await;
        assert_eq!(status, 200, "{changed}");

        press(&shop, STRANGER, "990.00").await;
        assert_eq!(orders(&shop).await, 0);
        let told = last(&shop, STRANGER);
        assert!(told.starts_with("The product has changed") && told.contains("1200.00 RUB"), "{told}");
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        expect![[r#"
            sales     +1200.00 RUB
            yookassa  -1200.00 RUB
        "#]]
        .assert_eq(&shop.ledger().await);
        shop.finish().await;
    }

    async fn what_was_bought_comes_again_once_a_press(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        tell(&shop, STRANGER, "/orders").await;
        press(&shop, STRANGER, "delivered").await;
        let (message, data) = button(&shop, STRANGER, "Send the goods again");
        for _ in 0..3 {
            shop.sandbox.press_data(STRANGER, message, &data);
            hear(&shop).await;
        }
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1", "KEY-1"]);
        shop.finish().await;
    }

    async fn an_order_is_called_off_and_its_stock_is_there_again(t: TestStore) {
        let shop = TestShop::start(t).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        assert_eq!(shop.available(&product).await, 0);
        come_to_pay_in_vain(&shop).await;
        tell(&shop, STRANGER, "/cancel").await;
        press(&shop, STRANGER, "990.00").await;
        assert!(last(&shop, STRANGER).ends_with("is cancelled."), "{}", last(&shop, STRANGER));
        assert_eq!(shop.available(&product).await, 1);
        shop.finish().await;
    }

    async fn who_blocks_the_bot_is_known_to_and_known_again(t: TestStore) {
        let shop = TestShop::start(t).await;
        tell(&shop, STRANGER, "/start").await;
        let blocked = "select cast(count(*) as bigint) from customers where blocked_at is not null";
        shop.sandbox.block(STRANGER);
        hear(&shop).await;
        assert_eq!(shop.number(blocked).await, 1);
        shop.sandbox.unblock(STRANGER);
        hear(&shop).await;
        assert_eq!(shop.number(blocked).await, 0);
        shop.sandbox.block(STRANGER);
        hear(&shop).await;
        tell(&shop, STRANGER, "/start").await;
        assert_eq!(shop.number(blocked).await, 0, "whoever writes can be reached");
        shop.finish().await;
    }

    async fn old_news_of_a_block_shuts_nobody_out(t: TestStore) {
        let shop = TestShop::start(t).await;
        tell(&shop, STRANGER, "/start").await;
        let blocked = "select cast(count(*) as bigint) from customers where blocked_at is not null";
        shop.sandbox.block(STRANGER);
        take(&shop).await;
        // Its job is late: it failed, or its worker was slow.
        let late = shop.shop().write("story.late", |tx, _| {
            let text = "update jobs set run_at = run_at + 600000 where kind = 'bot.update' and state = 'ready'";
            Ok::<_, semel_shop::Error>(tx.execute(text, &[])?)
        });
        assert_eq!(late.await.expect("the job waits"), 1);
        shop.sandbox.unblock(STRANGER);
        hear(&shop).await;
        shop.wait(minutes(11)).await;
        assert_eq!(shop.number(blocked).await, 0, "the newer word counts, whichever is worked off last");
        shop.finish().await;
    }

    async fn a_provider_that_is_away_gets_its_order_later(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        let away = shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /payments".into()), Fault::Status(503), None);
        press(&shop, STRANGER, "Card").await;
        assert!(last(&shop, STRANGER).starts_with("Your order is made"), "{}", last(&shop, STRANGER));
        assert_eq!(orders(&shop).await, 1);
        shop.sandbox.lift_fault(away);
        shop.wait(minutes(3)).await;
        shop.wait(minutes(3)).await;
        pay_newest(&shop, Provider::Yookassa).await;
        assert_eq!(shop.delivered_to(STRANGER), ["KEY-1"]);
        assert_eq!(orders(&shop).await, 1);
        shop.finish().await;
    }

    async fn a_stranger_tries_the_vpn_and_renews_it_by_buttons(t: TestStore) {
        let shop = VpnShop::with(t, &[("SEMEL_VPN_TRIAL_DAYS", "3")]).await;
        let month = json!({
            "title": "A month", "kind": "vpn", "price": { "amount": "299.00", "currency": "RUB" }, "duration_days": 30,
            "devices": 1,
        });
        shop.product_of(month).await;
        shop.sandbox.set_language(STRANGER, "en");
        tell(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "My access").await;
        press(&shop, STRANGER, "Try for free").await;
        let files = |shop: &TestShop| {
            let chat = shop.sandbox.chat(STRANGER);
            chat.iter().filter(|message| message.document.is_some()).count()
        };
        assert_eq!((shop.wg.peers().len(), files(&shop)), (1, 1));
        tell(&shop, STRANGER, "/trial").await;
        assert!(last(&shop, STRANGER).starts_with("A trial is given once"), "{}", last(&shop, STRANGER));

        tell(&shop, STRANGER, "/subscription").await;
        press(&shop, STRANGER, "File for device 1").await;
        assert_eq!(files(&shop), 2);
        press(&shop, STRANGER, "Renew").await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        tell(&shop, STRANGER, "/subscription").await;
        assert!(last(&shop, STRANGER).starts_with("Access: active"), "{}", last(&shop, STRANGER));
        assert_eq!(shop.wg.peers().len(), 1, "the same device goes on");
        shop.finish().await;
    }

    async fn the_owner_sees_the_day_and_nobody_else_does(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        come_to_pay(&shop, STRANGER, "/start").await;
        press(&shop, STRANGER, "Card").await;
        pay_newest(&shop, Provider::Yookassa).await;
        shop.sandbox.set_language(ADMIN, "en");
        tell(&shop, ADMIN, "/admin").await;
        let told = last(&shop, ADMIN);
        assert!(told.contains("990.00 RUB · payments: 1") && told.contains("Licence key: 1"), "{told}");
        tell(&shop, STRANGER, "/admin").await;
        assert!(last(&shop, STRANGER).starts_with("I understand commands"), "{}", last(&shop, STRANGER));
        tell(&shop, STRANGER, "/support the key is <b>wrong</b>").await;
        assert!(shop.alerts().iter().any(|alert| alert.contains("asks for help: the key is <b>wrong</b>")));
        shop.finish().await;
    }

    async fn a_language_that_was_chosen_stays(t: TestStore) {
        let shop = TestShop::start(t).await;
        shop.sandbox.set_language(STRANGER, "en");
        tell(&shop, STRANGER, "/language").await;
        press(&shop, STRANGER, "Русский").await;
        tell(&shop, STRANGER, "/help").await;
        assert!(last(&shop, STRANGER).starts_with("Покупайте кнопками"), "{}", last(&shop, STRANGER));
        for command in ["/terms", "/privacy", "/balance", "/cancel", "/trial", "/subscription", "/catalog", "просто слова"] {
            let before = said(&shop, STRANGER).len();
            tell(&shop, STRANGER, command).await;
            assert_eq!(said(&shop, STRANGER).len(), before + 1, "{command} has one answer");
        }
        shop.finish().await;
    }

    async fn of_two_pollers_one_is_cut_off(t: TestStore) {
        let shop = TestShop::start(t).await;
        let bot = shop.shop().bot.clone().expect("a bot");
        {
            let mut one = pin!(poll_once(shop.shop(), &bot, None, 50));
            let mut other = pin!(poll_once(shop.shop(), &bot, None, 50));
            // Who is cut off says that the other one has come, which waits from then on.
            let (cut_off, waiting) = tokio::select! {
                asked = &mut one => (asked, other),
                asked = &mut other => (asked, one),
            };
            assert!(matches!(cut_off, Err(Trouble::Conflict(_))), "{cut_off:?}");
            shop.sandbox.say(STRANGER, "/start");
            assert_eq!(waiting.await.expect("it goes on").came.new, 1, "and nothing is lost");
        }
        assert_eq!(hear(&shop).await.new, 0, "what was not confirmed comes again and is known");
        shop.finish().await;
    }

    async fn a_webhook_is_taken_with_its_secret_and_once(t: TestStore) {
        let changes = [("SEMEL_TELEGRAM_UPDATES", "webhook"), ("SEMEL_PUBLIC_URL", "https://shop.example")];
        let shop = TestShop::with(t, &changes).await;
        let door = shop.program.app.doors.telegram.clone().expect("the door is open");
        let path = format!("/telegram/webhook/{}", door.path);
        let update = start_of(STRANGER).to_string();
        let wrong = [("content-type", "application/json"), ("x-telegram-bot-api-secret-token", "guess")];
        let right =
            [("content-type", "application/json"), ("x-telegram-bot-api-secret-token", door.secret.as_str())];
        let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
            let body = Bytes::from(body.to_owned());
            shop.program.api.send(Method::POST, path, headers, body).await.status
        };
        assert_eq!(post(&path, &wrong[..], &update).await, 403);
        assert_eq!(post(&path, &wrong[..1], &update).await, 403);
        assert_eq!(post("/telegram/webhook/guess", &right[..], &update).await, 404);
        assert_eq!(post(&path, &right[..], "{}").await, 400);
        assert_eq!(shop.number("select cast(count(*) as bigint) from updates").await, 0);
        for _ in 0..3 {
            assert_eq!(post(&path, &right[..], &update).await, 200);
        }
        shop.run_jobs().await;
        assert_eq!(said(&shop, STRANGER).len(), 1);
        shop.finish().await;
    }

    async fn without_a_webhook_in_the_settings_there_is_no_such_door(t: TestStore) {
        let shop = TestShop::start(t).await;
        let body = Bytes::from(start_of(CUSTOMER).to_string());
        let answer = shop.program.api.send(Method::POST, "/telegram/webhook/x", &[], body).await;
        assert_eq!(answer.status, 404);
        shop.finish().await;
    }

    async fn what_cannot_be_read_is_over_and_holds_nothing_up(t: TestStore) {
        let shop = TestShop::start(t).await;
        let broken = json!({ "update_id": 5, "message": { "chat": {} } });
        let updates = vec![(5, broken), (6, json!({ "update_id": 6, "poll": {} })), (7, start_of(STRANGER))];
        let bot = shop.shop().bot.clone().expect("a bot");
        semel_shop::bot::flows::receive(shop.shop(), bot.id(), updates).await.expect("they are taken");
        shop.run_jobs().await;
        assert_eq!(said(&shop, STRANGER).len(), 1);
        let kept = shop.store.texts("select state || ' ' || coalesce(body, '-') from updates order by update_id").await;
        assert!(kept[0].starts_with("dead {") && kept[0].contains("update_id"), "{}", kept[0]);
        assert_eq!(kept[1..], ["done -", "done -"], "what was answered is not kept");
        assert!(shop.alerts().iter().any(|alert| alert.contains("could not be read")), "{:?}", shop.alerts());
        shop.finish().await;
    }
}

/// Somebody else finds the product sold out while an order holds it.
async fn come_to_pay_in_vain(shop: &TestShop) {
    shop.sandbox.set_language(FRIEND, "en");
    tell(shop, FRIEND, "/catalog").await;
    press(shop, FRIEND, "Licence key").await;
    assert!(last(shop, FRIEND).ends_with("This product is sold out."), "{}", last(shop, FRIEND));
}

/// An update in which somebody presses Start.
fn start_of(person: i64) -> Value {
    json!({ "update_id": 7, "message": {
        "message_id": 1, "date": 0, "chat": { "id": person, "type": "private" },
        "from": { "id": person, "is_bot": false, "language_code": "en" },
        "text": "/start", "entities": [{ "type": "bot_command", "offset": 0, "length": 6 }]
    } })
}
