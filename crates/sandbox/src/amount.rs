//! Money as decimal text and as integers of the smallest unit; no binary fraction ever holds money.

/// How many decimals the smallest unit of a currency has. Coins that are not listed count in 1/100 000 000.
pub(crate) fn scale(currency: &str) -> u32 {
    match currency {
        "XTR" | "JPY" => 0,
        "USDT" | "USDC" | "TRX" => 6,
        "TON" | "SOL" => 9,
        coin if COINS.contains(&coin) => 8,
        _ => 2,
    }
}

/// What a customer pays as it is; everything else is fiat.
const COINS: [&str; 14] =
    ["USDT", "USDC", "TRX", "TON", "SOL", "BTC", "LTC", "ETH", "BNB", "DOGE", "DASH", "BCH", "XMR", "POL"];

/// Whether Heleket takes this currency on a chain directly.
pub(crate) fn is_coin(currency: &str) -> bool {
    COINS.contains(&currency)
}

/// Reads `499`, `499.5` or `499.00` into smallest units. Nothing with a sign, an exponent, or a finer fraction than the currency has.
pub(crate) fn parse(text: &str, scale: u32) -> Option<i64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(missing)).parse().ok()
}

/// Prints every decimal of the smallest unit, and zeros after it up to `decimals`.
pub(crate) fn fixed(minor: i64, scale: u32, decimals: u32) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let unit = 10_u64.pow(scale);
    let whole = minor.unsigned_abs() / unit;
    let mut fraction = String::new();
    if scale > 0 {
        let width = scale as usize;
        fraction = format!("{:0width$}", minor.unsigned_abs() % unit);
    }
    while fraction.len() < decimals as usize {
        fraction.push('0');
    }
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Prints without a needless fraction: `499`, `489.02`.
pub(crate) fn plain(minor: i64, scale: u32) -> String {
    let text = fixed(minor, scale, 0);
    if scale == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// The same sum in units of another scale, cut off below.
pub(crate) fn rescale(minor: i64, from: u32, to: u32) -> i64 {
    if to >= from { minor.saturating_mul(10_i64.pow(to - from)) } else { minor / 10_i64.pow(from - to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_becomes_smallest_units_and_back() {
        for (text, minor) in [("499", 49_900), ("499.5", 49_950), ("499.00", 49_900), ("0.01", 1), ("3.00000000", 300)]
        {
            assert_eq!(parse(text, 2), Some(minor), "{text}");
        }
        for text in ["", ".5", "5.", "-1", "+1", "1e3", "0.001", "1,5", "99999999999999999999"] {
            assert_eq!(parse(text, 2), None, "{text}");
        }
        assert_eq!(fixed(49_900, 2, 2), "499.00");
        assert_eq!(fixed(49_900, 2, 8), "499.00000000");
        assert_eq!(fixed(5, 2, 2), "0.05");
        assert_eq!(fixed(250, 0, 0), "250");
        assert_eq!(plain(49_900, 2), "499");
        assert_eq!(plain(48_902, 2), "489.02");
        assert_eq!(plain(100, 0), "100");
        assert_eq!(rescale(49_900, 4, 2), 499);
    }
}
