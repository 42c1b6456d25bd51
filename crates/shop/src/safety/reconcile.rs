//! The job that brings one rail up to date after a restore.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_payments::Provider;

use super::{SafeMode, flows};
use crate::checkout::flows::TalkOrStore;
use crate::checkout::sweep;
use crate::checkout::talk::{self, TalkError};
use crate::shop::Lanes;
use crate::{Error, Shop, alerts};

/// Reads a provider's lists from before the backup on and books what the restored database lacks. When it has run through,
/// the rail counts as reconciled; a list that could not be read to its end does not count.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reconcile {
    /// Which.
    pub provider: Provider,
    /// When the backup was begun.
    pub backup_at: Time,
    /// The restore that this belongs to.
    pub restored_at: Time,
    /// When the owner asked for it once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Time>,
}

impl Reconcile {
    pub(super) fn first(provider: Provider, mode: &SafeMode) -> Self {
        Self { provider, backup_at: mode.backup_at, restored_at: mode.restored_at, again: None }
    }

    pub(super) fn again(provider: Provider, mode: &SafeMode, now: Time) -> Self {
        Self { again: Some(now), ..Self::first(provider, mode) }
    }
}

impl Job for Reconcile {
    type Context = Shop;
    const KIND: &'static str = "safety.reconcile";
    const LANE: &'static str = Lanes::CARE;
    /// A provider that is away for a day must not end it.
    const RETRY: Retry = Retry::backoff(Duration::from_secs(10), Duration::from_secs(600), 500);

    fn slot(&self) -> Option<String> {
        let again = self.again.map(|at| format!(":{}", at.millis())).unwrap_or_default();
        Some(format!("{}:{}{again}", self.provider.as_str(), self.restored_at.millis()))
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let since = flows::before(self.backup_at, flows::MARGIN);
        let read = match sweep::since(shop, self.provider, since, self.backup_at).await {
            Ok(whole) => whole,
            Err(TalkOrStore::Own(error)) => return Err(error.into()),
            Err(TalkOrStore::Talk(TalkError::Unsupported(_))) => return self.by_hand(shop, claim).await,
            Err(TalkOrStore::Talk(error)) => {
                return Err(talk::job_error(self.provider, error, shop.now(), shop.outbound.now()));
            }
        };
        if !read {
            return Err(JobError::Retry(format!("the lists of {} were not read to their end", self.provider.as_str())));
        }
        let provider = self.provider;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            flows::reconciled(tx, shop, provider, "list".to_owned(), "semel")?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}

impl Reconcile {
    /// Nothing can be read: the owner has to compare.
    async fn by_hand(&self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let (name, restored_at) = (self.provider.as_str(), self.restored_at.millis());
        let text = format!(
            "Safe mode: {name} has no list of payments. Compare its cabinet with the books from {} on, then \
             `semel safe reconcile {name} --by-hand REASON`",
            self.backup_at
        );
        let ended = shop.write("safety.no_list", move |tx, shop| {
            alerts::flows::raise(tx, shop, format!("safe-mode-by-hand:{name}:{restored_at}"), text.clone())?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }
}
