//! The end of access: nobody pays, the peer leaves file and interface, address and keys are kept.

use super::vpn::{NETWORK, live_peers};
use super::vpn_renewal::MONTH_OVER;
use super::{CUSTOMER, Flow, Step};
use crate::crashes::stage::Stage;

/// A subscription whose time ran out while the program was down.
pub struct VpnEnd;

impl Flow for VpnEnd {
    fn name(&self) -> &'static str {
        "vpn-end"
    }

    /// What the program does while it starts belongs to it: the server's row, the first apply, the first look at the traffic.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            let product = stage.month().await;
            stage.sell(&product, "yookassa").await;
            stage.rest().await;
            assert_eq!(stage.agreed().await.len(), 1);
            stage.stop_plain().await;
            stage.plant(MONTH_OVER).await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move { stage.until_access(CUSTOMER, "expired", &["sticky"]).await })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "expired");
            let peers = live_peers(&access);
            assert_eq!((peers.len(), &peers[0]["state"]), (1, &"sticky".into()), "the lease is kept");
            assert!(stage.agreed().await.is_empty(), "the peer left file and interface");
            assert_eq!(stage.addresses("held").await, 1, "and nobody else gets its address");
            stage.given_files(CUSTOMER, 1);
        })
    }
}
