//! The end of a refund: what is booked, and what becomes of the order, its goods and its reward.

use std::time::Duration;

use semel_kernel::args;
use semel_kernel::store::{Expect, StoreError, Tx};
use semel_money::Amount;
use semel_payments::{RefundState, SeenRefund};

use super::{Refund, RefundId, rows, sql, topup};
use crate::checkout::flows as payments;
use crate::checkout::{Payment, PaymentId, PaymentState};
use crate::ledger::{self, Account, Origin, Posting};
use crate::orders::flows as order_flows;
use crate::orders::{Order, State};
use crate::{Error, Shop, alerts, customers, events, messages, referrals, subscriptions};

/// For so long a repeat of a refund's call is certainly known by its key: YooKassa forgets keys after 24 hours.
pub(super) const KEY_LIFE: Duration = Duration::from_secs(20 * 3600);

/// The provider's side of a refund: of which payment, and its id there.
#[derive(Clone, Debug)]
pub(super) struct Through {
    pub(super) origin: Origin,
    pub(super) refund_id: String,
}

impl Through {
    /// The business key of the posting. It is made of what the provider calls the refund and of nothing else, so it is the
    /// same whoever made the refund and however we learn of it: the books take each refund once.
    pub(super) fn key(&self) -> String {
        format!("refund:{}:{}", self.origin.provider.as_str(), self.refund_id)
    }
}

/// A payment of ours, with the provider's id by which the money of `order` came: a repeated call may have made two.
pub(super) fn paying(tx: &mut Tx, order: &Order, id: &PaymentId) -> Result<Payment, Error> {
    let payment = payments::find(tx, id)?;
    Ok(match ledger::paid_by(tx, &order.id, order.currency())? {
        Some((paying, there)) if paying == id.as_str() => Payment { provider_id: Some(there), ..payment },
        _ => payment,
    })
}

/// Posts money that has left through a provider. A balance that was spent since the look is looked at anew: what has left
/// is booked and not given up.
pub(super) fn post_what_left(tx: &mut Tx, shop: &Shop, posting: &Posting) -> Result<(), Error> {
    match ledger::post(tx, shop, posting) {
        Ok(_) => Ok(()),
        Err(Error::Insufficient { .. }) => {
            Err(Error::Store(StoreError::Contention("the balance changed while a refund was booked".into())))
        }
        Err(error) => Err(error),
    }
}

/// Notes on a payment what of it went back. With all of it, or when its order is `over`, the payment is refunded.
pub(super) fn gave_back(tx: &mut Tx, id: &PaymentId, amount: Amount, over: bool) -> Result<(), Error> {
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
    through: Option<&Through>,
) -> Result<(), Error> {
    let (unit, amount) = (order.currency(), refund.amount);
    // What was put on the balance comes from there again; the rest was sold.
    let (source, from_balance) = topup::source(tx, shop, refund, order, through.is_some())?;
    let from_sales = amount.checked_sub(from_balance)?;
    let (kind, key, to) = match through {
        Some(there) => {
            let Origin { provider, merchant, .. } = &there.origin;
            ("refund", there.key(), Account::external(*provider, merchant, unit))
        }
        None => ("refund_to_balance", format!("refund:{}", refund.id), Account::customer(&order.customer, unit)),
    };
    let entries = vec![(source, from_balance.neg()), (Account::sales(unit), from_sales.neg()), (to, amount)];
    let mut posting = Posting::new(kind, key, entries)?.for_order(&order.id).note(refund.reason.clone());
    if let Some(payment) = &refund.payment {
        posting = posting.for_payment(payment.as_str());
    }
    match through {
        Some(there) => post_what_left(tx, shop, &posting.from_provider(there.origin.clone()))?,
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
        order_flows::serve_soon(tx, shop, &order.id)?;
        referrals::flows::reverse(tx, shop, &order.id)?;
    }
    // Time that was bought goes back with its money, also after it was handed over.
    let gone = rows::given_back(tx, &order.id)?;
    subscriptions::refund::refunded(tx, shop, order, gone)?;
    let customer = customers::flows::find(tx, &order.customer)?;
    let target = if through.is_some() { "provider" } else { "balance" };
    messages::flows::notify_refund(tx, shop, &customer, &order.id, refund.id.as_str(), amount, target)?;
    let data = serde_json::json!({ "order": order.id, "amount": amount, "to": target, "full": full });
    events::flows::publish(tx, shop, "order.refunded", &order.id, data, &format!("order.refunded:{}", refund.id))
}

/// Ends a refund that the provider will not make, and gives the order its state back.
pub(super) fn fail(tx: &mut Tx, shop: &Shop, refund: &Refund, order: &mut Order, reason: &str) -> Result<(), Error> {
    let now = tx.now();
    tx.later(sql::FINISH, args![&refund.id, "failed", now], Expect::Rows(1))?;
    topup::release(tx, shop, refund, order)?;
    if order.state == State::RefundPending {
        order_flows::resume(tx, shop, order, refund.after, Some(reason))?;
    }
    let text = format!(
        "The refund of {} for order {} was refused: {reason}. It can still go to the balance",
        refund.amount, order.id
    );
    alerts::flows::raise(tx, shop, format!("refund:{}", refund.id), text)
}

/// Applies what the provider says about a refund of ours. True when it is final.
pub(super) fn settle(tx: &mut Tx, shop: &Shop, id: &RefundId, seen: &SeenRefund) -> Result<bool, Error> {
    let refund = rows::find(tx, id)?;
    let mut order = order_flows::lock(tx, &refund.order)?;
    let refund = rows::find(tx, id)?;
    if refund.state != "pending" {
        return Ok(true);
    }
    rows::linked(tx, &refund, &seen.refund_id)?;
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
                    let origin = Origin {
                        provider: payment.provider,
                        merchant: payment.merchant,
                        provider_payment_id: payment.provider_id.unwrap_or_default(),
                    };
                    Some(Through { origin, refund_id: seen.refund_id.clone() })
                }
                None => None,
            };
            let booked = match &through {
                Some(there) => ledger::is_posted(tx, &there.key())?,
                None => false,
            };
            match booked {
                false => succeed(tx, shop, &refund, &mut order, through.as_ref())?,
                // Where refunds have no ids, only one of a payment can be told from another: it was booked before.
                true => fail(tx, shop, &refund, &mut order, "the books have a refund of this payment already")?,
            }
            Ok(true)
        }
    }
}
