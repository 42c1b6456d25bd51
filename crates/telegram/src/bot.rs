//! A bot: an address, a token, and the calls that are made with them.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Uri};
use serde_json::{Value, json};
use url::Url;

use crate::message::{Button, File, ParseMode, SendDocument, SendMessage, SendPhoto};
use crate::multipart::Form;
use crate::{Request, Response};

/// Carries our message id. Telegram ignores it; a log, a proxy or a fake of the outside world can tell repeats by it.
pub(crate) const MESSAGE_ID: &str = "x-request-id";

/// Longest address and token that are taken, far above any real one.
const LONGEST: usize = 1024;

/// One bot on one Bot API server. Prints without its token.
#[derive(Clone, PartialEq, Eq)]
pub struct Bot {
    api_url: String,
    token: String,
}

/// Why there is no such [`Bot`]. Says what to write, and never repeats what was written: that may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BotError {
    /// The address of the Bot API is unusable.
    #[error(
        "the Bot API address must be http:// or https:// with a host and without user, query or fragment, \
         for example https://api.telegram.org"
    )]
    ApiUrl,
    /// The token has another form than those BotFather gives.
    #[error("the bot token must be copied whole from BotFather: digits, a colon, then letters, digits, '_' or '-'")]
    Token,
}

impl Bot {
    /// A bot by its token, on the Bot API server at `api_url` (a path is kept, a slash at the end does not matter).
    ///
    /// Checks form only; [`Bot::get_me`] tells whether Telegram knows the token.
    pub fn new(api_url: &str, token: &str) -> Result<Self, BotError> {
        let api_url = base_address(api_url).ok_or(BotError::ApiUrl)?;
        if !is_token(token) {
            return Err(BotError::Token);
        }
        let bot = Self { api_url, token: token.to_owned() };
        // The address is shown in logs, so the token must not hide in it.
        if bot.api_url.contains(bot.secret()) {
            return Err(BotError::ApiUrl);
        }
        // Once here, so that no later call can fail on its address.
        match Uri::try_from(bot.address("getMe")) {
            Ok(_) => Ok(bot),
            Err(_) => Err(BotError::ApiUrl),
        }
    }

    /// The bot's own Telegram id: the digits before the colon of its token. Not a secret.
    pub fn id(&self) -> &str {
        self.token.split(':').next().unwrap_or_default()
    }

    /// The Bot API server, without a slash at the end.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Asks who this bot is. Read the answer as [`Me`](crate::Me).
    pub fn get_me(&self) -> Request {
        let mut request = self.call("getMe", Vec::new());
        *request.method_mut() = Method::GET;
        request
    }

    /// Sends a text. `message_id` is ours, and the same in every repeat of this message.
    ///
    /// Equal arguments give equal bytes.
    pub fn send_message(&self, message_id: &str, message: &SendMessage) -> Request {
        let mut body = text_body(message);
        if message.protect {
            body["protect_content"] = Value::from(true);
        }
        if message.silent {
            body["disable_notification"] = Value::from(true);
        }
        self.message_call("sendMessage", message_id, &body)
    }

    /// Sends a file. `message_id` is ours, and the same in every repeat of this message.
    ///
    /// Equal arguments give equal bytes. Send one file to many people by the `file_id` of the first answer: repeated
    /// uploads of the same size are slowed down by Telegram.
    pub fn send_document(&self, message_id: &str, document: &SendDocument) -> Request {
        let SendDocument { chat_id, file, caption, parse_mode, buttons, protect } = document;
        let upload = Upload { field: "document", chat_id: *chat_id, file, caption, parse_mode: *parse_mode, buttons };
        self.send_file("sendDocument", message_id, &upload, *protect)
    }

    /// Sends a picture. `message_id` is ours, and the same in every repeat of this message.
    ///
    /// Equal arguments give equal bytes.
    pub fn send_photo(&self, message_id: &str, photo: &SendPhoto) -> Request {
        let SendPhoto { chat_id, photo, caption, parse_mode, buttons, protect } = photo;
        let upload =
            Upload { field: "photo", chat_id: *chat_id, file: photo, caption, parse_mode: *parse_mode, buttons };
        self.send_file("sendPhoto", message_id, &upload, *protect)
    }

    fn send_file(&self, method: &str, message_id: &str, upload: &Upload<'_>, protect: bool) -> Request {
        let chat_id = upload.chat_id.to_string();
        let markup = keyboard(upload.buttons).to_string();
        let mut form = Form::new().text("chat_id", &chat_id);
        if let Some(caption) = upload.caption {
            form = form.text("caption", caption);
        }
        if let Some(mode) = upload.parse_mode {
            form = form.text("parse_mode", mode.name());
        }
        if !upload.buttons.is_empty() {
            form = form.text("reply_markup", &markup);
        }
        if protect {
            form = form.text("protect_content", "true");
        }
        form = match upload.file {
            File::Bytes { name, mime, bytes } => form.file(upload.field, name, mime, bytes),
            File::FileId(id) => form.text(upload.field, id),
        };
        let (content_type, body) = form.encode();
        let mut request = self.call(method, body);
        request.headers_mut().insert(CONTENT_TYPE, header_value_of(&content_type));
        request.headers_mut().insert(MESSAGE_ID, header_value(message_id));
        request
    }

    /// `text` from outside, fit for a log or a page: without the token, on one line, at most 300 characters.
    pub(crate) fn presentable(&self, text: &str) -> String {
        let clean = text.replace(self.secret(), "<token>");
        clean.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
    }

    /// The body of `response` as such a text, when nothing better is known about it.
    pub(crate) fn presentable_body(&self, response: &Response) -> String {
        self.presentable(String::from_utf8_lossy(response.body()).trim())
    }

    /// The part of the token that nobody may see; never empty.
    fn secret(&self) -> &str {
        self.token.split_once(':').map_or(self.token.as_str(), |(_, secret)| secret)
    }

    /// A call that is a message of ours: its id travels with it.
    pub(crate) fn message_call(&self, method: &str, message_id: &str, body: &Value) -> Request {
        let mut request = self.json_call(method, body);
        request.headers_mut().insert(MESSAGE_ID, header_value(message_id));
        request
    }

    pub(crate) fn json_call(&self, method: &str, body: &Value) -> Request {
        let mut request = self.call(method, body.to_string().into_bytes());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    pub(crate) fn call(&self, method: &str, body: Vec<u8>) -> Request {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(self.address(method)).expect("the address was tried in Bot::new");
        request
    }

    fn address(&self, method: &str) -> String {
        format!("{}/bot{}/{method}", self.api_url, self.token)
    }
}

/// What sending a text and editing one have in common.
pub(crate) fn text_body(message: &SendMessage) -> Value {
    let mut body = json!({ "chat_id": message.chat_id, "text": message.text });
    if let Some(mode) = message.parse_mode {
        body["parse_mode"] = Value::from(mode.name());
    }
    if !message.buttons.is_empty() {
        body["reply_markup"] = keyboard(&message.buttons);
    }
    if message.disable_preview {
        body["link_preview_options"] = json!({ "is_disabled": true });
    }
    body
}

/// What sending a document and sending a picture have in common.
struct Upload<'a> {
    /// The name under which Telegram looks for the file.
    field: &'static str,
    chat_id: i64,
    file: &'a File,
    caption: &'a Option<String>,
    parse_mode: Option<ParseMode>,
    buttons: &'a [Vec<Button>],
}

/// Buttons as Telegram reads them, in a JSON body or as the text of a form's field.
fn keyboard(buttons: &[Vec<Button>]) -> Value {
    json!({ "inline_keyboard": buttons })
}

impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot").field("id", &self.id()).field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

/// The address without a slash at its end, or nothing when requests could not be built on it.
fn base_address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let base = url.as_str().trim_end_matches('/');
    (plain && base.len() <= LONGEST).then(|| base.to_owned())
}

fn is_token(text: &str) -> bool {
    let Some((id, secret)) = text.split_once(':') else { return false };
    !id.is_empty()
        && id.bytes().all(|b| b.is_ascii_digit())
        && secret.len() >= 10
        && text.len() <= LONGEST
        && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// An id as a header. Ours are plain ASCII and pass unchanged; any other byte is percent-encoded, so that different ids
/// stay different and nobody can end the header early.
fn header_value(id: &str) -> HeaderValue {
    let mut plain = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            plain.push(char::from(byte));
        } else {
            plain.push_str(&format!("%{byte:02X}"));
        }
    }
    header_value_of(&plain)
}

fn header_value_of(ascii: &str) -> HeaderValue {
    HeaderValue::from_str(ascii).expect("visible ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "123456789:AAE-test_token_for_offline_use_0001";

    #[test]
    fn a_token_is_taken_or_refused_by_its_form() {
        for token in [TOKEN, "1:0123456789"] {
            assert!(Bot::new("https://api.telegram.org", token).is_ok(), "{token}");
        }
        let wrong = [
            "",
            "123456789",
            ":AAE-test_token_for",
            "12a:AAE-test_token_for",
            "1:short",
            "1:AAE test token",
            " 1:AAE-test_token",
        ];
        for token in wrong {
            assert_eq!(Bot::new("https://api.telegram.org", token), Err(BotError::Token), "{token}");
        }
        let slash = format!("{TOKEN}/../getUpdates");
        assert_eq!(Bot::new("https://api.telegram.org", &slash), Err(BotError::Token));
        let twice = format!("{TOKEN}:{TOKEN}");
        assert_eq!(Bot::new("https://api.telegram.org", &twice), Err(BotError::Token));
    }

    #[test]
    fn an_address_is_taken_or_refused_by_its_form() {
        let taken = [
            ("https://api.telegram.org", "https://api.telegram.org"),
            ("https://api.telegram.org/", "https://api.telegram.org"),
            ("http://127.0.0.1:8081/tg/", "http://127.0.0.1:8081/tg"),
            ("http://[::1]:8081", "http://[::1]:8081"),
        ];
        for (given, kept) in taken {
            assert_eq!(Bot::new(given, TOKEN).expect(given).api_url(), kept);
        }
        let refused = [
            "",
            "api.telegram.org",
            "localhost:8081",
            "ftp://api.telegram.org",
            "file:///tmp",
            "https://user:word@api.telegram.org",
            "https://api.telegram.org/?a=b",
            "https://api.telegram.org/#a",
            TOKEN,
        ];
        for given in refused {
            assert_eq!(Bot::new(given, TOKEN), Err(BotError::ApiUrl), "{given}");
        }
    }

    #[test]
    fn a_message_id_stays_itself_and_cannot_break_the_header() {
        assert_eq!(header_value("msg_0197f5a0b2c8"), "msg_0197f5a0b2c8");
        assert_eq!(header_value("a b\r\nHost: evil%"), "a%20b%0D%0AHost:%20evil%25");
        assert_eq!(header_value("ё"), "%D1%91");
    }
}
