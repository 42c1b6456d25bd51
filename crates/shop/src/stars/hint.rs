//! From the update that tells of money to a notice in the inbox.

use semel_kernel::inbox;
use semel_kernel::store::Tx;
use semel_payments::{Hint, Provider, Subject};
use semel_telegram::Paid;

use crate::checkout::hints;
use crate::{Error, Shop, alerts};

/// What an update tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// That somebody paid.
    Paid,
    /// That somebody got their Stars back.
    Refunded,
}

impl Told {
    fn event(self) -> &'static str {
        match self {
            Self::Paid => "successful_payment",
            Self::Refunded => "refunded_payment",
        }
    }

    /// Begins with `refund` for one: see `checkout/resolve.rs`.
    fn state(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Refunded => "refunded",
        }
    }
}

/// Takes what an update tells of money into the inbox, in the transaction that ends the update. It decides nothing: the payment's own
/// job looks sooner. The same charge is one notice, however many updates tell of it.
pub(crate) fn take(tx: &mut Tx, shop: &Shop, money: &Paid, told: Told) -> Result<(), Error> {
    let Some(rail) = shop.rails.get(&Provider::Stars) else {
        let text = format!(
            "Telegram tells of {} Stars (charge {}), and Stars are not set up: set stars.enabled, and the hourly look books them",
            money.amount, money.charge
        );
        return alerts::flows::raise(tx, shop, format!("stars-off:{}:{}", told.event(), money.charge), text);
    };
    let hint = Hint {
        event_id: format!("stars:{}:{}", told.event(), money.charge),
        event: told.event().to_owned(),
        subject: Subject::Payment {
            provider_id: money.charge.clone(),
            ours: Some(money.payload.clone()),
            transaction: None,
        },
        says_state: told.state().to_owned(),
        says_amount: Some(format!("{} {}", money.amount, money.currency)),
    };
    // What is the same in every telling of it, so that a second telling is a repeat.
    let body = serde_json::json!({
        "currency": money.currency, "total_amount": money.amount, "invoice_payload": money.payload,
        "telegram_payment_charge_id": money.charge,
    });
    let notice = hints::notice(rail, hint, body.to_string().into_bytes(), "{}".to_owned(), None);
    inbox::accept(tx, &shop.chance, notice, &hints::intake_options())?;
    Ok(())
}
