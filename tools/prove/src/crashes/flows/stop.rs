//! A promise that is broken: the self-audit stops the money, what comes in is still taken, and goods wait for the owner.

use serde_json::json;

use semel_kernel::clock::Chance;
use semel_kernel::jobs;
use semel_kernel::store::StoreError;
use semel_shop::audit::FreshAudit;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// A booking that does not balance. Entries of the books can be added and never taken back.
const LIE: &[&str] = &[
    "insert into postings (id, key, kind, posted_at) values ('txn_lie', 'lie', 'sale', semel_now())",
    "insert into entries (posting, account, currency, amount) values ('txn_lie', 'sales:shop:RUB', 'RUB', 5)",
];
/// What balances it again, when the owner has understood it.
const MEND: &[&str] =
    &["insert into entries (posting, account, currency, amount) values ('txn_lie', 'sales:shop:RUB', 'RUB', -5)"];
/// The words of a job that waits for a release.
const WAITS: &str = "deliveries are stopped";

/// A sold key, a lie in the books, and an order that is paid while everything is stopped.
#[derive(Default)]
pub struct Stop {
    waiting: Sale,
}

impl Stop {
    async fn open(stage: &Stage) -> Vec<String> {
        let stops = items(&stage.get("/api/v1/audit/stops?state=open").await);
        stops.iter().map(|stop| text(&stop["id"])).collect()
    }
}

impl Flow for Stop {
    fn name(&self) -> &'static str {
        "stop-and-release"
    }

    /// The audit of fresh rows is due when the program starts.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            stage.sell(&product, "yookassa").await;
            self.waiting = stage.order(&product, "heleket").await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.plant(LIE).await;
            let (store, chance) = (stage.world.store(), Chance::system());
            // A minute long ago, so it is a job of its own.
            let due = store.write("story.audit", move |tx| {
                let now = tx.now();
                jobs::enqueue(tx, &FreshAudit { minute: 1 }, now, &chance).map(|_| ())
            });
            due.await.unwrap_or_else(|error: StoreError| panic!("the database answers: {error}"));
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let patience = Patience::of("the lie is found", 120);
            let stop = loop {
                match Self::open(stage).await.pop() {
                    Some(stop) => break stop,
                    None => pause(&patience).await,
                }
            };
            stage.pay(&self.waiting);
            stage.tell().await;
            stage.until(&self.waiting, "paid").await;
            let patience = Patience::of("the goods wait", 120);
            while stage.troubled("message.send", "ready", WAITS).await.is_empty() {
                pause(&patience).await;
            }
            let path = format!("/api/v1/audit/stops/{stop}/release");
            stage.by_hand(&path, &json!({ "reason": "a lie of ours" }), "release", &[200, 409]).await;
            let patience = Patience::of("what waited goes on", 120);
            let mut round = 0;
            while stage.status(&self.waiting).await != "delivered" {
                // Who died between the release and the waking left it to the jobs to look, which they do within minutes.
                if stage.was_disturbed() {
                    round += 1;
                    stage.hasten("message.send", "ready", WAITS, round).await;
                }
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert!(Self::open(stage).await.is_empty(), "nothing is stopped any more, and what was released stays so");
            assert_eq!(stage.status(&self.waiting).await, "delivered");
            stage.handed(CUSTOMER, 2);
        })
    }

    /// Every promise is asked about at the end, so the books have to balance again. That is no deed of the program.
    fn close<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.plain_again().await;
            stage.stop_plain().await;
            stage.plant(MEND).await;
        })
    }
}
