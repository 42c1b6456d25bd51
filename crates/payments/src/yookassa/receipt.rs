//! The fiscal receipt that goes with a payment or a refund (54-FZ).

use semel_money::Amount;
use serde::Serialize;

use super::ReceiptSettings;
use crate::payment::Line;
use crate::request::shortened;

/// Receipts hold no more lines.
const MOST_LINES: usize = 100;

/// `{"value":"499.00","currency":"RUB"}`.
#[derive(Serialize)]
pub(super) struct Money {
    value: String,
    currency: &'static str,
}

impl From<Amount> for Money {
    fn from(amount: Amount) -> Money {
        Money { value: amount.decimal(), currency: amount.currency().code() }
    }
}

#[derive(Serialize)]
pub(super) struct Receipt<'a> {
    customer: Customer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tax_system_code: Option<u8>,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Customer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
}

#[derive(Serialize)]
struct Item<'a> {
    description: String,
    quantity: String,
    amount: Money,
    vat_code: u8,
    payment_subject: &'a str,
    payment_mode: &'a str,
}

/// Whom the receipt goes to.
pub(super) struct Buyer<'a> {
    pub(super) email: Option<&'a str>,
    pub(super) phone: Option<&'a str>,
}

/// Builds the receipt, or says in a sentence what is missing. The lines must add up to the sum that is paid or given back, since
/// the cash register refuses anything else.
pub(super) fn build<'a>(
    settings: &'a ReceiptSettings,
    buyer: &Buyer<'a>,
    lines: &[Line],
    total: Amount,
) -> Result<Receipt<'a>, String> {
    let email = buyer.email.map(str::trim).filter(|email| !email.is_empty());
    let phone = buyer.phone.map(digits).filter(|phone| !phone.is_empty());
    if email.is_none() && phone.is_none() {
        return Err("the shop sends fiscal receipts: pass customer.email or customer.phone".to_string());
    }
    if lines.is_empty() || lines.len() > MOST_LINES {
        return Err(format!("a receipt has 1 to {MOST_LINES} lines, this one has {}", lines.len()));
    }
    let mut sum = Amount::zero(total.currency());
    for line in lines {
        let price = line.price.times(i64::from(line.quantity)).map_err(|error| error.to_string())?;
        sum = sum.checked_add(price).map_err(|error| error.to_string())?;
    }
    if sum != total {
        return Err(format!("the lines of the receipt add up to {sum}, the amount is {total}"));
    }
    let items = lines.iter().map(|line| Item {
        description: shortened(&line.title, 128),
        quantity: format!("{}.00", line.quantity),
        amount: line.price.into(),
        vat_code: settings.vat_code,
        payment_subject: &settings.payment_subject,
        payment_mode: &settings.payment_mode,
    });
    Ok(Receipt {
        customer: Customer { email, phone },
        tax_system_code: settings.tax_system_code,
        items: items.collect(),
    })
}

fn digits(phone: &str) -> String {
    phone.chars().filter(char::is_ascii_digit).collect()
}
