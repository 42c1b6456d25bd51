//! An order's deadline.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};

use super::{OrderId, flows};
use crate::shop::Lanes;
use crate::{Error, Shop, safety};

/// Lets an unpaid order go when its deadline has passed, and gives its stock back.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExpireOrder {
    /// The order.
    pub order: OrderId,
}

impl Job for ExpireOrder {
    type Context = Shop;
    const KIND: &'static str = "order.expire";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(5), Duration::from_secs(60), 500);

    fn slot(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    fn thread(&self) -> Option<String> {
        Some(self.order.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        // It may have been paid after the backup: that is looked into first.
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let order = self.order;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            flows::expire(tx, shop, &order)?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}
