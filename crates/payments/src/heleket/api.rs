//! Calls to Heleket and what their answers mean.

use serde::Serialize;

use super::{Heleket, received, sign};
use crate::answer::{self, same, unclear};
use crate::json::Value;
use crate::payment::{Created, NewPayment, NewRefund, Page, PaymentRef, RefundState, Seen, SeenRefund, SeenState};
use crate::request::{self, is_cursor, is_id};
use crate::{CallError, Provider, Request, Response, Secret, Unsupported};

/// The provider's clock, ahead of UTC.
const UTC_PLUS_3_MS: i64 = 3 * 60 * 60 * 1000;

#[derive(Serialize)]
struct CreateBody<'a> {
    amount: String,
    currency: &'static str,
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_return: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_success: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_callback: Option<&'a str>,
    lifetime: u32,
    /// The first transfer decides: a second one would change a sum that we have already taken into the books.
    is_payment_multiple: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Who<'a> {
    Uuid(&'a str),
    OrderId(&'a str),
}

#[derive(Serialize)]
struct RefundBody<'a> {
    uuid: &'a str,
    address: &'a str,
    /// True: the network's fee is on us, the customer gets the sum whole.
    is_subtract: bool,
    amount: String,
}

#[derive(Serialize)]
struct ListBody<'a> {
    date_from: &'a str,
}

impl Heleket {
    pub(crate) fn create(&self, new: &NewPayment) -> Result<Request, Unsupported> {
        if !new.amount.is_positive() {
            return Err(no(format!("{} cannot be paid", new.amount)));
        }
        if !is_order_id(&new.payment_id) {
            return Err(no("the payment id goes out as order_id: 1 to 128 letters, digits, - or _"));
        }
        for url in [&new.return_url, &new.callback_url].into_iter().flatten() {
            if !(6..=255).contains(&url.len()) {
                return Err(no(format!("an address must have 6 to 255 characters: {:?}", answer::excerpt(url))));
            }
        }
        let body = CreateBody {
            amount: new.amount.decimal(),
            currency: new.amount.currency().code(),
            order_id: &new.payment_id,
            url_return: new.return_url.as_deref(),
            url_success: new.return_url.as_deref(),
            url_callback: new.callback_url.as_deref(),
            lifetime: new.lifetime_s.clamp(300, 43_200),
            is_payment_multiple: false,
        };
        Ok(self.post("/v1/payment", request::body(&body), &self.payment_key))
    }

    pub(crate) fn created(&self, new: &NewPayment, answer: &Response) -> Result<Created, CallError> {
        let invoice = match result(answer) {
            // Some merchants get an error instead of the existing invoice. Ours may be open, so the caller asks by our id.
            Err(CallError::Refused { text, .. }) if says_duplicate(&text) => return Err(unclear(answer, text)),
            other => other?,
        };
        let seen = seen(&invoice).map_err(|text| unclear(answer, text))?;
        same("payment", &new.payment_id, seen.ours.as_deref())?;
        same("amount", &new.amount.to_string(), Some(&seen.price.to_string()))?;
        let expires: Option<i64> = invoice.literal("expired_at").and_then(|seconds| seconds.parse().ok());
        Ok(Created {
            provider_id: seen.provider_id,
            url: invoice.text("url").map(str::to_string),
            expires_at_ms: expires.and_then(|seconds| seconds.checked_mul(1000)),
            seen_state: seen.state,
        })
    }

    pub(crate) fn ask(&self, who: &PaymentRef) -> Result<Request, Unsupported> {
        // Never both: the provider would silently prefer one of them.
        let who = match who {
            PaymentRef::ProviderId(uuid) => Who::Uuid(checked(uuid)?),
            PaymentRef::Ours(id) if is_order_id(id) => Who::OrderId(id),
            PaymentRef::Ours(_) => return Err(no("our id must be 1 to 128 letters, digits, - or _")),
        };
        Ok(self.post("/v1/payment/info", request::body(&who), &self.payment_key))
    }

    pub(crate) fn asked(&self, answer: &Response) -> Result<Option<Seen>, CallError> {
        let Some(invoice) = known(answer)? else {
            return Ok(None);
        };
        seen(&invoice).map(Some).map_err(|text| unclear(answer, text))
    }

    pub(crate) fn list(&self, since_ms: i64, cursor: Option<&str>) -> Result<Request, Unsupported> {
        let there = since_ms.checked_add(UTC_PLUS_3_MS);
        let since = there.and_then(|at_ms| request::utc_text(at_ms, "%Y-%m-%d %H:%M:%S"));
        let since = since.ok_or_else(|| no("that moment is beyond the calendar"))?;
        let path = match cursor {
            Some(cursor) if is_cursor(cursor) => format!("/v1/payment/list?{}", request::query(&[("cursor", cursor)])),
            Some(_) => return Err(no("that is no cursor")),
            None => "/v1/payment/list".to_string(),
        };
        Ok(self.post(&path, request::body(&ListBody { date_from: &since }), &self.payment_key))
    }

    pub(crate) fn listed(&self, answer: &Response) -> Result<Page, CallError> {
        let list = result(answer)?;
        if !matches!(list.get("items"), Some(Value::List(_))) {
            return Err(answer::unreadable(answer));
        }
        let next = list.get("paginate").and_then(|paginate| paginate.text("nextCursor")).map(str::to_string);
        let mut page = Page { next, ..Page::default() };
        for invoice in list.list("items") {
            match seen(invoice) {
                Ok(seen) => page.items.push(seen),
                Err(why) => {
                    let uuid = answer::excerpt(invoice.text("uuid").unwrap_or("an invoice without uuid"));
                    page.unreadable.push(format!("{uuid}: {why}"));
                }
            }
        }
        Ok(page)
    }

    /// Heleket knows no key for this call and does not say in which currency it reads `amount`, so it is made only where no doubt is
    /// possible about the currency: an invoice in a coin. After an unclear outcome ask, never repeat.
    pub(crate) fn refund(&self, refund: &NewRefund) -> Result<Request, Unsupported> {
        let Some(key) = self.payout_key.as_ref().filter(|key| !key.is_empty()) else {
            return Err(no("a refund needs the payout key, which is not configured: offer the balance"));
        };
        let address = refund.address.as_deref().map(str::trim).filter(|address| !address.is_empty());
        let Some(address) = address else {
            return Err(no("a refund needs an address that the payer names: offer the balance"));
        };
        if !request::is_plain(address) || address.len() > 200 {
            return Err(no("that is no address of a wallet: offer the balance"));
        }
        if !refund.amount.currency().is_crypto() {
            let text =
                format!("an invoice in {} cannot be given back exactly: offer the balance", refund.amount.currency());
            return Err(no(text));
        }
        if !refund.amount.is_positive() {
            return Err(no(format!("{} cannot be given back", refund.amount)));
        }
        let body = RefundBody {
            uuid: checked(&refund.provider_id)?,
            address,
            is_subtract: true,
            amount: refund.amount.decimal(),
        };
        Ok(self.post("/v1/payment/refund", request::body(&body), key))
    }

    /// The answer only says that the refund was taken; asking tells how it ended.
    pub(crate) fn refunded(&self, refund: &NewRefund, answer: &Response) -> Result<SeenRefund, CallError> {
        result(answer)?;
        Ok(SeenRefund {
            refund_id: refund.provider_id.clone(),
            provider_id: refund.provider_id.clone(),
            state: RefundState::Pending,
            amount: Some(refund.amount),
            reason: None,
        })
    }

    /// A refund has no id of its own: its state is the invoice's.
    pub(crate) fn ask_refund(&self, refund_id: &str) -> Result<Request, Unsupported> {
        self.ask(&PaymentRef::ProviderId(refund_id.to_string()))
    }

    /// No answer of Heleket names the sum of a refund: see [`Seen::refund`].
    pub(crate) fn asked_refund(&self, answer: &Response) -> Result<Option<SeenRefund>, CallError> {
        Ok(self.asked(answer)?.and_then(|invoice| invoice.refund()))
    }

    pub(crate) fn probe(&self) -> Request {
        self.post("/v1/balance", Vec::new(), &self.payment_key)
    }

    pub(crate) fn probed(&self, answer: &Response) -> Result<String, CallError> {
        result(answer)?;
        let refunds = if self.payout_key.is_some() { "with" } else { "without" };
        Ok(format!("merchant {}, {refunds} a payout key", self.merchant_id))
    }

    fn post(&self, path: &str, body: Vec<u8>, key: &Secret) -> Request {
        let signature = sign::sign(&body, key.expose());
        let mut request = request::post(&self.api_url, path, body);
        request::header(&mut request, "merchant", &self.merchant_id, false);
        request::header(&mut request, "sign", &signature, true);
        request
    }
}

fn no(text: impl Into<String>) -> Unsupported {
    Unsupported::new(Provider::Heleket, text)
}

fn checked(uuid: &str) -> Result<&str, Unsupported> {
    if is_id(uuid) { Ok(uuid) } else { Err(no(format!("{:?} is no uuid of Heleket", answer::excerpt(uuid)))) }
}

fn is_order_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&id.len()) && id.bytes().all(allowed)
}

/// Reads an invoice; the error is a sentence.
fn seen(invoice: &Value) -> Result<Seen, String> {
    let provider_id = invoice.text("uuid").filter(|uuid| is_id(uuid)).ok_or("the invoice has no uuid")?;
    let status =
        invoice.text("payment_status").or_else(|| invoice.text("status")).ok_or("the invoice has no status")?;
    let price = answer::amount(invoice.literal("amount"), invoice.text("currency"))?;
    let (state, usually_final) = meaning(status);
    Ok(Seen {
        provider_id: provider_id.to_string(),
        ours: invoice.text("order_id").map(str::to_string),
        state,
        is_final: invoice.flag("is_final").unwrap_or(usually_final),
        price,
        received: received::of(invoice, price, state),
        refunded: None,
        test: false,
        transaction: invoice.text("txid").map(str::to_string),
        raw_status: status.to_string(),
        reason: None,
    })
}

/// What a status means, and whether it is final when the answer does not say.
fn meaning(status: &str) -> (SeenState, bool) {
    match status {
        "check" => (SeenState::Open, false),
        "process" | "confirm_check" => (SeenState::Processing, false),
        "wrong_amount_waiting" => (SeenState::ShortOpen, false),
        "paid" => (SeenState::Paid, true),
        "paid_over" => (SeenState::PaidOver, true),
        "wrong_amount" => (SeenState::Short, true),
        "cancel" => (SeenState::Cancelled, true),
        "fail" | "system_fail" => (SeenState::Failed, true),
        // After the questionnaire it can still become paid.
        "locked" => (SeenState::Locked, false),
        "refund_process" => (SeenState::RefundPending, false),
        "refund_paid" => (SeenState::Refunded, true),
        "refund_fail" => (SeenState::RefundFailed, true),
        _ => (SeenState::Unknown, false),
    }
}

/// `None` when Heleket itself says that it does not know the invoice.
fn known(answer: &Response) -> Result<Option<Value>, CallError> {
    match result(answer) {
        Ok(invoice) => Ok(Some(invoice)),
        Err(CallError::Refused { text, .. }) if says_unknown(&text) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The `result` of an answer whose `state` is 0, or what its status and message mean.
fn result(answer: &Response) -> Result<Value, CallError> {
    let object = answer::object(answer);
    let state = object.as_ref().and_then(|object| object.literal("state"));
    if answer::status(answer) == 200 && state == Some("0") {
        let result = object.as_ref().and_then(|object| object.get("result")).cloned();
        return Ok(result.unwrap_or(Value::Null));
    }
    let text = object.as_ref().map(message).unwrap_or_default();
    if let Some(error) = answer::by_status(answer, &text) {
        return Err(error);
    }
    if object.is_none() || (answer::status(answer) == 200 && state.is_none()) {
        return Err(answer::unreadable(answer));
    }
    let says = text.to_lowercase();
    if ["wrong key", "invalid sign", "wrong sign", "forbidden", "unauthorized"].iter().any(|word| says.contains(word)) {
        return Err(CallError::Misconfigured { status: answer::status(answer), text: answer::excerpt(&text) });
    }
    if ["server error", "timeout", "try again"].iter().any(|word| says.contains(word)) {
        return Err(unclear(answer, text));
    }
    Err(answer::refused(answer, "", &text))
}

/// `message`, and the field errors of a 422 as `amount: validation.required`.
fn message(object: &Value) -> String {
    let mut parts: Vec<String> = object.text("message").map(str::to_string).into_iter().collect();
    if let Some(Value::Object(fields)) = object.get("errors") {
        for (field, errors) in fields {
            let told = match errors {
                Value::List(entries) => entries.iter().filter_map(as_text).collect::<Vec<_>>().join(", "),
                other => as_text(other).unwrap_or_default().to_string(),
            };
            parts.push(format!("{field}: {told}"));
        }
    }
    parts.join("; ")
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn says_unknown(text: &str) -> bool {
    let says = text.to_lowercase();
    ["not found", "not be found", "not exist", "doesn't exist", "validation.exists"]
        .iter()
        .any(|word| says.contains(word))
}

fn says_duplicate(text: &str) -> bool {
    let says = text.to_lowercase();
    ["order_id", "order id", "already", "duplicate", "exists"].iter().any(|word| says.contains(word))
}

#[cfg(test)]
mod tests;
