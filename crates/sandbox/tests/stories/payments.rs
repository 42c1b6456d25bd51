//! Payments, from the shop's request to the webhook and the ground truth.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use md5::{Digest as _, Md5};
use semel_sandbox::{
    CRYSTALPAY_SALT, Delivery, HELEKET_PAYMENT_KEY, HELEKET_PAYOUT_KEY, HookKnobs, HookState, Options, PayError,
    Provider, YOOKASSA_SHOP_ID,
};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::support::{Receiver, Shop, order};

#[tokio::test]
async fn a_yookassa_payment_is_made_paid_and_told() {
    let mut receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let (status, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    assert_eq!((status, made["status"].as_str()), (200, Some("pending")));
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 36);
    let page = made["confirmation"]["confirmation_url"].as_str().unwrap();
    assert_eq!(page, format!("{}/pay/yookassa/{id}", shop.sandbox.url()));

    let paid = shop.sandbox.pay(Provider::Yookassa, id).unwrap();
    assert_eq!((paid.ours.as_deref(), paid.captured), (Some("pay_1"), 49_900));
    assert!(receiver.is_empty(), "nothing is sent before the story says so");
    let outcomes = shop.sandbox.send_all().await;
    assert_eq!(outcomes[0].status, Some(200));

    let got = receiver.next().await;
    assert_eq!(got.headers["x-forwarded-for"], "185.71.76.5");
    let told = got.json();
    assert_eq!((told["type"].as_str(), told["event"].as_str()), (Some("notification"), Some("payment.succeeded")));
    let (_, asked) = shop.yookassa(Method::GET, &format!("/payments/{id}"), "", None).await.unwrap();
    assert_eq!(told["object"], asked);
    assert_eq!(asked["amount"], json!({ "value": "499.00", "currency": "RUB" }));
    assert_eq!((asked["paid"].as_bool(), asked["test"].as_bool()), (Some(true), Some(false)));

    let truth = shop.sandbox.truth();
    assert_eq!(truth.gt_hook.len(), 1);
    let row = &truth.gt_hook[0];
    assert_eq!((row.merchant.as_str(), row.status), (YOOKASSA_SHOP_ID, 200));
    assert_eq!(row.event_id, format!("yookassa:payment.succeeded:{id}"));
    assert_eq!(row.body_hash, hex::encode(sha2::Sha256::digest(&got.body)));
    assert!(row.answered_at >= row.sent_at);
    assert_eq!((truth.gt_pay[0].captured, truth.gt_pay[0].refunded), (49_900, 0));
    assert!(shop.sandbox.pending_hooks().is_empty());
    shop.sandbox.stop().await;
}

#[tokio::test]
async fn one_idempotence_key_makes_one_payment() {
    let shop = Shop::with(Options::default()).await;
    let first = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    let second = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    assert_eq!(first, second);
    let (status, refused) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_2"))).await.unwrap();
    assert_eq!((status, refused["code"].as_str()), (400, Some("invalid_request")));
    assert_eq!(refused["description"], "Idempotence key duplicated");
    assert_eq!(shop.sandbox.payments(Provider::Yookassa).len(), 1);
    let (status, _) = shop.yookassa(Method::POST, "/payments", "", Some(&order("pay_3"))).await.unwrap();
    assert_eq!(status, 400, "a key is needed");
}

#[tokio::test]
async fn refunds_end_at_the_captured_sum() {
    let mut receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let (_, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    let id = made["id"].as_str().unwrap();
    shop.sandbox.pay(Provider::Yookassa, id).unwrap();
    let part = |value: &str| json!({ "payment_id": id, "amount": { "value": value, "currency": "RUB" } });
    let (status, refund) = shop.yookassa(Method::POST, "/refunds", "r-1", Some(&part("100.00"))).await.unwrap();
    assert_eq!((status, refund["status"].as_str()), (200, Some("succeeded")));
    let (status, _) = shop.yookassa(Method::POST, "/refunds", "r-2", Some(&part("400.00"))).await.unwrap();
    assert_eq!(status, 400);
    let (status, _) = shop.yookassa(Method::POST, "/refunds", "r-3", Some(&part("399.00"))).await.unwrap();
    assert_eq!(status, 200);
    let row = &shop.sandbox.truth().gt_pay[0];
    assert_eq!((row.captured, row.refunded), (49_900, 49_900));

    shop.sandbox.send_all().await;
    assert_eq!(receiver.next().await.json()["event"], "payment.succeeded");
    let told = receiver.next().await.json();
    assert_eq!((told["event"].as_str(), &told["object"]), (Some("refund.succeeded"), &refund));
    let refund_id = refund["id"].as_str().unwrap();
    let (_, asked) = shop.yookassa(Method::GET, &format!("/refunds/{refund_id}"), "", None).await.unwrap();
    assert_eq!(asked, refund);
}

#[tokio::test]
async fn held_money_is_captured_in_part_or_let_go() {
    let shop = Shop::with(Options::default()).await;
    let (_, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    let id = made["id"].as_str().unwrap();
    let capture = format!("/payments/{id}/capture");
    let part = json!({ "amount": { "value": "400.00", "currency": "RUB" } });
    let (status, _) = shop.yookassa(Method::POST, &capture, "c-1", Some(&part)).await.unwrap();
    assert_eq!(status, 400, "nothing is on hold yet");
    shop.sandbox.hold(Provider::Yookassa, id).unwrap();
    assert!(shop.sandbox.truth().gt_pay.is_empty(), "held money is not captured");
    let (_, captured) = shop.yookassa(Method::POST, &capture, "c-2", Some(&part)).await.unwrap();
    assert_eq!(
        (captured["status"].as_str(), captured["amount"]["value"].as_str()),
        (Some("succeeded"), Some("400.00"))
    );
    assert_eq!(shop.sandbox.truth().gt_pay[0].captured, 40_000);
    let over = shop.sandbox.decline(Provider::Yookassa, id);
    assert_eq!(over, Err(PayError::Over { id: id.to_owned(), status: "succeeded".to_owned() }));
}

#[tokio::test]
async fn lists_come_newest_first_by_pages() {
    let shop = Shop::with(Options::default()).await;
    for number in 0..5 {
        let ours = format!("pay_{number}");
        shop.yookassa(Method::POST, "/payments", &ours, Some(&order(&ours))).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut path = "/payments?limit=2&created_at.gte=2020-01-01T00:00:00.000Z".to_owned();
    loop {
        let (_, page) = shop.yookassa(Method::GET, &path, "", None).await.unwrap();
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["metadata"]["payment_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/payments?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["pay_4", "pay_3", "pay_2", "pay_1", "pay_0"]);
}

#[tokio::test]
async fn a_heleket_invoice_is_unique_by_order_and_its_callback_signed() {
    let mut receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let request = json!({
        "amount": "499.00", "currency": "RUB", "order_id": "pay_1", "url_callback": receiver.url,
        "is_payment_multiple": false, "additional_data": "Заказ/1",
    });
    let request = request.to_string();
    let (status, first) = shop.heleket("/v1/payment", HELEKET_PAYMENT_KEY, &request).await.unwrap();
    assert_eq!((status, first["state"].as_i64(), first["result"]["status"].as_str()), (200, Some(0), Some("check")));
    let (_, second) = shop.heleket("/v1/payment", HELEKET_PAYMENT_KEY, &request).await.unwrap();
    assert_eq!(first["result"]["uuid"], second["result"]["uuid"]);
    let (status, _) = shop.heleket("/v1/payment", HELEKET_PAYOUT_KEY, &request).await.unwrap();
    assert_eq!(status, 401, "the payout key opens no payments");

    let uuid = first["result"]["uuid"].as_str().unwrap();
    shop.sandbox.pay_amount(Provider::Heleket, uuid, "600").unwrap();
    shop.sandbox.send_all().await;
    let got = receiver.next().await;
    assert_eq!(got.headers["x-forwarded-for"], "31.133.220.8");
    let text = std::str::from_utf8(&got.body).unwrap();
    assert!(text.contains("\"additional_data\":\"Заказ\\/1\""), "as PHP prints: {text}");
    let (signed, sign) = text.rsplit_once(",\"sign\":\"").unwrap();
    let expected = Md5::digest(format!("{}{HELEKET_PAYMENT_KEY}", STANDARD.encode(format!("{signed}}}"))));
    assert_eq!(sign.trim_end_matches("\"}"), hex::encode(expected));

    let (_, asked) = shop.heleket("/v1/payment/info", HELEKET_PAYMENT_KEY, "{\"order_id\":\"pay_1\"}").await.unwrap();
    let told = got.json();
    for member in ["uuid", "order_id", "status", "payment_amount", "payer_currency", "txid", "is_final"] {
        assert_eq!(told[member], asked["result"][member], "{member}");
    }
    assert_eq!((told["status"].as_str(), told["payment_amount"].as_str()), (Some("paid_over"), Some("6.00000000")));
    let (_, list) = shop.heleket("/v1/payment/list", HELEKET_PAYMENT_KEY, "").await.unwrap();
    assert_eq!(list["result"]["items"][0]["uuid"], told["uuid"]);
    assert_eq!(list["result"]["paginate"]["nextCursor"], Value::Null);

    let refund = format!("{{\"uuid\":\"{uuid}\",\"address\":\"TXk9\",\"is_subtract\":true}}");
    let (status, _) = shop.heleket("/v1/payment/refund", HELEKET_PAYOUT_KEY, &refund).await.unwrap();
    assert_eq!(status, 200);
    let row = &shop.sandbox.truth().gt_pay[0];
    assert_eq!((row.currency.as_str(), row.captured, row.refunded), ("RUB", 60_000, 60_000));
}

#[tokio::test]
async fn a_crystalpay_callback_proves_the_id_only() {
    let mut receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let (status, refused) = shop.crystalpay("/invoice/create/", json!({ "type": "purchase" })).await.unwrap();
    assert_eq!((status, refused["error"].as_bool()), (200, Some(true)), "errors are HTTP 200 too");
    let request = json!({
        "amount": 499.5, "type": "purchase", "lifetime": 30, "extra": "pay_1", "callback_url": receiver.url,
    });
    let (_, made) = shop.crystalpay("/invoice/create/", request).await.unwrap();
    assert_eq!((made["error"].as_bool(), made["rub_amount"].as_str()), (Some(false), Some("499.5")));
    let id = made["id"].as_str().unwrap();
    assert_eq!(shop.sandbox.find_payment_by_ours("pay_1").unwrap().id, id);

    let ids = shop.sandbox.lie(Provider::CrystalPay, id, "payed").unwrap();
    shop.sandbox.send_hook(ids[0]).await;
    let lied = receiver.next().await.json();
    shop.sandbox.expire(Provider::CrystalPay, id).unwrap();
    shop.sandbox.pay(Provider::CrystalPay, id).unwrap();
    receiver.will_answer(&[204, 429]);
    shop.sandbox.send_all().await;
    let expired = receiver.next().await.json();
    let paid = receiver.next().await.json();
    let signature = hex::encode(Sha1::digest(format!("{id}:{CRYSTALPAY_SALT}")));
    for told in [&lied, &expired, &paid] {
        assert_eq!(told["signature"], json!(signature));
    }
    assert_eq!((lied["state"].as_str(), expired["state"].as_str()), (Some("payed"), Some("unavailable")));
    let (_, asked) = shop.crystalpay("/invoice/info", json!({ "id": id })).await.unwrap();
    assert_eq!((asked["state"].as_str(), asked["amount"].as_str()), (Some("payed"), Some("499.5")));
    assert_eq!(shop.sandbox.pending_hooks().len(), 1, "204 is no acknowledgement, 429 is one");
    assert_eq!(shop.sandbox.truth().gt_hook.len(), 3);
}

#[tokio::test]
async fn in_automatic_mode_a_webhook_is_repeated_until_acknowledged() {
    let mut receiver = Receiver::start().await;
    receiver.will_answer(&[500, 204]);
    let hook_url = Some(receiver.url.clone());
    let options =
        Options { mode: Delivery::Auto, time_scale: 1_000_000, yookassa_hook_url: hook_url, ..Options::default() };
    let shop = Shop::with(options).await;
    let (_, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    shop.sandbox.pay(Provider::Yookassa, made["id"].as_str().unwrap()).unwrap();
    let first = receiver.next().await;
    for _ in 0..2 {
        assert_eq!(receiver.next().await.body, first.body, "every attempt carries the same bytes");
    }
    let acknowledged = async {
        while shop.sandbox.hooks()[0].state != HookState::Delivered {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), acknowledged).await.expect("the third answer is taken");
    let statuses: Vec<u16> = shop.sandbox.truth().gt_hook.iter().map(|row| row.status).collect();
    assert_eq!(statuses, [500, 204, 200]);
    shop.sandbox.stop().await;
}

#[tokio::test]
async fn webhooks_are_doubled_lost_and_forged_on_request() {
    let mut receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let (_, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_1"))).await.unwrap();
    let id = made["id"].as_str().unwrap();
    let forwarded_for = Some("203.0.113.9".to_owned());
    shop.sandbox.set_hook_knobs(HookKnobs { duplicate: 1, forwarded_for, ..HookKnobs::default() });
    shop.sandbox.hold(Provider::Yookassa, id).unwrap();
    assert_eq!(shop.sandbox.pending_hooks().len(), 2);
    shop.sandbox.set_hook_knobs(HookKnobs { drop_percent: 100, ..HookKnobs::default() });
    shop.sandbox.pay(Provider::Yookassa, id).unwrap();
    assert_eq!(shop.sandbox.pending_hooks().len(), 2, "the second event is lost");

    let outcome = shop.sandbox.forge(Provider::Yookassa, "not even JSON", &[("X-Forwarded-For", "10.0.0.1")]).await;
    assert_eq!(outcome.status, Some(200));
    let forged = receiver.next().await;
    assert_eq!(
        (forged.body.as_ref(), &forged.headers["x-forwarded-for"]),
        (b"not even JSON".as_slice(), &"10.0.0.1".parse().unwrap())
    );
    assert!(shop.sandbox.truth().gt_hook.is_empty(), "the provider never said it");
}

#[tokio::test]
async fn a_customer_pays_on_the_page() {
    let receiver = Receiver::start().await;
    let shop = Shop::manual(&receiver).await;
    let (_, made) = shop.yookassa(Method::POST, "/payments", "key-1", Some(&order("pay_<b>"))).await.unwrap();
    let id = made["id"].as_str().unwrap();
    let path = format!("/pay/yookassa/{id}");
    let (status, page) = shop.get(&path).await;
    assert_eq!(status, 200);
    assert!(page.contains("499.00 RUB") && page.contains("value=\"pay\""));
    let form = shop.http.post(format!("{}{path}", shop.sandbox.url()));
    let form = form.header("Content-Type", "application/x-www-form-urlencoded").body("act=pay");
    let page = form.send().await.unwrap().text().await.unwrap();
    assert!(page.contains("succeeded"));
    let (status, board) = shop.get("/").await;
    assert_eq!(status, 200);
    assert!(board.contains("pay_&lt;b&gt;") && !board.contains("pay_<b>"));
    let (_, truth) = shop.get("/truth").await;
    let truth: Value = serde_json::from_str(&truth).unwrap();
    assert_eq!(truth["gt_pay"][0]["captured"], 49_900);
    assert_eq!((&truth["gt_rail"], &truth["gt_supplier"]), (&json!([]), &json!([])));
}
