//! What belongs to a person besides orders: money, friends and language; and the pages that say what the bot is.

use semel_kernel::args;
use semel_kernel::store::{Expect, Tx};

use super::model::{Card, Door};
use super::scene::{Scene, rewards};
use super::{admin, flows, sql, texts};
use crate::catalog::{self, Kind};
use crate::messages::Language;
use crate::{Error, Shop, ledger, notices};

/// Products that are looked through for top-ups.
const LOOK_AT: i64 = 100;
/// Top-ups that are offered.
const OFFERS: usize = 6;

/// The greeting with the menu, in the owner's words if there are any.
pub(super) fn start(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let html = said_by_owner(tx, scene, "start", texts::greeting)?;
    scene.menu(tx, shop, &html)
}

/// What the bot can do: the owner's words if there are any, and every command below them.
pub(super) fn help(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let head = said_by_owner(tx, scene, "help", texts::help)?;
    let is_owner = admin::is_owner(shop, scene.who.person);
    let html = format!("{head}\n\n{}", texts::command_list(scene.language, rewards(shop), is_owner));
    scene.menu(tx, shop, &html)
}

/// The balance, and what adds to it.
pub(super) fn balance(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let language = scene.language;
    let balances = ledger::balances(tx, &scene.customer.id)?;
    let mut card = Card::text(texts::balance(language, &balances));
    let products = catalog::flows::list(tx, None, LOOK_AT)?;
    for product in products.iter().filter(|product| product.kind == Kind::Topup && product.active).take(OFFERS) {
        card = card.row(vec![Door::Ways(product.id.clone()).button(texts::offer(language, product))]);
    }
    scene.say(tx, shop, card)
}

/// The link for friends.
pub(super) fn invite(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let name = flows::name(tx, &scene.who.bot)?;
    let friends: i64 = tx.one(sql::FRIENDS, args![&scene.customer.id])?.get(0)?;
    // Where nobody is rewarded, nothing is promised.
    let share = rewards(shop).then(|| percent(shop.rules.referral.0));
    let html = texts::invite(scene.language, name.as_deref(), scene.who.person, share.as_deref(), friends);
    scene.say(tx, shop, Card::text(html))
}

/// Hundredths of a percent as a decimal number.
fn percent(points: u32) -> String {
    let (whole, rest) = (points / 100, points % 100);
    match rest {
        0 => whole.to_string(),
        _ => format!("{whole}.{rest:02}").trim_end_matches('0').to_owned(),
    }
}

/// The choice of a language.
pub(super) fn languages(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let choices =
        vec![Door::Language(Language::Russian).button("Русский"), Door::Language(Language::English).button("English")];
    let card = Card::text(texts::choose_language(scene.language)).row(choices);
    scene.say(tx, shop, card)
}

/// Another language for everything that this person reads from now on.
pub(super) fn set_language(tx: &mut Tx, shop: &Shop, scene: &mut Scene, language: Language) -> Result<(), Error> {
    tx.later(sql::SET_LANGUAGE, args![&scene.customer.id, language.as_str()], Expect::Rows(1))?;
    scene.language = language;
    scene.menu(tx, shop, texts::language_is(language))
}

/// The terms, in the owner's words if there are any.
pub(super) fn terms(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let html = said_by_owner(tx, scene, "terms", texts::terms)?;
    scene.say(tx, shop, Card::text(html))
}

/// What is kept about people, in the owner's words if there are any.
pub(super) fn privacy(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    let html = said_by_owner(tx, scene, "privacy", texts::privacy)?;
    scene.say(tx, shop, Card::text(html))
}

/// A page of which the owner may have a text of their own.
pub(super) fn said_by_owner(
    tx: &mut Tx,
    scene: &Scene,
    kind: &str,
    ours: fn(Language) -> &'static str,
) -> Result<String, Error> {
    let language = scene.language;
    let said = notices::flows::say(tx, &scene.customer, kind, &[], |_| ours(language).to_owned())?;
    Ok(said.unwrap_or_else(|| ours(language).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_share_is_told_as_short_as_it_can_be() {
        for (points, told) in [(0, "0"), (1000, "10"), (1050, "10.5"), (1005, "10.05"), (5, "0.05")] {
            assert_eq!(percent(points), told);
        }
    }
}
