//! The two rounds of the self-audit: over what is new, soon after it was written, and over everything at night.
//!
//! The first is scheduled by work and not by a clock: whoever commits something writes the job of the coming minute into
//! the same transaction, once a minute and process. A shop in which nothing happens is asked nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::{StoreError, Tx};

use super::stops::{self, Finding};
use super::{PREDICATES, Parameters, find, fresh, kept, limited, sql, truth};
use crate::shop::Lanes;
use crate::{Error, Shop};

const MINUTE_MS: i64 = 60_000;
/// At night a thing is late after a day: a provider or Telegram may be away for hours, and that breaks no promise.
const LATE_MS: i64 = 24 * 3600 * 1000;

/// Looks at what was written in one minute, as soon as that is over.
#[derive(Debug, Serialize, Deserialize)]
pub struct FreshAudit {
    /// The minute, counted from 1970.
    pub minute: i64,
}

impl Job for FreshAudit {
    type Context = Shop;
    const KIND: &'static str = "audit.fresh";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(5), Duration::from_secs(300), 10);

    fn slot(&self) -> Option<String> {
        Some(self.minute.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let (findings, until) = fresh::look(&shop.store).await?;
        if !findings.is_empty() {
            stops::stop(shop, &findings).await?;
        }
        let ended = shop.store.write(Self::KIND, move |tx| {
            tx.execute(sql::NOTE, args![fresh::NAME, until.at, until.entry])?;
            claim.finish(tx)
        });
        Ok(ended.await?)
    }
}

/// Asks every promise that needs no ground truth about all rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct NightAudit {
    /// The tick, in milliseconds.
    pub tick: i64,
}

impl Job for NightAudit {
    type Context = Shop;
    const KIND: &'static str = "audit.night";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(60), Duration::from_secs(3600), 5);

    fn slot(&self) -> Option<String> {
        Some(self.tick.to_string())
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let (findings, unasked) = all(shop).await;
        if !findings.is_empty() {
            stops::stop(shop, &findings).await?;
        }
        // What was found is told even if something else could not be asked.
        if let Some((predicate, error)) = unasked {
            return Err(JobError::Retry(format!("promise {predicate} could not be asked: {error}")));
        }
        let ended = shop.store.write(Self::KIND, move |tx| claim.finish(tx));
        Ok(ended.await?)
    }
}

/// Every promise about all rows; and the first that could not be asked, with the reason.
async fn all(shop: &Shop) -> (Vec<Finding>, Option<(&'static str, StoreError)>) {
    let store = &shop.store;
    let parameters = Parameters { deadline: LATE_MS, ..Parameters::of(shop) };
    let (mut findings, mut unasked) = (Vec::new(), None);
    for predicate in PREDICATES {
        for query in predicate.queries.iter().filter(|query| !truth::is_read_by(query)) {
            let text = kept(limited(store.engine(), &parameters.fill(query)));
            match find(store, text, &[]).await {
                Ok(rows) => Finding::add(&mut findings, predicate.id, rows),
                Err(error) => unasked = unasked.or(Some((predicate.id, error))),
            }
        }
    }
    (findings, unasked)
}

/// Sees to it that what is committed is looked at: remembers for which minute this process has written a job.
#[derive(Clone, Debug, Default)]
pub struct News(Arc<AtomicI64>);

impl News {
    /// Writes the job that looks at what `tx` writes, unless this process has written that of this minute. Answers the
    /// minute, for [`News::told`] after the commit.
    pub(crate) fn tell(&self, tx: &mut Tx, shop: &Shop, label: &str) -> Result<i64, Error> {
        let minute = tx.now().millis().div_euclid(MINUTE_MS);
        if self.0.load(Ordering::SeqCst) < minute && is_news(label) {
            let due = Time::from_millis((minute + 1) * MINUTE_MS);
            jobs::enqueue(tx, &FreshAudit { minute }, due, &shop.chance)?;
            return Ok(minute);
        }
        Ok(0)
    }

    /// The transaction of [`News::tell`] is committed. Until then others write the same job, which is one: if this one
    /// had failed, theirs would stand.
    pub(crate) fn told(&self, minute: i64) {
        self.0.fetch_max(minute, Ordering::SeqCst);
    }
}

/// What the audit itself writes, and what says only that a request came, is nothing to look at.
fn is_news(label: &str) -> bool {
    !label.starts_with("audit.") && !label.starts_with("keys.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_does_not_call_itself() {
        assert!(is_news("payment.confirm") && is_news("message.sent"));
        assert!(!is_news("audit.release") && !is_news("keys.answer"));
    }
}
