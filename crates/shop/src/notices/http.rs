//! Notices over HTTP: their texts and their switches.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{KINDS, flows};
use crate::web::{Problem, Strict};
use crate::{Error, Shop, customers};

/// The routes of this feature.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/api/v1/notices", get(list))
        .route("/api/v1/notices/{id}", post(set_text))
        .route("/api/v1/notices/{id}/switch", post(switch))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    customer: Option<i64>,
}

/// Every kind with the owner's texts; with a customer, what they switched off.
async fn list(State(shop): State<Shop>, Query(of): Query<Of>) -> Result<Response, Problem> {
    let (texts, off) = shop
        .read("notices.list", move |tx| {
            let off = match of.customer {
                None => None,
                Some(id) => {
                    let customer = customers::flows::find_by_telegram(tx, id)?;
                    let customer = customer.ok_or_else(|| Error::missing("customer", id))?;
                    Some(flows::switched_off(tx, &customer.id)?)
                }
            };
            Ok((flows::texts(tx)?, off))
        })
        .await?;
    let items: Vec<_> = KINDS
        .iter()
        .map(|kind| {
            let own: Vec<_> = texts.iter().filter(|text| text.kind == kind.word).collect();
            let mut item = json!({
                "kind": kind.word, "about": kind.about, "placeholders": kind.may, "needed": kind.must,
                "has_text": kind.text, "can_be_switched_off": kind.switch, "texts": own,
            });
            if let Some(off) = &off {
                item["switched_off"] = json!(off.iter().any(|word| word == kind.word));
            }
            item
        })
        .collect();
    Ok(Json(json!({ "items": items })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextBody {
    language: String,
    #[serde(default)]
    html: Option<String>,
}

async fn set_text(
    State(shop): State<Shop>,
    Path(kind): Path<String>,
    Strict(body): Strict<TextBody>,
) -> Result<Response, Problem> {
    let own = shop
        .write("notice.text", move |tx, _| {
            flows::set_text(tx, &kind, &body.language, body.html.as_deref())?;
            let texts = flows::texts(tx)?;
            Ok(texts.into_iter().filter(|text| text.kind == kind).collect::<Vec<_>>())
        })
        .await?;
    Ok(Json(json!({ "texts": own })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchBody {
    customer: i64,
    off: bool,
}

async fn switch(
    State(shop): State<Shop>,
    Path(kind): Path<String>,
    Strict(body): Strict<SwitchBody>,
) -> Result<Response, Problem> {
    let word = kind.clone();
    shop.write("notice.switch", move |tx, _| flows::switch(tx, &word, body.customer, body.off)).await?;
    Ok(Json(json!({ "kind": kind, "customer": body.customer, "off": body.off })).into_response())
}
