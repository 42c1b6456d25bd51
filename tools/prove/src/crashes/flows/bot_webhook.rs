//! The bot by webhook, and everything that it can be asked: a friend's link, orders and goods again, balance, language, the
//! owner's day, a word to the owner, forged buttons, news that it does not know, somebody who shuts it out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::bot::{TO_PAY, UNPAID};
use super::{Flow, OWNER, Sale, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// Who buys, by the friend's link.
const BUYER: i64 = 61;
const FRIEND: i64 = 62;
const NO_SUCH_BUTTON: &str = "This button does not work any more.";

/// A day of a bot whose updates Telegram posts. Here the flow is Telegram: the address of the webhook has to be one of https, and
/// nothing listens there.
#[derive(Default)]
pub struct BotWebhook {
    product: String,
    sale: Sale,
    /// The number of the latest update.
    last: i64,
}

/// A person as Telegram describes them.
fn person(id: i64) -> Value {
    json!({ "id": id, "is_bot": false, "first_name": "Somebody", "language_code": "en" })
}

/// The chat with them.
fn chat(id: i64) -> Value {
    json!({ "id": id, "type": "private", "first_name": "Somebody" })
}

/// The newest button of a person with these words: its message and its data.
fn button(stage: &Stage, id: i64, words: &str) -> (i64, String) {
    let chat = stage.world.sandbox.chat(id);
    let found = chat.iter().rev().find_map(|message| {
        let button = message.buttons.iter().find(|button| button.text.contains(words) && button.url.is_none())?;
        Some((message.id, button.callback_data.clone()?))
    });
    found.unwrap_or_else(|| panic!("{id} has a button {words:?}"))
}

impl BotWebhook {
    /// Telegram posts what happened under the next number.
    async fn post(&mut self, stage: &Stage, mut what: Value) {
        self.last += 1;
        what["update_id"] = json!(self.last);
        stage.update(&what).await;
    }

    async fn says(&mut self, stage: &Stage, id: i64, words: &str) {
        let command = words.split_whitespace().next().unwrap_or_default();
        let entities = match command.starts_with('/') {
            true => json!([{ "type": "bot_command", "offset": 0, "length": command.len() }]),
            false => json!([]),
        };
        let message = json!({
            "message_id": self.last + 1, "date": 0, "chat": chat(id), "from": person(id), "text": words,
            "entities": entities,
        });
        self.post(stage, json!({ "message": message })).await;
    }

    async fn asks(&mut self, stage: &Stage, id: i64, words: &str, answer: &str) {
        let before = stage.times_said(id, answer);
        self.says(stage, id, words).await;
        stage.until_said(id, answer, before + 1).await;
    }

    async fn taps(&mut self, stage: &Stage, id: i64, message: i64, data: &str) {
        let query = json!({
            "id": format!("query-{}", self.last + 1), "from": person(id), "chat_instance": "1", "data": data,
            "message": { "message_id": message, "date": 0, "chat": chat(id) },
        });
        self.post(stage, json!({ "callback_query": query })).await;
    }

    async fn presses(&mut self, stage: &Stage, id: i64, words: &str, answer: &str) {
        let before = stage.times_said(id, answer);
        let (message, data) = button(stage, id, words);
        self.taps(stage, id, message, &data).await;
        stage.until_said(id, answer, before + 1).await;
    }

    async fn member(&mut self, stage: &Stage, id: i64, status: &str) {
        let member = json!({
            "chat": chat(id), "from": person(id), "date": 0, "old_chat_member": { "status": "member" },
            "new_chat_member": { "status": status },
        });
        self.post(stage, json!({ "my_chat_member": member })).await;
    }

    /// The buyer comes by the friend's link, buys, pays, and wants the goods once more.
    async fn sells(&mut self, stage: &Stage) {
        self.asks(stage, FRIEND, "/start", "Hello!").await;
        self.asks(stage, BUYER, &format!("/start ref_{FRIEND}"), "Hello!").await;
        self.presses(stage, BUYER, "Catalog", "On sale:").await;
        self.presses(stage, BUYER, "Licence key", "Price:").await;
        self.presses(stage, BUYER, "Buy for", TO_PAY).await;
        let (message, data) = button(stage, BUYER, "Card");
        for _ in 0..3 {
            self.taps(stage, BUYER, message, &data).await;
        }
        stage.until_said(BUYER, UNPAID, 1).await;
        self.sale = stage.only_order(BUYER).await;
        stage.pay(&self.sale);
        stage.tell().await;
        stage.until(&self.sale, "delivered").await;
        stage.until_balance(FRIEND, "99.00").await;
        self.asks(stage, BUYER, "/orders", "Your latest orders:").await;
        self.presses(stage, BUYER, "delivered", ": delivered").await;
        let (message, data) = button(stage, BUYER, "Send the goods again");
        for _ in 0..2 {
            self.taps(stage, BUYER, message, &data).await;
        }
        stage.until_said(BUYER, "Sending it again.", 1).await;
        let patience = Patience::of("the key comes once more", 120);
        while stage.world.keys(BUYER).len() < 2 {
            pause(&patience).await;
        }
    }
}

impl Flow for BotWebhook {
    fn name(&self) -> &'static str {
        "bot-webhook"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![
            ("SEMEL_TELEGRAM_UPDATES".into(), "webhook".into()),
            ("SEMEL_PUBLIC_URL".into(), "https://shop.example".into()),
            ("SEMEL_SHOP_REFERRAL_REWARD_PERCENT".into(), "10".into()),
        ]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.product = stage.plain_product(&keys(3)).await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.sells(stage).await;
            self.asks(stage, FRIEND, "/balance", "99.00 RUB").await;
            self.asks(stage, FRIEND, "/ref", &format!("ref_{FRIEND}")).await;
            self.asks(stage, FRIEND, "/language", "Choose your language.").await;
            self.presses(stage, FRIEND, "Русский", "Теперь говорим по-русски.").await;
            self.asks(stage, FRIEND, "/help", "Покупайте кнопками").await;
            self.asks(stage, OWNER, "/admin", "Today (UTC)").await;
            self.asks(stage, BUYER, "/admin", "I understand commands").await;
            self.asks(stage, BUYER, "/support the key is <b>wrong</b>", "The shop's owner has it now").await;
            self.asks(stage, BUYER, "/terms", "The price on the button is final.").await;
            self.asks(stage, BUYER, "/privacy", "We keep the number of your Telegram").await;
            self.asks(stage, BUYER, "/cancel", "There is no unpaid order").await;
            self.asks(stage, BUYER, "/trial", "VPN access is not sold here.").await;

            let before = stage.times_said(BUYER, NO_SUCH_BUTTON);
            self.taps(stage, BUYER, 1, "buy:prd_1:0.01").await;
            stage.until_said(BUYER, NO_SUCH_BUTTON, before + 1).await;
            let before = stage.times_said(BUYER, NO_SUCH_BUTTON);
            self.taps(stage, BUYER, 1, "AAAAAAAAAAAAAAAA").await;
            stage.until_said(BUYER, NO_SUCH_BUTTON, before + 1).await;
            self.post(stage, json!({ "poll": { "id": "1" } })).await;
            self.post(stage, json!({ "message": { "chat": {} } })).await;
            self.member(stage, FRIEND, "kicked").await;
            self.member(stage, FRIEND, "member").await;

            // Telegram had no answer once, and posts it again.
            let start = json!({ "update_id": 1, "message": { "chat": chat(FRIEND), "from": person(FRIEND), "text": "/start" } });
            stage.update(&start).await;
            stage.rest().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.only_order(BUYER).await.order, self.sale.order, "three presses are one order");
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 1), "one of three keys was sold");
            assert_eq!(stage.balance(FRIEND).await, "99.00", "rewarded once");
            let (keys, most) = (stage.world.keys(BUYER), 2 * (1 + stage.lost()));
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1, "the same key: {keys:?}");
            assert!((2..=most).contains(&keys.len()), "sold once and sent once more: {keys:?}");
            let asked = "asks for help: the key is <b>wrong</b>";
            let told = stage.times_said(OWNER, asked);
            assert!((1..=1 + stage.lost()).contains(&told), "the owner was told {told} times");
            let greeted = stage.times_said(FRIEND, "Hello!");
            assert!(
                (1..=1 + stage.lost()).contains(&greeted),
                "an update that came again was answered {greeted} times"
            );
        })
    }
}
