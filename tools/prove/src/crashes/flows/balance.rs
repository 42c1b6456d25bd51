//! Money onto the balance, and goods from the balance.

use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// A top-up of 1000, and a key for 990 of it.
#[derive(Default)]
pub struct Balance {
    topup: String,
    product: String,
    sale: Sale,
}

impl Flow for Balance {
    fn name(&self) -> &'static str {
        "balance"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let price = json!({ "amount": "1000.00", "currency": "RUB" });
            let topup = json!({ "title": "Balance", "kind": "topup", "price": price });
            self.topup = stage.product_of(&topup, "topup").await;
            self.product = stage.product(&keys(3)).await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let topup = stage.order(&self.topup, "yookassa").await;
            stage.pay(&topup);
            stage.tell().await;
            stage.until_balance(CUSTOMER, "1000.00").await;
            self.sale = stage.order(&self.product, "balance").await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.balance(CUSTOMER).await, "10.00", "filled once and spent once");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 1));
            stage.handed(CUSTOMER, 1);
        })
    }
}
