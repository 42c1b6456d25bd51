//! From text to domain types. Each error continues a sentence that begins with the setting's name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::{DatabaseUrl, Networks};

pub fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = "is not an address with a port: write 127.0.0.1:8080, or 0.0.0.0:8080 for every network";
    text.parse().map_err(|_| wrong.to_owned())
}

pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

pub fn count(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) => Err(format!("is out of bounds: write a number from {least} to {most}")),
        Err(_) => Err(format!("is not a whole number: write one from {least} to {most}")),
    }
}

/// `15s`, `30m`, `24h`, `7d`, `500ms`; a plain number means seconds. The bounds are seconds.
pub fn duration(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let unit_ms = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let Some(ms) = scaled(number, unit_ms) else {
        return Err("is not a duration: write a number with ms, s, m, h or d, like 15s, 30m or 24h".to_owned());
    };
    let value = Duration::from_millis(ms);
    if value < Duration::from_secs(least) || value > Duration::from_secs(most) {
        return Err(format!("is out of bounds: write a duration from {} to {}", spelt(least), spelt(most)));
    }
    Ok(value)
}

/// Seconds as an owner would write them.
fn spelt(seconds: u64) -> String {
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

/// A number above nothing with at most six decimals, as millionths: `1.80` is 1,800,000. Digits are read, no binary fraction ever
/// touches it.
pub fn millionths(text: &str) -> Result<i64, String> {
    let wrong = || "is not a number above 0 with at most six decimals: write one like 1.80".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits =
        |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 9) || !digits(decimals, 6) {
        return Err(wrong());
    }
    let number: i64 = format!("{whole}{decimals:0<6}").parse().map_err(|_| wrong())?;
    if number > 0 { Ok(number) } else { Err(wrong()) }
}

/// `256KiB`, `1MiB`; a plain number means bytes. The bounds are bytes.
pub fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let unit_bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kib" => Some(1024),
        "mib" => Some(1024 * 1024),
        _ => None,
    };
    match scaled(number, unit_bytes) {
        Some(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!("is out of bounds: write a size from {least} to {most} bytes")),
        None => Err("is not a size: write a number of bytes, or one with KiB or MiB, like 256KiB".to_owned()),
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim())
}

fn scaled(number: &str, unit: Option<u64>) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(unit?)
}

/// A part of a hundred as basis points: `2.5` is 250. Digits are read, no binary fraction ever touches it.
pub fn basis_points(text: &str) -> Result<u32, String> {
    let wrong = || "is not a percentage: write a number from 0 to 100 with at most two decimals, like 2.5".to_owned();
    let text = text.strip_suffix('%').unwrap_or(text).trim_end();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits =
        |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 3) || !digits(decimals, 2) {
        return Err(wrong());
    }
    let points: u32 = format!("{whole}{decimals:0<2}").parse().map_err(|_| wrong())?;
    if points > 10_000 {
        return Err(wrong());
    }
    Ok(points)
}

pub fn choice(text: &str, words: &[&str]) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if words.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(format!("is none of {}", words.join(", ")))
}

/// A word of a provider's API, like `service`.
pub fn word(text: &str) -> Result<String, String> {
    if text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        return Ok(text.to_owned());
    }
    Err("is not a word of the provider's API: these are lower-case letters and underscores".to_owned())
}

/// Text that goes into a header: visible ASCII only.
pub fn visible(text: &str) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("holds a space or a character outside ASCII".to_owned())
}

/// The user name of HTTP basic authentication, which a colon would end.
pub fn user_name(text: &str) -> Result<String, String> {
    if text.contains(':') {
        return Err("holds a colon: write the shop's number alone, the secret key has a setting of its own".to_owned());
    }
    visible(text)
}

/// A Telegram bot token. It becomes a part of the request's path, so nothing that could end a path part passes.
pub fn bot_token(text: &str) -> Result<String, String> {
    let right = text.split_once(':').is_some_and(|(id, key)| {
        let id_is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let key_is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        id_is_number && !key.is_empty() && key_is_plain
    });
    if right {
        return Ok(text.to_owned());
    }
    Err("is not a bot token: copy it from @BotFather, it looks like 123456789:AAbbCC-dd_ee".to_owned())
}

/// A Standard Webhooks secret.
pub fn signing_secret(text: &str) -> Result<String, String> {
    let wrong = "is not a signing secret: write whsec_ and the base64 of 24 to 64 random bytes, \
         as `echo whsec_$(openssl rand -base64 32)` prints it";
    let Some(body) = text.strip_prefix("whsec_") else {
        return Err(wrong.to_owned());
    };
    let data = body.trim_end_matches('=');
    let alphabet = data.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/');
    let padded = body.len().is_multiple_of(4) && body.len() - data.len() <= 2;
    let bytes = data.len() * 3 / 4;
    if alphabet && padded && (24..=64).contains(&bytes) { Ok(text.to_owned()) } else { Err(wrong.to_owned()) }
}

/// The base address of an outside service.
pub fn base_url(text: &str) -> Result<Url, String> {
    let url = web_url(text)?;
    if url.query().is_some() {
        return Err("holds a question mark: write the base address only".to_owned());
    }
    Ok(url)
}

/// Our own address as others see it.
pub fn public_url(text: &str) -> Result<Url, String> {
    let url = base_url(text)?;
    if url.scheme() != "https" && !is_loopback(&url) {
        return Err("is not https: providers send webhooks to https only, so put a TLS proxy in front and write its \
             https address (http is for loopback hosts)"
            .to_owned());
    }
    Ok(url)
}

/// Any http or https address. A password in it would end up in logs, so none passes.
pub fn web_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a web address ({error}): write https://…"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("is not a web address: write https://…".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password, which would show up in logs: remove it".to_owned());
    }
    if url.fragment().is_some() {
        return Err("holds a #: remove it and what follows".to_owned());
    }
    Ok(url)
}

pub fn proxy(text: &str) -> Result<String, String> {
    let right = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    if right {
        return Ok(text.to_owned());
    }
    Err("is not a proxy: write http://host:port".to_owned())
}

/// Whether the address stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `sqlite://data/semel.db`, `sqlite:///absolute/path.db` or `postgres://…`. Addresses of Python bots name a driver, as
/// in `postgresql+asyncpg://`: it is dropped for PostgreSQL. For SQLite it means that the file is another program's.
pub fn database(text: &str) -> Result<DatabaseUrl, String> {
    let wrong = "is not a database address: write sqlite://data/semel.db or postgres://user:password@host/name";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(wrong.to_owned());
    };
    if rest.is_empty() {
        return Err(wrong.to_owned());
    }
    match scheme.split_once('+') {
        None if scheme == "sqlite" => sqlite(rest),
        None if scheme == "postgres" || scheme == "postgresql" => Ok(DatabaseUrl::Postgres(text.to_owned())),
        Some(("postgres" | "postgresql", _)) => Ok(DatabaseUrl::Postgres(format!("postgresql://{rest}"))),
        Some(("sqlite", _)) => {
            Err("names a Python driver, so the file belongs to another program: give Semel a file of \
             its own, like sqlite://data/semel.db"
                .to_owned())
        }
        _ => Err(wrong.to_owned()),
    }
}

/// The address of a PostgreSQL server.
pub fn listen_url(text: &str) -> Result<String, String> {
    match database(text) {
        Ok(DatabaseUrl::Postgres(url)) => Ok(url),
        _ => Err("is not an address of PostgreSQL: write postgres://user:password@host/name".to_owned()),
    }
}

fn sqlite(path: &str) -> Result<DatabaseUrl, String> {
    if path.contains(":memory:") {
        return Err(
            "keeps the data in memory, where a restart would forget money: write sqlite://data/semel.db".to_owned()
        );
    }
    if path.contains('?') || path.contains('#') || path.ends_with('/') {
        return Err("is not the address of a file: write a plain path after sqlite://".to_owned());
    }
    Ok(DatabaseUrl::Sqlite(PathBuf::from(path)))
}

/// Telegram ids, separated by commas or spaces.
pub fn ids(text: &str) -> Result<Vec<i64>, String> {
    items(text)
        .map(|item| match item.parse::<i64>() {
            Ok(id) if id != 0 => Ok(id),
            _ => Err(format!("holds `{item}`, which is not a Telegram id: write numbers, not @names")),
        })
        .collect()
}

/// Networks or single addresses, separated by commas or spaces.
pub fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    items(text).map(network).collect()
}

fn network(item: &str) -> Result<IpNet, String> {
    if let Ok(ip) = item.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    match item.parse::<IpNet>() {
        Ok(network) => Ok(network.trunc()),
        Err(_) => Err(format!("holds `{item}`, which is not a network: write 10.0.0.0/8 or 192.0.2.7")),
    }
}

/// A provider's networks: a word, or a list.
pub fn provider_networks(text: &str) -> Result<Networks, String> {
    match text.to_ascii_lowercase().as_str() {
        "published" => Ok(Networks::Published),
        "off" => Ok(Networks::Off),
        _ => networks(text).map(Networks::Listed),
    }
}

/// Networks of our own proxies: `none`, or a list. A list that holds everybody would let everybody forge the sender.
pub fn trusted_proxies(text: &str) -> Result<Vec<IpNet>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let networks = networks(text)?;
    if networks.iter().any(|network| network.prefix_len() == 0) {
        return Err(
            "trusts the whole internet, so anybody could forge the sender: name your proxy's network".to_owned()
        );
    }
    Ok(networks)
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}
