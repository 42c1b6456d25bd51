//! The currencies that we can keep books in.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A currency from the table below: its code and how many decimal digits its smallest unit has.
///
/// The exponent fixes what a stored number means, so it never changes once a currency is in use. Where a chain counts finer than 64 bits
/// can hold, we keep fewer digits and cut the rest off when reading: ether (and coins built like it) is kept in gwei, 9 digits, because
/// in wei an `i64` would end at 9.2 ether.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u8,
    crypto: bool,
}

/// The code is not in our table, so we do not know what its amounts mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown currency {0:?}")]
pub struct UnknownCurrency(pub String);

macro_rules! currencies {
    ($($code:ident $exponent:literal $crypto:literal $what:literal;)*) => {
        impl Currency {
            $(
                #[doc = $what]
                pub const $code: Currency = Currency { code: stringify!($code), exponent: $exponent, crypto: $crypto };
            )*

            /// Every currency that we know.
            pub const ALL: &'static [Currency] = &[$(Currency::$code),*];
        }
    };
}

currencies! {
    RUB 2 false "Russian rouble, in kopecks.";
    USD 2 false "US dollar, in cents.";
    EUR 2 false "Euro, in cents.";
    KZT 2 false "Kazakh tenge.";
    UAH 2 false "Ukrainian hryvnia.";
    BYN 2 false "Belarusian rouble.";
    UZS 2 false "Uzbek sum.";
    KGS 2 false "Kyrgyz som.";
    GEL 2 false "Georgian lari.";
    AMD 2 false "Armenian dram.";
    AZN 2 false "Azerbaijani manat.";
    TRY 2 false "Turkish lira.";
    GBP 2 false "British pound.";
    PLN 2 false "Polish zloty.";
    CNY 2 false "Chinese yuan.";
    AED 2 false "UAE dirham.";
    INR 2 false "Indian rupee.";
    JPY 0 false "Japanese yen: has no smaller unit.";
    XTR 0 false "Telegram Stars: whole only.";
    USDT 6 true "Tether, in millionths as on TRON and TON.";
    USDC 6 true "USD Coin, in millionths.";
    DAI 6 true "Dai, in millionths; the chain counts finer, see the type.";
    TON 9 true "Toncoin, in nanotons.";
    BTC 8 true "Bitcoin, in satoshi.";
    BCH 8 true "Bitcoin Cash, in satoshi.";
    LTC 8 true "Litecoin.";
    DOGE 8 true "Dogecoin.";
    DASH 8 true "Dash.";
    TRX 6 true "TRON, in sun.";
    ETH 9 true "Ether, in gwei; the chain counts in wei, see the type.";
    BNB 9 true "BNB, in gwei; the chain counts finer, see the type.";
    POL 9 true "Polygon, in gwei; the chain counts finer, see the type.";
    AVAX 9 true "Avalanche, in gwei; the chain counts finer, see the type.";
    SOL 9 true "Solana, in lamports.";
    XMR 12 true "Monero, in piconero.";
}

impl Currency {
    /// Looks a code up exactly as providers write it: upper case, no spaces.
    pub fn from_code(code: &str) -> Result<Currency, UnknownCurrency> {
        let known = Currency::ALL.iter().find(|currency| currency.code == code);
        known.copied().ok_or_else(|| UnknownCurrency(code.chars().take(16).collect()))
    }

    /// `RUB`, `USDT` …
    pub const fn code(self) -> &'static str {
        self.code
    }

    /// How many decimal digits the smallest unit has: 2 for kopecks, 0 for Stars.
    pub const fn exponent(self) -> u32 {
        self.exponent as u32
    }

    /// Whether it lives on a chain.
    pub const fn is_crypto(self) -> bool {
        self.crypto
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl std::str::FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(code: &str) -> Result<Currency, UnknownCurrency> {
        Currency::from_code(code)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Currency, D::Error> {
        let code = String::deserialize(deserializer)?;
        Currency::from_code(&code).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_exactly_and_only_once() {
        for currency in Currency::ALL {
            assert_eq!(Currency::from_code(currency.code()), Ok(*currency));
            assert_eq!(Currency::ALL.iter().filter(|other| other.code == currency.code).count(), 1, "{currency}");
        }
        for unknown in ["rub", " RUB", "RUB ", "", "XYZ"] {
            assert_eq!(Currency::from_code(unknown), Err(UnknownCurrency(unknown.to_string())));
        }
    }

    #[test]
    fn the_smallest_units_are_the_agreed_ones() {
        let exponents = [("RUB", 2), ("XTR", 0), ("USDT", 6), ("TON", 9), ("BTC", 8), ("ETH", 9), ("TRX", 6)];
        for (code, exponent) in exponents {
            assert_eq!(Currency::from_code(code).unwrap().exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn a_currency_travels_as_its_code() {
        assert_eq!(serde_json::to_string(&Currency::RUB).unwrap(), r#""RUB""#);
        assert_eq!(serde_json::from_str::<Currency>(r#""XTR""#).unwrap(), Currency::XTR);
        assert!(serde_json::from_str::<Currency>(r#""rub""#).is_err());
    }
}
