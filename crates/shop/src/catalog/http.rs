//! The catalog over HTTP: products, stock in, and stock out again that came by mistake.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use semel_kernel::keys;
use semel_money::{Amount, Currency};
use serde::{Deserialize, Serialize};

use super::{Change, Delivery, Goods, Kind, Levels, NewProduct, Product, ProductId, flows};
use crate::web::{KeyInHand, Problem, Strict, cursor, in_hand, page, page_size};
use crate::{Error, Shop};

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

/// `/api/v1/products` and what is under it.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/api/v1/products", post(create).get(list))
        .route("/api/v1/products/{id}", get(one).patch(change))
        .route("/api/v1/products/{id}/stock", post(import))
        .route("/api/v1/products/{id}/stock/withdraw", post(withdraw))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBody {
    title: String,
    kind: String,
    price: Price,
    description: Option<String>,
    delivery: Option<Delivery>,
    promise_hours: Option<u32>,
    duration_days: Option<u32>,
    devices: Option<u32>,
}

/// A price; in the shop's currency when it names none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    amount: String,
    currency: Option<Currency>,
}

impl NewBody {
    fn product(self, usual: Currency) -> Result<NewProduct, Error> {
        let price = Amount::parse(&self.price.amount, self.price.currency.unwrap_or(usual));
        Ok(NewProduct {
            title: self.title,
            description: self.description.unwrap_or_default(),
            kind: kind(&self.kind)?,
            delivery: self.delivery.unwrap_or(Delivery::Instant),
            promise_s: self.promise_hours.map(seconds),
            price: price.map_err(|error| Error::invalid("price.amount", error.to_string()))?,
            duration_s: self.duration_days.map(|days| i64::from(days) * DAY_S),
            devices: self.devices.map(i64::from),
        })
    }
}

fn kind(word: &str) -> Result<Kind, Error> {
    match Kind::parse(word) {
        Some(kind) => Ok(kind),
        None if word == "digest" => {
            Err(Error::invalid("kind", format!("{word} comes later; this version sells stock, topup and vpn")))
        }
        None => Err(Error::invalid("kind", "write stock, topup or vpn")),
    }
}

fn seconds(hours: u32) -> i64 {
    i64::from(hours) * HOUR_S
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    title: Option<String>,
    description: Option<String>,
    price: Option<Amount>,
    active: Option<bool>,
    promise_hours: Option<u32>,
    version: Option<i64>,
}

impl ChangeBody {
    fn change(self) -> Change {
        Change {
            title: self.title,
            description: self.description,
            price: self.price,
            active: self.active,
            promise_s: self.promise_hours.map(seconds),
            version: self.version,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StockBody {
    items: Vec<String>,
}

#[derive(Serialize)]
struct Withdrawn {
    withdrawn: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    cursor: Option<String>,
    limit: Option<i64>,
}

#[derive(Serialize)]
struct View {
    id: ProductId,
    title: String,
    description: String,
    kind: Kind,
    delivery: Delivery,
    #[serde(skip_serializing_if = "Option::is_none")]
    promise_hours: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_days: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<i64>,
    price: Amount,
    active: bool,
    version: i64,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stock: Option<Levels>,
}

impl From<Product> for View {
    fn from(product: Product) -> Self {
        let promised = product.delivery == Delivery::MadeToOrder;
        Self {
            id: product.id,
            title: product.title,
            description: product.description,
            kind: product.kind,
            delivery: product.delivery,
            promise_hours: promised.then_some(product.promise_s / HOUR_S),
            duration_days: product.duration_s.map(|seconds| seconds / DAY_S),
            devices: product.devices,
            price: product.price,
            active: product.active,
            version: product.version,
            created_at: product.created_at.to_string(),
            stock: product.stock,
        }
    }
}

async fn create(
    State(shop): State<Shop>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<NewBody>,
) -> Result<impl IntoResponse, Problem> {
    let (key, resume) = in_hand(key);
    // A request that died may have made the product before its answer was stored.
    if let Some(made) = resume.as_deref().and_then(ProductId::parse) {
        let product = shop.read("catalog.resume", move |tx| flows::view(tx, &made)).await?;
        return Ok((StatusCode::CREATED, Json(View::from(product))));
    }
    let new = body.product(shop.rules.currency)?;
    let made = shop.write("catalog.create", move |tx, shop| {
        let product = flows::create(tx, shop, new.clone())?;
        if let Some(key) = &key {
            keys::bind(tx, key, product.id.as_str())?;
        }
        Ok(product)
    });
    Ok((StatusCode::CREATED, Json(View::from(made.await?))))
}

async fn list(State(shop): State<Shop>, asked: Result<Query<Page>, QueryRejection>) -> Result<Response, Problem> {
    let Query(asked) = asked.map_err(|refusal| Problem::bad_request(refusal.body_text()))?;
    let limit = page_size(asked.limit)?;
    let before = cursor(asked.cursor.as_deref(), ProductId::parse)?;
    let found = shop.read("catalog.list", move |tx| flows::list(tx, before.as_ref(), limit + 1)).await?;
    Ok(page(found.into_iter().map(View::from).collect(), limit, |view: &View| view.id.clone()))
}

async fn one(State(shop): State<Shop>, Path(id): Path<String>) -> Result<impl IntoResponse, Problem> {
    let id = named(&id)?;
    let product = shop.read("catalog.one", move |tx| flows::view(tx, &id)).await?;
    Ok(Json(View::from(product)))
}

async fn change(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<ChangeBody>,
) -> Result<impl IntoResponse, Problem> {
    let id = named(&id)?;
    let change = body.change();
    let product = shop.write("catalog.change", move |tx, _| flows::change(tx, &id, change.clone())).await?;
    Ok(Json(View::from(product)))
}

async fn import(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<StockBody>,
) -> Result<impl IntoResponse, Problem> {
    let id = named(&id)?;
    // Fingerprints are made here: the transaction has the database to itself only for writing.
    let goods = Goods::read(body.items)?;
    let imported = shop.write("catalog.import", move |tx, shop| flows::add(tx, shop, &id, &goods)).await?;
    Ok(Json(imported))
}

async fn withdraw(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<StockBody>,
) -> Result<impl IntoResponse, Problem> {
    let id = named(&id)?;
    let (key, resume) = in_hand(key);
    let goods = Goods::read(body.items)?;
    // A request that died may have taken them off the shelf before its answer was stored: all of them, then.
    if resume.is_some() {
        return Ok(Json(Withdrawn { withdrawn: goods.len() }));
    }
    let withdrawn = shop.write("catalog.change", move |tx, _| {
        let withdrawn = flows::withdraw(tx, &id, &goods)?;
        if let Some(key) = &key {
            keys::bind(tx, key, id.as_str())?;
        }
        Ok(withdrawn)
    });
    Ok(Json(Withdrawn { withdrawn: withdrawn.await? }))
}

fn named(id: &str) -> Result<ProductId, Error> {
    ProductId::parse(id).ok_or_else(|| Error::missing("product", format!("{id:.80}")))
}

#[cfg(test)]
mod tests {
    use semel_kernel::clock::{Chance, Time};
    use serde_json::json;

    use super::*;

    fn read(body: serde_json::Value) -> Result<NewProduct, Error> {
        serde_json::from_value::<NewBody>(body).unwrap().product(Currency::RUB)
    }

    #[test]
    fn a_product_is_read_with_its_usual_values() {
        let price = json!({ "amount": "499.00", "currency": "RUB" });
        let new = read(json!({ "title": "Key", "kind": "stock", "price": price })).unwrap();
        assert_eq!(new.price, Amount::new(49_900, Currency::RUB));
        assert_eq!((new.kind, new.delivery, new.promise_s), (Kind::Stock, Delivery::Instant, None));
        let usual = read(json!({ "title": "Key", "kind": "topup", "price": { "amount": "5" } })).unwrap();
        assert_eq!(usual.price, Amount::new(500, Currency::RUB));
        let made = json!({ "title": "Key", "kind": "stock", "price": { "amount": "5" }, "delivery": "made_to_order", "promise_hours": 2 });
        assert_eq!(read(made).unwrap().promise_s, Some(7200));
        let access =
            json!({ "title": "VPN", "kind": "vpn", "price": { "amount": "5" }, "duration_days": 30, "devices": 3 });
        let access = read(access).unwrap();
        assert_eq!((access.kind, access.duration_s, access.devices), (Kind::Vpn, Some(2_592_000), Some(3)));
    }

    #[test]
    fn kinds_of_later_versions_are_told_apart_from_mistakes() {
        let told = |word: &str| {
            read(json!({ "title": "T", "kind": word, "price": { "amount": "5" } })).unwrap_err().to_string()
        };
        assert_eq!(told("digest"), "kind: digest comes later; this version sells stock, topup and vpn");
        assert_eq!(told("Stock"), "kind: write stock, topup or vpn");
    }

    #[test]
    fn a_price_is_exact_text_and_nothing_unknown_is_taken() {
        let odd = json!({ "title": "T", "kind": "stock", "price": { "amount": "1.001", "currency": "RUB" } });
        assert!(matches!(read(odd), Err(Error::Invalid { field, .. }) if field == "price.amount"));
        let number = json!({ "title": "T", "kind": "stock", "price": { "amount": 1, "currency": "RUB" } });
        assert!(serde_json::from_value::<NewBody>(number).is_err());
        let extra = json!({ "title": "T", "kind": "stock", "price": { "amount": "1" }, "prize": 1 });
        assert!(serde_json::from_value::<NewBody>(extra).is_err());
    }

    #[test]
    fn a_product_is_shown_as_the_contract_says() {
        let product = Product {
            id: ProductId::new(Time::from_millis(0), &Chance::seeded(7)),
            title: "Key".into(),
            description: String::new(),
            kind: Kind::Stock,
            delivery: Delivery::MadeToOrder,
            promise_s: 7200,
            price: Amount::new(49_900, Currency::RUB),
            active: true,
            version: 1,
            created_at: Time::from_millis(0),
            duration_s: None,
            devices: None,
            stock: Some(Levels { available: 3, held: 2, delivered: 1, held_back: 0 }),
        };
        let id = product.id.clone();
        let expected = json!({
            "id": id, "title": "Key", "description": "", "kind": "stock", "delivery": "made_to_order", "promise_hours": 2,
            "price": { "amount": "499.00", "currency": "RUB" }, "active": true, "version": 1,
            "created_at": "1970-01-01T00:00:00.000Z", "stock": { "available": 3, "held": 2, "delivered": 1 },
        });
        assert_eq!(serde_json::to_value(View::from(product)).unwrap(), expected);
    }
}
