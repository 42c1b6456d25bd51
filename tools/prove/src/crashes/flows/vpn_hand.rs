//! The owner's hand on access: given, extended, stopped for a while, ended; another server, a file that is looked into, an apply
//! at once.

use std::collections::BTreeMap;

use serde_json::json;

use super::vpn::{NETWORK, holdings, own_key, strays_key};
use super::{CUSTOMER, Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, text};

/// Whose access ends.
const OTHER: i64 = 43;
const DAY_MS: i64 = 86_400_000;

/// What the owner does on a busy day.
#[derive(Default)]
pub struct VpnHand {
    held: BTreeMap<i64, (String, String)>,
}

impl VpnHand {
    async fn grant(stage: &Stage, customer: i64, devices: i64) -> String {
        let grant = json!({
            "customer": { "telegram_id": customer }, "days": 30, "devices": devices, "reason": "a friend of the shop",
        });
        let made = stage.by_hand("/api/v1/subscriptions", &grant, &format!("grant-{customer}"), &[201]).await;
        stage.until_access(customer, "active", &["active"]).await;
        text(&made["id"])
    }
}

impl Flow for VpnHand {
    fn name(&self) -> &'static str {
        "vpn-owners-hand"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.start_with_vpn().await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let friend = Self::grant(stage, CUSTOMER, 2).await;
            self.held = holdings(&stage.subscription(CUSTOMER).await);
            let because = json!({ "reason": "asked for" });
            let path = |what: &str| format!("/api/v1/subscriptions/{friend}/{what}");
            stage.by_hand(&path("extend"), &json!({ "days": 10, "reason": "a gift" }), "extend", &[200]).await;
            stage.by_hand(&path("freeze"), &because, "freeze", &[200]).await;
            stage.until_access(CUSTOMER, "frozen", &["sticky"]).await;
            stage.by_hand(&path("unfreeze"), &because, "unfreeze", &[200]).await;
            stage.until_access(CUSTOMER, "active", &["active"]).await;

            let other = Self::grant(stage, OTHER, 1).await;
            let path = format!("/api/v1/subscriptions/{other}/revoke");
            stage.by_hand(&path, &because, "revoke", &[200]).await;
            stage.until_access(OTHER, "revoked", &[]).await;

            let server = json!({
                "name": "far", "endpoint": "far.example.com:51820", "public_key": own_key(), "networks": ["10.70.0.0/28"],
            });
            // Who does not know what became of it asks again, and hears that it is there.
            stage.by_hand("/api/v1/servers", &server, "server", &[201, 409]).await;
            // Named once more, a network whose addresses were laid out in part is laid out to its end.
            for network in ["10.70.0.0/28", "10.71.0.0/28"] {
                let pool = json!({ "network": network });
                stage.by_hand("/api/v1/servers/far/pools", &pool, &format!("pool-{network}"), &[201]).await;
            }
            let file = json!({ "file": stage.conf_text(), "dry_run": false });
            stage.by_hand("/api/v1/servers/local/import", &file, "import", &[200]).await;
            // An address is kept for a peer that is none of ours, and the owner gives it back. After a start it may be back already.
            let stray = format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.8.0.200/32\n", strays_key());
            let stray = json!({ "file": stray, "dry_run": false });
            stage.by_hand("/api/v1/servers/local/import", &stray, "import-stray", &[200]).await;
            stage.by_hand("/api/v1/addresses/10.8.0.200/release", &json!({}), "release", &[200, 409]).await;
            // The key at hand opens everything, so nobody gets another one.
            let keys = json!({ "reason": "a look", "dry_run": false });
            let renewed = stage.by_hand("/api/v1/peers/new-keys", &keys, "new-keys", &[200]).await;
            assert_eq!(renewed["lost"], 0, "{renewed}");
            stage.by_hand("/api/v1/servers/local/apply", &json!({}), "apply", &[202]).await;
            for what in ["close", "open"] {
                stage.by_hand(&format!("/api/v1/servers/far/{what}"), &json!({}), what, &[200]).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let friend = stage.subscription(CUSTOMER).await;
            assert_eq!(friend["state"], "active");
            assert_eq!(holdings(&friend), self.held, "a stop leaves keys and addresses as they were");
            let periods = friend["periods"].as_array().cloned().unwrap_or_default();
            let seconds: i64 = periods.iter().filter_map(|period| period["seconds"].as_i64()).sum();
            assert_eq!((periods.len(), seconds * 1000), (2, 40 * DAY_MS), "given once and extended once");
            assert_eq!(stage.subscription(OTHER).await["state"], "revoked");
            // A second device's file comes within a minute where the first one's messages were called off.
            let patience = Patience::of("both devices have their files", 120);
            while stage.files(CUSTOMER).len() < 2 {
                pause(&patience).await;
            }
            stage.given_files(CUSTOMER, 2);
            assert_eq!(stage.agreed().await.len(), 2, "two devices of one customer, and nobody else");
            let plan = stage.get("/api/v1/servers/local/plan").await;
            assert_eq!(plan.body["in_step"], true, "{}", plan.text);
            let far = stage.get("/api/v1/servers/far").await;
            let pools = far.body["pools"].as_array().cloned().unwrap_or_default();
            let sizes: Vec<i64> = pools.iter().filter_map(|pool| pool["free"].as_i64()).collect();
            assert_eq!(sizes, [13, 13], "every address of both networks is laid out: {}", far.text);
            assert_eq!((stage.addresses("held").await, stage.addresses("quarantine").await), (2, 2));
        })
    }
}
