//! `.dockerignore`: which paths of a context are not sent. The last line that fits decides; `!` takes a path back.

use super::dockerfile::glob::Pattern;

/// Most lines that are read.
const MAX_LINES: usize = 10_000;

/// The lines of an ignore file, or of `--exclude`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    text: String,
    back: bool,
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// A pattern that is none, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ignore = Self::default();
        for (number, line) in text.lines().enumerate() {
            if number >= MAX_LINES {
                return Err(format!("more than {MAX_LINES} lines"));
            }
            if line.starts_with('#') {
                continue;
            }
            ignore.add(line).map_err(|reason| format!("line {}: {reason}", number + 1))?;
        }
        Ok(ignore)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn add(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim();
        let (back, text) = match line.strip_prefix('!') {
            Some("") => return Err("illegal exclusion pattern: \"!\"".to_owned()),
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let text = cleaned(text);
        if text.is_empty() {
            return Ok(());
        }
        self.rules.push(Rule { pattern: Pattern::parse(&text, true)?, text, back });
        Ok(())
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path of the context, without a slash at its beginning, is left out.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            // A rule that changes nothing is not looked at.
            if rule.back == ignored && rule.pattern.matches_or_above(path) {
                ignored = !rule.back;
            }
        }
        ignored
    }

    /// Whether something below an ignored directory may be taken back.
    pub fn may_take_back_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.rules.iter().filter(|rule| rule.back).any(|rule| {
            let fixed =
                rule.text.find(['*', '?', '[', '\\']).map_or(rule.text.as_str(), |at| &rule.text[..at]);
            fixed.starts_with(&below) || below.starts_with(fixed)
        })
    }
}

/// Without `.`, `..`, doubled slashes and those at the ends, as Go's `filepath.Clean` has it.
fn cleaned(text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_s_semantics() {
        for (lines, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a/b", true),
            ("*.o", "x.o", true),
            ("*.o", "d/x.o", false),
            ("**/*.o", "d/e/x.o", true),
            ("*/t*", "a/tmp/x", true),
            ("*/t*", "a/b/tmp", false),
            ("# x\n\n  a  ", "a", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "keep/x", false),
            ("*\n!keep\nkeep/no", "keep/no", true),
            ("d\n!d/x", "d/x", false),
            ("d\n!d/x", "d/y", true),
            ("./a/../b", "b", true),
            ("!a", "a", false),
            ("[ab]", "b", true),
            ("a?c", "abc", true),
            ("**", "any/thing", true),
            ("**/x/**", "a/x/b", true),
        ] {
            assert_eq!(Ignore::parse(lines).unwrap().ignores(path), expected, "{lines:?} {path}");
        }
        assert!(Ignore::parse("!").is_err() && Ignore::parse("[a").is_err());
    }

    #[test]
    fn what_is_within_an_ignored_directory() {
        let ignore = Ignore::parse("*\n!src/lib/*.c").unwrap();
        assert!(ignore.may_take_back_below("src") && ignore.may_take_back_below("src/lib"));
        assert!(!ignore.may_take_back_below("node_modules"));
    }
}
