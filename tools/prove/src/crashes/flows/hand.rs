//! The owner's hand: a product that changes, money that nobody asked for, a payment and a notice that are looked into anew.

use serde_json::json;

use semel_kernel::store::StoreUrl;
use semel_sandbox::Provider;

use super::{CUSTOMER, Flow, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

const OTHER: i64 = 43;
const TITLE: &str = "Licence key, second edition";

/// A sold key whose money went back in the cabinet, an unpaid order, and a payment at YooKassa that no order asked for.
#[derive(Default)]
pub struct OwnersHand {
    product: String,
    sold: Sale,
    waiting: Sale,
    foreign: String,
}

impl Flow for OwnersHand {
    fn name(&self) -> &'static str {
        "owners-hand"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            self.product = stage.product(&keys(3)).await;
            self.sold = stage.sell(&self.product, "yookassa").await;
            let wanted = one_of(&self.product, OTHER, "heleket");
            self.waiting = stage.order_as(&wanted, "order-waiting").await;
            stage.rest().await;
            let foreign =
                json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
            self.foreign = text(&stage.world.at_yookassa("/payments", &foreign).await["id"]);
            if matches!(stage.world.database_url(), StoreUrl::Postgres(_)) {
                // Beside a server there is no socket: the command does it in its own process.
                let made = stage.cli(&["token", "create", "reports", "--scope", "read"]).await.good();
                let id = made.split_whitespace().find(|word| word.starts_with("tok_")).expect("the token's id");
                stage.cli(&["token", "revoke", id.trim_end_matches('`')]).await.good();
            }
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let sandbox = &stage.world.sandbox;
            let changed = stage.patch(&format!("/api/v1/products/{}", self.product), &json!({ "title": TITLE })).await;
            assert_eq!(changed.status, 200, "a product is changed: {}", changed.text);

            let (_, there) = self.sold.there();
            sandbox.refund_at_yookassa(there, None, false).unwrap_or_else(|error| panic!("{error}"));
            let payment = text(&stage.show(&self.sold.order).await["payment"]["id"]);
            stage.by_hand(&format!("/api/v1/payments/{payment}/replay"), &json!({}), "look", &[200]).await;
            stage.until(&self.sold, "refunded").await;

            sandbox.pay(Provider::Yookassa, &self.foreign).unwrap_or_else(|error| panic!("{error}"));
            stage.tell().await;
            let assign = format!("/api/v1/payments/{}/assign", self.foreign);
            let patience = Patience::of("money that nobody asked for pays an order", 120);
            let mut tries = 0;
            while stage.status(&self.waiting).await == "pending" {
                tries += 1;
                stage.post(&assign, &json!({ "order": self.waiting.order }), &format!("assign-{tries}")).await;
                pause(&patience).await;
            }
            stage.until(&self.waiting, "delivered").await;

            let notices = items(&stage.get("/api/v1/inbox?limit=10").await);
            let newest = text(&notices.first().expect("a notice came")["id"]);
            let path = format!("/api/v1/inbox/{newest}/replay");
            stage.by_hand(&path, &json!({}), "notice", &[202, 409]).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let product = stage.get(&format!("/api/v1/products/{}", self.product)).await;
            assert_eq!(product.body["title"], TITLE);
            let sold = stage.show(&self.sold.order).await;
            assert_eq!(sold["status"], "refunded");
            assert_eq!(sold["payment"]["refunded"]["amount"], "990.00", "booked once");
            assert_eq!(stage.status(&self.waiting).await, "delivered");
            assert!(matches!(stage.balance(OTHER).await.as_str(), "" | "0.00"), "the sum was just the price");
            stage.handed(CUSTOMER, 1);
            stage.handed(OTHER, 1);
        })
    }
}
