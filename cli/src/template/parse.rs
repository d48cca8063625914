//! Builds the tree of a template from its tokens.

use std::collections::BTreeMap;

use super::TemplateError;
use super::ast::{Branch, Command, Control, Kind, Node, Operand, Pipe, Span};
use super::lex::{Token, TokenKind, error_at, lex};
use super::{func, number};

/// Parentheses and blocks inside each other; beyond it a template is refused, so that no stack overflows.
const MAX_DEPTH: usize = 64;

type Bodies = BTreeMap<String, Vec<Node>>;

/// The body of `source` and the bodies it defines by name.
pub(super) fn parse(source: &str) -> Result<(Vec<Node>, Bodies), TemplateError> {
    let mut parser = Parser {
        source,
        tokens: lex(source)?,
        next: 0,
        vars: vec!["$".to_owned()],
        depth: 0,
        loops: 0,
        named: Bodies::new(),
    };
    let (body, end) = parser.list()?;
    match end {
        Stop::End => Ok((body, parser.named)),
        Stop::EndAction => Err(parser.error("unexpected {{end}}")),
        Stop::Else => Err(parser.error("unexpected {{else}}")),
    }
}

/// What ended a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The end of the source.
    End,
    /// `{{end}}`, consumed.
    EndAction,
    /// `{{else`, consumed so far.
    Else,
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    /// Variables known here, innermost last.
    vars: Vec<String>,
    depth: usize,
    /// `range` bodies around the current place.
    loops: usize,
    named: Bodies,
}

impl<'a> Parser<'a> {
    /// The next token; `lex` ends with one that is never stepped over.
    fn peek(&self) -> Token<'a> {
        let end = Token { kind: TokenKind::End, text: "", pos: self.source.len(), spaced: false };
        self.tokens.get(self.next).cloned().unwrap_or(end)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    /// Steps over the punctuation or word `text` if it is next.
    fn accept(&mut self, text: &str) -> bool {
        let token = self.peek();
        let found = matches!(token.kind, TokenKind::Punctuation | TokenKind::Word) && token.text == text;
        if found {
            self.take();
        }
        found
    }

    fn error(&self, message: impl std::fmt::Display) -> TemplateError {
        error_at(self.source, self.peek().pos, message)
    }

    fn unexpected(&self, token: &Token<'_>, context: &str) -> TemplateError {
        let what = match token.kind {
            TokenKind::End => "EOF".to_owned(),
            TokenKind::Dot => "<.>".to_owned(),
            TokenKind::Word if KEYWORDS.contains(&token.text) => format!("<{}>", token.text),
            _ if token.text.chars().count() > 10 => {
                format!("{:?}...", token.text.chars().take(10).collect::<String>())
            }
            _ => format!("{:?}", token.text),
        };
        error_at(self.source, token.pos, format_args!("unexpected {what} in {context}"))
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        let token = self.take();
        if token.kind == TokenKind::Close { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("nested too deeply")) } else { Ok(()) }
    }

    /// Nodes up to `{{end}}`, `{{else` or the end of the source.
    fn list(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                TokenKind::End => return Ok((nodes, Stop::End)),
                TokenKind::Text => nodes.push(Node::Text(token.text.to_owned())),
                _ => match self.action(&mut nodes)? {
                    None => {}
                    Some(stop) => return Ok((nodes, stop)),
                },
            }
        }
    }

    /// What follows `{{`.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<Option<Stop>, TemplateError> {
        let token = self.peek();
        if token.kind != TokenKind::Word || !KEYWORDS.contains(&token.text) {
            // A variable declared here holds to the end of the surrounding block, which drops it.
            let pipe = self.pipe("command", false)?;
            self.close("command")?;
            nodes.push(Node::Action(pipe));
            return Ok(None);
        }
        self.take();
        match token.text {
            "end" => {
                self.close("end")?;
                return Ok(Some(Stop::EndAction));
            }
            "else" => return Ok(Some(Stop::Else)),
            "if" => nodes.push(self.control(Control::If)?),
            "with" => nodes.push(self.control(Control::With)?),
            "range" => nodes.push(self.control(Control::Range)?),
            "define" => self.define(&token)?,
            "block" => nodes.push(self.block(&token)?),
            "template" => nodes.push(self.template(&token)?),
            word => {
                if self.loops == 0 {
                    return Err(self.error(format_args!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                self.close(&format!("{{{{{word}}}}}"))?;
                nodes.push(if word == "break" { Node::Break } else { Node::Continue });
            }
        }
        Ok(None)
    }

    /// `if`, `with` or `range` after its keyword, up to and with its `{{end}}`.
    fn control(&mut self, control: Control) -> Result<Node, TemplateError> {
        let context = match control {
            Control::If => "if",
            Control::With => "with",
            Control::Range => "range",
        };
        self.deeper()?;
        let vars = self.vars.len();
        let pipe = self.pipe(context, control == Control::Range)?;
        self.close(context)?;
        self.loops += usize::from(control == Control::Range);
        let (then, stop) = self.list()?;
        self.loops -= usize::from(control == Control::Range);
        let otherwise = match stop {
            Stop::End => return Err(self.error("unexpected EOF")),
            Stop::EndAction => Vec::new(),
            Stop::Else => self.otherwise(control)?,
        };
        self.vars.truncate(vars);
        self.depth -= 1;
        Ok(Node::Control(control, Branch { pipe, then, otherwise }))
    }

    /// What follows `{{else`. `{{else if x}}` is an `if` inside of the `else`, sharing its `{{end}}`.
    fn otherwise(&mut self, control: Control) -> Result<Vec<Node>, TemplateError> {
        match control {
            Control::If if self.accept("if") => return Ok(vec![self.control(control)?]),
            Control::With if self.accept("with") => return Ok(vec![self.control(control)?]),
            _ => self.close("else")?,
        }
        match self.list()? {
            (nodes, Stop::EndAction) => Ok(nodes),
            (_, Stop::End) => Err(self.error("unexpected EOF")),
            (_, Stop::Else) => Err(self.error("expected end; found {{else}}")),
        }
    }

    /// A quoted name, after `define`, `block` or `template`.
    fn template_name(&mut self, context: &str) -> Result<String, TemplateError> {
        let token = self.take();
        match token.kind {
            TokenKind::Quoted | TokenKind::Raw => self.string(&token),
            _ => Err(self.unexpected(&token, context)),
        }
    }

    /// A body with no variables but `$`, up to and with its `{{end}}`.
    fn body(&mut self) -> Result<Vec<Node>, TemplateError> {
        self.deeper()?;
        let vars = std::mem::replace(&mut self.vars, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, stop) = self.list()?;
        if stop != Stop::EndAction {
            return Err(self.error(if stop == Stop::End { "unexpected EOF" } else { "unexpected {{else}}" }));
        }
        (self.vars, self.loops) = (vars, loops);
        self.depth -= 1;
        Ok(nodes)
    }

    fn define(&mut self, keyword: &Token<'_>) -> Result<(), TemplateError> {
        if self.depth > 0 {
            return Err(self.unexpected(keyword, "command"));
        }
        let name = self.template_name("define clause")?;
        self.close("define clause")?;
        let body = self.body()?;
        self.named.insert(name, body);
        Ok(())
    }

    fn template(&mut self, keyword: &Token<'_>) -> Result<Node, TemplateError> {
        let at = self.peek().pos;
        let name = self.template_name("template clause")?;
        let pipe = match self.peek().kind {
            TokenKind::Close => None,
            _ => Some(self.pipe("template clause", false)?),
        };
        self.close("template clause")?;
        let span = Span { at, ..self.span_from(keyword.pos.saturating_sub(2)) };
        Ok(Node::Template { name, pipe, span })
    }

    fn block(&mut self, keyword: &Token<'_>) -> Result<Node, TemplateError> {
        let at = self.peek().pos;
        let name = self.template_name("block clause")?;
        let pipe = Some(self.pipe("block clause", false)?);
        self.close("block clause")?;
        let span = Span { at, ..self.span_from(keyword.pos.saturating_sub(2)) };
        let body = self.body()?;
        self.named.insert(name.clone(), body);
        Ok(Node::Template { name, pipe, span })
    }

    /// From `start` to the end of the last token taken.
    fn span_from(&self, start: usize) -> Span {
        let last = self.next.checked_sub(1).and_then(|i| self.tokens.get(i));
        let end = last.map_or(start, |t| t.pos + t.text.len());
        Span { start, end: end.max(start), at: start }
    }

    /// `[$x :=] command | command …`, up to but without the `}}` or `)` that ends it.
    fn pipe(&mut self, context: &str, range: bool) -> Result<Pipe, TemplateError> {
        let (vars, assign) = self.declaration(context, range)?;
        let mut commands: Vec<Command> = Vec::new();
        loop {
            let token = self.peek();
            let ends =
                token.kind == TokenKind::Close || (token.kind == TokenKind::Punctuation && token.text == ")");
            if ends {
                if commands.is_empty() {
                    return Err(self.error(format_args!("missing value for {context}")));
                }
                break;
            }
            commands.push(self.command(context)?);
            // Go allows a `|` with nothing after it.
            self.accept("|");
        }
        for (stage, command) in commands.iter().enumerate().skip(1) {
            if matches!(
                command.first.kind,
                Kind::Dot | Kind::Nil | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_)
            ) {
                return Err(
                    self.error(format_args!("non executable command in pipeline stage {}", stage + 1))
                );
            }
        }
        Ok(Pipe { vars, assign, commands })
    }

    /// The variables on the left of `:=` or `=`, if the pipeline begins with that.
    fn declaration(&mut self, context: &str, range: bool) -> Result<(Vec<String>, bool), TemplateError> {
        let first = self.peek();
        let sign = |i: usize| {
            let token = self.tokens.get(self.next + i);
            token.filter(|t| t.kind == TokenKind::Punctuation).map_or("", |t| t.text)
        };
        if first.kind != TokenKind::Variable {
            return Ok((Vec::new(), false));
        }
        let (count, operator) = match (sign(1), sign(3)) {
            (operator @ (":=" | "="), _) => (1, operator),
            (",", operator @ (":=" | "=")) if range => (2, operator),
            (",", ",") if range => return Err(self.error("too many declarations in range")),
            (",", _) if range => return Err(self.error("range can only initialize variables")),
            (",", _) => return Err(self.error(format_args!("too many declarations in {context}"))),
            _ => return Ok((Vec::new(), false)),
        };
        let mut vars = Vec::new();
        for _ in 0..count {
            let token = self.take();
            if token.kind != TokenKind::Variable {
                return Err(self.error("range can only initialize variables"));
            }
            vars.push(token.text.to_owned());
            self.take();
        }
        let assign = operator == "=";
        for name in &vars {
            if !assign {
                self.vars.push(name.clone());
            } else if !self.vars.contains(name) {
                return Err(self.error(format_args!("undefined variable {name:?}")));
            }
        }
        Ok((vars, assign))
    }

    /// Words up to `|`, `)` or `}}`.
    fn command(&mut self, context: &str) -> Result<Command, TemplateError> {
        let start = self.peek().pos;
        let mut words = Vec::new();
        loop {
            let token = self.peek();
            match token.kind {
                TokenKind::Close => break,
                TokenKind::Punctuation if matches!(token.text, "|" | ")") => break,
                _ if !words.is_empty() && !token.spaced => return Err(self.unexpected(&token, "operand")),
                _ => words.push(self.operand(if words.is_empty() { context } else { "operand" })?),
            }
        }
        let span = self.span_from(start);
        let mut words = words.into_iter();
        match words.next() {
            Some(first) => Ok(Command { first, args: words.collect(), span }),
            None => Err(self.unexpected(&self.peek(), context)),
        }
    }

    /// A term and the fields that hang on it without space.
    fn operand(&mut self, context: &str) -> Result<Operand, TemplateError> {
        let first = self.peek();
        let mut kind = self.term(context)?;
        let mut names = Vec::new();
        let mut at = first.pos;
        while self.peek().kind == TokenKind::Field && !self.peek().spaced {
            let token = self.take();
            if names.is_empty() {
                at = token.pos;
            }
            names.push(token.text[1..].to_owned());
        }
        if !names.is_empty() {
            let span = Span { at, ..self.span_from(first.pos) };
            kind = match kind {
                Kind::Field(mut path) => {
                    path.append(&mut names);
                    Kind::Field(path)
                }
                Kind::Variable(name, _) => Kind::Variable(name, names),
                kind @ (Kind::Paren(_) | Kind::Function(_)) => {
                    Kind::Chain(Box::new(Operand { kind, span }), names)
                }
                _ => return Err(self.error(format_args!("unexpected . after term {:?}", first.text))),
            };
        }
        Ok(Operand { kind, span: Span { at, ..self.span_from(first.pos) } })
    }

    fn term(&mut self, context: &str) -> Result<Kind, TemplateError> {
        let token = self.take();
        Ok(match token.kind {
            TokenKind::Dot => Kind::Dot,
            TokenKind::Field => Kind::Field(vec![token.text[1..].to_owned()]),
            TokenKind::Quoted | TokenKind::Raw => Kind::Str(self.string(&token)?),
            TokenKind::Char | TokenKind::Number => match number::literal(token.text) {
                Ok(number::Number::Int(value)) => Kind::Int(value),
                Ok(number::Number::Float(value)) => Kind::Float(value),
                Err(problem) => return Err(error_at(self.source, token.pos, problem)),
            },
            TokenKind::Variable => {
                if !self.vars.iter().any(|v| v == token.text) {
                    let message = format!("undefined variable {:?}", token.text);
                    return Err(error_at(self.source, token.pos, message));
                }
                Kind::Variable(token.text.to_owned(), Vec::new())
            }
            TokenKind::Word => match token.text {
                "nil" => Kind::Nil,
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                name if KEYWORDS.contains(&name) => return Err(self.unexpected(&token, context)),
                name if func::exists(name) => Kind::Function(name.to_owned()),
                name => {
                    let message = format!("function {name:?} not defined");
                    return Err(error_at(self.source, token.pos, message));
                }
            },
            TokenKind::Punctuation if token.text == "(" => {
                self.deeper()?;
                let vars = self.vars.len();
                let pipe = self.pipe("parenthesized pipeline", false)?;
                if !self.accept(")") {
                    return Err(self.unexpected(&self.peek(), "parenthesized pipeline"));
                }
                self.vars.truncate(vars);
                self.depth -= 1;
                Kind::Paren(Box::new(pipe))
            }
            _ => return Err(self.unexpected(&token, context)),
        })
    }

    fn string(&self, token: &Token<'_>) -> Result<String, TemplateError> {
        number::unquote(token.text).ok_or_else(|| error_at(self.source, token.pos, "invalid syntax"))
    }
}

/// Words with a meaning of their own; function names, `true`, `false` and `nil` are not among them.
const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];
