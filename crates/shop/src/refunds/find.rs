//! The job that asks for the refunds of one payment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::Tx;
use semel_money::Amount;
use semel_payments::Provider;

use super::{look, rows};
use crate::checkout::flows::{self as payments, TalkOrStore};
use crate::checkout::talk;
use crate::shop::Lanes;
use crate::{Error, Shop, alerts};

/// Asks the provider which refunds a payment had, after a look at the payment told of more than the books know.
#[derive(Debug, Serialize, Deserialize)]
pub struct FindRefunds {
    /// The provider.
    pub provider: Provider,
    /// The payment there.
    pub provider_payment_id: String,
    /// How much went back as the payment itself says, in smallest units of its currency. Part of the slot: the same sum is
    /// asked about once, and what stays unexplained is left to the sweep.
    pub refunded: i64,
}

impl Job for FindRefunds {
    type Context = Shop;
    const KIND: &'static str = "refund.find";
    const LANE: &'static str = Lanes::MONEY;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 200);

    fn slot(&self) -> Option<String> {
        Some(format!("{}:{}:{}", self.provider.as_str(), self.provider_payment_id, self.refunded))
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        match look::of_payment(shop, self.provider, &self.provider_payment_id).await {
            Ok(()) => {}
            Err(TalkOrStore::Own(error)) => return Err(error.into()),
            Err(TalkOrStore::Talk(error)) => {
                return Err(talk::job_error(self.provider, error, shop.now(), shop.outbound.now()));
            }
        }
        let ended = shop.write(Self::KIND, move |tx, shop| {
            self.tell_gap(tx, shop)?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}

impl FindRefunds {
    /// Tells the owner of a sum that the provider's own refunds do not explain. While one is on its way, they may not.
    fn tell_gap(&self, tx: &mut Tx, shop: &Shop) -> Result<(), Error> {
        let (provider, there) = (self.provider, &self.provider_payment_id);
        let merchant = shop.rail(provider)?.merchant();
        let Some(id) = payments::by_ref(tx, provider, merchant, there)? else { return Ok(()) };
        let payment = payments::find(tx, &id)?;
        let here = payment.refunded;
        if self.refunded <= here.minor() || rows::is_running(tx, &id)? {
            return Ok(());
        }
        let text = format!(
            "{} gave back {} of payment {there}, our books know of {here}: look at order {} and at the provider's cabinet. A \
             refund that is on its way there is booked by the hourly sweep",
            provider.as_str(),
            Amount::new(self.refunded, here.currency()),
            payment.order
        );
        alerts::flows::raise(tx, shop, format!("refund-gap:{there}:{}", self.refunded), text)
    }
}
