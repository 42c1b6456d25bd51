//! Where an order's money went when it was not the goods, in sentences for the timeline.
//!
//! That money came stands in the history of its payment. Late, short, surplus and second money does not buy this order: the
//! books say where it is instead, and each of its steps is a line here.

use semel_kernel::history::Told;
use semel_kernel::store::Tx;

use super::OrderId;
use crate::Error;
use crate::ledger::{self, Moved};

/// The lines about the money of `order`, at most `limit`, in the order of the books. None for an order that was simply paid.
pub(super) fn lines(tx: &mut Tx, order: &OrderId, limit: i64) -> Result<Vec<Told>, Error> {
    let moved = ledger::moved(tx, order, limit)?;
    Ok(moved.iter().filter_map(|step| line(order, step)).collect())
}

fn line(order: &OrderId, step: &Moved) -> Option<Told> {
    let (event, reason) = sentence(order, step)?;
    let sum = if step.amount.is_positive() { step.amount } else { step.amount.neg() };
    Some(Told {
        at: step.at.to_string(),
        entity: "money".into(),
        entity_id: step.posting.clone(),
        event,
        actor: step.provider.clone(),
        from: None,
        to: None,
        took_ms: None,
        detail: Some(if reason.is_empty() { sum.to_string() } else { format!("{sum}, {reason}") }),
    })
}

/// What happened, and why; nothing about money that bought the goods or is on its way in an account of the order.
fn sentence<'a>(order: &OrderId, step: &'a Moved) -> Option<(String, &'a str)> {
    let note = step.note.as_deref();
    let elsewhere = step.order.as_ref().filter(|named| *named != order);
    let event = match (step.kind.as_str(), step.account.as_str(), step.amount.is_positive()) {
        // A capture that pays its order needs no note; what it puts on the balance is beyond the order's price.
        ("capture", "customer", true) => return Some(("went to the balance".into(), note.unwrap_or("surplus"))),
        ("capture", "suspense", true) => "went to suspense, where it is nobody's yet".into(),
        ("assign", "order", true) => match elsewhere {
            None => "left suspense and paid this order".into(),
            Some(other) => format!("left suspense and paid order {other}"),
        },
        ("assign", "customer", true) => match elsewhere {
            None => "left suspense for the balance".into(),
            Some(other) => format!("left suspense for the balance, with order {other}"),
        },
        ("refund", "customer", false) => "went back from the balance".into(),
        ("refund", "suspense", false) => "went back from suspense".into(),
        _ => return None,
    };
    Some((event, note.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::{Chance, Time};
    use semel_money::{Amount, Currency};

    use super::*;

    fn told(kind: &str, account: &str, minor: i64, note: Option<&str>, other: bool) -> Option<String> {
        let (at, chance) = (Time::from_millis(1_772_355_600_000), Chance::seeded(1));
        let (order, another) = (OrderId::new(at, &chance), OrderId::new(at, &chance));
        let step = Moved {
            posting: "txn_1".into(),
            at,
            kind: kind.into(),
            provider: None,
            order: Some(if other { another.clone() } else { order.clone() }),
            note: note.map(str::to_owned),
            account: account.into(),
            amount: Amount::new(minor, Currency::from_code("RUB").unwrap()),
        };
        let line = line(&order, &step)?;
        Some(format!("{}: {}", line.event, line.detail.unwrap_or_default()).replace(another.as_str(), "OTHER"))
    }

    #[test]
    fn each_step_beside_the_goods_is_a_sentence_with_its_sum_and_reason() {
        for (step, wanted) in [
            (told("capture", "customer", 90_000, Some("short"), false), "went to the balance: 900.00 RUB, short"),
            (told("capture", "customer", 1_000, None, false), "went to the balance: 10.00 RUB, surplus"),
            (
                told("capture", "suspense", 99_000, Some("came in USD"), false),
                "went to suspense, where it is nobody's yet: 990.00 RUB, came in USD",
            ),
            (
                told("assign", "order", 99_000, Some("by api"), false),
                "left suspense and paid this order: 990.00 RUB, by api",
            ),
            (
                told("assign", "order", 99_000, Some("by api"), true),
                "left suspense and paid order OTHER: 990.00 RUB, by api",
            ),
            (told("assign", "customer", 500, None, false), "left suspense for the balance: 5.00 RUB"),
            (told("assign", "customer", 500, None, true), "left suspense for the balance, with order OTHER: 5.00 RUB"),
            (
                told("refund", "customer", -500, Some("asked for"), false),
                "went back from the balance: 5.00 RUB, asked for",
            ),
            (told("refund", "suspense", -500, None, false), "went back from suspense: 5.00 RUB"),
        ] {
            assert_eq!(step.as_deref(), Some(wanted));
        }
    }

    #[test]
    fn money_that_bought_the_goods_needs_no_sentence() {
        assert_eq!(told("capture", "order", 99_000, None, false), None);
        assert_eq!(told("assign", "suspense", -99_000, None, false), None);
        assert_eq!(told("refund", "order", -500, None, false), None);
    }
}
