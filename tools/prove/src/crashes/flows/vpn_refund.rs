//! Money back for access: a part takes its part of the time, the rest takes the access.

use serde_json::json;

use super::vpn::{MONTH_MS, NETWORK, times};
use super::{CUSTOMER, Flow, Sale, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// A sold month of which a third goes back to the balance, and then the rest through YooKassa.
#[derive(Default)]
pub struct VpnRefund {
    sale: Sale,
}

impl VpnRefund {
    /// Seconds that refunds took of the only period.
    async fn taken(stage: &Stage) -> i64 {
        stage.subscription(CUSTOMER).await["periods"][0]["taken"].as_i64().unwrap_or(0)
    }
}

impl Flow for VpnRefund {
    fn name(&self) -> &'static str {
        "vpn-refund"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            let product = stage.month().await;
            self.sale = stage.sell(&product, "yookassa").await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let path = format!("/api/v1/orders/{}/refund", self.sale.order);
            let third = json!({ "to": "balance", "amount": "330.00", "reason": "asked for" });
            stage.by_hand(&path, &third, "third", &[200]).await;
            let patience = Patience::of("a third of the time goes back", 120);
            while Self::taken(stage).await == 0 {
                pause(&patience).await;
            }
            let access = stage.subscription(CUSTOMER).await;
            let (end, began) = times(&access);
            assert_eq!((end, Self::taken(stage).await), (began + MONTH_MS / 3 * 2, 10 * 86_400), "ten days of thirty");
            assert_eq!(access["state"], "active");

            let rest = json!({ "to": "provider", "amount": "660.00", "reason": "asked for" });
            stage.by_hand(&path, &rest, "rest", &[200]).await;
            stage.until(&self.sale, "refunded").await;
            stage.tell().await;
            stage.until_access(CUSTOMER, "revoked", &[]).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "refunded");
            let (provider, id) = self.sale.there();
            let there = stage.world.sandbox.payment(provider, id).expect("the payment is there");
            assert_eq!(there.refunded, 66_000, "given back once");
            assert_eq!(stage.balance(CUSTOMER).await, "330.00", "and the third on the balance");
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "revoked");
            assert_eq!(Self::taken(stage).await, 30 * 86_400, "all of the time, and not more");
            assert!(stage.agreed().await.is_empty(), "the peer left file and interface");
            let resting = (stage.addresses("held").await, stage.addresses("quarantine").await);
            assert_eq!(resting, (0, 1), "its address rests before anybody else gets it");
        })
    }
}
