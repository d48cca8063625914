//! The values a template works with: JSON values borrowed from the data, and what functions make of them.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::{Map, Value};

/// A value at run time. Cheap to clone unless it is a string that a function made.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    /// No value at all: what an absent field stands for.
    Absent,
    /// JSON's null, Go's nil.
    Nil,
    Bool(bool),
    /// Any JSON integer.
    Int(i128),
    Float(f64),
    Str(Cow<'a, str>),
    List(&'a [Value]),
    /// What `split` makes.
    Strings(Rc<[String]>),
    Map(&'a Map<String, Value>),
}

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => Self::Int(n.into()),
                (None, Some(n)) => Self::Int(n.into()),
                // Every `serde_json` number that is no integer has a float.
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(s) => Self::Str(Cow::Borrowed(s)),
            Value::Array(list) => Self::List(list),
            Value::Object(map) => Self::Map(map),
        }
    }
}

impl<'a> Val<'a> {
    /// What `if` and `with` go by: empty and zero values are false.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Absent | Self::Nil => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Strings(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// Go's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Absent | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Strings(_) => "[]string",
            Self::Map(_) => "map[string]interface {}",
        }
    }

    /// The elements of a list.
    pub(super) fn elements(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(list) => Some(list.iter().map(Self::from).collect()),
            Self::Strings(list) => Some(list.iter().map(|s| Self::Str(Cow::Owned(s.clone()))).collect()),
            _ => None,
        }
    }

    /// The same as JSON.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Absent | Self::Nil => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => n.into(),
                (Err(_), Ok(n)) => n.into(),
                (Err(_), Err(_)) => Value::Null,
            },
            // Go writes whole numbers without `.0`.
            Self::Float(f) => f.to_string().parse::<i64>().map_or_else(|_| (*f).into(), Value::from),
            Self::Str(s) => Value::String(s.clone().into_owned()),
            Self::List(list) => Value::Array(list.to_vec()),
            Self::Strings(list) => Value::from(list.to_vec()),
            Self::Map(map) => Value::Object((*map).clone()),
        }
    }
}

/// The entries of an object in the order of their keys, as Go goes through a map.
pub(super) fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}
