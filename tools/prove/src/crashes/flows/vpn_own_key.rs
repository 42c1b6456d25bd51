//! A customer who brings a key: the old peer goes, its address rests, and the new file holds no private key. The file by a link
//! that works once.

use serde_json::json;

use super::vpn::{NETWORK, live_peers, own_key};
use super::{CUSTOMER, Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, text};

/// A sold month whose key is replaced.
#[derive(Default)]
pub struct VpnOwnKey {
    subscription: String,
    peer: String,
}

impl VpnOwnKey {
    /// Files that came without a private key.
    fn without_key(stage: &Stage) -> usize {
        stage.files(CUSTOMER).iter().filter(|file| file.contains("# PrivateKey = <yours>")).count()
    }
}

impl Flow for VpnOwnKey {
    fn name(&self) -> &'static str {
        "vpn-own-key"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            let product = stage.month().await;
            stage.sell(&product, "yookassa").await;
            stage.rest().await;
            let access = stage.subscription(CUSTOMER).await;
            self.subscription = text(&access["id"]);
            self.peer = text(&live_peers(&access)[0]["id"]);
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let path = format!("/api/v1/peers/{}/key", self.peer);
            stage.by_hand(&path, &json!({ "public_key": own_key() }), "own", &[200]).await;
            stage.until_access(CUSTOMER, "active", &["active"]).await;
            let patience = Patience::of("the new file is with the customer", 120);
            while Self::without_key(stage) == 0 {
                pause(&patience).await;
            }
            // Who does not know whether the file was given asks for another link.
            let link = format!("/api/v1/subscriptions/{}/link", self.subscription);
            let made = stage.by_hand(&link, &json!({}), "link", &[201]).await;
            let url = text(&made["url"]);
            let at = url.find("/vpn/").expect("a link to a file");
            let given = stage.post(&url[at..], &json!({}), "download").await;
            assert!(given.status == 200 || (given.status == 410 && stage.was_disturbed()), "a link gives its file");
            let again = stage.post(&url[at..], &json!({}), "download-again").await;
            assert_eq!(again.status, 410, "and once only: {}", again.text);
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "active");
            let peers = live_peers(&access);
            assert_eq!(peers.len(), 1, "the old peer is freed");
            assert_eq!((&peers[0]["public_key"], &peers[0]["own_key"]), (&own_key().into(), &true.into()));
            assert_eq!(access["peers"].as_array().map(Vec::len), Some(2), "replaced once");
            stage.given_files(CUSTOMER, 2);
            let agreed = stage.agreed().await;
            assert_eq!(agreed.keys().cloned().collect::<Vec<_>>(), [own_key()]);
            assert_eq!((stage.addresses("held").await, stage.addresses("quarantine").await), (1, 1));
        })
    }
}
