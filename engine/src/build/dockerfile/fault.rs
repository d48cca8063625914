//! What is wrong with a Dockerfile, and where: the message, the lines, and an excerpt with a mark for people.

use std::fmt;
use std::fmt::Write as _;

/// Lines of context shown before and after the ones that are meant.
const AROUND: usize = 2;
/// Most lines of an excerpt that are meant themselves.
const MOST: usize = 12;
/// Most characters of a line that are shown.
const WIDEST: usize = 160;

/// Lines of a Dockerfile, counted from 1, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// The first one.
    pub first: usize,
    /// The last one.
    pub last: usize,
}

/// A mistake in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it is.
    pub lines: Lines,
    /// What it is, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// A word of the first line that is meant, to be marked.
    pub word: Option<String>,
}

impl Fault {
    /// A mistake at these lines.
    pub fn new(lines: Lines, message: impl Into<String>) -> Self {
        Self { lines, message: message.into(), hint: None, word: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the word that is meant.
    #[must_use]
    pub fn at(mut self, word: &str) -> Self {
        self.word = Some(word.to_owned());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dockerfile parse error on line {}: {}", self.lines.first, self.message)
    }
}

/// The lines that are meant with some around them, numbered and marked:
///
/// ```text
/// Dockerfile:2
/// --------------------
///    1 |     FROM scratch
///    2 | >>> RUNN true
///      |     ^^^^
/// --------------------
/// ```
pub fn excerpt(name: &str, text: &str, lines: Lines, word: Option<&str>) -> String {
    const RULE: &str = "--------------------\n";
    let mut out = format!("{name}:{}\n{RULE}", lines.first);
    let last = lines.last.max(lines.first);
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if number + AROUND < lines.first {
            continue;
        }
        if number > last + AROUND {
            break;
        }
        let meant = (lines.first..=last).contains(&number);
        if meant && number >= lines.first + MOST {
            if number == lines.first + MOST {
                out.push_str("     | ... \n");
            }
            continue;
        }
        let mark = if meant { ">>>" } else { "   " };
        // What a terminal would obey is not shown.
        let shown: String = line
            .chars()
            .take(WIDEST)
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        writeln!(out, "{number:4} | {mark} {shown}").ok();
        if number == lines.first
            && let Some(word) = word.filter(|word| !word.is_empty())
            && let Some(at) = line.find(word)
            && at < WIDEST
        {
            let before: String = line[..at].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(out, "     |     {before}{}", "^".repeat(word.chars().count().min(WIDEST))).ok();
        }
    }
    out.push_str(RULE);
    out
}

/// The part of the first of these lines that a message is probably about: the longest that it has in quotes, the longest
/// word that both have, or else the instruction.
pub fn marked(message: &str, text: &str, lines: Lines) -> Option<String> {
    let line = text.lines().nth(lines.first.checked_sub(1)?)?;
    let is_there = |part: &&str| !part.trim().is_empty() && line.contains(part);
    let quoted = ['\'', '"', '`'].into_iter().flat_map(|quote| message.split(quote).skip(1).step_by(2));
    let quoted = quoted.filter(is_there).max_by_key(|part| part.len());
    let words = message.split_whitespace().map(|word| word.trim_end_matches(['.', ':', ',', ';']));
    let words = || words.filter(is_there).filter(|word| word.len() > 2).max_by_key(|word| word.len());
    quoted.or_else(words).or_else(|| line.split_whitespace().next()).map(str::to_owned)
}

/// The one of `known` that was probably meant.
pub(in crate::build) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(40).collect();
    let distance = |other: &str| {
        let other: Vec<char> = other.chars().collect();
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (i, a) in word.iter().enumerate() {
            let mut corner = row[0];
            row[0] = i + 1;
            for (j, b) in other.iter().enumerate() {
                let next = (corner + usize::from(a != b)).min(row[j] + 1).min(row[j + 1] + 1);
                corner = row[j + 1];
                row[j + 1] = next;
            }
        }
        row[other.len()]
    };
    let (best, away) = known.iter().map(|known| (*known, distance(known))).min_by_key(|(_, away)| *away)?;
    (away <= 2 && away < best.len().max(2)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_marked() {
        let text = "FROM scratch\n\nRUNN \x1b[31mtrue\nCMD x\n";
        let shown = excerpt("Dockerfile", text, Lines { first: 3, last: 3 }, Some("RUNN"));
        assert_eq!(
            shown,
            "Dockerfile:3\n--------------------\n   1 |     FROM scratch\n   2 |     \n   3 | >>> RUNN \u{fffd}[31mtrue\n     |     ^^^^\n   4 |     CMD x\n--------------------\n"
        );
    }

    #[test]
    fn the_nearest_word() {
        let known = ["RUN", "COPY", "FROM"];
        assert_eq!(nearest("RUNN", &known), Some("RUN"));
        assert_eq!(nearest("FORM", &known), Some("FROM"));
        assert_eq!(nearest("INCLUDE", &known), None);
    }
}
