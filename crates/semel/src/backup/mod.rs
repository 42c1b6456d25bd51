//! Backups: one encrypted file that holds the whole database, and nothing of the settings.
//!
//! A backup is made while the program runs: an embedded database is copied at one moment, PostgreSQL is dumped by its own
//! tool. What leaves is sealed part by part ([`sealed`]), so a file that was cut off, changed, or made with another key is
//! told apart before anything of it is used. A restored database begins in safe mode (`semel_shop::safety`).

pub mod files;
pub mod key;
pub mod postgres;
pub mod sealed;

use semel_kernel::store::{Store, StoreError};

use crate::ROOMS;

/// The steps of the schema that a database has, as `room/0001`, sorted.
///
/// # Errors
/// What the store says; also when the database is not one of ours.
pub async fn schema_of(store: &Store) -> Result<Vec<String>, StoreError> {
    let applied = "select room, number from migrations order by room, number";
    let rows = store.rows("backup.schema", applied, &[]).await?;
    rows.iter().map(|row| Ok(format!("{}/{:04}", row.get::<String>(0)?, row.get::<i64>(1)?))).collect()
}

/// The first step that this program does not know: the backup is of a newer one.
pub fn unknown_step(schema: &[String]) -> Option<&String> {
    let known = |step: &str| {
        ROOMS.iter().any(|room| room.steps.iter().any(|known| format!("{}/{:04}", room.name, known.number) == step))
    };
    schema.iter().find(|step| !known(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_a_newer_program_is_named() {
        let ours = vec!["kernel/0001".to_owned(), "shop/0001".to_owned()];
        assert_eq!(unknown_step(&ours), None);
        let newer = [ours, vec!["shop/9999".to_owned()]].concat();
        assert_eq!(unknown_step(&newer).map(String::as_str), Some("shop/9999"));
    }
}
