//! Events to the owner's own program, after Standard Webhooks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use semel_kernel::each_store;
use semel_sandbox::{Fault, Target};
use semel_shop::events;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::app::{CUSTOMER, ROOMS, TestShop, text};

/// The example of the specification's own libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An event as it arrived.
#[derive(Clone)]
struct Got {
    id: String,
    timestamp: i64,
    signature: String,
    body: Bytes,
    /// What it was answered.
    status: u16,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event is JSON")
    }

    fn kind(&self) -> String {
        text(&self.json()["type"])
    }
}

#[derive(Clone, Default)]
struct Desk {
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

/// The owner's own program.
struct Receiver {
    url: String,
    desk: Desk,
}

async fn take(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let status = desk.answers.lock().unwrap().pop_front().unwrap_or(204);
    assert_eq!(header("content-type"), "application/json");
    let timestamp = header("webhook-timestamp").parse().unwrap_or_default();
    let (id, signature) = (header("webhook-id"), header("webhook-signature"));
    desk.got.lock().unwrap().push(Got { id, timestamp, signature, body, status });
    StatusCode::from_u16(status).unwrap()
}

impl Receiver {
    /// Gives these answers first, then 204 to everything.
    async fn start(answers: &[u16]) -> Receiver {
        let desk = Desk::default();
        desk.answers.lock().unwrap().extend(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}/events", listener.local_addr().expect("an address"));
        let router = Router::new().route("/events", post(take)).with_state(desk.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Receiver { url, desk }
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [
            ("SEMEL_WEBHOOKS_OUT_URL", self.url.as_str()),
            ("SEMEL_WEBHOOKS_OUT_SECRET", SECRET),
            ("SEMEL_WEBHOOKS_OUT_ALLOW_PRIVATE", "true"),
        ]
    }

    fn got(&self) -> Vec<Got> {
        self.desk.got.lock().unwrap().clone()
    }
}

/// Insists that every try of every event is signed, and that one id always means the same bytes.
fn are_sound(got: &[Got], shop: &TestShop) {
    let key = events::key(SECRET).expect("a secret");
    let mut bodies: BTreeMap<&str, &Bytes> = BTreeMap::new();
    for one in got {
        assert!(one.id.starts_with("evt_"), "{}", one.id);
        assert_eq!(one.signature, events::sign(&key, &one.id, one.timestamp, &one.body), "{}", one.kind());
        let now = shop.store.clock.now().millis() / 1000;
        assert!((now - 300..=now).contains(&one.timestamp), "within the tolerance of a receiver: {}", one.timestamp);
        assert_eq!(*bodies.entry(&one.id).or_insert(&one.body), &one.body, "a repeat has the same bytes");
    }
}

each_store! { ROOMS;
    async fn an_event_is_signed_and_comes_again_as_it_was_until_it_is_taken(t: TestStore) {
        let receiver = Receiver::start(&[500]).await;
        let shop = TestShop::with(t, &receiver.settings()).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let order = shop.sell(&key, "yookassa").await;
        let first = receiver.got();
        assert_eq!(first.len(), 2, "paid and delivered, one try each");
        assert_eq!((first[0].status, first[1].status), (500, 204));

        shop.wait(Duration::from_secs(10)).await;
        let got = receiver.got();
        assert_eq!(got.len(), 3, "only what was not taken comes again");
        assert_eq!((&got[2].id, &got[2].body, got[2].status), (&first[0].id, &first[0].body, 204));

        let (status, answer) = shop.refund(&order, "balance", None).await;
        assert_eq!((status, text(&answer["status"])), (200, "refunded".to_owned()), "{answer}");
        shop.run_jobs().await;
        let got = receiver.got();
        are_sound(&got, &shop);
        let kinds: Vec<String> = got.iter().map(Got::kind).collect();
        assert_eq!((kinds.len(), kinds[3].as_str()), (4, "order.refunded"));
        let wanted = ["order.delivered", "order.paid", "order.refunded"].map(str::to_owned);
        assert_eq!(kinds.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(wanted));
        for one in &got {
            let event = one.json();
            assert_eq!(event["data"]["order"], json!(order.id), "{event}");
            assert!(text(&event["timestamp"]).ends_with('Z'), "{event}");
        }
        let refunded = got[3].json();
        assert_eq!(refunded["data"]["amount"], json!({ "amount": "990.00", "currency": "RUB" }));
        assert_eq!((text(&refunded["data"]["to"]), &refunded["data"]["full"]), ("balance".to_owned(), &json!(true)));

        shop.wait(Duration::from_secs(3600)).await;
        assert_eq!(receiver.got().len(), 4, "what was taken never comes again");
        shop.finish().await;
    }

    async fn orders_that_end_without_money_are_told_too(t: TestStore) {
        let receiver = Receiver::start(&[]).await;
        let shop = TestShop::with(t, &receiver.settings()).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let called_off = shop.order(&key, "yookassa").await;
        let (status, _) = shop.post(&format!("/api/v1/orders/{}/cancel", called_off.id), json!({})).await;
        assert_eq!(status, 200);
        let forgotten = shop.order(&key, "yookassa").await;
        shop.wait(crate::app::minutes(31)).await;
        let got = receiver.got();
        are_sound(&got, &shop);
        let told: BTreeSet<(String, String)> =
            got.iter().map(|one| (one.kind(), text(&one.json()["data"]["order"]))).collect();
        let wanted = [("order.cancelled".to_owned(), called_off.id), ("order.expired".to_owned(), forgotten.id)];
        assert_eq!(told, BTreeSet::from(wanted));
        shop.finish().await;
    }

    async fn what_has_nothing_to_do_with_telegram_runs_while_telegram_is_down(t: TestStore) {
        let receiver = Receiver::start(&[]).await;
        let shop = TestShop::with(t, &receiver.settings()).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        shop.sandbox.fault(Target::Telegram(String::new()), Fault::CutBefore, None);
        let order = shop.sell(&key, "yookassa").await;
        assert!(shop.delivered_to(CUSTOMER).is_empty());
        assert_eq!(shop.status(&order).await, "paid");
        let got = receiver.got();
        assert_eq!(got.iter().map(Got::kind).collect::<Vec<_>>(), ["order.paid"], "the event did not wait");
        assert_eq!(shop.number("select count(*) from jobs where kind = 'payment.confirm' and state = 'done'").await, 1);

        shop.sandbox.clear_faults();
        shop.wait(Duration::from_secs(30)).await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        assert_eq!(shop.status(&order).await, "delivered");
        let kinds: Vec<String> = receiver.got().iter().map(Got::kind).collect();
        assert_eq!(kinds, ["order.paid", "order.delivered"]);
        shop.finish().await;
    }
}
