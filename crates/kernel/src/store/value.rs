//! What goes into a statement and what comes out of it, the same on both engines.

use super::StoreError;
use crate::clock::Time;

/// One value of a row or of an argument list.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL null.
    Null,
    /// A 64-bit integer: money, counts and times are always this.
    Int(i64),
    /// A flag; SQLite keeps it as 0 or 1.
    Bool(bool),
    /// Text in UTF-8.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

macro_rules! into_value {
    ($($from:ty => |$v:ident| $value:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($v: $from) -> Self {
                $value
            }
        })*
    };
}

into_value! {
    i64 => |v| Value::Int(v),
    i32 => |v| Value::Int(v.into()),
    u32 => |v| Value::Int(v.into()),
    bool => |v| Value::Bool(v),
    &str => |v| Value::Text(v.to_owned()),
    String => |v| Value::Text(v),
    &String => |v| Value::Text(v.clone()),
    Vec<u8> => |v| Value::Blob(v),
    &[u8] => |v| Value::Blob(v.to_vec()),
    Time => |v| Value::Int(v.millis()),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A type that can be read from a column.
pub trait FromValue: Sized {
    /// Reads `value`, or says what stood there instead.
    fn from_value(value: Value) -> Result<Self, StoreError>;
}

fn wrong<T>(wanted: &'static str, found: &Value) -> Result<T, StoreError> {
    Err(StoreError::Decode { wanted, found: format!("{found:.60?}") })
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        Ok(value)
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Int(v) => Ok(v),
            other => wrong("an integer", &other),
        }
    }
}

impl FromValue for u32 {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        let wide = i64::from_value(value)?;
        u32::try_from(wide).or_else(|_| wrong("a small non-negative integer", &Value::Int(wide)))
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Bool(v) => Ok(v),
            Value::Int(v) => Ok(v != 0),
            other => wrong("a flag", &other),
        }
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Text(v) => Ok(v),
            other => wrong("text", &other),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Blob(v) => Ok(v),
            other => wrong("bytes", &other),
        }
    }
}

impl FromValue for Time {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        i64::from_value(value).map(Time::from_millis)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub(super) Vec<Value>);

impl Row {
    /// The column at `index`, counted from zero.
    pub fn get<T: FromValue>(&self, index: usize) -> Result<T, StoreError> {
        match self.0.get(index) {
            Some(value) => T::from_value(value.clone()),
            None => Err(StoreError::Decode { wanted: "another column", found: format!("{} columns", self.0.len()) }),
        }
    }

    /// All columns.
    pub fn values(&self) -> &[Value] {
        &self.0
    }
}

/// Builds an argument list: `args![id, amount, now]`.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::store::Value::from($arg)),*] };
}
