//! The section `vpn`: each value by itself, and then what follows from several of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use super::{Reader, both_names};
use crate::settings::vpn::{Amnezia, Apply, Ipv6, Vpn};
use crate::settings::{DatabaseUrl, Secret, parse};

const DAY: u64 = 24 * 60 * 60;
const HOUR: u64 = 60 * 60;

/// VPN access, when a host is set. Every other value alone does nothing, so that the environment of a machine that once had
/// a VPN starts no half of one.
pub(super) fn vpn(reader: &mut Reader<'_>, database: &DatabaseUrl) -> Option<Vpn> {
    if !reader.values.contains_key("vpn.host") {
        if let Some(given) = reader.first_given(|key| key.starts_with("vpn.")) {
            let sentence = format!("{} does nothing: `SEMEL_VPN_HOST` is not set; ignored.", given.name());
            reader.notices.push(sentence);
        }
        return None;
    }
    // Each is read before any is missed, so that all problems are found.
    let host = reader.read("vpn.host", host);
    let interface = reader.read("vpn.interface", interface);
    let networks = reader.read("vpn.network", |text| pools_of(text, 4, 16, 30)).unwrap_or_default();
    let networks = whole(reader, "vpn.network", &networks);
    let networks6 = reader.read("vpn.network6", |text| pools_of(text, 6, 48, 126)).unwrap_or_default();
    let networks6 = whole(reader, "vpn.network6", &networks6);
    let excluded = reader.read("vpn.excluded", parse::networks).unwrap_or_default();
    let dns = reader.read("vpn.dns", dns).unwrap_or_default();
    let server_public_key = reader.read("vpn.server_public_key", public_key);
    let tool = reader.read("vpn.tool", tool);
    let name_prefix = reader.read("vpn.name_prefix", name_prefix);
    let support = reader.read("vpn.support", support);
    let mut remind = reader.read("vpn.remind", moments).unwrap_or_default();
    remind.reverse();
    let unconnected = reader.read("vpn.unconnected", moments).unwrap_or_default();
    let (ipv6, allowed_ips) = routes(reader, !networks6.is_empty());
    let amnezia = amnezia(reader);
    let (key, key_file) = sealing_key(reader, database);
    let apply = match reader.choice("vpn.apply").as_deref() {
        Some("file") => Apply::File,
        Some("none") => Apply::None,
        _ => Apply::Interface,
    };
    let interface = interface?;
    let given_path = reader.read("vpn.config_path", file_path);
    let config_path = given_path.unwrap_or_else(|| PathBuf::from(format!("/etc/wireguard/{interface}.conf")));
    let lock_path = reader.read("vpn.lock_path", file_path).unwrap_or_else(|| lock_beside(&config_path));
    Some(Vpn {
        host: host?,
        port: reader.number("vpn.port"),
        interface,
        config_path,
        lock_path,
        networks,
        networks6,
        excluded,
        dns,
        mtu: reader.optional_number("vpn.mtu"),
        keepalive: reader.number("vpn.keepalive"),
        allowed_ips,
        ipv6,
        server_public_key,
        tool: tool?,
        apply,
        amnezia,
        key,
        key_file,
        trial: Duration::from_secs(reader.number::<u64>("vpn.trial_days") * DAY),
        grace: Duration::from_secs(reader.number::<u64>("vpn.grace_hours") * HOUR),
        sticky: Duration::from_secs(reader.number::<u64>("vpn.sticky_days") * DAY),
        quarantine: Duration::from_secs(reader.number::<u64>("vpn.quarantine_days") * DAY),
        traffic_every: reader.duration("vpn.traffic_every"),
        remind,
        unconnected,
        support,
        name_prefix: name_prefix?,
    })
}

/// The networks from their first address on. What an owner may not have meant is told: a network that is written with one of its
/// hosts, and one whose addresses belong to others on the internet, whom customers would then not reach.
fn whole(reader: &mut Reader<'_>, key: &str, given: &[IpNet]) -> Vec<IpNet> {
    for network in given {
        let all = network.trunc();
        if *network != all {
            let sentence =
                format!("{} holds {network}, which lies in {all}: that whole network is meant.", both_names(key));
            reader.notices.push(sentence);
        }
        if is_public(&all) {
            let sentence = format!(
                "{} holds {all}, which is no private network: customers do not reach whom its addresses belong to on the \
                 internet. Take one such as 10.8.0.0/24, unless these addresses are yours.",
                both_names(key)
            );
            reader.notices.push(sentence);
        }
    }
    given.iter().map(IpNet::trunc).collect()
}

/// Whether a network of IPv4 has addresses of the internet. Of IPv6 a part of the provider's own network is the usual choice.
fn is_public(network: &IpNet) -> bool {
    let IpNet::V4(network) = network else { return false };
    let is_private = |ip: Ipv4Addr| {
        let [first, second, ..] = ip.octets();
        ip.is_private() || (first == 100 && (64..128).contains(&second))
    };
    !(is_private(network.network()) && is_private(network.broadcast()))
}

/// What becomes of IPv6, and what goes through the tunnel because of it.
fn routes(reader: &mut Reader<'_>, has_network6: bool) -> (Ipv6, Vec<IpNet>) {
    let given = reader.read("vpn.allowed_ips", parse::networks);
    let names_six =
        given.as_ref().is_none_or(|networks| networks.iter().any(|network| matches!(network, IpNet::V6(_))));
    let ipv6 = match reader.choice("vpn.ipv6").as_deref() {
        Some("off") => Ipv6::Off,
        Some("blocked") => Ipv6::Blocked,
        Some("routed") if has_network6 => Ipv6::Routed,
        Some("routed") => {
            let sentence =
                format!("{} is missing: ipv6 is routed, and devices need addresses.", both_names("vpn.network6"));
            reader.problems.push(sentence);
            Ipv6::Routed
        }
        _ if has_network6 => Ipv6::Routed,
        _ if names_six => Ipv6::Blocked,
        _ => Ipv6::Off,
    };
    let mut networks = given.unwrap_or_else(|| {
        let mut all: Vec<IpNet> = EVERYTHING4.parse::<IpNet>().into_iter().collect();
        if ipv6 == Ipv6::Routed {
            all.extend(EVERYTHING6.parse::<IpNet>());
        }
        all
    });
    // What is not taken into the tunnel as a whole goes past it.
    if ipv6 == Ipv6::Blocked
        && let Ok(all) = EVERYTHING6.parse::<IpNet>()
        && !networks.contains(&all)
    {
        networks.push(all);
    }
    (ipv6, networks)
}

const EVERYTHING4: &str = "0.0.0.0/0";
const EVERYTHING6: &str = "::/0";

/// None of the nine numbers, or all of them.
fn amnezia(reader: &mut Reader<'_>) -> Option<Amnezia> {
    let by = reader.first_given(|key| key.starts_with("vpn.amnezia_"))?.name();
    const KEYS: [&str; 9] = [
        "vpn.amnezia_jc",
        "vpn.amnezia_jmin",
        "vpn.amnezia_jmax",
        "vpn.amnezia_s1",
        "vpn.amnezia_s2",
        "vpn.amnezia_h1",
        "vpn.amnezia_h2",
        "vpn.amnezia_h3",
        "vpn.amnezia_h4",
    ];
    let values = reader.values;
    for key in KEYS.into_iter().filter(|key| !values.contains_key(key)) {
        let sentence = format!(
            "{} is missing: {by} is set, and a device needs all nine numbers of AmneziaWG as the server has them.",
            both_names(key)
        );
        reader.problems.push(sentence);
    }
    let jc = reader.optional_number("vpn.amnezia_jc");
    let jmin = reader.optional_number("vpn.amnezia_jmin");
    let jmax = reader.optional_number("vpn.amnezia_jmax");
    let s1 = reader.optional_number("vpn.amnezia_s1");
    let s2 = reader.optional_number("vpn.amnezia_s2");
    let h = ["vpn.amnezia_h1", "vpn.amnezia_h2", "vpn.amnezia_h3", "vpn.amnezia_h4"]
        .map(|key| reader.optional_number::<u32>(key));
    let numbers = Amnezia { jc: jc?, jmin: jmin?, jmax: jmax?, s1: s1?, s2: s2?, h: [h[0]?, h[1]?, h[2]?, h[3]?] };
    if let Some(wrong) = disharmony(&numbers) {
        reader.problems.push(format!("{by} and the other numbers of AmneziaWG do not fit together: {wrong}."));
    }
    Some(numbers)
}

/// What AmneziaWG itself refuses of numbers that are each within their bounds.
fn disharmony(numbers: &Amnezia) -> Option<&'static str> {
    let [h1, h2, h3, h4] = numbers.h;
    if numbers.jmin >= numbers.jmax {
        return Some("jmin must be less than jmax");
    }
    // The first packet has 148 bytes and its answer 92: with this difference they would look alike.
    if numbers.s1 + 56 == numbers.s2 {
        return Some("s2 must not be s1 and 56");
    }
    if h1 == h2 || h1 == h3 || h1 == h4 || h2 == h3 || h2 == h4 || h3 == h4 {
        return Some("h1, h2, h3 and h4 must be four different numbers");
    }
    None
}

/// The key, or where it lies.
fn sealing_key(reader: &mut Reader<'_>, database: &DatabaseUrl) -> (Option<Secret>, Option<PathBuf>) {
    let given = reader.values.contains_key("vpn.key");
    let key = reader.secret("vpn.key", |text| match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == 32 => Ok(text.to_owned()),
        _ => Err("is not the base64 of 32 bytes: `head -c 32 /dev/urandom | base64` prints one".to_owned()),
    });
    match database {
        _ if given => (key, None),
        DatabaseUrl::Sqlite(path) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".vpn-key");
            (None, Some(PathBuf::from(name)))
        }
        DatabaseUrl::Postgres(_) => {
            reader.problems.push(format!(
                "{} is missing: it seals customers' keys, and all copies on this PostgreSQL must share it; `head -c 32 \
                 /dev/urandom | base64` prints one.",
                both_names("vpn.key")
            ));
            (None, None)
        }
    }
}

/// A hidden file beside the configuration file: its folder is private, and who may not write there has nothing to lock.
fn lock_beside(config: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(config.file_name().unwrap_or_default());
    name.push(".lock");
    config.with_file_name(name)
}

fn file_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.file_name().is_none() || text.ends_with('/') {
        return Err("is not the path of a file".to_owned());
    }
    Ok(path)
}

fn host(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("is not a host: write a name like vpn.example.com, or an address, without a port".to_owned())
}

/// What Linux and wg-quick accept.
fn interface(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'=' | b'+' | b'.' | b'-');
    if text.len() <= 15 && text.bytes().all(plain) && !matches!(text, "." | "..") && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    Err("is not the name of an interface: write at most 15 Latin characters, like wg0".to_owned())
}

fn pools_of(text: &str, family: u8, widest: u8, narrowest: u8) -> Result<Vec<IpNet>, String> {
    words(text)
        .map(|word| {
            let wrong =
                || format!("holds `{word:.60}`, which is no IPv{family} network from /{widest} to /{narrowest}");
            let network = word.parse::<IpNet>().map_err(|_| wrong())?;
            let of_family = matches!((&network, family), (IpNet::V4(_), 4) | (IpNet::V6(_), 6));
            let fits = of_family && (widest..=narrowest).contains(&network.prefix_len());
            if fits { Ok(network) } else { Err(wrong()) }
        })
        .collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ';', ' ', '\t']).filter(|word| !word.is_empty())
}

fn dns(text: &str) -> Result<Vec<String>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let domain = |word: &str| {
        word.len() <= 253
            && word.split('.').all(|part| {
                !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            })
    };
    let found: Vec<String> = words(text).map(str::to_owned).collect();
    match found.iter().find(|word| word.parse::<IpAddr>().is_err() && !domain(word)) {
        Some(word) => Err(format!("holds `{word:.60}`, which is neither an address nor a search domain")),
        None => Ok(found),
    }
}

fn public_key(text: &str) -> Result<String, String> {
    match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == 32 => Ok(text.to_owned()),
        _ => {
            Err("is not a WireGuard key: these have 44 characters, as `wg show wg0 public-key` prints them".to_owned())
        }
    }
}

fn tool(text: &str) -> Result<PathBuf, String> {
    if matches!(text, "wg" | "awg") || (text.starts_with('/') && !text.ends_with('/')) {
        return Ok(PathBuf::from(text));
    }
    Err("is neither wg nor awg nor a path that begins with a slash".to_owned())
}

fn name_prefix(text: &str) -> Result<String, String> {
    if text.chars().count() <= 32 && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("is too long: write at most 32 characters".to_owned())
}

/// An https address; `@name` is one of Telegram.
fn support(text: &str) -> Result<String, String> {
    if let Some(name) = text.strip_prefix('@') {
        let sound = (4..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        return match sound {
            true => Ok(format!("https://t.me/{name}")),
            false => Err("is not a name in Telegram: it looks like @your_help".to_owned()),
        };
    }
    let url = parse::web_url(text)?;
    match url.scheme() {
        "https" => Ok(url.to_string()),
        _ => Err("is not https: Telegram shows no button for it".to_owned()),
    }
}

const MOMENTS: usize = 10;

/// Durations, the shortest first, each once.
fn moments(text: &str) -> Result<Vec<Duration>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let found: Result<Vec<Duration>, String> = words(text)
        .map(|word| parse::duration(word, 60, 90 * DAY).map_err(|wrong| format!("holds `{word:.20}`, which {wrong}")))
        .collect();
    let mut found = found?;
    found.sort_unstable();
    found.dedup();
    if found.len() > MOMENTS {
        return Err(format!("holds more than {MOMENTS} durations"));
    }
    Ok(found)
}
