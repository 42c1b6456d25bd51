//! One thread's connection, and the runs of a caller's work on it.

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::connect::{Connected, connect_to};
use super::error::reason;
use super::statements::Statements;
use super::transaction::{OURS, OnPostgres};
use super::{CONNECTING, Pool};
use crate::failpoint::{check, fail, hit, told};
use crate::store::work::{Verdict, Work};
use crate::store::{Engine, Mode, StoreError, Tx};

const RUNS: usize = 6;

pub(super) struct Session {
    runtime: Runtime,
    link: Option<Link>,
    /// Carries the client's bytes; it moves only while the runtime runs something.
    carrier: Option<JoinHandle<()>>,
}

/// A connection that lies ready.
pub(super) struct Link {
    /// Dropped before the statements, which then need not be closed one by one.
    pub(super) client: Client,
    /// Whether the server's session is ours alone, with our schema and our limit set, and may keep statements.
    pub(super) direct: bool,
    pub(super) statements: Statements,
}

impl Session {
    pub(super) fn new(runtime: Runtime) -> Self {
        Self { runtime, link: None, carrier: None }
    }

    /// Whether a connection lies ready. A server that went away meanwhile has closed its side, and the carrier sees that
    /// once it gets a few turns: better now than in the middle of a commit, whose outcome nobody could tell.
    fn is_alive(&mut self) -> bool {
        let Some(link) = &self.link else { return false };
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
        let alive = !link.client.is_closed();
        if !alive {
            self.part();
        }
        alive
    }

    fn connect(&mut self, pool: &Pool) -> Result<(), StoreError> {
        check("store.connect", "session")?;
        let limit = pool.statement.min(CONNECTING);
        let connected = within(&self.runtime, limit, connect_to(&pool.address))?;
        let Connected { client, mut messages, direct, clock_ms } = connected;
        self.carrier = Some(self.runtime.spawn(async move {
            // An error reaches whoever waits for an answer.
            while let Some(Ok(_)) = messages.next().await {}
        }));
        if direct {
            let setting =
                async { client.batch_execute(OURS).await.map_err(|error| StoreError::Unavailable(reason(&error))) };
            if let Err(error) = within(&self.runtime, limit, setting) {
                drop(client);
                self.part();
                return Err(error);
            }
        }
        pool.sync(clock_ms);
        self.link = Some(Link { client, direct, statements: Statements::new(Arc::clone(&pool.often)) });
        hit("store.connected", "session");
        Ok(())
    }

    /// Closes the connection now: what it left open must not keep its locks until this thread has work again.
    fn part(&mut self) {
        self.link = None;
        if let Some(carrier) = self.carrier.take() {
            carrier.abort();
            let _ = self.runtime.block_on(carrier);
        }
    }

    pub(super) fn perform(&mut self, pool: &Pool, mode: Mode, mut work: Box<dyn Work>) {
        let mut outcome = Err(StoreError::Contention("gave up after several runs".into()));
        let mut reconnected = false;
        let label = work.label();
        if fail("store.taken", "session") {
            work.finish(Err(StoreError::Unavailable(told("store.taken", "session"))));
            return;
        }
        for run in 0..RUNS {
            if !self.is_alive() {
                if let Err(error) = self.connect(pool) {
                    outcome = Err(error);
                    break;
                }
                reconnected = true;
            }
            // The one statement of such a transaction commits by itself.
            if mode == Mode::Single && fail("commit.before", label) {
                outcome = Err(StoreError::Unavailable(told("commit.before", label)));
                break;
            }
            let Some(mut link) = self.link.take() else { continue };
            let now = if pool.clock.is_manual() { pool.clock.now() } else { pool.now() };
            let mut database = OnPostgres::new(&self.runtime, &mut link, pool.statement, mode);
            let mut tx = Tx { database: &mut database, engine: Engine::Postgres, now, failed: None, woken: Vec::new() };
            let verdict = work.run(&mut tx);
            let mut given_up = false;
            let ended = match &verdict {
                Verdict::Commit if mode == Mode::Write && fail("commit.before", label) => {
                    database.undo();
                    given_up = true;
                    Err(StoreError::Unavailable(told("commit.before", label)))
                }
                Verdict::Commit => {
                    let committed = database.commit();
                    let writes = !matches!(mode, Mode::Read | Mode::Look);
                    if writes && committed.is_ok() && fail("commit.after", label) {
                        Err(StoreError::Unknown(told("commit.after", label)))
                    } else {
                        committed
                    }
                }
                // The connection is given up below, and its transaction with it.
                Verdict::Broken(StoreError::Unavailable(_) | StoreError::Unknown(_)) => Ok(()),
                _ => {
                    database.undo();
                    Ok(())
                }
            };
            let ran_too_long = database.ran_too_long();
            let silent = matches!(&verdict, Verdict::Broken(StoreError::Unavailable(_) | StoreError::Unknown(_)))
                || matches!(&ended, Err(StoreError::Unavailable(_) | StoreError::Unknown(_)));
            if silent {
                drop(link);
                self.part();
            } else {
                self.link = Some(link);
            }
            let at_commit = verdict == Verdict::Commit;
            let error = match (verdict, ended) {
                (Verdict::Commit | Verdict::Undo, Ok(())) => {
                    outcome = Ok(());
                    break;
                }
                (Verdict::Again(error) | Verdict::Broken(error), Ok(())) | (_, Err(error)) => error,
            };
            let again = match &error {
                // What travelled with the commit met a change that came after the read: the closure reads anew and decides.
                StoreError::Constraint(_) | StoreError::Unexpected { .. } => at_commit && run < 2,
                StoreError::Contention(_) => {
                    thread::sleep(Duration::from_millis(5 << run.min(5)));
                    true
                }
                // A connection that died while it lay idle: nothing was committed, a fresh one may do.
                StoreError::Unavailable(_) => !reconnected && !ran_too_long && !given_up,
                _ => false,
            };
            outcome = Err(error);
            if !again {
                break;
            }
        }
        work.finish(outcome);
        hit("store.told", "session");
    }
}

fn within<T>(
    runtime: &Runtime,
    limit: Duration,
    doing: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match runtime.block_on(async { tokio::time::timeout(limit, doing).await }) {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(format!("no connection within {} ms", limit.as_millis()))),
    }
}
