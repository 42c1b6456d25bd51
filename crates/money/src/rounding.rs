//! Shares of an amount: how much, and where the rest of a smallest unit goes.

use serde::{Deserialize, Serialize};

/// Hundredths of a percent: 10 000 is the whole, 250 is 2.5 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BasisPoints(pub u32);

impl BasisPoints {
    /// All of it.
    pub const WHOLE: BasisPoints = BasisPoints(10_000);
}

/// What happens to the part of a smallest unit that a division leaves over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// Towards zero: whoever receives the share bears the rest.
    Down,
    /// Away from zero: whoever gives the share bears the rest.
    Up,
    /// To the nearest, a tie to the even neighbour: no side gains over many divisions.
    HalfEven,
}

/// `numerator / denominator` as a whole number. The denominator is positive.
pub(crate) fn divide(numerator: i128, denominator: i128, rounding: Rounding) -> i128 {
    let quotient = numerator / denominator;
    let rest = (numerator % denominator).unsigned_abs();
    if rest == 0 {
        return quotient;
    }
    let away = if numerator < 0 { quotient - 1 } else { quotient + 1 };
    let left = denominator.unsigned_abs() - rest;
    match rounding {
        Rounding::Down => quotient,
        Rounding::Up => away,
        Rounding::HalfEven if rest > left || (rest == left && quotient % 2 != 0) => away,
        Rounding::HalfEven => quotient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_is_towards_zero_and_up_away_from_it_on_both_sides() {
        assert_eq!(divide(7, 2, Rounding::Down), 3);
        assert_eq!(divide(-7, 2, Rounding::Down), -3);
        assert_eq!(divide(7, 2, Rounding::Up), 4);
        assert_eq!(divide(-7, 2, Rounding::Up), -4);
        assert_eq!(divide(6, 2, Rounding::Up), 3);
    }

    #[test]
    fn a_tie_goes_to_the_even_neighbour() {
        let halves = [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)];
        for (numerator, expected) in halves {
            assert_eq!(divide(numerator, 2, Rounding::HalfEven), expected, "{numerator}/2");
        }
        assert_eq!(divide(2, 3, Rounding::HalfEven), 1);
        assert_eq!(divide(1, 3, Rounding::HalfEven), 0);
        assert_eq!(divide(-2, 3, Rounding::HalfEven), -1);
    }
}
