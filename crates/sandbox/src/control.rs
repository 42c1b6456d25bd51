//! The sandbox by HTTP, for who runs it alone: `POST /control/{what}` with JSON (answered with JSON) or with a form of the board.
//!
//! | what | members |
//! |---|---|
//! | `fault` | `target` yookassa, heleket, crystalpay, telegram; `what` part of `METHOD /path`, or a Bot API method; `fault` status, status_after, too_many, garbage, page, not_ok, cut_before, cut_after, delay; `value` status, seconds or ms; `times` |
//! | `lift`, `clear` | `id` of a fault; nothing |
//! | `pay` | `provider` and `id`, or `ours`; `act` pay, short, over, hold, decline, expire, resend; `amount` decimal text pays just that |
//! | `hooks` | `act` list, send, resend, drop, send_all with `id`; or `act` knobs with `duplicate`, `delay_ms`, `jitter_ms`, `drop_next`, `drop_percent`, `forwarded_for` |
//! | `lie` | `provider`, `id`, `state`: an authentic webhook of a state that the payment is not in |
//! | `forge` | `provider`, `body` text, `headers` object |
//! | `hook_url` | `url` of YooKassa's webhooks |
//! | `chat` | `chat_id`, `state` open, blocked, deactivated, kicked, not_found, migrated with `to` |
//! | `say` | `chat_id`, `text`: somebody writes to the bot |
//! | `press` | `chat_id`, and `button` with its words, or `message_id` and `data`: somebody presses a button |
//! | `pay_stars` | `chat_id`, and `payer` if it is somebody else: somebody presses Pay under the newest invoice there |
//! | `stars` | `lose_next`, `repeat`, `other_sum`: how payments in Stars go wrong |
//! | `limits` | `on` |
//! | `payments` | nothing: the list |

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::faults::{Fault, FaultId, Target};
use crate::outbox::{HookId, HookKnobs};
use crate::pages;
use crate::params::{self, Params};
use crate::payments::{Payment, Provider};
use crate::telegram::{ChatState, StarKnobs, TelegramLimits};
use crate::world::{World, lock};
use crate::{answer, clock};

pub(crate) fn router() -> Router<World> {
    Router::new().route("/control/{what}", post(control))
}

async fn control(State(world): State<World>, Path(what): Path<String>, request: Request) -> Response {
    let is_form = params::content_type(&request).starts_with("application/x-www-form-urlencoded");
    let done = match Params::read(request).await {
        Ok(params) => act(&world, &what, &params).await,
        Err(why) => Err(why),
    };
    match done {
        Ok(_) if is_form => answer::see_other("/"),
        Ok(result) => answer::json(200, &json!({ "ok": true, "result": result })),
        Err(why) => answer::json(400, &json!({ "ok": false, "error": why })),
    }
}

async fn act(world: &World, what: &str, params: &Params) -> Result<Value, String> {
    match what {
        "fault" => {
            let (target, fault, times) = fault_of(params)?;
            Ok(json!(lock(&world.faults).add(target, fault, times)))
        }
        "lift" => {
            lock(&world.faults).lift(FaultId(number(params, "id")?));
            Ok(Value::Null)
        }
        "clear" => {
            lock(&world.faults).clear();
            Ok(Value::Null)
        }
        "pay" => pay(world, params).await,
        "payments" => {
            let register = lock(&world.payments);
            Ok(register.newest().map(|payment| json!(payment.view())).collect())
        }
        "hooks" => hooks(world, params).await,
        "lie" => {
            let ids = world.lie(provider(params)?, &needed(params, "id")?, &needed(params, "state")?);
            Ok(json!(ids.map_err(|error| error.to_string())?))
        }
        "forge" => forge(world, params).await,
        "hook_url" => {
            *lock(&world.yookassa_hook_url) = params.filled("url");
            Ok(Value::Null)
        }
        "say" => {
            let chat = params.int("chat_id").ok_or("chat_id is a number")?;
            let text = needed(params, "text")?;
            Ok(json!(world.live(|town, now| town.say(chat, &text, now))))
        }
        "press" => {
            let chat = params.int("chat_id").ok_or("chat_id is a number")?;
            let (message, data) = match params.filled("button") {
                Some(words) => {
                    let found = lock(&world.town).button(chat, &words);
                    found.ok_or_else(|| format!("there is no button {words:?}"))?
                }
                None => (params.int("message_id").unwrap_or_default(), needed(params, "data")?),
            };
            Ok(json!(world.live(|town, now| town.press(chat, message, &data, now))))
        }
        "chat" => {
            let chat = params.int("chat_id").ok_or("chat_id is a number")?;
            lock(&world.town).set_state(chat, chat_state(params)?);
            Ok(Value::Null)
        }
        "pay_stars" => {
            let chat = params.int("chat_id").ok_or("chat_id is a number")?;
            let payer = params.int("payer").unwrap_or(chat);
            let asked = lock(&world.town).pay_stars(payer, chat, clock::now_ms());
            world.carry();
            Ok(json!(asked.ok_or("there is no invoice")?))
        }
        "stars" => {
            let knobs = StarKnobs {
                lose_next: number_or(params, "lose_next")?,
                repeat: number_or(params, "repeat")?,
                other_sum: params.int("other_sum"),
            };
            lock(&world.town).till.knobs = knobs;
            Ok(Value::Null)
        }
        "limits" => {
            lock(&world.town).limits.rule = params.flag("on").then(TelegramLimits::default);
            Ok(Value::Null)
        }
        other => Err(format!("there is no control {other:?}")),
    }
}

fn needed(params: &Params, name: &str) -> Result<String, String> {
    params.filled(name).ok_or_else(|| format!("{name} is missing"))
}

fn number(params: &Params, name: &str) -> Result<u64, String> {
    needed(params, name)?.parse().map_err(|_| format!("{name} is no whole number"))
}

/// A number that may be left out.
fn number_or<N: TryFrom<u64> + Default>(params: &Params, name: &str) -> Result<N, String> {
    if params.filled(name).is_none() {
        return Ok(N::default());
    }
    N::try_from(number(params, name)?).map_err(|_| format!("{name} is too large"))
}

fn provider(params: &Params) -> Result<Provider, String> {
    needed(params, "provider")?.parse().map_err(|error: crate::PayError| error.to_string())
}

fn fault_of(params: &Params) -> Result<(Target, Fault, Option<u32>), String> {
    let what = params.text("what").unwrap_or_default();
    let target = match needed(params, "target")?.as_str() {
        "telegram" => Target::Telegram(what),
        name => Target::Api(name.parse().map_err(|error: crate::PayError| error.to_string())?, what),
    };
    let status =
        || number(params, "value").and_then(|value| u16::try_from(value).map_err(|_| "value is no status".to_owned()));
    let fault = match needed(params, "fault")?.as_str() {
        "status" => Fault::Status(status()?),
        "status_after" => Fault::StatusAfter(status()?),
        "too_many" => Fault::TooMany { retry_after: number(params, "value")? },
        "garbage" => Fault::Garbage,
        "page" => Fault::Page(status()?),
        "not_ok" => Fault::NotOk,
        "cut_before" => Fault::CutBefore,
        "cut_after" => Fault::CutAfter,
        "delay" => Fault::Delay(number(params, "value")?),
        other => return Err(format!("there is no fault {other:?}")),
    };
    let times = match params.filled("times") {
        Some(text) => Some(text.parse::<u32>().map_err(|_| "times is no whole number".to_owned())?),
        None => None,
    };
    Ok((target, fault, times))
}

async fn pay(world: &World, params: &Params) -> Result<Value, String> {
    let (provider, id) = match params.filled("ours") {
        Some(ours) => {
            let view = world.by_ours(&ours).ok_or_else(|| format!("no payment carries {ours:?}"))?;
            (view.provider, view.id)
        }
        None => (provider(params)?, needed(params, "id")?),
    };
    match params.filled("amount") {
        Some(amount) => world.pay_amount(provider, &id, &amount).map(drop).map_err(|error| error.to_string())?,
        None => {
            let act = params.filled("act").unwrap_or_else(|| "pay".to_owned());
            pages::act_on(world, provider.as_str(), &id, &act).await?;
        }
    }
    let now = world.payment(provider, &id).map_err(|error| error.to_string())?;
    Ok(json!(Payment::view(&now)))
}

async fn hooks(world: &World, params: &Params) -> Result<Value, String> {
    match needed(params, "act")?.as_str() {
        "list" => Ok(json!(lock(&world.hooks).views())),
        "send" | "resend" => Ok(json!(world.send_hook(HookId(number(params, "id")?)).await)),
        "drop" => {
            world.drop_hook(HookId(number(params, "id")?));
            Ok(Value::Null)
        }
        "send_all" => {
            let pending = lock(&world.hooks).pending();
            let mut outcomes = Vec::new();
            for id in pending {
                outcomes.push(json!(world.send_hook(id).await));
            }
            Ok(Value::Array(outcomes))
        }
        "knobs" => {
            let knobs = HookKnobs {
                duplicate: number_or(params, "duplicate")?,
                delay_ms: number_or(params, "delay_ms")?,
                jitter_ms: number_or(params, "jitter_ms")?,
                drop_next: number_or(params, "drop_next")?,
                drop_percent: number_or(params, "drop_percent")?,
                forwarded_for: params.filled("forwarded_for"),
            };
            lock(&world.hooks).knobs = knobs;
            Ok(Value::Null)
        }
        other => Err(format!("there is no act {other:?}")),
    }
}

async fn forge(world: &World, params: &Params) -> Result<Value, String> {
    let provider = provider(params)?;
    let body = Bytes::from(params.text("body").unwrap_or_default());
    let headers = params.json("headers").unwrap_or(Value::Null);
    let pairs: Vec<(String, String)> = headers
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Ok(json!(world.forge(provider, &borrowed, body).await))
}

fn chat_state(params: &Params) -> Result<ChatState, String> {
    match needed(params, "state")?.as_str() {
        "open" => Ok(ChatState::Open),
        "blocked" => Ok(ChatState::Blocked),
        "deactivated" => Ok(ChatState::Deactivated),
        "kicked" => Ok(ChatState::Kicked),
        "not_found" => Ok(ChatState::NotFound),
        "migrated" => Ok(ChatState::Migrated(params.int("to").ok_or("to is a number")?)),
        other => Err(format!("there is no chat state {other:?}")),
    }
}
