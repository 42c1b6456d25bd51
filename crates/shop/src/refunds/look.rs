//! Looks at a provider's refunds: at one that a notice names, at those of one payment, at the list of the last days.

use semel_kernel::clock::Time;
use semel_kernel::outbound::Manner;
use semel_payments::{Provider, RefundPage, RefundState, SeenRefund, WhichRefunds};

use super::outside::{self, book};
use crate::checkout::flows::TalkOrStore;
use crate::checkout::talk::{self, TalkError};
use crate::{Error, Shop, alerts, ledger};

const PAGES_AT_MOST: usize = 200;

/// Looks at a refund that a notice told of: ours is settled, another is booked. False when the provider does not know it.
pub async fn look(shop: &Shop, provider: Provider, refund_id: &str) -> Result<bool, TalkOrStore> {
    let rail = shop.rail(provider)?;
    let request = rail.ask_refund(refund_id).map_err(TalkError::from)?;
    let answer = talk::send(shop, rail, "refund.ask", Manner::Read, request).await?;
    let Some(seen) = rail.asked_refund(&answer).map_err(TalkError::from)? else { return Ok(false) };
    shop.write("refund.look", move |tx, shop| match book(tx, shop, provider, &seen)? {
        true => Ok(()),
        // The payment comes into the books first, by its own job; then this is tried again.
        false => Err(outside::not_yet()),
    })
    .await?;
    Ok(true)
}

/// Reads the provider's list of the refunds that were begun since a moment, and books those that the books do not know. False
/// when the list is too long and was not read to its end.
///
/// # Errors
/// [`TalkError::Unsupported`] where there is no such list: at Heleket the state of a payment tells of its refund, and at
/// CrystalPay there is none.
pub async fn sweep(shop: &Shop, provider: Provider, since: Time) -> Result<bool, TalkOrStore> {
    book_all(shop, provider, WhichRefunds::Since(since.millis())).await
}

/// Reads the provider's list of one payment's refunds, and books those that the books do not know.
pub(super) async fn of_payment(shop: &Shop, provider: Provider, provider_payment_id: &str) -> Result<(), TalkOrStore> {
    book_all(shop, provider, WhichRefunds::Of(provider_payment_id)).await.map(|_| ())
}

async fn book_all(shop: &Shop, provider: Provider, which: WhichRefunds<'_>) -> Result<bool, TalkOrStore> {
    let rail = shop.rail(provider)?;
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES_AT_MOST {
        let request = rail.list_refunds(which, cursor.as_deref()).map_err(TalkError::from)?;
        let answer = talk::send(shop, rail, "refund.list", Manner::Read, request).await?;
        let RefundPage { items, next, unreadable } = rail.listed_refunds(&answer).map_err(TalkError::from)?;
        for reason in unreadable {
            tracing::warn!(provider = provider.as_str(), reason, "a refund in the provider's list cannot be read");
        }
        for seen in unbooked(shop, provider, items).await? {
            book_one(shop, provider, seen).await?;
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(true);
        }
    }
    let name = provider.as_str();
    let text = format!("{name} lists more than {PAGES_AT_MOST} pages of refunds: the rest was not read");
    let raised = shop.write("refund.long", move |tx, shop| {
        alerts::flows::raise(tx, shop, format!("refunds-long:{}", provider.as_str()), text.clone())
    });
    raised.await?;
    Ok(false)
}

/// Those that stand in no posting yet: most of a list is known, and knowing it needs no writer.
async fn unbooked(shop: &Shop, provider: Provider, items: Vec<SeenRefund>) -> Result<Vec<SeenRefund>, Error> {
    let mut keyed = Vec::with_capacity(items.len());
    for seen in items.into_iter().filter(|seen| seen.state == RefundState::Succeeded) {
        keyed.push((outside::through(shop, provider, &seen)?.key(), seen));
    }
    if keyed.is_empty() {
        return Ok(Vec::new());
    }
    let unbooked = shop.read("refund.unbooked", move |tx| {
        let mut unbooked = Vec::new();
        for (key, seen) in &keyed {
            if !ledger::is_posted(tx, key)? {
                unbooked.push(seen.clone());
            }
        }
        Ok(unbooked)
    });
    unbooked.await
}

async fn book_one(shop: &Shop, provider: Provider, seen: SeenRefund) -> Result<(), TalkOrStore> {
    let id = seen.refund_id.clone();
    // One whose payment is not in the books yet waits for the next look.
    match shop.write("refund.book", move |tx, shop| book(tx, shop, provider, &seen)).await {
        Ok(_) => Ok(()),
        Err(Error::Store(error)) => Err(Error::Store(error).into()),
        // One odd refund must not hide those behind it.
        Err(error) => {
            let text = format!("{} refund {id} cannot be booked: {error}", provider.as_str());
            let raised = shop.write("refund.odd", move |tx, shop| {
                alerts::flows::raise(tx, shop, format!("refund-odd:{}:{id}", provider.as_str()), text.clone())
            });
            Ok(raised.await?)
        }
    }
}
