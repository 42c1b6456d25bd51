//! What the bot says without its database: a word to who pressed, and a menu that knows nobody.
//!
//! Whoever presses waits for a word, and whoever writes /start looks at an empty chat. Neither shall wait for a database that
//! is slow or away, so both are answered from the intake, out of what the update itself says. Nothing is remembered but when a
//! chat got its menu: once a minute is enough, because what was asked for is answered, too, as soon as the database is there.
//!
//! Such a menu is a message without a row: it takes its turn at the bot's pace like any other, goes once and is not repeated.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use semel_kernel::clock::Time;
use semel_kernel::ids::new_id;
use semel_kernel::outbound::{Call, Manner};
use semel_kernel::store::Engine;
use semel_telegram::pacer::Lane;
use semel_telegram::{Bot, Outcome, ParseMode, SendMessage, Update, What};

use super::flows::PressCame;
use super::scene::rewards;
use super::{intents, texts};
use crate::Shop;
use crate::messages::{Heard, Language};

/// A database that has not answered for so long is slow.
pub const SLOW: Duration = Duration::from_secs(2);
/// A chat gets such a menu once in so long.
const EVERY: Duration = Duration::from_secs(60);
/// Messages in a second that Telegram allows a bot.
const ALLOWED: u32 = 30;
/// Who would have to wait longer for one gets none.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a chat's own pace is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// When which chat got its menu.
#[derive(Debug, Default)]
pub struct Still(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    chats: BTreeMap<i64, Time>,
    /// No menu before.
    next: Option<Time>,
}

impl Still {
    /// How long to wait before a menu may go to `chat`; none when it had one a moment ago, or too many others wait.
    fn turn(&self, chat: i64, now: Time, apart: Duration) -> Option<Duration> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.chats.retain(|_, at| now.since(*at) < EVERY);
        let at = shown.next.map_or(now, |next| next.max(now));
        let wait = at.since(now);
        if shown.chats.contains_key(&chat) || wait > LONGEST {
            return None;
        }
        shown.chats.insert(chat, now);
        shown.next = Some(at + apart);
        Some(wait)
    }
}

/// How far apart such menus are where another copy may be sending at `rate`: they take what it leaves of Telegram's rate. None
/// go where it leaves nothing.
fn beside(rate: u32) -> Option<Duration> {
    let left = ALLOWED.saturating_sub(rate);
    (left > 0).then(|| Duration::from_secs(1) / left)
}

/// Who waits for a word about updates that are not stored yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Who pressed.
    pub presses: Vec<PressCame>,
    /// Who asked for the menu.
    pub menus: Vec<Asked>,
}

/// Somebody who asked for the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Their chat.
    pub chat: i64,
    /// The language of their Telegram: which one they chose here stands in the database.
    pub language: Language,
}

/// Who waits, as far as the updates themselves tell.
pub fn waiting(updates: &[(i64, Value)]) -> Waiting {
    let mut waiting = Waiting::default();
    for (_, update) in updates {
        match Update::read(update).map(|update| update.what) {
            Ok(What::Pressed(press)) => {
                let language = Language::of(press.from.language.as_deref());
                let text = intents::is_id(&press.data).then(|| texts::one_moment(language));
                waiting.presses.push(PressCame { query: press.query, text });
            }
            Ok(What::Said(said)) => {
                let wants =
                    said.command.is_some_and(|command| matches!(command.name.as_str(), "start" | "menu" | "help"));
                let person = said.from.filter(|person| wants && said.private && person.id == said.chat);
                if let Some(person) = person {
                    let language = Language::of(person.language.as_deref());
                    waiting.menus.push(Asked { chat: person.id, language });
                }
            }
            _ => {}
        }
    }
    waiting
}

/// Whose breaker and pauses apply to calls that are no messages of the sender. Not the sender's key: its pauses are for messages, and
/// only the holder of its lease may call under it, which may be gone with the database.
pub fn host_key(bot: &Bot) -> String {
    format!("telegram-bot:{}", bot.id())
}

/// Shows the menu that needs no database, once a minute in a chat. Whom it does not reach gets the usual answer later.
pub async fn show(shop: &Shop, bot: &Bot, asked: Asked) {
    let apart = match shop.store.engine() {
        Engine::Sqlite => Some(Duration::ZERO),
        Engine::Postgres => beside(shop.rules.telegram_rate),
    };
    let Some(apart) = apart else { return };
    let Some(wait) = shop.still().turn(asked.chat, shop.telegram.now(), apart) else { return };
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let id = new_id("still", shop.telegram.now(), &shop.chance);
    let Ok(turn) = shop.pace().turn_within(Lane::Answer, asked.chat, id.clone(), PATIENCE).await else { return };
    let html = texts::one_moment_menu(asked.language);
    let card = texts::menu(asked.language, shop.vpn.is_some(), rewards(shop), html);
    let mut message = SendMessage::new(asked.chat, card.html);
    message.parse_mode = Some(ParseMode::Html);
    message.disable_preview = true;
    message.buttons = card.buttons;
    let mut call = Call::new("telegram.still", host_key(bot), Manner::Blind);
    call.own_pauses = true;
    call.deadline = Duration::from_secs(10);
    call.attempt_timeout = Duration::from_secs(5);
    let answer = shop.telegram.call(call, bot.send_message(&id, &message)).await;
    let heard = match answer.map(|response| bot.sent(&response)) {
        Ok(Outcome::Ok(_)) => Heard::Sent,
        Ok(Outcome::RetryAfter { seconds }) => {
            Heard::TooMany { retry_after: Duration::from_secs(u64::try_from(seconds).unwrap_or(1)) }
        }
        Ok(refused) => {
            tracing::debug!(?refused, "a menu without the database did not go");
            Heard::Other
        }
        Err(error) => {
            tracing::debug!(%error, "a menu without the database did not go");
            Heard::Other
        }
    };
    turn.done(heard);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const APART: Duration = Duration::from_millis(500);

    #[test]
    fn menus_take_what_a_sender_elsewhere_leaves() {
        assert_eq!((beside(28), beside(29)), (Some(APART), Some(2 * APART)));
        assert_eq!(beside(30), None, "never more than Telegram allows");
    }

    #[test]
    fn a_chat_gets_one_menu_a_minute_and_others_keep_their_distance() {
        let still = Still::default();
        let at = |ms: i64| Time::from_millis(1_700_000_000_000 + ms);
        assert_eq!(still.turn(1, at(0), APART), Some(Duration::ZERO));
        assert_eq!(still.turn(1, at(59_999), APART), None);
        assert_eq!(still.turn(1, at(60_000), APART), Some(Duration::ZERO));
        assert_eq!(still.turn(2, at(60_000), APART), Some(APART));
        for chat in 3..22 {
            still.turn(chat, at(60_000), APART);
        }
        assert_eq!(still.turn(99, at(60_000), APART), None, "who would wait too long gets none");
        assert_eq!(still.turn(99, at(60_500), Duration::ZERO), Some(LONGEST));
    }

    #[test]
    fn who_waits_is_told_from_the_updates_alone() {
        let from = json!({ "id": 7, "is_bot": false, "language_code": "en" });
        let said = |text: &str, chat: Value| {
            json!({ "update_id": 1, "message": { "chat": chat, "from": from, "text": text,
                "entities": [{ "type": "bot_command", "offset": 0, "length": text.split(' ').next().unwrap().len() }] } })
        };
        let press = |data: &str| json!({ "update_id": 2, "callback_query": { "id": "q", "from": from, "data": data } });
        let own = json!({ "id": 7, "type": "private" });
        let updates = [
            said("/start ref_5", own.clone()),
            said("/help", own.clone()),
            said("/orders", own),
            said("/start", json!({ "id": -7, "type": "group" })),
            press("AAAAAAAAAAAAAAAA"),
            press("go:catalog"),
            json!({ "update_id": 3, "message": "garbled" }),
        ];
        let waiting = waiting(&updates.map(|update| (0, update)));
        let asked = Asked { chat: 7, language: Language::English };
        assert_eq!(waiting.menus, [asked, asked]);
        let words: Vec<_> = waiting.presses.iter().map(|press| press.text.is_some()).collect();
        assert_eq!(words, [true, false], "only what acts takes a moment");
    }
}
