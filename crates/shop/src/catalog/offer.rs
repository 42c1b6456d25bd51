//! What the owner says about a product, and whether it makes sense.

use semel_money::Amount;

use super::{Delivery, Kind, Product};
use crate::Error;

const TITLE_CHARS: usize = 200;
const DESCRIPTION_CHARS: usize = 4000;
const HOUR_S: i64 = 3600;
/// What is promised for a product made to order when the owner did not say.
const USUAL_PROMISE_S: i64 = 24 * HOUR_S;
const LONGEST_PROMISE_S: i64 = 365 * 24 * HOUR_S;
const DAY_S: i64 = 24 * HOUR_S;
const LONGEST_ACCESS_S: i64 = 3650 * DAY_S;
const DEVICES_AT_MOST: i64 = 10;

/// A product to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProduct {
    /// What customers read.
    pub title: String,
    /// More of it; may be empty.
    pub description: String,
    /// What kind of thing.
    pub kind: Kind,
    /// Instant or made to order.
    pub delivery: Delivery,
    /// How many seconds after payment a unit is promised. Only for what is made to order; a day when left out.
    pub promise_s: Option<i64>,
    /// The price of one.
    pub price: Amount,
    /// How many seconds of access one is. Needed for the kind `vpn`, and for no other.
    pub duration_s: Option<i64>,
    /// For how many devices, 1 to 10. Needed for the kind `vpn`, and for no other.
    pub devices: Option<i64>,
}

impl NewProduct {
    /// The same, tidied, when it makes sense.
    pub(super) fn checked(self) -> Result<Self, Error> {
        if self.kind == Kind::Topup && self.delivery == Delivery::MadeToOrder {
            return Err(Error::invalid("delivery", "a top-up is always instant: leave delivery out"));
        }
        if self.kind == Kind::Vpn && self.delivery == Delivery::MadeToOrder {
            return Err(Error::invalid("delivery", "access is always instant: leave delivery out"));
        }
        access(self.kind, self.duration_s, self.devices)?;
        let usual = (self.delivery == Delivery::MadeToOrder).then_some(USUAL_PROMISE_S);
        Ok(Self {
            title: title(&self.title)?,
            description: description(&self.description)?,
            promise_s: self.promise_s.map(|said| promise(said, self.delivery)).transpose()?.or(usual),
            price: price(self.price)?,
            ..self
        })
    }
}

/// What shall be different about a product; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Another title.
    pub title: Option<String>,
    /// Another description.
    pub description: Option<String>,
    /// Another price, for orders to come.
    pub price: Option<Amount>,
    /// On sale or not.
    pub active: Option<bool>,
    /// Another promise in seconds, for what is made to order.
    pub promise_s: Option<i64>,
    /// The version that the owner saw; a product that changed since is left alone.
    pub version: Option<i64>,
}

impl Change {
    /// The same, tidied, when it makes sense for `product`.
    pub(super) fn checked(self, product: &Product) -> Result<Self, Error> {
        if self.words().is_empty() {
            return Err(Error::invalid(
                "body",
                "nothing to change: give title, description, price, active or promise_hours",
            ));
        }
        Ok(Self {
            title: self.title.as_deref().map(title).transpose()?,
            description: self.description.as_deref().map(description).transpose()?,
            price: self.price.map(price).transpose()?,
            promise_s: self.promise_s.map(|said| promise(said, product.delivery)).transpose()?,
            ..self
        })
    }

    /// What it touches, for the history.
    pub(super) fn words(&self) -> String {
        let touched = [
            ("title", self.title.is_some()),
            ("description", self.description.is_some()),
            ("price", self.price.is_some()),
            ("active", self.active.is_some()),
            ("promise", self.promise_s.is_some()),
        ];
        let words: Vec<&str> = touched.into_iter().filter(|(_, is)| *is).map(|(word, _)| word).collect();
        words.join(", ")
    }
}

/// What is said about access is said for a product that is access, and for no other.
fn access(kind: Kind, duration_s: Option<i64>, devices: Option<i64>) -> Result<(), Error> {
    match (kind, duration_s, devices) {
        (Kind::Vpn, Some(duration_s), Some(devices)) => {
            if !(1..=LONGEST_ACCESS_S).contains(&duration_s) {
                let most = LONGEST_ACCESS_S / DAY_S;
                return Err(Error::invalid("duration_days", format!("between 1 and {most} days")));
            }
            if !(1..=DEVICES_AT_MOST).contains(&devices) {
                return Err(Error::invalid("devices", format!("between 1 and {DEVICES_AT_MOST}, not {devices}")));
            }
            Ok(())
        }
        (Kind::Vpn, None, _) => Err(Error::invalid("duration_days", "say for how many days the access is")),
        (Kind::Vpn, _, None) => Err(Error::invalid("devices", "say for how many devices the access is")),
        (_, Some(_), _) => Err(Error::invalid("duration_days", "only a product of the kind vpn has a duration")),
        (_, _, Some(_)) => Err(Error::invalid("devices", "only a product of the kind vpn has devices")),
        (_, None, None) => Ok(()),
    }
}

fn title(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let chars = text.chars().count();
    if !(1..=TITLE_CHARS).contains(&chars) {
        return Err(Error::invalid("title", format!("between 1 and {TITLE_CHARS} characters, not {chars}")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid("title", "one line without control characters"));
    }
    Ok(text.to_owned())
}

fn description(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let chars = text.chars().count();
    if chars > DESCRIPTION_CHARS {
        return Err(Error::invalid("description", format!("at most {DESCRIPTION_CHARS} characters, not {chars}")));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Error::invalid("description", "no control characters but line ends and tabs"));
    }
    Ok(text.to_owned())
}

fn price(amount: Amount) -> Result<Amount, Error> {
    if amount.is_positive() {
        Ok(amount)
    } else {
        Err(Error::invalid("price", format!("more than nothing, not {amount}")))
    }
}

fn promise(seconds: i64, delivery: Delivery) -> Result<i64, Error> {
    match delivery {
        Delivery::Instant if seconds == 0 => Ok(0),
        Delivery::Instant => Err(Error::invalid("promise_hours", "only a product made to order has a promise")),
        Delivery::MadeToOrder if (1..=LONGEST_PROMISE_S).contains(&seconds) => Ok(seconds),
        Delivery::MadeToOrder => {
            let most = LONGEST_PROMISE_S / HOUR_S;
            Err(Error::invalid("promise_hours", format!("between 1 and {most} hours")))
        }
    }
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::{Chance, Time};
    use semel_money::Currency;

    use super::*;
    use crate::catalog::ProductId;

    fn key() -> NewProduct {
        NewProduct {
            title: " VPN key ".into(),
            description: String::new(),
            kind: Kind::Stock,
            delivery: Delivery::Instant,
            promise_s: None,
            price: Amount::new(49_900, Currency::RUB),
            duration_s: None,
            devices: None,
        }
    }

    fn field_of<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
        match outcome {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?} names no field"),
        }
    }

    #[test]
    fn a_sound_product_is_tidied() {
        let new = key().checked().unwrap();
        assert_eq!(new.title, "VPN key");
        assert_eq!(new.promise_s, None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(field_of(NewProduct { title: " ".into(), ..key() }.checked()), "title");
        assert_eq!(field_of(NewProduct { title: "x".repeat(201), ..key() }.checked()), "title");
        assert_eq!(field_of(NewProduct { title: "a\nb".into(), ..key() }.checked()), "title");
        assert_eq!(field_of(NewProduct { description: "\0".into(), ..key() }.checked()), "description");
        assert_eq!(field_of(NewProduct { price: Amount::zero(Currency::RUB), ..key() }.checked()), "price");
        assert_eq!(field_of(NewProduct { promise_s: Some(3600), ..key() }.checked()), "promise_hours");
        let topup = NewProduct { kind: Kind::Topup, delivery: Delivery::MadeToOrder, ..key() };
        assert_eq!(field_of(topup.checked()), "delivery");
    }

    #[test]
    fn access_says_for_how_long_and_on_how_many_devices() {
        let month = NewProduct { kind: Kind::Vpn, duration_s: Some(30 * DAY_S), devices: Some(3), ..key() };
        assert!(month.clone().checked().is_ok());
        assert_eq!(field_of(NewProduct { duration_s: None, ..month.clone() }.checked()), "duration_days");
        assert_eq!(field_of(NewProduct { duration_s: Some(0), ..month.clone() }.checked()), "duration_days");
        assert_eq!(field_of(NewProduct { devices: None, ..month.clone() }.checked()), "devices");
        assert_eq!(field_of(NewProduct { devices: Some(11), ..month.clone() }.checked()), "devices");
        let later = NewProduct { delivery: Delivery::MadeToOrder, ..month };
        assert_eq!(field_of(later.checked()), "delivery");
        assert_eq!(field_of(NewProduct { devices: Some(1), ..key() }.checked()), "devices");
        assert_eq!(field_of(NewProduct { duration_s: Some(DAY_S), ..key() }.checked()), "duration_days");
    }

    #[test]
    fn what_is_made_to_order_is_promised() {
        let made = NewProduct { delivery: Delivery::MadeToOrder, ..key() };
        assert_eq!(made.clone().checked().unwrap().promise_s, Some(86_400));
        let soon = NewProduct { promise_s: Some(7200), ..made.clone() };
        assert_eq!(soon.checked().unwrap().promise_s, Some(7200));
        assert_eq!(field_of(NewProduct { promise_s: Some(0), ..made }.checked()), "promise_hours");
    }

    #[test]
    fn a_change_needs_something_to_change() {
        let now = Time::from_millis(0);
        let product = Product {
            id: ProductId::new(now, &Chance::seeded(1)),
            title: "VPN key".into(),
            description: String::new(),
            kind: Kind::Stock,
            delivery: Delivery::Instant,
            promise_s: 0,
            price: Amount::new(49_900, Currency::RUB),
            active: true,
            version: 1,
            created_at: now,
            duration_s: None,
            devices: None,
            stock: None,
        };
        assert_eq!(field_of(Change { version: Some(1), ..Change::default() }.checked(&product)), "body");
        assert_eq!(field_of(Change { promise_s: Some(60), ..Change::default() }.checked(&product)), "promise_hours");
        let change = Change { title: Some(" New ".into()), active: Some(false), ..Change::default() };
        let change = change.checked(&product).unwrap();
        assert_eq!(change.title.as_deref(), Some("New"));
        assert_eq!(change.words(), "title, active");
    }
}
