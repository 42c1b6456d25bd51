//! The job that rewards a referrer: beside the sale, so that no customer waits for somebody else's bonus.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};

use super::flows;
use crate::orders::OrderId;
use crate::shop::Lanes;
use crate::{Error, Shop};

/// Rewards who brought the customer of a paid order, if it was the first payment.
#[derive(Debug, Serialize, Deserialize)]
pub struct RewardReferrer {
    /// The order.
    pub order: OrderId,
}

impl Job for RewardReferrer {
    type Context = Shop;
    const KIND: &'static str = "referral.reward";
    const LANE: &'static str = Lanes::MONEY;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 200);

    fn slot(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    fn thread(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let id = self.order;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            // A refund holds the order's row too: it comes before and there is nothing to reward, or after and takes it back.
            let (order, referrer) = flows::scene(tx, &id)?;
            if let Some(referrer) = referrer {
                let now = tx.now();
                flows::reward(tx, shop, &order, &referrer, now)?;
            }
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}
