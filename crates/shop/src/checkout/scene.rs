//! All that a settlement reads, in one statement.

use serde::de::DeserializeOwned;

use semel_kernel::args;
use semel_kernel::store::{Row, StoreError, Tx};
use semel_money::Amount;

use super::flows::payment_of;
use super::hints::Says;
use super::{Payment, PaymentId, sql};
use crate::catalog::{Delivery, Held, Kind};
use crate::customers::Customer;
use crate::ledger::{self, Origin};
use crate::orders::flows::order_at;
use crate::orders::{Item, Order};
use crate::{Error, Shop};

/// A payment with its order, its customer and its goods, as they stand; the rows of order and payment are held.
pub(super) struct Scene {
    pub(super) payment: Payment,
    pub(super) order: Order,
    pub(super) customer: Customer,
    pub(super) items: Vec<Item>,
    pub(super) held: Vec<Held>,
    /// The provider's ids of payments that are in the books already.
    pub(super) captured: Vec<String>,
}

impl Scene {
    /// Reads the scene of `id`; `seen` are the provider's ids that an answer is about.
    pub(super) fn read(tx: &mut Tx, id: &PaymentId, seen: &[String]) -> Result<Self, Error> {
        let one = |n: usize| seen.get(n).cloned();
        let wanted = args![id, one(0), one(1), one(2), one(3)];
        let row = tx.first(sql::SCENE, wanted)?.ok_or_else(|| Error::missing("payment", id))?;
        let payment = payment_of(&row)?;
        let order = order_at(&row, 15)?;
        let customer = Customer {
            id: row.get(26)?,
            telegram_id: row.get(27)?,
            email: row.get(28)?,
            phone: row.get(29)?,
            language: row.get(30)?,
            referrer: row.get(31)?,
            created_at: row.get(32)?,
        };
        let lines: Vec<Line> = json(&row, 33)?;
        let items = lines.into_iter().map(|line| item_of(line, &order)).collect::<Result<_, _>>()?;
        let mut captured: Vec<String> = json(&row, 35)?;
        for more in seen.iter().skip(4) {
            let (provider, merchant) = (payment.provider, payment.merchant.clone());
            let origin = Origin { provider, merchant, provider_payment_id: more.clone() };
            if ledger::is_posted(tx, &ledger::capture_key(&origin))? {
                captured.push(more.clone());
            }
        }
        Ok(Self { payment, order, customer, items, held: json(&row, 34)?, captured })
    }
}

/// A line as the statement lists it: id, product, title, kind, delivery, price, quantity, refunded, duration, devices,
/// subscription.
type Line = (
    crate::orders::ItemId,
    crate::catalog::ProductId,
    String,
    String,
    String,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<crate::subscriptions::SubscriptionId>,
);

fn item_of(line: Line, order: &Order) -> Result<Item, StoreError> {
    let (id, product, title, kind, delivery, price, quantity, refunded, duration_s, devices, subscription) = line;
    let kind = Kind::parse(&kind).ok_or(StoreError::Decode { wanted: "a kind of product", found: kind })?;
    let delivery =
        Delivery::parse(&delivery).ok_or(StoreError::Decode { wanted: "a way of delivery", found: delivery })?;
    let price = Amount::new(price, order.currency());
    Ok(Item {
        id,
        product,
        title,
        kind,
        delivery,
        price,
        quantity,
        refunded,
        promised_at: None,
        duration_s,
        devices,
        subscription,
    })
}

fn json<T: DeserializeOwned>(row: &Row, index: usize) -> Result<T, StoreError> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|error| StoreError::Decode { wanted: "a list", found: error.to_string() })
}

/// The ids under which a provider may know a payment.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Those that the provider gave us.
    pub(super) noted: Vec<String>,
    /// Those that only notices name: true or not.
    pub(super) named: Vec<String>,
}

impl Ids {
    pub(super) fn is_empty(&self) -> bool {
        self.noted.is_empty() && self.named.is_empty()
    }

    /// Adds an id that a notice names.
    pub(super) fn name(&mut self, id: String) {
        if !self.noted.contains(&id) && !self.named.contains(&id) {
            self.named.push(id);
        }
    }
}

/// A payment and the ids under which its provider knows it: those we noted and those that waiting notices name.
pub(super) async fn known_ids(shop: &Shop, id: &PaymentId) -> Result<(Payment, Ids), Error> {
    let of = id.clone();
    shop.look("payment.known", move |tx| {
        let row = tx.first(sql::KNOWN, args![&of])?.ok_or_else(|| Error::missing("payment", &of))?;
        let payment = payment_of(&row)?;
        let mut ids = Ids { noted: json(&row, 15)?, named: Vec::new() };
        for says in json::<Vec<String>>(&row, 16)? {
            let says: Option<Says> = serde_json::from_str(&says).ok();
            if let Some(id) = says.and_then(|says| says.provider_id) {
                ids.name(id);
            }
        }
        Ok((payment, ids))
    })
    .await
}
