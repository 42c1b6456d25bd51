//! The books: double entry in whole smallest units.
//!
//! One account has one currency. Every posting sums to zero in each currency, is written once under its business key,
//! and never changes. Only customers' balances are cached; the rest are sums. A balance never passes its floor: the
//! statement that changes it says so, not a look before it.

mod sql;

pub use sql::STATEMENTS;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::ids::{self, new_id};
use semel_kernel::store::{Expect, Row, StoreError, Tx, Value};
use semel_money::{Amount, Currency};
use semel_payments::Provider;

use crate::customers::CustomerId;
use crate::orders::OrderId;
use crate::shop::currency;
use crate::{Error, Shop};

/// How the ids of postings begin.
const POSTING: &str = "txn";

/// Where the ids of postings from `at` on begin.
pub(crate) fn least_id(at: Time) -> String {
    ids::least_id(POSTING, at)
}

/// An account. Its id is made of what it is, so it needs no lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    kind: &'static str,
    owner: String,
    currency: Currency,
}

impl Account {
    /// A provider's account of ours: negative when money came in from it.
    pub fn external(provider: Provider, merchant: &str, currency: Currency) -> Self {
        Self { kind: "external", owner: format!("{}:{merchant}", provider.as_str()), currency }
    }

    /// Money waits here until goods or refund.
    pub fn order(order: &OrderId, currency: Currency) -> Self {
        Self { kind: "order", owner: order.to_string(), currency }
    }

    /// A customer's balance.
    pub fn customer(customer: &CustomerId, currency: Currency) -> Self {
        Self { kind: "customer", owner: customer.to_string(), currency }
    }

    /// What was sold.
    pub fn sales(currency: Currency) -> Self {
        Self { kind: "sales", owner: "shop".into(), currency }
    }

    /// What was given away as rewards.
    pub fn bonus(currency: Currency) -> Self {
        Self { kind: "bonus", owner: "shop".into(), currency }
    }

    /// Money that belongs to nobody yet.
    pub fn suspense(currency: Currency) -> Self {
        Self { kind: "suspense", owner: "shop".into(), currency }
    }

    /// The row that opens it. Only customers have a cached balance; customers and orders never go below zero.
    fn row(&self, now: Time) -> Vec<Value> {
        let cached = (self.kind == "customer").then_some(0_i64);
        let floor = matches!(self.kind, "customer" | "order").then_some(0_i64);
        args![self.id(), self.kind, &self.owner, self.currency.code(), cached, floor, now].to_vec()
    }

    /// The id in rows.
    pub fn id(&self) -> String {
        format!("{}:{}:{}", self.kind, self.owner, self.currency.code())
    }
}

/// Whose money at which provider a posting is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The provider.
    pub provider: Provider,
    /// Our account there.
    pub merchant: String,
    /// The payment's id there; for wallets that take many, with the transaction.
    pub provider_payment_id: String,
}

/// Entries that sum to zero in every currency. There is no unbalanced `Posting`.
#[derive(Clone, Debug)]
pub struct Posting {
    key: String,
    kind: &'static str,
    entries: Vec<(Account, i64)>,
    origin: Option<Origin>,
    order: Option<OrderId>,
    payment: Option<String>,
    note: Option<String>,
}

impl Posting {
    /// A posting under its business key. Entries of zero are left out; an imbalance is an error.
    pub fn new(kind: &'static str, key: impl Into<String>, entries: Vec<(Account, Amount)>) -> Result<Self, Error> {
        let mut sums: Vec<(Currency, i128)> = Vec::new();
        for (account, amount) in &entries {
            if account.currency != amount.currency() {
                return Err(Error::invalid("amount", format!("{} does not go into {}", amount, account.id())));
            }
            match sums.iter_mut().find(|(currency, _)| *currency == amount.currency()) {
                Some((_, sum)) => *sum += i128::from(amount.minor()),
                None => sums.push((amount.currency(), i128::from(amount.minor()))),
            }
        }
        if sums.iter().any(|(_, sum)| *sum != 0) {
            return Err(Error::invalid("amount", format!("the entries of {kind} do not sum to zero")));
        }
        let entries = entries.into_iter().filter(|(_, amount)| !amount.is_zero());
        Ok(Self {
            key: key.into(),
            kind,
            entries: entries.map(|(account, amount)| (account, amount.minor())).collect(),
            origin: None,
            order: None,
            payment: None,
            note: None,
        })
    }

    /// Names the provider's payment.
    #[must_use]
    pub fn from_provider(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Names the order.
    #[must_use]
    pub fn for_order(mut self, order: &OrderId) -> Self {
        self.order = Some(order.clone());
        self
    }

    /// Names our payment.
    #[must_use]
    pub fn for_payment(mut self, payment: &str) -> Self {
        self.payment = Some(payment.to_owned());
        self
    }

    /// Adds a sentence for people.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// Writes `posting`. Its key must be new: who may meet a repeat looks with [`is_posted`] under a row lock first, and if
/// two still meet, the key ends the second one's transaction. Answers the posting's id.
///
/// # Errors
/// [`Error::Insufficient`] when a customer's balance would pass its floor.
pub fn post(tx: &mut Tx, shop: &Shop, posting: &Posting) -> Result<String, Error> {
    let now = tx.now();
    let id = new_id(POSTING, now, &shop.chance);
    let accounts = posting.entries.iter().map(|(account, _)| account.row(now)).collect();
    tx.many_later(sql::OPEN, accounts, Expect::Any)?;
    for (account, amount) in posting.entries.iter().filter(|(account, _)| account.kind == "customer") {
        change_balance(tx, account, *amount)?;
    }
    let origin = posting.origin.as_ref();
    let row = args![
        &id,
        &posting.key,
        posting.kind,
        origin.map(|o| o.provider.as_str()),
        origin.map(|o| o.merchant.clone()),
        origin.map(|o| o.provider_payment_id.clone()),
        posting.order.as_ref().map(|o| o.to_string()),
        posting.payment.clone(),
        posting.note.clone(),
        now
    ];
    tx.gather(sql::POST, row)?;
    for (account, amount) in &posting.entries {
        tx.gather(sql::ENTRY, args![&id, account.id(), account.currency.code(), *amount])?;
    }
    Ok(id)
}

fn change_balance(tx: &mut Tx, account: &Account, amount: i64) -> Result<(), Error> {
    if amount >= 0 {
        tx.later(sql::CHANGE_BALANCE, args![account.id(), amount], Expect::Rows(1))?;
        return Ok(());
    }
    match tx.execute(sql::CHANGE_BALANCE, args![account.id(), amount])? {
        1 => Ok(()),
        _ => Err(Error::Insufficient { wanted: Amount::new(amount, account.currency).neg().to_string() }),
    }
}

/// Whether a posting stands under this business key.
pub fn is_posted(tx: &mut Tx, key: &str) -> Result<bool, StoreError> {
    Ok(tx.first(sql::IS_POSTED, args![key])?.is_some())
}

/// The business key of taking a provider's money.
pub fn capture_key(origin: &Origin) -> String {
    format!("capture:{}:{}:{}", origin.provider.as_str(), origin.merchant, origin.provider_payment_id)
}

/// All balances of a customer that ever held something.
pub fn balances(tx: &mut Tx, customer: &CustomerId) -> Result<Vec<Amount>, StoreError> {
    let rows = tx.rows(sql::BALANCES, args![customer])?;
    rows.iter().map(|row| Ok(Amount::new(row.get(1)?, currency(&row.get::<String>(0)?)?))).collect()
}

/// A customer's balance in one currency.
pub fn balance(tx: &mut Tx, customer: &CustomerId, of: Currency) -> Result<Amount, StoreError> {
    let row = tx.first(sql::BALANCE, args![Account::customer(customer, of).id()])?;
    Ok(Amount::new(row.map(|row| row.get(0)).transpose()?.unwrap_or(0), of))
}

/// Money at the providers that belongs to nobody yet.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Suspense {
    /// The capture that brought it.
    pub posting: String,
    /// Where it came from.
    pub provider: String,
    /// Our account there.
    pub merchant: String,
    /// The payment's id there.
    pub provider_payment_id: String,
    /// How much.
    pub amount: Amount,
    /// Why it is here.
    pub reason: String,
    /// `open` or `assigned`.
    pub state: String,
}

/// Notes a capture that fits nowhere.
pub fn suspend(tx: &mut Tx, posting: &str, origin: &Origin, amount: Amount, reason: &str) -> Result<(), StoreError> {
    let now = tx.now();
    let args = args![
        posting,
        origin.provider.as_str(),
        &origin.merchant,
        &origin.provider_payment_id,
        amount.currency().code(),
        amount.minor(),
        reason,
        now
    ];
    tx.gather(sql::SUSPEND, args)
}

/// The open suspense of a provider's payment, if there is one.
pub fn suspended(tx: &mut Tx, provider_payment_id: &str) -> Result<Option<Suspense>, StoreError> {
    tx.first(sql::SUSPENDED, args![provider_payment_id])?.as_ref().map(suspense_of).transpose()
}

fn suspense_of(row: &Row) -> Result<Suspense, StoreError> {
    Ok(Suspense {
        posting: row.get(0)?,
        provider: row.get(1)?,
        merchant: row.get(2)?,
        provider_payment_id: row.get(3)?,
        amount: Amount::new(row.get(5)?, currency(&row.get::<String>(4)?)?),
        reason: row.get(6)?,
        state: row.get(7)?,
    })
}

/// Ends a suspense in favour of `order`. Once: the second hand finds it ended.
pub fn end_suspense(tx: &mut Tx, money: &Suspense, order: &OrderId) -> Result<(), Error> {
    let now = tx.now();
    match tx.execute(sql::END_SUSPENSE, args![&money.posting, order, now, money.amount.minor()])? {
        1 => Ok(()),
        _ => Err(Error::Conflict("this money was assigned or given back before".into())),
    }
}

/// Takes `amount` out of a suspense, because its provider gave it back; with all of it the suspense ends.
///
/// # Errors
/// [`Error::Conflict`] when it ended before, or holds less than that.
pub fn leave_suspense(tx: &mut Tx, money: &Suspense, amount: Amount) -> Result<(), Error> {
    let now = tx.now();
    let fits = amount.currency() == money.amount.currency();
    if fits && tx.execute(sql::LEAVE_SUSPENSE, args![&money.posting, amount.minor(), now])? == 1 {
        return Ok(());
    }
    Err(Error::Conflict(format!("the {} in suspense do not cover the {amount} that went back", money.amount)))
}

/// Where the money of a provider's payment went: at its capture, or by the owner's hand afterwards.
#[derive(Clone, Debug)]
pub enum Captured {
    /// It paid this order.
    Order(OrderId),
    /// To the balance of this order's customer; it paid nothing.
    Balance(OrderId),
    /// It belongs to nobody yet.
    Suspense(Suspense),
}

/// Where the money of a provider's payment is; none when it is not in the books, or left suspense again.
pub fn captured_into(tx: &mut Tx, origin: &Origin) -> Result<Option<Captured>, StoreError> {
    let args = args![origin.provider.as_str(), &origin.merchant, &origin.provider_payment_id];
    let Some(row) = tx.first(sql::CAPTURED, args)? else { return Ok(None) };
    if row.get::<String>(1)? != "suspense" {
        return placed(&row);
    }
    let posting: String = row.get(0)?;
    if let Some(row) = tx.first(sql::SUSPENDED_BY, args![&posting])? {
        return Ok(Some(Captured::Suspense(suspense_of(&row)?)));
    }
    match tx.first(sql::ASSIGNED, args![format!("assign:{posting}")])? {
        Some(row) => placed(&row),
        None => Ok(None),
    }
}

fn placed(row: &Row) -> Result<Option<Captured>, StoreError> {
    let (kind, order): (String, Option<OrderId>) = (row.get(1)?, row.get(2)?);
    Ok(order.map(|order| if kind == "order" { Captured::Order(order) } else { Captured::Balance(order) }))
}

/// Which payment of ours paid `order`, with the provider's id under which the money came. An order may have more payments
/// with money: what came by those went to the balance.
pub fn paid_by(tx: &mut Tx, order: &OrderId, of: Currency) -> Result<Option<(String, String)>, StoreError> {
    let row = tx.first(sql::PAID_BY, args![Account::order(order, of).id()])?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// One entry on the path of the money that came for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The posting.
    pub posting: String,
    /// When it was posted.
    pub at: Time,
    /// The posting's kind: `capture` when the money came, `assign` when the owner gave it an owner, `refund` when it went
    /// back through its provider.
    pub kind: String,
    /// Through which provider it came or went.
    pub provider: Option<String>,
    /// The order that the posting names: for `assign` it may be another than the one that was asked about.
    pub order: Option<OrderId>,
    /// Why.
    pub note: Option<String>,
    /// The kind of the account: `order`, `customer` or `suspense`.
    pub account: String,
    /// How much; negative where it left that account.
    pub amount: Amount,
}

/// Where the money of an order went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Went {
    /// What came in for it.
    pub received: Amount,
    /// What of it went back to whoever paid.
    pub to_payer: Amount,
    /// What of it went to the customer's balance and did not leave it again by a refund.
    pub to_balance: Amount,
}

/// Where the money of `order` in the currency `of` went, by the books.
pub fn went(tx: &mut Tx, order: &OrderId, of: Currency) -> Result<Went, StoreError> {
    let row = tx.one(sql::WENT, args![order, of.code()])?;
    let sum = |column: usize| Ok::<_, StoreError>(Amount::new(row.get::<i64>(column)?.max(0), of));
    Ok(Went { received: sum(0)?, to_payer: sum(1)?, to_balance: sum(2)? })
}

/// The path of all money that came by the payments of `order` or was assigned to it, in the order of the books, at most
/// `limit` entries.
pub fn moved(tx: &mut Tx, order: &OrderId, limit: i64) -> Result<Vec<Moved>, StoreError> {
    tx.rows(sql::MOVED, args![order, limit])?.iter().map(moved_of).collect()
}

fn moved_of(row: &Row) -> Result<Moved, StoreError> {
    let unit = currency(&row.get::<String>(7)?)?;
    Ok(Moved {
        posting: row.get(0)?,
        at: row.get(1)?,
        kind: row.get(2)?,
        provider: row.get(3)?,
        order: row.get(4)?,
        note: row.get(5)?,
        account: row.get(6)?,
        amount: Amount::new(row.get(8)?, unit),
    })
}
