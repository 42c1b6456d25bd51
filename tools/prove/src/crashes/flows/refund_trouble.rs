//! Refunds that do not go as they should: refused, told to wait, unanswered, and made in the cabinet without a word of the
//! sum.

use semel_sandbox::{Fault, HELEKET_PAYOUT_KEY, Provider, Target};
use serde_json::{Value, json};

use super::{CUSTOMER, Flow, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// Whose refund Heleket answers with "slower", and then with nothing.
const UNHEARD: i64 = 43;
/// Who paid too much and got the rest back by the owner's hand.
const BY_HAND: i64 = 44;
const WALLET: &str = "TXk9Qm2v7WnB4rYh8sLpJd3fGz6cVtA1Ex";
/// The end of a try that nobody may repeat: a person decides.
const UNDECIDED: &str = "it is not repeated";

/// Three sold keys, one at YooKassa and two at Heleket for a coin.
#[derive(Default)]
pub struct RefundTrouble {
    refused: Sale,
    unheard: Sale,
    by_hand: Sale,
}

impl RefundTrouble {
    async fn coins(stage: &Stage, product: &str, customer: i64, sum: Option<&str>) -> Sale {
        let sale = stage.order_as(&one_of(product, customer, "heleket"), &format!("order-{customer}")).await;
        let (provider, id) = sale.there();
        let sandbox = &stage.world.sandbox;
        let paid = match sum {
            Some(sum) => sandbox.pay_amount(provider, id, sum),
            None => sandbox.pay(provider, id),
        };
        paid.unwrap_or_else(|error| panic!("{error}"));
        stage.tell().await;
        stage.until(&sale, "delivered").await;
        sale
    }

    async fn refund(stage: &Stage, sale: &Sale, wanted: Value, key: &str) {
        stage.by_hand(&format!("/api/v1/orders/{}/refund", sale.order), &wanted, key, &[200]).await;
    }

    /// What went back of a sale, as its provider knows.
    fn went_back(stage: &Stage, sale: &Sale) -> i64 {
        let (provider, id) = sale.there();
        stage.world.sandbox.payment(provider, id).map_or(0, |there| there.refunded)
    }
}

impl Flow for RefundTrouble {
    fn name(&self) -> &'static str {
        "refund-trouble"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("SEMEL_HELEKET_PAYOUT_KEY".into(), HELEKET_PAYOUT_KEY.into())]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(2)).await;
            self.refused = stage.sell(&product, "yookassa").await;
            let price = json!({ "amount": "10.00", "currency": "USDT" });
            let licence = json!({ "title": "Licence for a coin", "kind": "stock", "price": price });
            let product = stage.product_of(&licence, "product-for-a-coin").await;
            let goods: Vec<String> = (1..=2).map(|n| format!("KEY-C{n}")).collect();
            stage.stock(&product, &goods, "stock-for-a-coin").await;
            self.unheard = Self::coins(stage, &product, UNHEARD, None).await;
            self.by_hand = Self::coins(stage, &product, BY_HAND, Some("15.00")).await;
            stage.rest().await;
            stage.stop_plain().await;
            let (_, id) = self.by_hand.there();
            let given = stage.world.sandbox.refund_at_heleket(id, Some("5.00"), false);
            given.unwrap_or_else(|error| panic!("{error}"));
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let sandbox = &stage.world.sandbox;
            let refusing = Target::Api(Provider::Yookassa, "POST /refunds".into());
            let refusing = sandbox.fault(refusing, Fault::Status(400), None);
            Self::refund(stage, &self.refused, json!({ "to": "provider" }), "refund-refused").await;
            stage.until(&self.refused, "delivered").await;
            sandbox.lift_fault(refusing);

            let made = json!({ "to": "made", "amount": "5.00" });
            Self::refund(stage, &self.by_hand, made, "refund-by-hand").await;

            let giving = || Target::Api(Provider::Heleket, "/v1/payment/refund".into());
            sandbox.fault(giving(), Fault::TooMany { retry_after: 1 }, Some(1));
            sandbox.fault(giving(), Fault::CutAfter, Some(1));
            let wanted = json!({ "to": "provider", "address": WALLET });
            Self::refund(stage, &self.unheard, wanted, "refund-unheard").await;
            let patience = Patience::of("the money goes back", 120);
            while Self::went_back(stage, &self.unheard) == 0 {
                // Whoever dies beside the only call leaves nobody knowing whether it was made. The owner sees in the cabinet that
                // it was not, and gives the money back there.
                if !stage.troubled("refund.run", "ready", UNDECIDED).await.is_empty()
                    && Self::went_back(stage, &self.unheard) == 0
                {
                    let (_, id) = self.unheard.there();
                    sandbox.refund_at_heleket(id, None, true).unwrap_or_else(|error| panic!("{error}"));
                }
                pause(&patience).await;
            }
            stage.tell().await;
            stage.until(&self.unheard, "refunded").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.refused).await, "delivered", "a refusal leaves the order as it was");
            assert_eq!(Self::went_back(stage, &self.refused), 0);
            let unheard = stage.show(&self.unheard.order).await;
            assert_eq!(unheard["status"], "refunded");
            assert_eq!(unheard["payment"]["refunded"]["amount"], "10.000000", "booked once");
            assert_eq!(Self::went_back(stage, &self.unheard), 10_000_000, "and given back once");
            assert_eq!(stage.status(&self.by_hand).await, "delivered", "just the rest went back");
            assert_eq!(stage.balance(BY_HAND).await, "0.000000");
            stage.handed(CUSTOMER, 1);
        })
    }
}
