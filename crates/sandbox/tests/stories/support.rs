//! A shop's side of the wire: a plain client, and a receiver of webhooks that answers what it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use md5::{Digest as _, Md5};
use semel_sandbox::{
    BOT_TOKEN, CRYSTALPAY_LOGIN, CRYSTALPAY_SECRET, Delivery, HELEKET_MERCHANT_ID, Options, Sandbox,
    YOOKASSA_SECRET_KEY, YOOKASSA_SHOP_ID,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// An answer as a client sees it; an error if the connection broke.
pub type Answer = Result<(u16, Value), reqwest::Error>;

/// A webhook that arrived.
pub struct Got {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Receives webhooks.
pub struct Receiver {
    pub url: String,
    got: mpsc::UnboundedReceiver<Got>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

#[derive(Clone)]
struct Desk {
    got: mpsc::UnboundedSender<Got>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

async fn receive(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> StatusCode {
    desk.got.send(Got { headers, body }).unwrap();
    let status = desk.answers.lock().unwrap().pop_front().unwrap_or(200);
    StatusCode::from_u16(status).unwrap()
}

impl Receiver {
    pub async fn start() -> Receiver {
        let (sender, got) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let desk = Desk { got: sender, answers: answers.clone() };
        let router = Router::new().route("/hook", post(receive)).with_state(desk);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Receiver { url, got, answers }
    }

    /// The next answers; after these every webhook is answered 200.
    pub fn will_answer(&self, statuses: &[u16]) {
        self.answers.lock().unwrap().extend(statuses);
    }

    /// The next webhook, waited for.
    pub async fn next(&mut self) -> Got {
        tokio::time::timeout(Duration::from_secs(20), self.got.recv()).await.expect("a webhook comes").unwrap()
    }

    pub fn is_empty(&self) -> bool {
        self.got.is_empty()
    }
}

/// A box, and a client that knows its credentials.
pub struct Shop {
    pub sandbox: Sandbox,
    pub http: reqwest::Client,
}

impl Shop {
    pub async fn with(options: Options) -> Shop {
        let sandbox = Sandbox::start(options).await.unwrap();
        let no_roots = Vec::<reqwest::Certificate>::new();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only(no_roots).build().unwrap();
        Shop { sandbox, http }
    }

    /// Webhooks wait until the story sends them.
    pub async fn manual(receiver: &Receiver) -> Shop {
        let hook_url = Some(receiver.url.clone());
        Shop::with(Options { mode: Delivery::Manual, yookassa_hook_url: hook_url, ..Options::default() }).await
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    pub async fn yookassa(&self, method: Method, path: &str, key: &str, body: Option<&Value>) -> Answer {
        let credentials = STANDARD.encode(format!("{YOOKASSA_SHOP_ID}:{YOOKASSA_SECRET_KEY}"));
        let mut request = self.http.request(method, format!("{}{path}", self.sandbox.yookassa_url()));
        request = request.header("Authorization", format!("Basic {credentials}"));
        if !key.is_empty() {
            request = request.header("Idempotence-Key", key);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        self.call(request).await
    }

    pub async fn heleket(&self, path: &str, key: &str, body: &str) -> Answer {
        let sign = hex::encode(Md5::digest(format!("{}{key}", STANDARD.encode(body))));
        let request = self.http.post(format!("{}{path}", self.sandbox.heleket_url()));
        let request = request.header("merchant", HELEKET_MERCHANT_ID).header("sign", sign).body(body.to_owned());
        self.call(request).await
    }

    pub async fn crystalpay(&self, path: &str, body: Value) -> Answer {
        let mut body = body;
        body["auth_login"] = json!(CRYSTALPAY_LOGIN);
        body["auth_secret"] = json!(CRYSTALPAY_SECRET);
        let request = self.http.post(format!("{}{path}", self.sandbox.crystalpay_url()));
        self.call(request.body(body.to_string())).await
    }

    pub async fn telegram(&self, method: &str, message: &str, body: &Value) -> Answer {
        let url = format!("{}/bot{BOT_TOKEN}/{method}", self.sandbox.telegram_url());
        let request = self.http.post(url).header("Content-Type", "application/json").header("X-Request-Id", message);
        self.call(request.body(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("{}{path}", self.sandbox.url())).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// What a shop asks YooKassa for.
pub fn order(ours: &str) -> Value {
    json!({
        "amount": { "value": "499.00", "currency": "RUB" },
        "capture": true,
        "confirmation": { "type": "redirect", "return_url": "https://t.me/example_shop_bot" },
        "description": "Order 42",
        "metadata": { "payment_id": ours },
    })
}
