//! Heleket: signed calls, invoices that are unique by `order_id`, callbacks signed inside their own body.
//!
//! Fiat invoices are paid in USDT at a fixed rate (100 units of other fiat, 1 of USD or EUR), so that every kopeck of the
//! invoice is a whole number of payer units and nothing has to be rounded. A commission of 2 % is shown, as in life.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use crate::outbox::Event;
use crate::params::pairs;
use crate::payments::{Move, PayError, Payment, PaymentView, Provider, Register};
use crate::world::{World, lock};
use crate::{Sandbox, amount, answer, clock, php};

const PROVIDER: Provider = Provider::Heleket;
const PER_PAGE: usize = 15;

pub(crate) fn router() -> Router<World> {
    Router::new()
        .route("/heleket/v1/payment", post(create))
        .route("/heleket/v1/payment/info", post(info))
        .route("/heleket/v1/payment/list", post(list))
        .route("/heleket/v1/payment/resend", post(resend))
        .route("/heleket/v1/payment/refund", post(refund))
        .route("/heleket/v1/balance", post(balance))
}

/// `md5(base64(bytes) + key)`, lower-case hexadecimal.
pub(crate) fn sign(bytes: &[u8], key: &str) -> String {
    hex::encode(Md5::digest(format!("{}{key}", STANDARD.encode(bytes))))
}

// ---- answers

fn done(result: Value) -> Response {
    answer::json(200, &json!({ "state": 0, "result": result }))
}

fn refused(status: u16, message: &str) -> Response {
    answer::json(status, &json!({ "state": 1, "message": message }))
}

fn invalid(member: &str, rule: &str) -> Response {
    let mut errors = Map::new();
    errors.insert(member.to_owned(), json!([rule]));
    answer::json(422, &json!({ "state": 1, "errors": errors }))
}

/// The answer of a fault.
pub(crate) fn fault(status: u16) -> Response {
    let message = if status == 429 { "Too Many Requests" } else { "Server error" };
    refused(status, message)
}

/// The refusal of a call that is not signed with this key over exactly these bytes, if it is to be refused.
fn unsigned(world: &World, headers: &HeaderMap, body: &[u8], key: &str) -> Option<Response> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("merchant") != world.options.heleket_merchant_id {
        return Some(refused(401, "Merchant not found"));
    }
    match header("sign") == sign(body, key) {
        true => None,
        false => Some(refused(401, "Invalid Sign.")),
    }
}

/// Checks the signature, then reads the body; an empty body is an empty object.
fn opened(world: &World, headers: &HeaderMap, body: &[u8], key: &str) -> Result<Map<String, Value>, Box<Response>> {
    if let Some(refusal) = unsigned(world, headers, body, key) {
        return Err(Box::new(refusal));
    }
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|_| Box::new(invalid("body", "validation.json")))
}

// ---- calls

async fn create(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    match opened(&world, &headers, &body, &world.options.heleket_payment_key) {
        Ok(request) => create_invoice(&world, request),
        Err(refusal) => *refusal,
    }
}

fn create_invoice(world: &World, request: Map<String, Value>) -> Response {
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let (order_id, currency, asked_text) = (text("order_id"), text("currency"), text("amount"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=128).contains(&order_id.len()) || !order_id.bytes().all(plain) {
        return invalid("order_id", "validation.required");
    }
    if currency.is_empty() {
        return invalid("currency", "validation.required");
    }
    let Some(asked) = amount::parse(asked_text, amount::scale(currency)).filter(|sum| *sum > 0) else {
        return invalid("amount", "validation.required");
    };
    let lifetime = request.get("lifetime").map_or(Some(3600), Value::as_i64);
    let Some(lifetime) = lifetime.filter(|seconds| (300..=43_200).contains(seconds)) else {
        return invalid("lifetime", "validation.between.numeric");
    };
    let callback = request.get("url_callback").and_then(Value::as_str);
    if callback.is_some_and(|url| !(6..=255).contains(&url.len())) {
        return invalid("url_callback", "validation.url");
    }
    let mut payment = Payment::open(PROVIDER, clock::uuid(), currency, asked, asked_text);
    payment.ours = Some(order_id.to_owned());
    payment.status = "check".into();
    payment.url = world.pay_page(PROVIDER, &payment.id);
    payment.callback_url = callback.map(str::to_owned);
    payment.expires_at = payment.created_at + lifetime * 1000;
    payment.request = request.clone();

    // The look and the insert stand under one lock: an order id makes one invoice.
    let mut register = lock(&world.payments);
    if let Some(known) = register.by_ours(PROVIDER, order_id) {
        return done(result(known));
    }
    let shown = result(&payment);
    register.insert(payment);
    done(shown)
}

/// The invoice that a call names; where both ids are given, `order_id` wins.
fn named<'a>(register: &'a Register, request: &Map<String, Value>) -> Option<&'a Payment> {
    let text = |name: &str| request.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match text("order_id") {
        Some(order_id) => register.by_ours(PROVIDER, order_id),
        None => register.get(PROVIDER, text("uuid")?),
    }
}

async fn info(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    match opened(&world, &headers, &body, &world.options.heleket_payment_key) {
        Ok(request) => match named(&lock(&world.payments), &request) {
            Some(payment) => done(result(payment)),
            None => refused(404, "Payment not found"),
        },
        Err(refusal) => *refusal,
    }
}

async fn list(State(world): State<World>, RawQuery(query): RawQuery, headers: HeaderMap, body: Bytes) -> Response {
    let request = match opened(&world, &headers, &body, &world.options.heleket_payment_key) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let pairs = pairs(&query.unwrap_or_default());
    let cursor = pairs.iter().find(|(name, _)| name == "cursor").map(|(_, cursor)| cursor.as_str());
    let bound = |name: &str| request.get(name).and_then(Value::as_str).and_then(clock::from_moscow);
    let (from, to) = (bound("date_from"), bound("date_to"));

    let register = lock(&world.payments);
    let in_time = |payment: &&Payment| {
        let second = payment.created_at - payment.created_at.rem_euclid(1000);
        from.is_none_or(|from| second >= from) && to.is_none_or(|to| second <= to)
    };
    let matching: Vec<&Payment> = register.of(PROVIDER).rev().filter(in_time).collect();
    // The cursor is the first invoice of the page.
    let first = match cursor {
        Some(cursor) => matching.iter().position(|payment| payment.id == cursor).unwrap_or(matching.len()),
        None => 0,
    };
    let items: Vec<Value> = matching.iter().skip(first).take(PER_PAGE).map(|payment| result(payment)).collect();
    let id_at = |place: usize| matching.get(place).map(|payment| payment.id.clone());
    let previous = if first == 0 { None } else { id_at(first.saturating_sub(PER_PAGE)) };
    let paginate = json!({
        "count": items.len(),
        "hasPages": matching.len() > PER_PAGE,
        "nextCursor": id_at(first + PER_PAGE),
        "previousCursor": previous,
        "perPage": PER_PAGE,
    });
    done(json!({ "merchantName": "Sandbox", "items": items, "paginate": paginate }))
}

async fn resend(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match opened(&world, &headers, &body, &world.options.heleket_payment_key) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let Some(event) = named(&lock(&world.payments), &request).map(|payment| event(payment, &world)) else {
        return refused(404, "Payment not found");
    };
    world.queue(event);
    done(json!([]))
}

/// Gives money back; `amount` is read in the invoice's currency, without it everything goes back.
async fn refund(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match opened(&world, &headers, &body, &world.options.heleket_payout_key) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    if request.get("address").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return invalid("address", "validation.required");
    }
    let event = {
        let mut register = lock(&world.payments);
        let Some(id) = named(&register, &request).map(|payment| payment.id.clone()) else {
            return refused(404, "Payment not found");
        };
        let Some(payment) = register.get_mut(PROVIDER, &id) else {
            return refused(404, "Payment not found");
        };
        let left = payment.captured - payment.refunded;
        let wanted = match request.get("amount").and_then(Value::as_str) {
            Some(text) => amount::parse(text, payment.scale),
            None => Some(left),
        };
        let Some(sum) = wanted.filter(|sum| *sum > 0 && *sum <= left) else {
            return invalid("amount", "validation.max.numeric");
        };
        give_back(&world, payment, sum);
        event(payment, &world)
    };
    world.queue(event);
    done(json!([]))
}

/// A refund has no record of its own: the invoice's state tells of it, and no answer of its sum.
fn give_back(world: &World, payment: &mut Payment, sum: i64) {
    payment.refunded += sum;
    payment.status = "refund_paid".into();
    payment.changed_at = clock::now_ms();
    world.note_money(payment);
}

/// Heleket's cabinet.
impl Sandbox {
    /// The owner gives money of a paid invoice back in the cabinet: this sum, decimal text in the invoice's currency, or all
    /// that is left. Answers, lists and the notice show the state `refund_paid` and never the sum; `gt_pay` has it. The
    /// notice goes into the outbox if `told`, else it never was.
    ///
    /// # Errors
    /// [`PayError::Amount`] when the text is no positive sum, [`PayError::Over`] when the invoice cannot give that much back.
    pub fn refund_at_heleket(&self, id: &str, sum: Option<&str>, told: bool) -> Result<PaymentView, PayError> {
        let (view, event) = {
            let mut register = lock(&self.world.payments);
            let unknown = || PayError::Unknown { provider: PROVIDER, id: id.to_owned() };
            let payment = register.get_mut(PROVIDER, id).ok_or_else(unknown)?;
            let left = payment.captured - payment.refunded;
            let sum = match sum {
                Some(text) => {
                    let read = amount::parse(text, payment.scale).filter(|sum| *sum > 0);
                    read.ok_or_else(|| PayError::Amount(text.to_owned()))?
                }
                None => left,
            };
            if sum <= 0 || sum > left {
                return Err(payment.over());
            }
            give_back(&self.world, payment, sum);
            (payment.view(), event(payment, &self.world))
        };
        if told {
            self.world.queue(event);
        }
        Ok(view)
    }
}

async fn balance(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = unsigned(&world, &headers, &body, &world.options.heleket_payment_key) {
        return refusal;
    }
    let wallet = |balance: &str| json!({ "uuid": clock::uuid(), "balance": balance, "currency_code": "USDT" });
    done(json!([{ "balance": { "merchant": [wallet("1000.00000000")], "user": [wallet("0.00000000")] } }]))
}

// ---- states

/// Whether nothing follows this state by itself.
fn is_final(status: &str) -> bool {
    !matches!(status, "check" | "process" | "confirm_check" | "wrong_amount_waiting" | "refund_process")
}

/// Sets the state that the sum received so far leads to. Money is captured when its state is final.
fn count(payment: &mut Payment, now: i64) {
    let many = payment.request.get("is_payment_multiple").and_then(Value::as_bool).unwrap_or(true);
    let status = match payment.received {
        sum if sum == payment.asked => "paid",
        sum if sum > payment.asked => "paid_over",
        _ if many => "wrong_amount_waiting",
        _ => "wrong_amount",
    };
    settle(payment, status, now);
}

fn settle(payment: &mut Payment, status: &str, now: i64) {
    payment.status = status.to_owned();
    if is_final(status) {
        payment.captured = payment.received;
        payment.finished_at = Some(now);
    }
}

/// The customer's side. A transfer may come after the invoice was cancelled: it flips to paid.
pub(crate) fn go(payment: &mut Payment, how: Move, now: i64) -> Result<(), PayError> {
    match (how, payment.status.as_str()) {
        // Seen on the chain before: this was the money.
        (Move::Pay(None), "confirm_check") => count(payment, now),
        (Move::Pay(sum), "check" | "process" | "wrong_amount_waiting" | "cancel") => {
            payment.received += sum.unwrap_or(payment.asked - payment.received);
            payment.txid.get_or_insert_with(|| clock::hex(64));
            count(payment, now);
        }
        (Move::Hold, "check" | "process") => {
            payment.received = payment.asked;
            payment.txid.get_or_insert_with(|| clock::hex(64));
            payment.status = "confirm_check".into();
        }
        (Move::Decline, "check" | "process" | "confirm_check") => {
            payment.received = 0;
            settle(payment, "fail", now);
        }
        (Move::Expire, "check" | "process") => settle(payment, "cancel", now),
        (Move::Expire, "wrong_amount_waiting") => settle(payment, "wrong_amount", now),
        _ => return Err(payment.over()),
    }
    Ok(())
}

/// The payment as it would look in this state: what a lying webhook shows.
pub(crate) fn as_if(payment: &Payment, state: &str, now: i64) -> Payment {
    let mut other = payment.clone();
    other.received = match state {
        "paid" | "confirm_check" | "locked" | "refund_process" | "refund_paid" | "refund_fail" => payment.asked,
        "paid_over" => payment.asked * 2,
        "wrong_amount" | "wrong_amount_waiting" => payment.asked / 2,
        _ => 0,
    };
    if other.received > 0 {
        other.txid.get_or_insert_with(|| clock::hex(64));
    }
    settle(&mut other, state, now);
    other
}

// ---- wire forms

/// How the payer's coin shows sums of this payment: its name and its scale, wide enough for the fixed rate.
struct Payer {
    coin: String,
    scale: u32,
    rate: &'static str,
}

impl Payer {
    fn of(payment: &Payment) -> Payer {
        match payment.currency.as_str() {
            coin if amount::is_coin(coin) => Payer { coin: coin.to_owned(), scale: payment.scale, rate: "1.00000000" },
            "USD" | "EUR" => Payer { coin: "USDT".into(), scale: payment.scale, rate: "1.00000000" },
            _ => Payer { coin: "USDT".into(), scale: payment.scale + 2, rate: "0.01000000" },
        }
    }

    fn sum(&self, minor: i64) -> Value {
        json!(amount::fixed(minor, self.scale, 8))
    }

    fn dollars(&self, minor: i64) -> Value {
        json!(amount::fixed(amount::rescale(minor, self.scale, 2), 2, 2))
    }
}

fn commission(received: i64) -> i64 {
    received / 100 * 2 + received % 100 * 2 / 100
}

/// A value that is there once the customer paid something.
fn once_paid(payment: &Payment, value: Value) -> Value {
    if payment.received > 0 { value } else { Value::Null }
}

/// The invoice of API answers.
fn result(payment: &Payment) -> Value {
    let payer = Payer::of(payment);
    let fee = commission(payment.received);
    json!({
        "uuid": payment.id,
        "order_id": payment.ours,
        "amount": payment.asked_text,
        "payment_amount": once_paid(payment, payer.sum(payment.received)),
        "payment_amount_usd": once_paid(payment, payer.dollars(payment.received)),
        "payer_amount": once_paid(payment, payer.sum(payment.asked)),
        "payer_currency": once_paid(payment, json!(payer.coin)),
        "payer_amount_exchange_rate": once_paid(payment, json!(payer.rate)),
        "discount_percent": null,
        "discount": "0.00000000",
        "currency": payment.currency,
        "merchant_amount": once_paid(payment, payer.sum(payment.received - fee)),
        "commission": once_paid(payment, payer.sum(fee)),
        "network": once_paid(payment, json!("tron")),
        "address": null,
        "from": once_paid(payment, json!("TXk9Qm2v7WnB4rYh8sLpJd3fGz6cVtA1Ex")),
        "txid": payment.txid,
        "payment_status": payment.status,
        "status": payment.status,
        "url": payment.url,
        "expired_at": payment.expires_at / 1000,
        "is_final": is_final(&payment.status),
        "additional_data": payment.asked_for("additional_data"),
        "created_at": clock::moscow_iso(payment.created_at),
        "updated_at": clock::moscow_iso(payment.changed_at),
    })
}

/// The callback of the state that the payment is in: printed and signed as PHP does, `sign` last.
pub(crate) fn event(payment: &Payment, world: &World) -> Event {
    let payer = Payer::of(payment);
    let fee = commission(payment.received);
    let mut members = vec![
        ("type", json!("payment")),
        ("uuid", json!(payment.id)),
        ("order_id", json!(payment.ours)),
        ("amount", json!(amount::fixed(payment.asked, payment.scale, 8))),
        ("payment_amount", payer.sum(payment.received)),
        ("payment_amount_usd", payer.dollars(payment.received)),
        ("merchant_amount", payer.sum(payment.received - fee)),
        ("commission", payer.sum(fee)),
        ("is_final", json!(is_final(&payment.status))),
        ("status", json!(payment.status)),
        ("from", once_paid(payment, json!("TXk9Qm2v7WnB4rYh8sLpJd3fGz6cVtA1Ex"))),
        ("wallet_address_uuid", Value::Null),
        ("network", json!("tron")),
        ("currency", json!(payment.currency)),
        ("payer_currency", json!(payer.coin)),
        ("payer_amount", payer.sum(payment.asked)),
        ("payer_amount_exchange_rate", json!(payer.rate)),
        ("additional_data", json!(payment.asked_for("additional_data"))),
        ("transfer_id", Value::Null),
        ("txid", json!(payment.txid)),
    ];
    let signature = sign(php::object(&members).as_bytes(), &world.options.heleket_payment_key);
    members.push(("sign", json!(signature)));
    Event {
        provider: PROVIDER,
        payment_id: payment.id.clone(),
        event_id: format!("heleket:payment:{}:{}", payment.id, payment.status),
        url: payment.callback_url.clone(),
        body: Bytes::from(php::object(&members)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_documented_one() {
        // Computed over the empty body: md5 of the key alone.
        assert_eq!(sign(b"", "abc"), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn an_invoice_goes_through_its_states() {
        let mut payment = Payment::open(PROVIDER, "u".into(), "RUB", 49_900, "499.00");
        payment.status = "check".into();
        go(&mut payment, Move::Expire, 1).unwrap();
        assert_eq!((payment.status.as_str(), payment.captured), ("cancel", 0));
        go(&mut payment, Move::Pay(Some(10_000)), 2).unwrap();
        assert_eq!((payment.status.as_str(), payment.captured), ("wrong_amount_waiting", 0));
        go(&mut payment, Move::Pay(None), 3).unwrap();
        assert_eq!((payment.status.as_str(), payment.captured), ("paid", 49_900));
        assert!(go(&mut payment, Move::Pay(None), 4).is_err());
        assert_eq!(Payer::of(&payment).sum(payment.asked), json!("4.99000000"));
    }
}
