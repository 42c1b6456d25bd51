//! Webhooks out: the owner's own program hears of everything, and a repeat has the same id and the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, text};

/// The example of the specification's own libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What came in: an id and its bytes.
type Got = Arc<Mutex<Vec<(String, Bytes)>>>;

/// A sale with somebody who listens.
#[derive(Default)]
pub struct Events {
    listener: Option<TcpListener>,
    got: Got,
    stop: CancellationToken,
    sale: Sale,
}

async fn take(State(got): State<Got>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    got.lock().unwrap_or_else(PoisonError::into_inner).push((id, body));
    StatusCode::NO_CONTENT
}

impl Events {
    /// Each event's bytes by its id; panics when one id came with two bodies.
    fn heard(&self) -> BTreeMap<String, Bytes> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut heard: BTreeMap<String, Bytes> = BTreeMap::new();
        for (id, body) in got {
            assert!(id.starts_with("evt_"), "an event has an id: {id:?}");
            let first = heard.entry(id).or_insert_with(|| body.clone());
            assert_eq!(*first, body, "a repeat has the same bytes");
        }
        heard
    }

    /// The kinds of what was heard, one for each id.
    fn kinds(&self) -> Vec<String> {
        let read = |body: &Bytes| serde_json::from_slice(body).unwrap_or(Value::Null);
        self.heard().values().map(|body| text(&read(body)["type"])).collect()
    }
}

impl Flow for Events {
    fn name(&self) -> &'static str {
        "events-out"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let url = format!("http://{}/events", listener.local_addr().expect("an address"));
        self.listener = Some(listener);
        vec![
            ("SEMEL_WEBHOOKS_OUT_URL".into(), url),
            ("SEMEL_WEBHOOKS_OUT_SECRET".into(), SECRET.into()),
            ("SEMEL_WEBHOOKS_OUT_ALLOW_PRIVATE".into(), "true".into()),
        ]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let listener = self.listener.take().expect("the settings are asked for first");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let router = Router::new().route("/events", post(take)).with_state(Arc::clone(&self.got));
            let stop = self.stop.clone();
            tokio::spawn(async move {
                let serving = async move { axum::serve(listener, router).await };
                tokio::select! {
                    _ = serving => {}
                    () = stop.cancelled() => {}
                }
            });
            stage.start_plain().await;
            let product = stage.product(&keys(2)).await;
            self.sale = stage.order(&product, "yookassa").await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            let patience = Patience::of("both events are heard", 120);
            loop {
                let kinds: BTreeSet<String> = self.kinds().into_iter().collect();
                if kinds.contains("order.paid") && kinds.contains("order.delivered") {
                    return;
                }
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let kinds = self.kinds();
            for kind in ["order.paid", "order.delivered"] {
                let count = kinds.iter().filter(|one| *one == kind).count();
                assert_eq!(count, 1, "{kind} is one event, whatever was repeated: {kinds:?}");
            }
            stage.handed(CUSTOMER, 1);
        })
    }

    fn close<'a>(&'a mut self, _stage: &'a Stage) -> Step<'a> {
        Box::pin(async move { self.stop.cancel() })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
