//! The Bot API: answers sorted by what is certain, requests that say what they were given, texts within limits.

use http::HeaderMap;
use semel_telegram::{
    Bot, File, Me, Outcome, ParseMode, Request, SendDocument, SendMessage, html_escape, split_text, utf16_len,
};
use serde_json::Value;

use super::answers::response;
use super::{TAKEN, Verdict};

/// What answers and messages are made of.
pub const WORDS: &[&str] = &[
    "\"ok\":true",
    "\"ok\":false",
    "\"error_code\":429",
    "\"description\":\"Forbidden: bot was blocked by the user\"",
    "Bad Request: chat not found",
    "upgraded to a supergroup",
    "\"parameters\":{\"retry_after\":3}",
    "\"migrate_to_chat_id\":-100",
    "\"result\":{\"message_id\":7}",
    "123456789:CANARY-test_token_for_fuzzing_0001",
    "429 5\n",
    "502\n",
    "semel-part-0000000000000000",
    "\r\n--",
    "👨‍👩‍👧",
    ". ",
    "\n\n",
];

const TOKEN: &str = "123456789:CANARY-test_token_for_fuzzing_0001";
const SECRET: &str = "CANARY-test_token_for_fuzzing_0001";

pub(super) fn bot() -> Bot {
    Bot::new("https://api.telegram.org", TOKEN).expect("a bot")
}

/// Every answer: done only with a 2xx, unclear whenever it may have happened, and words fit for a log.
pub fn answers(input: &[u8]) -> Verdict {
    let answer = response(input);
    let status = answer.status().as_u16();
    let bot = bot();
    let sent = bot.sent(&answer);
    let (kind, text) = match &sent {
        Outcome::Ok(_) => (format!("{TAKEN}: sent"), None),
        Outcome::RetryAfter { seconds } if *seconds < 1 => return Err(format!("wait for {seconds} s")),
        Outcome::RetryAfter { .. } => ("retry after".into(), None),
        Outcome::ChatGone { reason, text } => (format!("gone {reason:?}"), Some(text)),
        Outcome::Migrated { .. } => ("migrated".into(), None),
        Outcome::BadPayload { text } => ("bad payload".into(), Some(text)),
        Outcome::BadToken { text } => ("bad token".into(), Some(text)),
        Outcome::Conflict { text } => ("conflict".into(), Some(text)),
        Outcome::Benign { text } => ("benign".into(), Some(text)),
        Outcome::Unclear { status, text } => (format!("unclear {}", status / 100), Some(text)),
    };
    if matches!(sent, Outcome::Ok(_)) && !(200..300).contains(&status) {
        return Err(format!("sent with HTTP {status}"));
    }
    if status >= 500 && !matches!(sent, Outcome::Unclear { .. }) {
        return Err(format!("HTTP {status} is taken for {kind}"));
    }
    if let Some(text) = text {
        if text.chars().count() > 300 || text.chars().any(char::is_control) {
            return Err(format!("{text:?} does not fit a log"));
        }
        if text.contains(SECRET) {
            return Err("the token stands in a text".into());
        }
    }
    let me = match bot.read::<Me>(&answer) {
        Outcome::Ok(_) => "me",
        _ => "not me",
    };
    Ok(format!("{kind}, {me}"))
}

/// A message goes out as it was written, whatever stands in it, under an id that cannot leave its header.
pub fn requests(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input).into_owned();
    let bot = bot();
    let mut message = SendMessage::new(-100, text.as_str());
    message.parse_mode = Some(ParseMode::Html);
    let request = bot.send_message(&text, &message);
    if parts(&request) != parts(&bot.send_message(&text, &message)) {
        return Err("the same message made other bytes".into());
    }
    let body: Value = serde_json::from_slice(request.body()).map_err(|error| format!("no JSON: {error}"))?;
    if body["text"].as_str() != Some(text.as_str()) {
        return Err("the text was changed on its way".into());
    }
    let id = request.headers().get("x-request-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if unescaped(id).as_deref() != Some(text.as_bytes()) {
        return Err(format!("the message's id came out as {id:?}"));
    }
    let row = serde_json::to_string(&message).map_err(|error| error.to_string())?;
    if serde_json::from_str::<SendMessage>(&row).ok() != Some(message) {
        return Err("a stored message reads back as another".into());
    }

    let file = File::Bytes { name: text.clone(), mime: text.clone(), bytes: input.to_vec() };
    let document = SendDocument {
        chat_id: 42,
        file,
        caption: Some(text.clone()),
        parse_mode: None,
        buttons: Vec::new(),
        protect: true,
    };
    let upload = bot.send_document("msg_1", &document);
    let form = upload.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((_, boundary)) = form.split_once("boundary=") else { return Err(format!("no form: {form}")) };
    let boundary = format!("--{boundary}");
    let ends = upload.body().windows(boundary.len()).filter(|window| *window == boundary.as_bytes()).count();
    // chat_id, caption, protect_content, document, and the end.
    if ends != 5 {
        return Err(format!("the form has {ends} borders instead of 5"));
    }
    let whole = input.is_empty() || upload.body().windows(input.len()).any(|window| window == input);
    if !whole {
        return Err("the file was changed on its way".into());
    }
    Ok(TAKEN.into())
}

/// What two requests are compared by.
fn parts(request: &Request) -> (String, HeaderMap, Vec<u8>) {
    (request.uri().to_string(), request.headers().clone(), request.body().clone())
}

/// Percent escapes undone.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(out)
}

/// No piece is too long, no letter is lost, and escaped text holds no tag.
pub fn text(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let limit = 2 + input.len() % 97;
    let pieces = split_text(&text, limit);
    if let Some(piece) = pieces.iter().find(|piece| piece.is_empty() || utf16_len(piece) > limit) {
        return Err(format!("a piece of {} units where {limit} fit", utf16_len(piece)));
    }
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    if letters(&pieces.concat()) != letters(&text) {
        return Err("letters were lost".into());
    }
    if utf16_len(&text) != text.encode_utf16().count() {
        return Err("the length is not Telegram's".into());
    }
    let escaped = html_escape(&text);
    if escaped.contains(['<', '>', '"']) {
        return Err("a tag is left".into());
    }
    let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    if back != text {
        return Err("escaped text reads as another".into());
    }
    Ok(format!("{TAKEN}: {}", pieces.len().min(4)))
}
