//! Where stopped money and goods wait: jobs whose flow is stopped come back later, and nothing of theirs is lost.
//!
//! A gate stands before the job, so the job itself knows nothing of it. A wait costs no attempt, and a release makes the
//! job due at once.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::jobs::{Claim, Ended, Job, JobError, Manner, Retry};
use semel_kernel::store::StoreError;

use super::flow::Flow;
use super::stops;
use crate::messages::{self, DeliverMessage};
use crate::refunds::RunRefund;
use crate::{Error, Shop};

/// How soon a waiting job looks by itself; a release pulls it.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// How soon a job looks again that could not find out whether it has to wait.
const SOON: Duration = Duration::from_secs(5);
const MESSAGES: i64 = 200;

/// A job that moves money or goods.
pub trait Gated: Job<Context = Shop> + Sync {
    /// The flow.
    const FLOW: Flow;

    /// Whether this very job belongs to the flow. Asked only while the flow is stopped.
    fn concerns(&self, shop: &Shop) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// A stored name that another type gives.
type Name = &'static str;

/// The same job behind its gate: the same kind, slot and payload.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gate<J>(J);

impl<J: Gated> Job for Gate<J> {
    type Context = Shop;
    const KIND: Name = J::KIND;
    const LANE: Name = J::LANE;
    const RETRY: Retry = J::RETRY;
    const MANNER: Option<Manner> = J::MANNER;

    fn slot(&self) -> Option<String> {
        self.0.slot()
    }

    fn thread(&self) -> Option<String> {
        self.0.thread()
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        if shop.stops().has(J::FLOW) {
            match wait(&self.0, shop, &claim).await {
                Ok(None) => {}
                Ok(Some(ended)) => return Ok(ended),
                // Nothing was done, so this try costs nothing.
                Err(error) => return Err(JobError::Later { at: shop.now() + SOON, text: error.to_string() }),
            }
        }
        self.0.run(shop, claim).await
    }
}

/// Puts the job off while its flow is stopped. The stop is looked at once more in the transaction that does so: a release
/// either finds the job waiting and wakes it, or the job sees the release and goes on.
async fn wait<J: Gated>(job: &J, shop: &Shop, claim: &Claim) -> Result<Option<Ended>, Error> {
    if !(job.concerns(shop).await? && stops::holds(shop, J::FLOW).await?) {
        return Ok(None);
    }
    let (claim, text, at) = (claim.clone(), stops::sentence(shop, J::FLOW), shop.now() + LOOK_AGAIN);
    let waiting = shop.store.write("audit.wait", move |tx| {
        if !stops::still_holds(tx, J::FLOW)? {
            return Ok::<_, StoreError>(None);
        }
        claim.put_off(tx, at, &text).map(Some)
    });
    Ok(waiting.await?)
}

/// A kind of jobs that may wait.
pub(super) struct Waiting {
    pub(super) kind: Name,
    pub(super) lane: Name,
    flow: Flow,
}

const fn waiting<J: Gated>() -> Waiting {
    Waiting { kind: J::KIND, lane: J::LANE, flow: J::FLOW }
}

const WAITING: &[Waiting] = &[waiting::<DeliverMessage>(), waiting::<RunRefund>()];

/// The kind of a job that waits for a flow, by its last `error`, if that flow is free now.
pub(super) fn waits(shop: &Shop, kind: &str, error: &str) -> Option<&'static Waiting> {
    let known = WAITING.iter().find(|waiting| waiting.kind == kind)?;
    let told = format!("{} are stopped: ", known.flow.as_str());
    (error.starts_with(&told) && !shop.stops().has(known.flow)).then_some(known)
}

/// Messages with goods wait; all others go, because messages are no money.
impl Gated for DeliverMessage {
    const FLOW: Flow = Flow::Deliveries;

    async fn concerns(&self, shop: &Shop) -> Result<bool, Error> {
        let Some(order) = self.order.clone() else { return Ok(false) };
        let id = self.message.to_string();
        let of_order = shop.read("audit.goods", move |tx| messages::flows::of_order(tx, &order, MESSAGES)).await?;
        Ok(of_order.iter().any(|message| message.id == id && messages::hands_over(&message.kind)))
    }
}

/// Whatever a refund does, it is about money on its way out.
impl Gated for RunRefund {
    const FLOW: Flow = Flow::Refunds;

    async fn concerns(&self, _: &Shop) -> Result<bool, Error> {
        Ok(true)
    }
}
