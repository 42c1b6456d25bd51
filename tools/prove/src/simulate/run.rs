//! Lives a program: a whole shop on a clock that is moved by hand, one deed after the other, everything from one seed.
//!
//! The answers of the API, what the workers did and the messages go into a running hash, the trace: the same seed has to
//! give the same one. A program stops at the first deed after which a promise is broken. Then it comes to rest, all faults
//! healed, and the [`Model`] says what must have come of it.

mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use semel_kernel::clock::Time;
use semel_kernel::jobs;
use semel_kernel::store::{FromValue, Row, Value as Cell};
use semel_payments::Provider as Rail;
use semel_sandbox::{ChatState, Fault, HookId, Provider, Target};
use semel_shop::Error;
use semel_shop::checkout::SweepProvider;
use semel_wireguard::Conf;
use serde_json::{Value, json};

use super::access::{Back, DAY_MS, Deed, Found, Holding, Row as Subscribed, Sale};
use super::model::{Model, Money, Order, Product, Seen, Sort, Try};
use super::program::{By, Hooks, How, Line, Step, Wrong};
use crate::app::{Answer, Inside, OrderHandle, TestShop, TestStore, refusal, text};

/// A short life of orders, so that deadlines pass and money comes late all the time.
const LIFETIME: Duration = Duration::from_secs(300);
const CHANGES: [(&str, &str); 14] = [
    ("SEMEL_SHOP_ORDER_LIFETIME", "5m"),
    ("SEMEL_SHOP_UNPAID_ORDERS_PER_CUSTOMER", "4"),
    // A VPN server whose interface is somebody else's business.
    ("SEMEL_VPN_HOST", "vpn.example.com"),
    ("SEMEL_VPN_APPLY", "file"),
    // As in the model.
    ("SEMEL_VPN_TRIAL_DAYS", "3"),
    ("SEMEL_VPN_GRACE_HOURS", "1"),
    ("SEMEL_VPN_QUARANTINE_DAYS", "1"),
    ("SEMEL_VPN_TRAFFIC_EVERY", "1d"),
    // The bytes of a key are any that have the right number.
    ("SEMEL_VPN_KEY", KEY),
    // One person after the other: calls at the same time have no order that a seed could give again.
    ("BROADCAST_BATCH_SIZE", "1"),
    ("BROADCAST_BATCH_SLEEP", "1s"),
    // As in the model. Whoever takes Stars hears their customers.
    ("SEMEL_STARS_ENABLED", "true"),
    ("SEMEL_STARS_WORTH", "1.80"),
    ("SEMEL_TELEGRAM_UPDATES", "polling"),
];
/// 32 bytes: they seal the keys of customers, and are the server's public key.
const KEY: &str = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=";
/// Where the products of access begin: a week and a month.
const ACCESS: u8 = 6;
/// The longest pause and cool-down that a fault leaves behind, and a little more.
const AFTERMATH: Duration = Duration::from_secs(330);
/// Seconds of a silence: longer than any call may wait, so that the job waits and not the call. A job's time is simulated.
const SILENCE_S: u64 = 90;
/// A call waits no longer than this for the end of a pause.
const PATIENCE: Duration = Duration::from_secs(45);
/// Of how many of the latest orders a deed chooses one.
const RECENT: usize = 40;
/// So often a customer's program repeats a request that was answered 503.
const REPEATS: usize = 8;
/// So many units of the first day never go out, because they come in again and again.
const KEPT: u64 = 2;

/// Every view of the audit, with what it says that does not depend on the machine: how long a run took does, and so does
/// the number that a database gives a row (PostgreSQL gathers rows, and a transaction that is undone uses numbers up). Of
/// entries the order within each account counts.
pub const VIEWS: &[(&str, &str)] = &[
    ("audit_inbox", "select * from audit_inbox"),
    ("audit_tx", "select * from audit_tx"),
    (
        "audit_entry",
        "select account_id, row_number() over (partition by account_id order by seq), tx_id, currency, amount
         from audit_entry",
    ),
    ("audit_account", "select * from audit_account"),
    ("audit_order", "select * from audit_order"),
    ("audit_item", "select * from audit_item"),
    ("audit_delivery", "select * from audit_delivery"),
    (
        "audit_unit",
        // What was withdrawn is known by a fingerprint of its id.
        "select unit_id, state, item_id, case when state = 'void' and item_id is null then 'withdrawn' else content_hash end
         from audit_unit",
    ),
    ("audit_payout", "select * from audit_payout"),
    ("audit_effect", "select * from audit_effect"),
    ("audit_msg", "select * from audit_msg"),
    ("audit_recipient", "select * from audit_recipient"),
    ("audit_job", "select * from audit_job"),
    ("audit_run", "select job_id, owner, fence, outcome, ended_at from audit_run"),
    ("audit_lease", "select * from audit_lease"),
    ("audit_sub", "select * from audit_sub"),
    ("audit_peer", "select * from audit_peer"),
    ("audit_transition", "select * from audit_transition"),
    ("vpn_ip_pool", "select * from vpn_ip_pool where status <> 'free'"),
];

/// The rows of each view as text, sorted.
pub type Views = BTreeMap<&'static str, Vec<Vec<String>>>;

/// How a program is lived.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// After so many lines the views and all messages are added to the trace.
    pub probe_at: Option<usize>,
    /// Work is done after every line and every few seconds, so that little is ever due at the same moment.
    pub fine: bool,
    /// Whether the shop comes to rest at the end and is compared with the model.
    pub rest: bool,
    /// Whether the views are handed back.
    pub dump: bool,
}

/// What came of a program.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests, payments, webhooks, imports, restarts: what was done to the shop.
    pub operations: u64,
    /// Faults that were set.
    pub faults: u64,
    /// Jobs that ran.
    pub jobs: u64,
    /// Simulated milliseconds, without the rest at the end.
    pub simulated_ms: u64,
    /// The running hash after each line.
    pub trace: Vec<u64>,
    /// Promises that were broken, answers that must not be.
    pub broken: Vec<String>,
    /// Where the shop rests otherwise than the model says.
    pub unlike: Vec<String>,
    /// The rows of the audit views, if they were asked for.
    pub views: Views,
}

impl Report {
    /// Whether everything was as it must be.
    pub fn is_well(&self) -> bool {
        self.broken.is_empty() && self.unlike.is_empty()
    }
}

/// Lives `program` on `store`.
pub async fn live(store: TestStore, seed: u64, program: &[Line], plan: &Plan) -> Report {
    let folder = tempfile::tempdir().expect("a folder for the VPN");
    let conf = folder.path().join("wg0.conf");
    let path = conf.display().to_string();
    let mut changes: Vec<(&str, &str)> = CHANGES.to_vec();
    changes.extend([("SEMEL_VPN_CONFIG_PATH", path.as_str()), ("SEMEL_VPN_SERVER_PUBLIC_KEY", KEY)]);
    let shop = TestShop::by_hand(store, seed, &changes).await;
    let door = shop.inside();
    let mut life = Life {
        shop,
        door,
        model: Model::default(),
        report: Report::default(),
        hasher: DefaultHasher::new(),
        fine: plan.fine,
        line: String::from("opening"),
        keys: 0,
        units: 0,
        shelves: Vec::new(),
        withdrawn: Vec::new(),
        faulty: false,
        last_fault: None,
        conf,
        skipped: Duration::ZERO,
        talks: false,
        questions: 0,
        replies: Vec::new(),
        news: Vec::new(),
    };
    life.open().await;
    let begun = life.now();
    for (n, line) in program.iter().enumerate() {
        life.line = format!("line {} ({:?})", n + 1, line.step);
        life.shop.advance(Duration::from_millis(line.after_ms)).await;
        life.step(&line.step).await;
        life.shop.catch_up().await;
        if plan.fine {
            life.work().await;
        }
        if (n + 1).is_multiple_of(if n < 250 { 25 } else { 100 }) {
            life.look().await;
        }
        if plan.probe_at == Some(n + 1) {
            life.probe().await;
        }
        life.report.trace.push(life.hasher.finish());
        if !life.report.broken.is_empty() {
            break;
        }
    }
    // Days in which nobody came are no hours of a busy shop.
    let busy = life.now().since(begun).saturating_sub(life.skipped);
    life.report.simulated_ms = u64::try_from(busy.as_millis()).unwrap_or(0);
    life.line = String::from("at rest");
    if plan.rest && life.report.broken.is_empty() {
        life.rest().await;
    }
    if plan.dump {
        life.report.views = views(&life.shop.store).await;
    }
    let Life { shop, report, .. } = life;
    shop.leave().await;
    report
}

/// All views as they are now.
pub async fn views(store: &TestStore) -> Views {
    let mut views = Views::new();
    for (name, sql) in VIEWS.iter().copied() {
        let rows = store.rows(sql).await;
        let mut rows: Vec<Vec<String>> = rows.iter().map(|row| row.values().iter().map(word).collect()).collect();
        rows.sort();
        views.insert(name, rows);
    }
    views
}

/// SQLite has no truth values, so they are numbers.
fn word(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Int(number) => number.to_string(),
        Cell::Bool(flag) => i64::from(*flag).to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn cell<T: FromValue>(row: &Row, index: usize) -> T {
    row.get(index).expect("a column of this kind")
}

/// Decimal text as kopecks.
fn minor(amount: &Value) -> i64 {
    text(amount).replace('.', "").parse().unwrap_or(0)
}

fn decimal(kopecks: i64) -> String {
    format!("{}.{:02}", kopecks / 100, kopecks % 100)
}

/// What stands in the so-and-so-many-th unit.
fn unit(n: u64) -> String {
    format!("UNIT-{n:06}")
}

fn customer(who: u8) -> i64 {
    1_000 + i64::from(who)
}

/// One of the latest of `candidates`.
fn pick<T: Copy>(candidates: &[T], n: u16) -> Option<T> {
    let span = candidates.len().min(RECENT);
    if span == 0 {
        return None;
    }
    candidates.iter().rev().nth(usize::from(n) % span).copied()
}

/// A shop in the middle of its program.
struct Life {
    shop: TestShop,
    door: Inside,
    model: Model,
    report: Report,
    hasher: DefaultHasher,
    fine: bool,
    line: String,
    keys: u64,
    units: u64,
    /// The numbers of each product's units in the order in which they are sold, whether they were or not.
    shelves: Vec<Vec<u64>>,
    /// The numbers of units that went out again.
    withdrawn: Vec<u64>,
    /// A fault may still strike.
    faulty: bool,
    last_fault: Option<Time>,
    /// The file of the VPN server.
    conf: PathBuf,
    /// Days in which nobody came, together.
    skipped: Duration,
    /// Whether anybody has talked to the bot.
    talks: bool,
    /// How often the owner was asked for help.
    questions: usize,
    /// What the owner answered: to whom, and the words.
    replies: Vec<(i64, String)>,
    /// Campaigns that began.
    news: Vec<talk::News>,
}

/// The plumbing.
impl Life {
    fn now(&self) -> Time {
        self.shop.store.clock.now()
    }

    fn note(&mut self, thing: impl Hash) {
        thing.hash(&mut self.hasher);
    }

    fn wrong(&mut self, what: impl std::fmt::Display) {
        self.report.broken.push(format!("{}: {what}", self.line));
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("simulated-{}", self.keys)
    }

    /// Nothing outside goes wrong, and has not for so long that no pause and no breaker is left of it.
    fn calm(&self) -> bool {
        !self.faulty && self.last_fault.is_none_or(|at| self.now().since(at) > AFTERMATH)
    }

    /// Takes an answer into the trace.
    fn heard(&mut self, answer: &Answer) -> (u16, Value) {
        let (status, json) = (answer.status, answer.json());
        let mut plain = json.clone();
        forget_machine(&mut plain);
        self.note((status, plain.to_string()));
        self.report.operations += 1;
        (status, json)
    }

    async fn get(&mut self, path: &str) -> (u16, Value) {
        let answer = self.door.call(Method::GET, path, None, None).await;
        self.heard(&answer)
    }

    async fn post(&mut self, path: &str, body: &Value, key: &str) -> (u16, Value) {
        let answer = self.door.call(Method::POST, path, Some(body), Some(key)).await;
        self.heard(&answer)
    }

    /// Lets every silence end that has no more than `within` left. A call waits out the short rest of a pause by itself, and
    /// it does so on the machine's clock: nothing simulated may come that far.
    async fn hush(&self, within: Duration) {
        loop {
            let now = self.now().millis();
            let left = self.shop.sandbox.silences().into_iter().map(|until| u64::try_from(until - now).unwrap_or(0));
            let short = left.map(Duration::from_millis).filter(|left| !left.is_zero() && *left <= within).min();
            let Some(short) = short else { return };
            self.shop.advance(short + Duration::from_millis(1)).await;
        }
    }

    /// Repeats a request under its key while the answer is "not now", as a bot does.
    async fn insist(&mut self, path: &str, body: &Value, key: &str) -> (u16, Value) {
        self.hush(PATIENCE).await;
        let mut answer = self.post(path, body, key).await;
        for _ in 0..REPEATS {
            if answer.0 != 503 {
                break;
            }
            self.shop.advance(Duration::from_secs(15)).await;
            self.hush(PATIENCE).await;
            answer = self.post(path, body, key).await;
        }
        answer
    }

    /// Everything that is due is done.
    async fn work(&mut self) {
        self.hush(PATIENCE).await;
        let ran = self.shop.run_jobs().await;
        self.report.jobs += ran as u64;
        self.note(ran);
        self.shop.catch_up().await;
        if self.calm() {
            self.model.ran(self.now().millis());
        }
        self.meet_orders().await;
    }

    async fn look(&mut self) {
        for sentence in self.shop.wrong_now().await {
            self.wrong(sentence);
        }
    }

    /// Adds everything that can be seen to the trace.
    async fn probe(&mut self) {
        let views = views(&self.shop.store).await;
        self.note(views);
        for chat in self.shop.sandbox.chats() {
            let texts = self.shop.chat(chat);
            self.note((chat, texts));
        }
    }

    async fn wait(&mut self, by: Duration) {
        if !self.fine {
            self.shop.advance(by).await;
            return;
        }
        let piece = Duration::from_secs(5);
        let mut left = by;
        while !left.is_zero() {
            let now = left.min(piece);
            self.shop.advance(now).await;
            self.work().await;
            left -= now;
        }
    }
}

/// How long something took is the machine's and not the seed's, and so are its words for a connection that broke.
fn forget_machine(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("took_ms");
            members.remove("detail");
            members.values_mut().for_each(forget_machine);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_machine),
        _ => {}
    }
}

/// The deeds.
impl Life {
    /// The shop's goods on its first day.
    async fn open(&mut self) {
        let goods = [
            ("Key", 9_900, Sort::Instant),
            ("Licence", 24_950, Sort::Instant),
            ("Account", 99_000, Sort::Instant),
            ("Course", 149_000, Sort::Instant),
            ("Portrait", 150_000, Sort::Made),
            ("Balance", 100_000, Sort::Topup),
            ("VPN, a week", 9_900, Sort::Access(7)),
            ("VPN, a month", 30_000, Sort::Access(30)),
        ];
        for (title, price, sort) in goods {
            let mut body = json!({
                "title": title,
                "kind": match sort {
                    Sort::Topup => "topup",
                    Sort::Access(_) => "vpn",
                    Sort::Instant | Sort::Made => "stock",
                },
                "price": { "amount": decimal(price), "currency": "RUB" },
            });
            if sort == Sort::Made {
                body["delivery"] = json!("made_to_order");
                body["promise_hours"] = json!(24);
            }
            if let Sort::Access(days) = sort {
                body["duration_days"] = json!(days);
                body["devices"] = json!(1);
            }
            let key = self.key();
            let (status, made) = self.post("/api/v1/products", &body, &key).await;
            if status != 201 {
                self.wrong(format!("a product is answered {status} {made}"));
            }
            self.model.products.push(Product { id: text(&made["id"]), sort, price, imported: 0 });
            self.shelves.push(Vec::new());
        }
        // Access is sold from a server that was applied once.
        self.work().await;
        // A quiet program has enough of everything: which of two late payments gets the last unit is nobody's promise.
        let many = if self.fine { 400 } else { 12 };
        for product in 0..4 {
            self.import(product, many, false).await;
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Order { who, what, many, by } => self.order(*who, *what, *many, *by).await,
            Step::Tap { who, what, by, one_key } => self.tap(*who, *what, *by, *one_key).await,
            Step::PayOtherwise { order, by } => self.pay_otherwise(*order, *by).await,
            Step::Pay { order, how } => self.pay(*order, *how),
            Step::PayStars { order, told } => self.pay_stars(*order, *told).await,
            Step::Deliver(hooks) => self.deliver(*hooks).await,
            Step::Lie { order } => self.lie(*order),
            Step::Jobs => self.work().await,
            Step::Wait { seconds } => self.wait(Duration::from_secs(u64::from(*seconds))).await,
            Step::Stock { what, many, again } => self.import(usize::from(*what) % 5, u64::from(*many), *again).await,
            Step::Withdraw { what, many } => self.withdraw(usize::from(*what) % 5, usize::from(*many)).await,
            Step::Refund { order, to_provider, part } => self.refund(*order, *to_provider, *part).await,
            Step::Cabinet { order, part, told } => self.cabinet(*order, *part, *told).await,
            Step::Cancel { order } => self.cancel(*order).await,
            Step::Look { order } => self.show(*order).await,
            Step::Sweep(by) => self.sweep(*by).await,
            Step::Restart { lost } => self.restart(*lost).await,
            Step::Fault { at, wrong, times } => {
                if let Some(provider) = at.provider() {
                    self.fault(Target::Api(provider, String::new()), *wrong, *times);
                }
            }
            Step::TelegramFault { wrong, times } => self.fault(Target::Telegram(String::new()), *wrong, *times),
            Step::Block { who } => {
                self.shop.sandbox.set_chat_state(customer(*who), ChatState::Blocked);
                self.model.blocked.insert(customer(*who));
                self.struck();
            }
            Step::Heal => self.heal(),
            Step::Buy { who, month, many, by } => self.order(*who, ACCESS + u8::from(*month), *many, *by).await,
            Step::Trial { who } => self.trial(*who).await,
            Step::Grant { who, devices } => self.grant(*who, *devices).await,
            Step::Extend { sub, days } => {
                let body = json!({ "days": days, "reason": "a gift" });
                self.by_hand(*sub, "extend", &body, Deed::Extend { ms: i64::from(*days) * DAY_MS }).await;
            }
            Step::Freeze { sub } => self.by_hand(*sub, "freeze", &asked_for(), Deed::Freeze).await,
            Step::Unfreeze { sub } => self.by_hand(*sub, "unfreeze", &asked_for(), Deed::Unfreeze).await,
            Step::Revoke { sub } => self.by_hand(*sub, "revoke", &asked_for(), Deed::Revoke).await,
            Step::OwnKey { sub } => self.own_key(*sub).await,
            Step::Days { days } => self.days(*days).await,
            Step::ButtonBuy { who, what, by, taps } => self.buy_by_button(*who, *what, *by, *taps).await,
            Step::ButtonAgain { who, by } => self.tap_button(*who, *by, 1).await,
            Step::Ask { who } => self.ask_owner(*who).await,
            Step::Reply { question } => self.reply(*question).await,
            Step::Campaign => self.campaign().await,
        }
    }

    fn wanted(&self, who: u8, product: usize, many: u8, by: By) -> Value {
        json!({
            "customer": { "telegram_id": customer(who) },
            "items": [{ "product": self.model.products[product].id, "quantity": many }],
            "provider": by.word(),
        })
    }

    /// The product and the way to pay: the balance is not topped up from itself, and not with Stars.
    fn choice(&self, what: u8, by: By) -> (usize, By) {
        let product = usize::from(what) % self.model.products.len();
        let is_topup = self.model.products[product].sort == Sort::Topup;
        (product, if is_topup && matches!(by, By::Balance | By::Stars) { By::Yookassa } else { by })
    }

    async fn order(&mut self, who: u8, what: u8, many: u8, by: By) {
        let (product, by) = self.choice(what, by);
        let (body, placed, key) = (self.wanted(who, product, many, by), self.now(), self.key());
        let answer = self.insist("/api/v1/orders", &body, &key).await;
        self.ordered(&answer, placed, (who, product, many, by)).await;
    }

    async fn tap(&mut self, who: u8, what: u8, by: By, one_key: bool) {
        let (product, by) = self.choice(what, by);
        let (body, placed, key) = (self.wanted(who, product, 1, by), self.now(), self.key());
        let first = self.insist("/api/v1/orders", &body, &key).await;
        self.ordered(&first, placed, (who, product, 1, by)).await;
        let (again, placed) = (if one_key { key } else { self.key() }, self.now());
        let second = self.insist("/api/v1/orders", &body, &again).await;
        if one_key && first.0 == 201 && second != first {
            self.wrong(format!("one key has two answers: {} and {} {}", first.1, second.0, second.1));
        }
        self.ordered(&second, placed, (who, product, 1, by)).await;
    }

    /// Takes the answer to an order into the model.
    async fn ordered(&mut self, answer: &(u16, Value), placed: Time, what: (u8, usize, u8, By)) {
        let (who, product, many, by) = what;
        // Nothing is opened in Stars: the provider's id comes with the money.
        let known_as = if by == By::Stars { "id" } else { "provider_id" };
        let mut there = text(&answer.1["payment"][known_as]);
        let id = match answer.0 {
            201 => OrderHandle::read(&answer.1).id,
            409 => return self.refused(answer, product, i64::from(many)),
            // The order stands, and nobody learnt how to pay it.
            503 => {
                let path = format!("/api/v1/orders?customer={}&limit=1", customer(who));
                there.clear();
                text(&self.get(&path).await.1["items"][0]["id"])
            }
            status => return self.wrong(format!("an order is answered {status} {}", answer.1)),
        };
        if id.is_empty() || self.model.orders.iter().any(|order| order.id == id) {
            return;
        }
        let payment = Try { by, there, paid: None, heard: false };
        // What is on a balance in Stars buys by buttons, too.
        let stars = by == By::Stars || answer.1["total"]["currency"] == "XTR";
        let sold = &self.model.products[product];
        let price = if stars { sold.in_stars() } else { sold.price };
        self.model.orders.push(Order {
            id,
            who: customer(who),
            product,
            many: i64::from(many),
            total: price * i64::from(many),
            stars,
            deadline: (placed + LIFETIME).millis(),
            by_balance: by == By::Balance,
            cancelled: false,
            sure: false,
            tries: if by == By::Balance { Vec::new() } else { vec![payment] },
            to_balance: Vec::new(),
            to_provider: Vec::new(),
            cabinet: None,
        });
    }

    fn refused(&mut self, answer: &(u16, Value), product: usize, many: i64) {
        let word = refusal(answer);
        match word.as_str() {
            "409 sold-out" if matches!(self.model.products[product].sort, Sort::Access(_)) => {
                self.wrong("access is sold out, which has no stock");
            }
            "409 sold-out" if self.model.surely_left(product) >= many => {
                self.wrong(format!("sold out, where {} are left for certain", self.model.surely_left(product)));
            }
            "409 sold-out" | "409 too-many-unpaid-orders" | "409 insufficient-balance" | "409 conflict" => {}
            _ => self.wrong(format!("refused in a strange way: {word}")),
        }
    }

    async fn pay_otherwise(&mut self, n: u16, by: By) {
        let orders = self.model.orders.iter().enumerate().skip(self.model.old);
        let open: Vec<usize> =
            orders.filter(|(_, o)| !o.cancelled && !o.by_balance && o.given() == 0).map(|(index, _)| index).collect();
        let Some(index) = pick(&open, n) else { return };
        let product = self.model.orders[index].product;
        let by = match by {
            By::Balance if self.model.products[product].sort == Sort::Topup => By::Heleket,
            By::Balance => By::Balance,
            // Stars pay what is in Stars, and nothing else does.
            _ if self.model.orders[index].stars => By::Stars,
            By::Stars => By::Yookassa,
            by => by,
        };
        let path = format!("/api/v1/orders/{}/pay", self.model.orders[index].id);
        let key = self.key();
        let answer = self.insist(&path, &json!({ "provider": by.word() }), &key).await;
        match answer.0 {
            200 if by == By::Balance => self.model.orders[index].by_balance = true,
            200 => {
                let handle = OrderHandle::read(&answer.1);
                let there = if by == By::Stars { handle.payment } else { handle.provider_id };
                self.model.orders[index].tries.push(Try { by, there, paid: None, heard: false });
            }
            409 => self.refused(&answer, product, i64::MAX),
            503 => {}
            status => self.wrong(format!("paying in another way is answered {status} {}", answer.1)),
        }
    }

    fn pay(&mut self, n: u16, how: How) {
        let mut unpaid = Vec::new();
        for (index, order) in self.model.orders.iter().enumerate().skip(self.model.old) {
            let tries = order.tries.iter().enumerate();
            // What went back in the cabinet bought nothing any more; nobody pays that once more.
            let open = tries.filter(|(_, one)| one.paid.is_none() && !one.there.is_empty() && order.cabinet.is_none());
            let open = open.filter(|(_, one)| one.by != By::Stars);
            unpaid.extend(open.map(|(which, _)| (index, which)));
        }
        let Some((index, which)) = pick(&unpaid, n) else { return };
        let (total, one) = (self.model.orders[index].total, self.model.orders[index].tries[which].clone());
        let Some(provider) = one.by.provider() else { return };
        let sum = match how {
            How::Exact => total,
            How::Short => total * 6 / 10,
            How::Surplus => total + 10_000,
        };
        let paid = match how {
            How::Exact => self.shop.sandbox.pay(provider, &one.there),
            _ => self.shop.sandbox.pay_amount(provider, &one.there, &decimal(sum)),
        };
        match paid {
            Ok(view) => {
                self.note(view.status);
                self.report.operations += 1;
                self.model.paid(index, which, sum);
            }
            Err(error) => self.wrong(format!("a customer cannot pay: {error}")),
        }
    }

    async fn deliver(&mut self, hooks: Hooks) {
        let mut waiting = self.shop.sandbox.pending_hooks();
        match hooks {
            Hooks::All | Hooks::Twice => {}
            Hooks::Backwards => waiting.reverse(),
            Hooks::Last => waiting = waiting.last().copied().into_iter().collect(),
            Hooks::Lost => {
                for hook in waiting {
                    self.shop.sandbox.drop_hook(hook);
                }
                return;
            }
        }
        for hook in waiting {
            self.send(hook).await;
            if hooks == Hooks::Twice {
                self.send(hook).await;
            }
        }
    }

    async fn send(&mut self, id: HookId) {
        let Some(hook) = self.shop.sandbox.hook(id) else { return };
        if self.fine {
            self.shop.advance(Duration::from_millis(1)).await;
        }
        let answer = self.door.receive(hook.provider, hook.body.clone()).await;
        self.shop.sandbox.told(id, answer.status);
        self.note(answer.status);
        self.report.operations += 1;
        if answer.status != 200 {
            return self.wrong(format!("webhook {} is answered {}", hook.event_id, answer.line()));
        }
        self.model.heard(&hook.payment_id);
        if self.fine {
            self.work().await;
        }
    }

    fn lie(&mut self, n: u16) {
        let tries = self.model.orders.iter().flat_map(|order| &order.tries);
        let known: Vec<&Try> = tries.filter(|one| !one.there.is_empty()).collect();
        let Some(one) = pick(&known, n).cloned() else { return };
        let (Some(provider), state) = (one.by.provider(), came(one.by)) else { return };
        if let Err(error) = self.shop.sandbox.lie(provider, &one.there, state) {
            self.wrong(format!("the box cannot lie: {error}"));
        }
    }

    /// `again`: units of the first day come once more, and are there already; and one that went out, and is new.
    async fn import(&mut self, product: usize, many: u64, again: bool) {
        let known = if again { self.units.min(KEPT) } else { 0 };
        let mut new: Vec<u64> = if again { self.withdrawn.pop().into_iter().collect() } else { Vec::new() };
        new.extend(self.units + 1..=self.units + many);
        let items: Vec<String> = (1..=known).chain(new.iter().copied()).map(unit).collect();
        let path = format!("/api/v1/products/{}/stock", self.model.products[product].id);
        let key = self.key();
        let (status, answer) = self.post(&path, &json!({ "items": items }), &key).await;
        let found = (status, answer["added"].as_u64(), answer["duplicates"].as_u64());
        if found != (200, Some(new.len() as u64), Some(known)) {
            self.wrong(format!("an import of {} new and {known} old units is answered {status} {answer}", new.len()));
        }
        self.units += many;
        self.model.products[product].imported += i64::try_from(new.len()).unwrap_or(0);
        self.shelves[product].extend(new);
    }

    /// The units that came in last are sold last: where enough are left for certain, these are free.
    async fn withdraw(&mut self, product: usize, many: usize) {
        let shelf = &self.shelves[product];
        let newest = shelf[shelf.len().saturating_sub(many)..].to_vec();
        if newest.len() < many || newest.iter().any(|n| *n <= KEPT) {
            return;
        }
        let items: Vec<String> = newest.iter().copied().map(unit).collect();
        let path = format!("/api/v1/products/{}/stock/withdraw", self.model.products[product].id);
        let (key, wanted) = (self.key(), i64::try_from(many).unwrap_or(i64::MAX));
        let (status, answer) = self.post(&path, &json!({ "items": items }), &key).await;
        match status {
            200 if answer["withdrawn"] == wanted => {
                self.model.products[product].imported -= wanted;
                let left = self.shelves[product].len() - many;
                self.shelves[product].truncate(left);
                self.withdrawn.extend(newest);
            }
            409 if self.model.surely_left(product) < wanted => {}
            _ => self.wrong(format!("{many} units go out, and that is answered {status} {answer}")),
        }
    }

    async fn refund(&mut self, n: u16, to_provider: bool, part: bool) {
        let orders = self.model.orders.iter().enumerate();
        let full = |order: &Order| order.tries.iter().any(|one| matches!(one.paid, Some((_, Money::Full))));
        let bought = orders.filter(|(_, o)| !o.cancelled && o.cabinet.is_none() && (o.by_balance || full(o)));
        let bought: Vec<usize> = bought.filter(|(_, o)| o.given() < o.total).map(|(index, _)| index).collect();
        let Some(index) = pick(&bought, n) else { return };
        let order = self.model.orders[index].clone();
        let sum = if part { order.total / 3 } else { order.total - order.given() };
        let mut body = json!({ "to": if to_provider { "provider" } else { "balance" }, "reason": "asked for" });
        if part {
            body["amount"] = json!(if order.stars { sum.to_string() } else { decimal(sum) });
        }
        let key = self.key();
        let (status, answer) = self.post(&format!("/api/v1/orders/{}/refund", order.id), &body, &key).await;
        let topup = self.model.products[order.product].sort == Sort::Topup;
        if status == 200 && matches!(self.model.products[order.product].sort, Sort::Access(_)) {
            self.model.access.closed.insert(order.who);
        }
        match status {
            200 if topup && !to_provider => self.wrong("money on the balance was given to the balance once more"),
            200 if to_provider => self.model.orders[index].to_provider.push(sum),
            200 => self.model.orders[index].to_balance.push(sum),
            409 | 422 => {}
            _ => self.wrong(format!("a refund is answered {status} {answer}")),
        }
    }

    /// Only where the sums are certain: one exact payment that the books have, nothing given back before; and where its money
    /// went to the balance, only while it is there.
    async fn cabinet(&mut self, n: u16, part: bool, told: bool) {
        let sort = |order: &Order| self.model.products[order.product].sort;
        let fits = |order: &Order| match &order.tries[..] {
            [one] => {
                let has_cabinet = !matches!(one.by, By::CrystalPay | By::Stars);
                one.paid == Some((order.total, Money::Full)) && has_cabinet
            }
            _ => false,
        };
        let orders = self.model.orders.iter().enumerate();
        let fit = orders.filter(|(_, o)| !o.by_balance && o.given() == 0 && sort(o) != Sort::Topup && fits(o));
        let fit: Vec<usize> = fit.map(|(index, _)| index).collect();
        let Some(index) = pick(&fit, n) else { return };
        // What is older than a provider's list is learned from its notice alone.
        let told = told || index < self.model.old;
        let order = self.model.orders[index].clone();
        let (by, there) = (order.tries[0].by, order.tries[0].there.clone());
        let shown = self.get(&format!("/api/v1/orders/{}", order.id)).await.1;
        let state = text(&shown["status"]);
        let payments = shown["payments"].as_array().cloned().unwrap_or_default();
        let booked = payments.iter().any(|one| text(&one["provider_id"]) == there && text(&one["status"]) == "paid");
        let half = part && by == By::Yookassa;
        let sum = if half { order.total / 2 } else { order.total };
        let may = match state.as_str() {
            "delivered" => true,
            "expired" | "cancelled" => told && self.calm() && self.balance(order.who).await >= sum,
            _ => false,
        };
        if !booked || !may {
            return;
        }
        let (sandbox, amount) = (&self.shop.sandbox, decimal(sum));
        let given = match by {
            By::Yookassa => sandbox.refund_at_yookassa(&there, Some(&amount), told),
            _ => sandbox.refund_at_heleket(&there, None, told),
        };
        if let Err(error) = given {
            return self.wrong(format!("the cabinet gives nothing back: {error}"));
        }
        self.report.operations += 1;
        self.model.orders[index].cabinet = Some(sum);
        if matches!(self.model.products[order.product].sort, Sort::Access(_)) {
            self.model.access.closed.insert(order.who);
        }
        if told && let Some(hook) = self.shop.sandbox.pending_hooks().last().copied() {
            self.send(hook).await;
            self.work().await;
        }
    }

    async fn balance(&mut self, who: i64) -> i64 {
        let shown = self.get(&format!("/api/v1/customers/{who}")).await.1;
        let sums = shown["balances"].as_array().cloned().unwrap_or_default();
        sums.iter().filter(|sum| sum["currency"] == "RUB").map(|sum| minor(&sum["amount"])).sum()
    }

    async fn cancel(&mut self, n: u16) {
        let orders: Vec<usize> = (0..self.model.orders.len()).collect();
        let Some(index) = pick(&orders, n) else { return };
        let (path, key) = (format!("/api/v1/orders/{}/cancel", self.model.orders[index].id), self.key());
        match self.post(&path, &json!({}), &key).await {
            (200, _) => self.model.orders[index].cancelled = true,
            (409, _) => {}
            (status, answer) => self.wrong(format!("calling off is answered {status} {answer}")),
        }
    }

    async fn show(&mut self, n: u16) {
        let orders: Vec<usize> = (0..self.model.orders.len()).collect();
        let Some(index) = pick(&orders, n) else { return };
        let (status, answer) = self.get(&format!("/api/v1/orders/{}", self.model.orders[index].id)).await;
        if status != 200 {
            self.wrong(format!("an order is shown as {status} {answer}"));
        }
    }

    async fn sweep(&mut self, by: By) {
        let provider = match by {
            By::Yookassa => Rail::YooKassa,
            By::Heleket => Rail::Heleket,
            By::CrystalPay => Rail::CrystalPay,
            By::Stars => Rail::Stars,
            By::Balance => return,
        };
        let due = self.shop.shop().write("simulation.sweep", move |tx, shop| {
            let now = tx.now();
            jobs::enqueue(tx, &SweepProvider { provider, tick: now.millis() }, now, &shop.chance)?;
            Ok::<_, Error>(())
        });
        due.await.expect("a sweep can be written");
    }

    /// A new program knows from its database that Telegram asked for silence before: T2 says whether it kept it.
    async fn restart(&mut self, lost: u8) {
        self.shop.restart(i64::from(lost)).await;
        self.door = self.shop.inside();
        self.report.operations += 1;
    }

    fn fault(&mut self, target: Target, wrong: Wrong, times: u8) {
        let fault = match wrong {
            Wrong::Fails => Fault::Status(500),
            Wrong::FailsAfter => Fault::StatusAfter(500),
            Wrong::Silence => Fault::TooMany { retry_after: SILENCE_S },
            Wrong::CutBefore => Fault::CutBefore,
            Wrong::CutAfter => Fault::CutAfter,
            Wrong::Slow => Fault::Delay(5_000),
        };
        self.shop.sandbox.fault(target, fault, Some(u32::from(times)));
        self.struck();
    }

    fn struck(&mut self) {
        self.faulty = true;
        self.model.faults = true;
        self.last_fault = Some(self.now());
        self.report.faults += 1;
    }

    fn heal(&mut self) {
        self.shop.sandbox.clear_faults();
        for chat in &self.model.blocked {
            self.shop.sandbox.set_chat_state(*chat, ChatState::Open);
        }
        if self.faulty {
            self.last_fault = Some(self.now());
        }
        self.faulty = false;
    }
}

/// Why the owner does it.
fn asked_for() -> Value {
    json!({ "reason": "asked for" })
}

/// Access to the VPN.
impl Life {
    async fn trial(&mut self, who: u8) {
        let (body, key, at) =
            (json!({ "customer": { "telegram_id": customer(who) } }), self.key(), self.now().millis());
        match self.post("/api/v1/subscriptions/trial", &body, &key).await {
            (201, made) => self.model.access.did(at, customer(who), text(&made["id"]), Deed::Trial, true),
            (409, _) => self.model.access.refused_trials.push((customer(who), at)),
            (status, answer) => self.wrong(format!("a trial is answered {status} {answer}")),
        }
    }

    async fn grant(&mut self, who: u8, devices: u8) {
        let days = 5;
        let body = json!({
            "customer": { "telegram_id": customer(who) }, "days": days, "devices": devices, "reason": "a friend of the shop",
        });
        let (key, at) = (self.key(), self.now().millis());
        let deed = Deed::Grant { devices: i64::from(devices), ms: days * DAY_MS };
        match self.post("/api/v1/subscriptions", &body, &key).await {
            (201, made) => self.model.access.did(at, customer(who), text(&made["id"]), deed, true),
            (status, answer) => self.wrong(format!("access is given away, and answered {status} {answer}")),
        }
    }

    /// One of the latest subscriptions, with its customer.
    async fn subscription(&mut self, n: u16) -> Option<(String, i64)> {
        let (_, page) = self.get(&format!("/api/v1/subscriptions?limit={RECENT}")).await;
        let all = page["items"].as_array().cloned().unwrap_or_default();
        let one = usize::from(n).checked_rem(all.len()).map(|index| all[index].clone())?;
        Some((text(&one["id"]), one["customer"]["telegram_id"].as_i64().unwrap_or_default()))
    }

    async fn by_hand(&mut self, n: u16, what: &str, body: &Value, deed: Deed) {
        let Some((id, who)) = self.subscription(n).await else { return };
        let (path, key, at) = (format!("/api/v1/subscriptions/{id}/{what}"), self.key(), self.now().millis());
        match self.post(&path, body, &key).await {
            (200, _) => self.model.access.did(at, who, id, deed, true),
            (409, _) => self.model.access.did(at, who, id, deed, false),
            (status, answer) => self.wrong(format!("{what} is answered {status} {answer}")),
        }
    }

    async fn own_key(&mut self, n: u16) {
        let Some((id, who)) = self.subscription(n).await else { return };
        let (_, shown) = self.get(&format!("/api/v1/subscriptions/{id}")).await;
        let peers = shown["peers"].as_array().cloned().unwrap_or_default();
        let Some(peer) = peers.iter().find(|peer| peer["state"] != "freed" && peer["device"] == 1) else { return };
        let key = self.key();
        let mut bytes = [7_u8; 32];
        bytes[..8].copy_from_slice(&self.keys.to_be_bytes());
        let public = STANDARD.encode(bytes);
        let path = format!("/api/v1/peers/{}/key", text(&peer["id"]));
        match self.post(&path, &json!({ "public_key": public }), &key).await {
            (200, _) => {
                self.model.access.closed.insert(who);
                self.model.access.keys.entry(id).or_default().push(public);
            }
            (409, _) => {}
            (status, answer) => self.wrong(format!("an own key is answered {status} {answer}")),
        }
    }

    /// Days in which nobody comes, while all is well outside. Nobody pays by a link of before.
    async fn days(&mut self, days: u8) {
        if !self.calm() {
            return;
        }
        self.deliver(Hooks::All).await;
        self.work().await;
        self.model.old = self.model.orders.len();
        // The hourly look at the providers' lists, which reach back two days, is not skipped.
        for by in [By::Yookassa, By::Heleket, By::Stars] {
            self.sweep(by).await;
        }
        self.work().await;
        let long = Duration::from_secs(u64::from(days) * 86_400);
        self.skipped += long;
        self.shop.advance(long).await;
        self.work().await;
    }

    async fn see_access(&self) -> Found {
        let store = &self.shop.store;
        let mut found = Found { now: self.now().millis(), ..Found::default() };
        let rows = "select s.id, c.telegram_id, s.state, s.paid_until, s.devices, s.created_at
            from subscriptions s join customers c on c.id = s.customer order by s.id";
        for row in store.rows(rows).await {
            found.rows.push(Subscribed {
                id: cell(&row, 0),
                who: cell(&row, 1),
                state: cell(&row, 2),
                until: cell(&row, 3),
                devices: cell(&row, 4),
                created_at: cell(&row, 5),
            });
        }
        let sales = "select p.created_at, i.order_id, c.telegram_id, p.subscription, p.seconds, p.taken
            from periods p join items i on i.id = p.item join subscriptions s on s.id = p.subscription
            join customers c on c.id = s.customer order by p.created_at, p.id";
        for row in store.rows(sales).await {
            found.sales.push(Sale {
                at: cell(&row, 0),
                order: cell(&row, 1),
                who: cell(&row, 2),
                id: cell(&row, 3),
                seconds: cell(&row, 4),
                taken: cell(&row, 5),
            });
        }
        let backs = "select ended_at, order_id, amount from refunds where state = 'succeeded' and target <> 'elsewhere'
            order by ended_at, id";
        for row in store.rows(backs).await {
            found.backs.push(Back { at: cell(&row, 0), order: cell(&row, 1), sum: cell(&row, 2) });
        }
        let holdings = "select p.subscription, p.state, p.public_key,
            (select count(*) from peer_addresses a where a.peer = p.id and a.freed_at is null) from peers p order by p.id";
        for row in store.rows(holdings).await {
            found.holdings.push(Holding {
                id: cell(&row, 0),
                state: cell(&row, 1),
                key: cell(&row, 2),
                addresses: cell(&row, 3),
            });
        }
        let late = "select distinct c.telegram_id from peers p join subscriptions s on s.id = p.subscription
            join customers c on c.id = s.customer where p.given_at is null or p.given_at - p.created_at > 600000";
        for row in store.rows(late).await {
            found.late.insert(cell(&row, 0));
        }
        found.held = store.number("select count(*) from addresses where state = 'held'").await;
        // Without a peer ever there is no file.
        let bytes = std::fs::read(&self.conf).unwrap_or_default();
        if let Ok(conf) = Conf::parse(&bytes)
            && conf.whole()
        {
            found.in_file = conf.ours().iter().map(|peer| peer.public_key.to_string()).collect();
        }
        found
    }
}

/// The provider's word for money that came.
fn came(by: By) -> &'static str {
    match by {
        By::Yookassa => "succeeded",
        By::Heleket | By::Stars => "paid",
        By::CrystalPay | By::Balance => "payed",
    }
}

/// The end.
impl Life {
    /// Everything heals, what waits for stock gets it, and time passes until nothing more happens by itself. Then every
    /// promise must hold, with the box as the witness, and the shop must stand as the model says.
    async fn rest(&mut self) {
        self.heal();
        let made = self.model.orders.iter().filter(|order| self.model.products[order.product].sort == Sort::Made);
        let waiting: i64 = made.map(|order| order.many).sum();
        self.deliver(Hooks::All).await;
        self.work().await;
        if waiting > 0 {
            self.import(4, u64::try_from(waiting).unwrap_or(0), false).await;
        }
        for round in 0..15 {
            self.shop.advance(Duration::from_secs(600)).await;
            if round % 6 == 1 {
                for by in [By::Yookassa, By::Heleket, By::Stars] {
                    self.shop.advance(Duration::from_millis(1)).await;
                    self.sweep(by).await;
                }
            }
            self.work().await;
            self.deliver(Hooks::All).await;
            self.work().await;
        }
        // Who is a moment past the end has access still; the promise speaks of rest.
        for _ in 0..12 {
            if self.shop.number("select count(*) from subscriptions where state = 'grace'").await == 0 {
                break;
            }
            self.shop.advance(Duration::from_secs(600)).await;
            self.work().await;
        }
        self.news_ends().await;
        for sentence in self.shop.wrong_at_rest().await {
            self.wrong(sentence);
        }
        let seen = self.see().await;
        self.report.unlike = self.model.compare(&seen);
        let news = self.news_unlike().await;
        self.report.unlike.extend(news);
        let replies = self.replies_unlike();
        self.report.unlike.extend(replies);
    }

    async fn see(&self) -> Seen {
        let store = &self.shop.store;
        let mut seen = Seen::default();
        for row in store.rows("select id, state from orders").await {
            seen.states.insert(cell(&row, 0), cell(&row, 1));
        }
        let balances = "select c.telegram_id, coalesce(a.balance, 0), a.currency from accounts a
            join customers c on c.id = a.owner where a.kind = 'customer'";
        for row in store.rows(balances).await {
            let currency: String = cell(&row, 2);
            seen.balances.insert((cell(&row, 0), currency == "XTR"), cell(&row, 1));
        }
        let suspense =
            "select cast(coalesce(sum(e.amount), 0) as bigint) from entries e join accounts a on a.id = e.account
            where a.kind = 'suspense'";
        seen.suspense = store.number(suspense).await;
        let delivered = "select i.order_id, count(*) from deliveries d join items i on i.id = d.item
            where d.state = 'delivered' group by i.order_id";
        for row in store.rows(delivered).await {
            seen.delivered.insert(cell(&row, 0), cell(&row, 1));
        }
        let owners = "select u.content, c.telegram_id from deliveries d join units u on u.id = d.unit
            join items i on i.id = d.item join orders o on o.id = i.order_id join customers c on c.id = o.customer
            where d.state = 'delivered'";
        seen.owners = store.rows(owners).await.iter().map(|row| (cell(row, 0), cell(row, 1))).collect();
        for row in store.rows("select kind, count(*) from messages group by kind").await {
            seen.messages.insert(cell(&row, 0), cell(&row, 1));
        }
        let customers: BTreeSet<i64> = self.model.orders.iter().map(|order| order.who).collect();
        for who in customers {
            seen.chats.insert(who, self.shop.delivered_to(who).into_iter().collect());
        }
        for provider in Provider::ALL {
            for payment in self.shop.sandbox.payments(provider) {
                seen.there.insert(payment.id, (payment.captured, payment.refunded));
            }
        }
        for charge in self.shop.sandbox.star_payments() {
            let (came, back) = seen.there.entry(charge.payload).or_default();
            *came += charge.stars;
            *back += if charge.refunded { charge.stars } else { 0 };
        }
        seen.access = self.see_access().await;
        seen
    }
}
