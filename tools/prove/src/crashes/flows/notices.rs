//! Notices in the owner's words: saved without a restart, used for money and for a reminder, each told once; and a customer who
//! wants no campaigns.

use serde_json::json;

use super::vpn::NETWORK;
use super::{CUSTOMER, Flow, Sale, Step};
use crate::crashes::stage::Stage;
use crate::program::items;

/// Two days of a month are left.
const ENDS_SOON: &[&str] = &[
    "update subscriptions set paid_until = semel_now() + 172800000, since = since - 2592000000",
    "update jobs set run_at = semel_now() - 1000 where kind = 'subscription.clock' and state = 'ready'",
];
const REMINDER: &str = "Скоро конец:";
const MONEY: &str = "Плюс 1000.00 RUB, номер ";

/// A month that ends soon, and a top-up.
#[derive(Default)]
pub struct Notices {
    topup: Sale,
}

impl Notices {
    async fn text(stage: &Stage, kind: &str, html: &str) {
        let body = json!({ "language": "ru", "html": html });
        let own = stage.by_hand(&format!("/api/v1/notices/{kind}"), &body, &format!("text-{kind}"), &[200]).await;
        assert_eq!(own["texts"][0]["html"], html);
    }
}

impl Flow for Notices {
    fn name(&self) -> &'static str {
        "notices"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            let month = stage.month().await;
            stage.sell(&month, "yookassa").await;
            let price = json!({ "amount": "1000.00", "currency": "RUB" });
            let topup = json!({ "title": "Balance", "kind": "topup", "price": price });
            let topup = stage.product_of(&topup, "topup").await;
            self.topup = stage.order_as(&super::one_of(&topup, CUSTOMER, "yookassa"), "order-topup").await;
            // The reminder comes as soon as the next program starts.
            Self::text(stage, "vpn_ends", &format!("{REMINDER} <b>{{until}}</b>")).await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.plant(ENDS_SOON).await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            Self::text(stage, "balance", "Плюс {amount}, номер {number}").await;
            let off = json!({ "customer": CUSTOMER, "off": true });
            stage.by_hand("/api/v1/notices/campaign/switch", &off, "switch", &[200]).await;
            stage.by_hand("/api/v1/notices/balance/switch", &off, "no-switch", &[409]).await;
            stage.until_said(CUSTOMER, REMINDER, 1).await;
            stage.pay(&self.topup);
            stage.tell().await;
            stage.until_balance(CUSTOMER, "1000.00").await;
            stage.until_said(CUSTOMER, MONEY, 1).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.balance(CUSTOMER).await, "1000.00");
            for words in [REMINDER, MONEY] {
                let told = stage.times_said(CUSTOMER, words);
                assert!((1..=1 + stage.lost()).contains(&told), "{words} came {told} times");
            }
            let kinds = items(&stage.get(&format!("/api/v1/notices?customer={CUSTOMER}")).await);
            let off: Vec<_> =
                kinds.iter().filter(|kind| kind["switched_off"] == true).map(|kind| &kind["kind"]).collect();
            assert_eq!(off, [&json!("campaign")], "one switch, and no more");
            let own = kinds.iter().filter(|kind| kind["texts"] != json!([])).count();
            assert_eq!(own, 2, "two kinds in the owner's words");
        })
    }
}
