//! The names of the providers, as they stand in rows, settings and addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who takes the money. The names are stored: never renamed, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Cards and local methods in roubles.
    YooKassa,
    /// Crypto invoices; the same protocol as Cryptomus.
    Heleket,
    /// Crypto and cards, API v3.
    CrystalPay,
    /// Telegram Stars, paid inside Telegram to the shop's own bot.
    Stars,
}

/// The text names no provider that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown payment provider {0:?}: use yookassa, heleket, crystalpay or stars")]
pub struct UnknownProvider(pub String);

impl Provider {
    /// Every provider.
    pub const ALL: [Provider; 4] = [Provider::YooKassa, Provider::Heleket, Provider::CrystalPay, Provider::Stars];

    /// `yookassa`, `heleket`, `crystalpay` or `stars`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Provider::YooKassa => "yookassa",
            Provider::Heleket => "heleket",
            Provider::CrystalPay => "crystalpay",
            Provider::Stars => "stars",
        }
    }

    /// Whether it posts notices to an address of ours. Stars are told of in the updates of the bot.
    pub const fn has_webhook(self) -> bool {
        !matches!(self, Provider::Stars)
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Provider, UnknownProvider> {
        let known = Provider::ALL.into_iter().find(|provider| provider.as_str() == name);
        known.ok_or_else(|| UnknownProvider(name.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_provider() {
        for provider in Provider::ALL {
            assert_eq!(provider.as_str().parse(), Ok(provider));
            assert_eq!(serde_json::to_string(&provider).unwrap(), format!("\"{provider}\""));
        }
        assert!("YooKassa".parse::<Provider>().is_err());
    }
}
