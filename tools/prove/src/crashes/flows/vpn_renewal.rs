//! Access that expired and is bought again: the same file works, with the same key and the same address.

use std::collections::BTreeMap;

use super::vpn::{MONTH_MS, NETWORK, holdings, times};
use super::{CUSTOMER, Flow, Sale, Step};
use crate::crashes::stage::Stage;

/// A month is over.
pub const MONTH_OVER: &[&str] = &[
    "update subscriptions set paid_until = semel_now() - 1000, since = since - 2592000000",
    "update jobs set run_at = semel_now() - 1000 where kind = 'subscription.clock' and state = 'ready'",
];

/// An expired subscription, and an order that revives it.
#[derive(Default)]
pub struct VpnRenewal {
    product: String,
    sale: Sale,
    held: BTreeMap<i64, (String, String)>,
}

impl Flow for VpnRenewal {
    fn name(&self) -> &'static str {
        "vpn-renewal"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            self.product = stage.month().await;
            stage.sell(&self.product, "yookassa").await;
            stage.rest().await;
            self.held = holdings(&stage.subscription(CUSTOMER).await);
            stage.stop_plain().await;
            stage.plant(MONTH_OVER).await;
            stage.start_plain().await;
            stage.until_access(CUSTOMER, "expired", &["sticky"]).await;
            assert!(stage.agreed().await.is_empty(), "who does not pay is not on the interface");
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let wanted = super::one_of(&self.product, CUSTOMER, "yookassa");
            self.sale = stage.order_as(&wanted, "order-again").await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            stage.until_access(CUSTOMER, "active", &["active"]).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "active");
            assert_eq!(access["periods"].as_array().map(Vec::len), Some(2), "each sale added its time once");
            let (end, began) = times(&access);
            assert_eq!(end, began + MONTH_MS, "what had expired begins again now");
            assert_eq!(holdings(&access), self.held, "key and address are the ones that the customer has");
            assert_eq!(access["peers"].as_array().map(Vec::len), Some(1), "and there never was another peer");
            stage.given_files(CUSTOMER, 1);
            assert_eq!(stage.agreed().await.len(), 1);
        })
    }
}
