//! The same history on both engines: one program, one seed, and every view of the audit says the same.
//!
//! Ids come from the seed and the simulated clock, so they are compared as they are. One thing may differ by right: jobs
//! that are due in the same millisecond run in no promised order, and then ids that they draw change places. So rows are
//! compared once more with each id replaced by what is known of it, the rows that it stands in and theirs, until that
//! settles: two histories that differ in nothing but names are one.
//!
//! Left out are the numbers that a database gives its rows and how long a run took ([`VIEWS`](crate::simulate::run::VIEWS)).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Context;
use semel_kernel::store::Engine;
use semel_prove::report::{Figure, Options};

use crate::simulate::lived;
use crate::simulate::program::{self, Kind};
use crate::simulate::run::{Plan, Report, Views};

/// Lines of the program.
const LINES: usize = 400;
/// Rounds in which what is known of an id spreads.
const ROUNDS: usize = 8;
/// Letters of an id after its prefix.
const ID_DIGITS: usize = 32;
/// Rows that are shown of those that only one engine has.
const SHOWN: usize = 10;

/// Lives one program on SQLite and on PostgreSQL and compares all views.
///
/// # Errors
/// Only when the campaign itself cannot run; a difference is a trouble of the figure.
pub async fn run(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let seed = options.seed ^ 0x5A4E;
    tokio::task::spawn_blocking(move || compare(seed)).await.context("the same history on both engines")
}

fn compare(seed: u64) -> Vec<Figure> {
    let program = program::draw(seed, LINES, Kind::Quiet);
    let plan = Plan { fine: true, rest: true, dump: true, ..Plan::default() };
    let mut troubles = Vec::new();
    let mut reports = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        match lived(engine, seed, program.clone(), plan.clone()) {
            Ok(report) => {
                let wrong = report.broken.iter().chain(&report.unlike);
                troubles.extend(wrong.map(|sentence| format!("seed {seed} on {engine:?}: {sentence}")));
                reports.push(report);
            }
            Err(panic) => troubles.push(format!("seed {seed} on {engine:?}: it panicked: {panic}")),
        }
    }
    let name = "same history on both engines: rows of the audit views that agree";
    let [here, there] = &reports[..] else { return vec![Figure::all_of(name, 0, 1, troubles)] };
    let literal = Difference::of(&plainly(&here.views), &plainly(&there.views));
    let named = match literal.left.len() + literal.right.len() {
        0 => Difference::of(&plainly(&here.views), &plainly(&there.views)),
        _ => Difference::of(&by_what_is_known(&here.views), &by_what_is_known(&there.views)),
    };
    let only = |engine: &str, rows: &[String]| -> Vec<String> {
        rows.iter().take(SHOWN).map(|row| format!("seed {seed}, only on {engine}: {row}")).collect()
    };
    troubles.extend(only("SQLite", &named.left));
    troubles.extend(only("PostgreSQL", &named.right));
    let same_way = if here.trace == there.trace { "all" } else { "not all" };
    let deeds = |report: &Report| format!("{} operations, {} jobs", report.operations, report.jobs);
    vec![
        Figure::at_least("same history: lines of the program", here.trace.len() as u64, 300),
        Figure::all_of(name, named.same, named.all, troubles),
        Figure::told(
            "same history: with the very same ids",
            format!("{} of {} rows; {same_way} answers word for word", literal.same, literal.all),
        ),
        Figure::told("same history: what happened", format!("{} | {}", deeds(here), deeds(there))),
    ]
}

/// Two heaps of rows side by side.
struct Difference {
    same: u64,
    all: u64,
    left: Vec<String>,
    right: Vec<String>,
}

impl Difference {
    /// Each row is a key and what is shown of it.
    fn of(here: &[(String, String)], there: &[(String, String)]) -> Difference {
        let mut counts: BTreeMap<&str, (u64, u64, &str)> = BTreeMap::new();
        for (key, shown) in here {
            counts.entry(key.as_str()).or_insert((0, 0, shown.as_str())).0 += 1;
        }
        for (key, shown) in there {
            counts.entry(key.as_str()).or_insert((0, 0, shown.as_str())).1 += 1;
        }
        let mut found = Difference { same: 0, all: 0, left: Vec::new(), right: Vec::new() };
        for (here, there, shown) in counts.into_values() {
            found.same += here.min(there);
            found.all += here.max(there);
            if here > there {
                found.left.push(shown.to_owned());
            } else if there > here {
                found.right.push(shown.to_owned());
            }
        }
        found
    }
}

fn plainly(views: &Views) -> Vec<(String, String)> {
    let rows = views.iter().flat_map(|(view, rows)| rows.iter().map(move |row| format!("{view}: {}", row.join(" | "))));
    rows.map(|row| (row.clone(), row)).collect()
}

/// A cell in pieces: text between ids, and ids.
enum Piece<'a> {
    Text(&'a str),
    Id(&'a str),
}

/// Rows whose ids are replaced by what is known of them.
fn by_what_is_known(views: &Views) -> Vec<(String, String)> {
    #[allow(clippy::type_complexity, reason = "a view, its rows, their pieces; used right here")]
    let rows: Vec<(&str, &Vec<String>, Vec<Vec<Piece<'_>>>)> = views
        .iter()
        .flat_map(|(view, rows)| {
            rows.iter().map(move |row| (*view, row, row.iter().map(|cell| pieces(cell)).collect()))
        })
        .collect();
    let mut known: BTreeMap<&str, u64> = BTreeMap::new();
    for id in rows.iter().flat_map(|(_, _, cells)| cells.iter().flatten()) {
        if let Piece::Id(id) = id {
            known.insert(*id, hashed(&id[..3]));
        }
    }
    for _ in 0..ROUNDS {
        let mut heard: BTreeMap<&str, u64> = BTreeMap::new();
        for (view, _, cells) in &rows {
            let row = rendered(view, cells, &known);
            for (column, cell) in cells.iter().enumerate() {
                for piece in cell {
                    if let Piece::Id(id) = piece {
                        let sum = heard.entry(*id).or_default();
                        *sum = sum.wrapping_add(hashed((column, &row)));
                    }
                }
            }
        }
        let told = known.iter().map(|(id, before)| (*id, hashed((*before, heard.get(id).copied()))));
        known = told.collect();
    }
    rows.iter()
        .map(|(view, row, cells)| (rendered(view, cells, &known), format!("{view}: {}", row.join(" | "))))
        .collect()
}

fn rendered(view: &str, cells: &[Vec<Piece<'_>>], known: &BTreeMap<&str, u64>) -> String {
    let mut row = view.to_owned();
    for cell in cells {
        row.push('|');
        for piece in cell {
            match piece {
                Piece::Text(text) => row.push_str(text),
                Piece::Id(id) => row.push_str(&format!("<{:016x}>", known.get(*id).copied().unwrap_or(0))),
            }
        }
    }
    row
}

fn hashed(thing: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

/// Takes a cell apart. An id is three small letters, `_` and 32 hexadecimal digits, wherever it stands.
fn pieces(cell: &str) -> Vec<Piece<'_>> {
    let bytes = cell.as_bytes();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for at in 3..bytes.len() {
        let (begin, end) = (at - 3, at + 1 + ID_DIGITS);
        let is_id = bytes[at] == b'_'
            && begin >= from
            && end <= bytes.len()
            && bytes[begin..at].iter().all(u8::is_ascii_lowercase)
            && bytes[at + 1..end].iter().all(u8::is_ascii_hexdigit);
        if is_id {
            pieces.push(Piece::Text(&cell[from..begin]));
            pieces.push(Piece::Id(&cell[begin..end]));
            from = end;
        }
    }
    pieces.push(Piece::Text(&cell[from..]));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(prefix: &str, digit: char) -> String {
        format!("{prefix}_{}", digit.to_string().repeat(ID_DIGITS))
    }

    fn history(rows: &[(&str, &str)]) -> Views {
        let rows = rows.iter().map(|(one, other)| vec![(*one).to_owned(), (*other).to_owned()]).collect();
        Views::from([("audit_order", rows)])
    }

    #[test]
    fn histories_that_differ_in_names_only_are_one() {
        let (a, b, c) = (id("ord", 'a'), id("ord", 'b'), id("cus", 'c'));
        let account = |order: &str| format!("order:{order}:RUB");
        let one = history(&[(a.as_str(), "paid"), (b.as_str(), "expired"), (account(&a).as_str(), c.as_str())]);
        let other = history(&[(b.as_str(), "paid"), (a.as_str(), "expired"), (account(&b).as_str(), c.as_str())]);
        let found = Difference::of(&by_what_is_known(&one), &by_what_is_known(&other));
        assert_eq!((found.same, found.all), (3, 3));
        assert!(Difference::of(&plainly(&one), &plainly(&other)).same < 3);
    }

    #[test]
    fn money_in_another_account_is_another_history() {
        let (a, b, c) = (id("ord", 'a'), id("ord", 'b'), id("cus", 'c'));
        let account = |order: &str| format!("order:{order}:RUB");
        let one = history(&[(a.as_str(), "paid"), (b.as_str(), "expired"), (account(&a).as_str(), c.as_str())]);
        let other = history(&[(a.as_str(), "paid"), (b.as_str(), "expired"), (account(&b).as_str(), c.as_str())]);
        let found = Difference::of(&by_what_is_known(&one), &by_what_is_known(&other));
        assert!(found.same < 3 && !found.left.is_empty() && !found.right.is_empty());
    }
}
