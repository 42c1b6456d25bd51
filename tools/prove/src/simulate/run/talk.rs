//! Talking to customers: people who buy by the bot's buttons or ask the owner for help, and news for everybody while all else goes on.
//!
//! People talk to the bot while all is well outside: what Telegram refuses of the bot's questions says nothing about its messages,
//! and the witness could not tell. A campaign goes on in any weather. It sends to one person at a time, so that the same seed gives
//! the same history.

use std::collections::BTreeMap;
use std::time::Duration;

use semel::app::updates::{answer, answer_checkout, take_in};
use semel_kernel::clock::Time;
use semel_kernel::outbound::{Call, Manner};
use semel_sandbox::StarKnobs;
use semel_telegram::{Outcome, Update, What};
use serde_json::{Value, json};

use super::super::program::{By, Told};
use super::{Life, PATIENCE, cell, customer, pick};
use crate::app::{ADMIN, text};
use crate::program::moment;

/// So many campaigns in one life.
const CAMPAIGNS: usize = 3;
/// So often a poll is repeated until nothing waits.
const POLLS: usize = 4;
/// How long the bot may look whether somebody may pay. The machine's time, so far away.
const LOOK: Duration = Duration::from_secs(60);
/// Of how many of the latest unpaid invoices one is paid.
const INVOICES: usize = 12;
/// What the owner reads between a customer's number and their words.
const ASKS: &str = " asks for help: ";
/// How long a campaign may take at the end, in looks of two seconds.
const LOOKS: usize = 600;

/// News that went out: the campaign, and what it says.
#[derive(Clone, Debug)]
pub struct News {
    id: String,
    words: String,
}

/// The words on the button for a way to pay, in the language of who names none.
fn words_of(by: By) -> &'static str {
    match by {
        By::Yookassa => "Картой или СБП",
        By::Heleket => "Криптовалютой",
        By::CrystalPay => "CrystalPAY",
        By::Stars => "Telegram Stars",
        By::Balance => "С баланса",
    }
}

/// Buttons.
impl Life {
    /// Somebody comes by a link to a product, and taps on a way to pay for it.
    pub(super) async fn buy_by_button(&mut self, who: u8, what: u8, by: By, taps: u8) {
        if !self.calm() {
            return;
        }
        let (product, by) = self.choice(what, by);
        let start = format!("/start buy_{}", self.model.products[product].id);
        self.shop.sandbox.say(customer(who), &start);
        self.hear().await;
        if self.shop.sandbox.press(customer(who), "Купить за").is_some() {
            self.hear().await;
            self.tap_button(who, by, taps).await;
        }
    }

    /// Somebody taps on the newest button for a way to pay, however old it is.
    pub(super) async fn tap_button(&mut self, who: u8, by: By, taps: u8) {
        if !self.calm() {
            return;
        }
        for _ in 0..taps {
            if self.shop.sandbox.press(customer(who), words_of(by)).is_none() {
                return;
            }
            self.report.operations += 1;
        }
        self.hear().await;
    }

    /// The bot takes what waits, and everything that is due is done.
    async fn hear(&mut self) {
        self.hear_from(None).await;
    }

    async fn hear_from(&mut self, offset: Option<i64>) {
        self.talks = true;
        self.hush(PATIENCE).await;
        let mut offset = offset;
        for _ in 0..POLLS {
            match self.poll(offset).await {
                Some(next) => offset = Some(next),
                None => break,
            }
        }
        self.shop.catch_up().await;
        self.work().await;
    }

    /// Asks for updates once and takes them in, as the program's own receiver does; but one step after the other, where that one
    /// does some at a time: then the same seed gives the same history. Answers what to ask for next, if anything came.
    async fn poll(&mut self, offset: Option<i64>) -> Option<i64> {
        let shop = self.shop.shop().clone();
        let bot = shop.bot.clone()?;
        let call = Call::new("telegram.updates", format!("telegram-updates:{}", bot.id()), Manner::Read);
        let asked = shop.telegram.call(call, bot.get_updates(offset, 0)).await;
        let batch = match asked.map(|response| bot.updates(&response)) {
            Ok(Outcome::Ok(batch)) => batch,
            Ok(refused) => {
                self.wrong(format!("the bot cannot ask: {refused:?}"));
                return None;
            }
            Err(error) => {
                self.wrong(format!("the bot cannot ask: {error}"));
                return None;
            }
        };
        let next = batch.next_offset();
        for (_, update) in &batch.updates {
            match Update::read(update).map(|update| update.what) {
                Ok(What::Checkout(asked)) => answer_checkout(&shop, &bot, &asked, LOOK).await,
                Ok(What::Paid(money)) => self.model.heard(&money.payload),
                _ => {}
            }
        }
        match take_in(&shop, bot.id(), batch.updates).await {
            Ok(came) => {
                answer(&shop, &bot, &came.presses).await;
                self.note(came.new);
                next
            }
            Err(error) => {
                self.wrong(format!("updates cannot be taken: {error}"));
                None
            }
        }
    }

    /// Takes orders into the model that people made by buttons.
    pub(super) async fn meet_orders(&mut self) {
        let known = i64::try_from(self.model.orders.len()).unwrap_or(i64::MAX);
        if !self.talks || self.shop.number("select count(*) from orders").await <= known {
            return;
        }
        for row in self.shop.store.rows("select id, created_at from orders order by created_at, id").await {
            let (id, created_at): (String, i64) = (cell(&row, 0), cell(&row, 1));
            if self.model.orders.iter().any(|order| order.id == id) {
                continue;
            }
            let (_, shown) = self.get(&format!("/api/v1/orders/{id}")).await;
            let item = &shown["items"][0];
            let product = self.model.products.iter().position(|product| product.id == text(&item["product"]));
            let who = shown["customer"]["telegram_id"].as_i64().and_then(|id| u8::try_from(id - customer(0)).ok());
            let many = item["quantity"].as_i64().and_then(|many| u8::try_from(many).ok());
            let by = match text(&shown["payment"]["provider"]).as_str() {
                "yookassa" => By::Yookassa,
                "heleket" => By::Heleket,
                "crystalpay" => By::CrystalPay,
                "stars" => By::Stars,
                _ => By::Balance,
            };
            let (Some(product), Some(who), Some(many)) = (product, who, many) else {
                self.wrong(format!("nobody asked for the order {shown}"));
                continue;
            };
            self.ordered(&(201, shown), Time::from_millis(created_at), (who, product, many, by)).await;
        }
    }
}

/// Questions to the owner.
impl Life {
    /// Somebody asks the owner for help.
    pub(super) async fn ask_owner(&mut self, who: u8) {
        if !self.calm() {
            return;
        }
        self.questions += 1;
        self.shop.sandbox.say(customer(who), &format!("/support Question {}", self.questions));
        self.report.operations += 1;
        self.hear().await;
    }

    /// The owner replies to one of the latest questions in their chat, answered or not.
    pub(super) async fn reply(&mut self, n: u16) {
        if !self.calm() {
            return;
        }
        let chat = self.shop.sandbox.chat(ADMIN);
        let asked = chat.iter().filter_map(|message| {
            let (who, _) = message.text.strip_prefix("Customer ")?.split_once(ASKS)?;
            Some((message.id, who.parse::<i64>().ok()?))
        });
        let asked: Vec<(i64, i64)> = asked.collect();
        let Some((question, who)) = pick(&asked, n) else { return };
        let words = format!("Reply {}", self.replies.len() + 1);
        let said = json!({
            "message_id": 900_000, "date": 0, "chat": { "id": ADMIN, "type": "private" },
            "from": { "id": ADMIN, "is_bot": false }, "reply_to_message": { "message_id": question }, "text": words,
        });
        self.shop.sandbox.send_update("message", said);
        self.replies.push((who, words));
        self.report.operations += 1;
        self.hear().await;
    }

    /// Every reply that is not as it must be: who asked has it once, nobody else does, and the owner knows that it arrived.
    pub(super) fn replies_unlike(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut noted: BTreeMap<i64, usize> = BTreeMap::new();
        for (who, words) in &self.replies {
            *noted.entry(*who).or_default() += 1;
            for chat in self.shop.sandbox.chats() {
                let texts = self.shop.chat(chat);
                let copies = texts.iter().filter(|text| text.lines().any(|line| line == words)).count();
                if copies != usize::from(chat == *who) {
                    wrong.push(format!("{words} for {who} stands {copies} times in the chat with {chat}"));
                }
            }
        }
        let owners = self.shop.chat(ADMIN);
        for (who, replies) in noted {
            let note = format!("Customer {who} has your answer");
            let told = owners.iter().filter(|text| **text == note).count();
            if told != replies {
                wrong.push(format!(
                    "the owner was told {told} times that {who} has an answer, and {replies} were given"
                ));
            }
        }
        wrong
    }
}

/// Stars.
impl Life {
    /// An unpaid payment in Stars whose invoice is the newest in its customer's chat: that is the one that they can pay.
    fn payable(&self, n: u16) -> Option<(usize, usize)> {
        let mut open = Vec::new();
        for (index, order) in self.model.orders.iter().enumerate().skip(self.model.old) {
            let tries = order.tries.iter().enumerate();
            let unpaid = tries.filter(|(_, one)| one.by == By::Stars && one.paid.is_none() && !one.there.is_empty());
            open.extend(unpaid.map(|(which, _)| (index, which)));
        }
        let first = open.len().saturating_sub(INVOICES);
        let is_newest = |&(index, which): &(usize, usize)| {
            let order = &self.model.orders[index];
            let chat = self.shop.sandbox.chat(order.who);
            let newest = chat.into_iter().rev().find_map(|message| message.invoice);
            newest.is_some_and(|invoice| invoice.payload == order.tries[which].there)
        };
        let newest: Vec<(usize, usize)> = open[first..].iter().copied().filter(is_newest).collect();
        pick(&newest, n)
    }

    /// Somebody presses Pay under the newest invoice in their chat: Telegram asks the bot, and its yes charges them. Who may pay
    /// is certain: whose order waits for its money.
    pub(super) async fn pay_stars(&mut self, n: u16, told: Told) {
        if !self.calm() {
            return;
        }
        let Some((index, which)) = self.payable(n) else { return };
        let (id, who, total) = {
            let order = &self.model.orders[index];
            (order.id.clone(), order.who, order.total)
        };
        self.hush(PATIENCE).await;
        let (_, shown) = self.get(&format!("/api/v1/orders/{id}")).await;
        self.shop.catch_up().await;
        let may = shown["status"] == "pending" && self.now().millis() < moment(&shown["deadline"]);
        self.shop.sandbox.set_star_knobs(match told {
            Told::Once => StarKnobs::default(),
            Told::Twice => StarKnobs { repeat: 1, ..StarKnobs::default() },
            Told::Never => StarKnobs { lose_next: 1, ..StarKnobs::default() },
        });
        let (asked, charged) = (self.shop.sandbox.checkout_answers().len(), self.shop.sandbox.star_payments().len());
        if self.shop.sandbox.pay_stars(who).is_none() {
            return self.wrong(format!("{who} has no invoice any more"));
        }
        self.report.operations += 1;
        let mut offset = None;
        for _ in 0..POLLS {
            match self.poll(offset).await {
                Some(next) => offset = Some(next),
                None => break,
            }
            if self.shop.sandbox.checkout_answers().len() > asked {
                break;
            }
        }
        self.shop.sandbox.set_star_knobs(StarKnobs::default());
        let said = self.shop.sandbox.checkout_answers().get(asked).map(|said| said.ok);
        let charges = self.shop.sandbox.star_payments().len() - charged;
        self.note((said, charges));
        if said != Some(may) || charges != usize::from(may) {
            self.wrong(format!("who may pay {id} ({may}) was told {said:?} and charged {charges} times"));
        }
        if charges > 0 {
            self.model.paid(index, which, total);
        }
        self.hear_from(offset).await;
    }
}

/// Campaigns.
impl Life {
    /// News for everybody, looked at and tested before. In bad weather the test may not come through; then nothing is sent.
    pub(super) async fn campaign(&mut self) {
        if self.news.len() >= CAMPAIGNS {
            return;
        }
        let words = format!("News {}", self.news.len() + 1);
        let draft = json!({ "title": words, "rule": {}, "texts": { "ru": { "html": words } } });
        let key = self.key();
        let (status, made) = self.post("/api/v1/campaigns", &draft, &key).await;
        if status != 201 {
            return self.wrong(format!("a campaign is made, and answered {status} {made}"));
        }
        let id = text(&made["id"]);
        for what in ["preview", "test"] {
            let (path, key) = (format!("/api/v1/campaigns/{id}/{what}"), self.key());
            let (status, told) = self.post(&path, &json!({}), &key).await;
            if status != 200 {
                return self.wrong(format!("{what} of a campaign is answered {status} {told}"));
            }
            self.work().await;
        }
        let (path, key) = (format!("/api/v1/campaigns/{id}/start"), self.key());
        match self.post(&path, &json!({}), &key).await {
            (200, _) => self.news.push(News { id, words }),
            (409, _) => {}
            (status, told) => self.wrong(format!("a campaign begins, and is answered {status} {told}")),
        }
    }

    /// Lets time pass until no campaign runs any more.
    pub(super) async fn news_ends(&mut self) {
        for _ in 0..LOOKS {
            if self.shop.number("select count(*) from campaigns where state = 'running'").await == 0 {
                return;
            }
            self.shop.advance(Duration::from_secs(2)).await;
            self.work().await;
        }
    }

    /// Everything about campaigns that is not as it must be: the states sum to the recipients, nobody has it twice, and what
    /// counts as sent has arrived.
    pub(super) async fn news_unlike(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        // An owner who has replied to somebody gets news as well, and has them from the test, too: their chat says nothing.
        let owners = self.shop.store.rows("select campaign, state from recipients where chat_id = 1").await;
        let owners: BTreeMap<String, String> = owners.iter().map(|row| (cell(row, 0), cell(row, 1))).collect();
        for News { id, words } in self.news.clone() {
            let (_, shown) = self.get(&format!("/api/v1/campaigns/{id}")).await;
            let mut states = shown["progress"]["states"].as_object().cloned().unwrap_or_default();
            let all: i64 = states.values().filter_map(Value::as_i64).sum();
            if let Some(state) = owners.get(&id)
                && let Some(count) = states.get_mut(state)
            {
                *count = json!(count.as_i64().unwrap_or(0) - 1);
            }
            let of = |state: &str| states.get(state).and_then(Value::as_i64).unwrap_or(0);
            let others = all - i64::from(owners.contains_key(&id));
            let chats = self.shop.sandbox.chats().into_iter().filter(|chat| *chat != ADMIN);
            let copies: Vec<usize> =
                chats.map(|chat| self.shop.chat(chat).iter().filter(|text| **text == words).count()).collect();
            let arrived = i64::try_from(copies.iter().sum::<usize>()).unwrap_or(i64::MAX);
            let is_over = shown["state"] == "finished" && Some(all) == shown["recipients"].as_i64();
            let is_told = of("sent") <= arrived && arrived <= of("sent") + of("unknown");
            let is_whole = self.model.faults || of("sent") + of("skipped") == others;
            if !is_over || !is_told || !is_whole || copies.iter().any(|copies| *copies > 1) {
                wrong.push(format!("{words} came {arrived} times, {:?} at most: {shown}", copies.iter().max()));
            }
        }
        wrong
    }
}
