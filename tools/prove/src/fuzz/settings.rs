//! Settings: `semel.toml`, the environment, and single values. What is wrong is told in sentences, what is right lies within
//! its bounds, and no secret is ever repeated.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use semel::settings::{self, Loaded, SettingsError};
use tempfile::TempDir;

use super::notices::kind_of;
use super::{Subject, TAKEN, Verdict};

/// What settings are made of.
pub const WORDS: &[&str] = &[
    "[yookassa]\n",
    "[telegram]\n",
    "[limits]\n",
    "[shop]\n",
    "SEMEL_LISTEN=127.0.0.1:8080\n",
    "SEMEL_STOP_BUDGET=15s\n",
    "SEMEL_LIMITS_BODY=1MiB\n",
    "SEMEL_TRUSTED_PROXIES=0.0.0.0/0\n",
    "BOT_TOKEN=",
    "DB_JOB_LOCK_ID=1\n",
    "SEMEL_TELEGRAM_ADMIN_IDS=1,2\n",
    "15s",
    "30m",
    "24h",
    "500ms",
    "256KiB",
    "64MiB",
    "2.5%",
    "sqlite://",
    "postgres://semel:CANARY@db/semel",
    "postgresql+asyncpg://",
    ":memory:",
    "published",
    "off",
    "none",
    "true",
    "= \"",
    "\"\"\"",
    "'''",
    "= [",
    "{ x = 1 }",
    "1979-05-27",
    "nan",
    "inf",
    "0xff",
    "1_000",
];

/// What marks a secret in the kept inputs.
const CANARY: &str = "CANARY";

/// The last parts of the names of secrets, in the file and in the environment.
const SECRETS: &[&str] =
    &["api_token", "bot_token", "secret_key", "payment_key", "payout_key", "secret", "salt", "proxy"];

/// Whether the mark stands in values of secrets only, so that it must not be seen anywhere.
fn is_marked(text: &str) -> bool {
    let secret = |line: &str| {
        let Some((name, value)) = line.split_once('=') else { return !line.contains(CANARY) };
        let name = name.trim().to_ascii_lowercase();
        let known =
            SECRETS.iter().any(|secret| name == *secret || (name.starts_with("semel_") && name.ends_with(*secret)));
        !name.contains("canary") && (known || !value.contains(CANARY))
    };
    let several_lines = text.contains("\"\"\"") || text.contains("'''");
    text.contains(CANARY) && !several_lines && text.lines().all(secret)
}

/// What holds whatever was read.
fn judged(text: &str, loaded: Result<Loaded, SettingsError>) -> Verdict {
    let marked = is_marked(text);
    match loaded {
        Err(error) => {
            let told = error.to_string();
            if error.problems.is_empty() || error.problems.iter().any(String::is_empty) {
                return Err("refused without a word".into());
            }
            if told.len() > 20 * (text.len() + 2_000) {
                return Err(format!("{} bytes of complaints about {} bytes", told.len(), text.len()));
            }
            if marked && told.contains(CANARY) {
                return Err(format!("a secret stands in a complaint: {told}"));
            }
            Ok(error.problems.iter().take(3).map(|problem| kind_of(problem)).collect::<Vec<_>>().join("; "))
        }
        Ok(loaded) => {
            let shown = format!("{:?} {}", loaded, settings::print(&loaded));
            if marked && shown.contains(CANARY) {
                return Err("a secret is shown".into());
            }
            within_bounds(&loaded)?;
            let s = &loaded.settings;
            let providers = (s.yookassa.is_some(), s.heleket.is_some(), s.crystalpay.is_some());
            Ok(format!("{TAKEN}: {providers:?} {} {}", s.webhooks_out.is_some(), s.telegram.bot_token.is_some()))
        }
    }
}

/// The bounds of the table, written a second time.
fn within_bounds(loaded: &Loaded) -> Result<(), String> {
    let s = &loaded.settings;
    let within = |what: &str, value: Duration, least: u64, most: u64| {
        let fits = (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&value);
        if fits { Ok(()) } else { Err(format!("{what} of {value:?}")) }
    };
    within("a wait for the database", s.database_wait, 1, 60)?;
    within("a budget to stop", s.stop_budget, 1, 600)?;
    within("a lease", s.job_lease, 2, 300)?;
    within("a life of orders", s.shop.order_lifetime, 1, 30 * 24 * 3600)?;
    within("a time for heads", s.limits.header_timeout, 1, 600)?;
    within("a time for bodies", s.limits.body_timeout, 1, 600)?;
    if !(1_024..=64 * 1_024 * 1_024).contains(&s.limits.body) || !(1..=100_000).contains(&s.limits.connections) {
        return Err(format!("limits of {:?}", s.limits));
    }
    if !(1..=1_000).contains(&s.pool_max) || !(1..=1_000).contains(&s.shop.unpaid_orders_per_customer) {
        return Err(format!("{} connections, {} orders", s.pool_max, s.shop.unpaid_orders_per_customer));
    }
    if s.shop.referral_reward_bp > 10_000 {
        return Err(format!("a reward of {} basis points", s.shop.referral_reward_bp));
    }
    if s.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        return Err("the whole internet is trusted".into());
    }
    let provider = s.yookassa.is_some() || s.heleket.is_some() || s.crystalpay.is_some();
    if provider && s.public_url.is_none() {
        return Err("a provider is enabled that cannot reach us".into());
    }
    let unproved = s.yookassa.as_ref().is_some_and(|shop| shop.secret_key.expose().is_empty())
        || s.heleket.as_ref().is_some_and(|merchant| merchant.payment_key.expose().is_empty())
        || s.crystalpay.as_ref().is_some_and(|desk| desk.salt.expose().is_empty())
        || s.webhooks_out.as_ref().is_some_and(|out| out.secret.expose().is_empty());
    if unproved { Err("something is enabled whose secret is empty".into()) } else { Ok(()) }
}

struct InAFile {
    folder: TempDir,
}

/// Starts the target on a file of its own.
pub fn file() -> Box<dyn Subject> {
    Box::new(InAFile { folder: tempfile::tempdir().expect("a temporary folder") })
}

impl Subject for InAFile {
    /// The bytes of a `semel.toml`.
    fn feed(&mut self, input: &[u8]) -> Verdict {
        let path = self.folder.path().join("semel.toml");
        fs::write(&path, input).map_err(|error| format!("the file cannot be written: {error}"))?;
        let text = String::from_utf8_lossy(input);
        // `…_file = "/dev/zero"` would be read to its end.
        let names_one = |line: &str| line.contains("/dev/") || line.contains("/proc/");
        if text.lines().any(|line| !line.trim_start().starts_with('#') && names_one(line)) {
            return Ok("names a device".into());
        }
        judged(&text, settings::load(Some(path.as_path()), &BTreeMap::new(), &[]))
    }

    /// The example that ships with the program is itself a sound file.
    fn end(&mut self) -> Result<(), String> {
        match self.feed(settings::render_example().as_bytes())?.starts_with(TAKEN) {
            true => Ok(()),
            false => Err("the example file is refused".into()),
        }
    }
}

fn loaded(environment: &BTreeMap<String, String>) -> Result<Loaded, SettingsError> {
    // An empty file in place of ./semel.toml.
    settings::load(Some(Path::new("/dev/null")), environment, &[])
}

/// The environment: a `NAME=VALUE` a line.
pub fn environment(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let environment: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if environment.keys().any(|name| name.ends_with("_FILE")) {
        return Ok("names a file".into());
    }
    judged(&text, loaded(&environment))
}

/// One value in the place of every setting that reads it by rules of its own.
pub fn values(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input).into_owned();
    let names = [
        "SEMEL_LISTEN",
        "SEMEL_DATABASE_URL",
        "SEMEL_STOP_BUDGET",
        "SEMEL_LIMITS_BODY",
        "SEMEL_TRUSTED_PROXIES",
        "SEMEL_TELEGRAM_ADMIN_IDS",
        "SEMEL_TELEGRAM_API_URL",
        "SEMEL_SHOP_REFERRAL_REWARD_PERCENT",
        "SEMEL_SHOP_LATE_DELIVER",
        "SEMEL_SHOP_CURRENCY",
        "SEMEL_PUBLIC_URL",
    ];
    let mut taken = Vec::new();
    for name in names {
        let environment = BTreeMap::from([(name.to_owned(), text.clone())]);
        let Ok(loaded) = loaded(&environment) else { continue };
        within_bounds(&loaded)?;
        if !text.trim().is_empty() {
            taken.push(name);
        }
        let (s, plain) = (&loaded.settings, text.trim());
        let told = match name {
            "SEMEL_STOP_BUDGET" => {
                by_unit(plain, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("", 1_000)])
                    .is_none_or(|ms| Duration::from_millis(ms) == s.stop_budget)
            }
            "SEMEL_LIMITS_BODY" => by_unit(plain, &[("KiB", 1_024), ("MiB", 1_048_576), ("", 1)])
                .is_none_or(|bytes| u64::try_from(s.limits.body) == Ok(bytes)),
            "SEMEL_SHOP_REFERRAL_REWARD_PERCENT" => {
                by_unit(plain, &[("%", 100), ("", 100)]).is_none_or(|bp| u64::from(s.shop.referral_reward_bp) == bp)
            }
            _ => true,
        };
        if !told {
            return Err(format!("{name} reads {plain:?} as {s:?}"));
        }
    }
    if let Ok(ids) = settings::parse_ids(&text) {
        let printed: Vec<String> = ids.iter().map(i64::to_string).collect();
        if settings::parse_ids(&printed.join(",")).as_ref() != Ok(&ids) || ids.contains(&0) {
            return Err(format!("{text:?} was read as the ids {ids:?}"));
        }
    }
    if let Ok(token) = settings::parse_bot_token(&text)
        && (token != text || !token.bytes().all(|byte| byte.is_ascii_graphic()) || token.contains(['/', '?', '#', '%']))
    {
        return Err(format!("{text:?} is taken for a token"));
    }
    if let Ok(url) = settings::parse_public_url(&text) {
        let near = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
            || url.host_str().is_some_and(|host| host.starts_with("127.") || host.ends_with(".localhost"));
        if settings::parse_public_url(url.as_str()).as_ref() != Ok(&url) || !(url.scheme() == "https" || near) {
            return Err(format!("{text:?} was read as {url}"));
        }
    }
    Ok(if taken.is_empty() { "refused everywhere".into() } else { format!("{TAKEN}: {}", taken.join(", ")) })
}

/// A plain number with one of these units, multiplied; none where the text is anything else.
fn by_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, times) = units.iter().find(|(name, _)| *name == unit)?;
    if digits > 9 { None } else { number.parse::<u64>().ok()?.checked_mul(*times) }
}
