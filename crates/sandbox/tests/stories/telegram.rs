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
    let (_, page) = shop.get("/chat/42").await;
    assert!(page.contains("href=\"/chat/42/2/file\">wg-client.conf (12 bytes)</a>"), "{page}");
    let rows = shop.sandbox.truth().gt_tg;
    assert_eq!((rows.len(), rows[0].file_hash.is_some()), (2, true));
    assert_eq!(rows[0].file_hash, rows[1].file_hash, "the same file, by upload and by its id");
}

/// The head of a PNG of this size, which is all that is looked at.
fn picture(width: u32, height: u32) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), b"\x08rest"].concat()
}

/// A call with a photo as multipart, as a bot makes it.
async fn send_photo(shop: &Shop, message: &str, photo: &[u8], more: &str) -> (u16, Value) {
    let head = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n42\r\n{more}\
         --cut\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"qr <1>.png\"\r\nContent-Type: image/png\r\n\r\n"
    );
    let body = [head.as_bytes(), photo, b"\r\n--cut--\r\n"].concat();
    let request = shop.http.post(format!("{}/bot{BOT_TOKEN}/sendPhoto", shop.sandbox.telegram_url()));
    let request = request.header("Content-Type", "multipart/form-data; boundary=cut").header("X-Request-Id", message);
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

#[tokio::test]
async fn a_photo_is_shown_with_its_buttons_and_written_down() {
    let shop = shop().await;
    let photo = picture(600, 580);
    let more = "--cut\r\nContent-Disposition: form-data; name=\"caption\"\r\n\r\n<b>Scan me</b>\r\n\
                --cut\r\nContent-Disposition: form-data; name=\"parse_mode\"\r\n\r\nHTML\r\n\
                --cut\r\nContent-Disposition: form-data; name=\"reply_markup\"\r\n\r\n\
                {\"inline_keyboard\":[[{\"text\":\"Help\",\"url\":\"https://shop.example/help\"}]]}\r\n";
    let (status, answer) = send_photo(&shop, "msg_1", &photo, more).await;
    assert_eq!(status, 200, "{answer}");
    let size = &answer["result"]["photo"][0];
    assert_eq!((size["width"].as_i64(), size["height"].as_i64()), (Some(600), Some(580)));
    let again = json!({ "chat_id": 42, "photo": size["file_id"] });
    let (status, _) = shop.telegram("sendPhoto", "msg_2", &again).await.unwrap();
    assert_eq!(status, 200, "a known photo goes again by its id");

    let chat = shop.sandbox.chat(42);
    assert_eq!(chat.len(), 2);
    assert_eq!((chat[0].text.as_str(), chat[0].document.is_none()), ("Scan me", true));
    assert_eq!(chat[0].buttons[0].url.as_deref(), Some("https://shop.example/help"));
    for message in &chat {
        assert_eq!(message.photo.as_ref().unwrap().bytes.as_ref(), photo.as_slice());
    }
    let (_, page) = shop.get("/chat/42").await;
    assert!(page.contains("<img alt=\"photo\" src=\"/chat/42/1/file\">"), "{page}");
    assert!(page.contains("href=\"https://shop.example/help\">Help</a>"), "{page}");
    assert!(page.contains(&format!("qr &lt;1&gt;.png ({} bytes)", photo.len())), "{page}");
    let shown = shop.http.get(format!("{}/chat/42/1/file", shop.sandbox.url())).send().await.unwrap();
    assert_eq!(shown.headers()["content-type"], "image/png");
    assert_eq!(shown.headers()["content-disposition"], "inline; filename=\"qr__1_.png\"");
    assert_eq!(shown.bytes().await.unwrap().as_ref(), photo.as_slice(), "byte for byte");

    let rows = shop.sandbox.truth().gt_tg;
    let of: Vec<(&str, bool)> = rows.iter().map(|row| (row.msg_id.as_str(), row.accepted)).collect();
    assert_eq!(of, [("msg_1", true), ("msg_2", true)]);
    assert_eq!(rows[0].file_hash.as_ref().map(String::len), Some(64));
    assert_eq!(rows[0].file_hash, rows[1].file_hash, "the same picture both times");
}

#[tokio::test]
async fn what_is_no_picture_is_no_photo() {
    let shop = shop().await;
    let cases = [
        (b"[Interface]\n".to_vec(), "IMAGE_PROCESS_FAILED"),
        (picture(9000, 1001), "PHOTO_INVALID_DIMENSIONS"),
        (picture(2100, 100), "PHOTO_INVALID_DIMENSIONS"),
    ];
    for (bytes, why) in cases {
        let (status, answer) = send_photo(&shop, "m", &bytes, "").await;
        assert_eq!((status, answer["description"].as_str()), (400, Some(format!("Bad Request: {why}").as_str())));
    }
    assert!(shop.sandbox.chat(42).is_empty());
    assert!(shop.sandbox.truth().gt_tg.iter().all(|row| !row.accepted && row.file_hash.is_some()));
}

#[tokio::test]
async fn a_button_that_leads_nowhere_is_refused() {
    let shop = shop().await;
    let message =
        |button: Value| json!({ "chat_id": 42, "text": "x", "reply_markup": { "inline_keyboard": [[button]] } });
    for url in ["not a url", "javascript:alert(1)", "mailto:a@b.c", ""] {
        let button = json!({ "text": "Help", "url": url });
        let (status, answer) = shop.telegram("sendMessage", "m", &message(button)).await.unwrap();
        let why = format!("Bad Request: inline keyboard button URL '{url}' is invalid: Wrong HTTP URL");
        assert_eq!((status, answer["description"].as_str()), (400, Some(why.as_str())));
    }
    let (status, _) = shop.telegram("sendMessage", "m", &message(json!({ "text": "Help" }))).await.unwrap();
    assert_eq!(status, 400, "a button that does nothing");
    for url in ["https://t.me/shop_help", "tg://resolve?domain=shop_help"] {
        let button = json!({ "text": "Help", "url": url });
        let (status, _) = shop.telegram("sendMessage", "m", &message(button)).await.unwrap();
        assert_eq!(status, 200, "{url}");
    }
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
