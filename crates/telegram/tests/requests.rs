//! The requests as Telegram would read them.

use http::Method;
use semel_telegram::{Bot, BotError, Button, File, ParseMode, Request, SendDocument, SendMessage, SendPhoto};
use serde_json::{Value, json};

const TOKEN: &str = "123456789:AAE-test_token_for_offline_use_0001";

fn bot() -> Bot {
    Bot::new("http://127.0.0.1:8081/", TOKEN).expect("a bot")
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers().get(name).expect("the header").to_str().expect("text")
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(request.body()).expect("JSON")
}

/// One part of a form: its head and its content.
type Part = (String, Vec<u8>);

/// Reads a form by the rules of RFC 2046, knowing nothing of how it was written.
fn parts(request: &Request) -> Vec<Part> {
    let boundary = header(request, "content-type").strip_prefix("multipart/form-data; boundary=").expect("a form");
    assert!((1..=70).contains(&boundary.len()));
    let delimiter = format!("\r\n--{boundary}").into_bytes();

    let mut rest = [b"\r\n".as_slice(), request.body().as_slice()].concat();
    let mut parts = Vec::new();
    let start = find(&rest, &delimiter).expect("the first boundary");
    assert_eq!(start, 0, "nothing stands before the form");
    rest.drain(..delimiter.len());
    while rest.starts_with(b"\r\n") {
        let end = find(&rest, &delimiter).expect("the next boundary");
        let part = &rest[2..end];
        let blank = find(part, b"\r\n\r\n").expect("a blank line");
        let head = String::from_utf8(part[..blank].to_vec()).expect("text");
        parts.push((head, part[blank + 4..].to_vec()));
        rest.drain(..end + delimiter.len());
    }
    assert_eq!(rest, b"--\r\n", "nothing stands behind the form");
    parts
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

fn field(name: &str, value: &str) -> Part {
    (format!("Content-Disposition: form-data; name=\"{name}\""), value.as_bytes().to_vec())
}

#[test]
fn get_me_asks_with_nothing() {
    let request = bot().get_me();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri().to_string(), format!("http://127.0.0.1:8081/bot{TOKEN}/getMe"));
    assert!(request.body().is_empty());
}

#[test]
fn a_plain_message_carries_only_what_it_needs() {
    let request = bot().send_message("msg_1", &SendMessage::new(42, "привет <b>"));
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().to_string(), format!("http://127.0.0.1:8081/bot{TOKEN}/sendMessage"));
    assert_eq!(header(&request, "content-type"), "application/json");
    assert_eq!(header(&request, "X-Request-Id"), "msg_1");
    assert_eq!(body(&request), json!({ "chat_id": 42, "text": "привет <b>" }));
}

#[test]
fn a_rich_message_says_it_all() {
    let message = SendMessage {
        chat_id: -1001234567890,
        text: "<b>paid</b>".to_owned(),
        parse_mode: Some(ParseMode::Html),
        buttons: vec![
            vec![Button::url("Pay", "https://example.org/pay"), Button::callback("Back", "b:1")],
            vec![Button::callback("Help", "h")],
        ],
        disable_preview: true,
        protect: true,
        silent: true,
    };
    let request = bot().send_message("msg_2", &message);
    assert_eq!(
        body(&request),
        json!({
            "chat_id": -1001234567890_i64,
            "text": "<b>paid</b>",
            "parse_mode": "HTML",
            "reply_markup": { "inline_keyboard": [
                [{ "text": "Pay", "url": "https://example.org/pay" }, { "text": "Back", "callback_data": "b:1" }],
                [{ "text": "Help", "callback_data": "h" }],
            ]},
            "link_preview_options": { "is_disabled": true },
            "protect_content": true,
            "disable_notification": true,
        })
    );
}

#[test]
fn a_repeat_is_the_same_bytes() {
    let message = SendMessage::new(42, "KEY-1");
    assert_eq!(bot().send_message("msg_1", &message).body(), bot().send_message("msg_1", &message).body());
    let document = conf(b"PrivateKey = x".to_vec());
    assert_eq!(bot().send_document("msg_1", &document).body(), bot().send_document("msg_1", &document).body());
    let photo = picture(b"\x89PNG".to_vec());
    assert_eq!(bot().send_photo("msg_1", &photo).body(), bot().send_photo("msg_1", &photo).body());
}

fn conf(bytes: Vec<u8>) -> SendDocument {
    SendDocument {
        chat_id: 42,
        file: File::Bytes { name: "wg \"клиент\".conf".to_owned(), mime: "text/plain".to_owned(), bytes },
        caption: Some("<b>Ключ</b>\r\n\r\nvalid for a month".to_owned()),
        parse_mode: Some(ParseMode::Html),
        buttons: Vec::new(),
        protect: true,
    }
}

fn picture(bytes: Vec<u8>) -> SendPhoto {
    SendPhoto {
        chat_id: 42,
        photo: File::Bytes { name: "qr.png".to_owned(), mime: "image/png".to_owned(), bytes },
        caption: Some("<b>QR</b>".to_owned()),
        parse_mode: Some(ParseMode::Html),
        buttons: Vec::new(),
        protect: false,
    }
}

#[test]
fn an_upload_reads_back_whole() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let nasty = b"\r\n--semel-part-0000000000000000--\r\n\r\n--\r\n".to_vec();
    for bytes in [every_byte, nasty, Vec::new()] {
        let request = bot().send_document("msg_3", &conf(bytes.clone()));
        assert_eq!(request.method(), Method::POST);
        assert!(request.uri().path().ends_with("/sendDocument"));
        assert_eq!(header(&request, "x-request-id"), "msg_3");

        let head = "Content-Disposition: form-data; name=\"document\"; filename=\"wg %22клиент%22.conf\"\r\n\
                    Content-Type: text/plain";
        let expected = [
            field("chat_id", "42"),
            field("caption", "<b>Ключ</b>\r\n\r\nvalid for a month"),
            field("parse_mode", "HTML"),
            field("protect_content", "true"),
            (head.to_owned(), bytes),
        ];
        assert_eq!(parts(&request), expected);
    }
}

#[test]
fn a_known_file_is_sent_by_its_id() {
    let document = SendDocument {
        chat_id: 42,
        file: File::FileId("BQAC-1".to_owned()),
        caption: None,
        parse_mode: None,
        buttons: Vec::new(),
        protect: false,
    };
    let request = bot().send_document("msg_4", &document);
    assert_eq!(parts(&request), [field("chat_id", "42"), field("document", "BQAC-1")]);
}

#[test]
fn a_picture_reads_back_whole() {
    // Every byte, and what looks like the end of a form.
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend_from_slice(b"\r\n--semel-part-0000000000000000--\r\n");
    let request = bot().send_photo("msg_5", &picture(bytes.clone()));
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().to_string(), format!("http://127.0.0.1:8081/bot{TOKEN}/sendPhoto"));
    assert_eq!(header(&request, "x-request-id"), "msg_5");
    let head = "Content-Disposition: form-data; name=\"photo\"; filename=\"qr.png\"\r\nContent-Type: image/png";
    let expected =
        [field("chat_id", "42"), field("caption", "<b>QR</b>"), field("parse_mode", "HTML"), (head.to_owned(), bytes)];
    assert_eq!(parts(&request), expected);
}

#[test]
fn the_bytes_of_a_small_picture_are_these() {
    let photo = SendPhoto { caption: None, parse_mode: None, ..picture(b"PNG".to_vec()) };
    let expected = "--semel-part-0000000000000000\r\n\
        Content-Disposition: form-data; name=\"chat_id\"\r\n\r\n42\r\n\
        --semel-part-0000000000000000\r\n\
        Content-Disposition: form-data; name=\"photo\"; filename=\"qr.png\"\r\nContent-Type: image/png\r\n\r\nPNG\r\n\
        --semel-part-0000000000000000--\r\n";
    assert_eq!(String::from_utf8(bot().send_photo("msg_6", &photo).body().clone()).expect("text"), expected);
}

#[test]
fn a_known_picture_is_sent_by_its_id() {
    let photo = SendPhoto {
        photo: File::FileId("AgAC-1".to_owned()),
        caption: None,
        parse_mode: None,
        protect: true,
        ..picture(Vec::new())
    };
    let expected = [field("chat_id", "42"), field("protect_content", "true"), field("photo", "AgAC-1")];
    assert_eq!(parts(&bot().send_photo("msg_7", &photo)), expected);
}

#[test]
fn files_and_pictures_carry_their_buttons_as_json_text() {
    let buttons =
        vec![vec![Button::url("Помощь", "https://example.org/?a=1&b=\"2\"")], vec![Button::callback("ok", "h")]];
    let expected = json!({ "inline_keyboard": [
        [{ "text": "Помощь", "url": "https://example.org/?a=1&b=\"2\"" }],
        [{ "text": "ok", "callback_data": "h" }],
    ]});
    let document = SendDocument { buttons: buttons.clone(), ..conf(b"x".to_vec()) };
    let photo = SendPhoto { buttons, ..picture(b"x".to_vec()) };
    for request in [bot().send_document("msg_8", &document), bot().send_photo("msg_8", &photo)] {
        let name = "Content-Disposition: form-data; name=\"reply_markup\"";
        let markup = parts(&request).into_iter().find(|(head, _)| head == name).expect("a keyboard").1;
        assert_eq!(serde_json::from_slice::<Value>(&markup).expect("JSON"), expected);
    }
    assert!(
        !parts(&bot().send_photo("msg_8", &picture(b"x".to_vec()))).iter().any(|(head, _)| head.contains("markup"))
    );
}

#[test]
fn the_token_shows_nowhere_but_in_the_address() {
    let secret = "AAE-test_token_for_offline_use_0001";
    let bot = bot();
    assert_eq!(bot.id(), "123456789");
    assert!(!format!("{bot:?} {bot:#?}").contains(secret));

    let pasted = format!("https://api.telegram.org/bot{TOKEN}");
    let spaced = format!("{TOKEN} ");
    let swapped = Bot::new(TOKEN, "https://api.telegram.org");
    for refused in [Bot::new(&pasted, TOKEN), Bot::new("https://api.telegram.org", &spaced), swapped] {
        let error: BotError = refused.expect_err("refused");
        assert!(!format!("{error} {error:?} {error:#?}").contains(secret));
    }
    let request = bot.send_message("msg_1", &SendMessage::new(42, "hi"));
    let elsewhere = format!("{:?} {}", request.headers(), body(&request));
    assert!(!elsewhere.contains(secret));
}
