//! Beginning a refund, and what became of it.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs::{self, Job};
use semel_kernel::keys::{self, Key};
use semel_kernel::outbound::Manner;
use semel_kernel::store::{Expect, Row, StoreError, Tx};
use semel_money::Amount;
use semel_payments::{Provider, RefundState, SeenRefund};

use super::{ELSEWHERE, NewRefundRequest, Refund, RefundId, RunRefund, Target, sql};
use crate::catalog::Kind;
use crate::checkout::flows::{self as payments, TalkOrStore};
use crate::checkout::talk::{self, TalkError};
use crate::checkout::{Payment, PaymentId, PaymentState};
use crate::ledger::{self, Account, Captured, Origin, Posting, Suspense};
use crate::orders::flows as order_flows;
use crate::orders::{Order, OrderId, OrderView, State};
use crate::shop::{Lanes, currency};
use crate::{Error, Shop, alerts, customers, events, messages, referrals};

/// For so long a repeat of a refund's call is certainly known by its key: YooKassa forgets keys after 24 hours.
pub(super) const KEY_LIFE: Duration = Duration::from_secs(20 * 3600);
/// Why a refund is there that nobody asked us for.
const MADE_THERE: &str = "made at the provider";

fn refund_of(row: &Row) -> Result<Refund, StoreError> {
    let unit = currency(&row.get::<String>(4)?)?;
    Ok(Refund {
        id: row.get(0)?,
        order: row.get(1)?,
        payment: row.get(2)?,
        provider_refund_id: row.get(3)?,
        amount: Amount::new(row.get(5)?, unit),
        state: row.get(6)?,
        reason: row.get(7)?,
        after: row.get(8)?,
        address: row.get(9)?,
        created_at: row.get(10)?,
    })
}

/// A refund by id.
pub fn find(tx: &mut Tx, id: &RefundId) -> Result<Refund, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(refund_of(&row.ok_or_else(|| Error::missing("refund", id))?)?)
}

/// Begins a refund: to the balance it is done when this returns, to the provider it is on its way.
/// Its idempotency key commits with it, so that a repeat finds it begun.
pub async fn begin(
    shop: &Shop,
    id: OrderId,
    request: NewRefundRequest,
    key: Option<Key>,
    actor: String,
) -> Result<OrderView, Error> {
    let of = id.clone();
    shop.write("refund.begin", move |tx, shop| {
        if let Some(key) = &key {
            keys::bind(tx, key, of.as_str())?;
        }
        write_refund(tx, shop, &of, &request, &actor)
    })
    .await?;
    OrderView::load(shop, &id).await
}

fn write_refund(tx: &mut Tx, shop: &Shop, id: &OrderId, request: &NewRefundRequest, actor: &str) -> Result<(), Error> {
    let mut order = order_flows::lock(tx, id)?;
    if order.state.event_to(State::RefundPending).is_none() {
        let state = order.state.as_str();
        return Err(Error::Conflict(format!(
            "order {id} is {state}: only a paid order without a running refund can be refunded"
        )));
    }
    let given: i64 = tx.one(sql::GIVEN, args![id])?.get(0)?;
    let left = Amount::new(order.total.minor() - given, order.currency());
    let amount = match &request.amount {
        None => left,
        Some(text) => Amount::parse(text, order.currency())?,
    };
    if !amount.is_positive() || amount.minor() > left.minor() {
        return Err(Error::invalid(
            "amount",
            format!("between {} and {left} can be refunded", Amount::new(1, order.currency())),
        ));
    }
    let payment = match request.to {
        Target::Balance => None,
        Target::Provider => Some(refundable(tx, shop, &order, amount, request.address.clone())?),
    };
    let now = tx.now();
    let refund = Refund {
        id: RefundId::new(now, &shop.chance),
        order: id.clone(),
        payment: payment.as_ref().map(|p| p.id.clone()),
        provider_refund_id: None,
        amount,
        state: "pending".into(),
        reason: request.reason.clone().unwrap_or_else(|| "asked by the owner".into()),
        after: order.state,
        address: request.address.clone(),
        created_at: now,
    };
    if payment.is_none() && topup_share(tx, &refund, &order)? == amount {
        return Err(Error::Conflict(format!(
            "order {id} put this money on the customer's balance already: refund it to the provider"
        )));
    }
    insert(tx, &refund, request.to.as_str())?;
    order_flows::advance(tx, &mut order, State::RefundPending, actor, Some(&refund.reason))?;
    match payment {
        None => succeed(tx, shop, &refund, &mut order, None),
        Some(payment) => {
            hold_topup(tx, shop, &refund, &order)?;
            jobs::enqueue(
                tx,
                &RunRefund { refund: refund.id.clone(), order: id.clone(), provider: payment.provider },
                now,
                &shop.chance,
            )?;
            Ok(())
        }
    }
}

fn insert(tx: &mut Tx, refund: &Refund, target: &str) -> Result<(), Error> {
    let ended = (refund.state != "pending").then_some(refund.created_at);
    let args = args![
        &refund.id,
        &refund.order,
        refund.payment.clone(),
        target,
        refund.amount.currency().code(),
        refund.amount.minor(),
        &refund.state,
        &refund.reason,
        refund.id.as_str(),
        refund.after.as_str(),
        refund.provider_refund_id.clone(),
        refund.created_at,
        ended,
        refund.address.clone()
    ];
    tx.later(sql::INSERT, args, Expect::Rows(1))?;
    Ok(())
}

/// The payment of `order` that can give `amount` back through its provider.
fn refundable(
    tx: &mut Tx,
    shop: &Shop,
    order: &Order,
    amount: Amount,
    address: Option<String>,
) -> Result<Payment, Error> {
    let paid = match ledger::paid_by(tx, &order.id, order.currency())? {
        Some((id, there)) => payments::of_order(tx, &order.id)?
            .into_iter()
            .find(|payment| payment.id.as_str() == id && payment.state == PaymentState::Paid)
            .map(|payment| Payment { provider_id: Some(there), ..payment }),
        None => None,
    };
    let Some(payment) = paid else {
        return Err(Error::Conflict("no provider took money for this order: refund it to the balance".into()));
    };
    let rail = shop.rail(payment.provider)?;
    let Some(provider_id) = &payment.provider_id else {
        return Err(Error::Conflict("the provider's id of the payment is not known yet: try again later".into()));
    };
    let probe = semel_payments::NewRefund {
        provider_id: provider_id.clone(),
        amount,
        key: "probe".into(),
        reason: String::new(),
        address,
        customer_email: Some("probe@example.com".into()),
        customer_phone: None,
        lines: vec![semel_payments::Line { title: "probe".into(), quantity: 1, price: amount }],
    };
    rail.refund(&probe).map_err(|error| Error::Conflict(format!("{error}; refund it to the balance instead")))?;
    Ok(payment)
}

/// A payment of ours, with the provider's id by which the money of `order` came: a repeated call may have made two.
pub(super) fn paying(tx: &mut Tx, order: &Order, id: &PaymentId) -> Result<Payment, Error> {
    let payment = payments::find(tx, id)?;
    Ok(match ledger::paid_by(tx, &order.id, order.currency())? {
        Some((paying, there)) if paying == id.as_str() => Payment { provider_id: Some(there), ..payment },
        _ => payment,
    })
}

/// How much of a refund comes out of what its order put on the customer's balance: earlier refunds took theirs first.
fn topup_share(tx: &mut Tx, refund: &Refund, order: &Order) -> Result<Amount, Error> {
    let unit = order.currency();
    let mut topped = Amount::zero(unit);
    for item in order_flows::items(tx, &order.id)?.iter().filter(|item| item.kind == Kind::Topup) {
        topped = topped.checked_add(item.price.times(item.quantity)?)?;
    }
    if !topped.is_positive() {
        return Ok(topped);
    }
    let before: i64 = tx.one(sql::BEFORE, args![&order.id, &refund.id])?.get(0)?;
    let left = topped.minor().saturating_sub(before).max(0);
    Ok(Amount::new(left.min(refund.amount.minor()), unit))
}

fn hold_key(refund: &Refund) -> String {
    format!("refund-hold:{}", refund.id)
}

/// Takes what topped the balance up from there before the provider is asked to give it back: it must not be spent
/// meanwhile. It waits in the order's account for the end of the refund.
///
/// # Errors
/// [`Error::Insufficient`] when the customer has spent it.
fn hold_topup(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &Order) -> Result<(), Error> {
    let share = topup_share(tx, refund, order)?;
    if !share.is_positive() {
        return Ok(());
    }
    let unit = order.currency();
    let entries =
        vec![(Account::customer(&order.customer, unit), share.neg()), (Account::order(&order.id, unit), share)];
    ledger::post(tx, shop, &Posting::new("refund_hold", hold_key(refund), entries)?.for_order(&order.id))?;
    Ok(())
}

/// Where the topped-up part of a refund comes from, and how much of it is there.
fn topup_source(
    tx: &mut Tx,
    shop: &Shop,
    refund: &Refund,
    order: &Order,
    to_provider: bool,
) -> Result<(Account, Amount), Error> {
    let unit = order.currency();
    let share = topup_share(tx, refund, order)?;
    let customer = Account::customer(&order.customer, unit);
    if !to_provider || !share.is_positive() {
        return Ok((customer, share));
    }
    if ledger::is_posted(tx, &hold_key(refund))? {
        return Ok((Account::order(&order.id, unit), share));
    }
    let there = left_on_balance(tx, shop, refund, order, share)?;
    Ok((customer, there))
}

/// How much of `wanted` the customer still has, for a refund that was made at the provider: the money has left, so the
/// books say so, whatever is left. What is missing is a loss, and the owner is told.
fn left_on_balance(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &Order, wanted: Amount) -> Result<Amount, Error> {
    let there = ledger::balance(tx, &order.customer, wanted.currency())?;
    if there.minor() >= wanted.minor() {
        return Ok(wanted);
    }
    let text = format!(
        "{} of order {} went back through the provider, but the customer has only {there} of it left: the rest is a loss",
        refund.amount, order.id
    );
    alerts::flows::raise(tx, shop, format!("refund-loss:{}", refund.id), text)?;
    Ok(Amount::new(there.minor().max(0), wanted.currency()))
}

/// Posts money that has left through a provider. A balance that was spent since the look is looked at anew: what has left
/// is booked and not given up.
fn post_what_left(tx: &mut Tx, shop: &Shop, posting: &Posting) -> Result<(), Error> {
    match ledger::post(tx, shop, posting) {
        Ok(_) => Ok(()),
        Err(Error::Insufficient { .. }) => {
            Err(Error::Store(StoreError::Contention("the balance changed while a refund was booked".into())))
        }
        Err(error) => Err(error),
    }
}

/// Notes on a payment what of it went back. With all of it, or when its order is `over`, the payment is refunded.
fn gave_back(tx: &mut Tx, id: &PaymentId, amount: Amount, over: bool) -> Result<(), Error> {
    let mut payment = payments::lock(tx, id)?;
    // A sum in another currency never counted for this payment.
    if amount.currency() != payment.amount.currency() {
        return Ok(());
    }
    tx.later(sql::REFUND_PAYMENT, args![id, amount.minor()], Expect::Rows(1))?;
    if over || payment.refunded.minor() + amount.minor() >= payment.received.minor() {
        payments::advance(tx, &mut payment, PaymentState::Refunded, None)?;
    }
    Ok(())
}

/// Books a refund whose money went back, `through` its provider or else to the balance, and moves its order on.
pub(super) fn succeed(
    tx: &mut Tx,
    shop: &Shop,
    refund: &Refund,
    order: &mut Order,
    through: Option<&Origin>,
) -> Result<(), Error> {
    let unit = order.currency();
    let (key, amount) = (format!("refund:{}", refund.id), refund.amount);
    // What topped the balance up comes from there again; the rest was sold.
    let (source, from_balance) = topup_source(tx, shop, refund, order, through.is_some())?;
    let from_sales = amount.checked_sub(from_balance)?;
    let to = match through {
        Some(origin) => Account::external(origin.provider, &origin.merchant, unit),
        None => Account::customer(&order.customer, unit),
    };
    let entries = vec![(source, from_balance.neg()), (Account::sales(unit), from_sales.neg()), (to, amount)];
    let kind = if through.is_some() { "refund" } else { "refund_to_balance" };
    let mut posting = Posting::new(kind, &key, entries)?.for_order(&order.id).note(refund.reason.clone());
    if let Some(payment) = &refund.payment {
        posting = posting.for_payment(payment.as_str());
    }
    match through {
        Some(origin) => post_what_left(tx, shop, &posting.from_provider(origin.clone()))?,
        None => ledger::post(tx, shop, &posting).map(|_| ())?,
    }
    let now = tx.now();
    tx.later(sql::FINISH, args![&refund.id, "succeeded", now], Expect::Any)?;
    let given: i64 = tx.one(sql::GIVEN, args![&order.id])?.get(0)?;
    let full = given >= order.total.minor();
    if let Some(payment) = &refund.payment {
        gave_back(tx, payment, amount, full)?;
    }
    if order.state == State::RefundPending && full {
        order_flows::advance(tx, order, State::Refunded, "refund", None)?;
    } else if order.state == State::RefundPending && refund.after != State::RefundPending {
        order_flows::resume(tx, shop, order, refund.after, None)?;
    }
    if full {
        let seen = messages::flows::goods_may_be_seen(tx, &order.id)?;
        order_flows::take_back(tx, &order.id, seen)?;
        referrals::flows::reverse(tx, shop, &order.id)?;
    }
    let customer = customers::flows::find(tx, &order.customer)?;
    let target = if through.is_some() { "provider" } else { "balance" };
    messages::flows::notify_refund(tx, shop, &customer, &order.id, amount, target)?;
    let data = serde_json::json!({ "order": order.id, "amount": amount, "to": target, "full": full });
    events::flows::publish(tx, shop, "order.refunded", &order.id, data, &format!("order.refunded:{}", refund.id))
}

/// Ends a refund that the provider will not make, and gives the order its state back.
pub(super) fn fail(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &mut Order, reason: &str) -> Result<(), Error> {
    let now = tx.now();
    tx.later(sql::FINISH, args![&refund.id, "failed", now], Expect::Rows(1))?;
    if ledger::is_posted(tx, &hold_key(refund))? {
        let (unit, share) = (order.currency(), topup_share(tx, refund, order)?);
        let entries =
            vec![(Account::order(&order.id, unit), share.neg()), (Account::customer(&order.customer, unit), share)];
        let key = format!("refund-release:{}", refund.id);
        ledger::post(tx, shop, &Posting::new("refund_release", key, entries)?.for_order(&order.id))?;
    }
    if order.state == State::RefundPending {
        order_flows::resume(tx, shop, order, refund.after, Some(reason))?;
    }
    let text = format!(
        "The refund of {} for order {} was refused: {reason}. It can still go to the balance",
        refund.amount, order.id
    );
    alerts::flows::raise(tx, shop, format!("refund:{}", refund.id), text)
}

/// Whether a refund of `payment` is on its way.
pub fn is_running(tx: &mut Tx, payment: &PaymentId) -> Result<bool, Error> {
    Ok(tx.first(sql::LIVE, args![payment])?.is_some())
}

/// Notes the provider's id of a refund.
pub(super) fn linked(tx: &mut Tx, refund: &Refund, provider_refund_id: &str) -> Result<(), Error> {
    tx.later(sql::SET_PROVIDER_ID, args![&refund.id, provider_refund_id], Expect::Any)?;
    Ok(())
}

/// Notes the id of a refund before its only call, where the provider honours no key. False when another refund of the
/// same payment has it: such a provider gives a payment back once.
pub(super) fn sending(tx: &mut Tx, refund: &RefundId, provider_refund_id: &str) -> Result<bool, Error> {
    Ok(tx.execute(sql::SET_PROVIDER_ID, args![refund, provider_refund_id])? == 1)
}

/// Takes [`sending`] back after a call that certainly did nothing.
pub(super) fn not_sent(tx: &mut Tx, refund: &RefundId) -> Result<(), Error> {
    Ok(tx.later(sql::UNLINK, args![refund], Expect::Any)?)
}

/// Applies what the provider says about a refund of ours. True when it is final.
pub(super) fn settle(tx: &mut Tx, shop: &Shop, id: &RefundId, seen: &SeenRefund) -> Result<bool, Error> {
    let refund = find(tx, id)?;
    let mut order = order_flows::lock(tx, &refund.order)?;
    let refund = find(tx, id)?;
    if refund.state != "pending" {
        return Ok(true);
    }
    linked(tx, &refund, &seen.refund_id)?;
    match seen.state {
        RefundState::Pending => Ok(false),
        RefundState::Cancelled => {
            fail(tx, shop, &refund, &mut order, seen.reason.as_deref().unwrap_or("no reason given"))?;
            Ok(true)
        }
        RefundState::Succeeded => {
            let through = match &refund.payment {
                Some(id) => {
                    let payment = paying(tx, &order, id)?;
                    Some(Origin {
                        provider: payment.provider,
                        merchant: payment.merchant,
                        provider_payment_id: payment.provider_id.unwrap_or_default(),
                    })
                }
                None => None,
            };
            succeed(tx, shop, &refund, &mut order, through.as_ref())?;
            Ok(true)
        }
    }
}

/// Looks at a refund that a notice told of: ours is asked by its own job, a foreign one is booked. False when the
/// provider does not know it.
pub async fn look(shop: &Shop, provider: Provider, refund_id: &str) -> Result<bool, TalkOrStore> {
    let rail = shop.rail(provider)?;
    let request = rail.ask_refund(refund_id).map_err(TalkError::from)?;
    let answer = talk::send(shop, rail, "refund.ask", Manner::Read, request).await?;
    let Some(seen) = rail.asked_refund(&answer).map_err(TalkError::from)? else { return Ok(false) };
    shop.write("refund.look", move |tx, shop| book_seen(tx, shop, provider, &seen)).await?;
    Ok(true)
}

fn book_seen(tx: &mut Tx, shop: &Shop, provider: Provider, seen: &SeenRefund) -> Result<(), Error> {
    if let Some(row) = tx.first(sql::BY_PROVIDER, args![&seen.refund_id])? {
        let refund = refund_of(&row)?;
        return settle(tx, shop, &refund.id, seen).map(|_| ());
    }
    let merchant = shop.rail(provider)?.merchant().to_owned();
    let payment = payments::by_ref(tx, provider, &merchant, &seen.provider_id)?;
    if let Some(payment) = &payment
        && let Some(row) = tx.first(sql::LIVE, args![payment])?
    {
        let live = find(tx, &row.get(0)?)?;
        // The answer of its call was lost, and its key with it: this must be the one.
        let lost = live.provider_refund_id.is_none() && tx.now().since(live.created_at) > KEY_LIFE;
        if lost && seen.amount == Some(live.amount) {
            return settle(tx, shop, &live.id, seen).map(|_| ());
        }
        // A call of ours may be on its way whose answer has not told us the id yet: its own job settles that.
        jobs::pull(tx, RunRefund::KIND, Lanes::MONEY, live.id.as_str())?;
        return Ok(());
    }
    let origin = Origin { provider, merchant, provider_payment_id: seen.provider_id.clone() };
    if seen.state != RefundState::Succeeded || ledger::is_posted(tx, &seen_key(&origin, seen))? {
        return Ok(());
    }
    let payment = payment.map(|id| payments::find(tx, &id)).transpose()?;
    let found = Found { origin, seen, payment: payment.as_ref() };
    match ledger::captured_into(tx, &found.origin)? {
        Some(Captured::Order(of)) => found.take_from_order(tx, shop, &of),
        Some(Captured::Balance(of)) => found.take_from_balance(tx, shop, &of),
        Some(Captured::Suspense(money)) => found.take_from_suspense(tx, shop, &money),
        // It comes into the books first, by its own job; then this is tried again.
        None if payment.is_some() => {
            Err(Error::Store(StoreError::Contention("the refunded payment is not in the books yet".into())))
        }
        None => alerts::flows::raise(
            tx,
            shop,
            format!("refund:{}", seen.refund_id),
            format!("{} refunded payment {}, which is not one of ours", provider.as_str(), seen.provider_id),
        ),
    }
}

/// The business key of a refund that has no row of ours.
fn seen_key(origin: &Origin, seen: &SeenRefund) -> String {
    format!("refund:{}:{}", origin.provider.as_str(), seen.refund_id)
}

/// A refund that was made at the provider without us. Its money is taken from where the payment's money is.
struct Found<'a> {
    /// The payment there.
    origin: Origin,
    /// What the provider says.
    seen: &'a SeenRefund,
    /// Our payment, if it is one of ours.
    payment: Option<&'a Payment>,
}

impl Found<'_> {
    fn amount(&self) -> Result<Amount, Error> {
        let told = self.seen.amount.or_else(|| self.payment.map(|payment| payment.received));
        told.ok_or_else(|| Error::Conflict(format!("nobody says how much of {} went back", self.seen.provider_id)))
    }

    fn refund(&self, tx: &Tx, shop: &Shop, order: &Order) -> Result<Refund, Error> {
        let now = tx.now();
        Ok(Refund {
            id: RefundId::new(now, &shop.chance),
            order: order.id.clone(),
            payment: self.payment.map(|payment| payment.id.clone()),
            provider_refund_id: Some(self.seen.refund_id.clone()),
            amount: self.amount()?,
            state: "succeeded".into(),
            reason: MADE_THERE.into(),
            after: order.state,
            address: None,
            created_at: now,
        })
    }

    fn tell(&self, tx: &mut Tx, id: &str, order: Option<&OrderId>) -> Result<(), Error> {
        let told = Entry {
            entity: "refund",
            entity_id: id,
            event: "found at the provider",
            actor: Some(self.origin.provider.as_str()),
            thread: order.map(OrderId::as_str),
            ..Entry::default()
        };
        Ok(history::append(tx, &told)?)
    }

    /// It paid this order, so the order goes back with it.
    fn take_from_order(&self, tx: &mut Tx, shop: &Shop, of: &OrderId) -> Result<(), Error> {
        let mut order = order_flows::lock(tx, of)?;
        let refund = self.refund(tx, shop, &order)?;
        insert(tx, &refund, Target::Provider.as_str())?;
        self.tell(tx, refund.id.as_str(), Some(of))?;
        if order.state.event_to(State::RefundPending).is_some() {
            let actor = self.origin.provider.as_str();
            order_flows::advance(tx, &mut order, State::RefundPending, actor, Some(MADE_THERE))?;
        } else {
            let text = format!(
                "{} went back at {} for order {of}, which is {} already: is it one refund too many?",
                refund.amount,
                self.origin.provider.as_str(),
                order.state.as_str()
            );
            alerts::flows::raise(tx, shop, format!("refund-more:{}", refund.id), text)?;
        }
        succeed(tx, shop, &refund, &mut order, Some(&self.origin))
    }

    /// It went to the balance and paid nothing (late, short, second): it comes from there again, and the order, its goods
    /// and its reward stay as they are.
    fn take_from_balance(&self, tx: &mut Tx, shop: &Shop, of: &OrderId) -> Result<(), Error> {
        let order = order_flows::lock(tx, of)?;
        let refund = self.refund(tx, shop, &order)?;
        insert(tx, &refund, ELSEWHERE)?;
        self.tell(tx, refund.id.as_str(), Some(of))?;
        let (amount, unit) = (refund.amount, refund.amount.currency());
        let there = left_on_balance(tx, shop, &refund, &order, amount)?;
        let entries = vec![
            (Account::customer(&order.customer, unit), there.neg()),
            (Account::sales(unit), amount.checked_sub(there)?.neg()),
            (Account::external(self.origin.provider, &self.origin.merchant, unit), amount),
        ];
        let posting = Posting::new("refund", format!("refund:{}", refund.id), entries)?.for_order(of);
        self.post(tx, shop, posting)?;
        let customer = customers::flows::find(tx, &order.customer)?;
        messages::flows::notify_refund(tx, shop, &customer, of, amount, "provider")
    }

    /// It was nobody's yet.
    fn take_from_suspense(&self, tx: &mut Tx, shop: &Shop, money: &Suspense) -> Result<(), Error> {
        let amount = self.amount()?;
        let unit = amount.currency();
        ledger::leave_suspense(tx, money, amount)?;
        self.tell(tx, &self.seen.refund_id, self.payment.map(|payment| &payment.order))?;
        let entries = vec![
            (Account::suspense(unit), amount.neg()),
            (Account::external(self.origin.provider, &self.origin.merchant, unit), amount),
        ];
        self.post(tx, shop, Posting::new("refund", seen_key(&self.origin, self.seen), entries)?)
    }

    fn post(&self, tx: &mut Tx, shop: &Shop, posting: Posting) -> Result<(), Error> {
        let mut posting = posting.from_provider(self.origin.clone()).note(MADE_THERE);
        if let Some(payment) = self.payment {
            posting = posting.for_payment(payment.id.as_str());
        }
        post_what_left(tx, shop, &posting)?;
        match self.payment {
            Some(payment) => gave_back(tx, &payment.id, self.amount()?, false),
            None => Ok(()),
        }
    }
}
