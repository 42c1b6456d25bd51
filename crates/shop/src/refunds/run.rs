//! The job that carries a refund to its provider.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Manner, Outcome, Retry};
use semel_kernel::outbound::Manner as CallManner;
use semel_payments::{CallError, Line, NewRefund, PaymentRef, Provider, Rail, Request, SeenRefund};

use super::{Refund, RefundId, end, rows};
use crate::checkout::Payment;
use crate::checkout::flows::TalkOrStore;
use crate::checkout::talk::{self, TalkError};
use crate::customers::{self, Customer};
use crate::orders::OrderId;
use crate::orders::flows as order_flows;
use crate::shop::Lanes;
use crate::{Error, Shop, safety};

/// Asks the provider to give money back, under the refund's own key, and follows it until it ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunRefund {
    /// The refund.
    pub refund: RefundId,
    /// Its order.
    pub order: OrderId,
    /// Its provider.
    pub provider: Provider,
}

impl Job for RunRefund {
    type Context = Shop;
    const KIND: &'static str = "refund.run";
    const LANE: &'static str = Lanes::MONEY;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 3000);
    const MANNER: Option<Manner> = Some(Manner::Keyed);

    fn slot(&self) -> Option<String> {
        Some(self.refund.to_string())
    }

    fn thread(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let id = self.refund.clone();
        let loaded = shop.read("refund.load", move |tx| {
            let refund = rows::find(tx, &id)?;
            let order = order_flows::find(tx, &refund.order)?;
            let customer = customers::flows::find(tx, &order.customer)?;
            let payment = match &refund.payment {
                Some(payment) => end::paying(tx, &order, payment)?,
                None => return Err(Error::Conflict("this refund has no payment".into())),
            };
            Ok((refund, payment, customer))
        });
        let (refund, payment, customer) = loaded.await?;
        if refund.state != "pending" {
            return Ok(shop.write("refund.done", move |tx, _| Ok::<_, Error>(claim.finish(tx)?)).await?);
        }
        match self.ask(shop, &refund, &payment, &customer).await {
            Ok(seen) => {
                let id = self.refund;
                let ended = shop.write(Self::KIND, move |tx, shop| {
                    if end::settle(tx, shop, &id, &seen)? {
                        return Ok(claim.finish(tx)?);
                    }
                    // A refund may be pending for days.
                    let at = tx.now() + Duration::from_secs(120);
                    Ok::<_, Error>(claim.again_as(tx, at, Outcome::Confirmed)?)
                });
                Ok(ended.await?)
            }
            Err(TalkOrStore::Talk(TalkError::Said(CallError::Refused { text, .. }) | TalkError::Unsupported(text))) => {
                self.refused(shop, claim, text).await
            }
            Err(TalkOrStore::Talk(error)) => {
                Err(talk::job_error(self.provider, error, shop.now(), shop.outbound.now()))
            }
            Err(TalkOrStore::Own(error)) => Err(error.into()),
        }
    }
}

impl RunRefund {
    async fn ask(
        &self,
        shop: &Shop,
        refund: &Refund,
        payment: &Payment,
        customer: &Customer,
    ) -> Result<SeenRefund, TalkOrStore> {
        let rail = shop.rail(self.provider).map_err(|error| TalkError::Unsupported(error.to_string()))?;
        // Telegram gives a charge in Stars back once, whatever is sent how often; nothing is asked about it before.
        let is_harmless = self.provider == Provider::Stars;
        let keyed = is_harmless || self.provider == Provider::YooKassa;
        if let Some(id) = refund.provider_refund_id.as_ref().filter(|_| !is_harmless) {
            let request = rail.ask_refund(id).map_err(TalkError::from)?;
            let answer = talk::send(shop, rail, "refund.ask", CallManner::Read, request).await?;
            if let Some(seen) = rail.asked_refund(&answer).map_err(TalkError::from)? {
                return Ok(seen);
            }
            if !keyed {
                let text = "the call was made and the payment shows no refund: it is not repeated".to_owned();
                return Err(TalkError::Said(CallError::Unclear { status: None, text }).into());
            }
        }
        let new = NewRefund {
            provider_id: payment.provider_id.clone().unwrap_or_default(),
            amount: refund.amount,
            key: refund.id.to_string(),
            reason: refund.reason.clone(),
            address: refund.address.clone(),
            payer: Some(customer.telegram_id),
            customer_email: customer.email.clone(),
            customer_phone: customer.phone.clone(),
            lines: vec![Line { title: format!("Refund of order {}", refund.order), quantity: 1, price: refund.amount }],
        };
        let request = rail.refund(&new).map_err(TalkError::from)?;
        if !keyed {
            return self.send_once(shop, rail, &new, request).await;
        }
        if !is_harmless && shop.now().since(refund.created_at) > end::KEY_LIFE {
            self.look_before(shop, rail, payment, &new.provider_id).await?;
        }
        let answer = talk::send(shop, rail, "refund.create", CallManner::Keyed, request).await?;
        Ok(rail.refunded(&new, &answer).map_err(TalkError::from)?)
    }

    /// A key that is too old is forgotten: the same call would be a second refund. So the payment is asked first, and if
    /// more of it went back than the books know, that may be this one, and a person decides.
    async fn look_before(&self, shop: &Shop, rail: &Rail, payment: &Payment, id: &str) -> Result<(), TalkOrStore> {
        let request = rail.ask(&PaymentRef::ProviderId(id.to_owned())).map_err(TalkError::from)?;
        let answer = talk::send(shop, rail, "payment.ask", CallManner::Read, request).await?;
        let seen = rail.asked(&answer).map_err(TalkError::from)?;
        match seen.and_then(|seen| seen.refunded) {
            Some(there) if there.minor() > payment.refunded.minor() => {
                let text = format!(
                    "the refund was begun too long ago to be sent again, and {there} of the payment went back where the \
                     books know of {}: replay the notice of that refund if it is this one",
                    payment.refunded
                );
                Err(TalkError::Said(CallError::Unclear { status: None, text }).into())
            }
            _ => Ok(()),
        }
    }

    /// Sends a refund to a provider that honours no key: at most once. That it may have been sent is written before, and
    /// from then on it is only asked about.
    async fn send_once(
        &self,
        shop: &Shop,
        rail: &Rail,
        new: &NewRefund,
        request: Request,
    ) -> Result<SeenRefund, TalkOrStore> {
        let (id, there) = (self.refund.clone(), new.provider_id.clone());
        if !shop.write("refund.sending", move |tx, _| rows::sending(tx, &id, &there)).await? {
            let text = "this payment had a refund before, and its provider gives a payment back once".to_owned();
            return Err(TalkError::Unsupported(text).into());
        }
        let sent = match talk::send(shop, rail, "refund.create", CallManner::Asked, request).await {
            Ok(answer) => rail.refunded(new, &answer).map_err(TalkError::from),
            Err(error) => Err(error),
        };
        let nothing = match &sent {
            Err(TalkError::Away(away)) => away.never_sent(),
            Err(TalkError::Said(CallError::Throttled { .. } | CallError::Misconfigured { .. })) => true,
            _ => false,
        };
        if nothing {
            let id = self.refund.clone();
            shop.write("refund.not_sent", move |tx, _| rows::not_sent(tx, &id)).await?;
        }
        Ok(sent?)
    }

    async fn refused(&self, shop: &Shop, claim: Claim, text: String) -> Result<Ended, JobError> {
        let id = self.refund.clone();
        let ended = shop.write("refund.refused", move |tx, shop| {
            let refund = rows::find(tx, &id)?;
            let mut order = order_flows::lock(tx, &refund.order)?;
            end::fail(tx, shop, &refund, &mut order, &text)?;
            Ok::<_, Error>(claim.finish_as(tx, Outcome::Failed)?)
        });
        Ok(ended.await?)
    }
}
