//! What happens to products and their units.

use std::collections::BTreeMap;

use semel_kernel::args;
use semel_kernel::clock::Time;
use semel_kernel::history::{self, Entry};
use semel_kernel::store::{Expect, StoreError, Tx, Value};
use semel_money::Amount;

use super::goods::{Unit, fingerprint};
use super::{Change, Goods, Held, Imported, Kind, Levels, NewProduct, Product, ProductId, UnitId, sql};
use crate::orders::{ItemId, OrderId};
use crate::{Error, Shop};

/// So many units are named that cannot be withdrawn.
const NAMED: usize = 5;
/// Units that one statement writes: few round trips, and none that runs for long.
const UNITS_A_STATEMENT: usize = 1000;

/// Puts a product on sale.
///
/// # Errors
/// [`Error::Invalid`] when title, description, price, delivery, promise, duration or devices make no sense;
/// [`Error::Conflict`] for access to a VPN that is not set up.
pub fn create(tx: &mut Tx, shop: &Shop, new: NewProduct) -> Result<Product, Error> {
    let new = new.checked()?;
    if new.kind == Kind::Vpn {
        crate::vpn::of(shop)?;
    }
    let now = tx.now();
    let product = Product {
        id: ProductId::new(now, &shop.chance),
        title: new.title,
        description: new.description,
        kind: new.kind,
        delivery: new.delivery,
        promise_s: new.promise_s.unwrap_or(0),
        price: new.price,
        active: true,
        version: 1,
        created_at: now,
        duration_s: new.duration_s,
        devices: new.devices,
        stock: (new.kind == Kind::Stock).then(Levels::default),
    };
    let args = args![
        &product.id,
        &product.title,
        &product.description,
        product.kind.as_str(),
        product.delivery.as_str(),
        product.promise_s,
        product.price.minor(),
        product.price.currency().code(),
        product.active,
        now,
        product.duration_s,
        product.devices
    ];
    tx.later(sql::INSERT, args, Expect::Rows(1))?;
    history::append(tx, &Entry { event: "product made", ..entry(&product.id) })?;
    Ok(product)
}

fn entry(product: &ProductId) -> Entry<'_> {
    Entry { entity: "product", entity_id: product.as_str(), thread: Some(product.as_str()), ..Entry::default() }
}

/// A product by id, without its stock.
pub fn find(tx: &mut Tx, id: &ProductId) -> Result<Product, Error> {
    let row = tx.first(sql::FIND, args![id])?;
    Ok(sql::product(&row.ok_or_else(|| Error::missing("product", id))?)?)
}

/// A product by id, its row held until the transaction ends.
pub fn find_held(tx: &mut Tx, id: &ProductId) -> Result<Product, Error> {
    let row = tx.first(sql::FIND_HELD, args![id])?;
    Ok(sql::product(&row.ok_or_else(|| Error::missing("product", id))?)?)
}

/// A product by id, with its stock counted.
pub fn view(tx: &mut Tx, id: &ProductId) -> Result<Product, Error> {
    let mut product = [find(tx, id)?];
    count_stock(tx, &mut product)?;
    let [product] = product;
    Ok(product)
}

/// The products with these ids in one statement, ordered by id, without their stock. Ids that nobody knows are left out.
pub fn products(tx: &mut Tx, ids: &[ProductId]) -> Result<Vec<Product>, Error> {
    let rows = tx.rows(sql::PRODUCTS, args![json(ids)])?;
    Ok(rows.iter().map(sql::product).collect::<Result<_, _>>()?)
}

fn json(ids: &[ProductId]) -> String {
    let ids: Vec<&str> = ids.iter().map(ProductId::as_str).collect();
    serde_json::Value::from(ids).to_string()
}

/// Changes what is offered from now on; orders keep the quote that they froze.
///
/// # Errors
/// [`Error::Conflict`] when the change names a version that is no longer the latest.
pub fn change(tx: &mut Tx, id: &ProductId, change: Change) -> Result<Product, Error> {
    let before = find(tx, id)?;
    let change = change.checked(&before)?;
    let touched = change.words();
    let args = args![
        id,
        change.title,
        change.description,
        change.price.map(Amount::minor),
        change.price.map(|price| price.currency().code()),
        change.active,
        change.promise_s,
        change.version
    ];
    let Some(row) = tx.first(sql::CHANGE, args)? else {
        let now = find(tx, id)?.version;
        return Err(Error::Conflict(format!(
            "product {id} has version {now} by now; read it again and repeat the change"
        )));
    };
    let mut product = [sql::product(&row)?];
    history::append(tx, &Entry { event: "product changed", detail: Some(&touched), ..entry(id) })?;
    count_stock(tx, &mut product)?;
    let [product] = product;
    Ok(product)
}

/// Products with their stock, the newest first, below the id `before`.
pub fn list(tx: &mut Tx, before: Option<&ProductId>, limit: i64) -> Result<Vec<Product>, Error> {
    let rows = tx.rows(sql::LIST, args![before, limit])?;
    let mut products: Vec<Product> = rows.iter().map(sql::product).collect::<Result<_, _>>()?;
    count_stock(tx, &mut products)?;
    Ok(products)
}

fn count_stock(tx: &mut Tx, products: &mut [Product]) -> Result<(), Error> {
    let stocked = products.iter().filter(|product| product.kind == Kind::Stock);
    let ids: Vec<ProductId> = stocked.map(|product| product.id.clone()).collect();
    let levels = levels(tx, &ids)?;
    for product in products.iter_mut().filter(|product| product.kind == Kind::Stock) {
        product.stock = Some(levels.get(&product.id).copied().unwrap_or_default());
    }
    Ok(())
}

fn levels(tx: &mut Tx, ids: &[ProductId]) -> Result<BTreeMap<ProductId, Levels>, StoreError> {
    let mut levels: BTreeMap<ProductId, Levels> = BTreeMap::new();
    if ids.is_empty() {
        return Ok(levels);
    }
    for row in tx.rows(sql::LEVELS, args![json(ids)])? {
        let (state, count): (String, i64) = (row.get(1)?, row.get(2)?);
        let level = levels.entry(row.get(0)?).or_default();
        match state.as_str() {
            "available" => level.available = count,
            "held" => level.held = count,
            "held back" => level.held_back = count,
            _ => level.delivered = count,
        }
    }
    Ok(levels)
}

/// How many units of a product there are, by what became of them. Counts them all: for pages, not for hot paths.
pub fn stock_levels(tx: &mut Tx, product: &ProductId) -> Result<Levels, Error> {
    Ok(levels(tx, std::slice::from_ref(product))?.remove(product).unwrap_or_default())
}

/// How many units of a product are on the shelf. Reads its index only.
pub fn available(tx: &mut Tx, product: &ProductId) -> Result<i64, Error> {
    Ok(tx.one(sql::AVAILABLE, args![product])?.get(0)?)
}

/// Takes `items` into stock, one unit each: [`Goods::read`], then [`add`].
pub fn import(tx: &mut Tx, shop: &Shop, product: &ProductId, items: Vec<String>) -> Result<Imported, Error> {
    add(tx, shop, product, &Goods::read(items)?)
}

/// Puts goods on the shelf, in their order, and serves who waits for them. A unit that any product ever had is left out
/// and counted: the same key is never sold twice.
///
/// # Errors
/// [`Error::Invalid`] when the product is not of the kind `stock`.
pub fn add(tx: &mut Tx, shop: &Shop, product: &ProductId, goods: &Goods) -> Result<Imported, Error> {
    let kind = find_held(tx, product)?.kind;
    if kind != Kind::Stock {
        let reason = format!("product {product} is a {}: only products of the kind stock have units", kind.as_str());
        return Err(Error::invalid("items", reason));
    }
    let now = tx.now();
    // Ids of one moment are random among themselves; sorted, they keep the order of the file, and units are sold by id.
    let mut ids: Vec<UnitId> = goods.units.iter().map(|_| UnitId::new(now, &shop.chance)).collect();
    ids.sort();
    let mut units: Vec<(UnitId, &Unit)> = ids.into_iter().zip(&goods.units).collect();
    units.sort_by(|(_, one), (_, other)| one.hash.cmp(&other.hash));
    let mut added = 0;
    for batch in units.chunks(UNITS_A_STATEMENT) {
        let rows = batch.iter().map(|(id, unit)| {
            vec![
                Value::from(id),
                Value::from(product),
                Value::from(&unit.content),
                Value::from(&unit.hash),
                Value::from(now),
            ]
        });
        added += tx.many(sql::ADD_UNITS, rows.collect())?.len();
    }
    let imported = Imported { added, duplicates: goods.repeated + (goods.units.len() - added) };
    let detail = format!("{} added, {} duplicates", imported.added, imported.duplicates);
    history::append(tx, &Entry { event: "stock imported", detail: Some(&detail), ..entry(product) })?;
    if added > 0 {
        crate::orders::flows::serve_waiting(tx, shop, product)?;
    }
    Ok(imported)
}

/// Takes `goods` off the shelf of a product, all of them or none: they came in by mistake. They can come in again, to any product,
/// because nobody ever had them. Answers how many there were.
///
/// # Errors
/// [`Error::Conflict`] with the line and the id of each unit that an order holds or has, that a restore holds back, or that this
/// product does not have; never with what a unit holds.
pub fn withdraw(tx: &mut Tx, product: &ProductId, goods: &Goods) -> Result<usize, Error> {
    find_held(tx, product)?;
    let hashes: Vec<&str> = goods.units.iter().map(|unit| unit.hash.as_str()).collect();
    let mut known: BTreeMap<String, Shelved> = BTreeMap::new();
    for row in tx.rows(sql::WITH_FINGERPRINTS, args![serde_json::Value::from(hashes).to_string()])? {
        let unit = Shelved {
            id: row.get(0)?,
            product: row.get(1)?,
            state: row.get(2)?,
            held_back: row.get::<Option<Time>>(4)?.is_some(),
            order: row.get(5)?,
        };
        known.insert(row.get(3)?, unit);
    }
    let (mut free, mut refused) = (Vec::with_capacity(goods.units.len()), Vec::new());
    for unit in &goods.units {
        match known.get(&unit.hash).filter(|shelved| shelved.product == *product) {
            None => refused.push(format!("line {} is not in its stock", unit.line)),
            Some(shelved) => match shelved.refusal() {
                Some(why) => refused.push(format!("line {} ({}) {why}", unit.line, shelved.id)),
                None => free.push(vec![
                    Value::from(&shelved.id),
                    Value::from(fingerprint(&format!("withdrawn {}", shelved.id))),
                ]),
            },
        }
    }
    if !refused.is_empty() {
        let more = match refused.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        refused.truncate(NAMED);
        let named = refused.join("; ");
        return Err(Error::Conflict(format!("nothing of product {product} was withdrawn: {named}{more}")));
    }
    let wanted = free.len();
    let mut withdrawn = 0;
    for batch in free.chunks(UNITS_A_STATEMENT) {
        withdrawn += tx.many(sql::WITHDRAW_UNITS, batch.to_vec())?.len();
    }
    if withdrawn < wanted {
        return Err(Error::Conflict(format!(
            "nothing of product {product} was withdrawn: some of it was sold meanwhile; repeat it to read what"
        )));
    }
    let detail = format!("{withdrawn} withdrawn");
    history::append(tx, &Entry { event: "stock withdrawn", detail: Some(&detail), ..entry(product) })?;
    Ok(withdrawn)
}

/// A unit as a withdrawal finds it.
struct Shelved {
    id: UnitId,
    product: ProductId,
    state: String,
    held_back: bool,
    order: Option<OrderId>,
}

impl Shelved {
    /// Why it cannot be withdrawn, if so.
    fn refusal(&self) -> Option<String> {
        let order = self.order.as_ref().map(|order| format!(" (order {order})")).unwrap_or_default();
        match self.state.as_str() {
            "available" if self.held_back => {
                Some("is held back since a restore: it may have been sold after the backup".to_owned())
            }
            "available" => None,
            "held" => Some(format!("is held{order}")),
            "delivered" => Some(format!("was sold{order}")),
            _ => Some(format!("is out of the trade for ever{order}")),
        }
    }
}

/// Holds `n` units of `product` for `item`, whose row must be written (or queued) already. Units go out in the order in
/// which they came in.
///
/// # Errors
/// [`Error::SoldOut`] when there are fewer. What could be taken is still held then: undo the transaction, or
/// [`release`] the order.
pub fn hold(tx: &mut Tx, item: &ItemId, product: &ProductId, n: i64) -> Result<(), Error> {
    // A limit below zero would mean "all" to SQLite.
    if n < 1 {
        return Err(Error::invalid("quantity", format!("at least 1, not {n}")));
    }
    let mut taken = count(tx.execute(sql::HOLD, args![item, product, n])?);
    if taken < n {
        // Units that were skipped belong to a buyer who may still fail. Nobody is told "sold out" because of that.
        taken += count(tx.execute(sql::HOLD_LAST, args![item, product, n - taken])?);
    }
    if taken < n {
        return Err(Error::SoldOut { product: product.to_string(), wanted: n, left: taken });
    }
    Ok(())
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Puts the units held for an order back on the shelf. One that stands in a delivery which is not void stays: it may
/// have been seen, so end its delivery first.
pub fn release(tx: &mut Tx, order: &OrderId) -> Result<(), Error> {
    Ok(tx.later(sql::RELEASE, args![order], Expect::Any)?)
}

/// Takes the units held for an order out of the trade: their buyer may have seen them, and the money goes back. One that
/// stands in a delivery which is not void stays.
pub fn burn(tx: &mut Tx, order: &OrderId) -> Result<(), Error> {
    Ok(tx.later(sql::BURN, args![order], Expect::Any)?)
}

/// All units held for an order's lines, by id.
pub fn held_for(tx: &mut Tx, order: &OrderId) -> Result<Vec<Held>, Error> {
    let mut held = Vec::new();
    for row in tx.rows(sql::HELD, args![order])? {
        held.push(Held { item: row.get(0)?, unit: row.get(1)?, content_hash: row.get(2)? });
    }
    Ok(held)
}

/// Notes on an order's units that they are with their buyer, where the delivery says so.
pub fn mark_delivered(tx: &mut Tx, order: &OrderId) -> Result<(), Error> {
    Ok(tx.later(sql::MARK_DELIVERED, args![order], Expect::Any)?)
}

/// Takes a unit out of the trade for ever. It stays known, so that no import brings it back. A repeat changes nothing.
///
/// # Errors
/// [`Error::Conflict`] when an order holds it: that order would never find it again.
pub fn void(tx: &mut Tx, unit: &UnitId) -> Result<(), Error> {
    if tx.execute(sql::VOID, args![unit])? == 1 {
        return Ok(());
    }
    match tx.first(sql::UNIT_STATE, args![unit])? {
        None => Err(Error::missing("unit", unit)),
        Some(_) => Err(Error::Conflict(format!("unit {unit} is held by an order; cancel or refund that first"))),
    }
}

/// Holds back, from `now` until [`let_go`], every unit that a backup calls available or held by an unpaid order: after the
/// backup it may have been sold to somebody else. Answers how many there are.
pub fn hold_back(tx: &mut Tx, now: Time) -> Result<i64, StoreError> {
    Ok(count(tx.execute(sql::HOLD_BACK, args![now])?))
}

/// Products with units that a restore holds back: id, title, how many.
pub fn held_back(tx: &mut Tx) -> Result<Vec<(ProductId, String, i64)>, StoreError> {
    tx.rows(sql::HELD_BACK, &[])?.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).collect()
}

/// Whether a restore holds any unit back.
pub fn is_any_held_back(tx: &mut Tx) -> Result<bool, StoreError> {
    Ok(tx.first(sql::ANY_HELD_BACK, &[])?.is_some())
}

/// Whether a restore holds one of these units back.
pub fn is_one_held_back(tx: &mut Tx, units: &[Held]) -> Result<bool, StoreError> {
    let ids: Vec<&str> = units.iter().map(|held| held.unit.as_str()).collect();
    Ok(tx.first(sql::SOME_HELD_BACK, args![serde_json::Value::from(ids).to_string()])?.is_some())
}

/// Lets the units of a product go that a restore held back, and serves who waits for them. Answers how many there were.
/// The owner's decision: `reason` stands in the product's history.
///
/// # Errors
/// [`Error::NotFound`] when there is no such product.
pub fn let_go(tx: &mut Tx, shop: &Shop, product: &ProductId, reason: &str, actor: &str) -> Result<i64, Error> {
    find_held(tx, product)?;
    let units = count(tx.execute(sql::LET_GO, args![product])?);
    if units > 0 {
        let detail = format!("{units} units: {reason}");
        let step = Entry { event: "stock released", actor: Some(actor), detail: Some(&detail), ..entry(product) };
        history::append(tx, &step)?;
        crate::orders::flows::serve_waiting(tx, shop, product)?;
    }
    Ok(units)
}

/// The goods of an order that are with the buyer or on their way: line, number within the line, title, content. They are
/// secrets: only for the buyer's eyes.
pub fn contents(tx: &mut Tx, order: &OrderId) -> Result<Vec<(ItemId, i64, String, String)>, Error> {
    let mut contents = Vec::new();
    for row in tx.rows(sql::CONTENTS, args![order])? {
        contents.push((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    }
    Ok(contents)
}
