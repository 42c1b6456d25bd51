//! Stock that came in by mistake goes out again: whole or not at all, once, and nothing that an order holds.

use serde_json::{Value, json};

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// How many keys come in.
const COUNT: usize = 8;

/// Keys of which one is sold, some go out by request and by command, and one of those comes in again.
#[derive(Default)]
pub struct StockWithdraw {
    product: String,
    sale: Sale,
}

impl StockWithdraw {
    /// Asks for these keys back from the shelf. Answers the status and how many went.
    async fn withdraw(&self, stage: &Stage, items: &[String], key: &str) -> (u16, Value) {
        let path = format!("/api/v1/products/{}/stock/withdraw", self.product);
        let answer = stage.post(&path, &json!({ "items": items }), key).await;
        (answer.status, answer.body["withdrawn"].clone())
    }
}

impl Flow for StockWithdraw {
    fn name(&self) -> &'static str {
        "stock-withdraw"
    }

    /// The first key is held by an order. The last one goes out by the command, which has no key that it could repeat: it runs
    /// beside a program that nothing is done to.
    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let all = keys(COUNT);
            self.product = stage.product(&all).await;
            self.sale = stage.order(&self.product, "yookassa").await;
            let said = stage.cli(&["stock", "withdraw", &self.product, &all[COUNT - 1]]).await.good();
            assert!(said.starts_with("1 withdrawn"), "the command takes it off the shelf: {said}");
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let all = keys(COUNT);
            // One that does not know what became of it asks again with the same key.
            for _ in 0..2 {
                let gone = self.withdraw(stage, &all[1..4], "withdraw").await;
                assert_eq!(gone, (200, json!(3)), "three keys go out");
            }
            let refused = self.withdraw(stage, &[all[0].clone(), all[4].clone()], "held").await;
            assert_eq!(refused.0, 409, "an order holds one of the two, so both stay");
            stage.stock(&self.product, &all[1..2], "again").await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            let refused = self.withdraw(stage, &all[..1], "sold").await;
            assert_eq!(refused.0, 409, "what was sold stays sold");
            let refused = self.withdraw(stage, &all[2..3], "gone").await;
            assert_eq!(refused.0, 409, "what is gone cannot go once more");
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.handed(CUSTOMER, 1);
            assert_eq!(stage.world.keys(CUSTOMER)[0], keys(1)[0], "the order kept the key that it held");
            // Of eight, one is sold, four were withdrawn, and one of these is back.
            assert_eq!(stage.levels(&self.product).await, (4, 0, 1));
        })
    }
}
