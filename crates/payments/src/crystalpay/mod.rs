//! CrystalPay, API v3.
//!
//! Its signature covers the id of an invoice and nothing else, so one leaked notice lets anybody claim any state for that id: the API's
//! answer alone moves money. A notice is repeated for about 45 minutes only, and 200 as well as 429 count as delivered there. There is no
//! idempotent creation, no list, no cancelling and no refund: a repeated creation makes a second invoice, of which one may credit the order.

pub(crate) mod api;
mod webhook;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::{BaseUrl, ConfigError, Provider, Secret};

/// The address of the real API.
pub const DEFAULT_API_URL: &str = "https://api.crystalpay.io/v3";

/// The addresses that CrystalPay publishes for its notices.
pub const DEFAULT_NETWORKS: &[IpNet] = &[
    host(193, 141, 53, 171),
    host(193, 141, 53, 176),
    host(191, 101, 112, 123),
    host(191, 101, 112, 154),
    host(185, 168, 250, 38),
    host(163, 198, 213, 130),
];

const fn host(a: u8, b: u8, c: u8, d: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), 32)
}

/// One cash desk at CrystalPay.
#[derive(Debug, Clone)]
pub struct CrystalPay {
    /// The desk's name.
    pub login: String,
    /// Goes with every call, inside the body.
    pub secret: Secret,
    /// The desk's second secret: signs notices.
    pub salt: Secret,
    /// Where the API is.
    pub api_url: BaseUrl,
    /// Who may send notices; `None` turns the check off.
    pub networks: Option<Vec<IpNet>>,
}

impl CrystalPay {
    /// A desk with the published networks; change the fields for anything else.
    pub fn new(login: &str, secret: &str, salt: &str, api_url: &str) -> Result<CrystalPay, ConfigError> {
        let provider = Provider::CrystalPay;
        for (name, value) in [("login", login), ("secret", secret), ("salt", salt)] {
            if value.is_empty() {
                return Err(ConfigError::Empty { provider, name });
            }
        }
        Ok(CrystalPay {
            login: login.to_string(),
            secret: Secret::new(secret),
            salt: Secret::new(salt),
            api_url: BaseUrl::parse(api_url)?,
            networks: Some(DEFAULT_NETWORKS.to_vec()),
        })
    }
}

/// The documented shape of ids, `^[0-9]+_[A-Za-z0-9]+$`, of bounded length.
fn is_id(text: &str) -> bool {
    let Some((number, rest)) = text.split_once('_') else {
        return false;
    };
    text.len() <= 128
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_digits_and_letters_around_one_underscore() {
        assert!(is_id("700100200_aBcDeFgHiJ"));
        for wrong in ["", "_", "700100200", "700100200_", "_aBc", "7_a_b", "7a_b", "7_a/b", "7_a\n"] {
            assert!(!is_id(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_desk_without_a_secret_is_no_desk() {
        let empty = |name| ConfigError::Empty { provider: Provider::CrystalPay, name };
        assert_eq!(CrystalPay::new("", "s", "t", DEFAULT_API_URL).unwrap_err(), empty("login"));
        assert_eq!(CrystalPay::new("l", "", "t", DEFAULT_API_URL).unwrap_err(), empty("secret"));
        assert_eq!(CrystalPay::new("l", "s", "", DEFAULT_API_URL).unwrap_err(), empty("salt"));
        let desk = CrystalPay::new("l", "hush", "pepper", DEFAULT_API_URL).unwrap();
        let printed = format!("{desk:?}");
        assert!(!printed.contains("hush") && !printed.contains("pepper"), "{printed}");
    }
}
