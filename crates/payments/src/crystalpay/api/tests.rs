use semel_money::Currency;

use super::*;
use crate::crystalpay::DEFAULT_API_URL;

const INVOICE: &str = r#"{"error":false,"errors":[],"id":"700100200_aBcDeFgHiJ","url":"https://pay.crystalpay.io/?i=700100200_aBcDeFgHiJ",
 "state":"payed","type":"purchase","method":"USDTTRC","rub_amount":"499","currency":"RUB","amount":"499","amount_currency":"RUB",
 "initial_amount":"499","remaining_amount":"0","balance_amount":"489.02","commission_amount":"9.98","extra":"pay_1"}"#;

fn desk() -> CrystalPay {
    CrystalPay::new("shopkassa", "cp_secret", "cp_salt", DEFAULT_API_URL).unwrap()
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
        amount: rub("499.10"),
        description: "Order 42".into(),
        return_url: Some("https://t.me/example_shop_bot".into()),
        callback_url: Some("https://pay.example.com/webhook/crystalpay".into()),
        lifetime_s: 1790,
        customer_email: None,
        customer_phone: None,
        lines: vec![],
    }
}

#[test]
fn creating_sends_the_literal_amount_and_minutes() {
    let request = desk().create(&new_payment()).unwrap();
    assert_eq!(request.uri(), "https://api.crystalpay.io/v3/invoice/create/");
    let expected = r#"{"auth_login":"shopkassa","auth_secret":"cp_secret","amount":499.10,"type":"purchase","lifetime":30,"currency":"RUB","description":"Order 42","extra":"pay_1","redirect_url":"https://t.me/example_shop_bot","callback_url":"https://pay.example.com/webhook/crystalpay"}"#;
    assert_eq!(String::from_utf8(request.into_body()).unwrap(), expected);
}

#[test]
fn a_lifetime_is_rounded_up_to_minutes() {
    for (seconds, minutes) in [(0, 1), (1, 1), (60, 1), (61, 2), (3600, 60), (u32::MAX, MOST_MINUTES)] {
        let request = desk().create(&NewPayment { lifetime_s: seconds, ..new_payment() }).unwrap();
        let body = String::from_utf8(request.into_body()).unwrap();
        assert!(body.contains(&format!(r#""lifetime":{minutes},"#)), "{seconds}: {body}");
    }
}

#[test]
fn the_created_invoice_is_read() {
    let body = r#"{"error":false,"errors":[],"id":"700100200_aBc","url":"https://pay.crystalpay.io/?i=1","type":"purchase","rub_amount":499}"#;
    let created = desk().created(&answer(200, body)).unwrap();
    assert_eq!(created.provider_id, "700100200_aBc");
    assert_eq!(created.seen_state, SeenState::Open);
    assert!(matches!(desk().created(&answer(200, r#"{"error":false,"id":7}"#)), Err(CallError::Unclear { .. })));
}

#[test]
fn each_state_has_its_meaning() {
    let table = [
        ("notpayed", SeenState::Open, false),
        ("processing", SeenState::Processing, false),
        ("wrongamount", SeenState::Short, true),
        ("failed", SeenState::Failed, true),
        ("payed", SeenState::Paid, true),
        ("unavailable", SeenState::Cancelled, true),
        ("brandnew", SeenState::Unknown, false),
    ];
    for (status, state, is_final) in table {
        let seen = desk().asked(&answer(200, &INVOICE.replace("payed", status))).unwrap().unwrap();
        assert_eq!((seen.state, seen.is_final), (state, is_final), "{status}");
        let received = (state == SeenState::Paid).then(|| rub("499"));
        assert_eq!((seen.price, seen.received), (rub("499"), received), "{status}");
        assert_eq!(seen.ours.as_deref(), Some("pay_1"));
    }
}

#[test]
fn amounts_may_be_text_or_numbers_and_stay_exact() {
    let numbers = INVOICE.replace(r#""amount":"499""#, r#""amount":499.10"#);
    let numbers = numbers.replace(r#""initial_amount":"499""#, r#""initial_amount":499.10"#);
    let seen = desk().asked(&answer(200, &numbers)).unwrap().unwrap();
    assert_eq!((seen.price, seen.received), (rub("499.10"), Some(rub("499.10"))));

    let coin = INVOICE.replace(r#""amount_currency":"RUB""#, r#""amount_currency":"USDT""#);
    let seen = desk().asked(&answer(200, &coin)).unwrap().unwrap();
    assert_eq!(seen.received, Some(rub("499")), "another currency: paid means the price");
}

#[test]
fn errors_with_status_200_say_what_may_be_done_next() {
    let error = |text: &str| {
        let body = format!(r#"{{"error":true,"errors":["{text}"]}}"#);
        desk().created(&answer(200, &body)).unwrap_err()
    };
    assert!(matches!(error("`amount` field is required"), CallError::Refused { status: 200, .. }));
    assert!(matches!(error("Wrong auth_login or auth_secret"), CallError::Misconfigured { .. }));
    assert!(matches!(error("Too many requests"), CallError::Throttled { after_ms: None }));
    assert!(matches!(desk().created(&answer(502, "<html>")), Err(CallError::Unclear { .. })));
    assert!(matches!(desk().created(&answer(200, "<html>")), Err(CallError::Unclear { .. })));
    assert!(matches!(desk().created(&answer(200, "{}")), Err(CallError::Unclear { .. })));
    assert!(matches!(desk().created(&answer(429, "")), Err(CallError::Throttled { .. })));
}

#[test]
fn an_unknown_invoice_is_none() {
    let unknown = r#"{"error":true,"errors":["Invoice not found"]}"#;
    assert_eq!(desk().asked(&answer(200, unknown)), Ok(None));
}

#[test]
fn an_invoice_is_asked_by_the_providers_id_only() {
    let request = desk().ask(&PaymentRef::ProviderId("700100200_aBc".into())).unwrap();
    assert_eq!(request.uri().path(), "/v3/invoice/info/");
    assert_eq!(request.body(), br#"{"auth_login":"shopkassa","auth_secret":"cp_secret","id":"700100200_aBc"}"#);
    assert!(desk().ask(&PaymentRef::ProviderId("../me".into())).is_err());
    assert!(desk().ask(&PaymentRef::Ours("pay_1".into())).is_err());
    assert_eq!(desk().probe().uri().path(), "/v3/me/info/");
    let me = answer(200, r#"{"error":false,"errors":[],"name":"shop"}"#);
    assert!(desk().probed(&me).unwrap().contains("shopkassa"));
}
