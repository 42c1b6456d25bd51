//! Heleket: crypto invoices. Speaks the protocol of Cryptomus.
//!
//! Its notices are signed, and its cabinet can send signed *test* notices with real order ids: so here, too, only the API's answer moves
//! money. Creating is idempotent by `order_id`, which is our payment id: an existing one gives the existing invoice back.

mod api;
mod php_json;
mod received;
mod sign;
mod webhook;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::request::is_plain;
use crate::{BaseUrl, ConfigError, Provider, Secret};

/// The address of the real API; paths start with `/v1`.
pub const DEFAULT_API_URL: &str = "https://api.heleket.com";

/// The address that Heleket publishes for its notices.
pub const DEFAULT_NETWORKS: &[IpNet] = &[IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(31, 133, 220, 8)), 32)];

/// One merchant at Heleket.
#[derive(Debug, Clone)]
pub struct Heleket {
    /// The merchant's uuid.
    pub merchant_id: String,
    /// Signs invoices, wallets, the balance and their notices.
    pub payment_key: Secret,
    /// Signs payouts and refunds. Without it refunds go to the balance and payout notices are refused.
    pub payout_key: Option<Secret>,
    /// Where the API is.
    pub api_url: BaseUrl,
    /// Who may send notices; `None` turns the check off and leaves it to the signature.
    pub networks: Option<Vec<IpNet>>,
}

impl Heleket {
    /// A merchant with the published networks; change the fields for anything else.
    pub fn new(
        merchant_id: &str,
        payment_key: &str,
        payout_key: Option<&str>,
        api_url: &str,
    ) -> Result<Heleket, ConfigError> {
        let provider = Provider::Heleket;
        let keys = [("merchant_id", Some(merchant_id)), ("payment_key", Some(payment_key)), ("payout_key", payout_key)];
        for (name, value) in keys {
            if value.is_some_and(str::is_empty) {
                return Err(ConfigError::Empty { provider, name });
            }
        }
        if !is_plain(merchant_id) {
            return Err(ConfigError::NotPlain { provider, name: "merchant_id" });
        }
        Ok(Heleket {
            merchant_id: merchant_id.to_string(),
            payment_key: Secret::new(payment_key),
            payout_key: payout_key.map(Secret::from),
            api_url: BaseUrl::parse(api_url)?,
            networks: Some(DEFAULT_NETWORKS.to_vec()),
        })
    }
}
