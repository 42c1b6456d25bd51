//! The owner's hand on the machinery: inbox, jobs, payments, tokens, the self-check.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::{Value, json};

use semel_kernel::args;
use semel_kernel::ids::new_id;
use semel_kernel::inbox::{self, InboxId};
use semel_kernel::jobs::{self, JobId};
use semel_shop::audit;
use semel_shop::checkout::{self, PaymentId};
use semel_shop::web::{self, Problem, Strict};
use semel_shop::{Error, messages, owner_log};

use super::Doors;
use super::auth::{Caller, Scope, hash_token};
use super::safe::take_copy;

pub(super) fn routes(trusted: bool) -> Router<Doors> {
    let router = Router::new()
        .route("/api/v1/inbox", get(list_inbox))
        .route("/api/v1/inbox/{id}/replay", post(replay_inbox))
        .route("/api/v1/jobs", get(list_jobs))
        .route("/api/v1/jobs/{id}", get(why))
        .route("/api/v1/jobs/{id}/retry", post(retry))
        .route("/api/v1/payments/{id}/replay", post(replay_payment))
        .route("/api/v1/verify", get(verify));
    // Tokens are made where the machine is: a stolen token must not be able to make more of its kind. A copy of the database
    // is written to where its owner says.
    if trusted {
        return router
            .route("/api/v1/tokens", post(create_token).get(list_tokens))
            .route("/api/v1/tokens/{id}/revoke", post(revoke_token))
            .route("/api/v1/backup", post(take_copy));
    }
    router
}

const JOB_STATES: &[&str] = &["ready", "running", "done", "dead", "cancelled", "parked"];
const INBOX_STATES: &[&str] = &["received", "applied", "ignored", "quarantined"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

impl Page {
    pub(super) fn limit(&self) -> Result<i64, Error> {
        web::page_size(self.limit)
    }

    /// The state that is asked for: a misspelt one must not look like an empty list.
    pub(super) fn state(&self, known: &[&str]) -> Result<Option<String>, Error> {
        match &self.state {
            Some(word) if !known.contains(&word.as_str()) => {
                Err(misfit("state", format!("{word:.40} is not one of {}", known.join(", "))))
            }
            state => Ok(state.clone()),
        }
    }

    /// Where the page before ended, if it looks like one of ours.
    pub(super) fn cursor(&self, sound: impl Fn(&str) -> bool) -> Result<Option<String>, Error> {
        web::cursor(self.cursor.as_deref(), |text| sound(text).then(|| text.to_owned()))
    }
}

pub(super) fn misfit(field: &str, reason: String) -> Error {
    Error::Invalid { field: field.to_owned(), reason }
}

pub(super) fn page(items: Vec<Value>, limit: i64) -> Response {
    web::page(items, limit, |item: &Value| item["id"].clone())
}

async fn list_inbox(State(doors): State<Doors>, Query(asked): Query<Page>) -> Result<Response, Problem> {
    let (limit, state) = (asked.limit()?, asked.state(INBOX_STATES)?);
    let before = asked.cursor(|cursor| InboxId::parse(cursor).is_some())?;
    let rows = doors
        .shop
        .read("inbox.list", move |tx| Ok(inbox::list(tx, state.as_deref(), before.as_deref(), limit + 1)?))
        .await?;
    let items = rows.iter().map(|row| {
        json!({
            "id": row.id, "provider": row.source, "event_id": row.event_id, "event": row.event, "subject": row.subject,
            "state": row.state, "reason": row.reason, "seen": row.seen, "received_at": row.received_at.to_string(),
            "terminal_at": row.terminal_at.map(|at| at.to_string()), "body": String::from_utf8_lossy(&row.body),
        })
    });
    Ok(page(items.collect(), limit))
}

async fn replay_inbox(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = InboxId::parse(&id).ok_or_else(|| not_there("notice", &id))?;
    let of = id.clone();
    doors
        .shop
        .write("inbox.replay", move |tx, shop| {
            let notice = inbox::find(tx, &of)?.ok_or_else(|| Error::NotFound { what: "notice", id: of.to_string() })?;
            if notice.state != "received" && !inbox::reopen(tx, &of)? {
                return Err(Error::Conflict("a later notice of the same event is live; replay that one".into()));
            }
            checkout::hints::look_again(tx, shop, &of)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "state": "received" }))).into_response())
}

async fn list_jobs(State(doors): State<Doors>, Query(asked): Query<Page>) -> Result<Response, Problem> {
    let (limit, state) = (asked.limit()?, asked.state(JOB_STATES)?);
    let before = asked.cursor(|cursor| JobId::parse(cursor).is_some())?;
    let rows = doors
        .shop
        .read("jobs.list", move |tx| Ok(jobs::list(tx, state.as_deref(), before.as_deref(), limit + 1)?))
        .await?;
    Ok(page(rows.iter().map(|row| json!(row)).collect(), limit))
}

async fn why(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Problem> {
    let job = JobId::parse(&id).ok_or_else(|| not_there("job", &id))?;
    let found = doors.shop.read("jobs.why", move |tx| Ok(jobs::why(tx, &job)?)).await?;
    let Some((job, why)) = found else { return Err(not_there("job", &id)) };
    Ok(Json(json!({ "job": job, "why": why })).into_response())
}

async fn retry(
    State(doors): State<Doors>,
    caller: Option<Extension<Caller>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = JobId::parse(&id).ok_or_else(|| not_there("job", &id))?;
    let actor = caller.map_or_else(|| "api".to_owned(), |Extension(caller)| caller.id);
    let lanes = doors.lanes.clone();
    doors
        .shop
        .write("jobs.retry", move |tx, _| {
            messages::flows::retried(tx, &job)?;
            if jobs::retry(tx, &job, &lanes, &actor)? {
                return Ok(());
            }
            Err(match jobs::why(tx, &job)? {
                Some(_) => Error::Conflict(
                    "this job runs, is due already or is done: only a job that waits or died is retried".into(),
                ),
                None => Error::NotFound { what: "job", id: job.to_string() },
            })
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "state": "ready" }))).into_response())
}

async fn replay_payment(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Problem> {
    let payment = PaymentId::parse(&id).ok_or_else(|| not_there("payment", &id))?;
    checkout::flows::replay(&doors.shop, payment.clone()).await?;
    let found = doors.shop.read("payment.show", move |tx| checkout::flows::find(tx, &payment)).await?;
    Ok(Json(json!({ "id": id, "status": found.state, "order": found.order, "received": found.received }))
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    #[serde(default)]
    at_rest: bool,
}

async fn verify(State(doors): State<Doors>, Query(asked): Query<VerifyQuery>) -> Result<Response, Problem> {
    let verdicts = audit::verify(&doors.shop.store, audit::Parameters::of(&doors.shop), asked.at_rest)
        .await
        .map_err(Error::from)?;
    let clean = verdicts.iter().all(|verdict| verdict.count == 0);
    let lines: Vec<Value> = verdicts
        .iter()
        .map(|v| json!({ "id": v.id, "meaning": v.meaning, "count": v.count, "violations": v.violations, "took_ms": v.took_ms }))
        .collect();
    Ok(Json(json!({ "clean": clean, "predicates": lines })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    #[serde(default = "write")]
    scopes: Vec<String>,
}

fn write() -> Vec<String> {
    vec!["write".into()]
}

async fn create_token(State(doors): State<Doors>, Strict(new): Strict<NewToken>) -> Result<Response, Problem> {
    if let Some(word) = new.scopes.iter().find(|word| Scope::parse(word).is_none()) {
        return Err(Problem::unprocessable(format!("scopes: {word:.40} is not one of read, write, metrics")));
    }
    if new.scopes.is_empty() {
        return Err(Problem::unprocessable("scopes: name at least one of read, write, metrics"));
    }
    let secret: [u8; 32] = doors.shop.chance.bytes();
    let token = format!("semel_{}", hex::encode(secret));
    let (hash, scopes, name) = (hash_token(&token), new.scopes.join(","), new.name.clone());
    let id = new_id("tok", doors.shop.now(), &doors.shop.chance);
    owner_log::about(&id);
    let of = id.clone();
    doors
        .shop
        .write("tokens.create", move |tx, _| {
            let now = tx.now();
            tx.execute(
                "insert into tokens (id, name, hash, scopes, created_at) values ($1, $2, $3, $4, $5)",
                args![&of, &name, &hash, &scopes, now],
            )?;
            Ok::<_, Error>(())
        })
        .await?;
    let body = json!({ "id": id, "name": new.name, "scopes": new.scopes, "token": token });
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

async fn list_tokens(State(doors): State<Doors>) -> Result<Response, Problem> {
    let rows = doors
        .shop
        .store
        .rows("tokens.list", "select id, name, scopes, created_at, revoked_at from tokens order by id", &[])
        .await
        .map_err(Error::from)?;
    let read = |row: &semel_kernel::store::Row| -> Result<Value, semel_kernel::store::StoreError> {
        let (id, name, scopes): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let created: semel_kernel::clock::Time = row.get(3)?;
        let revoked: Option<semel_kernel::clock::Time> = row.get(4)?;
        Ok(json!({
            "id": id, "name": name, "scopes": scopes.split(',').collect::<Vec<_>>(), "created_at": created.to_string(),
            "revoked_at": revoked.map(|at| at.to_string()),
        }))
    };
    let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(Error::from)?;
    Ok(Json(json!({ "items": items })).into_response())
}

async fn revoke_token(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Problem> {
    let of = id.clone();
    doors
        .shop
        .write("tokens.revoke", move |tx, _| {
            let now = tx.now();
            let sql = "update tokens set revoked_at = $2 where id = $1 and revoked_at is null";
            if tx.execute(sql, args![&of, now])? == 0 {
                return Err(Error::NotFound { what: "token", id: format!("{of:.80}") });
            }
            Ok(())
        })
        .await?;
    Ok(Json(json!({ "id": id, "revoked": true })).into_response())
}

pub(super) fn not_there(what: &'static str, id: &str) -> Problem {
    Error::NotFound { what, id: format!("{id:.80}") }.into()
}
