//! Talking to providers: the request and the answer are the rail's business, the sending is `outbound`'s.

use std::time::Duration;

use semel_kernel::clock::Time;
use semel_kernel::jobs::{JobError, Outcome};
use semel_kernel::outbound::{Call, Manner, OutboundError, Pace};
use semel_payments::{CallError, Provider, Rail, Request, Response, stars};

use crate::{Error, Shop, messages};

/// Why a provider's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// It never left, or whether it happened is not known.
    #[error(transparent)]
    Away(#[from] OutboundError),
    /// The provider's own words.
    #[error(transparent)]
    Said(#[from] CallError),
    /// This provider cannot do that.
    #[error("{0}")]
    Unsupported(String),
}

impl From<semel_payments::Unsupported> for TalkError {
    fn from(error: semel_payments::Unsupported) -> Self {
        Self::Unsupported(error.to_string())
    }
}

/// How a call behaves on its host.
fn call_of(label: &'static str, provider: Provider, manner: Manner) -> Call {
    // YooKassa's own budget for a write is 30 s, so a shorter wait would only make more unknowns.
    let (deadline, attempt) = match manner {
        Manner::Read => (Duration::from_secs(20), Duration::from_secs(8)),
        _ => (Duration::from_secs(40), Duration::from_secs(35)),
    };
    let mut call = Call::new(label, provider.as_str(), manner);
    call.deadline = deadline;
    call.attempt_timeout = attempt;
    // CrystalPay publishes about 5 requests a second. The others publish nothing: their 429 and `Retry-After` rule.
    if provider == Provider::CrystalPay {
        call.pace = Some(Pace { per_second: 4, burst: 4 });
    }
    call
}

/// Sends `request` to `rail`'s host.
pub async fn send(
    shop: &Shop,
    rail: &Rail,
    label: &'static str,
    manner: Manner,
    request: Request,
) -> Result<Response, TalkError> {
    let mut call = call_of(label, rail.provider(), manner);
    let bot = shop.bot.as_ref().filter(|_| rail.provider() == Provider::Stars);
    let Some(bot) = bot else { return Ok(shop.outbound.call(call, request).await?) };
    // Stars are paid at the Bot API, maybe by a proxy only, and under the bot's own pace: Telegram counts its calls together, and
    // a 429 to one that belongs to no chat asks all of them to be silent.
    messages::under_pace_of(bot, &mut call);
    let answer = shop.telegram.call(call, request).await?;
    if let Some(asked) = stars::asked_silence(&answer) {
        messages::heard(shop, asked).await;
    }
    Ok(answer)
}

/// What a job does about it: later when told so, again when it may help, a dead letter when it cannot.
pub fn job_error(provider: Provider, error: TalkError, now: Time, on_client: Time) -> JobError {
    let text = format!("{}: {error}", provider.as_str());
    match error {
        TalkError::Away(away) => match away.retry_at() {
            // The client tells a moment of its own clock; a job waits on the database's.
            Some(at) => JobError::Later { at: now + at.since(on_client), text },
            None => JobError::Retry(text),
        },
        TalkError::Said(CallError::Throttled { after_ms }) => {
            // Money does not sleep longer than this, whatever somebody's slip asks for.
            let pause = Duration::from_millis(after_ms.unwrap_or(5_000)).min(Duration::from_secs(3600));
            JobError::Later { at: now + pause, text }
        }
        TalkError::Said(CallError::Unclear { .. }) => JobError::Retry(text),
        // Wrong keys are mended by the owner; the payment waits for that.
        TalkError::Said(CallError::Misconfigured { .. }) => {
            JobError::Later { at: now + Duration::from_secs(300), text }
        }
        TalkError::Said(_) | TalkError::Unsupported(_) => JobError::DeadLetter { text, outcome: Outcome::Failed },
    }
}

/// What a caller of the API is told.
pub fn api_error(provider: Provider, error: TalkError) -> Error {
    let name = provider.as_str().to_owned();
    match error {
        TalkError::Said(CallError::ReceiptNeeded { text }) => Error::invalid("customer.email", text),
        // A receipt needs to know where to go: the request lacks it.
        TalkError::Unsupported(text) if text.contains("customer.email") => Error::invalid("customer.email", text),
        TalkError::Unsupported(text) => Error::Conflict(text),
        TalkError::Said(said @ (CallError::Refused { .. } | CallError::Foreign { .. })) => {
            Error::ProviderRefused { provider: name, text: said.to_string() }
        }
        other => Error::ProviderAway { provider: name, text: other.to_string() },
    }
}
