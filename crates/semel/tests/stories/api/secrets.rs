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
use crate::app::{ADMIN, Answer, CUSTOMER, ROOMS, TOKEN, TestShop, TestStore, an_order};

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

/// What was found, and where.
type Found = Vec<(String, String)>;

fn body_of(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Reads everything that can be read, and what the owner was told.
async fn look_everywhere(shop: &TestShop, found: &mut Found) {
    let fixed = ["/metrics", "/readyz", "/api/openapi.json", "/api/v1/products", "/api/v1/verify", "/api/v1/inbox"];
    let more = [ORDERS, "/api/v1/jobs?limit=200", "/api/v1/customers/101", "/nowhere"];
    let mut paths: Vec<String> = fixed.into_iter().chain(more).map(str::to_owned).collect();
    for id in ids(&get(shop, "/api/v1/jobs?limit=200").await.json()) {
        paths.push(format!("/api/v1/jobs/{id}"));
    }
    for id in ids(&get(shop, ORDERS).await.json()) {
        paths.push(format!("{ORDERS}/{id}"));
    }
    for path in paths {
        let answer = get(shop, &path).await;
        found.push((path, format!("{:?} {}", answer.headers, body_of(&answer))));
    }
    found.push(("the owner's chat".into(), shop.chat(ADMIN).join("\n")));
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
    let stock: Vec<String> = (1..=10).map(|n| format!("KEY-{n}")).collect();
    let stock: Vec<&str> = stock.iter().map(String::as_str).collect();
    let key = shop.product_with("Licence key", "990.00", &stock).await;
    let mut found = Found::new();

    // A sale at each provider, while everything outside refuses our keys or talks rubbish.
    let mut orders = Vec::new();
    for (customer, provider) in [(101, "yookassa"), (102, "heleket"), (103, "crystalpay")] {
        let order = shop.order_by(customer, &key, provider).await;
        shop.pay(&order);
        orders.push(order);
    }
    shop.receive_all().await;
    for provider in Provider::ALL {
        shop.sandbox.fault(Target::Api(provider, String::new()), Fault::Status(401), Some(1));
        shop.sandbox.fault(Target::Api(provider, String::new()), Fault::Garbage, Some(1));
    }
    shop.run_jobs().await;
    look_everywhere(&shop, &mut found).await;
    shop.wait(Duration::from_secs(301)).await;
    look_everywhere(&shop, &mut found).await;
    shop.sandbox.clear_faults();

    let body = an_order(CUSTOMER, &key, "yookassa");
    for fault in [Fault::Status(401), Fault::Status(400), Fault::Status(500), Fault::Garbage] {
        let creating = Target::Api(Provider::Yookassa, "POST /payments".to_owned());
        let id = shop.sandbox.fault(creating, fault.clone(), None);
        let answer = post(&shop, ORDERS, &body).await;
        assert!(answer.status >= 500, "{fault:?}: {}", answer.json());
        found.push((format!("the problem after {fault:?}"), body_of(&answer)));
        shop.sandbox.lift_fault(id);
    }

    shop.sandbox.fault(Target::Telegram(String::new()), Fault::Status(401), Some(2));
    shop.wait(Duration::from_secs(60)).await;
    look_everywhere(&shop, &mut found).await;
    shop.wait(Duration::from_secs(301)).await;
    look_everywhere(&shop, &mut found).await;
    for order in &orders {
        assert_eq!(shop.status(order).await, "delivered", "{order:?}");
    }
    let told = shop.alerts().join("\n");
    assert!(told.contains("Telegram does not know the bot's token"), "the trouble itself is told: {told}");

    // Who sends a secret to the wrong place does not get it back.
    let stranger = "CANARY-of-a-stranger";
    let bearer = format!("Bearer {stranger}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", stranger)];
    let answer = shop.program.api.send(Method::POST, ORDERS, &headers, Bytes::new()).await;
    found.push(("the 401".into(), body_of(&answer)));
    let answer = post(&shop, ORDERS, &json!({ "customer": stranger })).await;
    found.push(("the 422".into(), body_of(&answer)));
    found.push(("the table of tokens".into(), shop.store.texts("select hash from tokens").await.join(" ")));

    let mut canaries = canaries();
    canaries.extend([of_a_bot, stranger.to_owned()]);
    assert!(found.len() > 80, "there was something to look into: {}", found.len());
    for (place, text) in &found {
        is_clean(place, text, &canaries);
    }
    shop.finish().await;
}

#[test]
fn settings_print_without_their_secrets() {
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
        ("SEMEL_WEBHOOKS_OUT_SECRET", SIGNING),
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
