use super::*;

fn bot() -> Stars {
    Stars::new("123456789:AAE-test_token_for_offline_use", "https://api.telegram.org").unwrap()
}

fn answer(status: u16, body: &str) -> Response {
    http::Response::builder().status(status).body(body.as_bytes().to_vec()).unwrap()
}

fn new_refund() -> NewRefund {
    NewRefund {
        provider_id: "stxCharge1".into(),
        amount: Amount::new(278, Currency::XTR),
        key: "ref_1".into(),
        reason: "asked for".into(),
        address: None,
        payer: Some(42),
        customer_email: None,
        customer_phone: None,
        lines: vec![],
    }
}

const LIST: &str = r#"{"ok":true,"result":{"transactions":[
    {"id":"stxOne","amount":278,"date":1772355600,"source":{"type":"user","transaction_type":"invoice_payment",
        "user":{"id":42,"is_bot":false,"first_name":"A"},"invoice_payload":"pay_1"}},
    {"id":"wd1","amount":1000,"date":1772355601,"receiver":{"type":"fragment"}},
    {"id":"gift1","amount":15,"date":1772355602,"receiver":{"type":"user","transaction_type":"gift_purchase","user":{"id":42}}},
    {"id":"odd","amount":"many","date":1772355603,"source":{"type":"user","user":{"id":42}}},
    {"id":"stxOne","amount":278,"date":1772355700,"receiver":{"type":"user","transaction_type":"invoice_payment",
        "user":{"id":42,"is_bot":false,"first_name":"A"},"invoice_payload":"pay_1"}},
    {"id":"stxTwo","amount":5,"date":1772355800,"source":{"type":"user","user":{"id":7},"invoice_payload":"pay_2"}}]}}"#;

#[test]
fn the_list_is_read_by_place_and_an_odd_entry_hides_nothing() {
    let request = bot().transactions(200, 1000);
    assert!(request.uri().path().ends_with("/getStarTransactions"));
    assert_eq!(request.body(), br#"{"offset":200,"limit":100}"#);
    let page = bot().page(&answer(200, LIST)).unwrap();
    assert_eq!((page.count, page.moves.len(), page.unreadable.len()), (6, 3, 1));
    assert_eq!(page.oldest_ms, Some(1_772_355_600_000));
    assert_eq!(page.moves[0].payload.as_deref(), Some("pay_1"));
    assert_eq!((page.moves[2].person, page.moves[2].way), (7, StarWay::In));
}

#[test]
fn a_charge_that_went_back_is_one_payment_with_its_refund() {
    let page = bot().page(&answer(200, LIST)).unwrap();
    let all = seen_all(&page.moves);
    assert_eq!(all.iter().map(|one| one.provider_id.as_str()).collect::<Vec<_>>(), ["stxOne", "stxTwo"]);
    let back = &all[0];
    assert_eq!((back.state, back.price, back.refunded), (SeenState::Refunded, back.price, Some(back.price)));
    let refund = back.refund().unwrap();
    assert_eq!((refund.refund_id.as_str(), refund.amount), ("stxOne", Some(back.price)));
    assert_eq!((all[1].state, all[1].ours.as_deref()), (SeenState::Paid, Some("pay_2")));
    assert_eq!(seen(&page.moves, "gift1"), None);
}

#[test]
fn a_refund_that_was_made_before_is_made() {
    let request = bot().refund(&new_refund()).unwrap();
    assert_eq!(request.body(), br#"{"user_id":42,"telegram_payment_charge_id":"stxCharge1"}"#);
    let done = bot().refunded(&new_refund(), &answer(200, r#"{"ok":true,"result":true}"#)).unwrap();
    let again = r#"{"ok":false,"error_code":400,"description":"Bad Request: CHARGE_ALREADY_REFUNDED"}"#;
    assert_eq!(bot().refunded(&new_refund(), &answer(400, again)).unwrap(), done);
    let unknown = r#"{"ok":false,"error_code":400,"description":"Bad Request: CHARGE_ID_INVALID"}"#;
    assert!(matches!(bot().refunded(&new_refund(), &answer(400, unknown)), Err(CallError::Refused { .. })));
    assert!(matches!(bot().refunded(&new_refund(), &answer(502, "<html>")), Err(CallError::Unclear { .. })));
    assert!(bot().refund(&NewRefund { payer: None, ..new_refund() }).is_err());
    assert!(bot().refund(&NewRefund { amount: Amount::new(500, Currency::RUB), ..new_refund() }).is_err());
}

#[test]
fn a_silence_and_a_revoked_token_are_told_apart() {
    let slow = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 7","parameters":{"retry_after":7}}"#;
    assert_eq!(bot().page(&answer(429, slow)), Err(CallError::Throttled { after_ms: Some(7_000) }));
    let gone = r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#;
    assert!(matches!(bot().page(&answer(401, gone)), Err(CallError::Misconfigured { .. })));
    assert!(matches!(bot().page(&answer(200, "[]")), Err(CallError::Unclear { .. })));
}
