//! Signals by name and number, as Linux counts them on every host: a container's stop signal is part of its image.

use std::fmt;
use std::str::FromStr;

/// A signal, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

/// Names in the order of their numbers, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(1);
    /// Ctrl-C.
    pub const INT: Self = Self(2);
    /// Abort, as a Wasm trap ends.
    pub const ABRT: Self = Self(6);
    /// Cannot be caught.
    pub const KILL: Self = Self(9);
    /// The polite end.
    pub const TERM: Self = Self(15);
    /// Goes on after [`Signal::STOP`].
    pub const CONT: Self = Self(18);
    /// Stops until [`Signal::CONT`]; cannot be caught.
    pub const STOP: Self = Self(19);

    /// The signal of this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        (1..=64).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// The text names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct InvalidSignal(pub String);

impl FromStr for Signal {
    type Err = InvalidSignal;

    /// Accepts `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`, `RTMAX-1`, as Docker does.
    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.to_owned());
        if let Ok(number) = text.parse::<u8>() {
            return Self::from_number(number).ok_or_else(invalid);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return u8::try_from(index + 1).map(Self).map_err(|_| invalid());
        }
        let real_time = |prefix: &str, base: u8, sign: char| {
            let rest = name.strip_prefix(prefix)?;
            let offset = match rest.strip_prefix(sign) {
                Some(offset) => offset.parse::<u8>().ok().filter(|offset| *offset <= 30)?,
                None if rest.is_empty() => 0,
                None => return None,
            };
            Self::from_number(if sign == '+' { base + offset } else { base - offset })
        };
        real_time("RTMIN", 34, '+').or_else(|| real_time("RTMAX", 64, '-')).ok_or_else(invalid)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= 34 => write!(f, "SIGRTMIN+{}", self.0 - 34),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sigint", 2), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "SIG", "NOPE", "RTMIN+31", "-1", "RTMIN3"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
    }
}
