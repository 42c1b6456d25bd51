//! The town: the chats that a bot can reach, what stands in them, and the methods that change it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Refusal;
use super::html;
use super::limits::{Limits, TelegramLimits};
use super::picture::Picture;
use super::stars::{self, Till};
use super::updates::Mail;
use crate::params::{Params, Upload};

const DOCUMENT_CAP: usize = 50 * 1024 * 1024;
const PHOTO_CAP: usize = 10 * 1024 * 1024;
/// Where ids of groups and channels that are known by name begin, going down.
const NAMED_CHATS: i64 = -1_001_000_000_000;

/// Whether a bot can reach a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChatState {
    /// Yes.
    #[default]
    Open,
    /// The person blocked the bot: 403.
    Blocked,
    /// The person's account is gone: 403.
    Deactivated,
    /// The bot was thrown out of the group: 403.
    Kicked,
    /// There is no such chat: 400.
    NotFound,
    /// The group became a supergroup with this id: 400 with `migrate_to_chat_id`.
    Migrated(i64),
}

/// A file in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, as the bot gave it.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
    /// The `file_id` by which the bot may send it again.
    pub file_id: String,
}

/// A button below a message, or a link in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    /// What it says.
    pub text: String,
    /// Where it leads, if it is a link.
    pub url: Option<String>,
    /// What it sends back, if it is a callback button.
    pub callback_data: Option<String>,
}

/// An invoice in Telegram Stars below which somebody may press Pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// What is bought.
    pub title: String,
    /// More about it.
    pub description: String,
    /// What comes back to the bot with the money; the customer does not see it.
    pub payload: String,
    /// How many Stars.
    pub stars: i64,
}

/// A message as the customer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Telegram's id, counted per chat.
    pub id: i64,
    /// The text or the caption, without markup.
    pub text: String,
    /// A document.
    pub document: Option<File>,
    /// A photo.
    pub photo: Option<File>,
    /// An invoice.
    pub invoice: Option<Invoice>,
    /// Links in the text, then the inline keyboard row by row.
    pub buttons: Vec<Button>,
    /// When it came, milliseconds.
    pub at: i64,
    /// When it was last edited, milliseconds.
    pub edited_at: Option<i64>,
    /// Whether the customer wrote it.
    pub own: bool,
}

#[derive(Default)]
struct Chat {
    state: ChatState,
    messages: Vec<Message>,
    last_id: i64,
}

/// All chats of the sandbox's Telegram. Every id is a chat until a knob says otherwise.
#[derive(Default)]
pub(crate) struct Town {
    chats: BTreeMap<i64, Chat>,
    names: BTreeMap<String, i64>,
    files: BTreeMap<String, File>,
    pub(crate) mail: Mail,
    pub(crate) till: Till,
    pub(crate) limits: Limits,
    /// Calls so far: the last call's number.
    pub(crate) calls: u64,
}

/// What `sendMessage`, `sendDocument` and `sendPhoto` have in common.
struct Draft {
    text: String,
    buttons: Vec<Button>,
    document: Option<File>,
    photo: Option<File>,
}

impl Town {
    pub(crate) fn new(limited: bool) -> Town {
        Town { limits: Limits::new(limited.then(TelegramLimits::default)), ..Town::default() }
    }

    pub(crate) fn set_state(&mut self, chat: i64, state: ChatState) {
        self.chats.entry(chat).or_default().state = state;
    }

    pub(crate) fn messages(&self, chat: i64) -> Vec<Message> {
        self.chats.get(&chat).map(|chat| chat.messages.clone()).unwrap_or_default()
    }

    /// Chats and how many messages stand in them.
    pub(crate) fn chats(&self) -> Vec<(i64, usize, ChatState)> {
        self.chats.iter().map(|(id, chat)| (*id, chat.messages.len(), chat.state)).collect()
    }

    /// The numeric id of the chat that a call names, by number or by `@name`.
    pub(crate) fn chat_of(&mut self, params: &Params) -> Option<i64> {
        if let Some(id) = params.int("chat_id") {
            return Some(id);
        }
        let name = params.text("chat_id")?;
        let name = name.strip_prefix('@').filter(|name| !name.is_empty())?.to_lowercase();
        let next = NAMED_CHATS - i64::try_from(self.names.len()).unwrap_or(0);
        Some(*self.names.entry(name).or_insert(next))
    }

    /// Does what a known method asks. `name` is lower case.
    pub(crate) fn perform(
        &mut self,
        name: &str,
        chat: Option<i64>,
        params: &Params,
        bot: &str,
        now: i64,
    ) -> Result<Value, Refusal> {
        if super::is_paced(name)
            && let Some(chat) = chat
        {
            self.limits.admit(chat, now).map_err(Refusal::too_many)?;
        }
        match name {
            "getme" => Ok(me(bot)),
            "getupdates" => self.mail.take(params),
            "setwebhook" => {
                self.mail.set_webhook(params.filled("url"), params.filled("secret_token"));
                Ok(json!(true))
            }
            "deletewebhook" => {
                self.mail.set_webhook(None, None);
                Ok(json!(true))
            }
            "getwebhookinfo" => Ok(self.mail.webhook_info()),
            "answercallbackquery" => self.answer_callback(params),
            "answerprecheckoutquery" => self.answer_checkout(params, bot, now),
            "getstartransactions" => Ok(self.star_transactions(params)),
            "refundstarpayment" => self.refund_stars(params, bot, now),
            "sendinvoice" => {
                let chat = self.reach(chat)?;
                let invoice = stars::invoice_of(params)?;
                let text = format!("{}\n{}", invoice.title, invoice.description);
                let draft = Draft { text, buttons: keyboard(params)?, document: None, photo: None };
                let object = self.post(chat, draft, bot, now);
                if let Some(message) = self.chats.get_mut(&chat).and_then(|chat| chat.messages.last_mut()) {
                    message.invoice = Some(invoice);
                }
                Ok(object)
            }
            "setmycommands" => {
                self.mail.set_commands(params);
                Ok(json!(true))
            }
            "deletemycommands" => Ok(json!(true)),
            "sendchataction" => self.reach(chat).map(|_| json!(true)),
            "getchat" => self.reach(chat).map(chat_object),
            "sendmessage" => {
                let chat = self.reach(chat)?;
                let (text, mut buttons) = text_of(params, "text", 4096)?;
                if text.trim().is_empty() {
                    return Err(Refusal::bad("message text is empty"));
                }
                buttons.extend(keyboard(params)?);
                Ok(self.post(chat, Draft { text, buttons, document: None, photo: None }, bot, now))
            }
            "senddocument" | "sendphoto" => self.send_file(name, chat, params, bot, now),
            "editmessagetext" => self.edit(chat, params, bot, now),
            "deletemessage" => self.delete(chat, params),
            _ => Err(Refusal::new(404, "Not Found")),
        }
    }

    /// The chat, if the bot can write there.
    fn reach(&self, chat: Option<i64>) -> Result<i64, Refusal> {
        let Some(id) = chat else { return Err(Refusal::bad("chat_id is empty")) };
        match self.chats.get(&id).map(|chat| chat.state).unwrap_or_default() {
            ChatState::Open => Ok(id),
            ChatState::Blocked => Err(Refusal::new(403, "Forbidden: bot was blocked by the user")),
            ChatState::Deactivated => Err(Refusal::new(403, "Forbidden: user is deactivated")),
            ChatState::Kicked => Err(Refusal::new(403, "Forbidden: bot was kicked from the group chat")),
            ChatState::NotFound => Err(Refusal::bad("chat not found")),
            ChatState::Migrated(to) => {
                Err(Refusal { migrate_to: Some(to), ..Refusal::bad("group chat was upgraded to a supergroup chat") })
            }
        }
    }

    fn answer_callback(&mut self, params: &Params) -> Result<Value, Refusal> {
        let Some(query) = params.filled("callback_query_id") else {
            return Err(Refusal::bad("query is too old and response timeout expired or query ID is invalid"));
        };
        if params.text("text").is_some_and(|text| text.encode_utf16().count() > 200) {
            return Err(Refusal::bad("MESSAGE_TOO_LONG"));
        }
        self.mail.answered(&query, params.filled("text"));
        Ok(json!(true))
    }

    fn send_file(
        &mut self,
        name: &str,
        chat: Option<i64>,
        params: &Params,
        bot: &str,
        now: i64,
    ) -> Result<Value, Refusal> {
        let chat = self.reach(chat)?;
        let (text, mut buttons) = text_of(params, "caption", 1024)?;
        buttons.extend(keyboard(params)?);
        let draft = if name == "sendphoto" {
            let photo = self.file_of(params, "photo", PHOTO_CAP)?;
            match Picture::read(&photo.bytes) {
                None => return Err(Refusal::bad("IMAGE_PROCESS_FAILED")),
                Some(picture) if !picture.is_shown() => return Err(Refusal::bad("PHOTO_INVALID_DIMENSIONS")),
                Some(_) => Draft { text, buttons, document: None, photo: Some(photo) },
            }
        } else {
            let document = Some(self.file_of(params, "document", DOCUMENT_CAP)?);
            Draft { text, buttons, document, photo: None }
        };
        Ok(self.post(chat, draft, bot, now))
    }

    /// The file that a call brings: uploaded under this name, attached under another, or sent again by its id.
    fn file_of(&mut self, params: &Params, name: &str, cap: usize) -> Result<File, Refusal> {
        if let Some(Upload { name, bytes }) = upload_of(params, name) {
            if bytes.len() > cap {
                return Err(Refusal::new(413, "Request Entity Too Large"));
            }
            if bytes.is_empty() {
                return Err(Refusal::bad("file must be non-empty"));
            }
            let file_id = format!("SANDBOX-file-{:08}", self.files.len() + 1);
            let file = File { name: name.clone(), bytes: bytes.clone(), file_id: file_id.clone() };
            self.files.insert(file_id, file.clone());
            return Ok(file);
        }
        match params.text(name) {
            Some(file_id) => {
                let known = self.files.get(&file_id).cloned();
                known.ok_or_else(|| Refusal::bad("wrong file identifier/HTTP URL specified"))
            }
            None => Err(Refusal::bad(&format!("there is no {name} in the request"))),
        }
    }

    /// SHA-256 of the file that a call brings or names, lower case.
    pub(crate) fn file_hash(&self, method: &str, params: &Params) -> Option<String> {
        let name = match method {
            "senddocument" => "document",
            "sendphoto" => "photo",
            _ => return None,
        };
        let known = || self.files.get(&params.text(name)?).map(|file| &file.bytes);
        let bytes = upload_of(params, name).map(|upload| &upload.bytes).or_else(known)?;
        Some(hex::encode(Sha256::digest(bytes)))
    }

    fn post(&mut self, id: i64, draft: Draft, bot: &str, now: i64) -> Value {
        let chat = self.chats.entry(id).or_default();
        chat.last_id += 1;
        let message = Message {
            id: chat.last_id,
            text: draft.text,
            document: draft.document,
            photo: draft.photo,
            invoice: None,
            buttons: draft.buttons,
            at: now,
            edited_at: None,
            own: false,
        };
        let object = message_object(id, &message, bot);
        chat.messages.push(message);
        object
    }

    /// Puts what the customer wrote into the chat; answers its number there.
    pub(super) fn add_own(&mut self, id: i64, text: &str, now: i64) -> i64 {
        let chat = self.chats.entry(id).or_default();
        if chat.state == ChatState::Blocked {
            chat.state = ChatState::Open;
        }
        chat.last_id += 1;
        let (document, photo, buttons) = (None, None, Vec::new());
        let text = text.to_owned();
        chat.messages.push(Message {
            id: chat.last_id,
            text,
            document,
            photo,
            invoice: None,
            buttons,
            at: now,
            edited_at: None,
            own: true,
        });
        chat.last_id
    }

    fn edit(&mut self, chat: Option<i64>, params: &Params, bot: &str, now: i64) -> Result<Value, Refusal> {
        let id = self.reach(chat)?;
        let (text, mut buttons) = text_of(params, "text", 4096)?;
        if text.trim().is_empty() {
            return Err(Refusal::bad("message text is empty"));
        }
        buttons.extend(keyboard(params)?);
        let wanted = params.int("message_id").unwrap_or_default();
        let messages = self.chats.get_mut(&id).map(|chat| &mut chat.messages);
        let found = messages.and_then(|all| all.iter_mut().find(|message| message.id == wanted && !message.own));
        let Some(message) = found else { return Err(Refusal::bad("message to edit not found")) };
        if message.text == text && message.buttons == buttons {
            let why = "message is not modified: specified new message content and reply markup are exactly the same as a current content and reply markup of the message";
            return Err(Refusal::bad(why));
        }
        message.text = text;
        message.buttons = buttons;
        message.edited_at = Some(now);
        Ok(message_object(id, message, bot))
    }

    fn delete(&mut self, chat: Option<i64>, params: &Params) -> Result<Value, Refusal> {
        let id = self.reach(chat)?;
        let wanted = params.int("message_id").unwrap_or_default();
        let not_found = || Refusal::bad("message to delete not found");
        let chat = self.chats.get_mut(&id).ok_or_else(not_found)?;
        let place = chat.messages.iter().position(|message| message.id == wanted).ok_or_else(not_found)?;
        chat.messages.remove(place);
        Ok(json!(true))
    }
}

// ---- what a call says

/// The file that a call uploads under this name, or attaches under another.
fn upload_of<'a>(params: &'a Params, name: &str) -> Option<&'a Upload> {
    let named = params.text(name);
    let attached = named.as_deref().and_then(|text| text.strip_prefix("attach://"));
    params.files.get(name).or_else(|| params.files.get(attached?))
}

/// A text or caption as the reader sees it, with its links. Lengths count UTF-16 units after the markup is gone.
fn text_of(params: &Params, name: &str, limit: usize) -> Result<(String, Vec<Button>), Refusal> {
    let source = params.text(name).unwrap_or_default();
    let is_html = params.text("parse_mode").is_some_and(|mode| mode.eq_ignore_ascii_case("html"));
    let parsed = match is_html {
        true => html::parse(&source).map_err(|why| Refusal::bad(&format!("can't parse entities: {why}")))?,
        false => html::Parsed { text: source, links: Vec::new() },
    };
    if parsed.text.encode_utf16().count() > limit {
        return Err(Refusal::bad(if name == "text" { "message is too long" } else { "message caption is too long" }));
    }
    let link = |(text, url): (String, String)| Button { text, url: Some(url), callback_data: None };
    Ok((parsed.text, parsed.links.into_iter().map(link).collect()))
}

/// The inline keyboard, row by row.
fn keyboard(params: &Params) -> Result<Vec<Button>, Refusal> {
    if params.filled("reply_markup").is_none() {
        return Ok(Vec::new());
    }
    let markup =
        params.json("reply_markup").ok_or_else(|| Refusal::bad("can't parse reply keyboard markup JSON object"))?;
    let Some(rows) = markup.get("inline_keyboard").and_then(Value::as_array) else { return Ok(Vec::new()) };
    let mut buttons = Vec::new();
    for button in rows.iter().filter_map(Value::as_array).flatten() {
        let text = |name: &str| button.get(name).and_then(Value::as_str).map(str::to_owned);
        let callback_data = text("callback_data");
        if callback_data.as_ref().is_some_and(|data| !(1..=64).contains(&data.len())) {
            return Err(Refusal::bad("BUTTON_DATA_INVALID"));
        }
        let url = text("url");
        if let Some(wrong) = url.as_deref().filter(|url| !leads_somewhere(url)) {
            let why = format!("inline keyboard button URL '{wrong}' is invalid: Wrong HTTP URL");
            return Err(Refusal::bad(&why));
        }
        if button.as_object().is_none_or(|members| members.len() < 2) {
            return Err(Refusal::bad("Text buttons are unallowed in the inline keyboard"));
        }
        buttons.push(Button { text: text("text").unwrap_or_default(), url, callback_data });
    }
    Ok(buttons)
}

/// Whether a button may open this address: a web page, or something inside Telegram.
fn leads_somewhere(address: &str) -> bool {
    match url::Url::parse(address) {
        Ok(url) => matches!(url.scheme(), "tg" | "ton") || (matches!(url.scheme(), "http" | "https") && url.has_host()),
        Err(_) => false,
    }
}

// ---- wire forms

fn me(bot: &str) -> Value {
    json!({
        "id": bot.parse::<i64>().unwrap_or_default(), "is_bot": true, "first_name": "Sandbox", "username": "sandbox_shop_bot",
        "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
    })
}

pub(super) fn chat_object(id: i64) -> Value {
    match id {
        0.. => json!({ "id": id, "type": "private", "first_name": format!("Customer {id}") }),
        i64::MIN..=-1_000_000_000_000 => json!({ "id": id, "type": "supergroup", "title": format!("Group {id}") }),
        _ => json!({ "id": id, "type": "group", "title": format!("Group {id}") }),
    }
}

fn message_object(chat: i64, message: &Message, bot: &str) -> Value {
    let mut object = Map::new();
    object.insert("message_id".into(), json!(message.id));
    object.insert("from".into(), me(bot));
    object.insert("chat".into(), chat_object(chat));
    object.insert("date".into(), json!(message.at / 1000));
    if let Some(at) = message.edited_at {
        object.insert("edit_date".into(), json!(at / 1000));
    }
    let has_file = message.document.is_some() || message.photo.is_some();
    if !message.text.is_empty() {
        object.insert(if has_file { "caption" } else { "text" }.into(), json!(message.text));
    }
    if let Some(file) = &message.document {
        let document = json!({
            "file_id": file.file_id, "file_unique_id": format!("u{}", file.file_id),
            "file_name": file.name, "file_size": file.bytes.len(),
        });
        object.insert("document".into(), document);
    }
    if let Some(file) = &message.photo {
        let (width, height) = Picture::read(&file.bytes).map_or((0, 0), |picture| (picture.width, picture.height));
        let size = json!({
            "file_id": file.file_id, "file_unique_id": format!("u{}", file.file_id),
            "width": width, "height": height, "file_size": file.bytes.len(),
        });
        object.insert("photo".into(), json!([size]));
    }
    Value::Object(object)
}
