//! Requests that make no sense: each is refused with the place that is wrong, and changes nothing.

use bytes::Bytes;
use semel_kernel::each_store;
use serde_json::{Value, json};

use super::{Method, ORDERS, fresh_key, get, post, refused};
use crate::app::{Answer, CUSTOMER, OrderHandle, ROOMS, TOKEN, TestShop, TestStore, an_order, text};

async fn a_shop() -> TestShop {
    TestShop::start(TestStore::sqlite(ROOMS).await).await
}

/// Posts bytes as they are.
async fn post_bytes(shop: &TestShop, path: &str, kind: Option<&str>, body: Vec<u8>) -> Answer {
    let (bearer, key) = (format!("Bearer {TOKEN}"), fresh_key());
    let mut headers = vec![("authorization", bearer.as_str()), ("idempotency-key", key.as_str())];
    headers.extend(kind.map(|kind| ("content-type", kind)));
    shop.program.api.send(Method::POST, path, &headers, Bytes::from(body)).await
}

/// A sound order with something changed.
fn order_with(product: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut order = an_order(CUSTOMER, product, "yookassa");
    change(&mut order);
    order
}

/// Insists that each body is refused with a sentence that names its place.
async fn all_refused(shop: &TestShop, path: &str, cases: &[(Value, u16, &str, &str)]) {
    for (body, status, slug, place) in cases {
        let told = refused(&post(shop, path, body).await, *status, slug);
        assert!(told.contains(place), "{place} is not named: {told} for {body}");
    }
}

async fn nothing_came_of_it(shop: &TestShop) {
    let left =
        "select (select count(*) from orders) + (select count(*) from customers) + (select count(*) from payments)
        + (select count(*) from keys where state = 'in_flight')";
    assert_eq!(shop.number(left).await, 0);
    assert!(shop.sandbox.payments(semel_sandbox::Provider::Yookassa).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_json_are_refused_before_anything_is_read_out_of_them() {
    let shop = a_shop().await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let sound = an_order(CUSTOMER, &key, "yookassa").to_string();
    let json = Some("application/json");
    let twice = sound.replacen('{', "{\"provider\":\"heleket\",", 1);
    let quantities = sound.replace("\"quantity\":1", "\"quantity\":1,\"quantity\":100");
    let cases: [(Vec<u8>, &str); 9] = [
        (b"".to_vec(), "the body is empty"),
        (b"{".to_vec(), "malformed JSON"),
        (format!("{sound} {sound}").into_bytes(), "trailing characters"),
        (sound.replace('"', "'").into_bytes(), "malformed JSON"),
        ("[".repeat(100_000).into_bytes(), "nested deeper than 32 levels"),
        ("{\"a\":".repeat(33).into_bytes(), "nested deeper than 32 levels"),
        (twice.into_bytes(), "provider: duplicate key"),
        (quantities.into_bytes(), "items[0].quantity: duplicate key"),
        (b"{\"provider\":\"\xff\"}".to_vec(), "not valid UTF-8 at byte 13"),
    ];
    for (body, reason) in cases {
        let told = refused(&post_bytes(&shop, ORDERS, json, body).await, 400, "malformed-json");
        assert!(told.contains(reason), "{reason}: {told}");
    }
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")] {
        let answer = post_bytes(&shop, ORDERS, kind, sound.clone().into_bytes()).await;
        let told = refused(&answer, 415, "unsupported-media-type");
        assert!(told.contains("application/json"), "{told}");
    }
    let answer = post_bytes(&shop, ORDERS, json, vec![b' '; 300 * 1024]).await;
    assert!(refused(&answer, 413, "too-large").contains("262144 bytes"));
    assert_eq!(answer.json()["limit_bytes"], json!(262_144));
    nothing_came_of_it(&shop).await;

    let utf8 = Some("Application/JSON; charset=UTF-8");
    assert_eq!(post_bytes(&shop, ORDERS, utf8, sound.into_bytes()).await.status, 201);
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_makes_no_sense_is_told_where() {
    let without_heleket = [
        ("SEMEL_HELEKET_MERCHANT_ID", ""),
        ("SEMEL_HELEKET_PAYMENT_KEY", ""),
        ("SEMEL_HELEKET_PAYOUT_KEY", ""),
        ("SEMEL_HELEKET_API_URL", ""),
    ];
    let shop = TestShop::with(TestStore::sqlite(ROOMS).await, &without_heleket).await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let quantity = |quantity: Value| order_with(&key, |order| order["items"][0]["quantity"] = quantity);
    let provider = |name: &str| order_with(&key, |order| order["provider"] = json!(name));
    let product = |id: &str| order_with(&key, |order| order["items"][0]["product"] = json!(id));
    let customer = |member: &str, value: Value| order_with(&key, |order| order["customer"][member] = value);
    let line = json!({ "product": key, "quantity": 1 });
    let cases = [
        (order_with(&key, |order| order["gift"] = json!(true)), 422, "unprocessable", "unknown field `gift`"),
        (quantity(json!(-1)), 422, "invalid", "items[0].quantity: between 1 and 1000"),
        (quantity(json!(0)), 422, "invalid", "items[0].quantity: between 1 and 1000"),
        (quantity(json!(1001)), 422, "invalid", "items[0].quantity: between 1 and 1000"),
        (quantity(json!(i64::MAX)), 422, "invalid", "items[0].quantity"),
        (quantity(json!(u64::MAX)), 422, "unprocessable", "items[0].quantity"),
        (quantity(json!(1e30)), 422, "unprocessable", "items[0].quantity"),
        (quantity(json!(1.5)), 422, "unprocessable", "items[0].quantity"),
        (quantity(json!("1")), 422, "unprocessable", "items[0].quantity"),
        (quantity(Value::Null), 422, "unprocessable", "items[0].quantity"),
        (order_with(&key, |order| order["items"] = json!([])), 422, "invalid", "items: an order has 1 to 50 lines"),
        (order_with(&key, |order| order["items"] = json!({})), 422, "unprocessable", "items"),
        (order_with(&key, |order| order["items"] = json!([line, line])), 422, "invalid", "items[1].product"),
        (product("licence-key"), 422, "invalid", "items[0].product"),
        (product("ord_1"), 422, "invalid", "items[0].product"),
        (product("prd_nowhere"), 404, "not-found", "product prd_nowhere"),
        (
            provider("paypal"),
            422,
            "invalid",
            "provider: paypal is not one of yookassa, heleket, crystalpay, stars, balance",
        ),
        (provider("YooKassa"), 422, "invalid", "provider"),
        (provider("heleket"), 422, "invalid", "provider: heleket is not configured"),
        (customer("telegram_id", json!(0)), 422, "invalid", "customer.telegram_id"),
        (customer("telegram_id", json!(-100)), 422, "invalid", "customer.telegram_id"),
        (customer("telegram_id", json!("42")), 422, "unprocessable", "customer.telegram_id"),
        (customer("email", json!("nobody")), 422, "invalid", "customer.email"),
        (customer("phone", json!("911")), 422, "invalid", "customer.phone"),
        (customer("language", json!("russian language")), 422, "invalid", "customer.language"),
        (customer("name", json!("Ann")), 422, "unprocessable", "unknown field `name`"),
        (json!([]), 422, "unprocessable", ""),
        (json!({}), 422, "unprocessable", "missing field `customer`"),
    ];
    all_refused(&shop, ORDERS, &cases).await;
    nothing_came_of_it(&shop).await;
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_that_makes_no_sense_is_told_where() {
    let shop = a_shop().await;
    let price =
        |amount: &str| json!({ "title": "T", "kind": "stock", "price": { "amount": amount, "currency": "RUB" } });
    let with = |member: &str, value: Value| {
        let mut product = price("5");
        product[member] = value;
        product
    };
    let cases = [
        (price("1e5"), 422, "invalid", "price.amount: \"1e5\" is not a decimal amount like 499.00"),
        (price("1.999"), 422, "invalid", "price.amount: \"1.999\" has more than 2 decimal digits of RUB"),
        (price("-1"), 422, "invalid", "price: more than nothing, not -1.00 RUB"),
        (price("0.00"), 422, "invalid", "price: more than nothing"),
        (price("1,50"), 422, "invalid", "price.amount"),
        (price(" 1"), 422, "invalid", "price.amount"),
        (price(""), 422, "invalid", "price.amount"),
        (price("99999999999999999999"), 422, "invalid", "price.amount"),
        (with("price", json!({ "amount": 5, "currency": "RUB" })), 422, "unprocessable", "price.amount"),
        (with("price", json!({ "amount": "5", "currency": "ZZZ" })), 422, "unprocessable", "price.currency"),
        (with("price", json!({ "amount": "5", "currency": "rub" })), 422, "unprocessable", "price.currency"),
        (with("price", json!("5.00 RUB")), 422, "unprocessable", "price"),
        (with("kind", json!("vpn")), 422, "invalid", "duration_days: say for how many days the access is"),
        (with("kind", json!("car")), 422, "invalid", "kind: write stock, topup or vpn"),
        (with("title", json!(" ")), 422, "invalid", "title"),
        (with("title", json!("a\u{0}b")), 422, "invalid", "title"),
        (with("description", json!("\u{0}")), 422, "invalid", "description"),
        (with("delivery", json!("soon")), 422, "unprocessable", "delivery"),
        (with("promise_hours", json!(2)), 422, "invalid", "promise_hours"),
        (with("promise_hours", json!(-2)), 422, "unprocessable", "promise_hours"),
        (with("colour", json!("red")), 422, "unprocessable", "unknown field `colour`"),
    ];
    all_refused(&shop, "/api/v1/products", &cases).await;
    assert_eq!(shop.number("select count(*) from products").await, 0);

    let product = shop.product("Licence key", "990.00").await;
    let shelf = format!("/api/v1/products/{product}/stock");
    let cases = [
        (json!({ "items": [] }), 422, "invalid", "items: an import has 1 to"),
        (json!({ "items": ["KEY-1", " "] }), 422, "invalid", "items[1]: line 2 is empty"),
        (json!({ "items": ["KEY-1", "a\u{0}b"] }), 422, "invalid", "items[1]"),
        (json!({ "items": ["k".repeat(4097)] }), 422, "invalid", "items[0]: line 1 has 4097 bytes"),
        (json!({ "items": "KEY-1" }), 422, "unprocessable", "items"),
        (json!({ "items": [1] }), 422, "unprocessable", "items[0]"),
    ];
    all_refused(&shop, &shelf, &cases).await;
    assert_eq!(shop.number("select count(*) from units").await, 0, "no line of a wrong list is taken");

    let path = format!("/api/v1/products/{product}");
    for (change, place) in [
        (json!({}), "nothing to change"),
        (json!({ "price": { "amount": "1e5", "currency": "RUB" } }), "price"),
        (json!({ "price": { "amount": "-1", "currency": "RUB" } }), "price"),
        (json!({ "kind": "topup" }), "unknown field `kind`"),
    ] {
        let answer = shop.program.api.call(Method::PATCH, &path, Some(&change), None).await;
        let slug = if text(&answer.json()["type"]).ends_with("/invalid") { "invalid" } else { "unprocessable" };
        assert!(refused(&answer, 422, slug).contains(place), "{change}: {}", answer.json());
    }
    let stale = json!({ "title": "New", "version": 7 });
    refused(&shop.program.api.call(Method::PATCH, &path, Some(&stale), None).await, 409, "conflict");
    let (_, shown) = shop.get(&path).await;
    assert_eq!((text(&shown["title"]), &shown["version"]), ("Licence key".to_owned(), &json!(1)));
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_named() {
    let shop = a_shop().await;
    let key = shop.product_with("Licence key", "990.00", &["KEY-1"]).await;
    let order = shop.order(&key, "yookassa").await;
    for (path, named) in [
        ("/api/v1/orders/ord_0", "order ord_0"),
        ("/api/v1/orders/42", "order 42"),
        ("/api/v1/orders/pay_0", "order pay_0"),
        ("/api/v1/products/prd_0", "product prd_0"),
        ("/api/v1/products/x", "product x"),
        ("/api/v1/customers/777", "customer 777"),
        ("/api/v1/customers/ann", "customer ann"),
        ("/api/v1/customers/99999999999999999999", "customer 9999"),
        ("/api/v1/jobs/job_0", "job job_0"),
        ("/api/v1/jobs/x", "job x"),
    ] {
        assert!(refused(&get(&shop, path).await, 404, "not-found").contains(named), "{path}");
    }
    let novel = format!("/api/v1/orders/{}", "n".repeat(5_000));
    assert!(refused(&get(&shop, &novel).await, 404, "not-found").len() < 200, "a novel is not repeated");
    refused(&get(&shop, "/api/v1/orders/%FF").await, 400, "bad-request");

    let nothing = json!({});
    for (path, body) in [
        ("/api/v1/orders/ord_0/cancel", nothing.clone()),
        ("/api/v1/orders/x/cancel", nothing.clone()),
        ("/api/v1/orders/ord_0/refund", nothing.clone()),
        ("/api/v1/orders/ord_0/pay", json!({ "provider": "yookassa" })),
        ("/api/v1/payments/pay_0/replay", nothing.clone()),
        ("/api/v1/payments/x/replay", nothing.clone()),
        ("/api/v1/payments/31a9/assign", json!({ "order": "ord_0" })),
        ("/api/v1/payments/31a9/assign", json!({ "order": order.id })),
        ("/api/v1/payments/a%00b/assign", json!({ "order": order.id })),
        ("/api/v1/jobs/job_0/retry", nothing.clone()),
        ("/api/v1/jobs/x/retry", nothing.clone()),
        ("/api/v1/inbox/inb_0/replay", nothing.clone()),
        ("/api/v1/products/prd_0/stock", json!({ "items": ["KEY-9"] })),
    ] {
        refused(&post(&shop, path, &body).await, 404, "not-found");
    }
    assert_eq!(shop.status(&order).await, "pending");
    shop.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_filters_nothing_is_not_an_empty_list() {
    let shop = a_shop().await;
    for (query, place) in [
        ("orders?status=lost", "status: lost is not one of pending, paid"),
        ("orders?limit=0", "limit: between 1 and 200, not 0"),
        ("orders?limit=201", "limit: between 1 and 200, not 201"),
        ("orders?cursor=page-2", "cursor: give the next_cursor"),
        ("products?limit=-1", "limit: between 1 and 200, not -1"),
        ("products?cursor=ord_0", "cursor: give the next_cursor"),
        ("jobs?state=gone", "state: gone is not one of ready, running"),
        ("jobs?state=%00", "state"),
        ("jobs?limit=9999", "limit: between 1 and 200"),
        ("jobs?cursor=inb_0", "cursor: give the next_cursor"),
        ("inbox?state=ready", "state: ready is not one of received, applied"),
        ("inbox?cursor=%00", "cursor: give the next_cursor"),
    ] {
        let told = refused(&get(&shop, &format!("/api/v1/{query}")).await, 422, "invalid");
        assert!(told.contains(place), "{query}: {told}");
    }
    for (query, place) in [
        ("orders?state=paid", "state"),
        ("orders?customer=ann", "customer"),
        ("orders?limit=many", "limit"),
        ("products?sort=price", "sort"),
        ("jobs?status=dead", "status"),
        ("inbox?provider=yookassa", "provider"),
        ("verify?at_rest=perhaps", "at_rest"),
    ] {
        let told = refused(&get(&shop, &format!("/api/v1/{query}")).await, 400, "bad-request");
        assert!(told.contains(place), "{query}: {told}");
    }
    shop.finish().await;
}

each_store! { ROOMS;
    async fn a_zero_byte_is_found_nowhere_and_is_no_fault_of_ours(t: TestStore) {
        let shop = TestShop::start(t).await;
        for (query, place) in [
            ("messages?kind=%00", "kind"),
            ("peers?subscription=%00", "subscription"),
            ("addresses?state=%00", "state"),
            ("segments?cursor=%00", "cursor"),
        ] {
            let told = refused(&get(&shop, &format!("/api/v1/{query}")).await, 422, "invalid");
            assert!(told.contains(place), "{query}: {told}");
        }
        assert_eq!(get(&shop, "/api/v1/peers?server=%00").await.status, 200);
        refused(&get(&shop, "/api/v1/servers/%00").await, 404, "not-found");
        let campaign = json!({ "title": "x", "texts": { "en": { "html": "x" } }, "segment": "\u{0}" });
        refused(&post(&shop, "/api/v1/campaigns", &campaign).await, 404, "not-found");
        shop.finish().await;
    }

    async fn what_the_state_of_an_order_forbids_changes_nothing(t: TestStore) {
        let shop = TestShop::with(t, &[("SEMEL_SHOP_UNPAID_ORDERS_PER_CUSTOMER", "1")]).await;
        let key = shop.product_with("Licence key", "990.00", &["KEY-1", "KEY-2"]).await;
        let paid = shop.sell(&key, "yookassa").await;
        let unpaid = shop.order(&key, "yookassa").await;
        let before = (shop.show(&paid).await, shop.show(&unpaid).await, shop.ledger().await);

        let on = |order: &OrderHandle, verb: &str| format!("{ORDERS}/{}/{verb}", order.id);
        let refund = |amount: &str| json!({ "amount": amount, "to": "provider" });
        let (of_paid, of_unpaid) = (on(&paid, "refund"), on(&unpaid, "refund"));
        let elsewhere = json!({ "provider": "heleket" });
        for (path, body, status, slug, place) in [
            (on(&paid, "cancel"), json!({}), 409, "conflict", "only an unpaid order can be cancelled"),
            (on(&paid, "pay"), elsewhere, 409, "conflict", "only an unpaid order can be paid"),
            (of_unpaid.clone(), json!({}), 409, "conflict", "only a paid order"),
            (of_unpaid, json!({ "to": "provider" }), 409, "conflict", "only a paid order"),
            (of_paid.clone(), refund("990.01"), 422, "invalid", "amount: between 0.01 RUB and 990.00 RUB"),
            (of_paid.clone(), refund("0"), 422, "invalid", "amount: between"),
            (of_paid.clone(), refund("-1"), 422, "invalid", "amount: between"),
            (of_paid.clone(), refund("1e2"), 422, "invalid", "amount: \"1e2\" is not a decimal amount"),
            (of_paid.clone(), refund("1.999"), 422, "invalid", "amount: \"1.999\" has more than 2 decimal digits"),
            (of_paid.clone(), json!({ "amount": 5 }), 422, "unprocessable", "amount"),
            (of_paid.clone(), json!({ "to": "bank" }), 422, "unprocessable", "to: unknown variant `bank`"),
            (of_paid.clone(), json!({ "reason": "a\u{0}b" }), 422, "invalid", "reason"),
            (of_paid, json!({ "reason": "r".repeat(501) }), 422, "invalid", "reason: one line of at most 500"),
            (on(&unpaid, "cancel"), json!({ "reason": "a\u{0}b" }), 422, "invalid", "reason"),
            (on(&unpaid, "pay"), json!({ "provider": "paypal" }), 422, "invalid", "provider"),
            (on(&unpaid, "pay"), json!({ "provider": "balance" }), 409, "insufficient-balance", "990.00 RUB"),
            (ORDERS.to_owned(), an_order(CUSTOMER, &key, "yookassa"), 409, "too-many-unpaid-orders", "1 unpaid"),
            (ORDERS.to_owned(), an_order(7, &key, "yookassa"), 409, "sold-out", "only 0 of 1"),
        ] {
            let told = refused(&post(&shop, &path, &body).await, status, slug);
            assert!(told.contains(place), "{path} {body}: {told}");
        }
        let after = (shop.show(&paid).await, shop.show(&unpaid).await, shop.ledger().await);
        assert_eq!(before, after);
        assert_eq!(shop.number("select count(*) from orders").await, 2);
        assert_eq!(shop.number("select count(*) from keys where state = 'in_flight'").await, 0);
        shop.finish().await;
    }
}
