//! A whole shop for one story: the program on a test's database, served on a socket of its own, with the outside world in
//! a box. Nothing happens behind a story's back: webhooks wait until they are sent, jobs until they are run, and time moves
//! only by hand.
//!
//! ```text
//! let shop = TestShop::start(t).await;
//! let key = shop.product("Licence key", "990.00").await;
//! shop.stock(&key, &["KEY-1"]).await;
//! let order = shop.order(&key, "yookassa").await;
//! shop.pay(&order);
//! shop.receive_all().await;
//! shop.run_jobs().await;
//! assert_eq!(shop.delivered_to(order.customer), ["KEY-1"]);
//! shop.finish().await;
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use semel::app::App;
use semel::parts;
use semel::server::{Limits, Peer, serve};
use semel::settings::{self, Settings};
use semel_kernel::clock::{Chance, Clock, Stopwatch, Time};
use semel_kernel::outbound::{Outbound, OutboundOptions};
use semel_kernel::store::{Engine, Store, StoreError, Value as Cell};
use semel_money::{Amount, Currency};
use semel_sandbox::{self as outside, Delivery, Options, PaymentView, Provider, Sandbox, Truth};
use semel_shop::audit::{self, HookRow, Parameters, PayRow, TgRow, TruthRows};
use semel_shop::vpn::Vpn;
use semel_shop::{Shop, ShopParts};

pub use semel::ROOMS;
pub use semel_kernel::testing::TestStore;

/// The owner, who gets the alerts.
pub const ADMIN: i64 = 1;
/// Who buys when a story does not say.
pub const CUSTOMER: i64 = 42;
/// The token from the settings.
pub const TOKEN: &str = "test-token";

/// A shop with its database and the world around it.
pub struct TestShop {
    /// The database.
    pub store: TestStore,
    /// The world.
    pub sandbox: Sandbox,
    /// The program.
    pub program: Program,
    settings: Settings,
    /// The clock of the HTTP client. It runs, because pace, pauses and breakers wait for time to pass, and every
    /// [`TestShop::advance`] moves it as well.
    running: Clock,
    paced: bool,
    dead: AtomicUsize,
    finished: bool,
}

/// One copy of the program; its door closes when it is dropped.
pub struct Program {
    /// The application. Its workers do nothing by themselves.
    pub app: Arc<App>,
    /// Its HTTP door.
    pub api: Api,
    stop: CancellationToken,
}

impl Program {
    /// Where time passes only by hand nobody can wait for the pace of the HTTP client: there a program is not `paced`.
    async fn start(
        listener: TcpListener,
        settings: Settings,
        store: Store,
        chance: Chance,
        running: Clock,
        paced: bool,
    ) -> Program {
        let options = OutboundOptions { paced, ..OutboundOptions::default() };
        let outbound = Outbound::new(running, chance.clone(), options).expect("the HTTP client");
        let shop = parts::shop_with(&settings, store, outbound, chance).expect("a shop of the settings");
        Program::of(listener, settings, shop).await
    }

    /// A program around a shop that is put together.
    async fn of(listener: TcpListener, settings: Settings, shop: Shop) -> Program {
        let address = listener.local_addr().expect("a bound socket has an address");
        let app = App::of(settings, shop);
        app.prepare().await.expect("the database is prepared");
        app.doors.ready.open();
        let stop = CancellationToken::new();
        let budget = Duration::from_secs(5);
        tokio::spawn(serve(listener, app.router(false), Limits::default(), stop.clone(), budget));
        Program { app: Arc::new(app), api: Api { address, token: TOKEN.to_owned() }, stop }
    }

    /// The shop in it.
    pub fn shop(&self) -> &Shop {
        &self.app.shop
    }

    /// Runs every job that is due, one after another, until none is; answers how many ran.
    pub async fn run_jobs(&self) -> usize {
        self.app.workers().run_due(self.shop()).await.expect("the queue answers")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An order as the story holds it. Without a provider it was paid from the balance.
#[derive(Clone, Debug)]
pub struct OrderHandle {
    /// Its id.
    pub id: String,
    /// Who buys.
    pub customer: i64,
    /// Where it is paid.
    pub provider: Option<Provider>,
    /// Our payment.
    pub payment: String,
    /// The provider's id of it.
    pub provider_id: String,
    /// Where the customer pays.
    pub url: String,
}

impl OrderHandle {
    /// Reads the answer of `POST /api/v1/orders` and of `…/pay`.
    pub fn read(order: &Value) -> OrderHandle {
        let payment = &order["payment"];
        OrderHandle {
            id: text(&order["id"]),
            customer: order["customer"]["telegram_id"].as_i64().unwrap_or_default(),
            provider: text(&payment["provider"]).parse().ok(),
            payment: text(&payment["id"]),
            provider_id: text(&payment["provider_id"]),
            url: text(&payment["url"]),
        }
    }

    /// The provider of an order that has one.
    pub fn at(&self) -> Provider {
        self.provider.unwrap_or_else(|| panic!("order {} has no payment at a provider", self.id))
    }
}

/// Starting.
impl TestShop {
    /// A shop with all three providers, a bot, and the usual rules.
    pub async fn start(store: TestStore) -> TestShop {
        Self::with(store, &[]).await
    }

    /// The same with other settings, by the names of the environment; an empty value takes a setting away.
    pub async fn with(store: TestStore, changes: &[(&str, &str)]) -> TestShop {
        let listener = loopback().await;
        let address = listener.local_addr().expect("a bound socket has an address");
        let sandbox = Sandbox::start(Options {
            mode: Delivery::Manual,
            yookassa_hook_url: Some(format!("http://{address}/webhook/yookassa")),
            ..Options::default()
        });
        let sandbox = sandbox.await.expect("the box opens");
        let mut environment = environment(&sandbox, address);
        environment.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        // An empty file in place of ./semel.toml: a story obeys nothing but itself.
        let loaded = settings::load(Some(Path::new("/dev/null")), &environment, &[]);
        let settings = loaded.unwrap_or_else(|error| panic!("the story's settings: {error}")).settings;
        let running = running_clock(store.clock.now());
        let chance = store.chance.clone();
        let program =
            Program::start(listener, settings.clone(), store.store.clone(), chance, running.clone(), true).await;
        TestShop { store, sandbox, program, settings, running, paced: true, dead: AtomicUsize::new(0), finished: false }
    }

    /// A second copy of the program on the same database, with its own connections and its own door. PostgreSQL only.
    pub async fn second_copy(&self) -> Program {
        let (store, chance) = (self.store.second_copy(), self.store.chance.clone());
        Program::start(loopback().await, self.settings.clone(), store, chance, self.running.clone(), self.paced).await
    }

    /// Whoever competes with this program: a second copy on PostgreSQL, the same program once more on SQLite.
    pub async fn rival(&self) -> Program {
        match self.store.engine() {
            Engine::Postgres => self.second_copy().await,
            Engine::Sqlite => Program {
                app: Arc::clone(&self.program.app),
                api: self.program.api.clone(),
                stop: CancellationToken::new(),
            },
        }
    }

    /// The shop in the program.
    pub fn shop(&self) -> &Shop {
        self.program.shop()
    }

    /// The program starts anew, with another VPN part than its settings say.
    #[allow(dead_code, reason = "only stories about the VPN change it")]
    pub async fn restart_with_vpn(&mut self, change: impl FnOnce(&mut Vpn)) {
        let old = self.shop().clone();
        let mut vpn = parts::vpn::vpn(&self.settings, &old.chance).expect("the settings' VPN part");
        change(vpn.as_mut().expect("the settings have a VPN part"));
        let shop = Shop::new(ShopParts {
            store: old.store.clone(),
            outbound: old.outbound.clone(),
            telegram: old.telegram.clone(),
            chance: old.chance.clone(),
            rails: parts::rails(&self.settings).expect("the settings' providers"),
            bot: old.bot.clone(),
            rules: old.rules.clone(),
            vpn,
        });
        self.program = Program::of(loopback().await, self.settings.clone(), shop).await;
        self.sandbox.set_yookassa_hook_url(format!("http://{}/webhook/yookassa", self.program.api.address));
    }
}

/// Where a simulated shop and its box are, as the outside world says it: no port stands in it, so that the same seed gives
/// the same bytes.
const SIMULATED_SHOP: &str = "https://shop.test";
const SIMULATED_BOX: &str = "https://box.test";

/// Simulations: one seed decides everything, and time passes only by hand and by the calls that the program makes.
#[allow(dead_code, reason = "a story lives on the machine's own chance; only a campaign simulates")]
impl TestShop {
    /// A shop whose ids, waits and outside world come from `seed`. Call on a runtime of one thread, and do one thing after
    /// the other: then the same seed and the same deeds give the same history. Its doors are [`TestShop::inside`], and its
    /// webhooks go in through them: no socket leads to its address.
    pub async fn by_hand(store: TestStore, seed: u64, changes: &[(&str, &str)]) -> TestShop {
        Self::simulated(store, seed, changes, true).await
    }

    /// The same for stories of thousands of messages: no call waits for the pace of the HTTP client, which takes real time. The
    /// box lets 40 ms pass with each call, so they are 25 a second all the same. What is under way at one moment reaches the
    /// box one after another: a story about silence keeps it below a second (`BROADCAST_BATCH_SIZE`).
    pub async fn in_a_hurry(store: TestStore, seed: u64, changes: &[(&str, &str)]) -> TestShop {
        Self::simulated(store, seed, changes, false).await
    }

    async fn simulated(mut store: TestStore, seed: u64, changes: &[(&str, &str)], paced: bool) -> TestShop {
        store.chance = Chance::seeded(seed);
        let running = Clock::manual(store.clock.now());
        let (hand, told) = (running.clone(), running.clone());
        let listener = loopback().await;
        let address = listener.local_addr().expect("a bound socket has an address");
        let sandbox = Sandbox::start(Options {
            mode: Delivery::Manual,
            yookassa_hook_url: Some(format!("{SIMULATED_SHOP}/webhook/yookassa")),
            public_url: Some(SIMULATED_BOX.to_owned()),
            by_hand: Some(outside::ByHand {
                now_ms: Arc::new(move || told.now().millis()),
                pass_ms: Arc::new(move |ms| hand.advance(Duration::from_millis(ms))),
                seed: seed ^ 0x5EED_0B0C,
            }),
            ..Options::default()
        });
        let sandbox = sandbox.await.expect("the box opens");
        let mut environment = environment(&sandbox, address);
        environment.insert("SEMEL_PUBLIC_URL".to_owned(), SIMULATED_SHOP.to_owned());
        environment.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let loaded = settings::load(Some(Path::new("/dev/null")), &environment, &[]);
        let settings = loaded.unwrap_or_else(|error| panic!("the simulation's settings: {error}")).settings;
        let chance = store.chance.clone();
        let program =
            Program::start(listener, settings.clone(), store.store.clone(), chance, running.clone(), paced).await;
        TestShop { store, sandbox, program, settings, running, paced, dead: AtomicUsize::new(0), finished: false }
    }

    /// The doors of the program that runs now. After a restart there are new ones.
    pub fn inside(&self) -> Inside {
        Inside { router: self.program.app.router(false) }
    }

    /// Lets the database's clock catch up with what the program's calls took; the outside world is there already.
    pub async fn catch_up(&self) {
        let ahead = self.running.now().since(self.store.clock.now());
        if !ahead.is_zero() {
            self.store.advance(ahead).await;
        }
    }

    /// The program dies and starts again on the same database. `lost` jobs that are due were claimed by it at that moment.
    /// SQLite only: there a new program takes back all that the last one held.
    pub async fn restart(&mut self, lost: i64) {
        if lost > 0 {
            let claimed = self.store.store.write("simulation.lose", move |tx| {
                tx.execute(
                    "update jobs set state = 'running', fence = fence + 1, attempts = attempts + 1, owner = 'run_that_died',
                     lease_until = semel_now() + 60000, claimed_at = semel_now() where id in
                     (select id from jobs where state = 'ready' and run_at <= semel_now() order by run_at, id limit $1)",
                    &[Cell::from(lost)],
                )
            });
            let claimed: Result<u64, StoreError> = claimed.await;
            claimed.expect("jobs can be claimed");
        }
        let (store, chance) = (self.store.store.clone(), self.store.chance.clone());
        let running = self.running.clone();
        self.program =
            Program::start(loopback().await, self.settings.clone(), store, chance, running, self.paced).await;
    }

    /// Every promise that does not hold at this moment, as far as the database alone can tell.
    pub async fn wrong_now(&self) -> Vec<String> {
        let verdicts = audit::verify(&self.store.store, Parameters::of(self.shop()), false).await;
        broken(&verdicts.expect("the audit can ask"))
    }

    /// The end of a shop whose campaign has looked for itself.
    pub async fn leave(mut self) {
        self.finished = true;
        self.sandbox.clone().stop().await;
    }
}

/// A program's doors without a socket: every layer of them, in the task of the caller.
#[derive(Clone)]
#[allow(dead_code, reason = "stories go through a socket")]
pub struct Inside {
    router: axum::Router,
}

#[allow(dead_code, reason = "stories go through a socket")]
impl Inside {
    /// Any call of the API with the first token.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>, key: Option<&str>) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, &headers, body.into()).await
    }

    /// A webhook's bytes as this provider sends them, from an address of its network.
    pub async fn receive(&self, provider: Provider, body: Bytes) -> Answer {
        let headers = [("content-type", "application/json"), ("x-forwarded-for", address_of(provider))];
        self.send(Method::POST, &format!("/webhook/{provider}"), &headers, body).await
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "shop.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(axum::body::Body::from(body)).expect("a request");
        request.extensions_mut().insert(Peer(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
        let answer = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("the whole answer comes").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// An address of the provider's published networks.
fn address_of(provider: Provider) -> &'static str {
    match provider {
        Provider::Yookassa => "185.71.76.5",
        Provider::Heleket => "31.133.220.8",
        Provider::CrystalPay => "193.141.53.171",
    }
}

async fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port")
}

/// A clock that begins where the database's stands and runs from there.
fn running_clock(start: Time) -> Clock {
    let clock = Clock::manual(start);
    let hand = clock.clone();
    tokio::spawn(async move {
        let watch = Stopwatch::start();
        let mut told = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let passed = watch.millis();
            hand.advance(Duration::from_millis(u64::try_from(passed - told).unwrap_or(0)));
            told = passed;
        }
    });
    clock
}

/// Settings that point a program at the box.
fn environment(sandbox: &Sandbox, address: SocketAddr) -> BTreeMap<String, String> {
    let pairs = [
        ("SEMEL_LISTEN", address.to_string()),
        ("SEMEL_PUBLIC_URL", format!("http://{address}")),
        ("SEMEL_API_TOKEN", TOKEN.into()),
        ("SEMEL_TRUSTED_PROXIES", "127.0.0.0/8".into()),
        ("SEMEL_SHOP_ORDER_LIFETIME", "30m".into()),
        ("SEMEL_TELEGRAM_BOT_TOKEN", outside::BOT_TOKEN.into()),
        ("SEMEL_TELEGRAM_API_URL", sandbox.telegram_url()),
        ("SEMEL_TELEGRAM_ADMIN_IDS", ADMIN.to_string()),
        ("SEMEL_YOOKASSA_SHOP_ID", outside::YOOKASSA_SHOP_ID.into()),
        ("SEMEL_YOOKASSA_SECRET_KEY", outside::YOOKASSA_SECRET_KEY.into()),
        ("SEMEL_YOOKASSA_API_URL", sandbox.yookassa_url()),
        ("SEMEL_HELEKET_MERCHANT_ID", outside::HELEKET_MERCHANT_ID.into()),
        ("SEMEL_HELEKET_PAYMENT_KEY", outside::HELEKET_PAYMENT_KEY.into()),
        ("SEMEL_HELEKET_PAYOUT_KEY", outside::HELEKET_PAYOUT_KEY.into()),
        ("SEMEL_HELEKET_API_URL", sandbox.heleket_url()),
        ("SEMEL_CRYSTALPAY_LOGIN", outside::CRYSTALPAY_LOGIN.into()),
        ("SEMEL_CRYSTALPAY_SECRET", outside::CRYSTALPAY_SECRET.into()),
        ("SEMEL_CRYSTALPAY_SALT", outside::CRYSTALPAY_SALT.into()),
        ("SEMEL_CRYSTALPAY_API_URL", sandbox.crystalpay_url()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Goods and orders.
impl TestShop {
    /// `POST` to the program with a fresh key.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.program.api.post(path, body).await
    }

    /// `POST` to the program with this key.
    pub async fn post_with_key(&self, path: &str, body: Value, key: &str) -> (u16, Value) {
        self.program.api.post_with_key(path, body, key).await
    }

    /// `GET` from the program.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.program.api.get(path).await
    }

    /// `PATCH` to the program.
    pub async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.program.api.patch(path, body).await
    }

    /// A product that is handed out from stock; its price is in roubles. Answers its id.
    pub async fn product(&self, title: &str, price: &str) -> String {
        let price = json!({ "amount": price, "currency": "RUB" });
        self.product_of(json!({ "title": title, "kind": "stock", "price": price })).await
    }

    /// A product as the API describes it. Answers its id.
    pub async fn product_of(&self, description: Value) -> String {
        let (status, product) = self.post("/api/v1/products", description).await;
        assert_eq!(status, 201, "a product is made: {product}");
        text(&product["id"])
    }

    /// Puts goods into stock.
    pub async fn stock(&self, product: &str, items: &[&str]) {
        let (status, answer) = self.post(&format!("/api/v1/products/{product}/stock"), json!({ "items": items })).await;
        assert_eq!((status, &answer["added"]), (200, &json!(items.len())), "stock is imported: {answer}");
    }

    /// A product with stock at once.
    pub async fn product_with(&self, title: &str, price: &str, items: &[&str]) -> String {
        let product = self.product(title, price).await;
        self.stock(&product, items).await;
        product
    }

    /// One of a product, for the usual customer.
    pub async fn order(&self, product: &str, provider: &str) -> OrderHandle {
        self.order_by(CUSTOMER, product, provider).await
    }

    /// One of a product, for this customer.
    pub async fn order_by(&self, customer: i64, product: &str, provider: &str) -> OrderHandle {
        let (status, order) = self.post("/api/v1/orders", an_order(customer, product, provider)).await;
        assert_eq!(status, 201, "an order is made: {order}");
        OrderHandle::read(&order)
    }

    /// Orders, pays, and lets everything happen.
    pub async fn sell(&self, product: &str, provider: &str) -> OrderHandle {
        let order = self.order(product, provider).await;
        if order.provider.is_some() {
            self.pay(&order);
        }
        self.receive_all().await;
        self.run_jobs().await;
        order
    }

    /// The order as the API shows it.
    pub async fn show(&self, order: &OrderHandle) -> Value {
        let (status, shown) = self.get(&format!("/api/v1/orders/{}", order.id)).await;
        assert_eq!(status, 200, "an order is shown: {shown}");
        shown
    }

    /// Where the order stands.
    pub async fn status(&self, order: &OrderHandle) -> String {
        text(&self.show(order).await["status"])
    }

    /// Asks for money back; answers the status and the answer.
    pub async fn refund(&self, order: &OrderHandle, to: &str, amount: Option<&str>) -> (u16, Value) {
        let mut body = json!({ "to": to, "reason": "asked for" });
        if let Some(amount) = amount {
            body["amount"] = json!(amount);
        }
        self.post(&format!("/api/v1/orders/{}/refund", order.id), body).await
    }
}

/// What the API wants for one of a product.
pub fn an_order(customer: i64, product: &str, provider: &str) -> Value {
    json!({
        "customer": { "telegram_id": customer },
        "items": [{ "product": product, "quantity": 1 }],
        "provider": provider,
    })
}

/// The outside world, and time.
impl TestShop {
    /// The customer pays what is asked. The webhook waits in the box.
    pub fn pay(&self, order: &OrderHandle) -> PaymentView {
        self.sandbox.pay(order.at(), &order.provider_id).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The customer pays another sum, decimal text in the payment's currency.
    pub fn pay_amount(&self, order: &OrderHandle, amount: &str) -> PaymentView {
        self.sandbox.pay_amount(order.at(), &order.provider_id, amount).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Does something at YooKassa by hand, as its cabinet or another program of the same shop would.
    pub async fn at_yookassa(&self, path: &str, body: Value) -> Value {
        let url = self.sandbox.url();
        let address = url.trim_start_matches("http://").parse().expect("the box has an address");
        let account = format!("{}:{}", outside::YOOKASSA_SHOP_ID, outside::YOOKASSA_SECRET_KEY);
        let (basic, key) = (format!("Basic {}", STANDARD.encode(account)), fresh_key());
        let headers = [
            ("authorization", basic.as_str()),
            ("idempotence-key", key.as_str()),
            ("content-type", "application/json"),
        ];
        let cabinet = Api { address, token: String::new() };
        let body = body.to_string().into();
        let answer = cabinet.send(Method::POST, &format!("/yookassa/v3{path}"), &headers, body).await;
        assert_eq!(answer.status, 200, "YooKassa does it: {}", answer.line());
        answer.json()
    }

    /// Sends every webhook that waits, and insists that each is acknowledged; answers how many there were.
    pub async fn receive_all(&self) -> usize {
        let outcomes = self.sandbox.send_all().await;
        for outcome in &outcomes {
            assert_eq!(outcome.status, Some(200), "a webhook is acknowledged");
        }
        outcomes.len()
    }

    /// Loses every webhook that waits.
    pub fn lose_all(&self) {
        for hook in self.sandbox.pending_hooks() {
            self.sandbox.drop_hook(hook);
        }
    }

    /// Runs every job that is due until none is; answers how many ran.
    pub async fn run_jobs(&self) -> usize {
        self.program.run_jobs().await
    }

    /// Moves the time.
    pub async fn advance(&self, by: Duration) {
        self.running.advance(by);
        self.store.advance(by).await;
    }

    /// Moves the time and runs what has become due.
    pub async fn wait(&self, by: Duration) {
        self.advance(by).await;
        self.run_jobs().await;
    }
}

/// What came of it.
impl TestShop {
    /// The goods in a customer's chat, in the order in which they came; what came twice stands here twice.
    pub fn delivered_to(&self, customer: i64) -> Vec<String> {
        let thanks = ["Thank you for your purchase!", "Спасибо за покупку!"];
        let messages = self.sandbox.chat(customer).into_iter();
        let goods = messages.filter(|message| thanks.iter().any(|words| message.text.starts_with(words)));
        let words = goods.map(|message| match message.document {
            Some(file) => String::from_utf8_lossy(&file.bytes).into_owned(),
            None => message.text,
        });
        words.flat_map(|words| contents(&words)).collect()
    }

    /// All texts in a chat.
    pub fn chat(&self, customer: i64) -> Vec<String> {
        self.sandbox.chat(customer).into_iter().map(|message| message.text).collect()
    }

    /// What the owner was told.
    pub fn alerts(&self) -> Vec<String> {
        self.chat(ADMIN)
    }

    /// The books: one account a line with its sum. Orders' accounts show only while money waits in them.
    pub async fn ledger(&self) -> String {
        let rows = self
            .store
            .rows(
                "select a.kind, a.owner, a.currency, cast(coalesce(sum(e.amount), 0) as bigint), c.telegram_id
                 from accounts a left join entries e on e.account = a.id left join customers c on c.id = a.owner
                 group by a.kind, a.owner, a.currency, c.telegram_id",
            )
            .await;
        let mut lines = Vec::new();
        for row in &rows {
            let (kind, owner, code): (String, String, String) =
                (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
            let (minor, telegram_id): (i64, Option<i64>) = (row.get(3).unwrap(), row.get(4).unwrap());
            if kind == "order" && minor == 0 {
                continue;
            }
            let name = match (kind.as_str(), telegram_id) {
                ("external", _) => owner.split(':').next().unwrap_or_default().to_owned(),
                ("customer", Some(id)) => format!("customer {id}"),
                _ => kind,
            };
            let sum = Amount::new(minor, Currency::from_code(&code).unwrap());
            lines.push((name, if minor > 0 { format!("+{sum}") } else { sum.to_string() }));
        }
        lines.sort();
        let names = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let sums = lines.iter().map(|(_, sum)| sum.len()).max().unwrap_or(0);
        lines.iter().map(|(name, sum)| format!("{name:<names$}  {sum:>sums$}\n")).collect()
    }

    /// A customer's balance as the API tells it: `990.00 RUB`, several with commas between, `nothing` when there is none.
    pub async fn balance(&self, customer: i64) -> String {
        let (status, shown) = self.get(&format!("/api/v1/customers/{customer}")).await;
        assert_eq!(status, 200, "a customer is shown: {shown}");
        let balances = shown["balances"].as_array().cloned().unwrap_or_default();
        let texts: Vec<String> = balances.iter().map(money).collect();
        if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
    }

    /// Notices in the inbox as `event state` with the reason after it, sorted: a clock that stands gives them no order.
    pub async fn inbox(&self) -> Vec<String> {
        let sql = "select event || ' ' || state || coalesce(': ' || reason, '') from inbox";
        let mut lines = self.store.texts(sql).await;
        lines.sort();
        lines
    }

    /// Units of a product on the shelf.
    pub async fn available(&self, product: &str) -> i64 {
        let (status, shown) = self.get(&format!("/api/v1/products/{product}")).await;
        assert_eq!(status, 200, "a product is shown: {shown}");
        shown["stock"]["available"].as_i64().unwrap_or_default()
    }

    /// The number that a query answers.
    pub async fn number(&self, sql: &'static str) -> i64 {
        self.store.number(sql).await
    }

    /// Changes the database in a way that no code of the program does. Answers how many rows.
    pub async fn change(&self, sql: &'static str) -> u64 {
        let changed = self.store.store.write("story.change", move |tx| tx.execute(sql, &[]));
        let changed: Result<u64, StoreError> = changed.await;
        changed.expect("the database takes it")
    }

    /// A campaign as its owner sees it.
    pub async fn campaign_view(&self, id: &str) -> Value {
        let (status, shown) = self.get(&format!("/api/v1/campaigns/{id}")).await;
        assert_eq!(status, 200, "{shown}");
        shown
    }
}

/// The end.
impl TestShop {
    /// Runs what is due, and insists that nothing is left over and that every promise of the audit holds, with the box as
    /// the witness of what the outside world accepted. A story that does not call this fails.
    pub async fn finish(mut self) {
        self.run_jobs().await;
        self.finished = true;
        let wrong = self.wrong_at_rest().await;
        self.sandbox.clone().stop().await;
        assert!(wrong.is_empty(), "the story does not end well:\n  {}", wrong.join("\n  "));
    }

    /// What is left undone, and every promise that does not hold now that all is quiet, with the box as the witness.
    pub async fn wrong_at_rest(&self) -> Vec<String> {
        let mut wrong = self.left_over().await;
        let truth = truth_rows(&self.sandbox.truth());
        let verdicts = audit::check_with_truth(&self.store.store, &truth, Parameters::of(self.shop()), true).await;
        wrong.extend(broken(&verdicts.expect("the audit can ask")));
        wrong
    }

    async fn left_over(&self) -> Vec<String> {
        let jobs = self
            .store
            .texts(
                "select state || ': ' || kind || coalesce(' (' || error || ')', '') from jobs
                 where state in ('running', 'dead') or (state = 'ready' and run_at <= semel_now()) order by id",
            )
            .await;
        let (dead, alive): (Vec<String>, Vec<String>) = jobs.into_iter().partition(|job| job.starts_with("dead"));
        let mut wrong: Vec<String> = alive.into_iter().map(|job| format!("a job is left, {job}")).collect();
        let expected = self.dead.load(Ordering::SeqCst);
        if dead.len() != expected {
            wrong.push(format!("{} dead letters instead of {expected}: {}", dead.len(), dead.join("; ")));
        }
        wrong
    }
}

impl Drop for TestShop {
    fn drop(&mut self) {
        let told = self.finished || std::thread::panicking();
        assert!(told, "a story ends with `shop.finish().await`, which looks for what is left undone");
    }
}

/// The verdicts that are none, a sentence each.
fn broken(verdicts: &[audit::Verdict]) -> Vec<String> {
    let words = |verdict: &audit::Verdict| {
        let rows = verdict.violations.join(" ");
        format!("{} is broken ({}): {} rows, such as {rows}", verdict.id, verdict.meaning, verdict.count)
    };
    verdicts.iter().filter(|verdict| !verdict.holds()).map(words).collect()
}

/// The box's ground truth as the audit reads it. Repeats that were answered alike are one row: they prove the same.
fn truth_rows(truth: &Truth) -> TruthRows {
    let mut seen = BTreeSet::new();
    let hooks = truth
        .gt_hook
        .iter()
        .filter(|hook| seen.insert((hook.provider, hook.event_id.clone(), hook.body_hash.clone(), hook.status)));
    let hooks = hooks.map(|hook| HookRow {
        provider: hook.provider.as_str().to_owned(),
        merchant: hook.merchant.clone(),
        event_id: hook.event_id.clone(),
        body_hash: hook.body_hash.clone(),
        // CrystalPay takes 429 for an acknowledgement.
        status: match (hook.provider, hook.status) {
            (Provider::CrystalPay, 429) => 200,
            (_, status) => i64::from(status),
        },
        sent_at: hook.sent_at,
        answered_at: Some(hook.answered_at),
    });
    let pays = truth.gt_pay.iter().map(|pay| PayRow {
        provider: pay.provider.as_str().to_owned(),
        merchant: pay.merchant.clone(),
        provider_payment_id: pay.provider_payment_id.clone(),
        currency: pay.currency.clone(),
        captured: pay.captured,
        refunded: pay.refunded,
    });
    let tg = truth.gt_tg.iter().map(|call| TgRow {
        call_id: call.call_id.clone(),
        token: call.token.clone(),
        chat_id: call.chat_id.unwrap_or_default(),
        method: call.method.clone(),
        msg_id: Some(call.msg_id.clone()),
        accepted: call.accepted,
        answer_lost: call.answer_lost,
        retry_after: call.retry_after,
        scope: call.scope.clone(),
        at: call.at,
    });
    TruthRows { hooks: hooks.collect(), pays: pays.collect(), tg: tg.collect(), ..TruthRows::default() }
}

/// What is handed over in a text of goods: two lines of thanks, then each title with its pieces below it.
fn contents(words: &str) -> Vec<String> {
    let mut contents = Vec::new();
    let mut title = false;
    for line in words.lines().skip(2) {
        if line.is_empty() {
            title = true;
        } else if title {
            title = false;
        } else {
            contents.push(line.to_owned());
        }
    }
    contents
}

/// An answer with everything that came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Status and body as one line.
    pub fn line(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A client of one copy's door; a connection of its own for each request.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    /// The same door for the bearer of another token.
    pub fn as_bearer(&self, token: &str) -> Api {
        Api { address: self.address, token: token.to_owned() }
    }

    /// Where this copy is, as its neighbours on the same machine call it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.call(Method::GET, path, None, None).await;
        (answer.status, answer.json())
    }

    /// `POST` with a fresh key.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.post_with_key(path, body, &fresh_key()).await
    }

    /// `POST` with this key.
    pub async fn post_with_key(&self, path: &str, body: Value, key: &str) -> (u16, Value) {
        let answer = self.call(Method::POST, path, Some(&body), Some(key)).await;
        (answer.status, answer.json())
    }

    /// `PATCH`.
    pub async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.call(Method::PATCH, path, Some(&body), None).await;
        (answer.status, answer.json())
    }

    /// Any call of the API with this client's token.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>, key: Option<&str>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, &headers, body.into()).await
    }

    /// Any request with exactly these headers.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let stream = TcpStream::connect(self.address).await.expect("the program's door is open");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap_or_else(|error| panic!("{path} is answered: {error}"));
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("the whole answer comes").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Posts a webhook's bytes as this provider does, from an address of its network. The box does not know of it, so it is
    /// no ground truth.
    pub async fn receive(&self, provider: Provider, body: impl Into<Bytes>) -> Answer {
        let headers = [("content-type", "application/json"), ("x-forwarded-for", address_of(provider))];
        self.send(Method::POST, &format!("/webhook/{provider}"), &headers, body.into()).await
    }
}

fn fresh_key() -> String {
    static KEYS: AtomicU64 = AtomicU64::new(1);
    format!("story-{}", KEYS.fetch_add(1, Ordering::SeqCst))
}

/// A refusal of the API as `409 sold-out`; of what is no refusal, the whole answer.
pub fn refusal((status, problem): &(u16, Value)) -> String {
    match problem["type"].as_str() {
        Some(kind) => format!("{status} {}", kind.trim_start_matches("/problems/")),
        None => format!("{status} {problem}"),
    }
}

/// How a campaign and its recipients stand, without what is zero: `finished: failed 1, sent 9`. Insists that the recipients sum to
/// the snapshot.
pub fn sums(campaign: &Value) -> String {
    let states = campaign["progress"]["states"].as_object().cloned().unwrap_or_default();
    let all: i64 = states.values().filter_map(Value::as_i64).sum();
    assert_eq!(Some(all), campaign["recipients"].as_i64(), "the states sum to the snapshot: {campaign}");
    let told = states.iter().filter(|(_, count)| count.as_i64() != Some(0));
    let told: Vec<String> = told.map(|(state, count)| format!("{state} {count}")).collect();
    format!("{}: {}", text(&campaign["state"]), told.join(", "))
}

/// Telegram's method that sends a text.
pub fn send_message() -> outside::Target {
    outside::Target::Telegram("sendMessage".into())
}

/// A JSON text; empty when it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An amount of the API as `990.00 RUB`.
pub fn money(value: &Value) -> String {
    format!("{} {}", text(&value["amount"]), text(&value["currency"]))
}

/// So many minutes.
pub fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}
