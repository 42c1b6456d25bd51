//! Granting and taking back.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::store::{StoreError, Tx};
use semel_money::{Amount, Rounding};

use super::sql;
use crate::customers::{Customer, CustomerId};
use crate::ledger::{self, Account, Posting};
use crate::orders::flows::order_at;
use crate::orders::{Order, OrderId};
use crate::shop::currency;
use crate::{Error, Shop, messages};

/// How often a balance is read again because somebody spent from it between the look and the posting.
const LOOKS: usize = 5;

/// An order, its row held until the transaction ends, and who sent its customer, if anybody did.
pub(super) fn scene(tx: &mut Tx, id: &OrderId) -> Result<(Order, Option<Customer>), Error> {
    let row = tx.first(sql::SCENE, args![id])?.ok_or_else(|| Error::missing("order", id))?;
    let referrer = match row.get::<Option<CustomerId>>(11)? {
        Some(id) => Some(Customer {
            id,
            telegram_id: row.get(12)?,
            email: row.get(13)?,
            phone: row.get(14)?,
            language: row.get(15)?,
            referrer: row.get(16)?,
            created_at: row.get(17)?,
        }),
        None => None,
    };
    Ok((order_at(&row, 0)?, referrer))
}

/// Rewards `referrer`, who sent the customer of `order`, for that customer's first payment, at the rate of the owner's rules.
/// A repeat changes nothing, nor does a later payment, or a share of less than the smallest unit.
pub fn reward(tx: &mut Tx, shop: &Shop, order: &Order, referrer: &Customer, now: Time) -> Result<(), Error> {
    let customer = &order.customer;
    if referrer.id == *customer {
        return Ok(());
    }
    let amount = order.total.share(shop.rules.referral, Rounding::Down)?;
    if !amount.is_positive() {
        return Ok(());
    }
    let row = args![customer, &referrer.id, &order.id, amount.currency().code(), amount.minor(), now];
    if tx.execute(sql::GRANT, row)? == 0 {
        return Ok(()); // There was a payment before.
    }
    let posting = Posting::new(
        "reward",
        format!("reward:{customer}"),
        vec![
            (Account::bonus(amount.currency()), amount.neg()),
            (Account::customer(&referrer.id, amount.currency()), amount),
        ],
    )?;
    let note = format!("for the first payment of {customer}");
    ledger::post(tx, shop, &posting.for_order(&order.id).note(note))?;
    messages::flows::notify_reward(tx, shop, referrer, amount, &order.id)?;
    let detail = format!("{amount} to {}", referrer.id);
    let granted = Entry {
        n: Some(1),
        event: "reward granted",
        to: Some("granted"),
        detail: Some(&detail),
        ..entry(customer, &order.id)
    };
    Ok(history::append(tx, &granted)?)
}

/// Takes the reward of a refunded order back from the referrer's balance, or as much of it as is there. A repeat, or an
/// order without a reward, changes nothing.
pub fn reverse(tx: &mut Tx, shop: &Shop, order: &OrderId) -> Result<(), Error> {
    let Some(row) = tx.first(sql::REVERSE, args![order])? else { return Ok(()) };
    let customer: CustomerId = row.get(0)?;
    let referrer: CustomerId = row.get(1)?;
    let code: String = row.get(2)?;
    let granted = Amount::new(row.get(3)?, currency(&code)?);
    let taken = take_back(tx, shop, order, &customer, &referrer, granted)?;
    let detail = format!("{taken} of {granted} taken back from {referrer}");
    let reversed = Entry {
        n: Some(2),
        event: "reward reversed",
        from: Some("granted"),
        to: Some("reversed"),
        detail: Some(&detail),
        ..entry(&customer, order)
    };
    Ok(history::append(tx, &reversed)?)
}

fn take_back(
    tx: &mut Tx,
    shop: &Shop,
    order: &OrderId,
    customer: &CustomerId,
    referrer: &CustomerId,
    granted: Amount,
) -> Result<Amount, Error> {
    let of = granted.currency();
    for _ in 0..LOOKS {
        let balance = ledger::balance(tx, referrer, of)?;
        let take = Amount::new(balance.minor().min(granted.minor()), of);
        if !take.is_positive() {
            return Ok(Amount::zero(of));
        }
        // The customer's side first: a refusal then leaves nothing written.
        let posting = Posting::new(
            "reward_reversal",
            format!("reward-reversal:{customer}"),
            vec![(Account::customer(referrer, of), take.neg()), (Account::bonus(of), take)],
        )?;
        let note = if take == granted {
            format!("the first payment of {customer} was refunded")
        } else {
            format!("the first payment of {customer} was refunded; of {granted} only {take} was left on the balance")
        };
        match ledger::post(tx, shop, &posting.for_order(order).note(note)) {
            Ok(_) => return Ok(take),
            Err(Error::Insufficient { .. }) => {} // Spent since the look: take what is left now.
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Contention(format!("the balance of {referrer} changes too often to take a reward back")).into())
}

fn entry<'a>(customer: &'a CustomerId, order: &'a OrderId) -> Entry<'a> {
    Entry { entity: "reward", entity_id: customer.as_str(), thread: Some(order.as_str()), ..Entry::default() }
}
