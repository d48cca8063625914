//! The keys by which a user leaves a container's terminal without ending anything: Docker's `--detach-keys`.

use crate::error::{Error, Result};

/// A sequence of keys, and how much of it has been typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl Default for DetachKeys {
    /// Ctrl-P, Ctrl-Q.
    fn default() -> Self {
        Self { keys: vec![0x10, 0x11], typed: 0 }
    }
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`, `ctrl-@`, `a,b`: characters and `ctrl-` with one, separated by commas.
    ///
    /// # Errors
    /// Docker's message for what is no key.
    pub fn parse(text: &str) -> Result<Self> {
        let key = |name: &str| match name.as_bytes() {
            [one] => Ok(*one),
            [b'c', b't', b'r', b'l', b'-', control] => match control {
                b'a'..=b'z' => Ok(control - b'a' + 1),
                b'@' => Ok(0),
                b'['..=b'_' => Ok(control - b'[' + 27),
                _ => Err(Error::Invalid(format!("Unknown character: '{name}'"))),
            },
            _ => Err(Error::Invalid(format!("Unknown character: '{name}'"))),
        };
        let keys = text.split(',').map(key).collect::<Result<Vec<u8>>>();
        let keys = keys.map_err(|error| Error::Invalid(format!("invalid detach keys ({text}): {error}")))?;
        Ok(Self { keys, typed: 0 })
    }

    /// Takes what was typed; gives what of it is for the container, and whether the sequence is complete. Keys that
    /// begin the sequence are kept back until it is clear that it is another one.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut text = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (text, true);
                }
                continue;
            }
            text.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(*byte == self.keys[0]);
            if self.typed == 0 {
                text.push(*byte);
            }
        }
        (text, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        for (text, keys) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("a", b"a"),
            ("ctrl-@,x", b"\0x"),
            ("ctrl-[,ctrl-_", &[27, 31]),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().keys, keys, "{text}");
        }
        for bad in ["", "ctrl-", "ctrl-A", "ab", "a,,b", "ctrl-p,", "\u{fc}"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_whole_sequence_leaves() {
        let mut keys = DetachKeys::parse("x,y").unwrap();
        for (typed, text, leaves) in [
            (&b"ab"[..], &b"ab"[..], false),
            (b"x", b"", false),
            (b"a", b"xa", false),
            (b"xxy", b"x", true),
            (b"ax", b"a", false),
            (b"y", b"", true),
            (b"yxz", b"yxz", false),
        ] {
            assert_eq!(keys.filter(typed), (text.to_vec(), leaves), "{typed:?}");
        }
    }
}
