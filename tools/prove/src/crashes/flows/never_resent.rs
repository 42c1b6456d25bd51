//! A provider that sends its webhook once and never again: what it told in vain is found by asking.

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// Payment, one try of a webhook, goods.
#[derive(Default)]
pub struct NeverResent {
    sale: Sale,
}

impl Flow for NeverResent {
    fn name(&self) -> &'static str {
        "webhook-never-resent"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            self.sale = stage.order(&product, "yookassa").await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            for hook in stage.world.sandbox.pending_hooks() {
                stage.world.sandbox.send_hook(hook).await;
            }
            stage.lose();
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.handed(CUSTOMER, 1);
        })
    }
}
