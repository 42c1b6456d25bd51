//! The owner writes to all customers from the chat: words, a look at them, and one press.
//!
//! It is a campaign like any other, so nothing is different about how it leaves: it has to be looked at and tested first, the
//! number of people is said before it begins, and each of them has a row. What an owner does here stands in the owner's log.

use semel_kernel::args;
use semel_kernel::store::Tx;
use semel_telegram::Button;

use super::intents::Sheet;
use super::model::{Action, Card, Door};
use super::scene::Scene;
use super::{admin, dialogs, owner_texts as own, sql, texts};
use crate::campaigns::preview::{Preview, preview};
use crate::campaigns::segments::Rule;
use crate::campaigns::{self, CampaignId, Draft, State, Texts, Words};
use crate::messages::Class;
use crate::owner_log::{self, Act};
use crate::{Error, Shop};

/// Broadcasts that are offered to be stopped: the newest.
const OFFERS: i64 = 3;

/// Asks for the words.
pub(super) fn ask(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<(), Error> {
    dialogs::begin(tx, &scene.who, dialogs::BROADCAST)?;
    let card = Card::text(own::ask(scene.language));
    scene.say(tx, shop, card)
}

/// Makes a draft for everybody of the words, sends it to the owner as a test, and asks whether to begin. Words that Telegram would
/// not take are refused with the reason, and others are waited for.
pub(super) fn words(tx: &mut Tx, shop: &Shop, scene: &mut Scene, html: &str) -> Result<(), Error> {
    let language = scene.language;
    if html.trim().is_empty() {
        return scene.say(tx, shop, Card::text(own::text_only(language)));
    }
    let by = actor(scene);
    let title = format!("{} {}", texts::word(language, "Из чата,", "From the chat,"), minute(tx));
    let said = Words { html: html.to_owned(), buttons: Vec::new() };
    let draft = Draft {
        title,
        class: Class::AtMostOnce,
        rule: Rule::default(),
        texts: Texts::from([(language.as_str().to_owned(), said)]),
        media: None,
    };
    let id = match campaigns::flows::create(tx, shop, &draft, &by) {
        Ok(id) => id,
        // Nothing was written yet, so the next words may do better.
        Err(Error::Invalid { reason, .. }) => {
            return scene.say(tx, shop, Card::text(own::refused(language, &reason)));
        }
        Err(error) => return Err(error),
    };
    dialogs::end(tx, &scene.who)?;
    let shown = preview(tx, shop, &id)?;
    campaigns::flows::test(tx, shop, &id)?;
    offer(tx, shop, scene, &shown, own::test_comes(language), false)?;
    log(tx, scene, "campaign.create", &id)
}

/// Begins it, if it is still what the button was made for. Otherwise nothing is sent, and the owner gets another button.
pub(super) fn start(
    tx: &mut Tx,
    shop: &Shop,
    scene: &mut Scene,
    id: &CampaignId,
    wanted: (i64, i64),
    sure: bool,
) -> Result<(), Error> {
    let language = scene.language;
    if !admin::is_owner(shop, scene.who.person) {
        return scene.menu(tx, shop, texts::no_such_button(language));
    }
    let (content, people) = wanted;
    let found = match campaigns::flows::find(tx, id) {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return scene.menu(tx, shop, texts::no_such_button(language)),
        Err(error) => return Err(error),
    };
    if found.state != State::Draft {
        return show(tx, shop, scene, id);
    }
    let shown = preview(tx, shop, id)?;
    let count = shown.audience.to_send;
    if found.content != content {
        return offer(tx, shop, scene, &shown, own::changed(language), false);
    }
    if shown.missing.is_some() {
        return offer(tx, shop, scene, &shown, own::no_test_yet(language), false);
    }
    if shown.over_limit || count == 0 {
        return offer(tx, shop, scene, &shown, own::cannot(language), false);
    }
    // Over the owner's number the same number is said twice, as everywhere.
    if shown.confirm.is_some() && !(sure && count == people) {
        return offer(tx, shop, scene, &shown, own::sure(language), true);
    }
    let by = actor(scene);
    campaigns::flows::start(tx, shop, id, shown.confirm, &by)?;
    let progress = Door::Campaign(id.clone()).button(own::progress(language));
    let stop = stop_button(tx, shop, scene, id, own::stop(language))?;
    scene.say(tx, shop, Card::text(own::begun(language, count)).row(vec![progress, stop]))?;
    log(tx, scene, "campaign.start", id)
}

/// How far it is, with what can be done about it.
pub(super) fn show(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &CampaignId) -> Result<(), Error> {
    let language = scene.language;
    let view = match campaigns::view::one(tx, shop, id) {
        Ok(view) => view,
        Err(Error::NotFound { .. }) => return scene.menu(tx, shop, texts::no_such_button(language)),
        Err(error) => return Err(error),
    };
    let state = view.line.state;
    let mut card = Card::text(own::stands(language, &view));
    if !matches!(state, State::Finished | State::Cancelled) {
        let words = if state == State::Draft { own::throw_away(language) } else { own::stop(language) };
        let stop = stop_button(tx, shop, scene, id, words)?;
        card = card.row(vec![Door::Campaign(id.clone()).button(own::progress(language)), stop]);
    }
    scene.say(tx, shop, card)
}

/// Offers to stop what is on its way, whoever began it; whether there is such a thing.
pub(super) fn offer_stop(tx: &mut Tx, shop: &Shop, scene: &mut Scene) -> Result<bool, Error> {
    let language = scene.language;
    let running = tx.rows(sql::RUNNING_CAMPAIGNS, args![OFFERS])?;
    if running.is_empty() {
        return Ok(false);
    }
    let mut card = Card::text(own::stop_which(language));
    for row in &running {
        let id: CampaignId = row.get(0)?;
        let view = campaigns::view::one(tx, shop, &id)?;
        // Each is a decision of its own.
        let stop = stop_button(tx, shop, scene, &id, own::stop_one(language, &view))?;
        card = card.row(vec![stop]);
    }
    scene.say(tx, shop, card)?;
    Ok(true)
}

/// A button that stops this broadcast and is alone in its decision.
fn stop_button(
    tx: &mut Tx,
    shop: &Shop,
    scene: &Scene,
    id: &CampaignId,
    words: impl Into<String>,
) -> Result<Button, Error> {
    let sheet = Sheet::new(shop, scene.who.person);
    sheet.button(tx, shop, words, &Action::StopCampaign { campaign: id.clone() })
}

/// Throws a draft away, or calls off what runs: who has not got it gets it no more.
pub(super) fn stop(tx: &mut Tx, shop: &Shop, scene: &mut Scene, id: &CampaignId) -> Result<(), Error> {
    let language = scene.language;
    if !admin::is_owner(shop, scene.who.person) {
        return scene.menu(tx, shop, texts::no_such_button(language));
    }
    let found = campaigns::flows::find(tx, id)?;
    if matches!(found.state, State::Finished | State::Cancelled) {
        return show(tx, shop, scene, id);
    }
    let by = actor(scene);
    campaigns::flows::cancel(tx, shop, id, &by)?;
    let told = if found.state == State::Draft { own::thrown_away(language) } else { own::stopped(language) };
    scene.say(tx, shop, Card::text(told))?;
    log(tx, scene, "campaign.cancel", id)
}

/// The look at it, with the button that begins it where it may begin. Both buttons are one decision.
fn offer(
    tx: &mut Tx,
    shop: &Shop,
    scene: &mut Scene,
    shown: &Preview,
    head: &'static str,
    sure: bool,
) -> Result<(), Error> {
    let language = scene.language;
    let people = shown.audience.to_send;
    let content = campaigns::flows::find(tx, &shown.id)?.content;
    let mut card = Card::text(own::preview(language, head, shown));
    let sheet = Sheet::new(shop, scene.who.person);
    if people > 0 && !shown.over_limit {
        let action = Action::StartCampaign { campaign: shown.id.clone(), content, people, sure };
        let begin = sheet.button(tx, shop, own::start(language, people, sure), &action)?;
        card = card.row(vec![begin]);
    }
    let action = Action::StopCampaign { campaign: shown.id.clone() };
    let away = sheet.button(tx, shop, own::throw_away(language), &action)?;
    scene.say(tx, shop, card.row(vec![away]))
}

/// Writes the row of the owner's log. It is the last thing: who appends makes all others wait who append.
fn log(tx: &mut Tx, scene: &Scene, action: &'static str, id: &CampaignId) -> Result<(), Error> {
    let act = Act::new(&actor(scene), action, id.as_str(), "by the bot");
    Ok(owner_log::flows::append(tx, &act)?)
}

fn actor(scene: &Scene) -> String {
    format!("telegram:{}", scene.who.person)
}

/// Now, to the minute.
fn minute(tx: &Tx) -> String {
    tx.now().to_string().chars().take(16).collect::<String>().replace('T', " ")
}
