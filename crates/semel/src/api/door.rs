//! Between a request's key and its handler: who acts is noted for the owner's log, and what the self-audit stopped is
//! refused.
//!
//! It stands inside of the idempotency keys: a repeat of an answered request gets its answer whatever is stopped now, and
//! leaves no second row in the log.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use serde_json::Value;

use semel_shop::audit::{Flow, stops};
use semel_shop::campaigns::http::UPLOAD_BYTES;
use semel_shop::owner_log::{Act, acting};
use semel_shop::web::Problem;
use semel_shop::{Error, Shop};

use super::Doors;
use super::auth::Caller;

const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The server has bounded the body before; this only has to let the longest pass.
const BODY_BYTES: usize = UPLOAD_BYTES;
/// The owner decides when it goes on, so there is no better guess.
const STOPPED: Duration = Duration::from_secs(60);

const POST: &str = "POST";
const PATCH: &str = "PATCH";

/// A call that changes something.
struct Way {
    method: &'static str,
    path: &'static str,
    /// The owner's action, as it stands in the log; none for what a customer does through the bot, and for what changes no
    /// row.
    action: Option<&'static str>,
    /// The members of the body that the log tells. Never goods or secrets.
    says: &'static [&'static str],
    /// What must not be stopped.
    flow: Option<Flow>,
}

const fn owner(method: &'static str, path: &'static str, action: &'static str, says: &'static [&'static str]) -> Way {
    Way { method, path, action: Some(action), says, flow: None }
}

const fn customer(path: &'static str) -> Way {
    Way { method: POST, path, action: None, says: &[], flow: Some(Flow::Sales) }
}

/// A customer's call that hands out what they have.
const fn goods(path: &'static str) -> Way {
    Way { method: POST, path, action: None, says: &[], flow: Some(Flow::Deliveries) }
}

/// Every call that changes something: whose it is. What is not here is not logged, so a test compares this table with the
/// contract.
const WAYS: &[Way] = &[
    customer("/api/v1/orders"),
    customer("/api/v1/orders/{id}/pay"),
    owner(
        POST,
        "/api/v1/products",
        "product.create",
        &["title", "kind", "price", "delivery", "promise_hours", "duration_days", "devices"],
    ),
    owner(
        PATCH,
        "/api/v1/products/{id}",
        "product.change",
        &["title", "description", "price", "active", "promise_hours", "version"],
    ),
    owner(POST, "/api/v1/products/{id}/stock", "stock.import", &["items"]),
    owner(POST, "/api/v1/products/{id}/stock/withdraw", "stock.withdraw", &["items"]),
    owner(POST, "/api/v1/orders/{id}/cancel", "order.cancel", &["reason"]),
    Way {
        method: POST,
        path: "/api/v1/orders/{id}/refund",
        action: Some("order.refund"),
        says: &["to", "amount", "reason"],
        flow: Some(Flow::Refunds),
    },
    owner(POST, "/api/v1/payments/{id}/assign", "payment.assign", &["order"]),
    owner(POST, "/api/v1/payments/{id}/replay", "payment.replay", &[]),
    owner(POST, "/api/v1/inbox/{id}/replay", "inbox.replay", &[]),
    owner(POST, "/api/v1/jobs/{id}/retry", "job.retry", &[]),
    owner(POST, "/api/v1/tokens", "token.create", &["name", "scopes"]),
    owner(POST, "/api/v1/tokens/{id}/revoke", "token.revoke", &[]),
    owner(POST, "/api/v1/audit/stops/{id}/release", "stop.release", &["reason"]),
    owner(POST, "/api/v1/safe/reconcile", "safe.reconcile", &["provider", "by_hand"]),
    owner(POST, "/api/v1/safe/leave", "safe.leave", &["reason", "force"]),
    owner(POST, "/api/v1/stock/release", "stock.release", &["product", "reason"]),
    customer("/api/v1/subscriptions/trial"),
    goods("/api/v1/subscriptions/{id}/link"),
    goods("/api/v1/peers/{id}/key"),
    goods("/api/v1/peers/{id}/rotate"),
    owner(POST, "/api/v1/subscriptions", "subscription.grant", &["customer", "days", "devices", "reason"]),
    owner(POST, "/api/v1/subscriptions/{id}/extend", "subscription.extend", &["days", "reason"]),
    owner(POST, "/api/v1/subscriptions/{id}/freeze", "subscription.freeze", &["reason"]),
    owner(POST, "/api/v1/subscriptions/{id}/unfreeze", "subscription.unfreeze", &["reason"]),
    owner(POST, "/api/v1/subscriptions/{id}/revoke", "subscription.revoke", &["reason"]),
    owner(POST, "/api/v1/peers/new-keys", "vpn.new_keys", &["reason", "keep_files", "dry_run"]),
    owner(POST, "/api/v1/servers", "server.add", &["name", "endpoint", "networks"]),
    owner(POST, "/api/v1/servers/{id}/pools", "server.pool", &["network", "reserved"]),
    owner(POST, "/api/v1/servers/{id}/apply", "server.apply", &[]),
    owner(POST, "/api/v1/servers/{id}/import", "server.import", &["dry_run"]),
    owner(POST, "/api/v1/campaigns", "campaign.create", &["title", "class", "segment"]),
    owner(PATCH, "/api/v1/campaigns/{id}", "campaign.change", &["title", "class", "segment", "without_media"]),
    owner(POST, "/api/v1/campaigns/{id}/media", "campaign.media", &[]),
    owner(POST, "/api/v1/campaigns/{id}/preview", "campaign.preview", &[]),
    owner(POST, "/api/v1/campaigns/{id}/test", "campaign.test", &[]),
    owner(POST, "/api/v1/campaigns/{id}/schedule", "campaign.schedule", &["starts_at", "confirm"]),
    owner(POST, "/api/v1/campaigns/{id}/start", "campaign.start", &["confirm"]),
    owner(POST, "/api/v1/campaigns/{id}/pause", "campaign.pause", &[]),
    owner(POST, "/api/v1/campaigns/{id}/resume", "campaign.resume", &[]),
    owner(POST, "/api/v1/campaigns/{id}/cancel", "campaign.cancel", &[]),
    owner(POST, "/api/v1/campaigns/{id}/resend-failed", "campaign.resend", &[]),
    owner(POST, "/api/v1/segments", "segment.save", &["name"]),
    owner(PATCH, "/api/v1/segments/{id}", "segment.change", &[]),
    owner(POST, "/api/v1/tags/{id}", "customers.tag", &[]),
    owner(POST, "/api/v1/notices/{id}", "notice.text", &["language"]),
    owner(POST, "/api/v1/notices/{id}/switch", "notice.switch", &["customer", "off"]),
    owner(POST, "/api/v1/servers/{id}/open", "server.open", &[]),
    owner(POST, "/api/v1/servers/{id}/close", "server.close", &[]),
    owner(POST, "/api/v1/addresses/{ip}/release", "address.release", &["server"]),
    // A copy changes no row, so there is no transaction that a row of the log could belong to.
    Way { method: POST, path: "/api/v1/backup", action: None, says: &[], flow: None },
];

impl Way {
    /// The way of a request, with the id in its path if there is one.
    fn of<'p>(method: &Method, path: &'p str) -> Option<(&'static Way, &'p str)> {
        WAYS.iter().filter(|way| way.method == method.as_str()).find_map(|way| Some((way, fits(way.path, path)?)))
    }
}

/// The id of `path`, or nothing where `pattern` has none; `None` when they do not fit.
fn fits<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (mut wanted, mut given, mut id) = (pattern.split('/'), path.split('/'), "");
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(id),
            (Some(one), Some(part)) if one.starts_with('{') => id = part,
            (Some(one), Some(other)) if one == other => {}
            _ => return None,
        }
    }
}

/// Lets a request through, as an action of the owner if it is one, unless what it wants is stopped.
pub(super) async fn watch(State(doors): State<Doors>, request: Request, next: Next) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let known = Way::of(request.method(), &path);
    if let Some((Way { flow: Some(flow), .. }, _)) = known
        && stops::holds(&doors.shop, *flow).await.map_err(Error::from)?
    {
        return Err(stopped(&doors.shop, *flow));
    }
    // A customer's file leaves by two doors, too.
    let is_file = path.starts_with("/api/v1/subscriptions/") && path.ends_with("/config");
    if is_file && stops::holds(&doors.shop, Flow::Deliveries).await.map_err(Error::from)? {
        return Err(stopped(&doors.shop, Flow::Deliveries));
    }
    let answer = match known {
        Some((Way { action: Some(action), says, .. }, id)) => {
            let caller =
                request.extensions().get::<Caller>().map_or_else(|| "api".to_owned(), |caller| caller.id.clone());
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, BODY_BYTES).await.map_err(|_| Problem::bad_request("the body cannot be read"))?;
            let act = Act::new(&caller, action, id, &told(says, &body));
            acting(act, next.run(Request::from_parts(parts, Body::from(body)))).await
        }
        _ => next.run(request).await,
    };
    // An order's goods leave by two doors: the message, which waits, and this one.
    let may_hold_goods = path.starts_with("/api/v1/orders") || path.starts_with("/api/v1/payments");
    if may_hold_goods && answer.status().is_success() && doors.shop.stops().has(Flow::Deliveries) {
        return without_goods(answer).await;
    }
    Ok(answer)
}

fn stopped(shop: &Shop, flow: Flow) -> Problem {
    let detail = format!(
        "{}; nothing was begun. Repeat the request with the same Idempotency-Key later",
        stops::sentence(shop, flow)
    );
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", "Stopped by the self-audit", detail)
        .with("flow", flow.as_str())
        .with_retry_after(STOPPED)
}

/// What the log tells of a body: the members that it may, in one line.
fn told(says: &[&str], body: &[u8]) -> String {
    if says.is_empty() {
        return String::new();
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = says.iter().filter_map(|name| {
        let value = match &body[*name] {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Array(items) if *name == "items" => items.len().to_string(),
            other => other.to_string(),
        };
        Some(format!("{name} {value}"))
    });
    words.collect::<Vec<_>>().join("; ")
}

/// The same answer with every order's goods left out.
async fn without_goods(answer: Response) -> Result<Response, Problem> {
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, ANSWER_BYTES).await.map_err(Problem::internal)?;
    let Ok(mut order) = serde_json::from_slice::<Value>(&body) else {
        return Ok(Response::from_parts(parts, Body::from(body)));
    };
    for item in order.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(goods) = item.get_mut("goods") {
            *goods = Value::Array(Vec::new());
        }
    }
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(order.to_string())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_call_of_the_contract_that_changes_something_says_whose_it_is() {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).expect("the document is JSON");
        let mut wanted = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            let methods = item.as_object().expect("a path item").keys().map(|word| word.to_uppercase());
            let changing = methods.filter(|word| matches!(word.as_str(), "POST" | "PUT" | "PATCH" | "DELETE"));
            if path.starts_with("/api/v1/") {
                wanted.extend(changing.map(|word| format!("{word} {path}")));
            }
        }
        let known: BTreeSet<String> = WAYS.iter().map(|way| format!("{} {}", way.method, way.path)).collect();
        assert_eq!(known, wanted);
        let actions: Vec<&str> = WAYS.iter().filter_map(|way| way.action).collect();
        assert_eq!(actions.iter().collect::<BTreeSet<_>>().len(), actions.len(), "an action has one name");
    }

    #[test]
    fn a_path_fits_its_pattern_only_as_a_whole() {
        assert_eq!(fits("/api/v1/orders/{id}/refund", "/api/v1/orders/ord_1/refund"), Some("ord_1"));
        assert_eq!(fits("/api/v1/orders", "/api/v1/orders"), Some(""));
        for other in ["/api/v1/orders/ord_1", "/api/v1/orders/ord_1/refund/x", "/api/v1/order/ord_1/refund"] {
            assert_eq!(fits("/api/v1/orders/{id}/refund", other), None, "{other}");
        }
        let (way, id) = Way::of(&Method::PATCH, "/api/v1/products/prd_1").expect("a way");
        assert_eq!((way.action, id), (Some("product.change"), "prd_1"));
        assert!(Way::of(&Method::GET, "/api/v1/products/prd_1").is_none());
    }

    #[test]
    fn the_log_tells_no_goods_and_no_member_that_is_not_named() {
        let body =
            json!({ "items": ["KEY-1", "KEY-2"], "reason": "asked for", "address": "secret", "to": null }).to_string();
        assert_eq!(told(&["items"], body.as_bytes()), "items 2");
        assert_eq!(told(&["to", "reason"], body.as_bytes()), "reason asked for");
        assert_eq!(told(&["reason"], b"no json"), "");
    }

    #[tokio::test]
    async fn goods_are_left_out_and_nothing_else() {
        let order = json!({ "id": "ord_1", "items": [{ "title": "Key", "goods": ["KEY-1"] }] });
        let answer = Response::new(Body::from(order.to_string()));
        let answer = without_goods(answer).await.expect("an answer");
        let body = to_bytes(answer.into_body(), BODY_BYTES).await.expect("a body");
        let shown: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(shown, json!({ "id": "ord_1", "items": [{ "title": "Key", "goods": [] }] }));
    }
}
