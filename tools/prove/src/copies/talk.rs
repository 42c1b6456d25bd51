//! What is said while everything breaks: people who buy by the bot's buttons, tapping more than once, and news for everybody.
//!
//! The bot asks for its updates, so of the copies one at a time has that right, and another one takes it over when that one
//! dies, freezes, or loses its database. Now and then everything that was ever said comes again to whoever asks from the
//! beginning, as a copy does that takes over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::load::{Load, Order, Shelf, WAITING};
use crate::program::text;

/// The first of those who talk to the bot; nobody else has a number from here on.
pub const TALKERS: i64 = 8_000_000;
/// The first of those who get the news and nothing else.
pub const READERS: i64 = 5_000_000;
/// What the news say.
pub const NEWS: &str = "Everything goes on";
/// One person in this time.
const EVERY: Duration = Duration::from_millis(1500);
/// After so many of them all updates come again.
const REPEATED: u64 = 10;
/// How long somebody waits for an answer before giving up.
const PATIENT: Duration = Duration::from_secs(60);

/// The statement that makes so many readers.
pub fn readers(count: u64) -> String {
    format!(
        "insert into semel.customers (id, telegram_id, language, created_at)
         select 'cus_' || lpad(to_hex(n), 32, '0'), {READERS} + n, 'ru', n from generate_series(1, {count}) n"
    )
}

/// People.
impl Load {
    /// A person comes every one and a half seconds until it is closing.
    pub async fn talk(self: Arc<Self>, shelf: Shelf) {
        let mut people = JoinSet::new();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut number = 0;
        while !self.closing.load(Ordering::SeqCst) {
            tick.tick().await;
            while let Some(ended) = people.try_join_next() {
                self.ended(ended);
            }
            people.spawn(Arc::clone(&self).person(number, shelf.clone()));
            number += 1;
            if number % REPEATED == 0 {
                self.sandbox.repeat_updates();
            }
        }
        while let Some(ended) = people.join_next().await {
            self.ended(ended);
        }
    }

    /// Somebody comes by a link to the product, and taps once or more on a way to pay.
    async fn person(self: Arc<Self>, number: u64, shelf: Shelf) {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ 0x7461_6c6b ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let who = TALKERS + i64::try_from(number).unwrap_or_default();
        self.sandbox.set_language(who, "en");
        self.said(self.sandbox.say(who, &format!("/start buy_{}", shelf.key)));
        if !self.taps(who, "Buy for").await || !self.taps(who, "Card").await {
            return;
        }
        for _ in 0..chance.u8(0..3) {
            sleep(Duration::from_millis(chance.u64(0..600))).await;
            if let Some(update) = self.sandbox.press(who, "Card") {
                self.said(update);
            }
        }
        if let Some(order) = self.order_by_button(who).await {
            self.pays(&order);
        }
    }

    /// Notes the number of an update: there is none above the highest.
    fn said(&self, update: i64) {
        self.counts.last_update.fetch_max(u64::try_from(update).unwrap_or_default(), Ordering::SeqCst);
    }

    /// Taps on a button as soon as it is there. Whoever gets none gives up.
    async fn taps(&self, who: i64, words: &str) -> bool {
        let end = Instant::now() + PATIENT;
        while Instant::now() < end {
            if let Some(update) = self.sandbox.press(who, words) {
                self.said(update);
                return true;
            }
            sleep(Duration::from_millis(150)).await;
        }
        false
    }

    /// The order that came of it, once its payment is opened. None where it was sold out, or the provider not there.
    async fn order_by_button(&self, who: i64) -> Option<Order> {
        let end = Instant::now() + WAITING;
        while Instant::now() < end {
            sleep(Duration::from_millis(400)).await;
            let list = format!("/api/v1/orders?customer={who}&limit=20");
            let Ok((200, listed)) = self.send(Method::GET, &list, None, None).await else { continue };
            let id = text(&listed["items"][0]["id"]);
            if id.is_empty() {
                continue;
            }
            let Ok((200, shown)) = self.send(Method::GET, &format!("/api/v1/orders/{id}"), None, None).await else {
                continue;
            };
            let order = Order::read(&shown);
            if order.is_open_there() {
                return Some(order);
            }
        }
        None
    }
}

/// News.
impl Load {
    /// News for all customers of this moment, looked at, tested and begun while all is well. None when that did not come true.
    pub async fn news(&self) -> Option<()> {
        let draft = json!({ "title": "News", "rule": {}, "texts": { "ru": { "html": NEWS } } });
        let made = self.wants("/api/v1/campaigns", &draft, "news", 201).await?;
        let path = format!("/api/v1/campaigns/{}", text(&made["id"]));
        for what in ["preview", "test"] {
            self.wants(&format!("{path}/{what}"), &json!({}), &format!("news-{what}"), 200).await?;
        }
        let end = Instant::now() + PATIENT;
        while Instant::now() < end {
            if let Ok((200, shown)) = self.send(Method::GET, &path, None, None).await
                && shown["tested"] == true
            {
                return self.wants(&format!("{path}/start"), &json!({}), "news-start", 200).await.map(|_| ());
            }
            sleep(Duration::from_millis(100)).await;
        }
        None
    }
}
