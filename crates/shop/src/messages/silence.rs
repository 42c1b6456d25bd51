//! When the bot may speak: the silence that Telegram asked for, and whose turn it is.
//!
//! A silence is kept in the database for whoever sends next: this program after a restart, or another copy. The HTTP client
//! obeys it, and it knows moments on its own clock only, which need not agree with the database's.
//!
//! It is written together with the end of the run that was told so. Who dies before that has told nobody: the message goes
//! again as one whose fate is not known, and Telegram says it once more.

use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::store::StoreError;

use super::flows;
use super::send::host_key;
use crate::Shop;

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
    }
    Ok(())
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
