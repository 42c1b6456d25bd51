//! The owner hears of trouble at most once; what nobody knows about is listed, never sent again.

use serde_json::json;

use super::{CUSTOMER, Flow, OWNER, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// Money for an order that was called off: it goes to the balance, and the owner is told.
#[derive(Default)]
pub struct OwnerAlert {
    product: String,
    sale: Sale,
}

impl Flow for OwnerAlert {
    fn name(&self) -> &'static str {
        "owner-alert"
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
        Box::pin(async move {
            let path = format!("/api/v1/orders/{}/cancel", self.sale.order);
            let answer = stage.post(&path, &json!({ "reason": "changed my mind" }), "cancel").await;
            assert_eq!(answer.status, 200, "an order is called off: {}", answer.text);
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until_balance(CUSTOMER, "990.00").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "cancelled");
            assert_eq!(stage.balance(CUSTOMER).await, "990.00", "booked once");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 0));
            let told = stage.world.sandbox.chat(OWNER);
            let alerts = told.iter().filter(|message| message.text.contains("balance: cancelled")).count();
            let least = usize::from(!stage.was_disturbed());
            assert!((least..=1).contains(&alerts), "the owner is told once, not {alerts} times: {told:?}");
        })
    }
}
