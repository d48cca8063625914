//! Dividing the text after an instruction's name: flags, words, pairs, JSON arrays.

use super::instruction::Flag;

/// The first word and the rest, which has no white space around it.
pub(super) fn first(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(char::is_whitespace).map_or((text, ""), |(first, rest)| (first, rest.trim()))
}

/// The flags at the beginning, and the rest.
pub(super) fn flags(text: &str, escape: char) -> Result<(Vec<Flag>, &str), String> {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while let Some(flag) = rest.strip_prefix("--") {
        let (word, end) = quoted_word(flag, escape)?;
        rest = flag[end..].trim_start();
        if word.is_empty() {
            // `--` ends them.
            break;
        }
        flags.push(match word.split_once('=') {
            Some((name, value)) => Flag { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Flag { name: word, value: None },
        });
    }
    Ok((flags, rest))
}

/// A word up to white space outside quotes, without them; and where it ends.
fn quoted_word(text: &str, escape: char) -> Result<(String, usize), String> {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(open) if c == open => quote = None,
            _ if c == escape && quote != Some('\'') => match chars.next() {
                Some((_, next)) => word.push(next),
                None => return Ok((word, text.len())),
            },
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => return Ok((word, at)),
            None => word.push(c),
        }
    }
    match quote {
        Some(quote) => Err(format!("a quote is not closed: {quote}")),
        None => Ok((word, text.len())),
    }
}

/// A JSON array of strings. Anything else is not one, and taken as text.
pub(super) fn array(text: &str) -> Option<Vec<String>> {
    text.trim_start().starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Words at white space outside quotes; quotes and escapes stay, for whoever expands them.
pub(super) fn raw_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `A=b C="d e"`, or the old form `A b c` with one pair; not expanded.
pub(super) fn pairs(name: &str, text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = raw_words(text, escape);
    let Some(first) = words.first() else { return Err(format!("{name} requires at least one argument")) };
    if !first.contains('=') {
        let (key, value) = self::first(text);
        if value.is_empty() {
            return Err(format!("{name} must have two arguments"));
        }
        return Ok(vec![(key.to_owned(), value.to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("{name} names can not be blank")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                Err(format!("Syntax error - can't find = in \"{word}\". Must be of the form: name=value"))
            }
        })
        .collect()
}
