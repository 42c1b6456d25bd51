//! What people do in their chats, and how the bot comes to know of it: by asking or by a webhook, one of the two.
//!
//! An update waits until it is confirmed by a higher `offset` or by a 2xx of the webhook; until then it comes again.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Refusal;
use super::town::{ChatState, Town};
use crate::clock;
use crate::options::Delivery;
use crate::params::Params;
use crate::world::{World, lock};

/// Where updates are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Webhook {
    url: String,
    secret: Option<String>,
}

/// What the bot answered to a press.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PressAnswer {
    /// Who pressed.
    pub chat_id: i64,
    /// What was shown over the chat, if anything.
    pub text: Option<String>,
}

/// Updates on their way to the bot.
#[derive(Default)]
pub(crate) struct Mail {
    all: Vec<(i64, Value)>,
    waiting: VecDeque<(i64, Value)>,
    last_id: i64,
    /// Which poll is the latest: an older one that still waits is cut off.
    poll: u64,
    webhook: Option<Webhook>,
    is_posting: bool,
    /// Who made each press, by the id of its query.
    queries: BTreeMap<String, i64>,
    answers: Vec<PressAnswer>,
    languages: BTreeMap<i64, String>,
    /// The menu of commands, by language; empty for everybody else.
    commands: BTreeMap<String, Vec<(String, String)>>,
    arrived: Arc<Notify>,
}

impl Mail {
    pub(super) fn push(&mut self, kind: &str, body: Value) -> i64 {
        self.last_id += 1;
        let mut update = Map::new();
        update.insert("update_id".into(), json!(self.last_id));
        update.insert(kind.into(), body);
        let update = (self.last_id, Value::Object(update));
        self.all.push(update.clone());
        self.waiting.push_back(update);
        self.arrived.notify_waiters();
        self.last_id
    }

    /// Answers `getUpdates`: forgets what is below the offset and shows what waits.
    pub(super) fn take(&mut self, params: &Params) -> Result<Value, Refusal> {
        if self.webhook.is_some() {
            let text = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
            return Err(Refusal::new(409, text));
        }
        self.confirm(params);
        let limit = usize::try_from(params.int("limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
        Ok(self.waiting.iter().take(limit).map(|(_, update)| update.clone()).collect())
    }

    fn confirm(&mut self, params: &Params) {
        match params.int("offset").unwrap_or(0) {
            offset @ 1.. => self.waiting.retain(|(id, _)| *id >= offset),
            0 => {}
            from_the_end => {
                let keep = usize::try_from(from_the_end.unsigned_abs()).unwrap_or(usize::MAX);
                let forget = self.waiting.len().saturating_sub(keep);
                self.waiting.drain(..forget);
            }
        }
    }

    pub(super) fn set_webhook(&mut self, url: Option<String>, secret: Option<String>) {
        self.webhook = url.map(|url| Webhook { url, secret });
        self.arrived.notify_waiters();
    }

    pub(super) fn webhook_info(&self) -> Value {
        let url = self.webhook.as_ref().map(|webhook| webhook.url.clone()).unwrap_or_default();
        json!({ "url": url, "has_custom_certificate": false, "pending_update_count": self.waiting.len() })
    }

    pub(super) fn answered(&mut self, query: &str, text: Option<String>) {
        if let Some(chat_id) = self.queries.get(query).copied() {
            self.answers.push(PressAnswer { chat_id, text });
        }
    }

    pub(crate) fn answers(&self) -> Vec<PressAnswer> {
        self.answers.clone()
    }

    pub(super) fn set_commands(&mut self, params: &Params) {
        let word = |command: &Value, name: &str| command[name].as_str().unwrap_or_default().to_owned();
        let commands = params.json("commands").and_then(|commands| commands.as_array().cloned()).unwrap_or_default();
        let commands =
            commands.iter().map(|command| (word(command, "command"), word(command, "description"))).collect();
        self.commands.insert(params.text("language_code").unwrap_or_default(), commands);
    }

    pub(crate) fn commands(&self, language: &str) -> Vec<(String, String)> {
        self.commands.get(language).cloned().unwrap_or_default()
    }

    pub(crate) fn waits(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn set_language(&mut self, person: i64, code: &str) {
        self.languages.insert(person, code.to_owned());
    }

    /// Every update so far waits once more, also what was confirmed.
    pub(crate) fn repeat(&mut self) {
        self.waiting = self.all.iter().cloned().collect();
        self.arrived.notify_waiters();
    }

    /// So many numbers are passed over, as Telegram does now and then.
    pub(crate) fn skip(&mut self, numbers: i64) {
        self.last_id += numbers;
    }
}

/// A person as updates name them.
pub(super) fn person(mail: &Mail, id: i64) -> Value {
    let mut person = json!({ "id": id, "is_bot": false, "first_name": format!("Customer {id}") });
    if let Some(code) = mail.languages.get(&id) {
        person["language_code"] = json!(code);
    }
    person
}

/// The mark that Telegram puts on a command at the beginning of a text.
fn entities(text: &str) -> Value {
    let word = text.split_whitespace().next().unwrap_or_default();
    if !(text.starts_with('/') && word.len() > 1) {
        return json!([]);
    }
    json!([{ "type": "bot_command", "offset": 0, "length": word.encode_utf16().count() }])
}

impl Town {
    /// Somebody writes to the bot. Whoever blocked it lets it in by that.
    pub(crate) fn say(&mut self, chat: i64, text: &str, now: i64) -> i64 {
        let message_id = self.add_own(chat, text, now);
        let from = person(&self.mail, chat);
        let body = json!({
            "message_id": message_id, "from": from, "chat": super::town::chat_object(chat), "date": now / 1000,
            "text": text, "entities": entities(text),
        });
        self.mail.push("message", body)
    }

    /// Somebody presses a button below a message. Nothing looks whether there is such a button: whoever speaks to
    /// Telegram's servers by hand can send any data.
    pub(crate) fn press(&mut self, chat: i64, message_id: i64, data: &str, now: i64) -> i64 {
        let query = format!("{}", 4_000_000_000 + self.mail.last_id);
        self.mail.queries.insert(query.clone(), chat);
        let from = person(&self.mail, chat);
        let place = super::town::chat_object(chat);
        let body = json!({
            "id": query, "from": from, "chat_instance": format!("{chat}"), "data": data,
            "message": { "message_id": message_id, "chat": place, "date": now / 1000 },
        });
        self.mail.push("callback_query", body)
    }

    /// Anything at all comes to the bot, as one member of an update.
    pub(crate) fn send_update(&mut self, kind: &str, body: Value) -> i64 {
        self.mail.push(kind, body)
    }

    /// The newest button that says `words` and sends something back: its message and its data.
    pub(crate) fn button(&self, chat: i64, words: &str) -> Option<(i64, String)> {
        let messages = self.messages(chat);
        messages.iter().rev().find_map(|message| {
            let button = message.buttons.iter().find(|button| button.text.contains(words) && button.url.is_none())?;
            Some((message.id, button.callback_data.clone()?))
        })
    }

    /// Somebody blocks the bot, or lets it in again.
    pub(crate) fn block(&mut self, chat: i64, is_blocked: bool, now: i64) -> i64 {
        self.set_state(chat, if is_blocked { ChatState::Blocked } else { ChatState::Open });
        let (old, new) = if is_blocked { ("member", "kicked") } else { ("kicked", "member") };
        let from = person(&self.mail, chat);
        let body = json!({
            "chat": super::town::chat_object(chat), "from": from, "date": now / 1000,
            "old_chat_member": { "status": old }, "new_chat_member": { "status": new },
        });
        self.mail.push("my_chat_member", body)
    }
}

/// Holds a long poll until something waits or its time is over. The answer is a refusal if a later poll cut it off.
pub(super) async fn wait(world: &World, params: &Params) -> Option<Refusal> {
    let seconds = params.int("timeout").unwrap_or(0).clamp(0, 50).unsigned_abs();
    let (mine, arrived) = {
        let mut town = lock(&world.town);
        town.mail.poll += 1;
        town.mail.confirm(params);
        town.mail.arrived.notify_waiters();
        (town.mail.poll, Arc::clone(&town.mail.arrived))
    };
    let mut over = pin!(sleep(Duration::from_secs(seconds) / world.options.time_scale.max(1)));
    loop {
        let mut heard = pin!(arrived.notified());
        heard.as_mut().enable();
        let (latest, is_ready) = {
            let town = lock(&world.town);
            (town.mail.poll, town.mail.webhook.is_some() || !town.mail.waiting.is_empty())
        };
        if latest != mine {
            let text =
                "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
            return Some(Refusal::new(409, text));
        }
        if is_ready || seconds == 0 {
            return None;
        }
        tokio::select! {
            () = &mut over => return None,
            () = heard => {}
        }
    }
}

impl World {
    /// What a person does: the update goes on its way by itself, if this box sends by itself.
    pub(crate) fn live(&self, deed: impl FnOnce(&mut Town, i64) -> i64) -> i64 {
        let id = deed(&mut lock(&self.town), clock::now_ms());
        self.carry();
        id
    }

    /// Has what waits posted, where there is a webhook and nobody is at it.
    pub(crate) fn carry(&self) {
        if self.options.mode != Delivery::Auto {
            return;
        }
        {
            let mut town = lock(&self.town);
            if town.mail.is_posting || town.mail.webhook.is_none() {
                return;
            }
            town.mail.is_posting = true;
        }
        let world = self.clone();
        self.spawn(async move {
            let mut pause = Duration::from_secs(1);
            loop {
                world.post_updates().await;
                {
                    let mut town = lock(&world.town);
                    if town.mail.waiting.is_empty() || town.mail.webhook.is_none() {
                        town.mail.is_posting = false;
                        return;
                    }
                }
                sleep(pause / world.options.time_scale.max(1)).await;
                pause = (pause * 2).min(Duration::from_secs(60));
            }
        });
    }

    /// Posts what waits to the webhook, one after the other, until one is not taken; answers the statuses.
    pub(crate) async fn post_updates(&self) -> Vec<Option<u16>> {
        let mut statuses = Vec::new();
        loop {
            let next = {
                let town = lock(&self.town);
                town.mail.webhook.clone().zip(town.mail.waiting.front().cloned())
            };
            let Some((webhook, (id, update))) = next else { return statuses };
            let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            if let Some(secret) = webhook.secret {
                headers.push(("x-telegram-bot-api-secret-token".to_owned(), secret));
            }
            let (outcome, _) = self.post(&webhook.url, &headers, Bytes::from(update.to_string())).await;
            statuses.push(outcome.status);
            if !outcome.status.is_some_and(|status| (200..300).contains(&status)) {
                return statuses;
            }
            lock(&self.town).mail.waiting.retain(|(known, _)| *known != id);
        }
    }
}
