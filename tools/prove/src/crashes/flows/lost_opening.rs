//! A payment whose opening was never answered: nobody here knows the provider's id of it, and a notice names nothing else.

use semel_sandbox::{Fault, Provider, Target};
use serde_json::{Value, json};

use super::{CUSTOMER, Flow, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// An order whose customer pays by a link that the shop never saw.
#[derive(Default)]
pub struct LostOpening {
    sale: Sale,
}

impl Flow for LostOpening {
    fn name(&self) -> &'static str {
        "lost-opening"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            let sandbox = &stage.world.sandbox;
            let opening = Target::Api(Provider::Yookassa, "POST /payments".into());
            let lost = sandbox.fault(opening, Fault::CutAfter, None);
            stage.post_once("/api/v1/orders", &one_of(&product, CUSTOMER, "yookassa"), "order").await;
            sandbox.lift_fault(lost);
            let orders = items(&stage.get(&format!("/api/v1/orders?customer={CUSTOMER}&limit=20")).await);
            let there = sandbox.payments(Provider::Yookassa);
            assert_eq!((orders.len(), there.len()), (1, 1), "the order is there, and its payment at the provider");
            self.sale =
                Sale { order: text(&orders[0]["id"]), payment: Some((Provider::Yookassa, there[0].id.clone())) };
            stage.stop_plain().await;
        })
    }

    /// The notice says which payment was paid and not whose it is: as if somebody had made it in the cabinet. It comes before
    /// the payment's own job looks, which opens it again under the same key.
    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            stage.lose();
            let (provider, id) = self.sale.there();
            let notice =
                stage.world.sandbox.notice(provider, id, "succeeded").unwrap_or_else(|error| panic!("{error}"));
            let mut body: Value = serde_json::from_slice(&notice.body).expect("a notice is JSON");
            body["object"]["metadata"] = json!({});
            let patience = Patience::of("the notice is acknowledged", 120);
            while stage.world.sandbox.forge(provider, body.to_string(), &[]).await.status != Some(200) {
                pause(&patience).await;
            }
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.world.sandbox.payments(Provider::Yookassa).len(), 1, "one key, one payment");
            stage.handed(CUSTOMER, 1);
        })
    }
}
