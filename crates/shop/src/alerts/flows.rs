//! Raising alerts and handing them to the owner.

use semel_kernel::jobs;
use semel_kernel::store::Tx;
use semel_money::Amount;

use super::Alert;
use crate::messages::{self, Body, Class, New};
use crate::orders::OrderId;
use crate::{Error, Shop};

/// Tells the owner `text`, once for each `key`. Takes place after the commit.
///
/// `text` goes into the log and to Telegram: no secrets, no goods.
pub fn raise(tx: &mut Tx, shop: &Shop, key: impl Into<String>, text: impl Into<String>) -> Result<(), Error> {
    let now = tx.now();
    jobs::enqueue(tx, &Alert { key: key.into(), text: text.into() }, now, &shop.chance)?;
    Ok(())
}

/// Tells the owner of a sale: one message a head, and nothing when there is nobody to tell. The log has the sale anyway.
pub fn sold(tx: &mut Tx, shop: &Shop, order: &OrderId, total: Amount) -> Result<(), Error> {
    tell(tx, shop, &format!("sale:{order}"), &format!("Sold: order {order} for {total}"))
}

/// Queues one message for the owner and each helper. An alert is never sent twice: that would look like two troubles.
pub(super) fn tell(tx: &mut Tx, shop: &Shop, key: &str, text: &str) -> Result<(), Error> {
    for chat in &shop.rules.admins {
        let new = New {
            dedup_key: format!("alert:{key}:{chat}"),
            chat_id: *chat,
            class: Class::AtMostOnce,
            kind: messages::ALERT,
            body: Body::Text { html: messages::alert_html(text) },
            order: None,
        };
        messages::flows::queue(tx, shop, new)?;
    }
    Ok(())
}
