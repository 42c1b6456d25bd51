//! `Idempotency-Key` on every POST: the same key gives the same answer, byte for byte.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};

use semel_kernel::failpoint::{reach, told};
use semel_kernel::ids::new_id;
use semel_kernel::keys::{self, Key, Standing};
use semel_shop::campaigns::http::UPLOAD_BYTES;
use semel_shop::web::{KeyInHand, Problem};
use semel_shop::{Error, Shop};

use super::Doors;
use super::auth::Caller;

const HEADER: &str = "idempotency-key";
const REPLAYED: &str = "idempotent-replayed";
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The server has bounded the body before; this only has to let the longest pass.
const BODY_BYTES: usize = UPLOAD_BYTES;
/// A request seldom takes longer, whatever its key may last.
const SOON: Duration = Duration::from_secs(2);

/// The requests of this process whose key is in hand.
#[derive(Clone, Default)]
pub struct InHand(Arc<Hands>);

#[derive(Default)]
struct Hands {
    owners: Mutex<HashSet<String>>,
    /// Begins the name of every owner of this process, so that it knows its own among those of other copies.
    process: OnceLock<String>,
}

impl InHand {
    fn add(&self, owner: &str) -> Held {
        self.0.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(owner.to_owned());
        Held { of: self.clone(), owner: owner.to_owned() }
    }

    fn has(&self, owner: &str) -> bool {
        self.0.owners.lock().unwrap_or_else(PoisonError::into_inner).contains(owner)
    }

    fn owner(&self, shop: &Shop) -> String {
        let process = self.0.process.get_or_init(|| new_id("run", shop.now(), &shop.chance));
        format!("{process}/{}", new_id("req", shop.now(), &shop.chance))
    }

    /// Whether the request `owner` still runs; nobody here knows when it belongs to another process.
    fn runs(&self, owner: &str) -> Option<bool> {
        let ours = self.0.process.get().is_some_and(|process| owner.starts_with(process.as_str()));
        if self.has(owner) { Some(true) } else { ours.then_some(false) }
    }
}

struct Held {
    of: InHand,
    owner: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.0.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.owner);
    }
}

/// Claims the key of a POST, runs it once, and stores its answer.
pub(super) async fn once(State(doors): State<Doors>, request: Request, next: Next) -> Result<Response, Problem> {
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    let text = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sound = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency-key-needed",
            "An Idempotency-Key is needed",
            "send an Idempotency-Key header of 1 to 255 visible ASCII characters with every POST: a repeat with the same key gets the same answer",
        ));
    }
    let caller = request.extensions().get::<Caller>().map_or("nobody", |caller| caller.id.as_str());
    let scope = format!("{caller} {}", request.uri().path());
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES).await.map_err(|_| Problem::bad_request("the body cannot be read"))?;
    let mut hasher = Sha256::new();
    hasher.update(parts.uri.path_and_query().map_or("", |path| path.as_str()));
    hasher.update([0]);
    hasher.update(&body);
    let key = Key {
        scope,
        key: text_of(&parts.headers),
        fingerprint: hex::encode(hasher.finalize()),
        owner: doors.in_hand.owner(&doors.shop),
    };
    let held = doors.in_hand.add(&key.owner);
    let standing = claim(&doors, &key).await?;
    let resume = match standing {
        Standing::New => None,
        Standing::Resume(resource) => Some(resource),
        Standing::Answered { status, body } => return Ok(stored(status, body)),
        Standing::Mismatch => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "This Idempotency-Key belongs to another request",
                "this Idempotency-Key was used with another request; take a new key for a new request",
            ));
        }
        Standing::Busy { wait } => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "idempotency-key-busy",
                "The first request with this Idempotency-Key is still being answered",
                "the first request with this Idempotency-Key is still being answered; repeat it as it is after the time in the Retry-After header",
            )
            .with_retry_after(wait.min(SOON)));
        }
    };
    let mut request = Request::from_parts(parts, Body::from(body));
    request.extensions_mut().insert(KeyInHand { key: key.clone(), resume });
    if reach("request.claimed", "key").await {
        return Err(broken("request.claimed"));
    }
    let answer = next.run(request).await;
    if reach("request.answered", "key").await {
        return Err(broken("request.answered"));
    }
    let answer = keep(&doors, &key, answer).await;
    drop(held);
    answer
}

/// What a failpoint makes of a request whose key is claimed: a repeat goes on with what was begun.
fn broken(place: &str) -> Problem {
    Problem::unavailable(SOON).with_detail(told(place, "key"))
}

fn text_of(headers: &http::HeaderMap) -> String {
    headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

async fn claim(doors: &Doors, key: &Key) -> Result<Standing, Problem> {
    let (key, in_hand) = (key.clone(), doors.in_hand.clone());
    // On SQLite every other owner is of a process that is gone; on PostgreSQL it may be another copy's.
    let alone = doors.shop.store.engine() == semel_kernel::store::Engine::Sqlite;
    let claimed = doors.shop.write("keys.claim", move |tx, _| {
        let alive = |owner: &str| in_hand.runs(owner).or(alone.then_some(false));
        Ok::<_, Error>(keys::claim(tx, &key, &alive)?)
    });
    Ok(claimed.await?)
}

/// Stores an answer that ended the request for good. Refusals that began nothing free the key: the corrected request
/// may use it. A refusal that ended what was begun is an answer: a repeat must not find the called-off order and call it
/// made. What may succeed later keeps the key, so that the repeat resumes.
async fn keep(doors: &Doors, key: &Key, answer: Response) -> Result<Response, Problem> {
    let status = answer.status();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, ANSWER_BYTES).await.map_err(Problem::internal)?;
    let bytes = body.to_vec();
    let key = key.clone();
    // An answer that holds a new secret is not kept: the secret is stored as a hash only.
    let secret = parts.headers.get(CACHE_CONTROL).is_some_and(|value| value == "no-store");
    let done = !secret && (status.is_success() || status == StatusCode::BAD_GATEWAY);
    let kept = doors
        .shop
        .write("keys.answer", move |tx, _| {
            if !done {
                keys::release(tx, &key)?;
            }
            if done || status.is_client_error() {
                keys::answer(tx, &key, status.as_u16(), &bytes)?;
            }
            Ok::<_, Error>(())
        })
        .await;
    if let Err(error) = kept {
        // The work is done; a repeat finds what it made under the same key.
        tracing::warn!(%error, "could not store the answer of an idempotency key");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn stored(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut answer = (status, body).into_response();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    answer
}
