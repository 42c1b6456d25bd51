//! Calls to CrystalPay and what their answers mean. Errors it can name come as HTTP 200 with `error: true`.

use semel_money::Amount;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{CrystalPay, is_id};
use crate::answer::{self, unclear};
use crate::json::Value;
use crate::payment::{Created, NewPayment, PaymentRef, Seen, SeenState};
use crate::request::{self, shortened};
use crate::{CallError, Provider, Request, Response, Unsupported};

/// The longest lifetime that the provider documents.
const MOST_MINUTES: u32 = 4320;

#[derive(Serialize)]
struct CreateBody<'a> {
    auth_login: &'a str,
    auth_secret: &'a str,
    /// A JSON number; our decimal text is one as it stands.
    amount: Box<RawValue>,
    #[serde(rename = "type")]
    kind: &'static str,
    lifetime: u32,
    currency: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    extra: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
}

#[derive(Serialize)]
struct InfoBody<'a> {
    auth_login: &'a str,
    auth_secret: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

impl CrystalPay {
    /// Not keyed: a repetition opens a second invoice. Both carry our payment id in `extra`, so keep every id and let one credit.
    pub(crate) fn create(&self, new: &NewPayment) -> Result<Request, Unsupported> {
        if !new.amount.is_positive() {
            return Err(no(format!("{} cannot be paid", new.amount)));
        }
        if new.payment_id.is_empty() || new.payment_id.len() > 255 {
            return Err(no("the payment id must be 1 to 255 bytes long"));
        }
        let amount = RawValue::from_string(new.amount.decimal()).map_err(|error| no(error.to_string()))?;
        let body = CreateBody {
            auth_login: &self.login,
            auth_secret: self.secret.expose(),
            amount,
            kind: "purchase",
            lifetime: new.lifetime_s.div_ceil(60).clamp(1, MOST_MINUTES),
            currency: new.amount.currency().code(),
            description: shortened(&new.description, 255),
            extra: &new.payment_id,
            redirect_url: new.return_url.as_deref(),
            callback_url: new.callback_url.as_deref(),
        };
        Ok(request::post(&self.api_url, "/invoice/create/", request::body(&body)))
    }

    pub(crate) fn created(&self, answer: &Response) -> Result<Created, CallError> {
        let invoice = done(answer)?;
        let id = invoice.text("id").filter(|id| is_id(id)).ok_or_else(|| unclear(answer, "the invoice has no id"))?;
        let seen_state = match invoice.text("state") {
            Some(state) => meaning(state).0,
            None => SeenState::Open,
        };
        // The answer names times without a zone, so it tells nothing about when the link dies.
        let url = invoice.text("url").map(str::to_string);
        Ok(Created { provider_id: id.to_string(), url, expires_at_ms: None, seen_state })
    }

    pub(crate) fn ask(&self, who: &PaymentRef) -> Result<Request, Unsupported> {
        match who {
            PaymentRef::ProviderId(id) if is_id(id) => Ok(self.info("/invoice/info/", Some(id))),
            PaymentRef::ProviderId(id) => Err(no(format!("{:?} is no id of CrystalPay", answer::excerpt(id)))),
            PaymentRef::Ours(_) => Err(no("an invoice is found by CrystalPay's id only")),
        }
    }

    pub(crate) fn asked(&self, answer: &Response) -> Result<Option<Seen>, CallError> {
        match done(answer) {
            Ok(invoice) => seen(&invoice).map(Some).map_err(|text| unclear(answer, text)),
            Err(CallError::Refused { text, .. }) if says_unknown(&text) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn probe(&self) -> Request {
        self.info("/me/info/", None)
    }

    pub(crate) fn probed(&self, answer: &Response) -> Result<String, CallError> {
        done(answer)?;
        Ok(format!("cash desk {}", self.login))
    }

    fn info(&self, path: &str, id: Option<&str>) -> Request {
        let body = InfoBody { auth_login: &self.login, auth_secret: self.secret.expose(), id };
        request::post(&self.api_url, path, request::body(&body))
    }
}

/// What CrystalPay cannot do at all.
pub(crate) fn no(text: impl Into<String>) -> Unsupported {
    Unsupported::new(Provider::CrystalPay, text)
}

/// Reads an invoice; the error is a sentence.
fn seen(invoice: &Value) -> Result<Seen, String> {
    let provider_id = invoice.text("id").filter(|id| is_id(id)).ok_or("the invoice has no id")?;
    let status = invoice.text("state").ok_or("the invoice has no state")?;
    let currency = invoice.text("currency").or_else(|| invoice.text("amount_currency"));
    let asked_for = invoice.literal("initial_amount").or_else(|| invoice.literal("amount"));
    let price = answer::amount(asked_for, currency)?;
    let (state, is_final) = meaning(status);
    let received = match state {
        SeenState::Paid => Some(came(invoice, price)?),
        // "Another sum came": which, only the difference between what was asked and what stands there now tells.
        SeenState::Short if invoice.literal("initial_amount").is_some() => {
            Some(came(invoice, price)?).filter(|sum| *sum != price)
        }
        _ => None,
    };
    Ok(Seen {
        provider_id: provider_id.to_string(),
        ours: invoice.text("extra").map(str::to_string),
        state,
        is_final,
        price,
        received,
        refunded: None,
        test: false,
        transaction: None,
        raw_status: status.to_string(),
        reason: None,
    })
}

/// What a paid invoice brought: `amount`. Where that is in another currency than the price, the provider's word that a purchase is
/// paid means its exact price.
fn came(invoice: &Value, price: Amount) -> Result<Amount, String> {
    let code = invoice.text("amount_currency").unwrap_or(price.currency().code());
    let Some(amount) = invoice.literal("amount").filter(|_| code == price.currency().code()) else {
        return Ok(price);
    };
    Amount::parse_floor(amount, price.currency()).map_err(|error| error.to_string())
}

/// What a state means and whether the provider means to leave it so. `payed` may still follow `unavailable`: a late payment.
fn meaning(state: &str) -> (SeenState, bool) {
    match state {
        "notpayed" => (SeenState::Open, false),
        "processing" => (SeenState::Processing, false),
        "wrongamount" => (SeenState::Short, true),
        "failed" => (SeenState::Failed, true),
        "payed" => (SeenState::Paid, true),
        "unavailable" => (SeenState::Cancelled, true),
        _ => (SeenState::Unknown, false),
    }
}

/// The object of an answer whose `error` is false, or what its errors mean.
fn done(answer: &Response) -> Result<Value, CallError> {
    let object = answer::object(answer);
    let text = object.as_ref().map(errors).unwrap_or_default();
    if let Some(error) = answer::by_status(answer, &text) {
        return Err(error);
    }
    let Some(object) = object else {
        return Err(answer::unreadable(answer));
    };
    match object.flag("error") {
        Some(false) if answer::status(answer) == 200 => return Ok(object),
        Some(true) => {}
        _ => return Err(answer::unreadable(answer)),
    }
    let says = text.to_lowercase();
    if ["auth", "login", "secret"].iter().any(|word| says.contains(word)) {
        return Err(CallError::Misconfigured { status: answer::status(answer), text: answer::excerpt(&text) });
    }
    if ["too many", "rate limit", "ratelimit"].iter().any(|word| says.contains(word)) {
        return Err(CallError::Throttled { after_ms: answer::retry_after_ms(answer) });
    }
    if ["internal", "try again", "timeout"].iter().any(|word| says.contains(word)) {
        return Err(unclear(answer, text));
    }
    Err(answer::refused(answer, "", &text))
}

fn errors(object: &Value) -> String {
    let told = object.list("errors").iter().filter_map(|error| match error {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    told.collect::<Vec<_>>().join("; ")
}

fn says_unknown(text: &str) -> bool {
    let says = text.to_lowercase();
    ["not found", "not exist", "doesn't exist"].iter().any(|word| says.contains(word))
}

#[cfg(test)]
mod tests;
