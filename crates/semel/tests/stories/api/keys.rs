//! `Idempotency-Key`: one key, one effect, one answer.

use semel_kernel::each_store;
use semel_sandbox::{Fault, Provider, Target};
use serde_json::Value;

use super::tokens::token;
use super::{Method, ORDERS, get, ids, refused};
use crate::app::{Answer, CUSTOMER, OrderHandle, ROOMS, TestShop, TestStore, an_order, text};

const REPLAYED: &str = "idempotent-replayed";

async fn ask(shop: &TestShop, body: &Value, key: &str) -> Answer {
    shop.program.api.call(Method::POST, ORDERS, Some(body), Some(key)).await
}

async fn orders(shop: &TestShop) -> i64 {
    shop.number("select count(*) from orders").await
}

fn payments(shop: &TestShop) -> usize {
    shop.sandbox.payments(Provider::Yookassa).len()
}

/// The calls that open a payment at YooKassa.
fn creating() -> Target {
    Target::Api(Provider::Yookassa, "POST /payments".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_without_a_sound_key_is_told_what_to_send() {
    let shop = TestShop::start(TestStore::sqlite(ROOMS).await).await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let body = an_order(CUSTOMER, &key, "yookassa");
    let long = "k".repeat(256);
    for unsound in [None, Some(""), Some("two words"), Some(long.as_str())] {
        let answer = shop.program.api.call(Method::POST, ORDERS, Some(&body), unsound).await;
        let told = refused(&answer, 400, "idempotency-key-needed");
        assert!(told.contains("Idempotency-Key"), "{told}");
    }
    assert_eq!(orders(&shop).await, 0);
    let longest = "k".repeat(255);
    assert_eq!(ask(&shop, &body, &longest).await.status, 201);
    shop.finish().await;
}

each_store! { ROOMS;
    async fn a_repeated_key_gets_the_same_bytes_and_makes_no_second_order(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let body = an_order(CUSTOMER, &key, "yookassa");

        let first = ask(&shop, &body, "sale-1").await;
        assert_eq!((first.status, first.header(REPLAYED)), (201, ""));
        let again = ask(&shop, &body, "sale-1").await;
        assert_eq!((again.status, again.header(REPLAYED)), (201, "true"));
        assert_eq!(again.header("content-type"), "application/json");
        assert_eq!(again.body, first.body, "byte for byte");

        let order = OrderHandle::read(&first.json());
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.status(&order).await, "delivered");
        assert_eq!(ask(&shop, &body, "sale-1").await.body, first.body, "the answer stays what it was");
        assert_eq!((orders(&shop).await, payments(&shop)), (1, 1));
        shop.finish().await;
    }

    async fn of_two_requests_at_once_with_one_key_one_makes_the_order(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let body = an_order(CUSTOMER, &key, "yookassa");
        shop.sandbox.fault(creating(), Fault::Delay(2_000), Some(1));

        let (one, other) = tokio::join!(ask(&shop, &body, "sale-1"), ask(&shop, &body, "sale-1"));
        let (made, late) = if one.status == 201 { (one, other) } else { (other, one) };
        assert_eq!(made.status, 201, "{}", made.json());
        let told = refused(&late, 409, "idempotency-key-busy");
        assert!(told.contains("still being answered"), "{told}");
        let wait: u64 = late.header("retry-after").parse().expect("it says when to come back");
        assert!((1..=2).contains(&wait), "soon: {wait}");

        let again = ask(&shop, &body, "sale-1").await;
        assert_eq!((again.status, again.header(REPLAYED)), (201, "true"));
        assert_eq!(again.body, made.body);
        assert_eq!((orders(&shop).await, payments(&shop)), (1, 1));
        shop.finish().await;
    }

    async fn a_key_belongs_to_its_request_and_to_its_caller(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let body = an_order(CUSTOMER, &key, "yookassa");
        let first = ask(&shop, &body, "sale-1").await;
        assert_eq!(first.status, 201);

        let other = ask(&shop, &an_order(CUSTOMER + 1, &key, "yookassa"), "sale-1").await;
        let told = refused(&other, 422, "idempotency-key-reused");
        assert!(told.contains("take a new key"), "{told}");
        assert_eq!(orders(&shop).await, 1);

        let (_, second_bot) = token(&shop, "second bot", &["write"]).await;
        let api = shop.program.api.as_bearer(&second_bot);
        let theirs = api.call(Method::POST, ORDERS, Some(&body), Some("sale-1")).await;
        assert_eq!((theirs.status, theirs.header(REPLAYED)), (201, ""));
        assert_ne!(theirs.json()["id"], first.json()["id"], "two callers, two orders");
        assert_eq!((orders(&shop).await, payments(&shop)), (2, 2));
        shop.finish().await;
    }

    async fn a_refused_request_frees_its_key(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product("Licence key", "990.00").await;
        let body = an_order(CUSTOMER, &key, "yookassa");
        let told = refused(&ask(&shop, &body, "sale-1").await, 409, "sold-out");
        assert!(told.contains("only 0 of 1") && told.contains(&key), "{told}");
        assert_eq!(shop.number("select count(*) from keys where state = 'in_flight'").await, 0);

        shop.stock(&key, &["KEY-1"]).await;
        let made = ask(&shop, &body, "sale-1").await;
        assert_eq!((made.status, made.header(REPLAYED)), (201, ""), "{}", made.json());
        assert_eq!((orders(&shop).await, payments(&shop)), (1, 1));
        shop.finish().await;
    }

    async fn after_a_lost_answer_the_same_key_goes_on_with_the_same_order(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let body = an_order(CUSTOMER, &key, "yookassa");
        // The provider makes the payment, and nobody hears of it.
        let lost = shop.sandbox.fault(creating(), Fault::CutAfter, None);
        let away = ask(&shop, &body, "sale-1").await;
        let told = refused(&away, 503, "provider-unavailable");
        assert!(told.contains("repeat the request with the same Idempotency-Key"), "{told}");
        assert!(away.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
        let begun = ids(&get(&shop, ORDERS).await.json());
        assert_eq!((begun.len(), payments(&shop)), (1, 1), "the order stands, its payment is open over there");

        shop.sandbox.lift_fault(lost);
        let made = ask(&shop, &body, "sale-1").await;
        assert_eq!((made.status, text(&made.json()["id"])), (201, begun[0].clone()), "{}", made.json());
        assert_eq!((orders(&shop).await, payments(&shop)), (1, 1), "one order, one payment");
        let again = ask(&shop, &body, "sale-1").await;
        assert_eq!((again.header(REPLAYED), &again.body), ("true", &made.body));

        let order = OrderHandle::read(&made.json());
        assert!(order.url.starts_with("http"), "there is a link: {order:?}");
        shop.pay(&order);
        shop.receive_all().await;
        shop.run_jobs().await;
        assert_eq!(shop.delivered_to(CUSTOMER), ["KEY-1"]);
        shop.finish().await;
    }

    async fn a_final_no_of_the_provider_is_an_answer_too(t: TestStore) {
        let shop = TestShop::start(t).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let body = an_order(CUSTOMER, &key, "yookassa");
        shop.sandbox.fault(creating(), Fault::Status(400), Some(1));
        let first = ask(&shop, &body, "sale-1").await;
        let told = refused(&first, 502, "provider-refused");
        assert!(told.starts_with("yookassa refused"), "{told}");
        let again = ask(&shop, &body, "sale-1").await;
        assert_eq!((again.status, again.header(REPLAYED)), (502, "true"));
        assert_eq!(again.header("content-type"), "application/problem+json");
        assert_eq!(again.body, first.body);

        let cancelled = get(&shop, "/api/v1/orders?status=cancelled").await.json();
        assert_eq!((ids(&cancelled).len(), orders(&shop).await, payments(&shop)), (1, 1, 0), "called off");
        assert_eq!(ask(&shop, &body, "sale-2").await.status, 201, "and its key is on the shelf again");
        shop.finish().await;
    }

    async fn an_order_that_was_called_off_at_once_is_not_called_made_by_a_repeat(t: TestStore) {
        let receipts = [
            ("SEMEL_YOOKASSA_RECEIPT_VAT", "1"),
            ("SEMEL_YOOKASSA_RECEIPT_SUBJECT", "service"),
            ("SEMEL_YOOKASSA_RECEIPT_MODE", "full_payment"),
        ];
        let shop = TestShop::with(t, &receipts).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
        let mut body = an_order(CUSTOMER, &key, "yookassa");
        let first = ask(&shop, &body, "sale-1").await;
        assert!((400..500).contains(&first.status), "{}", first.json());
        assert!(text(&first.json()["detail"]).contains("customer.email"), "{}", first.json());
        let again = ask(&shop, &body, "sale-1").await;
        assert_eq!((again.status, again.body), (first.status, first.body));
        assert_eq!(payments(&shop), 0);

        body["customer"]["email"] = "buyer@example.com".into();
        assert_eq!(ask(&shop, &body, "sale-2").await.status, 201);
        shop.finish().await;
    }
}
