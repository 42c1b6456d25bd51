//! The provider's own lists, of the payments of the last 48 hours and of the refunds of the last two weeks, against our
//! books: what neither hint nor question found.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::clock::Time;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_kernel::outbound::Manner;
use semel_payments::{Page, Provider, Rail, Seen, SeenState};

use super::PaymentId;
use super::flows::{self, TalkOrStore, by_ref};
use super::settle::{settle, suspend_unknown, tell_own_job};
use super::talk::{self, TalkError};
use crate::ledger::{self, Origin};
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, refunds, stars};

const WINDOW: Duration = Duration::from_secs(48 * 3600);
/// A refund may be on its way for days, and its payment is older still.
const REFUND_WINDOW: Duration = Duration::from_secs(14 * 24 * 3600);
/// In this hour of the day (UTC) Heleket's list is read as far back as refunds: it has no list of them, so they show only in
/// the state of payments that may be old.
const DEEP_HOUR: i64 = 3;
const PAGES_AT_MOST: usize = 200;

/// Reads one provider's lists, and books every payment with money and every refund that are not in the books.
#[derive(Debug, Serialize, Deserialize)]
pub struct SweepProvider {
    /// Which.
    pub provider: Provider,
    /// The tick that this sweep belongs to, in milliseconds.
    pub tick: i64,
}

impl Job for SweepProvider {
    type Context = Shop;
    const KIND: &'static str = "provider.sweep";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(30), Duration::from_secs(600), 5);

    fn slot(&self) -> Option<String> {
        Some(format!("{}:{}", self.provider.as_str(), self.tick))
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        match self.sweep(shop).await {
            Ok(()) => {}
            Err(TalkOrStore::Own(error)) => return Err(error.into()),
            // CrystalPay has no list: each payment is asked by its own job. Heleket and Stars have none of refunds.
            Err(TalkOrStore::Talk(TalkError::Unsupported(_))) => {}
            Err(TalkOrStore::Talk(error)) => {
                return Err(talk::job_error(self.provider, error, shop.now(), shop.outbound.now()));
            }
        }
        Ok(shop.write(Self::KIND, move |tx, _| Ok::<_, Error>(claim.finish(tx)?)).await?)
    }
}

impl SweepProvider {
    /// First the payments, then the refunds: what went back has come before.
    async fn sweep(&self, shop: &Shop) -> Result<(), TalkOrStore> {
        sweep_payments(shop, self.provider, self.since(), self.tick).await?;
        refunds::flows::sweep(shop, self.provider, Time::from_millis(self.tick) - REFUND_WINDOW).await?;
        Ok(())
    }

    /// How far back the list of payments is read.
    fn since(&self) -> Time {
        let hour = self.tick.div_euclid(3_600_000).rem_euclid(24);
        let deep = self.provider == Provider::Heleket && hour == DEEP_HOUR;
        Time::from_millis(self.tick) - if deep { REFUND_WINDOW } else { WINDOW }
    }
}

/// Books what a provider's lists know and a restored database lacks: payments from `since` on, refunds of payments that are
/// older still. False when a list was not read to its end.
///
/// # Errors
/// [`TalkError::Unsupported`] where there is no list of payments.
pub(crate) async fn since(shop: &Shop, provider: Provider, since: Time, backup_at: Time) -> Result<bool, TalkOrStore> {
    let refunds_since = backup_at - REFUND_WINDOW;
    // Heleket has no list of refunds: they show in the state of payments that may be old.
    let from = if provider == Provider::Heleket { since.min(refunds_since) } else { since };
    let payments = sweep_payments(shop, provider, from, backup_at.millis()).await?;
    match refunds::flows::sweep(shop, provider, refunds_since).await {
        Ok(refunds) => Ok(payments && refunds),
        Err(TalkOrStore::Talk(TalkError::Unsupported(_))) => Ok(payments),
        Err(error) => Err(error),
    }
}

/// Reads a provider's list of payments from `since` on and books those with money that are not in the books. False when the
/// list is too long and was not read to its end; `tick` tells the alerts about that apart.
async fn sweep_payments(shop: &Shop, provider: Provider, since: Time, tick: i64) -> Result<bool, TalkOrStore> {
    let rail = shop.rail(provider)?;
    if let Rail::Stars(bot) = rail {
        let asked_at = shop.now();
        let listed = stars::list(shop, rail, bot, since).await?;
        book_each(shop, provider, listed.seen, asked_at).await?;
        tell_unreadable(shop, provider, listed.unreadable).await?;
        // Only now: what is behind the bookmark is looked at by every sweep.
        stars::keep(shop, bot, listed.total).await?;
        if !listed.is_whole {
            tell_long(shop, provider, tick).await?;
        }
        return Ok(listed.is_whole);
    }
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES_AT_MOST {
        let asked_at = shop.now();
        let request = rail.list(since.millis(), cursor.as_deref()).map_err(TalkError::from)?;
        let answer = talk::send(shop, rail, "payment.list", Manner::Read, request).await?;
        let Page { items, next, unreadable } = rail.listed(&answer).map_err(TalkError::from)?;
        for reason in unreadable {
            tracing::warn!(provider = provider.as_str(), reason, "a payment in the provider's list cannot be read");
        }
        book_each(shop, provider, items, asked_at).await?;
        cursor = next;
        if cursor.is_none() {
            return Ok(true);
        }
    }
    tell_long(shop, provider, tick).await?;
    Ok(false)
}

/// Books those with money that are not in the books.
async fn book_each(shop: &Shop, provider: Provider, items: Vec<Seen>, asked_at: Time) -> Result<(), TalkOrStore> {
    for seen in items.into_iter().filter(has_money) {
        let id = seen.provider_id.clone();
        let booked = shop.write("sweep.book", move |tx, shop| book(tx, shop, provider, &seen, asked_at)).await;
        match booked {
            Ok(()) => {}
            Err(Error::Store(error)) => return Err(Error::Store(error).into()),
            // One odd payment must not hide those behind it.
            Err(error) => {
                let key = format!("sweep:{}:{id}", provider.as_str());
                let text = format!("{} payment {id} cannot be booked: {error}", provider.as_str());
                shop.write("sweep.odd", move |tx, shop| alerts::flows::raise(tx, shop, key.clone(), text.clone()))
                    .await?;
            }
        }
    }
    Ok(())
}

/// Tells the owner of transactions that nobody could read: there may be money in them, and the bookmark passes them by.
async fn tell_unreadable(shop: &Shop, provider: Provider, reasons: Vec<String>) -> Result<(), TalkOrStore> {
    let Some(first) = reasons.first() else { return Ok(()) };
    let key = format!("sweep-unreadable:{}:{first}", provider.as_str());
    let (name, count) = (provider.as_str(), reasons.len());
    let text =
        format!("{count} in the list of {name} cannot be read, so they are not in the books. The first: {first}");
    shop.write("sweep.unreadable", move |tx, shop| alerts::flows::raise(tx, shop, key.clone(), text.clone())).await?;
    Ok(())
}

async fn tell_long(shop: &Shop, provider: Provider, tick: i64) -> Result<(), TalkOrStore> {
    let key = format!("sweep-long:{}:{tick}", provider.as_str());
    let text = format!("The list of {} has more than {PAGES_AT_MOST} pages: the rest was not read", provider.as_str());
    shop.write("sweep.long", move |tx, shop| alerts::flows::raise(tx, shop, key.clone(), text.clone())).await?;
    Ok(())
}

fn book(
    tx: &mut semel_kernel::store::Tx,
    shop: &Shop,
    provider: Provider,
    seen: &Seen,
    asked_at: Time,
) -> Result<(), Error> {
    let rail = shop.rail(provider)?;
    let origin = Origin { provider, merchant: rail.merchant().into(), provider_payment_id: seen.provider_id.clone() };
    if ledger::is_posted(tx, &ledger::capture_key(&origin))? {
        return refunds::flows::found(tx, shop, provider, std::slice::from_ref(seen));
    }
    let ours = match by_ref(tx, provider, rail.merchant(), &seen.provider_id)? {
        Some(payment) => Some(payment),
        None => match seen.ours.as_deref().and_then(PaymentId::parse) {
            Some(ours) => match flows::find(tx, &ours) {
                // A list may name a payment that we opened elsewhere: then it is not about that one.
                Ok(payment) => (payment.provider == provider).then_some(payment.id),
                Err(Error::NotFound { .. }) => None,
                Err(error) => return Err(error),
            },
            None => None,
        },
    };
    match ours {
        Some(payment) => {
            let standing = settle(tx, shop, &payment, std::slice::from_ref(seen), asked_at)?;
            tell_own_job(tx, &payment, standing)?;
        }
        None => suspend_unknown(tx, shop, rail, seen).map(|_| ())?,
    }
    refunds::flows::found(tx, shop, provider, std::slice::from_ref(seen))
}

/// Whether a payment in the list is about money that came, stayed or not.
fn has_money(seen: &Seen) -> bool {
    matches!(
        seen.state,
        SeenState::Paid
            | SeenState::PaidOver
            | SeenState::Short
            | SeenState::RefundPending
            | SeenState::Refunded
            | SeenState::RefundFailed
    )
}
