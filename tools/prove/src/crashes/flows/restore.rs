//! An older backup: nothing is sold, handed over or paid out until the owner ends safe mode, and what came after it is found.

use std::fs;

use semel_kernel::store::{StoreError, StoreUrl};
use semel_sandbox::{Fault, Provider, Target};
use semel_shop::safety::{self, Restored};
use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, text};

/// Who paid for an order that was called off, and whose next order no backup knows.
const OTHER: i64 = 43;
const RECONCILE: &str = "/api/v1/safe/reconcile";

/// An unpaid order, an alert that had not left yet, and a payment of which the restored database knows nothing.
#[derive(Default)]
pub struct Restore {
    waiting: Sale,
    lost: String,
}

impl Restore {
    /// On SQLite a true backup is restored, and the order that was made after it is gone. With a server, where other databases
    /// would be needed, the mark of a restore is written, and the payment is one that another program made.
    async fn restore(&mut self, stage: &Stage, product: &str) {
        match stage.world.database_url() {
            StoreUrl::Sqlite(file) => {
                let path = |name: &str| stage.world.path(name).display().to_string();
                let (key, backup) = (path("backup.key"), path("shop.backup"));
                stage.cli(&["backup", "--new-key", &key]).await.good();
                stage.cli(&["backup", &backup, "--key-file", &key]).await.good();
                let lost = stage.order_as(&one_of(product, OTHER, "yookassa"), "order-lost").await;
                self.lost = lost.there().1.to_owned();
                stage.stop_plain().await;
                for ending in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{ending}", file.display()));
                }
                stage.cli(&["restore", &backup, "--key-file", &key]).await.good();
            }
            StoreUrl::Postgres(_) => {
                let foreign =
                    json!({ "amount": { "value": "990.00", "currency": "RUB" }, "capture": true, "metadata": {} });
                self.lost = text(&stage.world.at_yookassa("/payments", &foreign).await["id"]);
                stage.stop_plain().await;
                let store = stage.world.store();
                let noted = store.write("story.restored", |tx| {
                    let now = tx.now();
                    safety::flows::note_restored(tx, &Restored { backup_at: now, restored_at: now })
                });
                noted.await.unwrap_or_else(|error: StoreError| panic!("the database answers: {error}"));
            }
        }
    }

    /// Waits until the lists of the providers that have one were read.
    async fn lists_are_read(stage: &Stage) {
        let patience = Patience::of("YooKassa and Heleket are reconciled", 180);
        loop {
            let view = stage.get("/api/v1/safe").await.body;
            let rails = view["rails"].as_array().cloned().unwrap_or_default();
            let done = |name: &str| rails.iter().any(|rail| rail["provider"] == name && rail["reconciled"] == true);
            if done("yookassa") && done("heleket") {
                return;
            }
            pause(&patience).await;
        }
    }
}

impl Flow for Restore {
    fn name(&self) -> &'static str {
        "restore"
    }

    fn is_from_start(&self) -> bool {
        true
    }

    /// Of an alert that the backup still had to send nobody knows whether it was sent after it.
    fn leaves_unknown(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(4)).await;
            self.waiting = stage.order(&product, "yookassa").await;
            let off = stage.order_as(&one_of(&product, OTHER, "yookassa"), "order-off").await;
            let cancel = format!("/api/v1/orders/{}/cancel", off.order);
            stage.by_hand(&cancel, &json!({ "reason": "changed my mind" }), "cancel", &[200]).await;
            let sandbox = &stage.world.sandbox;
            sandbox.fault(Target::Telegram("sendMessage".into()), Fault::Status(409), None);
            stage.pay(&off);
            stage.tell().await;
            stage.until_balance(OTHER, "990.00").await;
            let patience = Patience::of("alert and notice could not be sent", 60);
            while stage.troubled("message.send", "ready", "").await.len() < 2 {
                pause(&patience).await;
            }
            self.restore(stage, &product).await;
            sandbox.clear_faults();
            // Long enough to ask for that list once more while it is read.
            sandbox.fault(Target::Api(Provider::Heleket, "/v1/payment/list".into()), Fault::Delay(5_000), Some(1));
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.by_hand(RECONCILE, &json!({ "provider": "heleket" }), "again", &[202, 409]).await;
            stage.pay(&self.waiting);
            stage.world.sandbox.pay(Provider::Yookassa, &self.lost).unwrap_or_else(|error| panic!("{error}"));
            stage.tell().await;
            stage.until(&self.waiting, "paid").await;
            assert!(stage.world.keys(CUSTOMER).is_empty(), "nothing is handed over in safe mode");
            Self::lists_are_read(stage).await;
            let compared = json!({ "provider": "crystalpay", "by_hand": "compared with its cabinet" });
            stage.by_hand(RECONCILE, &compared, "compared", &[202]).await;
            stage.by_hand("/api/v1/safe/leave", &json!({ "reason": "all is booked" }), "leave", &[200, 409]).await;
            stage.by_hand("/api/v1/stock/release", &json!({ "reason": "nobody has them" }), "release", &[200]).await;
            stage.until(&self.waiting, "delivered").await;
            let assign = format!("/api/v1/payments/{}/assign", self.lost);
            let patience = Patience::of("the money that no order asked for is the customer's", 120);
            let mut tries = 0;
            while stage.balance(CUSTOMER).await != "990.00" {
                tries += 1;
                stage.post(&assign, &json!({ "order": self.waiting.order }), &format!("assign-{tries}")).await;
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.get("/api/v1/safe").await.body["safe_mode"], false);
            assert_eq!(stage.status(&self.waiting).await, "delivered");
            assert_eq!(stage.balance(CUSTOMER).await, "990.00", "assigned once");
            assert_eq!(stage.balance(OTHER).await, "990.00", "as the backup says");
            stage.handed(CUSTOMER, 1);
        })
    }
}
