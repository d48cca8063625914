//! The runtime's command line as Go programs take it: long options with one dash or two, values after `=` or a space,
//! options before and after other words.

use super::{Failure, Global, Outcome, failed};
use crate::ui::Ui;

/// A verb.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) run: fn(Ui, &Global, Vec<String>) -> Outcome,
}

/// An option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) long: &'static str,
    pub(super) short: &'static str,
    takes_value: bool,
}

/// An option that is there or not.
pub(super) const fn switch(long: &'static str, short: &'static str) -> Flag {
    Flag { long, short, takes_value: false }
}

/// An option with a value.
pub(super) const fn value(long: &'static str, short: &'static str) -> Flag {
    Flag { long, short, takes_value: true }
}

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Given {
    flags: Vec<(&'static str, String)>,
    words: Vec<String>,
}

impl Given {
    /// Sorts words into options and others. After `most` other words the next one that is no option ends it: that and all
    /// behind it is taken as it is.
    pub(super) fn parse(known: &[Flag], words: Vec<String>, most: Option<usize>) -> Result<Self, Wrong> {
        let mut given = Self::default();
        let mut rest = words.into_iter();
        while let Some(word) = rest.next() {
            let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let Some(name) = name.filter(|_| word != "-") else {
                given.words.push(word);
                if most.is_some_and(|most| given.words.len() > most) {
                    break;
                }
                continue;
            };
            if word == "--" {
                break;
            }
            let (name, mut attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            for flag in find(known, &word, name)? {
                let value = match (flag.takes_value, attached.take()) {
                    (true, Some(value)) => value,
                    (true, None) => rest.next().ok_or(Wrong::NoValue(flag.long))?,
                    (false, value) => value.unwrap_or_else(|| "true".to_owned()),
                };
                given.flags.push((flag.long, value));
            }
        }
        given.words.extend(rest);
        Ok(given)
    }

    /// Whether a switch is on.
    pub(super) fn has(&self, long: &str) -> bool {
        self.text(long).is_some_and(|value| !matches!(value, "false" | "0" | "f" | "F" | "FALSE" | "False"))
    }

    /// The last value of an option.
    pub(super) fn text(&self, long: &str) -> Option<&str> {
        self.flags.iter().rfind(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values of an option.
    pub(super) fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// The number that is the value of an option.
    pub(super) fn number<N: std::str::FromStr>(&self, long: &'static str) -> Result<Option<N>, Failure> {
        let Some(text) = self.text(long) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| failed(format!("invalid value {text:?} for flag -{long}")))
    }

    /// The words that are no options.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// The one word that has to be there.
    pub(super) fn id(&self, verb: &str) -> Result<&str, Failure> {
        match self.words.as_slice() {
            [id] => Ok(id),
            _ => Err(failed(format!("{verb}: \"dhow oci {verb}\" requires exactly 1 argument"))),
        }
    }
}

/// Which options a word stands for: one by its name, or several of one letter each, of which only the last may take a
/// value.
fn find(known: &[Flag], word: &str, name: &str) -> Result<Vec<Flag>, Wrong> {
    if let Some(flag) =
        known.iter().find(|flag| flag.long == name || (flag.short == name && !name.is_empty()))
    {
        return Ok(vec![*flag]);
    }
    let unknown = || Wrong::Unknown(word.to_owned());
    if word.starts_with("--") {
        return Err(unknown());
    }
    let letter = |letter: char| {
        let mut text = [0; 4];
        let text: &str = letter.encode_utf8(&mut text);
        known.iter().find(|flag| flag.short == text).copied()
    };
    let flags = name.chars().map(letter).collect::<Option<Vec<_>>>().ok_or_else(unknown)?;
    let Some((_, first)) = flags.split_last() else { return Err(unknown()) };
    if first.iter().any(|flag| flag.takes_value) { Err(unknown()) } else { Ok(flags) }
}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("flag provided but not defined: {0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 4] =
        [value("bundle", "b"), switch("tty", "t"), switch("detach", "d"), value("env", "e")];

    fn parse(line: &str, most: Option<usize>) -> Result<Given, Wrong> {
        Given::parse(&FLAGS, line.split(' ').map(str::to_owned).collect(), most)
    }

    #[test]
    fn options_stand_anywhere() {
        for line in
            ["--bundle /b -t id", "id -b /b --tty", "-bundle=/b id -tty", "--bundle=/b -dt id", "id -tb /b"]
        {
            let given = parse(line, None).unwrap();
            assert_eq!(
                (given.text("bundle"), given.has("tty"), given.words()),
                (Some("/b"), true, ["id".to_owned()].as_slice()),
                "{line}"
            );
        }
        assert!(!parse("--tty=false id", None).unwrap().has("tty"));
        let given = parse("-e A=1 --env B=2", None).unwrap();
        assert_eq!(given.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let given = parse("-t id -d ls -l --tty -- x", Some(1)).unwrap();
        assert_eq!(given.words().join(" "), "id ls -l --tty -- x");
        assert!(given.has("detach"));
        assert_eq!(parse("id -- -t", None).unwrap().words().join(" "), "id -t");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("--nope id", None).unwrap_err(), Wrong::Unknown("--nope".into()));
        assert_eq!(parse("-bt id", None).unwrap_err(), Wrong::Unknown("-bt".into()));
        assert_eq!(parse("id --bundle", None).unwrap_err(), Wrong::NoValue("bundle"));
    }
}
