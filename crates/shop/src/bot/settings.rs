//! What a customer wants to be told. Money and goods are always told.

use semel_kernel::store::Tx;
use semel_payments::Rail;

use super::model::{Card, Door, Topic};
use super::scene::{Scene, rewards};
use super::texts;
use crate::{Error, Shop, notices};

/// Every topic with its switch, where receipts go, and the language.
pub(super) fn show(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let language = scene.language;
    let off = notices::flows::switched_off(tx, &scene.customer.id)?;
    let mut card = Card::text(texts::settings(language));
    for topic in Topic::ALL {
        // Where nobody is rewarded there is nothing to be told about it; and nothing sends digests yet.
        if topic == Topic::Digests || (topic == Topic::Rewards && !rewards(shop)) {
            continue;
        }
        let is_off = topic.kinds().iter().all(|kind| off.iter().any(|word| word == kind));
        card = card.row(vec![Door::Notices(topic, is_off).button(texts::topic(language, topic, !is_off))]);
    }
    if shop.rails.values().any(Rail::needs_contact) {
        card = card.row(vec![Door::Contact.button(texts::receipts(language))]);
    }
    let choice = Door::Languages.button(texts::word(language, "🌐 Язык", "🌐 Language"));
    let back = Door::Start.button(texts::word(language, "« Меню", "« Menu"));
    scene.say(tx, shop, card.row(vec![choice, back]))
}

/// Tells a topic from now on, or does not. The same press twice is the same.
pub(super) fn set(tx: &mut Tx, shop: &Shop, scene: &mut Scene, topic: Topic, is_on: bool) -> Result<(), Error> {
    for kind in topic.kinds() {
        notices::flows::switch(tx, kind, scene.who.person, !is_on)?;
    }
    show(tx, shop, scene)
}
