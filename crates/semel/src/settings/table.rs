//! The table of settings: the one place where a setting is named, bounded and explained.
//!
//! A new setting is a row here and a line in `typed.rs`; reading, printing, explaining, the report of misspelt names and
//! `semel.example.toml` follow by themselves.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the file: `section.name`, or only a name for what has no section.
    pub key: &'static str,
    /// Its name in the environment: `SEMEL_` and the key in capitals.
    pub env: &'static str,
    /// Other names that users of such bots already have; environment only.
    pub aliases: &'static [&'static str],
    /// What a value looks like.
    pub kind: Kind,
    /// How a value is written, for people.
    pub unit: &'static str,
    /// The value when nobody gives one; `None` means not set.
    pub default: Option<&'static str>,
    /// Never printed; may be given as the path of a file that holds it.
    pub secret: bool,
    /// One sentence: what it is.
    pub one_line: &'static str,
    /// What else the owner should know; may be empty.
    pub more: &'static str,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Free text.
    Text,
    /// An address with a port.
    Address,
    /// The address of a database.
    Database,
    /// An http or https address.
    Url,
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// A duration, from so many seconds to so many seconds.
    Duration(u64, u64),
    /// A size, from so many bytes to so many bytes.
    Size(u64, u64),
    /// A part of a hundred with at most two decimals.
    Percent,
    /// True or false.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of Telegram ids.
    Ids,
    /// A list of networks, or a word that stands for one.
    Networks,
    /// A list of words.
    List,
}

impl Kind {
    /// Whether a TOML array is a value of this kind.
    pub fn is_list(self) -> bool {
        matches!(self, Kind::Ids | Kind::Networks | Kind::List)
    }

    /// Whether the file holds the value without quotes.
    pub fn is_bare(self) -> bool {
        matches!(self, Kind::Count(..) | Kind::Bool)
    }
}

impl Setting {
    /// The section in the file; empty for what has none.
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name inside its section.
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }

    /// Whether `NAME_FILE` may point to a file that holds the value. True for secrets and for the database's address,
    /// which may hold a password.
    pub fn may_come_from_file(&self) -> bool {
        self.secret || self.kind == Kind::Database
    }

    /// Its names in the environment, the own name first.
    pub fn env_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.env).chain(self.aliases.iter().copied())
    }
}

/// The row with this key.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The row that reads this variable, under its own name, an alias, or either with `_FILE`.
pub fn by_env(name: &str) -> Option<&'static Setting> {
    let of_a_file = name.strip_suffix("_FILE");
    SETTINGS.iter().find(|setting| {
        setting.env_names().any(|own| own == name || (setting.may_come_from_file() && of_a_file == Some(own)))
    })
}

/// The sections of the file in their order, each with a sentence.
pub static SECTIONS: &[(&str, &str)] = &[
    ("telegram", "The bot that writes to customers."),
    ("yookassa", "YooKassa. Any value here enables it; shop_id and secret_key are needed then, and public_url."),
    ("heleket", "Heleket. Any value here enables it; merchant_id and payment_key are needed then, and public_url."),
    ("crystalpay", "CrystalPay. Any value here enables it; login, secret and salt are needed then, and public_url."),
    (
        "stars",
        "Telegram Stars, paid inside the chat with the bot. On with enabled; needs telegram.bot_token and telegram.updates.",
    ),
    ("shop", "Rules of the shop."),
    ("vpn", "VPN access over WireGuard, on this machine. It is on when host is set."),
    ("broadcast", "Campaigns: one message to many people."),
    ("notify", "Reminders and other notices that many people get at about the same time."),
    ("webhooks_out", "Our own events for whoever keeps the own bot, signed as Standard Webhooks."),
    ("retention", "How long old rows keep what only takes room. Keys, money, goods and the history stay for ever."),
    ("log", "How the program logs."),
    ("limits", "What one HTTP client may take."),
];

const DAY: u64 = 24 * 60 * 60;

/// What most rows have in common.
const PLAIN: Setting = Setting {
    key: "",
    env: "",
    aliases: &[],
    kind: Kind::Text,
    unit: "text",
    default: None,
    secret: false,
    one_line: "",
    more: "",
};

const NETWORKS_UNIT: &str = "published, off, or networks separated by commas";
const NETWORKS_MORE: &str = "`published` is the list that the provider has published, as compiled into this version; a \
     list of your own replaces it when the provider moves; `off` looks at no address. In every case only the provider's \
     own API moves money.";
const API_UNIT: &str = "http or https address";
const API_MORE: &str = "Change it only for a proxy or a sandbox.";

/// Every setting, in the order of the file.
pub static SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        env: "SEMEL_LISTEN",
        kind: Kind::Address,
        unit: "address and port",
        default: Some("127.0.0.1:8080"),
        one_line: "Address that the HTTP server listens on.",
        more: "Behind a reverse proxy on the same machine the default is right; 0.0.0.0:8080 opens it to every network.",
        ..PLAIN
    },
    Setting {
        key: "database_url",
        env: "SEMEL_DATABASE_URL",
        aliases: &["DATABASE_URL"],
        kind: Kind::Database,
        unit: "sqlite://path, sqlite:///absolute/path or postgres://user:password@host/name",
        default: Some("sqlite://data/semel.db"),
        one_line: "Where the database lives.",
        more: "SQLite serves one program on one machine; several copies share PostgreSQL. The driver in an address like \
             postgresql+asyncpg:// is dropped. A relative path in semel.toml, and that of the default, begins in the \
             folder of semel.toml.",
        ..PLAIN
    },
    Setting {
        key: "pool_max",
        env: "SEMEL_POOL_MAX",
        aliases: &["DB_POOL_MAX"],
        kind: Kind::Count(1, 1000),
        unit: "connections",
        default: Some("8"),
        one_line: "Most connections to PostgreSQL.",
        more: "Connections open when they are needed; the one of database_listen_url comes on top. SQLite does not use it: \
             a file always has one writer and three readers.",
        ..PLAIN
    },
    Setting {
        key: "database_wait",
        env: "SEMEL_DATABASE_WAIT",
        kind: Kind::Duration(1, 60),
        unit: "duration, 1s to 60s",
        default: Some("3s"),
        one_line: "How long a caller waits for its turn before it hears that the database is busy.",
        more: "The turn of a connection to PostgreSQL, or of the writer or a reader of an SQLite file.",
        ..PLAIN
    },
    Setting {
        key: "database_listen_url",
        env: "SEMEL_DATABASE_LISTEN_URL",
        kind: Kind::Database,
        unit: "postgres://user:password@host/name",
        one_line: "The same PostgreSQL without a pooler, where copies hear of each other's work at once.",
        more: "Each copy opens one connection to it beside pool_max (LISTEN), and tells the others of new work at most ten \
             times a second (NOTIFY, in transactions of its own); give it to every copy. Without it a copy looks for \
             others' work every two seconds. With it every fifteen, which is how long work made on the command line, which \
             tells nobody, may wait.",
        ..PLAIN
    },
    Setting {
        key: "public_url",
        env: "SEMEL_PUBLIC_URL",
        kind: Kind::Url,
        unit: "https address; http only for a loopback host",
        one_line: "Where providers and customers reach this program; needed when a provider is enabled.",
        more: "Providers get `<public_url>/webhook/<provider>` as the address of their webhooks.",
        ..PLAIN
    },
    Setting {
        key: "api_token",
        env: "SEMEL_API_TOKEN",
        unit: "visible ASCII characters, 32 random ones are good",
        secret: true,
        one_line: "First bearer token for /api/v1 and /metrics; without any token they answer 401.",
        more: "Further tokens, scoped and revocable, are made by `semel token create`.",
        ..PLAIN
    },
    Setting {
        key: "trusted_proxies",
        env: "SEMEL_TRUSTED_PROXIES",
        kind: Kind::Networks,
        unit: "networks separated by commas, or none",
        one_line: "Networks whose X-Forwarded-For is believed, read from the right.",
        more: "When not given: loopback if the server listens on loopback, else none.",
        ..PLAIN
    },
    Setting {
        key: "stop_budget",
        env: "SEMEL_STOP_BUDGET",
        kind: Kind::Duration(1, 600),
        unit: "duration, 1s to 10m",
        default: Some("20s"),
        one_line: "How long running work may take to end after the program was asked to stop.",
        more: "Work that is cut off is done again after the next start.",
        ..PLAIN
    },
    Setting {
        key: "job_lease",
        env: "SEMEL_JOB_LEASE",
        kind: Kind::Duration(2, 300),
        unit: "duration, 2s to 5m",
        default: Some("60s"),
        one_line: "How long the jobs of a copy that died wait before another copy takes them up.",
        more: "A living copy renews its claims three times as often; one that stalls for longer loses them. With SQLite, \
             where there is one copy, a restart takes them up at once.",
        ..PLAIN
    },
    Setting {
        key: "backup_key_file",
        env: "SEMEL_BACKUP_KEY_FILE",
        unit: "path of a file",
        one_line: "The key that seals and opens backups; `semel backup` and `semel restore` read it, nothing else does.",
        more: "`semel backup --new-key PATH` makes one. Keep it apart from the backups, and a copy of it in a safe place. A \
             relative path begins where the command is started.",
        ..PLAIN
    },
    Setting {
        key: "telegram.bot_token",
        env: "SEMEL_TELEGRAM_BOT_TOKEN",
        aliases: &["BOT_TOKEN"],
        unit: "token from @BotFather",
        secret: true,
        one_line: "Token of the bot that writes to customers; without it nothing is sent.",
        ..PLAIN
    },
    Setting {
        key: "telegram.api_url",
        env: "SEMEL_TELEGRAM_API_URL",
        kind: Kind::Url,
        unit: API_UNIT,
        default: Some("https://api.telegram.org"),
        one_line: "Base address of the Bot API.",
        more: "Change it for a Bot API server of your own, or a sandbox.",
        ..PLAIN
    },
    Setting {
        key: "telegram.admin_ids",
        env: "SEMEL_TELEGRAM_ADMIN_IDS",
        kind: Kind::Ids,
        unit: "numbers separated by commas",
        one_line: "Telegram ids of the owners, who get the alerts.",
        more: "A bot cannot write first: each owner presses Start once.",
        ..PLAIN
    },
    Setting {
        key: "telegram.updates",
        env: "SEMEL_TELEGRAM_UPDATES",
        kind: Kind::Choice(&["off", "polling", "webhook"]),
        unit: "off, polling or webhook",
        default: Some("off"),
        one_line: "How the bot hears its customers; off leaves that to a program of yours.",
        more: "polling works everywhere; webhook needs an https public_url. A bot that another program already polls stays off: \
             a second poller would cut it off.",
        ..PLAIN
    },
    Setting {
        key: "telegram.rate",
        env: "SEMEL_TELEGRAM_RATE",
        kind: Kind::Count(1, 30),
        unit: "messages, 1 to 30",
        default: Some("28"),
        one_line: "The most messages that the bot sends in any second.",
        more: "Telegram allows 30, and counts what other programs send with the same token: leave them their part. It goes slower \
             by itself where Telegram says so, and never faster.",
        ..PLAIN
    },
    Setting {
        key: "telegram.proxy",
        env: "SEMEL_TELEGRAM_PROXY",
        unit: "http or https address",
        secret: true,
        one_line: "Proxy between this program and the Bot API.",
        more: "Secret because it may hold a password.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.shop_id",
        env: "SEMEL_YOOKASSA_SHOP_ID",
        aliases: &["YOOKASSA_SHOP_ID"],
        unit: "number of the shop",
        one_line: "Number of the shop at YooKassa.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.secret_key",
        env: "SEMEL_YOOKASSA_SECRET_KEY",
        aliases: &["YOOKASSA_SECRET_KEY"],
        secret: true,
        one_line: "Secret key of the shop: every webhook is verified by asking the API with it.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.api_url",
        env: "SEMEL_YOOKASSA_API_URL",
        kind: Kind::Url,
        unit: API_UNIT,
        default: Some("https://api.yookassa.ru/v3"),
        one_line: "Base address of YooKassa's API.",
        more: API_MORE,
        ..PLAIN
    },
    Setting {
        key: "yookassa.networks",
        env: "SEMEL_YOOKASSA_NETWORKS",
        kind: Kind::Networks,
        unit: NETWORKS_UNIT,
        default: Some("published"),
        one_line: "Networks that YooKassa's webhooks may come from.",
        more: NETWORKS_MORE,
        ..PLAIN
    },
    Setting {
        key: "yookassa.allow_test",
        env: "SEMEL_YOOKASSA_ALLOW_TEST",
        kind: Kind::Bool,
        unit: "true or false",
        default: Some("false"),
        one_line: "Whether test payments count as money.",
        more: "Never true in a shop that gives real goods.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.receipt_enabled",
        env: "SEMEL_YOOKASSA_RECEIPT_ENABLED",
        kind: Kind::Bool,
        unit: "true or false",
        one_line: "Whether payments carry a fiscal receipt (54-FZ); when not given, true if another receipt value is.",
        more: "Needs receipt_vat, receipt_subject and receipt_mode: tax values are never guessed.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.receipt_tax_system",
        env: "SEMEL_YOOKASSA_RECEIPT_TAX_SYSTEM",
        kind: Kind::Count(1, 6),
        unit: "YooKassa's number, 1 to 6",
        one_line: "Tax system of the shop, needed only by shops that have several.",
        more: "1 general, 2 simplified on income, 3 simplified on income less expenses, 4 ENVD, 5 ESHN, 6 patent.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.receipt_vat",
        env: "SEMEL_YOOKASSA_RECEIPT_VAT",
        kind: Kind::Count(1, 12),
        unit: "YooKassa's number, 1 to 12",
        one_line: "VAT code of the goods.",
        more: "1 no VAT, 2 0 %, 3 10 %, 4 20 %, 5 10/110, 6 20/120, 7 5 %, 8 7 %, 9 5/105, 10 7/107, 11 22 %, 12 22/122.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.receipt_subject",
        env: "SEMEL_YOOKASSA_RECEIPT_SUBJECT",
        unit: "YooKassa's word, for example service or commodity",
        one_line: "What is sold, as the receipt calls it.",
        ..PLAIN
    },
    Setting {
        key: "yookassa.receipt_mode",
        env: "SEMEL_YOOKASSA_RECEIPT_MODE",
        kind: Kind::Choice(&[
            "full_payment",
            "full_prepayment",
            "partial_prepayment",
            "advance",
            "partial_payment",
            "credit",
            "credit_payment",
        ]),
        unit: "YooKassa's word, for example full_payment or full_prepayment",
        one_line: "How it is paid, as the receipt calls it.",
        more: "A prepayment asks for a second receipt at delivery, which this program does not send.",
        ..PLAIN
    },
    Setting {
        key: "heleket.merchant_id",
        env: "SEMEL_HELEKET_MERCHANT_ID",
        aliases: &["HELEKET_MERCHANT_ID"],
        unit: "id of the merchant",
        one_line: "Id of the merchant at Heleket.",
        ..PLAIN
    },
    Setting {
        key: "heleket.payment_key",
        env: "SEMEL_HELEKET_PAYMENT_KEY",
        aliases: &["HELEKET_API_KEY"],
        secret: true,
        one_line: "Key of payments: it signs our requests and verifies their webhooks.",
        ..PLAIN
    },
    Setting {
        key: "heleket.payout_key",
        env: "SEMEL_HELEKET_PAYOUT_KEY",
        secret: true,
        one_line: "Key of payouts; refunds through Heleket need it.",
        more: "Rotating it at Heleket blocks withdrawals for 24 hours.",
        ..PLAIN
    },
    Setting {
        key: "heleket.api_url",
        env: "SEMEL_HELEKET_API_URL",
        kind: Kind::Url,
        unit: API_UNIT,
        default: Some("https://api.heleket.com"),
        one_line: "Base address of Heleket's API.",
        more: API_MORE,
        ..PLAIN
    },
    Setting {
        key: "heleket.networks",
        env: "SEMEL_HELEKET_NETWORKS",
        kind: Kind::Networks,
        unit: NETWORKS_UNIT,
        default: Some("published"),
        one_line: "Networks that Heleket's webhooks may come from.",
        more: NETWORKS_MORE,
        ..PLAIN
    },
    Setting {
        key: "crystalpay.login",
        env: "SEMEL_CRYSTALPAY_LOGIN",
        aliases: &["CRYSTALPAY_LOGIN"],
        unit: "name of the cash desk",
        one_line: "Name of the cash desk at CrystalPay.",
        ..PLAIN
    },
    Setting {
        key: "crystalpay.secret",
        env: "SEMEL_CRYSTALPAY_SECRET",
        aliases: &["CRYSTALPAY_SECRET"],
        secret: true,
        one_line: "First secret of the cash desk: every payment is confirmed by asking the API with it.",
        ..PLAIN
    },
    Setting {
        key: "crystalpay.salt",
        env: "SEMEL_CRYSTALPAY_SALT",
        aliases: &["CRYSTALPAY_SALT"],
        secret: true,
        one_line: "Second secret of the cash desk (salt): it verifies their webhooks.",
        ..PLAIN
    },
    Setting {
        key: "crystalpay.api_url",
        env: "SEMEL_CRYSTALPAY_API_URL",
        kind: Kind::Url,
        unit: API_UNIT,
        default: Some("https://api.crystalpay.io/v3"),
        one_line: "Base address of CrystalPay's API.",
        more: API_MORE,
        ..PLAIN
    },
    Setting {
        key: "crystalpay.networks",
        env: "SEMEL_CRYSTALPAY_NETWORKS",
        kind: Kind::Networks,
        unit: NETWORKS_UNIT,
        default: Some("published"),
        one_line: "Networks that CrystalPay's webhooks may come from.",
        more: NETWORKS_MORE,
        ..PLAIN
    },
    Setting {
        key: "stars.enabled",
        env: "SEMEL_STARS_ENABLED",
        kind: Kind::Bool,
        unit: "true or false",
        default: Some("false"),
        one_line: "Whether customers may pay with Telegram Stars.",
        more: "Telegram asks before each payment and waits ten seconds, so the bot must hear its customers: telegram.updates is polling \
             or webhook. An order that is paid with Stars is an order in Stars (XTR), also its balance and its refunds.",
        ..PLAIN
    },
    Setting {
        key: "stars.worth",
        env: "SEMEL_STARS_WORTH",
        unit: "decimal number, up to six decimals",
        one_line: "What one Star is worth in shop.currency: prices are divided by it and rounded up to whole Stars.",
        more: "With 1.80 and RUB a price of 180.00 is 100 Stars, and 180.01 is 101. Telegram pays you less for a Star than your customer \
             gives for it: set what you get. Without it only products priced in XTR are sold for Stars; those cost just that. \
             Top-ups in another currency are never sold for Stars.",
        ..PLAIN
    },
    Setting {
        key: "shop.currency",
        env: "SEMEL_SHOP_CURRENCY",
        unit: "currency code",
        default: Some("RUB"),
        one_line: "Currency of prices and balances.",
        ..PLAIN
    },
    Setting {
        key: "shop.order_lifetime",
        env: "SEMEL_SHOP_ORDER_LIFETIME",
        kind: Kind::Duration(1, 30 * DAY),
        unit: "duration, 1s to 30d",
        default: Some("30m"),
        one_line: "How long an order waits for its money and holds its goods.",
        ..PLAIN
    },
    Setting {
        key: "shop.unpaid_orders_per_customer",
        env: "SEMEL_SHOP_UNPAID_ORDERS_PER_CUSTOMER",
        kind: Kind::Count(1, 1000),
        unit: "orders",
        default: Some("5"),
        one_line: "How many unpaid orders one customer may hold.",
        ..PLAIN
    },
    Setting {
        key: "shop.referral_reward_percent",
        env: "SEMEL_SHOP_REFERRAL_REWARD_PERCENT",
        kind: Kind::Percent,
        unit: "percent with at most two decimals, 0 to 100",
        default: Some("0"),
        one_line: "Share of a customer's first payment that goes to whoever brought the customer.",
        more: "A refund takes the reward back.",
        ..PLAIN
    },
    Setting {
        key: "shop.late_deliver",
        env: "SEMEL_SHOP_LATE_DELIVER",
        kind: Kind::Bool,
        unit: "true or false",
        default: Some("true"),
        one_line: "Whether money that came late still buys the goods when they are in stock.",
        more: "If false, or when the goods are sold out, the money goes to the customer's balance.",
        ..PLAIN
    },
    Setting {
        key: "shop.return_url",
        env: "SEMEL_SHOP_RETURN_URL",
        kind: Kind::Url,
        unit: "http or https address, for example https://t.me/your_bot",
        one_line: "Where the payment page sends the customer afterwards.",
        ..PLAIN
    },
    Setting {
        key: "vpn.host",
        env: "SEMEL_VPN_HOST",
        aliases: &["WG_HOST"],
        unit: "host name or IP address",
        one_line: "Where customers' devices reach this machine; setting it turns VPN access on.",
        more: "It stands in every customer's file. A name can move to another machine, an address cannot.",
        ..PLAIN
    },
    Setting {
        key: "vpn.port",
        env: "SEMEL_VPN_PORT",
        aliases: &["WG_PORT"],
        kind: Kind::Count(1, 65_535),
        unit: "UDP port",
        default: Some("51820"),
        one_line: "UDP port that WireGuard listens on, as customers see it.",
        more: "Open it in the firewall.",
        ..PLAIN
    },
    Setting {
        key: "vpn.interface",
        env: "SEMEL_VPN_INTERFACE",
        aliases: &["WG_INTERFACE"],
        unit: "name of an interface, at most 15 characters",
        default: Some("wg0"),
        one_line: "The WireGuard interface.",
        ..PLAIN
    },
    Setting {
        key: "vpn.config_path",
        env: "SEMEL_VPN_CONFIG_PATH",
        aliases: &["WG_CONFIG_PATH"],
        unit: "path of a file",
        one_line: "The interface's configuration file, where customers' peers are kept between two fence lines.",
        more: "When not given: /etc/wireguard/<interface>.conf. What stands outside of the fence is kept byte for byte. The file \
             is replaced as a whole, so its folder must be writable for the program and for nobody else.",
        ..PLAIN
    },
    Setting {
        key: "vpn.lock_path",
        env: "SEMEL_VPN_LOCK_PATH",
        aliases: &["WG_CONFIG_LOCK_PATH"],
        unit: "path of a file",
        one_line: "The lock that whoever writes the configuration file holds.",
        more: "When not given: a dot file beside the configuration file, whose folder is private. Name the same one for every \
             program that writes that file. A folder that everybody may write to is refused.",
        ..PLAIN
    },
    Setting {
        key: "vpn.network",
        env: "SEMEL_VPN_NETWORK",
        aliases: &["WG_CLIENT_NETWORK_CIDR"],
        kind: Kind::Networks,
        unit: "IPv4 networks from /16 to /30, separated by commas",
        default: Some("10.8.0.0/24"),
        one_line: "Customers' IPv4 addresses; when they run out, add another network here.",
        more: "The first address of each, and those of the interface itself, are the server's. A network that is taken out gives \
             out no more, and who has an address of it keeps it.",
        ..PLAIN
    },
    Setting {
        key: "vpn.network6",
        env: "SEMEL_VPN_NETWORK6",
        kind: Kind::Networks,
        unit: "IPv6 networks from /48 to /126, separated by commas",
        one_line: "Customers' IPv6 addresses; none when not given.",
        more: "The first 65,536 of each are used.",
        ..PLAIN
    },
    Setting {
        key: "vpn.excluded",
        env: "SEMEL_VPN_EXCLUDED",
        kind: Kind::Networks,
        unit: "networks or addresses separated by commas",
        one_line: "Addresses of these networks that are never given to a customer.",
        ..PLAIN
    },
    Setting {
        key: "vpn.dns",
        env: "SEMEL_VPN_DNS",
        aliases: &["WG_DEFAULT_DNS"],
        kind: Kind::List,
        unit: "addresses and search domains separated by commas, or none",
        default: Some("1.1.1.1"),
        one_line: "Name servers that customers' devices use inside of the tunnel.",
        more: "`none` leaves the device's own, which may tell others what the customer visits.",
        ..PLAIN
    },
    Setting {
        key: "vpn.mtu",
        env: "SEMEL_VPN_MTU",
        aliases: &["WG_MTU"],
        kind: Kind::Count(1_280, 9_000),
        unit: "bytes",
        one_line: "Largest packet inside of the tunnel; when not given the device chooses.",
        ..PLAIN
    },
    Setting {
        key: "vpn.keepalive",
        env: "SEMEL_VPN_KEEPALIVE",
        aliases: &["WG_PERSISTENT_KEEPALIVE"],
        kind: Kind::Count(0, 65_535),
        unit: "seconds",
        default: Some("25"),
        one_line: "How often a silent device says that it is there, so that routers on the way keep the connection; 0 is never.",
        ..PLAIN
    },
    Setting {
        key: "vpn.allowed_ips",
        env: "SEMEL_VPN_ALLOWED_IPS",
        aliases: &["WG_ALLOWED_IPS"],
        kind: Kind::Networks,
        unit: "networks separated by commas",
        one_line: "What customers' devices send through the tunnel.",
        more: "When not given: everything, which is 0.0.0.0/0, and ::/0 unless ipv6 is off.",
        ..PLAIN
    },
    Setting {
        key: "vpn.ipv6",
        env: "SEMEL_VPN_IPV6",
        kind: Kind::Choice(&["off", "routed", "blocked"]),
        unit: "off, routed or blocked",
        one_line: "What becomes of customers' IPv6.",
        more: "`routed` gives each device an address of network6; `blocked` takes IPv6 into the tunnel, where it ends, so that \
             nothing goes past it; `off` does not touch it. When not given: routed with network6, off when allowed_ips names no \
             IPv6 network, else blocked.",
        ..PLAIN
    },
    Setting {
        key: "vpn.server_public_key",
        env: "SEMEL_VPN_SERVER_PUBLIC_KEY",
        aliases: &["WG_SERVER_PUBLIC_KEY"],
        unit: "44 characters, as `wg show wg0 public-key` prints them",
        one_line: "The server's public key.",
        more: "When not given it is derived from the PrivateKey in the configuration file.",
        ..PLAIN
    },
    Setting {
        key: "vpn.tool",
        env: "SEMEL_VPN_TOOL",
        unit: "wg, awg or the path of one",
        default: Some("wg"),
        one_line: "The program that talks to the interface: wg, or awg for AmneziaWG.",
        ..PLAIN
    },
    Setting {
        key: "vpn.apply",
        env: "SEMEL_VPN_APPLY",
        kind: Kind::Choice(&["interface", "file", "none"]),
        unit: "interface, file or none",
        default: Some("interface"),
        one_line: "Whether peers are brought to the file and the running interface, to the file only, or to nothing here.",
        more: "With `file` somebody else loads the file, for example `wg syncconf`; a peer counts as connected when it stands in it. With `none` this copy only sells, and another one on the same PostgreSQL, on the machine with the interface, does the rest; it then needs vpn.server_public_key.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_jc",
        env: "SEMEL_VPN_AMNEZIA_JC",
        kind: Kind::Count(1, 128),
        unit: "packets",
        one_line: "AmneziaWG: how many junk packets come before a handshake.",
        more: "The same numbers as the server's interface has. One of them makes all nine needed.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_jmin",
        env: "SEMEL_VPN_AMNEZIA_JMIN",
        kind: Kind::Count(0, 1_280),
        unit: "bytes",
        one_line: "AmneziaWG: size of the smallest junk packet.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_jmax",
        env: "SEMEL_VPN_AMNEZIA_JMAX",
        kind: Kind::Count(1, 1_280),
        unit: "bytes",
        one_line: "AmneziaWG: size of the largest junk packet.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_s1",
        env: "SEMEL_VPN_AMNEZIA_S1",
        kind: Kind::Count(0, 1_280),
        unit: "bytes",
        one_line: "AmneziaWG: junk before the first packet of a handshake.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_s2",
        env: "SEMEL_VPN_AMNEZIA_S2",
        kind: Kind::Count(0, 1_280),
        unit: "bytes",
        one_line: "AmneziaWG: junk before its answer.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_h1",
        env: "SEMEL_VPN_AMNEZIA_H1",
        kind: Kind::Count(5, 4_294_967_295),
        unit: "number",
        one_line: "AmneziaWG: the number that the first packet of a handshake begins with.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_h2",
        env: "SEMEL_VPN_AMNEZIA_H2",
        kind: Kind::Count(5, 4_294_967_295),
        unit: "number",
        one_line: "AmneziaWG: the number that its answer begins with.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_h3",
        env: "SEMEL_VPN_AMNEZIA_H3",
        kind: Kind::Count(5, 4_294_967_295),
        unit: "number",
        one_line: "AmneziaWG: the number that a cookie begins with.",
        ..PLAIN
    },
    Setting {
        key: "vpn.amnezia_h4",
        env: "SEMEL_VPN_AMNEZIA_H4",
        kind: Kind::Count(5, 4_294_967_295),
        unit: "number",
        one_line: "AmneziaWG: the number that data begins with.",
        ..PLAIN
    },
    Setting {
        key: "vpn.key",
        env: "SEMEL_VPN_KEY",
        unit: "base64 of 32 random bytes, as `head -c 32 /dev/urandom | base64` prints them",
        secret: true,
        one_line: "The key that seals customers' private keys in the database.",
        more: "When not given, with SQLite: a file beside the database, `<database>.vpn-key`, made at the first start; keep a copy \
             of it. With PostgreSQL it is needed, because all copies must share it. Without it customers' files cannot be made \
             again.",
        ..PLAIN
    },
    Setting {
        key: "vpn.trial_days",
        env: "SEMEL_VPN_TRIAL_DAYS",
        kind: Kind::Count(0, 365),
        unit: "days",
        default: Some("0"),
        one_line: "How long a trial lasts, once per person; 0 gives none.",
        ..PLAIN
    },
    Setting {
        key: "vpn.grace_hours",
        env: "SEMEL_VPN_GRACE_HOURS",
        kind: Kind::Count(0, 720),
        unit: "hours",
        default: Some("24"),
        one_line: "How long access goes on after its end, for who renews late.",
        ..PLAIN
    },
    Setting {
        key: "vpn.sticky_days",
        env: "SEMEL_VPN_STICKY_DAYS",
        kind: Kind::Count(0, 365),
        unit: "days",
        default: Some("30"),
        one_line: "How long address and keys stay a customer's after access ended, so that a renewal revives the same file.",
        ..PLAIN
    },
    Setting {
        key: "vpn.quarantine_days",
        env: "SEMEL_VPN_QUARANTINE_DAYS",
        kind: Kind::Count(0, 365),
        unit: "days",
        default: Some("7"),
        one_line: "How long an address rests before somebody else gets it.",
        ..PLAIN
    },
    Setting {
        key: "vpn.traffic_every",
        env: "SEMEL_VPN_TRAFFIC_EVERY",
        kind: Kind::Duration(10, DAY),
        unit: "duration, 10s to 1d",
        default: Some("1m"),
        one_line: "How often handshakes and traffic are read from the interface.",
        ..PLAIN
    },
    Setting {
        key: "vpn.remind",
        env: "SEMEL_VPN_REMIND",
        kind: Kind::List,
        unit: "durations separated by commas, or none",
        default: Some("3d, 1d, 3h"),
        one_line: "How long before the end of access customers are reminded.",
        ..PLAIN
    },
    Setting {
        key: "vpn.unconnected",
        env: "SEMEL_VPN_UNCONNECTED",
        kind: Kind::List,
        unit: "durations separated by commas, or none",
        default: Some("2h, 24h, 5d"),
        one_line: "How long after they got their file customers are offered help who never connected.",
        ..PLAIN
    },
    Setting {
        key: "vpn.support",
        env: "SEMEL_VPN_SUPPORT",
        unit: "https address, or @name in Telegram",
        one_line: "Where the help button under the instructions leads; no button when not given.",
        ..PLAIN
    },
    Setting {
        key: "vpn.name_prefix",
        env: "SEMEL_VPN_NAME_PREFIX",
        unit: "1 to 32 characters",
        default: Some("vpn"),
        one_line: "How the tunnels on customers' devices are called, before their number.",
        more: "Names of tunnels have 15 Latin characters at most: Russian letters are rewritten, and what is too long is cut.",
        ..PLAIN
    },
    Setting {
        key: "broadcast.max_users",
        env: "SEMEL_BROADCAST_MAX_USERS",
        aliases: &["MAX_BROADCAST_USERS"],
        kind: Kind::Count(0, 10_000_000),
        unit: "people",
        default: Some("5000"),
        one_line: "A campaign to more people is refused with the number, never sent to a part of them; 0 is no limit.",
        ..PLAIN
    },
    Setting {
        key: "broadcast.confirm_over",
        env: "SEMEL_BROADCAST_CONFIRM_OVER",
        kind: Kind::Count(0, 10_000_000),
        unit: "people",
        default: Some("1000"),
        one_line: "A campaign to more people begins only after their number was said once more.",
        ..PLAIN
    },
    Setting {
        key: "broadcast.batch_size",
        env: "SEMEL_BROADCAST_BATCH_SIZE",
        aliases: &["BROADCAST_BATCH_SIZE"],
        kind: Kind::Count(1, 10_000),
        unit: "messages",
        default: Some("25"),
        one_line: "Messages of one batch; counts only together with batch_sleep.",
        ..PLAIN
    },
    Setting {
        key: "broadcast.batch_sleep",
        env: "SEMEL_BROADCAST_BATCH_SLEEP",
        aliases: &["BROADCAST_BATCH_SLEEP"],
        kind: Kind::Duration(0, 3_600),
        unit: "duration, 0s to 1h",
        default: Some("0s"),
        one_line: "From the beginning of one batch to that of the next, to be slower than Telegram allows; 0 is as fast as it allows.",
        more: "It makes a campaign slower only: no setting makes it faster than Telegram allows.",
        ..PLAIN
    },
    Setting {
        key: "notify.batch_size",
        env: "SEMEL_NOTIFY_BATCH_SIZE",
        aliases: &["NOTIFY_BATCH_SIZE"],
        kind: Kind::Count(1, 10_000),
        unit: "messages",
        default: Some("25"),
        one_line: "Reminders of one batch; counts only together with batch_sleep.",
        ..PLAIN
    },
    Setting {
        key: "notify.batch_sleep",
        env: "SEMEL_NOTIFY_BATCH_SLEEP",
        aliases: &["NOTIFY_BATCH_SLEEP"],
        kind: Kind::Duration(0, 3_600),
        unit: "duration, 0s to 1h",
        default: Some("0s"),
        one_line: "From the beginning of one batch of reminders to that of the next; 0 is as fast as Telegram allows.",
        ..PLAIN
    },
    Setting {
        key: "webhooks_out.url",
        env: "SEMEL_WEBHOOKS_OUT_URL",
        kind: Kind::Url,
        unit: "https address; http only with allow_private",
        one_line: "Where events such as order.paid are sent.",
        ..PLAIN
    },
    Setting {
        key: "webhooks_out.secret",
        env: "SEMEL_WEBHOOKS_OUT_SECRET",
        unit: "whsec_ and the base64 of 24 to 64 random bytes",
        secret: true,
        one_line: "Secret that signs them; needed when url is given.",
        ..PLAIN
    },
    Setting {
        key: "webhooks_out.allow_private",
        env: "SEMEL_WEBHOOKS_OUT_ALLOW_PRIVATE",
        kind: Kind::Bool,
        unit: "true or false",
        default: Some("false"),
        one_line: "Whether the receiver may live on a private or loopback address.",
        ..PLAIN
    },
    Setting {
        key: "retention.inbox_days",
        env: "SEMEL_RETENTION_INBOX_DAYS",
        kind: Kind::Count(0, 36_500),
        unit: "days, 0 to 36500",
        default: Some("90"),
        one_line: "How many days after it came a notice of a provider keeps its body, if it has ended; 0 keeps it for ever.",
        more: "The notice itself stays with its keys and the hash of its body, so an old repeat is still known and what was \
             acknowledged can be proved. What has not ended keeps its body.",
        ..PLAIN
    },
    Setting {
        key: "retention.jobs_days",
        env: "SEMEL_RETENTION_JOBS_DAYS",
        kind: Kind::Count(0, 36_500),
        unit: "days, 0 to 36500",
        default: Some("90"),
        one_line: "How many days after it was written the row of a job that is done stays; 0 keeps it for ever.",
        more: "Jobs whose row keeps something from happening twice, dead letters and calls whose fate nobody told stay for ever, \
             and what each job did stays in the history. What the bot answered, and what customers write to the owner by /support, goes \
             after as many days. Messages about goods and money stay for ever.",
        ..PLAIN
    },
    Setting {
        key: "log.format",
        env: "SEMEL_LOG_FORMAT",
        kind: Kind::Choice(&["text", "json"]),
        unit: "text or json",
        default: Some("text"),
        one_line: "Shape of a log line.",
        ..PLAIN
    },
    Setting {
        key: "log.level",
        env: "SEMEL_LOG_LEVEL",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        unit: "error, warn, info, debug or trace",
        default: Some("info"),
        one_line: "Least important level that is written.",
        ..PLAIN
    },
    Setting {
        key: "limits.body",
        env: "SEMEL_LIMITS_BODY",
        kind: Kind::Size(1024, 64 * 1024 * 1024),
        unit: "size, 1KiB to 64MiB",
        default: Some("256KiB"),
        one_line: "Largest body of a request.",
        ..PLAIN
    },
    Setting {
        key: "limits.connections",
        env: "SEMEL_LIMITS_CONNECTIONS",
        kind: Kind::Count(1, 100_000),
        unit: "connections",
        default: Some("1024"),
        one_line: "Most HTTP connections at a time.",
        ..PLAIN
    },
    Setting {
        key: "limits.header_timeout",
        env: "SEMEL_LIMITS_HEADER_TIMEOUT",
        kind: Kind::Duration(1, 600),
        unit: "duration, 1s to 10m",
        default: Some("10s"),
        one_line: "How long the head of a request may take.",
        ..PLAIN
    },
    Setting {
        key: "limits.body_timeout",
        env: "SEMEL_LIMITS_BODY_TIMEOUT",
        kind: Kind::Duration(1, 600),
        unit: "duration, 1s to 10m",
        default: Some("15s"),
        one_line: "How long the body of a request may take.",
        ..PLAIN
    },
];
