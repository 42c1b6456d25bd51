use semel_money::Currency;

use super::*;
use crate::yookassa::{DEFAULT_API_URL, ReceiptSettings};

const PAYMENT: &str = r#"{"id":"2d8f1a6b-000f-5000-9000-1b2c3d4e5f60","status":"succeeded","paid":true,"test":false,"refundable":true,
 "amount":{"value":"499.00","currency":"RUB"},"refunded_amount":{"value":"0.00","currency":"RUB"},
 "recipient":{"account_id":"100500","gateway_id":"100700"},"created_at":"2026-03-01T09:00:00.123Z",
 "confirmation":{"type":"redirect","confirmation_url":"https://yoomoney.ru/checkout?orderId=2d8f"},
 "metadata":{"payment_id":"pay_1","order_id":"ord_1"}}"#;
const ID: &str = "2d8f1a6b-000f-5000-9000-1b2c3d4e5f60";

fn shop() -> YooKassa {
    YooKassa::new("100500", "live_secret", DEFAULT_API_URL).unwrap()
}

fn rub(text: &str) -> Amount {
    Amount::parse(text, Currency::RUB).unwrap()
}

fn answer(status: u16, body: &str) -> Response {
    http::Response::builder().status(status).body(body.as_bytes().to_vec()).unwrap()
}

fn new_payment() -> NewPayment {
    NewPayment {
        payment_id: "pay_1".into(),
        order_id: "ord_1".into(),
        key: "pay_1".into(),
        amount: rub("499.00"),
        description: "Заказ ".repeat(50),
        return_url: Some("https://t.me/example_shop_bot".into()),
        callback_url: None,
        lifetime_s: 1800,
        customer_email: None,
        customer_phone: None,
        lines: vec![Line { title: "Key".into(), quantity: 1, price: rub("499.00") }],
    }
}

fn new_refund() -> NewRefund {
    NewRefund {
        provider_id: ID.into(),
        amount: rub("100.00"),
        key: "ref_1".into(),
        reason: "Sold out".into(),
        address: None,
        payer: None,
        customer_email: None,
        customer_phone: None,
        lines: vec![],
    }
}

fn receipts() -> ReceiptSettings {
    ReceiptSettings {
        tax_system_code: Some(2),
        vat_code: 1,
        payment_subject: "service".into(),
        payment_mode: "full_payment".into(),
    }
}

#[test]
fn creating_sends_the_key_the_ids_and_the_exact_amount() {
    let request = shop().create(&new_payment()).unwrap();
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(request.uri(), "https://api.yookassa.ru/v3/payments");
    assert_eq!(request.headers()["Idempotence-Key"], "pay_1");
    assert_eq!(request.headers()["Authorization"], "Basic MTAwNTAwOmxpdmVfc2VjcmV0");
    let description = "Заказ ".repeat(50).chars().take(128).collect::<String>();
    let expected = format!(
        r#"{{"amount":{{"value":"499.00","currency":"RUB"}},"capture":true,"confirmation":{{"type":"redirect","return_url":"https://t.me/example_shop_bot"}},"description":"{description}","metadata":{{"payment_id":"pay_1","order_id":"ord_1"}}}}"#
    );
    assert_eq!(String::from_utf8(request.into_body()).unwrap(), expected);
}

#[test]
fn nothing_secret_prints() {
    let shop = shop();
    let request = shop.create(&new_payment()).unwrap();
    assert!(!format!("{shop:?}").contains("live_secret"));
    assert!(!format!("{request:?}").contains("MTAwNTAwOmxpdmVfc2VjcmV0"));
}

#[test]
fn a_payment_that_cannot_be_opened_is_refused_before_it_is_sent() {
    let shop = shop();
    assert!(shop.create(&NewPayment { return_url: None, ..new_payment() }).is_err());
    assert!(shop.create(&NewPayment { amount: rub("0"), ..new_payment() }).is_err());
    assert!(shop.create(&NewPayment { key: "k".repeat(65), ..new_payment() }).is_err());
    assert!(shop.create(&NewPayment { key: String::new(), ..new_payment() }).is_err());
}

#[test]
fn a_receipt_wants_a_buyer_and_lines_that_add_up() {
    let shop = YooKassa { receipt: Some(receipts()), ..shop() };
    let refusal = shop.create(&new_payment()).unwrap_err();
    assert!(refusal.text.contains("customer.email or customer.phone"), "{refusal}");

    let known = NewPayment { customer_phone: Some("+7 (999) 123-45-67".into()), ..new_payment() };
    let body = String::from_utf8(shop.create(&known).unwrap().into_body()).unwrap();
    let receipt = r#""receipt":{"customer":{"phone":"79991234567"},"tax_system_code":2,"items":[{"description":"Key","quantity":"1.00","amount":{"value":"499.00","currency":"RUB"},"vat_code":1,"payment_subject":"service","payment_mode":"full_payment"}]}"#;
    assert!(body.contains(receipt), "{body}");

    let odd = vec![Line { title: "Key".into(), quantity: 2, price: rub("499.00") }];
    let refusal = shop.create(&NewPayment { lines: odd, ..known }).unwrap_err();
    assert!(refusal.text.contains("998.00 RUB"), "{refusal}");
}

#[test]
fn the_created_payment_must_be_ours() {
    let created = shop().created(&new_payment(), &answer(200, PAYMENT)).unwrap();
    assert_eq!(created.provider_id, ID);
    assert_eq!(created.url.as_deref(), Some("https://yoomoney.ru/checkout?orderId=2d8f"));
    assert_eq!(created.seen_state, SeenState::Paid);

    let others = NewPayment { payment_id: "pay_2".into(), ..new_payment() };
    let error = shop().created(&others, &answer(200, PAYMENT)).unwrap_err();
    assert!(matches!(error, CallError::Foreign { what: "payment", .. }), "{error}");
    let cheaper = NewPayment { amount: rub("4.99"), ..new_payment() };
    let error = shop().created(&cheaper, &answer(200, PAYMENT)).unwrap_err();
    assert!(matches!(error, CallError::Foreign { what: "amount", .. }), "{error}");
}

#[test]
fn a_succeeded_payment_is_paid_only_if_it_says_so_twice() {
    let seen = shop().asked(&answer(200, PAYMENT)).unwrap().unwrap();
    assert_eq!(seen.state, SeenState::Paid);
    assert!(seen.is_final && !seen.test);
    assert_eq!((seen.price, seen.received), (rub("499.00"), Some(rub("499.00"))));
    assert_eq!(seen.refunded, Some(rub("0.00")));
    assert_eq!(seen.ours.as_deref(), Some("pay_1"));

    let unpaid = PAYMENT.replace(r#""paid":true"#, r#""paid":false"#);
    let seen = shop().asked(&answer(200, &unpaid)).unwrap().unwrap();
    assert_eq!((seen.state, seen.received), (SeenState::Unknown, None));
}

#[test]
fn each_status_has_its_meaning() {
    let table = [
        ("pending", SeenState::Open, false),
        ("waiting_for_capture", SeenState::WaitingForCapture, false),
        ("succeeded", SeenState::Paid, true),
        ("canceled", SeenState::Cancelled, true),
        ("frozen", SeenState::Unknown, false),
    ];
    for (status, state, is_final) in table {
        let body = PAYMENT.replace("succeeded", status);
        let seen = shop().asked(&answer(200, &body)).unwrap().unwrap();
        assert_eq!((seen.state, seen.is_final), (state, is_final), "{status}");
        assert_eq!(seen.raw_status, status);
    }
}

#[test]
fn an_answer_about_another_shop_moves_nothing() {
    let foreign = PAYMENT.replace("100500", "999999");
    let error = shop().asked(&answer(200, &foreign)).unwrap_err();
    let expected = CallError::Foreign { what: "shop", expected: "100500".into(), got: "999999".into() };
    assert_eq!(error, expected);
    let nobody = PAYMENT.replace(r#""account_id":"100500","#, "");
    assert!(matches!(shop().asked(&answer(200, &nobody)), Err(CallError::Foreign { .. })));
}

#[test]
fn a_test_payment_is_marked_unless_tests_are_allowed() {
    let test = PAYMENT.replace(r#""test":false"#, r#""test":true"#);
    assert!(shop().asked(&answer(200, &test)).unwrap().unwrap().test);
    let trying = YooKassa { allow_test: true, ..shop() };
    assert!(!trying.asked(&answer(200, &test)).unwrap().unwrap().test);
}

#[test]
fn amounts_are_read_from_their_literal() {
    let number = PAYMENT.replace(r#""value":"499.00""#, r#""value":90071992547409.93"#);
    let seen = shop().asked(&answer(200, &number)).unwrap().unwrap();
    assert_eq!(seen.price, rub("90071992547409.93"), "a binary float would lose the last kopeck");
    for odd in [r#""value":"4.99e2""#, r#""value":"499.001""#, r#""value":null"#] {
        let body = PAYMENT.replace(r#""value":"499.00""#, odd);
        assert!(matches!(shop().asked(&answer(200, &body)), Err(CallError::Unclear { .. })), "{odd}");
    }
}

#[test]
fn an_unknown_payment_is_none_and_a_strange_404_is_not() {
    let unknown = r#"{"type":"error","id":"e","code":"not_found","description":"Payment doesn't exist"}"#;
    assert_eq!(shop().asked(&answer(404, unknown)), Ok(None));
    assert!(matches!(shop().asked(&answer(404, "<html>")), Err(CallError::Unclear { .. })));
}

#[test]
fn errors_say_what_may_be_done_next() {
    let invalid = r#"{"type":"error","code":"invalid_request","description":"Bad amount","parameter":"amount.value"}"#;
    let receipt = r#"{"type":"error","code":"invalid_request","description":"Receipt is missing or illegal","parameter":"receipt"}"#;
    let reused = r#"{"type":"error","code":"invalid_request","description":"Idempotence key duplicated","parameter":"Idempotence-Key"}"#;
    let busy = r#"{"type":"error","code":"too_many_requests","description":"Slow","retry_after":1800}"#;
    let keys = r#"{"type":"error","code":"invalid_credentials","description":"Wrong key"}"#;
    let created = |status, body| shop().created(&new_payment(), &answer(status, body)).unwrap_err();

    assert!(matches!(created(400, invalid), CallError::Refused { status: 400, .. }));
    assert!(matches!(created(400, receipt), CallError::ReceiptNeeded { .. }));
    assert!(matches!(created(400, reused), CallError::Unclear { .. }), "the key was used: something may exist");
    assert_eq!(created(429, busy), CallError::Throttled { after_ms: Some(1800) });
    assert!(matches!(created(401, keys), CallError::Misconfigured { .. }));
    assert!(matches!(created(202, "{}"), CallError::Unclear { status: Some(202), .. }));
    assert!(matches!(created(500, ""), CallError::Unclear { status: Some(500), .. }));
    assert!(matches!(created(502, "<html>"), CallError::Unclear { .. }));
    assert!(matches!(created(200, "<html>"), CallError::Unclear { .. }));
}

#[test]
fn the_list_asks_in_utc_and_survives_an_odd_entry() {
    let request = shop().list(1_772_355_600_000, Some("abc+/=")).unwrap();
    assert_eq!(
        request.uri(),
        "https://api.yookassa.ru/v3/payments?limit=100&created_at.gte=2026-03-01T09%3A00%3A00Z&cursor=abc%2B%2F%3D"
    );
    let odd = PAYMENT.replace("RUB", "DOUBLOON");
    let body = format!(r#"{{"type":"list","items":[{odd},{PAYMENT}],"next_cursor":"n1"}}"#);
    let page = shop().listed(&answer(200, &body)).unwrap();
    assert_eq!((page.items.len(), page.unreadable.len(), page.next.as_deref()), (1, 1, Some("n1")));
    assert!(shop().listed(&answer(200, "{}")).is_err(), "an answer without a list is not an empty list");
}

#[test]
fn capture_and_cancel_check_the_id() {
    let capture = shop().capture(ID, "cap_1").unwrap();
    assert_eq!(capture.uri().path(), format!("/v3/payments/{ID}/capture"));
    assert_eq!(capture.body(), b"{}");
    assert_eq!(shop().cancel(ID, "can_1").unwrap().uri().path(), format!("/v3/payments/{ID}/cancel"));
    assert!(shop().capture("../refunds", "cap_1").is_err());
    assert!(shop().ask(&PaymentRef::ProviderId("a/b".into())).is_err());
    assert!(shop().ask(&PaymentRef::Ours("pay_1".into())).is_err());
}

#[test]
fn a_refund_is_keyed_and_read_back() {
    let request = shop().refund(&new_refund()).unwrap();
    assert_eq!(request.uri().path(), "/v3/refunds");
    assert_eq!(request.headers()["Idempotence-Key"], "ref_1");
    let expected =
        format!(r#"{{"payment_id":"{ID}","amount":{{"value":"100.00","currency":"RUB"}},"description":"Sold out"}}"#);
    assert_eq!(String::from_utf8(request.into_body()).unwrap(), expected);

    let body = format!(
        r#"{{"id":"2d8f2c10-0015","payment_id":"{ID}","status":"canceled","amount":{{"value":"100.00","currency":"RUB"}},"cancellation_details":{{"party":"yoo_money","reason":"insufficient_funds"}}}}"#
    );
    let seen = shop().refunded(&new_refund(), &answer(200, &body)).unwrap();
    assert_eq!(seen.state, RefundState::Cancelled);
    assert_eq!(seen.reason.as_deref(), Some("yoo_money: insufficient_funds"));
    assert_eq!(shop().asked_refund(&answer(200, &body)), Ok(Some(seen)));

    let more = NewRefund { amount: rub("200.00"), ..new_refund() };
    assert!(matches!(shop().refunded(&more, &answer(200, &body)), Err(CallError::Foreign { .. })));
}

#[test]
fn refunds_are_listed_by_their_moment_or_by_their_payment() {
    let since = shop().list_refunds(WhichRefunds::Since(1_772_355_600_000), None).unwrap();
    assert_eq!(since.uri(), "https://api.yookassa.ru/v3/refunds?limit=100&created_at.gte=2026-03-01T09%3A00%3A00Z");
    let of = shop().list_refunds(WhichRefunds::Of(ID), Some("n=1")).unwrap();
    assert_eq!(
        of.uri().to_string(),
        format!("https://api.yookassa.ru/v3/refunds?limit=100&payment_id={ID}&cursor=n%3D1")
    );
    assert!(shop().list_refunds(WhichRefunds::Of("../payments"), None).is_err());

    let one = format!(
        r#"{{"id":"r-1","payment_id":"{ID}","status":"succeeded","amount":{{"value":"100.00","currency":"RUB"}}}}"#
    );
    let body = format!(r#"{{"type":"list","items":[{{"id":"odd"}},{one}],"next_cursor":"n1"}}"#);
    let page = shop().listed_refunds(&answer(200, &body)).unwrap();
    assert_eq!((page.items.len(), page.unreadable.len(), page.next.as_deref()), (1, 1, Some("n1")));
    assert_eq!((page.items[0].refund_id.as_str(), page.items[0].amount), ("r-1", Some(rub("100.00"))));
    assert!(shop().listed_refunds(&answer(200, "{}")).is_err(), "an answer without a list is not an empty list");
}

#[test]
fn the_probe_names_the_shop_and_warns_of_a_test_one() {
    assert_eq!(shop().probe().uri().path(), "/v3/me");
    let test = answer(200, r#"{"account_id":"100500","test":true,"fiscalization":{"enabled":false}}"#);
    assert!(shop().probed(&test).unwrap().contains("test shop"));
    let foreign = answer(200, r#"{"account_id":"1","test":false}"#);
    assert!(matches!(shop().probed(&foreign), Err(CallError::Foreign { .. })));
}
