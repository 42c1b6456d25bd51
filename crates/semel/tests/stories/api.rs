//! The API as the developer of a bot meets it.

mod doors;
mod events;
mod input;
mod keys;
mod lists;
mod secrets;
mod telegram;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::app::{Answer, TestShop, text};

const ORDERS: &str = "/api/v1/orders";

/// A key that no other request has.
fn fresh_key() -> String {
    static KEYS: AtomicU64 = AtomicU64::new(1);
    format!("api-{}", KEYS.fetch_add(1, Ordering::SeqCst))
}

/// `POST` with a fresh key.
async fn post(shop: &TestShop, path: &str, body: &Value) -> Answer {
    shop.program.api.call(Method::POST, path, Some(body), Some(&fresh_key())).await
}

/// `GET` with everything that came.
async fn get(shop: &TestShop, path: &str) -> Answer {
    shop.program.api.call(Method::GET, path, None, None).await
}

/// Insists that an answer is a whole problem of this kind; answers its sentence.
#[track_caller]
fn refused(answer: &Answer, status: u16, slug: &str) -> String {
    let body = answer.json();
    assert_eq!((answer.status, &body["type"]), (status, &json!(format!("/problems/{slug}"))), "{body}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{body}");
    assert_eq!(body["status"], json!(status), "the document repeats the status: {body}");
    for member in ["title", "detail", "request_id"] {
        assert!(!text(&body[member]).is_empty(), "{member} is missing: {body}");
    }
    text(&body["detail"])
}

/// The ids of a list's items.
fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap_or_else(|| panic!("no list: {page}")).iter().map(|item| text(&item["id"])).collect()
}
