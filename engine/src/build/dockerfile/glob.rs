//! Patterns: Go's `filepath.Match` for sources, the same with `**` for ignore files, the shell's for modifiers.
//!
//! One matcher in time proportional to pattern times text, whatever somebody writes.

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// Any one character but a separator.
    One,
    /// Any number of characters but separators.
    Many,
    /// Any number of characters.
    All,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern for paths with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    separator: Option<char>,
}

impl Pattern {
    /// Go's: `*`, `?`, `[a-z]`, `\x`; with `deep` also `**`, which means any number of names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, deep: bool) -> Result<Self, String> {
        Ok(Self { tokens: tokens(text, deep, false)?, separator: Some('/') })
    }

    /// Whether a whole path fits.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        matches(&self.tokens, &text, self.separator)
    }

    /// Whether a path, or a directory that it is in, fits.
    pub fn matches_or_above(&self, path: &str) -> bool {
        let text: Vec<char> = path.chars().collect();
        let ends = text.iter().enumerate().filter(|(_, c)| **c == '/').map(|(at, _)| at).chain([text.len()]);
        ends.into_iter().any(|end| matches(&self.tokens, &text[..end], self.separator))
    }
}

/// The shell's pattern of a modifier, which knows no separators.
pub(super) fn shell_match(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    tokens(pattern, false, true).is_ok_and(|tokens| matches(&tokens, &text, None))
}

fn tokens(text: &str, deep: bool, lenient: bool) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let bad = || format!("syntax error in pattern: {text}");
    while at < chars.len() {
        let here = chars[at];
        at += 1;
        match here {
            '*' if deep && chars.get(at) == Some(&'*') => {
                while chars.get(at) == Some(&'*') {
                    at += 1;
                }
                let begins = at < 3 || chars.get(at.wrapping_sub(3)) == Some(&'/');
                if begins && chars.get(at) == Some(&'/') {
                    // `**/x` is also `x`.
                    at += 1;
                    tokens.push(Token::All);
                    tokens.push(Token::Class { negated: false, ranges: Vec::new() });
                } else {
                    tokens.push(Token::All);
                }
            }
            '*' => tokens.push(Token::Many),
            '?' => tokens.push(Token::One),
            '\\' => match chars.get(at) {
                Some(c) => {
                    tokens.push(Token::Char(*c));
                    at += 1;
                }
                None if lenient => tokens.push(Token::Char('\\')),
                None => return Err(bad()),
            },
            '[' => {
                let start = at;
                match class(&chars, &mut at) {
                    Some(class) => tokens.push(class),
                    None if lenient => {
                        at = start;
                        tokens.push(Token::Char('['));
                    }
                    None => return Err(bad()),
                }
            }
            c => tokens.push(Token::Char(c)),
        }
    }
    Ok(tokens)
}

fn class(chars: &[char], at: &mut usize) -> Option<Token> {
    let negated = matches!(chars.get(*at), Some('^' | '!'));
    if negated {
        *at += 1;
    }
    let mut ranges = Vec::new();
    let one = |at: &mut usize| {
        let c = *chars.get(*at)?;
        *at += 1;
        if c != '\\' {
            return Some(c);
        }
        let c = *chars.get(*at)?;
        *at += 1;
        Some(c)
    };
    loop {
        if chars.get(*at) == Some(&']') && !ranges.is_empty() {
            *at += 1;
            return Some(Token::Class { negated, ranges });
        }
        let low = one(at)?;
        let mut high = low;
        if chars.get(*at) == Some(&'-') && chars.get(*at + 1).is_some_and(|c| *c != ']') {
            *at += 1;
            high = one(at)?;
        }
        ranges.push((low, high));
    }
}

/// Positions of the pattern that the text so far can lead to, one set after the other.
fn matches(tokens: &[Token], text: &[char], separator: Option<char>) -> bool {
    let mut now = vec![false; tokens.len() + 1];
    now[0] = true;
    // A class without ranges stands between `**/` and what follows: nothing, at the beginning of a name.
    let settle = |set: &mut Vec<bool>, begins: bool| {
        for at in 0..tokens.len() {
            if !set[at] {
                continue;
            }
            match &tokens[at] {
                Token::Many | Token::All => set[at + 1] = true,
                Token::Class { ranges, negated: false } if ranges.is_empty() && begins => set[at + 1] = true,
                _ => {}
            }
        }
    };
    settle(&mut now, true);
    for (index, c) in text.iter().enumerate() {
        let mut next = vec![false; tokens.len() + 1];
        let is_separator = Some(*c) == separator;
        for at in 0..tokens.len() {
            if !now[at] {
                continue;
            }
            match &tokens[at] {
                Token::Char(wanted) => next[at + 1] |= wanted == c,
                Token::One => next[at + 1] |= !is_separator,
                Token::Many => next[at] |= !is_separator,
                Token::All => next[at] = true,
                Token::Class { negated, ranges } => {
                    let within = ranges.iter().any(|(low, high)| (low..=high).contains(&c));
                    next[at + 1] |= !ranges.is_empty() && within != *negated && !is_separator;
                }
            }
        }
        settle(&mut next, Some(text[index]) == separator);
        now = next;
        if !now.contains(&true) {
            return false;
        }
    }
    now[tokens.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_s_patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("*.go", "x.go", true),
            ("*.go", "d/x.go", false),
            ("d/*", "d/x", true),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("\\*", "*", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "a/bx", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**/*.go", "x.go", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "axb", false),
            ("**", "a/b", true),
            ("a**b", "a/x/b", true),
        ] {
            let pattern_ = Pattern::parse(pattern, true).unwrap();
            assert_eq!(pattern_.matches(text), expected, "{pattern} {text}");
        }
        assert!(Pattern::parse("[a", false).is_err() && Pattern::parse("a\\", false).is_err());
        assert!(Pattern::parse("a/*", true).unwrap().matches_or_above("a/b/c"));
    }

    #[test]
    fn patterns_take_no_time() {
        let pattern = Pattern::parse(&"*a".repeat(200), true).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(2000))));
    }

    proptest! {
        #[test]
        fn nothing_panics(pattern in "[*?\\[\\]a-c/!^\\\\-]{0,20}", text in "[a-c/]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&pattern, true) {
                pattern.matches(&text);
                pattern.matches_or_above(&text);
            }
            shell_match(&pattern, &text);
        }

        #[test]
        fn text_matches_itself(text in "[a-c/.]{0,20}") {
            prop_assert!(Pattern::parse(&text, false).unwrap().matches(&text));
        }
    }
}
