//! A subscription's clock: one job that runs whenever something is due in its life, and sleeps till the next time.
//!
//! Nothing is looked for by scanning. Whatever moves a subscription's end pulls its clock, which then counts anew; each
//! notice has a key of its own, so a clock that runs too often says nothing twice. A clock ends with the last thing that it
//! had to do; what opens the subscription again starts the next one, under the next number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::jobs::{self, Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::Tx;

use super::flows::{advance, give_wait_back, keep_wait, lock, tell};
use super::remind::Terms;
use super::{Left, State, Subscription, SubscriptionId, SubscriptionNotice, sql};
use crate::customers::{self, Customer};
use crate::shop::Lanes;
use crate::vpn::{self, Fate};
use crate::{Error, Shop, safety};

/// How long a clock waits where the VPN is not set up: without it nobody knows the owner's rules, and nothing can be closed.
/// Another copy may have it set up.
const WITHOUT_VPN: Duration = Duration::from_secs(60);
const ACTOR: &str = "clock";

/// Does what is due in the life of one subscription.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubscriptionClock {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its number among the clocks of this subscription. Only the latest one does anything.
    pub number: i64,
}

impl SubscriptionClock {
    fn of(subscription: &Subscription) -> Self {
        Self { subscription: subscription.id.clone(), number: subscription.clock }
    }
}

impl Job for SubscriptionClock {
    type Context = Shop;
    const KIND: &'static str = "subscription.clock";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(30), 100_000);

    fn slot(&self) -> Option<String> {
        Some(slot(&self.subscription, self.number))
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        // It may have been renewed after the backup: that is looked into first.
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        if shop.vpn.is_none() {
            let at = shop.now() + shop.chance.jitter(WITHOUT_VPN);
            return Err(JobError::Later { at, text: "VPN access is not set up".into() });
        }
        let ended = shop.write(Self::KIND, move |tx, shop| match tick(tx, shop, &self)? {
            Some(at) => Ok::<_, Error>(claim.again(tx, at)?),
            None => Ok(claim.finish(tx)?),
        });
        Ok(ended.await?)
    }
}

fn slot(subscription: &SubscriptionId, number: i64) -> String {
    format!("subscription:{subscription}:{number}")
}

/// Writes the clock of a subscription that has none yet.
pub(super) fn run(tx: &mut Tx, shop: &Shop, subscription: &Subscription) -> Result<(), Error> {
    let now = tx.now();
    jobs::enqueue(tx, &SubscriptionClock::of(subscription), now, &shop.chance)?;
    Ok(())
}

/// Starts the next clock of a subscription that goes on; the caller writes its row.
pub(super) fn start(tx: &mut Tx, shop: &Shop, subscription: &mut Subscription) -> Result<(), Error> {
    subscription.clock += 1;
    run(tx, shop, subscription)
}

/// Has the clock count anew.
pub(super) fn pull(tx: &mut Tx, subscription: &Subscription) -> Result<(), Error> {
    jobs::pull(tx, SubscriptionClock::KIND, Lanes::CARE, &slot(&subscription.id, subscription.clock))?;
    Ok(())
}

/// Stops the clock. One that runs at this moment finds out by itself.
pub(super) fn stop(tx: &mut Tx, subscription: &Subscription) -> Result<(), Error> {
    jobs::cancel(tx, SubscriptionClock::KIND, &slot(&subscription.id, subscription.clock))?;
    Ok(())
}

/// Does what is due, and answers when the next thing is; none when nothing will ever be.
fn tick(tx: &mut Tx, shop: &Shop, job: &SubscriptionClock) -> Result<Option<Time>, Error> {
    let mut subscription = lock(tx, &job.subscription)?;
    if subscription.clock != job.number || !subscription.state.is_open() {
        return Ok(None);
    }
    let terms = terms(shop)?;
    let now = tx.now();
    let customer = customers::flows::find(tx, &subscription.customer)?;
    if give_wait_back(tx, &mut subscription)? {
        keep_wait(tx, &subscription, ACTOR)?;
    }
    let stands = terms.stands(&subscription, now);
    if stands != subscription.state {
        end(tx, shop, &mut subscription, &customer, stands)?;
    }
    if stands == State::Expired {
        return Ok(None);
    }
    remind(tx, shop, &terms, &subscription, &customer)?;
    let waits_since = waits_since(tx, &subscription)?;
    if let Some(after) = waits_since.and_then(|began| terms.question(began, now)) {
        let key = format!("sub:{}:unconnected:{}", subscription.id, after.as_secs());
        tell(tx, shop, &customer, "vpn_unconnected", key, SubscriptionNotice::NotConnected)?;
    }
    Ok(Some(terms.next(&subscription, waits_since, now)))
}

fn terms(shop: &Shop) -> Result<Terms, Error> {
    let rules = &vpn::of(shop)?.rules;
    Ok(Terms { grace: rules.grace, remind: rules.remind.clone(), unconnected: rules.unconnected.clone() })
}

/// The time ran out: the customer is told once, and after grace the peers are closed.
fn end(
    tx: &mut Tx,
    shop: &Shop,
    subscription: &mut Subscription,
    customer: &Customer,
    stands: State,
) -> Result<(), Error> {
    // From grace on it has been told.
    if subscription.state != State::Grace {
        let until = subscription.paid_until;
        let key = format!("sub:{}:ended:{}", subscription.id, until.millis());
        tell(tx, shop, customer, "vpn_ended", key, SubscriptionNotice::Ended { until })?;
    }
    advance(tx, subscription, stands, ACTOR, None)?;
    if stands == State::Expired {
        vpn::flows::close(tx, shop, &subscription.id, Fate::Sticky)?;
    }
    Ok(())
}

fn remind(
    tx: &mut Tx,
    shop: &Shop,
    terms: &Terms,
    subscription: &Subscription,
    customer: &Customer,
) -> Result<(), Error> {
    let until = subscription.paid_until;
    let now = tx.now();
    let Some(before) = terms.reminder(subscription.since, until, now) else { return Ok(()) };
    let key = format!("sub:{}:ends-{}:{}", subscription.id, before.as_secs(), until.millis());
    let notice = SubscriptionNotice::EndsIn { until, left: Left::of(before) };
    tell(tx, shop, customer, "vpn_ends", key, notice)
}

/// Since when a device could connect and none has.
fn waits_since(tx: &mut Tx, subscription: &Subscription) -> Result<Option<Time>, Error> {
    // Without time there is nothing to connect for.
    if subscription.state == State::Grace {
        return Ok(None);
    }
    let row = tx.one(sql::CONNECTION, args![&subscription.id])?;
    let (ready, connected): (Option<Time>, Option<Time>) = (row.get(0)?, row.get(1)?);
    Ok(ready.filter(|_| connected.is_none()))
}
