//! From the provider's own answer to the money in the books: one transaction, once.

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::inbox;
use semel_kernel::jobs::{self, Job};
use semel_kernel::outbound::Manner;
use semel_kernel::store::{Expect, Tx};
use semel_money::Amount;
use semel_payments::{CallError, PaymentRef, Rail, Seen, SeenState};

use super::flows::{TalkOrStore, add_ref, advance, by_ref, receive};
use super::scene::{Ids, Scene, known_ids};
use super::talk::{self, TalkError};
use super::{ConfirmPayment, Payment, PaymentId, PaymentState, sql};
use crate::ledger::{self, Account, Origin, Posting};
use crate::orders::flows as order_flows;
use crate::orders::{Order, State};
use crate::shop::Lanes;
use crate::{Error, Shop, alerts, catalog, messages, safety, stars};

/// What asking about a payment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The provider means to leave it so.
    Final,
    /// Ask again later.
    Open,
}

/// Asks the provider about every id of a payment and settles each answer. `also` is an id to ask beside the known ones.
pub(super) async fn ask_and_settle(shop: &Shop, id: &PaymentId, also: Option<String>) -> Result<Standing, TalkOrStore> {
    let asked_at = shop.now();
    let (payment, mut ids) = known_ids(shop, id).await?;
    if let Some(also) = also {
        ids.name(also);
    }
    let seen = ask(shop, &payment, ids).await?;
    let of = id.clone();
    let settled = shop.write("payment.settle", move |tx, shop| {
        let standing = settle(tx, shop, &of, &seen, asked_at)?;
        tell_own_job(tx, &of, standing)?;
        Ok(standing)
    });
    Ok(settled.await?)
}

/// What another job found to be final is final for the payment's own job, too: it looks now and ends, instead of hours later.
/// It is pulled and not ended here, because a notice may have come since that other job asked, and pulled no job but this one.
pub(super) fn tell_own_job(tx: &mut Tx, id: &PaymentId, standing: Standing) -> Result<(), Error> {
    if standing == Standing::Final {
        jobs::pull_later(tx, ConfirmPayment::KIND, Lanes::MONEY, id.as_str())?;
    }
    Ok(())
}

/// The provider's answers, one for each id that it knows.
pub(super) async fn ask(shop: &Shop, payment: &Payment, ids: Ids) -> Result<Vec<Seen>, TalkOrStore> {
    let rail = shop.rail(payment.provider)?;
    if let Rail::Stars(bot) = rail {
        let ids: Vec<String> = ids.noted.into_iter().chain(ids.named).collect();
        return stars::ask(shop, rail, bot, payment, &ids).await;
    }
    let mut seen = Vec::with_capacity(ids.noted.len() + ids.named.len());
    for id in ids.noted {
        seen.extend(ask_one(shop, rail, payment, id).await?);
    }
    for id in ids.named {
        match ask_one(shop, rail, payment, id).await {
            Ok(found) => seen.extend(found),
            // Only a notice names this id, and a notice may lie: it must not keep the payment from being settled.
            Err(TalkOrStore::Talk(
                error @ (TalkError::Unsupported(_)
                | TalkError::Said(CallError::Refused { .. } | CallError::Foreign { .. })),
            )) => tracing::warn!(payment.id = %payment.id, %error, "a notice names an id that the provider refuses"),
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

async fn ask_one(shop: &Shop, rail: &Rail, payment: &Payment, id: String) -> Result<Option<Seen>, TalkOrStore> {
    let request = rail.ask(&PaymentRef::ProviderId(id)).map_err(TalkError::from)?;
    let answer = talk::send(shop, rail, "payment.ask", Manner::Read, request).await?;
    match rail.asked(&answer).map_err(TalkError::from)? {
        Some(found) if found.state == SeenState::WaitingForCapture => {
            Ok(Some(capture(shop, rail, payment, found).await?))
        }
        found => Ok(found),
    }
}

/// Takes money that the provider only holds, keyed by our payment.
async fn capture(shop: &Shop, rail: &Rail, payment: &Payment, held: Seen) -> Result<Seen, TalkOrStore> {
    let other = held.ours.as_deref().is_some_and(|ours| ours != payment.id.as_str());
    if held.price != payment.amount || held.test || other {
        return Ok(held);
    }
    let request = rail.capture(&held.provider_id, &format!("cap-{}", payment.key)).map_err(TalkError::from)?;
    let answer = talk::send(shop, rail, "payment.capture", Manner::Keyed, request).await?;
    Ok(rail.asked(&answer).map_err(TalkError::from)?.unwrap_or(held))
}

/// Takes what the provider said into the books and gives what was bought. A repeat changes nothing. Hints that arrived
/// before `asked_at` are applied by it.
pub(super) fn settle(
    tx: &mut Tx,
    shop: &Shop,
    id: &PaymentId,
    seen: &[Seen],
    asked_at: Time,
) -> Result<Standing, Error> {
    let about: Vec<String> = seen.iter().map(|one| one.provider_id.clone()).collect();
    let mut scene = Scene::read(tx, id, &about)?;
    let mut standing: Option<Standing> = None;
    for one in seen {
        // A notice may name one payment of ours and another one at the provider: then it is not about this one. Where the
        // provider does not say whose a payment is, it is ours only if we opened it.
        let own = match one.ours.as_deref() {
            Some(ours) => ours == scene.payment.id.as_str(),
            None => {
                let Payment { provider, merchant, id, .. } = &scene.payment;
                by_ref(tx, *provider, merchant, &one.provider_id)?.as_ref() == Some(id)
            }
        };
        if !own {
            continue;
        }
        if scene.payment.provider_id.as_deref() != Some(&one.provider_id) {
            add_ref(tx, &scene.payment, &one.provider_id)?;
            let args = args![&scene.payment.id, &one.provider_id, None::<String>, None::<i64>];
            tx.later(sql::LINKED, args, Expect::Rows(1))?;
        }
        let stands = take_in(tx, shop, &mut scene, one)?;
        standing = Some(if standing == Some(Standing::Open) { Standing::Open } else { stands });
    }
    inbox::apply(tx, id.as_str(), asked_at)?;
    // Nothing that was seen is about this payment: so nothing about it is final.
    Ok(standing.unwrap_or(Standing::Open))
}

fn take_in(tx: &mut Tx, shop: &Shop, scene: &mut Scene, seen: &Seen) -> Result<Standing, Error> {
    let (payment, order) = (&mut scene.payment, &scene.order);
    if seen.test {
        let text = format!("A test payment came for order {}: it is no money and buys nothing", order.id);
        alerts::flows::raise(tx, shop, format!("test:{}", payment.id), text)?;
        advance(tx, payment, PaymentState::Failed, Some("a test payment is no money"))?;
        return Ok(Standing::Final);
    }
    let detail = seen.reason.as_deref();
    match seen.state {
        SeenState::Paid
        | SeenState::PaidOver
        | SeenState::Refunded
        | SeenState::RefundPending
        | SeenState::RefundFailed => {
            let received = seen.received.unwrap_or(seen.price);
            book(tx, shop, scene, seen, received)?;
            Ok(Standing::Final)
        }
        SeenState::Short if seen.is_final => {
            if let Some(received) = seen.received.filter(|received| received.is_positive()) {
                book(tx, shop, scene, seen, received)?;
                return Ok(Standing::Final);
            }
            advance(tx, payment, PaymentState::Short, detail)?;
            let text = format!(
                "{} says that too little came for order {}, not how much: look at payment {} there",
                payment.provider.as_str(),
                order.id,
                seen.provider_id
            );
            alerts::flows::raise(tx, shop, format!("short:{}", seen.provider_id), text)?;
            Ok(Standing::Final)
        }
        SeenState::Cancelled => close(tx, payment, PaymentState::Cancelled, seen),
        SeenState::Failed => close(tx, payment, PaymentState::Failed, seen),
        SeenState::Locked => {
            advance(tx, payment, PaymentState::Locked, detail)?;
            let text = format!("{} holds the payment of order {} for a check", payment.provider.as_str(), order.id);
            alerts::flows::raise(tx, shop, format!("locked:{}", payment.id), text)?;
            Ok(Standing::Open)
        }
        SeenState::WaitingForCapture => {
            advance(tx, payment, PaymentState::Waiting, detail)?;
            Ok(Standing::Open)
        }
        SeenState::Unknown => {
            let text = format!(
                "{} says {} about the payment of order {}, which this version does not know: no money was moved",
                payment.provider.as_str(),
                seen.raw_status,
                order.id
            );
            alerts::flows::raise(tx, shop, format!("status:{}:{}", payment.id, seen.raw_status), text)?;
            Ok(Standing::Open)
        }
        SeenState::Open | SeenState::Processing | SeenState::ShortOpen | SeenState::Short => {
            if payment.state == PaymentState::Created {
                advance(tx, payment, PaymentState::Pending, None)?;
            }
            Ok(Standing::Open)
        }
    }
}

fn close(tx: &mut Tx, payment: &mut Payment, to: PaymentState, seen: &Seen) -> Result<Standing, Error> {
    if !seen.is_final {
        return Ok(Standing::Open);
    }
    advance(tx, payment, to, seen.reason.as_deref())?;
    Ok(Standing::Final)
}

/// Where money goes.
enum Place {
    /// It pays the order.
    Goods,
    /// To the customer's balance, with the reason.
    Balance(&'static str),
    /// To nobody yet, with the reason.
    Suspense(String),
}

/// Captures a provider's payment once and places its money by the policy: goods, late, short, surplus, second.
fn book(tx: &mut Tx, shop: &Shop, scene: &mut Scene, seen: &Seen, received: Amount) -> Result<(), Error> {
    let Scene { payment, order, customer, items, held, captured } = scene;
    if captured.contains(&seen.provider_id) {
        return Ok(()); // Already in the books: the first time decided everything.
    }
    captured.push(seen.provider_id.clone());
    let origin = Origin {
        provider: payment.provider,
        merchant: payment.merchant.clone(),
        provider_payment_id: seen.provider_id.clone(),
    };
    let key = ledger::capture_key(&origin);
    let place = place(tx, shop, payment, order, items, seen, received)?;
    let unit = received.currency();
    let external = (Account::external(payment.provider, &payment.merchant, unit), received.neg());
    let balance = Account::customer(&order.customer, unit);
    let (entries, rest) = match &place {
        Place::Goods => {
            let rest = received.checked_sub(order.total)?;
            (vec![external, (Account::order(&order.id, unit), order.total), (balance, rest)], rest)
        }
        Place::Balance(_) => (vec![external, (balance, received)], Amount::zero(unit)),
        Place::Suspense(_) => (vec![external, (Account::suspense(unit), received)], Amount::zero(unit)),
    };
    let posting =
        Posting::new("capture", &key, entries)?.from_provider(origin.clone()).for_payment(payment.id.as_str());
    let posting = match &place {
        Place::Goods => posting.for_order(&order.id),
        Place::Balance(reason) => posting.for_order(&order.id).note(*reason),
        Place::Suspense(reason) => posting.note(reason.clone()),
    };
    let posted = ledger::post(tx, shop, &posting)?;
    // A sum in another currency waits in suspense; a payment counts its own only.
    let counted = if unit == payment.amount.currency() { received.minor() } else { 0 };
    let short = matches!(place, Place::Balance("short"));
    let to = if short { PaymentState::Short } else { PaymentState::Paid };
    receive(tx, payment, counted, to, seen.reason.as_deref())?;
    match place {
        Place::Goods => {
            if order.state == State::Expired {
                *held = catalog::flows::held_for(tx, &order.id)?; // Taken again by the policy just now.
            }
            order_flows::fulfil(tx, shop, order, items, held, customer, payment.provider.as_str())?;
            if rest.is_positive() {
                messages::flows::notify_balance(tx, shop, customer, rest, "surplus", &key)?;
            }
        }
        Place::Balance(reason) => {
            messages::flows::notify_balance(tx, shop, customer, received, reason, &key)?;
            let text = format!("{received} for order {} went to the customer's balance: {reason}", order.id);
            alerts::flows::raise(tx, shop, format!("balance:{key}"), text)?;
        }
        Place::Suspense(reason) => {
            ledger::suspend(tx, &posted, &origin, received, &reason)?;
            let text = format!(
                "{received} waits in suspense: {reason}. Assign it with `semel payment assign {} ORDER`",
                seen.provider_id
            );
            alerts::flows::raise(tx, shop, format!("suspense:{key}"), text)?;
        }
    }
    Ok(())
}

/// The policy table. Holding stock again is part of the answer for late money.
fn place(
    tx: &mut Tx,
    shop: &Shop,
    payment: &Payment,
    order: &Order,
    items: &[crate::orders::Item],
    seen: &Seen,
    received: Amount,
) -> Result<Place, Error> {
    // Its goods would be a gift. The notice of that refund takes the money out of suspense again.
    let back = seen.refunded.is_some_and(|back| back.is_positive() && back.minor() >= received.minor());
    if back || matches!(seen.state, SeenState::Refunded | SeenState::RefundPending) {
        return Ok(Place::Suspense(format!("{} gives payment {} back already", payment.provider.as_str(), payment.id)));
    }
    if seen.price != payment.amount {
        return Ok(Place::Suspense(format!(
            "payment {} asks for {} there and {} here",
            payment.id, seen.price, payment.amount
        )));
    }
    if received.currency() != payment.amount.currency() {
        return Ok(Place::Suspense(format!("payment {} came in {}", payment.id, received.currency().code())));
    }
    if received.minor() < order.total.minor() {
        return Ok(Place::Balance("short"));
    }
    Ok(match order.state {
        State::Pending => Place::Goods,
        State::Expired if !shop.rules.late_deliver => Place::Balance("late"),
        // Its goods may have gone out after the backup, and nobody here knows.
        State::Expired if safety::flows::is_on(tx, shop)? => Place::Suspense(format!(
            "order {} had expired in the backup; whether its goods went out after it is not known",
            order.id
        )),
        State::Expired if order_flows::hold_again(tx, order, items)? => Place::Goods,
        State::Expired => Place::Balance("sold out"),
        State::Cancelled => Place::Balance("cancelled"),
        _ => Place::Balance("second"),
    })
}

/// Takes money that no payment of ours explains into suspense. Once; a repeat changes nothing.
pub(super) fn suspend_unknown(tx: &mut Tx, shop: &Shop, rail: &Rail, seen: &Seen) -> Result<bool, Error> {
    let paid = matches!(seen.state, SeenState::Paid | SeenState::PaidOver | SeenState::Short);
    let received = match seen.received {
        Some(received) if paid && seen.is_final => received,
        None if matches!(seen.state, SeenState::Paid | SeenState::PaidOver) => seen.price,
        _ => return Ok(false),
    };
    if seen.test
        || !received.is_positive()
        || by_ref(tx, rail.provider(), rail.merchant(), &seen.provider_id)?.is_some()
    {
        return Ok(false);
    }
    let origin = Origin {
        provider: rail.provider(),
        merchant: rail.merchant().into(),
        provider_payment_id: seen.provider_id.clone(),
    };
    let key = ledger::capture_key(&origin);
    if ledger::is_posted(tx, &key)? {
        return Ok(true);
    }
    let unit = received.currency();
    let entries = vec![
        (Account::external(origin.provider, &origin.merchant, unit), received.neg()),
        (Account::suspense(unit), received),
    ];
    let reason = "no order of ours asked for it";
    let posted =
        ledger::post(tx, shop, &Posting::new("capture", &key, entries)?.from_provider(origin.clone()).note(reason))?;
    ledger::suspend(tx, &posted, &origin, received, reason)?;
    let text = format!(
        "{received} came by {} payment {} and {reason}. Assign it with `semel payment assign {} ORDER`",
        origin.provider.as_str(),
        seen.provider_id,
        seen.provider_id
    );
    alerts::flows::raise(tx, shop, format!("suspense:{key}"), text)?;
    Ok(true)
}
