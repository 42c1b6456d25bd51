//! Calls to YooKassa and what their answers mean.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use semel_money::Amount;
use serde::Serialize;

use super::YooKassa;
use super::receipt::{self, Buyer, Money, Receipt};
use crate::answer::{self, same, unclear};
use crate::json::Value;
use crate::payment::{
    Created, Line, NewPayment, NewRefund, Page, PaymentRef, RefundPage, RefundState, Seen, SeenRefund, SeenState,
    WhichRefunds,
};
use crate::request::{self, is_cursor, is_id, is_plain, shortened};
use crate::{CallError, Provider, Request, Response, Unsupported};

#[derive(Serialize)]
struct CreateBody<'a> {
    amount: Money,
    capture: bool,
    confirmation: Confirmation<'a>,
    description: String,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt<'a>>,
}

#[derive(Serialize)]
struct Confirmation<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    return_url: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    payment_id: &'a str,
    order_id: &'a str,
}

#[derive(Serialize)]
struct RefundBody<'a> {
    payment_id: &'a str,
    amount: Money,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt<'a>>,
}

impl YooKassa {
    pub(crate) fn create(&self, new: &NewPayment) -> Result<Request, Unsupported> {
        if !new.amount.is_positive() {
            return Err(no(format!("{} cannot be paid", new.amount)));
        }
        let Some(return_url) = new.return_url.as_deref() else {
            return Err(no("a payment needs a return_url, the address where the customer goes afterwards"));
        };
        if new.payment_id.is_empty() || new.payment_id.len() > 512 || new.order_id.len() > 512 {
            return Err(no("the ids of payment and order must be 1 to 512 bytes long"));
        }
        let receipt =
            self.receipt(new.customer_email.as_deref(), new.customer_phone.as_deref(), &new.lines, new.amount)?;
        let body = CreateBody {
            amount: new.amount.into(),
            capture: true,
            confirmation: Confirmation { kind: "redirect", return_url },
            description: shortened(&new.description, 128),
            metadata: Metadata { payment_id: &new.payment_id, order_id: &new.order_id },
            receipt,
        };
        self.post("/payments", request::body(&body), &new.key)
    }

    pub(crate) fn created(&self, new: &NewPayment, answer: &Response) -> Result<Created, CallError> {
        let payment = done(answer)?;
        let seen = self.seen(&payment).map_err(|fault| fault.into_call_error(answer))?;
        same("payment", &new.payment_id, seen.ours.as_deref())?;
        same("amount", &new.amount.to_string(), Some(&seen.price.to_string()))?;
        let confirmation = payment.get("confirmation");
        let url = confirmation.and_then(|confirmation| confirmation.text("confirmation_url")).map(str::to_string);
        Ok(Created { provider_id: seen.provider_id, url, expires_at_ms: None, seen_state: seen.state })
    }

    pub(crate) fn ask(&self, who: &PaymentRef) -> Result<Request, Unsupported> {
        match who {
            PaymentRef::ProviderId(id) => Ok(self.get(&format!("/payments/{}", checked(id)?))),
            PaymentRef::Ours(_) => Err(no("a payment is found by YooKassa's id only; sweep the list for the others")),
        }
    }

    pub(crate) fn asked(&self, answer: &Response) -> Result<Option<Seen>, CallError> {
        if unknown_there(answer) {
            return Ok(None);
        }
        let payment = done(answer)?;
        self.seen(&payment).map(Some).map_err(|fault| fault.into_call_error(answer))
    }

    pub(crate) fn list(&self, since_ms: i64, cursor: Option<&str>) -> Result<Request, Unsupported> {
        let since = request::utc_text(since_ms, "%Y-%m-%dT%H:%M:%SZ");
        let since = since.ok_or_else(|| no("that moment is beyond the calendar"))?;
        let mut pairs = vec![("limit", "100"), ("created_at.gte", since.as_str())];
        if let Some(cursor) = cursor {
            if !is_cursor(cursor) {
                return Err(no("that is no cursor"));
            }
            pairs.push(("cursor", cursor));
        }
        Ok(self.get(&format!("/payments?{}", request::query(&pairs))))
    }

    pub(crate) fn listed(&self, answer: &Response) -> Result<Page, CallError> {
        let list = done(answer)?;
        if !matches!(list.get("items"), Some(Value::List(_))) {
            return Err(answer::unreadable(answer));
        }
        let mut page = Page { next: list.text("next_cursor").map(str::to_string), ..Page::default() };
        for payment in list.list("items") {
            match self.seen(payment) {
                Ok(seen) => page.items.push(seen),
                Err(fault) => {
                    let id = answer::excerpt(payment.text("id").unwrap_or("a payment without id"));
                    page.unreadable.push(format!("{id}: {}", fault.into_call_error(answer)));
                }
            }
        }
        Ok(page)
    }

    pub(crate) fn capture(&self, provider_id: &str, key: &str) -> Result<Request, Unsupported> {
        self.post(&format!("/payments/{}/capture", checked(provider_id)?), b"{}".to_vec(), key)
    }

    pub(crate) fn cancel(&self, provider_id: &str, key: &str) -> Result<Request, Unsupported> {
        self.post(&format!("/payments/{}/cancel", checked(provider_id)?), Vec::new(), key)
    }

    pub(crate) fn refund(&self, refund: &NewRefund) -> Result<Request, Unsupported> {
        if !refund.amount.is_positive() {
            return Err(no(format!("{} cannot be given back", refund.amount)));
        }
        let receipt = self.receipt(
            refund.customer_email.as_deref(),
            refund.customer_phone.as_deref(),
            &refund.lines,
            refund.amount,
        )?;
        let body = RefundBody {
            payment_id: checked(&refund.provider_id)?,
            amount: refund.amount.into(),
            description: shortened(&refund.reason, 128),
            receipt,
        };
        self.post("/refunds", request::body(&body), &refund.key)
    }

    pub(crate) fn refunded(&self, refund: &NewRefund, answer: &Response) -> Result<SeenRefund, CallError> {
        let seen = refund_of(&done(answer)?).map_err(|text| unclear(answer, text))?;
        same("payment", &refund.provider_id, Some(&seen.provider_id))?;
        let amount = seen.amount.map(|amount| amount.to_string());
        same("amount", &refund.amount.to_string(), amount.as_deref())?;
        Ok(seen)
    }

    pub(crate) fn ask_refund(&self, refund_id: &str) -> Result<Request, Unsupported> {
        Ok(self.get(&format!("/refunds/{}", checked(refund_id)?)))
    }

    pub(crate) fn asked_refund(&self, answer: &Response) -> Result<Option<SeenRefund>, CallError> {
        if unknown_there(answer) {
            return Ok(None);
        }
        refund_of(&done(answer)?).map(Some).map_err(|text| unclear(answer, text))
    }

    pub(crate) fn list_refunds(&self, which: WhichRefunds<'_>, cursor: Option<&str>) -> Result<Request, Unsupported> {
        let (name, value) = match which {
            WhichRefunds::Since(since_ms) => {
                let since = request::utc_text(since_ms, "%Y-%m-%dT%H:%M:%SZ");
                ("created_at.gte", since.ok_or_else(|| no("that moment is beyond the calendar"))?)
            }
            WhichRefunds::Of(id) => ("payment_id", checked(id)?.to_string()),
        };
        let mut pairs = vec![("limit", "100"), (name, value.as_str())];
        if let Some(cursor) = cursor {
            if !is_cursor(cursor) {
                return Err(no("that is no cursor"));
            }
            pairs.push(("cursor", cursor));
        }
        Ok(self.get(&format!("/refunds?{}", request::query(&pairs))))
    }

    pub(crate) fn listed_refunds(&self, answer: &Response) -> Result<RefundPage, CallError> {
        let list = done(answer)?;
        if !matches!(list.get("items"), Some(Value::List(_))) {
            return Err(answer::unreadable(answer));
        }
        let mut page = RefundPage { next: list.text("next_cursor").map(str::to_string), ..RefundPage::default() };
        for refund in list.list("items") {
            match refund_of(refund) {
                Ok(seen) => page.items.push(seen),
                Err(why) => {
                    let id = answer::excerpt(refund.text("id").unwrap_or("a refund without id"));
                    page.unreadable.push(format!("{id}: {}", answer::excerpt(&why)));
                }
            }
        }
        Ok(page)
    }

    pub(crate) fn probe(&self) -> Request {
        self.get("/me")
    }

    pub(crate) fn probed(&self, answer: &Response) -> Result<String, CallError> {
        let me = done(answer)?;
        same("shop", &self.shop_id, me.literal("account_id"))?;
        Ok(match me.flag("test") {
            Some(true) => format!("test shop {}: its payments are not money", self.shop_id),
            _ => format!("shop {}", self.shop_id),
        })
    }

    fn receipt<'a>(
        &'a self,
        email: Option<&'a str>,
        phone: Option<&'a str>,
        lines: &[Line],
        total: Amount,
    ) -> Result<Option<Receipt<'a>>, Unsupported> {
        let Some(settings) = &self.receipt else {
            return Ok(None);
        };
        receipt::build(settings, &Buyer { email, phone }, lines, total).map(Some).map_err(no)
    }

    fn get(&self, path: &str) -> Request {
        let mut request = request::get(&self.api_url, path);
        self.authorize(&mut request);
        request
    }

    fn post(&self, path: &str, body: Vec<u8>, key: &str) -> Result<Request, Unsupported> {
        if !is_plain(key) || key.len() > 64 {
            return Err(no("an Idempotence-Key is 1 to 64 visible ASCII characters"));
        }
        let mut request = request::post(&self.api_url, path, body);
        request::header(&mut request, "idempotence-key", key, false);
        self.authorize(&mut request);
        Ok(request)
    }

    fn authorize(&self, request: &mut Request) {
        let basic = BASE64_STANDARD.encode(format!("{}:{}", self.shop_id, self.secret_key.expose()));
        request::header(request, "authorization", &format!("Basic {basic}"), true);
    }

    /// Reads a payment object. The money counts only for our shop, so the shop is checked before anything else.
    fn seen(&self, payment: &Value) -> Result<Seen, Fault> {
        let shop = payment.get("recipient").and_then(|recipient| recipient.literal("account_id"));
        same("shop", &self.shop_id, shop)?;
        let provider_id = payment.text("id").filter(|id| is_id(id)).ok_or("the payment has no id")?;
        let raw_status = payment.text("status").ok_or("the payment has no status")?;
        let price = money(payment.get("amount"))?;
        let refunded = payment.get("refunded_amount").map(|amount| money(Some(amount))).transpose()?;
        let is_paid = payment.flag("paid") == Some(true);
        let (state, contradiction) = match raw_status {
            "pending" => (SeenState::Open, None),
            "waiting_for_capture" => (SeenState::WaitingForCapture, None),
            "succeeded" if is_paid => (SeenState::Paid, None),
            "succeeded" => (SeenState::Unknown, Some("succeeded, but paid is not true".to_string())),
            "canceled" => (SeenState::Cancelled, None),
            _ => (SeenState::Unknown, None),
        };
        let metadata = payment.get("metadata");
        Ok(Seen {
            provider_id: provider_id.to_string(),
            ours: metadata.and_then(|metadata| metadata.text("payment_id")).map(str::to_string),
            state,
            is_final: matches!(state, SeenState::Paid | SeenState::Cancelled),
            price,
            received: (state == SeenState::Paid).then_some(price),
            refunded,
            test: payment.flag("test") == Some(true) && !self.allow_test,
            transaction: None,
            raw_status: raw_status.to_string(),
            reason: contradiction.or_else(|| cancellation(payment)),
        })
    }
}

/// Why a payment object could not be taken.
enum Fault {
    Foreign(CallError),
    Unreadable(String),
}

impl Fault {
    fn into_call_error(self, answer: &Response) -> CallError {
        match self {
            Fault::Foreign(error) => error,
            Fault::Unreadable(text) => unclear(answer, text),
        }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Fault {
        Fault::Foreign(error)
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault::Unreadable(text)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Fault {
        Fault::Unreadable(text.to_string())
    }
}

fn no(text: impl Into<String>) -> Unsupported {
    Unsupported::new(Provider::YooKassa, text)
}

fn checked(id: &str) -> Result<&str, Unsupported> {
    if is_id(id) { Ok(id) } else { Err(no(format!("{:?} is no id of YooKassa", answer::excerpt(id)))) }
}

fn money(value: Option<&Value>) -> Result<Amount, String> {
    let value = value.ok_or("the amount is missing")?;
    answer::amount(value.literal("value"), value.text("currency"))
}

fn cancellation(object: &Value) -> Option<String> {
    let details = object.get("cancellation_details")?;
    let (party, reason) = (details.text("party").unwrap_or("?"), details.text("reason").unwrap_or("?"));
    Some(format!("{party}: {reason}"))
}

fn refund_of(refund: &Value) -> Result<SeenRefund, String> {
    let status = refund.text("status").ok_or("the refund has no status")?;
    let state = match status {
        "pending" => RefundState::Pending,
        "succeeded" => RefundState::Succeeded,
        "canceled" => RefundState::Cancelled,
        other => return Err(format!("the refund has an unknown status {other:?}")),
    };
    Ok(SeenRefund {
        refund_id: refund.text("id").filter(|id| is_id(id)).ok_or("the refund has no id")?.to_string(),
        provider_id: refund
            .text("payment_id")
            .filter(|id| is_id(id))
            .ok_or("the refund has no payment_id")?
            .to_string(),
        state,
        amount: Some(money(refund.get("amount"))?),
        reason: cancellation(refund),
    })
}

/// YooKassa itself says that it does not know the object. Any other 404 comes from a wrong address or a proxy and proves nothing.
fn unknown_there(answer: &Response) -> bool {
    answer::status(answer) == 404
        && answer::object(answer)
            .is_some_and(|error| error.text("code") == Some("not_found") || error.text("type") == Some("error"))
}

/// The object of a successful answer, or what its status and error object mean.
fn done(answer: &Response) -> Result<Value, CallError> {
    let object = answer::object(answer);
    if answer::status(answer) == 200 {
        return object.ok_or_else(|| answer::unreadable(answer));
    }
    let (code, text, parameter) = match &object {
        Some(error) => (error.text("code"), error.text("description"), error.text("parameter")),
        None => (None, None, None),
    };
    let code = code.unwrap_or("");
    let text = match (text, parameter) {
        (Some(text), Some(parameter)) => format!("{text} ({parameter})"),
        (Some(text), None) => text.to_string(),
        _ => "no description".to_string(),
    };
    if let Some(error) = answer::by_status(answer, &text) {
        return Err(match error {
            CallError::Throttled { after_ms: None } => {
                let asked = object.as_ref().and_then(|error| error.literal("retry_after"));
                CallError::Throttled { after_ms: asked.and_then(|ms| ms.parse().ok()) }
            }
            other => other,
        });
    }
    let says = text.to_lowercase();
    if says.contains("receipt is missing") || parameter == Some("receipt") {
        return Err(CallError::ReceiptNeeded { text: answer::excerpt(&text) });
    }
    if parameter.is_some_and(|name| name.eq_ignore_ascii_case("idempotence-key")) {
        // The key was used with other bytes before, so something may have been done under it.
        return Err(unclear(answer, text));
    }
    if object.is_none() {
        return Err(answer::unreadable(answer));
    }
    Err(answer::refused(answer, code, &text))
}

#[cfg(test)]
mod tests;
