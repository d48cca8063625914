//! `--chmod`: an octal number, or the symbolic form of the `chmod` program.

/// What becomes of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `u+rwX` and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// The bits of whom it is about, all nine for everybody.
    who: u32,
    sign: char,
    /// `r`, `w`, `x` for all three.
    bits: u32,
    /// `X`: execution where it makes sense.
    sensible: bool,
    special: u32,
}

impl Mode {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(bad);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let at = part.find(['+', '-', '=']).ok_or_else(bad)?;
            let (mut who, mut special_who) = (0, 0);
            for c in part[..at].chars() {
                let (bits, special) = match c {
                    'u' => (0o700, 0o4000),
                    'g' => (0o070, 0o2000),
                    'o' => (0o007, 0),
                    'a' => (0o777, 0o6000),
                    _ => return Err(bad()),
                };
                who |= bits;
                special_who |= special;
            }
            if who == 0 {
                (who, special_who) = (0o777, 0o6000);
            }
            let sign = part[at..].chars().next().ok_or_else(bad)?;
            let mut clause = Clause { who, sign, bits: 0, sensible: false, special: 0 };
            for c in part[at + 1..].chars() {
                match c {
                    'r' => clause.bits |= 0o444,
                    'w' => clause.bits |= 0o222,
                    'x' => clause.bits |= 0o111,
                    'X' => clause.sensible = true,
                    's' => clause.special |= special_who,
                    't' => clause.special |= 0o1000,
                    _ => return Err(bad()),
                }
            }
            clauses.push(clause);
        }
        Ok(Self::Symbolic(clauses))
    }

    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| {
                let mut bits = clause.bits;
                if clause.sensible && (is_dir || mode & 0o111 != 0) {
                    bits |= 0o111;
                }
                let bits = (bits & clause.who) | clause.special;
                match clause.sign {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => (mode & !clause.who) | bits,
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, before, is_dir, after) in [
            ("755", 0o600, false, 0o755),
            ("0444", 0o777, true, 0o444),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("u+s", 0o755, false, 0o4755),
            ("o=", 0o757, false, 0o750),
        ] {
            assert_eq!(Mode::parse(text).unwrap().apply(before, is_dir), after, "{text}");
        }
        for bad in ["8", "77777", "x+r", "u", "u+q", ""] {
            assert!(bad.is_empty() || Mode::parse(bad).is_err(), "{bad}");
        }
    }
}
