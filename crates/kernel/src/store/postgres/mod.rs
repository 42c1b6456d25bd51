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
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::work::Work;
use super::{Mode, StoreError, StoreOptions};
use crate::clock::{Clock, Stopwatch, Time};
use address::Address;
use session::Session;

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
    /// The database's clock when a connection was last made, and how long ago that was.
    synced: Mutex<Option<(i64, Stopwatch)>>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Mode, Box<dyn Work>, Arc<Turn>)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Whether a caller still waits for its turn: `WAITING`, then `STARTED` or `GIVEN_UP`, once.
#[derive(Default)]
pub(super) struct Turn(AtomicU8);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Turn {
    fn take(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Postgres {
    pub(super) fn open(text: &str, options: &StoreOptions, clock: &Clock) -> Result<Self, StoreError> {
        let pool = Pool {
            address: Address::parse(text, "semel", options.statement.min(CONNECTING))?,
            statement: options.statement,
            clock: clock.clone(),
            most: options.pool_max.max(1),
            synced: Mutex::new(None),
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        };
        Ok(Self { pool: Arc::new(pool) })
    }

    pub(super) fn now(&self, clock: &Clock) -> Time {
        if clock.is_manual() { clock.now() } else { self.pool.now() }
    }

    pub(super) fn submit(&self, mode: Mode, work: Box<dyn Work>, wait: Duration) -> Result<Arc<Turn>, StoreError> {
        let turn = Arc::new(Turn::default());
        let mut state = lock(&self.pool.state);
        if state.queue.len() >= QUEUE {
            return Err(StoreError::Busy { waited_ms: u64::try_from(wait.as_millis()).unwrap_or(0) });
        }
        state.queue.push_back((mode, work, Arc::clone(&turn)));
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
        Ok(turn)
    }

    /// Waits for the outcome: a bounded time for the turn, then as long as the thread's own limits allow.
    pub(super) async fn answered<T, E: From<StoreError>>(
        &self,
        turn: Arc<Turn>,
        mut receiver: oneshot::Receiver<Result<T, E>>,
        options: &StoreOptions,
    ) -> Result<T, E> {
        let closed = || Err(StoreError::Closed.into());
        match tokio::time::timeout(options.wait, &mut receiver).await {
            Ok(answer) => answer.unwrap_or_else(|_| closed()),
            Err(_) if turn.take(GIVEN_UP) => {
                Err(StoreError::Busy { waited_ms: u64::try_from(options.wait.as_millis()).unwrap_or(0) }.into())
            }
            Err(_) => receiver.await.unwrap_or_else(|_| closed()),
        }
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
        let (mode, work, turn) = loop {
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
        if turn.take(STARTED) && !work.abandoned() {
            session.perform(pool, mode, work);
        }
    }
}
