//! Walks a template's tree over the data.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::ast::{Branch, Command, Control, Kind, Node, Operand, Pipe, Span};
use super::func::{self, Failure};
use super::value::{Val, sorted};
use super::{Missing, Scope, Template, TemplateError, print};

/// Bodies, parentheses and named templates inside each other.
const MAX_DEPTH: usize = 150;

/// What one rendering may cost, in bytes written or made; each step costs [`STEP`] on top.
const BUDGET: usize = 64 << 20;
const STEP: usize = 128;

/// Renders `template` over `data` at the end of `out`, which keeps what was written before an error.
pub(super) fn run(
    template: &Template,
    scope: Scope<'_>,
    data: &Value,
    out: &mut String,
) -> Result<(), TemplateError> {
    let root = match data {
        Value::Null => Val::Absent,
        data => Val::from(data),
    };
    let vars = vec![("$", root.clone())];
    let mut exec = Exec { template, scope, out, vars, budget: BUDGET, depth: 0, name: "" };
    exec.list(&root, &template.body).map(|_| ())
}

/// Where to go on after a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Exec<'a, 'o> {
    template: &'a Template,
    scope: Scope<'a>,
    out: &'o mut String,
    /// Innermost last.
    vars: Vec<(&'a str, Val<'a>)>,
    budget: usize,
    depth: usize,
    /// The named template that runs, for messages.
    name: &'a str,
}

impl<'a> Exec<'a, '_> {
    /// An error at a place in the source, in Go's form: columns count bytes from 0.
    fn error(&self, span: Span, message: impl std::fmt::Display) -> TemplateError {
        let source = &self.template.source;
        let before = source.get(..span.at).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        let context = source.get(span.start..span.end).unwrap_or_default().replace(['\n', '\r'], " ");
        TemplateError(format!(":{line}:{column}: executing {:?} at <{context}>: {message}", self.name))
    }

    fn charge(&mut self, bytes: usize, span: Option<Span>) -> Result<(), TemplateError> {
        match self.budget.checked_sub(bytes.saturating_add(STEP)) {
            Some(budget) => {
                self.budget = budget;
                Ok(())
            }
            None => {
                let message = "template takes too long or writes too much";
                Err(span
                    .map_or_else(|| TemplateError(format!(": {message}")), |span| self.error(span, message)))
            }
        }
    }

    /// Runs `inside` one level deeper.
    fn deeper<T>(
        &mut self,
        span: Span,
        inside: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(span, format_args!("exceeded maximum template depth ({MAX_DEPTH})")));
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    fn list(&mut self, dot: &Val<'a>, nodes: &'a [Node]) -> Result<Flow, TemplateError> {
        for node in nodes {
            match self.node(dot, node)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Val<'a>, node: &'a Node) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => {
                self.charge(text.len(), None)?;
                self.out.push_str(text);
            }
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.vars.is_empty() {
                    let before = self.out.len();
                    print::value(self.out, &value);
                    self.charge(self.out.len() - before, None)?;
                }
            }
            Node::Control(control, branch) => {
                let vars = self.vars.len();
                let flow =
                    self.deeper(pipe_span(&branch.pipe), |exec| exec.control(dot, *control, branch))?;
                self.vars.truncate(vars);
                return Ok(flow);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Template { name, pipe, span } => self.named(dot, name, pipe.as_ref(), *span)?,
        }
        Ok(Flow::Next)
    }

    /// `{{template "name" pipeline}}`: a body of its own, with the pipeline's value as `.` and `$`.
    fn named(
        &mut self,
        dot: &Val<'a>,
        name: &'a str,
        pipe: Option<&'a Pipe>,
        span: Span,
    ) -> Result<(), TemplateError> {
        let Some(body) = self.template.named.get(name) else {
            return Err(self.error(span, format_args!("template {name:?} not defined")));
        };
        self.charge(0, Some(span))?;
        let dot = pipe.map_or(Ok(Val::Absent), |pipe| self.pipe(dot, pipe))?;
        let outer = std::mem::replace(&mut self.vars, vec![("$", dot.clone())]);
        let outer_name = std::mem::replace(&mut self.name, name);
        self.deeper(span, |exec| exec.list(&dot, body))?;
        self.vars = outer;
        self.name = outer_name;
        Ok(())
    }

    fn control(
        &mut self,
        dot: &Val<'a>,
        control: Control,
        branch: &'a Branch,
    ) -> Result<Flow, TemplateError> {
        let value = self.pipe(dot, &branch.pipe)?;
        match control {
            Control::If if value.truth() => self.list(dot, &branch.then),
            Control::With if value.truth() => self.list(&value, &branch.then),
            Control::If | Control::With => self.list(dot, &branch.otherwise),
            Control::Range => match self.range(&value, branch)? {
                true => Ok(Flow::Next),
                false => self.list(dot, &branch.otherwise),
            },
        }
    }

    /// Runs the body for each element; whether there was one.
    fn range(&mut self, value: &Val<'a>, branch: &'a Branch) -> Result<bool, TemplateError> {
        let vars = self.vars.len();
        if let (Val::Int(n), [_, _]) = (value, branch.pipe.vars.as_slice()) {
            let message = format!("can't use {n} to iterate over more than one variable");
            return Err(self.error(pipe_span(&branch.pipe), message));
        }
        let mut pairs: Box<dyn Iterator<Item = (Val<'a>, Val<'a>)>> = match value {
            Val::Absent | Val::Nil => return Ok(false),
            Val::Int(n) => Box::new((0..*n).map(|i| (Val::Int(i), Val::Int(i)))),
            Val::Map(map) => {
                let entries = sorted(map).into_iter();
                Box::new(entries.map(|(key, value)| (Val::Str(Cow::Borrowed(key)), Val::from(value))))
            }
            value => match value.elements() {
                Some(list) => Box::new((0..).map(Val::Int).zip(list)),
                None => {
                    let mut shown = String::new();
                    print::value(&mut shown, value);
                    let message = format!("range can't iterate over {shown}");
                    return Err(self.error(pipe_span(&branch.pipe), message));
                }
            },
        };
        let mut any = false;
        for (key, element) in &mut pairs {
            any = true;
            self.charge(0, Some(pipe_span(&branch.pipe)))?;
            match branch.pipe.vars.as_slice() {
                [k, v] => {
                    self.set(k, key);
                    self.set(v, element.clone());
                }
                [v] => self.set(v, element.clone()),
                _ => {}
            }
            let flow = self.list(&element, &branch.then)?;
            self.vars.truncate(vars);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(any)
    }

    /// Gives the innermost variable of that name a new value.
    fn set(&mut self, name: &str, value: Val<'a>) {
        if let Some((_, slot)) = self.vars.iter_mut().rev().find(|(known, _)| *known == name) {
            *slot = value;
        }
    }

    /// The value of a pipeline. Variables on its left are declared or assigned on the way.
    fn pipe(&mut self, dot: &Val<'a>, pipe: &'a Pipe) -> Result<Val<'a>, TemplateError> {
        let mut value: Option<Val<'a>> = None;
        for command in &pipe.commands {
            let result = self.command(dot, command, value.take())?;
            // Go loses the difference here, and so `(.Null).Field` is not the error that `.Null.Field` is.
            value = Some(if matches!(result, Val::Nil) { Val::Absent } else { result });
        }
        let value = value.unwrap_or(Val::Absent);
        for name in &pipe.vars {
            if pipe.assign {
                self.set(name, value.clone());
            } else {
                self.vars.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    /// One command; `piped` is the value of the one before, its last argument.
    fn command(
        &mut self,
        dot: &Val<'a>,
        command: &'a Command,
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>, TemplateError> {
        self.charge(0, Some(command.span))?;
        let first = &command.first;
        let has_args = !command.args.is_empty() || piped.is_some();
        match &first.kind {
            Kind::Function(name) => self.function(dot, name, command, piped),
            Kind::Field(path) => self.fields(dot, dot.clone(), path, first.span, Some((command, piped))),
            Kind::Variable(name, path) if !path.is_empty() => {
                let value = self.variable(name, first.span)?;
                self.fields(dot, value, path, first.span, Some((command, piped)))
            }
            Kind::Chain(inner, path) => {
                let value = self.operand(dot, inner)?;
                self.fields(dot, value, path, first.span, Some((command, piped)))
            }
            Kind::Nil if !has_args => Err(self.error(first.span, "nil is not a command")),
            _ if has_args => {
                let source = &self.template.source;
                let text = source.get(first.span.start..first.span.end).unwrap_or_default();
                Err(self.error(first.span, format_args!("can't give argument to non-function {text}")))
            }
            _ => self.operand(dot, first),
        }
    }

    /// The value of one word.
    fn operand(&mut self, dot: &Val<'a>, operand: &'a Operand) -> Result<Val<'a>, TemplateError> {
        let span = operand.span;
        Ok(match &operand.kind {
            Kind::Dot => dot.clone(),
            Kind::Nil => Val::Nil,
            Kind::Bool(b) => Val::Bool(*b),
            Kind::Int(n) => Val::Int(*n),
            Kind::Float(f) => Val::Float(*f),
            Kind::Str(s) => Val::Str(Cow::Borrowed(s)),
            Kind::Field(path) => self.fields(dot, dot.clone(), path, span, None)?,
            Kind::Variable(name, path) => {
                let value = self.variable(name, span)?;
                self.fields(dot, value, path, span, None)?
            }
            Kind::Paren(pipe) => self.deeper(span, |exec| exec.pipe(dot, pipe))?,
            Kind::Chain(inner, path) => {
                let value = self.operand(dot, inner)?;
                self.fields(dot, value, path, span, None)?
            }
            Kind::Function(name) => {
                self.charge(0, Some(span))?;
                self.call(name, &[], span, &[])?
            }
        })
    }

    fn variable(&self, name: &str, span: Span) -> Result<Val<'a>, TemplateError> {
        match self.vars.iter().rev().find(|(known, _)| *known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(self.error(span, format_args!("undefined variable: {name}"))),
        }
    }

    /// A function with its arguments, evaluated one after the other.
    fn function(
        &mut self,
        dot: &Val<'a>,
        name: &'a str,
        command: &'a Command,
        piped: Option<Val<'a>>,
    ) -> Result<Val<'a>, TemplateError> {
        let count = command.args.len() + usize::from(piped.is_some());
        func::check_arity(name, count).map_err(|message| self.error(command.first.span, message))?;
        if matches!(name, "and" | "or") {
            // The first value that decides, or the last one.
            let mut value = Val::Absent;
            for arg in &command.args {
                value = self.operand(dot, arg)?;
                if value.truth() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(count);
        for arg in &command.args {
            values.push(self.operand(dot, arg)?);
        }
        values.extend(piped);
        self.call(name, &values, command.span, &command.args)
    }

    fn call(
        &mut self,
        name: &str,
        values: &[Val<'a>],
        span: Span,
        args: &'a [Operand],
    ) -> Result<Val<'a>, TemplateError> {
        func::check_arity(name, values.len()).map_err(|message| self.error(span, message))?;
        if matches!(self.scope, Scope::Header)
            && matches!(name, "json" | "title" | "lower" | "upper" | "truncate")
            && let Some(value) = values.first()
        {
            return Ok(value.clone());
        }
        let value = func::call(name, values).map_err(|failure| match failure {
            Failure::Argument(i, expected) => self.wrong_type(expected, values.get(i), args.get(i), span),
            Failure::Call(message) => self.error(span, format_args!("error calling {name}: {message}")),
        })?;
        if let Val::Str(Cow::Owned(text)) = &value {
            self.charge(text.len(), Some(span))?;
        }
        Ok(value)
    }

    /// Follows `.A.B` from `value`. The last name may be a method with the arguments of `call`.
    fn fields(
        &mut self,
        dot: &Val<'a>,
        mut value: Val<'a>,
        path: &'a [String],
        span: Span,
        mut call: Option<(&'a Command, Option<Val<'a>>)>,
    ) -> Result<Val<'a>, TemplateError> {
        for (i, name) in path.iter().enumerate() {
            let arguments = match i + 1 == path.len() {
                true => call.take(),
                false => None,
            };
            value = match arguments {
                Some((command, piped)) if !command.args.is_empty() || piped.is_some() => {
                    self.method(dot, &value, name, command, piped, span)?
                }
                _ => self.field(&value, name, span)?,
            };
        }
        Ok(value)
    }

    /// A name with arguments. The only method is `Label`, on rows and headers.
    fn method(
        &mut self,
        dot: &Val<'a>,
        value: &Val<'a>,
        name: &str,
        command: &'a Command,
        piped: Option<Val<'a>>,
        span: Span,
    ) -> Result<Val<'a>, TemplateError> {
        let known = name == "Label" && matches!(value, Val::Map(map) if !map.contains_key(name));
        if !known || matches!(self.scope, Scope::Value) {
            if !matches!(value, Val::Map(_)) {
                self.field(value, name, span)?;
            }
            return Err(self.error(span, format_args!("{name} is not a method but has arguments")));
        }
        let mut args = Vec::new();
        for arg in &command.args {
            args.push(self.operand(dot, arg)?);
        }
        args.extend(piped);
        match (self.scope, args.as_slice()) {
            (Scope::Row { labels }, [Val::Str(key)]) => Ok(Val::Str(label(labels, key))),
            (_, [Val::Str(key)]) => {
                let last = key.rsplit('.').next().unwrap_or_default();
                Ok(Val::Str(Cow::Owned(last.replace(['-', '_'], " "))))
            }
            (_, [arg]) => Err(self.wrong_type("string", Some(arg), command.args.first(), span)),
            _ => Err(self.label_arity(args.len(), span)),
        }
    }

    fn label_arity(&self, count: usize, span: Span) -> TemplateError {
        self.error(span, format_args!("wrong number of args for Label: want 1 got {count}"))
    }

    /// An argument that does not suit its function; Go words it by what stands in the source.
    fn wrong_type(
        &self,
        expected: &str,
        value: Option<&Val<'a>>,
        source: Option<&Operand>,
        span: Span,
    ) -> TemplateError {
        let Some(operand) = source else {
            return self.error(
                span,
                match value {
                    None | Some(Val::Absent | Val::Nil) => format!("invalid value; expected {expected}"),
                    Some(value) => {
                        format!("wrong type for value; expected {expected}; got {}", value.type_name())
                    }
                },
            );
        };
        let text = self.template.source.get(operand.span.start..operand.span.end).unwrap_or_default();
        self.error(
            operand.span,
            match (&operand.kind, value) {
                (Kind::Nil, _) => format!("cannot assign nil to {expected}"),
                (Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_), _) => {
                    format!("expected {}; found {text}", if expected == "int" { "integer" } else { expected })
                }
                (_, None | Some(Val::Absent | Val::Nil)) => {
                    format!("wrong type for value; expected {expected}; got interface {{}}")
                }
                (_, Some(value)) => {
                    format!("wrong type for value; expected {expected}; got {}", value.type_name())
                }
            },
        )
    }

    fn field(&self, value: &Val<'a>, name: &str, span: Span) -> Result<Val<'a>, TemplateError> {
        match value {
            Val::Map(map) => match map.get(name) {
                Some(found) => Ok(Val::from(found)),
                None => self.absent(name, span),
            },
            Val::Str(_) if matches!(self.scope, Scope::Header) => Ok(Val::Str(Cow::Owned(heading(name)))),
            Val::Absent => match self.template.missing {
                Missing::Error => Err(self.error(span, format_args!("nil data; no entry for key {name:?}"))),
                Missing::NoValue => Ok(Val::Absent),
            },
            Val::Nil => Err(self.error(span, format_args!("nil pointer evaluating interface {{}}.{name}"))),
            _ => Err(self.error(span, format_args!("can't evaluate field {name} in type interface {{}}"))),
        }
    }

    /// What a name that is no field means.
    fn absent(&self, name: &str, span: Span) -> Result<Val<'a>, TemplateError> {
        match (self.scope, name) {
            (Scope::Row { .. } | Scope::Header, "Label") => Err(self.label_arity(0, span)),
            (Scope::Header, _) => Ok(Val::Str(Cow::Owned(heading(name)))),
            _ => match self.template.missing {
                Missing::Error => Err(self.error(span, format_args!("map has no entry for key {name:?}"))),
                Missing::NoValue => Ok(Val::Absent),
            },
        }
    }
}

/// A label's value, empty if there is none.
fn label<'a>(labels: &'a Map<String, Value>, key: &str) -> Cow<'a, str> {
    match labels.get(key) {
        Some(Value::String(value)) => Cow::Borrowed(value),
        Some(other) => Cow::Owned(other.to_string()),
        None => Cow::Borrowed(""),
    }
}

/// A column title for a field that has none of its own: `CreatedAt` becomes `CREATED AT`.
fn heading(name: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in name.chars() {
        if c.is_uppercase() && lower {
            out.push(' ');
        }
        lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

/// From the first command to the last; messages name the last.
fn pipe_span(pipe: &Pipe) -> Span {
    match (pipe.commands.first(), pipe.commands.last()) {
        (Some(first), Some(last)) => {
            Span { start: first.span.start, end: last.span.end, at: last.first.span.at }
        }
        _ => Span { start: 0, end: 0, at: 0 },
    }
}
