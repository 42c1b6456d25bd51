//! The door: concurrent notices share one statement and one commit.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::{InboxId, Notice, Receipt, sql};
use crate::args;
use crate::clock::{Chance, Time};
use crate::failpoint::{reach, told};
use crate::ids::new_id;
use crate::store::{Engine, Expect, Row, Store, StoreError, Tx, Value};

const BATCH: usize = 256;

/// What a new notice sets in motion.
#[derive(Clone, Debug)]
pub struct IntakeOptions {
    /// The kind of the job that looks after a subject; pulled to now by each notice about it.
    pub pull_kind: &'static str,
    /// The kind of the job that finds out what a notice is about when no live job was pulled. Its slot is the notice's
    /// id, its payload `{"notice": id}`; for a repeat the slot adds the minute and the payload `"again"`, its moment. A
    /// repeat within the same minute makes that job look once more, unless it has not looked yet.
    pub resolve_kind: &'static str,
    /// The lane of both.
    pub lane: &'static str,
    /// Attempts of the resolving job.
    pub attempts: u32,
}

type Waiting = (Arc<Notice>, oneshot::Sender<Result<Receipt, StoreError>>);

/// Accepts notices. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<Waiting>,
}

impl Intake {
    /// Starts the intake; it ends when the last handle is dropped. At most two batches are being written at a time, so
    /// that one forms while others are on their way.
    pub fn start(store: Store, chance: Chance, options: IntakeOptions) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting>(4096);
        tokio::spawn(async move {
            let writers = Arc::new(tokio::sync::Semaphore::new(2));
            let mut batch = Vec::with_capacity(BATCH);
            loop {
                let Ok(writer) = Arc::clone(&writers).acquire_owned().await else { return };
                if waiting.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                let (store, chance, options) = (store.clone(), chance.clone(), options.clone());
                let taken = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                tokio::spawn(async move {
                    // Callers of a batch that is given up hear that nobody answers them any more.
                    if !reach("intake.taken", "batch").await {
                        write_batch(&store, &chance, options, taken).await;
                    }
                    drop(writer);
                });
            }
        });
        Self { queue }
    }

    /// Makes `notice` durable and sets its subject's job in motion. Acknowledge after `Ok`, never before.
    pub async fn accept(&self, notice: Notice) -> Result<Receipt, StoreError> {
        if reach("intake.queue", "notice").await {
            return Err(StoreError::Unavailable(told("intake.queue", "notice")));
        }
        let (sender, receiver) = oneshot::channel();
        self.queue.try_send((Arc::new(notice), sender)).map_err(|_| StoreError::Busy { waited_ms: 0 })?;
        if reach("intake.queued", "notice").await {
            return Err(StoreError::Unavailable(told("intake.queued", "notice")));
        }
        receiver.await.map_err(|_| StoreError::Closed)?
    }
}

/// Takes one notice in, in a transaction of the caller's: for who received it by another way than a door, and made it durable before. It
/// acts as if it had come through [`Intake::accept`].
pub fn accept(tx: &mut Tx, chance: &Chance, notice: Notice, options: &IntakeOptions) -> Result<Receipt, StoreError> {
    let now = tx.now();
    let row = Prepared {
        hash: hex::encode(Sha256::digest(&notice.body)),
        notice: Arc::new(notice),
        id: new_id(InboxId::PREFIX, now, chance),
        job: new_id("job", now, chance),
    };
    tx.wake(options.lane);
    accept_one(tx, &row, options)
}

/// A notice with all that its rows need.
#[derive(Clone)]
struct Prepared {
    notice: Arc<Notice>,
    id: String,
    job: String,
    hash: String,
}

async fn write_batch(store: &Store, chance: &Chance, options: IntakeOptions, batch: Vec<Waiting>) {
    let now = store.now();
    // Repeats inside a batch share the first one's fate.
    let mut places: HashMap<(String, String, String, String), usize> = HashMap::new();
    let mut rows: Vec<Prepared> = Vec::new();
    let mut callers = Vec::new();
    for (notice, caller) in batch {
        let hash = hex::encode(Sha256::digest(&notice.body));
        let key = (notice.source.clone(), notice.account.clone(), notice.event_id.clone(), hash.clone());
        let fresh = rows.len();
        let place = *places.entry(key).or_insert(fresh);
        if place == fresh {
            rows.push(Prepared {
                notice,
                id: new_id(InboxId::PREFIX, now, chance),
                job: new_id("job", now, chance),
                hash,
            });
            callers.push((place, true, caller));
        } else {
            callers.push((place, false, caller));
        }
    }
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let rows = Arc::new(rows);
    let mut result = match store.engine() {
        Engine::Sqlite => accept_each(store, Arc::clone(&rows), options.clone()).await,
        Engine::Postgres => accept_fresh(store, Arc::clone(&rows), options.clone()).await,
    };
    // What the first statement did not write came before: a second one counts it, and looks again.
    if let Ok(told) = &mut result
        && told.len() < rows.len()
    {
        let before = rows.iter().filter(|row| !told.contains_key(&row.id)).cloned().collect();
        match accept_again(store, before, options).await {
            Ok(again) => told.extend(again),
            Err(error) => ids.iter().for_each(|id| {
                told.entry(id.clone()).or_insert_with(|| Err(error.clone()));
            }),
        }
    }
    if reach("intake.stored", "batch").await {
        return; // Durable, and nobody is told.
    }
    for (place, first, caller) in callers {
        let receipt = match &result {
            Ok(told) => match told.get(&ids[place]) {
                Some(Ok(receipt)) if first => Ok(*receipt),
                Some(Err(error)) => Err(error.clone()),
                _ => Ok(Receipt::Repeat),
            },
            Err(error) => Err(error.clone()),
        };
        let _ = caller.send(receipt);
    }
}

/// What became of each notice of a batch, by the id that its row was to have.
type Told = HashMap<String, Result<Receipt, StoreError>>;

async fn accept_each(store: &Store, rows: Arc<Vec<Prepared>>, options: IntakeOptions) -> Result<Told, StoreError> {
    store
        .single("inbox.accept", move |tx| {
            tx.wake(options.lane);
            rows.iter().map(|row| Ok((row.id.clone(), Ok(accept_one(tx, row, &options)?)))).collect()
        })
        .await
}

async fn accept_fresh(store: &Store, rows: Arc<Vec<Prepared>>, options: IntakeOptions) -> Result<Told, StoreError> {
    store
        .single("inbox.accept", move |tx| {
            let now = tx.now();
            let written = tx.many(sql::FRESH, rows.iter().map(|row| values(row, &options, now)).collect())?;
            tx.wake(options.lane);
            written.iter().map(|row| Ok((row.get(0)?, Ok(Receipt::New)))).collect()
        })
        .await
}

async fn accept_again(store: &Store, rows: Vec<Prepared>, options: IntakeOptions) -> Result<Told, StoreError> {
    store
        .single("inbox.again", move |tx| {
            let now = tx.now();
            let answers = tx.many(sql::INTAKE, rows.iter().map(|row| values(row, &options, now)).collect())?;
            tx.wake(options.lane);
            let receipt = |row: &Row| {
                Ok(match row.get::<i64>(1)? {
                    1 => Receipt::New,
                    2 => Receipt::Differs,
                    _ => Receipt::Repeat,
                })
            };
            answers.iter().map(|row| Ok((row.get(0)?, Ok(receipt(row)?)))).collect()
        })
        .await
}

fn payload(id: &str) -> String {
    format!("{{\"notice\":\"{id}\"}}")
}

fn payload_again(id: &str, now: Time) -> String {
    format!("{{\"notice\":\"{id}\",\"again\":{}}}", now.millis())
}

fn accept_one(tx: &mut Tx, row: &Prepared, options: &IntakeOptions) -> Result<Receipt, StoreError> {
    let (notice, now) = (&row.notice, tx.now());
    let (mut receipt, mut stored) = (Receipt::New, row.id.clone());
    // Nearly every notice is new, so it is written first and looked for only where something stands in its way.
    if insert(tx, row, "received", None, None)? == 0 {
        let known = tx.rows(sql::KNOWN, args![&notice.source, &notice.account, &notice.event_id, &row.hash])?;
        if let Some(same) = known.first() {
            (receipt, stored) = (Receipt::Repeat, same.get(0)?);
            tx.later(sql::SEEN, args![&stored], Expect::Rows(1))?;
        } else {
            receipt = Receipt::Differs;
            let reason = Some("the same event came before with another body");
            insert(tx, row, "ignored", reason, Some(now))?;
        }
    }
    let pulled = match &notice.subject {
        Some(subject) => crate::jobs::pull(tx, options.pull_kind, options.lane, subject)?,
        None => false,
    };
    if !pulled {
        // What seemed over may be paid after all, so a repeat looks again.
        let (slot, payload) = match receipt {
            Receipt::New => (row.id.clone(), payload(&row.id)),
            _ => (format!("{stored}:{}", now.millis() / 60_000), payload_again(&stored, now)),
        };
        let args =
            args![&row.job, options.resolve_kind, slot, options.lane, payload, options.attempts, now, None::<String>];
        tx.later(sql::RESOLVE, args, Expect::Any)?;
    }
    Ok(receipt)
}

/// Writes a notice's row; 0 when one of its event is live, or one of the same bytes is there.
fn insert(
    tx: &mut Tx,
    row: &Prepared,
    state: &str,
    reason: Option<&str>,
    ended: Option<Time>,
) -> Result<u64, StoreError> {
    let (notice, now) = (&row.notice, tx.now());
    let args = args![
        &row.id,
        &notice.source,
        &notice.account,
        &notice.event_id,
        &notice.event,
        &row.hash,
        notice.body.as_slice(),
        &notice.headers,
        notice.peer.clone(),
        notice.verified,
        notice.subject.clone(),
        &notice.says,
        state,
        reason,
        now,
        ended
    ];
    tx.execute(sql::INSERT, args)
}

fn values(row: &Prepared, options: &IntakeOptions, now: Time) -> Vec<Value> {
    let notice = &row.notice;
    vec![
        Value::from(&row.id),
        Value::from(&notice.source),
        Value::from(&notice.account),
        Value::from(&notice.event_id),
        Value::from(&notice.event),
        Value::from(&row.hash),
        Value::from(notice.body.as_slice()),
        Value::from(&notice.headers),
        Value::from(notice.peer.clone()),
        Value::from(notice.verified),
        Value::from(notice.subject.clone()),
        Value::from(&notice.says),
        Value::from(now),
        Value::from(&row.job),
        Value::from(options.pull_kind),
        Value::from(options.resolve_kind),
        Value::from(options.lane),
        Value::from(payload(&row.id)),
        Value::from(options.attempts),
    ]
}
