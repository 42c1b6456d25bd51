//! The first start with a VPN, and a trial: once per person, however often the request is repeated.

use serde_json::json;

use super::vpn::{NETWORK, live_peers, opens, times};
use super::{CUSTOMER, Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items};

const TRIAL_MS: i64 = 3 * 86_400_000;

/// A server that is laid out for the first time, and a person who tries it.
pub struct VpnTrial;

impl Flow for VpnTrial {
    fn name(&self) -> &'static str {
        "vpn-trial"
    }

    /// The addresses of the network are written while the program starts.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.with_vpn(NETWORK);
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let person = json!({ "customer": { "telegram_id": CUSTOMER } });
            stage.vpn_is_up().await;
            stage.by_hand("/api/v1/subscriptions/trial", &person, "trial", &[201]).await;
            stage.by_hand("/api/v1/subscriptions/trial", &person, "trial-again", &[409]).await;
            let patience = Patience::of("the customer has the file", 120);
            while stage.files(CUSTOMER).is_empty() {
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let all = items(&stage.get(&format!("/api/v1/subscriptions?customer={CUSTOMER}")).await);
            assert_eq!(all.len(), 1, "one trial for one person: {all:?}");
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "trial");
            let (end, began) = times(&access);
            assert_eq!(end, began + TRIAL_MS);
            let peers = live_peers(&access);
            assert_eq!(peers.len(), 1);
            opens(&stage.given_files(CUSTOMER, 1), &peers[0]);
            assert_eq!(stage.agreed().await.len(), 1);
            assert_eq!((stage.addresses("held").await, stage.addresses("quarantine").await), (1, 0));
        })
    }
}
