//! What providers answer, and what we ask them for: prices from their own characters, ids that cannot steer a request, errors
//! that are bounded and hold no key.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use semel_kernel::clock::Time;
use semel_kernel::jobs::JobError;
use semel_money::{Amount, Currency};
use semel_payments::{
    CRYSTALPAY_API_URL, CallError, CrystalPay, HELEKET_API_URL, Heleket, Line, NewPayment, NewRefund, PaymentRef, Rail,
    ReceiptSettings, Response, Seen, SeenState, WhichRefunds, YOOKASSA_API_URL, YooKassa,
};
use semel_shop::checkout::talk::{self, TalkError};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::notices::kind_of;
use super::{TAKEN, Verdict};

/// What answers are made of.
pub const WORDS: &[&str] = &[
    "200\n",
    "404\n",
    "429 7\n",
    "500\n",
    "\"recipient\":{\"account_id\":\"100500\"}",
    "\"paid\":true",
    "\"test\":true",
    "succeeded",
    "canceled",
    "waiting_for_capture",
    "paid_over",
    "wrong_amount",
    "refund_paid",
    "\"state\":0",
    "\"state\":1",
    "\"error\":false",
    "\"error\":true",
    "\"items\":[",
    "next_cursor",
    "nextCursor",
    "payment_amount",
    "payer_amount",
    "payer_currency",
    "initial_amount",
    "amount_currency",
    "\"value\":499.00",
    "499.005",
    "USDT",
    "DOUBLOON",
    "not found",
    "Wed, 21 Oct 2026 07:28:00 GMT",
    "99999999999",
    "-1",
];

/// Keys that must never be seen.
const KEY: &str = "CANARY_of_the_account_1f7c";

/// The longest sentence of an error: three excerpts of 300 characters and the words around them.
const LONGEST_ERROR: usize = 1_100;

fn shop() -> YooKassa {
    YooKassa::new("100500", KEY, YOOKASSA_API_URL).expect("a sound shop")
}

fn rails() -> [Rail; 3] {
    [
        Rail::YooKassa(shop()),
        Rail::Heleket(Heleket::new("5d0f2c7e", KEY, Some(KEY), HELEKET_API_URL).expect("a sound merchant")),
        Rail::CrystalPay(CrystalPay::new("shopkassa", KEY, KEY, CRYSTALPAY_API_URL).expect("a sound desk")),
    ]
}

/// An answer out of an input: a first line of status and perhaps `Retry-After`, then the body. Without such a line all of
/// it is the body of a 200.
pub(super) fn response(input: &[u8]) -> Response {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let head = std::str::from_utf8(&input[..end]).unwrap_or_default().trim_end_matches('\r');
    let (status, after) = head.split_once(' ').unwrap_or((head, ""));
    let status = status.parse::<u16>().ok().and_then(|status| StatusCode::from_u16(status).ok());
    let Some(status) = status else { return Response::new(input.to_vec()) };
    let mut response = Response::new(input[end + 1..].to_vec());
    *response.status_mut() = status;
    if let (false, Ok(value)) = (after.is_empty(), HeaderValue::from_bytes(after.as_bytes())) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

fn wanted(unit: Currency) -> (NewPayment, NewRefund) {
    let amount = Amount::parse("499.00", unit).unwrap_or(Amount::zero(unit));
    let line = Line { title: "Key".into(), quantity: 1, price: amount };
    let payment = NewPayment {
        payment_id: "pay_1".into(),
        order_id: "ord_1".into(),
        key: "pay_1".into(),
        amount,
        description: "Order ord_1".into(),
        return_url: Some("https://t.me/example_shop_bot".into()),
        callback_url: Some("https://shop.example/webhook/heleket".into()),
        lifetime_s: 1_800,
        customer_email: Some("name@example.com".into()),
        customer_phone: None,
        lines: vec![line.clone()],
    };
    let refund = NewRefund {
        provider_id: "2d8f1a6b-000f-5000-9000-1b2c3d4e5f60".into(),
        amount,
        key: "ref_1".into(),
        reason: "asked for".into(),
        address: Some("TXk9Qm2v7WnB4rYh8sLpJd3fGz6cVtA1Ex".into()),
        payer: None,
        customer_email: None,
        customer_phone: None,
        lines: vec![line],
    };
    (payment, refund)
}

/// Reads one answer as the answer to every call, and checks what holds for all of them.
fn read(rail: &Rail, answer: &Response) -> Result<(Vec<String>, Vec<Seen>), String> {
    let status = answer.status().as_u16();
    let (new, refund) = wanted(Currency::RUB);
    let mut told = Vec::new();
    let mut seen = Vec::new();
    match rail.created(&new, answer) {
        Ok(created) => {
            only_with_200(status, "created")?;
            harmless(&created.provider_id)?;
            told.push(format!("{TAKEN}: created {:?}", created.seen_state));
        }
        Err(error) => told.push(bounded(&error, answer)?),
    }
    match rail.asked(answer) {
        Ok(Some(one)) => {
            only_with_200(status, "asked")?;
            told.push(format!("{TAKEN}: asked {:?} {}", one.state, one.test));
            seen.push(one);
        }
        Ok(None) => told.push("asked: unknown there".into()),
        Err(error) => told.push(bounded(&error, answer)?),
    }
    match rail.listed(answer) {
        Ok(page) => {
            only_with_200(status, "listed")?;
            short_lines(&page.unreadable)?;
            told.push(format!("{TAKEN}: {} and {} odd", page.items.len().min(3), page.unreadable.len().min(3)));
            seen.extend(page.items);
        }
        Err(error) => told.push(bounded(&error, answer)?),
    }
    match rail.refunded(&refund, answer) {
        Ok(back) => {
            only_with_200(status, "refunded")?;
            if back.provider_id != refund.provider_id || back.amount.is_some_and(|amount| amount != refund.amount) {
                return Err(format!("the answer to our refund is about another: {back:?}"));
            }
            told.push(format!("{TAKEN}: refunded {:?}", back.state));
        }
        Err(error) => told.push(bounded(&error, answer)?),
    }
    match rail.asked_refund(answer) {
        Ok(found) => told.push(format!("refund {:?}", found.map(|found| found.state))),
        Err(error) => told.push(bounded(&error, answer)?),
    }
    match rail.listed_refunds(answer) {
        Ok(page) => {
            only_with_200(status, "refunds")?;
            short_lines(&page.unreadable)?;
            told.push(format!("{TAKEN}: {} refunds", page.items.len().min(3)));
        }
        Err(error) => told.push(bounded(&error, answer)?),
    }
    match rail.probed(answer) {
        Ok(_) => only_with_200(status, "probed")?,
        Err(error) => told.push(bounded(&error, answer)?),
    }
    for one in &seen {
        sound(one)?;
    }
    Ok((told, seen))
}

fn only_with_200(status: u16, what: &str) -> Result<(), String> {
    if status == 200 { Ok(()) } else { Err(format!("{what} with HTTP {status}")) }
}

/// Ids from answers go into paths and keys.
fn harmless(id: &str) -> Result<(), String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match (1..=128).contains(&id.len()) && id.bytes().all(fine) {
        true => Ok(()),
        false => Err(format!("{id:?} would go into a path")),
    }
}

fn short_lines(lines: &[String]) -> Result<(), String> {
    match lines.iter().find(|line| line.chars().count() > LONGEST_ERROR) {
        Some(line) => Err(format!("a line for the log has {} characters: {line:.80}", line.chars().count())),
        None => Ok(()),
    }
}

/// An error is a sentence, and no key stands in it that the provider did not write there.
fn bounded(error: &CallError, answer: &Response) -> Result<String, String> {
    let text = format!("{error} {error:?}");
    if error.to_string().chars().count() > LONGEST_ERROR {
        return Err(format!("an error of {} characters: {text:.80}", text.chars().count()));
    }
    if text.contains(KEY) && !String::from_utf8_lossy(answer.body()).contains(KEY) {
        return Err(format!("a key stands in an error: {text}"));
    }
    let kind = match error {
        CallError::Refused { .. } => "refused".to_owned(),
        CallError::Throttled { after_ms } => format!("throttled {}", after_ms.is_some()),
        CallError::Misconfigured { .. } => "misconfigured".to_owned(),
        CallError::Unclear { text, .. } => format!("unclear: {}", kind_of(text)),
        CallError::Foreign { what, .. } => format!("foreign {what}"),
        CallError::ReceiptNeeded { .. } => "receipt needed".to_owned(),
    };
    Ok(kind)
}

/// What holds for every payment that any answer tells of.
fn sound(seen: &Seen) -> Result<(), String> {
    harmless(&seen.provider_id)?;
    if Amount::parse(&seen.price.decimal(), seen.price.currency()) != Ok(seen.price) {
        return Err(format!("the price {} does not read back", seen.price));
    }
    let Some(received) = seen.received else { return Ok(()) };
    if received.currency() != seen.price.currency() {
        return Err(format!("{received} came for {}", seen.price));
    }
    if matches!(seen.state, SeenState::Open | SeenState::Processing | SeenState::Cancelled | SeenState::Unknown) {
        return Err(format!("{received} came for a payment that is {:?}", seen.state));
    }
    Ok(())
}

/// An amount's characters as they stand in a document. No number type ever reads them.
fn characters(raw: Option<&RawValue>) -> Option<String> {
    let text = raw?.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok().filter(|text: &String| !text.is_empty()),
        b'-' | b'0'..=b'9' => Some(text.to_owned()),
        _ => None,
    }
}

/// The price that was read is the one that was written.
fn exactly(seen: &Seen, written: Option<String>, code: Option<String>) -> Result<(), String> {
    let (Some(written), Some(code)) = (written, code) else {
        return Err(format!("the price {} stands nowhere", seen.price));
    };
    let exact = Currency::from_code(&code).ok().and_then(|unit| Amount::parse(&written, unit).ok());
    if exact == Some(seen.price) { Ok(()) } else { Err(format!("{written:?} {code:?} was read as {}", seen.price)) }
}

fn summary(told: Vec<String>) -> Verdict {
    let mut told: Vec<String> = told;
    // What was taken stands first, so that a kept answer that must be read can say so by its name.
    told.sort_by_key(|line| !line.starts_with(TAKEN));
    Ok(told.join("; "))
}

#[derive(Deserialize)]
struct YooKassaMoney {
    value: Option<Box<RawValue>>,
    currency: Option<String>,
}

#[derive(Deserialize)]
struct YooKassaPayment {
    amount: Option<YooKassaMoney>,
}

/// Every answer of YooKassa.
pub fn yookassa(input: &[u8]) -> Verdict {
    let rail = Rail::YooKassa(shop());
    let answer = response(input);
    let (told, _) = read(&rail, &answer)?;
    if let (Ok(Some(seen)), Ok(written)) =
        (rail.asked(&answer), serde_json::from_slice::<YooKassaPayment>(answer.body()))
    {
        let YooKassaPayment { amount } = written;
        let (value, code) = amount.map(|money| (money.value, money.currency)).unwrap_or_default();
        exactly(&seen, characters(value.as_deref()), code)?;
        if seen.state == SeenState::Paid && seen.received != Some(seen.price) {
            return Err(format!("{:?} came for a payment of {}", seen.received, seen.price));
        }
    }
    summary(told)
}

#[derive(Deserialize)]
struct HeleketAnswer {
    result: Option<HeleketInvoice>,
}

#[derive(Deserialize)]
struct HeleketInvoice {
    amount: Option<Box<RawValue>>,
    currency: Option<String>,
}

/// Every answer of Heleket.
pub fn heleket(input: &[u8]) -> Verdict {
    let [_, rail, _] = rails();
    let answer = response(input);
    let (told, seen) = read(&rail, &answer)?;
    if let (Ok(Some(seen)), Ok(written)) = (rail.asked(&answer), serde_json::from_slice::<HeleketAnswer>(answer.body()))
    {
        let HeleketAnswer { result } = written;
        let (amount, code) = result.map(|invoice| (invoice.amount, invoice.currency)).unwrap_or_default();
        exactly(&seen, characters(amount.as_deref()), code)?;
    }
    for one in seen.iter().filter(|one| one.state == SeenState::Paid && one.price.is_positive()) {
        if one.received.is_none_or(|received| received.minor() < one.price.minor()) {
            return Err(format!("a paid invoice over {} brought {:?}", one.price, one.received));
        }
    }
    summary(told)
}

#[derive(Deserialize)]
struct CrystalPayInvoice {
    initial_amount: Option<Box<RawValue>>,
    amount: Option<Box<RawValue>>,
    currency: Option<Box<RawValue>>,
    amount_currency: Option<Box<RawValue>>,
}

/// Every answer of CrystalPay.
pub fn crystalpay(input: &[u8]) -> Verdict {
    let [_, _, rail] = rails();
    let answer = response(input);
    let (told, _) = read(&rail, &answer)?;
    if let (Ok(Some(seen)), Ok(written)) =
        (rail.asked(&answer), serde_json::from_slice::<CrystalPayInvoice>(answer.body()))
    {
        let CrystalPayInvoice { initial_amount, amount, currency, amount_currency } = written;
        let first = characters(initial_amount.as_deref());
        let words =
            |raw: Option<&RawValue>| raw.filter(|raw| raw.get().starts_with('"')).and_then(|raw| characters(Some(raw)));
        let code = words(currency.as_deref()).or_else(|| words(amount_currency.as_deref()));
        exactly(&seen, first.or_else(|| characters(amount.as_deref())), code)?;
    }
    summary(told)
}

/// What foreign text can do to our own requests: an id is one piece of a path, a body is one document, a key hides.
pub fn requests(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n').map(|line| line.to_owned());
    let mut line = || lines.next().unwrap_or_default();
    let (id, cursor, key, words, url, email, sum) = (line(), line(), line(), line(), line(), line(), line());
    let receipt = ReceiptSettings {
        tax_system_code: Some(2),
        vat_code: 1,
        payment_subject: "service".into(),
        payment_mode: "full_payment".into(),
    };
    let unit = if sum.ends_with('₮') { Currency::USDT } else { Currency::RUB };
    let amount = Amount::parse(sum.trim_end_matches('₮'), unit).unwrap_or(Amount::new(49_900, unit));
    let (payment, refund) = wanted(unit);
    let lines = vec![Line { title: words.clone(), quantity: 1, price: amount }];
    let payment = NewPayment {
        payment_id: id.clone(),
        key: key.clone(),
        amount,
        description: words.clone(),
        return_url: Some(url.clone()),
        callback_url: Some(url.clone()),
        customer_email: Some(email.clone()),
        lines: lines.clone(),
        ..payment
    };
    let refund = NewRefund {
        provider_id: id.clone(),
        amount,
        key: key.clone(),
        reason: words,
        address: Some(url),
        customer_email: Some(email),
        lines,
        ..refund
    };
    let mut told = Vec::new();
    let plain = YooKassa { receipt: Some(receipt), ..shop() };
    for rail in [Rail::YooKassa(plain)].into_iter().chain(rails()) {
        let name = rail.provider().as_str();
        let calls = [
            ("create", rail.create(&payment)),
            ("ask", rail.ask(&PaymentRef::ProviderId(id.clone()))),
            ("ask ours", rail.ask(&PaymentRef::Ours(id.clone()))),
            ("list", rail.list(1_772_355_600_000, Some(&cursor))),
            ("capture", rail.capture(&id, &key)),
            ("cancel", rail.cancel(&id, &key)),
            ("refund", rail.refund(&refund)),
            ("ask refund", rail.ask_refund(&id)),
            ("refunds", rail.list_refunds(WhichRefunds::Of(&id), Some(&cursor))),
        ];
        for (call, request) in calls {
            let Ok(request) = request else { continue };
            told.push(format!("{name} {call}"));
            let uri = request.uri();
            let host = uri.host().unwrap_or_default();
            let homes = ["api.yookassa.ru", "api.heleket.com", "api.crystalpay.io"];
            if !homes.contains(&host) || uri.path().contains("..") || uri.path().contains("//") {
                return Err(format!("{call} at {name} goes to {uri}"));
            }
            // /v3/payments/<id>/capture is the longest path that any call has.
            if uri.path().matches('/').count() > 4 {
                return Err(format!("{call} at {name} leaves its path: {uri}"));
            }
            if format!("{:?} {:?}", request.headers(), uri).contains(KEY) {
                return Err(format!("{call} at {name} shows a key"));
            }
            let body = request.body();
            if !body.is_empty() {
                let document: Value = serde_json::from_slice(body)
                    .map_err(|error| format!("the body of {call} at {name} is no JSON: {error}"))?;
                let amount_there = match &document["amount"] {
                    Value::String(text) => Some(text.clone()),
                    Value::Object(money) => money["value"].as_str().map(str::to_owned),
                    _ => None,
                };
                if amount_there.is_some_and(|there| there != amount.decimal()) {
                    return Err(format!("{call} at {name} asks for another sum than {amount}: {document}"));
                }
            }
        }
    }
    Ok(format!("{TAKEN}: {}", told.join(", ")))
}

/// A wait that a provider or Telegram asks for in a header: obeyed, never negative, never for ever.
pub fn retry_after(input: &[u8]) -> Verdict {
    let Ok(value) = HeaderValue::from_bytes(input) else { return Ok("no header value".into()) };
    let now = Time::from_millis(1_772_355_600_000);
    let mut answer = Response::new(b"{}".to_vec());
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    answer.headers_mut().insert(RETRY_AFTER, value.clone());
    let asked: Option<u64> = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    for rail in rails() {
        let error = match rail.asked(&answer) {
            Err(error @ CallError::Throttled { .. }) => error,
            other => return Err(format!("a 429 of {} is {other:?}", rail.provider())),
        };
        let CallError::Throttled { after_ms } = &error else { continue };
        if *after_ms != asked.and_then(|seconds| seconds.checked_mul(1_000)) {
            return Err(format!("{value:?} was read as {after_ms:?} ms"));
        }
        // A slip on the other side must not put a payment's job to sleep for a year: nobody would ask about the money.
        match talk::job_error(rail.provider(), TalkError::Said(error), now, now) {
            JobError::Later { at, .. } if at >= now && at.since(now) <= Duration::from_secs(24 * 3600) => {}
            other => return Err(format!("after {value:?} the job waits like this: {other}")),
        }
    }
    let bot = super::telegram::bot();
    let mut bare = answer.clone();
    bare.body_mut().clear();
    for answer in [&answer, &bare] {
        match bot.sent(answer) {
            semel_telegram::Outcome::RetryAfter { seconds } if seconds >= 1 => {}
            other => return Err(format!("a 429 of Telegram is {other:?}")),
        }
    }
    Ok(format!("{TAKEN}: {}", asked.map_or("nothing", |_| "a number")))
}
