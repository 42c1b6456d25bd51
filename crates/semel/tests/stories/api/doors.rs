//! Health, metrics, the written contract, and who stands at the door when a proxy is in between.

use bytes::Bytes;
use semel_sandbox::Provider;
use serde_json::Value;

use super::{Method, get, refused};
use crate::app::{Answer, ROOMS, TestShop, TestStore, text};

async fn a_shop() -> TestShop {
    TestShop::start(TestStore::sqlite(ROOMS).await).await
}

async fn anonymous(shop: &TestShop, method: Method, path: &str) -> Answer {
    shop.program.api.send(method, path, &[], Bytes::new()).await
}

async fn metrics(shop: &TestShop) -> String {
    let answer = get(shop, "/metrics").await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).expect("text")
}

/// A genuine notice of YooKassa about an unpaid order, to be posted from wherever a story likes.
async fn notice(shop: &TestShop) -> Bytes {
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let order = shop.order(&key, "yookassa").await;
    shop.sandbox.notice(Provider::Yookassa, &order.provider_id, "succeeded").expect("a notice").body
}

async fn post_from(shop: &TestShop, forwarded_for: &str, body: &Bytes) -> Answer {
    let headers = [("content-type", "application/json"), ("x-forwarded-for", forwarded_for)];
    shop.program.api.send(Method::POST, "/webhook/yookassa", &headers, body.clone()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_ready_says_so_and_takes_no_money() {
    let shop = a_shop().await;
    let body = notice(&shop).await;
    shop.program.app.doors.ready.close();
    let answer = anonymous(&shop, Method::GET, "/readyz").await;
    assert_eq!((answer.status, text(&answer.json()["status"])), (503, "not ready".to_owned()));
    assert!(!text(&answer.json()["reason"]).is_empty());
    assert_eq!(anonymous(&shop, Method::GET, "/healthz").await.status, 200, "it lives all the same");
    let unheard = post_from(&shop, "185.71.76.5", &body).await;
    refused(&unheard, 503, "unavailable");
    assert!(unheard.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    assert_eq!(shop.number("select count(*) from inbox").await, 0);

    shop.program.app.doors.ready.open();
    let answer = anonymous(&shop, Method::GET, "/readyz").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (200, &Value::Null));
    assert_eq!(post_from(&shop, "185.71.76.5", &body).await.status, 200, "the provider sends again, and it counts");
    assert_eq!(shop.number("select count(*) from inbox").await, 1);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_contract_is_there() {
    let shop = a_shop().await;
    let answer = anonymous(&shop, Method::GET, "/api/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("application/json"));
    let contract = answer.json();
    assert!(text(&contract["openapi"]).starts_with("3."), "it parses: {:.200}", contract.to_string());
    let paths = contract["paths"].as_object().expect("paths");
    assert!(paths.contains_key("/api/v1/orders") && paths.contains_key("/webhook/yookassa"));
    // Tokens are made at the machine; the contract names them, the network does not have them.
    for (path, item) in paths.iter().filter(|(path, _)| !path.starts_with("/api/v1/tokens")) {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            if item.get(method.as_str().to_ascii_lowercase()).is_none() {
                continue;
            }
            if item[method.as_str().to_ascii_lowercase()]["x-local-only"] == true {
                let status = anonymous(&shop, method.clone(), path).await.status;
                assert_eq!(status, 404, "{method} {path} is of the machine and not of the network");
                continue;
            }
            let named =
                [("{telegram_id}", "1"), ("{id}", "1"), ("{ip}", "10.8.0.2"), ("{token}", "x"), ("{path}", "x")];
            let address = named.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
            assert!(!address.contains('{'), "an unknown parameter in {path}");
            let status = anonymous(&shop, method.clone(), &address).await.status;
            if path.starts_with("/telegram/") {
                // The path is half of the secret: whoever does not know it finds nothing.
                assert_eq!(status, 404, "{method} {path} is found by a stranger");
                continue;
            }
            assert!(!matches!(status, 404 | 405 | 500..), "{method} {path} answers a stranger with {status}");
            if path.starts_with("/api/v1") {
                assert_eq!(status, 401, "{method} {path} asks for a token");
            }
        }
    }
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_untrusted_peer_says_about_its_address_is_ignored() {
    let foreign = [("SEMEL_TRUSTED_PROXIES", "192.0.2.0/24")];
    let shop = TestShop::with(TestStore::sqlite(ROOMS).await, &foreign).await;
    let body = notice(&shop).await;
    for claim in ["185.71.76.5", "192.0.2.1, 185.71.76.5", "185.71.76.5, 192.0.2.1"] {
        refused(&post_from(&shop, claim, &body).await, 403, "forbidden");
    }
    assert_eq!(shop.number("select count(*) from inbox").await, 0, "nothing of it was kept");
    let counted = metrics(&shop).await;
    assert!(counted.contains("semel_webhooks_total{provider=\"yookassa\",outcome=\"refused\"} 3"), "{counted}");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_read_from_the_right() {
    let shop = a_shop().await;
    let body = notice(&shop).await;
    for forged in ["185.71.76.5, 203.0.113.9", "203.0.113.9", "185.71.76.5, somebody"] {
        refused(&post_from(&shop, forged, &body).await, 403, "forbidden");
    }
    refused(&anonymous(&shop, Method::POST, "/webhook/yookassa").await, 403, "forbidden");
    assert_eq!(post_from(&shop, "203.0.113.9, 185.71.76.5", &body).await.status, 200);
    assert_eq!(post_from(&shop, "185.71.76.5, 127.0.0.2", &body).await.status, 200, "through two proxies of ours");
    assert_eq!(shop.number("select count(*) from inbox").await, 1, "and both are one notice");
    let counted = metrics(&shop).await;
    assert!(counted.contains("semel_webhooks_total{provider=\"yookassa\",outcome=\"accepted\"} 2"), "{counted}");
    assert!(counted.contains("semel_orders"), "{counted}");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_address_or_method_is_a_problem_too() {
    let shop = a_shop().await;
    refused(&get(&shop, "/api/v1/nothing").await, 404, "not-found");
    refused(&get(&shop, "/api/v2/orders").await, 404, "not-found");
    let answer = shop.program.api.call(Method::DELETE, "/api/v1/orders", None, None).await;
    refused(&answer, 405, "method-not-allowed");
    assert!(answer.header("allow").contains("POST"), "{}", answer.header("allow"));
    let asked = [("x-request-id", "bot-7"), ("authorization", "Bearer test-token")];
    let answer = shop.program.api.send(Method::GET, "/api/v1/orders/ord_0", &asked, Bytes::new()).await;
    refused(&answer, 404, "not-found");
    assert_eq!((answer.header("x-request-id"), text(&answer.json()["request_id"])), ("bot-7", "bot-7".to_owned()));
    shop.finish().await;
}
