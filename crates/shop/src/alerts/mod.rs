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
        match is_good_news(&key) {
            true => tracing::info!(alert.key = %key, "{text}"),
            false => tracing::warn!(alert.key = %key, "{text}"),
        }
        Ok(ended)
    }
}

/// Whether an alert tells of an end as it should be: nothing that anybody has to do something about.
fn is_good_news(key: &str) -> bool {
    key.starts_with("campaign:") && key.ends_with(":finished")
}

#[cfg(test)]
mod tests {
    use super::is_good_news;

    #[test]
    fn only_a_campaign_that_came_to_its_end_is_no_warning() {
        assert!(is_good_news("campaign:cmp_1:2:finished"));
        for trouble in ["campaign:cmp_1:2:over-limit", "campaign:cmp_1:dead:job_1", "refund:rfd_1"] {
            assert!(!is_good_news(trouble), "{trouble}");
        }
    }
}
