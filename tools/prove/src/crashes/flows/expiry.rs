//! An order that nobody pays: its deadline lets the goods go.

use super::{Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// An unpaid order whose time runs out.
#[derive(Default)]
pub struct Expiry {
    product: String,
    sale: Sale,
}

impl Flow for Expiry {
    fn name(&self) -> &'static str {
        "expiry"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("SEMEL_SHOP_ORDER_LIFETIME".into(), "2s".into())]
    }

    /// The deadline may pass while the program is down.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            self.product = stage.product(&keys(2)).await;
            self.sale = stage.order(&self.product, "yookassa").await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move { stage.until(&self.sale, "expired").await })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "expired");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 0), "the goods are back on the shelf");
        })
    }
}
