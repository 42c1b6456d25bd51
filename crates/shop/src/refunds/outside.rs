//! Refunds that were made at the provider without us, by the owner's hand in its cabinet or by another program.
//!
//! A notice, the provider's list or a look at the payment may tell of one, in any order and at the same moment. All of them
//! come here, and the business key of [`Through::key`] lets the first one book it. The money is taken from where the
//! payment's money is.
//!
//! YooKassa tells the sum of each refund. Heleket tells only that a payment was given back ([`semel_payments::Seen::refund`]).
//! That is read as all of it, and the owner hears of the sum that was booked. Where it cannot be read so, because the
//! customer had paid too much or a part had gone back before, nothing is guessed: an alert asks the owner for the sum, and
//! [`super::by_hand`] books it.

use semel_kernel::args;
use semel_kernel::history::{self, Entry};
use semel_kernel::jobs::{self, Job};
use semel_kernel::store::{StoreError, Tx};
use semel_money::Amount;
use semel_payments::{Provider, RefundState, Seen, SeenRefund};

use super::end::{KEY_LIFE, Through, gave_back, post_what_left, settle, succeed};
use super::{ELSEWHERE, FindRefunds, Refund, RefundId, RunRefund, Target, rows, sql, topup};
use crate::checkout::Payment;
use crate::checkout::flows as payments;
use crate::ledger::{self, Account, Captured, Origin, Posting, Suspense};
use crate::orders::flows as order_flows;
use crate::orders::{Order, OrderId, State};
use crate::shop::{Lanes, currency};
use crate::{Error, Shop, alerts, customers, messages};

/// Why a refund is there that nobody asked us for.
const MADE_THERE: &str = "made at the provider";

/// Takes in what looks at payments say about their refunds, in the transaction that applies the looks. Where a payment's own
/// state tells of a refund, it is booked; where only a sum is told that the books do not know, a job asks for the refunds.
pub fn found(tx: &mut Tx, shop: &Shop, provider: Provider, seen: &[Seen]) -> Result<(), Error> {
    for payment in seen.iter().filter(|payment| !payment.test) {
        match payment.refund() {
            Some(refund) => book(tx, shop, provider, &refund).map(|_| ())?,
            None => ask_for_more(tx, shop, provider, payment)?,
        }
    }
    Ok(())
}

fn ask_for_more(tx: &mut Tx, shop: &Shop, provider: Provider, seen: &Seen) -> Result<(), Error> {
    let Some(there) = seen.refunded.filter(|sum| sum.is_positive()) else { return Ok(()) };
    let merchant = shop.rail(provider)?.merchant();
    if let Some(id) = payments::by_ref(tx, provider, merchant, &seen.provider_id)? {
        // While a refund of ours is on its way the sums may differ: its own job settles that.
        if there.minor() <= payments::find(tx, &id)?.refunded.minor() || rows::is_running(tx, &id)? {
            return Ok(());
        }
    }
    let job = FindRefunds { provider, provider_payment_id: seen.provider_id.clone(), refunded: there.minor() };
    let now = tx.now();
    jobs::enqueue(tx, &job, now, &shop.chance)?;
    Ok(())
}

/// The payment of ours behind a refund, with its order's row held: whoever comes at the same moment waits here, and looks
/// at the books after us.
fn hold_payment(tx: &mut Tx, origin: &Origin) -> Result<Option<Payment>, Error> {
    let Some(id) = payments::by_ref(tx, origin.provider, &origin.merchant, &origin.provider_payment_id)? else {
        return Ok(None);
    };
    let of = payments::find(tx, &id)?.order;
    order_flows::lock(tx, &of)?;
    payments::find(tx, &id).map(Some)
}

/// The provider's side of `seen`.
pub(super) fn through(shop: &Shop, provider: Provider, seen: &SeenRefund) -> Result<Through, Error> {
    let merchant = shop.rail(provider)?.merchant().to_owned();
    let origin = Origin { provider, merchant, provider_payment_id: seen.provider_id.clone() };
    Ok(Through { origin, refund_id: seen.refund_id.clone() })
}

/// Takes a refund into the books, whoever made it: ours is settled, another is booked. A repeat changes nothing. False when
/// its payment is one of ours and is not in the books yet: try again later.
pub(super) fn book(tx: &mut Tx, shop: &Shop, provider: Provider, seen: &SeenRefund) -> Result<bool, Error> {
    let through = through(shop, provider, seen)?;
    let payment = hold_payment(tx, &through.origin)?;
    if ledger::is_posted(tx, &through.key())? {
        return Ok(true);
    }
    let known = rows::by_provider(tx, &seen.refund_id)?;
    if let Some(refund) = &known
        && refund.state == "pending"
    {
        return settle(tx, shop, &refund.id, seen).map(|_| true);
    }
    if let Some(payment) = &payment
        && let Some(live) = rows::live(tx, &payment.id)?
    {
        // The answer of its call was lost, and its key with it: this must be the one.
        let lost = live.provider_refund_id.is_none() && tx.now().since(live.created_at) > KEY_LIFE;
        if lost && seen.amount == Some(live.amount) {
            return settle(tx, shop, &live.id, seen).map(|_| true);
        }
        // A call of ours may be on its way whose answer has not told us the id yet: its own job settles that. If this is
        // another refund after all, the next sweep finds it.
        jobs::pull(tx, RunRefund::KIND, Lanes::MONEY, live.id.as_str())?;
        return Ok(true);
    }
    if seen.state != RefundState::Succeeded {
        return Ok(true);
    }
    let Some(place) = ledger::captured_into(tx, &through.origin)? else {
        if payment.is_some() {
            return Ok(false);
        }
        // Whoever came at the same moment may have taken it out of suspense since we looked.
        if ledger::is_posted(tx, &through.key())? {
            return Ok(true);
        }
        let name = provider.as_str();
        let text = format!("{name} refunded payment {}, which is not one of ours", seen.provider_id);
        alerts::flows::raise(tx, shop, format!("refund:{}", seen.refund_id), text)?;
        return Ok(true);
    };
    let amount = match seen.amount {
        Some(amount) => amount,
        None => match whole(tx, &through.origin, payment.as_ref())? {
            Some(amount) => {
                tell_whole(tx, shop, seen, &through, amount)?;
                amount
            }
            None => {
                ask_the_owner(tx, shop, seen, &through, payment.as_ref())?;
                return Ok(true);
            }
        },
    };
    // A refund of ours that the provider had called off carries the id already; then only the books know it.
    let id = known.is_none().then(|| seen.refund_id.clone());
    Found { through, id, amount, payment: payment.as_ref() }.book(tx, shop, place)?;
    Ok(true)
}

/// Books a refund that the provider tells of without its sum, with the `sum` that the owner found in its cabinet.
///
/// # Errors
/// [`Error::Conflict`] when the books have it already, when a refund of ours is on its way, or when its payment is not in
/// the books; [`Error::Invalid`] when the payment did not bring that much.
pub(super) fn book_sum(
    tx: &mut Tx,
    shop: &Shop,
    provider: Provider,
    seen: &SeenRefund,
    sum: Amount,
) -> Result<(), Error> {
    let through = through(shop, provider, seen)?;
    let payment = hold_payment(tx, &through.origin)?;
    if ledger::is_posted(tx, &through.key())? {
        return Err(Error::Conflict(format!("the books have the refund of payment {} already", seen.provider_id)));
    }
    if let Some(payment) = &payment
        && rows::is_running(tx, &payment.id)?
    {
        return Err(Error::Conflict(format!("a refund of payment {} is on its way", seen.provider_id)));
    }
    let (captured, left) = match &taken(tx, &through.origin)?[..] {
        [only] => (only.captured, only.captured.checked_sub(only.refunded)?),
        _ => return Err(Error::Conflict(format!("payment {} is not in the books", seen.provider_id))),
    };
    if left.currency() != sum.currency() || sum.minor() > left.minor() {
        return Err(Error::invalid("amount", format!("of payment {} only {left} are there", seen.provider_id)));
    }
    let known = rows::by_provider(tx, &seen.refund_id)?;
    let Some(place) = ledger::captured_into(tx, &through.origin)? else {
        return Err(Error::Conflict(format!("payment {} is not in the books", seen.provider_id)));
    };
    let place = match place {
        // What came beyond the order's price went to the balance; no more than that is taken for just that.
        Captured::Order(of) => {
            let beyond = captured.minor() - order_flows::find(tx, &of)?.total.minor();
            if sum.minor() <= beyond { Captured::Balance(of) } else { Captured::Order(of) }
        }
        other => other,
    };
    let id = known.is_none().then(|| seen.refund_id.clone());
    Found { through, id, amount: sum, payment: payment.as_ref() }.book(tx, shop, place)
}

/// What the books say about one payment of a provider, in one currency.
struct Taken {
    captured: Amount,
    refunded: Amount,
}

fn taken(tx: &mut Tx, origin: &Origin) -> Result<Vec<Taken>, Error> {
    let args = args![origin.provider.as_str(), &origin.merchant, &origin.provider_payment_id];
    let mut sums = Vec::new();
    for row in &tx.rows(sql::TAKEN, args)? {
        let unit = currency(&row.get::<String>(0)?)?;
        sums.push(Taken { captured: Amount::new(row.get(1)?, unit), refunded: Amount::new(row.get(2)?, unit) });
    }
    Ok(sums)
}

/// All of a payment, where a refund without a sum can be nothing else: no part of it went back before, and the customer had
/// not paid too much, which is a reason to give back just the surplus.
fn whole(tx: &mut Tx, origin: &Origin, payment: Option<&Payment>) -> Result<Option<Amount>, Error> {
    let all = match &taken(tx, origin)?[..] {
        [only] if only.refunded.is_zero() => only.captured,
        _ => return Ok(None),
    };
    let over = |asked: Amount| asked.currency() == all.currency() && all.minor() > asked.minor();
    Ok(if payment.is_some_and(|payment| over(payment.amount)) { None } else { Some(all) })
}

fn tell_whole(tx: &mut Tx, shop: &Shop, seen: &SeenRefund, there: &Through, amount: Amount) -> Result<(), Error> {
    let name = there.origin.provider.as_str();
    let text = format!(
        "{name} gave payment {} back and tells no sum: the books count all of it, {amount}. Compare that with its cabinet",
        seen.provider_id
    );
    alerts::flows::raise(tx, shop, format!("refund-whole:{}", there.key()), text)
}

fn ask_the_owner(
    tx: &mut Tx,
    shop: &Shop,
    seen: &SeenRefund,
    there: &Through,
    payment: Option<&Payment>,
) -> Result<(), Error> {
    let name = there.origin.provider.as_str();
    let mut text = format!(
        "{name} gave money of payment {} back and does not tell how much, so nothing was booked",
        seen.provider_id
    );
    if let Some(payment) = payment {
        let order = &payment.order;
        text.push_str(&format!(
            ". Look the sum up in its cabinet, then book it with `semel order refund {order} --to made --amount SUM`"
        ));
    }
    alerts::flows::raise(tx, shop, format!("refund-sum:{}", there.key()), text)
}

/// A refund that is not ours, with all that its booking needs.
struct Found<'a> {
    /// The payment there, and the refund's id.
    through: Through,
    /// The refund's id for the row, where no row has it yet.
    id: Option<String>,
    /// How much.
    amount: Amount,
    /// Our payment, if it is one of ours.
    payment: Option<&'a Payment>,
}

impl Found<'_> {
    fn book(&self, tx: &mut Tx, shop: &Shop, place: Captured) -> Result<(), Error> {
        match place {
            Captured::Order(of) => self.take_from_order(tx, shop, &of),
            Captured::Balance(of) => self.take_from_balance(tx, shop, &of),
            Captured::Suspense(money) => self.take_from_suspense(tx, shop, &money),
        }
    }

    fn name(&self) -> &'static str {
        self.through.origin.provider.as_str()
    }

    fn external(&self) -> Account {
        let Origin { provider, merchant, .. } = &self.through.origin;
        Account::external(*provider, merchant, self.amount.currency())
    }

    fn refund(&self, tx: &Tx, shop: &Shop, order: &Order) -> Refund {
        let now = tx.now();
        Refund {
            id: RefundId::new(now, &shop.chance),
            order: order.id.clone(),
            payment: self.payment.map(|payment| payment.id.clone()),
            provider_refund_id: self.id.clone(),
            amount: self.amount,
            state: "succeeded".into(),
            reason: MADE_THERE.into(),
            after: order.state,
            address: None,
            created_at: now,
        }
    }

    fn tell(&self, tx: &mut Tx, id: &str, order: Option<&OrderId>) -> Result<(), Error> {
        let told = Entry {
            entity: "refund",
            entity_id: id,
            event: "found at the provider",
            actor: Some(self.name()),
            thread: order.map(OrderId::as_str),
            ..Entry::default()
        };
        Ok(history::append(tx, &told)?)
    }

    /// It paid this order, so the order goes back with it.
    fn take_from_order(&self, tx: &mut Tx, shop: &Shop, of: &OrderId) -> Result<(), Error> {
        let mut order = order_flows::lock(tx, of)?;
        let refund = self.refund(tx, shop, &order);
        rows::insert(tx, &refund, Target::Provider.as_str())?;
        self.tell(tx, refund.id.as_str(), Some(of))?;
        if order.state.event_to(State::RefundPending).is_some() {
            order_flows::advance(tx, &mut order, State::RefundPending, self.name(), Some(MADE_THERE))?;
        } else {
            let text = format!(
                "{} went back at {} for order {of}, which is {} already: is it one refund too many?",
                refund.amount,
                self.name(),
                order.state.as_str()
            );
            alerts::flows::raise(tx, shop, format!("refund-more:{}", refund.id), text)?;
        }
        succeed(tx, shop, &refund, &mut order, Some(&self.through))
    }

    /// It went to the balance and paid nothing (late, short, second): it comes from there again, and the order, its goods
    /// and its reward stay as they are.
    fn take_from_balance(&self, tx: &mut Tx, shop: &Shop, of: &OrderId) -> Result<(), Error> {
        let order = order_flows::lock(tx, of)?;
        let refund = self.refund(tx, shop, &order);
        rows::insert(tx, &refund, ELSEWHERE)?;
        self.tell(tx, refund.id.as_str(), Some(of))?;
        let (amount, unit) = (refund.amount, refund.amount.currency());
        let there = topup::left(tx, shop, &refund, &order, amount)?;
        let entries = vec![
            (Account::customer(&order.customer, unit), there.neg()),
            (Account::sales(unit), amount.checked_sub(there)?.neg()),
            (self.external(), amount),
        ];
        self.post(tx, shop, Posting::new("refund", self.through.key(), entries)?.for_order(of))?;
        let customer = customers::flows::find(tx, &order.customer)?;
        messages::flows::notify_refund(tx, shop, &customer, of, refund.id.as_str(), amount, "provider")
    }

    /// It was nobody's yet.
    fn take_from_suspense(&self, tx: &mut Tx, shop: &Shop, money: &Suspense) -> Result<(), Error> {
        let amount = self.amount;
        match ledger::leave_suspense(tx, money, amount) {
            Ok(()) => {}
            // Without a payment of ours there was no row to wait at: whoever came at the same moment has taken it.
            Err(Error::Conflict(_)) if ledger::is_posted(tx, &self.through.key())? => return Ok(()),
            Err(error) => return Err(error),
        }
        self.tell(tx, &self.through.refund_id, self.payment.map(|payment| &payment.order))?;
        let entries = vec![(Account::suspense(amount.currency()), amount.neg()), (self.external(), amount)];
        self.post(tx, shop, Posting::new("refund", self.through.key(), entries)?)
    }

    fn post(&self, tx: &mut Tx, shop: &Shop, posting: Posting) -> Result<(), Error> {
        let mut posting = posting.from_provider(self.through.origin.clone()).note(MADE_THERE);
        if let Some(payment) = self.payment {
            posting = posting.for_payment(payment.id.as_str());
        }
        post_what_left(tx, shop, &posting)?;
        match self.payment {
            Some(payment) => gave_back(tx, &payment.id, self.amount, false),
            None => Ok(()),
        }
    }
}

/// What stops a notice from being ended: the refund is there, and its payment is on its way into the books.
pub(super) fn not_yet() -> Error {
    Error::Store(StoreError::Contention("the refunded payment is not in the books yet".into()))
}
