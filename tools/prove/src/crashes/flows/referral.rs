//! A share for who brought the customer, and its way back with the refund.

use serde_json::json;

use super::{CUSTOMER, Flow, Sale, Step, keys, one_of};
use crate::crashes::stage::Stage;

const REFERRER: i64 = 7;

/// A first purchase through a friend's link, then its refund.
#[derive(Default)]
pub struct Referral {
    sale: Sale,
}

impl Flow for Referral {
    fn name(&self) -> &'static str {
        "referral"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("SEMEL_SHOP_REFERRAL_REWARD_PERCENT".into(), "10".into())]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            // Only somebody whom the shop knows can be rewarded.
            stage.order_as(&one_of(&product, REFERRER, "yookassa"), "order-of-referrer").await;
            let mut wanted = one_of(&product, CUSTOMER, "yookassa");
            wanted["customer"]["referrer_telegram_id"] = json!(REFERRER);
            self.sale = stage.order_as(&wanted, "order-of-customer").await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            stage.until_balance(REFERRER, "99.00").await;
            stage.refund(&self.sale, "balance").await;
            stage.until(&self.sale, "refunded").await;
            stage.until_balance(REFERRER, "0.00").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "refunded");
            assert_eq!(stage.balance(REFERRER).await, "0.00", "granted once, taken back once");
            assert_eq!(stage.balance(CUSTOMER).await, "990.00");
            stage.handed(CUSTOMER, 1);
        })
    }
}
