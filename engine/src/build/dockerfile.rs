//! The Dockerfile language: from text to stages of instructions, each with the lines it came from.
//!
//! Values of variables are not known here: what is expanded later is kept as it is written. Nothing is looked up, read
//! or run. A Dockerfile may come from anywhere, so its size and nesting are bounded.

pub mod expand;
mod fault;
pub mod glob;
mod instruction;
mod lines;
mod split;

pub(super) use fault::nearest;
pub use fault::{Fault, Lines, excerpt, marked};
pub use instruction::{Command, Copy, CopySource, Flag, Instruction, Mount, MountType, Run};
pub use lines::{Directives, Heredoc, MAX_SIZE};

/// A Dockerfile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The directives at its beginning.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`, with what they say.
    pub globals: Vec<(String, Option<String>, Lines)>,
    /// Its stages.
    pub stages: Vec<Stage>,
    /// Empty lines within instructions, which will be an error one day.
    pub gaps: Vec<Lines>,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The image, stage or `scratch` that it begins with, not expanded.
    pub base: String,
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// `--platform`, not expanded.
    pub platform: Option<String>,
    /// The instruction as it is written.
    pub text: String,
    /// Where the `FROM` is.
    pub lines: Lines,
    /// What follows.
    pub steps: Vec<Step>,
}

/// An instruction at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub instruction: Instruction,
    /// As it is written, on one line.
    pub text: String,
    /// Where it is.
    pub lines: Lines,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (directives, lines, gaps) = lines::read(text)?;
        let escape = directives.escape;
        let mut file = Self { directives, globals: Vec::new(), stages: Vec::new(), gaps };
        for logical in lines {
            let at = logical.lines;
            let (name, rest) = split::first(&logical.text);
            if name.eq_ignore_ascii_case("FROM") {
                let stage = from(rest, &logical.text, escape, at)?;
                if let Some(name) = &stage.name
                    && file.stages.iter().any(|other| other.name.as_ref() == Some(name))
                {
                    let message = format!("duplicate name {name}");
                    return Err(Fault::new(at, message).at(name).hint("names of stages are used once"));
                }
                file.stages.push(stage);
                continue;
            }
            let step = Step::parse(&logical, escape)?;
            match (file.stages.last_mut(), step.instruction) {
                (Some(stage), instruction) => stage.steps.push(Step { instruction, ..step }),
                (None, Instruction::Arg(args)) => {
                    file.globals.extend(args.into_iter().map(|(name, value)| (name, value, at)));
                }
                (None, _) => {
                    return Err(Fault::new(at, "no build stage in current context")
                        .at(name)
                        .hint("only ARG may be before the first FROM"));
                }
            }
        }
        if file.stages.is_empty() {
            let whole = Lines { first: 1, last: 1 };
            return Err(if file.globals.is_empty() {
                Fault::new(whole, "file with no instructions")
            } else {
                Fault::new(whole, "no build stage in current context").hint("a Dockerfile needs a FROM")
            });
        }
        Ok(file)
    }
}

impl Step {
    /// Reads one instruction, as `ONBUILD` has kept it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_one(text: &str, at: Lines) -> Result<Self, Fault> {
        let (_, all, _) = lines::read(text)?;
        let [logical] = all.as_slice() else {
            return Err(Fault::new(at, format!("not one instruction: {text}")));
        };
        let logical = lines::Logical { lines: at, ..logical.clone() };
        Self::parse(&logical, '\\')
    }

    fn parse(logical: &lines::Logical, escape: char) -> Result<Self, Fault> {
        let instruction = Instruction::parse(logical, escape)?;
        Ok(Self { instruction, text: logical.text.clone(), lines: logical.lines })
    }
}

fn from(rest: &str, text: &str, escape: char, at: Lines) -> Result<Stage, Fault> {
    let (flags, rest) = split::flags(rest, escape).map_err(|reason| Fault::new(at, reason))?;
    let mut platform = None;
    for flag in flags {
        match (flag.name.as_str(), flag.value) {
            ("platform", Some(value)) => platform = Some(value),
            (name, _) => return Err(instruction::unknown_flag("FROM", name, &["platform"], at)),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, word, name] if word.eq_ignore_ascii_case("AS") => (*base, Some(*name)),
        _ => {
            return Err(Fault::new(at, "FROM requires either one or three arguments")
                .hint("write `FROM image` or `FROM image AS name`"));
        }
    };
    let name = name.map(str::to_ascii_lowercase);
    if let Some(name) = &name {
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !begins || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            let message = format!(
                "invalid name for build stage: \"{name}\", name can't start with a number or contain symbols"
            );
            return Err(Fault::new(at, message).at(name));
        }
    }
    Ok(Stage { base: base.to_owned(), name, platform, text: text.to_owned(), lines: at, steps: Vec::new() })
}

#[cfg(test)]
mod tests;
