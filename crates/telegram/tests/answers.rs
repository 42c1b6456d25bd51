//! What each answer of the Bot API means. The rows are Telegram's own texts.

use http::StatusCode;
use semel_telegram::{Bot, Gone, Me, Outcome, Response, Sent};
use serde_json::{Value, json};

const TOKEN: &str = "123456789:AAE-test_token_for_offline_use_0001";

fn bot() -> Bot {
    Bot::new("https://api.telegram.org", TOKEN).expect("a bot")
}

fn response(status: u16, body: &str) -> Response {
    let mut response = Response::new(body.as_bytes().to_vec());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn refusal(code: u16, text: &str) -> Response {
    response(code, &json!({ "ok": false, "error_code": code, "description": text }).to_string())
}

fn read(response: &Response) -> Outcome<Value> {
    bot().read(response)
}

/// The kind of an outcome, without its text.
fn kind(outcome: &Outcome<Value>) -> String {
    match outcome {
        Outcome::Ok(_) => "ok".to_owned(),
        Outcome::RetryAfter { seconds } => format!("retry after {seconds}"),
        Outcome::ChatGone { reason, .. } => format!("chat gone: {reason:?}"),
        Outcome::Migrated { to } => format!("migrated to {to}"),
        Outcome::BadPayload { .. } => "bad payload".to_owned(),
        Outcome::BadToken { .. } => "bad token".to_owned(),
        Outcome::Conflict { .. } => "conflict".to_owned(),
        Outcome::Benign { .. } => "benign".to_owned(),
        Outcome::Unclear { status, .. } => format!("unclear {status}"),
    }
}

const REFUSALS: &[(u16, &str, &str)] = &[
    (403, "Forbidden: bot was blocked by the user", "chat gone: Blocked"),
    (403, "Forbidden: user is deactivated", "chat gone: Deactivated"),
    (403, "Forbidden: bot can't initiate conversation with a user", "chat gone: NeverStarted"),
    (403, "Forbidden: bot can't send messages to bots", "chat gone: NeverStarted"),
    (403, "Forbidden: bots can't send messages to bots", "chat gone: NeverStarted"),
    (403, "Forbidden: bot was kicked from the group chat", "chat gone: Kicked"),
    (403, "Forbidden: bot was kicked from the supergroup chat", "chat gone: Kicked"),
    (403, "Forbidden: bot was kicked from the channel chat", "chat gone: Kicked"),
    (403, "Forbidden: bot is not a member of the supergroup chat", "chat gone: Kicked"),
    (403, "Forbidden: bot is not a member of the channel chat", "chat gone: Kicked"),
    (403, "Forbidden: the group chat was deleted", "chat gone: Kicked"),
    (403, "Forbidden: something that nobody has seen yet", "chat gone: NoRights"),
    (400, "Bad Request: chat not found", "chat gone: NotFound"),
    (400, "Bad Request: private chat not found", "chat gone: NotFound"),
    (400, "Bad Request: PEER_ID_INVALID", "chat gone: NotFound"),
    (400, "Bad Request: user not found", "chat gone: NotFound"),
    (400, "Bad Request: group chat was upgraded to a supergroup chat", "chat gone: NotFound"),
    (400, "Bad Request: not enough rights to send text messages to the chat", "chat gone: NoRights"),
    (400, "Bad Request: have no rights to send a message", "chat gone: NoRights"),
    (400, "Bad Request: need administrator rights in the channel chat", "chat gone: NoRights"),
    (400, "Bad Request: CHAT_WRITE_FORBIDDEN", "chat gone: NoRights"),
    (400, "Bad Request: TOPIC_CLOSED", "chat gone: NoRights"),
    (400, "Bad Request: message is too long", "bad payload"),
    (400, "Bad Request: message caption is too long", "bad payload"),
    (400, "Bad Request: can't parse entities: Unsupported start tag \"x\" at byte offset 0", "bad payload"),
    (
        400,
        "Bad Request: can't parse entities: Unsupported start tag \"chat not found\" at byte offset 0",
        "bad payload",
    ),
    (400, "Bad Request: BUTTON_DATA_INVALID", "bad payload"),
    (400, "Bad Request: wrong file identifier/HTTP URL specified", "bad payload"),
    (400, "Bad Request: message text is empty", "bad payload"),
    (400, "Bad Request: something that nobody has seen yet", "bad payload"),
    (
        400,
        "Bad Request: message is not modified: specified new message content and reply markup are exactly the same",
        "benign",
    ),
    (400, "Bad Request: query is too old and response timeout expired or query ID is invalid", "benign"),
    (400, "Bad Request: message to edit not found", "benign"),
    (400, "Bad Request: message to delete not found", "benign"),
    (400, "Bad Request: message can't be edited", "benign"),
    (400, "Bad Request: message can't be deleted for everyone", "benign"),
    (401, "Unauthorized", "bad token"),
    (404, "Not Found", "bad token"),
    (404, "Not Found: method not found", "bad payload"),
    (
        409,
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
        "conflict",
    ),
    (409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook first", "conflict"),
    (413, "Request Entity Too Large", "bad payload"),
    (429, "Too Many Requests: retry after 7", "retry after 1"),
    (500, "Internal Server Error: restart", "unclear 500"),
    (502, "Bad Gateway", "unclear 502"),
    (503, "Service Unavailable", "unclear 503"),
    (504, "Gateway Timeout", "unclear 504"),
];

#[test]
fn every_refusal_has_its_class() {
    for (code, text, expected) in REFUSALS {
        assert_eq!(kind(&read(&refusal(*code, text))), *expected, "{code} {text}");
    }
}

#[test]
fn wording_may_change_case() {
    for (code, text, expected) in REFUSALS {
        assert_eq!(kind(&read(&refusal(*code, &text.to_uppercase()))), *expected, "{code} {text}");
    }
}

#[test]
fn a_refusal_under_http_200_is_a_refusal() {
    for (code, text, expected) in REFUSALS {
        let body = json!({ "ok": false, "error_code": code, "description": text }).to_string();
        assert_eq!(kind(&read(&response(200, &body))), *expected, "{code} {text}");
    }
    let table = [
        (r#"{"ok":false,"description":"Forbidden: bot was blocked by the user"}"#, "chat gone: Blocked"),
        (r#"{"ok":false,"description":"Bad Request: chat not found"}"#, "chat gone: NotFound"),
        (r#"{"ok":false,"description":"Unauthorized"}"#, "bad token"),
        (r#"{"ok":false,"description":"Too Many Requests: retry after 7"}"#, "retry after 1"),
        (r#"{"ok":false,"description":"Oops"}"#, "unclear 200"),
        (r#"{"ok":false}"#, "unclear 200"),
    ];
    for (body, expected) in table {
        assert_eq!(kind(&read(&response(200, body))), expected, "{body}");
    }
}

#[test]
fn a_refusal_without_its_code_goes_by_the_status() {
    let body = r#"{"ok":false,"description":"chat not found"}"#;
    assert_eq!(kind(&read(&response(400, body))), "chat gone: NotFound");
    assert_eq!(kind(&read(&response(401, r#"{"ok":false}"#))), "bad token");
}

#[test]
fn a_migrated_group_names_its_new_id() {
    let text = "Bad Request: group chat was upgraded to a supergroup chat";
    let parameters = json!({ "migrate_to_chat_id": -1001234567890_i64 });
    let body = json!({ "ok": false, "error_code": 400, "description": text, "parameters": parameters });
    assert_eq!(read(&response(400, &body.to_string())), Outcome::Migrated { to: -1001234567890 });
}

#[test]
fn the_wait_comes_from_the_body_then_the_header_then_is_one_second() {
    let limited = |parameters: Value| {
        let text = "Too Many Requests: retry after 7";
        json!({ "ok": false, "error_code": 429, "description": text, "parameters": parameters }).to_string()
    };
    let table = [
        (limited(json!({ "retry_after": 7 })), None, 7),
        (limited(json!({ "retry_after": 7 })), Some("30"), 7),
        (limited(json!({ "retry_after": 100_000 })), None, 100_000),
        (limited(json!({ "retry_after": 0 })), None, 1),
        (limited(json!({ "retry_after": -5 })), None, 1),
        (limited(json!({})), Some("30"), 30),
        (limited(json!({ "retry_after": "soon" })), Some(" 30 "), 30),
        (limited(Value::Null), Some("Wed, 21 Oct 2026 07:28:00 GMT"), 1),
        (limited(Value::Null), None, 1),
        ("<html>429</html>".to_owned(), Some("12"), 12),
        (String::new(), None, 1),
    ];
    for (body, header, seconds) in table {
        let mut response = response(429, &body);
        if let Some(header) = header {
            response.headers_mut().insert("retry-after", header.parse().expect("a header"));
        }
        assert_eq!(read(&response), Outcome::RetryAfter { seconds }, "{body} {header:?}");
    }
}

#[test]
fn what_is_no_answer_of_the_bot_api_leaves_the_fate_open() {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>";
    let table = [
        (502, page),
        (504, ""),
        (500, r#"{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}"#),
        (500, r#"{"ok":true,"result":{"message_id":1}}"#),
        (200, ""),
        (200, page),
        (200, r#"{"ok":true,"result":{"mess"#),
        (200, r#"{"ok":"true"}"#),
        (200, "[]"),
        (204, ""),
        (302, ""),
        (302, r#"{"ok":true,"result":true}"#),
        (400, page),
        (403, page),
        (404, page),
        (408, page),
        (408, r#"{"ok":false,"error_code":408,"description":"Request Timeout"}"#),
    ];
    for (status, body) in table {
        assert_eq!(kind(&read(&response(status, body))), format!("unclear {status}"), "{body}");
    }
    assert_eq!(kind(&read(&response(413, page))), "bad payload");
}

#[test]
fn a_result_of_another_form_leaves_the_fate_open() {
    for body in [r#"{"ok":true}"#, r#"{"ok":true,"result":true}"#, r#"{"ok":true,"result":{"message_id":"1"}}"#] {
        assert!(matches!(bot().sent(&response(200, body)), Outcome::Unclear { status: 200, .. }), "{body}");
    }
}

#[test]
fn a_sent_message_gives_its_number_and_its_file() {
    let text = r#"{"ok":true,"result":{"message_id":17,"date":1,"chat":{"id":42,"type":"private"},"text":"hi"}}"#;
    assert_eq!(bot().sent(&response(200, text)), Outcome::Ok(Sent { message_id: 17, file_id: None }));

    for attached in ["document", "animation", "audio", "video", "sticker"] {
        let mut message = json!({ "message_id": 18 });
        message[attached] = json!({ "file_id": "BQAC-1", "file_unique_id": "u" });
        let body = json!({ "ok": true, "result": message }).to_string();
        let sent = Sent { message_id: 18, file_id: Some("BQAC-1".to_owned()) };
        assert_eq!(bot().sent(&response(200, &body)), Outcome::Ok(sent), "{attached}");
    }

    let sizes = json!([{ "file_id": "AgAC-s", "width": 90 }, { "file_id": "AgAC-m", "width": 512 }]);
    let body = json!({ "ok": true, "result": { "message_id": 19, "photo": sizes } }).to_string();
    let sent = Sent { message_id: 19, file_id: Some("AgAC-m".to_owned()) };
    assert_eq!(bot().sent(&response(200, &body)), Outcome::Ok(sent), "the largest size of a photo");

    let blocked = refusal(403, "Forbidden: bot was blocked by the user");
    assert!(matches!(bot().sent(&blocked), Outcome::ChatGone { reason: Gone::Blocked, .. }));
}

#[test]
fn the_bot_says_who_it_is() {
    let body = r#"{"ok":true,"description":"hello","result":{"id":123456789,"is_bot":true,"first_name":"Shop","username":"shop_bot"}}"#;
    let me = Me { id: 123456789, first_name: "Shop".to_owned(), username: Some("shop_bot".to_owned()) };
    assert_eq!(bot().read::<Me>(&response(200, body)), Outcome::Ok(me));
}

#[test]
fn no_answer_brings_the_token_back() {
    let secret = "AAE-test_token_for_offline_use_0001";
    let page = format!("<p>/bot{TOKEN}/sendMessage and /bot123456789%3A{secret} on this server</p>");
    let responses = [
        response(200, &page),
        response(404, &page),
        response(413, &page),
        response(502, &page),
        refusal(400, &page),
        refusal(401, &page),
        refusal(403, &page),
        refusal(404, &page),
        refusal(409, &page),
        refusal(500, &page),
        refusal(400, &format!("message is not modified {TOKEN}")),
    ];
    for response in responses {
        let shown = format!("{:?}", read(&response));
        assert!(!shown.contains(secret) && shown.contains("<token>"), "{shown}");
    }
}

#[test]
fn a_text_from_outside_stays_on_one_line_and_short() {
    let Outcome::Unclear { text, .. } = read(&response(502, &"line\r\n\u{1b}[31m".repeat(1000))) else {
        panic!("a page is no answer")
    };
    assert_eq!(text.chars().count(), 300);
    assert!(!text.chars().any(char::is_control));
}
