//! Values as JSON, by the type that a function has: for hosts in other languages.
//!
//! ```text
//! bool, numbers, string, char   as they are; nan, inf and -inf are texts
//! list, tuple                   an array
//! record                        an object
//! variant                       "case" or {"case": value};   enum "case"
//! flags                         an array of names
//! option                        null or the value; of an option in an option the inner one is {"some": value}
//! result                        {"ok": value} or {"err": value}
//! ```

use serde_json::{Map, Number, Value};
use wasmtime::component::{Type, Val};

use super::values;

/// Why a text is no value: where in it, what is expected there, and what there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: String,
    pub(super) expected: String,
    pub(super) found: String,
}

/// The value of a type that `json` stands for. `place` is what an error calls it.
pub(super) fn read(json: Value, ty: &Type, place: &str) -> Result<Val, Wrong> {
    let wrong = |json: &Value| {
        let found = match json {
            Value::Null => "null".to_owned(),
            Value::Array(items) => format!("an array of {}", items.len()),
            Value::Object(_) => "an object".to_owned(),
            // Told as it is, up to here.
            other => other.to_string().chars().take(60).collect(),
        };
        Wrong { place: place.to_owned(), expected: values::text(ty), found }
    };
    let within = |name: &str| format!("{place}.{name}");
    macro_rules! integer {
        ($kind:ident, $get:ident) => {
            match json.$get().and_then(|number| number.try_into().ok()) {
                Some(number) => Ok(Val::$kind(number)),
                None => Err(wrong(&json)),
            }
        };
    }
    match ty {
        Type::Bool => json.as_bool().map(Val::Bool).ok_or_else(|| wrong(&json)),
        Type::S8 => integer!(S8, as_i64),
        Type::S16 => integer!(S16, as_i64),
        Type::S32 => integer!(S32, as_i64),
        Type::S64 => integer!(S64, as_i64),
        Type::U8 => integer!(U8, as_u64),
        Type::U16 => integer!(U16, as_u64),
        Type::U32 => integer!(U32, as_u64),
        Type::U64 => integer!(U64, as_u64),
        #[expect(clippy::cast_possible_truncation, reason = "a number is as exact as its type")]
        Type::Float32 => float(&json).map(|number| Val::Float32(number as f32)).ok_or_else(|| wrong(&json)),
        Type::Float64 => float(&json).map(Val::Float64).ok_or_else(|| wrong(&json)),
        Type::Char => {
            let mut letters = json.as_str().into_iter().flat_map(str::chars);
            match (letters.next(), letters.next()) {
                (Some(letter), None) => Ok(Val::Char(letter)),
                _ => Err(wrong(&json)),
            }
        }
        Type::String => match json {
            Value::String(text) => Ok(Val::String(text)),
            other => Err(wrong(&other)),
        },
        Type::List(list) => {
            let ty = list.ty();
            let Value::Array(items) = json else { return Err(wrong(&json)) };
            let item = |(at, item): (usize, Value)| read(item, &ty, &format!("{place}[{at}]"));
            Ok(Val::List(items.into_iter().enumerate().map(item).collect::<Result<_, _>>()?))
        }
        Type::Tuple(tuple) => match json {
            Value::Array(items) if items.len() == tuple.types().len() => {
                let both = items.into_iter().zip(tuple.types()).enumerate();
                let item =
                    |(at, (item, ty)): (usize, (Value, Type))| read(item, &ty, &format!("{place}[{at}]"));
                Ok(Val::Tuple(both.map(item).collect::<Result<_, _>>()?))
            }
            other => Err(wrong(&other)),
        },
        Type::Record(record) => {
            let Value::Object(mut given) = json else { return Err(wrong(&json)) };
            let mut fields = Vec::new();
            for field in record.fields() {
                // What may be missing is nothing.
                let value = given.remove(field.name).unwrap_or_default();
                fields.push((field.name.to_owned(), read(value, &field.ty, &within(field.name))?));
            }
            if let Some(name) = given.keys().next() {
                return Err(Wrong {
                    place: place.to_owned(),
                    expected: values::text(ty),
                    found: format!("a field {name}"),
                });
            }
            Ok(Val::Record(fields))
        }
        Type::Variant(variant) => {
            let (name, payload) = case(json).map_err(|json| wrong(&json))?;
            let Some(case) = variant.cases().find(|case| case.name == name) else {
                return Err(wrong(&Value::String(name)));
            };
            Ok(Val::Variant(name, maybe(payload, case.ty, &within(case.name))?))
        }
        Type::Enum(names) => match json {
            Value::String(name) if names.names().any(|one| one == name) => Ok(Val::Enum(name)),
            other => Err(wrong(&other)),
        },
        Type::Flags(flags) => {
            let Value::Array(items) = json else { return Err(wrong(&json)) };
            let flag = |item: Value| match item {
                Value::String(name) if flags.names().any(|one| one == name) => Ok(name),
                other => Err(wrong(&other)),
            };
            Ok(Val::Flags(items.into_iter().map(flag).collect::<Result<_, _>>()?))
        }
        Type::Option(option) => {
            let inner = option.ty();
            let value = match (json, &inner) {
                (Value::Null, _) => None,
                (Value::Object(mut object), Type::Option(_))
                    if object.len() == 1 && object.contains_key("some") =>
                {
                    Some(object.remove("some").unwrap_or_default())
                }
                (json, Type::Option(_)) => return Err(wrong(&json)),
                (json, _) => Some(json),
            };
            Ok(Val::Option(value.map(|value| read(value, &inner, place)).transpose()?.map(Box::new)))
        }
        Type::Result(result) => {
            let (name, payload) = case(json).map_err(|json| wrong(&json))?;
            match name.as_str() {
                "ok" => Ok(Val::Result(Ok(maybe(payload, result.ok(), &within("ok"))?))),
                "err" => Ok(Val::Result(Err(maybe(payload, result.err(), &within("err"))?))),
                _ => Err(wrong(&Value::String(name))),
            }
        }
        _ => Err(wrong(&json)),
    }
}

/// What a function of the host answers.
pub(super) fn answer(text: &str, ty: &Type) -> Result<Val, String> {
    let json = serde_json::from_str(text).map_err(|error| format!("its answer is no JSON: {error}"))?;
    read(json, ty, "its answer")
        .map_err(|wrong| format!("{}: expected {}, found {}", wrong.place, wrong.expected, wrong.found))
}

fn float(json: &Value) -> Option<f64> {
    match json.as_str() {
        Some("nan") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => json.as_f64(),
    }
}

/// `"case"` or `{"case": value}`.
fn case(json: Value) -> Result<(String, Option<Value>), Value> {
    match json {
        Value::String(name) => Ok((name, None)),
        Value::Object(object) if object.len() == 1 => {
            object.into_iter().next().map(|(name, value)| (name, Some(value))).ok_or(Value::Null)
        }
        other => Err(other),
    }
}

fn maybe(payload: Option<Value>, ty: Option<Type>, place: &str) -> Result<Option<Box<Val>>, Wrong> {
    match (payload, ty) {
        // `{"case": null}` is as good as `"case"`.
        (None | Some(Value::Null), None) => Ok(None),
        (payload, Some(ty)) => Ok(Some(Box::new(read(payload.unwrap_or_default(), &ty, place)?))),
        (Some(_), None) => {
            let place = place.to_owned();
            Err(Wrong { place, expected: "nothing".to_owned(), found: "a value".to_owned() })
        }
    }
}

/// A value as JSON. A resource is `null`: it means nothing outside its instance.
pub(super) fn write(value: &Val) -> Value {
    let list = |items: &[Val]| Value::Array(items.iter().map(write).collect());
    let one = |name: &str, value: &Option<Box<Val>>| match value {
        Some(value) => Value::Object(Map::from_iter([(name.to_owned(), write(value))])),
        None => Value::String(name.to_owned()),
    };
    match value {
        Val::Bool(value) => Value::Bool(*value),
        Val::S8(number) => Value::from(*number),
        Val::U8(number) => Value::from(*number),
        Val::S16(number) => Value::from(*number),
        Val::U16(number) => Value::from(*number),
        Val::S32(number) => Value::from(*number),
        Val::U32(number) => Value::from(*number),
        Val::S64(number) => Value::from(*number),
        Val::U64(number) => Value::from(*number),
        // By its text, which is the shortest that means this number.
        Val::Float32(number) => written(f64::from(*number), number.to_string().parse().ok()),
        Val::Float64(number) => written(*number, Some(*number)),
        Val::Char(letter) => Value::String(letter.to_string()),
        Val::String(text) => Value::String(text.clone()),
        Val::List(items) | Val::Tuple(items) => list(items),
        Val::Record(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), write(value))).collect())
        }
        Val::Variant(name, payload) => one(name, payload),
        Val::Enum(name) => Value::String(name.clone()),
        Val::Flags(names) => Value::Array(names.iter().cloned().map(Value::String).collect()),
        Val::Option(None) => Value::Null,
        Val::Option(Some(value)) => match &**value {
            inner @ Val::Option(_) => Value::Object(Map::from_iter([("some".to_owned(), write(inner))])),
            inner => write(inner),
        },
        Val::Result(Ok(value)) => one("ok", value),
        Val::Result(Err(value)) => one("err", value),
        _ => Value::Null,
    }
}

fn written(number: f64, short: Option<f64>) -> Value {
    let text = match number {
        number if number.is_nan() => "nan",
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        number => return Number::from_f64(short.unwrap_or(number)).map_or(Value::Null, Value::Number),
    };
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;
    use wasmtime::component::Component;
    use wasmtime::component::types::ComponentItem;

    use super::*;

    /// Types, written as components have them; `$r`, `$v`, `$e` and `$f` are there.
    fn types(texts: &[&str]) -> Vec<Type> {
        let named = [
            ("r", r#"(record (field "name" string) (field "age" (option u8)))"#),
            ("v", r#"(variant (case "none") (case "some" s64))"#),
            ("e", r#"(enum "red" "green")"#),
            ("f", r#"(flags "read" "write")"#),
        ];
        let mut text = String::new();
        for (name, ty) in named {
            text += &format!("(type ${name}0 {ty}) (export ${name} \"x-{name}\" (type ${name}0))\n");
        }
        for (number, ty) in texts.iter().enumerate() {
            text += &format!("(type $t{number} {ty}) (export \"t{number}\" (type $t{number}))\n");
        }
        let engine = Engine::default();
        let component = Component::new(&engine, format!("(component {text})")).unwrap();
        let exports = component.component_type();
        let exports = exports.exports(&engine).filter(|(name, _)| name.starts_with('t'));
        exports
            .map(|(_, item)| match item.ty {
                ComponentItem::Type(ty) => ty,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn there_and_back() {
        let cases = [
            ("bool", "true"),
            ("s8", "-128"),
            ("u64", "18446744073709551615"),
            ("s64", "-9223372036854775808"),
            ("float32", "0.1"),
            ("float64", "\"-inf\""),
            ("char", "\"\u{fc}\""),
            ("string", r#""a\"b\u0000""#),
            ("(list u8)", "[0,255]"),
            ("(tuple u8 string)", "[1,\"x\"]"),
            ("(option string)", "null"),
            ("(option string)", "\"x\""),
            ("(list (option (option u8)))", r#"[null,{"some":null},{"some":3}]"#),
            ("(result u8 (error string))", r#"{"ok":1}"#),
            ("(result u8 (error string))", r#"{"err":"no"}"#),
            ("(result)", "\"ok\""),
            ("(list $r)", r#"[{"name":"x","age":7},{"name":"y","age":null}]"#),
            ("(list $v)", r#"["none",{"some":-1}]"#),
            ("(list $e)", r#"["green","red"]"#),
            ("(list $f)", r#"[[],["read","write"]]"#),
        ];
        for (ty, (name, text)) in types(&cases.map(|(ty, _)| ty)).iter().zip(cases) {
            let value = read(serde_json::from_str(text).unwrap(), ty, "x").unwrap();
            assert!(values::fits(&value, ty), "{name} {text}");
            assert_eq!(write(&value).to_string(), text, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            ("bool", "1", "x", "1"),
            ("u8", "256", "x", "256"),
            ("u8", "-1", "x", "-1"),
            ("u8", "1.5", "x", "1.5"),
            ("u64", "18446744073709551616", "x", "1.8446744073709552e+19"),
            ("float64", "\"many\"", "x", "\"many\""),
            ("char", "\"ab\"", "x", "\"ab\""),
            ("string", "null", "x", "null"),
            ("(list u8)", "[1,\"a\"]", "x[1]", "\"a\""),
            ("(tuple u8 u8)", "[1]", "x", "an array of 1"),
            ("(option (option u8))", "3", "x", "3"),
            ("(result u8 (error string))", r#"{"err":1}"#, "x.err", "1"),
            ("(result u8 (error string))", r#"{"fine":1}"#, "x", "\"fine\""),
            ("(result)", r#"{"ok":1}"#, "x.ok", "a value"),
            ("(list $r)", r#"[{"age":7}]"#, "x[0].name", "null"),
            ("(list $r)", r#"[{"name":"a","more":1}]"#, "x[0]", "a field more"),
            ("(list $v)", r#"[{"some":1,"none":2}]"#, "x[0]", "an object"),
            ("(list $v)", "[\"some\"]", "x[0].some", "null"),
            ("(list $e)", "[\"blue\"]", "x[0]", "\"blue\""),
            ("(list $f)", "[[\"read\",\"fly\"]]", "x[0]", "\"fly\""),
        ];
        for (ty, (name, text, place, found)) in types(&cases.map(|(ty, ..)| ty)).iter().zip(cases) {
            let wrong = read(serde_json::from_str(text).unwrap(), ty, "x").unwrap_err();
            assert_eq!((wrong.place.as_str(), wrong.found.as_str()), (place, found), "{name} {text}");
        }
    }
}
