//! Settings: what the owner tells the program before it starts.
//!
//! One static table (`table::SETTINGS`) lists every setting. It drives the reading of `semel.toml` and of the
//! environment, `semel config print`, `semel config explain`, the report of misspelt names and `semel.example.toml`.
//!
//! A flag wins over the environment, the environment over the file, the file over the default. An empty text counts as
//! not given. Everything is parsed into domain types here, once, and everything wrong is told at once. A provider that is
//! enabled by half stops the start: its webhooks could not be verified. Secrets are never printed, not even in errors.
//!
//! Nothing here reads the state of the process: the environment is handed in.

mod alias;
mod explain;
mod load;
mod parse;
mod secret;
mod table;
mod typed;
mod values;
mod vpn;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use semel_money::Currency;
use url::Url;

pub use self::explain::{explain, print, render_example};
pub use self::load::load;
pub use self::parse::{bot_token as parse_bot_token, ids as parse_ids, public_url as parse_public_url};
pub use self::secret::Secret;
pub use self::table::Setting;
pub use self::values::Source;
pub use self::vpn::{Amnezia, Apply, Ipv6, Vpn};

/// Every setting of the program, parsed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address that the HTTP server listens on.
    pub listen: SocketAddr,
    /// Where the database lives.
    pub database: DatabaseUrl,
    /// Most connections to PostgreSQL; the one to `database_listen_url` comes on top. SQLite does not use it.
    pub pool_max: u16,
    /// How long a caller waits for its turn before it hears "database busy".
    pub database_wait: Duration,
    /// The address of the same PostgreSQL without a pooler in between, for LISTEN; secret because it may hold a password.
    /// Never present with SQLite.
    pub database_listen_url: Option<Secret>,
    /// Where providers and customers reach us: https, or a loopback address. Present whenever a provider is enabled.
    pub public_url: Option<Url>,
    /// First bearer token of the API and of `/metrics`.
    pub api_token: Option<Secret>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long running work may take to end after the program was asked to stop.
    pub stop_budget: Duration,
    /// How long a copy's claim of a job lasts without renewal.
    pub job_lease: Duration,
    /// Where the key lies that seals and opens backups.
    pub backup_key_file: Option<PathBuf>,
    /// The bot that writes to customers.
    pub telegram: Telegram,
    /// YooKassa, when it is enabled.
    pub yookassa: Option<Yookassa>,
    /// Heleket, when it is enabled.
    pub heleket: Option<Heleket>,
    /// CrystalPay, when it is enabled.
    pub crystalpay: Option<Crystalpay>,
    /// Telegram Stars, when they are enabled.
    pub stars: Option<Stars>,
    /// Rules of the shop.
    pub shop: Shop,
    /// VPN access on this machine, when it is on.
    pub vpn: Option<Vpn>,
    /// The rules of campaigns.
    pub broadcast: Broadcast,
    /// A lower speed of reminders than Telegram allows, if the owner wants one.
    pub notify_speed: Option<Speed>,
    /// Where our own events are sent, for whoever keeps the own bot.
    pub webhooks_out: Option<WebhooksOut>,
    /// How long old rows keep what only takes room.
    pub retention: Retention,
    /// How the program logs.
    pub log: Log,
    /// What one HTTP client may take.
    pub limits: Limits,
    /// Set by `semel demo` and by nothing else.
    pub demo: bool,
}

/// Which engine keeps the data.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of our own.
    Sqlite(PathBuf),
    /// A `postgres://` or `postgresql://` address, password included: `Debug` does not show it.
    Postgres(String),
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres(set)"),
        }
    }
}

/// The bot that talks to customers.
#[derive(Debug, Clone)]
pub struct Telegram {
    /// Token of the bot; without it nothing is sent.
    pub bot_token: Option<Secret>,
    /// Base address of the Bot API.
    pub api_url: Url,
    /// Telegram ids of the owners: they get the alerts.
    pub admin_ids: Vec<i64>,
    /// How the bot hears what people tell it.
    pub updates: Updates,
    /// The most messages that leave in any second, 1 to 30.
    pub rate: u32,
    /// Proxy between us and the Bot API. A checked address; secret because it may hold a password.
    pub proxy: Option<Secret>,
}

/// How the bot hears what people tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updates {
    /// Not at all: another program has the bot, and this one only sends.
    Off,
    /// It asks Telegram again and again. Works everywhere.
    Polling,
    /// Telegram posts to the public address.
    Webhook,
}

/// Which networks a provider's webhooks may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// Those that the provider has published, as compiled into the program.
    Published,
    /// These and no others.
    Listed(Vec<IpNet>),
    /// The sender's address is not looked at; the provider's own API still decides about money.
    Off,
}

/// YooKassa with everything it needs.
#[derive(Debug, Clone)]
pub struct Yookassa {
    /// Number of the shop, the user name of its API.
    pub shop_id: String,
    /// Secret key of the shop, the password of its API.
    pub secret_key: Secret,
    /// Base address of the API.
    pub api_url: Url,
    /// Where webhooks may come from.
    pub networks: Networks,
    /// Whether test payments count as money.
    pub allow_test: bool,
    /// What fiscal receipts say; `None` sends no receipts.
    pub receipt: Option<Receipt>,
}

/// What a fiscal receipt says about every item. The numbers are those of YooKassa's API; none is ever guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Tax system, 1 to 6; needed only by shops that have several.
    pub tax_system: Option<u8>,
    /// VAT code, 1 to 12.
    pub vat: u8,
    /// Payment subject, for example `service`.
    pub subject: String,
    /// Payment mode, for example `full_payment`.
    pub mode: String,
}

/// Heleket with everything it needs.
#[derive(Debug, Clone)]
pub struct Heleket {
    /// Merchant's id.
    pub merchant_id: String,
    /// Key of payments: signs requests, verifies webhooks.
    pub payment_key: Secret,
    /// Key of payouts and of refunds; without it neither can be made.
    pub payout_key: Option<Secret>,
    /// Base address of the API.
    pub api_url: Url,
    /// Where webhooks may come from.
    pub networks: Networks,
}

/// CrystalPay with everything it needs.
#[derive(Debug, Clone)]
pub struct Crystalpay {
    /// Name of the cash desk.
    pub login: String,
    /// First secret of the cash desk: the API.
    pub secret: Secret,
    /// Second secret of the cash desk: verifies webhooks.
    pub salt: Secret,
    /// Base address of the API.
    pub api_url: Url,
    /// Where webhooks may come from.
    pub networks: Networks,
}

/// Telegram Stars. The bot's token and a way to hear of updates are there when this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stars {
    /// What one Star is worth in the currency of the shop, in millionths of its unit.
    pub worth_millionths: Option<i64>,
}

/// Rules of the shop.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Currency of prices and balances.
    pub currency: Currency,
    /// How long an order waits for its money.
    pub order_lifetime: Duration,
    /// How many unpaid orders one customer may hold.
    pub unpaid_orders_per_customer: u32,
    /// Share of a sale that the referrer gets, in basis points: 250 is 2.5 %.
    pub referral_reward_bp: u32,
    /// Whether money that came late still buys the goods when these can be delivered.
    pub late_deliver: bool,
    /// Where the payment page sends the customer afterwards.
    pub return_url: Option<Url>,
}

/// The rules of campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broadcast {
    /// A campaign to more people is refused; 0 is no limit.
    pub max_users: u32,
    /// A campaign to more people has to be confirmed by their number.
    pub confirm_over: u32,
    /// A lower speed than Telegram allows, if the owner wants one.
    pub speed: Option<Speed>,
}

/// So many messages, then a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Messages of one batch.
    pub batch: u32,
    /// From the beginning of one batch to that of the next.
    pub rest: Duration,
}

/// Where our own events are sent, signed as Standard Webhooks.
#[derive(Debug, Clone)]
pub struct WebhooksOut {
    /// The receiver: https, or anything when private addresses are allowed.
    pub url: Url,
    /// Signing secret: `whsec_` and the base64 of 24 to 64 bytes, checked.
    pub secret: Secret,
    /// Whether the receiver may live on a private or loopback address.
    pub allow_private: bool,
}

/// How long old rows keep what only takes room, in days; 0 keeps it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bodies of ended notices, from the day on which they came.
    pub inbox_days: u32,
    /// Rows of jobs that are done and guard nothing, from the day on which they were written.
    pub jobs_days: u32,
}

/// How the program logs.
#[derive(Debug, Clone)]
pub struct Log {
    /// Shape of a line.
    pub format: LogFormat,
    /// Least important level that is written.
    pub level: tracing::Level,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// What one HTTP client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body: usize,
    /// Most open connections.
    pub connections: usize,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
}

/// The settings, where each came from, and what the owner should hear about them.
#[derive(Debug)]
pub struct Loaded {
    /// The parsed settings.
    pub settings: Settings,
    /// One entry per row of the table, in its order.
    pub sources: Vec<Effective>,
    /// Sentences for the log: names that are known but do nothing, addresses without encryption.
    pub notices: Vec<String>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

/// One setting as it took effect, ready to be shown.
#[derive(Debug)]
pub struct Effective {
    /// Its row of the table.
    pub setting: &'static Setting,
    /// Its value; for a secret only whether it is set.
    pub shown: String,
    /// Where the value came from.
    pub source: Source,
}

/// Everything that is wrong with the settings, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct SettingsError {
    /// The sentences, in the order in which they were found. No secret is in them.
    pub problems: Vec<String>,
}
