//! A tool that fails while hundreds of peers come, and again while they go: nobody is lost, and when it works again a few calls
//! bring everything about.

use serde_json::json;

use super::{Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, text};

/// With ten devices each they are more peers than one transaction writes.
const GRANTS: i64 = 51;
const DEVICES: i64 = 10;
const WIDE: &str = "10.8.0.0/22";
const FIRST: i64 = 5_000;

/// Hundreds of peers that wait for a broken tool.
#[derive(Default)]
pub struct VpnBurst {
    subscriptions: Vec<String>,
}

impl VpnBurst {
    async fn apply(stage: &Stage, round: u32) {
        stage.by_hand("/api/v1/servers/local/apply", &json!({}), &format!("apply-{round}"), &[202]).await;
    }

    /// Waits until all addresses of the wide network stand as they shall.
    async fn until(stage: &Stage, what: &str, number: i64) {
        let patience = Patience::of(format!("{number} addresses are {what}"), 180);
        loop {
            let server = stage.get("/api/v1/servers/local").await;
            if server.body["in_step"] == true && server.body["pools"][0][what] == number {
                return;
            }
            pause(&patience).await;
        }
    }
}

impl Flow for VpnBurst {
    fn name(&self) -> &'static str {
        "vpn-burst"
    }

    /// Without a bot: a thousand messages would only take their time.
    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("SEMEL_TELEGRAM_BOT_TOKEN".into(), String::new()), ("SEMEL_TELEGRAM_ADMIN_IDS".into(), String::new())]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(WIDE);
            stage.start_with_vpn().await;
            stage.rest().await;
            stage.tool_is_broken(true);
            for n in 0..GRANTS {
                let grant = json!({
                    "customer": { "telegram_id": FIRST + n }, "days": 30, "devices": DEVICES, "reason": "a company",
                });
                let made = stage.by_hand("/api/v1/subscriptions", &grant, &format!("grant-{n}"), &[201]).await;
                self.subscriptions.push(text(&made["id"]));
            }
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.tool_is_broken(false);
            Self::apply(stage, 1).await;
            Self::until(stage, "held", GRANTS * DEVICES).await;
            stage.tool_is_broken(true);
            for (n, id) in self.subscriptions.iter().enumerate() {
                let path = format!("/api/v1/subscriptions/{id}/revoke");
                stage.by_hand(&path, &json!({ "reason": "they closed" }), &format!("revoke-{n}"), &[200]).await;
            }
            stage.tool_is_broken(false);
            Self::apply(stage, 2).await;
            Self::until(stage, "quarantine", GRANTS * DEVICES).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert!(stage.agreed().await.is_empty(), "all of them left file and interface");
            let server = stage.get("/api/v1/servers/local").await;
            assert!(server.body["trouble"].is_null(), "{}", server.text);
            assert_eq!(server.body["pools"][0]["held"], 0);
            assert_eq!(server.body["pools"][0]["quarantine"], GRANTS * DEVICES);
        })
    }
}
