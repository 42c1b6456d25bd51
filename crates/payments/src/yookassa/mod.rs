//! YooKassa, API v3.
//!
//! Its notices carry no signature: the sender's address is all there is, and everybody may send one if the check is off. So a notice is
//! only ever a reason to ask. Calls that change something carry an `Idempotence-Key`, which YooKassa remembers for 24 hours.

mod api;
mod receipt;
mod webhook;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::request::is_plain;
use crate::{BaseUrl, ConfigError, Provider, Secret};

/// The address of the real API.
pub const DEFAULT_API_URL: &str = "https://api.yookassa.ru/v3";

/// The networks that YooKassa publishes for its notices. The IPv6 one is the wide form; the vendor's libraries list four /64 inside it.
pub const DEFAULT_NETWORKS: &[IpNet] = &[
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(185, 71, 76, 0)), 27),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(185, 71, 77, 0)), 27),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(77, 75, 153, 0)), 25),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(77, 75, 154, 128)), 25),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(77, 75, 156, 11)), 32),
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(77, 75, 156, 35)), 32),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0x2a02, 0x5180, 0, 0, 0, 0, 0, 0)), 32),
];

/// One shop at YooKassa.
#[derive(Debug, Clone)]
pub struct YooKassa {
    /// The shop's number; answers about another shop are refused.
    pub shop_id: String,
    /// Starts with `live_` or `test_`.
    pub secret_key: Secret,
    /// Where the API is.
    pub api_url: BaseUrl,
    /// Who may send notices; `None` turns the check off.
    pub networks: Option<Vec<IpNet>>,
    /// Take payments of a test shop for real ones. For trying out only.
    pub allow_test: bool,
    /// Present when the shop sends fiscal receipts through YooKassa.
    pub receipt: Option<ReceiptSettings>,
}

/// Tax values of the shop, as the law and its accountant say. Nothing here has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptSettings {
    /// 1 OSN, 2 USN income, 3 USN income less expense, 4 ENVD, 5 ESHN, 6 patent; absent where the cash register knows it.
    pub tax_system_code: Option<u8>,
    /// 1 without VAT, 2 0 %, 3 10 %, 4 20 % … as in the provider's table.
    pub vat_code: u8,
    /// `service`, `commodity` …
    pub payment_subject: String,
    /// `full_payment`, `full_prepayment` …
    pub payment_mode: String,
}

impl YooKassa {
    /// A shop with the published networks, no tests and no receipts; change the fields for anything else.
    pub fn new(shop_id: &str, secret_key: &str, api_url: &str) -> Result<YooKassa, ConfigError> {
        let provider = Provider::YooKassa;
        for (name, value) in [("shop_id", shop_id), ("secret_key", secret_key)] {
            if value.is_empty() {
                return Err(ConfigError::Empty { provider, name });
            }
            if !is_plain(value) {
                return Err(ConfigError::NotPlain { provider, name });
            }
        }
        Ok(YooKassa {
            shop_id: shop_id.to_string(),
            secret_key: Secret::new(secret_key),
            api_url: BaseUrl::parse(api_url)?,
            networks: Some(DEFAULT_NETWORKS.to_vec()),
            allow_test: false,
            receipt: None,
        })
    }
}
