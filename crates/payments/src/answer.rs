//! Reading answers: the parts that do not differ between providers.

use http::header::RETRY_AFTER;
use semel_money::{Amount, Currency};

use crate::json::{self, Value};
use crate::{CallError, Response};

/// What is left of a provider's message in our errors.
const LONGEST_TEXT: usize = 300;

/// The status of an answer as a number.
pub(crate) fn status(answer: &Response) -> u16 {
    answer.status().as_u16()
}

/// The body as a JSON object, if it is one. A proxy's error page is not.
pub(crate) fn object(answer: &Response) -> Option<Value> {
    json::read(answer.body()).ok().filter(Value::is_object)
}

/// An outcome that nobody told us.
pub(crate) fn unclear(answer: &Response, text: impl Into<String>) -> CallError {
    let text: String = text.into();
    CallError::Unclear { status: Some(status(answer)), text: excerpt(&text) }
}

/// An answer whose body says nothing to us. The body itself stays out of logs.
pub(crate) fn unreadable(answer: &Response) -> CallError {
    unclear(answer, format!("a body of {} bytes that is not the documented JSON", answer.body().len()))
}

/// What every HTTP status means before anybody reads the body; `None` where the body decides.
///
/// 5xx, redirects and the statuses that proxies use for time-outs leave the outcome open: the call may have been carried out.
pub(crate) fn by_status(answer: &Response, text: &str) -> Option<CallError> {
    match status(answer) {
        401 | 403 => Some(CallError::Misconfigured { status: status(answer), text: excerpt(text) }),
        408 | 409 | 425 => Some(unclear(answer, text)),
        429 => Some(CallError::Throttled { after_ms: retry_after_ms(answer) }),
        400..=499 | 200 => None,
        _ => Some(unclear(answer, text)),
    }
}

/// Definitely not done.
pub(crate) fn refused(answer: &Response, code: &str, text: &str) -> CallError {
    CallError::Refused { status: status(answer), code: excerpt(code), text: excerpt(text) }
}

/// A call that this provider does not have cannot have an answer either.
pub(crate) fn no_such_call(answer: &Response) -> CallError {
    refused(answer, "unsupported", "this provider has no such call, so this is not its answer")
}

/// `Retry-After` in seconds, as milliseconds.
pub(crate) fn retry_after_ms(answer: &Response) -> Option<u64> {
    let seconds: u64 = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    seconds.checked_mul(1000)
}

/// The beginning of a provider's message.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

/// An amount from its literal and its currency's code; the error is a sentence.
pub(crate) fn amount(literal: Option<&str>, code: Option<&str>) -> Result<Amount, String> {
    let literal = literal.ok_or("an amount is missing")?;
    let code = code.ok_or("a currency is missing")?;
    let currency = Currency::from_code(code).map_err(|error| error.to_string())?;
    Amount::parse(literal, currency).map_err(|error| error.to_string())
}

/// Refuses an answer about something else than we asked for.
pub(crate) fn same(what: &'static str, expected: &str, got: Option<&str>) -> Result<(), CallError> {
    if got == Some(expected) {
        return Ok(());
    }
    let got = got.unwrap_or("nothing");
    Err(CallError::Foreign { what, expected: excerpt(expected), got: excerpt(got) })
}
