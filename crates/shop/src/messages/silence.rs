//! When the bot may speak: the silence that Telegram asked for, of one chat or of the whole bot, and whose turn it is.
//!
//! A silence is kept in the database for whoever sends next: this program after a restart, or another copy. The pace obeys it,
//! and for the whole bot's so does the HTTP client; each knows moments on its own clock only, which need not agree with the
//! database's.
//!
//! It is written together with the end of the run that was told so. Who dies before that has told nobody: the message goes
//! again as one whose fate is not known, and Telegram says it once more.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::StoreError;
use semel_telegram::Bot;

use super::send::host_key;
use super::{Quiet, flows, sql};
use crate::{Error, Shop};

/// A longer silence is taken as this: a slip on the other side must not silence the shop for a year.
pub(crate) const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);

/// Takes up the silence that Telegram asked an earlier run or another copy for. Call it before the first message leaves.
///
/// # Errors
/// What the store says.
pub async fn recall_silence(shop: &Shop) -> Result<(), StoreError> {
    let Some(bot) = &shop.bot else { return Ok(()) };
    let of = bot.id().to_owned();
    let silence = shop.store.look("message.silences", move |tx| flows::silence(tx, &of)).await?;
    if let Some(until) = silence {
        shop.telegram.pause_host(&host_key(bot), on_client(shop, until));
        shop.pace().silence(until.since(shop.now()));
    }
    let every = format!("silence:{}:%", bot.id());
    for row in shop.store.rows("message.silences", sql::SILENT_CHATS, args![every]).await? {
        let (name, until): (String, Time) = (row.get(0)?, row.get(1)?);
        if let Some(chat) = name.rsplit(':').next().and_then(|chat| chat.parse::<i64>().ok()) {
            shop.pace().silence_chat(chat, until.since(shop.now()));
        }
    }
    Ok(())
}

/// Telegram answered 429 to a call that belongs to no chat, as a question for updates does: the whole bot has to be silent for
/// `asked`. This process is at once, and another copy that sends from the next message or piece of a campaign on that it looks at.
pub async fn heard(shop: &Shop, asked: Duration) {
    let Some(bot) = &shop.bot else { return };
    let left = shop.pace().refused(asked.min(LONGEST_SILENCE));
    hold_back(shop, left);
    keep(shop, "message.silence", bot.id().to_owned(), left).await;
}

/// Has the HTTP client obey what a 429 to a message for `chat` came to, where it is the whole bot's silence. Answers under what
/// it is kept: the bot's id, with the chat's where it is that chat's alone.
pub(crate) fn obey(shop: &Shop, bot: &Bot, chat: i64, quiet: Quiet) -> String {
    if quiet.whole_bot {
        hold_back(shop, quiet.left);
        return bot.id().to_owned();
    }
    format!("{}:{chat}", bot.id())
}

/// Writes a silence for whoever sends next, in a transaction of its own.
pub(crate) async fn keep(shop: &Shop, label: &'static str, of: String, left: Duration) {
    let kept = shop.write(label, move |tx, _| {
        let until = tx.now() + left;
        Ok(flows::keep_silence(tx, &of, until)?)
    });
    if let Err(error) = kept.await {
        not_kept(&error);
    }
}

/// Whoever sends next is told so by Telegram once more.
pub(super) fn not_kept(error: &Error) {
    tracing::warn!(%error, "could not write that Telegram asks for silence; this process knows it all the same");
}

/// Nothing is sent for `time` from now on.
pub fn hold_back(shop: &Shop, time: Duration) {
    if let Some(bot) = &shop.bot {
        shop.telegram.pause_host(&host_key(bot), shop.telegram.now() + time);
    }
}

/// From now on messages leave before `until` only, on the clock of this process's store: for one of several copies, which
/// loses the right to send by time. Never called where there is one copy. The client gets what is left of the time: its own
/// clock does not follow when somebody sets the machine's, and a moment of that one could shut it for good.
pub fn allow_until(shop: &Shop, until: Time) {
    if let Some(bot) = &shop.bot {
        let left = until.since(shop.store.clock().now());
        shop.telegram.allow_host(&host_key(bot), shop.telegram.now() + left);
    }
}

/// A moment to come on the clock of the HTTP client as the database's clock will show it.
pub(super) fn on_database(shop: &Shop, at: Time) -> Time {
    shop.now() + at.since(shop.telegram.now())
}

/// The other way round.
fn on_client(shop: &Shop, at: Time) -> Time {
    shop.telegram.now() + at.since(shop.now())
}
