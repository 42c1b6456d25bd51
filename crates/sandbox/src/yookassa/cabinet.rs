//! What the shop's owner does at YooKassa by hand.

use super::wire::refund_event;
use super::{PROVIDER, give_back};
use crate::world::lock;
use crate::{PayError, PaymentView, Sandbox, amount};

/// YooKassa's cabinet.
impl Sandbox {
    /// The owner gives money of a succeeded payment back in the cabinet: this sum, decimal text in the payment's currency,
    /// or all that is left. The refund stands in the list of refunds and in `gt_pay`; its notice goes into the outbox if
    /// `told`, else it never was.
    ///
    /// # Errors
    /// [`PayError::Amount`] when the text is no positive sum, [`PayError::Over`] when the payment cannot give that much back.
    pub fn refund_at_yookassa(&self, id: &str, sum: Option<&str>, told: bool) -> Result<PaymentView, PayError> {
        let (view, event) = {
            let mut register = lock(&self.world.payments);
            let unknown = || PayError::Unknown { provider: PROVIDER, id: id.to_owned() };
            let payment = register.get_mut(PROVIDER, id).ok_or_else(unknown)?;
            let left = payment.captured - payment.refunded;
            let sum = match sum {
                Some(text) => {
                    let read = amount::parse(text, payment.scale).filter(|sum| *sum > 0);
                    read.ok_or_else(|| PayError::Amount(text.to_owned()))?
                }
                None => left,
            };
            if payment.status != "succeeded" || sum <= 0 || sum > left {
                return Err(payment.over());
            }
            let refund = give_back(&self.world, payment, sum, Some("Refund by the shop".to_owned()));
            let pair = (payment.view(), refund_event(&refund, payment));
            register.refunds.push(refund);
            pair
        };
        if told {
            self.world.queue(event);
        }
        Ok(view)
    }
}
