//! The job that works one update off.
//!
//! What an update causes commits together with its end, with two exceptions. An order by a button commits first, together with
//! the press, because its provider is called next; the rest of that is safe to repeat. And words that a button waited for are kept
//! with the button that they press, which is pressed next.

use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::Tx;
use semel_telegram::{Command, Paid, Person, Update, What, html_of};

use super::intents::{self, Taken};
use super::model::{Action, Buy, Card, Door, Who};
use super::scene::Scene;
use super::{
    access, account, admin, broadcast, buy, catalog, dialogs, flows, orders, owner_texts, settings, still, support,
    texts,
};
use crate::alerts::flows::Asks;
use crate::audit::{Flow, stops};
use crate::messages::Language;
use crate::orders::OrderId;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, checkout, customers, safety, stars};

/// Works off one update.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkUpdate {
    /// The bot that it came to.
    pub bot: String,
    /// Telegram's number of it.
    pub update: i64,
    /// When it came in, in milliseconds: after a week of silence Telegram's numbers may begin anew, and lower.
    pub received: i64,
}

/// What somebody wants.
#[derive(Clone, Debug)]
enum Wish {
    /// To be shown something.
    Show(Door),
    /// What a button does.
    Press(String),
    /// A button that is none of ours.
    Forged,
    /// To be reached no more, or again.
    Reach(bool),
    /// Nothing: money came or went, and that has to be looked into.
    Money(Paid, stars::Told),
}

impl Job for WorkUpdate {
    type Context = Shop;
    const KIND: &'static str = "bot.update";
    const LANE: &'static str = Lanes::BOT;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(100), 24);

    fn slot(&self) -> Option<String> {
        Some(format!("{}:{}:{}", self.bot, self.update, self.received))
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let (bot, update) = (self.bot.clone(), self.update);
        let found = shop.look("bot.load", move |tx| flows::waiting(tx, &bot, update)).await?;
        let Some((body, button)) = found else { return self.over(shop, claim).await };
        let value = serde_json::from_str::<Value>(&body).ok();
        let read = match &value {
            Some(value) => Update::read(value).map_err(|error| error.to_string()),
            None => Err("the update is no JSON".to_owned()),
        };
        match read.map(|update| wish(update.what)) {
            Ok(Some((person, mut wish))) => {
                // Its words pressed a button before their worker died.
                if let Some(button) = button {
                    wish.0 = Wish::Press(button);
                }
                // Only an owner's words may be the text of a broadcast, and keep their marks.
                if admin::is_owner(shop, person.id)
                    && let Wish::Show(Door::Words { html, .. }) = &mut wish.0
                {
                    let message = value.as_ref().and_then(|value| value.get("message"));
                    *html = message.and_then(html_of).unwrap_or_default();
                }
                let referrer = referrer(&person, &wish.1);
                let who = Who {
                    bot: self.bot.clone(),
                    update: self.update,
                    received: self.received,
                    person: person.id,
                    language: person.language.filter(|code| is_code(code)),
                    referrer,
                };
                Working { shop, claim, who }.run(wish.0).await
            }
            Ok(None) => self.over(shop, claim).await,
            Err(text) => self.unreadable(shop, claim, text).await,
        }
    }
}

impl WorkUpdate {
    /// Ends an update that causes nothing.
    async fn over(&self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let (bot, update) = (self.bot.clone(), self.update);
        let ended = shop.write("bot.over", move |tx, _| {
            flows::done(tx, &bot, update, None)?;
            Ok(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }

    /// Puts an update aside that nobody can read: it holds nothing up.
    async fn unreadable(&self, shop: &Shop, claim: Claim, error: String) -> Result<Ended, JobError> {
        let (bot, update) = (self.bot.clone(), self.update);
        let ended = shop.write("bot.unreadable", move |tx, shop| {
            flows::unreadable(tx, shop, &bot, update, &error)?;
            Ok(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}

/// A wish, and what stood behind a `/start`.
type Wished = (Wish, Option<String>);

/// Who wants what; nothing for what the bot does not answer: groups, channels, other bots, news of other kinds.
fn wish(what: What) -> Option<(Person, Wished)> {
    match what {
        What::Said(said) => {
            let person = said.from.filter(|person| said.private && person.id == said.chat)?;
            let payload = start_payload(said.command.as_ref());
            let words = || Door::Words { html: String::new(), plain: said.text.clone(), reply_to: said.reply_to };
            let door = said.command.as_ref().map_or_else(words, Door::of_command);
            Some((person, (Wish::Show(door), payload)))
        }
        What::Pressed(press) => {
            // Data from another chat is forged, or the message stands in a group.
            let wish = match (press.chat.is_none_or(|chat| chat == press.from.id), intents::is_id(&press.data)) {
                (true, true) => Wish::Press(press.data),
                (true, false) => Door::of_data(&press.data).map_or(Wish::Forged, Wish::Show),
                (false, _) => Wish::Forged,
            };
            Some((press.from, (wish, None)))
        }
        What::Membership(member) if member.private => {
            Some((Person { id: member.chat, language: None }, (Wish::Reach(member.reachable), None)))
        }
        What::Paid(money) => Some(told_of(money, stars::Told::Paid)),
        What::Refunded(money) => Some(told_of(money, stars::Told::Refunded)),
        // Whoever is about to pay was answered when this came in; nothing is left to do.
        What::Checkout(_) | What::Membership(_) | What::Other => None,
    }
}

fn told_of(money: Paid, told: stars::Told) -> (Person, Wished) {
    (Person { id: money.chat, language: None }, (Wish::Money(money, told), None))
}

fn start_payload(command: Option<&Command>) -> Option<String> {
    command.filter(|command| command.name == "start").map(|command| command.payload.clone())
}

/// Whose link somebody came by. It counts when they are new, and never for themselves.
fn referrer(person: &Person, payload: &Option<String>) -> Option<i64> {
    let id: i64 = payload.as_deref()?.strip_prefix("ref_")?.parse().ok()?;
    (id > 0 && id != person.id).then_some(id)
}

/// Whether a language is a code as customers may have one. It comes from outside and must stop nobody.
fn is_code(text: &str) -> bool {
    (2..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// An update in the hands of a worker.
struct Working<'a> {
    shop: &'a Shop,
    claim: Claim,
    who: Who,
}

/// What showing something came to.
enum Shown {
    /// The update is over.
    Ended(Ended),
    /// The words are what a button waited for: it is pressed now.
    Press(String),
}

/// What taking a button came to.
enum Pressed {
    /// The update is over.
    Ended(Ended),
    /// There is an order; its payment is to be opened, and its customer told.
    Ordered(OrderId, Buy),
}

impl Working<'_> {
    async fn run(self, wish: Wish) -> Result<Ended, JobError> {
        match wish {
            Wish::Press(intent) => self.press(intent).await,
            Wish::Show(door) => {
                let is_trial = door == Door::Trial;
                let (claim, who) = (self.claim.clone(), self.who.clone());
                let is_menu = matches!(door, Door::Start | Door::Help);
                let shown = self.shop.write("bot.show", move |tx, shop| {
                    let mut scene = Scene::open(tx, shop, &who)?;
                    if let Some(button) = show(tx, shop, &mut scene, &door)? {
                        flows::presses(tx, &who.bot, who.update, &button)?;
                        return Ok(Shown::Press(button));
                    }
                    flows::done(tx, &who.bot, who.update, None)?;
                    Ok(Shown::Ended(claim.finish(tx)?))
                });
                let shown = if is_menu { self.patiently(shown).await } else { shown.await };
                match shown {
                    Ok(Shown::Ended(ended)) => Ok(ended),
                    Ok(Shown::Press(button)) => self.press(button).await,
                    Err(error) => self.refuse(error, is_trial).await,
                }
            }
            Wish::Forged => {
                let (claim, who) = (self.claim.clone(), self.who.clone());
                let told = self.shop.write("bot.forged", move |tx, shop| {
                    let mut scene = Scene::open(tx, shop, &who)?;
                    let words = texts::no_such_button(scene.language);
                    scene.menu(tx, shop, words)?;
                    flows::done(tx, &who.bot, who.update, None)?;
                    Ok(claim.finish(tx)?)
                });
                Ok(told.await?)
            }
            Wish::Reach(is_reachable) => {
                let (claim, who) = (self.claim.clone(), self.who.clone());
                let noted = self.shop.write("bot.reach", move |tx, _| {
                    // Who restarts the bot shuts it out and lets it in at once, and the two jobs may run in any order.
                    let is_news = !flows::is_outdated(tx, &who.bot, who.update, who.person)?;
                    if is_news && is_reachable {
                        customers::flows::reached(tx, who.person)?;
                    } else if is_news {
                        customers::flows::unreachable(tx, &[who.person])?;
                    }
                    flows::done(tx, &who.bot, who.update, None)?;
                    Ok(claim.finish(tx)?)
                });
                Ok(noted.await?)
            }
            Wish::Money(money, told) => {
                let (claim, who) = (self.claim.clone(), self.who.clone());
                let taken = self.shop.write("bot.money", move |tx, shop| {
                    stars::take(tx, shop, &money, told)?;
                    flows::done(tx, &who.bot, who.update, None)?;
                    Ok(claim.finish(tx)?)
                });
                Ok(taken.await?)
            }
        }
    }

    /// Waits for the menu, and shows the one that needs no database when that takes too long.
    async fn patiently(&self, shown: impl Future<Output = Result<Shown, Error>>) -> Result<Shown, Error> {
        let mut shown = pin!(shown);
        if let Ok(shown) = tokio::time::timeout(still::SLOW, shown.as_mut()).await {
            return shown;
        }
        if let Some(bot) = self.shop.bot.clone() {
            let (shop, language) = (self.shop.clone(), Language::of(self.who.language.as_deref()));
            let asked = still::Asked { chat: self.who.person, language };
            tokio::spawn(async move { still::show(&shop, &bot, asked).await });
        }
        shown.await
    }

    async fn press(&self, intent: String) -> Result<Ended, JobError> {
        let (id, chat) = (intent.clone(), self.who.person);
        let wanted = self.shop.look("bot.peek", move |tx| intents::peek(tx, &id, chat)).await?;
        if matches!(wanted, Some(Action::Buy(_))) {
            // The same two gates as at the API's door: what is stopped begins nothing, and the button stays as it is.
            if let Err(error) = safety::flows::permit(self.shop).await {
                return self.refuse(error, false).await;
            }
            if stops::holds(self.shop, Flow::Sales).await? {
                return self.refuse(Error::SafeMode, false).await;
            }
        }
        if matches!(wanted, Some(Action::NewKey { .. })) {
            // The old file ends with the press, so the new one must be able to leave.
            if let Err(error) = safety::flows::permit(self.shop).await {
                return self.refuse(error, false).await;
            }
            if stops::holds(self.shop, Flow::Deliveries).await? {
                return self.refuse(Error::Conflict("deliveries are stopped".into()), false).await;
            }
        }
        let is_trial = matches!(wanted, Some(Action::Trial));
        let needs_contact = matches!(&wanted, Some(Action::Buy(buy)) if buy.needs_contact(self.shop));
        let (claim, who) = (self.claim.clone(), self.who.clone());
        let pressed = self.shop.write("bot.press", move |tx, shop| {
            let mut scene = Scene::open(tx, shop, &who)?;
            if needs_contact && buy::waits_for_contact(tx, shop, &mut scene, &intent)? {
                flows::done(tx, &who.bot, who.update, None)?;
                return Ok(Pressed::Ended(claim.finish(tx)?));
            }
            dialogs::end(tx, &who)?;
            if let Some((order, buy)) = act(tx, shop, &mut scene, &intent)? {
                return Ok(Pressed::Ordered(order, buy));
            }
            flows::done(tx, &who.bot, who.update, None)?;
            Ok(Pressed::Ended(claim.finish(tx)?))
        });
        match pressed.await {
            Ok(Pressed::Ended(ended)) => Ok(ended),
            Ok(Pressed::Ordered(order, buy)) => self.ordered(order, buy).await,
            Err(error) => self.refuse(error, is_trial).await,
        }
    }

    /// Opens the payment of an order, if it is not open yet, and tells the customer, once for each order.
    async fn ordered(&self, order: OrderId, buy: Buy) -> Result<Ended, JobError> {
        let person = customers::NewCustomer {
            telegram_id: self.who.person,
            email: None,
            phone: None,
            language: None,
            referrer_telegram_id: None,
        };
        let opened = checkout::flows::order(self.shop, buy.order(person), None, Some(order.clone())).await;
        let refusal = match opened {
            Ok(_) => None,
            // No repeat changes that. The order was called off, which is what the customer will read; only the owner can do more.
            Err(
                error @ (Error::ProviderRefused { .. }
                | Error::Invalid { .. }
                | Error::Conflict(_)
                | Error::NotFound { .. }),
            ) => Some(error.to_string()),
            Err(error @ Error::ProviderAway { .. }) => {
                self.link_comes(&order).await?;
                return Err(error.into());
            }
            // It may last for days, and its end brings the job forward.
            Err(Error::SafeMode) => {
                self.link_comes(&order).await?;
                return match safety::flows::wait(self.shop, &self.claim).await? {
                    Some(ended) => Ok(ended),
                    None => Err(Error::SafeMode.into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        let (claim, who, way) = (self.claim.clone(), self.who.clone(), buy.way.clone());
        let told = self.shop.write("bot.ordered", move |tx, shop| {
            if let Some(why) = &refusal {
                let day = tx.now().millis().div_euclid(flows::DAY_MS);
                let text = format!(
                    "Order {order} was made by a button and could not be paid by {way}: {why}. Others that day are not told of"
                );
                alerts::flows::raise(tx, shop, format!("bot-refused:{way}:{day}"), text)?;
            }
            let scene = Scene::open(tx, shop, &who)?;
            let view = crate::orders::OrderView::read(tx, &order)?;
            let card = buy::answer(tx, shop, &scene, &order, &view)?;
            scene.say_once(tx, shop, format!("bot:order:{order}"), card)?;
            flows::done(tx, &who.bot, who.update, None)?;
            Ok(claim.finish(tx)?)
        });
        Ok(told.await?)
    }

    /// Tells once that the link is still to come.
    async fn link_comes(&self, order: &OrderId) -> Result<(), Error> {
        let (who, key) = (self.who.clone(), format!("bot:wait:{order}"));
        let told = self.shop.write("bot.link_comes", move |tx, shop| {
            let scene = Scene::open(tx, shop, &who)?;
            scene.say_once(tx, shop, key.clone(), Card::text(texts::link_comes(scene.language)))
        });
        told.await
    }

    /// Tells the customer that nothing was done. What may pass by itself is tried again instead.
    async fn refuse(&self, error: Error, is_trial: bool) -> Result<Ended, JobError> {
        if matches!(error, Error::Store(_) | Error::ProviderAway { .. }) {
            return Err(error.into());
        }
        let (claim, who) = (self.claim.clone(), self.who.clone());
        let told = self.shop.write("bot.refuse", move |tx, shop| {
            let mut scene = Scene::open(tx, shop, &who)?;
            let words = match &error {
                Error::Conflict(_) if is_trial && shop.vpn.is_none() => texts::no_vpn(scene.language),
                Error::Conflict(_) if is_trial => texts::no_trial(scene.language),
                error => texts::refusal(scene.language, error),
            };
            scene.menu(tx, shop, words)?;
            flows::done(tx, &who.bot, who.update, Some(error.code()))?;
            Ok(claim.finish(tx)?)
        });
        Ok(told.await?)
    }
}

/// Takes a button and does what it is for. An order that was made, now or by an earlier press, is still to be told of.
fn act(tx: &mut Tx, shop: &Shop, scene: &mut Scene, intent: &str) -> Result<Option<(OrderId, Buy)>, Error> {
    match intents::take(tx, intent, scene.who.person)? {
        Taken::Never => {
            let words = texts::no_such_button(scene.language);
            scene.menu(tx, shop, words)?;
            Ok(None)
        }
        // This very update made the order before its worker died: it goes on. Of any other press nothing is left to do, because
        // the first one has its answer, or will have.
        Taken::Before { action: Action::Buy(buy), result: Some(result) } => {
            Ok(buy::made_by(&result, &scene.who).map(|order| (order, buy)))
        }
        Taken::Before { .. } => Ok(None),
        Taken::Now(action) => match action {
            Action::Buy(buy) => Ok(buy::place(tx, shop, scene, intent, &buy)?.map(|order| (order, buy))),
            Action::GoodsAgain { order } => orders::goods_again(tx, shop, scene, &order, intent).map(|()| None),
            Action::FileAgain { subscription, device } => {
                access::file_again(tx, shop, scene, &subscription, device, intent).map(|()| None)
            }
            Action::NewKey { subscription, device } => {
                access::new_key(tx, shop, scene, &subscription, device).map(|()| None)
            }
            Action::StartCampaign { campaign, content, people, sure } => {
                broadcast::start(tx, shop, scene, &campaign, (content, people), sure).map(|()| None)
            }
            Action::StopCampaign { campaign } => broadcast::stop(tx, shop, scene, &campaign).map(|()| None),
            Action::Trial => access::trial(tx, shop, scene).map(|()| None),
            Action::CancelOrder { order } => orders::cancel(tx, shop, scene, &order).map(|()| None),
            Action::OtherWay { order } => orders::other_way(tx, shop, scene, &order).map(|()| None),
        },
    }
}

/// Shows what a door leads to. Words that a button waited for lead to that button, which is to be pressed next.
fn show(tx: &mut Tx, shop: &Shop, scene: &mut Scene, door: &Door) -> Result<Option<String>, Error> {
    let language = scene.language;
    let is_owner = admin::is_owner(shop, scene.who.person);
    // Who asks for something else has ended the waiting, so it is not looked up.
    let dialog = match door {
        Door::Words { .. } | Door::Cancel => dialogs::waits_for(tx, &scene.who)?,
        _ => None,
    };
    let waits_for = dialog.as_ref().map(|dialog| dialog.step.as_str());
    // An owner's reply to a customer is no text for everybody, whatever was waited for.
    if let Door::Words { plain, reply_to: Some(message), .. } = door
        && is_owner
        && support::reply(tx, shop, scene, *message, plain)?
    {
        return Ok(None);
    }
    if !matches!(door, Door::Words { .. }) {
        dialogs::end(tx, &scene.who)?;
    }
    let shown = match door {
        Door::Start => account::start(tx, shop, scene),
        Door::Catalog(below) => catalog::list(tx, shop, scene, below.as_ref()),
        Door::Product(id) => catalog::product(tx, shop, scene, id),
        Door::Ways(id) => catalog::ways(tx, shop, scene, id),
        Door::Orders => orders::list(tx, shop, scene),
        Door::Order(id) => orders::one(tx, shop, scene, id),
        Door::Access => access::show(tx, shop, scene),
        Door::Keys if shop.vpn.is_some() => access::show(tx, shop, scene),
        Door::Keys => orders::list(tx, shop, scene),
        Door::Rekey(id, device) => access::rekey(tx, shop, scene, id, *device),
        Door::Renew(id) => access::renew(tx, shop, scene, id),
        Door::Trial => access::trial(tx, shop, scene),
        Door::Balance => account::balance(tx, shop, scene),
        Door::Invite => account::invite(tx, shop, scene),
        Door::Languages => account::languages(tx, shop, scene),
        Door::Language(chosen) => account::set_language(tx, shop, scene, *chosen),
        Door::Settings => settings::show(tx, shop, scene),
        Door::Contact => buy::other_contact(tx, shop, scene),
        Door::Notices(topic, is_on) => settings::set(tx, shop, scene, *topic, *is_on),
        Door::Help => account::help(tx, shop, scene),
        Door::Support(asks, words) => support::ask(tx, shop, scene, *asks, words),
        Door::Terms => account::terms(tx, shop, scene),
        Door::Privacy => account::privacy(tx, shop, scene),
        Door::Cancel => match waits_for {
            Some(dialogs::BROADCAST) => scene.menu(tx, shop, owner_texts::cancelled(language)),
            Some(dialogs::CONTACT) => {
                let is_buying = dialog.is_some_and(|dialog| dialog.button.is_some());
                let words = if is_buying { texts::nothing_ordered(language) } else { texts::nothing_changed(language) };
                scene.menu(tx, shop, words)
            }
            Some(_) => scene.menu(tx, shop, texts::nothing_passed_on(language)),
            None => {
                // What is on its way to many people comes before an order of the owner's own.
                let has_offered = is_owner && broadcast::offer_stop(tx, shop, scene)?;
                orders::cancellable(tx, shop, scene, has_offered)
            }
        },
        Door::Admin if is_owner => admin::show(tx, shop, scene),
        Door::Broadcast if is_owner => broadcast::ask(tx, shop, scene),
        Door::Campaign(id) if is_owner => broadcast::show(tx, shop, scene, id),
        Door::Words { html, plain, reply_to } => match waits_for {
            Some(dialogs::BROADCAST) if is_owner => broadcast::words(tx, shop, scene, html),
            Some(dialogs::SUPPORT) => support::ask(tx, shop, scene, Asks::Help, plain),
            Some(dialogs::PAYSUPPORT) => support::ask(tx, shop, scene, Asks::Payment, plain),
            Some(dialogs::CONTACT) => {
                let button = dialog.and_then(|dialog| dialog.button);
                let is_kept = buy::contact(tx, shop, scene, plain, button.is_some())?;
                return Ok(button.filter(|_| is_kept));
            }
            _ if is_owner && reply_to.is_some() => scene.menu(tx, shop, owner_texts::nobody_asked(language)),
            _ => scene.menu(tx, shop, texts::lost(language)),
        },
        // To anybody else there is no such thing.
        Door::Admin | Door::Broadcast | Door::Campaign(_) | Door::Lost => scene.menu(tx, shop, texts::lost(language)),
    };
    shown.map(|()| None)
}

#[cfg(test)]
mod tests {
    use semel_telegram::{Membership, Pressed as Press, Said};

    use super::*;

    fn person(id: i64) -> Person {
        Person { id, language: Some("ru".into()) }
    }

    fn press(chat: Option<i64>, data: &str) -> Wish {
        let press = Press { query: "q".into(), from: person(42), chat, data: data.into() };
        wish(What::Pressed(press)).expect("somebody").1.0
    }

    #[test]
    fn only_a_person_in_their_own_chat_is_answered() {
        let said = |chat, private, from| {
            wish(What::Said(Said { chat, private, from, text: "hi".into(), command: None, reply_to: None })).is_some()
        };
        assert!(said(42, true, Some(person(42))));
        assert!(!said(-5, false, Some(person(42))), "a group");
        assert!(!said(42, true, None), "a bot or a channel");
        let member = Membership { chat: -5, private: false, reachable: true };
        assert!(wish(What::Membership(member)).is_none() && wish(What::Other).is_none());
    }

    #[test]
    fn data_of_another_chat_or_of_no_known_form_is_forged() {
        assert!(matches!(press(Some(42), "abcdefghijklmnop"), Wish::Press(_)));
        assert!(matches!(press(Some(43), "abcdefghijklmnop"), Wish::Forged));
        assert!(matches!(press(None, "go:catalog"), Wish::Show(Door::Catalog(None))));
        assert!(matches!(press(Some(42), "buy:prd_1:0.01"), Wish::Forged));
    }

    #[test]
    fn a_link_names_who_sent_somebody_and_nobody_themselves() {
        let of = |payload: &str| referrer(&person(42), &Some(payload.into()));
        assert_eq!(of("ref_7"), Some(7));
        for payload in ["ref_42", "ref_-7", "ref_", "ref_x", "7", ""] {
            assert_eq!(of(payload), None, "{payload}");
        }
    }
}
