//! Money back through the provider, who honours a key.

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// A sold key, refunded through YooKassa.
#[derive(Default)]
pub struct RefundToProvider {
    sale: Sale,
}

impl Flow for RefundToProvider {
    fn name(&self) -> &'static str {
        "refund-to-provider"
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
            stage.refund(&self.sale, "provider").await;
            stage.until(&self.sale, "refunded").await;
            stage.tell().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "refunded");
            let (provider, id) = self.sale.there();
            let there = stage.world.sandbox.payment(provider, id).expect("the payment is there");
            assert_eq!(there.refunded, there.captured, "given back once");
            assert!(matches!(stage.balance(CUSTOMER).await.as_str(), "" | "0.00"), "and not to the balance as well");
        })
    }
}
