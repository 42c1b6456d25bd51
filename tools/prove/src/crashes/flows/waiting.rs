//! Goods that are made to order: paid first, handed over when they come into stock.

use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// A paid order that waits for its goods, and an import that has them.
#[derive(Default)]
pub struct Waiting {
    product: String,
    sale: Sale,
}

impl Flow for Waiting {
    fn name(&self) -> &'static str {
        "waiting-order"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let portrait = json!({
                "title": "Portrait", "kind": "stock", "price": { "amount": "1500.00", "currency": "RUB" },
                "delivery": "made_to_order", "promise_hours": 24,
            });
            self.product = stage.product_of(&portrait, "portrait").await;
            self.sale = stage.order(&self.product, "yookassa").await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "awaiting_stock").await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.stock(&self.product, &keys(2), "made").await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.levels(&self.product).await, (1, 0, 1));
            stage.handed(CUSTOMER, 1);
        })
    }
}
