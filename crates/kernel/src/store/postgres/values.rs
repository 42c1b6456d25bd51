//! Values on their way to PostgreSQL and back. Nothing is copied on the way there: a parameter borrows its value.

use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

use crate::store::{Row, StoreError, Value};

/// One parameter of a statement.
pub(super) enum Parameter<'v> {
    One(&'v Value),
    /// One column of many rows, as an array.
    Column(Vec<&'v Value>),
    Count(i64),
}

/// The arrays that a column of values becomes.
const ARRAYS: [Type; 4] = [Type::INT8_ARRAY, Type::BOOL_ARRAY, Type::BYTEA_ARRAY, Type::TEXT_ARRAY];

pub(super) fn plain(values: &[Value]) -> Vec<Parameter<'_>> {
    values.iter().map(Parameter::One).collect()
}

pub(super) fn columns(rows: &[Vec<Value>]) -> Vec<Parameter<'_>> {
    let count = rows.first().map_or(0, Vec::len);
    (0..count).map(|column| Parameter::Column(rows.iter().map(|row| &row[column]).collect())).collect()
}

impl Parameter<'_> {
    /// The type that this value has by itself. A null has none, and the server finds one out.
    pub(super) fn kind(&self) -> Type {
        match self {
            Self::One(Value::Null) => Type::UNKNOWN,
            Self::One(Value::Int(_)) | Self::Count(_) => Type::INT8,
            Self::One(Value::Bool(_)) => Type::BOOL,
            Self::One(Value::Text(_)) => Type::TEXT,
            Self::One(Value::Blob(_)) => Type::BYTEA,
            Self::Column(values) => match values.iter().find(|value| !matches!(value, Value::Null)) {
                Some(Value::Int(_)) => Type::INT8_ARRAY,
                Some(Value::Bool(_)) => Type::BOOL_ARRAY,
                Some(Value::Blob(_)) => Type::BYTEA_ARRAY,
                _ => Type::TEXT_ARRAY,
            },
        }
    }

    /// Whether this value may go where a prepared statement wants `wanted`. A null goes anywhere.
    pub(super) fn fits(&self, wanted: &Type) -> bool {
        match self {
            Self::One(Value::Null) => true,
            Self::Column(values) if values.iter().all(|value| matches!(value, Value::Null)) => ARRAYS.contains(wanted),
            _ => self.kind() == *wanted,
        }
    }
}

/// Values are money and people: the driver writes parameters into its log, so this tells only what kind they are.
impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())
    }
}

type Written = Result<IsNull, Box<dyn Error + Sync + Send>>;

impl ToSql for Parameter<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Written {
        match self {
            Self::One(Value::Null) => Ok(IsNull::Yes),
            Self::One(Value::Int(v)) => v.to_sql_checked(kind, out),
            Self::One(Value::Bool(v)) => v.to_sql_checked(kind, out),
            Self::One(Value::Text(v)) => v.to_sql_checked(kind, out),
            Self::One(Value::Blob(v)) => v.to_sql_checked(kind, out),
            Self::Count(v) => v.to_sql_checked(kind, out),
            Self::Column(values) => array(values, kind, out),
        }
    }

    /// Each value checks itself, because a null fits every type.
    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Written {
        self.to_sql(kind, out)
    }
}

/// Writes a column as an array of `kind`; a value of another kind than the column's is written as null.
fn array(values: &[&Value], kind: &Type, out: &mut BytesMut) -> Written {
    macro_rules! column {
        ($variant:ident) => {{
            let values: Vec<_> = values
                .iter()
                .map(|value| match value {
                    Value::$variant(v) => Some(v),
                    _ => None,
                })
                .collect();
            values.to_sql_checked(kind, out)
        }};
    }
    match *kind {
        Type::INT8_ARRAY => column!(Int),
        Type::BOOL_ARRAY => column!(Bool),
        Type::BYTEA_ARRAY => column!(Blob),
        _ => column!(Text),
    }
}

pub(super) fn row_of(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        let told =
            |error: tokio_postgres::Error| StoreError::Decode { wanted: "a readable column", found: error.to_string() };
        let kind = column.type_();
        values.push(if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(index).map_err(told)?.into()
        } else if *kind == Type::INT4 {
            row.try_get::<_, Option<i32>>(index).map_err(told)?.into()
        } else if *kind == Type::BOOL {
            row.try_get::<_, Option<bool>>(index).map_err(told)?.into()
        } else if *kind == Type::BYTEA {
            row.try_get::<_, Option<Vec<u8>>>(index).map_err(told)?.into()
        } else if [Type::TEXT, Type::VARCHAR, Type::NAME, Type::UNKNOWN].contains(kind) {
            row.try_get::<_, Option<String>>(index).map_err(told)?.into()
        } else {
            return Err(StoreError::Decode {
                wanted: "an integer, flag, text or bytes",
                found: kind.name().to_owned(),
            });
        });
    }
    Ok(Row(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> Value {
        Value::Null
    }

    #[test]
    fn a_null_goes_where_any_type_is_wanted() {
        let value = null();
        let mut out = BytesMut::new();
        for wanted in [Type::INT8, Type::TEXT, Type::BYTEA_ARRAY] {
            assert!(Parameter::One(&value).fits(&wanted));
            assert!(matches!(Parameter::One(&value).to_sql_checked(&wanted, &mut out), Ok(IsNull::Yes)));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn a_value_goes_only_where_its_own_type_is_wanted() {
        let value = Value::Int(7);
        let mut out = BytesMut::new();
        assert!(Parameter::One(&value).fits(&Type::INT8));
        assert!(!Parameter::One(&value).fits(&Type::INT4));
        assert!(Parameter::One(&value).to_sql_checked(&Type::TEXT, &mut out).is_err());
    }

    #[test]
    fn a_column_takes_the_type_of_its_first_value_and_an_empty_one_takes_any() {
        let rows = vec![vec![null(), null()], vec![Value::Int(1), null()]];
        let columns = columns(&rows);
        assert_eq!(columns[0].kind(), Type::INT8_ARRAY);
        assert!(columns[0].fits(&Type::INT8_ARRAY) && !columns[0].fits(&Type::TEXT_ARRAY));
        assert!(columns[1].fits(&Type::INT8_ARRAY) && columns[1].fits(&Type::TEXT_ARRAY));
        assert!(!columns[1].fits(&Type::INT8));
        let mut out = BytesMut::new();
        assert!(matches!(columns[1].to_sql_checked(&Type::INT8_ARRAY, &mut out), Ok(IsNull::No)));
    }

    #[test]
    fn the_log_learns_no_value() {
        let value = Value::Text("hunter2".into());
        assert_eq!(format!("{:?}", Parameter::One(&value)), "text");
    }
}
