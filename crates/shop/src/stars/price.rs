//! How prices come to Stars.

use semel_money::{Amount, Currency};
use semel_payments::Provider;

use crate::catalog::{Kind, Product};
use crate::{Error, Shop};

/// What one Star is worth in the currency of the shop, in millionths of that currency's unit.
///
/// A price in that currency is divided by it and rounded up to whole Stars, so nothing is sold for less than its price. A product that
/// is priced in `XTR` costs just that and needs no such number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth(i64);

impl Worth {
    /// So many millionths of a unit; none unless it is more than nothing.
    pub fn millionths(count: i64) -> Option<Worth> {
        (count > 0).then_some(Worth(count))
    }

    /// What costs `price`, in Stars. None when nothing is to be paid, or more Stars than can be counted.
    fn stars_for(self, price: Amount) -> Option<Amount> {
        let scaled = i128::from(price.minor()) * 1_000_000;
        let one = i128::from(self.0) * 10_i128.pow(price.currency().exponent());
        let stars = scaled / one + i128::from(scaled % one != 0);
        i64::try_from(stars).ok().filter(|stars| *stars > 0).map(|stars| Amount::new(stars, Currency::XTR))
    }
}

/// What one of `product` costs in Stars.
///
/// # Errors
/// [`Error::Conflict`] with a sentence when it has no such price.
pub(crate) fn price_of(shop: &Shop, product: &Product) -> Result<Amount, Error> {
    if is_in_stars(product.price.currency()) {
        return Ok(product.price);
    }
    // What is put on a balance stays in the currency in which it was paid, which would be another than the title says.
    if product.kind == Kind::Topup {
        return Err(Error::Conflict(format!(
            "{} tops up in {}: it is not sold for Stars",
            product.title,
            product.price.currency()
        )));
    }
    let worth = shop.rules.stars_worth.filter(|_| product.price.currency() == shop.rules.currency);
    worth.and_then(|worth| worth.stars_for(product.price)).ok_or_else(|| {
        Error::Conflict(format!("{} has no price in Stars: price it in XTR, or set stars.worth", product.title))
    })
}

/// Whether a sum is in Stars.
pub(crate) fn is_in_stars(currency: Currency) -> bool {
    currency == Currency::XTR
}

/// Whether an order in `currency` can be paid at `provider`: one in Stars with Stars alone, and no other with them.
///
/// # Errors
/// [`Error::Invalid`] when it cannot.
pub(crate) fn fits(provider: Provider, currency: Currency) -> Result<(), Error> {
    match (provider == Provider::Stars, is_in_stars(currency)) {
        (true, false) => {
            let text = format!("this order is in {currency}: Stars pay an order that was made for them");
            Err(Error::invalid("provider", text))
        }
        (false, true) => {
            let text = format!("this order is in Stars: {} cannot take them", provider.as_str());
            Err(Error::invalid("provider", text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_rounded_up_to_whole_stars() {
        let worth = Worth::millionths(1_800_000).unwrap();
        let stars = |minor: i64| worth.stars_for(Amount::new(minor, Currency::RUB)).map(|stars| stars.minor());
        assert_eq!(stars(18_000), Some(100), "180.00 at 1.80");
        assert_eq!(stars(18_001), Some(101), "one kopeck more is one Star more");
        assert_eq!((stars(1), stars(180), stars(0)), (Some(1), Some(1), None));
        assert_eq!(stars(99_000), Some(550));
        let cents = Worth::millionths(13_000).unwrap().stars_for(Amount::new(499, Currency::USD)).unwrap();
        assert_eq!(cents.minor(), 384, "4.99 at 0.013");
        assert_eq!(Worth::millionths(0), None);
        assert!(Worth::millionths(1).unwrap().stars_for(Amount::new(i64::MAX, Currency::RUB)).is_none());
    }

    #[test]
    fn stars_pay_what_is_in_stars_and_nothing_else() {
        assert!(fits(Provider::Stars, Currency::XTR).is_ok() && fits(Provider::YooKassa, Currency::RUB).is_ok());
        assert!(fits(Provider::Stars, Currency::RUB).is_err() && fits(Provider::Heleket, Currency::XTR).is_err());
    }
}
