//! Opening payments, paying from the balance, and the owner's hand.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs;
use semel_kernel::keys::{self, Key};
use semel_kernel::outbound::Manner;
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_money::Amount;
use semel_payments::{Created, Line, NewPayment, Provider, Rail};

use super::scene::known_ids;
use super::settle::{ask, settle, tell_own_job};
use super::talk::{self, TalkError};
use super::{ConfirmPayment, Payment, PaymentId, PaymentState, sql};
use crate::customers::{self, Customer};
use crate::ledger::{self, Account, Posting};
use crate::orders::flows::{self as order_flows, NewOrder, Placed};
use crate::orders::{Order, OrderId, OrderView, PayBy, State};
use crate::shop::currency;
use crate::{Error, Shop, catalog, refunds, safety, stars};

/// How soon the confirming job looks by itself, when nothing pulls it.
pub const FIRST_LOOK: Duration = Duration::from_secs(15);

pub(super) fn payment_of(row: &Row) -> Result<Payment, StoreError> {
    let unit = currency(&row.get::<String>(7)?)?;
    let word: String = row.get(3)?;
    let provider = word.parse().map_err(|_| StoreError::Decode { wanted: "a provider", found: word })?;
    Ok(Payment {
        id: row.get(0)?,
        order: row.get(1)?,
        customer: row.get(2)?,
        provider,
        merchant: row.get(4)?,
        provider_id: row.get(5)?,
        state: row.get(6)?,
        amount: Amount::new(row.get(8)?, unit),
        received: Amount::new(row.get(9)?, unit),
        refunded: Amount::new(row.get(10)?, unit),
        key: row.get(11)?,
        url: row.get(12)?,
        version: row.get(13)?,
        created_at: row.get(14)?,
    })
}

/// A payment by id.
pub fn find(tx: &mut Tx, id: &PaymentId) -> Result<Payment, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(payment_of(&row.ok_or_else(|| Error::missing("payment", id))?)?)
}

/// A payment by id, its row held until the transaction ends.
pub fn lock(tx: &mut Tx, id: &PaymentId) -> Result<Payment, Error> {
    let row = tx.first(sql::LOCK, args![id])?;
    Ok(payment_of(&row.ok_or_else(|| Error::missing("payment", id))?)?)
}

/// An order's payments, the latest first.
pub fn of_order(tx: &mut Tx, order: &OrderId) -> Result<Vec<Payment>, Error> {
    Ok(tx.rows(sql::OF_ORDER, args![order])?.iter().map(payment_of).collect::<Result<_, _>>()?)
}

/// Our payment behind a provider's id.
pub fn by_ref(tx: &mut Tx, provider: Provider, merchant: &str, provider_id: &str) -> Result<Option<PaymentId>, Error> {
    let row = tx.first(sql::BY_REF, args![provider.as_str(), merchant, provider_id])?;
    Ok(row.map(|row| row.get(0)).transpose()?)
}

/// Notes an id under which the provider knows `payment`.
pub fn add_ref(tx: &mut Tx, payment: &Payment, provider_id: &str) -> Result<(), StoreError> {
    let now = tx.now();
    let args = args![payment.provider.as_str(), &payment.merchant, provider_id, &payment.id, now];
    tx.later(sql::ADD_REF, args, Expect::Any)
}

/// Moves `payment` to `to` if the table has such a step; a state that is there already stays.
pub fn advance(tx: &mut Tx, payment: &mut Payment, to: PaymentState, detail: Option<&str>) -> Result<(), Error> {
    receive(tx, payment, 0, to, detail)
}

/// The same for a payment that `received` smallest units came in for, which are counted whatever its state.
pub(super) fn receive(
    tx: &mut Tx,
    payment: &mut Payment,
    received: i64,
    to: PaymentState,
    detail: Option<&str>,
) -> Result<(), Error> {
    let Some(event) = payment.state.event_to(to) else {
        if received != 0 {
            tx.later(sql::RECEIVED, args![&payment.id, received], Expect::Rows(1))?;
        }
        return Ok(());
    };
    tx.later(sql::ADVANCE, args![&payment.id, payment.version, to.as_str(), received], Expect::Rows(1))?;
    let step = Entry {
        entity: "payment",
        entity_id: payment.id.as_str(),
        n: Some(payment.version + 1),
        event,
        actor: Some(payment.provider.as_str()),
        from: Some(payment.state.as_str()),
        to: Some(to.as_str()),
        thread: Some(payment.order.as_str()),
        detail,
        ..Entry::default()
    };
    history::append(tx, &step)?;
    payment.version += 1;
    payment.state = to;
    Ok(())
}

/// Writes a payment for `order` and the job that lives until it is final; for Stars also the invoice.
pub fn open(tx: &mut Tx, shop: &Shop, order: &Order, rail: &Rail) -> Result<Payment, Error> {
    let now = tx.now();
    let id = PaymentId::new(now, &shop.chance);
    let zero = Amount::zero(order.currency());
    let mut payment = Payment {
        key: id.to_string(),
        id,
        order: order.id.clone(),
        customer: order.customer.clone(),
        provider: rail.provider(),
        merchant: rail.merchant().into(),
        provider_id: None,
        state: PaymentState::Created,
        amount: order.total,
        received: zero,
        refunded: zero,
        url: None,
        version: 1,
        created_at: now,
    };
    let args = args![
        &payment.id,
        &payment.order,
        &payment.customer,
        payment.provider.as_str(),
        &payment.merchant,
        order.currency().code(),
        payment.amount.minor(),
        &payment.key,
        now
    ];
    tx.later(sql::INSERT, args, Expect::Rows(1))?;
    let step = Entry {
        entity: "payment",
        entity_id: payment.id.as_str(),
        n: Some(1),
        event: "payment written",
        actor: Some(payment.provider.as_str()),
        to: Some("created"),
        thread: Some(order.id.as_str()),
        ..Entry::default()
    };
    history::append(tx, &step)?;
    jobs::enqueue(tx, &ConfirmPayment::of(&payment), now + FIRST_LOOK, &shop.chance)?;
    if payment.provider == Provider::Stars {
        stars::send(tx, shop, order, &mut payment)?;
    }
    Ok(payment)
}

/// The provider's call that opens `payment`. The same payment always gives the same bytes.
pub(super) fn opening(
    shop: &Shop,
    payment: &Payment,
    order: &Order,
    items: &[crate::orders::Item],
    customer: &Customer,
) -> NewPayment {
    let lifetime = order.deadline.since(payment.created_at).max(Duration::from_secs(300));
    let callback = shop.rules.public_url.as_ref().map(|url| format!("{url}/webhook/{}", payment.provider.as_str()));
    NewPayment {
        payment_id: payment.id.to_string(),
        order_id: order.id.to_string(),
        key: payment.key.clone(),
        amount: payment.amount,
        description: format!("Order {}", order.id),
        return_url: shop.rules.return_url.clone(),
        callback_url: callback,
        lifetime_s: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        customer_email: customer.email.clone(),
        customer_phone: customer.phone.clone(),
        lines: items
            .iter()
            .map(|item| Line {
                title: item.title.clone(),
                quantity: u32::try_from(item.quantity).unwrap_or(1),
                price: item.price,
            })
            .collect(),
    }
}

/// Opens `payment` at its provider and notes the link. Safe to repeat: the call carries the payment's own key.
pub async fn link(shop: &Shop, id: &PaymentId) -> Result<(), TalkOrStore> {
    let of = id.clone();
    let (payment, order, items, customer) = shop
        .read("payment.opening", move |tx| {
            let payment = find(tx, &of)?;
            let order = order_flows::find(tx, &payment.order)?;
            let items = order_flows::items(tx, &payment.order)?;
            let customer = customers::flows::find(tx, &payment.customer)?;
            Ok((payment, order, items, customer))
        })
        .await?;
    if payment.provider_id.is_some() {
        return Ok(());
    }
    let rail = shop.rail(payment.provider)?;
    let new = opening(shop, &payment, &order, &items, &customer);
    let request = rail.create(&new).map_err(TalkError::from)?;
    let answer = talk::send(shop, rail, "payment.create", Manner::Keyed, request).await?;
    let created = rail.created(&new, &answer).map_err(TalkError::from)?;
    let id = id.clone();
    shop.write("payment.linked", move |tx, _| linked(tx, &id, &created)).await?;
    Ok(())
}

fn linked(tx: &mut Tx, id: &PaymentId, created: &Created) -> Result<(), Error> {
    let mut payment = lock(tx, id)?;
    add_ref(tx, &payment, &created.provider_id)?;
    let args = args![id, &created.provider_id, created.url.clone(), created.expires_at_ms];
    tx.later(sql::LINKED, args, Expect::Rows(1))?;
    if payment.state == PaymentState::Created {
        advance(tx, &mut payment, PaymentState::Pending, None)?;
    }
    Ok(())
}

/// Why a payment could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TalkOrStore {
    /// The provider's side.
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// Ours.
    #[error(transparent)]
    Own(#[from] Error),
}

/// Makes an order and opens its payment; or, with `resume`, goes on with the order that a dead request had begun.
///
/// The order commits together with its idempotency key, before the provider is called. When the provider refuses, the
/// order is called off; when it does not answer, the order stays, and repeating the request resumes it.
pub async fn order(shop: &Shop, new: NewOrder, key: Option<Key>, resume: Option<OrderId>) -> Result<OrderView, Error> {
    safety::flows::permit(shop).await?;
    let id = match resume {
        Some(id) => id,
        None => {
            shop.write("order.place", move |tx, shop| {
                let placed = order_flows::place(tx, shop, &new)?;
                if let Some(key) = &key {
                    keys::bind(tx, key, placed.order.id.as_str())?;
                }
                match placed.pay_by {
                    PayBy::Provider(provider) => {
                        open(tx, shop, &placed.order, shop.rail(provider)?)?;
                        Ok(placed.order.id)
                    }
                    PayBy::Balance => pay_from_balance(tx, shop, placed),
                }
            })
            .await?
        }
    };
    finish_opening(shop, &id).await?;
    OrderView::load(shop, &id).await
}

/// Opens a payment for an unpaid order at a provider of the customer's choice; the earlier ones stay valid, and money
/// that comes by them too goes to the balance.
///
/// The payment commits together with its idempotency key; with `begun`, a request that died has written it already.
pub async fn pay_otherwise(
    shop: &Shop,
    id: &OrderId,
    provider: &str,
    key: Option<Key>,
    begun: bool,
) -> Result<OrderView, Error> {
    let way = PayBy::parse(provider).ok_or_else(|| {
        Error::invalid(
            "provider",
            format!("{provider:.40} is not one of yookassa, heleket, crystalpay, stars, balance"),
        )
    })?;
    safety::flows::permit(shop).await?;
    if begun {
        finish_opening(shop, id).await?;
        return OrderView::load(shop, id).await;
    }
    let of = id.clone();
    shop.write("order.pay", move |tx, shop| {
        if let Some(key) = &key {
            keys::bind(tx, key, of.as_str())?;
        }
        let mut order = order_flows::lock(tx, &of)?;
        if order.state != State::Pending {
            return Err(Error::Conflict(format!(
                "order {of} is {}: only an unpaid order can be paid",
                order.state.as_str()
            )));
        }
        if let PayBy::Provider(provider) = way {
            stars::fits(provider, order.currency())?;
        }
        order_flows::pay_by(tx, &mut order, way)?;
        match way {
            PayBy::Provider(provider) => open(tx, shop, &order, shop.rail(provider)?).map(|_| ()),
            PayBy::Balance => {
                let items = order_flows::items(tx, &of)?;
                let customer = customers::flows::find(tx, &order.customer)?;
                pay_from_balance(tx, shop, Placed { order, items, customer, pay_by: way }).map(|_| ())
            }
        }
    })
    .await?;
    finish_opening(shop, id).await?;
    OrderView::load(shop, id).await
}

async fn finish_opening(shop: &Shop, id: &OrderId) -> Result<(), Error> {
    let of = id.clone();
    let unopened = shop
        .read("order.unopened", move |tx| {
            Ok(of_order(tx, &of)?.into_iter().find(|p| p.state == PaymentState::Created && p.provider_id.is_none()))
        })
        .await?;
    let Some(payment) = unopened else { return Ok(()) };
    match link(shop, &payment.id).await {
        Ok(()) => Ok(()),
        Err(TalkOrStore::Own(error)) => Err(error),
        Err(TalkOrStore::Talk(error)) => {
            let provider = payment.provider;
            let error = talk::api_error(provider, error);
            if !matches!(error, Error::ProviderAway { .. }) {
                let text = error.to_string();
                shop.write("payment.refused", move |tx, shop| refused(tx, shop, &payment.id, &text)).await?;
            }
            Err(error)
        }
    }
}

/// Ends a payment that the provider would not open; its order is called off when it has no other.
pub(super) fn refused(tx: &mut Tx, shop: &Shop, id: &PaymentId, text: &str) -> Result<(), Error> {
    // Everybody holds the order's row first, then its payment's.
    let of = find(tx, id)?.order;
    let order = order_flows::lock(tx, &of)?;
    let mut payment = lock(tx, id)?;
    if payment.state != PaymentState::Created {
        return Ok(());
    }
    advance(tx, &mut payment, PaymentState::Failed, Some(text))?;
    let others = of_order(tx, &payment.order)?;
    let open = |p: &Payment| p.id != payment.id && !matches!(p.state, PaymentState::Failed | PaymentState::Cancelled);
    if others.iter().any(open) {
        return Ok(());
    }
    if order.state == State::Pending {
        order_flows::cancel(tx, shop, &payment.order, payment.provider.as_str(), text)?;
    }
    Ok(())
}

/// Pays a fresh order from its customer's balance and has its goods handed over.
///
/// # Errors
/// [`Error::Insufficient`] when the balance does not cover it.
pub(crate) fn pay_from_balance(tx: &mut Tx, shop: &Shop, placed: Placed) -> Result<OrderId, Error> {
    let Placed { mut order, items, customer, .. } = placed;
    let posting = Posting::new(
        "spend",
        format!("spend:{}", order.id),
        vec![
            (Account::customer(&order.customer, order.currency()), order.total.neg()),
            (Account::order(&order.id, order.currency()), order.total),
        ],
    )?;
    ledger::post(tx, shop, &posting.for_order(&order.id))?;
    let held = catalog::flows::held_for(tx, &order.id)?;
    order_flows::fulfil(tx, shop, &mut order, &items, &held, &customer, "balance")?;
    Ok(order.id)
}

/// Gives money in suspense to an order: pays it when it waits for just this, else the customer's balance. By hand.
pub async fn assign(
    shop: &Shop,
    provider_payment_id: String,
    order: OrderId,
    actor: String,
) -> Result<OrderView, Error> {
    let of = order.clone();
    shop.write("payment.assign", move |tx, shop| {
        let mut order = order_flows::lock(tx, &of)?;
        let money = ledger::suspended(tx, &provider_payment_id)?
            .ok_or_else(|| Error::missing("unassigned payment", &provider_payment_id))?;
        let customer = customers::flows::find(tx, &order.customer)?;
        ledger::end_suspense(tx, &money, &of)?;
        let key = format!("assign:{}", money.posting);
        let unit = money.amount.currency();
        let from = (Account::suspense(unit), money.amount.neg());
        let pays = matches!(order.state, State::Pending)
            && unit == order.currency()
            && money.amount.minor() >= order.total.minor();
        if pays {
            let rest = money.amount.checked_sub(order.total)?;
            let entries =
                vec![from, (Account::order(&of, unit), order.total), (Account::customer(&order.customer, unit), rest)];
            ledger::post(tx, shop, &Posting::new("assign", key, entries)?.for_order(&of).note(format!("by {actor}")))?;
            let items = order_flows::items(tx, &of)?;
            let held = catalog::flows::held_for(tx, &of)?;
            order_flows::fulfil(tx, shop, &mut order, &items, &held, &customer, &actor)?;
        } else {
            let entries = vec![from, (Account::customer(&order.customer, unit), money.amount)];
            ledger::post(
                tx,
                shop,
                &Posting::new("assign", key.clone(), entries)?.for_order(&of).note(format!("by {actor}")),
            )?;
            crate::messages::flows::notify_balance(tx, shop, &customer, money.amount, "assigned", &key)?;
        }
        Ok(())
    })
    .await?;
    OrderView::load(shop, &order).await
}

/// Asks the provider about every id of a payment, settles each answer, and takes in the refunds that it tells of. `also` is
/// an id to ask beside the known ones.
pub(super) async fn ask_again(shop: &Shop, id: &PaymentId, also: Option<String>) -> Result<(), TalkOrStore> {
    let asked_at = shop.now();
    let (payment, mut ids) = known_ids(shop, id).await?;
    if let Some(also) = also {
        ids.name(also);
    }
    let seen = ask(shop, &payment, ids).await?;
    let settled = shop.write("payment.settle", move |tx, shop| {
        let standing = settle(tx, shop, &payment.id, &seen, asked_at)?;
        tell_own_job(tx, &payment.id, standing)?;
        refunds::flows::found(tx, shop, payment.provider, &seen)
    });
    Ok(settled.await?)
}

/// Makes a payment's provider be asked now, whatever its state. Answers false when a job is at it already.
pub async fn replay(shop: &Shop, id: PaymentId) -> Result<(), Error> {
    ask_again(shop, &id, None).await.map_err(|error| match error {
        TalkOrStore::Own(error) => error,
        TalkOrStore::Talk(error) => Error::ProviderAway { provider: "the provider".into(), text: error.to_string() },
    })?;
    // Notices about it whose own job had given up have been answered by this look.
    shop.write("payment.replayed", move |tx, _| Ok::<_, Error>(super::hints::overrule(tx, &id)?)).await
}
