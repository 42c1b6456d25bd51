//! Tasks that fail: each is begun again, one that fails five times in a row is told to the owner, and the shop goes on.

use super::{CUSTOMER, Flow, OWNER, Sale, Step, keys};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// Each of these fails once in every process. The last three are there with a server only.
const ONCE: &[&str] = &[
    "bot",
    "campaigns",
    "care",
    "claims",
    "events",
    "messages",
    "money",
    "updates",
    "vpn",
    "stops",
    "notify",
    "listen",
];
/// This one fails so often that the owner hears of it.
const OFTEN: (&str, usize) = ("schedule", 5);

/// A sale while every task of the program fails.
#[derive(Default)]
pub struct Tasks {
    sale: Sale,
}

impl Tasks {
    fn was_told(stage: &Stage) -> bool {
        let words = format!("The task {} failed", OFTEN.0);
        stage.world.sandbox.chat(OWNER).iter().any(|message| message.text.contains(&words))
    }
}

impl Flow for Tasks {
    fn name(&self) -> &'static str {
        "tasks-that-fail"
    }

    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_vpn(super::vpn::NETWORK);
            stage.with_polling();
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            self.sale = stage.order(&product, "yookassa").await;
            stage.stop_plain().await;
            stage.hear_copies();
            let once = ONCE.iter().map(|task| format!("task.begun:{task}#1=error"));
            let often = (1..=OFTEN.1).map(|nth| format!("task.begun:{}#{nth}=error", OFTEN.0));
            stage.trouble(once.chain(often).collect::<Vec<_>>().join(";"));
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            let patience = Patience::of("the owner hears of the task that keeps failing", 60);
            while !Self::was_told(stage) && !stage.was_disturbed() {
                pause(&patience).await;
            }
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert!(Self::was_told(stage) || stage.was_disturbed(), "the owner hears of it");
            stage.handed(CUSTOMER, 1);
        })
    }
}
