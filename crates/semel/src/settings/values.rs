//! Values as they were given: text, and where it came from.

use std::collections::BTreeMap;
use std::fmt;

use super::table::{Kind, Setting};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag of the command line, by the name that the caller gave it.
    Flag(String),
    /// A variable of the environment, by its name.
    Environment(String),
    /// The settings file, by its path.
    File(String),
    /// The table.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "{path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting's text, not parsed yet. No `Debug`: the text may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) text: String,
    pub(super) source: Source,
}

/// The value of each setting that has one, by key; defaults included.
pub(super) type Values = BTreeMap<&'static str, Given>;

impl Given {
    /// How a sentence calls this value: by the name that its writer used.
    pub(super) fn name(&self) -> String {
        match &self.source {
            Source::Flag(name) => format!("flag `{name}`"),
            Source::Environment(name) => format!("`{name}`"),
            Source::File(path) => format!("`{}` in {path}", self.setting.key),
            Source::Default => format!("the default of `{}`", self.setting.key),
        }
    }

    /// The value for an eye: secrets and passwords left out.
    pub(super) fn shown(&self) -> String {
        if self.setting.secret {
            return "(set)".to_owned();
        }
        match self.setting.kind {
            Kind::Database => without_password(&self.text),
            _ => self.text.clone(),
        }
    }

    /// The sentence that says what is wrong with this value; `wrong` continues after it. A text that may hold a secret
    /// is not repeated.
    pub(super) fn problem(&self, wrong: &str) -> String {
        let sensitive = self.setting.secret || self.setting.kind == Kind::Database || self.text.contains('@');
        if sensitive {
            format!("{} {wrong}.", self.name())
        } else {
            format!("{} = `{}` {wrong}.", self.name(), self.text)
        }
    }
}

/// A database address with everything hidden that may hold a password: what stands before the `@` and after the `?`.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return "(set)".to_owned();
    };
    match (rest.rfind('@'), rest.find('?')) {
        (None, None) => address.to_owned(),
        (None, Some(options)) => format!("{scheme}://{}?…", &rest[..options]),
        (Some(at), None) => format!("{scheme}://…{}", &rest[at..]),
        (Some(at), Some(options)) if at < options => format!("{scheme}://…{}?…", &rest[at..options]),
        // A password with a question mark, or an option with an `@`: nobody can tell.
        (Some(_), Some(_)) => format!("{scheme}://…"),
    }
}
