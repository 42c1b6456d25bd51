//! A sale by buttons only, by a bot that asks for its updates: from `/start` to the key, with a double tap.

use super::bot::UNPAID;
use super::{CUSTOMER, Flow, Sale, Step, keys};
use crate::crashes::stage::Stage;
use crate::program::items;

/// A stranger who has nothing but a chat.
#[derive(Default)]
pub struct BotPolling {
    product: String,
    sale: Sale,
}

impl Flow for BotPolling {
    fn name(&self) -> &'static str {
        "bot-polling"
    }

    /// What the program does while it starts belongs to it: the right to ask, the way of the updates, the menu, the name.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            self.product = stage.plain_product(&keys(3)).await;
            stage.with_polling();
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.comes_to_pay(CUSTOMER).await;
            for _ in 0..3 {
                stage.taps(CUSTOMER, "Card");
            }
            // The neighbour on the same card is the same decision.
            stage.taps(CUSTOMER, "Crypto");
            stage.until_said(CUSTOMER, UNPAID, 1).await;
            self.sale = stage.only_order(CUSTOMER).await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            // What was confirmed comes again to whoever asks from the beginning.
            stage.world.sandbox.repeat_updates();
            stage.world.sandbox.skip_updates(5);
            stage.tells(CUSTOMER, "/help", "Buy with the buttons").await;
            stage.until_heard().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let orders = items(&stage.get(&format!("/api/v1/orders?customer={CUSTOMER}&limit=20")).await);
            assert_eq!(orders.len(), 1, "four presses are one order: {orders:?}");
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.handed(CUSTOMER, 1);
            assert_eq!(stage.levels(&self.product).await, (2, 0, 1), "one of three keys was sold");
            let told = stage.times_said(CUSTOMER, UNPAID);
            assert!((1..=1 + stage.lost()).contains(&told), "the link to pay came {told} times");
            if !stage.was_disturbed() {
                assert_eq!(stage.world.sandbox.press_answers().len(), 7, "nobody who presses waits for the spinner");
            }
        })
    }
}
