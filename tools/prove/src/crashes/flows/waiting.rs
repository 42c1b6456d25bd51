//! Goods that are made to order: paid first, handed over when they come into stock.

use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// Two paid orders that wait for their goods. One is given back, so that it no longer stands before the other; then an import
/// has the goods.
#[derive(Default)]
pub struct Waiting {
    product: String,
    given_up: Sale,
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
            for (sale, key) in [(&mut self.given_up, "given-up"), (&mut self.sale, "kept")] {
                *sale = stage.order_as(&super::one_of(&self.product, CUSTOMER, "yookassa"), key).await;
                stage.pay(sale);
                stage.tell().await;
                stage.until(sale, "awaiting_stock").await;
            }
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.refund(&self.given_up, "balance").await;
            stage.until(&self.given_up, "refunded").await;
            stage.stock(&self.product, &keys(2), "made").await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.given_up).await, "refunded");
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.balance(CUSTOMER).await, "1500.00", "given back once");
            assert_eq!(stage.levels(&self.product).await, (1, 0, 1));
            stage.handed(CUSTOMER, 1);
        })
    }
}
