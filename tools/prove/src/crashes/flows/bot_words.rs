//! Words that the bot waits for or passes on: where the receipt of an order goes, and the owner's reply to a customer's question.

use serde_json::json;

use semel_sandbox::Provider;

use super::bot::{TO_PAY, UNPAID};
use super::{CUSTOMER, Flow, OWNER, Sale, Step, keys};
use crate::crashes::stage::Stage;

/// What is asked before an order whose receipt goes nowhere yet.
const WHERE_TO: &str = "The receipt needs your e-mail or phone.";
/// What somebody reads who answers with something else.
const NO_CONTACT: &str = "This is neither an e-mail";

/// A sale by a button that waits for an e-mail: tapped twice, answered wrongly, then rightly, twice.
#[derive(Default)]
pub struct BotContact {
    product: String,
    sale: Sale,
}

impl Flow for BotContact {
    fn name(&self) -> &'static str {
        "bot-contact"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        vec![
            ("SEMEL_YOOKASSA_RECEIPT_VAT".into(), "1".into()),
            ("SEMEL_YOOKASSA_RECEIPT_SUBJECT".into(), "service".into()),
            ("SEMEL_YOOKASSA_RECEIPT_MODE".into(), "full_payment".into()),
        ]
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_polling();
            stage.start_plain().await;
            self.product = stage.product(&keys(3)).await;
            stage.comes_to_pay(CUSTOMER).await;
            stage.until_heard().await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            for _ in 0..2 {
                stage.taps(CUSTOMER, "Card");
            }
            stage.until_said(CUSTOMER, WHERE_TO, 1).await;
            stage.tells(CUSTOMER, "call me", NO_CONTACT).await;
            for _ in 0..2 {
                stage.world.sandbox.say(CUSTOMER, "buyer@example.com");
            }
            stage.until_said(CUSTOMER, UNPAID, 1).await;
            self.sale = stage.only_order(CUSTOMER).await;
            stage.pay(&self.sale);
            stage.tell().await;
            stage.until(&self.sale, "delivered").await;
            // What was confirmed comes again to whoever asks from the beginning.
            stage.world.sandbox.repeat_updates();
            stage.tells(CUSTOMER, "/help", "Buy with the buttons").await;
            stage.until_heard().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(
                stage.only_order(CUSTOMER).await.order,
                self.sale.order,
                "two taps and two answers are one order"
            );
            assert_eq!(stage.world.sandbox.payments(Provider::Yookassa).len(), 1, "one order is one payment");
            assert_eq!(stage.status(&self.sale).await, "delivered");
            assert_eq!(stage.levels(&self.product).await, (2, 0, 1), "one of three keys was sold");
            stage.handed(CUSTOMER, 1);
            assert_eq!(stage.times_said(CUSTOMER, TO_PAY), 1, "the first button went on");
            for words in [WHERE_TO, NO_CONTACT, UNPAID] {
                let told = stage.times_said(CUSTOMER, words);
                assert!((1..=1 + stage.lost()).contains(&told), "{words:?} came {told} times");
            }
        })
    }
}

/// Who asks first, and is answered.
const ASKER: i64 = 81;
/// Who asks next, and is not.
const NEXT: i64 = 82;
const QUESTION: &str = "asks for help: my key fails";
const REPLY: &str = "Restart it & <try> again";

/// Two people ask the owner for help, and the owner replies to the first.
#[derive(Default)]
pub struct BotReply {
    /// The message with the first question in the owner's chat.
    question: i64,
}

impl Flow for BotReply {
    fn name(&self) -> &'static str {
        "bot-reply"
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.with_polling();
            stage.start_plain().await;
            for (person, question) in [(ASKER, "/support my key fails"), (NEXT, "/support mine, too")] {
                stage.world.sandbox.set_language(person, "en");
                stage.tells(person, question, "The shop's owner has it now").await;
            }
            stage.until_said(OWNER, QUESTION, 1).await;
            stage.until_said(OWNER, "asks for help: mine, too", 1).await;
            let chat = stage.world.sandbox.chat(OWNER);
            self.question = chat.iter().find(|message| message.text.contains(QUESTION)).expect("it came").id;
            stage.until_heard().await;
            stage.rest().await;
            stage.stop_plain().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let sandbox = &stage.world.sandbox;
            let said = json!({
                "message_id": 900_000, "date": 0, "chat": { "id": OWNER, "type": "private" },
                "from": { "id": OWNER, "is_bot": false, "language_code": "en" },
                "reply_to_message": { "message_id": self.question }, "text": REPLY,
            });
            sandbox.send_update("message", said);
            stage.until_said(ASKER, REPLY, 1).await;
            // What was confirmed comes again to whoever asks from the beginning.
            sandbox.repeat_updates();
            stage.tells(NEXT, "/help", "Buy with the buttons").await;
            stage.until_heard().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            let told = stage.times_said(ASKER, REPLY);
            assert!((1..=1 + stage.lost()).contains(&told), "the owner's reply came {told} times");
            assert_eq!(stage.times_said(NEXT, REPLY), 0, "nobody else reads it");
            // The note is an alert: after a death beside Telegram it may be missing, and it never comes twice.
            let noted = stage.times_said(OWNER, &format!("Customer {ASKER} has your answer"));
            assert!(noted <= 1, "the owner was told {noted} times that it arrived");
            assert!(noted == 1 || stage.was_disturbed(), "the owner knows that it arrived");
        })
    }
}
