//! The Bot API, as a bot sees it.

use semel_sandbox::{BOT_TOKEN, ChatState, Options, TelegramLimits};
use serde_json::{Value, json};

use crate::support::{Receiver, Shop};

async fn shop() -> Shop {
    Shop::with(Options::default()).await
}

#[tokio::test]
async fn a_message_arrives_and_is_written_down() {
    let shop = shop().await;
    let body = json!({
        "chat_id": 42, "text": "<b>Paid</b> &amp; done", "parse_mode": "HTML",
        "reply_markup": { "inline_keyboard": [[{ "text": "Open", "url": "https://shop.example/" }]] },
    });
    let (status, answer) = shop.telegram("sendMessage", "msg_1", &body).await.unwrap();
    assert_eq!((status, answer["ok"].as_bool()), (200, Some(true)));
    assert_eq!((answer["result"]["message_id"].as_i64(), answer["result"]["chat"]["id"].as_i64()), (Some(1), Some(42)));
    let chat = shop.sandbox.chat(42);
    assert_eq!((chat.len(), chat[0].text.as_str()), (1, "Paid & done"));
    assert_eq!(chat[0].buttons[0].url.as_deref(), Some("https://shop.example/"));

    let rows = shop.sandbox.truth().gt_tg;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].msg_id.as_str(), rows[0].chat_id, rows[0].accepted), ("msg_1", Some(42), true));
    assert_eq!((rows[0].answer_lost, rows[0].retry_after), (false, 0));
    assert!(BOT_TOKEN.starts_with(&rows[0].token) && !rows[0].token.contains("SANDBOX"), "no secret in the truth");
    let (status, page) = shop.get("/chat/42").await;
    assert!(status == 200 && page.contains("Paid &amp; done"));
}

#[tokio::test]
async fn a_document_goes_as_multipart_and_again_by_its_id() {
    let shop = shop().await;
    let body = "--cut\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n42\r\n\
                --cut\r\nContent-Disposition: form-data; name=\"caption\"\r\n\r\nYour key\r\n\
                --cut\r\nContent-Disposition: form-data; name=\"document\"; filename=\"wg-client.conf\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n[Interface]\n\r\n--cut--\r\n";
    let request = shop.http.post(format!("{}/bot{BOT_TOKEN}/sendDocument", shop.sandbox.telegram_url()));
    let request = request.header("Content-Type", "multipart/form-data; boundary=cut").body(body);
    let answer: Value = serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    let file_id = answer["result"]["document"]["file_id"].as_str().expect("a file id comes back");
    let again = json!({ "chat_id": "42", "document": file_id });
    let (status, _) = shop.telegram("sendDocument", "msg_2", &again).await.unwrap();
    assert_eq!(status, 200);
    for message in shop.sandbox.chat(42) {
        let document = message.document.unwrap();
        assert_eq!((document.name.as_str(), document.bytes.as_ref()), ("wg-client.conf", b"[Interface]\n".as_slice()));
    }
    let (_, file) = shop.get("/chat/42/1/file").await;
    assert_eq!(file, "[Interface]\n");
}

#[tokio::test]
async fn who_cannot_be_reached_is_refused_in_telegrams_words() {
    let shop = shop().await;
    let cases = [
        (ChatState::Blocked, 403, "Forbidden: bot was blocked by the user"),
        (ChatState::Deactivated, 403, "Forbidden: user is deactivated"),
        (ChatState::NotFound, 400, "Bad Request: chat not found"),
        (ChatState::Migrated(-1_001_234), 400, "Bad Request: group chat was upgraded to a supergroup chat"),
    ];
    for (state, code, description) in cases {
        shop.sandbox.set_chat_state(-7, state);
        let (status, answer) = shop.telegram("sendMessage", "m", &json!({ "chat_id": -7, "text": "x" })).await.unwrap();
        assert_eq!((status, answer["description"].as_str()), (code, Some(description)));
        if state == ChatState::Migrated(-1_001_234) {
            assert_eq!(answer["parameters"]["migrate_to_chat_id"], -1_001_234);
        }
    }
    assert!(shop.sandbox.chat(-7).is_empty());
    assert!(shop.sandbox.truth().gt_tg.iter().all(|row| !row.accepted));
}

#[tokio::test]
async fn wrong_calls_are_refused() {
    let shop = shop().await;
    let message = |text: &str| json!({ "chat_id": 1, "text": text, "parse_mode": "HTML" });
    let long = "я".repeat(4097);
    for (text, part) in [(long.as_str(), "message is too long"), ("<x>", "can't parse entities"), ("", "text is empty")]
    {
        let (status, answer) = shop.telegram("sendMessage", "m", &message(text)).await.unwrap();
        assert_eq!(status, 400);
        assert!(answer["description"].as_str().unwrap().contains(part), "{answer}");
    }
    let (status, answer) = shop.telegram("sendGift", "m", &json!({})).await.unwrap();
    assert_eq!((status, answer["ok"].as_bool()), (404, Some(false)));
    let (status, answer) = shop.telegram("getMe", "m", &json!({})).await.unwrap();
    assert_eq!((status, answer["result"]["is_bot"].as_bool()), (200, Some(true)));
    let wrong = shop.http.get(format!("{}/bot1:wrong/getMe", shop.sandbox.telegram_url())).send().await.unwrap();
    assert_eq!(wrong.status().as_u16(), 401);
}

#[tokio::test]
async fn limits_are_enforced_when_asked_for() {
    let shop = shop().await;
    shop.sandbox.set_telegram_limits(Some(TelegramLimits { per_second: 1000, chat_burst: 3, group_per_minute: 2 }));
    for number in 1..=3 {
        let body = json!({ "chat_id": -5, "text": "x" });
        let (status, answer) = shop.telegram("sendMessage", &format!("m{number}"), &body).await.unwrap();
        if number < 3 {
            assert_eq!(status, 200);
        } else {
            let seconds = answer["parameters"]["retry_after"].as_i64().unwrap();
            assert_eq!((status, answer["error_code"].as_i64()), (429, Some(429)));
            assert!((1..=60).contains(&seconds));
            assert_eq!(answer["description"], json!(format!("Too Many Requests: retry after {seconds}")));
        }
    }
    let last = shop.sandbox.truth().gt_tg.pop().unwrap();
    assert_eq!((last.accepted, last.scope.as_deref()), (false, Some("chat")));
    assert!(last.retry_after > 0);
    assert_eq!(shop.sandbox.chat(-5).len(), 2);
    let (status, _) = shop.telegram("sendMessage", "m", &json!({ "chat_id": 5, "text": "x" })).await.unwrap();
    assert_eq!(status, 200, "another chat is not held back");
}

#[tokio::test]
async fn the_control_pages_do_what_the_handle_does() {
    let receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let control = |what: &str, body: Value| {
        let request = shop.http.post(format!("{}/control/{what}", shop.sandbox.url()));
        request.header("Content-Type", "application/json").body(body.to_string()).send()
    };
    let blocked = control("chat", json!({ "chat_id": 9, "state": "blocked" })).await.unwrap();
    assert_eq!(blocked.status().as_u16(), 200);
    let fault = json!({ "target": "telegram", "what": "getMe", "fault": "too_many", "value": 7, "times": 1 });
    assert_eq!(control("fault", fault).await.unwrap().status().as_u16(), 200);
    let (status, answer) = shop.telegram("getMe", "m", &json!({})).await.unwrap();
    assert_eq!((status, answer["parameters"]["retry_after"].as_i64()), (429, Some(7)));
    let (status, _) = shop.telegram("sendMessage", "m", &json!({ "chat_id": 9, "text": "x" })).await.unwrap();
    assert_eq!(status, 403);
    assert_eq!(control("nonsense", json!({})).await.unwrap().status().as_u16(), 400);
}
