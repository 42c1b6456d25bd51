//! Builds the typed settings out of the gathered texts, and applies the rules that span several of them.
//!
//! A wrong value gets a stand-in so that the reading goes on and every problem is found; nothing built on a stand-in is
//! ever returned.

mod vpn;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use semel_money::Currency;
use url::Url;

use super::table::{self, Kind};
use super::values::{Given, Source, Values};
use super::{
    Broadcast, Crystalpay, DatabaseUrl, Heleket, Limits, Log, LogFormat, Networks, Receipt, Retention, Secret,
    Settings, Shop, Speed, Stars, Telegram, Updates, WebhooksOut, Yookassa, parse,
};

/// The settings and what is to be noticed about them, or every problem.
pub(super) fn read(values: &Values) -> Result<(Settings, Vec<String>), Vec<String>> {
    let mut reader = Reader { values, problems: Vec::new(), notices: Vec::new() };
    let settings = settings(&mut reader);
    match settings {
        Some(settings) if reader.problems.is_empty() => Ok((settings, reader.notices)),
        _ => Err(reader.problems),
    }
}

/// `None` only after a problem was noted.
fn settings(reader: &mut Reader<'_>) -> Option<Settings> {
    let listen = reader.read("listen", parse::address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
    let trusted_proxies = match reader.values.get("trusted_proxies") {
        Some(_) => reader.read("trusted_proxies", parse::trusted_proxies).unwrap_or_default(),
        None => loopback_networks_for(listen),
    };
    let database = reader.read("database_url", parse::database).unwrap_or(DatabaseUrl::Sqlite(PathBuf::new()));
    let pool_max = reader.number("pool_max");
    let database_wait = reader.duration("database_wait");
    let database_listen_url = listen_url(reader, &database);
    let public_url = reader.read("public_url", parse::public_url);
    let api_token = api_token(reader);
    let stop_budget = reader.duration("stop_budget");
    let job_lease = reader.duration("job_lease");
    let backup_key_file = reader.read("backup_key_file", |text| Ok(PathBuf::from(text)));
    // Each part is read before any is missed, so that all problems are found.
    let telegram = telegram(reader);
    let yookassa = yookassa(reader);
    let heleket = heleket(reader);
    let crystalpay = crystalpay(reader);
    let stars = stars(reader);
    let shop = shop(reader);
    let vpn = vpn::vpn(reader, &database);
    let broadcast = Broadcast {
        max_users: reader.number("broadcast.max_users"),
        confirm_over: reader.number("broadcast.confirm_over"),
        speed: speed(reader, "broadcast.batch_size", "broadcast.batch_sleep"),
    };
    let notify_speed = speed(reader, "notify.batch_size", "notify.batch_sleep");
    let webhooks_out = webhooks_out(reader);
    let retention = Retention {
        inbox_days: reader.number("retention.inbox_days"),
        jobs_days: reader.number("retention.jobs_days"),
    };
    let log = log(reader);
    let limits = limits(reader);
    Some(Settings {
        listen,
        database,
        pool_max,
        database_wait,
        database_listen_url,
        public_url,
        api_token,
        trusted_proxies,
        stop_budget,
        job_lease,
        backup_key_file,
        telegram: telegram?,
        yookassa,
        heleket,
        crystalpay,
        stars,
        shop: shop?,
        vpn,
        broadcast,
        notify_speed,
        webhooks_out,
        retention,
        log,
        limits,
        demo: false,
    })
}

/// A server on loopback is only reachable through a proxy on the same machine; any other may have no proxy at all.
fn loopback_networks_for(listen: SocketAddr) -> Vec<IpNet> {
    if !listen.ip().is_loopback() {
        return Vec::new();
    }
    let four = Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(|network| IpNet::V4(network.trunc()));
    let six = Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6);
    four.into_iter().chain(six).collect()
}

/// An embedded database has no other copy to listen to.
fn listen_url(reader: &mut Reader<'_>, database: &DatabaseUrl) -> Option<Secret> {
    let url = reader.secret("database_listen_url", parse::listen_url)?;
    if matches!(database, DatabaseUrl::Sqlite(_)) {
        reader.notice("database_listen_url", "does nothing: the database is SQLite, which serves one copy alone");
        return None;
    }
    Some(url)
}

fn api_token(reader: &mut Reader<'_>) -> Option<Secret> {
    let token = reader.secret("api_token", parse::visible)?;
    if token.expose().len() < 16 {
        reader.notice("api_token", "is shorter than 16 characters, which can be guessed");
    }
    Some(token)
}

fn telegram(reader: &mut Reader<'_>) -> Option<Telegram> {
    let bot_token = reader.secret("telegram.bot_token", parse::bot_token);
    let api_url = reader.service("telegram.api_url");
    let admin_ids = reader.read("telegram.admin_ids", parse::ids).unwrap_or_default();
    let proxy = reader.secret("telegram.proxy", parse::proxy);
    let updates = match reader.choice("telegram.updates").as_deref() {
        Some("polling") => Updates::Polling,
        Some("webhook") => Updates::Webhook,
        _ => Updates::Off,
    };
    if updates != Updates::Off && !reader.values.contains_key("telegram.bot_token") {
        reader.notice("telegram.updates", "does nothing: there is no bot without `SEMEL_TELEGRAM_BOT_TOKEN`");
    }
    // An address that cannot be read is a problem of its own, told elsewhere.
    let address = reader.values.get("public_url").map(|given| given.text.to_ascii_lowercase());
    if updates == Updates::Webhook && !address.is_some_and(|address| address.starts_with("https://")) {
        let sentence = format!(
            "{} must be an https address: Telegram posts updates there (telegram.updates is webhook). Write polling where \
             there is none.",
            both_names("public_url").trim_end_matches(',')
        );
        reader.problems.push(sentence);
    }
    let rate = reader.number("telegram.rate");
    Some(Telegram { bot_token, api_url: api_url?, admin_ids, updates, rate, proxy })
}

fn yookassa(reader: &mut Reader<'_>) -> Option<Yookassa> {
    let enabled = reader.enabled("yookassa")?;
    reader.need_public_url(&enabled);
    let shop_id = reader.need(&enabled, "yookassa.shop_id", UNVERIFIED, parse::user_name);
    let secret_key = reader.need(&enabled, "yookassa.secret_key", UNVERIFIED, parse::visible);
    let api_url = reader.service("yookassa.api_url");
    let networks = reader.networks("yookassa.networks");
    let allow_test = reader.boolean("yookassa.allow_test");
    let receipt = receipt(reader);
    Some(Yookassa {
        shop_id: shop_id?,
        secret_key: Secret::new(secret_key?),
        api_url: api_url?,
        networks,
        allow_test,
        receipt,
    })
}

/// Receipts are on when they are said to be, or when any of their values is given. Tax values are never guessed.
fn receipt(reader: &mut Reader<'_>) -> Option<Receipt> {
    let by = reader.first_given(|key| key.starts_with("yookassa.receipt_"))?;
    let by = by.name();
    let off = reader.values.contains_key("yookassa.receipt_enabled") && !reader.boolean("yookassa.receipt_enabled");
    let tax_system = reader.optional_number("yookassa.receipt_tax_system");
    let vat = reader.optional_number("yookassa.receipt_vat");
    let subject = reader.read("yookassa.receipt_subject", parse::word);
    let mode = reader.choice("yookassa.receipt_mode");
    if off {
        return None;
    }
    for key in ["yookassa.receipt_vat", "yookassa.receipt_subject", "yookassa.receipt_mode"] {
        if !reader.values.contains_key(key) {
            let missing = both_names(key);
            let sentence =
                format!("{missing} is missing: receipts are on ({by} is set), and tax values are never guessed.");
            reader.problems.push(sentence);
        }
    }
    Some(Receipt { tax_system, vat: vat?, subject: subject?, mode: mode? })
}

fn heleket(reader: &mut Reader<'_>) -> Option<Heleket> {
    let enabled = reader.enabled("heleket")?;
    reader.need_public_url(&enabled);
    let merchant_id = reader.need(&enabled, "heleket.merchant_id", UNVERIFIED, parse::visible);
    let payment_key = reader.need(&enabled, "heleket.payment_key", UNVERIFIED, parse::visible);
    let payout_key = reader.secret("heleket.payout_key", parse::visible);
    let api_url = reader.service("heleket.api_url");
    let networks = reader.networks("heleket.networks");
    Some(Heleket {
        merchant_id: merchant_id?,
        payment_key: Secret::new(payment_key?),
        payout_key,
        api_url: api_url?,
        networks,
    })
}

fn crystalpay(reader: &mut Reader<'_>) -> Option<Crystalpay> {
    let enabled = reader.enabled("crystalpay")?;
    reader.need_public_url(&enabled);
    let login = reader.need(&enabled, "crystalpay.login", UNVERIFIED, anything);
    let secret = reader.need(&enabled, "crystalpay.secret", UNVERIFIED, anything);
    let salt = reader.need(&enabled, "crystalpay.salt", UNVERIFIED, anything);
    let api_url = reader.service("crystalpay.api_url");
    let networks = reader.networks("crystalpay.networks");
    Some(Crystalpay {
        login: login?,
        secret: Secret::new(secret?),
        salt: Secret::new(salt?),
        api_url: api_url?,
        networks,
    })
}

/// On only when it is said to be: a worth alone sells nothing.
fn stars(reader: &mut Reader<'_>) -> Option<Stars> {
    let worth_millionths = reader.read("stars.worth", parse::millionths);
    if !reader.boolean("stars.enabled") {
        reader.notice("stars.worth", "does nothing: Stars are not enabled, see `SEMEL_STARS_ENABLED`");
        return None;
    }
    if !reader.values.contains_key("telegram.bot_token") {
        let sentence = format!(
            "{} is missing: Stars are enabled (SEMEL_STARS_ENABLED is set), and they are paid to the bot.",
            both_names("telegram.bot_token")
        );
        reader.problems.push(sentence);
    }
    // A word that is none is a problem of its own, told elsewhere.
    let hears = reader.values.get("telegram.updates").is_some_and(|given| !given.text.eq_ignore_ascii_case("off"));
    if !hears {
        let sentence = format!(
            "{} must be polling or webhook: Stars are enabled (SEMEL_STARS_ENABLED is set), and Telegram takes none that the bot does \
             not answer for within ten seconds.",
            both_names("telegram.updates").trim_end_matches(',')
        );
        reader.problems.push(sentence);
    }
    Some(Stars { worth_millionths })
}

fn shop(reader: &mut Reader<'_>) -> Option<Shop> {
    let currency = reader.read("shop.currency", |text| {
        let wrong = "is not a currency that this version knows: write a code such as RUB, USD or USDT";
        Currency::from_code(&text.to_ascii_uppercase()).map_err(|_| wrong.to_owned())
    });
    let order_lifetime = reader.duration("shop.order_lifetime");
    let unpaid_orders_per_customer = reader.number("shop.unpaid_orders_per_customer");
    let referral_reward_bp = reader.read("shop.referral_reward_percent", parse::basis_points).unwrap_or_default();
    let late_deliver = reader.boolean("shop.late_deliver");
    let return_url = reader.read("shop.return_url", parse::web_url);
    Some(Shop {
        currency: currency?,
        order_lifetime,
        unpaid_orders_per_customer,
        referral_reward_bp,
        late_deliver,
        return_url,
    })
}

/// A lower speed than Telegram allows; none without a rest between batches.
fn speed(reader: &mut Reader<'_>, size: &str, sleep: &str) -> Option<Speed> {
    let (batch, rest) = (reader.number(size), reader.duration(sleep));
    (!rest.is_zero()).then_some(Speed { batch, rest })
}

fn webhooks_out(reader: &mut Reader<'_>) -> Option<WebhooksOut> {
    let allow_private = reader.boolean("webhooks_out.allow_private");
    let secret = reader.secret("webhooks_out.secret", parse::signing_secret);
    let given = reader.values.contains_key("webhooks_out.secret");
    if given && !reader.values.contains_key("webhooks_out.url") {
        reader.notice("webhooks_out.secret", "signs nothing: `SEMEL_WEBHOOKS_OUT_URL` is not set");
    }
    let url = reader.read("webhooks_out.url", |text| match parse::web_url(text) {
        Ok(url) if url.scheme() != "https" && !allow_private => {
            let wrong = "is not https: write an https address, or set SEMEL_WEBHOOKS_OUT_ALLOW_PRIVATE=true for a \
                 receiver on your own network";
            Err(wrong.to_owned())
        }
        other => other,
    })?;
    if !given {
        reader.problems.push(format!(
            "{} is missing: without it the receiver could not tell our events from forged ones.",
            both_names("webhooks_out.secret")
        ));
    }
    Some(WebhooksOut { url, secret: secret?, allow_private })
}

fn log(reader: &mut Reader<'_>) -> Log {
    let format = match reader.choice("log.format").as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    let level = reader.choice("log.level").and_then(|word| word.parse().ok()).unwrap_or(tracing::Level::INFO);
    Log { format, level }
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    let (least, most) = bounds("limits.body");
    let body = reader.read("limits.body", |text| parse::size(text, least, most)).unwrap_or_default();
    Limits {
        body: usize::try_from(body).unwrap_or(usize::MAX),
        connections: reader.number("limits.connections"),
        header_timeout: reader.duration("limits.header_timeout"),
        body_timeout: reader.duration("limits.body_timeout"),
    }
}

/// Why an enabled provider needs all of its secrets.
const UNVERIFIED: &str = "webhooks could not be verified";

fn anything(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// How a sentence calls a setting that nobody has written yet: by its place in the file and by its variable, because
/// nobody knows where it will be written.
fn both_names(key: &str) -> String {
    match table::by_key(key) {
        Some(setting) if setting.section().is_empty() => {
            format!("`{}` above the first [section], or `{}`,", setting.name(), setting.env)
        }
        Some(setting) => format!("`{}` under [{}], or `{}`,", setting.name(), setting.section(), setting.env),
        None => format!("`{key}`"),
    }
}

/// The bounds in the table.
fn bounds(key: &str) -> (u64, u64) {
    match table::by_key(key).map(|setting| setting.kind) {
        Some(Kind::Count(least, most) | Kind::Duration(least, most) | Kind::Size(least, most)) => (least, most),
        _ => (0, u64::MAX),
    }
}

/// A provider that is enabled, and the value that enabled it.
struct Enabled {
    provider: &'static str,
    by: String,
}

/// Reads one value after the other and keeps what is wrong.
struct Reader<'a> {
    values: &'a Values,
    problems: Vec<String>,
    notices: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The parsed value; `None` if none was given, or after noting why it is wrong.
    fn read<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let values = self.values;
        let given = values.get(key)?;
        match parse(&given.text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problems.push(given.problem(&wrong));
                None
            }
        }
    }

    fn secret(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<String, String>) -> Option<Secret> {
        self.read(key, parse).map(Secret::new)
    }

    fn optional_duration(&mut self, key: &str) -> Option<Duration> {
        let (least, most) = bounds(key);
        self.read(key, |text| parse::duration(text, least, most))
    }

    fn duration(&mut self, key: &str) -> Duration {
        self.optional_duration(key).unwrap_or_default()
    }

    /// A number within its bounds in the table, which must fit `T`.
    fn optional_number<T: TryFrom<u64>>(&mut self, key: &str) -> Option<T> {
        let (least, most) = bounds(key);
        self.read(key, |text| {
            let number = parse::count(text, least, most)?;
            T::try_from(number).map_err(|_| "is too large".to_owned())
        })
    }

    fn number<T: TryFrom<u64> + Default>(&mut self, key: &str) -> T {
        self.optional_number(key).unwrap_or_default()
    }

    fn boolean(&mut self, key: &str) -> bool {
        self.read(key, parse::boolean).unwrap_or_default()
    }

    fn choice(&mut self, key: &str) -> Option<String> {
        let words = match table::by_key(key).map(|setting| setting.kind) {
            Some(Kind::Choice(words)) => words,
            _ => &[],
        };
        self.read(key, |text| parse::choice(text, words))
    }

    fn networks(&mut self, key: &str) -> Networks {
        self.read(key, parse::provider_networks).unwrap_or(Networks::Published)
    }

    /// The base address of an outside service. Keys travel to it, so plain http beyond this machine is remarked.
    fn service(&mut self, key: &str) -> Option<Url> {
        let url = self.read(key, parse::base_url)?;
        if url.scheme() == "http" && !parse::is_loopback(&url) {
            self.notice(key, "is plain http: whoever listens on the way reads the keys");
        }
        Some(url)
    }

    fn notice(&mut self, key: &str, says: &str) {
        if let Some(given) = self.values.get(key) {
            self.notices.push(format!("{} {says}.", given.name()));
        }
    }

    /// The first value that somebody gave among the keys that `wanted` accepts.
    fn first_given(&self, wanted: impl Fn(&str) -> bool) -> Option<&'a Given> {
        self.values.values().find(|given| given.source != Source::Default && wanted(given.setting.key))
    }

    /// A provider is enabled by any of its values, so that a forgotten one cannot leave it half open.
    fn enabled(&self, provider: &'static str) -> Option<Enabled> {
        let by = self.first_given(|key| key.split_once('.').is_some_and(|(section, _)| section == provider))?;
        Some(Enabled { provider, by: by.name() })
    }

    /// A value that an enabled provider cannot do without.
    fn need(
        &mut self,
        enabled: &Enabled,
        key: &'static str,
        why: &str,
        parse: impl FnOnce(&str) -> Result<String, String>,
    ) -> Option<String> {
        if !self.values.contains_key(key) {
            self.problems.push(format!(
                "{} is missing: {} is enabled ({} is set), and Semel refuses to start: {why}.",
                both_names(key),
                enabled.provider,
                enabled.by
            ));
        }
        self.read(key, parse)
    }

    fn need_public_url(&mut self, enabled: &Enabled) {
        if !self.values.contains_key("public_url") {
            self.problems.push(format!(
                "{} is missing: {} is enabled ({} is set), and its webhooks need the https address at which they reach \
                 us.",
                both_names("public_url"),
                enabled.provider,
                enabled.by
            ));
        }
    }
}
