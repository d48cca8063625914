//! JSON that has one meaning only: no key twice, and no key that is not known.
//!
//! Signed documents and policies are read by several programs. Where two of them could read one document in two
//! ways, somebody can sign the one and have the other accepted. Sizes are the caller's business; depth is bounded
//! by the parser.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de;
use serde_json::Map;
use serde_json::Value;

use super::Checked;

/// Parses a document in which no object has a key twice.
pub(super) fn parse(bytes: &[u8]) -> Checked<Value> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0).map_err(|e| format!("not valid JSON: {e}"))
}

/// Decodes standard base64 with padding.
pub(super) fn base64(text: &str) -> Checked<Vec<u8>> {
    STANDARD.decode(text).map_err(|e| format!("not valid base64: {e}"))
}

/// Encodes as standard base64 with padding.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> de::Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let Strict(value) = access.next_value()?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!("key \"{}\" occurs twice", key.escape_default())));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

/// The fields of one object, taken out one by one; what is left at the end is not known.
pub(super) struct Fields {
    /// Where the object is, for messages.
    what: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The fields of an object.
    pub(super) fn of(what: impl Into<String>, value: Value) -> Checked<Self> {
        let what = what.into();
        match value {
            Value::Object(map) => Ok(Self { what, map }),
            _ => Err(format!("{what} is not an object")),
        }
    }

    /// Any field.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    /// A field that must be there.
    pub(super) fn need(&mut self, key: &str) -> Checked<Value> {
        self.take(key).ok_or_else(|| format!("{} has no \"{key}\"", self.what))
    }

    /// A string, if the field is there.
    pub(super) fn string(&mut self, key: &str) -> Checked<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("\"{key}\" of {} is not a string", self.what)),
        }
    }

    /// A string that must be there and not be empty.
    pub(super) fn text(&mut self, key: &str) -> Checked<String> {
        match self.string(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(format!("\"{key}\" of {} is empty", self.what)),
            None => Err(format!("{} has no \"{key}\"", self.what)),
        }
    }

    /// A list of strings, if the field is there; never an empty one.
    pub(super) fn strings(&mut self, key: &str) -> Checked<Option<Vec<String>>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let list: Option<Vec<String>> = value
            .as_array()
            .and_then(|list| list.iter().map(|entry| entry.as_str().map(str::to_owned)).collect());
        match list {
            Some(list) if !list.is_empty() => Ok(Some(list)),
            Some(_) => Err(format!("\"{key}\" of {} is empty", self.what)),
            None => Err(format!("\"{key}\" of {} is not a list of strings", self.what)),
        }
    }

    /// A path, if the field is there.
    pub(super) fn path(&mut self, key: &str) -> Checked<Option<PathBuf>> {
        match self.string(key)? {
            Some(text) if text.is_empty() => Err(format!("\"{key}\" of {} is empty", self.what)),
            text => Ok(text.map(PathBuf::from)),
        }
    }

    /// Bytes in base64, if the field is there.
    pub(super) fn bytes(&mut self, key: &str) -> Checked<Option<Vec<u8>>> {
        let text = self.string(key)?;
        text.map(|text| base64(&text).map_err(|e| format!("\"{key}\" of {}: {e}", self.what))).transpose()
    }

    /// Refuses what was not taken.
    pub(super) fn done(self) -> Checked<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("unknown field \"{}\" in {}", key.escape_default(), self.what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_occur_once_at_every_level() {
        assert_eq!(parse(br#"{"a":[1,-2,1.5,"x",null,true],"b":{}}"#).unwrap()["a"][3], "x");
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":[{"a":1,"b":{"c":1,"c":2}}]}"#,
            r#"{"a":1,"\u0061":2}"#,
            "{",
            "{} {}",
            "",
            &"[".repeat(100_000),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_taken_is_unknown() {
        let value = parse(br#"{"a":"x","p":"","l":[],"m":[1],"n":5,"k":"AAA","z":1}"#).unwrap();
        let mut fields = Fields::of("here", value).unwrap();
        assert_eq!(fields.text("a").unwrap(), "x");
        assert!(fields.path("p").is_err());
        assert!(fields.strings("l").is_err());
        assert!(fields.strings("m").is_err());
        assert!(fields.string("n").is_err());
        assert!(fields.bytes("k").unwrap_err().contains("\"k\" of here"));
        assert!(fields.need("q").is_err());
        assert_eq!(fields.done().unwrap_err(), "unknown field \"z\" in here");
        assert!(Fields::of("here", Value::Null).is_err());
    }
}
