//! A look into a database file that another program may be using.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::copy::run;
use super::{control, store_error};
use crate::clock::Clock;
use crate::store::{StoreError, Tx};

/// Runs `look` in a reading transaction on the file. The lock beside it, which keeps a second program out, is not taken:
/// readers and the one writer of a file in WAL mode do not disturb each other. Makes no database where none is.
pub(in crate::store) fn look_into<T, E, F>(path: &Path, clock: &Clock, look: F) -> Result<T, E>
where
    F: FnOnce(&mut Tx) -> Result<T, E>,
    E: From<StoreError>,
{
    let mut connection = open(path)?;
    control(&connection, "begin").map_err(|error| store_error(&error))?;
    // The connection ends with this function, and the transaction with it.
    run(&mut connection, clock, look)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let at = |error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.execute_batch("pragma busy_timeout = 2000; pragma trusted_schema = off;").map_err(at)?;
    Ok(connection)
}
