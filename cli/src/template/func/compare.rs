//! `eq`, `ne`, `lt`, `le`, `gt`, `ge`. As in Go, values of different kinds are not comparable,
//! not even an integer and a floating point number.

use std::cmp::Ordering;

use crate::template::value::Val;

/// Whether `first` equals any of `others`.
pub(super) fn equal(first: &Val<'_>, others: &[Val<'_>]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        let same = match (first, other) {
            (Val::Absent | Val::Nil, Val::Absent | Val::Nil) => true,
            (Val::Absent | Val::Nil, _) | (_, Val::Absent | Val::Nil) => false,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Int(a), Val::Int(b)) => a == b,
            (Val::Float(a), Val::Float(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => a == b,
            (a, b) if is_compound(a) && is_compound(b) => {
                return Err(format!("non-comparable types {}, {}", a.type_name(), b.type_name()));
            }
            _ => return Err("incompatible types for comparison".to_owned()),
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which of two numbers or strings is less.
pub(super) fn order(a: &Val<'_>, b: &Val<'_>) -> Result<Ordering, String> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Ok(a.cmp(b)),
        (Val::Float(a), Val::Float(b)) => Ok(a.total_cmp(b)),
        (Val::Str(a), Val::Str(b)) => Ok(a.cmp(b)),
        (Val::Bool(_), Val::Bool(_)) => Err("invalid type for comparison".to_owned()),
        (a, b) if is_basic(a) && is_basic(b) => Err("incompatible types for comparison".to_owned()),
        _ => Err("invalid type for comparison".to_owned()),
    }
}

fn is_compound(value: &Val<'_>) -> bool {
    matches!(value, Val::List(_) | Val::Strings(_) | Val::Map(_))
}

fn is_basic(value: &Val<'_>) -> bool {
    matches!(value, Val::Int(_) | Val::Float(_) | Val::Str(_) | Val::Bool(_))
}
