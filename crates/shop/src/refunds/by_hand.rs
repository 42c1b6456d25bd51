//! A refund that was made at the provider, with the sum from the owner.
//!
//! Only for a provider that tells of a refund and not of its sum. Its own word is asked for all the same: without it there
//! was no refund, whatever the owner says.

use semel_kernel::keys::{self, Key};
use semel_kernel::outbound::Manner;
use semel_money::Amount;
use semel_payments::{PaymentRef, Rail, RefundState, Seen, SeenRefund};

use super::{NewRefundRequest, outside};
use crate::checkout::talk::{self, TalkError};
use crate::checkout::{Payment, flows as payments};
use crate::orders::OrderId;
use crate::orders::flows as order_flows;
use crate::{Error, Shop, ledger};

/// Books the refund of a payment of `order`, made at its provider, with the sum that the request names. Once: the business
/// key is the one under which any other way would book it.
///
/// # Errors
/// [`Error::Invalid`] without a sum, or with one that the payment did not bring; [`Error::Conflict`] when no provider
/// tells of such a refund, or when the books have it.
pub(super) async fn book(
    shop: &Shop,
    order: &OrderId,
    request: &NewRefundRequest,
    key: Option<Key>,
) -> Result<(), Error> {
    let of = order.clone();
    let loaded = shop.read("refund.made", move |tx| Ok((order_flows::find(tx, &of)?, payments::of_order(tx, &of)?)));
    let (owned, tries) = loaded.await?;
    let text = request.amount.as_deref().unwrap_or("0");
    let sum = Amount::parse(text, owned.currency())?;
    if !sum.is_positive() {
        return Err(Error::invalid("amount", "say how much went back, as the provider's cabinet shows it"));
    }
    let mut known = None;
    for payment in &tries {
        let Some(seen) = told(shop, payment).await? else { continue };
        let (provider, of, key) = (payment.provider, order.clone(), key.clone());
        let posted = outside::through(shop, provider, &seen)?.key();
        if shop.read("refund.posted", move |tx| Ok(ledger::is_posted(tx, &posted)?)).await? {
            known = Some(seen.provider_id);
            continue;
        }
        let booked = shop.write("refund.by_hand", move |tx, shop| {
            if let Some(key) = &key {
                keys::bind(tx, key, of.as_str())?;
            }
            outside::book_sum(tx, shop, provider, &seen, sum)
        });
        return booked.await;
    }
    Err(Error::Conflict(match known {
        Some(id) => format!("the books have the refund of payment {id} already"),
        None => format!("no provider tells of a refund of order {order} whose sum it keeps to itself"),
    }))
}

/// The refund that a payment's own state tells of, if it has succeeded.
async fn told(shop: &Shop, payment: &Payment) -> Result<Option<SeenRefund>, Error> {
    let Some(id) = &payment.provider_id else { return Ok(None) };
    let rail = shop.rail(payment.provider)?;
    let seen = ask(shop, rail, id).await.map_err(|error| talk::api_error(payment.provider, error))?;
    let refund = seen.and_then(|seen| seen.refund());
    Ok(refund.filter(|refund| refund.state == RefundState::Succeeded))
}

async fn ask(shop: &Shop, rail: &Rail, id: &str) -> Result<Option<Seen>, TalkError> {
    let request = rail.ask(&PaymentRef::ProviderId(id.to_owned()))?;
    let answer = talk::send(shop, rail, "payment.ask", Manner::Read, request).await?;
    Ok(rail.asked(&answer)?)
}
