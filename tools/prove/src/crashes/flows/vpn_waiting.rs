//! The last address is taken: a paid order waits, and is served when an address has rested.

use super::vpn::{live_peers, opens};
use super::{CUSTOMER, Flow, Sale, Step, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// Who waits.
const OTHER: i64 = 43;
/// One address beside the server's own.
const TINY: &str = "10.8.0.0/30";

/// Two days have passed since an address was freed.
const RESTED: &[&str] = &[
    "update peer_addresses set since = since - 172800000, freed_at = freed_at - 172800000 where freed_at is not null",
    "update addresses set since = since - 172800000, until = semel_now() - 1000 where state = 'quarantine'",
];

/// A network with one address: its holder got the money back, and somebody else has paid.
#[derive(Default)]
pub struct VpnWaiting {
    waiting: Sale,
}

impl Flow for VpnWaiting {
    fn name(&self) -> &'static str {
        "vpn-waiting"
    }

    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(TINY);
            stage.start_with_vpn().await;
            let product = stage.month().await;
            let first = stage.sell(&product, "yookassa").await;
            self.waiting = stage.order_as(&one_of(&product, OTHER, "yookassa"), "order-other").await;
            stage.pay(&self.waiting);
            stage.tell().await;
            stage.until(&self.waiting, "awaiting_stock").await;
            stage.refund(&first, "balance").await;
            stage.until(&first, "refunded").await;
            stage.until_access(CUSTOMER, "revoked", &[]).await;
            stage.rest().await;
            assert_eq!(stage.status(&self.waiting).await, "awaiting_stock", "an address rests before somebody gets it");
            assert_eq!(stage.addresses("quarantine").await, 1);
            stage.stop_plain().await;
            stage.plant(RESTED).await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let patience = Patience::of("the address comes free and the order is served", 180);
            let mut round = 0;
            while stage.status(&self.waiting).await != "delivered" {
                round += 1;
                // It comes free at the end of the minute; nobody waits thousands of times for that.
                stage.run_now("vpn.release", round).await;
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.waiting).await, "delivered");
            let access = stage.subscription(OTHER).await;
            let peers = live_peers(&access);
            assert_eq!((&access["state"], peers.len()), (&"active".into(), 1));
            opens(&stage.given_files(OTHER, 1), &peers[0]);
            assert_eq!(stage.subscription(CUSTOMER).await["state"], "revoked");
            let agreed = stage.agreed().await;
            assert_eq!(agreed.len(), 1, "never two customers on one address: {agreed:?}");
            assert_eq!((stage.addresses("held").await, stage.addresses("free").await), (1, 0));
        })
    }
}
