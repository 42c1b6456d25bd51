//! How much of an invoice's price came in, when the customer paid with another coin.

use semel_money::Amount;

use crate::json::Value;
use crate::payment::SeenState;

/// Chains count up to 18 digits after the dot; what is finer is cut off.
const DIGITS: usize = 18;

/// What came in, in the invoice's currency; `None` while nothing is certain.
///
/// Paid in the invoice's own currency, it is what was paid. Paid in another coin, it is the price in the proportion of what was paid to what
/// was to be paid, rounded down. Where the answer does not give these, a paid invoice counts as its price and a short one as unknown.
/// A paid one never counts as less than its price: the merchant allowed that tolerance.
pub(super) fn of(invoice: &Value, price: Amount, state: SeenState) -> Option<Amount> {
    let came = || in_price_currency(invoice, price);
    match state {
        SeenState::Paid => Some(came().filter(|came| came.minor() > price.minor()).unwrap_or(price)),
        SeenState::PaidOver => Some(came().unwrap_or(price)),
        SeenState::Short
        | SeenState::ShortOpen
        | SeenState::RefundPending
        | SeenState::Refunded
        | SeenState::RefundFailed => came(),
        _ => None,
    }
}

fn in_price_currency(invoice: &Value, price: Amount) -> Option<Amount> {
    let paid = invoice.literal("payment_amount")?;
    if invoice.text("payer_currency")? == price.currency().code() {
        return Amount::parse_floor(paid, price.currency()).ok().filter(|amount| amount.is_positive());
    }
    let (paid, due) = (scaled(paid)?, scaled(invoice.literal("payer_amount")?)?);
    if paid <= 0 || due <= 0 || !price.is_positive() {
        return None;
    }
    let minor = i128::from(price.minor()).checked_mul(paid)? / due;
    let minor = i64::try_from(minor).ok()?;
    Some(Amount::new(minor, price.currency()))
}

/// Decimal text as a whole number of 10⁻¹⁸; `None` if it is no such text or too large.
fn scaled(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || text.len() > 60 {
        return None;
    }
    let padded = fraction.bytes().chain(std::iter::repeat(b'0')).take(DIGITS.max(fraction.len()));
    let mut number: i128 = 0;
    for (at, byte) in whole.bytes().chain(padded).enumerate() {
        if !byte.is_ascii_digit() {
            return None;
        }
        if at < whole.len() + DIGITS {
            number = number.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use semel_money::Currency;

    use super::*;
    use crate::json::read;

    fn came(json: &str, state: SeenState) -> Option<String> {
        let price = Amount::parse("499.00", Currency::RUB).unwrap();
        of(&read(json.as_bytes()).unwrap(), price, state).map(|amount| amount.decimal())
    }

    #[test]
    fn decimal_text_is_scaled_exactly() {
        assert_eq!(scaled("1"), Some(1_000_000_000_000_000_000));
        assert_eq!(scaled("0.000000000000000001"), Some(1));
        assert_eq!(scaled("0.0000000000000000019"), Some(1));
        for wrong in ["", ".5", "1e2", "-1", "1,0", "1.2.3", "99999999999999999999999999999"] {
            assert_eq!(scaled(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn another_coin_counts_in_proportion_rounded_down() {
        let over = r#"{"payment_amount":"6.00000000","payer_amount":"5.00000000","payer_currency":"USDT"}"#;
        assert_eq!(came(over, SeenState::PaidOver).as_deref(), Some("598.80"));
        let short = r#"{"payment_amount":"1.00000000","payer_amount":"3.00000000","payer_currency":"USDT"}"#;
        assert_eq!(came(short, SeenState::Short).as_deref(), Some("166.33"));
    }

    #[test]
    fn without_the_rate_paid_counts_as_the_price_and_short_as_unknown() {
        let bare = r#"{"payment_amount":"5.00000000","payer_currency":"USDT"}"#;
        assert_eq!(came(bare, SeenState::Paid).as_deref(), Some("499.00"));
        assert_eq!(came(bare, SeenState::PaidOver).as_deref(), Some("499.00"));
        assert_eq!(came(bare, SeenState::Short), None);
        let zero = r#"{"payment_amount":"5.0","payer_amount":"0.00000000","payer_currency":"USDT"}"#;
        assert_eq!(came(zero, SeenState::Short), None, "nothing is divided by zero");
    }

    #[test]
    fn the_own_currency_counts_as_it_is_and_tolerance_does_not_make_it_short() {
        let less = r#"{"payment_amount":"495.00","payer_currency":"RUB"}"#;
        assert_eq!(came(less, SeenState::Paid).as_deref(), Some("499.00"));
        assert_eq!(came(less, SeenState::Short).as_deref(), Some("495.00"));
        assert_eq!(came(less, SeenState::Open), None);
        assert_eq!(came(less, SeenState::Processing), None, "seen on the chain is not received");
    }
}
