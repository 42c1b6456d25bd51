use semel_money::{Amount, Currency};

use super::*;
use crate::heleket::DEFAULT_API_URL;

const UUID: &str = "c3a1f0de-7b52-4e0a-9a44-1f6d2b8e9c01";
const INVOICE: &str = r#"{"uuid":"c3a1f0de-7b52-4e0a-9a44-1f6d2b8e9c01","order_id":"pay_1","amount":"499.00","payment_amount":null,
 "payer_amount":null,"payer_currency":null,"currency":"RUB","merchant_amount":null,"network":null,"address":null,"from":null,"txid":null,
 "payment_status":"check","status":"check","url":"https://pay.heleket.com/pay/c3a1","expired_at":1772355600,"is_final":false}"#;

fn merchant() -> Heleket {
    Heleket::new("5d0f2c7e-91ab", "pay_key", Some("out_key"), DEFAULT_API_URL).unwrap()
}

fn amount(text: &str, currency: Currency) -> Amount {
    Amount::parse(text, currency).unwrap()
}

fn answer(status: u16, body: &str) -> Response {
    http::Response::builder().status(status).body(body.as_bytes().to_vec()).unwrap()
}

fn ok(result: &str) -> Response {
    answer(200, &format!(r#"{{"state":0,"result":{result}}}"#))
}

fn new_payment() -> NewPayment {
    NewPayment {
        payment_id: "pay_1".into(),
        order_id: "ord_1".into(),
        key: "pay_1".into(),
        amount: amount("499.00", Currency::RUB),
        description: "Order 42".into(),
        return_url: None,
        callback_url: Some("https://pay.example.com/webhook/heleket".into()),
        lifetime_s: 1800,
        customer_email: None,
        customer_phone: None,
        lines: vec![],
    }
}

fn new_refund() -> NewRefund {
    NewRefund {
        provider_id: UUID.into(),
        amount: amount("3.00", Currency::USDT),
        key: "ref_1".into(),
        reason: "Sold out".into(),
        address: Some("TBackAddress".into()),
        payer: None,
        customer_email: None,
        customer_phone: None,
        lines: vec![],
    }
}

#[test]
fn the_signature_covers_the_very_bytes_that_go_out() {
    let request = merchant().create(&new_payment()).unwrap();
    assert_eq!(request.uri(), "https://api.heleket.com/v1/payment");
    let expected = r#"{"amount":"499.00","currency":"RUB","order_id":"pay_1","url_callback":"https://pay.example.com/webhook/heleket","lifetime":1800,"is_payment_multiple":false}"#;
    assert_eq!(request.body(), expected.as_bytes());
    assert_eq!(request.headers()["merchant"], "5d0f2c7e-91ab");
    assert_eq!(request.headers()["sign"], sign::sign(expected.as_bytes(), "pay_key").as_str());
    assert!(!format!("{:?}", merchant()).contains("pay_key"));
}

#[test]
fn lifetimes_stay_within_what_the_provider_takes() {
    for (asked, sent) in [(1, 300), (1800, 1800), (1_000_000, 43_200)] {
        let request = merchant().create(&NewPayment { lifetime_s: asked, ..new_payment() }).unwrap();
        let body = String::from_utf8(request.into_body()).unwrap();
        assert!(body.contains(&format!(r#""lifetime":{sent},"#)), "{body}");
    }
}

#[test]
fn our_id_must_be_fit_for_an_order_id() {
    for wrong in ["", "pay/1", "оплата", "p".repeat(129).as_str()] {
        assert!(merchant().create(&NewPayment { payment_id: wrong.into(), ..new_payment() }).is_err(), "{wrong}");
        assert!(merchant().ask(&PaymentRef::Ours(wrong.into())).is_err(), "{wrong}");
    }
}

#[test]
fn the_created_invoice_must_be_ours() {
    let created = merchant().created(&new_payment(), &ok(INVOICE)).unwrap();
    assert_eq!(created.provider_id, UUID);
    assert_eq!(created.expires_at_ms, Some(1_772_355_600_000));
    assert_eq!(created.seen_state, SeenState::Open);
    let dearer = NewPayment { amount: amount("4990.00", Currency::RUB), ..new_payment() };
    let error = merchant().created(&dearer, &ok(INVOICE)).unwrap_err();
    assert!(matches!(error, CallError::Foreign { what: "amount", .. }), "an older invoice under the same id: {error}");
}

#[test]
fn a_payment_is_asked_by_one_id_only() {
    let by_uuid = merchant().ask(&PaymentRef::ProviderId(UUID.into())).unwrap();
    assert_eq!(by_uuid.body(), format!(r#"{{"uuid":"{UUID}"}}"#).as_bytes());
    let by_ours = merchant().ask(&PaymentRef::Ours("pay_1".into())).unwrap();
    assert_eq!(by_ours.body(), br#"{"order_id":"pay_1"}"#);
    assert_eq!(by_ours.uri().path(), "/v1/payment/info");
}

#[test]
fn each_status_has_its_meaning() {
    let table = [
        ("check", SeenState::Open, false),
        ("process", SeenState::Processing, false),
        ("confirm_check", SeenState::Processing, false),
        ("wrong_amount_waiting", SeenState::ShortOpen, false),
        ("paid", SeenState::Paid, true),
        ("paid_over", SeenState::PaidOver, true),
        ("wrong_amount", SeenState::Short, true),
        ("cancel", SeenState::Cancelled, true),
        ("fail", SeenState::Failed, true),
        ("system_fail", SeenState::Failed, true),
        ("locked", SeenState::Locked, false),
        ("refund_process", SeenState::RefundPending, false),
        ("refund_paid", SeenState::Refunded, true),
        ("refund_fail", SeenState::RefundFailed, true),
        ("brand_new", SeenState::Unknown, false),
    ];
    for (status, state, is_final) in table {
        let body = INVOICE.replace("check", status).replace(r#","is_final":false"#, "");
        let seen = merchant().asked(&ok(&body)).unwrap().unwrap();
        assert_eq!((seen.state, seen.is_final), (state, is_final), "{status}");
        let explicit = INVOICE.replace("check", status).replace("false", if is_final { "false" } else { "true" });
        let seen = merchant().asked(&ok(&explicit)).unwrap().unwrap();
        assert_eq!(seen.is_final, !is_final, "{status}: what the answer says wins");
    }
}

#[test]
fn a_surplus_is_read_in_the_invoices_currency() {
    let body = r#"{"uuid":"c3a1","order_id":"pay_1","amount":"3.00000000","payment_amount":"3.50000000","payer_amount":"3.00000000",
        "payer_currency":"USDT","currency":"USDT","status":"paid_over","is_final":true,"txid":"9b1f"}"#;
    let seen = merchant().asked(&ok(body)).unwrap().unwrap();
    assert_eq!(seen.price, amount("3", Currency::USDT));
    assert_eq!(seen.received, Some(amount("3.5", Currency::USDT)));
    assert_eq!(seen.transaction.as_deref(), Some("9b1f"));
}

#[test]
fn an_unknown_invoice_is_none() {
    assert_eq!(merchant().asked(&answer(200, r#"{"state":1,"message":"Payment was not found"}"#)), Ok(None));
    assert_eq!(merchant().asked(&answer(404, r#"{"state":1,"message":"Not found"}"#)), Ok(None));
    let field = r#"{"state":1,"errors":{"order_id":["validation.exists"]}}"#;
    assert_eq!(merchant().asked(&answer(422, field)), Ok(None));
    assert!(matches!(merchant().asked(&answer(404, "<html>Not found")), Err(CallError::Unclear { .. })));
}

#[test]
fn errors_say_what_may_be_done_next() {
    let created = |status, body| merchant().created(&new_payment(), &answer(status, body)).unwrap_err();
    let required = r#"{"state":1,"errors":{"amount":["validation.required"]}}"#;
    let expected =
        CallError::Refused { status: 422, code: String::new(), text: "amount: validation.required".to_string() };
    assert_eq!(created(422, required), expected);
    let duplicate = r#"{"state":1,"errors":{"order_id":["validation.unique"]}}"#;
    assert!(matches!(created(422, duplicate), CallError::Unclear { .. }), "ours may be open: ask");
    assert!(matches!(created(200, r#"{"state":1,"message":"Wrong key"}"#), CallError::Misconfigured { .. }));
    assert!(matches!(created(200, r#"{"state":1,"message":"Server error, #1"}"#), CallError::Unclear { .. }));
    assert!(matches!(created(401, r#"{"state":1,"message":"Invalid Sign"}"#), CallError::Misconfigured { .. }));
    assert!(matches!(created(500, "{}"), CallError::Unclear { .. }));
    assert!(matches!(created(200, "[]"), CallError::Unclear { .. }));
    let mut busy = answer(429, "{}");
    busy.headers_mut().insert("retry-after", http::HeaderValue::from_static("7"));
    assert_eq!(merchant().created(&new_payment(), &busy), Err(CallError::Throttled { after_ms: Some(7000) }));
}

#[test]
fn the_list_asks_in_the_providers_time() {
    let request = merchant().list(1_772_355_600_000, Some("a=b")).unwrap();
    assert_eq!(request.uri(), "https://api.heleket.com/v1/payment/list?cursor=a%3Db");
    assert_eq!(request.body(), br#"{"date_from":"2026-03-01 12:00:00"}"#);
    let body = format!(r#"{{"items":[{INVOICE},{{"uuid":"odd"}}],"paginate":{{"nextCursor":"n1","hasPages":true}}}}"#);
    let page = merchant().listed(&ok(&body)).unwrap();
    assert_eq!((page.items.len(), page.unreadable.len(), page.next.as_deref()), (1, 1, Some("n1")));
    let last = format!(r#"{{"items":[{INVOICE}],"paginate":{{"nextCursor":null}}}}"#);
    assert_eq!(merchant().listed(&ok(&last)).unwrap().next, None);
}

#[test]
fn a_refund_is_signed_by_the_payout_key_or_not_made() {
    let request = merchant().refund(&new_refund()).unwrap();
    let expected = format!(r#"{{"uuid":"{UUID}","address":"TBackAddress","is_subtract":true,"amount":"3.000000"}}"#);
    assert_eq!(request.body(), expected.as_bytes());
    assert_eq!(request.headers()["sign"], sign::sign(expected.as_bytes(), "out_key").as_str());

    let impossible = [
        merchant().refund(&NewRefund { address: None, ..new_refund() }),
        merchant().refund(&NewRefund { amount: amount("499", Currency::RUB), ..new_refund() }),
        Heleket { payout_key: None, ..merchant() }.refund(&new_refund()),
    ];
    for refusal in impossible {
        let refusal = refusal.unwrap_err();
        assert!(refusal.text.contains("offer the balance"), "{refusal}");
    }
}

#[test]
fn a_refund_is_followed_on_the_invoice() {
    let taken = merchant().refunded(&new_refund(), &ok("[]")).unwrap();
    assert_eq!((taken.state, taken.refund_id.as_str()), (RefundState::Pending, UUID));
    for (status, state) in [
        ("refund_process", Some(RefundState::Pending)),
        ("refund_paid", Some(RefundState::Succeeded)),
        ("refund_fail", Some(RefundState::Cancelled)),
        ("paid", None),
    ] {
        let body = INVOICE.replace("check", status);
        let seen = merchant().asked_refund(&ok(&body)).unwrap();
        assert_eq!(seen.as_ref().map(|refund| refund.state), state, "{status}");
        assert!(seen.is_none_or(|refund| refund.amount.is_none()), "{status}: no answer names a sum");
    }
}

#[test]
fn the_probe_signs_an_empty_body() {
    let request = merchant().probe();
    assert_eq!(request.uri().path(), "/v1/balance");
    assert!(request.body().is_empty());
    assert_eq!(request.headers()["sign"], sign::sign(b"", "pay_key").as_str());
    assert!(merchant().probed(&ok("[]")).unwrap().contains("5d0f2c7e-91ab"));
}
