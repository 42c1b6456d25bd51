//! A whole shop behind its HTTP door: whatever comes in, the answer is sound, nothing fails inside, and when the crowd has
//! gone every promise of the audit holds.

use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, Uri};
use semel_sandbox::Provider;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::notices::kind_of;
use super::{Subject, TAKEN, Verdict};
use crate::app::{Answer, ROOMS, TOKEN, TestShop, TestStore};

/// What requests are made of.
pub const WORDS: &[&str] = &[
    "GET /api/v1/orders?status=paid\n\n",
    "POST /api/v1/orders\nkey-1\n",
    "PATCH /api/v1/products/{product}\n\n",
    "/api/v1/orders/{order}",
    "/api/v1/products/{product}/stock",
    "/refund",
    "/cancel",
    "/assign",
    "?cursor=",
    "&limit=",
    "?at_rest=true",
    "{product}",
    "{order}",
    "\"provider\":\"balance\"",
    "\"telegram_id\":42",
    "heleket\n",
    "crystalpay\n",
    "yookassa\n",
    "%00",
    "%ff",
];

#[derive(Clone, Copy)]
enum Door {
    Api,
    Keys,
    Stock,
    Webhooks,
}

struct Crowd {
    door: Door,
    runtime: Runtime,
    shop: Option<TestShop>,
    product: String,
    order: String,
    /// Counts up, where a request must not be taken for the one before it.
    turn: u64,
}

fn crowd(door: Door) -> Box<dyn Subject> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (shop, product, order) = runtime.block_on(async {
        let shop = TestShop::start(TestStore::sqlite(ROOMS).await).await;
        let product = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3"]).await;
        let order = shop.order(&product, "yookassa").await;
        (shop, product, order.id)
    });
    Box::new(Crowd { door, runtime, shop: Some(shop), product, order, turn: 0 })
}

/// Any request of the API: `METHOD /path`, the idempotency key, and the body, a line each.
pub fn api() -> Box<dyn Subject> {
    crowd(Door::Api)
}

/// Idempotency keys: the first line is the key, the second what is asked with it.
pub fn keys() -> Box<dyn Subject> {
    crowd(Door::Keys)
}

/// Files of goods.
pub fn stock() -> Box<dyn Subject> {
    crowd(Door::Stock)
}

/// Webhooks from the provider's own network: its name in the first line, then the body.
pub fn webhooks() -> Box<dyn Subject> {
    crowd(Door::Webhooks)
}

impl Subject for Crowd {
    fn feed(&mut self, input: &[u8]) -> Verdict {
        self.turn += 1;
        let Self { door, runtime, shop, product, order, turn } = self;
        let Some(shop) = shop else { return Err("the shop is closed".into()) };
        runtime.block_on(async {
            match door {
                Door::Api => ask_anything(shop, product, order, *turn, input).await,
                Door::Keys => ask_twice(shop, *turn, input).await,
                Door::Stock => import_twice(shop, product, *turn, input).await,
                Door::Webhooks => notify(shop, input).await,
            }
        })
    }

    /// What waits is waited for, and then every promise is looked at.
    fn end(&mut self) -> Result<(), String> {
        let Some(shop) = self.shop.take() else { return Ok(()) };
        self.runtime.block_on(async {
            // A notice of a refund that nobody knows is asked about a few times before it is called unknown.
            for _ in 0..8 {
                shop.wait(Duration::from_secs(5 * 60)).await;
            }
            shop.finish().await;
        });
        Ok(())
    }
}

/// What every answer must be.
fn sound(what: &str, answer: &Answer) -> Result<(), String> {
    let status = answer.status;
    // 502 and 503 tell of the provider and of too much at once; anything else of this kind failed inside.
    if status >= 500 && !matches!(status, 502 | 503) {
        return Err(format!("{what} is answered with {}", answer.line()));
    }
    let kind = answer.header("content-type");
    if status >= 400 {
        let problem = answer.json();
        let named = problem["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/"));
        if kind != "application/problem+json" || !named || problem["status"] != status {
            return Err(format!("{what} is refused without a problem: {}", answer.line()));
        }
    } else if kind.starts_with("application/json") && serde_json::from_slice::<Value>(&answer.body).is_err() {
        return Err(format!("{what} is answered with broken JSON: {}", answer.line()));
    }
    Ok(())
}

fn told(answer: &Answer) -> String {
    let problem = answer.json();
    match problem["type"].as_str() {
        Some(kind) => format!("{} {kind} {}", answer.status, kind_of(problem["detail"].as_str().unwrap_or_default())),
        None => format!("{TAKEN}: {}", answer.status),
    }
}

/// A line of the input, and what follows.
fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

fn is_sendable(key: &str) -> bool {
    HeaderValue::from_str(key).is_ok()
}

async fn ask_anything(shop: &TestShop, product: &str, order: &str, turn: u64, input: &[u8]) -> Verdict {
    let (first, rest) = line(input);
    let (key, body) = line(rest);
    let (Ok(first), Ok(key)) = (std::str::from_utf8(first), std::str::from_utf8(key)) else {
        return Ok("no request".into());
    };
    let Some((method, path)) = first.split_once(' ') else { return Ok("no request".into()) };
    let path = path.replace("{product}", product).replace("{order}", order);
    let sendable = path.starts_with('/') && Uri::try_from(path.as_str()).is_ok() && is_sendable(key);
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
    let (Some(method), true) = (methods.into_iter().find(|known| known.as_str() == method), sendable) else {
        return Ok("no request".into());
    };
    let bearer = format!("Bearer {TOKEN}");
    // `*` makes a key that nobody used before.
    let key = key.replace('*', &turn.to_string());
    let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
    if !key.is_empty() {
        headers.push(("idempotency-key", key.as_str()));
    }
    let text = String::from_utf8_lossy(body).replace("{product}", product).replace("{order}", order);
    // Only a body of sound text has places to be filled in; any other goes as it is.
    let body = if std::str::from_utf8(body).is_ok() { Bytes::from(text) } else { Bytes::copy_from_slice(body) };
    let answer = shop.program.api.send(method.clone(), &path, &headers, body).await;
    sound(&format!("{method} {path}"), &answer)?;
    Ok(format!("{} {method}", told(&answer)))
}

async fn ask_twice(shop: &TestShop, turn: u64, input: &[u8]) -> Verdict {
    let (key, title) = line(input);
    let Ok(key) = std::str::from_utf8(key) else { return Ok("no key".into()) };
    if !is_sendable(key) {
        return Ok("no key".into());
    }
    let title = String::from_utf8_lossy(title).into_owned();
    // White space around a header's value is not part of it.
    let key = key.trim_matches([' ', '\t']).replace('*', &turn.to_string());
    let body = |title: &str| {
        let price = json!({ "amount": "1.00", "currency": "RUB" });
        Bytes::from(json!({ "title": title, "kind": "topup", "price": price }).to_string())
    };
    let bearer = format!("Bearer {TOKEN}");
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let api = &shop.program.api;
    let before = shop.number("select count(*) from products").await;
    let first = api.send(Method::POST, "/api/v1/products", &headers, body(&title)).await;
    let again = api.send(Method::POST, "/api/v1/products", &headers, body(&title)).await;
    sound("a product", &first)?;
    sound("the same product", &again)?;
    let plain = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain && (first.status, again.status) != (400, 400) {
        return Err(format!("the key {key:?} is taken: {}", first.line()));
    }
    // A refusal names its request, so two of them differ.
    if first.status == 201 && (again.status, &again.body) != (201, &first.body) {
        return Err(format!("one key, two answers: {} and {}", first.line(), again.line()));
    }
    if first.status == 201 {
        let other = api.send(Method::POST, "/api/v1/products", &headers, body(&format!("{title}, another"))).await;
        if other.status != 422 {
            return Err(format!("another request under the same key: {}", other.line()));
        }
    }
    let made = shop.number("select count(*) from products").await - before;
    if made > 1 || (made == 1) != (first.status == 201 && first.header("idempotent-replayed").is_empty()) {
        return Err(format!("{made} products were made, and the first answer was {}", first.line()));
    }
    Ok(told(&first))
}

/// The same list twice adds nothing the second time, with a BOM in front and other ends of lines neither.
async fn import_twice(shop: &TestShop, product: &str, turn: u64, input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input).replace('*', &turn.to_string());
    let items: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let path = format!("/api/v1/products/{product}/stock");
    let (status, first) = shop.post(&path, json!({ "items": items })).await;
    if status >= 500 {
        return Err(format!("an import fails: {status} {first}"));
    }
    if status != 200 {
        return Ok(format!("{status} {}", kind_of(first["detail"].as_str().unwrap_or_default())));
    }
    let of = u64::try_from(items.len()).unwrap_or_default();
    let sums = |told: &Value| (told["added"].as_u64().unwrap_or(u64::MAX), told["duplicates"].as_u64().unwrap_or(0));
    let (added, duplicates) = sums(&first);
    if added.checked_add(duplicates) != Some(of) {
        return Err(format!("{of} lines became {first}"));
    }
    let mut other: Vec<String> = items.iter().map(|item| format!("\t{item}\r")).collect();
    if let Some(first) = other.first_mut() {
        *first = format!("\u{feff}{}", items[0]);
    }
    let (status, again) = shop.post(&path, json!({ "items": other })).await;
    if (status, sums(&again)) != (200, (0, of)) {
        return Err(format!("the same {of} lines again became {status} {again}: a key could be sold twice"));
    }
    Ok(format!("{TAKEN}: {} {}", added.min(2), duplicates.min(2)))
}

async fn notify(shop: &TestShop, input: &[u8]) -> Verdict {
    let (name, body) = line(input);
    let provider = match name {
        b"heleket" => Provider::Heleket,
        b"crystalpay" => Provider::CrystalPay,
        _ => Provider::Yookassa,
    };
    let seen = "select cast(coalesce(sum(seen), 0) as bigint) from inbox";
    let before = shop.number(seen).await;
    let answer = shop.program.api.receive(provider, Bytes::copy_from_slice(body)).await;
    sound("a webhook", &answer)?;
    let kept = shop.number(seen).await - before;
    // No 2xx before the notice is durable, and nothing is kept of what was refused.
    if kept != i64::from(answer.status == 200) {
        return Err(format!("{kept} notices were kept of one that was answered with {}", answer.line()));
    }
    Ok(told(&answer))
}
