//! CrystalPay, API v3: credentials in every body, errors under HTTP 200, a callback signature that proves the id and nothing else.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use crate::outbox::Event;
use crate::payments::{Move, PayError, Payment, Provider};
use crate::world::{World, lock};
use crate::{amount, answer, clock, php};

const PROVIDER: Provider = Provider::CrystalPay;

/// Every path works with and without its last slash.
pub(crate) fn router() -> Router<World> {
    Router::new()
        .route("/crystalpay/v3/invoice/create/", post(create))
        .route("/crystalpay/v3/invoice/create", post(create))
        .route("/crystalpay/v3/invoice/info/", post(info))
        .route("/crystalpay/v3/invoice/info", post(info))
        .route("/crystalpay/v3/me/info/", post(me))
        .route("/crystalpay/v3/me/info", post(me))
}

/// `sha1(id:salt)`, lower-case hexadecimal: the same for every state of an invoice.
pub(crate) fn signature(id: &str, salt: &str) -> String {
    hex::encode(Sha1::digest(format!("{id}:{salt}")))
}

// ---- answers

fn refused(error: impl Into<String>) -> Response {
    answer::json(200, &json!({ "error": true, "errors": [error.into()] }))
}

fn done(mut members: Map<String, Value>) -> Response {
    members.insert("error".into(), json!(false));
    members.insert("errors".into(), json!([]));
    answer::json(200, &Value::Object(members))
}

/// The answer of a fault; only these are no HTTP 200.
pub(crate) fn fault(status: u16) -> Response {
    let error = if status == 429 { "Too many requests" } else { "Server error" };
    answer::json(status, &json!({ "error": true, "errors": [error] }))
}

/// Reads the body and checks the credentials in it.
fn opened(world: &World, body: &[u8]) -> Result<Map<String, Value>, String> {
    let request: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| "The request body is no JSON object".to_owned())?;
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let options = &world.options;
    if text("auth_login") != Some(options.crystalpay_login.as_str())
        || text("auth_secret") != Some(options.crystalpay_secret.as_str())
    {
        return Err("Authorization failed: check `auth_login` and `auth_secret`".to_owned());
    }
    Ok(request)
}

// ---- calls

async fn create(State(world): State<World>, body: Bytes) -> Response {
    match opened(&world, &body).and_then(|request| create_invoice(&world, request, &body)) {
        Ok(members) => done(members),
        Err(error) => refused(error),
    }
}

/// The sum as the shop wrote it, number or text: a detour over a binary fraction would change it.
#[derive(serde::Deserialize)]
struct Asked {
    amount: Option<Box<RawValue>>,
}

fn create_invoice(world: &World, mut request: Map<String, Value>, body: &[u8]) -> Result<Map<String, Value>, String> {
    let required = |name: &str| format!("`{name}` field is required");
    let asked: Asked = serde_json::from_slice(body).map_err(|_| required("amount"))?;
    let asked_text = asked.amount.map(|raw| raw.get().trim_matches('"').to_owned());
    let asked_text = asked_text.ok_or_else(|| required("amount"))?;
    let currency = request.get("currency").or_else(|| request.get("amount_currency")).and_then(Value::as_str);
    let currency = currency.unwrap_or("RUB").to_owned();
    let asked = amount::parse(&asked_text, amount::scale(&currency)).filter(|sum| *sum > 0);
    let asked = asked.ok_or_else(|| "`amount` field is invalid".to_owned())?;
    let kind = request.get("type").and_then(Value::as_str).ok_or_else(|| required("type"))?;
    if !matches!(kind, "purchase" | "topup") {
        return Err("`type` field is invalid".to_owned());
    }
    let minutes = request.get("lifetime").and_then(Value::as_i64).ok_or_else(|| required("lifetime"))?;
    if !(1..=4320).contains(&minutes) {
        return Err("`lifetime` field is invalid: minutes, 4320 at most".to_owned());
    }
    request.remove("auth_login");
    request.remove("auth_secret");

    let id = format!("{}_{}", clock::nine_digits(), clock::letters(10));
    let mut payment = Payment::open(PROVIDER, id, &currency, asked, &asked_text);
    payment.ours = request.get("extra").and_then(Value::as_str).map(str::to_owned);
    payment.status = "notpayed".into();
    payment.url = world.pay_page(PROVIDER, &payment.id);
    payment.callback_url = request.get("callback_url").and_then(Value::as_str).map(str::to_owned);
    payment.expires_at = payment.created_at + minutes * 60_000;
    payment.request = request;

    let mut members = Map::new();
    for name in ["id", "url", "type", "rub_amount", "amount", "currency"] {
        if let Some((_, value)) = invoice(&payment).into_iter().find(|(member, _)| *member == name) {
            members.insert(name.into(), value);
        }
    }
    lock(&world.payments).insert(payment);
    Ok(members)
}

async fn info(State(world): State<World>, body: Bytes) -> Response {
    let request = match opened(&world, &body) {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let Some(id) = request.get("id").and_then(Value::as_str) else {
        return refused("`id` field is required");
    };
    match lock(&world.payments).get(PROVIDER, id) {
        Some(payment) => done(invoice(payment).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        None => refused("Invoice not found"),
    }
}

async fn me(State(world): State<World>, body: Bytes) -> Response {
    match opened(&world, &body) {
        Ok(_) => {
            let mut members = Map::new();
            members.insert("id".into(), json!(1));
            members.insert("name".into(), json!("Sandbox"));
            members.insert("login".into(), json!(world.options.crystalpay_login));
            members.insert("status_level".into(), json!(1));
            done(members)
        }
        Err(error) => refused(error),
    }
}

// ---- states

/// The customer's side. An invoice that was closed unpaid may still be paid late.
pub(crate) fn go(payment: &mut Payment, how: Move, now: i64) -> Result<(), PayError> {
    match (how, payment.status.as_str()) {
        (Move::Pay(sum), "notpayed" | "processing" | "unavailable") => {
            take(payment, sum.unwrap_or(payment.asked), now);
        }
        (Move::Hold, "notpayed") => {
            payment.status = "processing".into();
            payment.txid.get_or_insert_with(|| clock::hex(64));
        }
        (Move::Decline, "notpayed" | "processing") => close(payment, "failed", now),
        (Move::Expire, "notpayed") => close(payment, "unavailable", now),
        _ => return Err(payment.over()),
    }
    Ok(())
}

/// A purchase wants its exact sum; a top-up takes any.
fn take(payment: &mut Payment, sum: i64, now: i64) {
    let exact = sum == payment.asked || payment.asked_for("type") == Some("topup");
    payment.received = sum;
    payment.captured = sum;
    payment.txid.get_or_insert_with(|| clock::hex(64));
    close(payment, if exact { "payed" } else { "wrongamount" }, now);
}

fn close(payment: &mut Payment, status: &str, now: i64) {
    payment.status = status.to_owned();
    payment.finished_at = Some(now);
}

/// The payment as it would look in this state: what a lying callback shows.
pub(crate) fn as_if(payment: &Payment, state: &str, now: i64) -> Payment {
    let mut other = payment.clone();
    match state {
        "payed" => take(&mut other, payment.asked, now),
        "wrongamount" => take(&mut other, payment.asked / 2, now),
        "failed" | "unavailable" => close(&mut other, state, now),
        _ => {}
    }
    other.status = state.to_owned();
    other
}

// ---- wire forms

fn invoice(payment: &Payment) -> Vec<(&'static str, Value)> {
    let sum = |minor: i64| json!(amount::plain(minor, payment.scale));
    let fee = payment.received / 100 * 2 + payment.received % 100 * 2 / 100;
    // `amount` is what counts in the end; `initial_amount` stays what the shop asked for.
    let counted = if payment.received > 0 { payment.received } else { payment.asked };
    let roubles = if payment.currency == "RUB" { counted } else { counted.saturating_mul(100) };
    let or_null = |name: &str| payment.request.get(name).cloned().unwrap_or(Value::Null);
    vec![
        ("id", json!(payment.id)),
        ("url", json!(payment.url)),
        ("state", json!(payment.status)),
        ("type", or_null("type")),
        ("subtract_from", payment.request.get("subtract_from").cloned().unwrap_or_else(|| json!("amount"))),
        ("method", if payment.txid.is_some() { json!("USDTTRC") } else { Value::Null }),
        ("required_method", or_null("required_method")),
        ("rub_amount", sum(roubles)),
        ("currency", json!(payment.currency)),
        ("amount", sum(counted)),
        ("amount_currency", json!(payment.currency)),
        ("initial_amount", sum(payment.asked)),
        ("remaining_amount", sum((payment.asked - payment.received).max(0))),
        ("balance_amount", sum(payment.received - fee)),
        ("commission_amount", sum(fee)),
        ("description", or_null("description")),
        ("redirect_url", or_null("redirect_url")),
        ("callback_url", json!(payment.callback_url)),
        ("extra", or_null("extra")),
        ("created_at", json!(clock::moscow(payment.created_at))),
        ("expired_at", json!(clock::moscow(payment.expires_at))),
        ("final_at", json!(payment.finished_at.map(clock::moscow))),
    ]
}

/// The callback of the state that the payment is in: the invoice behind its signature.
pub(crate) fn event(payment: &Payment, world: &World) -> Event {
    let mut members = vec![("signature", json!(signature(&payment.id, &world.options.crystalpay_salt)))];
    members.extend(invoice(payment));
    Event {
        provider: PROVIDER,
        payment_id: payment.id.clone(),
        event_id: format!("crystalpay:invoice:{}:{}", payment.id, payment.status),
        url: payment.callback_url.clone(),
        body: Bytes::from(php::object(&members)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_documented_one() {
        let expected = "6511a609dd980c88cc9ff205faeb98f1b5586cf9";
        assert_eq!(signature("700100200_aBcDeFgHiJ", "cp_salt_5f2b9d41c7e8"), expected);
    }

    #[test]
    fn a_purchase_wants_its_exact_sum() {
        let mut payment = Payment::open(PROVIDER, "1_a".into(), "RUB", 49_900, "499");
        payment.status = "notpayed".into();
        let mut short = payment.clone();
        go(&mut short, Move::Pay(Some(10_000)), 1).unwrap();
        assert_eq!((short.status.as_str(), short.captured), ("wrongamount", 10_000));
        go(&mut payment, Move::Expire, 1).unwrap();
        go(&mut payment, Move::Pay(None), 2).unwrap();
        assert_eq!((payment.status.as_str(), payment.captured), ("payed", 49_900));
    }
}
