//! VPN access as its customers, its owner and the server's interface see it.
//!
//! The server is a file in a folder of the story's own and a `wg` that keeps its peers in another ([`FakeWg`]). Each story
//! ends with [`VpnShop::finish`]: file, interface and database tell of the same peers, and every promise of the audit holds.

mod addresses;
mod audiences;
mod by_hand;
mod churn;
mod download;
mod ending;
mod own_key;
mod refund;
mod reminders;
mod renewal;
mod sale;
mod trial;
mod trouble;
mod walk;
mod wg;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use semel_sandbox::Message;
use semel_wireguard::{Conf, PrivateKey, SeenPeer};

use crate::app::{Answer, OrderHandle, TestShop, TestStore, text};

use self::wg::{FakeWg, Peers};

/// Without a bot a file is handed over by being readable over the API: for stories about many customers.
const NO_BOT: (&str, &str) = ("SEMEL_TELEGRAM_BOT_TOKEN", "");
/// The owner is told this when the server cannot be brought to what is wanted.
const TROUBLE: &str = "The VPN server could not be brought to what is wanted";

/// A shop that sells VPN access, with its server.
pub struct VpnShop {
    shop: TestShop,
    /// The server's interface.
    pub wg: FakeWg,
    /// The server's `wg0.conf`.
    pub conf: PathBuf,
    /// What the owner wrote into it.
    owners_part: String,
    /// Whether the program knows of the interface, or of the file alone.
    has_interface: bool,
    _folder: TempDir,
}

impl Deref for VpnShop {
    type Target = TestShop;
    fn deref(&self) -> &TestShop {
        &self.shop
    }
}

impl DerefMut for VpnShop {
    fn deref_mut(&mut self) -> &mut TestShop {
        &mut self.shop
    }
}

/// The server's own key.
pub fn server_key() -> PrivateKey {
    PrivateKey::from_random([7; 32])
}

/// Some client's own public key.
pub fn client_key(n: u8) -> String {
    PrivateKey::from_random([n; 32]).public().to_string()
}

/// Starting and ending.
impl VpnShop {
    /// A shop with a /24, the usual rules, and no questions to who has not connected.
    pub async fn start(store: TestStore) -> VpnShop {
        Self::with(store, &[]).await
    }

    /// The same with other settings.
    pub async fn with(store: TestStore, changes: &[(&str, &str)]) -> VpnShop {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = server_key();
        let wg = FakeWg::new(folder.path(), &key.public().to_string());
        let conf = folder.path().join("wg0.conf");
        let has_six = changes.iter().any(|(name, _)| *name == "SEMEL_VPN_NETWORK6");
        let addresses = if has_six { "10.8.0.1/24, fd00:8::1/120" } else { "10.8.0.1/24" };
        let owners_part = format!(
            "# written by a person\n[Interface]\nAddress = {addresses}\nListenPort = 51820\nPrivateKey = {}\n\n",
            key.to_base64().as_str()
        );
        fs::write(&conf, &owners_part).expect("a wg0.conf");
        let (path, tool) = (conf.display().to_string(), wg.program().display().to_string());
        let sealing = STANDARD.encode([9_u8; 32]);
        let mut settings = vec![
            ("SEMEL_VPN_HOST", "vpn.shop.test"),
            ("SEMEL_VPN_CONFIG_PATH", path.as_str()),
            ("SEMEL_VPN_TOOL", tool.as_str()),
            ("SEMEL_VPN_KEY", sealing.as_str()),
            ("SEMEL_VPN_SUPPORT", "@shop_help"),
            ("SEMEL_VPN_UNCONNECTED", "none"),
        ];
        settings.extend_from_slice(changes);
        let has_interface = !changes.contains(&("SEMEL_VPN_APPLY", "file"));
        let shop = TestShop::with(store, &settings).await;
        shop.run_jobs().await;
        VpnShop { shop, wg, conf, owners_part, has_interface, _folder: folder }
    }

    /// File, interface and database tell of the same peers, and what the owner wrote is as it was.
    pub async fn is_in_step(&self) {
        let sql = "select count(*) from peers where state in ('pending', 'removing')";
        assert_eq!(self.number(sql).await, 0, "no peer is on its way");
        let wanted = self.active().await;
        assert_eq!(self.in_file(), wanted, "the file has the peers of the database");
        let file = fs::read(&self.conf).expect("a wg0.conf");
        assert!(file.starts_with(self.owners_part.as_bytes()), "what the owner wrote is kept");
        if !self.has_interface {
            return;
        }
        assert_eq!(self.wg.peers(), wanted, "the interface has the peers of the database");
        for (key, preshared) in self.preshared_in_file() {
            assert_eq!(self.wg.preshared(&key), preshared, "one preshared key of {key}");
        }
    }

    /// The end of a story: nothing is left undone, and all three tell the same.
    pub async fn finish(self) {
        self.run_jobs().await;
        self.is_in_step().await;
        let VpnShop { shop, wg, conf, owners_part: _, has_interface: _, _folder: folder } = self;
        let mode = fs::metadata(&conf).expect("a wg0.conf").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "nobody else reads the keys");
        shop.finish().await;
        drop((wg, folder));
    }

    /// The networks of each peer that shall be there, as the database has them.
    async fn active(&self) -> Peers {
        let mut peers = Peers::new();
        for row in self.store.rows("select pubkey, ip from audit_peer where state = 'active'").await {
            let (key, ip): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            let network = if ip.contains(':') { format!("{ip}/128") } else { format!("{ip}/32") };
            peers.entry(key).or_default().insert(network);
        }
        peers
    }

    fn read_conf(&self) -> Conf {
        let conf = Conf::parse(&fs::read(&self.conf).expect("a wg0.conf")).expect("it can be read");
        assert!(conf.whole(), "what stands in the fence is what was written there");
        conf
    }

    /// The networks of each peer between the fence lines of the file.
    pub fn in_file(&self) -> Peers {
        self.read_conf().ours().iter().map(|peer| (peer.public_key.to_string(), networks(peer))).collect()
    }

    fn preshared_in_file(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        for peer in self.read_conf().ours() {
            let preshared = peer.preshared.as_ref().map(|key| key.to_base64().to_string());
            keys.insert(peer.public_key.to_string(), preshared.unwrap_or_default());
        }
        keys
    }
}

fn networks(peer: &SeenPeer) -> BTreeSet<String> {
    peer.allowed.iter().map(|network| network.to_string()).collect()
}

/// Selling.
impl VpnShop {
    /// Access for so many days on so many devices, for 300 roubles.
    pub async fn access(&self, days: u32, devices: u32) -> String {
        self.access_for("300.00", days, devices).await
    }

    /// The same at another price.
    pub async fn access_for(&self, price: &str, days: u32, devices: u32) -> String {
        self.product_of(json!({
            "title": format!("VPN for {days} days"), "kind": "vpn", "price": { "amount": price, "currency": "RUB" },
            "duration_days": days, "devices": devices,
        }))
        .await
    }

    /// An order of a customer who reads English.
    pub async fn order_access(&self, customer: i64, product: &str) -> OrderHandle {
        let (status, order) = self.post("/api/v1/orders", access_order(customer, product)).await;
        assert_eq!(status, 201, "an order is made: {order}");
        OrderHandle::read(&order)
    }

    /// The same, paid; what follows from it happens.
    pub async fn buy(&self, customer: i64, product: &str) -> OrderHandle {
        let order = self.order_access(customer, product).await;
        self.pay(&order);
        self.receive_all().await;
        self.run_jobs().await;
        order
    }

    /// Begins a trial for a customer who reads English; what follows from it happens.
    pub async fn begin_trial(&self, customer: i64, referrer: Option<i64>) -> (u16, Value) {
        let mut person = person(customer);
        if let Some(referrer) = referrer {
            person["referrer_telegram_id"] = json!(referrer);
        }
        let begun = self.post("/api/v1/subscriptions/trial", json!({ "customer": person })).await;
        self.run_jobs().await;
        begun
    }

    /// The owner gives access; what follows from it happens. Answers the subscription's id.
    pub async fn grant(&self, customer: i64, days: u32, devices: u32) -> String {
        let body = json!({ "customer": person(customer), "days": days, "devices": devices, "reason": "a friend" });
        let (status, sub) = self.post("/api/v1/subscriptions", body).await;
        assert_eq!(status, 201, "access is given: {sub}");
        self.run_jobs().await;
        text(&sub["id"])
    }

    /// The owner does something with a customer's latest subscription; what follows from it happens.
    pub async fn by_owner(&self, customer: i64, deed: &str, mut body: Value) -> (u16, Value) {
        let id = text(&self.subscription(customer).await["id"]);
        body["reason"] = json!("the owner's");
        let answer = self.post(&format!("/api/v1/subscriptions/{id}/{deed}"), body).await;
        self.run_jobs().await;
        answer
    }
}

/// A customer who reads English.
pub fn person(customer: i64) -> Value {
    json!({ "telegram_id": customer, "language": "en" })
}

/// What the API wants for one of a product.
pub fn access_order(customer: i64, product: &str) -> Value {
    json!({ "customer": person(customer), "items": [{ "product": product, "quantity": 1 }], "provider": "yookassa" })
}

/// What came of it.
impl VpnShop {
    /// All subscriptions of a customer, the newest first.
    pub async fn subscriptions(&self, customer: i64) -> Vec<Value> {
        let (status, list) = self.get(&format!("/api/v1/subscriptions?customer={customer}")).await;
        assert_eq!(status, 200, "subscriptions are listed: {list}");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// A customer's latest subscription with all that belongs to it.
    pub async fn subscription(&self, customer: i64) -> Value {
        let all = self.subscriptions(customer).await;
        let id = text(&all.first().unwrap_or_else(|| panic!("customer {customer} has no subscription"))["id"]);
        let (status, sub) = self.get(&format!("/api/v1/subscriptions/{id}")).await;
        assert_eq!(status, 200, "a subscription is shown: {sub}");
        sub
    }

    /// Where a customer's latest subscription stands.
    pub async fn state(&self, customer: i64) -> String {
        text(&self.subscription(customer).await["state"])
    }

    /// Until when it is paid.
    pub async fn until(&self, customer: i64) -> String {
        text(&self.subscription(customer).await["paid_until"])
    }

    /// Both.
    pub async fn at(&self, customer: i64) -> (String, String) {
        let sub = self.subscription(customer).await;
        (text(&sub["state"]), text(&sub["paid_until"]))
    }

    /// The peer of a device of a customer's latest subscription.
    pub async fn device(&self, customer: i64, device: i64) -> Value {
        let sub = self.subscription(customer).await;
        let peers = sub["peers"].as_array().cloned().unwrap_or_default();
        let found = peers.into_iter().find(|peer| peer["device"] == device && peer["state"] != "freed");
        found.unwrap_or_else(|| panic!("customer {customer} has no device {device}: {sub}"))
    }

    /// Its public key.
    pub async fn key(&self, customer: i64) -> String {
        text(&self.device(customer, 1).await["public_key"])
    }

    /// Its IPv4 address.
    pub async fn address(&self, customer: i64) -> String {
        text(&self.device(customer, 1).await["addresses"][0])
    }

    /// The file of a customer's first device, as the API gives it.
    pub async fn file(&self, customer: i64) -> String {
        let answer = self.config(customer, "").await;
        assert_eq!(answer.status, 200, "a file is given: {}", answer.line());
        String::from_utf8_lossy(&answer.body).into_owned()
    }

    /// Its public key, and its file.
    pub async fn held(&self, customer: i64) -> (String, String) {
        (self.key(customer).await, self.file(customer).await)
    }

    /// The answer to a question for the file of a customer's latest subscription.
    pub async fn config(&self, customer: i64, query: &str) -> Answer {
        let id = text(&self.subscription(customer).await["id"]);
        let path = format!("/api/v1/subscriptions/{id}/config{query}");
        self.program.api.call(Method::GET, &path, None, None).await
    }

    /// Where an address stands: `free`, `held` or `quarantine`.
    pub async fn stands(&self, ip: &str) -> String {
        let (status, who) = self.get(&format!("/api/v1/addresses/{ip}")).await;
        assert_eq!(status, 200, "an address is shown: {who}");
        text(&who["now"][0]["state"])
    }

    /// The server as the API shows it.
    pub async fn server(&self) -> Value {
        let (status, server) = self.get("/api/v1/servers/local").await;
        assert_eq!(status, 200, "the server is shown: {server}");
        server
    }

    /// How many messages in a chat begin so.
    pub fn told(&self, customer: i64, words: &str) -> usize {
        self.chat(customer).iter().filter(|told| told.starts_with(words)).count()
    }

    /// How often the owner was told this.
    pub fn warned(&self, words: &str) -> usize {
        self.alerts().iter().filter(|alert| alert.contains(words)).count()
    }

    /// The files in a customer's chat, in the order in which they came.
    pub fn files_to(&self, customer: i64) -> Vec<String> {
        self.sandbox.chat(customer).iter().filter_map(document).map(|(_, text)| text).collect()
    }
}

/// Name and content of a message's file.
pub fn document(message: &Message) -> Option<(String, String)> {
    let file = message.document.as_ref()?;
    Some((file.name.clone(), String::from_utf8_lossy(&file.bytes).into_owned()))
}

/// The value of a setting in a client's file.
pub fn setting(file: &str, name: &str) -> String {
    let found = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    found.unwrap_or_else(|| panic!("no {name} in {file}")).to_owned()
}

/// What a phone reads in a picture.
pub fn scan(picture: &[u8]) -> String {
    let mut decoder = png::Decoder::new(Cursor::new(picture));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let (width, height) = (frame.width as usize, frame.height as usize);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "one code in the picture");
    grids[0].decode().unwrap().1
}

/// So many hours.
pub fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// So many days.
pub fn days(count: u64) -> Duration {
    hours(count * 24)
}
