//! Raising alerts and handing them to the owner.

use semel_kernel::jobs;
use semel_kernel::store::Tx;
use semel_money::Amount;

use super::Alert;
use crate::messages::{self, Body, Class, Message, New};
use crate::orders::OrderId;
use crate::{Error, Shop};

/// Tells the owner `text`, once for each `key`. Takes place after the commit.
///
/// `text` goes into the log and to Telegram: no secrets, no goods.
pub fn raise(tx: &mut Tx, shop: &Shop, key: impl Into<String>, text: impl Into<String>) -> Result<(), Error> {
    let now = tx.now();
    jobs::enqueue(tx, &Alert { key: key.into(), text: text.into() }, now, &shop.chance)?;
    Ok(())
}

/// Tells the owner of a sale: one message a head, and nothing when there is nobody to tell. The log has the sale anyway.
pub fn sold(tx: &mut Tx, shop: &Shop, order: &OrderId, total: Amount) -> Result<(), Error> {
    tell(tx, shop, &format!("sale:{order}"), &format!("Sold: order {order} for {total}"))
}

/// So many words of one customer reach the owner in a day.
const WORDS_A_DAY: i64 = 10;
const DAY_MS: i64 = 86_400_000;

/// What became of a customer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The owner gets them.
    On,
    /// The owner has enough of this customer's for today.
    Enough,
    /// Nobody is named who could get them.
    ToNobody,
}

/// What a customer writes to the owner about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Anything.
    Help,
    /// A payment: Telegram wants every bot that takes Stars to answer these.
    Payment,
}

/// Hands the owner what a customer wrote, with two ways to answer: a reply goes to the customer ([`who_asked`]), and the customer's
/// number leads to the chat with them. It is no alert: what people write belongs into no log and into no job, which both stay. Belongs into the transaction that ends the update; whoever calls it holds the customer's row, so that nothing is counted twice.
pub(crate) fn hand_on(
    tx: &mut Tx,
    shop: &Shop,
    customer: i64,
    asks: Asks,
    words: &str,
    latest: Option<&OrderId>,
) -> Result<Handed, Error> {
    let Some(first) = shop.rules.admins.first() else { return Ok(Handed::ToNobody) };
    let day = tx.now().millis().div_euclid(DAY_MS);
    for n in 0..WORDS_A_DAY {
        let key = format!("{}{customer}:{day}:{n}", messages::WORDS_OF_CUSTOMER);
        if !messages::flows::is_written(tx, &dedup_key(&key, *first))? {
            let about = match asks {
                Asks::Help => "asks for help",
                Asks::Payment => "has a question about a payment",
            };
            let words = messages::alert_html(words);
            let mut html = format!("Customer <a href=\"tg://user?id={customer}\">{customer}</a> {about}: {words}");
            if let Some(order) = latest {
                html.push_str(&format!("\nLatest order: <code>{order}</code>"));
            }
            tell_html(tx, shop, &key, &html)?;
            return Ok(Handed::On);
        }
    }
    Ok(Handed::Enough)
}

/// The customer whose words stand in this message of an owner's chat; nobody for any other message, and for one that is erased.
pub(crate) fn who_asked(tx: &mut Tx, owner: i64, telegram_id: i64) -> Result<Option<i64>, Error> {
    let Some(key) = messages::flows::key_of_alert(tx, owner, telegram_id)? else { return Ok(None) };
    let of_customer = key.strip_prefix("alert:").and_then(|key| key.strip_prefix(messages::WORDS_OF_CUSTOMER));
    let customer = of_customer.and_then(|rest| rest.split(':').next());
    Ok(customer.and_then(|customer| customer.parse().ok()))
}

/// Tells the owner and each helper that an answer has reached its customer: whoever wrote it, all of them see that it was given.
pub(crate) fn replied(tx: &mut Tx, shop: &Shop, message: &Message) -> Result<(), Error> {
    tell(tx, shop, &format!("replied:{}", message.id), &format!("Customer {} has your answer", message.chat_id))
}

fn dedup_key(key: &str, chat: i64) -> String {
    format!("alert:{key}:{chat}")
}

/// Queues one message for the owner and each helper. An alert is never sent twice: that would look like two troubles.
pub(super) fn tell(tx: &mut Tx, shop: &Shop, key: &str, text: &str) -> Result<(), Error> {
    tell_html(tx, shop, key, &messages::alert_html(text))
}

/// The same with markup: everything foreign in it is escaped.
fn tell_html(tx: &mut Tx, shop: &Shop, key: &str, html: &str) -> Result<(), Error> {
    for chat in &shop.rules.admins {
        let new = New {
            dedup_key: dedup_key(key, *chat),
            chat_id: *chat,
            class: Class::AtMostOnce,
            kind: messages::ALERT,
            body: Body::Text { html: html.to_owned() },
            order: None,
        };
        messages::flows::queue(tx, shop, new)?;
    }
    Ok(())
}
