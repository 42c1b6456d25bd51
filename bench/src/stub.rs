//! A provider that knows every filled-in payment, and a Telegram that takes everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use axum::extract::State;
use axum::{Json, Router};
use http::Uri;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::notices::PRICE;
use crate::server::World;

/// How the provider behaves.
#[derive(Clone, Copy)]
pub struct Manner {
    /// How long it thinks before each answer.
    pub thinks: Duration,
    /// Whether payments are paid already.
    pub paid: bool,
}

/// The running stub; it ends when dropped.
pub struct Stub {
    address: SocketAddr,
    stop: CancellationToken,
}

impl Stub {
    /// Starts it on loopback.
    pub async fn start(manner: Manner) -> Result<Stub> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let router: Router = Router::new().fallback(answer).with_state(manner);
        tokio::spawn(async move {
            tokio::select! {
                () = stopped => {}
                served = std::future::IntoFuture::into_future(axum::serve(listener, router)) => {
                    if let Err(error) = served {
                        eprintln!("the stub ended: {error}");
                    }
                }
            }
        });
        Ok(Stub { address, stop })
    }

    /// Where it is.
    pub fn world(&self) -> World {
        World { yookassa: format!("http://{}/v3", self.address), telegram: format!("http://{}/telegram", self.address) }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(State(manner): State<Manner>, uri: Uri) -> Json<Value> {
    match uri.path().rsplit_once("/payments/") {
        Some((_, number)) => {
            tokio::time::sleep(manner.thinks).await;
            Json(payment(number, manner.paid))
        }
        None if uri.path().ends_with("/payments") => Json(json!({ "type": "list", "items": [] })),
        None => Json(
            json!({ "ok": true, "result": { "message_id": 1, "date": 0, "chat": { "id": 1, "type": "private" } } }),
        ),
    }
}

fn payment(number: &str, paid: bool) -> Value {
    json!({
        "id": number,
        "status": if paid { "succeeded" } else { "pending" },
        "paid": paid,
        "test": false,
        "refundable": paid,
        "amount": { "value": PRICE, "currency": "RUB" },
        "recipient": { "account_id": semel_sandbox::YOOKASSA_SHOP_ID, "gateway_id": "100700" },
        "created_at": "2026-03-01T09:00:00.123Z",
        "metadata": { "payment_id": format!("pay_{number}"), "order_id": format!("ord_{number}") },
    })
}
