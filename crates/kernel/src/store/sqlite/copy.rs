//! A database file that no program uses yet: looked over, altered and left whole, before it takes its place.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{OnSqlite, Texts, control, store_error, teach_time};
use crate::clock::Clock;
use crate::store::tx::Database;
use crate::store::{Engine, Sql, StoreError, Tx};

/// Opens the file, looks whether it is whole, runs `change` in one transaction, and leaves one synced file without a
/// journal beside it, so that a rename takes all of it along.
pub(in crate::store) fn change_copy<T, E, F>(path: &Path, clock: &Clock, change: F) -> Result<T, E>
where
    F: FnOnce(&mut Tx) -> Result<T, E>,
    E: From<StoreError>,
{
    let mut connection = open(path, clock)?;
    look_over(&mut connection, path)?;
    control(&connection, "begin immediate").map_err(|error| store_error(&error))?;
    // Whatever ends this function early drops the connection, and the transaction with it.
    let value = run(&mut connection, clock, change)?;
    control(&connection, "commit").map_err(|error| store_error(&error))?;
    connection.close().map_err(|(_, error)| store_error(&error))?;
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| StoreError::Unavailable(format!("cannot sync {}: {error}", path.display())))?;
    Ok(value)
}

fn open(path: &Path, clock: &Clock) -> Result<Connection, StoreError> {
    let at = |error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection
        .execute_batch(
            "pragma journal_mode = delete; pragma synchronous = full; pragma foreign_keys = on;
             pragma temp_store = memory; pragma trusted_schema = off;",
        )
        .map_err(at)?;
    teach_time(&connection, clock).map_err(at)?;
    Ok(connection)
}

fn look_over(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let mut texts = Texts::default();
    let mut database = OnSqlite::new(connection, &mut texts);
    let told = database.rows(Sql::both("pragma integrity_check(1)"), &[])?;
    let first: Option<String> = told.first().map(|row| row.get(0)).transpose()?;
    if first.as_deref() != Some("ok") {
        let said = first.unwrap_or_else(|| "nothing".to_owned());
        return Err(StoreError::Schema(format!("the database {} is damaged: {said}", path.display())));
    }
    if !database.rows(Sql::both("pragma foreign_key_check"), &[])?.is_empty() {
        let file = path.display();
        return Err(StoreError::Schema(format!("the database {file} is damaged: a row names one that is not there")));
    }
    Ok(())
}

pub(super) fn run<T, E, F>(connection: &mut Connection, clock: &Clock, change: F) -> Result<T, E>
where
    F: FnOnce(&mut Tx) -> Result<T, E>,
    E: From<StoreError>,
{
    let mut texts = Texts::default();
    let mut database = OnSqlite::new(connection, &mut texts);
    let mut tx =
        Tx { database: &mut database, engine: Engine::Sqlite, now: clock.now(), failed: None, woken: Vec::new() };
    let changed = change(&mut tx);
    match (changed, tx.failed.take()) {
        // An `Ok` after a failed statement is a mistake in the closure.
        (Ok(_), Some(error)) => Err(error.into()),
        (changed, _) => changed,
    }
}
