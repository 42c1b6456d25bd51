//! A webhook that never comes: the payment's own job asks.

use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// Payment, no webhook, goods.
#[derive(Default)]
pub struct LostWebhook {
    sale: Sale,
}

impl Flow for LostWebhook {
    fn name(&self) -> &'static str {
        "lost-webhook"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            self.sale = stage.order(&product, "yookassa").await;
            stage.stop_plain().await;
        })
    }

    /// The first look comes after a quarter of a minute. Nobody waits for it thousands of times: a look that is planned
    /// is brought forward. A job in any other state has to go on by itself.
    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            stage.lose();
            let patience = Patience::of("a payment that nobody told of is found", 120);
            let mut tries = 0;
            while stage.status(&self.sale).await != "delivered" {
                let ready = items(&stage.get("/api/v1/jobs?state=ready&limit=200").await);
                let asks = ready.iter().find(|job| job["kind"] == "payment.confirm" && job["error"].is_null());
                if let Some(job) = asks {
                    tries += 1;
                    let retry = format!("/api/v1/jobs/{}/retry", text(&job["id"]));
                    stage.post_once(&retry, &json!({}), &format!("look-{tries}")).await;
                }
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.handed(CUSTOMER, 1);
        })
    }
}
