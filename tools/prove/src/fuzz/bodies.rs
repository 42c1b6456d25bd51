//! Bodies of our own API: strict JSON in, problems out, lists of goods.

use std::collections::BTreeSet;

use axum::response::IntoResponse;
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::BodyExt;
use semel_money::Amount;
use semel_shop::catalog::Goods;
use semel_shop::orders::flows::NewOrder;
use semel_shop::refunds::NewRefundRequest;
use semel_shop::web::{Problem, json};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::notices::kind_of;
use super::{TAKEN, Verdict};

/// What bodies are made of.
pub const WORDS: &[&str] = &[
    "\"customer\":{\"telegram_id\":42}",
    "\"items\":[]",
    "\"quantity\":-1",
    "\"quantity\":1e2",
    "\"provider\":\"yookassa\"",
    "\"amount\":\"1.00\"",
    "\"amount\":1.00",
    "\"to\":\"provider\"",
    "\"to\":\"made\"",
    "\"unknown\":1",
    "\"a\":1,\"\\u0061\":2",
    "\u{feff}KEY-1",
    "KEY-1\r\nKEY-1",
    "request_id",
    "\"type\"",
];

/// Reads a body as `T`: refused with a bounded problem, or taken; and what is taken names nothing twice.
fn strict<T: DeserializeOwned>(body: &[u8]) -> Result<Result<T, String>, String> {
    match json::parse::<T>(body) {
        Err(problem) => {
            let status = problem.status.as_u16();
            if !matches!(status, 400 | 422) || problem.detail.len() > 900 {
                return Err(format!("{status} with {} bytes: {:.80}", problem.detail.len(), problem.detail));
            }
            let kind = kind_of(&problem.detail);
            document(problem)?;
            Ok(Err(format!("{status} {kind}")))
        }
        Ok(taken) => {
            let text = std::str::from_utf8(body).map_err(|_| "a body that is no UTF-8 was taken".to_owned())?;
            if let Some(name) = named_twice(text) {
                return Err(format!("a body that names {name:?} twice was taken: {text}"));
            }
            Ok(Ok(taken))
        }
    }
}

/// A name that stands twice in one object, found by a reader of our own that knows nothing but strings and brackets.
fn named_twice(text: &str) -> Option<String> {
    let mut open: Vec<BTreeSet<String>> = Vec::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '{' | '[' => open.push(BTreeSet::new()),
            '}' | ']' => {
                open.pop();
            }
            '"' => {
                let mut end = None;
                while let Some((inner, c)) = chars.next() {
                    match c {
                        '\\' => {
                            chars.next();
                        }
                        '"' => {
                            end = Some(inner);
                            break;
                        }
                        _ => {}
                    }
                }
                let literal = &text[at..=end?];
                if !text[end? + 1..].trim_start().starts_with(':') {
                    continue;
                }
                let name: String = serde_json::from_str(literal).ok()?;
                if let Some(names) = open.last_mut()
                    && !names.insert(name.clone())
                {
                    return Some(name);
                }
            }
            _ => {}
        }
    }
    None
}

/// A body that is taken as any JSON is refused once one of its members stands there twice.
fn refuses_doubles(body: &[u8]) -> Result<(), String> {
    let Ok(Value::Object(members)) = json::parse::<Value>(body) else { return Ok(()) };
    let Some((name, value)) = members.iter().next() else { return Ok(()) };
    let text = Value::Object(members.clone()).to_string();
    if json::parse::<Value>(text.as_bytes()).is_err() {
        return Err(format!("a document cannot be read after printing: {text}"));
    }
    let doubled = format!("{},{}:{value}}}", &text[..text.len() - 1], Value::from(name.as_str()));
    match json::parse::<Value>(doubled.as_bytes()) {
        Err(problem) if problem.status == StatusCode::BAD_REQUEST => Ok(()),
        other => Err(format!("{doubled} was read: {:?}", other.map_err(|problem| problem.detail))),
    }
}

/// `POST /api/v1/orders`.
pub fn order(input: &[u8]) -> Verdict {
    refuses_doubles(input)?;
    Ok(match strict::<NewOrder>(input)? {
        Ok(order) => format!("{TAKEN}: {} lines", order.items.len().min(3)),
        Err(refused) => refused,
    })
}

/// `POST /api/v1/orders/{id}/refund`.
pub fn refund(input: &[u8]) -> Verdict {
    refuses_doubles(input)?;
    Ok(match strict::<NewRefundRequest>(input)? {
        Ok(refund) => format!("{TAKEN}: {:?} {}", refund.to, refund.amount.is_some()),
        Err(refused) => refused,
    })
}

/// Money in a body: text, never a number, and nothing beside it.
pub fn amount(input: &[u8]) -> Verdict {
    match strict::<Amount>(input)? {
        Err(refused) => Ok(refused),
        Ok(amount) => {
            let value: Value = serde_json::from_slice(input).map_err(|error| error.to_string())?;
            if !value["amount"].is_string() {
                return Err(format!("{value} was taken for {amount}"));
            }
            let printed = serde_json::to_vec(&amount).map_err(|error| error.to_string())?;
            match json::parse::<Amount>(&printed) {
                Ok(again) if again == amount => Ok(format!("{TAKEN}: {}", amount.currency())),
                _ => Err(format!("{amount} reads back as another")),
            }
        }
    }
}

/// The document of a problem: valid JSON of the right type whose standard members are ours, whatever was put beside them.
fn document(problem: Problem) -> Result<Value, String> {
    let (status, slug, detail) = (problem.status, problem.type_slug, problem.detail.clone());
    let answer = problem.into_response();
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    if answer.status() != status || kind != "application/problem+json" {
        return Err(format!("the answer is a {} of {kind}", answer.status()));
    }
    let Some(Ok(body)) = answer.into_body().collect().now_or_never() else {
        return Err("the body of a problem is not there at once".into());
    };
    let bytes = body.to_bytes();
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| format!("a problem is no JSON: {error}"))?;
    let ours = document["type"] == format!("/problems/{slug}").as_str()
        && document["status"] == status.as_u16()
        && document["detail"] == detail.as_str();
    if ours { Ok(document) } else { Err(format!("something else stands in a problem: {document}")) }
}

/// Whatever stands in a problem, it is one valid document: the first line is the detail, then names and values in turn.
pub fn problem(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let lines: Vec<&str> = text.split('\n').collect();
    let detail = lines.first().copied().unwrap_or_default();
    let statuses = [StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY];
    let mut problem = Problem::new(statuses[input.len() % 3], "fuzzed", "Fuzzed", detail);
    let mut names = BTreeSet::new();
    for pair in lines[1..].chunks(2) {
        let value = pair.get(1).copied().unwrap_or_default();
        let value: Value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        problem = problem.with(pair[0], value);
        names.insert(pair[0]);
    }
    let document = document(problem)?;
    if let Some(name) = names.iter().find(|name| document.get(**name).is_none()) {
        return Err(format!("the member {name:?} is lost"));
    }
    Ok(format!("{TAKEN}: {}", names.len().min(3)))
}

/// A file of goods as the command line cuts it into lines: every unit once, a BOM is no part of a key, and no refusal
/// repeats a key.
pub fn stock(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else { return Ok("no text".into()) };
    let items: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let goods = match Goods::read(items.clone()) {
        Ok(goods) => goods,
        Err(error) => {
            let told = error.to_string();
            if told.len() > 200 || items.iter().any(|item| item.len() >= 24 && told.contains(item.as_str())) {
                return Err(format!("a refusal of {} bytes repeats the goods", told.len()));
            }
            return Ok(kind_of(&told));
        }
    };
    let printed = format!("{goods:?}");
    let numbers: Vec<usize> =
        printed.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    if numbers.len() != 2 || numbers.iter().sum::<usize>() != items.len() || printed.len() > 60 {
        return Err(format!("{} lines print as {printed:.200}", items.len()));
    }
    // Notepad writes a BOM before the first line, and every editor its own ends of lines.
    let mut other: Vec<String> = items.iter().map(|item| format!(" {item}\r")).collect();
    if let Some(first) = other.first_mut() {
        *first = format!("\u{feff}{}", items[0]);
    }
    match Goods::read(other) {
        Ok(again) if again == goods => Ok(format!("{TAKEN}: {}, {} repeated", numbers[0].min(3), numbers[1].min(2))),
        Ok(_) => Err(format!("with a BOM in front {:?} is another key: the same key could be sold twice", items[0])),
        Err(error) => Err(format!("with a BOM in front the list is refused: {error}")),
    }
}
