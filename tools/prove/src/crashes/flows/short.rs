//! Too little money: it goes to the balance, and the order waits on.

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// An invoice of 990 at Heleket that 900 come for.
#[derive(Default)]
pub struct Short {
    product: String,
    sale: Sale,
}

impl Flow for Short {
    fn name(&self) -> &'static str {
        "short-payment"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            self.product = stage.product(&keys(3)).await;
            self.sale = stage.order(&self.product, "heleket").await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let (provider, id) = self.sale.there();
            let paid = stage.world.sandbox.pay_amount(provider, id, "900.00");
            paid.unwrap_or_else(|error| panic!("{error}"));
            stage.tell().await;
            stage.until_balance(CUSTOMER, "900.00").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let shown = stage.show(&self.sale.order).await;
            assert_eq!(shown["status"], "pending");
            assert_eq!(shown["payment"]["status"], "short");
            assert_eq!(stage.balance(CUSTOMER).await, "900.00", "booked once");
            assert_eq!(stage.levels(&self.product).await, (2, 1, 0), "its key is still held");
            assert!(stage.world.keys(CUSTOMER).is_empty(), "and not handed over");
        })
    }
}
