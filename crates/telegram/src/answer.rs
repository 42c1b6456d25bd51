//! What an answer of the Bot API means for the message, the chat and the bot.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::refusals::{Refusal, class};
use crate::{Bot, Response};

/// What is known after a call. Every `text` is Telegram's own words without the token, on one line and cut.
///
/// [`Outcome::Ok`] was done and [`Outcome::Unclear`] may have been done; every other outcome was certainly not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// Done.
    Ok(T),
    /// Not done; the same call may be made after this many seconds (at least 1).
    RetryAfter {
        /// How long to be silent. Ignoring it makes it grow.
        seconds: i64,
    },
    /// Not done, and no message reaches this chat until something changes there.
    ChatGone {
        /// What has to change.
        reason: Gone,
        /// Telegram's words.
        text: String,
    },
    /// Not done: the group lives on under another id. Keep the new id and repeat once.
    Migrated {
        /// The new id of the chat.
        to: i64,
    },
    /// Not done: Telegram refuses this content in any chat. A repeat cannot help.
    BadPayload {
        /// Telegram's words.
        text: String,
    },
    /// Not done: Telegram does not know the token (any more). The bot has to stop.
    BadToken {
        /// Telegram's words.
        text: String,
    },
    /// Not done: another copy polls with this token, or a webhook is set.
    Conflict {
        /// Telegram's words.
        text: String,
    },
    /// Not done, and nothing is left to do: the message already looks so or is no more, or the question is too old.
    Benign {
        /// Telegram's words.
        text: String,
    },
    /// Perhaps done: nobody told us. Never guess; repeat only what may arrive twice.
    Unclear {
        /// The HTTP status, or the code in the body when that says more.
        status: u16,
        /// What there was of an answer.
        text: String,
    },
}

/// Why a chat cannot be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gone {
    /// The person blocked the bot. Ends when they write to it or unblock it.
    Blocked,
    /// The account was deleted. Never ends.
    Deactivated,
    /// There is no such chat for this bot.
    NotFound,
    /// The person never started the bot, or is a bot. Ends when they start it.
    NeverStarted,
    /// The bot is not in this group or channel, or the group was deleted. Ends when it is added again.
    Kicked,
    /// The bot is there and may not write. Ends when its rights change: tell the owner.
    NoRights,
}

impl Gone {
    /// Whether nothing of this bot reaches the person until they come back by themselves. The others are about a group or a
    /// channel, whose owner can change it.
    pub const fn is_unreachable(self) -> bool {
        matches!(self, Self::Blocked | Self::Deactivated | Self::NotFound | Self::NeverStarted)
    }
}

/// A message that Telegram took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Telegram's number of the message, unique in its chat.
    pub message_id: i64,
    /// The file in it, to be sent again by the same bot without an upload.
    pub file_id: Option<String>,
}

/// The bot as Telegram knows it: the answer to [`Bot::get_me`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Me {
    /// Its Telegram id, equal to [`Bot::id`].
    pub id: i64,
    /// The name people see.
    pub first_name: String,
    /// The name in links, without `@`.
    pub username: Option<String>,
}

impl Bot {
    /// Reads any answer; `T` is the form of its `result`.
    pub fn read<T: DeserializeOwned>(&self, response: &Response) -> Outcome<T> {
        let status = response.status().as_u16();
        let envelope = if status < 500 { Envelope::read(response.body()) } else { None };
        match envelope {
            Some(Envelope::Done(result)) if response.status().is_success() => match serde_json::from_value(result) {
                Ok(result) => Outcome::Ok(result),
                Err(_) => Outcome::Unclear { status, text: "the result has another form than expected".to_owned() },
            },
            Some(Envelope::Refused(refusal)) => class(self, response, refusal),
            // Not the Bot API but something before it. Two of its words are safe to take.
            None if status == 429 => Outcome::RetryAfter { seconds: retry_after(response, None) },
            None if status == 413 => Outcome::BadPayload { text: self.presentable_body(response) },
            _ => Outcome::Unclear { status, text: self.presentable_body(response) },
        }
    }

    /// Reads the answer to [`Bot::send_message`], [`Bot::send_document`] or [`Bot::send_photo`].
    pub fn sent(&self, response: &Response) -> Outcome<Sent> {
        self.read::<Message>(response).map(Sent::from)
    }
}

impl<T> Outcome<T> {
    /// The same outcome with another result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Ok(result) => Outcome::Ok(change(result)),
            Self::RetryAfter { seconds } => Outcome::RetryAfter { seconds },
            Self::ChatGone { reason, text } => Outcome::ChatGone { reason, text },
            Self::Migrated { to } => Outcome::Migrated { to },
            Self::BadPayload { text } => Outcome::BadPayload { text },
            Self::BadToken { text } => Outcome::BadToken { text },
            Self::Conflict { text } => Outcome::Conflict { text },
            Self::Benign { text } => Outcome::Benign { text },
            Self::Unclear { status, text } => Outcome::Unclear { status, text },
        }
    }
}

/// Seconds to wait: from the body, else from the header, else 1. A date in the header needs a clock and counts as none.
pub(crate) fn retry_after(response: &Response, in_body: Option<i64>) -> i64 {
    let in_header = || {
        let header = response.headers().get(http::header::RETRY_AFTER)?;
        header.to_str().ok()?.trim().parse::<i64>().ok()
    };
    in_body.or_else(in_header).unwrap_or(1).max(1)
}

/// `{"ok":…}`, the form of every answer of the Bot API.
enum Envelope {
    Done(Value),
    Refused(Refusal),
}

impl Envelope {
    /// Nothing when this is not an answer of the Bot API.
    fn read(body: &[u8]) -> Option<Self> {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        if body.get("ok")?.as_bool()? {
            return Some(Self::Done(body.get_mut("result").map(Value::take).unwrap_or_default()));
        }
        let parameters = body.get("parameters");
        Some(Self::Refused(Refusal {
            code: body.get("error_code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()),
            text: body.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
            retry_after: parameters.and_then(|p| p.get("retry_after")).and_then(Value::as_i64),
            migrate_to: parameters.and_then(|p| p.get("migrate_to_chat_id")).and_then(Value::as_i64),
        }))
    }
}

/// As much of Telegram's `Message` as we keep.
#[derive(Deserialize)]
struct Message {
    message_id: i64,
    document: Option<Attached>,
    // Telegram looks into a document and may file it under one of these instead.
    animation: Option<Attached>,
    audio: Option<Attached>,
    video: Option<Attached>,
    sticker: Option<Attached>,
    /// One picture in several sizes, the largest last.
    #[serde(default)]
    photo: Vec<Attached>,
}

#[derive(Deserialize)]
struct Attached {
    file_id: String,
}

impl From<Message> for Sent {
    fn from(message: Message) -> Self {
        let Message { message_id, document, animation, audio, video, sticker, mut photo } = message;
        let attached = document.or(animation).or(audio).or(video).or(sticker).or_else(|| photo.pop());
        Self { message_id, file_id: attached.map(|attached| attached.file_id) }
    }
}
