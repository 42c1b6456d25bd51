//! An order whose payment the provider will not open: it is called off at once, and its goods go back.

use semel_sandbox::{Fault, Provider, Target};

use super::{CUSTOMER, Flow, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// An order that YooKassa refuses.
#[derive(Default)]
pub struct Refused {
    product: String,
}

impl Refused {
    /// Where the orders stand, the newest first.
    async fn orders(stage: &Stage) -> Vec<String> {
        let listed = items(&stage.get(&format!("/api/v1/orders?customer={CUSTOMER}&limit=20")).await);
        listed.iter().map(|order| text(&order["status"])).collect()
    }
}

impl Flow for Refused {
    fn name(&self) -> &'static str {
        "payment-refused"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.product = stage.plain_product(&keys(2)).await;
            let opening = Target::Api(Provider::Yookassa, "POST /payments".into());
            stage.world.sandbox.fault(opening, Fault::Status(400), None);
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let wanted = one_of(&self.product, CUSTOMER, "yookassa");
            let answer = stage.post("/api/v1/orders", &wanted, "order").await;
            // Whoever asks again after the refusal was written is shown the order that it ended.
            assert!(matches!(answer.status, 201 | 502), "the refusal is told: {}", answer.text);
            let patience = Patience::of("the order is called off", 120);
            while Self::orders(stage).await != ["cancelled"] {
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(Self::orders(stage).await, ["cancelled"], "one order, and nobody can pay it");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 0), "its key is back on the shelf");
            assert!(stage.world.sandbox.payments(Provider::Yookassa).is_empty(), "nothing was opened");
        })
    }
}
