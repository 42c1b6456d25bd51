//! Calls to the Bot API about Stars, and what their answers mean.

use std::time::Duration;

use semel_money::{Amount, Currency};
use serde::Serialize;

use super::{Stars, is_charge};
use crate::answer::{self, unclear};
use crate::json::Value;
use crate::payment::{NewRefund, RefundState, Seen, SeenRefund, SeenState};
use crate::{CallError, Provider, Request, Response, Unsupported, request};

/// The most transactions in one answer.
pub const PAGE: u64 = 100;

/// Which way Stars went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StarWay {
    /// From a person to the bot, for an invoice.
    In,
    /// Back to that person.
    Back,
}

/// One transaction with a person, as the bot's list tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StarMove {
    /// Telegram's id of the charge. A refund has the id of what it gives back.
    pub charge: String,
    /// Which way.
    pub way: StarWay,
    /// What stood in the invoice: our payment's id.
    pub payload: Option<String>,
    /// The person.
    pub person: i64,
    /// How many Stars; positive.
    pub stars: i64,
    /// When, in milliseconds since 1970. Telegram tells whole seconds.
    pub at_ms: i64,
}

/// A part of the bot's list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StarPage {
    /// How many transactions stand in this part, of whatever kind: the next part begins so many places later.
    pub count: u64,
    /// Those with persons, the oldest first.
    pub moves: Vec<StarMove>,
    /// The earliest time in this part, in milliseconds since 1970; none when nothing in it has a time.
    pub oldest_ms: Option<i64>,
    /// Transactions with persons that we did not understand, each with its reason.
    pub unreadable: Vec<String>,
}

#[derive(Serialize)]
struct ListBody {
    offset: u64,
    limit: u64,
}

#[derive(Serialize)]
struct RefundBody<'a> {
    user_id: i64,
    telegram_payment_charge_id: &'a str,
}

impl Stars {
    /// Asks for up to `limit` transactions (at most [`PAGE`]) behind the first `offset`, the oldest first: a place in the list never
    /// changes, because new transactions come at its end.
    pub fn transactions(&self, offset: u64, limit: u64) -> Request {
        self.post("getStarTransactions", &ListBody { offset, limit: limit.clamp(1, PAGE) })
    }

    /// Reads the answer to [`Stars::transactions`].
    ///
    /// # Errors
    /// [`CallError`] when there is no list in it.
    pub fn page(&self, answer: &Response) -> Result<StarPage, CallError> {
        let body = done(answer)?;
        let Some(Value::List(entries)) = body.get("result").and_then(|result| result.get("transactions")) else {
            return Err(answer::unreadable(answer));
        };
        let mut page = StarPage { count: u64::try_from(entries.len()).unwrap_or(u64::MAX), ..StarPage::default() };
        for entry in entries {
            if let Some(at) = time_of(entry) {
                page.oldest_ms = Some(page.oldest_ms.map_or(at, |known| known.min(at)));
            }
            match moved(entry) {
                Ok(Some(one)) => page.moves.push(one),
                Ok(None) => {}
                Err(why) => {
                    let id = answer::excerpt(entry.text("id").unwrap_or("a transaction without id"));
                    page.unreadable.push(format!("{id}: {why}"));
                }
            }
        }
        Ok(page)
    }

    /// Gives a charge back. It may be repeated after any outcome: Telegram gives one charge back once.
    pub(crate) fn refund(&self, refund: &NewRefund) -> Result<Request, Unsupported> {
        if refund.amount.currency() != Currency::XTR {
            return Err(no(format!("{} are no Stars", refund.amount)));
        }
        if !is_charge(&refund.provider_id) {
            return Err(no("that is no id of a charge"));
        }
        let payer =
            refund.payer.ok_or_else(|| no("Stars go back to the person who paid, and nobody said who that is"))?;
        Ok(self
            .post("refundStarPayment", &RefundBody { user_id: payer, telegram_payment_charge_id: &refund.provider_id }))
    }

    pub(crate) fn refunded(&self, refund: &NewRefund, answer: &Response) -> Result<SeenRefund, CallError> {
        match done(answer) {
            Ok(body) if body.flag("result") == Some(true) => {}
            Ok(_) => return Err(answer::unreadable(answer)),
            // An earlier call did it, and its answer was lost; or somebody else did.
            Err(CallError::Refused { text, .. }) if text.contains("CHARGE_ALREADY_REFUNDED") => {}
            Err(error) => return Err(error),
        }
        Ok(SeenRefund {
            refund_id: refund.provider_id.clone(),
            provider_id: refund.provider_id.clone(),
            state: RefundState::Succeeded,
            amount: Some(refund.amount),
            reason: None,
        })
    }

    pub(crate) fn probe(&self) -> Request {
        self.transactions(0, 1)
    }

    pub(crate) fn probed(&self, answer: &Response) -> Result<String, CallError> {
        self.page(answer)?;
        Ok(format!("bot {} may take Stars", self.bot_id))
    }

    fn post<T: Serialize>(&self, method: &str, body: &T) -> Request {
        request::post(&self.api_url, &format!("/bot{}/{method}", self.token.expose()), request::body(body))
    }
}

/// What Telegram cannot do, or would refuse.
pub(crate) fn no(text: impl Into<String>) -> Unsupported {
    Unsupported::new(Provider::Stars, text)
}

/// What the transactions tell about one charge; `None` when there is none of it. All of a charge may be given here in any order: Stars
/// come once under one id and go back whole.
pub fn seen(moves: &[StarMove], charge: &str) -> Option<Seen> {
    let of = |way: StarWay| moves.iter().find(|one| one.charge == charge && one.way == way);
    let (came, back) = (of(StarWay::In), of(StarWay::Back));
    let known = came.or(back)?;
    let price = Amount::new(known.stars, Currency::XTR);
    Some(Seen {
        provider_id: charge.to_string(),
        ours: came.and_then(|one| one.payload.clone()).or_else(|| back.and_then(|one| one.payload.clone())),
        state: if back.is_some() { SeenState::Refunded } else { SeenState::Paid },
        is_final: true,
        price,
        received: Some(price),
        refunded: back.map(|one| Amount::new(one.stars, Currency::XTR)),
        test: false,
        transaction: None,
        raw_status: if back.is_some() { "refunded" } else { "paid" }.to_string(),
        reason: None,
    })
}

/// What the transactions tell about each charge in them, in the order in which the charges are met.
pub fn seen_all(moves: &[StarMove]) -> Vec<Seen> {
    let mut met = std::collections::BTreeSet::new();
    let charges = moves.iter().filter(|one| met.insert(one.charge.as_str()));
    charges.filter_map(|one| seen(moves, &one.charge)).collect()
}

/// A transaction with a person; `None` for one with anybody else: Fragment, other bots, advertisements.
fn moved(entry: &Value) -> Result<Option<StarMove>, String> {
    let of_person = |side: &str| entry.get(side).filter(|partner| partner.text("type") == Some("user"));
    let (way, partner) = match (of_person("source"), of_person("receiver")) {
        (Some(partner), None) => (StarWay::In, partner),
        (None, Some(partner)) => (StarWay::Back, partner),
        (Some(_), Some(_)) => return Err("it has a source and a receiver".to_string()),
        (None, None) => return Ok(None),
    };
    // Gifts, paid media and subscriptions to channels are no business of an invoice. An older server names no kind.
    if partner.text("transaction_type").is_some_and(|kind| kind != "invoice_payment") {
        return Ok(None);
    }
    let charge = entry.text("id").filter(|id| is_charge(id)).ok_or("it has no id")?;
    let stars: i64 = entry.literal("amount").and_then(|text| text.parse().ok()).ok_or("it has no amount")?;
    let person = partner.get("user").and_then(|user| user.literal("id")).and_then(|text| text.parse().ok());
    let stars = stars.checked_abs().filter(|stars| *stars > 0).ok_or("its amount is nothing")?;
    Ok(Some(StarMove {
        charge: charge.to_string(),
        way,
        payload: partner.text("invoice_payload").map(str::to_string),
        person: person.ok_or("it has no person")?,
        stars,
        at_ms: time_of(entry).ok_or("it has no date")?,
    }))
}

fn time_of(entry: &Value) -> Option<i64> {
    entry.literal("date")?.parse::<i64>().ok()?.checked_mul(1000)
}

/// The body of a successful answer, or what its status and description mean.
fn done(answer: &Response) -> Result<Value, CallError> {
    let body = answer::object(answer);
    let text = body.as_ref().and_then(|body| body.text("description")).unwrap_or("no description").to_string();
    if let Some(error) = answer::by_status(answer, &text) {
        return Err(match error {
            CallError::Throttled { after_ms } => {
                CallError::Throttled { after_ms: asked_for(body.as_ref()).or(after_ms) }
            }
            other => other,
        });
    }
    let Some(body) = body else { return Err(answer::unreadable(answer)) };
    match (body.flag("ok"), answer::status(answer)) {
        (Some(true), 200) => Ok(body),
        // The Bot API answers so for a token that it does not know.
        (Some(false), 404) => Err(CallError::Misconfigured { status: 404, text: answer::excerpt(&text) }),
        (Some(false), _) => Err(answer::refused(answer, body.literal("error_code").unwrap_or(""), &text)),
        _ => Err(unclear(answer, text)),
    }
}

/// How long the whole bot shall be silent, if that is what `answer` says: a 429 to a call that belongs to no chat.
pub fn asked_silence(answer: &Response) -> Option<Duration> {
    match done(answer) {
        Err(CallError::Throttled { after_ms }) => Some(Duration::from_millis(after_ms.unwrap_or(1_000))),
        _ => None,
    }
}

/// The silence that the body asks for.
fn asked_for(body: Option<&Value>) -> Option<u64> {
    let seconds: u64 = body?.get("parameters")?.literal("retry_after")?.parse().ok()?;
    seconds.checked_mul(1000)
}

#[cfg(test)]
mod tests;
