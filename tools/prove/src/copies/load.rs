//! The load: an open loop of small sales in all their manners, each drawn from the seed and its number.
//!
//! Callers behave as the contract wants them to: a request whose answer is lost is sent again, as it is, under the same
//! key, to whichever copy the front door chooses. Providers behave as they do: webhooks come late, twice, in another order,
//! again after they were acknowledged, and for every tenth payment never.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use semel_sandbox::{HookId, Provider, Sandbox};

use super::watch::{About, Diary};
use crate::program::{TOKEN, text};

/// Orders wait so long for their money; some money comes later.
pub const LIFETIME: Duration = Duration::from_secs(20);
/// One sale in this time.
const EVERY: Duration = Duration::from_millis(250);
/// Sales that are under way at a time; beyond it the next ones are left out.
const AT_ONCE: usize = 400;
/// How long one request waits for its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a customer waits for an order before giving up what was planned with it. A payment whose webhook is lost is
/// found by asking, first after 15 s.
pub const WAITING: Duration = Duration::from_secs(45);
/// How long a caller repeats a request.
const INSIST: Duration = Duration::from_secs(150);

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Orders that were made.
    pub begun: AtomicU64,
    /// Orders that were refused, such as of what is sold out.
    pub refused: AtomicU64,
    /// Payments by customers, of whatever sum.
    pub paid: AtomicU64,
    /// Refunds that were taken on.
    pub refunds: AtomicU64,
    /// Orders that were called off.
    pub cancelled: AtomicU64,
    /// Orders that were paid from the balance.
    pub from_balance: AtomicU64,
    /// Units that were put on the shelf.
    pub stocked: AtomicU64,
    /// Attempts to deliver a webhook that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Attempts that were not, or not answered.
    pub not_acknowledged: AtomicU64,
    /// Requests of the API that were sent again.
    pub repeated: AtomicU64,
    /// The highest number of an update that people caused.
    pub last_update: AtomicU64,
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::SeqCst);
}

/// Everything that callers and providers need.
pub struct Load {
    /// The front door.
    pub door: SocketAddr,
    /// The outside world.
    pub sandbox: Sandbox,
    /// Everything random comes from it.
    pub seed: u64,
    /// Where troubles go.
    pub diary: Arc<Diary>,
    /// What was counted.
    pub counts: Arc<Counts>,
    /// No new sales are begun once this is set.
    pub closing: AtomicBool,
    /// No new webhooks come once this is set: all sales are over.
    pub closed: AtomicBool,
}

/// What is on sale.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Handed out from stock.
    pub key: String,
    /// Puts money on the balance.
    pub topup: String,
    /// Gives access to the VPN.
    pub access: String,
}

/// An order as a caller holds it.
#[derive(Clone, Debug)]
pub struct Order {
    id: String,
    provider: Option<Provider>,
    provider_id: String,
}

impl Order {
    /// Reads an order as the API shows it.
    pub fn read(shown: &Value) -> Order {
        let payment = &shown["payment"];
        Order {
            id: text(&shown["id"]),
            provider: text(&payment["provider"]).parse().ok(),
            provider_id: text(&payment["provider_id"]),
        }
    }

    /// Whether its provider knows it.
    pub fn is_open_there(&self) -> bool {
        self.provider.is_some() && !self.provider_id.is_empty()
    }

    fn path(&self, what: &str) -> String {
        format!("/api/v1/orders/{}{what}", self.id)
    }
}

/// How a sale goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    Unpaid,
    Cancelled,
    PaidAfterCancel,
    EndedByProvider,
    Late,
    OtherSum,
    PaidTwice,
    RefundedToProvider,
    RefundedAndBoughtAgain,
    ToppedUp,
    Access,
    AccessRefunded,
}

impl Manner {
    fn drawn(chance: &mut fastrand::Rng) -> Manner {
        match chance.u8(0..100) {
            0..4 => Manner::Unpaid,
            4..6 => Manner::Cancelled,
            6..8 => Manner::PaidAfterCancel,
            8..11 => Manner::EndedByProvider,
            11..14 => Manner::Late,
            14..18 => Manner::OtherSum,
            18..22 => Manner::PaidTwice,
            22..28 => Manner::RefundedToProvider,
            28..36 => Manner::RefundedAndBoughtAgain,
            36..41 => Manner::ToppedUp,
            41..45 => Manner::Access,
            45..47 => Manner::AccessRefunded,
            _ => Manner::Plain,
        }
    }
}

/// Talking to the front door.
impl Load {
    /// Sends one request and waits for its answer, not for ever.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(u16, Value), String> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.door.to_string());
        request = request.header("authorization", format!("Bearer {TOKEN}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        let request = request.body(Full::new(bytes)).map_err(|error| error.to_string())?;
        let exchange = async {
            let stream = TcpStream::connect(self.door).await.map_err(|error| error.to_string())?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// Sends a POST until it is answered for good. `None` when that did not come true, which is a trouble.
    pub async fn insist(&self, path: &str, body: &Value, key: &str) -> Option<(u16, Value)> {
        let end = Instant::now() + INSIST;
        let mut last = String::new();
        let mut pause = 150;
        while Instant::now() < end {
            match self.send(Method::POST, path, Some(body), Some(key)).await {
                Ok((status, answer)) if is_final(status, &answer) => return Some((status, answer)),
                Ok((status, answer)) => {
                    if status == 500 {
                        self.diary.trouble(About::Program, format!("POST {path} under the key {key}: 500 {answer}"));
                    }
                    last = format!("{status} {answer}");
                }
                Err(error) => last = error,
            }
            one_more(&self.counts.repeated);
            sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(1200);
        }
        let text = format!("POST {path} under the key {key} had no answer for {} s: {last}", INSIST.as_secs());
        self.diary.trouble(About::Rest, text);
        None
    }

    /// The same, where only this status is right.
    pub async fn wants(&self, path: &str, body: &Value, key: &str, wanted: u16) -> Option<Value> {
        let (status, answer) = self.insist(path, body, key).await?;
        (status == wanted).then_some(answer)
    }

    /// Puts the products on sale.
    pub async fn shelf(&self) -> Option<Shelf> {
        let price = json!({ "amount": "99.00", "currency": "RUB" });
        let key = json!({ "title": "Licence key", "kind": "stock", "price": price });
        let topup = json!({ "title": "Balance", "kind": "topup", "price": { "amount": "200.00", "currency": "RUB" } });
        let access = json!({ "title": "VPN", "kind": "vpn", "price": price, "duration_days": 30, "devices": 1 });
        let key = self.wants("/api/v1/products", &key, "product-key", 201).await?;
        let topup = self.wants("/api/v1/products", &topup, "product-topup", 201).await?;
        let access = self.wants("/api/v1/products", &access, "product-access", 201).await?;
        Some(Shelf { key: text(&key["id"]), topup: text(&topup["id"]), access: text(&access["id"]) })
    }
}

/// Whether an answer would be the same if the request were sent again.
fn is_final(status: u16, answer: &Value) -> bool {
    match status {
        408 | 429 | 500 | 503 | 504 => false,
        409 => answer["type"] != "/problems/idempotency-key-busy",
        _ => true,
    }
}

/// Sales.
impl Load {
    /// Begins a sale every quarter of a second until it is closing, and waits for the last of them.
    pub async fn sell(self: Arc<Self>, shelf: Shelf) {
        let mut sales = JoinSet::new();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut number = 0;
        while !self.closing.load(Ordering::SeqCst) {
            tick.tick().await;
            while let Some(ended) = sales.try_join_next() {
                self.ended(ended);
            }
            if sales.len() < AT_ONCE {
                sales.spawn(Arc::clone(&self).sale(number, shelf.clone()));
            }
            number += 1;
        }
        while let Some(ended) = sales.join_next().await {
            self.ended(ended);
        }
    }

    /// Notes the end of a task that had no reason to fail.
    pub fn ended(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            self.diary.trouble(About::Program, format!("a sale of the campaign failed: {error}"));
        }
    }

    async fn sale(self: Arc<Self>, number: u64, shelf: Shelf) {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let manner = Manner::drawn(&mut chance);
        let mut provider = Provider::ALL[chance.usize(0..Provider::ALL.len())];
        if manner == Manner::RefundedToProvider {
            // Of the three only YooKassa gives roubles back to where they came from.
            provider = Provider::Yookassa;
        }
        let customer = 1_000_000 + i64::try_from(number).unwrap_or_default();
        let product = match manner {
            Manner::ToppedUp => &shelf.topup,
            Manner::Access | Manner::AccessRefunded => &shelf.access,
            _ => &shelf.key,
        };
        let key = format!("sale-{number}");
        let Some(order) = self.order(&mut chance, customer, product, provider.as_str(), &key).await else { return };
        sleep(Duration::from_millis(chance.u64(0..2500))).await;
        match manner {
            Manner::Plain | Manner::Access => self.pays(&order),
            Manner::Unpaid => {}
            Manner::Cancelled | Manner::PaidAfterCancel => {
                let reason = json!({ "reason": "ordered by mistake" });
                if self.wants(&order.path("/cancel"), &reason, &format!("{key}-cancel"), 200).await.is_some() {
                    one_more(&self.counts.cancelled);
                }
                if manner == Manner::PaidAfterCancel {
                    self.pays(&order);
                }
            }
            Manner::EndedByProvider => self.ended_by_provider(&order, &mut chance).await,
            Manner::Late => {
                sleep(LIFETIME + Duration::from_secs(2)).await;
                self.pays(&order);
            }
            Manner::OtherSum => {
                let sum = if chance.bool() { "40.00" } else { "150.00" };
                self.pays_sum(&order, sum);
            }
            Manner::PaidTwice => self.paid_twice(&order, &key, provider, &mut chance).await,
            Manner::RefundedToProvider => {
                self.pays(&order);
                self.refund(&order, &key, "provider", &mut chance).await;
            }
            Manner::AccessRefunded => {
                self.pays(&order);
                self.refund(&order, &key, "balance", &mut chance).await;
            }
            Manner::RefundedAndBoughtAgain => {
                self.pays(&order);
                if self.refund(&order, &key, "balance", &mut chance).await {
                    self.buy_from_balance(&mut chance, customer, &shelf, &key).await;
                }
            }
            Manner::ToppedUp => {
                self.pays(&order);
                if self.comes_to(&order, &["delivered"]).await {
                    self.buy_from_balance(&mut chance, customer, &shelf, &key).await;
                }
            }
        }
    }

    /// Orders one of `product`; every tenth customer taps twice, and still gets one order.
    async fn order(
        &self,
        chance: &mut fastrand::Rng,
        customer: i64,
        product: &str,
        provider: &str,
        key: &str,
    ) -> Option<Order> {
        let wanted = json!({
            "customer": { "telegram_id": customer },
            "items": [{ "product": product, "quantity": 1 }],
            "provider": provider,
        });
        let path = "/api/v1/orders";
        let (status, shown) = if chance.u8(0..10) == 0 {
            let (first, second) = tokio::join!(self.insist(path, &wanted, key), self.insist(path, &wanted, key));
            let (first, second) = (first?, second?);
            if first.0 == 201 && second.0 == 201 && first.1["id"] != second.1["id"] {
                let text = format!("one key {key}, two orders: {} and {}", first.1["id"], second.1["id"]);
                self.diary.trouble(About::Doubled, text);
            }
            first
        } else {
            self.insist(path, &wanted, key).await?
        };
        if status == 201 {
            one_more(&self.counts.begun);
            return Some(Order::read(&shown));
        }
        one_more(&self.counts.refused);
        // Sold out, or refused by a provider that could not be reached: both are answers for good. The rest is not.
        if !matches!(status, 409 | 502) {
            self.diary.trouble(About::Program, format!("an order under the key {key} was refused: {status} {shown}"));
        }
        None
    }

    /// The customer pays what is asked. A payment that its provider ended takes none any more.
    pub fn pays(&self, order: &Order) {
        let Some(provider) = order.provider else { return };
        if self.sandbox.pay(provider, &order.provider_id).is_ok() {
            one_more(&self.counts.paid);
        }
    }

    fn pays_sum(&self, order: &Order, sum: &str) {
        match order.provider {
            Some(provider) if provider != Provider::Yookassa => {
                if self.sandbox.pay_amount(provider, &order.provider_id, sum).is_ok() {
                    one_more(&self.counts.paid);
                }
            }
            _ => self.pays(order),
        }
    }

    async fn ended_by_provider(&self, order: &Order, chance: &mut fastrand::Rng) {
        let Some(provider) = order.provider else { return };
        let refused = chance.bool();
        let ended = if refused {
            self.sandbox.decline(provider, &order.provider_id)
        } else {
            self.sandbox.expire(provider, &order.provider_id)
        };
        if ended.is_ok() && !refused && chance.bool() {
            sleep(Duration::from_millis(chance.u64(500..4000))).await;
            self.pays(order);
        }
    }

    /// The customer takes another link, and pays by both.
    async fn paid_twice(&self, order: &Order, key: &str, first: Provider, chance: &mut fastrand::Rng) {
        let others: Vec<Provider> = Provider::ALL.into_iter().filter(|other| *other != first).collect();
        let other = others[chance.usize(0..others.len())];
        let wish = json!({ "provider": other.as_str() });
        let shown = self.wants(&order.path("/pay"), &wish, &format!("{key}-pay"), 200).await;
        self.pays(order);
        if let Some(shown) = shown {
            sleep(Duration::from_millis(chance.u64(0..1500))).await;
            self.pays(&Order::read(&shown));
        }
    }

    /// The owner gives the money of a delivered order back; whether that was taken on.
    async fn refund(&self, order: &Order, key: &str, to: &str, chance: &mut fastrand::Rng) -> bool {
        if !self.comes_to(order, &["delivered"]).await {
            return false;
        }
        sleep(Duration::from_millis(chance.u64(0..1500))).await;
        let mut wish = json!({ "to": to, "reason": "the key did not work" });
        if to == "provider" && chance.bool() {
            wish["amount"] = json!("33.00");
        }
        let taken = self.wants(&order.path("/refund"), &wish, &format!("{key}-refund"), 200).await.is_some();
        if taken {
            one_more(&self.counts.refunds);
        }
        taken
    }

    async fn buy_from_balance(&self, chance: &mut fastrand::Rng, customer: i64, shelf: &Shelf, key: &str) {
        if self.order(chance, customer, &shelf.key, "balance", &format!("{key}-balance")).await.is_some() {
            one_more(&self.counts.from_balance);
        }
    }

    /// Waits until an order has one of these statuses; false when it ends otherwise, or takes too long.
    async fn comes_to(&self, order: &Order, wanted: &[&str]) -> bool {
        let end = Instant::now() + WAITING;
        while Instant::now() < end {
            if let Ok((200, shown)) = self.send(Method::GET, &order.path(""), None, None).await {
                let status = text(&shown["status"]);
                if wanted.contains(&status.as_str()) {
                    return true;
                }
                if matches!(status.as_str(), "cancelled" | "expired" | "refunded") {
                    return false;
                }
            }
            sleep(Duration::from_millis(400)).await;
        }
        false
    }

    /// Puts goods on the shelf every two seconds until it is closing. What was put there once is never there twice.
    pub async fn stock(self: Arc<Self>, shelf: Shelf) {
        let path = format!("/api/v1/products/{}/stock", shelf.key);
        let mut chance = fastrand::Rng::with_seed(self.seed ^ 0x73_746f_636b);
        let mut number = 0_u64;
        while !self.closing.load(Ordering::SeqCst) {
            let count = if number == 0 { 120 } else { chance.u64(16..28) };
            let items: Vec<String> = (0..count).map(|unit| format!("KEY-{number}-{unit}")).collect();
            let body = json!({ "items": items });
            if let Some(answer) = self.wants(&path, &body, &format!("stock-{number}"), 200).await {
                let (added, twice) = (answer["added"].as_u64(), answer["duplicates"].as_u64());
                self.counts.stocked.fetch_add(added.unwrap_or_default(), Ordering::SeqCst);
                if (added, twice) != (Some(count), Some(0)) {
                    self.diary.trouble(About::Doubled, format!("{count} new units were imported as {answer}"));
                }
            }
            if chance.u8(0..4) == 0
                && let Some(answer) = self.wants(&path, &body, &format!("stock-{number}-again"), 200).await
                && answer["added"] != 0
            {
                self.diary.trouble(About::Doubled, format!("units that were there came once more: {answer}"));
            }
            number += 1;
            sleep(Duration::from_secs(2)).await;
        }
    }
}

/// Webhooks.
impl Load {
    /// Sends every webhook that the outside world has to send, each in its own time, until it is closed and all are
    /// acknowledged.
    pub async fn notify(self: Arc<Self>) {
        let mut known: BTreeSet<HookId> = BTreeSet::new();
        let mut sending = JoinSet::new();
        loop {
            // Read before the outbox: what comes after the last look belongs to the next.
            let closed = self.closed.load(Ordering::SeqCst);
            for hook in self.sandbox.pending_hooks() {
                if known.insert(hook) {
                    sending.spawn(Arc::clone(&self).deliver(hook));
                }
            }
            while let Some(ended) = sending.try_join_next() {
                self.ended(ended);
            }
            if closed && sending.is_empty() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn deliver(self: Arc<Self>, hook: HookId) {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ hook.0.wrapping_mul(0xd1b5_4a32_d192_ed03));
        // Most come soon, some much later than others that happened after them.
        let late = if chance.u8(0..10) == 0 { chance.u64(2000..6000) } else { chance.u64(0..800) };
        sleep(Duration::from_millis(late)).await;
        if chance.u8(0..10) == 0 {
            // Twice in the same moment.
            let (_, _) = tokio::join!(self.attempt(hook), self.attempt(hook));
        }
        let end = Instant::now() + INSIST;
        while !self.attempt(hook).await {
            if Instant::now() > end {
                let text = format!("webhook {} was not acknowledged in {} s", hook.0, INSIST.as_secs());
                self.diary.trouble(About::Rest, text);
                return;
            }
            sleep(Duration::from_millis(chance.u64(200..1000))).await;
        }
        // A provider may repeat what was acknowledged.
        if chance.u8(0..5) == 0 {
            for _ in 0..chance.u8(1..3) {
                sleep(Duration::from_millis(chance.u64(0..2000))).await;
                self.attempt(hook).await;
            }
        }
    }

    /// One attempt; whether it was acknowledged.
    async fn attempt(&self, hook: HookId) -> bool {
        let outcome = self.sandbox.send_hook(hook).await;
        match outcome.status {
            Some(200) => {
                one_more(&self.counts.acknowledged);
                return true;
            }
            None | Some(408 | 429 | 503) => {}
            Some(other) => self.diary.trouble(About::Program, format!("webhook {} was answered with {other}", hook.0)),
        }
        one_more(&self.counts.not_acknowledged);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_may_change_are_asked_for_again() {
        let busy = json!({ "type": "/problems/idempotency-key-busy" });
        assert!(!is_final(409, &busy) && !is_final(503, &Value::Null) && !is_final(500, &Value::Null));
        assert!(is_final(409, &json!({ "type": "/problems/conflict" })) && is_final(201, &Value::Null));
        assert!(is_final(502, &Value::Null), "a provider's refusal is stored with the key");
    }
}
