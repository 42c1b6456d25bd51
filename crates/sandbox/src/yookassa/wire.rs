//! The objects and notices of YooKassa as they stand on the wire.

use bytes::Bytes;
use serde_json::{Value, json};

use super::PROVIDER;
use crate::options::Options;
use crate::outbox::Event;
use crate::payments::{Payment, Refund};
use crate::{amount, clock};

fn money(minor: i64, payment: &Payment) -> Value {
    json!({ "value": amount::fixed(minor, payment.scale, 2), "currency": payment.currency })
}

/// The payment object of answers and notices.
pub(super) fn object(payment: &Payment, options: &Options) -> Value {
    let status = payment.status.as_str();
    let paid = matches!(status, "succeeded" | "waiting_for_capture");
    // From the moment money moved, `amount` is what moved: a partial capture makes it smaller.
    let sum = if paid { payment.received } else { payment.asked };
    let mut object = json!({
        "id": payment.id,
        "status": status,
        "paid": paid,
        "test": options.yookassa_test,
        "refundable": status == "succeeded" && payment.captured > payment.refunded,
        "amount": money(sum, payment),
        "recipient": { "account_id": options.yookassa_shop_id, "gateway_id": "100700" },
        "created_at": clock::utc(payment.created_at),
        "metadata": payment.request.get("metadata").cloned().unwrap_or_else(|| json!({})),
    });
    if let Some(description) = payment.asked_for("description") {
        object["description"] = json!(description);
    }
    if let Some(customer) = payment.asked_for("merchant_customer_id") {
        object["merchant_customer_id"] = json!(customer);
    }
    if status == "pending" {
        object["confirmation"] = json!({ "type": "redirect", "confirmation_url": payment.url });
    }
    if paid {
        object["payment_method"] = json!({
            "type": "bank_card", "id": payment.id, "saved": false, "status": "inactive", "title": "Bank card *4477",
            "card": { "first6": "220000", "last4": "4477", "expiry_month": "12", "expiry_year": "2030",
                "card_type": "Mir", "issuer_country": "RU" },
        });
        object["authorization_details"] =
            json!({ "rrn": "603668680243", "auth_code": "062467", "three_d_secure": { "applied": true } });
    }
    if status == "waiting_for_capture" {
        object["expires_at"] = json!(clock::utc(payment.expires_at));
    }
    if status == "succeeded" {
        let fee = payment.captured / 1000 * 35 + payment.captured % 1000 * 35 / 1000;
        object["captured_at"] = json!(clock::utc(payment.finished_at.unwrap_or(payment.changed_at)));
        object["income_amount"] = money(payment.captured - fee, payment);
        object["refunded_amount"] = money(payment.refunded, payment);
        if payment.request.contains_key("receipt") {
            object["receipt_registration"] = json!("succeeded");
        }
    }
    if status == "canceled" {
        let (party, reason) = payment.cancelled_by.unwrap_or(("yoo_money", "general_decline"));
        object["cancellation_details"] = json!({ "party": party, "reason": reason });
    }
    object
}

pub(super) fn refund_object(refund: &Refund, payment: &Payment) -> Value {
    let mut object = json!({
        "id": refund.id,
        "payment_id": refund.payment_id,
        "status": "succeeded",
        "created_at": clock::utc(refund.created_at),
        "amount": money(refund.amount, payment),
    });
    if let Some(description) = &refund.description {
        object["description"] = json!(description);
    }
    object
}

fn notice(event: &str, object: &Value, payment: &Payment) -> Event {
    let id = object["id"].as_str().unwrap_or_default();
    let body = json!({ "type": "notification", "event": event, "object": object });
    Event {
        provider: PROVIDER,
        payment_id: payment.id.clone(),
        event_id: format!("yookassa:{event}:{id}"),
        url: None, // YooKassa has one address for all, set in the cabinet.
        body: Bytes::from(body.to_string()),
    }
}

/// The notice of the state that the payment is in.
pub(crate) fn event(payment: &Payment, options: &Options) -> Event {
    notice(&format!("payment.{}", payment.status), &object(payment, options), payment)
}

pub(super) fn refund_event(refund: &Refund, payment: &Payment) -> Event {
    notice("refund.succeeded", &refund_object(refund, payment), payment)
}

/// The notice of a refund of the whole sum that never was.
pub(crate) fn refund_as_if(payment: &Payment, now: i64) -> Event {
    let refund = Refund {
        id: clock::yookassa_id(now, 'a'),
        payment_id: payment.id.clone(),
        amount: payment.asked,
        created_at: now,
        description: None,
    };
    refund_event(&refund, payment)
}
