//! Everything that Telegram can answer but "done": slower, nothing at all, another chat, no longer, who are you.

use semel_sandbox::{ChatState, Fault, Target};
use serde_json::json;

use super::{Flow, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::Patience;

/// Asked to be silent for a second.
const SLOWER: i64 = 51;
/// Whose answer never came; nothing had happened.
const UNHEARD: i64 = 52;
/// Whose group lives on under another id.
const MOVED: i64 = 53;
const MOVED_TO: i64 = -100_053;
/// Who blocked the bot.
const BLOCKED: i64 = 54;
/// For whom Telegram did not know the token.
const TOKEN: i64 = 55;
/// Whose goods had waited for longer than a week.
const OLD: i64 = 56;
const ALL: [i64; 6] = [SLOWER, UNHEARD, MOVED, BLOCKED, TOKEN, OLD];

/// As if eight days had passed.
const AGE: &[&str] = &["update messages set queued_at = queued_at - 691200000 where state = 'queued'"];

/// Six sales, each with its own trouble; no owner is told, so that the trouble meets the goods.
#[derive(Default)]
pub struct TelegramTrouble {
    sales: Vec<(i64, Sale)>,
}

fn sending() -> Target {
    Target::Telegram("sendMessage".into())
}

impl TelegramTrouble {
    fn of(&self, customer: i64) -> &Sale {
        let sale = self.sales.iter().find(|(who, _)| *who == customer).map(|(_, sale)| sale);
        sale.expect("everybody has an order")
    }

    /// The customer pays, and Telegram answers their message so, once.
    async fn sell_under(&self, stage: &Stage, customer: i64, fault: Fault) {
        stage.world.sandbox.fault(sending(), fault, Some(1));
        self.pay(stage, customer).await;
        stage.until(self.of(customer), "delivered").await;
    }

    async fn pay(&self, stage: &Stage, customer: i64) {
        stage.pay(self.of(customer));
        stage.tell().await;
    }

    /// Waits for the goods, while the owner lets the message go again that waits or gave up with these words.
    async fn by_hand(&self, stage: &Stage, customer: i64, state: &str, words: &str) {
        let patience = Patience::of(format!("customer {customer} gets the goods after all"), 120);
        let mut round = 0;
        while stage.status(self.of(customer)).await != "delivered" {
            round += 1;
            stage.hasten("message.send", state, words, round).await;
            pause(&patience).await;
        }
    }
}

impl Flow for TelegramTrouble {
    fn name(&self) -> &'static str {
        "telegram-trouble"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![("SEMEL_TELEGRAM_ADMIN_IDS".into(), String::new())]
    }

    /// The message that is too old is found at the start.
    fn is_from_start(&self) -> bool {
        true
    }

    fn leaves_unknown(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(ALL.len())).await;
            for customer in ALL {
                let wanted = one_of(&product, customer, "yookassa");
                let sale = stage.order_as(&wanted, &format!("order-{customer}")).await;
                self.sales.push((customer, sale));
            }
            let sandbox = &stage.world.sandbox;
            let away = sandbox.fault(sending(), Fault::Status(409), None);
            self.pay(stage, OLD).await;
            stage.until(self.of(OLD), "paid").await;
            let patience = Patience::of("the goods could not be sent", 60);
            while stage.troubled("message.send", "ready", "").await.is_empty() {
                pause(&patience).await;
            }
            stage.stop_plain().await;
            stage.plant(AGE).await;
            sandbox.lift_fault(away);
            sandbox.fault(sending(), Fault::Status(409), Some(1));
            sandbox.set_chat_state(MOVED, ChatState::Migrated(MOVED_TO));
            sandbox.set_chat_state(BLOCKED, ChatState::Blocked);
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.by_hand(stage, OLD, "dead", "").await;
            self.sell_under(stage, SLOWER, Fault::TooMany { retry_after: 1 }).await;
            self.sell_under(stage, UNHEARD, Fault::CutBefore).await;
            // Long enough for its claim to be renewed meanwhile.
            self.sell_under(stage, MOVED, Fault::Delay(2_500)).await;
            stage.world.sandbox.fault(sending(), Fault::Status(401), Some(1));
            self.pay(stage, TOKEN).await;
            self.by_hand(stage, TOKEN, "ready", "nauthorized").await;
            self.pay(stage, BLOCKED).await;
            stage.until(self.of(BLOCKED), "paid").await;
            stage.rest().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            for customer in [SLOWER, UNHEARD, TOKEN, OLD] {
                assert_eq!(stage.status(self.of(customer)).await, "delivered", "customer {customer}");
                stage.handed(customer, 1);
            }
            assert_eq!(stage.status(self.of(MOVED)).await, "delivered");
            stage.handed(MOVED_TO, 1);
            let shown = stage.show(&self.of(BLOCKED).order).await;
            assert_eq!(shown["status"], "paid", "nobody has these goods, and nobody says so");
            assert_ne!(shown["items"][0]["goods"], json!([]), "they can be handed over otherwise");
            for customer in [MOVED, BLOCKED] {
                assert!(stage.world.keys(customer).is_empty(), "nothing came to {customer}");
            }
        })
    }
}
