//! What a story about the whole program needs: a world that outlives it, the process itself, and a door to talk through.
//!
//! ```text
//! let world = World::on(Engine::Sqlite).await;
//! let mut program = world.start().await;
//! let order = program.sell_one(42).await;
//! let hook = world.pay(&order);
//! program.process.kill_9();
//! let mut program = world.start().await;
//! world.acknowledged(hook).await;
//! program.delivered(&order).await;
//! world.finish(program, Killed::BesideTelegram).await;
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use semel::ROOMS;
use semel_kernel::clock::{Clock, Stopwatch};
use semel_kernel::store::{Engine, Store, StoreUrl};
use semel_kernel::testing::{self, TestStore};
use semel_sandbox::{self as outside, Delivery, HookId, Options, Provider, Sandbox, Truth};
use semel_shop::audit::{self, HookRow, Parameters, PayRow, TgRow, TruthRows};

/// The token from the settings.
pub const TOKEN: &str = "story-token-0123456789";

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Says which build of the program runs. The program's own tests know theirs; who includes this file from elsewhere says
/// it once, before the first world.
#[allow(dead_code, reason = "for the campaigns that include this file")]
pub fn use_binary(path: PathBuf) {
    let _ = BINARY.set(path);
}

fn binary() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_semel") {
        Some(built) => PathBuf::from(built),
        None => BINARY.get().cloned().expect("use_binary says which program runs"),
    }
}

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Patience with a busy machine: a condition is looked at again and again until it holds or the time is up.
pub struct Patience {
    what: String,
    end: Instant,
}

impl Patience {
    /// Waits for `what`, so many seconds at most.
    pub fn of(what: impl Into<String>, seconds: u64) -> Patience {
        Patience { what: what.into(), end: Instant::now() + Duration::from_secs(seconds) }
    }

    /// Lets a moment pass before the next look; panics when the time is up.
    pub async fn wait(&self) {
        assert!(Instant::now() < self.end, "it did not come true in time that {}", self.what);
        tokio::time::sleep(LOOK).await;
    }
}

/// A JSON text; empty when it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A child process whose words go to files. It never outlives the story, and a story that fails shows its last words.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`; its words are kept in `folder`.
    pub fn start(mut command: Command, folder: &Path) -> Process {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let (out, err) = (folder.join(format!("out-{number}")), folder.join(format!("err-{number}")));
        command.stdin(Stdio::null());
        command.stdout(File::create(&out).expect("a file for the program's words"));
        command.stderr(File::create(&err).expect("a file for the program's words"));
        let child = command.spawn().unwrap_or_else(|error| panic!("the program does not start: {error}"));
        Process { child, out, err }
    }

    /// Its number in the system.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// What it wrote to standard output so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits until it ends by itself.
    pub async fn wait_exit(&mut self, seconds: u64) -> ExitStatus {
        self.exit_within(seconds).await.expect("it did not come true in time that the process ends")
    }

    /// How it ended by itself, if it did within so many seconds.
    pub async fn exit_within(&mut self, seconds: u64) -> Option<ExitStatus> {
        let end = Instant::now() + Duration::from_secs(seconds);
        while self.ended().is_none() && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        self.ended()
    }

    /// Ends it as a power cut would.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to stop, as a service manager does, and insists that it ends well.
    pub async fn terminate(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "the program is there to be asked to stop");
        let status = self.wait_exit(30).await;
        assert!(status.success(), "asked to stop, the program ends well, not with {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- the last words of the program with the log {}:\n{last}\n---", self.err.display());
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// The body as it came.
    pub text: String,
    /// How long the caller waited.
    pub took: Duration,
}

/// A client of an HTTP server; a connection of its own for each request.
#[derive(Clone, Debug)]
pub struct Door {
    address: SocketAddr,
    token: String,
}

impl Door {
    /// The server at `address`, for the bearer of `token`.
    pub fn at(address: SocketAddr, token: &str) -> Door {
        Door { address, token: token.to_owned() }
    }

    /// The same server for the bearer of another token.
    pub fn as_bearer(&self, token: &str) -> Door {
        Door::at(self.address, token)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET`; there must be an answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path} is answered: {error}"))
    }

    /// `GET`; a server that is not there is an error.
    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.call(Method::GET, path, None, None).await
    }

    /// `POST` with a fresh key; there must be an answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let key = format!("story-{}", KEYS.fetch_add(1, Ordering::SeqCst));
        self.post_with_key(path, body, &key).await
    }

    /// `POST` with this key; there must be an answer.
    pub async fn post_with_key(&self, path: &str, body: &Value, key: &str) -> Answer {
        let answer = self.call(Method::POST, path, Some(body), Some(key)).await;
        answer.unwrap_or_else(|error| panic!("POST {path} is answered: {error}"))
    }

    /// `POST` with this key; a server that is not there, or dies on the way, is an error.
    #[allow(dead_code, reason = "for the campaigns that include this file")]
    pub async fn try_post_with_key(&self, path: &str, body: &Value, key: &str) -> Result<Answer, String> {
        self.call(Method::POST, path, Some(body), Some(key)).await
    }

    /// `PATCH`; a server that is not there, or dies on the way, is an error.
    #[allow(dead_code, reason = "for the campaigns that include this file")]
    pub async fn try_patch(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.call(Method::PATCH, path, Some(body), None).await
    }

    /// `POST` as Telegram does it: without a token, with the webhook's secret. Answers the status; a server that is not there,
    /// or dies on the way, is an error.
    #[allow(dead_code, reason = "for the campaigns that include this file")]
    pub async fn try_update(&self, path: &str, secret: &str, update: &Value) -> Result<u16, String> {
        let request = Request::builder().method(Method::POST).uri(path).header("host", self.address.to_string());
        let request = request.header("connection", "close").header("content-type", "application/json");
        let request = request.header("x-telegram-bot-api-secret-token", secret);
        let request = request.body(Full::new(Bytes::from(update.to_string()))).expect("a request");
        let exchange = async {
            let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            exchanged(stream, request).await
        };
        match tokio::time::timeout(Duration::from_secs(40), exchange).await {
            Ok(answer) => answer.map(|(status, _)| status),
            Err(_) => Err("no answer within 40 s".to_owned()),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Answer, String> {
        let watch = Stopwatch::start();
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", self.address.to_string()).header("connection", "close");
        request = request.header("authorization", format!("Bearer {}", self.token));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        let request = request.body(Full::new(bytes)).expect("a request");
        let exchange = async {
            let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((parts.status.as_u16(), body))
        };
        match tokio::time::timeout(Duration::from_secs(40), exchange).await {
            Ok(Ok((status, body))) => Ok(Answer {
                status,
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                text: String::from_utf8_lossy(&body).into_owned(),
                took: watch.elapsed(),
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err("no answer within 40 s".to_owned()),
        }
    }
}

/// One request on a connection of its own: the status and the body.
#[allow(dead_code, reason = "for the campaigns that include this file")]
async fn exchanged<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((parts.status.as_u16(), body))
}

/// What a command of the program said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Said {
    /// What a command that went well printed.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "the command goes well, but it said:\n{}\n{}", self.out, self.err);
        self.out
    }

    /// The complaint of a command that failed.
    #[track_caller]
    pub fn bad(self) -> String {
        assert_eq!(self.code, Some(1), "the command fails, but it said:\n{}\n{}", self.out, self.err);
        self.err
    }
}

/// An order as a story holds it.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// Who buys.
    pub customer: i64,
    /// YooKassa's id of its payment.
    pub provider_id: String,
}

impl Order {
    /// Reads the answer of `POST /api/v1/orders`.
    #[track_caller]
    pub fn read(answer: &Answer) -> Order {
        assert_eq!(answer.status, 201, "an order is made: {}", answer.text);
        Order {
            id: text(&answer.body["id"]),
            customer: answer.body["customer"]["telegram_id"].as_i64().unwrap_or_default(),
            provider_id: text(&answer.body["payment"]["provider_id"]),
        }
    }
}

/// What the API wants for one of a product, to be paid at YooKassa.
pub fn an_order(product: &str, customer: i64) -> Value {
    json!({
        "customer": { "telegram_id": customer },
        "items": [{ "product": product, "quantity": 1 }],
        "provider": "yookassa",
    })
}

/// The running program and its door.
pub struct Program {
    /// The process.
    pub process: Process,
    /// Its HTTP server.
    pub door: Door,
}

impl Program {
    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) {
        let patience = Patience::of("the program is ready", 60);
        while !self.is_ready().await {
            if let Some(status) = self.process.ended() {
                panic!("the program ended with {status} instead of becoming ready");
            }
            patience.wait().await;
        }
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> bool {
        self.door.try_get("/readyz").await.is_ok_and(|answer| answer.status == 200)
    }

    /// A product with goods in stock. Answers its id.
    pub async fn product(&self, goods: &[String]) -> String {
        let price = json!({ "amount": "990.00", "currency": "RUB" });
        let new = json!({ "title": "Licence key", "kind": "stock", "price": price });
        let made = self.door.post("/api/v1/products", &new).await;
        assert_eq!(made.status, 201, "a product is made: {}", made.text);
        let id = text(&made.body["id"]);
        let stock = self.door.post(&format!("/api/v1/products/{id}/stock"), &json!({ "items": goods })).await;
        assert_eq!((stock.status, &stock.body["added"]), (200, &json!(goods.len())), "{}", stock.text);
        id
    }

    /// One of `product` for `customer`.
    pub async fn order(&self, product: &str, customer: i64) -> Order {
        Order::read(&self.door.post("/api/v1/orders", &an_order(product, customer)).await)
    }

    /// A product with three keys, and an order for one of them by `customer`.
    pub async fn sell_one(&self, customer: i64) -> Order {
        let keys: Vec<String> = (1..=3).map(|n| format!("KEY-{customer}-{n}")).collect();
        let product = self.product(&keys).await;
        self.order(&product, customer).await
    }

    /// Waits until the goods of an order are delivered. Long enough for the first look of the job behind the payment.
    pub async fn delivered(&mut self, order: &Order) {
        let patience = Patience::of(format!("order {} is delivered", order.id), 90);
        loop {
            let shown = self.door.try_get(&format!("/api/v1/orders/{}", order.id)).await;
            if shown.is_ok_and(|shown| shown.body["status"] == "delivered") {
                return;
            }
            if let Some(status) = self.process.ended() {
                panic!("the program ended with {status} instead of delivering");
            }
            patience.wait().await;
        }
    }

    /// Waits until no job runs and none is due, nor a message whose turn at Telegram comes within seconds.
    pub async fn at_rest(&self) {
        let patience = Patience::of("no job runs and none is due", 240);
        loop {
            let mut is_quiet = true;
            // In this order nothing slips through: what was ready may run by now, and what ran may have left something ready.
            for state in ["ready", "running", "ready"] {
                let listed = self.door.get(&format!("/api/v1/jobs?state={state}&limit=200")).await;
                let now = Clock::system().now().millis();
                let due = |job: &Value| now + if text(&job["kind"]) == "message.send" { 3_000 } else { 0 };
                is_quiet &= items(&listed).iter().all(|job| state == "ready" && moment(&job["run_at"]) > due(job));
            }
            if is_quiet {
                return;
            }
            patience.wait().await;
        }
    }

    /// See [`Process::terminate`].
    pub async fn terminate(self) {
        self.process.terminate().await;
    }
}

/// The items of a list.
#[track_caller]
pub fn items(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "a list is shown: {}", answer.text);
    answer.body["items"].as_array().cloned().unwrap_or_default()
}

/// A moment of the API in milliseconds.
pub fn moment(value: &Value) -> i64 {
    let written = text(value);
    let read: jiff::Timestamp = written.parse().unwrap_or_else(|error| panic!("{written} is no moment: {error}"));
    read.as_millisecond()
}

/// Where the database of a world is.
enum Database {
    /// A file that belongs to the program alone.
    File(PathBuf),
    /// A database of the cluster that all tests share.
    Shared(TestStore),
    /// A database of a server that the story treats badly.
    Elsewhere(StoreUrl),
}

/// Everything around the program: the outside world in a box, a database, a folder, settings. It stays when the program
/// dies.
pub struct World {
    /// The outside world; webhooks wait until they are sent.
    pub sandbox: Sandbox,
    folder: TempDir,
    address: SocketAddr,
    database: Database,
    settings: BTreeMap<String, String>,
}

/// When the program was killed, if it was: Telegram cannot be asked whether a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// Never, or not between the call of Telegram and the note of its answer: no message may come twice.
    BesideTelegram,
    /// In between: a message whose fate nobody knows goes again.
    AfterTelegram,
}

/// Making one.
impl World {
    /// A world with a fresh database of this engine, on the system's clock.
    pub async fn on(engine: Engine) -> World {
        Self::with(engine, &[]).await
    }

    /// The same with other settings, by their names in the environment.
    pub async fn with(engine: Engine, changes: &[(&str, &str)]) -> World {
        match engine {
            Engine::Sqlite => Self::in_file("semel.db", changes).await,
            Engine::Postgres => {
                let store = TestStore::real_time(Engine::Postgres, ROOMS).await;
                Self::build(tempdir(), Database::Shared(store), changes).await
            }
        }
    }

    /// A world whose database is this file below its folder.
    pub async fn in_file(relative: &str, changes: &[(&str, &str)]) -> World {
        let folder = tempdir();
        let file = folder.path().join(relative);
        Self::build(folder, Database::File(file), changes).await
    }

    /// A world whose database is on a server of the story's own.
    pub async fn at(url: StoreUrl, changes: &[(&str, &str)]) -> World {
        Self::build(tempdir(), Database::Elsewhere(url), changes).await
    }

    /// A world whose database is empty: the program makes its tables itself.
    #[allow(dead_code, reason = "for the campaigns that include this file")]
    pub async fn empty(engine: Engine, changes: &[(&str, &str)]) -> World {
        match engine {
            Engine::Sqlite => Self::in_file("data/semel.db", changes).await,
            Engine::Postgres => {
                let store = TestStore::real_time(Engine::Postgres, &[]).await;
                Self::build(tempdir(), Database::Shared(store), changes).await
            }
        }
    }

    async fn build(folder: TempDir, database: Database, changes: &[(&str, &str)]) -> World {
        let address = free_address();
        let options = Options {
            mode: Delivery::Manual,
            yookassa_hook_url: Some(format!("http://{address}/webhook/yookassa")),
            ..Options::default()
        };
        let sandbox = Sandbox::start(options).await.expect("the box opens");
        let mut settings = settings(&sandbox, address, &database.url());
        settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        World { sandbox, folder, address, database, settings }
    }
}

/// The program's socket lies in it, whose path has room for about a hundred bytes; some temporary folders have long names.
fn tempdir() -> TempDir {
    let usual = std::env::temp_dir();
    let place = if usual.as_os_str().len() <= 60 { usual } else { PathBuf::from("/tmp") };
    tempfile::tempdir_in(place).expect("a temporary folder")
}

/// An address for a program that dies and comes back to it. Its port lies below those that the system hands out by
/// itself, so nobody takes it while the program is down.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let step = u64::from(std::process::id()) * 131 + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = u16::try_from(15_000 + step % 15_000).expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Settings that point a program at the box.
fn settings(sandbox: &Sandbox, address: SocketAddr, database: &StoreUrl) -> BTreeMap<String, String> {
    let database = match database {
        StoreUrl::Sqlite(path) => format!("sqlite://{}", path.display()),
        StoreUrl::Postgres(text) => text.clone(),
    };
    let pairs = [
        ("SEMEL_LISTEN", address.to_string()),
        ("SEMEL_DATABASE_URL", database),
        ("SEMEL_PUBLIC_URL", format!("http://{address}")),
        ("SEMEL_API_TOKEN", TOKEN.into()),
        ("SEMEL_TELEGRAM_BOT_TOKEN", outside::BOT_TOKEN.into()),
        ("SEMEL_TELEGRAM_API_URL", sandbox.telegram_url()),
        ("SEMEL_TELEGRAM_ADMIN_IDS", "1".into()),
        ("SEMEL_YOOKASSA_SHOP_ID", outside::YOOKASSA_SHOP_ID.into()),
        ("SEMEL_YOOKASSA_SECRET_KEY", outside::YOOKASSA_SECRET_KEY.into()),
        ("SEMEL_YOOKASSA_API_URL", sandbox.yookassa_url()),
        ("SEMEL_HELEKET_MERCHANT_ID", outside::HELEKET_MERCHANT_ID.into()),
        ("SEMEL_HELEKET_PAYMENT_KEY", outside::HELEKET_PAYMENT_KEY.into()),
        ("SEMEL_HELEKET_API_URL", sandbox.heleket_url()),
        ("SEMEL_CRYSTALPAY_LOGIN", outside::CRYSTALPAY_LOGIN.into()),
        ("SEMEL_CRYSTALPAY_SECRET", outside::CRYSTALPAY_SECRET.into()),
        ("SEMEL_CRYSTALPAY_SALT", outside::CRYSTALPAY_SALT.into()),
        ("SEMEL_CRYSTALPAY_API_URL", sandbox.crystalpay_url()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Database {
    fn url(&self) -> StoreUrl {
        match self {
            Database::File(path) => StoreUrl::Sqlite(path.clone()),
            Database::Shared(store) => store.url(),
            Database::Elsewhere(url) => url.clone(),
        }
    }

    /// The database as the story itself reads it, when no program holds its file.
    fn open(&self) -> Store {
        match self {
            Database::Shared(store) => store.store.clone(),
            _ => Store::open(&self.url(), testing::options(), Clock::system()).expect("the database opens"),
        }
    }
}

/// Starting and asking the program.
impl World {
    /// A file or folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives `command` the settings of this world and nothing else.
    pub fn dress(&self, command: &mut Command, changes: &[(&str, &str)]) {
        command.current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(&self.settings).envs(changes.iter().copied());
    }

    /// Starts the program and waits for nothing.
    pub fn launch(&self, changes: &[(&str, &str)]) -> Program {
        let mut command = Command::new(binary());
        command.arg("serve");
        self.dress(&mut command, changes);
        self.adopt(command)
    }

    /// Starts a command that becomes the program.
    pub fn adopt(&self, command: Command) -> Program {
        let process = Process::start(command, self.folder.path());
        Program { process, door: Door::at(self.address, TOKEN) }
    }

    /// Starts the program and waits until it is ready. Should another program have taken the port, it is tried again.
    pub async fn start(&self) -> Program {
        self.start_with(&[]).await
    }

    /// The same with further settings.
    pub async fn start_with(&self, changes: &[(&str, &str)]) -> Program {
        let patience = Patience::of(format!("the program can listen on {}", self.address), 20);
        loop {
            let mut program = self.launch(changes);
            while program.process.ended().is_none() && !program.is_ready().await {
                patience.wait().await;
            }
            if program.process.ended().is_none() {
                return program;
            }
            let log = program.process.log();
            assert!(log.contains("cannot listen"), "the program does not start:\n{log}");
            patience.wait().await;
        }
    }

    /// Runs a command of the program to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Said {
        self.cli_with(arguments, &[]).await
    }

    /// The same with further settings.
    pub async fn cli_with(&self, arguments: &[&str], changes: &[(&str, &str)]) -> Said {
        let mut command = Command::new(binary());
        command.args(arguments);
        self.dress(&mut command, changes);
        let watch = Stopwatch::start();
        let mut process = Process::start(command, self.folder.path());
        let status = process.wait_exit(120).await;
        Said { code: status.code(), out: process.said(), err: process.log(), took: watch.elapsed() }
    }
}

/// For campaigns, where the program dies and comes back while somebody talks to it.
#[allow(dead_code, reason = "for the campaigns that include this file")]
impl World {
    /// The door of the program, whether one is behind it or not.
    pub fn door(&self) -> Door {
        Door::at(self.address, TOKEN)
    }

    /// Starts a further copy of the program at an address of its own, and waits for nothing. PostgreSQL only.
    pub fn launch_copy(&self, changes: &[(&str, &str)]) -> Program {
        let address = free_address();
        let mut command = Command::new(binary());
        command.arg("serve");
        self.dress(&mut command, changes);
        command.env("SEMEL_LISTEN", address.to_string());
        Program { process: Process::start(command, self.folder.path()), door: Door::at(address, TOKEN) }
    }

    /// The database, for a look or a change by hand. An SQLite file must not be held by a program.
    pub fn store(&self) -> Store {
        self.database.open()
    }

    /// Where the database is.
    pub fn database_url(&self) -> StoreUrl {
        self.database.url()
    }

    /// Starts any command of the program and waits for nothing.
    pub fn begin(&self, arguments: &[&str], changes: &[(&str, &str)]) -> Process {
        let mut command = Command::new(binary());
        command.args(arguments);
        self.dress(&mut command, changes);
        Process::start(command, self.folder.path())
    }

    /// `POST` with this key through the owner's socket, which lies beside an SQLite file and takes what is asked for at the
    /// machine only. A program that is not there, or dies on the way, is an error.
    pub async fn at_the_socket(&self, path: &str, body: &Value, key: &str) -> Result<Answer, String> {
        let StoreUrl::Sqlite(file) = self.database_url() else { return Err("no socket lies beside a server".into()) };
        let watch = Stopwatch::start();
        let request = Request::builder().method(Method::POST).uri(path).header("host", "semel");
        let request = request.header("idempotency-key", key).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        let exchange = async {
            let socket = PathBuf::from(format!("{}.sock", file.display()));
            let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
            exchanged(stream, request).await
        };
        let answered = tokio::time::timeout(Duration::from_secs(40), exchange).await;
        let (status, body) = answered.unwrap_or_else(|_| Err("no answer within 40 s".to_owned()))?;
        Ok(Answer {
            status,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&body).into_owned(),
            took: watch.elapsed(),
        })
    }

    /// `POST` to YooKassa with the shop's own keys, as another program of its owner may do. Answers the new object.
    pub async fn at_yookassa(&self, path: &str, body: &Value) -> Value {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let url = self.sandbox.url();
        let address: SocketAddr = url.trim_start_matches("http://").parse().expect("the box has an address");
        let account = format!("{}:{}", outside::YOOKASSA_SHOP_ID, outside::YOOKASSA_SECRET_KEY);
        let key = format!("elsewhere-{}", KEYS.fetch_add(1, Ordering::SeqCst));
        let request = Request::builder().method(Method::POST).uri(format!("/yookassa/v3{path}"));
        let request = request.header("host", address.to_string()).header("content-type", "application/json");
        let request = request.header("authorization", format!("Basic {}", STANDARD.encode(account)));
        let request = request.header("idempotence-key", key);
        let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        let stream = TcpStream::connect(address).await.expect("the box is there");
        let (status, answer) = exchanged(stream, request).await.expect("the box answers");
        assert_eq!(status, 200, "YooKassa does it: {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).expect("YooKassa speaks JSON")
    }
}

/// What stands in the `wg0.conf` of [`World::sells_vpn`] before any customer: the owner's own lines, which nothing changes.
#[allow(dead_code, reason = "for the campaigns that include this file")]
pub const OWN_CONF: &str = "# the owner's own words
[Interface]
Address = 10.8.0.1/24
ListenPort = 51820
PrivateKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
SaveConfig = false

[Peer]
# friendly_name = the owner's laptop
PublicKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=
AllowedIPs = 10.99.0.2/32
";

/// VPN access, for who sells it.
#[allow(dead_code, reason = "for the campaigns that include this file")]
impl World {
    /// Gives the program one more setting, from its next start on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Makes `name` a private folder below this world's, and answers where it really lies, whatever links lead there.
    pub fn private_folder(&self, name: &str) -> PathBuf {
        let folder = fs::canonicalize(self.folder.path()).expect("the world has a folder").join(name);
        DirBuilder::new().mode(0o700).create(&folder).expect("a private folder");
        folder
    }

    /// Lets the program sell VPN access over a `wg0.conf` of its own, which begins as [`OWN_CONF`] in a folder where nothing
    /// else lies. Answers that file. Peers are brought to the file only, and nothing looks at it between two starts unless
    /// something changes.
    pub fn sells_vpn(&mut self) -> PathBuf {
        let file = self.private_folder("wg").join("wg0.conf");
        write_private(&file, OWN_CONF);
        if !matches!(self.database, Database::File(_)) {
            // Beside an SQLite file the program makes one by itself.
            self.set("SEMEL_VPN_KEY", "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=");
        }
        self.set("SEMEL_VPN_HOST", "vpn.example.com");
        self.set("SEMEL_VPN_CONFIG_PATH", file.to_string_lossy());
        self.set("SEMEL_VPN_APPLY", "file");
        self.set("SEMEL_VPN_TRAFFIC_EVERY", "1h");
        file
    }
}

/// Writes a file that only its owner may read.
#[allow(dead_code, reason = "for the campaigns that include this file")]
pub fn write_private(path: &Path, text: &str) {
    let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes())).expect("a private file");
}

/// VPN access, for who buys it.
#[allow(dead_code, reason = "for the campaigns that include this file")]
impl Program {
    /// A product that gives VPN access. Answers its id.
    pub async fn access(&self, days: u32, devices: u32) -> String {
        let price = json!({ "amount": "299.00", "currency": "RUB" });
        let new = json!({ "title": "VPN", "kind": "vpn", "price": price, "duration_days": days, "devices": devices });
        let made = self.door.post("/api/v1/products", &new).await;
        assert_eq!(made.status, 201, "a product is made: {}", made.text);
        text(&made.body["id"])
    }

    /// Gives a customer access that nobody paid for. Answers the subscription's id.
    pub async fn grant(&self, customer: i64, devices: u32) -> String {
        // Nothing is given out before somebody looked whose addresses are in use.
        self.vpn_settles(30).await;
        let gift =
            json!({ "customer": { "telegram_id": customer }, "days": 30, "devices": devices, "reason": "a gift" });
        let made = self.door.post("/api/v1/subscriptions", &gift).await;
        assert_eq!(made.status, 201, "access is given: {}", made.text);
        text(&made.body["id"])
    }

    /// Takes a subscription away.
    pub async fn revoke(&self, subscription: &str) {
        let path = format!("/api/v1/subscriptions/{subscription}/revoke");
        let revoked = self.door.post(&path, &json!({ "reason": "resold" })).await;
        assert_eq!(revoked.body["state"], "revoked", "access is taken away: {}", revoked.text);
    }

    /// Waits until the VPN server's file, and its interface if it has one, are as the database wants them.
    pub async fn vpn_settles(&self, seconds: u64) {
        let patience = Patience::of("file and interface are as the database wants them", seconds);
        loop {
            let server = self.door.get("/api/v1/servers/local").await;
            if server.body["in_step"] == true {
                let plan = self.door.get("/api/v1/servers/local/plan").await;
                if plan.body["in_step"] == true {
                    return;
                }
            }
            patience.wait().await;
        }
    }
}

/// The customer, the provider and Telegram.
impl World {
    /// The customer pays; answers the webhook that waits to be sent.
    pub fn pay(&self, order: &Order) -> HookId {
        self.sandbox.pay(Provider::Yookassa, &order.provider_id).unwrap_or_else(|error| panic!("{error}"));
        let hooks = self.sandbox.hooks().into_iter().rev();
        let mut of_payment = hooks.filter(|hook| hook.payment_id == order.provider_id);
        of_payment.next().expect("a payment makes a webhook").id
    }

    /// Sends a webhook as a provider does: again and again until it is acknowledged.
    pub async fn acknowledged(&self, hook: HookId) {
        let patience = Patience::of("a webhook is acknowledged", 60);
        while self.sandbox.send_hook(hook).await.status != Some(200) {
            patience.wait().await;
        }
    }

    /// The keys in a customer's chat; what came twice stands here twice.
    pub fn keys(&self, customer: i64) -> Vec<String> {
        let texts = self.sandbox.chat(customer).into_iter().map(|message| message.text);
        let lines = texts.flat_map(|words| words.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.starts_with("KEY-")).collect()
    }
}

/// The end.
impl World {
    /// Waits until all is quiet, and insists that `semel verify` finds nothing through the running program, that the
    /// program stops when it is asked to, that no job is left over, and that every promise holds before the witness of the
    /// box.
    pub async fn finish(self, program: Program, killed: Killed) {
        self.finish_asking(program, killed, &[]).await;
    }

    /// The same; answers what these queries count in the database once the program has ended.
    pub async fn finish_asking(self, program: Program, killed: Killed, counts: &[&'static str]) -> Vec<i64> {
        program.at_rest().await;
        let verdict = self.cli(&["verify", "--at-rest"]).await.good();
        assert!(verdict.contains("every promise that can be checked here holds"), "{verdict}");
        program.terminate().await;
        let store = self.database.open();
        let left = "select state || ' ' || kind || coalesce(' (' || error || ')', '') from jobs
             where state in ('running', 'dead') or (state = 'ready' and run_at <= semel_now() and kind <> 'audit.fresh') order by id";
        let rows = store.rows("test.left", left, &[]).await.expect("the database answers");
        let mut wrong: Vec<String> = rows.iter().map(|row| row.get(0).expect("a text")).collect();
        let truth = truth_rows(&self.sandbox.truth(), killed);
        let verdicts = audit::check_with_truth(&store, &truth, Parameters::default(), true).await;
        for verdict in verdicts.expect("the audit can ask").iter().filter(|verdict| !verdict.holds()) {
            wrong.push(format!("{} ({}): {}", verdict.id, verdict.meaning, verdict.violations.join(" ")));
        }
        let mut counted = Vec::new();
        for sql in counts {
            let rows = store.rows("test.count", *sql, &[]).await.expect("the database answers");
            counted.push(rows.first().map_or(0, |row| row.get(0).expect("a number")));
        }
        self.sandbox.clone().stop().await;
        assert!(wrong.is_empty(), "the story does not end well:\n  {}", wrong.join("\n  "));
        counted
    }
}

/// The box's ground truth as the audit reads it. Repeats that were answered alike are one row: they prove the same.
pub fn truth_rows(truth: &Truth, killed: Killed) -> TruthRows {
    let mut seen = BTreeSet::new();
    let mut fresh = |id: &str, hash: &str, status: u16| seen.insert((id.to_owned(), hash.to_owned(), status));
    let hooks = truth.gt_hook.iter().filter(|hook| fresh(&hook.event_id, &hook.body_hash, hook.status));
    let hooks = hooks.map(|hook| HookRow {
        provider: hook.provider.as_str().to_owned(),
        merchant: hook.merchant.clone(),
        event_id: hook.event_id.clone(),
        body_hash: hook.body_hash.clone(),
        status: i64::from(hook.status),
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
    // Of a message that went twice, the program that was killed never heard the first answer.
    let mut met = BTreeSet::new();
    let calls = truth.gt_tg.iter().map(|call| TgRow {
        call_id: call.call_id.clone(),
        token: call.token.clone(),
        chat_id: call.chat_id.unwrap_or_default(),
        method: call.method.clone(),
        msg_id: Some(call.msg_id.clone()),
        accepted: call.accepted,
        answer_lost: call.answer_lost
            || (killed == Killed::AfterTelegram && call.accepted && met.insert(call.msg_id.clone())),
        retry_after: call.retry_after,
        scope: call.scope.clone(),
        at: call.at,
    });
    TruthRows { hooks: hooks.collect(), pays: pays.collect(), tg: calls.collect(), ..TruthRows::default() }
}
