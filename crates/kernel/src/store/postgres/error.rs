//! What the driver's errors mean to a caller.

use tokio_postgres::Error;

use crate::store::StoreError;

/// The error's text without the statement or the connection string.
pub(super) fn reason(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => told.message().to_owned(),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

/// The server's own code for what went wrong; empty when the error came from somewhere else.
pub(super) fn code(error: &Error) -> &str {
    error.code().map_or("", tokio_postgres::error::SqlState::code)
}

pub(super) fn store_error(error: &Error) -> StoreError {
    let text = reason(error);
    match code(error) {
        "" => StoreError::Unavailable(text),
        "40001" | "40P01" => StoreError::Contention(text),
        "53100" => StoreError::Full,
        TOO_LONG => StoreError::Unavailable(format!("{text}; a statement ran too long")),
        code if code.starts_with("23") => StoreError::Constraint(text),
        code if code.starts_with("08") || code.starts_with("53") || code.starts_with("57") => {
            StoreError::Unavailable(text)
        }
        _ => StoreError::Statement(text),
    }
}

/// The server gave a statement up after the session's `statement_timeout`.
pub(super) const TOO_LONG: &str = "57014";
/// What the division in [`super::transaction`] fails with.
pub(super) const DIVISION: &str = "22012";
/// The server does not know the statement by its name: the session is not the one that prepared it.
pub(super) const UNKNOWN_NAME: &str = "26000";

/// Whether a statement that is prepared may have failed only because the schema changed since then: another type of
/// its answer (0A000), or a type, column or table that it was prepared for and that is gone (42…).
pub(super) fn may_be_outdated(code: &str) -> bool {
    code == "0A000" || code == UNKNOWN_NAME || code.starts_with("42")
}
