//! The job that stands behind every payment until it is final.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_payments::{CallError, Provider};

use super::flows::{self, TalkOrStore};
use super::scene::known_ids;
use super::settle::{Standing, ask, settle};
use super::talk::{self, TalkError};
use super::{Payment, PaymentId, PaymentState};
use crate::orders::OrderId;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, refunds, safety, stars};

/// A payment that its provider has not ended after this long is closed here; a later hint opens it again.
const PATIENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Asks a provider what became of a payment and applies the answer. Lives until the payment is final; hints pull it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConfirmPayment {
    /// The payment.
    pub payment: PaymentId,
    /// Its order.
    pub order: OrderId,
    /// Its provider.
    pub provider: Provider,
}

impl ConfirmPayment {
    /// The job of `payment`.
    pub fn of(payment: &Payment) -> Self {
        Self { payment: payment.id.clone(), order: payment.order.clone(), provider: payment.provider }
    }
}

impl Job for ConfirmPayment {
    type Context = Shop;
    const KIND: &'static str = "payment.confirm";
    const LANE: &'static str = Lanes::MONEY;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 1000);

    fn slot(&self) -> Option<String> {
        Some(self.payment.to_string())
    }

    fn thread(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let asked_at = shop.now();
        let (payment, mut ids) = known_ids(shop, &self.payment).await?;
        if ids.is_empty() && payment.state == PaymentState::Created {
            // A restored database may lack the id of a payment that was made and paid: the provider's list tells of it.
            if let Some(ended) = safety::flows::wait(shop, &claim).await? {
                return Ok(ended);
            }
            // The create call's answer was lost, or never asked for: the same call with the same key.
            match flows::link(shop, &self.payment).await {
                Ok(()) => ids = known_ids(shop, &self.payment).await?.1,
                Err(TalkOrStore::Talk(TalkError::Said(
                    error @ (CallError::Refused { .. } | CallError::ReceiptNeeded { .. }),
                ))) => {
                    return self.refused(shop, claim, error.to_string()).await;
                }
                Err(error) => return Err(self.job_error(shop, error)),
            }
        }
        let seen = ask(shop, &payment, ids).await.map_err(|error| self.job_error(shop, error))?;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            let standing = settle(tx, shop, &payment.id, &seen, asked_at)?;
            refunds::flows::found(tx, shop, payment.provider, &seen)?;
            let now = tx.now();
            if standing == Standing::Final {
                return Ok(claim.finish(tx)?);
            }
            // No provider ends an unpaid invoice in Stars: it is over when nobody is let through to pay it any more.
            let is_silent = payment.provider == Provider::Stars && seen.is_empty();
            if is_silent && stars::is_over(tx, &payment, asked_at)? {
                let mut payment = flows::lock(tx, &payment.id)?;
                flows::advance(tx, &mut payment, PaymentState::Cancelled, Some("nobody paid the invoice in time"))?;
                return Ok(claim.finish(tx)?);
            }
            if now.since(payment.created_at) > PATIENCE {
                let mut payment = flows::lock(tx, &payment.id)?;
                flows::advance(tx, &mut payment, PaymentState::Failed, Some("the provider never ended it"))?;
                return Ok(claim.finish(tx)?);
            }
            Ok::<_, Error>(claim.again(tx, next_ask(&payment, now))?)
        });
        Ok(ended.await?)
    }
}

impl ConfirmPayment {
    async fn refused(&self, shop: &Shop, claim: Claim, text: String) -> Result<Ended, JobError> {
        let (id, order) = (self.payment.clone(), self.order.clone());
        let ended = shop.write(Self::KIND, move |tx, shop| {
            flows::refused(tx, shop, &id, &text)?;
            alerts::flows::raise(
                tx,
                shop,
                format!("refused:{id}"),
                format!("The payment of order {order} could not be opened: {text}"),
            )?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }

    fn job_error(&self, shop: &Shop, error: TalkOrStore) -> JobError {
        match error {
            // Whatever a provider says now, the payment is not final: the job goes on asking.
            TalkOrStore::Talk(TalkError::Said(said @ (CallError::Refused { .. } | CallError::Foreign { .. }))) => {
                JobError::Later {
                    at: shop.now() + Duration::from_secs(300),
                    text: format!("{}: {said}", self.provider.as_str()),
                }
            }
            TalkOrStore::Talk(error) => talk::job_error(self.provider, error, shop.now(), shop.outbound.now()),
            TalkOrStore::Own(error) => error.into(),
        }
    }
}

/// The next look: a third of the payment's age from now, within bounds that spare the provider.
fn next_ask(payment: &Payment, now: Time) -> Time {
    // Heleket asks not to be polled about one invoice more often than every 30 s. Of Stars the bot's updates tell at once.
    let least = if matches!(payment.provider, Provider::Heleket | Provider::Stars) { 30 } else { 15 };
    let age = now.since(payment.created_at);
    now + (age / 3).clamp(Duration::from_secs(least), Duration::from_secs(6 * 3600))
}
