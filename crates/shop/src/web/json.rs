//! JSON bodies, read strictly: what two readers could understand differently is refused, with the place named.
//!
//! Where money is asked for, `{"amount":"1","amount":"100"}` has no right reading. So a body must be valid UTF-8, not
//! deeply nested, without a name given twice in one object; then it must fit the type, which refuses unknown members by
//! itself (`#[serde(deny_unknown_fields)]`).

use std::collections::BTreeSet;
use std::fmt;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::objects::Objects;
use super::problem::Problem;

/// Arrays and objects inside each other; far more than any document of ours has, far less than a stack can bear.
const DEPTH: usize = 32;
/// The longest reason, in bytes, that quotes what the caller sent.
const REASON_BYTES: usize = 300;

/// A JSON body as `T`. Refuses with 415, 400 (not JSON as we read it) or 422 (JSON, but not a `T`); the last names the
/// path of the value, as in `items[0].quantity: invalid type: string, expected u32`.
#[derive(Debug, Clone)]
pub struct Strict<T>(pub T);

impl<T, S> FromRequest<S> for Strict<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let body = Bytes::from_request(request, state).await.map_err(|refusal| match refusal.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too long", refusal.body_text())
            }
            _ => Problem::bad_request(refusal.body_text()),
        })?;
        parse(&body).map(Strict)
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = || Problem::unsupported_media_type("send JSON, with the header Content-Type: application/json");
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refuse()) };
    let mut parts = value.to_str().map_err(|_| refuse())?.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    // JSON has no charset parameter (RFC 8259, 11); many clients send utf-8 all the same, and it is true.
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if is_json && is_utf8 { Ok(()) } else { Err(refuse()) }
}

/// Reads a whole document as `T`, or says what is wrong with it and where.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(malformed("the body is empty; a JSON document is needed"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let offset = error.valid_up_to();
        malformed(format!("the body is not valid UTF-8 at byte {offset}")).with("offset", offset)
    })?;
    if let Some(offset) = too_deep(text.as_bytes()) {
        let detail = format!("arrays and objects are nested deeper than {DEPTH} levels at byte {offset}");
        return Err(malformed(detail).with("offset", offset));
    }
    require_unique_names(text)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(Objects(&mut reader)).map_err(|error| misfit(&error))
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-json", "The body is not a JSON document that we read", detail)
}

/// The document is sound, the type wants something else.
fn misfit(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    let reason = short(&without_quote(&without_place(error.inner())));
    // A document that is wrong as a whole has the path ".", which tells nothing.
    let detail = if path == "." { reason } else { format!("{}: {reason}", short(&path)) };
    Problem::unprocessable(detail).with("path", short(&path))
}

/// Where the nesting passes [`DEPTH`], found without recursion and before any parser sees the text. Brackets in strings
/// do not count; text that is no JSON is left to the parser.
fn too_deep(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (offset, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEPTH {
                    return Some(offset);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn require_unique_names(text: &str) -> Result<(), Problem> {
    let mut path = String::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let walked = UniqueNames { path: &mut path }.deserialize(&mut reader).and_then(|()| reader.end());
    walked.map_err(|error| {
        // The walk takes every value, so the only thing it refuses by itself is a repeated name.
        if error.is_data() {
            malformed(format!("{}: duplicate key", short(&path))).with("path", short(&path))
        } else {
            malformed(format!("malformed JSON: {}", short(&error.to_string())))
        }
    })
}

/// Reads one value of any shape only to see that no object in it names a member twice. `path` is where it stands; after
/// a refusal it names the second of the two.
struct UniqueNames<'p> {
    path: &'p mut String,
}

impl<'de> DeserializeSeed<'de> for UniqueNames<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueNames<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let path = self.path;
        let here = path.len();
        for index in 0_usize.. {
            path.push_str(&format!("[{index}]"));
            let item = items.next_element_seed(UniqueNames { path: &mut *path })?;
            path.truncate(here);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let path = self.path;
        let here = path.len();
        let mut seen = BTreeSet::new();
        // Names are compared as they read, not as they are written: "a" and "\u0061" are one.
        while let Some(name) = members.next_key::<String>()? {
            if here > 0 {
                path.push('.');
            }
            path.push_str(&name);
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate key"));
            }
            members.next_value_seed(UniqueNames { path: &mut *path })?;
            path.truncate(here);
        }
        Ok(())
    }
}

/// The message of an error whose path is known, so that line and column would only repeat it.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Takes the caller's own string out of `invalid type: string "…", expected u32`: it may be long, and it may be a
/// secret that came into the wrong field.
fn without_quote(reason: &str) -> String {
    let opens = reason.find(": string \"").map(|at| at + ": string".len());
    let closes = reason.rfind("\", expected ").map(|at| at + 1);
    match (opens, closes) {
        (Some(opens), Some(closes)) if opens < closes => format!("{}{}", &reason[..opens], &reason[closes..]),
        _ => reason.to_owned(),
    }
}

/// At most [`REASON_BYTES`] of a text, cut between characters.
fn short(text: &str) -> String {
    if text.len() <= REASON_BYTES {
        return text.to_owned();
    }
    let mut end = REASON_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
