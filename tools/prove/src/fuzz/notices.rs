//! Webhooks: the sender's address, the signature, the envelope, and what a hint becomes in our rows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use ipnet::IpNet;
use md5::{Digest as _, Md5};
use semel_payments::{
    CRYSTALPAY_API_URL, CrystalPay, HELEKET_API_URL, Heleket, Hint, Provider, Rail, Rejected, Subject as About,
    YOOKASSA_API_URL, YooKassa,
};
use semel_shop::checkout::hints::{Says, notice};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha1::Sha1;

use super::{Subject, TAKEN, Verdict};

/// What notices are made of.
pub const WORDS: &[&str] = &[
    "\"type\":\"notification\"",
    "payment.succeeded",
    "payment.canceled",
    "refund.succeeded",
    "waiting_for_capture",
    "metadata",
    "payment_id",
    "pay_0197f5a0b2c87d3e8f1a2b3c4d5e6f70",
    "\"sign\"",
    "\"\\u0073ign\"",
    "\"signature\"",
    "payout",
    "wallet",
    "txid",
    "uuid",
    "order_id",
    "payed",
    "notpayed",
    "extra",
    "object",
    "event",
];

/// Addresses, lists of them, and what looks like them.
pub const ADDRESSES: &[&str] = &[
    "185.71.76.5",
    "127.0.0.1",
    "10.1.1.1",
    "203.0.113.9",
    "::1",
    "fd00::1",
    "2a02:5180:0:1509::1",
    "::ffff:185.71.76.5",
    "::ffff:127.0.0.1",
    "[2001:db8::1]:443",
    "198.51.100.7:51234",
    "0.0.0.0/0",
    "::/0",
    "185.71.76.0/27",
    "::ffff:192.168.0.0/112",
    "/33",
    ", ",
    ",,",
    "unknown",
    "_hidden",
    "fe80::1%eth0",
    "1.2.3.04",
    "0x7f000001",
];

/// The keys of the published vectors, which are for nothing else.
const MERCHANT: &str = "5d0f2c7e-91ab-4c36-8e1f-7a4b60d9c215";
const PAYMENT_KEY: &str = "hlk_pay_7Qm2Zx9LrT4vB1nC8sDfW3eKjH6gYpUa0oIiM5tRbNqVwXyEzGcJdSkFhPlAuOt";
const PAYOUT_KEY: &str = "hlk_out_3Vb8Nn5Kp1Rt6Yc2Xw9Ze4Lq7Hs0Gd5Fj8Ma3Ub6Ic1Oy4Tk7Pr2Ew9Qx5Zv0Sn";
const SALT: &str = "cp_salt_5f2b9d41c7e8";

fn at(address: &str) -> Option<IpAddr> {
    address.parse().ok()
}

fn yookassa_rail() -> Rail {
    Rail::YooKassa(YooKassa::new("100500", "live_key", YOOKASSA_API_URL).expect("a sound shop"))
}

fn heleket_rail() -> Rail {
    Rail::Heleket(Heleket::new(MERCHANT, PAYMENT_KEY, Some(PAYOUT_KEY), HELEKET_API_URL).expect("a sound merchant"))
}

fn crystalpay_rail() -> Rail {
    Rail::CrystalPay(CrystalPay::new("shopkassa", "cp_secret", SALT, CRYSTALPAY_API_URL).expect("a sound desk"))
}

/// Text without what differs from input to input: a new kind of refusal shows, its place and values do not.
pub(super) fn kind_of(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// Verifies from the provider's own address, checks what every hint must be, and that no stranger gets so far.
fn verified(rail: &Rail, from: &str, body: &[u8]) -> Result<Result<Hint, Rejected>, String> {
    let stranger = rail.verify(at("203.0.113.5"), &HeaderMap::new(), body);
    if !matches!(stranger, Err(Rejected::Source { .. })) {
        return Err(format!("a stranger was let in: {stranger:?}"));
    }
    let verdict = rail.verify(at(from), &HeaderMap::new(), body);
    if verdict != rail.verify(at(from), &HeaderMap::new(), body) {
        return Err("the same bytes got two verdicts".into());
    }
    if let Ok(hint) = &verdict {
        sound(rail, hint, body)?;
    }
    Ok(verdict)
}

/// A hint is bounded where it becomes a key, names its provider, and can be kept and read back.
fn sound(rail: &Rail, hint: &Hint, body: &[u8]) -> Result<(), String> {
    let own = format!("{}:", rail.provider().as_str());
    if !hint.event_id.starts_with(&own) || hint.event_id.len() > 900 {
        return Err(format!("an event's id is no key: {:?}", hint.event_id));
    }
    let row = notice(rail, hint.clone(), body.to_vec(), "{}".into(), None);
    if row.body != body || row.event_id != hint.event_id || !row.verified {
        return Err("the row does not hold the notice".into());
    }
    let says: Says =
        serde_json::from_str(&row.says).map_err(|error| format!("what it says cannot be read: {error}"))?;
    let named = match &hint.subject {
        About::Payment { provider_id, .. } | About::Refund { provider_id, .. } => Some(provider_id),
        About::Other => None,
    };
    if says.provider_id.as_ref() != named || says.provider != rail.provider() {
        return Err("the row says something else than the notice".into());
    }
    match row.subject {
        Some(subject) if !subject.starts_with("pay_") || subject.len() > 80 => {
            Err(format!("{subject:?} is no payment of ours"))
        }
        _ => Ok(()),
    }
}

fn told(verdict: &Result<Hint, Rejected>) -> String {
    match verdict {
        Ok(hint) => match hint.subject {
            About::Payment { .. } => format!("{TAKEN}: payment"),
            About::Refund { .. } => format!("{TAKEN}: refund"),
            About::Other => format!("{TAKEN}: other"),
        },
        Err(Rejected::Malformed(text)) => format!("malformed: {}", kind_of(text)),
        Err(rejected) => kind_of(&rejected.to_string()),
    }
}

/// YooKassa: no signature, so shape is all there is. An id that is taken is one harmless piece of a path.
pub fn yookassa(input: &[u8]) -> Verdict {
    let verdict = verified(&yookassa_rail(), "185.71.76.5", input)?;
    if let Ok(hint) = &verdict {
        let harmless =
            |id: &str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let ids = match &hint.subject {
            About::Payment { provider_id, .. } => vec![provider_id],
            About::Refund { refund_id, provider_id } => vec![refund_id, provider_id],
            About::Other => Vec::new(),
        };
        if let Some(id) = ids.into_iter().find(|id| !harmless(id)) {
            return Err(format!("{id:?} would go into a path"));
        }
    }
    Ok(told(&verdict))
}

/// Heleket: a signature that we have seen belongs to the content it came with and to no other.
struct Signed {
    rail: Rail,
    /// The kept notices that verify: signature → content.
    known: BTreeMap<String, Value>,
}

/// Starts the target.
pub fn heleket() -> Box<dyn Subject> {
    let rail = heleket_rail();
    let mut known = BTreeMap::new();
    for (_, body) in super::corpus("heleket_notice") {
        if rail.verify(at("31.133.220.8"), &HeaderMap::new(), &body).is_ok()
            && let Some((signature, content)) = apart(&body)
        {
            known.insert(signature, content);
        }
    }
    Box::new(Signed { rail, known })
}

impl Subject for Signed {
    fn feed(&mut self, input: &[u8]) -> Verdict {
        let verdict = verified(&self.rail, "31.133.220.8", input)?;
        if verdict.is_ok() {
            let Some((signature, content)) = apart(input) else {
                return Err("a notice without a readable signature was taken".into());
            };
            match self.known.get(&signature) {
                None => return Err(format!("nobody with the key ever wrote the signature {signature:?}")),
                Some(signed) if plain(signed) != plain(&content) => {
                    return Err(format!("the signature of {signed} was taken for {content}"));
                }
                Some(_) => {}
            }
        }
        Ok(told(&verdict))
    }
}

/// The signature of a notice and everything else in it.
fn apart(body: &[u8]) -> Option<(String, Value)> {
    let Value::Object(mut members) = serde_json::from_slice(body).ok()? else { return None };
    let signature = members.remove("sign")?.as_str()?.to_owned();
    Some((signature, Value::Object(members)))
}

/// A value as PHP holds it, for which 1 and 1.0 are one number and a list is an object that counts from zero.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap_or_default()),
        Value::Array(entries) => Value::Array(entries.iter().map(plain).collect()),
        Value::Object(members) if counts(members) => Value::Array(members.values().map(plain).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        other => other.clone(),
    }
}

fn counts(members: &Map<String, Value>) -> bool {
    (0..members.len()).all(|at| members.contains_key(&at.to_string()))
}

/// `hex(md5(base64(text) + key))`, written a second time on purpose.
fn md5_sign(text: &str, key: &str) -> String {
    hex::encode(Md5::digest(format!("{}{key}", STANDARD.encode(text)).as_bytes()))
}

fn key_of(members: &Map<String, Value>) -> &'static str {
    if members.get("type").and_then(Value::as_str) == Some("payout") { PAYOUT_KEY } else { PAYMENT_KEY }
}

/// The input as a document that its owner signed: it is never refused for its signature, and with another one always.
pub fn heleket_signed(input: &[u8]) -> Verdict {
    let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(input) else {
        return Ok("no object".into());
    };
    members.remove("sign");
    let text = Value::Object(members.clone()).to_string();
    let sign = md5_sign(&text, key_of(&members));
    signed_twice(&members, &text, &sign)
}

/// The same with the signature over what PHP's `json_encode` prints of it.
pub fn heleket_php(input: &[u8]) -> Verdict {
    let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(input) else {
        return Ok("no object".into());
    };
    members.remove("sign");
    let mut printed = String::new();
    if !php(&Value::Object(members.clone()), &mut printed) {
        return Ok("a number that PHP prints by rules of its own".into());
    }
    let text = Value::Object(members.clone()).to_string();
    let sign = md5_sign(&printed, key_of(&members));
    signed_twice(&members, &text, &sign)
}

fn signed_twice(members: &Map<String, Value>, text: &str, sign: &str) -> Verdict {
    let rail = heleket_rail();
    let comma = if members.is_empty() { "" } else { "," };
    let body = |sign: &str| format!("{}{comma}\"sign\":\"{sign}\"}}", &text[..text.len() - 1]).into_bytes();
    let verdict = verified(&rail, "31.133.220.8", &body(sign))?;
    if matches!(verdict, Err(Rejected::Signature)) {
        return Err(format!("a genuine signature was refused: {text}"));
    }
    let forged: String = sign.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    for wrong in [forged.as_str(), &sign[..31], sign.to_uppercase().as_str(), ""] {
        // A signature of digits alone has no upper case.
        if wrong != sign && verified(&rail, "31.133.220.8", &body(wrong))?.is_ok() {
            return Err(format!("the signature {wrong:?} was taken instead of {sign:?}"));
        }
    }
    Ok(told(&verdict))
}

/// PHP's `json_encode` with `JSON_UNESCAPED_UNICODE`, for everything but floats; false where one stands.
fn php(value: &Value, out: &mut String) -> bool {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => out.push_str(&whole.to_string()),
            None => return false,
        },
        Value::String(text) => php_text(text, out),
        Value::Array(entries) => return php_list(entries.iter(), out),
        Value::Object(members) if members.keys().enumerate().all(|(at, name)| *name == at.to_string()) => {
            return php_list(members.values(), out);
        }
        Value::Object(members) => {
            for (at, (name, value)) in members.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                php_text(name, out);
                out.push(':');
                if !php(value, out) {
                    return false;
                }
            }
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
    true
}

fn php_list<'a>(entries: impl Iterator<Item = &'a Value>, out: &mut String) -> bool {
    out.push('[');
    for (at, entry) in entries.enumerate() {
        if at > 0 {
            out.push(',');
        }
        if !php(entry, out) {
            return false;
        }
    }
    out.push(']');
    true
}

/// As `serde_json` prints a text, but for the slash and the two line separators, which PHP escapes.
fn php_text(text: &str, out: &mut String) {
    let printed = Value::from(text).to_string();
    let printed = printed.replace('/', "\\/").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    out.push_str(&printed);
}

/// CrystalPay: whatever was taken carries the signature of the very id that was read.
pub fn crystalpay(input: &[u8]) -> Verdict {
    let verdict = verified(&crystalpay_rail(), "193.141.53.171", input)?;
    if verdict.is_ok() {
        let (id, signature) = (text_of(input, "id"), text_of(input, "signature"));
        let right = id.as_ref().map(|id| hex::encode(Sha1::digest(format!("{id}:{SALT}").as_bytes())));
        if id.is_none() || signature != right {
            return Err(format!("{signature:?} was taken for the signature of {id:?}"));
        }
    }
    Ok(told(&verdict))
}

/// A member of a document that is text. Nothing else of the document is looked at, whatever numbers stand in it.
fn text_of(document: &[u8], name: &str) -> Option<String> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(document).ok()?;
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// The input as a callback that its owner signed.
pub fn crystalpay_signed(input: &[u8]) -> Verdict {
    let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(input) else {
        return Ok("no object".into());
    };
    let id = members.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let sign = hex::encode(Sha1::digest(format!("{id}:{SALT}").as_bytes()));
    members.insert("signature".into(), Value::from(sign.as_str()));
    let rail = crystalpay_rail();
    let verdict = verified(&rail, "193.141.53.171", Value::Object(members.clone()).to_string().as_bytes())?;
    if matches!(verdict, Err(Rejected::Signature)) {
        return Err(format!("a genuine signature of {id:?} was refused"));
    }
    for wrong in [&sign[..39], "", sign.to_uppercase().as_str()] {
        members.insert("signature".into(), Value::from(wrong));
        let body = Value::Object(members.clone()).to_string();
        if wrong != sign && verified(&rail, "193.141.53.171", body.as_bytes())?.is_ok() {
            return Err(format!("the signature {wrong:?} was taken instead of {sign:?}"));
        }
    }
    Ok(told(&verdict))
}

/// A list of networks: the first line is the sender, the others are the list. Admitted is who lies in one of them, by a
/// calculation of our own.
pub fn networks(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let peer: Option<IpAddr> = lines.next().and_then(|line| line.trim().parse().ok());
    let listed: Vec<IpNet> = lines.filter_map(|line| line.trim().parse().ok()).collect();
    let Rail::YooKassa(shop) = yookassa_rail() else { return Err("YooKassa is YooKassa".into()) };
    let rail = Rail::YooKassa(YooKassa { networks: Some(listed.clone()), ..shop });
    let admitted = !matches!(rail.verify(peer, &HeaderMap::new(), b"{}"), Err(Rejected::Source { .. }));
    let expected = peer.is_some_and(|peer| listed.iter().any(|network| lies_in(peer.to_canonical(), *network)));
    if admitted != expected {
        return Err(format!("{peer:?} and {listed:?}: admitted {admitted}"));
    }
    Ok(format!("{} of {}", if admitted { TAKEN } else { "refused" }, Provider::YooKassa))
}

fn lies_in(address: IpAddr, network: IpNet) -> bool {
    let (address, first, bits) = match (address, network.addr()) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(u32::from(a)), u128::from(u32::from(n)), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (u128::from(a), u128::from(n), 128),
        _ => return false,
    };
    let rest = bits - u32::from(network.prefix_len());
    // A shift by all 128 bits has no meaning of its own: such a network holds everybody.
    address.checked_shr(rest).unwrap_or(0) == first.checked_shr(rest).unwrap_or(0)
}
