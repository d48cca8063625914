//! Protobuf's wire format, as far as containerd's messages need it: `message!` makes a struct that can be written and read.
//!
//! As proto3 has it: what is zero or empty is not written, what is not known is passed over, the last of several values
//! counts. Nothing in here recurses deeper than messages are declared.

use std::collections::HashMap;

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub(crate) struct Malformed;

/// One value on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed length: nothing that is read here.
    Other,
}

/// A struct with numbered fields.
pub(crate) trait Message: Default {
    /// Appends its fields.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes one field in.
    fn take(&mut self, number: u32, value: Value<'_>) -> Result<(), Malformed>;

    /// Its bytes.
    fn encode_to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads one.
    fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0).ok_or(Malformed)?;
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)?),
                1 => fixed(&mut bytes, 8)?,
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
                    let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
                    bytes = rest;
                    Value::Bytes(value)
                }
                5 => fixed(&mut bytes, 4)?,
                _ => return Err(Malformed),
            };
            message.take(number, value)?;
        }
        Ok(message)
    }
}

fn fixed(bytes: &mut &[u8], length: usize) -> Result<Value<'static>, Malformed> {
    *bytes = bytes.get(length..).ok_or(Malformed)?;
    Ok(Value::Other)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        if shift < 64 {
            number |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_varint(u64::from(number) << 3, out);
        put_varint(value, out);
    }
}

fn put_bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// What a field can be.
pub(crate) trait Field {
    fn write(&self, number: u32, out: &mut Vec<u8>);
    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed>;
}

/// Whole numbers, which are cut to their length as protobuf says.
macro_rules! numbers {
    ($($kind:ty: $to:expr, $from:expr;)*) => { $(
        impl Field for $kind {
            fn write(&self, number: u32, out: &mut Vec<u8>) {
                put_number(number, $to(*self), out);
            }

            fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
                let Value::Number(value) = value else { return Err(Malformed) };
                *self = $from(value);
                Ok(())
            }
        }
    )* };
}

numbers! {
    u64: |value: u64| value, |value: u64| value;
    u32: u64::from, |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    i64: i64::cast_unsigned, u64::cast_signed;
    i32: |value: i32| i64::from(value).cast_unsigned(),
        |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0).cast_signed();
    bool: u64::from, |value: u64| value != 0;
}

impl Field for String {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_bytes(number, self.as_bytes(), out);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let Value::Bytes(value) = value else { return Err(Malformed) };
        std::str::from_utf8(value).map_err(|_| Malformed)?.clone_into(self);
        Ok(())
    }
}

impl Field for Vec<u8> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_bytes(number, self, out);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let Value::Bytes(value) = value else { return Err(Malformed) };
        value.clone_into(self);
        Ok(())
    }
}

impl Field for Option<String> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(text) = self {
            put_bytes(number, text.as_bytes(), out);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        self.get_or_insert_default().take(value)
    }
}

impl Field for Vec<String> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        self.iter().for_each(|text| put_bytes(number, text.as_bytes(), out));
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let mut text = String::new();
        text.take(value)?;
        self.push(text);
        Ok(())
    }
}

impl Field for Vec<u64> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            let mut packed = Vec::new();
            self.iter().for_each(|value| put_varint(*value, &mut packed));
            put_bytes(number, &packed, out);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        match value {
            Value::Number(value) => self.push(value),
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    self.push(varint(&mut packed)?);
                }
            }
            Value::Other => return Err(Malformed),
        }
        Ok(())
    }
}

impl<M: Message> Field for Option<M> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(message) = self {
            put_bytes(number, &message.encode_to_vec(), out);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let Value::Bytes(value) = value else { return Err(Malformed) };
        *self = Some(M::decode(value)?);
        Ok(())
    }
}

impl<M: Message> Field for Vec<M> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        self.iter().for_each(|message| put_bytes(number, &message.encode_to_vec(), out));
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let Value::Bytes(value) = value else { return Err(Malformed) };
        self.push(M::decode(value)?);
        Ok(())
    }
}

impl Field for HashMap<String, String> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            let entry = Entry { key: key.clone(), value: value.clone() };
            put_bytes(number, &entry.encode_to_vec(), out);
        }
    }

    fn take(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let Value::Bytes(value) = value else { return Err(Malformed) };
        let Entry { key, value } = Entry::decode(value)?;
        self.insert(key, value);
        Ok(())
    }
}

/// Makes a struct a message: the number of each field stands before it.
macro_rules! message {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $number:literal $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(crate) struct $name { $($(#[$of])* pub(crate) $field: $kind,)* }

        impl $crate::wire::Message for $name {
            #[allow(unused_variables, reason = "some have no fields")]
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::wire::Field::write(&self.$field, $number, out);)*
            }

            #[allow(unused_variables, clippy::match_single_binding, reason = "some have no fields")]
            fn take(&mut self, number: u32, value: $crate::wire::Value<'_>) -> Result<(), $crate::wire::Malformed> {
                match number {
                    $($number => $crate::wire::Field::take(&mut self.$field, value),)*
                    _ => Ok(()),
                }
            }
        }
    };
}
pub(crate) use message;

message! {
    /// One pair of a map.
    Entry {
        1 key: String,
        2 value: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    message! {
        Inner {
            1 number: i32,
        }
    }

    message! {
        Outer {
            1 text: String,
            2 number: u64,
            3 small: u32,
            4 yes: bool,
            5 bytes: Vec<u8>,
            6 inner: Option<Inner>,
            7 list: Vec<Inner>,
            8 words: Vec<String>,
            9 packed: Vec<u64>,
            10 map: HashMap<String, String>,
            300 far: i64,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let full = Outer {
            text: "text".into(),
            number: u64::MAX,
            small: 300,
            yes: true,
            bytes: vec![0, 255],
            inner: Some(Inner { number: -1 }),
            list: vec![Inner::default(), Inner { number: 7 }],
            words: vec![String::new(), "b".into()],
            packed: vec![0, 1, 300],
            map: HashMap::from([("k".to_owned(), "v".to_owned())]),
            far: -5,
        };
        for message in [Outer::default(), full] {
            assert_eq!(Outer::decode(&message.encode_to_vec()), Ok(message));
        }
        assert_eq!(Outer::default().encode_to_vec(), b"");
        // As protobuf's own documentation has it.
        assert_eq!(Outer { small: 150, ..Outer::default() }.encode_to_vec(), [0x18, 0x96, 0x01]);
        assert_eq!(Inner { number: -2 }.encode_to_vec().len(), 11);
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        // A number, eight bytes, text and four bytes of fields that there are not.
        let bytes =
            [0xa0, 0x06, 1, 0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0xa2, 0x06, 1, b'x', 0xa5, 0x06, 1, 2, 3, 4];
        assert_eq!(Outer::decode(&bytes), Ok(Outer::default()));
        // Packed or not.
        assert_eq!(Outer::decode(&[0x48, 1, 0x48, 2]).unwrap().packed, [1, 2]);
    }

    #[test]
    fn what_is_none_is_refused() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, b'x'],
            &[0x0a, 1, 0xff],
            &[0x08, 1],
            &[0x10],
            &[0x03],
            &[0x00, 0],
            &[0x80; 11],
            &[0x32, 2, 0x08],
            &[0x31, 1],
        ] {
            assert_eq!(Outer::decode(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
