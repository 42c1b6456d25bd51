//! `semel audit`: what the self-audit stopped, and the chain of the owner's actions, recomputed here.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use semel_shop::owner_log::{Broken, Chain, Entry, Head};

use super::ask::{Asker, join, rows, text};
use super::{AuditVerb, out};
use crate::settings::Loaded;

const PAGE: usize = 200;

/// Runs `verb`.
pub async fn audit(loaded: Loaded, verb: AuditVerb) -> anyhow::Result<ExitCode> {
    let asker = Asker::of(loaded, false).await?;
    let outcome = answer(&asker, verb).await;
    asker.tell_copies().await;
    outcome
}

async fn answer(asker: &Asker, verb: AuditVerb) -> anyhow::Result<ExitCode> {
    match verb {
        AuditVerb::Verify { anchor } => verify(asker, anchor).await,
        AuditVerb::List { limit } => {
            let answer = asker.get(&format!("/api/v1/audit/log?limit={limit}")).await?;
            let rows = rows(&answer, |row| {
                vec![
                    row["seq"].to_string(),
                    text(&row["at"]),
                    text(&row["actor"]),
                    text(&row["action"]),
                    text(&row["subject"]),
                    text(&row["detail"]),
                ]
            });
            out::lines(&out::table(&["NUMBER", "AT", "WHO", "DID", "TO", "DETAIL"], &rows))
        }
        AuditVerb::Stops { state, limit } => {
            let filter = state.map(|state| format!("&state={state}")).unwrap_or_default();
            let answer = asker.get(&format!("/api/v1/audit/stops?limit={limit}{filter}")).await?;
            let rows = rows(&answer, |row| {
                let flows = row["flows"].as_array().map_or(String::new(), |flows| join(flows));
                let count = row["rows"].as_array().map_or(0, Vec::len).to_string();
                vec![
                    text(&row["id"]),
                    text(&row["predicate"]),
                    text(&row["state"]),
                    flows,
                    count,
                    text(&row["at"]),
                    text(&row["reason"]),
                ]
            });
            out::lines(&out::table(&["STOP", "PROMISE", "STATE", "STOPS", "ROWS", "FOUND", "RELEASED BECAUSE"], &rows))
        }
        AuditVerb::Release { stop, reason } => {
            asker.post(&format!("/api/v1/audit/stops/{stop}/release"), json!({ "reason": reason })).await?;
            out::lines(&format!("stop {stop} is released; what waited goes on"))
        }
    }
}

/// Reads the log from its beginning and recomputes every hash here: the program that is asked is not trusted with that.
async fn verify(asker: &Asker, anchor: Option<String>) -> anyhow::Result<ExitCode> {
    let mut chain = Chain::new(anchor);
    let verdict = loop {
        let path = format!("/api/v1/audit/log?limit={PAGE}&after={}", chain.head().seq);
        let mut answer = asker.get(&path).await?;
        let entries: Vec<Entry> = serde_json::from_value(answer["items"].take()).context("the log cannot be read")?;
        let head: Head = serde_json::from_value(answer["head"].take()).context("the log's head cannot be read")?;
        if entries.is_empty() {
            break chain.end(&head);
        }
        if let Err(broken) = entries.iter().try_for_each(|entry| chain.take(entry)) {
            break Err(broken);
        }
    };
    match verdict {
        Ok(()) => {
            let Head { seq, hash } = chain.head();
            out::lines(&format!("the log is whole: {seq} entries\nhead {hash}"))
        }
        Err(broken) => complain(&broken),
    }
}

fn complain(broken: &Broken) -> anyhow::Result<ExitCode> {
    out::complain(&format!(
        "the log is broken at {broken}: keep this database as it is, and look who could write to it"
    ));
    Ok(ExitCode::from(3))
}
