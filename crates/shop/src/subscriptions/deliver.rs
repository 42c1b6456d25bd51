//! Handing access over: the files of peers that are on the server, or the news that the old ones go on working.
//!
//! A file is handed over once for each peer, whoever asks first: the peer's row says so, and nobody looks before they write.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::args;
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Retry};
use semel_kernel::store::Tx;

use super::flows::{give_wait_back, keep_wait, lock, may_have_waited, tell};
use super::{State, Subscription, SubscriptionId, SubscriptionNotice, clock, sql};
use crate::customers::{self, Customer};
use crate::messages::{self, flows::DeviceFile};
use crate::orders::{ItemId, OrderId};
use crate::shop::Lanes;
use crate::vpn::{PeerId, PeerState};
use crate::{Error, Shop, alerts, safety};

/// How far a paid line of an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A peer is not on the server yet.
    Waits,
    /// Files are on their way to the customer.
    Sending,
    /// The customer has what was bought.
    Delivered,
}

impl Step {
    /// The state of the line's deliveries.
    pub const fn delivery(self) -> &'static str {
        match self {
            Self::Waits => "reserved",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
        }
    }
}

/// Hands over what a paid line bought: files that the customer does not have yet, or the news of the longer time.
pub(super) fn access(tx: &mut Tx, shop: &Shop, order: &OrderId, item: &ItemId) -> Result<Step, Error> {
    let Some(row) = tx.first(sql::OF_ITEM, args![item])? else { return Ok(Step::Waits) };
    let mut subscription = sql::subscription(&row)?;
    if may_have_waited(&subscription, tx.now()) {
        subscription = lock(tx, &subscription.id)?;
    }
    let customer = customers::flows::find(tx, &subscription.customer)?;
    let step = match subscription.state {
        State::Trial | State::Active | State::Grace => files(tx, shop, Some(order), &mut subscription, &customer)?,
        // Its peers come when it goes on. Where the customer has their files the time is all there is to hand over.
        State::Frozen => match tx.first(sql::LACKS_FILE, args![&subscription.id])? {
            Some(_) => Step::Waits,
            None => Step::Delivered,
        },
        State::Expired | State::Revoked => {
            tell_over(tx, shop, order, item, &subscription)?;
            Step::Waits
        }
    };
    if step == Step::Delivered {
        let notice = SubscriptionNotice::Renewed { until: subscription.paid_until };
        tell(tx, shop, &customer, "vpn_renewed", format!("sub:{}:renewed:{item}", subscription.id), notice)?;
    }
    Ok(step)
}

/// What is over before it was handed over waits for a person.
fn tell_over(tx: &mut Tx, shop: &Shop, order: &OrderId, item: &ItemId, over: &Subscription) -> Result<(), Error> {
    let text = format!(
        "Order {order} paid for VPN access that was {} before it was handed over (subscription {}): refund the order",
        over.state.as_str(),
        over.id
    );
    alerts::flows::raise(tx, shop, format!("vpn-over:{item}"), text)
}

/// Hands over the files that the customer does not have yet, once every device has its peer on the server. Time that ran while
/// the customer waited for the first of them is given back; then the subscription's row must be held.
///
/// Without a bot a file is handed over by being readable over the API, so whoever asks first hands it over, too.
fn files(
    tx: &mut Tx,
    shop: &Shop,
    order: Option<&OrderId>,
    subscription: &mut Subscription,
    customer: &Customer,
) -> Result<Step, Error> {
    let rows = tx.rows(sql::PEERS, args![&subscription.id])?;
    let mut peers: Vec<(PeerId, i64, i64)> = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.get::<PeerState>(2)? != PeerState::Active {
            return Ok(Step::Waits);
        }
        peers.push((row.get(0)?, row.get(1)?, row.get(3)?));
    }
    if peers.is_empty() {
        return Ok(Step::Waits);
    }
    if give_wait_back(tx, subscription)? {
        keep_wait(tx, subscription, "vpn")?;
    }
    let now = tx.now();
    let mut handed = Vec::new();
    for (peer, device, version) in peers {
        if tx.execute(sql::GIVE, args![&peer, now])? == 0 {
            continue;
        }
        // A file that was called off comes again, and by then the peer has been taken away and brought back.
        handed.push(DeviceFile { peer, device, part: version.to_string() });
    }
    if handed.is_empty() {
        return Ok(Step::Delivered);
    }
    let by_message = shop.delivers_by_message();
    if by_message {
        messages::flows::vpn_files(tx, shop, customer, order, &handed)?;
    }
    // When nobody has connected after a while, the customer is asked: from now on the clock counts that, too.
    clock::pull(tx, subscription)?;
    Ok(if by_message { Step::Sending } else { Step::Delivered })
}

/// Hands over the files of a subscription that no order paid for.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandOverFiles {
    /// The subscription.
    pub subscription: SubscriptionId,
}

impl Job for HandOverFiles {
    type Context = Shop;
    const KIND: &'static str = "subscription.hand_over";
    const LANE: &'static str = Lanes::CARE;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(2), Duration::from_secs(60), 500);

    /// None: each look is one of its own, and one that ended says nothing about the next.
    fn slot(&self) -> Option<String> {
        None
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        if let Some(ended) = safety::flows::wait(shop, &claim).await? {
            return Ok(ended);
        }
        let id = self.subscription;
        let ended = shop.write(Self::KIND, move |tx, shop| {
            let mut subscription = lock(tx, &id)?;
            if subscription.state.is_open() {
                let customer = customers::flows::find(tx, &subscription.customer)?;
                files(tx, shop, None, &mut subscription, &customer)?;
            }
            Ok::<_, Error>(claim.finish(tx)?)
        });
        // Whoever waits for a file is not forgotten because of one error: it is tried again, whatever it was.
        ended.await.map_err(|error| JobError::Retry(error.to_string()))
    }
}
