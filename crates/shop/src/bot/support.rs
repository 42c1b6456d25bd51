//! Questions of customers to the owner, and the owner's answers.
//!
//! The owner answers by Telegram's reply to the message with a customer's words: its number leads to its row, whose key names the
//! customer. The answer is a message like all others, and the owner is told when it has arrived or cannot.

use semel_kernel::store::Tx;
use semel_telegram::{Button, html_escape};

use super::model::{Card, Who};
use super::scene::Scene;
use super::{account, dialogs, owner_texts, texts};
use crate::alerts::flows::{Asks, Handed};
use crate::messages::{Body, Class, Language, New, REPLY};
use crate::{Error, Shop, alerts, customers, messages, orders};

/// The longest word to the owner, in characters.
const SUPPORT_CHARS: usize = 400;

/// A word to the owner, who answers by replying to it. Without words it is said how to write them, and the next ones are taken: a command
/// that is tapped in Telegram's menu comes alone.
pub(super) fn ask(tx: &mut Tx, shop: &Shop, scene: &mut Scene, asks: Asks, words: &str) -> Result<(), Error> {
    let language = scene.language;
    let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SUPPORT_CHARS).collect();
    if words.trim().is_empty() {
        let (step, card) = match asks {
            Asks::Help => {
                (dialogs::SUPPORT, Card::text(account::said_by_owner(tx, scene, "support", texts::support_how)?))
            }
            Asks::Payment => (dialogs::PAYSUPPORT, paysupport(shop, language)),
        };
        dialogs::begin(tx, &scene.who, step)?;
        return scene.say(tx, shop, card);
    }
    dialogs::end(tx, &scene.who)?;
    // Their row is held until the end: of one customer's words one update at a time is counted.
    customers::flows::upsert(tx, shop, &scene.person())?;
    let latest = orders::flows::of_customer(tx, &scene.customer.id, 1)?.pop().map(|order| order.id);
    let told = match alerts::flows::hand_on(tx, shop, scene.who.person, asks, words.trim(), latest.as_ref())? {
        Handed::On => texts::support_sent(language),
        Handed::Enough => texts::support_enough(language),
        Handed::ToNobody => texts::support_nobody(language),
    };
    scene.say(tx, shop, Card::text(told))
}

/// Sends an owner's words to the customer whose question `message` handed on, once for this update. False when it is no such message:
/// then nothing was done.
pub(super) fn reply(tx: &mut Tx, shop: &Shop, scene: &mut Scene, message: i64, words: &str) -> Result<bool, Error> {
    let Some(person) = alerts::flows::who_asked(tx, scene.who.person, message)? else { return Ok(false) };
    dialogs::end(tx, &scene.who)?;
    if words.trim().is_empty() {
        let html = owner_texts::only_words(scene.language);
        scene.say(tx, shop, Card::text(html))?;
        return Ok(true);
    }
    let customer = customers::flows::find_by_telegram(tx, person)?;
    let language = Language::of(customer.and_then(|customer| customer.language).as_deref());
    let html = texts::answer(language, &html_escape(words.trim()));
    let Who { bot, update, received, .. } = &scene.who;
    let new = New {
        dedup_key: format!("reply:{bot}:{update}:{received}"),
        chat_id: person,
        class: Class::AtLeastOnce,
        kind: REPLY,
        body: Body::Text { html },
        order: None,
    };
    messages::flows::queue(tx, shop, new)?;
    Ok(true)
}

/// What to do about a payment, with the owner's link where there is one.
fn paysupport(shop: &Shop, language: Language) -> Card {
    let mut card = Card::text(texts::paysupport(language));
    if let Some(address) = shop.vpn.as_ref().and_then(|part| part.rules.support.as_deref()) {
        card = card.row(vec![Button::url(texts::support_link(language), address)]);
    }
    card
}
