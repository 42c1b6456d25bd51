//! Bearer tokens: who may do what, and that nobody makes one from outside.

use bytes::Bytes;
use semel::local::Program;
use semel_sandbox::Provider;
use serde_json::json;

use super::{Method, ORDERS, refused};
use crate::app::{CUSTOMER, ROOMS, TOKEN, TestShop, TestStore, an_order, text};

/// Makes a token as the owner does at the machine; answers its id and itself.
pub async fn token(shop: &TestShop, name: &str, scopes: &[&str]) -> (String, String) {
    let made = at_the_machine(shop, "/api/v1/tokens", json!({ "name": name, "scopes": scopes })).await;
    (text(&made["id"]), text(&made["token"]))
}

async fn at_the_machine(shop: &TestShop, path: &str, body: serde_json::Value) -> serde_json::Value {
    let owner = Program::Here(Box::new(shop.program.app.router(true)));
    let answer = owner.ask(Method::POST, path, Some(body), &super::fresh_key()).await.expect("the program answers");
    answer.json().expect("the owner may do this")
}

async fn a_shop() -> TestShop {
    TestShop::start(TestStore::sqlite(ROOMS).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_valid_token_is_told_how_to_get_one() {
    let shop = a_shop().await;
    let api = &shop.program.api;
    let wrong = format!("Bearer {TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    let headers: [&[(&str, &str)]; 5] = [
        &[],
        &[("authorization", wrong.as_str())],
        &[("authorization", basic.as_str())],
        &[("authorization", TOKEN)],
        &[("authorization", "Bearer ")],
    ];
    for path in [ORDERS, "/api/v1/products", "/api/v1/customers/42", "/api/v1/jobs", "/api/v1/verify", "/metrics"] {
        for given in headers {
            let answer = api.send(Method::GET, path, given, Bytes::new()).await;
            let told = refused(&answer, 401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{path} {told}");
        }
    }
    let answer = api.send(Method::POST, ORDERS, &[("idempotency-key", "k")], Bytes::new()).await;
    refused(&answer, 401, "unauthorized");
    assert_eq!(shop.number("select count(*) from keys").await, 0, "a stranger leaves nothing behind");
    let any_case = [("authorization", "bearer test-token")];
    assert_eq!(api.send(Method::GET, ORDERS, &any_case, Bytes::new()).await.status, 200);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_does_what_its_scope_says_and_no_more() {
    let shop = a_shop().await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let body = an_order(CUSTOMER, &key, "yookassa");
    let (_, reader) = token(&shop, "dashboard", &["read"]).await;
    let (_, scraper) = token(&shop, "prometheus", &["metrics"]).await;
    let (reader, scraper) = (shop.program.api.as_bearer(&reader), shop.program.api.as_bearer(&scraper));

    assert_eq!(reader.get(ORDERS).await.0, 200);
    assert_eq!(reader.call(Method::GET, "/metrics", None, None).await.status, 200);
    let answer = reader.call(Method::POST, ORDERS, Some(&body), Some("k")).await;
    assert!(refused(&answer, 403, "forbidden").contains("scope write"));
    let path = format!("/api/v1/products/{key}");
    let answer = reader.call(Method::PATCH, &path, Some(&json!({ "active": false })), None).await;
    assert!(refused(&answer, 403, "forbidden").contains("scope write"));

    assert_eq!(scraper.call(Method::GET, "/metrics", None, None).await.status, 200);
    let answer = scraper.call(Method::GET, ORDERS, None, None).await;
    assert!(refused(&answer, 403, "forbidden").contains("scope read"));
    refused(&scraper.call(Method::POST, ORDERS, Some(&body), Some("k")).await, 403, "forbidden");

    assert_eq!(shop.number("select count(*) from orders").await, 0);
    assert_eq!(shop.get(&path).await.1["active"], json!(true), "nothing changed");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_worthless_at_once() {
    let shop = a_shop().await;
    let (id, bot) = token(&shop, "old bot", &["write"]).await;
    let api = shop.program.api.as_bearer(&bot);
    assert_eq!(api.get(ORDERS).await.0, 200);
    let revoked = at_the_machine(&shop, &format!("/api/v1/tokens/{id}/revoke"), json!({})).await;
    assert_eq!(revoked["revoked"], json!(true));
    refused(&api.call(Method::GET, ORDERS, None, None).await, 401, "unauthorized");
    assert_eq!(shop.number("select count(*) from tokens where hash like 'semel_%'").await, 0, "only hashes are kept");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_at_the_machine_only() {
    let shop = a_shop().await;
    let (id, _) = token(&shop, "bot", &["write"]).await;
    let api = &shop.program.api;
    refused(&api.call(Method::GET, "/api/v1/tokens", None, None).await, 404, "not-found");
    let new = json!({ "name": "thief", "scopes": ["write"] });
    refused(&api.call(Method::POST, "/api/v1/tokens", Some(&new), Some("k")).await, 404, "not-found");
    let path = format!("/api/v1/tokens/{id}/revoke");
    refused(&api.call(Method::POST, &path, Some(&json!({})), Some("k")).await, 404, "not-found");
    assert_eq!(shop.number("select count(*) from tokens where revoked_at is null").await, 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_webhooks_need_no_token() {
    let shop = a_shop().await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let order = shop.order(&key, "yookassa").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(shop.program.api.send(Method::GET, path, &[], Bytes::new()).await.status, 200, "{path}");
    }
    let notice = shop.sandbox.notice(Provider::Yookassa, &order.provider_id, "succeeded").expect("a notice");
    assert_eq!(shop.program.api.receive(Provider::Yookassa, notice.body).await.status, 200);
    shop.run_jobs().await;
    assert_eq!(shop.status(&order).await, "pending", "and a webhook is only a hint");
    shop.finish().await;
}
