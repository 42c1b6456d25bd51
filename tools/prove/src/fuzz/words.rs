//! Short texts: amounts, ids, words of rows, addresses, the forwarded chain, the signature of our own events.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::HeaderValue;
use ipnet::IpNet;
use semel::server::TrustedProxies;
use semel_kernel::inbox::InboxId;
use semel_kernel::jobs::JobId;
use semel_money::{Amount, Currency};
use semel_payments::{BaseUrl, Provider};
use semel_shop::catalog::{Delivery, Kind, ProductId, UnitId};
use semel_shop::checkout::{PaymentId, PaymentState};
use semel_shop::customers::CustomerId;
use semel_shop::events::{EventId, key, sign};
use semel_shop::orders::{ItemId, OrderId, PayBy, State};
use semel_shop::refunds::RefundId;
use semel_telegram::Bot;
use sha2::{Digest as _, Sha256};

use super::{TAKEN, Verdict};

/// What these texts are made of.
pub const WORDS: &[&str] = &[
    "RUB 499.00",
    "XTR 5",
    "ETH 0.000000001",
    "USDT 0.000001",
    "92233720368547758.07",
    "-0.01",
    "+1",
    ".5",
    "1.",
    "1e2",
    "1_000",
    "1,5",
    "ord_",
    "pay_0197f5a0b2c87d3e8f1a2b3c4d5e6f70",
    "job_",
    "delivered",
    "awaiting_stock",
    "yookassa",
    "balance",
    "https://",
    "http://user:password@host",
    "http://[::1]:80/",
    "?a=b",
    "#top",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_",
    "==",
];

/// Decimal text and currency: `CODE TEXT`. Read as a calculation of our own reads it, printed and read again.
pub fn amount(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (code, digits) = text.split_once(' ').unwrap_or(("RUB", text.as_ref()));
    let unit = Currency::from_code(code).unwrap_or(Currency::RUB);
    let read = Amount::parse(digits, unit);
    let expected = exact(digits, unit.exponent() as usize, false);
    if read.as_ref().ok().map(|amount| amount.minor()) != expected {
        return Err(format!("{digits:?} in {unit} is {read:?}, and exactly {expected:?}"));
    }
    let cut = Amount::parse_floor(digits, unit);
    if cut.as_ref().ok().map(|amount| amount.minor()) != exact(digits, unit.exponent() as usize, true) {
        return Err(format!("{digits:?} in {unit}, cut, is {cut:?}"));
    }
    if let Err(error) = &read
        && error.to_string().len() > 1_000
    {
        return Err(format!("an error of {} bytes", error.to_string().len()));
    }
    let Ok(read) = cut else { return Ok("refused".into()) };
    if Amount::parse(&read.decimal(), unit) != Ok(read) || read.to_string() != format!("{} {unit}", read.decimal()) {
        return Err(format!("{read:?} prints as {read}"));
    }
    let json = serde_json::to_string(&read).map_err(|error| error.to_string())?;
    if serde_json::from_str::<Amount>(&json).ok() != Some(read) {
        return Err(format!("{read:?} travels as {json}"));
    }
    if read.neg().neg() != read || read.checked_sub(read) != Ok(Amount::zero(unit)) {
        return Err(format!("{read} is not what it is"));
    }
    Ok(format!("{TAKEN}: {} digits after the dot", unit.exponent()))
}

/// Smallest units of decimal text, by whole numbers of twice the width; none for what must be refused.
fn exact(text: &str, exponent: usize, cut: bool) -> Option<i64> {
    if text.len() > 48 {
        return None;
    }
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let beyond = fraction.get(exponent..).unwrap_or_default();
    if !cut && beyond.chars().any(|c| c != '0') {
        return None;
    }
    let mut number: i128 = 0;
    for place in 0..whole.len() + exponent {
        let digit = match place.checked_sub(whole.len()) {
            None => whole.as_bytes()[place],
            Some(at) => fraction.as_bytes().get(at).copied().unwrap_or(b'0'),
        };
        number = number.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    // An amount has a negative, so the smallest number of 64 bits is none.
    i64::try_from(number).ok().map(|minor| sign * minor)
}

/// Ids from paths and cursors, and the words of rows: what is read prints as it was written.
pub fn ids(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let ids = [
        OrderId::parse(&text).map(|id| id.to_string()),
        ItemId::parse(&text).map(|id| id.to_string()),
        PaymentId::parse(&text).map(|id| id.to_string()),
        RefundId::parse(&text).map(|id| id.to_string()),
        ProductId::parse(&text).map(|id| id.to_string()),
        UnitId::parse(&text).map(|id| id.to_string()),
        CustomerId::parse(&text).map(|id| id.to_string()),
        EventId::parse(&text).map(|id| id.to_string()),
        JobId::parse(&text).map(|id| id.to_string()),
        InboxId::parse(&text).map(|id| id.to_string()),
    ];
    let kinds = ids.iter().flatten().count();
    for id in ids.into_iter().flatten() {
        if id != text || id.len() > 68 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("{text:?} was read as the id {id:?}"));
        }
    }
    if kinds > 1 {
        return Err(format!("{text:?} is the id of {kinds} kinds of things"));
    }
    let words = [
        State::parse(&text).map(|word| word.as_str()),
        PaymentState::parse(&text).map(|word| word.as_str()),
        Kind::parse(&text).map(|word| word.as_str()),
        Delivery::parse(&text).map(|word| word.as_str()),
        PayBy::parse(&text).map(|word| word.as_str()),
        text.parse::<Provider>().ok().map(|word| word.as_str()),
        Currency::from_code(&text).ok().map(|unit| unit.code()),
    ];
    if let Some(word) = words.into_iter().flatten().find(|word| *word != text) {
        return Err(format!("{text:?} was read as {word:?}"));
    }
    let known = words.into_iter().flatten().count();
    Ok(if kinds + known > 0 { format!("{TAKEN}: {kinds} ids, {known} words") } else { "unknown".into() })
}

/// Addresses of outside services, and a bot's token: what is taken is taken again, and no password stands in it.
pub fn addresses(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (address, token) = text.split_once('\n').unwrap_or((text.as_ref(), "123456789:AAE-test_token"));
    let mut told = Vec::new();
    match BaseUrl::parse(address) {
        Ok(base) => {
            let again = BaseUrl::parse(base.as_str());
            // Escaped letters take more room than they took before.
            let grown = base.as_str().len() > 1_000;
            if (again.as_ref() != Ok(&base) && !grown) || base.as_str().contains(['?', '#', '\n', ' ']) {
                return Err(format!("{address:?} was read as {base:?}"));
            }
            told.push("a base");
        }
        Err(error) if error.to_string().len() > 4_000 => return Err("an endless error".into()),
        Err(_) => {}
    }
    if let Ok(bot) = Bot::new(address, token) {
        let again = Bot::new(bot.api_url(), token);
        if again.as_ref() != Ok(&bot) {
            return Err(format!("{address:?} was read as {bot:?}"));
        }
        let secret = token.split_once(':').map_or(token, |(_, secret)| secret);
        if format!("{bot:?}").contains(secret) && !bot.id().contains(secret) {
            return Err("a token prints".into());
        }
        let asked = bot.get_me();
        if !asked.uri().to_string().ends_with(&format!("/bot{token}/getMe")) {
            return Err(format!("a call leaves its path for {address:?}"));
        }
        told.push("a bot");
    }
    Ok(if told.is_empty() { "refused".into() } else { format!("{TAKEN}: {}", told.join(", ")) })
}

/// `X-Forwarded-For`: the first line of the input is the other end of the socket, the others are header lines. What a
/// stranger writes in front changes nothing.
pub fn forwarded_for(input: &[u8]) -> Verdict {
    let networks: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8", "::1/128"]
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    let ours = |ip: IpAddr| networks.iter().any(|network| network.contains(&ip.to_canonical()));
    let proxies = TrustedProxies::new(networks.clone());
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let peer: IpAddr = first.trim().parse().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let lines: Vec<HeaderValue> = lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let asked = |lines: &[HeaderValue]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.clone());
        }
        proxies.client(peer, &headers)
    };
    let client = asked(&lines);
    if !ours(peer) {
        return match client == Some(peer.to_canonical()) {
            true => Ok(format!("{TAKEN}: a stranger is the stranger")),
            false => Err(format!("{peer} says it is {client:?}")),
        };
    }
    let Some(client) = client else { return Ok("nobody".into()) };
    if client.to_canonical() != client {
        return Err(format!("{client} wears the clothes of IPv6"));
    }
    let stranger = !ours(client);
    if stranger && client != peer.to_canonical() {
        // Somebody else's words in front: a line of their own, and the beginning of the first line.
        let forged = HeaderValue::from_static("185.71.76.5, rubbish");
        let mut longer = vec![forged.clone()];
        longer.extend(lines.iter().cloned());
        let mut begun = lines.clone();
        if let Some(first) = begun.first_mut() {
            let joined = [forged.as_bytes(), b", ", first.as_bytes()].concat();
            *first = HeaderValue::from_bytes(&joined).unwrap_or(forged);
        }
        for told in [asked(&longer), asked(&begun)] {
            if told != Some(client) {
                return Err(format!("words in front of the chain made {told:?} of {client}"));
            }
        }
    }
    let written = lines.iter().any(|line| {
        let line = String::from_utf8_lossy(line.as_bytes()).into_owned();
        line.split(',').filter_map(|hop| address(hop.trim())).any(|hop| hop == client)
    });
    if !written && client != peer.to_canonical() {
        return Err(format!("nobody wrote {client}"));
    }
    Ok(format!("{TAKEN}: {}", if stranger { "a client" } else { "all ours" }))
}

fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let read = bare.parse::<IpAddr>().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    read.map(|ip| ip.to_canonical())
}

/// The signature of our own events: secret, id, moment and body, a line each; by an HMAC written a second time.
pub fn signature_out(input: &[u8]) -> Verdict {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (secret, id, moment, body) = (part(), part(), part(), part());
    let (secret, id) = (String::from_utf8_lossy(secret), String::from_utf8_lossy(id));
    let moment: i64 = String::from_utf8_lossy(moment).trim().parse().unwrap_or(1_614_265_330);
    let told = match key(&secret) {
        Some(bytes) if format!("whsec_{}", STANDARD.encode(&bytes)) != secret => {
            return Err(format!("{secret:?} and another secret have one key"));
        }
        Some(bytes) => {
            let signed = sign(&bytes, &id, moment, body);
            let expected = hmac(&bytes, &[format!("{id}.{moment}.").as_bytes(), body]);
            if signed != format!("v1,{}", STANDARD.encode(expected)) {
                return Err(format!("{signed} is not the signature"));
            }
            let mut other = body.to_vec();
            other.push(b' ');
            if sign(&bytes, &id, moment, &other) == signed || sign(&bytes, &id, moment ^ 1, body) == signed {
                return Err("two events have one signature".into());
            }
            TAKEN
        }
        None => "no secret",
    };
    Ok(told.into())
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    let short = if key.len() > 64 { Sha256::digest(key).to_vec() } else { key.to_vec() };
    block[..short.len()].copy_from_slice(&short);
    let pad = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let mut inner = pad(0x36);
    parts.iter().for_each(|part| inner.extend_from_slice(part));
    let mut outer = pad(0x5c);
    outer.extend_from_slice(&Sha256::digest(&inner));
    Sha256::digest(&outer).to_vec()
}
