//! Every known webhook, authentic or forged, gets the verdict and the event id that the reference gives it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use semel_payments::{
    CRYSTALPAY_API_URL, CrystalPay, HELEKET_API_URL, Heleket, Rail, Secret, YOOKASSA_API_URL, YooKassa,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    provider: String,
    name: String,
    body: String,
    headers: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    source_ip: String,
    expect: String,
    reason: String,
    event_id: Option<String>,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

/// The account of a vector. Its secrets may be empty, which no constructor would take.
fn rail(vector: &Vector) -> Rail {
    let secret = |name: &str| Secret::new(vector.secrets[name].as_str());
    match vector.provider.as_str() {
        "yookassa" => Rail::YooKassa(YooKassa::new(&vector.secrets["shop_id"], "unused", YOOKASSA_API_URL).unwrap()),
        "heleket" => {
            let merchant = Heleket::new(&vector.secrets["merchant_id"], "unused", None, HELEKET_API_URL).unwrap();
            let (payment_key, payout_key) = (secret("payment_api_key"), Some(secret("payout_api_key")));
            Rail::Heleket(Heleket { payment_key, payout_key, ..merchant })
        }
        "crystalpay" => {
            let desk = CrystalPay::new(&vector.secrets["auth_login"], "unused", "unused", CRYSTALPAY_API_URL).unwrap();
            Rail::CrystalPay(CrystalPay { secret: secret("auth_secret"), salt: secret("salt"), ..desk })
        }
        other => panic!("no rail for {other}"),
    }
}

fn headers(vector: &Vector) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &vector.headers {
        headers.insert(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn every_vector_gets_its_verdict() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 80);
    for vector in &vectors {
        let peer: Option<IpAddr> = vector.source_ip.parse().ok();
        let verdict = rail(vector).verify(peer, &headers(vector), vector.body.as_bytes());
        let (name, reason) = (&vector.name, &vector.reason);
        match vector.expect.as_str() {
            "accept" => {
                let hint = verdict.unwrap_or_else(|error| panic!("{name} was refused ({error}), though: {reason}"));
                assert_eq!(Some(hint.event_id), vector.event_id, "{name}");
            }
            "reject" => assert!(verdict.is_err(), "{name} was accepted, though: {reason}"),
            other => panic!("{name} expects {other}"),
        }
    }
}

#[test]
fn no_signed_vector_survives_another_amount() {
    for vector in vectors().iter().filter(|vector| vector.provider == "heleket" && vector.expect == "accept") {
        let changed = vector.body.replacen("\"amount\":\"3.00000000\"", "\"amount\":\"9.00000000\"", 1);
        if changed != vector.body {
            let peer: Option<IpAddr> = vector.source_ip.parse().ok();
            let verdict = rail(vector).verify(peer, &headers(vector), changed.as_bytes());
            assert!(verdict.is_err(), "{} with another amount", vector.name);
        }
    }
}
