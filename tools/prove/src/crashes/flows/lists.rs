//! A provider whose lists never end, with a payment and a refund in them that no books can take: the owner hears of both, and
//! nothing is booked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use semel_sandbox::YOOKASSA_SHOP_ID;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{CUSTOMER, Flow, OWNER, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

const OTHER: i64 = 43;
/// Somebody took the key of an unpaid order off its shelf, by hand in the database.
const TAKEN: &[&str] = &["update units set state = 'available', item = null where state = 'held'"];
/// What the owner is told, once each.
const TOLD: [&str; 4] = [
    "The list of yookassa has more than",
    "yookassa lists more than",
    "payment odd-payment cannot be booked",
    "refund odd-refund cannot be booked",
];

/// What stands first in the lists.
struct Lists {
    payment: Value,
    refund: Value,
}

type Asked = Query<BTreeMap<String, String>>;

/// Every page names a next one; only the first has something on it.
fn page(asked: &Asked, first: &Value) -> Json<Value> {
    let items = if asked.0.contains_key("cursor") { json!([]) } else { json!([first]) };
    Json(json!({ "type": "list", "items": items, "next_cursor": "more" }))
}

async fn payments(State(lists): State<Arc<Lists>>, asked: Asked) -> Json<Value> {
    page(&asked, &lists.payment)
}

async fn refunds(State(lists): State<Arc<Lists>>, asked: Asked) -> Json<Value> {
    page(&asked, &lists.refund)
}

async fn unknown() -> (StatusCode, Json<Value>) {
    let answer =
        json!({ "type": "error", "code": "not_found", "description": "Payment doesn't exist", "parameter": "id" });
    (StatusCode::NOT_FOUND, Json(answer))
}

/// A sold key, an unpaid order, and a YooKassa of our own that the program asks from then on.
#[derive(Default)]
pub struct EndlessLists {
    sold: Sale,
    open: Sale,
    stop: CancellationToken,
}

impl EndlessLists {
    /// Starts the provider; answers its address.
    async fn serve(&self, lists: Lists) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/payments", get(payments)).route("/refunds", get(refunds));
        let router = router.fallback(unknown).with_state(Arc::new(lists));
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let serving = async move { axum::serve(listener, router).await };
            tokio::select! {
                _ = serving => {}
                () = stop.cancelled() => {}
            }
        });
        format!("http://{address}")
    }
}

impl Flow for EndlessLists {
    fn name(&self) -> &'static str {
        "endless-lists"
    }

    /// As in the flow of the cabinet, the hour's sweep is due when the program starts.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            self.sold = stage.sell(&product, "yookassa").await;
            self.open = stage.order_as(&one_of(&product, OTHER, "yookassa"), "order-open").await;
            let ours = text(&stage.show(&self.open.order).await["payment"]["id"]);
            stage.rest().await;
            stage.stop_plain().await;
            stage.plant(TAKEN).await;
            let payment = json!({
                "id": "odd-payment", "status": "succeeded", "paid": true,
                "amount": { "value": "990.00", "currency": "RUB" },
                "recipient": { "account_id": YOOKASSA_SHOP_ID },
                "metadata": { "payment_id": ours },
            });
            let refund = json!({
                "id": "odd-refund", "status": "succeeded", "payment_id": self.sold.there().1,
                "amount": { "value": "1.00", "currency": "USD" },
            });
            let url = self.serve(Lists { payment, refund }).await;
            stage.wear("SEMEL_YOOKASSA_API_URL", url);
            stage.ticks_are_due().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let patience = Patience::of("YooKassa is swept", 240);
            let swept = |job: &Value| {
                job["kind"] == "provider.sweep"
                    && job["slot"].as_str().is_some_and(|slot| slot.starts_with("yookassa:"))
            };
            while !items(&stage.get("/api/v1/jobs?state=done&limit=200").await).iter().any(swept) {
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sold).await, "delivered", "nothing of it went back");
            let open = stage.show(&self.open.order).await;
            assert_eq!((&open["status"], &open["payment"]["status"]), (&json!("pending"), &json!("pending")));
            assert!(matches!(stage.balance(OTHER).await.as_str(), "" | "0.00"), "no money came");
            let chat = stage.world.sandbox.chat(OWNER);
            for words in TOLD {
                let told = chat.iter().any(|message| message.text.contains(words));
                assert!(told || stage.was_disturbed(), "the owner hears that {words}: {chat:?}");
            }
            stage.handed(CUSTOMER, 1);
        })
    }
}

impl Drop for EndlessLists {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
