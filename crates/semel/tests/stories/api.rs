//! The API as the developer of a bot meets it.
