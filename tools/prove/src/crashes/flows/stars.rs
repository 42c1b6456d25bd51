//! Telegram Stars: an invoice in the chat, the question before the payment, money that is told of twice or not at all, and its way
//! back.

use std::time::Duration;

use semel_kernel::clock::{Clock, Stopwatch};
use semel_sandbox::{Invoice, StarKnobs};

use super::bot::UNPAID;
use super::{Flow, OWNER, Sale, Step, keys, one_of};
use crate::crashes::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// Who buys by buttons.
const PRESSER: i64 = 71;
/// Whose order the shop's own program makes.
const ORDERER: i64 = 72;
/// Into whose hands an invoice falls that is not theirs.
const STRANGER: i64 = 73;
/// A Star for 1.80: what costs 990.00 costs so many.
const PRICE: i64 = 550;
/// Longer than Telegram waits for the bot's word: nobody is charged any more by an answer that is still on its way.
const OVER: Duration = Duration::from_secs(11);
/// The payment's own job looks in an hour: until then only the list tells of its money.
const NOT_SOON: &[&str] =
    &["update jobs set run_at = run_at + 3600000 where kind = 'payment.confirm' and state = 'ready'"];

/// What the owner reads about a line of the bot's list that makes no sense.
const UNREADABLE: &str = "cannot be read, so they are not in the books";

/// Stars need a bot that hears its customers.
fn in_stars() -> Vec<(String, String)> {
    let pairs = [("SEMEL_STARS_ENABLED", "true"), ("SEMEL_STARS_WORTH", "1.80"), ("SEMEL_TELEGRAM_UPDATES", "polling")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// People and their Stars.
impl Stage {
    /// The newest invoice in a chat, as soon as there is one.
    async fn invoice(&self, chat: i64) -> Invoice {
        let patience = Patience::of(format!("an invoice comes to {chat}"), 120);
        loop {
            let messages = self.world.sandbox.chat(chat);
            if let Some(invoice) = messages.into_iter().rev().find_map(|message| message.invoice) {
                return invoice;
            }
            pause(&patience).await;
        }
    }

    /// Somebody presses Pay under the newest invoice of a chat, and again whenever Telegram has given up waiting for the bot.
    /// Answers whether the bot let them pay; then they are charged.
    async fn presses_pay(&self, payer: i64, chat: i64) -> bool {
        let patience = Patience::of(format!("{payer} is told whether they may pay"), 150);
        let told = || self.world.sandbox.checkout_answers().into_iter().filter(move |said| said.payer == payer);
        loop {
            let before = told().count();
            assert!(self.world.sandbox.pay_stars_as(payer, chat).is_some(), "{chat} has an invoice");
            let asked = Stopwatch::start();
            while asked.elapsed() < OVER {
                if let Some(said) = told().nth(before) {
                    return said.ok;
                }
                pause(&patience).await;
            }
        }
    }

    /// Somebody pays the newest invoice in their chat. Where the bot could not find out whether they may, they try again.
    async fn pays_in_stars(&self, person: i64) {
        let patience = Patience::of(format!("{person} may pay"), 150);
        while !self.presses_pay(person, person).await {
            pause(&patience).await;
        }
    }

    /// The only order of a person. The sandbox's providers have no payment of it.
    async fn only_order_in_stars(&self, person: i64) -> Sale {
        let listed = items(&self.get(&format!("/api/v1/orders?customer={person}&limit=20")).await);
        assert_eq!(listed.len(), 1, "customer {person} has one order: {listed:?}");
        Sale { order: text(&listed[0]["id"]), payment: None }
    }

    /// Insists that there is one charge, over the price, by this person, for what their invoice asks.
    fn charged_once(&self, person: i64, went_back: bool) {
        // What is over nothing at all is the line that nobody can read.
        let paid = self.world.sandbox.star_payments().into_iter().filter(|one| one.stars > 0).collect::<Vec<_>>();
        assert_eq!(paid.len(), 1, "charged once: {paid:?}");
        assert_eq!((paid[0].payer, paid[0].stars, paid[0].refunded), (person, PRICE, went_back), "{paid:?}");
        let chat = self.world.sandbox.chat(person);
        let invoices: Vec<Invoice> = chat.into_iter().filter_map(|message| message.invoice).collect();
        assert!((1..=1 + self.lost()).contains(&invoices.len()), "the invoice came {} times", invoices.len());
        assert!(invoices.iter().all(|one| one.payload == paid[0].payload && one.stars == PRICE), "{invoices:?}");
    }
}

/// A purchase by buttons whose money is told of twice, and given back.
#[derive(Default)]
pub struct Stars {
    sale: Sale,
}

impl Flow for Stars {
    fn name(&self) -> &'static str {
        "stars"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        in_stars()
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            stage.product(&keys(3)).await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.world.sandbox.set_star_knobs(StarKnobs { repeat: 1, ..StarKnobs::default() });
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.comes_to_pay(PRESSER).await;
            for _ in 0..2 {
                stage.taps(PRESSER, "Telegram Stars");
            }
            stage.until_said(PRESSER, UNPAID, 1).await;
            stage.invoice(PRESSER).await;
            self.sale = stage.only_order_in_stars(PRESSER).await;
            assert!(!stage.presses_pay(STRANGER, PRESSER).await, "nobody pays by another one's invoice");
            stage.pays_in_stars(PRESSER).await;
            stage.until(&self.sale, "delivered").await;
            stage.until_heard().await;
            stage.rest().await;

            stage.refund(&self.sale, "provider").await;
            stage.until(&self.sale, "refunded").await;
            // What was confirmed comes again to whoever asks from the beginning.
            stage.world.sandbox.repeat_updates();
            stage.tells(PRESSER, "/paysupport", "The shop's owner answers for payments").await;
            stage.until_heard().await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.only_order_in_stars(PRESSER).await.order, self.sale.order, "two taps are one order");
            assert_eq!(stage.status(&self.sale).await, "refunded");
            stage.charged_once(PRESSER, true);
            stage.handed(PRESSER, 1);
            assert!(matches!(stage.balance(PRESSER).await.as_str(), "" | "0"), "and nothing to the balance as well");
        })
    }
}

/// Money that no update tells of: the hourly look at the bot's list finds it, and a line that nobody can read.
#[derive(Default)]
pub struct StarsSweep {
    sale: Sale,
}

impl Flow for StarsSweep {
    fn name(&self) -> &'static str {
        "stars-sweep"
    }

    fn settings(&mut self) -> Vec<(String, String)> {
        in_stars()
    }

    /// The hour has struck when the program starts.
    fn is_from_start(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.start_plain().await;
            let product = stage.product(&keys(3)).await;
            let made = stage.post("/api/v1/orders", &one_of(&product, ORDERER, "stars"), "order-stars").await;
            assert_eq!(made.status, 201, "an order is made: {}", made.text);
            self.sale = Sale { order: text(&made.body["id"]), payment: None };
            stage.invoice(ORDERER).await;
            stage.world.sandbox.set_star_knobs(StarKnobs { lose_next: 1, ..StarKnobs::default() });
            stage.pays_in_stars(ORDERER).await;
            stage.rest().await;
            stage.stop_plain().await;
            stage.world.sandbox.sold_elsewhere(STRANGER, 0, Clock::system().now().millis());
            stage.plant(NOT_SOON).await;
            stage.ticks_are_due().await;
        })
    }

    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            stage.until(&self.sale, "delivered").await;
            stage.until_said(OWNER, UNREADABLE, 1).await;
        })
    }

    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a> {
        Box::pin(async move {
            assert_eq!(stage.status(&self.sale).await, "delivered");
            stage.charged_once(ORDERER, false);
            stage.handed(ORDERER, 1);
            assert!(matches!(stage.balance(ORDERER).await.as_str(), "" | "0"), "booked once");
        })
    }
}
