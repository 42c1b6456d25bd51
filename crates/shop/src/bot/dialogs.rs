//! What the bot waits for in a chat: words that are no command. An owner's may be a broadcast, anybody's a question to the owner.
//!
//! Anything else that is asked for ends it, a button as well, so that no command becomes a text by mistake; and so does time.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::{Expect, StoreError, Tx};

use super::model::Who;
use super::sql;

/// How long a broadcast is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long a question to the owner is waited for: what is written later is seldom meant for them.
const PATIENCE_OF_QUESTIONS: Duration = Duration::from_secs(600);

/// The next words are the text of a broadcast.
pub(super) const BROADCAST: &str = "broadcast";
/// The next words are a question to the owner.
pub(super) const SUPPORT: &str = "support";
/// The next words are a question to the owner about a payment.
pub(super) const PAYSUPPORT: &str = "paysupport";

/// Waits for words from now on.
pub(super) fn begin(tx: &mut Tx, who: &Who, step: &str) -> Result<(), StoreError> {
    let patience = if step == BROADCAST { PATIENCE } else { PATIENCE_OF_QUESTIONS };
    let until = tx.now() + patience;
    tx.later(sql::SET_DIALOG, args![&who.bot, who.person, step, until], Expect::Rows(1))
}

/// Whether words are waited for, and for what.
pub(super) fn waits_for(tx: &mut Tx, who: &Who) -> Result<Option<String>, StoreError> {
    let now = tx.now();
    tx.first(sql::DIALOG, args![&who.bot, who.person, now])?.map(|row| row.get(0)).transpose()
}

/// Waits no more, if anything was waited for.
pub(super) fn end(tx: &mut Tx, who: &Who) -> Result<(), StoreError> {
    tx.later(sql::END_DIALOG, args![&who.bot, who.person], Expect::Any)
}
