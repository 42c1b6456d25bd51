//! One order, paid at two providers: the goods once, the other money to the balance.

use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// An order for YooKassa that its customer wants to pay at Heleket, and then pays at both.
#[derive(Default)]
pub struct SecondPayment {
    first: Sale,
}

impl Flow for SecondPayment {
    fn name(&self) -> &'static str {
        "second-payment"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            self.first = stage.order(&product, "yookassa").await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let path = format!("/api/v1/orders/{}/pay", self.first.order);
            let answer = stage.post(&path, &json!({ "provider": "heleket" }), "pay-otherwise").await;
            assert_eq!(answer.status, 200, "another payment is opened: {}", answer.text);
            let second = stage.opened(&self.first.order).await;
            stage.pay(&second);
            stage.pay(&self.first);
            stage.tell().await;
            stage.until(&self.first, "delivered").await;
            stage.until_balance(CUSTOMER, "990.00").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.first).await, "delivered");
            assert_eq!(stage.balance(CUSTOMER).await, "990.00", "booked once");
            stage.handed(CUSTOMER, 1);
        })
    }
}
