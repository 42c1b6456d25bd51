//! Money that the provider only holds: the program takes it, and only then are there goods.

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// A payment at YooKassa that waits to be captured.
#[derive(Default)]
pub struct Held {
    sale: Sale,
}

impl Flow for Held {
    fn name(&self) -> &'static str {
        "held-payment"
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
            let (provider, id) = self.sale.there();
            stage.world.sandbox.hold(provider, id).unwrap_or_else(|error| panic!("{error}"));
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            // That it was captured is a notice of its own.
            stage.tell().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            let (provider, id) = self.sale.there();
            let there = stage.world.sandbox.payment(provider, id).expect("the payment is there");
            assert_eq!(there.captured, there.amount_minor, "all of it was taken");
            stage.handed(CUSTOMER, 1);
        })
    }
}
