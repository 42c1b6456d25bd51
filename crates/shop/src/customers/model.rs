//! A customer, and what a request may say about one.

use semel_kernel::clock::Time;
use serde::Deserialize;

use crate::Error;

semel_kernel::id!(CustomerId, "cus", "A customer.");

/// A customer's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// Our id.
    pub id: CustomerId,
    /// Telegram's id; also the chat with them.
    pub telegram_id: i64,
    /// For receipts.
    pub email: Option<String>,
    /// For receipts: digits only, with the country code.
    pub phone: Option<String>,
    /// The language of their Telegram: `ru`, `pt-br`.
    pub language: Option<String>,
    /// Who sent them; fixed at the first order.
    pub referrer: Option<CustomerId>,
    /// When they first ordered.
    pub created_at: Time,
}

/// What a request says about a customer. What it leaves out stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCustomer {
    /// Telegram's id of a person: positive.
    pub telegram_id: i64,
    /// For receipts.
    pub email: Option<String>,
    /// For receipts: with the country code.
    pub phone: Option<String>,
    /// The language of their Telegram.
    pub language: Option<String>,
    /// Telegram's id of who sent them. Somebody that we do not know, or the customer, is ignored: it comes from a link
    /// that anybody can write.
    pub referrer_telegram_id: Option<i64>,
}

impl NewCustomer {
    /// The same, tidied, when it makes sense.
    pub(super) fn checked(&self) -> Result<Self, Error> {
        if self.telegram_id < 1 {
            let reason = format!("the id of a person is positive, not {}", self.telegram_id);
            return Err(Error::invalid("customer.telegram_id", reason));
        }
        Ok(Self {
            telegram_id: self.telegram_id,
            email: self.email.as_deref().map(email).transpose()?,
            phone: self.phone.as_deref().map(phone).transpose()?,
            language: self.language.as_deref().map(language).transpose()?,
            referrer_telegram_id: self.referrer_telegram_id.filter(|id| *id > 0 && *id != self.telegram_id),
        })
    }
}

/// Only the shape: whether mail arrives is for the post to say. Lengths from RFC 5321, 4.5.3.1.
fn email(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let sound = text.split_once('@').is_some_and(|(local, domain)| {
        let labels = domain.split('.').collect::<Vec<_>>();
        !local.is_empty()
            && local.len() <= 64
            && !domain.contains('@')
            && labels.len() > 1
            && labels.iter().all(|label| !label.is_empty())
    });
    let plain = text.len() <= 254 && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if sound && plain {
        Ok(text.to_owned())
    } else {
        Err(Error::invalid("customer.email", "write it like name@example.com"))
    }
}

/// Digits with the country code, as providers want them for receipts; 15 at most by ITU-T E.164.
fn phone(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let number = text.strip_prefix('+').unwrap_or(text);
    let digits: String = number.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')')).collect();
    let sound =
        (10..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let told = "write 10 to 15 digits with the country code, like +79001234567";
    if sound { Ok(digits) } else { Err(Error::invalid("customer.phone", told)) }
}

fn language(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let sound = (2..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if sound {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Error::invalid("customer.language", "write Telegram's language code, like ru or pt-br"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anna() -> NewCustomer {
        NewCustomer { telegram_id: 7, email: None, phone: None, language: None, referrer_telegram_id: None }
    }

    #[test]
    fn only_the_telegram_id_is_needed() {
        let read: NewCustomer = serde_json::from_str(r#"{"telegram_id":7}"#).unwrap();
        assert_eq!(read.checked().unwrap(), anna());
        assert!(serde_json::from_str::<NewCustomer>(r#"{"telegram_id":7,"mail":"a@b.c"}"#).is_err());
        assert!(NewCustomer { telegram_id: 0, ..anna() }.checked().is_err());
        assert!(NewCustomer { telegram_id: -100, ..anna() }.checked().is_err());
    }

    #[test]
    fn an_email_has_a_shape() {
        for sound in ["name@example.com", "a.b+c@mail.example.org", "имя@почта.рф"] {
            assert_eq!(email(sound).unwrap(), sound);
        }
        assert_eq!(email(" name@example.com ").unwrap(), "name@example.com");
        for wrong in
            ["", "name", "@example.com", "name@", "name@example", "a@b@c.d", "a b@c.d", "a@.d", "a@c..d", "a@c."]
        {
            assert!(email(wrong).is_err(), "{wrong:?}");
        }
        assert!(email(&format!("{}@example.com", "a".repeat(65))).is_err());
    }

    #[test]
    fn a_phone_is_kept_as_digits() {
        assert_eq!(phone("+7 (900) 123-45-67").unwrap(), "79001234567");
        assert_eq!(phone("79001234567").unwrap(), "79001234567");
        for wrong in
            ["", "+", "123456789", "1234567890123456", "0900123456789", "7900123456a", "７９００１２３４５６７"]
        {
            assert!(phone(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_language_is_a_code() {
        assert_eq!(language("pt-BR").unwrap(), "pt-br");
        assert!(language("русский").is_err());
        assert!(language("r").is_err());
    }

    #[test]
    fn nobody_refers_themselves_and_a_forged_referrer_stops_no_order() {
        let referrer =
            |id| NewCustomer { referrer_telegram_id: Some(id), ..anna() }.checked().unwrap().referrer_telegram_id;
        assert_eq!(referrer(8), Some(8));
        assert_eq!(referrer(7), None);
        assert_eq!(referrer(-1), None);
    }
}
