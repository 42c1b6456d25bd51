//! What people do in their chats, as the bot hears of it.

use std::pin::pin;

use semel_sandbox::{ChatState, Delivery, Options};
use serde_json::{Value, json};

use crate::support::{Receiver, Shop};

async fn by_hand() -> Shop {
    Shop::with(Options { mode: Delivery::Manual, ..Options::default() }).await
}

async fn ask(shop: &Shop, body: Value) -> (u16, Value) {
    shop.telegram("getUpdates", "x", &body).await.unwrap()
}

fn ids(answer: &Value) -> Vec<i64> {
    let updates = answer["result"].as_array().unwrap();
    updates.iter().map(|update| update["update_id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn an_update_comes_again_until_a_higher_offset_confirms_it() {
    let shop = by_hand().await;
    shop.sandbox.set_language(42, "ru");
    let first = shop.sandbox.say(42, "/start ref_7");
    shop.sandbox.skip_updates(10);
    let second = shop.sandbox.say(42, "hello");
    assert_eq!(second, first + 11);
    for _ in 0..2 {
        assert_eq!(ids(&ask(&shop, json!({})).await.1), [first, second]);
    }
    let (_, one) = ask(&shop, json!({ "limit": 1 })).await;
    let message = &one["result"][0]["message"];
    assert_eq!(
        (message["text"].as_str(), message["from"]["language_code"].as_str()),
        (Some("/start ref_7"), Some("ru"))
    );
    assert_eq!(message["entities"], json!([{ "type": "bot_command", "offset": 0, "length": 6 }]));
    assert_eq!(ids(&ask(&shop, json!({ "offset": second })).await.1), [second]);
    assert_eq!(ids(&ask(&shop, json!({ "offset": second + 1 })).await.1), Vec::<i64>::new());
    shop.sandbox.repeat_updates();
    assert_eq!(ids(&ask(&shop, json!({ "offset": -1 })).await.1), [second], "from the end");
}

#[tokio::test]
async fn a_long_poll_ends_when_something_comes_and_a_second_one_cuts_it_off() {
    let shop = by_hand().await;
    let mut one = pin!(ask(&shop, json!({ "timeout": 50 })));
    let mut other = pin!(ask(&shop, json!({ "timeout": 50 })));
    // Who is cut off says that the other one has come, which waits from then on.
    let (cut_off, waiting) = tokio::select! {
        answer = &mut one => (answer, other),
        answer = &mut other => (answer, one),
    };
    assert_eq!(cut_off.0, 409);
    let said = shop.sandbox.say(42, "hi");
    let answer = waiting.await;
    assert_eq!((answer.0, ids(&answer.1)), (200, vec![said]));
}

#[tokio::test]
async fn a_press_sends_what_stands_behind_the_button_and_is_answered() {
    let shop = by_hand().await;
    let keyboard = json!({ "inline_keyboard": [[{ "text": "Buy for 5", "callback_data": "abc" }]] });
    let body = json!({ "chat_id": 42, "text": "A key", "reply_markup": keyboard });
    shop.telegram("sendMessage", "msg_1", &body).await.unwrap();
    let (_, page) = shop.get("/chat/42").await;
    assert!(page.contains("value=\"abc\">Buy for 5</button>"), "{page}");
    assert!(shop.sandbox.press(42, "Sell").is_none());
    assert!(shop.sandbox.press(42, "Buy").is_some());
    let (_, answer) = ask(&shop, json!({})).await;
    let query = &answer["result"][0]["callback_query"];
    assert_eq!((query["data"].as_str(), query["message"]["chat"]["id"].as_i64()), (Some("abc"), Some(42)));
    let body = json!({ "callback_query_id": query["id"], "text": "Done" });
    let (status, _) = shop.telegram("answerCallbackQuery", "x", &body).await.unwrap();
    let answers = shop.sandbox.press_answers();
    assert_eq!((status, answers[0].chat_id, answers[0].text.as_deref()), (200, 42, Some("Done")));
}

#[tokio::test]
async fn a_webhook_brings_its_secret_and_repeats_what_was_not_taken() {
    let shop = by_hand().await;
    let mut receiver = Receiver::start().await;
    receiver.will_answer(&[500]);
    let body = json!({ "url": receiver.url, "secret_token": "s_1" });
    shop.telegram("setWebhook", "x", &body).await.unwrap();
    let said = shop.sandbox.say(42, "hi");
    assert_eq!(ask(&shop, json!({})).await.0, 409, "either asked for or posted");
    assert_eq!(shop.sandbox.post_updates().await, [Some(500)]);
    assert_eq!(shop.sandbox.post_updates().await, [Some(200)]);
    for _ in 0..2 {
        let got = receiver.next().await;
        assert_eq!(got.headers["x-telegram-bot-api-secret-token"], "s_1");
        assert_eq!(got.json()["update_id"], said);
    }
    assert_eq!(shop.sandbox.waiting_updates(), 0);

    // Back to asking: what waits is kept.
    let later = shop.sandbox.say(42, "again");
    shop.telegram("deleteWebhook", "x", &json!({})).await.unwrap();
    assert_eq!(ids(&ask(&shop, json!({})).await.1), [later]);
}

#[tokio::test]
async fn who_blocks_the_bot_is_out_of_reach_until_they_write() {
    let shop = by_hand().await;
    shop.sandbox.block(42);
    let body = json!({ "chat_id": 42, "text": "hi" });
    assert_eq!(shop.telegram("sendMessage", "msg_1", &body).await.unwrap().0, 403);
    let (_, answer) = ask(&shop, json!({})).await;
    assert_eq!(answer["result"][0]["my_chat_member"]["new_chat_member"]["status"], "kicked");
    shop.sandbox.say(42, "/start");
    assert_eq!(shop.telegram("sendMessage", "msg_2", &body).await.unwrap().0, 200);
    shop.sandbox.set_chat_state(42, ChatState::Deactivated);
    assert_eq!(shop.telegram("sendMessage", "msg_3", &body).await.unwrap().0, 403);
}
