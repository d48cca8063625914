//! The language of Docker's `--format`: Go's `text/template` over JSON values.
//!
//! Covered: fields, variables, pipelines, parentheses, `if`/`with`/`range` with their `else` forms,
//! `break`, `continue`, `define`/`template`/`block`, trim markers, comments, all literals but complex
//! numbers, Go's comparison, logic, `index`, `slice`, `len` and `print` functions, and the functions
//! that Docker adds (`json`, `join`, `split`, `title`, `lower`, `upper`, `pad`, `truncate`).
//! Values print as Go prints them (`map[a:1]`, `[x y]`, `<no value>`); messages have Go's wording and position.
//!
//! Not covered: `html`, `js`, `urlquery`, `call`. Methods do not exist, except `.Label "key"` on the rows
//! of a listing. A list of anything but strings is accepted by `join` only if all elements are strings.
//!
//! Reading order: `lex` cuts the text into tokens, `parse` builds the tree of `ast`, `exec` walks it over
//! the values of `value`, calling `func`; `print` and `number` are the parts of Go's `fmt` that this needs.

mod ast;
mod exec;
mod func;
mod lex;
mod number;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use ast::Node;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// Kept to show the failing expression in messages.
    source: String,
    body: Vec<Node>,
    /// Bodies of `define` and `block`.
    named: BTreeMap<String, Vec<Node>>,
    missing: Missing,
}

/// What a field that its object does not have stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Missing {
    /// An error, as for Docker's listings and `inspect`.
    #[default]
    Error,
    /// Prints as `<no value>`, Go's own default.
    NoValue,
}

/// Why a template cannot be parsed or rendered: one line in Docker's words, with the position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError(String);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template parsing error: template: {}", self.0)
    }
}

impl std::error::Error for TemplateError {}

/// What a template is applied to.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    /// One value.
    Value,
    /// A row of a listing: `.Label "key"` looks here.
    Row { labels: &'a Map<String, Value> },
    /// The titles of a listing's columns; functions that would change a title leave it as it is.
    Header,
}

impl Template {
    /// Parses `text`. Backslash escapes outside of `{{…}}` stay as they are, see [`unescape`].
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (body, named) = parse::parse(text)?;
        Ok(Self { source: text.to_owned(), body, named, missing: Missing::default() })
    }

    /// Chooses what absent fields stand for.
    pub(crate) fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// Applies the template to `data`. Time and memory are bounded, whatever the template does.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        exec::run(self, Scope::Value, data, &mut out)?;
        Ok(out)
    }

    /// Applies the template to one row of a listing; `.Label "key"` is answered from `labels`.
    pub(crate) fn render_row(
        &self,
        row: &Value,
        labels: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        let mut out = String::new();
        exec::run(self, Scope::Row { labels }, row, &mut out)?;
        Ok(out)
    }

    /// Applies the template to the titles of columns. What a title cannot do ends the header there, as in Docker.
    pub(crate) fn render_header(&self, titles: &Value) -> String {
        let mut out = String::new();
        match exec::run(self, Scope::Header, titles, &mut out) {
            Ok(()) | Err(_) => out,
        }
    }
}

/// Turns `\t` and `\n` in the text of a listing's format into tab and newline, and nothing else.
/// Docker does this for listings, not for `inspect`.
pub(crate) fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}
