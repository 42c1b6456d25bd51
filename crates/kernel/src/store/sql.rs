//! Statements as checked-in text.

/// One statement in the words of both engines. Most often the two texts are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sql {
    /// What SQLite runs.
    pub sqlite: &'static str,
    /// What PostgreSQL runs.
    pub postgres: &'static str,
}

impl Sql {
    /// The common dialect: one text for both.
    pub const fn both(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self::both(text)
    }
}

/// One statement for many rows: SQLite runs its text once a row, PostgreSQL once over arrays (a column each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManySql {
    /// Runs once for each row; `$n` is the row's n-th column.
    pub sqlite: &'static str,
    /// Runs once; `$n` is the array of all n-th columns.
    pub postgres: &'static str,
}

/// Names the statements of a module and lists them, so that one test can prepare each on both engines.
///
/// ```
/// mod things {
/// semel_kernel::statements! {
///     /// Every name once.
///     NAMES = "select name from things where owner = $1";
///     /// PostgreSQL skips rows that another worker holds; SQLite has one writer and nothing to skip.
///     CLAIM = { sqlite: "select 1", postgres: "select 1 for update skip locked" };
/// }
/// }
/// ```
#[macro_export]
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:tt;)*) => {
        $($(#[$doc])* pub(super) const $name: $crate::store::Sql = $crate::statements!(@one $text);)*
        /// Every statement of this module, by name.
        pub const STATEMENTS: &[(&str, $crate::store::Sql)] = &[$((stringify!($name), $name)),*];
    };
    (@one { sqlite: $sqlite:expr, postgres: $postgres:expr $(,)? }) => {
        $crate::store::Sql { sqlite: $sqlite, postgres: $postgres }
    };
    (@one $text:literal) => { $crate::store::Sql::both($text) };
}
