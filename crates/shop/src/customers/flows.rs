//! How customers come to be known.

use semel_kernel::args;
use semel_kernel::store::{Expect, StoreError, Tx, Value};

use super::{Customer, CustomerId, NewCustomer, sql};
use crate::{Error, Shop};

/// The customer with this Telegram id: made at the first call, later filled up with what the request says. Their row is
/// held until the transaction ends.
///
/// # Errors
/// [`Error::Invalid`] when id, email, phone or language make no sense.
pub fn upsert(tx: &mut Tx, shop: &Shop, new: &NewCustomer) -> Result<Customer, Error> {
    let new = new.checked()?;
    let now = tx.now();
    let id = CustomerId::new(now, &shop.chance);
    let args = args![id, new.telegram_id, new.email, new.phone, new.language, new.referrer_telegram_id, now];
    let row = tx.one(sql::UPSERT, args)?;
    Ok(sql::customer(&row)?)
}

/// Has a customer's receipts go to the e-mail or phone of `new` from now on, in place of both that were known. Their row is held until
/// the transaction ends.
///
/// # Errors
/// [`Error::Invalid`] when email or phone make no sense.
pub fn set_contact(tx: &mut Tx, new: &NewCustomer) -> Result<Customer, Error> {
    let new = new.checked()?;
    let row = tx.one(sql::SET_CONTACT, args![new.telegram_id, new.email, new.phone])?;
    Ok(sql::customer(&row)?)
}

/// Remembers that nothing reaches these people until they write to the bot or let it in again, or until a message arrives all
/// the same. Campaigns leave them out; whatever is about money or goods is tried. Changes nothing for who is no customer. Name
/// several in the order of their ids: their rows are held until the transaction ends.
pub fn unreachable(tx: &mut Tx, telegram_ids: &[i64]) -> Result<(), StoreError> {
    let now = tx.now();
    let rows = telegram_ids.iter().map(|id| vec![Value::from(*id), Value::from(now)]).collect();
    tx.many_later(sql::UNREACHABLE, rows, Expect::Any)
}

/// Remembers that messages reach a person again.
pub fn reached(tx: &mut Tx, telegram_id: i64) -> Result<(), StoreError> {
    tx.later(sql::REACHED, args![telegram_id], Expect::Any)
}

/// A customer by our id.
pub fn find(tx: &mut Tx, id: &CustomerId) -> Result<Customer, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(sql::customer(&row.ok_or_else(|| Error::missing("customer", id))?)?)
}

/// A customer by Telegram's id, if they ever ordered.
pub fn find_by_telegram(tx: &mut Tx, telegram_id: i64) -> Result<Option<Customer>, Error> {
    let row = tx.first(sql::FIND_BY_TELEGRAM, args![telegram_id])?;
    Ok(row.as_ref().map(sql::customer).transpose()?)
}
