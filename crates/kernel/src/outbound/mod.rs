//! The one HTTP client.
//!
//! Every call to the outside goes through [`Outbound::call`] and names its terms in a [`Call`]: who is called, how long
//! it may take, and whether the same bytes may go twice. This module keeps the deadline, repeats what may be repeated,
//! stops knocking at a host that keeps failing (breaker), keeps its pace, obeys `Retry-After`, and keeps addresses that
//! users gave us out of private networks.
//!
//! *How it fails.* Every error is sorted by what the caller does next: certainly not sent, or sent with an unknown
//! outcome. When in doubt it is the second: an effect that might have happened is never called undone. An answer of any
//! status is an answer; reading it is the business of the client crate that built the request.
//!
//! *What it never does:* repeat an asked or blind request that may have arrived, follow a redirect, read an answer
//! without a limit, take a proxy from the environment, or let a path, a query, a token or a body into an error or a log.

mod breaker;
mod call;
mod error;
mod guard;
mod hosts;
mod pace;
mod retry;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::breaker::BreakerState;
pub use self::call::{Call, Manner, Tries};
pub use self::error::{BreakerOpen, OutboundError};
pub use self::hosts::{BreakerView, HostStats};
pub use self::pace::Pace;

use self::hosts::{Door, Health, Hosts, Tried};
use self::wire::{Target, Wire};
use crate::clock::{Chance, Clock, Stopwatch, Time};
use crate::failpoint::{reach, told};

/// How the client is set up, once per program.
#[derive(Clone)]
pub struct OutboundOptions {
    /// The longest that making a connection may take: look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Answers larger than this many bytes are refused.
    pub max_answer_bytes: usize,
    /// Idle connections kept per host.
    pub idle_per_host: usize,
    /// Lets calls with `public_only` into private networks. For the sandbox and tests.
    pub allow_private: bool,
    /// An `http://` or `https://` proxy for calls to our own addresses; may hold a name and password. Loopback
    /// addresses and calls with `public_only` go directly.
    pub proxy: Option<String>,
    /// What we call ourselves.
    pub user_agent: String,
    /// Keeps the pace that a call names. Off only in a simulation, where each call takes its time by hand and nobody can
    /// wait for a slot.
    pub paced: bool,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            max_answer_bytes: 4 * 1024 * 1024,
            idle_per_host: 8,
            allow_private: false,
            proxy: None,
            user_agent: concat!("semel/", env!("CARGO_PKG_VERSION")).to_owned(),
            paced: true,
        }
    }
}

/// The client. Clones share connections, breakers, pace and counts.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    clock: Clock,
    chance: Chance,
    hosts: Hosts,
    own: Wire,
    public: Wire,
    allow_private: bool,
    paced: bool,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

impl Outbound {
    /// Sets the client up and chooses the TLS provider of the process.
    ///
    /// # Errors
    /// [`OutboundError::Setup`] when the proxy or the user agent cannot be used.
    pub fn new(clock: Clock, chance: Chance, options: OutboundOptions) -> Result<Self, OutboundError> {
        wire::install_tls();
        Ok(Self(Arc::new(Inner {
            hosts: Hosts::new(chance.clone()),
            own: Wire::new(&options, false)?,
            public: Wire::new(&options, true)?,
            allow_private: options.allow_private,
            paced: options.paced,
            // A step of the machine's clock must not keep a host shut, nor open it too soon.
            clock: clock.steady(),
            chance,
        })))
    }

    /// Sends a request under the terms of `call`. An answer of any status is `Ok`, with [`Tries`] in its extensions.
    ///
    /// # Errors
    /// See [`OutboundError`]; [`OutboundError::never_sent`] says whether the effect is certainly undone.
    pub async fn call(&self, call: Call, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, OutboundError> {
        let target = Target::read(request)?;
        let guarded = call.public_only && !self.0.allow_private;
        if guarded {
            guard::check(&target.url)?;
        }
        self.0.hosts.begun(&call.host_key, self.0.clock.now());
        let wire = if guarded { &self.0.public } else { &self.0.own };
        let round = Round {
            inner: &self.0,
            wire,
            target: &target,
            latest: self.0.clock.now() + call.deadline.saturating_sub(call.attempt_timeout.min(call.deadline) / 4),
            // The timer itself says when the call has to be over.
            end: sleep(call.deadline).deadline(),
            call: &call,
        };
        if reach("call.before", call.label).await {
            return Err(OutboundError::NotSent { text: told("call.before", call.label) });
        }
        let outcome = round.run().await;
        // An answer that never came back to us; what failed by itself has its own word.
        if reach("call.after", call.label).await && outcome.is_ok() {
            return Err(OutboundError::Unclear { text: told("call.after", call.label) });
        }
        outcome
    }

    /// Nothing is sent to this host key before `until`; for pauses that an answer's body asks for. Never shortens one.
    pub fn pause_host(&self, key: &str, until: Time) {
        self.0.hosts.pause(key, self.0.clock.now(), until);
    }

    /// From now on calls to this host key leave before `until` only, on this client's clock; each further call of this moves
    /// it. For a host that one process at a time may call: whoever lost that right is turned away with
    /// [`OutboundError::Paused`], those included who wait for their slot.
    pub fn allow_host(&self, key: &str, until: Time) {
        self.0.hosts.allow(key, self.0.clock.now(), until);
    }

    /// Now, on this client's clock: pauses are moments of it.
    pub fn now(&self) -> Time {
        self.0.clock.now()
    }

    /// Every breaker, by host key.
    pub fn breakers(&self) -> Vec<BreakerView> {
        self.0.hosts.breakers()
    }

    /// The counts of every host key, by host key.
    pub fn stats(&self) -> Vec<HostStats> {
        self.0.hosts.stats()
    }
}

/// One call under way.
struct Round<'a> {
    inner: &'a Inner,
    wire: &'a Wire,
    target: &'a Target,
    call: &'a Call,
    /// The last moment at which a try may start after a wait: a quarter of a try's time has to be left, because a
    /// request that is cut off at once is unclear for nothing.
    latest: Time,
    /// When everything has to be over.
    end: Instant,
}

impl Round<'_> {
    async fn run(&self) -> Result<Response<Vec<u8>>, OutboundError> {
        let manner = self.call.manner;
        let mut sent = 0;
        // Some try was answered or may have been heard. From then on no later failure to connect means "not sent".
        let mut heard = false;
        let mut unclear_before = false;
        let mut last: Option<Result<Response<Vec<u8>>, OutboundError>> = None;
        loop {
            let pass = match self.pass().await {
                Ok(pass) => pass,
                Err(closed) => return ended(last, closed),
            };
            sent += 1;
            let mut outcome = self.send(pass, sent).await;
            let again = match &outcome {
                // Whoever keeps the pauses has to hear of each one at once.
                Ok(answer) if self.is_callers_pause(answer.status()) => false,
                Ok(answer) => retry::after_answer(manner, answer.status(), self.says_when(answer)),
                Err(error) => retry::after_error(manner, error),
            };
            match &mut outcome {
                Ok(answer) => {
                    heard = true;
                    answer.extensions_mut().insert(Tries { sent, unclear_before });
                    // A gateway that gave up does not know either what became of the request.
                    unclear_before |= answer.status().is_server_error();
                }
                Err(OutboundError::NotSent { text }) if heard => {
                    let text = format!("an earlier try may have arrived; then {text}");
                    outcome = Err(OutboundError::Unclear { text });
                }
                Err(error) if !error.never_sent() => {
                    heard = true;
                    unclear_before = true;
                }
                Err(_) => {}
            }
            if !again || sent >= retry::MOST_TRIES {
                return outcome;
            }
            let wait = retry::backoff(sent, &self.inner.chance);
            if self.inner.clock.now() + wait > self.latest || timeout_at(self.end, sleep(wait)).await.is_err() {
                return outcome;
            }
            last = Some(outcome);
        }
    }

    /// The right to send once, after the waits that pause and pace ask for.
    async fn pass(&self) -> Result<Pass<'_>, OutboundError> {
        let Inner { clock, hosts, .. } = self.inner;
        let key = self.call.host_key.as_str();
        let pace = self.call.pace.filter(|_| self.inner.paced);
        let mut waited = None;
        loop {
            let now = clock.now();
            match hosts.knock(key, now, self.latest, pace, waited) {
                Door::Go { probe } => return Ok(Pass { inner: self.inner, key, probe, reported: false }),
                Door::Open { until } => return Err(BreakerOpen { until }.into()),
                Door::TooLong { until } => return Err(OutboundError::Paused { until }),
                Door::Wait { until, pause } => {
                    if timeout_at(self.end, sleep(until.since(now))).await.is_err() {
                        return Err(OutboundError::Paused { until });
                    }
                    // A machine that stalled wakes everybody who waited at once: who missed the slot takes another one.
                    let late = clock.now().since(until);
                    let missed = pace.is_some_and(|pace| late > pace.grace());
                    waited = (!missed).then_some(pause);
                }
            }
        }
    }

    /// Sends once, books the outcome and logs it: label, host key and numbers, nothing else.
    async fn send(&self, pass: Pass<'_>, attempt: u32) -> Result<Response<Vec<u8>>, OutboundError> {
        let watch = Stopwatch::start();
        let limited = timeout(self.call.attempt_timeout, self.wire.send(self.target));
        let outcome = match timeout_at(self.end, limited).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(self.target.out_of_time()),
        };
        let took_ms = watch.millis();
        let now = self.inner.clock.now();
        let label = self.call.label;
        let host_key = pass.key;
        let (health, status, pause) = match &outcome {
            Ok(answer) => {
                let status = answer.status();
                tracing::debug!(label, host_key, status = status.as_u16(), took_ms, attempt, "outbound call answered");
                let health = if status.is_server_error() { Health::Ill } else { Health::Well };
                let is_callers = self.is_callers_pause(status);
                let pause = if is_callers { None } else { retry::pause(status, answer.headers(), now) };
                (health, Some(status.as_u16()), pause)
            }
            Err(error) => {
                tracing::debug!(label, host_key, took_ms, attempt, error = %error, "outbound call failed");
                (health(error), None, None)
            }
        };
        let took_ms = u64::try_from(took_ms).unwrap_or(0);
        pass.report(now, Tried { probe: false, health, status, took_ms, again: attempt > 1, pause });
        outcome
    }

    /// Whether the caller keeps the pause that this answer asks for.
    fn is_callers_pause(&self, status: http::StatusCode) -> bool {
        self.call.own_pauses && status == http::StatusCode::TOO_MANY_REQUESTS
    }

    fn says_when(&self, answer: &Response<Vec<u8>>) -> bool {
        retry::pause(answer.status(), answer.headers(), self.inner.clock.now()).is_some()
    }
}

/// What an error tells about the other side.
fn health(error: &OutboundError) -> Health {
    match error {
        OutboundError::NotSent { .. } | OutboundError::Unclear { .. } => Health::Ill,
        OutboundError::TooLarge => Health::Well, // It answers, only too much.
        _ => Health::Unknown,
    }
}

/// The call may not be sent again: what it came to before, unless nothing ever left. Then the door's own word is better,
/// because it says when to come back.
fn ended(
    last: Option<Result<Response<Vec<u8>>, OutboundError>>,
    closed: OutboundError,
) -> Result<Response<Vec<u8>>, OutboundError> {
    match last {
        Some(Err(error)) if error.never_sent() => Err(closed),
        Some(outcome) => outcome,
        None => Err(closed),
    }
}

/// The right to send once. A probe that is dropped without a report (its caller was cancelled) gives the door back.
struct Pass<'a> {
    inner: &'a Inner,
    key: &'a str,
    probe: bool,
    reported: bool,
}

impl Pass<'_> {
    fn report(mut self, now: Time, tried: Tried) {
        self.reported = true;
        self.inner.hosts.tried(self.key, now, &Tried { probe: self.probe, ..tried });
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe && !self.reported {
            self.inner.hosts.abandoned(self.key, self.inner.clock.now());
        }
    }
}
