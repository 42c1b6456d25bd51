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
use crate::store::{Engine, Expect, Store, StoreError, Tx, Value};

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
    let result = store
        .single("inbox.accept", move |tx| {
            let told = match tx.engine() {
                Engine::Sqlite => rows.iter().map(|row| Ok((row.id.clone(), accept_one(tx, row, &options)?))).collect(),
                Engine::Postgres => accept_all(tx, &rows, &options),
            }?;
            tx.wake(options.lane);
            Ok::<HashMap<String, Receipt>, StoreError>(told)
        })
        .await;
    if reach("intake.stored", "batch").await {
        return; // Durable, and nobody is told.
    }
    for (place, first, caller) in callers {
        let receipt = match &result {
            Ok(told) => match told.get(&ids[place]) {
                Some(receipt) if first => Ok(*receipt),
                _ => Ok(Receipt::Repeat),
            },
            Err(error) => Err(error.clone()),
        };
        let _ = caller.send(receipt);
    }
}

fn payload(id: &str) -> String {
    format!("{{\"notice\":\"{id}\"}}")
}

fn payload_again(id: &str, now: Time) -> String {
    format!("{{\"notice\":\"{id}\",\"again\":{}}}", now.millis())
}

fn accept_one(tx: &mut Tx, row: &Prepared, options: &IntakeOptions) -> Result<Receipt, StoreError> {
    let (notice, now) = (&row.notice, tx.now());
    let known = tx.rows(sql::KNOWN, args![&notice.source, &notice.account, &notice.event_id])?;
    // Only a live row stands in the way: one that was ignored or quarantined cannot use up a true notice of its event.
    let (mut receipt, mut stored) = (Receipt::New, row.id.clone());
    for found in &known {
        let (hash, state): (String, String) = (found.get(0)?, found.get(1)?);
        if hash == row.hash {
            receipt = Receipt::Repeat;
            stored = found.get(2)?;
            break;
        }
        if matches!(state.as_str(), "received" | "applied") {
            receipt = Receipt::Differs;
        }
    }
    if receipt == Receipt::Repeat {
        tx.later(sql::SEEN, args![&notice.source, &notice.account, &notice.event_id, &row.hash], Expect::Any)?;
    } else {
        let (state, reason, ended) = match receipt {
            Receipt::New => ("received", None, None),
            _ => ("ignored", Some("the same event came before with another body"), Some(now)),
        };
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
        tx.later(sql::INSERT, args, Expect::Rows(1))?;
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

fn accept_all(tx: &mut Tx, rows: &[Prepared], options: &IntakeOptions) -> Result<HashMap<String, Receipt>, StoreError> {
    let now = tx.now();
    let values = rows.iter().map(|row| {
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
    });
    let answers = tx.many(sql::INTAKE, values.collect())?;
    let mut told = HashMap::new();
    for answer in &answers {
        let receipt = match answer.get::<i64>(1)? {
            1 => Receipt::New,
            2 => Receipt::Differs,
            _ => Receipt::Repeat,
        };
        told.insert(answer.get(0)?, receipt);
    }
    Ok(told)
}
