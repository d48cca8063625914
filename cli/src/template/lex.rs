//! Cuts a template into tokens: literal text, and the words between `{{` and `}}`.
//! Trim markers are applied and comments dropped here; what a word means is `parse`'s matter.

use super::TemplateError;

/// A word and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    /// The source text of the word.
    pub(super) text: &'a str,
    /// Its byte offset in the source.
    pub(super) pos: usize,
    /// White space stands before it.
    pub(super) spaced: bool,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Outside of an action.
    Text,
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A lone `.`
    Dot,
    /// `.Name`
    Field,
    /// `$` or `$name`
    Variable,
    /// A function name, keyword, `true`, `false` or `nil`.
    Word,
    /// `"…"`
    Quoted,
    /// `` `…` ``
    Raw,
    /// `'…'`
    Char,
    /// A number.
    Number,
    /// `=`, `:=`, `,`, `|`, `(`, `)`; other signs too, which the parser refuses.
    Punctuation,
    /// After the last token.
    End,
}

/// A message with the line of byte `pos`, in Go's form.
pub(super) fn error_at(source: &str, pos: usize, message: impl std::fmt::Display) -> TemplateError {
    let line = 1 + source.bytes().take(pos).filter(|b| *b == b'\n').count();
    TemplateError(format!(":{line}: {message}"))
}

/// All tokens of `source`, ending with [`TokenKind::End`].
pub(super) fn lex(source: &str) -> Result<Vec<Token<'_>>, TemplateError> {
    let mut lexer = Lexer { source, pos: 0, parens: 0, tokens: Vec::new() };
    lexer.text()?;
    lexer.push(TokenKind::End, source.len(), false);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    pos: usize,
    parens: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.pos..).unwrap_or_default()
    }

    fn error(&self, message: impl std::fmt::Display) -> TemplateError {
        error_at(self.source, self.pos, message)
    }

    /// The token from `start` to the current position.
    fn push(&mut self, kind: TokenKind, start: usize, spaced: bool) {
        let text = self.source.get(start..self.pos).unwrap_or_default();
        self.tokens.push(Token { kind, text, pos: start, spaced });
    }

    /// The whole template: text, action, text, …
    fn text(&mut self) -> Result<(), TemplateError> {
        let mut trim_left = false;
        loop {
            let rest = self.rest();
            let (text, more) = match rest.find("{{") {
                Some(open) => (&rest[..open], true),
                None => (rest, false),
            };
            let open = self.pos + text.len();
            let trim_right = more && starts_with_trim(&self.source[open + 2..]);
            let mut kept = text;
            if trim_left {
                kept = kept.trim_start_matches(is_space);
            }
            let start = open - kept.len();
            if trim_right {
                kept = kept.trim_end_matches(is_space);
            }
            if !kept.is_empty() {
                self.pos = start + kept.len();
                self.push(TokenKind::Text, start, false);
            }
            self.pos = open;
            if !more {
                return Ok(());
            }
            self.pos += 2;
            if trim_right {
                // The marker is `-` and one space; further space is skipped with the action's.
                self.pos += 2;
            }
            trim_left = if self.rest().starts_with("/*") {
                self.comment()?
            } else {
                let after = self.pos;
                self.pos = open + 2;
                self.push(TokenKind::Open, open, false);
                self.pos = after;
                self.action()?
            };
        }
    }

    /// A comment up to and with its `}}`; whether that trims the text that follows.
    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest().find("*/") else { return Err(self.error("unclosed comment")) };
        self.pos += end + 2;
        match self.close() {
            Some(trim) => Ok(trim),
            None => Err(self.error("comment ends before closing delimiter")),
        }
    }

    /// Steps over `}}` or ` -}}` if it is here; whether it trims.
    fn close(&mut self) -> Option<bool> {
        let rest = self.rest();
        let trim = rest.starts_with(is_space) && rest[1..].starts_with("-}}");
        let length = match trim {
            true => 4,
            false if rest.starts_with("}}") => 2,
            false => return None,
        };
        self.pos += length;
        Some(trim)
    }

    /// The words of an action and its end; whether that trims the text that follows.
    fn action(&mut self) -> Result<bool, TemplateError> {
        self.parens = 0;
        let mut spaced = false;
        loop {
            let start = self.pos;
            if let Some(trim) = self.close() {
                if self.parens > 0 {
                    return Err(self.error("unclosed left paren"));
                }
                self.push(TokenKind::Close, start, spaced);
                return Ok(trim);
            }
            let Some(next) = self.rest().chars().next() else { return Err(self.error("unclosed action")) };
            if is_space(next) {
                self.pos += 1;
                spaced = true;
                continue;
            }
            let kind = self.word(next)?;
            self.push(kind, start, spaced);
            spaced = false;
        }
    }

    /// Steps over one word that begins with `next`.
    fn word(&mut self, next: char) -> Result<TokenKind, TemplateError> {
        let second = self.rest()[next.len_utf8()..].chars().next();
        match next {
            '=' | ',' | '|' => self.pos += 1,
            ':' if second == Some('=') => self.pos += 2,
            ':' => return Err(self.error("expected :=")),
            '(' => {
                self.pos += 1;
                self.parens += 1;
            }
            ')' => {
                self.pos += 1;
                let Some(parens) = self.parens.checked_sub(1) else {
                    return Err(self.error("unexpected right paren"));
                };
                self.parens = parens;
            }
            '"' => return self.quoted('"', "unterminated quoted string").map(|()| TokenKind::Quoted),
            '\'' => return self.quoted('\'', "unterminated character constant").map(|()| TokenKind::Char),
            '`' => {
                let Some(end) = self.rest()[1..].find('`') else {
                    return Err(self.error("unterminated raw quoted string"));
                };
                self.pos += end + 2;
                return Ok(TokenKind::Raw);
            }
            '+' | '-' | '0'..='9' => return self.number(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => return self.number(),
            '.' => return self.name(TokenKind::Field, TokenKind::Dot),
            '$' => return self.name(TokenKind::Variable, TokenKind::Variable),
            c if is_alphanumeric(c) => {
                let first = self.pos;
                self.pos += self.rest().find(|c| !is_alphanumeric(c)).unwrap_or(self.rest().len());
                self.terminator(first)?;
                return Ok(TokenKind::Word);
            }
            c if c.is_ascii_graphic() => self.pos += 1,
            c => return Err(self.error(format_args!("unrecognized character in action: {}", describe(c)))),
        }
        Ok(TokenKind::Punctuation)
    }

    /// A sign (`.` or `$`) and the name after it, if there is one.
    fn name(&mut self, named: TokenKind, bare: TokenKind) -> Result<TokenKind, TemplateError> {
        let first = self.pos;
        self.pos += 1;
        let length = self.rest().find(|c| !is_alphanumeric(c)).unwrap_or(self.rest().len());
        self.pos += length;
        self.terminator(first)?;
        Ok(if length == 0 { bare } else { named })
    }

    /// A name must be followed by something that can stand after a name.
    fn terminator(&mut self, first: usize) -> Result<(), TemplateError> {
        match self.rest().chars().next() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => Ok(()),
            Some(c) if is_space(c) || self.rest().starts_with("}}") => Ok(()),
            Some(c) => Err(error_at(self.source, first, format_args!("bad character {}", describe(c)))),
        }
    }

    /// A literal between two `quote`s on one line; escapes are resolved by the parser.
    fn quoted(&mut self, quote: char, message: &str) -> Result<(), TemplateError> {
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.pos += offset + c.len_utf8();
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.error(message))
    }

    /// Everything that can belong to a number; the parser says whether it is one.
    fn number(&mut self) -> Result<TokenKind, TemplateError> {
        let rest = self.rest();
        let mut previous = ' ';
        let hex = rest.trim_start_matches(['+', '-']).get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"));
        let end = rest
            .char_indices()
            .find(|&(offset, c)| {
                let exponent =
                    if hex { matches!(previous, 'p' | 'P') } else { matches!(previous, 'e' | 'E') };
                let sign = matches!(c, '+' | '-') && (offset == 0 || exponent);
                previous = c;
                !(is_alphanumeric(c) || c == '.' || sign)
            })
            .map_or(rest.len(), |(offset, _)| offset);
        self.pos += end;
        Ok(TokenKind::Number)
    }
}

/// Whether the text after `{{` begins with the marker that trims the text before.
fn starts_with_trim(after: &str) -> bool {
    after.starts_with('-') && after[1..].starts_with(is_space)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// A character as Go's `%#U` shows it.
fn describe(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
