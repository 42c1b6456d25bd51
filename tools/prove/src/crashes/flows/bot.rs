//! What the flows about the bot share: a person who writes and presses, and waits for the answer as people do.
//!
//! Each person buys once: an answer that came twice after a death is never taken for the next one.

use super::Sale;
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// The way to pay.
pub const TO_PAY: &str = "How would you like to pay?";
/// An order that is made and not paid.
pub const UNPAID: &str = "waits for payment";

impl Stage {
    /// From now on every process asks Telegram for updates.
    pub fn with_polling(&self) {
        self.wear("SEMEL_TELEGRAM_UPDATES", "polling");
    }

    /// How many of the bot's messages to a person hold these words.
    pub fn times_said(&self, person: i64, words: &str) -> usize {
        let chat = self.world.sandbox.chat(person);
        chat.iter().filter(|message| !message.own && message.text.contains(words)).count()
    }

    /// Waits until so many messages to a person hold these words.
    pub async fn until_said(&self, person: i64, words: &str, times: usize) {
        let patience = Patience::of(format!("the bot says {words:?} to {person}"), 120);
        while self.times_said(person, words) < times {
            pause(&patience).await;
        }
    }

    /// Somebody writes to the bot, which asks for updates, and waits for an answer with these words.
    pub async fn tells(&self, person: i64, words: &str, answer: &str) {
        let before = self.times_said(person, answer);
        self.world.sandbox.say(person, words);
        self.until_said(person, answer, before + 1).await;
    }

    /// Somebody presses the newest button with these words, and waits for an answer.
    pub async fn presses(&self, person: i64, button: &str, answer: &str) {
        let before = self.times_said(person, answer);
        self.taps(person, button);
        self.until_said(person, answer, before + 1).await;
    }

    /// Somebody presses the newest button with these words, and waits for nothing.
    pub fn taps(&self, person: i64, button: &str) {
        let pressed = self.world.sandbox.press(person, button);
        assert!(pressed.is_some(), "{person} has a button {button:?}");
    }

    /// An English speaker comes to the ways to pay for the usual key.
    pub async fn comes_to_pay(&self, person: i64) {
        self.world.sandbox.set_language(person, "en");
        self.tells(person, "/start", "Hello!").await;
        self.presses(person, "Catalog", "On sale:").await;
        self.presses(person, "Licence key", "Price:").await;
        self.presses(person, "Buy for", TO_PAY).await;
    }

    /// The only order of a person, with its payment opened.
    pub async fn only_order(&self, person: i64) -> Sale {
        let listed = items(&self.get(&format!("/api/v1/orders?customer={person}&limit=20")).await);
        assert_eq!(listed.len(), 1, "customer {person} has one order: {listed:?}");
        self.opened(&text(&listed[0]["id"])).await
    }

    /// Waits until every update that people caused was taken.
    pub async fn until_heard(&self) {
        let patience = Patience::of("the bot has taken every update", 120);
        while self.world.sandbox.waiting_updates() > 0 {
            pause(&patience).await;
        }
    }
}
