//! Whether somebody may pay now: what Telegram asks before it takes Stars.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::{StoreError, Tx};
use semel_payments::Provider;
use semel_telegram::Checkout;

use super::price::is_in_stars;
use super::sql;
use crate::audit::{Flow, stops};
use crate::checkout::{PaymentId, PaymentState, flows as payments};
use crate::messages::Language;
use crate::orders::State;
use crate::{Error, Shop, customers, orders, safety};

/// How long nobody else is let through to an invoice after somebody was. Telegram charges at once after the yes, and its word of
/// that has usually settled the payment long before.
const HOLD: Duration = Duration::from_secs(60);

/// Why somebody may not pay. Nothing was taken from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No invoice of ours, or not theirs: nobody learns of another's orders.
    NotTheirs,
    /// Paid, called off, or too late.
    Over,
    /// Somebody was let through to this invoice a moment ago: a double tap, most often.
    Underway,
    /// The invoice asks for another sum than the payment does.
    OtherSum,
    /// The shop sells nothing now.
    Closed,
    /// We could not find out in time.
    Busy,
}

impl Refusal {
    /// What the customer reads over the invoice.
    pub fn text(self, language: Language) -> &'static str {
        let (russian, english) = match self {
            Self::NotTheirs => (
                "Этот счёт выставлен не вам. Выберите товар в боте, и он выставит ваш.",
                "This invoice is not yours. Choose the product in the bot, and it makes one for you.",
            ),
            Self::Over => (
                "Этот заказ уже оплачен, отменён или его срок вышел. Звёзды не списаны. Оформите новый в боте.",
                "This order is paid, cancelled or too old. No Stars were taken. Please make a new one in the bot.",
            ),
            Self::Underway => (
                "Этот счёт уже оплачивается: посмотрите в чат через минуту. За это нажатие звёзды не списаны.",
                "This invoice is being paid already: look into the chat in a minute. No Stars were taken by this tap.",
            ),
            Self::OtherSum => (
                "Цена в этом счёте уже не действует. Звёзды не списаны. Откройте товар в боте заново.",
                "The price in this invoice does not hold any more. No Stars were taken. Please open the product again.",
            ),
            Self::Closed => (
                "Магазин ненадолго приостановил продажи. Звёзды не списаны. Попробуйте чуть позже.",
                "The shop has paused sales for a moment. No Stars were taken. Please try again a little later.",
            ),
            Self::Busy => (
                "Сейчас не получилось проверить заказ. Звёзды не списаны. Попробуйте ещё раз через минуту.",
                "The order could not be checked just now. No Stars were taken. Please try again in a minute.",
            ),
        };
        match language {
            Language::Russian => russian,
            Language::English => english,
        }
    }
}

/// Whether the person behind `asked` may pay to the bot `bot` now; else the words that they read. Answers within `within`, whatever the
/// database does: not to know is no, and no money is lost by that. A yes is written down before it is said, one for an invoice within a
/// minute, so that a double tap is charged once; the same question gets the same yes again. Credits nothing.
///
/// # Errors
/// The words of the refusal.
pub async fn may_pay(shop: &Shop, bot: &str, asked: &Checkout, within: Duration) -> Result<(), &'static str> {
    let spoken = Language::of(asked.from.language.as_deref());
    match tokio::time::timeout(within, look(shop, bot, asked)).await {
        Ok(Ok((_, None))) => Ok(()),
        Ok(Ok((language, Some(refusal)))) => {
            tracing::info!(?refusal, "somebody was not let through to pay with Stars");
            Err(refusal.text(language))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "whether somebody may pay with Stars could not be found out");
            Err(Refusal::Busy.text(spoken))
        }
        Err(_) => {
            tracing::warn!("whether somebody may pay with Stars was not found out in time");
            Err(Refusal::Busy.text(spoken))
        }
    }
}

/// What a look came to, with the language of the person.
type Verdict = (Language, Option<Refusal>);

async fn look(shop: &Shop, bot: &str, asked: &Checkout) -> Result<Verdict, Error> {
    // The same two gates as for an order.
    let is_closed = safety::flows::mode(shop).await?.is_some() || stops::holds(shop, Flow::Sales).await?;
    let (bot, question) = (bot.to_owned(), asked.clone());
    let (language, refusal) = shop.read("stars.gate", move |tx| decide(tx, &bot, &question, is_closed)).await?;
    if refusal.is_none() && !reserve(shop, asked).await? {
        return Ok((language, Some(Refusal::Underway)));
    }
    Ok((language, refusal))
}

/// Takes the invoice for this question, unless another one has it. One conditional statement decides between two taps. When nobody
/// waits for the outcome any more the answer was no, and a tap within the minute may read that the invoice is being paid: so the row
/// may refuse too much for a moment, and never too little.
async fn reserve(shop: &Shop, asked: &Checkout) -> Result<bool, Error> {
    let (payment, question) = (asked.payload.clone(), asked.query.clone());
    let taken: Result<u64, StoreError> = shop
        .store
        .single("stars.reserve", move |tx| {
            let now = tx.now();
            tx.execute(sql::RESERVE, args![&payment, &question, now, now - HOLD])
        })
        .await;
    Ok(taken? == 1)
}

fn decide(tx: &mut Tx, bot: &str, asked: &Checkout, is_closed: bool) -> Result<Verdict, Error> {
    let spoken = Language::of(asked.from.language.as_deref());
    let Some(id) = PaymentId::parse(&asked.payload) else { return Ok((spoken, Some(Refusal::NotTheirs))) };
    let payment = match payments::find(tx, &id) {
        Ok(payment) => payment,
        Err(Error::NotFound { .. }) => return Ok((spoken, Some(Refusal::NotTheirs))),
        Err(error) => return Err(error),
    };
    let customer = customers::flows::find(tx, &payment.customer)?;
    let is_ours = payment.provider == Provider::Stars && payment.merchant == bot;
    if !is_ours || customer.telegram_id != asked.from.id {
        return Ok((spoken, Some(Refusal::NotTheirs)));
    }
    let language = Language::of(customer.language.as_deref().or(asked.from.language.as_deref()));
    let order = orders::flows::find(tx, &payment.order)?;
    let waits = order.state == State::Pending && payment.state == PaymentState::Pending && tx.now() < order.deadline;
    let is_same = asked.currency == payment.amount.currency().code()
        && is_in_stars(payment.amount.currency())
        && asked.amount == payment.amount.minor();
    let refusal = match (waits, is_same) {
        (false, _) => Some(Refusal::Over),
        (true, false) => Some(Refusal::OtherSum),
        (true, true) if is_closed => Some(Refusal::Closed),
        (true, true) => None,
    };
    Ok((language, refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_fits_over_the_invoice_and_says_that_nothing_was_taken() {
        for refusal in
            [Refusal::NotTheirs, Refusal::Over, Refusal::Underway, Refusal::OtherSum, Refusal::Closed, Refusal::Busy]
        {
            for language in [Language::Russian, Language::English] {
                let text = refusal.text(language);
                assert!((1..=200).contains(&text.encode_utf16().count()), "{text}");
            }
            let english = refusal.text(Language::English);
            assert!(refusal == Refusal::NotTheirs || english.contains("No Stars were taken"), "{english}");
        }
    }
}
