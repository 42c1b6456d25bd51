//! Time and chance, handed in.
//!
//! Nothing else in Semel reads the system clock or draws random bytes by itself, so that a whole day with its crashes
//! can be replayed from a seed. A test holds a [`Clock`] that moves only when the test moves it.

use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    /// The moment that lies `millis` after 1970-01-01 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(millis(by)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, by: Duration) -> Time {
        Time(self.0.saturating_sub(millis(by)))
    }
}

/// RFC 3339 in UTC, to the millisecond.
impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// A duration in whole milliseconds, as rows hold it.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where the time comes from.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    /// Where the machine's clock stood, and the time that has passed since.
    Steady(Time, Stopwatch),
    Manual(AtomicI64),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Time) -> Self {
        Self(Arc::new(Source::Manual(AtomicI64::new(start.0))))
    }

    /// This clock from now on, without the steps that somebody makes the machine's clock take: for pauses and cool-downs. It
    /// may so differ from other clocks; hand on what is left of a pause, not the moment of its end. A manual clock stays itself.
    #[must_use]
    pub fn steady(&self) -> Self {
        match &*self.0 {
            Source::System => Self(Arc::new(Source::Steady(system_now(), Stopwatch::start()))),
            Source::Steady(..) | Source::Manual(_) => self.clone(),
        }
    }

    /// Now.
    pub fn now(&self) -> Time {
        match &*self.0 {
            Source::System => system_now(),
            Source::Steady(at, since) => *at + since.elapsed(),
            Source::Manual(at) => Time(at.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; a system clock stays what it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(at) = &*self.0 {
            at.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Whether this clock moves only by hand.
    pub fn is_manual(&self) -> bool {
        matches!(&*self.0, Source::Manual(_))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one home of the system clock")]
fn system_now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(millis(since))
}

/// A stopwatch for logs and metrics; decides nothing.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "the one home of the monotonic clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Milliseconds since the start.
    pub fn millis(&self) -> i64 {
        millis(self.elapsed())
    }
}

/// Where random bytes come from: the operating system, or a seed.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Randomness>);

#[derive(Debug)]
enum Randomness {
    System,
    Seeded(Mutex<fastrand::Rng>),
}

impl Chance {
    /// Randomness of the operating system, fit for secrets.
    pub fn system() -> Self {
        Self(Arc::new(Randomness::System))
    }

    /// The same bytes for the same seed. For tests and simulations only.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Randomness::Seeded(Mutex::new(fastrand::Rng::with_seed(seed)))))
    }

    /// Fills `bytes`. Panics when the operating system has no randomness: nothing safe can be done then.
    #[expect(clippy::disallowed_methods, clippy::expect_used, reason = "the one home of randomness")]
    pub fn fill(&self, bytes: &mut [u8]) {
        match &*self.0 {
            Randomness::System => getrandom::fill(bytes).expect("the operating system has randomness"),
            Randomness::Seeded(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes),
        }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number in `0..n`; zero when `n` is zero.
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { u64::from_le_bytes(self.bytes()) % n }
    }

    /// A duration between half of `around` and one and a half of it, so that many waiters do not wake together.
    pub fn jitter(&self, around: Duration) -> Duration {
        let whole = u64::try_from(around.as_millis()).unwrap_or(u64::MAX / 2);
        Duration::from_millis(whole / 2 + self.below(whole.saturating_add(1)))
    }
}
