//! Calls about updates, buttons and the menu: everything that is not a message of its own.

use serde_json::{Value, json};

use crate::bot::text_body;
use crate::{Bot, Outcome, Request, Response, SendMessage};

/// The kinds of updates that are asked for. Telegram remembers the list until another one is given.
pub const ALLOWED_UPDATES: [&str; 4] = ["message", "callback_query", "my_chat_member", "pre_checkout_query"];

/// The most updates in one answer: so few that the longest ones, each with what it replies to, fit into an answer that the HTTP
/// client takes. An answer that it does not take would come again for ever.
pub const UPDATES_LIMIT: u32 = 50;

/// Longest words of a notice over the chat, in UTF-16 units.
pub const CALLBACK_TEXT_LIMIT: usize = 200;

/// What one call of `getUpdates` brought, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Each update's number with the whole of it as JSON.
    pub updates: Vec<(i64, Value)>,
}

impl Batch {
    /// What to ask for next: everything below counts as received, so ask only when all of this is safe.
    pub fn next_offset(&self) -> Option<i64> {
        self.updates.iter().map(|(id, _)| *id).max().map(|id| id.saturating_add(1))
    }
}

impl Bot {
    /// Asks for updates from `offset` on and waits up to `timeout_s` seconds (50 at most) for the first one. Every update
    /// below `offset` counts as received and never comes again; the others do.
    pub fn get_updates(&self, offset: Option<i64>, timeout_s: u32) -> Request {
        let mut body = json!({ "limit": UPDATES_LIMIT, "timeout": timeout_s, "allowed_updates": ALLOWED_UPDATES });
        if let Some(offset) = offset {
            body["offset"] = Value::from(offset);
        }
        self.json_call("getUpdates", &body)
    }

    /// Reads the answer to [`Bot::get_updates`]. An update without a number cannot be received once, so it is left out.
    pub fn updates(&self, response: &Response) -> Outcome<Batch> {
        self.read::<Vec<Value>>(response).map(|all| Batch {
            updates: all
                .into_iter()
                .filter_map(|update| Some((update.get("update_id").and_then(Value::as_i64)?, update)))
                .collect(),
        })
    }

    /// Has updates posted to `url` from now on, each with `secret` in the header `X-Telegram-Bot-Api-Secret-Token`.
    ///
    /// `secret` is 1 to 256 characters of `A-Z a-z 0-9 _ -`. What waits to be received is kept.
    pub fn set_webhook(&self, url: &str, secret: &str) -> Request {
        let body = json!({ "url": url, "secret_token": secret, "allowed_updates": ALLOWED_UPDATES });
        self.json_call("setWebhook", &body)
    }

    /// Ends the posting of updates, so that they can be asked for. What waits to be received is kept.
    pub fn delete_webhook(&self) -> Request {
        self.json_call("deleteWebhook", &json!({ "drop_pending_updates": false }))
    }

    /// Ends the waiting of the person who pressed a button, with `text` shown over the chat for a moment if there is one.
    /// A text that is too long is cut.
    pub fn answer_callback(&self, query: &str, text: Option<&str>) -> Request {
        let mut body = json!({ "callback_query_id": query });
        if let Some(text) = text {
            body["text"] = Value::from(cut(text, CALLBACK_TEXT_LIMIT));
        }
        self.json_call("answerCallbackQuery", &body)
    }

    /// Sets the menu of commands: pairs of a command without its slash and a description. `language` is a two-letter code;
    /// without one the menu is for everybody else.
    pub fn set_commands(&self, commands: &[(&str, &str)], language: Option<&str>) -> Request {
        let commands: Vec<Value> = commands
            .iter()
            .map(|(command, description)| json!({ "command": command, "description": description }))
            .collect();
        let mut body = json!({ "commands": commands });
        if let Some(language) = language {
            body["language_code"] = Value::from(language);
        }
        self.json_call("setMyCommands", &body)
    }

    /// Asks about a chat; it shows itself to nobody in it. Telegram knows none for a person who never wrote to the bot.
    pub fn get_chat(&self, chat_id: i64) -> Request {
        self.json_call("getChat", &json!({ "chat_id": chat_id }))
    }

    /// Gives the message `telegram_id` of a chat another text and other buttons. `message_id` is ours, and the same in every
    /// repeat. Read the answer as [`Sent`](crate::Sent) with [`Bot::sent`].
    pub fn edit_text(&self, message_id: &str, telegram_id: i64, message: &SendMessage) -> Request {
        let mut body = text_body(message);
        body["message_id"] = Value::from(telegram_id);
        self.message_call("editMessageText", message_id, &body)
    }
}

/// The beginning of `text`, at most `limit` UTF-16 units.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    let mut units = 0;
    text.chars()
        .take_while(|c| {
            units += c.len_utf16();
            units <= limit
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gone, utf16_len};

    const TOKEN: &str = "123456789:AAE-test_token_for_offline_use_0001";

    fn bot() -> Bot {
        Bot::new("https://api.telegram.org", TOKEN).expect("a bot")
    }

    fn body(request: &Request) -> Value {
        serde_json::from_slice(request.body()).expect("JSON")
    }

    fn answer(status: u16, body: &Value) -> Response {
        http::Response::builder().status(status).body(body.to_string().into_bytes()).expect("an answer")
    }

    #[test]
    fn a_poll_names_what_it_has_and_what_it_wants() {
        let first = bot().get_updates(None, 25);
        assert!(first.uri().path().ends_with("/getUpdates"));
        assert_eq!(
            body(&first),
            json!({ "limit": 50, "timeout": 25, "allowed_updates": ["message", "callback_query", "my_chat_member", "pre_checkout_query"] })
        );
        assert_eq!(body(&bot().get_updates(Some(8), 0))["offset"], 8);
    }

    #[test]
    fn a_batch_says_what_to_ask_for_next() {
        let said =
            json!({ "ok": true, "result": [{ "update_id": 7, "message": {} }, { "update_id": 9 }, { "poll": 1 }] });
        let Outcome::Ok(batch) = bot().updates(&answer(200, &said)) else { panic!("updates") };
        assert_eq!(batch.updates.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(batch.next_offset(), Some(10));
        assert_eq!(Batch::default().next_offset(), None, "nothing came, so nothing is confirmed");
    }

    #[test]
    fn a_second_poller_is_told_so() {
        let said = json!({ "ok": false, "error_code": 409, "description": "Conflict: terminated by other getUpdates request" });
        assert!(matches!(bot().updates(&answer(409, &said)), Outcome::Conflict { .. }));
    }

    #[test]
    fn a_person_who_never_wrote_to_the_bot_has_no_chat() {
        let asked = bot().get_chat(42);
        assert!(asked.uri().path().ends_with("/getChat"));
        assert_eq!(body(&asked), json!({ "chat_id": 42 }));
        let said = json!({ "ok": false, "error_code": 400, "description": "Bad Request: chat not found" });
        let gone = bot().read::<Value>(&answer(400, &said));
        assert!(matches!(gone, Outcome::ChatGone { reason: Gone::NotFound, .. }), "{gone:?}");
    }

    #[test]
    fn words_over_the_chat_are_cut_and_never_in_a_character() {
        let long = "🔑".repeat(150);
        let text = body(&bot().answer_callback("q1", Some(&long)))["text"].as_str().map(str::to_owned);
        assert_eq!(utf16_len(&text.expect("a text")), 200);
        assert!(body(&bot().answer_callback("q1", None)).get("text").is_none());
    }

    #[test]
    fn a_menu_may_have_a_language() {
        let request = bot().set_commands(&[("start", "Начать")], Some("ru"));
        let wanted = json!({ "commands": [{ "command": "start", "description": "Начать" }], "language_code": "ru" });
        assert_eq!(body(&request), wanted);
    }

    #[test]
    fn a_webhook_brings_its_secret_and_keeps_what_waits() {
        let request = bot().set_webhook("https://a.example/telegram/x", "s_1");
        assert_eq!(body(&request)["secret_token"], "s_1");
        assert_eq!(body(&bot().delete_webhook())["drop_pending_updates"], false);
    }
}
