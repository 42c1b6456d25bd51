//! CrystalPay's notices: the invoice or payoff with `sha1(id:salt)` beside it.

use std::net::IpAddr;

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::{CrystalPay, is_id};
use crate::json;
use crate::{Hint, Rejected, Subject, source};

/// States are short words; nothing longer is taken into a key, since the signature does not cover it.
const LONGEST_STATE: usize = 32;

impl CrystalPay {
    /// Checks the sender, the shape and the signature. The state is only what the notice says: the signature does not cover it.
    pub(crate) fn verify(&self, peer: Option<IpAddr>, body: &[u8]) -> Result<Hint, Rejected> {
        source::admit(peer, self.networks.as_deref())?;
        if self.salt.is_empty() {
            return Err(Rejected::NoSecret { what: "salt" });
        }
        let malformed = |what: &str| Rejected::Malformed(what.to_string());
        let notice = json::read(body).map_err(|error| Rejected::Malformed(error.to_string()))?;
        if !notice.is_object() {
            return Err(malformed("the body is no object"));
        }
        let id = notice.text("id").filter(|id| is_id(id)).ok_or_else(|| malformed("id is missing or no id"))?;
        let signature = notice.text("signature").ok_or(Rejected::Signature)?;
        if !bool::from(signature.as_bytes().ct_eq(self.signature(id).as_bytes())) {
            return Err(Rejected::Signature);
        }
        let state = notice.text("state").filter(|state| is_word(state));
        let state = state.ok_or_else(|| malformed("state is missing or no word"))?;

        // Nothing but the members tells the two kinds of notice apart.
        let is_payoff = notice.get("wallet").is_some();
        let kind = if is_payoff { "payoff" } else { "invoice" };
        let subject = match is_payoff {
            true => Subject::Other,
            false => Subject::Payment {
                provider_id: id.to_string(),
                ours: notice.text("extra").map(str::to_string),
                transaction: None,
            },
        };
        let currency = notice.text("amount_currency").or_else(|| notice.text("currency"));
        let says_amount = match (notice.literal("amount"), currency) {
            (Some(amount), Some(currency)) => Some(format!("{amount} {currency}")),
            _ => None,
        };
        Ok(Hint {
            event_id: format!("crystalpay:{kind}:{id}:{state}"),
            event: kind.to_string(),
            subject,
            says_state: state.to_string(),
            says_amount,
        })
    }

    fn signature(&self, id: &str) -> String {
        hex::encode(Sha1::digest(format!("{id}:{}", self.salt.expose())))
    }
}

fn is_word(text: &str) -> bool {
    text.len() <= LONGEST_STATE && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::crystalpay::DEFAULT_API_URL;

    fn desk() -> CrystalPay {
        let desk = CrystalPay::new("shopkassa", "secret", "salt", DEFAULT_API_URL).unwrap();
        CrystalPay { networks: None, ..desk }
    }

    fn notice(more: &str) -> Vec<u8> {
        let signature = desk().signature("7_a");
        format!(r#"{{"signature":"{signature}","id":"7_a",{more}}}"#).into_bytes()
    }

    #[test]
    fn an_invoice_and_a_payoff_are_told_apart_by_their_members() {
        let invoice = notice(r#""state":"payed","amount":499.50,"amount_currency":"RUB","extra":"pay_1""#);
        let hint = desk().verify(None, &invoice).unwrap();
        assert_eq!(hint.event_id, "crystalpay:invoice:7_a:payed");
        assert_eq!(hint.says_amount.as_deref(), Some("499.50 RUB"), "the literal is kept");
        let ours = Some("pay_1".to_string());
        assert_eq!(hint.subject, Subject::Payment { provider_id: "7_a".into(), ours, transaction: None });

        let payoff = notice(r#""state":"payed","wallet":"0x9f""#);
        let hint = desk().verify(None, &payoff).unwrap();
        assert_eq!((hint.event_id.as_str(), hint.subject), ("crystalpay:payoff:7_a:payed", Subject::Other));
    }

    #[test]
    fn without_a_salt_nothing_is_believed() {
        let saltless = CrystalPay { salt: Secret::new(""), ..desk() };
        let body = notice(r#""state":"payed""#);
        assert_eq!(saltless.verify(None, &body), Err(Rejected::NoSecret { what: "salt" }));
    }

    #[test]
    fn a_state_that_is_no_word_is_refused() {
        assert!(matches!(desk().verify(None, &notice(r#""state":"payed:x""#)), Err(Rejected::Malformed(_))));
        assert!(matches!(desk().verify(None, &notice(r#""state":null"#)), Err(Rejected::Malformed(_))));
    }
}
