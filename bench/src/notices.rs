//! Authentic notices of YooKassa about payments that the benchmark has filled in, and the ids of these.
//!
//! Payment `n` has the number `n` as 32 hex digits at the provider, and the same digits behind `pay_` and `ord_` with us.

use crate::http_client;
use crate::load::{SPOT, Template};

/// What every filled-in payment costs.
pub const PRICE: &str = "499.00";
/// The same in kopecks.
pub const PRICE_MINOR: i64 = 49_900;
/// An address of YooKassa's published networks, as a proxy in front of the server would name it.
pub const SENDER: &str = "185.71.76.5";

/// The body of a `payment.succeeded` with [`SPOT`] for the payment's number.
pub fn body() -> String {
    let object = format!(
        r#"{{"id":"{SPOT}","status":"succeeded","amount":{{"value":"{PRICE}","currency":"RUB"}},"income_amount":{{"value":"481.54","currency":"RUB"}},"description":"Order","recipient":{{"account_id":"{shop}","gateway_id":"100700"}},"payment_method":{{"type":"bank_card","id":"{SPOT}","saved":false,"title":"Bank card *4477","card":{{"first6":"220000","last4":"4477","expiry_year":"2030","expiry_month":"12","card_type":"Mir","issuer_country":"RU"}}}},"captured_at":"2026-03-01T09:00:04.123Z","created_at":"2026-03-01T09:00:00.123Z","test":false,"refunded_amount":{{"value":"0.00","currency":"RUB"}},"paid":true,"refundable":true,"metadata":{{"payment_id":"pay_{SPOT}","order_id":"ord_{SPOT}"}}}}"#,
        shop = semel_sandbox::YOOKASSA_SHOP_ID
    );
    format!(r#"{{"type":"notification","event":"payment.succeeded","object":{object}}}"#)
}

/// The request that carries this body.
pub fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let headers = [("Content-Type", "application/json"), ("User-Agent", "AHC/2.1"), ("X-Forwarded-For", SENDER)];
    http_client::request("POST", path, &headers, body)
}

/// Notices about filled-in payments, posted to `path`.
pub fn template(path: &str) -> Template {
    Template::new(request(path, body().as_bytes()))
}

/// The number of a payment as 32 hex digits.
pub fn digits(number: u64) -> String {
    format!("{number:032x}")
}
