//! What the owner has to know: into the log, and to the owner and helpers by Telegram.
//!
//! An alert is a job written in the transaction of its cause, once per key. Its text never holds secrets or goods.

pub mod flows;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};

use crate::Shop;
use crate::shop::Lanes;

/// Tells the owner one sentence.
#[derive(Debug, Serialize, Deserialize)]
pub struct Alert {
    /// Two alerts of one key are one alert, for ever.
    pub key: String,
    /// What to know and, if there is something, what to do.
    pub text: String,
}

impl Job for Alert {
    type Context = Shop;
    const KIND: &'static str = "owner.alert";
    const LANE: &'static str = Lanes::MESSAGES;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(600), 20);

    fn slot(&self) -> Option<String> {
        Some(self.key.clone())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let Self { key, text } = self;
        let (of, sentence) = (key.clone(), text.clone());
        let write = shop.write(Self::KIND, move |tx, shop| {
            flows::tell(tx, shop, &of, &sentence)?;
            Ok(claim.finish(tx)?)
        });
        let ended = write.await?;
        tracing::warn!(alert.key = %key, "{text}");
        Ok(ended)
    }
}
