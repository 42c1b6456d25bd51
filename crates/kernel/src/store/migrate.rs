//! Schema changes: forward-only, numbered alike for both engines, run at start under a lock.
//!
//! A database that is newer than the program, or one whose applied text differs from the program's, is refused.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Engine, Row, Sql, Store, StoreError, Tx, sqlite};
use crate::clock::Clock;

/// One step of the schema, in both engines' words.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Counts from 1 without gaps within its room.
    pub number: i64,
    /// The file's name without number and ending.
    pub name: &'static str,
    /// The step for SQLite.
    pub sqlite: &'static str,
    /// The step for PostgreSQL.
    pub postgres: &'static str,
}

/// The migrations of one crate.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Stored with each step: `kernel`, `shop`.
    pub name: &'static str,
    /// All steps, in order.
    pub steps: &'static [Migration],
}

/// The kernel's own tables.
pub const KERNEL: Room = Room {
    name: "kernel",
    steps: &[
        Migration {
            number: 1,
            name: "base",
            sqlite: include_str!("../../migrations/sqlite/0001_base.sql"),
            postgres: include_str!("../../migrations/postgres/0001_base.sql"),
        },
        Migration {
            number: 2,
            name: "history_numbers",
            sqlite: include_str!("../../migrations/sqlite/0002_history_numbers.sql"),
            postgres: include_str!("../../migrations/postgres/0002_history_numbers.sql"),
        },
    ],
};

const FIRST: Sql = Sql {
    sqlite: "create table if not exists migrations (room text not null, number integer not null, name text not null,
             hash text not null, applied_at integer not null, primary key (room, number)) strict",
    postgres:
        "create table if not exists semel.migrations (room text not null, number bigint not null, name text not null,
             hash text not null, applied_at bigint not null, primary key (room, number))",
};
const APPLIED: &str = "select room, number, hash from migrations order by room, number";
const NOTE: &str = "insert into migrations (room, number, name, hash, applied_at) values ($1, $2, $3, $4, $5)";

/// Brings the schema up to date and answers the steps it applied, as `room/number name`. Safe to call from several
/// copies at once.
pub async fn migrate(store: &Store, rooms: &'static [Room]) -> Result<Vec<String>, StoreError> {
    store.write("store.migrate", move |tx| bring_up(tx, rooms)).await
}

/// The steps that [`migrate`] would apply.
pub async fn pending(store: &Store, rooms: &'static [Room]) -> Result<Vec<String>, StoreError> {
    let outcome: Result<(), Dry> = store
        .write("store.migrate.dry", move |tx| {
            prepare(tx)?;
            Err(Dry(missing(tx, rooms).map(|steps| titles(&steps))))
        })
        .await;
    match outcome {
        Ok(()) => Ok(Vec::new()),
        Err(Dry(answer)) => answer,
    }
}

/// The same for the file of an embedded database, which a running program may hold: it is only read. What is missing is
/// missing for *this* program, which may be newer than the one that runs, so that one cannot be asked.
///
/// # Errors
/// [`StoreError::Unavailable`] when the file cannot be opened, [`StoreError::Schema`] as in [`bring_up`].
pub fn pending_in_file(path: &Path, clock: &Clock, rooms: &'static [Room]) -> Result<Vec<String>, StoreError> {
    sqlite::look_into(path, clock, |tx| {
        refuse_foreign_file(tx)?;
        let begun = tx.first("select 1 from sqlite_schema where name = 'migrations'", &[])?.is_some();
        Ok(titles(&if begun { missing(tx, rooms)? } else { every(rooms).collect() }))
    })
}

/// Carries the answer of a dry run out of a transaction that must not commit.
struct Dry(Result<Vec<String>, StoreError>);

impl From<StoreError> for Dry {
    fn from(error: StoreError) -> Self {
        Dry(Err(error))
    }
}

fn every(rooms: &'static [Room]) -> impl Iterator<Item = Step> {
    rooms.iter().flat_map(|room| room.steps.iter().map(move |step| (room, step)))
}

fn titles(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|(room, step)| title(room, step)).collect()
}

fn title(room: &Room, step: &Migration) -> String {
    format!("{}/{:04} {}", room.name, step.number, step.name)
}

/// [`migrate`] inside a transaction of the caller's, for a database that must not be seen before more is done to it.
///
/// # Errors
/// [`StoreError::Schema`] when the database is newer than this program, or another one's.
pub fn bring_up(tx: &mut Tx, rooms: &'static [Room]) -> Result<Vec<String>, StoreError> {
    prepare(tx)?;
    let now = tx.now();
    let mut applied = Vec::new();
    for (room, step) in missing(tx, rooms)? {
        let text = if tx.engine() == Engine::Sqlite { step.sqlite } else { step.postgres };
        for statement in statements(text) {
            tx.execute(statement, &[])?;
        }
        let hash = hash(step);
        tx.execute(NOTE, crate::args![room.name, step.number, step.name, hash, now])?;
        applied.push(title(room, step));
    }
    Ok(applied)
}

/// Makes sure that the schema is ours and that no other copy migrates at the same time.
fn prepare(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.engine() == Engine::Postgres {
        // The key is "semel" in ASCII; the lock ends with the transaction.
        tx.rows("select 1 from (select pg_advisory_xact_lock(495622382956)) l", &[])?;
        let foreign = tx.rows(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'semel'
             and c.relkind in ('r', 'v', 'm', 'p') and not exists (select 1 from pg_class m
             where m.relnamespace = c.relnamespace and m.relname = 'migrations') limit 3",
            &[],
        )?;
        if let Some(name) = foreign.first() {
            let name: String = name.get(0)?;
            return Err(StoreError::Schema(format!(
                "the schema \"semel\" holds tables that are not Semel's ({name} …): use another database"
            )));
        }
        tx.execute("create schema if not exists semel", &[])?;
    } else {
        refuse_foreign_file(tx)?;
    }
    tx.execute(FIRST, &[])?;
    Ok(())
}

fn refuse_foreign_file(tx: &mut Tx) -> Result<(), StoreError> {
    let foreign = tx.first(
        "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'
         and not exists (select 1 from sqlite_schema where name = 'migrations') limit 1",
        &[],
    )?;
    match foreign {
        None => Ok(()),
        Some(row) => {
            let name: String = row.get(0)?;
            Err(StoreError::Schema(format!("this file holds tables that are not Semel's ({name} …): use another one")))
        }
    }
}

/// A step with the room that it belongs to.
type Step = (&'static Room, &'static Migration);

fn missing(tx: &mut Tx, rooms: &'static [Room]) -> Result<Vec<Step>, StoreError> {
    let applied = tx.rows(APPLIED, &[])?;
    let key = |row: &Row| -> Result<(String, i64, String), StoreError> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
    let applied = applied.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    for (room, number, found) in &applied {
        let known = rooms.iter().find(|r| r.name == room).and_then(|r| r.steps.iter().find(|s| s.number == *number));
        match known {
            None => {
                return Err(StoreError::Schema(format!(
                    "the database is newer than this program (step {room}/{number:04} is unknown): install the newer version"
                )));
            }
            Some(step) if hash(step) != *found => {
                return Err(StoreError::Schema(format!(
                    "step {room}/{number:04} was applied with another text than this program's: the database is not this version's"
                )));
            }
            Some(_) => {}
        }
    }
    let is_missing =
        |room: &Room, step: &Migration| !applied.iter().any(|(r, n, _)| r == room.name && *n == step.number);
    Ok(every(rooms).filter(|(room, step)| is_missing(room, step)).collect())
}

fn hash(step: &Migration) -> String {
    let mut hasher = Sha256::new();
    hasher.update(step.sqlite);
    hasher.update([0]);
    hasher.update(step.postgres);
    hex::encode(hasher.finalize())
}

/// Splits a migration at the semicolons that end a line; `$$` bodies stay whole.
fn statements(text: &'static str) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        if line.matches("$$").count() % 2 == 1 {
            quoted = !quoted;
        }
        if !quoted && line.trim_end().ends_with(';') {
            found.push(text[start..at].trim());
            start = at;
        }
    }
    let rest = text[start..].trim();
    if !rest.is_empty() {
        found.push(rest);
    }
    found.retain(|statement| statement.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with("--")));
    found
}

/// The tables and columns of a database, sorted, to compare two engines.
pub async fn shape(store: &Store) -> Result<Vec<String>, StoreError> {
    let rows = store.rows("store.shape", SHAPE, &[]).await?;
    rows.iter().map(|row| Ok(format!("{}.{}", row.get::<String>(0)?, row.get::<String>(1)?))).collect()
}

const SHAPE: Sql = Sql {
    sqlite: "select t.name, c.name from sqlite_schema t join pragma_table_info(t.name) c
             where t.type in ('table', 'view') and t.name not like 'sqlite_%' order by 1, 2",
    postgres: "select table_name::text, column_name::text from information_schema.columns where table_schema = 'semel'
             order by table_name collate \"C\", column_name collate \"C\"",
};

#[cfg(test)]
mod tests {
    use super::statements;

    #[test]
    fn a_migration_is_split_at_line_ends_only() {
        let text =
            "-- why\ncreate table a (b text default ';');\n\ncreate function f() as $$\nbegin;\nend;\n$$;\n-- end\n";
        assert_eq!(
            statements(text),
            ["-- why\ncreate table a (b text default ';');", "create function f() as $$\nbegin;\nend;\n$$;"]
        );
    }
}
