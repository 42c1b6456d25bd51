//! The golden flows: what happens in a shop, seen from outside.
//!
//! A flow is a file here and a row in [`ALL`]. It is written as if nothing ever broke: whoever talks to the program through
//! the [`Stage`] repeats what broke off, and whoever waits, waits until it is so. What it asserts at its end must be true
//! whatever died on the way.

mod alert;
mod balance;
mod bot;
mod bot_access;
mod bot_polling;
mod bot_trouble;
mod bot_webhook;
mod bot_words;
mod cabinet;
mod campaign;
mod cron;
mod events;
mod expiry;
mod hand;
mod held;
mod import;
mod late;
mod lists;
mod lost_opening;
mod lost_webhook;
mod never_resent;
mod notices;
mod referral;
mod refund_to_balance;
mod refund_to_provider;
mod refund_trouble;
mod refused;
mod restore;
mod second_payment;
mod short;
mod socket;
mod stars;
mod start;
mod stock_withdraw;
mod stop;
mod takeover;
mod tasks;
mod telegram_trouble;
mod tools;
mod vpn;
mod vpn_burst;
mod vpn_end;
mod vpn_hand;
mod vpn_own_key;
mod vpn_refund;
mod vpn_renewal;
mod vpn_sale;
mod vpn_trial;
mod vpn_waiting;
mod waiting;
mod webhook;

use std::collections::BTreeSet;
use std::pin::Pin;

use serde_json::{Value, json};

use semel_kernel::store::{Engine, StoreError};
use semel_sandbox::{HookState, Provider};

use super::stage::{Stage, pause};
use crate::program::{Patience, items, text};

/// A part of a flow on its way.
pub type Step<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Makes a flow for one scenario.
pub type Make = fn() -> Box<dyn Flow>;

/// Something that happens in a shop.
pub trait Flow: Send + Sync {
    /// Its name, as the figures and `--only` say it.
    fn name(&self) -> &'static str;

    /// Where it can happen.
    fn engines(&self) -> &'static [Engine] {
        &[Engine::Sqlite, Engine::Postgres]
    }

    /// Settings beside those of every world, by their names in the environment.
    fn settings(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Whether the database is empty, without tables, at first.
    fn is_from_nothing(&self) -> bool {
        false
    }

    /// Whether what the program does while it starts belongs to the flow.
    fn is_from_start(&self) -> bool {
        false
    }

    /// Whether a program that died is started again. Not, where another copy shall take over.
    fn is_restarted(&self) -> bool {
        true
    }

    /// Whether the flow itself leaves messages of which nobody knows whether they arrived. Then the tries that the program calls
    /// uncertain are not only those that a crash made so.
    fn leaves_unknown(&self) -> bool {
        false
    }

    /// What there has to be before; by a program that nothing is done to, and that has ended when this ends.
    fn prepare<'a>(&'a mut self, _stage: &'a Stage) -> Step<'a> {
        Box::pin(async {})
    }

    /// The flow itself, while the program may die.
    fn drive<'a>(&'a mut self, stage: &'a Stage) -> Step<'a>;

    /// Asserts what must be so at rest.
    fn settled<'a>(&'a self, stage: &'a Stage) -> Step<'a>;

    /// Puts away what the flow started beside the program.
    fn close<'a>(&'a mut self, _stage: &'a Stage) -> Step<'a> {
        Box::pin(async {})
    }
}

/// Every flow. The first is the one that even the small campaign breaks everywhere.
pub const ALL: &[Make] = &[
    || Box::new(webhook::Webhook::at(Provider::Yookassa)),
    || Box::new(webhook::Webhook::at(Provider::Heleket)),
    || Box::new(webhook::Webhook::at(Provider::CrystalPay)),
    || Box::new(never_resent::NeverResent::default()),
    || Box::new(lost_webhook::LostWebhook::default()),
    || Box::new(balance::Balance::default()),
    || Box::new(refund_to_balance::RefundToBalance::default()),
    || Box::new(refund_to_provider::RefundToProvider::default()),
    || Box::new(cabinet::Cabinet::default()),
    || Box::new(late::Late::default()),
    || Box::new(short::Short::default()),
    || Box::new(second_payment::SecondPayment::default()),
    || Box::new(referral::Referral::default()),
    || Box::new(expiry::Expiry::default()),
    || Box::new(cron::CronTick),
    || Box::new(import::Import::default()),
    || Box::new(stock_withdraw::StockWithdraw::default()),
    || Box::new(waiting::Waiting::default()),
    || Box::new(alert::OwnerAlert::default()),
    || Box::new(events::Events::default()),
    || Box::new(held::Held::default()),
    || Box::new(refused::Refused::default()),
    || Box::new(lost_opening::LostOpening::default()),
    || Box::new(lists::EndlessLists::default()),
    || Box::new(refund_trouble::RefundTrouble::default()),
    || Box::new(telegram_trouble::TelegramTrouble::default()),
    || Box::new(hand::OwnersHand::default()),
    || Box::new(socket::OwnersSocket),
    || Box::new(stop::Stop::default()),
    || Box::new(restore::Restore::default()),
    || Box::new(tasks::Tasks::default()),
    || Box::new(takeover::Takeover::default()),
    || Box::new(takeover::Takeover::hearing()),
    || Box::new(start::Start::default()),
    || Box::new(tools::Tools),
    || Box::new(vpn_sale::VpnSale::default()),
    || Box::new(vpn_renewal::VpnRenewal::default()),
    || Box::new(vpn_end::VpnEnd),
    || Box::new(vpn_refund::VpnRefund::default()),
    || Box::new(vpn_trial::VpnTrial),
    || Box::new(vpn_own_key::VpnOwnKey::default()),
    || Box::new(vpn_waiting::VpnWaiting::default()),
    || Box::new(vpn_hand::VpnHand::default()),
    || Box::new(vpn_burst::VpnBurst::default()),
    || Box::new(bot_polling::BotPolling::default()),
    || Box::new(bot_webhook::BotWebhook::default()),
    || Box::new(bot_trouble::BotTrouble::default()),
    || Box::new(bot_access::BotAccess),
    || Box::new(bot_words::BotContact::default()),
    || Box::new(bot_words::BotReply::default()),
    || Box::new(campaign::Campaign::default()),
    || Box::new(notices::Notices::default()),
    || Box::new(stars::Stars::default()),
    || Box::new(stars::StarsSweep::default()),
];

/// Who buys.
pub const CUSTOMER: i64 = 42;
/// Who gets the alerts.
pub const OWNER: i64 = 1;

/// An order with the payment that its customer holds. One that was paid from the balance has none.
#[derive(Clone, Debug, Default)]
pub struct Sale {
    /// The order.
    pub order: String,
    /// Where it is paid, and the id there.
    pub payment: Option<(Provider, String)>,
}

impl Sale {
    /// Reads an order as the API shows it.
    pub fn read(shown: &Value) -> Sale {
        let payment = &shown["payment"];
        let (provider, id) = (text(&payment["provider"]), text(&payment["provider_id"]));
        let provider = provider.parse::<Provider>().ok().filter(|_| !id.is_empty());
        let payment = provider.map(|provider| (provider, id));
        Sale { order: text(&shown["id"]), payment }
    }

    /// The provider and the id there.
    pub fn there(&self) -> (Provider, &str) {
        let (provider, id) = self.payment.as_ref().expect("an order with a payment at a provider");
        (*provider, id.as_str())
    }
}

/// So many keys; a customer's chat is searched for their beginning.
pub fn keys(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("KEY-{n:03}")).collect()
}

/// What the API wants for one of a product.
pub fn one_of(product: &str, customer: i64, provider: &str) -> Value {
    json!({
        "customer": { "telegram_id": customer },
        "items": [{ "product": product, "quantity": 1 }],
        "provider": provider,
    })
}

/// What a shop's own program asks of it.
impl Stage {
    /// A product as the API describes it. Answers its id.
    pub async fn product_of(&self, description: &Value, key: &str) -> String {
        let made = self.post("/api/v1/products", description, key).await;
        assert_eq!(made.status, 201, "a product is made: {}", made.text);
        text(&made.body["id"])
    }

    /// A key for 990 roubles, with `goods` in stock. Answers its id.
    pub async fn product(&self, goods: &[String]) -> String {
        let price = json!({ "amount": "990.00", "currency": "RUB" });
        let licence = json!({ "title": "Licence key", "kind": "stock", "price": price });
        let product = self.product_of(&licence, "product").await;
        if !goods.is_empty() {
            self.stock(&product, goods, "stock").await;
        }
        product
    }

    /// The same by a program that is armed with nothing, and that ends before the flow begins.
    pub async fn plain_product(&self, goods: &[String]) -> String {
        self.start_plain().await;
        let product = self.product(goods).await;
        self.stop_plain().await;
        product
    }

    /// Puts goods into stock; those that are there already stay as they are.
    pub async fn stock(&self, product: &str, goods: &[String], key: &str) {
        let answer = self.post(&format!("/api/v1/products/{product}/stock"), &json!({ "items": goods }), key).await;
        assert_eq!(answer.status, 200, "stock is imported: {}", answer.text);
    }

    /// One of a product, for the usual customer.
    pub async fn order(&self, product: &str, provider: &str) -> Sale {
        self.order_as(&one_of(product, CUSTOMER, provider), &format!("order-{provider}")).await
    }

    /// The order that `wanted` describes, with its payment opened.
    pub async fn order_as(&self, wanted: &Value, key: &str) -> Sale {
        let made = self.post("/api/v1/orders", wanted, key).await;
        assert_eq!(made.status, 201, "an order is made: {}", made.text);
        let id = text(&made.body["id"]);
        if wanted["provider"] == "balance" {
            return Sale { order: id, payment: None };
        }
        self.opened(&id).await
    }

    /// An order once the provider's id of its latest payment is known.
    pub async fn opened(&self, order: &str) -> Sale {
        let patience = Patience::of(format!("the payment of order {order} is opened"), 90);
        loop {
            let sale = Sale::read(&self.show(order).await);
            if sale.payment.is_some() {
                return sale;
            }
            pause(&patience).await;
        }
    }

    /// An order as the API shows it.
    pub async fn show(&self, order: &str) -> Value {
        let shown = self.get(&format!("/api/v1/orders/{order}")).await;
        assert_eq!(shown.status, 200, "an order is shown: {}", shown.text);
        shown.body
    }

    /// Where an order stands.
    pub async fn status(&self, sale: &Sale) -> String {
        text(&self.show(&sale.order).await["status"])
    }

    /// Waits until an order stands there. Long enough for the first look of the job behind a payment.
    pub async fn until(&self, sale: &Sale, status: &str) {
        let patience = Patience::of(format!("order {} is {status}", sale.order), 120);
        while self.status(sale).await != status {
            pause(&patience).await;
        }
    }

    /// A customer's balance in roubles: `990.00`; empty when there never was one.
    pub async fn balance(&self, customer: i64) -> String {
        let shown = self.get(&format!("/api/v1/customers/{customer}")).await;
        text(&shown.body["balances"][0]["amount"])
    }

    /// Waits for a balance.
    pub async fn until_balance(&self, customer: i64, wanted: &str) {
        let patience = Patience::of(format!("the balance of {customer} is {wanted}"), 120);
        while self.balance(customer).await != wanted {
            pause(&patience).await;
        }
    }

    /// Units of a product: available, held, delivered.
    pub async fn levels(&self, product: &str) -> (i64, i64, i64) {
        let shown = self.get(&format!("/api/v1/products/{product}")).await;
        assert_eq!(shown.status, 200, "a product is shown: {}", shown.text);
        let level = |name: &str| shown.body["stock"][name].as_i64().unwrap_or(-1);
        (level("available"), level("held"), level("delivered"))
    }

    /// Asks for all the money of an order back.
    pub async fn refund(&self, sale: &Sale, to: &str) {
        let path = format!("/api/v1/orders/{}/refund", sale.order);
        let answer = self.post(&path, &json!({ "to": to, "reason": "asked for" }), "refund").await;
        assert_eq!(answer.status, 200, "a refund is begun: {}", answer.text);
    }

    /// What the owner asks for. One that does not know what became of it asks again, so `well` names the answer to what is done
    /// already, too.
    pub async fn by_hand(&self, path: &str, body: &Value, key: &str, well: &[u16]) -> Value {
        let answer = self.post(path, body, key).await;
        assert!(well.contains(&answer.status), "{path} answers {well:?}, not {}: {}", answer.status, answer.text);
        answer.body
    }

    /// Jobs of a kind in a state whose last error holds these words.
    pub async fn troubled(&self, kind: &str, state: &str, words: &str) -> Vec<String> {
        let jobs = items(&self.get(&format!("/api/v1/jobs?state={state}&limit=200")).await);
        let is_meant =
            |job: &&Value| job["kind"] == kind && job["error"].as_str().is_some_and(|error| error.contains(words));
        jobs.iter().filter(is_meant).map(|job| text(&job["id"])).collect()
    }

    /// Lets such jobs run now, as an owner may: nobody waits thousands of times for what looks again in some minutes. `round`
    /// tells one look from another.
    pub async fn hasten(&self, kind: &str, state: &str, words: &str, round: u32) {
        for job in self.troubled(kind, state, words).await {
            self.post_once(&format!("/api/v1/jobs/{job}/retry"), &json!({}), &format!("{job}-{round}")).await;
        }
    }

    /// Orders, pays and delivers, in the hands of a program that nothing is done to.
    pub async fn sell(&self, product: &str, provider: &str) -> Sale {
        let sale = self.order(product, provider).await;
        self.pay(&sale);
        self.tell().await;
        self.until(&sale, "delivered").await;
        sale
    }
}

/// The world around it.
impl Stage {
    /// The customer pays what is asked. The webhook waits in the box.
    pub fn pay(&self, sale: &Sale) {
        let (provider, id) = sale.there();
        self.world.sandbox.pay(provider, id).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The providers send what waits, again and again until all of it is acknowledged.
    pub async fn tell(&self) {
        let patience = Patience::of("every webhook is acknowledged", 120);
        loop {
            for hook in self.world.sandbox.pending_hooks() {
                self.world.sandbox.send_hook(hook).await;
            }
            let waits = self.world.sandbox.hooks().iter().any(|hook| hook.state == HookState::Pending);
            if !waits {
                return;
            }
            pause(&patience).await;
        }
    }

    /// Every webhook that waits is lost.
    pub fn lose(&self) {
        for hook in self.world.sandbox.pending_hooks() {
            self.world.sandbox.drop_hook(hook);
        }
    }

    /// Insists that a customer was handed so many different keys, and none more often than a death in the middle of
    /// sending excuses.
    pub fn handed(&self, customer: i64, count: usize) {
        let (keys, lost) = (self.world.keys(customer), self.lost());
        let different: BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), count, "customer {customer} is handed {count} keys, not {keys:?}");
        assert!(
            keys.len() <= count * (1 + lost),
            "customer {customer} got {keys:?}, and only {lost} answers were lost"
        );
    }

    /// Does something to the database that no code of the program does. While no program runs.
    pub async fn plant(&self, statements: &'static [&'static str]) {
        let store = self.world.store();
        let planted = store.write("story.plant", move |tx| {
            for sql in statements {
                tx.execute(*sql, &[])?;
            }
            Ok::<(), StoreError>(())
        });
        planted.await.unwrap_or_else(|error: StoreError| panic!("the database takes it: {error}"));
    }

    /// Makes every schedule due now, while no program runs: its tick is found by the next one.
    pub async fn ticks_are_due(&self) {
        let store = self.world.store();
        let due = store.write("story.ticks", |tx| {
            let now = tx.now();
            tx.execute("update cron set next_at = $1", semel_kernel::args![now])
        });
        let schedules = due.await.unwrap_or_else(|error: StoreError| panic!("the database answers: {error}"));
        assert!(schedules > 0, "there are schedules");
    }
}
