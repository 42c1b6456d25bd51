//! Faults: what a client sees, and what happened behind its back.

use http::Method;
use semel_sandbox::{Fault, Options, Provider, Target};
use serde_json::{Value, json};

use crate::support::{Shop, order};

fn create() -> Target {
    Target::Api(Provider::Yookassa, "POST /payments".to_owned())
}

#[tokio::test]
async fn an_answer_cut_off_after_the_work_is_found_again_by_its_key() {
    let shop = Shop::with(Options::default()).await;
    shop.sandbox.fault(create(), Fault::CutAfter, Some(1));
    let lost = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await;
    assert!(lost.is_err(), "the client sees a broken connection, no status: {lost:?}");
    let made = shop.sandbox.find_payment_by_ours("pay_1").expect("the payment was made");
    let (status, found) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    assert_eq!((status, found["id"].as_str()), (200, Some(made.id.as_str())));
    assert_eq!(shop.sandbox.payments(Provider::Yookassa).len(), 1);
}

#[tokio::test]
async fn a_connection_cut_before_leaves_nothing_behind() {
    let shop = Shop::with(Options::default()).await;
    shop.sandbox.fault(create(), Fault::CutBefore, Some(1));
    assert!(shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.is_err());
    assert!(shop.sandbox.payments(Provider::Yookassa).is_empty());
}

#[tokio::test]
async fn refusals_speak_the_providers_language() {
    let shop = Shop::with(Options::default()).await;
    let body = order("pay_1");
    shop.sandbox.fault(create(), Fault::TooMany { retry_after: 2 }, Some(1));
    let (status, answer) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&body)).await.unwrap();
    assert_eq!((status, answer["code"].as_str()), (429, Some("too_many_requests")));
    assert_eq!(answer["retry_after"], 2000, "milliseconds");
    let standing = shop.sandbox.fault(create(), Fault::Status(500), None);
    for _ in 0..2 {
        let (status, answer) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&body)).await.unwrap();
        assert_eq!((status, answer["type"].as_str()), (500, Some("error")));
    }
    shop.sandbox.lift_fault(standing);
    shop.sandbox.fault(create(), Fault::Garbage, Some(1));
    let (status, answer) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&body)).await.unwrap();
    assert_eq!((status, answer), (200, Value::Null), "unreadable, but done");
    assert_eq!(shop.sandbox.payments(Provider::Yookassa).len(), 1);
}

#[tokio::test]
async fn a_lost_answer_of_telegram_stands_in_the_truth() {
    let shop = Shop::with(Options::default()).await;
    let target = || Target::Telegram("sendMessage".to_owned());
    let body = json!({ "chat_id": 42, "text": "KEY-1" });
    shop.sandbox.fault(target(), Fault::CutAfter, Some(1));
    assert!(shop.telegram("sendMessage", "msg_1", &body).await.is_err());
    shop.sandbox.fault(target(), Fault::CutBefore, Some(1));
    assert!(shop.telegram("sendMessage", "msg_1", &body).await.is_err());
    shop.sandbox.fault(target(), Fault::TooMany { retry_after: 3 }, Some(1));
    assert_eq!(shop.telegram("sendMessage", "msg_1", &body).await.unwrap().0, 429);
    assert_eq!(shop.telegram("sendMessage", "msg_1", &body).await.unwrap().0, 200);

    let rows = shop.sandbox.truth().gt_tg;
    let told: Vec<(bool, bool, i64)> =
        rows.iter().map(|row| (row.accepted, row.answer_lost, row.retry_after)).collect();
    assert_eq!(told, [(true, true, 0), (false, true, 0), (false, false, 3), (true, false, 0)]);
    assert_eq!(shop.sandbox.chat(42).len(), 2);
}

#[tokio::test]
async fn the_truth_file_has_a_line_for_each_row_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let shop = Shop::with(Options { truth_file: Some(path.clone()), ..Options::default() }).await;
    let (_, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    shop.sandbox.pay(Provider::Yookassa, made["id"].as_str().unwrap()).unwrap();
    shop.telegram("sendMessage", "msg_1", &json!({ "chat_id": 42, "text": "hi" })).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let truth = shop.sandbox.truth();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], json!({ "table": "gt_pay", "row": truth.gt_pay[0] }));
    assert_eq!(lines[1], json!({ "table": "gt_tg", "row": truth.gt_tg[0] }));
}
