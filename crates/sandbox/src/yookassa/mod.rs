//! YooKassa, API v3: payments, captures, refunds, idempotence keys.
//!
//! Facts are the vendor's documentation: a key is remembered for 24 hours, a notification carries no signature,
//! and a state is entered once and never left backwards.

mod cabinet;
mod keys;
mod request;
mod wire;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};

pub(crate) use self::keys::Keys;
use self::keys::keyed;
use self::request::{Filter, check_texts, receipt_given, sum_of};
pub(crate) use self::wire::{event, refund_as_if};
use self::wire::{object, refund_event, refund_object};
use crate::payments::{Move, PayError, Payment, Provider, Refund};
use crate::world::{World, lock};
use crate::{answer, clock};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const PROVIDER: Provider = Provider::Yookassa;

pub(crate) fn router() -> Router<World> {
    Router::new()
        .route("/yookassa/v3/payments", get(list).post(create))
        .route("/yookassa/v3/payments/{id}", get(info))
        .route("/yookassa/v3/payments/{id}/capture", post(capture))
        .route("/yookassa/v3/payments/{id}/cancel", post(cancel))
        .route("/yookassa/v3/refunds", get(refunds).post(refund))
        .route("/yookassa/v3/refunds/{id}", get(refund_info))
        .route("/yookassa/v3/me", get(me))
}

// ---- answers

/// An error in the documented envelope.
pub(crate) struct Refusal {
    status: u16,
    code: &'static str,
    description: String,
    parameter: Option<&'static str>,
}

impl Refusal {
    fn invalid(parameter: &'static str, description: impl Into<String>) -> Refusal {
        Refusal { status: 400, code: "invalid_request", description: description.into(), parameter: Some(parameter) }
    }

    fn not_found(what: &str) -> Refusal {
        let description = format!("{what} doesn't exist or access denied");
        Refusal { status: 404, code: "not_found", description, parameter: Some("id") }
    }

    fn answer(&self) -> Response {
        let mut body = Map::new();
        body.insert("type".into(), json!("error"));
        body.insert("id".into(), json!(clock::uuid()));
        body.insert("code".into(), json!(self.code));
        body.insert("description".into(), json!(self.description));
        if let Some(parameter) = self.parameter {
            body.insert("parameter".into(), json!(parameter));
        }
        answer::json(self.status, &Value::Object(body))
    }
}

/// The answer of a fault: this status in YooKassa's envelope; `retry_after` is in milliseconds there.
pub(crate) fn fault(status: u16, retry_after: Option<u64>) -> Response {
    let code = match status {
        401 => "invalid_credentials",
        403 => "forbidden",
        404 => "not_found",
        429 => "too_many_requests",
        500.. => "internal_server_error",
        _ => "invalid_request",
    };
    let mut body = json!({
        "type": "error", "id": clock::uuid(), "code": code, "description": "A fault that somebody asked the sandbox for",
    });
    if let Some(seconds) = retry_after {
        body["retry_after"] = json!(seconds.saturating_mul(1000));
    }
    answer::json(status, &body)
}

fn reply(result: Result<Value, Refusal>) -> Response {
    match result {
        Ok(value) => answer::json(200, &value),
        Err(refusal) => refusal.answer(),
    }
}

fn authorized(world: &World, headers: &HeaderMap) -> Result<(), Refusal> {
    let options = &world.options;
    let pair = format!("{}:{}", options.yookassa_shop_id, options.yookassa_secret_key);
    let expected = format!("Basic {}", STANDARD.encode(pair));
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given == Some(expected.as_str()) {
        return Ok(());
    }
    let description = "Basic authentication failed: check the shop id and the secret key".to_owned();
    Err(Refusal { status: 401, code: "invalid_credentials", description, parameter: None })
}

// ---- calls

async fn create(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    keyed(&world, &headers, "POST /payments", &body, |request| create_payment(&world, request))
}

fn create_payment(world: &World, request: Map<String, Value>) -> Result<Value, Refusal> {
    let (asked, asked_text, currency) = sum_of(&request)?;
    check_texts(&request)?;
    receipt_given(world, &request)?;
    let id = clock::yookassa_id(clock::now_ms(), '9');
    let mut payment = Payment::open(PROVIDER, id, &currency, asked, &asked_text);
    let metadata = |name: &str| request.get("metadata").and_then(|all| all.get(name)).and_then(Value::as_str);
    payment.ours = metadata("payment_id").or_else(|| metadata("order_id")).map(str::to_owned);
    payment.status = "pending".into();
    payment.url = world.pay_page(PROVIDER, &payment.id);
    payment.expires_at = payment.created_at + 7 * DAY_MS;
    payment.request = request;
    let object = object(&payment, &world.options);
    lock(&world.payments).insert(payment);
    Ok(object)
}

async fn info(State(world): State<World>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let found = authorized(&world, &headers).and_then(|()| {
        let register = lock(&world.payments);
        let payment = register.get(PROVIDER, &id).ok_or_else(|| Refusal::not_found("Payment"))?;
        Ok(object(payment, &world.options))
    });
    reply(found)
}

async fn list(State(world): State<World>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let listed = authorized(&world, &headers).and_then(|()| list_payments(&world, &query.unwrap_or_default()));
    reply(listed)
}

/// Newest first, by pages.
fn list_payments(world: &World, query: &str) -> Result<Value, Refusal> {
    let filter = Filter::read(query)?;
    let register = lock(&world.payments);
    let matching: Vec<&Payment> = register.of(PROVIDER).rev().filter(|payment| filter.takes(payment)).collect();
    let (page, next) = filter.page(matching, |payment| payment.id.as_str())?;
    let items: Vec<Value> = page.iter().map(|payment| object(payment, &world.options)).collect();
    Ok(list_of(items, next))
}

fn list_of(items: Vec<Value>, next: Option<String>) -> Value {
    let mut page = json!({ "type": "list", "items": items });
    if let Some(next) = next {
        page["next_cursor"] = json!(next);
    }
    page
}

async fn capture(State(world): State<World>, headers: HeaderMap, Path(id): Path<String>, body: Bytes) -> Response {
    let route = format!("POST /payments/{id}/capture");
    keyed(&world, &headers, &route, &body, |request| {
        let wanted = match request.contains_key("amount") {
            true => Some(sum_of(&request)?),
            false => None,
        };
        change(&world, &id, |payment, now| {
            if payment.status != "waiting_for_capture" {
                return Err(Refusal::invalid("id", format!("Payment in status {} can't be captured", payment.status)));
            }
            let sum = wanted.map_or(payment.received, |(sum, _, _)| sum);
            if sum > payment.received {
                return Err(Refusal::invalid("amount", "Amount to capture is larger than the amount on hold"));
            }
            succeed(payment, sum, now);
            Ok(())
        })
    })
}

async fn cancel(State(world): State<World>, headers: HeaderMap, Path(id): Path<String>, body: Bytes) -> Response {
    let route = format!("POST /payments/{id}/cancel");
    keyed(&world, &headers, &route, &body, |_| {
        change(&world, &id, |payment, now| {
            if payment.status != "waiting_for_capture" {
                return Err(Refusal::invalid("id", format!("Payment in status {} can't be canceled", payment.status)));
            }
            cancel_by(payment, ("merchant", "canceled_by_merchant"), now);
            Ok(())
        })
    })
}

/// Changes a payment by the shop's wish, notes the money, and sends the notice.
fn change(
    world: &World,
    id: &str,
    work: impl FnOnce(&mut Payment, i64) -> Result<(), Refusal>,
) -> Result<Value, Refusal> {
    let now = clock::now_ms();
    let (object, event) = {
        let mut register = lock(&world.payments);
        let payment = register.get_mut(PROVIDER, id).ok_or_else(|| Refusal::not_found("Payment"))?;
        work(payment, now)?;
        payment.changed_at = now;
        world.note_money(payment);
        (object(payment, &world.options), event(payment, &world.options))
    };
    world.queue(event);
    Ok(object)
}

async fn refund(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    keyed(&world, &headers, "POST /refunds", &body, |request| create_refund(&world, &request))
}

fn create_refund(world: &World, request: &Map<String, Value>) -> Result<Value, Refusal> {
    let payment_id = request.get("payment_id").and_then(Value::as_str).unwrap_or_default();
    let (sum, _, currency) = sum_of(request)?;
    receipt_given(world, request)?;
    let (object, event) = {
        let mut register = lock(&world.payments);
        let unknown = || Refusal::invalid("payment_id", "Payment doesn't exist");
        let payment = register.get_mut(PROVIDER, payment_id).ok_or_else(unknown)?;
        if payment.status != "succeeded" {
            return Err(Refusal::invalid("payment_id", "Only a succeeded payment can be refunded"));
        }
        if currency != payment.currency || sum > payment.captured - payment.refunded {
            return Err(Refusal::invalid("amount", "Refund amount is larger than what is left of the payment"));
        }
        let description = request.get("description").and_then(Value::as_str).map(str::to_owned);
        let refund = give_back(world, payment, sum, description);
        let pair = (refund_object(&refund, payment), refund_event(&refund, payment));
        register.refunds.push(refund);
        pair
    };
    world.queue(event);
    Ok(object)
}

/// Gives `sum` of a payment back and notes it in the ground truth; the refund still has to be put into the register.
fn give_back(world: &World, payment: &mut Payment, sum: i64, description: Option<String>) -> Refund {
    let now = clock::now_ms();
    payment.refunded += sum;
    payment.changed_at = now;
    world.note_money(payment);
    let id = clock::yookassa_id(now, 'a');
    Refund { id, payment_id: payment.id.clone(), amount: sum, created_at: now, description }
}

async fn refund_info(State(world): State<World>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let found = authorized(&world, &headers).and_then(|()| {
        let register = lock(&world.payments);
        let refund = register.refunds.iter().find(|refund| refund.id == id);
        let refund = refund.ok_or_else(|| Refusal::not_found("Refund"))?;
        let payment = register.get(PROVIDER, &refund.payment_id).ok_or_else(|| Refusal::not_found("Payment"))?;
        Ok(refund_object(refund, payment))
    });
    reply(found)
}

async fn refunds(State(world): State<World>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let listed = authorized(&world, &headers).and_then(|()| list_refunds(&world, &query.unwrap_or_default()));
    reply(listed)
}

/// Newest first, by pages; the shop's own and the cabinet's alike.
fn list_refunds(world: &World, query: &str) -> Result<Value, Refusal> {
    let filter = Filter::read(query)?;
    let register = lock(&world.payments);
    let matching: Vec<&Refund> = register.refunds.iter().rev().filter(|refund| filter.takes_refund(refund)).collect();
    let (page, next) = filter.page(matching, |refund| refund.id.as_str())?;
    let shown = |refund: &&Refund| Some(refund_object(refund, register.get(PROVIDER, &refund.payment_id)?));
    Ok(list_of(page.iter().filter_map(shown).collect(), next))
}

async fn me(State(world): State<World>, headers: HeaderMap) -> Response {
    let options = &world.options;
    let shop = authorized(&world, &headers).map(|()| {
        json!({
            "account_id": options.yookassa_shop_id,
            "status": "enabled",
            "test": options.yookassa_test,
            "fiscalization": { "enabled": options.yookassa_receipt_required },
            "fiscalization_enabled": options.yookassa_receipt_required,
            "payment_methods": ["bank_card", "sbp", "yoo_money"],
        })
    });
    reply(shop)
}

// ---- states

fn succeed(payment: &mut Payment, sum: i64, now: i64) {
    payment.status = "succeeded".into();
    payment.received = sum;
    payment.captured = sum;
    payment.finished_at = Some(now);
}

fn cancel_by(payment: &mut Payment, by: (&'static str, &'static str), now: i64) {
    payment.status = "canceled".into();
    payment.received = 0;
    payment.cancelled_by = Some(by);
    payment.finished_at = Some(now);
}

/// The customer's side. A sum other than the asked one cannot happen at the real YooKassa before a capture; here it stands for one.
pub(crate) fn go(payment: &mut Payment, how: Move, now: i64) -> Result<(), PayError> {
    let captures_itself = payment.request.get("capture").and_then(Value::as_bool) == Some(true);
    match (how, payment.status.as_str()) {
        (Move::Pay(sum), "pending") if captures_itself => succeed(payment, sum.unwrap_or(payment.asked), now),
        (Move::Pay(sum), "pending") => {
            payment.received = sum.unwrap_or(payment.asked);
            payment.status = "waiting_for_capture".into();
        }
        (Move::Hold, "pending") => {
            payment.received = payment.asked;
            payment.status = "waiting_for_capture".into();
        }
        // As if the owner captured it in the cabinet.
        (Move::Pay(sum), "waiting_for_capture") => succeed(payment, sum.unwrap_or(payment.received), now),
        (Move::Decline, "pending" | "waiting_for_capture") => {
            cancel_by(payment, ("payment_network", "general_decline"), now);
        }
        (Move::Expire, "pending") => cancel_by(payment, ("yoo_money", "expired_on_confirmation"), now),
        (Move::Expire, "waiting_for_capture") => cancel_by(payment, ("yoo_money", "expired_on_capture"), now),
        _ => return Err(payment.over()),
    }
    Ok(())
}

/// The payment as it would look in this state: what a lying webhook shows.
pub(crate) fn as_if(payment: &Payment, state: &str, now: i64) -> Payment {
    let mut other = payment.clone();
    match state {
        "succeeded" => succeed(&mut other, payment.asked, now),
        "canceled" => cancel_by(&mut other, ("yoo_money", "expired_on_confirmation"), now),
        "waiting_for_capture" => other.received = payment.asked,
        _ => {}
    }
    other.status = state.to_owned();
    other
}
