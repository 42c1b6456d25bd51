//! Looking up what is said, and changing it.

use serde::Serialize;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::store::{Row, StoreError, Tx};

use super::{Kind, check, kind_of, render, sql};
use crate::Error;
use crate::customers::{self, Customer, CustomerId};
use crate::messages::Language;

/// What `customer` is told by a notice of the kind `word`: the owner's words if there are any, else `ours`. Nothing for who
/// switched it off, where that is possible. `values` are told as they are: they are escaped here.
///
/// # Errors
/// The database did not answer.
pub(crate) fn say(
    tx: &mut Tx,
    customer: &Customer,
    word: &str,
    values: &[(&str, String)],
    ours: impl FnOnce(Language) -> String,
) -> Result<Option<String>, Error> {
    let language = Language::of(customer.language.as_deref());
    let row = tx.one(sql::SAY, args![word, language.as_str(), &customer.id])?;
    let (own, off): (Option<String>, Option<i64>) = (row.get(0)?, row.get(1)?);
    if off == Some(1) && kind_of(word).is_some_and(|kind| kind.switch) {
        return Ok(None);
    }
    Ok(Some(match own {
        Some(text) => render(&text, values),
        None => ours(language),
    }))
}

/// The owner's words for a kind, as they were saved; none where ours count. For what is put together when it is sent: nobody
/// switches that off.
///
/// # Errors
/// The database did not answer.
pub(crate) fn own(tx: &mut Tx, word: &str, language: Language) -> Result<Option<String>, Error> {
    let row = tx.first(sql::OWN, args![word, language.as_str()])?;
    Ok(row.map(|row| row.get(0)).transpose()?)
}

/// A text of the owner.
#[derive(Clone, Debug, Serialize)]
pub struct OwnText {
    /// The kind of notice.
    pub kind: String,
    /// `ru` or `en`.
    pub language: String,
    /// What it says, in Telegram's HTML with placeholders.
    pub html: String,
    /// How often it was changed.
    pub version: i64,
    /// When it was changed last, RFC 3339.
    pub updated_at: String,
}

/// Every text of the owner.
///
/// # Errors
/// The database did not answer.
pub fn texts(tx: &mut Tx) -> Result<Vec<OwnText>, Error> {
    let read = |row: &Row| {
        Ok::<_, StoreError>(OwnText {
            kind: row.get(0)?,
            language: row.get(1)?,
            html: row.get(2)?,
            version: row.get(3)?,
            updated_at: row.get::<Time>(4)?.to_string(),
        })
    };
    Ok(tx.rows(sql::TEXTS, &[])?.iter().map(read).collect::<Result<_, _>>()?)
}

/// Says a kind of notice in the owner's words from now on; without `html`, in ours again.
///
/// # Errors
/// [`Error::NotFound`] for a kind that has no text, [`Error::Invalid`] for a text that could not be sent.
pub fn set_text(tx: &mut Tx, word: &str, language: &str, html: Option<&str>) -> Result<(), Error> {
    let kind = known(word)?;
    if !kind.text {
        return Err(Error::Conflict(format!("{word} has no text of its own: it is written each time")));
    }
    if !matches!(language, "ru" | "en") {
        return Err(Error::invalid("language", "ru or en"));
    }
    let now = tx.now();
    match html {
        Some(html) => {
            check(kind, html).map_err(|wrong| Error::invalid("html", wrong))?;
            tx.execute(sql::SET_TEXT, args![word, language, html, now])?;
        }
        None => {
            tx.execute(sql::FORGET_TEXT, args![word, language])?;
        }
    }
    Ok(())
}

/// Switches a kind of notice off for a customer, or on again.
///
/// # Errors
/// [`Error::NotFound`] for an unknown kind or customer, [`Error::Conflict`] for what everybody has to be told.
pub fn switch(tx: &mut Tx, word: &str, telegram_id: i64, off: bool) -> Result<(), Error> {
    if !known(word)?.switch {
        return Err(Error::Conflict(format!("{word} is about money or access: it cannot be switched off")));
    }
    let customer = customers::flows::find_by_telegram(tx, telegram_id)?;
    let customer = customer.ok_or_else(|| Error::missing("customer", telegram_id))?;
    let now = tx.now();
    tx.execute(sql::SWITCH, args![&customer.id, word, i64::from(off), now])?;
    Ok(())
}

/// The kinds that a customer switched off.
///
/// # Errors
/// The database did not answer.
pub fn switched_off(tx: &mut Tx, customer: &CustomerId) -> Result<Vec<String>, Error> {
    let rows = tx.rows(sql::SWITCHES, args![customer])?;
    Ok(rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?)
}

fn known(word: &str) -> Result<&'static Kind, Error> {
    kind_of(word).ok_or_else(|| Error::missing("kind of notice", format!("{word:.40}")))
}
