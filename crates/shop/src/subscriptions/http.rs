//! Subscriptions over HTTP: where they stand, the owner's hand, trials, and the customer's files.

use std::time::Duration;

use axum::extract::{Path, Query, State as Extract};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::Deserialize;

use semel_kernel::keys::{self, Key};
use semel_kernel::store::Tx;

use super::by_hand::{self, Grant};
use super::view::{self, Line, View};
use super::{State, Subscription, SubscriptionId, trial};
use crate::customers::NewCustomer;
use crate::vpn::hand_out;
use crate::web::{KeyInHand, Problem, Strict, cursor, in_hand, page, page_size};
use crate::{Error, Shop};

/// The routes of this feature.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/api/v1/subscriptions", post(grant).get(list))
        .route("/api/v1/subscriptions/trial", post(begin_trial))
        .route("/api/v1/subscriptions/{id}", get(show))
        .route("/api/v1/subscriptions/{id}/extend", post(extend))
        .route("/api/v1/subscriptions/{id}/freeze", post(freeze))
        .route("/api/v1/subscriptions/{id}/unfreeze", post(unfreeze))
        .route("/api/v1/subscriptions/{id}/revoke", post(revoke))
        .route("/api/v1/subscriptions/{id}/link", post(link))
        .route("/api/v1/subscriptions/{id}/config", get(config))
}

const REASON_CHARS: usize = 500;
const DAY_S: u64 = 86_400;

fn named(text: &str) -> Result<SubscriptionId, Problem> {
    SubscriptionId::parse(text).ok_or_else(|| Error::missing("subscription", format!("{text:.80}")).into())
}

/// Why the owner does a thing, as it stands in the story afterwards.
fn sound(reason: &str) -> Result<String, Error> {
    let reason = reason.trim();
    let length = reason.chars().count();
    if !(1..=REASON_CHARS).contains(&length) || reason.chars().any(char::is_control) {
        return Err(Error::invalid("reason", format!("one line of 1 to {REASON_CHARS} characters")));
    }
    Ok(reason.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    customer: Option<i64>,
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

async fn list(Extract(shop): Extract<Shop>, Query(filter): Query<Filter>) -> Result<Response, Problem> {
    let limit = page_size(filter.limit)?;
    let state = match filter.state.as_deref() {
        None => None,
        Some(word) => Some(State::parse(word).ok_or_else(|| unknown_state(word))?),
    };
    let before = cursor(filter.cursor.as_deref(), SubscriptionId::parse)?;
    let items = shop
        .read("subscriptions.list", move |tx| {
            let before = before.as_ref().map(SubscriptionId::as_str);
            view::list(tx, filter.customer, state.map(State::as_str), before, limit + 1)
        })
        .await?;
    Ok(page(items, limit, |line: &Line| line.id.clone()))
}

fn unknown_state(word: &str) -> Error {
    let known: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
    Error::invalid("state", format!("{word:.40} is not one of {}", known.join(", ")))
}

async fn show(Extract(shop): Extract<Shop>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(load(&shop, named(&id)?).await?).into_response())
}

async fn load(shop: &Shop, id: SubscriptionId) -> Result<View, Error> {
    shop.read("subscription.view", move |tx| view::one(tx, &id)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    customer: NewCustomer,
    days: u64,
    #[serde(default)]
    devices: Option<i64>,
    reason: String,
}

async fn grant(
    Extract(shop): Extract<Shop>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<GrantBody>,
) -> Result<Response, Problem> {
    let grant = Grant {
        customer: body.customer,
        time: days(body.days)?,
        devices: body.devices.unwrap_or(1),
        reason: sound(&body.reason)?,
    };
    let made =
        change(&shop, "subscription.grant", key, move |tx, shop| by_hand::grant(tx, shop, &grant, "api")).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialBody {
    customer: NewCustomer,
}

async fn begin_trial(
    Extract(shop): Extract<Shop>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<TrialBody>,
) -> Result<Response, Problem> {
    let begun =
        change(&shop, "subscription.trial", key, move |tx, shop| trial::start(tx, shop, &body.customer)).await?;
    Ok((StatusCode::CREATED, Json(begun)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtendBody {
    days: u64,
    reason: String,
}

async fn extend(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<ExtendBody>,
) -> Result<Response, Problem> {
    let (id, time, reason) = (named(&id)?, days(body.days)?, sound(&body.reason)?);
    let act = move |tx: &mut Tx, shop: &Shop| by_hand::extend(tx, shop, &id, time, &reason, "api");
    Ok(Json(change(&shop, "subscription.extend", key, act).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Because {
    reason: String,
}

async fn freeze(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<Because>,
) -> Result<Response, Problem> {
    let (id, reason) = (named(&id)?, sound(&body.reason)?);
    let act = move |tx: &mut Tx, shop: &Shop| by_hand::freeze(tx, shop, &id, &reason, "api");
    Ok(Json(change(&shop, "subscription.freeze", key, act).await?).into_response())
}

async fn unfreeze(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<Because>,
) -> Result<Response, Problem> {
    let (id, reason) = (named(&id)?, sound(&body.reason)?);
    let act = move |tx: &mut Tx, shop: &Shop| by_hand::unfreeze(tx, shop, &id, &reason, "api");
    Ok(Json(change(&shop, "subscription.unfreeze", key, act).await?).into_response())
}

async fn revoke(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    key: Option<Extension<KeyInHand>>,
    Strict(body): Strict<Because>,
) -> Result<Response, Problem> {
    let (id, reason) = (named(&id)?, sound(&body.reason)?);
    let act = move |tx: &mut Tx, shop: &Shop| by_hand::revoke(tx, shop, &id, &reason, "api");
    Ok(Json(change(&shop, "subscription.revoke", key, act).await?).into_response())
}

fn days(days: u64) -> Result<Duration, Error> {
    match days {
        1..=3650 => Ok(Duration::from_secs(days * DAY_S)),
        _ => Err(Error::invalid("days", format!("between 1 and 3650, not {days}"))),
    }
}

/// Does what changes a subscription, once for each key: a repeat of a request that died after it finds what was done.
async fn change<F>(
    shop: &Shop,
    label: &'static str,
    key: Option<Extension<KeyInHand>>,
    mut act: F,
) -> Result<View, Problem>
where
    F: FnMut(&mut Tx, &Shop) -> Result<Subscription, Error> + Send + 'static,
{
    let (key, resume): (Option<Key>, _) = in_hand(key);
    if let Some(done) = resume.as_deref().and_then(SubscriptionId::parse) {
        return Ok(load(shop, done).await?);
    }
    let id = shop
        .write(label, move |tx, shop| {
            let subscription = act(tx, shop)?;
            if let Some(key) = &key {
                keys::bind(tx, key, subscription.id.as_str())?;
            }
            Ok(subscription.id)
        })
        .await?;
    Ok(load(shop, id).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    #[serde(default)]
    device: Option<i64>,
    #[serde(default)]
    format: Option<String>,
}

/// A link that gives the file once. Its secret is stored as a hash, so the answer is not kept for a repeat: that makes
/// another link.
async fn link(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Strict(body): Strict<LinkBody>,
) -> Result<Response, Problem> {
    hand_out::link(&shop, named(&id)?, body.device.unwrap_or(1), body.format.as_deref()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    format: Option<String>,
    device: Option<i64>,
}

async fn config(
    Extract(shop): Extract<Shop>,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    hand_out::config(&shop, named(&id)?, which.device.unwrap_or(1), which.format.as_deref()).await
}
