//! The words with which the Bot API refuses, and what each means.
//!
//! Telegram changes wordings and adds to them, so they are searched for in lower case and never compared whole. What is
//! not listed falls to its code: an unknown 400 is about the content, an unknown 403 about the chat.

use crate::answer::retry_after;
use crate::{Bot, Gone, Outcome, Response};

/// An answer with `ok: false`.
pub(crate) struct Refusal {
    pub(crate) code: Option<u16>,
    pub(crate) text: String,
    pub(crate) retry_after: Option<i64>,
    pub(crate) migrate_to: Option<i64>,
}

/// Searched for first: these texts may quote the content, and that may say anything.
const PAYLOAD: &[&str] = &[
    "can't parse",
    "message is too long",
    "caption is too long",
    "button_data_invalid",
    "wrong file identifier",
    "message text is empty",
];

const BENIGN: &[&str] = &[
    "message is not modified",
    "query is too old",
    "query id is invalid",
    "message to edit not found",
    "message to delete not found",
    "message can't be edited",
    "message can't be deleted",
];

const CHAT: &[(&str, Gone)] = &[
    ("bot was blocked by the user", Gone::Blocked),
    ("user is deactivated", Gone::Deactivated),
    ("can't initiate conversation", Gone::NeverStarted),
    ("can't send messages to bots", Gone::NeverStarted),
    ("bot was kicked", Gone::Kicked),
    ("bot is not a member", Gone::Kicked),
    ("group chat was deleted", Gone::Kicked),
    ("chat not found", Gone::NotFound),
    ("user not found", Gone::NotFound),
    ("peer_id_invalid", Gone::NotFound),
    // Without the new id the old chat is simply no more; with it the refusal never comes this far.
    ("upgraded to a supergroup", Gone::NotFound),
    ("not enough rights", Gone::NoRights),
    ("no rights to send", Gone::NoRights),
    ("administrator rights", Gone::NoRights),
    ("chat_write_forbidden", Gone::NoRights),
    ("topic_closed", Gone::NoRights),
];

/// The outcome that a refusal means.
pub(crate) fn class<T>(bot: &Bot, response: &Response, refusal: Refusal) -> Outcome<T> {
    let status = response.status().as_u16();
    let said = refusal.text.to_lowercase();
    let text = bot.presentable(&refusal.text);
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));

    let code = refusal.code.or_else(|| code_of(status, &said)).unwrap_or(status);
    match code {
        400 | 403 => {
            if let Some(to) = refusal.migrate_to {
                Outcome::Migrated { to }
            } else if says(PAYLOAD) {
                Outcome::BadPayload { text }
            } else if says(BENIGN) {
                Outcome::Benign { text }
            } else if let Some((_, reason)) = CHAT.iter().find(|(word, _)| said.contains(word)) {
                Outcome::ChatGone { reason: *reason, text }
            } else if code == 403 {
                Outcome::ChatGone { reason: Gone::NoRights, text }
            } else {
                Outcome::BadPayload { text }
            }
        }
        401 => Outcome::BadToken { text },
        // A server that lacks a method says so with the same code as for a token that it does not know.
        404 if said.contains("method not found") => Outcome::BadPayload { text },
        404 => Outcome::BadToken { text },
        408 => Outcome::Unclear { status: code, text },
        409 => Outcome::Conflict { text },
        429 => Outcome::RetryAfter { seconds: retry_after(response, refusal.retry_after) },
        402..=499 => Outcome::BadPayload { text },
        _ => Outcome::Unclear { status: code, text },
    }
}

/// The code of a refusal that does not name one: the status if it is an error, else the first words.
fn code_of(status: u16, said: &str) -> Option<u16> {
    if status >= 400 {
        return Some(status);
    }
    let prefixes = [
        ("bad request", 400),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("conflict", 409),
        ("too many requests", 429),
    ];
    prefixes.iter().find(|(prefix, _)| said.starts_with(prefix)).map(|(_, code)| *code)
}
