//! The tree of a parsed template. Plain data; positions are byte offsets into the source.

/// Where a message about a node points, and the source text it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte of the text.
    pub(super) start: usize,
    /// One past its last byte.
    pub(super) end: usize,
    /// The byte that messages name. Go points at the second name of `.A.B`, otherwise at the start.
    pub(super) at: usize,
}

/// A piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Copied to the output.
    Text(String),
    /// `{{pipeline}}`: printed unless it declares a variable.
    Action(Pipe),
    /// `{{if}}`, `{{with}}` or `{{range}}`.
    Control(Control, Branch),
    /// `{{break}}`
    Break,
    /// `{{continue}}`
    Continue,
    /// `{{template "name" pipeline}}`
    Template { name: String, pipe: Option<Pipe>, span: Span },
}

/// Which of the three forms with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    If,
    With,
    Range,
}

/// A condition and its two bodies.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `$x := command | command`
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    /// Variables on the left, with their `$`. Two only in `range`.
    pub(super) vars: Vec<String>,
    /// `=` instead of `:=`.
    pub(super) assign: bool,
    pub(super) commands: Vec<Command>,
}

/// A first word and its arguments.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) args: Vec<Operand>,
    pub(super) span: Span,
}

/// One word of a command.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// The kinds of words.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Dot,
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Function(String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`, the name with its `$`.
    Variable(String, Vec<String>),
    /// `(pipeline)`
    Paren(Box<Pipe>),
    /// `(pipeline).A.B`
    Chain(Box<Operand>, Vec<String>),
}
