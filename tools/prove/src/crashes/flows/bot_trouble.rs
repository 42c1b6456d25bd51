//! A sale by buttons while things go wrong: the database does not take what somebody wrote, another program takes the updates,
//! the provider is away at first, the last unit is somebody else's, an order is called off, and the other one buys after all
//! with the button that was refused.

use semel_sandbox::{Fault, Target};

use super::bot::{TO_PAY, UNPAID};
use super::{Flow, OWNER, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// Who is first, and calls it off.
const FIRST: i64 = 71;
/// Who finds it sold out, and gets it in the end.
const SECOND: i64 = 72;

/// In each process the first updates do not become durable, and the first opening of a payment finds the provider away.
const TROUBLE: &str = "commit.before:bot.receive#1=error;call.before:payment.create#1=error";
/// The menu that needs no database.
const STILL: &str = "One moment: answers are slow right now.";
/// What the owner reads while somebody else gets the updates.
const RIVAL: &str = "Another program takes what customers write";

/// Two people and one key.
#[derive(Default)]
pub struct BotTrouble {
    product: String,
    called_off: Sale,
    sale: Sale,
}

impl Flow for BotTrouble {
    fn name(&self) -> &'static str {
        "bot-trouble"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_polling();
            stage.start_plain().await;
            self.product = stage.product(&keys(1)).await;
            for person in [FIRST, SECOND] {
                stage.comes_to_pay(person).await;
            }
            // Nothing comes again: the first updates are those of the flow.
            stage.until_heard().await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.trouble(TROUBLE);
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.tells(SECOND, "/help", "Buy with the buttons").await;
            let sandbox = &stage.world.sandbox;
            let rival = sandbox.fault(Target::Telegram("getUpdates".into()), Fault::Status(409), None);
            // It ends the question that is held open; the next ones are somebody else's, until the owner knows.
            stage.taps(FIRST, "Card");
            stage.until_said(OWNER, RIVAL, 1).await;
            sandbox.lift_fault(rival);
            stage.until_said(FIRST, UNPAID, 1).await;
            self.called_off = stage.only_order(FIRST).await;
            stage.presses(SECOND, "Card", "This product is sold out.").await;
            stage.tells(FIRST, "/cancel", "Which order shall be cancelled?").await;
            stage.presses(FIRST, "990.00", "is cancelled.").await;
            // A refusal uses no button up. The newest card of theirs is a menu by now.
            assert_eq!(stage.times_said(SECOND, TO_PAY), 1);
            stage.presses(SECOND, "Card", UNPAID).await;
            self.sale = stage.only_order(SECOND).await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.called_off).await, "cancelled");
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.levels(&self.product).await, (0, 0, 1), "the only key was sold once");
            assert!(stage.world.keys(FIRST).is_empty(), "nobody gets what they called off");
            stage.handed(SECOND, 1);
            let shown = stage.times_said(SECOND, STILL);
            assert!(shown >= 1 || stage.was_disturbed(), "who asks for help has a menu although the database fails");
            let waits = "the payment provider does not answer yet";
            let told = stage.times_said(FIRST, waits);
            assert!(told >= 1 || stage.was_disturbed(), "who waits for a link is told so");
        })
    }
}
