//! Idempotence keys: the first answer under a key is the answer for 24 hours.

use std::collections::HashMap;

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::{DAY_MS, Refusal, authorized};
use crate::hooks::sha256_hex;
use crate::world::{World, lock};
use crate::{answer, clock};

/// The first answer under a key.
pub(crate) struct KeyRow {
    fingerprint: String,
    answer: Bytes,
    at: i64,
}

/// The keys of the last 24 hours.
pub(crate) type Keys = HashMap<String, KeyRow>;

/// Does `work` once per key. The key book stays locked meanwhile: two calls with one key never run side by side.
pub(super) fn keyed(
    world: &World,
    headers: &HeaderMap,
    route: &str,
    body: &Bytes,
    work: impl FnOnce(Map<String, Value>) -> Result<Value, Refusal>,
) -> Response {
    if let Err(refusal) = authorized(world, headers) {
        return refusal.answer();
    }
    let key = headers.get("Idempotence-Key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.len() > 64 {
        return Refusal::invalid("Idempotence-Key", "Idempotence key is missing or longer than 64 characters").answer();
    }
    let fingerprint = sha256_hex(&[route.as_bytes(), b"\n".as_slice(), body.as_ref()].concat());
    let now = clock::now_ms();
    let mut keys = lock(&world.keys);
    if let Some(row) = keys.get(key)
        && now - row.at < DAY_MS
    {
        return if row.fingerprint == fingerprint {
            answer::json_bytes(200, row.answer.clone())
        } else {
            Refusal::invalid("Idempotence-Key", "Idempotence key duplicated").answer()
        };
    }
    let request = match body.is_empty() {
        true => Map::new(),
        false => match serde_json::from_slice::<Map<String, Value>>(body) {
            Ok(request) => request,
            Err(_) => return Refusal::invalid("body", "The body is no JSON object").answer(),
        },
    };
    match work(request) {
        Ok(value) => {
            let answer = Bytes::from(value.to_string());
            keys.insert(key.to_owned(), KeyRow { fingerprint, answer: answer.clone(), at: now });
            answer::json_bytes(200, answer)
        }
        Err(refusal) => refusal.answer(),
    }
}
