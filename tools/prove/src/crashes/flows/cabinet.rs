//! A refund that the owner made in the provider's cabinet, and whose notice was lost: the sweep finds it.

use super::{Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// A sold key, refunded at YooKassa behind our back; the hour's sweep is due.
#[derive(Default)]
pub struct Cabinet {
    sale: Sale,
}

impl Flow for Cabinet {
    fn name(&self) -> &'static str {
        "cabinet-refund"
    }

    /// No setting makes the sweep come sooner. Its tick is made due while the program is down, and found at its start.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(2)).await;
            self.sale = stage.sell(&product, "yookassa").await;
            stage.rest().await;
            stage.stop_plain().await;
            let (_, id) = self.sale.there();
            stage.world.sandbox.refund_at_yookassa(id, None, false).unwrap_or_else(|error| panic!("{error}"));
            stage.ticks_are_due().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move { stage.until(&self.sale, "refunded").await })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let shown = stage.show(&self.sale.order).await;
            assert_eq!(shown["status"], "refunded");
            assert_eq!(shown["payment"]["refunded"]["amount"], "990.00", "booked once");
        })
    }
}
