//! Words of instructions: variables with all their modifiers, quotes and escapes.
//!
//! This is the Dockerfile's own small language, not a shell's: nothing is run, and there is no globbing.

use super::glob::shell_match;

/// Where the values of variables come from.
pub trait Scope {
    /// The value, if the variable is set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Scope for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Most bytes that a word may become.
const MAX_RESULT: usize = 1 << 20;
/// Most modifiers within each other.
const MAX_DEPTH: usize = 32;

/// Expands a word: variables become their values, quotes and escapes go.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn word(text: &str, escape: char, scope: &dyn Scope) -> Result<String, String> {
    let mut words = Expander::new(text, escape, scope, true).run()?;
    Ok(words.pop().unwrap_or_default())
}

/// As [`word`], where what is expanded outside quotes may become several words, or none.
///
/// # Errors
/// As [`word`].
pub fn words(text: &str, escape: char, scope: &dyn Scope) -> Result<Vec<String>, String> {
    Expander::new(text, escape, scope, false).run()
}

/// As [`word`] for the text of a here-document: quotes mean nothing.
///
/// # Errors
/// As [`word`].
pub fn heredoc(text: &str, escape: char, scope: &dyn Scope) -> Result<String, String> {
    let mut expander = Expander::new(text, escape, scope, true);
    expander.raw_quotes = true;
    Ok(expander.run()?.pop().unwrap_or_default())
}

struct Expander<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    scope: &'a dyn Scope,
    whole: bool,
    raw_quotes: bool,
    words: Vec<String>,
    word: Option<String>,
    length: usize,
}

impl<'a> Expander<'a> {
    fn new(text: &str, escape: char, scope: &'a dyn Scope, whole: bool) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            escape,
            scope,
            whole,
            raw_quotes: false,
            words: Vec::new(),
            word: None,
            length: 0,
        }
    }

    fn run(mut self) -> Result<Vec<String>, String> {
        while let Some(here) = self.peek() {
            match here {
                '\'' if !self.raw_quotes => {
                    self.at += 1;
                    self.word.get_or_insert_default();
                    loop {
                        match self
                            .next()
                            .ok_or("unexpected end of statement while looking for matching single-quote")?
                        {
                            '\'' => break,
                            c => self.put(c)?,
                        }
                    }
                }
                '"' if !self.raw_quotes => {
                    self.at += 1;
                    self.word.get_or_insert_default();
                    self.double_quoted()?;
                }
                '$' => {
                    let value = self.dollar(0)?;
                    self.put_value(&value)?;
                }
                c if c == self.escape => {
                    self.at += 1;
                    match self.next() {
                        Some(c) if self.raw_quotes && c != '$' && c != self.escape => {
                            self.put(self.escape)?;
                            self.put(c)?;
                        }
                        Some(c) => self.put(c)?,
                        // At the very end it stands for itself.
                        None => self.put(self.escape)?,
                    }
                }
                c if c.is_whitespace() && !self.whole => {
                    self.at += 1;
                    self.end_word();
                }
                c => {
                    self.at += 1;
                    self.put(c)?;
                }
            }
        }
        self.end_word();
        Ok(self.words)
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn put(&mut self, c: char) -> Result<(), String> {
        self.length += c.len_utf8();
        if self.length > MAX_RESULT {
            return Err(format!("a word becomes longer than {MAX_RESULT} bytes"));
        }
        self.word.get_or_insert_default().push(c);
        Ok(())
    }

    fn put_all(&mut self, text: &str) -> Result<(), String> {
        text.chars().try_for_each(|c| self.put(c))
    }

    /// A value outside quotes.
    fn put_value(&mut self, value: &str) -> Result<(), String> {
        if self.whole {
            return self.put_all(value);
        }
        for (number, part) in value.split(char::is_whitespace).enumerate() {
            if number > 0 {
                self.end_word();
            }
            if !part.is_empty() {
                self.put_all(part)?;
            }
        }
        Ok(())
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.peek().ok_or("unexpected end of statement while looking for matching double-quote")? {
                '"' => {
                    self.at += 1;
                    return Ok(());
                }
                '$' => {
                    let value = self.dollar(0)?;
                    self.put_all(&value)?;
                }
                c if c == self.escape => {
                    self.at += 1;
                    match self.next() {
                        Some(c) if c == '"' || c == '$' || c == self.escape => self.put(c)?,
                        Some(c) => {
                            self.put(self.escape)?;
                            self.put(c)?;
                        }
                        None => {
                            return Err(
                                "unexpected end of statement while looking for matching double-quote".into(),
                            );
                        }
                    }
                }
                c => {
                    self.at += 1;
                    self.put(c)?;
                }
            }
        }
    }

    /// From a `$`: what it stands for.
    fn dollar(&mut self, depth: usize) -> Result<String, String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".to_owned()
            } else {
                self.scope.get(&name).unwrap_or_default()
            });
        }
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} modifiers within each other"));
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err("bad substitution: there is no name in `${...}`".to_owned());
        }
        let value = self.scope.get(&name);
        let unclosed = || format!("syntax error: missing '}}' after `${{{name}`");
        let modifier = self.next().ok_or_else(unclosed)?;
        match modifier {
            '}' => Ok(value.unwrap_or_default()),
            ':' | '+' | '-' | '?' => {
                let not_empty = modifier == ':';
                let kind = if not_empty { self.next().ok_or_else(unclosed)? } else { modifier };
                if !"+-?".contains(kind) {
                    return Err(format!("unsupported modifier ({kind}) in substitution of {name}"));
                }
                let word = self.until("}", depth, true)?;
                let set = value.as_ref().is_some_and(|value| !not_empty || !value.is_empty());
                match kind {
                    '+' => Ok(if set { word } else { String::new() }),
                    '-' => Ok(if set { value.unwrap_or_default() } else { word }),
                    _ if set => Ok(value.unwrap_or_default()),
                    _ => {
                        let why = if word.is_empty() { "is not allowed to be unset" } else { word.as_str() };
                        Err(format!("{name}: {why}"))
                    }
                }
            }
            '#' | '%' => {
                let greedy = self.peek() == Some(modifier);
                if greedy {
                    self.at += 1;
                }
                let pattern = self.until("}", depth, false)?;
                Ok(trimmed(&value.unwrap_or_default(), &pattern, modifier == '#', greedy))
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.at += 1;
                }
                let pattern = self.until("/}", depth, false)?;
                let replacement = if self.chars.get(self.at.wrapping_sub(1)) == Some(&'/') {
                    self.until("}", depth, true)?
                } else {
                    String::new()
                };
                replaced(&value.unwrap_or_default(), &pattern, &replacement, all)
            }
            other => Err(format!("unsupported modifier ({other}) in substitution of {name}")),
        }
    }

    /// Everything to one of these characters, expanded; the character is taken.
    fn until(&mut self, ends: &str, depth: usize, unescape: bool) -> Result<String, String> {
        let mut out = String::new();
        loop {
            if out.len() > MAX_RESULT {
                return Err(format!("a word becomes longer than {MAX_RESULT} bytes"));
            }
            match self.peek().ok_or("syntax error: missing '}' in a substitution")? {
                c if ends.contains(c) => {
                    self.at += 1;
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar(depth + 1)?),
                quote @ ('\'' | '"') if unescape && !self.raw_quotes => {
                    self.at += 1;
                    loop {
                        match self
                            .peek()
                            .ok_or("unexpected end of statement while looking for a matching quote")?
                        {
                            c if c == quote => {
                                self.at += 1;
                                break;
                            }
                            '$' if quote == '"' => out.push_str(&self.dollar(depth + 1)?),
                            c => {
                                self.at += 1;
                                out.push(c);
                            }
                        }
                    }
                }
                c if c == self.escape => {
                    self.at += 1;
                    // A pattern's escapes are the pattern's business, but for those of what ends it.
                    match self.next().ok_or("syntax error: missing '}' in a substitution")? {
                        c if unescape || ends.contains(c) => out.push(c),
                        c => {
                            out.push('\\');
                            out.push(c);
                        }
                    }
                }
                c => {
                    self.at += 1;
                    out.push(c);
                }
            }
        }
    }

    /// A name, or a single digit or sign as the shell has them.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let first = name.is_empty();
            if c.is_ascii_alphabetic() || c == '_' || (!first && c.is_ascii_digit()) {
                name.push(c);
                self.at += 1;
            } else if first && (c.is_ascii_digit() || "@*#".contains(c)) {
                self.at += 1;
                return c.to_string();
            } else {
                break;
            }
        }
        name
    }
}

/// The ends of all characters, and 0.
fn boundaries(text: &str) -> Vec<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
}

fn trimmed(value: &str, pattern: &str, front: bool, greedy: bool) -> String {
    let mut cuts = boundaries(value);
    // Shortest first from either end.
    if front == greedy {
        cuts.reverse();
    }
    for cut in cuts {
        let (start, end) = value.split_at(cut);
        if front && shell_match(pattern, start) {
            return end.to_owned();
        }
        if !front && shell_match(pattern, end) {
            return start.to_owned();
        }
    }
    value.to_owned()
}

fn replaced(value: &str, pattern: &str, replacement: &str, all: bool) -> Result<String, String> {
    let mut out = String::new();
    let cuts = boundaries(value);
    let mut at = 0;
    while at < cuts.len() {
        let longest =
            (at + 1..cuts.len()).rev().find(|end| shell_match(pattern, &value[cuts[at]..cuts[*end]]));
        match longest {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                if !all {
                    out.push_str(&value[cuts[at]..]);
                    return Ok(out);
                }
            }
            None => {
                let end = cuts.get(at + 1).copied().unwrap_or(value.len());
                out.push_str(&value[cuts[at]..end]);
                at += 1;
            }
        }
        if out.len() > MAX_RESULT {
            return Err(format!("a word becomes longer than {MAX_RESULT} bytes"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(name: &str) -> Option<String> {
        Some(match name {
            "A" => "value".to_owned(),
            "E" => String::new(),
            "P" => "/usr/local/lib/x.tar.gz".to_owned(),
            "S" => "one two".to_owned(),
            _ => return None,
        })
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("$A", "value"),
            ("${A}x", "valuex"),
            ("$Ax", ""),
            ("$U", ""),
            ("\\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A\"", "value"),
            ("\"a\\\"b\\c\"", "a\"b\\c"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("a$", "a$"),
            ("${U:-d}", "d"),
            ("${E:-d}", "d"),
            ("${E-d}", ""),
            ("${U-d}", "d"),
            ("${A:+y}", "y"),
            ("${E:+y}", ""),
            ("${E+y}", "y"),
            ("${U+y}", ""),
            ("${U:-${A}}", "value"),
            ("${U:-\"a b\"}", "a b"),
            ("${A:?no}", "value"),
            ("${P#*/}", "usr/local/lib/x.tar.gz"),
            ("${P##*/}", "x.tar.gz"),
            ("${P%.*}", "/usr/local/lib/x.tar"),
            ("${P%%.*}", "/usr/local/lib/x"),
            ("${P/l/L}", "/usr/Local/lib/x.tar.gz"),
            ("${P//l/L}", "/usr/LocaL/Lib/x.tar.gz"),
            ("${P//\\//-}", "-usr-local-lib-x.tar.gz"),
            ("${P/usr}", "//local/lib/x.tar.gz"),
            ("${S}", "one two"),
            ("~/x", "~/x"),
        ] {
            assert_eq!(word(text, '\\', &scope).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(word("`$A", '`', &scope).as_deref(), Ok("$A"));
        assert_eq!(words("a $S \"$S\" $E b", '\\', &scope).unwrap(), ["a", "one", "two", "one two", "b"]);
        assert_eq!(words("'' $E", '\\', &scope).unwrap(), [""]);
        assert_eq!(heredoc("it's \"$A\" \\$A \\n", '\\', &scope).unwrap(), "it's \"value\" $A \\n");
    }

    #[test]
    fn mistakes() {
        for (text, message) in [
            ("${A", "missing '}'"),
            ("${}", "bad substitution"),
            ("${A:x}", "unsupported modifier (x)"),
            ("${A^}", "unsupported modifier (^)"),
            ("${U:?is needed}", "U: is needed"),
            ("${E:?}", "E: is not allowed to be unset"),
            ("'a", "single-quote"),
            ("\"a", "double-quote"),
        ] {
            let error = word(text, '\\', &scope).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(word(&"${U:-".repeat(10_000), '\\', &scope).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[$(){}:+?#%/*\\[\\]\\\\'\"AEPUS a-z-]{0,60}") {
            word(&text, '\\', &scope).ok();
            words(&text, '`', &scope).ok();
            heredoc(&text, '\\', &scope).ok();
        }

        #[test]
        fn plain_text_is_itself(text in "[a-zA-Z0-9_./:=@-]{0,60}") {
            prop_assert_eq!(word(&text, '\\', &scope).unwrap(), text);
        }
    }
}
