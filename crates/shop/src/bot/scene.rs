//! One update in the hands of the bot: whose it is, in which language, and how it is answered.

use semel_kernel::store::Tx;

use super::model::{Card, Who};
use super::{ANSWER, texts};
use crate::customers::{self, Customer, NewCustomer};
use crate::messages::{self, Body, Class, Language, New};
use crate::{Error, Shop};

/// Whether this shop rewards who brings a friend.
pub(super) fn rewards(shop: &Shop) -> bool {
    shop.rules.referral.0 > 0
}

/// The person and the answers so far.
pub(super) struct Scene {
    pub(super) who: Who,
    pub(super) customer: Customer,
    pub(super) language: Language,
    /// Answers so far: each has a number, so that the same update never gives one twice.
    said: u32,
}

impl Scene {
    /// The person behind an update: known from now on, and reachable, because they just wrote. A language that they chose is
    /// kept, whatever their Telegram says.
    pub(super) fn open(tx: &mut Tx, shop: &Shop, who: &Who) -> Result<Scene, Error> {
        let known = customers::flows::find_by_telegram(tx, who.person)?;
        let customer = match known {
            Some(customer) if customer.language.is_some() || who.language.is_none() => customer,
            _ => {
                let new = NewCustomer {
                    telegram_id: who.person,
                    email: None,
                    phone: None,
                    language: who.language.clone(),
                    referrer_telegram_id: who.referrer,
                };
                customers::flows::upsert(tx, shop, &new)?
            }
        };
        customers::flows::reached(tx, who.person)?;
        let language = Language::of(customer.language.as_deref());
        Ok(Scene { who: who.clone(), customer, language, said: 0 })
    }

    /// The person as an order or a trial names them.
    pub(super) fn person(&self) -> NewCustomer {
        NewCustomer {
            telegram_id: self.who.person,
            email: None,
            phone: None,
            language: None,
            referrer_telegram_id: None,
        }
    }

    /// Answers, once for this update.
    pub(super) fn say(&mut self, tx: &mut Tx, shop: &Shop, card: Card) -> Result<(), Error> {
        self.said += 1;
        let Who { bot, update, received, .. } = &self.who;
        let key = format!("bot:{bot}:{update}:{received}:{}", self.said);
        self.say_once(tx, shop, key, card)
    }

    /// Answers, once for each `key`.
    pub(super) fn say_once(&self, tx: &mut Tx, shop: &Shop, key: String, card: Card) -> Result<(), Error> {
        let Card { html, buttons } = card;
        let body = if buttons.is_empty() { Body::Text { html } } else { Body::Card { html, buttons } };
        let new = New {
            dedup_key: key,
            chat_id: self.who.person,
            class: Class::AtLeastOnce,
            kind: ANSWER,
            body,
            order: None,
        };
        messages::flows::queue(tx, shop, new)
    }

    /// Answers with a text and the menu.
    pub(super) fn menu(&mut self, tx: &mut Tx, shop: &Shop, html: &str) -> Result<(), Error> {
        let card = texts::menu(self.language, shop.vpn.is_some(), rewards(shop), html);
        self.say(tx, shop, card)
    }
}
