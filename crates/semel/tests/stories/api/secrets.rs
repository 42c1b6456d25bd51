//! Secrets in the settings stay in the settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use semel::settings;
use semel_sandbox::{self as outside, Fault, Provider, Target};
use serde_json::json;

use super::tokens::token;
use super::{Method, ORDERS, get, ids, post};
use crate::app::{ADMIN, CUSTOMER, ROOMS, TOKEN, TestShop, TestStore, an_order};

const SIGNING: &str = "whsec_Q0FOQVJZLXNpZ25pbmctc2VjcmV0LTAwMQ==";

/// What must not be seen, also in the forms in which it travels.
fn canaries() -> Vec<String> {
    let basic = STANDARD.encode(format!("{}:{}", outside::YOOKASSA_SHOP_ID, outside::YOOKASSA_SECRET_KEY));
    let plain = [
        TOKEN,
        outside::BOT_TOKEN,
        outside::BOT_TOKEN.split_once(':').expect("a token has two parts").1,
        outside::YOOKASSA_SECRET_KEY,
        outside::HELEKET_PAYMENT_KEY,
        outside::HELEKET_PAYOUT_KEY,
        outside::CRYSTALPAY_SECRET,
        outside::CRYSTALPAY_SALT,
        SIGNING,
        SIGNING.trim_start_matches("whsec_"),
        "CANARY-signing-secret-001",
    ];
    plain.into_iter().map(str::to_owned).chain([basic]).collect()
}

/// Insists that none of `canaries` stands in what was found at `place`.
fn is_clean(place: &str, found: &str, canaries: &[String]) {
    for canary in canaries {
        assert!(!found.contains(canary.as_str()), "{canary} stands in {place}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_problem_metric_or_message_holds_a_secret() {
    // Nobody listens where the events go.
    let events = [
        ("SEMEL_WEBHOOKS_OUT_URL", "http://127.0.0.1:9/events"),
        ("SEMEL_WEBHOOKS_OUT_SECRET", SIGNING),
        ("SEMEL_WEBHOOKS_OUT_ALLOW_PRIVATE", "true"),
    ];
    let shop = TestShop::with(TestStore::sqlite(ROOMS).await, &events).await;
    let (_, of_a_bot) = token(&shop, "bot", &["write"]).await;
    let mut canaries = canaries();
    canaries.push(of_a_bot.clone());
    let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2", "KEY-3", "KEY-4"]).await;
    let mut found: Vec<(String, String)> = Vec::new();

    // One sale at each provider, while the outside world is at its worst.
    let yookassa = shop.order_by(101, &key, "yookassa").await;
    let heleket = shop.order_by(102, &key, "heleket").await;
    let crystalpay = shop.order_by(103, &key, "crystalpay").await;
    for order in [&yookassa, &heleket, &crystalpay] {
        shop.pay(order);
    }
    shop.receive_all().await;
    shop.sandbox.fault(Target::Telegram(String::new()), Fault::Status(401), Some(2));
    for provider in Provider::ALL {
        shop.sandbox.fault(Target::Api(provider, String::new()), Fault::Status(401), Some(1));
        shop.sandbox.fault(Target::Api(provider, String::new()), Fault::Garbage, Some(1));
    }
    shop.run_jobs().await;
    let body = an_order(CUSTOMER, &key, "yookassa");
    for fault in [Fault::Status(401), Fault::Status(400), Fault::Status(500), Fault::Garbage] {
        shop.sandbox.clear_faults();
        shop.sandbox.fault(Target::Api(Provider::Yookassa, "POST /payments".into()), fault.clone(), None);
        let answer = post(&shop, ORDERS, &body).await;
        assert!(answer.status >= 500, "{fault:?}: {}", answer.json());
        found.push((format!("the problem after {fault:?}"), String::from_utf8_lossy(&answer.body).into_owned()));
    }
    shop.sandbox.clear_faults();

    let mut paths: Vec<String> = ["/metrics", "/readyz", "/api/openapi.json", "/api/v1/products", "/api/v1/verify"]
        .into_iter()
        .chain(["/api/v1/orders", "/api/v1/jobs?limit=200", "/api/v1/inbox", "/api/v1/customers/101", "/nowhere"])
        .map(str::to_owned)
        .collect();
    paths.extend(ids(&get(&shop, "/api/v1/jobs?limit=200").await.json()).iter().map(|id| format!("/api/v1/jobs/{id}")));
    paths.extend(ids(&get(&shop, ORDERS).await.json()).iter().map(|id| format!("{ORDERS}/{id}")));
    assert!(paths.len() > 20, "there is something to look into: {paths:?}");
    for path in paths {
        let answer = get(&shop, &path).await;
        let headers = format!("{:?}", answer.headers);
        found.push((path, format!("{headers} {}", String::from_utf8_lossy(&answer.body))));
    }
    // Who sends a secret to the wrong place does not get it back.
    let bearer = [("authorization", "Bearer CANARY-of-a-stranger"), ("idempotency-key", "CANARY-of-a-stranger")];
    let answer = shop.program.api.send(Method::POST, ORDERS, &bearer, Bytes::new()).await;
    found.push(("the 401".into(), String::from_utf8_lossy(&answer.body).into_owned()));
    let answer = post(&shop, ORDERS, &json!({ "customer": "CANARY-of-a-stranger" })).await;
    found.push(("the 422".into(), String::from_utf8_lossy(&answer.body).into_owned()));
    canaries.push("CANARY-of-a-stranger".into());

    shop.wait(Duration::from_secs(900)).await;
    found.push(("the owner's chat".into(), shop.chat(ADMIN).join("\n")));
    assert!(found.iter().any(|(_, text)| text.contains("401")), "the trouble is told, without the secret");
    for (place, text) in &found {
        is_clean(place, text, &canaries);
    }
    for order in [&yookassa, &heleket, &crystalpay] {
        assert_eq!(shop.status(order).await, "delivered");
    }
    let rows = shop.store.texts("select hash from tokens").await.join(" ");
    is_clean("the table of tokens", &rows, &canaries);
    shop.finish().await;
}

#[test]
fn settings_print_without_their_secrets() {
    let signing = SIGNING;
    let pairs = [
        ("SEMEL_PUBLIC_URL", "https://shop.example"),
        ("SEMEL_DATABASE_URL", "postgres://semel:CANARY-of-the-database@db.example/semel"),
        ("SEMEL_API_TOKEN", TOKEN),
        ("SEMEL_TELEGRAM_BOT_TOKEN", outside::BOT_TOKEN),
        ("SEMEL_TELEGRAM_PROXY", "http://semel:CANARY-of-the-proxy@proxy.example:3128"),
        ("SEMEL_YOOKASSA_SHOP_ID", outside::YOOKASSA_SHOP_ID),
        ("SEMEL_YOOKASSA_SECRET_KEY", outside::YOOKASSA_SECRET_KEY),
        ("SEMEL_HELEKET_MERCHANT_ID", outside::HELEKET_MERCHANT_ID),
        ("SEMEL_HELEKET_PAYMENT_KEY", outside::HELEKET_PAYMENT_KEY),
        ("SEMEL_HELEKET_PAYOUT_KEY", outside::HELEKET_PAYOUT_KEY),
        ("SEMEL_CRYSTALPAY_LOGIN", outside::CRYSTALPAY_LOGIN),
        ("SEMEL_CRYSTALPAY_SECRET", outside::CRYSTALPAY_SECRET),
        ("SEMEL_CRYSTALPAY_SALT", outside::CRYSTALPAY_SALT),
        ("SEMEL_WEBHOOKS_OUT_URL", "https://bot.example/events"),
        ("SEMEL_WEBHOOKS_OUT_SECRET", signing),
    ];
    let environment: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let loaded = settings::load(Some(Path::new("/dev/null")), &environment, &[]).expect("sound settings");
    let mut canaries = canaries();
    canaries.extend(["CANARY-of-the-database", "CANARY-of-the-proxy"].map(str::to_owned));
    is_clean("Debug", &format!("{:?}", loaded.settings), &canaries);
    is_clean("pretty Debug", &format!("{:#?}", loaded.settings), &canaries);
    is_clean("the sources", &format!("{:?}", loaded.sources), &canaries);
    is_clean("the notices", &loaded.notices.join("\n"), &canaries);
    is_clean("config print", &settings::print(&loaded), &canaries);

    // A secret that is wrong is not repeated in the complaint either.
    let mut wrong = environment;
    wrong.insert("SEMEL_TELEGRAM_BOT_TOKEN".into(), "CANARY-of-the-database is no token".into());
    wrong.insert("SEMEL_WEBHOOKS_OUT_SECRET".into(), "CANARY-of-the-proxy is no secret".into());
    let complaint = settings::load(Some(Path::new("/dev/null")), &wrong, &[]).expect_err("a complaint");
    is_clean("the complaint", &complaint.to_string(), &canaries);
    assert!(complaint.to_string().contains("SEMEL_TELEGRAM_BOT_TOKEN"), "{complaint}");
}
