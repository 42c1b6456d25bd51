//! The outside world for whole sales: the sandbox, in the benchmark's process, and what a customer does in it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use semel_sandbox::{Delivery, Options, Provider, Sandbox};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::http_client;
use crate::notices::{PRICE, request};
use crate::server::{Server, World, post};

/// Customers who brought others, so that no single balance is in everybody's way.
const REFERRERS: usize = 20;
/// Orders that are being made at a time.
const AT_ONCE: usize = 16;

/// Starts the outside world; its webhooks wait until the benchmark sends them.
pub async fn sandbox() -> Result<Sandbox> {
    // YooKassa sends its notices to one address; nothing is sent there, because the benchmark takes the bytes.
    let hook = Some("http://127.0.0.1:9/webhook/yookassa".to_owned());
    let options = Options { mode: Delivery::Manual, yookassa_hook_url: hook, ..Options::default() };
    Ok(Sandbox::start(options).await?)
}

/// Where the sandbox is, straight.
pub fn straight(sandbox: &Sandbox) -> World {
    World { yookassa: sandbox.yookassa_url(), telegram: sandbox.telegram_url() }
}

/// Where the sandbox is, through a proxy at `proxy`.
pub fn through(sandbox: &Sandbox, proxy: SocketAddr) -> World {
    let moved = |url: String| url.replacen(&sandbox.url(), &format!("http://{proxy}"), 1);
    World { yookassa: moved(sandbox.yookassa_url()), telegram: moved(sandbox.telegram_url()) }
}

/// An order as it was made over the API.
#[derive(Clone, Debug)]
pub struct Made {
    /// Our order.
    pub order: String,
    /// The payment at the provider.
    pub provider_id: String,
    /// The customer's chat.
    pub chat: i64,
}

/// A product with stock, and the customers who bring others: they have ordered once and not paid.
pub async fn open_shop(server: &Server, stock: usize) -> Result<String> {
    let sample = json!({ "title": "Licence key", "kind": "stock", "price": { "amount": PRICE, "currency": "RUB" } });
    let made = server.post("/api/v1/products", "bench-product", &sample).await?;
    let product = text(&made["id"])?;
    let keys: Vec<String> = (0..stock + REFERRERS).map(|n| format!("KEY-{n:010}")).collect();
    for (n, part) in keys.chunks(1000).enumerate() {
        let path = format!("/api/v1/products/{product}/stock");
        server.post(&path, &format!("bench-stock-{n}"), &json!({ "items": part })).await?;
    }
    for n in 0..REFERRERS {
        let order = json!({
            "customer": { "telegram_id": 900_000_000 + n }, "items": [{ "product": product, "quantity": 1 }], "provider": "yookassa"
        });
        server.post("/api/v1/orders", &format!("bench-referrer-{n}"), &order).await?;
    }
    Ok(product)
}

/// Makes `count` orders over the API, each of a new customer whom somebody brought.
pub async fn order(server: &Server, product: &str, first: usize, count: usize) -> Result<Vec<Made>> {
    let (address, product): (SocketAddr, Arc<str>) = (server.address, product.into());
    let mut running = JoinSet::new();
    let mut made = Vec::with_capacity(count);
    for n in first..first + count {
        if running.len() >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            made.push(done??);
        }
        running.spawn(order_one(address, Arc::clone(&product), n));
    }
    while let Some(done) = running.join_next().await {
        made.push(done??);
    }
    Ok(made)
}

async fn order_one(address: SocketAddr, product: Arc<str>, n: usize) -> Result<Made> {
    let chat = 1_000_000_000 + i64::try_from(n)?;
    let order = json!({
        "customer": { "telegram_id": chat, "referrer_telegram_id": 900_000_000 + n % REFERRERS },
        "items": [{ "product": &*product, "quantity": 1 }],
        "provider": "yookassa"
    });
    let made = post(address, "/api/v1/orders", &format!("bench-order-{n}"), &order).await?;
    Ok(Made { order: text(&made["id"])?, provider_id: text(&made["payment"]["provider_id"])?, chat })
}

/// Opens `count` payments at the sandbox as a bot would; their ids there.
pub async fn bare_payments(sandbox: &Sandbox, count: usize) -> Result<Vec<String>> {
    let url = sandbox.yookassa_url();
    let rest = url.strip_prefix("http://").context("the sandbox speaks plain HTTP")?;
    let (host, path) = rest.split_once('/').context("the API has a path")?;
    let address: SocketAddr = host.parse()?;
    let path = format!("/{path}/payments");
    let basic = basic_auth();
    let mut ids = Vec::with_capacity(count);
    for n in 0..count {
        let body = json!({
            "amount": { "value": PRICE, "currency": "RUB" }, "capture": true, "description": "Order",
            "confirmation": { "type": "redirect", "return_url": "https://t.me/shop" },
            "metadata": { "payment_id": format!("usual-{n}"), "order_id": format!("{n}") }
        });
        let key = format!("usual-{n}");
        let headers = [("Authorization", basic.as_str()), ("Idempotence-Key", key.as_str())];
        let made = http_client::ask(address, "POST", &path, &headers, Some(&body)).await?;
        ids.push(text(&made["id"])?);
    }
    Ok(ids)
}

/// The header that opens the sandbox's YooKassa.
fn basic_auth() -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let pair = format!("{}:{}", semel_sandbox::YOOKASSA_SHOP_ID, semel_sandbox::YOOKASSA_SECRET_KEY);
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// The customers pay; the provider's authentic webhooks about it, as requests to `path`, in the order of `ids`.
pub fn pay(sandbox: &Sandbox, ids: &[String], path: &str) -> Result<Vec<Vec<u8>>> {
    for id in ids {
        sandbox.pay(Provider::Yookassa, id)?;
    }
    let hooks = sandbox.hooks();
    ids.iter()
        .map(|id| {
            let hook = hooks.iter().rev().find(|hook| hook.payment_id == *id).context("a payment without a webhook")?;
            Ok(request(path, &hook.body))
        })
        .collect()
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("no text where an id belongs: {value}"))?.to_owned())
}
