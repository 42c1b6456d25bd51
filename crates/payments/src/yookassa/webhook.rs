//! YooKassa's notices: an envelope around a snapshot of one object.

use std::net::IpAddr;

use super::YooKassa;
use crate::json::{self, Value};
use crate::request::is_id;
use crate::{Hint, Rejected, Subject, source};

impl YooKassa {
    /// Checks the sender and the envelope. There is no signature to check.
    pub(crate) fn verify(&self, peer: Option<IpAddr>, body: &[u8]) -> Result<Hint, Rejected> {
        source::admit(peer, self.networks.as_deref())?;
        let notice = json::read(body).map_err(|error| Rejected::Malformed(error.to_string()))?;
        read(&notice)
    }
}

fn read(notice: &Value) -> Result<Hint, Rejected> {
    let malformed = |what: &str| Rejected::Malformed(what.to_string());
    if notice.text("type") != Some("notification") {
        return Err(malformed("type is not notification"));
    }
    let event = notice.text("event").ok_or_else(|| malformed("event is missing"))?;
    let (kind, state) = event.split_once('.').ok_or_else(|| malformed("event is not object.status"))?;
    if !is_word(kind) || !is_word(state) {
        return Err(malformed("event is not object.status"));
    }
    let object = notice.get("object").ok_or_else(|| malformed("object is missing"))?;
    let id = object.text("id").filter(|id| is_id(id)).ok_or_else(|| malformed("object.id is missing or no id"))?;
    if object.text("status") != Some(state) {
        return Err(malformed("object.status is not the event's"));
    }
    let subject = match kind {
        "payment" => Subject::Payment {
            provider_id: id.to_string(),
            ours: object.get("metadata").and_then(|metadata| metadata.text("payment_id")).map(str::to_string),
            transaction: None,
        },
        "refund" => {
            let payment = object.text("payment_id").filter(|id| is_id(id));
            let payment = payment.ok_or_else(|| malformed("the refund has no payment_id"))?;
            Subject::Refund { refund_id: id.to_string(), provider_id: payment.to_string() }
        }
        _ => Subject::Other,
    };
    Ok(Hint {
        event_id: format!("yookassa:{event}:{id}"),
        event: event.to_string(),
        subject,
        says_state: state.to_string(),
        says_amount: object.get("amount").and_then(amount),
    })
}

fn amount(money: &Value) -> Option<String> {
    Some(format!("{} {}", money.literal("value")?, money.text("currency")?))
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(json: &str) -> Result<Hint, Rejected> {
        read(&json::read(json.as_bytes()).unwrap())
    }

    #[test]
    fn a_payment_notice_names_the_payment_and_ours() {
        let hint = notice(
            r#"{"type":"notification","event":"payment.succeeded","object":{"id":"2d8f-1","status":"succeeded",
                "amount":{"value":"499.00","currency":"RUB"},"metadata":{"payment_id":"pay_1"}}}"#,
        )
        .unwrap();
        assert_eq!(hint.event_id, "yookassa:payment.succeeded:2d8f-1");
        assert_eq!(hint.says_amount.as_deref(), Some("499.00 RUB"));
        let ours = Some("pay_1".to_string());
        assert_eq!(hint.subject, Subject::Payment { provider_id: "2d8f-1".into(), ours, transaction: None });
    }

    #[test]
    fn a_refund_notice_needs_its_payment() {
        let with = r#"{"type":"notification","event":"refund.succeeded","object":{"id":"r-1","status":"succeeded","payment_id":"p-1"}}"#;
        let subject = Subject::Refund { refund_id: "r-1".into(), provider_id: "p-1".into() };
        assert_eq!(notice(with).unwrap().subject, subject);
        let without =
            r#"{"type":"notification","event":"refund.succeeded","object":{"id":"r-1","status":"succeeded"}}"#;
        assert!(matches!(notice(without), Err(Rejected::Malformed(_))));
    }

    #[test]
    fn payouts_and_deals_are_recorded_and_ignored() {
        let deal = r#"{"type":"notification","event":"deal.closed","object":{"id":"dl-1","status":"closed"}}"#;
        assert_eq!(notice(deal).unwrap().subject, Subject::Other);
    }

    #[test]
    fn an_event_that_contradicts_its_object_is_refused() {
        let wrong = r#"{"type":"notification","event":"payment.succeeded","object":{"id":"p-1","status":"pending"}}"#;
        assert!(notice(wrong).is_err());
    }
}
