//! What a request to YooKassa must say, and what a list is asked for.

use serde_json::{Map, Value};

use super::Refusal;
use crate::params::pairs;
use crate::payments::{Payment, Refund};
use crate::world::World;
use crate::{amount, clock};

/// `amount.value` and `amount.currency`: smallest units, the text, the currency.
pub(super) fn sum_of(request: &Map<String, Value>) -> Result<(i64, String, String), Refusal> {
    let part = |name: &str| request.get("amount").and_then(|sum| sum.get(name)).and_then(Value::as_str);
    let currency =
        part("currency").filter(|text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()));
    let currency = currency.ok_or_else(|| Refusal::invalid("amount.currency", "Currency is missing or unknown"))?;
    let value = part("value").ok_or_else(|| Refusal::invalid("amount.value", "Amount is missing or no string"))?;
    let sum = amount::parse(value, amount::scale(currency)).filter(|sum| *sum > 0);
    let sum = sum.ok_or_else(|| Refusal::invalid("amount.value", "Amount is no positive sum with two decimals"))?;
    Ok((sum, value.to_owned(), currency.to_owned()))
}

/// The documented lengths of `description` and `metadata`.
pub(super) fn check_texts(request: &Map<String, Value>) -> Result<(), Refusal> {
    let description = request.get("description").and_then(Value::as_str).unwrap_or_default();
    if description.chars().count() > 128 {
        return Err(Refusal::invalid("description", "Description is longer than 128 characters"));
    }
    let Some(metadata) = request.get("metadata") else { return Ok(()) };
    let fits = |name: &String, value: &Value| {
        name.chars().count() <= 32 && value.as_str().is_some_and(|text| text.chars().count() <= 512)
    };
    let sound =
        metadata.as_object().is_some_and(|all| all.len() <= 16 && all.iter().all(|(name, value)| fits(name, value)));
    match sound {
        true => Ok(()),
        false => {
            Err(Refusal::invalid("metadata", "Metadata takes 16 texts: names up to 32 characters, values up to 512"))
        }
    }
}

pub(super) fn receipt_given(world: &World, request: &Map<String, Value>) -> Result<(), Refusal> {
    let items = request.get("receipt").and_then(|receipt| receipt.get("items")).and_then(Value::as_array);
    if world.options.yookassa_receipt_required && items.is_none_or(Vec::is_empty) {
        return Err(Refusal::invalid("receipt", "Receipt is missing or illegal"));
    }
    Ok(())
}

/// The query of a list, of payments or of refunds.
pub(super) struct Filter {
    limit: usize,
    cursor: Option<String>,
    payment_id: Option<String>,
    status: Option<String>,
    times: Vec<(String, i64)>,
}

impl Filter {
    pub(super) fn read(query: &str) -> Result<Filter, Refusal> {
        let mut filter = Filter { limit: 10, cursor: None, payment_id: None, status: None, times: Vec::new() };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "limit" => {
                    let limit = value.parse::<usize>().ok().filter(|limit| (1..=100).contains(limit));
                    filter.limit = limit.ok_or_else(|| Refusal::invalid("limit", "Limit is a number from 1 to 100"))?;
                }
                "cursor" => filter.cursor = Some(value),
                "payment_id" => filter.payment_id = Some(value),
                "status" => filter.status = Some(value),
                "created_at.gte" | "created_at.gt" | "created_at.lte" | "created_at.lt" => {
                    let at = clock::from_iso(&value);
                    let at = at.ok_or_else(|| Refusal::invalid("created_at", "Time is not ISO 8601 with a zone"))?;
                    filter.times.push((name, at));
                }
                _ => {}
            }
        }
        Ok(filter)
    }

    pub(super) fn takes(&self, payment: &Payment) -> bool {
        self.in_time(payment.created_at) && self.status.as_ref().is_none_or(|status| status == &payment.status)
    }

    /// Every refund of the sandbox has succeeded.
    pub(super) fn takes_refund(&self, refund: &Refund) -> bool {
        self.in_time(refund.created_at)
            && self.status.as_ref().is_none_or(|status| status == "succeeded")
            && self.payment_id.as_ref().is_none_or(|id| id == &refund.payment_id)
    }

    fn in_time(&self, at: i64) -> bool {
        self.times.iter().all(|(name, bound)| match name.as_str() {
            "created_at.gte" => at >= *bound,
            "created_at.gt" => at > *bound,
            "created_at.lte" => at <= *bound,
            _ => at < *bound,
        })
    }

    /// The page of `matching` that is asked for, and the cursor of the next one: the last id of this page.
    pub(super) fn page<'a, T>(
        &self,
        mut matching: Vec<&'a T>,
        id: impl Fn(&T) -> &str,
    ) -> Result<(Vec<&'a T>, Option<String>), Refusal> {
        if let Some(cursor) = &self.cursor {
            let last = matching.iter().position(|entry| id(entry) == cursor);
            let Some(last) = last else { return Err(Refusal::invalid("cursor", "Cursor is unknown or outdated")) };
            matching.drain(..=last);
        }
        let more = matching.len() > self.limit;
        matching.truncate(self.limit);
        let next = matching.last().filter(|_| more).map(|entry| id(entry).to_owned());
        Ok((matching, next))
    }
}
