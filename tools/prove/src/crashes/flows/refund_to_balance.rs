//! Money back to the customer's balance.

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// A sold key, refunded to the balance.
#[derive(Default)]
pub struct RefundToBalance {
    sale: Sale,
}

impl Flow for RefundToBalance {
    fn name(&self) -> &'static str {
        "refund-to-balance"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(2)).await;
            self.sale = stage.sell(&product, "yookassa").await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.refund(&self.sale, "balance").await;
            stage.until(&self.sale, "refunded").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "refunded");
            assert_eq!(stage.balance(CUSTOMER).await, "990.00", "given back once");
        })
    }
}
