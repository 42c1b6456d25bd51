//! How updates come in, and how they end.

use std::time::Duration;

use serde_json::Value;

use semel_kernel::args;
use semel_kernel::jobs::{self, Dead, Job};
use semel_kernel::store::{Expect, StoreError, Tx};
use semel_telegram::{Update, What};

use super::job::WorkUpdate;
use super::{intents, sql, texts};
use crate::messages::Language;
use crate::{Error, Shop, alerts};

/// Telegram sends nothing older than a day; twice that, and some.
const UPDATES_KEPT: Duration = Duration::from_secs(3 * 24 * 3600);
pub(super) const DAY_MS: i64 = 86_400_000;

/// What a batch of updates came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// How many of them were new.
    pub new: usize,
    /// The presses among the new ones: whoever pressed waits for a word.
    pub presses: Vec<PressCame>,
}

/// A press that wants an answer at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PressCame {
    /// The query to answer.
    pub query: String,
    /// What to show over the chat, if anything.
    pub text: Option<&'static str>,
}

/// Makes updates durable, each once, with the job that works it off. Confirm them to Telegram only after this.
///
/// # Errors
/// What the store says; then none of them counts as received.
pub async fn receive(shop: &Shop, bot: &str, updates: Vec<(i64, Value)>) -> Result<Came, Error> {
    if updates.is_empty() {
        return Ok(Came::default());
    }
    let bot = bot.to_owned();
    let read: Vec<(i64, String, Option<Update>)> =
        updates.iter().map(|(id, update)| (*id, update.to_string(), Update::read(update).ok())).collect();
    shop.write("bot.receive", move |tx, shop| {
        let now = tx.now();
        let mut came = Came::default();
        // First of all: after a week without us an old row could have the number of a new update.
        forget(tx)?;
        for (id, body, update) in &read {
            let chat = update.as_ref().and_then(chat_of);
            if tx.execute(sql::RECEIVE, args![&bot, *id, chat, body, now])? == 0 {
                continue; // It came before.
            }
            came.new += 1;
            let job = WorkUpdate { bot: bot.clone(), update: *id, received: now.millis() };
            jobs::enqueue(tx, &job, now, &shop.chance)?;
            if let Some(Update { what: What::Pressed(press), .. }) = update {
                let person = press.from.id;
                let language = Language::of(press.from.language.as_deref());
                let text = match intents::is_id(&press.data) {
                    true if intents::is_used(tx, &press.data, person)? => Some(texts::pressed_before(language)),
                    true => Some(texts::one_moment(language)),
                    false => None,
                };
                came.presses.push(PressCame { query: press.query.clone(), text });
            }
        }
        Ok(came)
    })
    .await
}

/// Whose chat with the bot an update comes from, where it shows whether messages reach that chat.
fn chat_of(update: &Update) -> Option<i64> {
    match &update.what {
        What::Said(said) => {
            said.from.as_ref().map(|person| person.id).filter(|person| said.private && *person == said.chat)
        }
        What::Pressed(press) => Some(press.from.id).filter(|person| press.chat.is_none_or(|chat| chat == *person)),
        What::Membership(member) => member.private.then_some(member.chat),
        What::Checkout(_) | What::Paid(_) | What::Refunded(_) | What::Other => None,
    }
}

/// Whether a newer update came from a chat: it tells whether messages reach that chat, in whatever order their jobs run.
pub(super) fn is_outdated(tx: &mut Tx, bot: &str, update: i64, chat: i64) -> Result<bool, StoreError> {
    Ok(tx.first(sql::NEWER, args![bot, update, chat])?.is_some())
}

/// Forgets updates and buttons that are long over, and with them whatever somebody wrote. Each batch of updates does it, and each
/// night, because nobody may write for a while.
pub fn forget(tx: &mut Tx) -> Result<(), StoreError> {
    let before = tx.now() - UPDATES_KEPT;
    tx.later(sql::FORGET_UPDATES, args![before], Expect::Any)?;
    tx.later(sql::FORGET_INTENTS, args![before], Expect::Any)
}

/// The body of an update that is not worked off yet, and the button that its words came to press.
pub(super) fn waiting(tx: &mut Tx, bot: &str, update: i64) -> Result<Option<(String, Option<String>)>, Error> {
    let Some(row) = tx.first(sql::WAITING, args![bot, update])? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get(1)?)))
}

/// Notes that the words of an update press `button`: whoever works it off after a death goes on with that.
pub(super) fn presses(tx: &mut Tx, bot: &str, update: i64, button: &str) -> Result<(), StoreError> {
    tx.later(sql::PRESSES, args![bot, update, button], Expect::Rows(1))
}

/// Ends an update in the transaction of what it caused. What somebody wrote is not kept.
pub(super) fn done(tx: &mut Tx, bot: &str, update: i64, error: Option<&str>) -> Result<(), StoreError> {
    let now = tx.now();
    tx.later(sql::END, args![bot, update, "done", error, now], Expect::Any)
}

/// Ends an update that nobody can read. It is kept for somebody to look at, and the owner is told once a day.
pub(super) fn unreadable(tx: &mut Tx, shop: &Shop, bot: &str, update: i64, error: &str) -> Result<(), Error> {
    let now = tx.now();
    tx.later(sql::UNREADABLE, args![bot, update, error, now], Expect::Any)?;
    let day = now.millis().div_euclid(DAY_MS);
    let text = format!(
        "An update of Telegram could not be read and was put aside: number {update}, {error}. It stays in the table updates for \
         three days. Everything after it goes on"
    );
    alerts::flows::raise(tx, shop, format!("updates:unreadable:{bot}:{day}"), text)
}

/// Ends an update whose job gave up. Belongs into the transaction that buries the job; changes nothing for jobs of other
/// kinds.
pub fn buried(tx: &mut Tx, dead: &Dead) -> Result<(), StoreError> {
    if dead.kind != WorkUpdate::KIND {
        return Ok(());
    }
    let now = tx.now();
    let Some(row) = tx.first(sql::SLOT, args![&dead.job])? else { return Ok(()) };
    let slot: String = row.get(0)?;
    let mut parts = slot.split(':');
    let (Some(bot), Some(update)) = (parts.next(), parts.next()) else { return Ok(()) };
    let Ok(update) = update.parse::<i64>() else { return Ok(()) };
    tx.later(sql::DEAD, args![bot, update, &dead.error, now], Expect::Any)
}

/// Keeps the bot's name in links, as Telegram tells it.
pub fn named(tx: &mut Tx, bot: &str, name: &str) -> Result<(), StoreError> {
    tx.later(sql::SET_NAME, args![mark(bot), name], Expect::Any)
}

/// The bot's name in links, if Telegram ever told it.
pub(super) fn name(tx: &mut Tx, bot: &str) -> Result<Option<String>, StoreError> {
    tx.first(sql::NAME, args![mark(bot)])?.map(|row| row.get(0)).transpose()
}

fn mark(bot: &str) -> String {
    format!("bot-name:{bot}")
}
