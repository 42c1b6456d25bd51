//! VPN access by buttons: a trial, the file again, a renewal; a second trial is refused.

use std::collections::BTreeSet;

use super::bot::{TO_PAY, UNPAID};
use super::vpn::NETWORK;
use super::{CUSTOMER, Flow, Step};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items};

/// Somebody who tries it, and stays.
pub struct BotAccess;

impl BotAccess {
    async fn until_files(stage: &Stage, count: usize) {
        let patience = Patience::of(format!("the customer has {count} files"), 120);
        while stage.files(CUSTOMER).len() < count {
            pause(&patience).await;
        }
    }
}

impl Flow for BotAccess {
    fn name(&self) -> &'static str {
        "bot-access"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(NETWORK);
            stage.with_polling();
            stage.world.sandbox.set_language(CUSTOMER, "en");
            stage.start_with_vpn().await;
            stage.month().await;
            stage.tells(CUSTOMER, "/start", "Hello!").await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.presses(CUSTOMER, "My access", "You have no VPN access yet.").await;
            stage.taps(CUSTOMER, "Try for free");
            stage.taps(CUSTOMER, "Try for free");
            stage.until_said(CUSTOMER, "Your trial has begun", 1).await;
            Self::until_files(stage, 1).await;
            stage.tells(CUSTOMER, "/trial", "A trial is given once").await;
            stage.tells(CUSTOMER, "/subscription", "Access: trial").await;
            stage.presses(CUSTOMER, "File for device 1", "Sending it again.").await;
            Self::until_files(stage, 2).await;
            stage.presses(CUSTOMER, "Renew", TO_PAY).await;
            stage.presses(CUSTOMER, "Card", UNPAID).await;
            let sale = stage.only_order(CUSTOMER).await;
            stage.pay(&sale);
            stage.tell().await;
            stage.until(&sale, "delivered").await;
            stage.tells(CUSTOMER, "/subscription", "Access: active").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let all = items(&stage.get(&format!("/api/v1/subscriptions?customer={CUSTOMER}")).await);
            assert_eq!(all.len(), 1, "one trial, and the same access goes on: {all:?}");
            let access = stage.subscription(CUSTOMER).await;
            assert_eq!(access["state"], "active");
            let files = stage.files(CUSTOMER);
            assert_eq!(files.iter().collect::<BTreeSet<_>>().len(), 1, "the same file, however often it comes");
            assert!(files.len() >= 2, "given once and asked for once more");
            assert_eq!(stage.agreed().await.len(), 1);
        })
    }
}
