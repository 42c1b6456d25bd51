//! Buttons that do something: each once, for one person, for a while.
//!
//! What stands behind such a button is a random id and nothing else: the row says what it does and for what price it was
//! made. All buttons of one card are one decision. Whoever presses first takes them all; every later press, of the same
//! button or of its neighbours, finds what came of the first one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use semel_kernel::args;
use semel_kernel::clock::{Chance, Time};
use semel_kernel::store::{Expect, StoreError, Tx};
use semel_telegram::Button;

use super::model::Action;
use super::sql;
use crate::{Error, Shop};

/// How long a button can be pressed. A price that is older is seldom the price.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Ids are base64 of so many random bytes: 16 characters.
const BYTES: usize = 12;
const CHARS: usize = 16;

/// The buttons of one card, as they are made.
pub(super) struct Sheet {
    card: String,
    chat: i64,
}

impl Sheet {
    /// No button yet, for a card in `chat`.
    pub(super) fn new(shop: &Shop, chat: i64) -> Self {
        Self { card: fresh(&shop.chance), chat }
    }

    /// A button that does `action`.
    pub(super) fn button(
        &self,
        tx: &mut Tx,
        shop: &Shop,
        words: impl Into<String>,
        action: &Action,
    ) -> Result<Button, Error> {
        let id = fresh(&shop.chance);
        let row = serde_json::to_string(action).map_err(|error| StoreError::Statement(error.to_string()))?;
        let until = tx.now() + LIFETIME;
        tx.later(sql::ADD_INTENT, args![&id, &self.card, self.chat, row, until], Expect::Rows(1))?;
        Ok(Button::callback(words, id))
    }
}

fn fresh(chance: &Chance) -> String {
    URL_SAFE_NO_PAD.encode(chance.bytes::<BYTES>())
}

/// Whether data from a button may be the id of one of ours.
pub(super) fn is_id(data: &str) -> bool {
    data.len() == CHARS && data.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// What a press comes to.
pub(super) enum Taken {
    /// It is the first one: do it now, in this transaction.
    Now(Action),
    /// There was one before, of this button or of its neighbours.
    Before {
        /// What the pressed button was for.
        action: Action,
        /// What came of the first press.
        result: Option<String>,
    },
    /// There is no such button for this person, or its time is over.
    Never,
}

/// Takes the card of the button `id`, if `chat` may and nobody did.
pub(super) fn take(tx: &mut Tx, id: &str, chat: i64) -> Result<Taken, Error> {
    let now = tx.now();
    let taken = tx.execute(sql::TAKE_CARD, args![id, chat, now])?;
    let Some(intent) = find(tx, id, chat)? else { return Ok(Taken::Never) };
    Ok(match (taken, intent.used_at) {
        (1.., _) => Taken::Now(intent.action),
        (0, Some(_)) => Taken::Before { action: intent.action, result: intent.result },
        (0, None) => Taken::Never,
    })
}

/// Writes what the first press came to, for every later one.
pub(super) fn came_to(tx: &mut Tx, id: &str, result: &str) -> Result<(), Error> {
    Ok(tx.later(sql::SET_RESULT, args![id, result], Expect::Any)?)
}

/// What a button of `chat` would do now; none if it was pressed, is over or never was.
pub(super) fn peek(tx: &mut Tx, id: &str, chat: i64) -> Result<Option<Action>, Error> {
    let now = tx.now();
    let found = find(tx, id, chat)?;
    Ok(found.filter(|intent| intent.used_at.is_none() && intent.expires_at > now).map(|intent| intent.action))
}

/// Whether a button of `chat` was pressed before. What the button does is not read: an update has to come in whatever it is.
pub(super) fn is_used(tx: &mut Tx, id: &str, chat: i64) -> Result<bool, Error> {
    let Some(row) = tx.first(sql::INTENT, args![id, chat])? else { return Ok(false) };
    Ok(row.get::<Option<Time>>(2)?.is_some())
}

struct Intent {
    action: Action,
    result: Option<String>,
    used_at: Option<Time>,
    expires_at: Time,
}

fn find(tx: &mut Tx, id: &str, chat: i64) -> Result<Option<Intent>, StoreError> {
    let Some(row) = tx.first(sql::INTENT, args![id, chat])? else { return Ok(None) };
    let action: String = row.get(0)?;
    let action = serde_json::from_str(&action)
        .map_err(|error| StoreError::Decode { wanted: "what a button does", found: error.to_string() })?;
    Ok(Some(Intent { action, result: row.get(1)?, used_at: row.get(2)?, expires_at: row.get(3)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_characters_that_a_button_may_hold() {
        let chance = Chance::seeded(1);
        let (one, other) = (fresh(&chance), fresh(&chance));
        assert!(is_id(&one) && is_id(&other) && one != other);
        for forged in ["", "go:catalog", "short", "sixteen chars ok", "aaaaaaaaaaaaaaaaa", "ключключ"] {
            assert!(!is_id(forged), "{forged}");
        }
    }
}
