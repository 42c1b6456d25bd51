//! One amount of money, exact to its smallest unit.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rounding::divide;
use crate::{BasisPoints, Currency, Rounding};

/// Longer decimal text is refused unread: 64 bits need 19 digits, providers write up to 18 after the dot.
const LONGEST_TEXT: usize = 48;

/// A whole number of smallest units of one currency. May be negative: ledgers need both sides.
///
/// As JSON it is `{"amount":"499.00","currency":"RUB"}`; a number instead of the text, or a member beside these two, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Amount {
    minor: i64,
    currency: Currency,
}

/// Why an amount cannot be read or computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not plain decimal text: digits, at most one dot between digits, at most one leading minus.
    #[error("{text:?} is not a decimal amount like 499.00")]
    NotDecimal {
        /// What was read, shortened.
        text: String,
    },
    /// Says more digits than the currency has, and they are not zeros.
    #[error("{text:?} has more than {} decimal digits of {currency}", .currency.exponent())]
    TooPrecise {
        /// What was read.
        text: String,
        /// The currency it should be in.
        currency: Currency,
    },
    /// Does not fit 64 bits of smallest units.
    #[error("the amount does not fit 64 bits of the smallest unit of {currency}")]
    Overflow {
        /// The currency it should be in.
        currency: Currency,
    },
    /// Two currencies in one sum.
    #[error("{left} and {right} do not add up: these are two currencies")]
    CurrencyMismatch {
        /// The currency of the amount asked.
        left: Currency,
        /// The currency of the amount given.
        right: Currency,
    },
    /// A proportion of nothing, or of less.
    #[error("{whole} is not a whole to take a part of")]
    NoWhole {
        /// The whole that was given.
        whole: i64,
    },
}

impl Amount {
    /// `minor` smallest units: `Amount::new(49_900, Currency::RUB)` is 499 roubles.
    ///
    /// # Panics
    /// On `i64::MIN`, the one number without a negative; no sum of money is near it.
    pub const fn new(minor: i64, currency: Currency) -> Amount {
        assert!(minor != i64::MIN, "an amount has a negative");
        Amount { minor, currency }
    }

    /// Nothing, in this currency.
    pub const fn zero(currency: Currency) -> Amount {
        Amount { minor: 0, currency }
    }

    /// Smallest units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// What it is an amount of.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// Reads decimal text exactly. Digits beyond the currency's smallest unit must be zeros.
    pub fn parse(text: &str, currency: Currency) -> Result<Amount, AmountError> {
        Amount::read(text, currency, false)
    }

    /// Reads decimal text and cuts digits beyond the smallest unit off, towards zero: for what a chain reports, where we never
    /// count more than came.
    pub fn parse_floor(text: &str, currency: Currency) -> Result<Amount, AmountError> {
        Amount::read(text, currency, true)
    }

    fn read(text: &str, currency: Currency, cut: bool) -> Result<Amount, AmountError> {
        let not_decimal = || AmountError::NotDecimal { text: text.chars().take(LONGEST_TEXT).collect() };
        if text.len() > LONGEST_TEXT {
            return Err(not_decimal());
        }
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(not_decimal()),
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(not_decimal());
        }

        let exponent = currency.exponent() as usize;
        let (kept, beyond) = fraction.split_at(fraction.len().min(exponent));
        if !cut && beyond.bytes().any(|byte| byte != b'0') {
            return Err(AmountError::TooPrecise { text: text.to_string(), currency });
        }
        let missing = std::iter::repeat_n(b'0', exponent - kept.len());
        let mut minor: i64 = 0;
        for digit in whole.bytes().chain(kept.bytes()).chain(missing) {
            let next = minor.checked_mul(10).and_then(|tens| tens.checked_add(i64::from(digit - b'0')));
            minor = next.ok_or(AmountError::Overflow { currency })?;
        }
        Ok(Amount { minor: if negative { -minor } else { minor }, currency })
    }

    /// Decimal text with all digits of the currency: `499.00`, and `5` for Stars. `parse` reads it back.
    pub fn decimal(self) -> String {
        let sign = if self.minor < 0 { "-" } else { "" };
        let exponent = self.currency.exponent();
        let unit = 10_u64.pow(exponent);
        let (whole, fraction) = (self.minor.unsigned_abs() / unit, self.minor.unsigned_abs() % unit);
        if exponent == 0 {
            return format!("{sign}{whole}");
        }
        let width = exponent as usize;
        format!("{sign}{whole}.{fraction:0width$}")
    }

    /// The sum.
    pub fn checked_add(self, other: Amount) -> Result<Amount, AmountError> {
        self.same_currency(other)?;
        self.with(i128::from(self.minor) + i128::from(other.minor))
    }

    /// The difference; may be negative.
    pub fn checked_sub(self, other: Amount) -> Result<Amount, AmountError> {
        self.same_currency(other)?;
        self.with(i128::from(self.minor) - i128::from(other.minor))
    }

    /// Which is more. Two currencies have no order.
    pub fn compare(self, other: Amount) -> Result<Ordering, AmountError> {
        self.same_currency(other)?;
        Ok(self.minor.cmp(&other.minor))
    }

    /// The other side of the same entry. A named method rather than an operator, like all arithmetic here.
    #[allow(clippy::should_implement_trait)]
    #[must_use]
    pub const fn neg(self) -> Amount {
        Amount { minor: -self.minor, currency: self.currency }
    }

    /// More than nothing.
    pub const fn is_positive(self) -> bool {
        self.minor > 0
    }

    /// Nothing.
    pub const fn is_zero(self) -> bool {
        self.minor == 0
    }

    /// Less than nothing.
    pub const fn is_negative(self) -> bool {
        self.minor < 0
    }

    /// The price of `quantity` pieces.
    pub fn times(self, quantity: i64) -> Result<Amount, AmountError> {
        self.with(i128::from(self.minor) * i128::from(quantity))
    }

    /// A fee, a reward, a discount: so many basis points of the amount.
    pub fn share(self, points: BasisPoints, rounding: Rounding) -> Result<Amount, AmountError> {
        self.with(divide(i128::from(self.minor) * i128::from(points.0), i128::from(BasisPoints::WHOLE.0), rounding))
    }

    /// `amount × part ÷ whole`: what 10 days of 30 are worth. The whole must be positive.
    pub fn proportion(self, part: i64, whole: i64, rounding: Rounding) -> Result<Amount, AmountError> {
        if whole <= 0 {
            return Err(AmountError::NoWhole { whole });
        }
        self.with(divide(i128::from(self.minor) * i128::from(part), i128::from(whole), rounding))
    }

    fn same_currency(self, other: Amount) -> Result<(), AmountError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(AmountError::CurrencyMismatch { left: self.currency, right: other.currency })
    }

    fn with(self, minor: i128) -> Result<Amount, AmountError> {
        match i64::try_from(minor) {
            Ok(minor) if minor != i64::MIN => Ok(Amount { minor, currency: self.currency }),
            _ => Err(AmountError::Overflow { currency: self.currency }),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

/// How an amount looks in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    amount: String,
    currency: Currency,
}

impl From<Amount> for Wire {
    fn from(amount: Amount) -> Wire {
        Wire { amount: amount.decimal(), currency: amount.currency }
    }
}

impl TryFrom<Wire> for Amount {
    type Error = AmountError;

    fn try_from(wire: Wire) -> Result<Amount, AmountError> {
        Amount::parse(&wire.amount, wire.currency)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rub(text: &str) -> Amount {
        Amount::parse(text, Currency::RUB).unwrap()
    }

    #[test]
    fn plain_decimal_text_is_read_exactly() {
        assert_eq!(rub("499.00"), Amount::new(49_900, Currency::RUB));
        assert_eq!(rub("499"), Amount::new(49_900, Currency::RUB));
        assert_eq!(rub("499.5"), Amount::new(49_950, Currency::RUB));
        assert_eq!(rub("-0.01"), Amount::new(-1, Currency::RUB));
        assert_eq!(rub("-0"), Amount::zero(Currency::RUB));
        assert_eq!(rub("499.00000000"), rub("499"), "digits beyond the smallest unit may be zeros");
        assert_eq!(Amount::parse("5", Currency::XTR), Ok(Amount::new(5, Currency::XTR)));
        assert_eq!(Amount::parse("0.000000000", Currency::ETH), Ok(Amount::zero(Currency::ETH)));
    }

    #[test]
    fn a_tenth_and_two_tenths_are_three_tenths() {
        assert_eq!(rub("0.10").checked_add(rub("0.20")), Ok(rub("0.30")));
        assert_eq!(Amount::parse("0.29", Currency::USD).unwrap().minor(), 29);
    }

    #[test]
    fn anything_but_plain_decimal_text_is_refused() {
        let wrong = [
            "", "-", ".", "1.", ".5", "+1", " 1", "1 ", "1e2", "1E2", "1,5", "--1", "1.2.3", "0x1", "١", "NaN",
            "1_000", "1.-5",
        ];
        for text in wrong {
            assert!(matches!(Amount::parse(text, Currency::RUB), Err(AmountError::NotDecimal { .. })), "{text:?}");
            assert!(Amount::parse_floor(text, Currency::RUB).is_err(), "{text:?}");
        }
        let endless = format!("1.{}", "0".repeat(100));
        assert!(matches!(Amount::parse(&endless, Currency::RUB), Err(AmountError::NotDecimal { .. })));
    }

    #[test]
    fn a_digit_too_fine_is_an_error_unless_it_may_be_cut() {
        assert!(matches!(Amount::parse("1.001", Currency::RUB), Err(AmountError::TooPrecise { .. })));
        assert!(matches!(Amount::parse("1.5", Currency::XTR), Err(AmountError::TooPrecise { .. })));
        assert_eq!(Amount::parse_floor("1.009", Currency::RUB), Ok(rub("1.00")));
        assert_eq!(Amount::parse_floor("-1.009", Currency::RUB), Ok(rub("-1.00")));
        assert_eq!(Amount::parse_floor("0.123456789123456789", Currency::ETH).unwrap().minor(), 123_456_789);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert_eq!(rub("92233720368547758.07").minor(), i64::MAX);
        let overflow = Err(AmountError::Overflow { currency: Currency::RUB });
        assert_eq!(Amount::parse("92233720368547758.08", Currency::RUB), overflow);
        assert_eq!(Amount::parse("-92233720368547758.08", Currency::RUB), overflow);
        assert_eq!(Amount::new(i64::MAX, Currency::RUB).checked_add(rub("0.01")), overflow);
        assert_eq!(Amount::new(-i64::MAX, Currency::RUB).checked_sub(rub("0.01")), overflow);
        assert_eq!(Amount::new(i64::MAX, Currency::RUB).times(2), overflow);
        assert_eq!(Amount::new(i64::MAX, Currency::RUB).neg().neg().minor(), i64::MAX);
    }

    #[test]
    fn two_currencies_never_meet_in_one_sum() {
        let stars = Amount::new(5, Currency::XTR);
        let mismatch = AmountError::CurrencyMismatch { left: Currency::RUB, right: Currency::XTR };
        assert_eq!(rub("1").checked_add(stars), Err(mismatch.clone()));
        assert_eq!(rub("1").checked_sub(stars), Err(mismatch.clone()));
        assert_eq!(rub("1").compare(stars), Err(mismatch));
    }

    #[test]
    fn amounts_print_all_digits_of_their_currency() {
        assert_eq!(rub("499").to_string(), "499.00 RUB");
        assert_eq!(rub("-0.05").to_string(), "-0.05 RUB");
        assert_eq!(Amount::new(5, Currency::XTR).decimal(), "5");
        assert_eq!(Amount::new(1, Currency::BTC).decimal(), "0.00000001");
    }

    #[test]
    fn shares_round_the_way_they_are_told() {
        assert_eq!(rub("0.99").share(BasisPoints(1_000), Rounding::Down), Ok(rub("0.09")));
        assert_eq!(rub("0.99").share(BasisPoints(1_000), Rounding::Up), Ok(rub("0.10")));
        assert_eq!(rub("0.25").share(BasisPoints(1_000), Rounding::HalfEven), Ok(rub("0.02")));
        assert_eq!(rub("100").proportion(10, 30, Rounding::Down), Ok(rub("33.33")));
        assert_eq!(rub("100").proportion(1, 0, Rounding::Down), Err(AmountError::NoWhole { whole: 0 }));
        let large = Amount::new(i64::MAX, Currency::RUB);
        assert_eq!(large.proportion(i64::MAX, i64::MAX, Rounding::Down), Ok(large), "the product needs 128 bits");
    }

    #[test]
    fn an_amount_travels_as_text_and_code() {
        let json = r#"{"amount":"499.00","currency":"RUB"}"#;
        assert_eq!(serde_json::to_string(&rub("499")).unwrap(), json);
        assert_eq!(serde_json::from_str::<Amount>(json).unwrap(), rub("499"));
        for wrong in [
            r#"{"amount":499.00,"currency":"RUB"}"#,
            r#"{"amount":"499.00","currency":"RUB","fee":"1"}"#,
            r#"{"amount":"499.001","currency":"RUB"}"#,
            r#"{"amount":"499.00","currency":"rub"}"#,
            r#"{"amount":"499.00"}"#,
        ] {
            assert!(serde_json::from_str::<Amount>(wrong).is_err(), "{wrong}");
        }
    }

    fn any_amount() -> impl Strategy<Value = Amount> {
        (-i64::MAX..=i64::MAX, 0..Currency::ALL.len()).prop_map(|(minor, at)| Amount::new(minor, Currency::ALL[at]))
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(amount in any_amount()) {
            prop_assert_eq!(Amount::parse(&amount.decimal(), amount.currency()), Ok(amount));
        }

        #[test]
        fn a_share_up_to_the_whole_never_exceeds_it(minor in 0..=i64::MAX, points in 0..=10_000_u32) {
            let amount = Amount::new(minor, Currency::RUB);
            for rounding in [Rounding::Down, Rounding::HalfEven, Rounding::Up] {
                let share = amount.share(BasisPoints(points), rounding).unwrap();
                prop_assert!(share.minor() <= minor && !share.is_negative());
            }
        }

        #[test]
        fn parts_rounded_down_never_exceed_the_whole(minor in 0..=i64::MAX, whole in 1..=i64::MAX, seed in any::<u64>()) {
            let amount = Amount::new(minor, Currency::RUB);
            let part = i64::try_from(seed % (whole.unsigned_abs() + 1)).unwrap();
            let one = amount.proportion(part, whole, Rounding::Down).unwrap();
            let rest = amount.proportion(whole - part, whole, Rounding::Down).unwrap();
            let sum = one.checked_add(rest).unwrap();
            prop_assert!(sum.minor() <= minor);
            prop_assert!(minor - sum.minor() <= 1, "rounding loses at most one smallest unit");
        }

        #[test]
        fn reading_never_panics(text in "[-+.0-9eE ]{0,60}") {
            let _ = Amount::parse(&text, Currency::TON);
            let _ = Amount::parse_floor(&text, Currency::XTR);
        }
    }
}
