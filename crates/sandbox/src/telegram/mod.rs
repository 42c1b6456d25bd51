//! The Telegram Bot API: `POST /telegram/bot{token}/{method}`, JSON, form or multipart, in the real envelope.
//!
//! Every call that sends, edits or deletes a message is written down as ground truth, with what became of its answer.

mod html;
mod limits;
mod picture;
mod stars;
mod town;
mod updates;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use serde_json::{Map, Value, json};

pub use self::limits::TelegramLimits;
pub(crate) use self::picture::Picture;
pub use self::stars::{CheckoutAnswer, StarKnobs, StarPayment};
pub(crate) use self::town::Town;
pub use self::town::{Button, ChatState, File, Invoice, Message};
pub use self::updates::PressAnswer;
use crate::faults::{Fate, Fault};
use crate::params::Params;
use crate::truth::GtTg;
use crate::world::{World, lock};
use crate::{answer, clock};

/// The methods that this Telegram knows, lower case; any other is answered 404.
const KNOWN: [&str; 19] = [
    "getme",
    "getupdates",
    "setwebhook",
    "deletewebhook",
    "getwebhookinfo",
    "answercallbackquery",
    "answerprecheckoutquery",
    "getstartransactions",
    "refundstarpayment",
    "sendinvoice",
    "setmycommands",
    "deletemycommands",
    "sendchataction",
    "getchat",
    "sendmessage",
    "senddocument",
    "sendphoto",
    "editmessagetext",
    "deletemessage",
];

pub(crate) fn router() -> Router<World> {
    Router::new().route("/telegram/{bot}/{method}", any(call))
}

/// Whether a call counts against the limits and stands in the ground truth.
fn is_paced(name: &str) -> bool {
    matches!(name, "sendmessage" | "senddocument" | "sendphoto" | "sendinvoice" | "editmessagetext" | "deletemessage")
}

/// A call that Telegram did not do.
pub(crate) struct Refusal {
    status: u16,
    text: String,
    /// Seconds.
    retry_after: Option<i64>,
    migrate_to: Option<i64>,
}

impl Refusal {
    fn new(status: u16, text: &str) -> Refusal {
        Refusal { status, text: text.to_owned(), retry_after: None, migrate_to: None }
    }

    fn bad(text: &str) -> Refusal {
        Refusal::new(400, &format!("Bad Request: {text}"))
    }

    fn too_many(seconds: i64) -> Refusal {
        let text = format!("Too Many Requests: retry after {seconds}");
        Refusal { retry_after: Some(seconds), ..Refusal::new(429, &text) }
    }

    /// The refusal of a fault that asks for this status.
    fn by_fault(status: u16) -> Refusal {
        match status {
            400 => Refusal::bad("a fault that somebody asked for"),
            401 => Refusal::new(401, "Unauthorized"),
            403 => Refusal::new(403, "Forbidden: a fault that somebody asked for"),
            404 => Refusal::new(404, "Not Found"),
            409 => Refusal::new(409, "Conflict: terminated by other getUpdates request"),
            413 => Refusal::new(413, "Request Entity Too Large"),
            429 => Refusal::too_many(1),
            502 => Refusal::new(502, "Bad Gateway"),
            504 => Refusal::new(504, "Gateway Timeout"),
            other => Refusal::new(other, "Internal Server Error: a fault that somebody asked for"),
        }
    }

    fn answer(&self) -> Response {
        let mut parameters = Map::new();
        if let Some(seconds) = self.retry_after {
            parameters.insert("retry_after".into(), json!(seconds));
        }
        if let Some(chat) = self.migrate_to {
            parameters.insert("migrate_to_chat_id".into(), json!(chat));
        }
        let mut body = json!({ "ok": false, "error_code": self.status, "description": self.text });
        if !parameters.is_empty() {
            body["parameters"] = Value::Object(parameters);
        }
        let response = answer::json(self.status, &body);
        match self.retry_after {
            Some(seconds) => answer::with_retry_after(response, u64::try_from(seconds).unwrap_or(0)),
            None => response,
        }
    }
}

fn done(result: &Value) -> Response {
    answer::json(200, &json!({ "ok": true, "result": result }))
}

/// One call of a known method with the right token.
struct Call {
    /// As it was called.
    method: String,
    /// Lower case.
    name: String,
    /// The header `X-Request-Id`.
    request_id: Option<String>,
    params: Params,
}

async fn call(
    State(world): State<World>,
    Extension(Fate(fault)): Extension<Fate>,
    Path((bot, method)): Path<(String, String)>,
    request: Request,
) -> Response {
    if bot.strip_prefix("bot") != Some(world.options.bot_token.as_str()) {
        return Refusal::new(401, "Unauthorized").answer();
    }
    let name = method.to_ascii_lowercase();
    if !KNOWN.contains(&name.as_str()) {
        return Refusal::new(404, "Not Found").answer();
    }
    let request_id = request.headers().get("x-request-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let params = match Params::read(request).await {
        Ok(params) => params,
        Err(why) => return Refusal::bad(&why).answer(),
    };
    if name == "getupdates" && fault.is_none() {
        let cut_off = updates::wait(&world, &params).await;
        if let Some(refusal) = cut_off {
            return refusal.answer();
        }
    }
    // These bring updates on their way.
    let is_news = matches!(name.as_str(), "setwebhook" | "answerprecheckoutquery" | "refundstarpayment");
    let answer = decide(&world, &Call { method, name, request_id, params }, fault);
    if is_news {
        world.carry();
    }
    answer
}

/// Decides a call in one step: clock, limits, effect and ground truth under one lock, so that rows stand in the order of their times.
fn decide(world: &World, call: &Call, fault: Option<Fault>) -> Response {
    let bot = world.options.bot_token.split(':').next().unwrap_or_default();
    let mut town = lock(&world.town);
    let now = clock::now_ms();
    let chat = town.chat_of(&call.params);

    let outcome = match &fault {
        Some(Fault::CutBefore) => Err(Refusal::by_fault(500)),
        Some(Fault::Status(status) | Fault::Page(status)) => Err(Refusal::by_fault(*status)),
        Some(Fault::NotOk) => Err(Refusal::bad("chat not found")),
        Some(Fault::TooMany { retry_after }) => Err(Refusal::too_many(i64::try_from(*retry_after).unwrap_or(i64::MAX))),
        _ => town.perform(&call.name, chat, &call.params, bot, now),
    };
    for row in town.till.take_changes() {
        lock(&world.truth).pay(row);
    }
    let answer_lost =
        matches!(fault, Some(Fault::CutBefore | Fault::CutAfter | Fault::Garbage | Fault::StatusAfter(_)));
    let retry_after = outcome.as_ref().err().and_then(|refusal| refusal.retry_after);

    if is_paced(&call.name) || retry_after.is_some() {
        town.calls += 1;
        let call_id = format!("call_{:08}", town.calls);
        let scope = retry_after.map(|_| town.limits.scope(chat, now).to_owned());
        let file_hash = town.file_hash(&call.name, &call.params);
        lock(&world.truth).call(GtTg {
            msg_id: call.request_id.clone().unwrap_or_else(|| call_id.clone()),
            call_id,
            token: bot.to_owned(),
            chat_id: chat,
            method: call.method.clone(),
            accepted: outcome.is_ok(),
            answer_lost,
            retry_after: retry_after.unwrap_or(0),
            scope,
            file_hash,
            at: now,
        });
    }
    drop(town);

    match fault {
        Some(Fault::CutBefore | Fault::CutAfter) => answer::cut(),
        Some(Fault::Garbage) => answer::garbage(),
        Some(Fault::Page(status)) => answer::page(status),
        Some(Fault::NotOk) => answer::not_ok(),
        Some(Fault::StatusAfter(status)) => Refusal::by_fault(status).answer(),
        _ => match outcome {
            Ok(result) => done(&result),
            Err(refusal) => refusal.answer(),
        },
    }
}
