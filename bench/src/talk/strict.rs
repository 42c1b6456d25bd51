//! Telegram's Bot API with its limits and without mercy: no sliding second of a bot holds more than thirty messages, no person
//! gets more than three at once and one a second, no group more than twenty in a minute. What is above is refused with a 429,
//! as by Telegram.
//!
//! A message is judged when it arrives; the answer takes as long as one from far away.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::{StatusCode, Uri};
use semel_kernel::clock::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Messages of a bot in any sliding second.
pub const PER_SECOND: usize = 30;
/// How long each answer takes.
pub const LATENCY: Duration = Duration::from_millis(40);
/// Messages that a person gets at once; then it is one a second.
const BURST: u32 = 3;
/// Messages of a group in any sliding minute.
const GROUP: usize = 20;
/// What a bot is told to wait that was too fast, in seconds.
const TOO_FAST_S: u64 = 1;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A message that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Whose.
    pub chat: i64,
    /// When it arrived, since the server began.
    pub at: Duration,
    /// The same by the machine's clock, in milliseconds.
    pub wall: i64,
    /// Whether it hands a key over.
    pub goods: bool,
}

/// What one bot did.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// When its first message arrived, taken or not.
    pub first: Option<Duration>,
    /// What was taken, in order.
    pub accepted: Vec<Accepted>,
    /// What was refused because the bot was too fast.
    pub refused_bot: usize,
    /// What was refused because its chat got too many.
    pub refused_chat: usize,
    /// The most messages that arrived in a sliding second, taken or not.
    pub loudest: usize,
    lately: VecDeque<Duration>,
    arrived: VecDeque<Duration>,
    people: BTreeMap<i64, Duration>,
    groups: BTreeMap<i64, VecDeque<Duration>>,
}

impl Book {
    /// Everything that was refused.
    pub fn refused(&self) -> usize {
        self.refused_bot + self.refused_chat
    }

    /// The number of a message that is taken, or the seconds to wait.
    fn take(&mut self, chat: i64, at: Duration, wall: i64, goods: bool) -> Result<usize, u64> {
        self.first.get_or_insert(at);
        slide(&mut self.arrived, at, SECOND);
        self.arrived.push_back(at);
        self.loudest = self.loudest.max(self.arrived.len());
        slide(&mut self.lately, at, SECOND);
        if self.lately.len() >= PER_SECOND {
            self.refused_bot += 1;
            return Err(TOO_FAST_S);
        }
        if let Some(wait) = self.chat_waits(chat, at) {
            self.refused_chat += 1;
            return Err(wait.as_secs() + 1);
        }
        self.lately.push_back(at);
        self.accepted.push(Accepted { chat, at, wall, goods });
        Ok(self.accepted.len())
    }

    /// How long a chat has to wait; one that has not takes its message.
    fn chat_waits(&mut self, chat: i64, at: Duration) -> Option<Duration> {
        if chat < 0 {
            let lately = self.groups.entry(chat).or_default();
            slide(lately, at, MINUTE);
            if lately.len() >= GROUP {
                return lately.front().map(|first| (*first + MINUTE).saturating_sub(at));
            }
            lately.push_back(at);
            return None;
        }
        let on_pace = self.people.entry(chat).or_insert(Duration::ZERO);
        let earliest = on_pace.saturating_sub(SECOND * (BURST - 1));
        if earliest > at {
            return Some(earliest - at);
        }
        *on_pace = (*on_pace).max(at) + SECOND;
        None
    }
}

/// Forgets what is as long ago as the window is long.
fn slide(window: &mut VecDeque<Duration>, at: Duration, length: Duration) {
    while window.front().is_some_and(|first| *first + length <= at) {
        window.pop_front();
    }
}

struct Inner {
    begun: Instant,
    clock: Clock,
    bots: Mutex<BTreeMap<String, Book>>,
}

impl Inner {
    fn bots(&self) -> MutexGuard<'_, BTreeMap<String, Book>> {
        self.bots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running server; it ends when dropped.
pub struct Strict {
    address: SocketAddr,
    inner: Arc<Inner>,
    stop: CancellationToken,
}

impl Strict {
    /// Starts it on loopback.
    pub async fn start() -> Result<Strict> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let bots = Mutex::new(BTreeMap::new());
        let inner = Arc::new(Inner { begun: Instant::now(), clock: Clock::system(), bots });
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let router: Router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move {
            tokio::select! {
                () = stopped => {}
                served = std::future::IntoFuture::into_future(axum::serve(listener, router)) => {
                    if let Err(error) = served {
                        eprintln!("the strict server ended: {error}");
                    }
                }
            }
        });
        Ok(Strict { address, inner, stop })
    }

    /// The address of its Bot API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How long it has been running.
    pub fn now(&self) -> Duration {
        self.inner.begun.elapsed()
    }

    /// What the bot with this token did so far.
    pub fn book(&self, token: &str) -> Book {
        self.inner.bots().get(token).cloned().unwrap_or_default()
    }

    /// How many of its messages were taken for which this holds.
    pub fn count(&self, token: &str, holds: impl Fn(&Accepted) -> bool) -> usize {
        self.inner.bots().get(token).map_or(0, |book| book.accepted.iter().filter(|one| holds(one)).count())
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(State(inner): State<Arc<Inner>>, uri: Uri, body: Bytes) -> Response {
    let Some((token, method)) = uri.path().strip_prefix("/bot").and_then(|rest| rest.split_once('/')) else {
        return refusal(StatusCode::NOT_FOUND, "Not Found");
    };
    // Telegram does not mind how a method is spelt.
    let method = method.to_ascii_lowercase();
    let said = if method.starts_with("send") {
        take(&inner, token, &body)
    } else {
        let result = match method.as_str() {
            "getme" => json!({ "id": 1, "is_bot": true, "first_name": "Bench", "username": "bench_bot" }),
            "getupdates" => json!([]),
            _ => json!(true),
        };
        Json(json!({ "ok": true, "result": result })).into_response()
    };
    sleep(LATENCY).await;
    said
}

fn take(inner: &Inner, token: &str, body: &Bytes) -> Response {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let chat = match &said["chat_id"] {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let Some(chat) = chat else { return refusal(StatusCode::BAD_REQUEST, "Bad Request: chat_id is empty") };
    let text = said["text"].as_str().unwrap_or_default();
    let goods = text.contains("KEY-");
    let wall = inner.clock.now().millis();
    let taken = {
        // One after another, so that what arrived first is judged first.
        let mut bots = inner.bots();
        let at = inner.begun.elapsed();
        bots.entry(token.to_owned()).or_default().take(chat, at, wall, goods)
    };
    match taken {
        Ok(number) => {
            let message = json!({
                "message_id": number, "date": wall / 1000, "text": text,
                "chat": { "id": chat, "type": "private", "first_name": "Person" },
                "from": { "id": 1, "is_bot": true, "first_name": "Bench", "username": "bench_bot" },
            });
            Json(json!({ "ok": true, "result": message })).into_response()
        }
        Err(wait) => {
            let body = json!({
                "ok": false, "error_code": 429, "description": format!("Too Many Requests: retry after {wait}"),
                "parameters": { "retry_after": wait },
            });
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", wait.to_string())], Json(body)).into_response()
        }
    }
}

fn refusal(status: StatusCode, words: &str) -> Response {
    let body = json!({ "ok": false, "error_code": status.as_u16(), "description": words });
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thirty_first_within_a_second_is_refused() {
        let mut book = Book::default();
        for n in 0..30 {
            assert!(book.take(n, Duration::from_millis(10), 0, false).is_ok());
        }
        assert_eq!(book.take(30, Duration::from_millis(1_009), 0, false).err(), Some(1));
        assert!(book.take(30, Duration::from_millis(1_010), 0, false).is_ok());
        assert_eq!((book.accepted.len(), book.refused_bot, book.loudest), (31, 1, 31));
    }

    #[test]
    fn a_person_gets_three_at_once_and_then_one_a_second() {
        let mut book = Book::default();
        for _ in 0..3 {
            assert!(book.take(7, Duration::from_secs(5), 0, false).is_ok());
        }
        assert_eq!(book.take(7, Duration::from_millis(5_900), 0, false).err(), Some(1));
        assert!(book.take(8, Duration::from_millis(5_900), 0, false).is_ok());
        assert!(book.take(7, Duration::from_secs(6), 0, false).is_ok());
        assert_eq!(book.refused_chat, 1);
    }

    #[test]
    fn a_group_gets_twenty_a_minute() {
        let mut book = Book::default();
        for _ in 0..20 {
            assert!(book.take(-7, Duration::ZERO, 0, false).is_ok());
        }
        assert_eq!(book.take(-7, Duration::from_secs(59), 0, false).err(), Some(2));
        assert!(book.take(-7, MINUTE, 0, false).is_ok());
    }
}
