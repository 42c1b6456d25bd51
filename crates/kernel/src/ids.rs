//! Ids that sort by time and say what they are: `ord_…`, `pay_…`, `job_…`.

use crate::clock::{Chance, Time};

/// A new id: `prefix_` and 32 hex digits of a UUID version 7 (RFC 9562), which sorts by its moment.
pub fn new_id(prefix: &str, now: Time, chance: &Chance) -> String {
    let moment = u64::try_from(now.millis()).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(moment, &chance.bytes()).into_uuid();
    format!("{prefix}_{}", uuid.simple())
}

/// Where the ids of this kind from `at` on begin: none of an earlier moment reaches it, none of a later one is below.
pub fn least_id(prefix: &str, at: Time) -> String {
    format!("{prefix}_{:012x}", at.millis().max(0))
}

/// Declares a typed id over text: `id!(OrderId, "ord", "An order.")`.
#[macro_export]
macro_rules! id {
    ($name:ident, $prefix:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The letters before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id at `now`.
            pub fn new(now: $crate::clock::Time, chance: &$crate::clock::Chance) -> Self {
                Self($crate::ids::new_id($prefix, now, chance))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Reads an id; `None` when it is not of this kind.
            pub fn parse(text: &str) -> Option<Self> {
                let rest = text.strip_prefix(concat!($prefix, "_"))?;
                let sound = (1..=64).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric());
                sound.then(|| Self(text.to_owned()))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&$name> for $crate::store::Value {
            fn from(id: &$name) -> Self {
                $crate::store::Value::Text(id.0.clone())
            }
        }

        impl From<$name> for $crate::store::Value {
            fn from(id: $name) -> Self {
                $crate::store::Value::Text(id.0)
            }
        }

        impl $crate::store::FromValue for $name {
            fn from_value(value: $crate::store::Value) -> Result<Self, $crate::store::StoreError> {
                <String as $crate::store::FromValue>::from_value(value).map(Self)
            }
        }
    };
}
