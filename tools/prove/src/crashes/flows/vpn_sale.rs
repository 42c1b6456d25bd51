//! VPN access, from the order to the file in the customer's chat.

use super::vpn::{MONTH_MS, NETWORK, live_peers, opens, times};
use super::{CUSTOMER, Flow, Sale, Step};
use crate::crashes::stage::Stage;

/// Order, payment, webhook, peer in file and on the interface, file and picture.
#[derive(Default)]
pub struct VpnSale {
    product: String,
    sale: Sale,
}

impl Flow for VpnSale {
    fn name(&self) -> &'static str {
        "vpn-sale"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            self.product = stage.month().await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.sale = stage.order(&self.product, "yookassa").await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "active");
            assert_eq!(access["periods"].as_array().map(Vec::len), Some(1), "the time was sold once");
            let (end, began) = times(&access);
            assert_eq!(end, began + MONTH_MS, "a month from the sale");
            let peers = live_peers(&access);
            assert_eq!(peers.len(), 1, "one device is one peer");
            opens(&stage.given_files(CUSTOMER, 1), &peers[0]);
            let pictures = stage.world.sandbox.chat(CUSTOMER).into_iter().filter(|message| message.photo.is_some());
            let pictures = pictures.count();
            assert!((1..=1 + stage.lost()).contains(&pictures), "{pictures} pictures came");
            assert_eq!(stage.agreed().await.len(), 1);
            assert_eq!(stage.addresses("held").await, 1, "one address for one device");
        })
    }
}
