//! Money that comes when the order has expired, and still buys what is left.

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// An expired order that is paid.
#[derive(Default)]
pub struct Late {
    product: String,
    sale: Sale,
}

impl Flow for Late {
    fn name(&self) -> &'static str {
        "late-payment"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("SEMEL_SHOP_ORDER_LIFETIME".into(), "2s".into())]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            self.product = stage.product(&keys(3)).await;
            self.sale = stage.order(&self.product, "yookassa").await;
            stage.until(&self.sale, "expired").await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 1));
            stage.handed(CUSTOMER, 1);
        })
    }
}
