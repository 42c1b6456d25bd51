//! What the bot waits for in a chat: words that are no command. An owner's may be a broadcast, anybody's a question to the owner, or
//! where the receipt of a payment goes.
//!
//! Anything else that is asked for ends it, a button as well, so that no command becomes a text by mistake; and so does time.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::{Expect, StoreError, Tx};

use super::model::Who;
use super::sql;

/// How long a broadcast is waited for.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long anything else is waited for: what is written later is seldom meant for it.
const PATIENCE_OF_QUESTIONS: Duration = Duration::from_secs(600);

/// The next words are the text of a broadcast.
pub(super) const BROADCAST: &str = "broadcast";
/// The next words are a question to the owner.
pub(super) const SUPPORT: &str = "support";
/// The next words are a question to the owner about a payment.
pub(super) const PAYSUPPORT: &str = "paysupport";
/// The next words are an e-mail or a phone, and a button to buy waits for them.
pub(super) const CONTACT: &str = "contact";

/// What words are waited for.
pub(super) struct Dialog {
    /// What they will be.
    pub(super) step: String,
    /// The button that goes on when they have come, if one waits for them.
    pub(super) button: Option<String>,
}

/// Waits for words from now on.
pub(super) fn begin(tx: &mut Tx, who: &Who, step: &str) -> Result<(), StoreError> {
    let patience = if step == BROADCAST { PATIENCE } else { PATIENCE_OF_QUESTIONS };
    set(tx, who, step, None, patience)
}

/// Waits from now on for the e-mail or phone without which `button` buys nothing.
pub(super) fn begin_contact(tx: &mut Tx, who: &Who, button: &str) -> Result<(), StoreError> {
    set(tx, who, CONTACT, Some(button), PATIENCE_OF_QUESTIONS)
}

fn set(tx: &mut Tx, who: &Who, step: &str, button: Option<&str>, patience: Duration) -> Result<(), StoreError> {
    let until = tx.now() + patience;
    tx.later(sql::SET_DIALOG, args![&who.bot, who.person, step, button, until], Expect::Rows(1))
}

/// Whether words are waited for, and for what.
pub(super) fn waits_for(tx: &mut Tx, who: &Who) -> Result<Option<Dialog>, StoreError> {
    let now = tx.now();
    let Some(row) = tx.first(sql::DIALOG, args![&who.bot, who.person, now])? else { return Ok(None) };
    Ok(Some(Dialog { step: row.get(0)?, button: row.get(1)? }))
}

/// Waits no more, if anything was waited for.
pub(super) fn end(tx: &mut Tx, who: &Who) -> Result<(), StoreError> {
    tx.later(sql::END_DIALOG, args![&who.bot, who.person], Expect::Any)
}
