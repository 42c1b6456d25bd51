//! Hints that pulled no live job: refunds, payments that ended before, payments that we do not know.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use semel_kernel::inbox::{self, InboxId};
use semel_kernel::jobs::{Claim, Ended, Job, JobError, Outcome, Retry};
use semel_kernel::outbound::Manner;
use semel_kernel::store::Tx;
use semel_payments::{CallError, PaymentRef, Provider, Rail, Seen};

use super::flows::{self, TalkOrStore, by_ref};
use super::hints::Says;
use super::settle::{ask_and_settle, suspend_unknown};
use super::talk::{self, TalkError};
use super::{Payment, PaymentId};
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, refunds, stars};

/// Finds out what a notice is about, asks, and applies the answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResolveHint {
    /// The notice.
    pub notice: InboxId,
    /// When it was replayed by hand, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<i64>,
}

impl Job for ResolveHint {
    type Context = Shop;
    const KIND: &'static str = "hint.resolve";
    const LANE: &'static str = Lanes::MONEY;
    const RETRY: Retry = Retry::backoff(Duration::from_secs(1), Duration::from_secs(60), 120);

    fn slot(&self) -> Option<String> {
        Some(match self.again {
            None => self.notice.to_string(),
            Some(at) => format!("{}:{at}", self.notice),
        })
    }

    async fn run(self, shop: &Shop, claim: Claim) -> Result<Ended, JobError> {
        let id = self.notice.clone();
        let stored = shop.read("hint.load", move |tx| inbox_row(tx, &id)).await?;
        let given_up = stored.as_ref().is_some_and(|(_, state)| state == QUARANTINED);
        let notice = Notice { id: self.notice.clone(), given_up, claim };
        let Some((says, state)) = stored else {
            return notice.end(shop, "ignored", Some("the notice cannot be read")).await;
        };
        // Somebody else has answered it. One that was given up is here because a hand retried this job.
        if state != "received" && !given_up && self.again.is_none() {
            return notice.end(shop, "applied", None).await;
        }
        let provider = says.provider;
        let attempts = notice.claim.attempts();
        let error: JobError = match self.look(shop, says).await {
            Ok(Found::Applied) => return notice.end(shop, "applied", None).await,
            Ok(Found::NoRefund) if attempts < LOOKS_FOR_A_REFUND => JobError::Retry(NO_REFUND.into()),
            Ok(Found::NoRefund) => return notice.end(shop, "ignored", Some(NO_REFUND)).await,
            Ok(Found::Nothing(reason)) => return notice.end(shop, "ignored", Some(reason)).await,
            // No repeat changes a refusal: the notice is kept for a person to look at.
            Err(TalkOrStore::Talk(
                error @ (TalkError::Unsupported(_)
                | TalkError::Said(CallError::Refused { .. } | CallError::Foreign { .. })),
            )) => {
                let reason = format!("{}: {error}", provider.as_str());
                return notice.end(shop, QUARANTINED, Some(&reason)).await;
            }
            Err(TalkOrStore::Own(error)) => error.into(),
            Err(TalkOrStore::Talk(error)) => talk::job_error(provider, error, shop.now(), shop.outbound.now()),
        };
        match error {
            JobError::Later { .. } | JobError::NotItsTurn { .. } => Err(error),
            JobError::Retry(_) if !notice.claim.is_last() => Err(error),
            // The job would die here, and its notice wait for ever: both end in one transaction instead.
            over => notice.give_up(shop, over.to_string()).await,
        }
    }
}

const QUARANTINED: &str = "quarantined";
/// A provider tells of a refund before its API knows it: so many looks, within half a minute, before it is called unknown.
const LOOKS_FOR_A_REFUND: i64 = 6;
const NO_REFUND: &str = "the provider does not know this refund";

enum Found {
    Applied,
    NoRefund,
    Nothing(&'static str),
}

impl ResolveHint {
    async fn look(&self, shop: &Shop, says: Says) -> Result<Found, TalkOrStore> {
        if let Some(refund_id) = says.refund_id {
            return Ok(match refunds::flows::look(shop, says.provider, &refund_id).await? {
                true => Found::Applied,
                false => Found::NoRefund,
            });
        }
        let Some(provider_id) = says.provider_id else {
            return Ok(Found::Nothing("not about a payment"));
        };
        let rail = shop.rail(says.provider)?;
        let (merchant, ours) = (rail.merchant().to_owned(), says.ours.as_deref().and_then(PaymentId::parse));
        let (provider, of) = (says.provider, provider_id.clone());
        let found = shop.read("hint.match", move |tx| find(tx, provider, &merchant, &of, ours.as_ref())).await?;
        if let Some(payment) = found {
            // The money of a repeat's payment may be in the books: then it has nothing to tell, but of a refund, which Heleket
            // names in the place of the payment's state.
            let of_refund = says.state.starts_with("refund");
            if self.again.is_none() || of_refund || !payment.state.has_money() {
                flows::ask_again(shop, &payment.id, Some(provider_id)).await?;
            }
            return Ok(Found::Applied);
        }
        match ask(shop, rail, provider_id).await? {
            None => Ok(Found::Nothing("the provider does not know this payment")),
            Some(seen) => {
                // The notice did not say that it is ours, or lied about it: the provider's own word counts.
                let (merchant, of) = (rail.merchant().to_owned(), seen.provider_id.clone());
                let ours = seen.ours.as_deref().and_then(PaymentId::parse);
                let found =
                    shop.read("hint.match", move |tx| find(tx, provider, &merchant, &of, ours.as_ref())).await?;
                match found {
                    Some(payment) => {
                        ask_and_settle(shop, &payment.id, Some(seen.provider_id.clone())).await?;
                        let refunded = shop.write("hint.refund", move |tx, shop| {
                            refunds::flows::found(tx, shop, provider, std::slice::from_ref(&seen))
                        });
                        refunded.await?;
                        Ok(Found::Applied)
                    }
                    None => self.unknown(shop, seen, provider).await,
                }
            }
        }
    }

    async fn unknown(&self, shop: &Shop, seen: Seen, provider: Provider) -> Result<Found, TalkOrStore> {
        let taken = shop.write("hint.suspend", move |tx, shop| {
            let taken = suspend_unknown(tx, shop, shop.rail(provider)?, &seen)?;
            refunds::flows::found(tx, shop, provider, std::slice::from_ref(&seen))?;
            Ok(taken || seen.refund().is_some())
        });
        Ok(if taken.await? { Found::Applied } else { Found::Nothing("not a payment of ours, and no money came by it") })
    }
}

/// What the provider says about a payment that none of ours is known for.
async fn ask(shop: &Shop, rail: &Rail, provider_id: String) -> Result<Option<Seen>, TalkOrStore> {
    if let Rail::Stars(bot) = rail {
        return stars::ask_charge(shop, rail, bot, &provider_id).await;
    }
    let request = rail.ask(&PaymentRef::ProviderId(provider_id)).map_err(TalkError::from)?;
    let answer = talk::send(shop, rail, "payment.ask", Manner::Read, request).await?;
    Ok(rail.asked(&answer).map_err(TalkError::from)?)
}

/// The payment of ours that a notice is about: by the provider's id, else by the id of ours that it carries.
fn find(
    tx: &mut Tx,
    provider: Provider,
    merchant: &str,
    of: &str,
    ours: Option<&PaymentId>,
) -> Result<Option<Payment>, Error> {
    let known = by_ref(tx, provider, merchant, of)?;
    match known.as_ref().or(ours) {
        None => Ok(None),
        Some(id) => match flows::find(tx, id) {
            Ok(payment) => Ok(Some(payment).filter(|payment| payment.provider == provider)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        },
    }
}

fn inbox_row(tx: &mut Tx, id: &InboxId) -> Result<Option<(Says, String)>, Error> {
    let Some((says, state)) = inbox::says(tx, id)? else { return Ok(None) };
    Ok(serde_json::from_str(&says).ok().map(|says| (says, state)))
}

/// A notice in the hands of a worker.
struct Notice {
    id: InboxId,
    /// Whether an earlier look had given it up.
    given_up: bool,
    claim: Claim,
}

impl Notice {
    /// Ends the notice together with its job.
    async fn end(&self, shop: &Shop, state: &'static str, reason: Option<&str>) -> Result<Ended, JobError> {
        let (id, given_up, claim) = (self.id.clone(), self.given_up, self.claim.clone());
        let reason = reason.map(str::to_owned);
        let ended = shop.write("hint.end", move |tx, _| {
            close(tx, &id, given_up, state, reason.as_deref())?;
            Ok::<_, Error>(claim.finish(tx)?)
        });
        Ok(ended.await?)
    }

    /// Ends a notice that nothing could be found out about, together with its job, and tells the owner.
    async fn give_up(&self, shop: &Shop, reason: String) -> Result<Ended, JobError> {
        let (id, given_up, claim) = (self.id.clone(), self.given_up, self.claim.clone());
        let ended = shop.write("hint.end", move |tx, shop| {
            close(tx, &id, given_up, QUARANTINED, Some(&reason))?;
            let text = format!("Notice {id} could not be looked into: {reason}. `semel inbox replay {id}` looks again");
            alerts::flows::raise(tx, shop, format!("notice:{}", claim.job()), text)?;
            Ok::<_, Error>(claim.finish_as(tx, Outcome::Failed)?)
        });
        Ok(ended.await?)
    }
}

/// Ends a notice that waits, or that an earlier look had given up: what is known now overrules that. One that somebody else
/// ended meanwhile stays as it is.
fn close(tx: &mut Tx, id: &InboxId, given_up: bool, state: &str, reason: Option<&str>) -> Result<(), Error> {
    if given_up && inbox::says(tx, id)?.is_some_and(|(_, now)| now == QUARANTINED) {
        inbox::reopen(tx, id)?;
    }
    Ok(inbox::end(tx, id, state, reason)?)
}
