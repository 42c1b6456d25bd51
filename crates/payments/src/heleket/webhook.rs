//! Heleket's notices: signed snapshots of an invoice, a wallet's transfer or a payout.

use std::net::IpAddr;

use super::{Heleket, sign};
use crate::json::{self, Value};
use crate::{Hint, Rejected, Secret, Subject, source};

/// Longer ids and statuses are not taken into keys.
const LONGEST: usize = 200;

impl Heleket {
    /// Checks the sender, the signature by the key of the notice's type, and the envelope.
    pub(crate) fn verify(&self, peer: Option<IpAddr>, body: &[u8]) -> Result<Hint, Rejected> {
        source::admit(peer, self.networks.as_deref())?;
        let malformed = |what: &str| Rejected::Malformed(what.to_string());
        let members = json::members(body).map_err(|error| Rejected::Malformed(error.to_string()))?;
        let text = |name: &str| {
            members.iter().find(|member| member.name == name).and_then(|member| match &member.value {
                Value::Text(text) if (1..=LONGEST).contains(&text.len()) => Some(text.as_str()),
                _ => None,
            })
        };

        let kind = text("type").ok_or_else(|| malformed("type is missing"))?;
        let (key, what) = match kind {
            "payment" | "wallet" => (Some(&self.payment_key), "payment key"),
            "payout" => (self.payout_key.as_ref(), "payout key"),
            _ => return Err(malformed("type is not payment, wallet or payout")),
        };
        let key: &Secret = key.filter(|key| !key.is_empty()).ok_or(Rejected::NoSecret { what })?;
        let signature = text("sign").ok_or(Rejected::Signature)?;
        if !sign::matches(&members, signature, key.expose()) {
            return Err(Rejected::Signature);
        }

        let uuid = text("uuid").ok_or_else(|| malformed("uuid is missing"))?;
        let status = text("status").ok_or_else(|| malformed("status is missing"))?;
        // A wallet takes many transfers, each with its own notice of the same status.
        let transaction = text("txid").filter(|_| kind == "wallet");
        let event_id = match transaction {
            Some(transaction) => format!("heleket:{kind}:{uuid}:{status}:{transaction}"),
            None => format!("heleket:{kind}:{uuid}:{status}"),
        };
        let subject = match kind {
            "payout" => Subject::Other,
            _ => Subject::Payment {
                provider_id: uuid.to_string(),
                ours: text("order_id").map(str::to_string),
                transaction: transaction.map(str::to_string),
            },
        };
        let says_amount = match (text("amount"), text("currency")) {
            (Some(amount), Some(currency)) => Some(format!("{amount} {currency}")),
            _ => None,
        };
        Ok(Hint { event_id, event: kind.to_string(), subject, says_state: status.to_string(), says_amount })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heleket::DEFAULT_API_URL;

    fn merchant() -> Heleket {
        let merchant = Heleket::new("5d0f2c7e", "pay", Some("out"), DEFAULT_API_URL).unwrap();
        Heleket { networks: None, ..merchant }
    }

    fn signed(members: &str, key: &str) -> Vec<u8> {
        let sign = sign::sign(format!("{{{members}}}").as_bytes(), key);
        format!("{{{members},\"sign\":\"{sign}\"}}").into_bytes()
    }

    #[test]
    fn each_type_has_its_key() {
        let payment =
            r#""type":"payment","uuid":"u1","order_id":"pay_1","status":"paid","amount":"3.00","currency":"USDT""#;
        let hint = merchant().verify(None, &signed(payment, "pay")).unwrap();
        assert_eq!(hint.event_id, "heleket:payment:u1:paid");
        let ours = Some("pay_1".to_string());
        assert_eq!(hint.subject, Subject::Payment { provider_id: "u1".into(), ours, transaction: None });
        assert_eq!(hint.says_amount.as_deref(), Some("3.00 USDT"));
        assert_eq!(merchant().verify(None, &signed(payment, "out")), Err(Rejected::Signature));

        let payout = r#""type":"payout","uuid":"u2","status":"paid""#;
        assert_eq!(merchant().verify(None, &signed(payout, "out")).unwrap().subject, Subject::Other);
        assert_eq!(merchant().verify(None, &signed(payout, "pay")), Err(Rejected::Signature));
        let keyless = Heleket { payout_key: None, ..merchant() };
        assert!(matches!(keyless.verify(None, &signed(payout, "out")), Err(Rejected::NoSecret { .. })));
    }

    #[test]
    fn every_transfer_into_a_wallet_is_its_own_event() {
        let transfer = r#""type":"wallet","uuid":"w1","status":"paid","txid":"t1""#;
        let hint = merchant().verify(None, &signed(transfer, "pay")).unwrap();
        assert_eq!(hint.event_id, "heleket:wallet:w1:paid:t1");
        let transaction = Some("t1".to_string());
        assert_eq!(hint.subject, Subject::Payment { provider_id: "w1".into(), ours: None, transaction });
    }

    #[test]
    fn an_empty_key_proves_nothing() {
        let keyless = Heleket { payment_key: Secret::new(""), ..merchant() };
        let payment = r#""type":"payment","uuid":"u1","status":"paid""#;
        assert!(matches!(keyless.verify(None, &signed(payment, "")), Err(Rejected::NoSecret { .. })));
    }

    #[test]
    fn a_repeated_member_is_refused() {
        let twice = r#""type":"payment","uuid":"u1","status":"cancel","status":"paid""#;
        assert!(matches!(merchant().verify(None, &signed(twice, "pay")), Err(Rejected::Malformed(_))));
    }
}
