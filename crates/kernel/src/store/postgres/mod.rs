//! PostgreSQL: at most `pool_max` connections, each driven by a thread of its own.
//!
//! A transaction sends `begin` together with its first statement, and statements that nobody waits for together with
//! the next one. What a connection may leave behind in its session depends on who owns that session: see [`connect`].
//! A connection that failed or fell silent is dropped; what had not reached its commit runs once more on a fresh one.

pub(in crate::store) mod address;
pub(in crate::store) mod connect;
mod error;
mod session;
mod statements;
mod tls;
mod transaction;
mod values;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::work::Work;
use super::{Mode, StoreError, StoreOptions};
use crate::clock::{Clock, Stopwatch, Time};
use address::Address;
use session::Session;
use statements::Often;

const QUEUE: usize = 4096;
/// How long a connection may take to be ready, when a statement may take longer.
const CONNECTING: Duration = Duration::from_secs(5);

pub(super) struct Postgres {
    pool: Arc<Pool>,
}

struct Pool {
    address: Address,
    statement: Duration,
    clock: Clock,
    most: usize,
    /// Statements that come often, whichever session they come in.
    often: Often,
    /// The database's clock when a connection was last made, and how long ago that was.
    synced: Mutex<Option<(i64, Stopwatch)>>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Mode, Box<dyn Work>)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Postgres {
    pub(super) fn open(text: &str, options: &StoreOptions, clock: &Clock) -> Result<Self, StoreError> {
        let pool = Pool {
            address: Address::parse(text, "semel", options.statement.min(CONNECTING))?,
            statement: options.statement,
            clock: clock.clone(),
            most: options.pool_max.max(1),
            often: Often::default(),
            synced: Mutex::new(None),
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        };
        Ok(Self { pool: Arc::new(pool) })
    }

    pub(super) fn now(&self, clock: &Clock) -> Time {
        if clock.is_manual() { clock.now() } else { self.pool.now() }
    }

    pub(super) fn submit(&self, mode: Mode, work: Box<dyn Work>) -> Result<(), StoreError> {
        let mut state = lock(&self.pool.state);
        if state.queue.len() >= QUEUE {
            return Err(StoreError::Busy { waited_ms: 0 });
        }
        state.queue.push_back((mode, work));
        if state.idle < state.queue.len() && state.threads < self.pool.most {
            state.threads += 1;
            let pool = Arc::clone(&self.pool);
            let started = thread::Builder::new().name("store-postgres".into()).spawn(move || serve(&pool));
            if let Err(error) = started {
                state.threads -= 1;
                if state.threads == 0 {
                    state.queue.pop_back();
                    return Err(StoreError::Unavailable(format!("cannot start a thread: {error}")));
                }
            }
        }
        drop(state);
        self.pool.wake.notify_one();
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        lock(&self.pool.state).closed = true;
        self.pool.wake.notify_all();
    }
}

impl Pool {
    /// The database's clock, as far as it is known without asking.
    fn now(&self) -> Time {
        match &*lock(&self.synced) {
            Some((at, since)) => Time::from_millis(at.saturating_add(since.millis())),
            None => self.clock.now(),
        }
    }

    /// A new connection read the clock as `at`, late by its own latency: the pool's time never goes back for it.
    fn sync(&self, at: i64) {
        let mut synced = lock(&self.synced);
        let before = synced.as_ref().map(|(at, since)| at.saturating_add(since.millis()));
        *synced = Some((before.map_or(at, |before| before.max(at)), Stopwatch::start()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(pool: &Pool) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a database thread");
            lock(&pool.state).threads -= 1;
            return;
        }
    };
    let mut session = Session::new(runtime);
    loop {
        let mut state = lock(&pool.state);
        let (mode, work) = loop {
            if let Some(next) = state.queue.pop_front() {
                break next;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            state = pool.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        };
        drop(state);
        // From here on its caller waits for what the connection says, and is not told that the database is busy.
        if work.start() {
            session.perform(pool, mode, work);
        }
    }
}
