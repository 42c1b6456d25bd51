//! What comes in: an update, read as strictly as its ids deserve and as loosely as everything else.
//!
//! Telegram adds members and kinds all the time, so unknown ones are passed over. An id that is missing or of another form
//! is an error: whose chat it is decides what may be done.

use serde::Deserialize;
use serde_json::Value;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Telegram's number. An update that comes again has the same one.
    pub id: i64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Somebody wrote.
    Said(Said),
    /// Somebody pressed a button under a message.
    Pressed(Pressed),
    /// Somebody is about to pay, and Telegram waits ten seconds for our word.
    Checkout(Checkout),
    /// Somebody paid in Stars.
    Paid(Paid),
    /// Somebody got Stars back.
    Refunded(Paid),
    /// Somebody let the bot in or shut it out.
    Membership(Membership),
    /// Something that this program does not know, or does not ask for.
    Other,
}

/// A person, as Telegram knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their id; also the private chat with them.
    pub id: i64,
    /// The language of their Telegram, as an IETF tag.
    pub language: Option<String>,
}

/// A message that somebody wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where.
    pub chat: i64,
    /// Whether only the two of us read it.
    pub private: bool,
    /// Who; nobody for a channel. Never a bot.
    pub from: Option<Person>,
    /// Its text; empty for a picture and the like.
    pub text: String,
    /// The command that it begins with.
    pub command: Option<Command>,
    /// The number of the message in this chat that it replies to.
    pub reply_to: Option<i64>,
}

/// A command at the beginning of a message: `/start ref_42`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Without the slash and without the bot's name, lower case.
    pub name: String,
    /// What stands behind it, without spaces around.
    pub payload: String,
}

/// A button that was pressed. Its data comes from whoever pressed it: it may be forged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressed {
    /// The id by which the waiting of the person is ended.
    pub query: String,
    /// Who.
    pub from: Person,
    /// The chat of the button's message, if it is still known.
    pub chat: Option<i64>,
    /// What the button says behind its words; empty for a button of another kind.
    pub data: String,
}

/// Somebody presses Pay under an invoice. Nothing is paid yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The id by which it is answered.
    pub query: String,
    /// Who would pay: a forwarded invoice may be in anybody's hands.
    pub from: Person,
    /// `XTR` for Stars.
    pub currency: String,
    /// In smallest units; whole Stars.
    pub amount: i64,
    /// What we wrote into the invoice.
    pub payload: String,
}

/// Money that came by an invoice, or went back. What a message says about it; the bot's list of transactions decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The chat of the message: the person who paid.
    pub chat: i64,
    /// `XTR` for Stars.
    pub currency: String,
    /// In smallest units; whole Stars.
    pub amount: i64,
    /// What we wrote into the invoice.
    pub payload: String,
    /// Telegram's id of the payment. A refund has the id of what it gives back.
    pub charge: String,
}

/// The bot's standing in a chat has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Where.
    pub chat: i64,
    /// Whether it is the chat with one person.
    pub private: bool,
    /// Whether messages reach that chat now.
    pub reachable: bool,
}

/// Why an update cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It has no number.
    #[error("the update has no update_id")]
    NoId,
    /// What it tells has another form than the Bot API gives it.
    #[error("the {kind} of update {id} has another form than expected: {text}")]
    Form {
        /// Which update.
        id: i64,
        /// Which of its members.
        kind: &'static str,
        /// What is wrong; quotes nothing that a person wrote.
        text: String,
    },
}

impl Update {
    /// Reads one update.
    ///
    /// # Errors
    /// [`UpdateError`] when an id is missing or has another form.
    pub fn read(update: &Value) -> Result<Update, UpdateError> {
        let id = update.get("update_id").and_then(Value::as_i64).ok_or(UpdateError::NoId)?;
        let what = if let Some(message) = update.get("message") {
            told(wire(id, "message", message)?)
        } else if let Some(query) = update.get("callback_query") {
            What::Pressed(pressed(wire(id, "callback_query", query)?))
        } else if let Some(query) = update.get("pre_checkout_query") {
            What::Checkout(checkout(wire(id, "pre_checkout_query", query)?))
        } else if let Some(member) = update.get("my_chat_member") {
            What::Membership(membership(wire(id, "my_chat_member", member)?))
        } else {
            What::Other
        };
        Ok(Update { id, what })
    }
}

fn wire<T: serde::de::DeserializeOwned>(id: i64, kind: &'static str, value: &Value) -> Result<T, UpdateError> {
    // The words of the error may quote what stood there, so only its kind is taken over.
    serde_json::from_value(value.clone()).map_err(|error| UpdateError::Form {
        id,
        kind,
        text: format!("{:?}", error.classify()),
    })
}

#[derive(Deserialize)]
struct WireUser {
    id: i64,
    #[serde(default)]
    is_bot: bool,
    #[serde(default)]
    language_code: Option<String>,
}

#[derive(Deserialize)]
struct WireChat {
    id: i64,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct WireEntity {
    #[serde(rename = "type")]
    kind: String,
    offset: usize,
    length: usize,
}

#[derive(Deserialize)]
struct WireMessage {
    chat: WireChat,
    #[serde(default)]
    from: Option<WireUser>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    entities: Vec<WireEntity>,
    #[serde(default)]
    reply_to_message: Option<Value>,
    #[serde(default)]
    successful_payment: Option<WirePaid>,
    #[serde(default)]
    refunded_payment: Option<WirePaid>,
}

#[derive(Deserialize)]
struct WirePaid {
    currency: String,
    total_amount: i64,
    invoice_payload: String,
    telegram_payment_charge_id: String,
}

#[derive(Deserialize)]
struct WireCheckout {
    id: String,
    from: WireUser,
    currency: String,
    total_amount: i64,
    invoice_payload: String,
}

/// A message that is too old to be shown has a chat and a number only; nothing else of it is used.
#[derive(Deserialize)]
struct WirePlace {
    chat: WireChat,
}

#[derive(Deserialize)]
struct WireQuery {
    id: String,
    from: WireUser,
    #[serde(default)]
    message: Option<WirePlace>,
    #[serde(default)]
    data: Option<String>,
}

#[derive(Deserialize)]
struct WireStanding {
    status: String,
}

#[derive(Deserialize)]
struct WireMember {
    chat: WireChat,
    new_chat_member: WireStanding,
}

impl From<WireUser> for Person {
    fn from(user: WireUser) -> Self {
        Self { id: user.id, language: user.language_code }
    }
}

/// What a message is about: money, or words.
fn told(mut message: WireMessage) -> What {
    let chat = message.chat.id;
    match (message.successful_payment.take(), message.refunded_payment.take()) {
        (Some(money), _) => What::Paid(paid(chat, money)),
        (None, Some(money)) => What::Refunded(paid(chat, money)),
        (None, None) => What::Said(said(message)),
    }
}

fn paid(chat: i64, money: WirePaid) -> Paid {
    let WirePaid { currency, total_amount, invoice_payload, telegram_payment_charge_id } = money;
    Paid { chat, currency, amount: total_amount, payload: invoice_payload, charge: telegram_payment_charge_id }
}

fn checkout(query: WireCheckout) -> Checkout {
    let WireCheckout { id, from, currency, total_amount, invoice_payload } = query;
    Checkout { query: id, from: from.into(), currency, amount: total_amount, payload: invoice_payload }
}

fn said(message: WireMessage) -> Said {
    let text = message.text.unwrap_or_default();
    let reply_to = message.reply_to_message.and_then(|message| message.get("message_id")?.as_i64());
    let begins = message.entities.iter().find(|entity| entity.kind == "bot_command" && entity.offset == 0);
    let command = begins.and_then(|entity| command(&text, entity.length));
    Said {
        chat: message.chat.id,
        private: message.chat.kind == "private",
        from: message.from.filter(|user| !user.is_bot).map(Person::from),
        text,
        command,
        reply_to,
    }
}

/// The command in the first `length` UTF-16 units of `text`. Commands are plain ASCII, so units are bytes there.
fn command(text: &str, length: usize) -> Option<Command> {
    let word = text.get(..length)?.strip_prefix('/')?;
    let name = word.split('@').next().unwrap_or_default();
    let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let payload = text.get(length..).unwrap_or_default().trim().to_owned();
    sound.then(|| Command { name: name.to_ascii_lowercase(), payload })
}

fn pressed(query: WireQuery) -> Pressed {
    Pressed {
        query: query.id,
        from: query.from.into(),
        chat: query.message.map(|message| message.chat.id),
        data: query.data.unwrap_or_default(),
    }
}

fn membership(member: WireMember) -> Membership {
    Membership {
        chat: member.chat.id,
        private: member.chat.kind == "private",
        reachable: !matches!(member.new_chat_member.status.as_str(), "kicked" | "left"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(update: Value) -> What {
        Update::read(&update).expect("an update").what
    }

    fn message(text: &str, entities: Value) -> Value {
        json!({ "update_id": 5, "message": {
            "message_id": 1, "date": 0, "chat": { "id": 42, "type": "private", "first_name": "A" },
            "from": { "id": 42, "is_bot": false, "first_name": "A", "language_code": "ru", "is_premium": true },
            "text": text, "entities": entities, "a_member_of_tomorrow": {}
        } })
    }

    fn command_of(what: What) -> Option<Command> {
        let What::Said(said) = what else { panic!("a message") };
        said.command
    }

    #[test]
    fn a_command_is_told_from_words() {
        let entity = json!([{ "type": "bot_command", "offset": 0, "length": 6 }]);
        let start = command_of(read(message("/start ref_42", entity.clone()))).expect("a command");
        assert_eq!((start.name.as_str(), start.payload.as_str()), ("start", "ref_42"));
        let named = json!([{ "type": "bot_command", "offset": 0, "length": 15 }]);
        assert_eq!(command_of(read(message("/Start@shop_bot", named))).expect("a command").name, "start");
        assert_eq!(command_of(read(message("/start", json!([])))), None, "Telegram marks commands");
        let later = json!([{ "type": "bot_command", "offset": 4, "length": 6 }]);
        assert_eq!(command_of(read(message("say /start", later))), None);
        let absurd = json!([{ "type": "bot_command", "offset": 0, "length": 600 }]);
        assert_eq!(command_of(read(message("/start", absurd))), None);
        let torn = json!([{ "type": "bot_command", "offset": 0, "length": 2 }]);
        assert_eq!(command_of(read(message("/ключ", torn))), None, "an end inside a character");
    }

    #[test]
    fn who_wrote_and_in_what_language() {
        let What::Said(said) = read(message("hi", json!([]))) else { panic!("a message") };
        assert!(said.private && said.chat == 42);
        assert_eq!(said.from, Some(Person { id: 42, language: Some("ru".into()) }));
        let bot = json!({ "update_id": 1, "message": { "chat": { "id": 4, "type": "group" }, "from": { "id": 9, "is_bot": true } } });
        let What::Said(said) = read(bot) else { panic!("a message") };
        assert!(said.from.is_none() && !said.private && said.text.is_empty() && said.reply_to.is_none());
    }

    #[test]
    fn a_reply_names_its_message() {
        let mut reply = message("yes", json!([]));
        reply["message"]["reply_to_message"] = json!({ "message_id": 17, "chat": { "id": 42 }, "text": "really?" });
        let What::Said(said) = read(reply) else { panic!("a message") };
        assert_eq!(said.reply_to, Some(17));
    }

    #[test]
    fn a_press_names_its_chat_if_it_is_known() {
        let query = json!({ "id": "q1", "from": { "id": 7, "is_bot": false }, "data": "x", "chat_instance": "1",
            "message": { "message_id": 3, "date": 0, "chat": { "id": 7, "type": "private" } } });
        let What::Pressed(press) = read(json!({ "update_id": 2, "callback_query": query })) else { panic!("a press") };
        assert_eq!((press.query.as_str(), press.from.id, press.chat, press.data.as_str()), ("q1", 7, Some(7), "x"));
        let old = json!({ "update_id": 3, "callback_query": { "id": "q2", "from": { "id": 7 } } });
        let What::Pressed(press) = read(old) else { panic!("a press") };
        assert!(press.chat.is_none() && press.data.is_empty());
    }

    #[test]
    fn money_is_told_from_words() {
        let money = json!({ "currency": "XTR", "total_amount": 278, "invoice_payload": "pay_1",
            "telegram_payment_charge_id": "stx1", "provider_payment_charge_id": "" });
        let message = |kind: &str| {
            let mut message =
                json!({ "message_id": 1, "date": 0, "chat": { "id": 42, "type": "private" }, "from": { "id": 42 } });
            message[kind] = money.clone();
            json!({ "update_id": 9, "message": message })
        };
        let wanted =
            Paid { chat: 42, currency: "XTR".into(), amount: 278, payload: "pay_1".into(), charge: "stx1".into() };
        assert_eq!(read(message("successful_payment")), What::Paid(wanted.clone()));
        assert_eq!(read(message("refunded_payment")), What::Refunded(wanted));
        let query = json!({ "id": "q1", "from": { "id": 42, "language_code": "en" }, "currency": "XTR", "total_amount": 278,
            "invoice_payload": "pay_1" });
        let What::Checkout(asked) = read(json!({ "update_id": 10, "pre_checkout_query": query })) else {
            panic!("a query")
        };
        assert_eq!(
            (asked.query.as_str(), asked.from.id, asked.amount, asked.payload.as_str()),
            ("q1", 42, 278, "pay_1")
        );
        let torn = json!({ "update_id": 11, "pre_checkout_query": { "id": "q2", "from": { "id": 42 } } });
        assert!(Update::read(&torn).is_err(), "a sum that is not told is none");
    }

    #[test]
    fn a_person_shuts_the_bot_out_and_lets_it_in() {
        for (status, reachable) in [("kicked", false), ("left", false), ("member", true), ("administrator", true)] {
            let member = json!({ "chat": { "id": 7, "type": "private" }, "from": { "id": 7 }, "date": 0,
                "old_chat_member": { "status": "member" }, "new_chat_member": { "status": status } });
            let wanted = Membership { chat: 7, private: true, reachable };
            assert_eq!(read(json!({ "update_id": 4, "my_chat_member": member })), What::Membership(wanted), "{status}");
        }
    }

    #[test]
    fn an_unknown_kind_is_kept_and_a_broken_id_is_an_error() {
        assert_eq!(read(json!({ "update_id": 6, "poll": { "id": "1" } })), What::Other);
        assert_eq!(Update::read(&json!({ "message": {} })), Err(UpdateError::NoId));
        assert_eq!(Update::read(&json!({ "update_id": "7" })), Err(UpdateError::NoId));
        let broken = json!({ "update_id": 8, "message": { "chat": { "id": "secret words" } } });
        let error = Update::read(&broken).expect_err("no chat").to_string();
        assert!(error.contains("update 8") && !error.contains("secret"), "{error}");
    }
}
