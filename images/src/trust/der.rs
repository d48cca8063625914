//! A reader for DER, as far as certificates and signatures need it.
//!
//! Strict where it matters: definite and shortest lengths, one-byte tags, nothing beyond the input. It holds slices
//! of the input only, and its callers know the structure, so neither memory nor depth depend on the input. Not a
//! general ASN.1 library.

use super::Checked;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// The tag of an explicit or constructed context field.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The tag of an implicit, primitive context field.
pub(super) const fn implicit(number: u8) -> u8 {
    0x80 | number
}

/// One element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// What is in it.
    pub(super) content: &'a [u8],
    /// All of it, with tag and length.
    pub(super) whole: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, whatever it is.
    pub(super) fn next(&mut self) -> Checked<Element<'a>> {
        let broken = || "not valid DER".to_owned();
        let (&tag, after_tag) = self.rest.split_first().ok_or_else(broken)?;
        if tag & 0x1f == 0x1f {
            return Err("not valid DER: long tags are not used here".into());
        }
        let (&first, mut after) = after_tag.split_first().ok_or_else(broken)?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let (bytes, rest) = after.split_at_checked(count).ok_or_else(broken)?;
                after = rest;
                let length = bytes.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
                // The shortest form is the only one.
                if bytes[0] == 0 || length < 0x80 {
                    return Err(broken());
                }
                length
            }
            _ => return Err(broken()),
        };
        let (content, rest) = after.split_at_checked(length).ok_or_else(broken)?;
        let whole = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Ok(Element { tag, content, whole })
    }

    /// The next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Checked<Element<'a>> {
        let element = self.next()?;
        if element.tag != tag {
            return Err(format!("not valid DER: tag {:#04x} where {tag:#04x} is expected", element.tag));
        }
        Ok(element)
    }

    /// The next element if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Checked<Option<Element<'a>>> {
        if self.peek() == Some(tag) { self.next().map(Some) } else { Ok(None) }
    }

    /// The elements of the next element, which must have this tag.
    pub(super) fn enter(&mut self, tag: u8) -> Checked<Self> {
        Ok(Self::new(self.expect(tag)?.content))
    }

    /// The whole bytes of the next bit string.
    pub(super) fn bits(&mut self) -> Checked<&'a [u8]> {
        match self.expect(BIT_STRING)?.content.split_first() {
            Some((0, bits)) => Ok(bits),
            _ => Err("not valid DER: a bit string of whole bytes is expected".into()),
        }
    }

    /// The next time, in seconds since 1970.
    pub(super) fn time(&mut self) -> Checked<i64> {
        let element = self.next()?;
        let text = std::str::from_utf8(element.content).map_err(|_| "not valid DER: a time".to_owned())?;
        match element.tag {
            UTC_TIME if text.len() == 13 => {
                let century = if text.as_bytes()[0] >= b'5' { "19" } else { "20" };
                super::time::compact(&format!("{century}{text}"))
            }
            GENERALIZED_TIME => super::time::compact(text),
            _ => None,
        }
        .ok_or_else(|| format!("not a time: \"{}\"", text.escape_default()))
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Checked<()> {
        if self.rest.is_empty() { Ok(()) } else { Err("not valid DER: something follows the end".into()) }
    }
}

/// One element with this content.
pub(super) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = length.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &length[at..]);
    match significant {
        [] => out.push(0),
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend(long);
        }
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_encoding_for_each_value() {
        for (bytes, good) in [
            (&[0x30, 0x00][..], true),
            (&[0x30, 0x80, 0x00, 0x00], false),
            (&[0x30, 0x81, 0x01, 0x00], false),
            (&[0x30, 0x82, 0x00, 0x80], false),
            (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], false),
            (&[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1], false),
            (&[0x1f, 0x01, 0x00], false),
            (&[0x30, 0x05, 0x00], false),
            (&[0x30], false),
            (&[], false),
        ] {
            assert_eq!(Reader::new(bytes).next().is_ok(), good, "{bytes:?}");
        }
        assert!(Reader::new(&[3, 2, 1, 0]).bits().is_err());
        assert!(Reader::new(&[3, 0]).bits().is_err());
    }

    #[test]
    fn times() {
        let time = |tag, text: &str| Reader::new(&wrap(tag, text.as_bytes())).time();
        assert_eq!(time(UTC_TIME, "700101000000Z").unwrap(), 0);
        assert_eq!(time(GENERALIZED_TIME, "20261121031500Z").unwrap(), 1_795_230_900);
        for bad in ["700101000000", "7001010000Z", "701301000000Z", "70010100000éZ"] {
            assert!(time(UTC_TIME, bad).is_err(), "{bad}");
        }
        assert!(time(OID, "700101000000Z").is_err());
    }

    proptest! {
        #[test]
        fn what_is_wrapped_is_read_back(content in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let whole = wrap(SEQUENCE, &content);
            let mut reader = Reader::new(&whole);
            let element = reader.next().unwrap();
            prop_assert_eq!(element.content, content.as_slice());
            prop_assert_eq!(element.whole, whole.as_slice());
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn garbage_ends_in_an_error_or_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while reader.next().is_ok() {}
        }
    }
}
