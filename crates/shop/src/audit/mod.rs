//! The audit: every promise of Semel as a query over read-only views that returns no rows.
//!
//! **This module is the contract.** The `audit_*` views (their names, their columns in their order, the words in them)
//! and [`PREDICATES`] are public: `semel verify` and the self-audit ask them, and a checker of your own may ask the same
//! ones on SQLite and PostgreSQL. Times are integer milliseconds of the database's clock, amounts integers in the
//! smallest unit. The tables behind the views stay free to change. A feature that is not built yet leaves its view
//! empty, never missing.
//!
//! Every query is one statement and so sees one moment: what a transaction writes together is seen together. The asking
//! only reads.
//!
//! **The self-audit** asks by itself ([`FreshAudit`], [`NightAudit`]). What it finds broken is a row ([`stops`]) that stops
//! the flows of money which it touches ([`RULES`]), tells the owner, and is released by hand with a reason.

mod flow;
mod fresh;
mod gates;
mod predicates;
mod rounds;
mod sql;
pub mod stops;
mod truth;
mod words;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use semel_kernel::clock::{Stopwatch, millis};
use semel_kernel::store::{Engine, Row, Store, StoreError, Value};

use crate::Shop;

pub use flow::{Flow, RULES, Rule, stopped_by};
pub use gates::{Gate, Gated};
pub use predicates::{PREDICATES, Predicate};
pub use rounds::{FreshAudit, News, NightAudit};
pub use sql::STATEMENTS;
pub use truth::{HookRow, PayRow, RailRow, SupplierRow, TgRow, TruthRows, truth_cte};

/// Violations that a verdict shows; it counts them all.
const SHOWN: usize = 5;
/// Violations of one query that the self-audit keeps.
const MOST: usize = 500;

/// Views of features that are not built yet: empty by their definition.
const NOT_BUILT: &[&str] = &["audit_payout"];

/// Whether nothing can break the promise `id` in this version on a live database, because all that it speaks of belongs
/// to features that are not built yet. To call it kept would say too much.
pub fn waits_for_its_feature(id: &str) -> bool {
    let Some(predicate) = PREDICATES.iter().find(|predicate| predicate.id == id) else { return false };
    let mut asked = predicate.queries.iter().filter(|query| !truth::is_read_by(query)).peekable();
    asked.peek().is_some() && asked.all(|query| NOT_BUILT.iter().any(|view| query.contains(*view)))
}

/// The bounds in the predicates. `:now` is not among them: it is the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// How long after its beginning everything must have ended, in milliseconds.
    pub deadline: i64,
    /// Messages that a bot may send in a second.
    pub cap: i64,
    /// How long a call that had left before a "slow down" arrived may still arrive, in milliseconds.
    pub inflight: i64,
    /// How long a claim of a job lasts without renewal, in milliseconds.
    pub lease: i64,
    /// How long after the end of a subscription its peer may still be active, in milliseconds.
    pub grace: i64,
    /// How long a freed address rests before another peer may get it, in milliseconds.
    pub quarantine: i64,
    /// Attempts beyond the limit that crashes may have cost a job.
    pub crash_allowance: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            deadline: 15 * 60_000,
            cap: 30,
            inflight: 1000,
            lease: 60_000,
            grace: 15 * 60_000,
            quarantine: 60 * 60_000,
            crash_allowance: 5,
        }
    }
}

impl Parameters {
    /// The bounds of this shop: access goes on for its grace after what was paid, and an address rests for its quarantine,
    /// of which an hour is asked at most, because an owner may have made it longer since.
    pub fn of(shop: &Shop) -> Self {
        let mut own = Self::default();
        if let Some(vpn) = &shop.vpn {
            own.grace += millis(vpn.rules.grace);
            own.quarantine = own.quarantine.min(millis(vpn.rules.quarantine));
        }
        own
    }

    /// `query` with its parameters filled in. They are whole numbers, and the texts are our own.
    fn fill(&self, query: &str) -> String {
        let values = [
            (":deadline", self.deadline),
            (":cap", self.cap),
            (":inflight", self.inflight),
            (":lease", self.lease),
            (":grace", self.grace),
            (":quarantine", self.quarantine),
            (":crash_allowance", self.crash_allowance),
        ];
        // The clock stays a function of the database: the text is the same at any moment.
        let mut text = query.replace(":now", "semel_now()");
        for (name, value) in values {
            text = text.replace(name, &value.to_string());
        }
        text
    }
}

/// What came of one predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The predicate.
    pub id: &'static str,
    /// What is promised: in the words of an owner where an owner can ask, else in those of the contract.
    pub meaning: &'static str,
    /// The first rows that break it, five at most for each of its queries, as `(column,column)`.
    pub violations: Vec<String>,
    /// How many rows break it.
    pub count: i64,
    /// How long the asking took, in milliseconds.
    pub took_ms: i64,
}

impl Verdict {
    /// Whether the promise is kept.
    pub fn holds(&self) -> bool {
        self.count == 0
    }
}

/// Asks every query that needs no ground truth, with `at_rest` also those that hold only once all is quiet. One verdict
/// for each predicate that could be asked, in their order.
///
/// # Errors
/// The database did not answer one of them; nothing is known about the rest then.
pub async fn verify(store: &Store, parameters: Parameters, at_rest: bool) -> Result<Vec<Verdict>, StoreError> {
    judge(store, &parameters, at_rest, None).await
}

/// Asks every query, those that read ground truth against `truth`. For tests, which know what the outside world
/// accepted: its rows travel as the text of the queries, and are forgotten with the answers.
///
/// # Errors
/// The database did not answer one of them; nothing is known about the rest then.
pub async fn check_with_truth(
    store: &Store,
    truth: &TruthRows,
    parameters: Parameters,
    at_rest: bool,
) -> Result<Vec<Verdict>, StoreError> {
    judge(store, &parameters, at_rest, Some(truth)).await
}

async fn judge(
    store: &Store,
    parameters: &Parameters,
    at_rest: bool,
    truth: Option<&TruthRows>,
) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::with_capacity(PREDICATES.len());
    for predicate in PREDICATES {
        if predicate.at_rest && !at_rest {
            continue;
        }
        let watch = Stopwatch::start();
        let mut asked = false;
        let (mut count, mut violations) = (0, Vec::new());
        for query in predicate.queries {
            if truth.is_none() && truth::is_read_by(query) {
                continue;
            }
            let prefix = truth.map(|rows| truth_cte(rows, query)).unwrap_or_default();
            let (found, shown) = ask(store, &prefix, &parameters.fill(query)).await?;
            asked = true;
            count += found;
            violations.extend(shown);
        }
        if asked {
            let (id, took_ms) = (predicate.id, watch.millis());
            let meaning = words::of(id).unwrap_or(predicate.meaning);
            verdicts.push(Verdict { id, meaning, violations, count, took_ms });
        }
    }
    Ok(verdicts)
}

/// How many rows `query` finds, and the first of them as text.
async fn ask(store: &Store, prefix: &str, query: &str) -> Result<(i64, Vec<String>), StoreError> {
    let rows = store.rows_of("audit.count", format!("{prefix}select count(*) from ({query}) violation")).await?;
    let found: i64 = rows.first().ok_or(StoreError::Missing { statement: "the count of violations" })?.get(0)?;
    if found == 0 {
        return Ok((0, Vec::new()));
    }
    let columns = columns(store.engine());
    let first = format!("{prefix}select {columns} from ({query}) violation limit {SHOWN}");
    let rows = store.rows_of("audit.first", first).await?;
    Ok((found, rows.iter().map(words).collect()))
}

/// A row of PostgreSQL may hold sums of a type that we do not read, and is text by a cast; SQLite has no such cast and no
/// such type.
fn columns(engine: Engine) -> &'static str {
    if engine == Engine::Postgres { "cast(violation as text)" } else { "*" }
}

/// `query` for [`find`].
fn limited(engine: Engine, query: &str) -> String {
    format!("select {} from ({query}) violation limit {MOST}", columns(engine))
}

/// The rows that break a promise, as text, [`MOST`] at most: one statement, which answers nothing where all is well.
async fn find(store: &Store, text: &'static str, args: &[Value]) -> Result<Vec<String>, StoreError> {
    let rows = store.rows("audit.find", text, args).await?;
    Ok(rows.iter().map(words).collect())
}

/// A row as `(column,column)`, or as the database wrote it already.
fn words(row: &Row) -> String {
    let texts: Vec<String> = row.values().iter().map(word).collect();
    match texts.as_slice() {
        [one] if one.starts_with('(') && one.ends_with(')') => one.clone(),
        texts => format!("({})", texts.join(",")),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Int(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// The rounds of the self-audit ask the same texts as long as the program lives, so each is kept once: as many as there are
/// queries.
fn kept(text: String) -> &'static str {
    static TEXTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.get(text.as_str()) {
        return known;
    }
    let text: &'static str = Box::leak(text.into_boxed_str());
    texts.insert(text);
    text
}

#[cfg(test)]
mod tests {
    use semel_kernel::store::migrate::Migration;

    use super::*;
    use crate::SHOP;

    #[test]
    fn every_parameter_is_filled_in() {
        for query in PREDICATES.iter().flat_map(|predicate| predicate.queries) {
            let filled = Parameters::default().fill(query);
            assert!(!filled.contains(':'), "{filled}");
        }
        let zombies = "lease_until < :now - 2 * :lease";
        assert_eq!(Parameters::default().fill(zombies), "lease_until < semel_now() - 2 * 60000");
    }

    #[test]
    fn each_predicate_is_named_once_and_says_what_it_needs() {
        let names: BTreeSet<&str> = PREDICATES.iter().map(|predicate| predicate.id).collect();
        assert_eq!((names.len(), PREDICATES.len()), (44, 44));
        assert_eq!(PREDICATES.iter().map(|predicate| predicate.queries.len()).sum::<usize>(), 54);
        for predicate in PREDICATES {
            let reads_truth = predicate.queries.iter().any(|query| truth::is_read_by(query));
            assert_eq!(predicate.needs_truth, reads_truth, "{}", predicate.id);
        }
    }

    #[test]
    fn an_owner_reads_words_of_his_own_about_all_that_he_can_ask() {
        for predicate in PREDICATES {
            let askable = predicate.queries.iter().any(|query| !truth::is_read_by(query));
            assert_eq!(words::of(predicate.id).is_some(), askable, "{}", predicate.id);
        }
    }

    #[test]
    fn what_waits_for_its_feature_asks_only_views_that_are_empty_by_definition() {
        let texts: [fn(&Migration) -> &'static str; 2] = [|step| step.sqlite, |step| step.postgres];
        for text in texts {
            let mut empty = BTreeSet::<&str>::new();
            for view in SHOP.steps.iter().flat_map(|step| text(step).split("create view ").skip(1)) {
                let name = view.split_once(' ').map_or(view, |(name, _)| name);
                // The last step that makes a view decides.
                empty.remove(name);
                if view.split(';').next().is_some_and(|body| body.contains("where 1 = 0")) {
                    empty.insert(name);
                }
            }
            assert_eq!(empty, NOT_BUILT.iter().copied().collect::<BTreeSet<_>>());
        }
        let waiting: Vec<&str> = PREDICATES.iter().map(|p| p.id).filter(|id| waits_for_its_feature(id)).collect();
        assert_eq!(waiting, ["M7"]);
    }

    #[test]
    fn a_text_is_kept_once() {
        let (first, again) = (kept("select 'kept once'".to_owned()), kept("select 'kept once'".to_owned()));
        assert!(std::ptr::eq(first, again));
    }
}
