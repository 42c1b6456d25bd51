//! The load: webhooks at a fixed rate whatever the server does (open loop), or as fast as connections allow (burst).
//!
//! In an open loop a time is taken from the moment at which the request was due, not from the moment at which a busy
//! client came to send it: a server that stands still for a second owes that second to everybody who came meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until};

use crate::http_client::Wire;

/// What is sent.
#[derive(Clone)]
pub enum Requests {
    /// The notice about payment `first`, the next one, and so on below `end`.
    Notices {
        /// How a notice looks.
        template: Arc<Template>,
        /// The first payment.
        first: u64,
        /// One after the last payment.
        end: u64,
    },
    /// These requests, each once.
    Given(Arc<Vec<Vec<u8>>>),
}

impl Requests {
    fn count(&self) -> u64 {
        match self {
            Requests::Notices { first, end, .. } => end.saturating_sub(*first),
            Requests::Given(list) => list.len() as u64,
        }
    }

    fn write(&self, n: u64, into: &mut Vec<u8>) {
        match self {
            Requests::Notices { template, first, .. } => template.write(first + n, into),
            Requests::Given(list) => {
                into.clear();
                if let Some(bytes) = usize::try_from(n).ok().and_then(|n| list.get(n)) {
                    into.extend_from_slice(bytes);
                }
            }
        }
    }
}

/// The bytes of a request with places for a payment's number, 32 hex digits each.
pub struct Template {
    bytes: Vec<u8>,
    spots: Vec<usize>,
}

/// Stands for a payment's number in a template.
pub const SPOT: &str = "################################";

impl Template {
    /// Finds the places in `bytes`.
    pub fn new(bytes: Vec<u8>) -> Template {
        let spots = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(SPOT.as_bytes())).collect();
        Template { bytes, spots }
    }

    /// Writes the request about payment `number`.
    pub fn write(&self, number: u64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&self.bytes);
        let digits = format!("{number:032x}");
        for spot in &self.spots {
            into[*spot..*spot + digits.len()].copy_from_slice(digits.as_bytes());
        }
    }
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second, due at even distances.
    Open(f64),
    /// As fast as the connections allow.
    Burst,
}

/// What came of it.
pub struct Outcome {
    /// Answers with 200.
    pub acknowledged: u64,
    /// Answers with another status.
    pub refused: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    /// How many of the given requests were taken.
    pub taken: u64,
    times: Histogram<u64>,
}

impl Outcome {
    /// Acknowledged requests a second.
    pub fn rate(&self) -> f64 {
        self.acknowledged as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// The time within which this share of the acknowledged requests was answered, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.times.value_at_quantile(share) as f64 / 1000.0
    }

    /// `p50 1.2 ms, p99 4.5 ms`.
    pub fn times(&self) -> String {
        format!("p50 {:.1} ms, p99 {:.1} ms", self.quantile_ms(0.50), self.quantile_ms(0.99))
    }

    /// What went wrong, if anything: it belongs beside the figure.
    pub fn troubles(&self) -> String {
        match (self.refused, self.failed) {
            (0, 0) => String::new(),
            (refused, failed) => format!(" ({refused} refused, {failed} without an answer)"),
        }
    }
}

fn times() -> Result<Histogram<u64>> {
    // Microseconds up to two minutes, three digits.
    Histogram::new_with_bounds(1, 120_000_000, 3).map_err(|error| anyhow::anyhow!("{error:?}"))
}

struct Shared {
    address: SocketAddr,
    requests: Requests,
    pace: Pace,
    begun: Instant,
    end: Instant,
    next: AtomicU64,
}

struct Tally {
    acknowledged: u64,
    refused: u64,
    failed: u64,
    last: Instant,
    times: Histogram<u64>,
}

/// Sends `requests` over so many connections for at most `longest`, or until they are used up.
pub async fn send(
    address: SocketAddr,
    connections: usize,
    requests: Requests,
    pace: Pace,
    longest: Duration,
) -> Result<Outcome> {
    let mut wires = Vec::with_capacity(connections);
    for _ in 0..connections {
        wires.push(Wire::open(address).await.context("cannot connect to the measured server")?);
    }
    let begun = Instant::now();
    let count = requests.count();
    let shared = Arc::new(Shared { address, requests, pace, begun, end: begun + longest, next: AtomicU64::new(0) });
    let mut workers = Vec::with_capacity(connections);
    for wire in wires {
        workers.push(tokio::spawn(work(Arc::clone(&shared), wire, times()?)));
    }
    let mut outcome =
        Outcome { acknowledged: 0, refused: 0, failed: 0, took: Duration::ZERO, taken: 0, times: times()? };
    for worker in workers {
        let tally = worker.await?;
        outcome.acknowledged += tally.acknowledged;
        outcome.refused += tally.refused;
        outcome.failed += tally.failed;
        outcome.took = outcome.took.max(tally.last.saturating_duration_since(begun));
        outcome.times.add(&tally.times).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    outcome.taken = shared.next.load(Ordering::SeqCst).min(count);
    Ok(outcome)
}

async fn work(shared: Arc<Shared>, wire: Wire, times: Histogram<u64>) -> Tally {
    let mut tally = Tally { acknowledged: 0, refused: 0, failed: 0, last: shared.begun, times };
    let mut wire = Some(wire);
    let mut bytes = Vec::with_capacity(2048);
    let count = shared.requests.count();
    loop {
        if Instant::now() >= shared.end {
            return tally;
        }
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        if n >= count {
            return tally;
        }
        shared.requests.write(n, &mut bytes);
        let due = match shared.pace {
            Pace::Burst => Instant::now(),
            Pace::Open(rate) => {
                let due = shared.begun + Duration::from_secs_f64(n as f64 / rate);
                if due >= shared.end {
                    return tally;
                }
                sleep_until(due).await;
                due
            }
        };
        match exchange(&mut wire, shared.address, &bytes).await {
            Ok(200) => {
                let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                tally.times.saturating_record(took.max(1));
                tally.acknowledged += 1;
            }
            Ok(_) => tally.refused += 1,
            Err(_) => {
                wire = None;
                tally.failed += 1;
            }
        }
        tally.last = Instant::now();
    }
}

async fn exchange(wire: &mut Option<Wire>, address: SocketAddr, bytes: &[u8]) -> Result<u16> {
    if wire.is_none() {
        *wire = Some(Wire::open(address).await?);
    }
    let open = wire.as_mut().context("just opened")?;
    Ok(open.exchange(bytes).await?.0)
}
