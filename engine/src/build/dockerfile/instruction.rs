//! Instructions with their flags and arguments. What has variables is kept as it is written.

use super::fault::{Fault, Lines, nearest};
use super::lines::{Heredoc, Logical};
use super::split;

/// All names of instructions.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// `--name[=value]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: String,
    /// After the `=`.
    pub value: Option<String>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A JSON array: the program and its arguments.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// A `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run; with here-documents a script of it and them.
    pub command: Command,
    /// What is mounted meanwhile.
    pub mounts: Vec<Mount>,
    /// `default`, `none` or `host`.
    pub network: Option<String>,
    /// `sandbox` or `insecure`.
    pub security: Option<String>,
    /// Here-documents, which are part of the script.
    pub heredocs: Vec<Heredoc>,
}

/// What a mount of a `RUN` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountType {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that stays for later builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret's file.
    Secret,
    /// A socket to an agent for SSH.
    Ssh,
}

/// A mount of a `RUN`. Its values may have variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Which kind.
    pub kind: MountType,
    /// All other settings, in their order.
    pub options: Vec<(String, Option<String>)>,
}

impl Mount {
    /// The last value of a setting under any of these names.
    pub fn get(&self, names: &[&str]) -> Option<&str> {
        let found = self.options.iter().rev().find(|(name, _)| names.contains(&name.as_str()))?;
        Some(found.1.as_deref().unwrap_or(""))
    }

    /// Whether a switch is on.
    pub fn is(&self, names: &[&str]) -> Option<bool> {
        self.get(names).map(|value| matches!(value, "" | "true" | "1"))
    }
}

/// Where something is copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern, or an address for `ADD`; not expanded.
    Path(String),
    /// A here-document, a file of its name.
    Heredoc(Heredoc),
}

/// A `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// It is an `ADD`.
    pub add: bool,
    /// From where.
    pub sources: Vec<CopySource>,
    /// To where; not expanded.
    pub target: String,
    /// A stage, an image or a named context.
    pub from: Option<String>,
    /// `user[:group]`.
    pub chown: Option<String>,
    /// Permission bits.
    pub chmod: Option<String>,
    /// The layer does not depend on what is below.
    pub link: bool,
    /// Directories on the way are made in the target too.
    pub parents: bool,
    /// What is left out.
    pub exclude: Vec<String>,
    /// What a download must have.
    pub checksum: Option<String>,
    /// Whether archives are unpacked, if it is said.
    pub unpack: Option<bool>,
    /// The repository's own files stay.
    pub keep_git_dir: bool,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Variables of the build.
    Arg(Vec<(String, Option<String>)>),
    /// Variables of the image.
    Env(Vec<(String, String)>),
    /// Notes.
    Label(Vec<(String, String)>),
    /// Runs something.
    Run(Run),
    /// Copies something.
    Copy(Copy),
    /// Arguments that a user replaces.
    Cmd(Command),
    /// The program.
    Entrypoint(Command),
    /// What runs lines.
    Shell(Vec<String>),
    /// Where it starts.
    Workdir(String),
    /// As whom.
    User(String),
    /// Ports, as words that are not expanded.
    Expose(Vec<String>),
    /// Directories with volumes of their own.
    Volume(Vec<String>),
    /// What ends it.
    StopSignal(String),
    /// How it is told whether it is well: the text after the name.
    Healthcheck(String),
    /// What is done first in a build upon the image.
    Onbuild(String),
    /// Who made it.
    Maintainer(String),
}

impl Instruction {
    pub(super) fn parse(logical: &Logical, escape: char) -> Result<Self, Fault> {
        let at = logical.lines;
        let (name, rest) = split::first(&logical.text);
        let upper = name.to_ascii_uppercase();
        let fault = |reason: String| Fault::new(at, reason).at(name);
        if !NAMES.contains(&upper.as_str()) {
            let fault = fault(format!("unknown instruction: {name}"));
            return Err(match nearest(&upper, &NAMES) {
                Some(near) => fault.hint(format!("did you mean {near}?")),
                None => fault,
            });
        }
        if rest.is_empty() && logical.heredocs.is_empty() {
            return Err(fault(format!("{upper} requires at least one argument")));
        }
        let no_flags = || match rest.strip_prefix("--") {
            Some(flag)
                if !matches!(upper.as_str(), "CMD" | "ENTRYPOINT" | "LABEL" | "ENV" | "MAINTAINER") =>
            {
                let name = flag.split(['=', ' ']).next().unwrap_or_default();
                Err(unknown_flag(&upper, name, &[], at))
            }
            _ => Ok(()),
        };
        if !matches!(upper.as_str(), "RUN" | "COPY" | "ADD" | "HEALTHCHECK" | "ONBUILD") {
            no_flags()?;
        }
        let one = || Ok(rest.to_owned());
        Ok(match upper.as_str() {
            "ARG" => Self::Arg(args(rest, escape).map_err(fault)?),
            "ENV" => Self::Env(split::pairs("ENV", rest, escape).map_err(fault)?),
            "LABEL" => Self::Label(split::pairs("LABEL", rest, escape).map_err(fault)?),
            "RUN" => Self::Run(run(logical, rest, escape)?),
            "COPY" | "ADD" => Self::Copy(copy(logical, &upper, rest, escape)?),
            "CMD" => Self::Cmd(command(rest)),
            "ENTRYPOINT" => Self::Entrypoint(command(rest)),
            "SHELL" => match split::array(rest) {
                Some(words) if !words.is_empty() => Self::Shell(words),
                _ => {
                    return Err(fault("SHELL requires the arguments to be in JSON form".to_owned())
                        .hint("write `SHELL [\"/bin/bash\", \"-c\"]`"));
                }
            },
            "WORKDIR" => Self::Workdir(one()?),
            "USER" => Self::User(one()?),
            "EXPOSE" => Self::Expose(split::raw_words(rest, escape)),
            "VOLUME" => Self::Volume(split::array(rest).unwrap_or_else(|| split::raw_words(rest, escape))),
            "STOPSIGNAL" => Self::StopSignal(one()?),
            "HEALTHCHECK" => {
                let mut scratch = dhow_images::RunConfig::default();
                crate::image::change::apply(&mut scratch, &format!("HEALTHCHECK {rest}"))
                    .map_err(|error| fault(error.to_string()))?;
                Self::Healthcheck(rest.to_owned())
            }
            "ONBUILD" => Self::Onbuild(onbuild(logical, rest, escape)?),
            _ => Self::Maintainer(one()?),
        })
    }
}

/// What is said of a flag that an instruction has not.
pub(super) fn unknown_flag(instruction: &str, name: &str, known: &[&str], at: Lines) -> Fault {
    let fault = Fault::new(at, format!("unknown flag: --{name}")).at(&format!("--{name}"));
    match nearest(name, known) {
        Some(near) => fault.hint(format!("did you mean --{near}?")),
        None if known.is_empty() => fault.hint(format!("{instruction} has no flags")),
        None => fault.hint(format!("{instruction} has --{}", known.join(", --"))),
    }
}

fn command(text: &str) -> Command {
    split::array(text).map_or_else(|| Command::Shell(text.to_owned()), Command::Exec)
}

fn args(text: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    split::raw_words(text, escape)
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err("ARG names can not be blank".to_owned()),
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((word, None)),
        })
        .collect()
}

fn onbuild(logical: &Logical, rest: &str, escape: char) -> Result<String, Fault> {
    let at = logical.lines;
    let (trigger, _) = split::first(rest);
    match trigger.to_ascii_uppercase().as_str() {
        "ONBUILD" => {
            return Err(Fault::new(at, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed").at(trigger));
        }
        upper @ ("FROM" | "MAINTAINER") => {
            return Err(Fault::new(at, format!("{upper} isn't allowed as an ONBUILD trigger")).at(trigger));
        }
        _ => {}
    }
    let inner = Logical { text: rest.to_owned(), ..logical.clone() };
    Instruction::parse(&inner, escape)?;
    let mut text = rest.to_owned();
    for heredoc in &logical.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn run(logical: &Logical, rest: &str, escape: char) -> Result<Run, Fault> {
    const KNOWN: [&str; 3] = ["mount", "network", "security"];
    let at = logical.lines;
    let (flags, rest) = split::flags(rest, escape).map_err(|reason| Fault::new(at, reason))?;
    let mut run = Run {
        command: Command::Shell(String::new()),
        mounts: Vec::new(),
        network: None,
        security: None,
        heredocs: logical.heredocs.clone(),
    };
    for flag in flags {
        let value = |allowed: &[&str]| match &flag.value {
            Some(value) if allowed.contains(&value.as_str()) => Ok(Some(value.clone())),
            other => {
                let shown = other.as_deref().unwrap_or("");
                let message = format!("invalid value \"{shown}\" for --{}", flag.name);
                Err(Fault::new(at, message).hint(format!("it is one of {}", allowed.join(", "))))
            }
        };
        match flag.name.as_str() {
            "mount" => run.mounts.push(mount(flag.value.as_deref().unwrap_or(""), at)?),
            "network" => run.network = value(&["default", "none", "host"])?,
            "security" => run.security = value(&["sandbox", "insecure"])?,
            name => return Err(unknown_flag("RUN", name, &KNOWN, at)),
        }
    }
    if rest.is_empty() {
        return Err(Fault::new(at, "RUN requires at least one argument"));
    }
    run.command = command(rest);
    Ok(run)
}

fn mount(text: &str, at: Lines) -> Result<Mount, Fault> {
    const KNOWN: [&str; 19] = [
        "type",
        "target",
        "dst",
        "destination",
        "source",
        "src",
        "from",
        "rw",
        "readwrite",
        "ro",
        "readonly",
        "id",
        "sharing",
        "mode",
        "uid",
        "gid",
        "size",
        "required",
        "env",
    ];
    let mut mount = Mount::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        let name = name.to_ascii_lowercase();
        if !KNOWN.contains(&name.as_str()) {
            let fault = Fault::new(at, format!("unexpected key '{name}' in '{part}'")).at(part);
            return Err(match nearest(&name, &KNOWN) {
                Some(near) => fault.hint(format!("did you mean {near}?")),
                None => fault,
            });
        }
        if name == "type" {
            mount.kind = match value {
                Some("bind") => MountType::Bind,
                Some("cache") => MountType::Cache,
                Some("tmpfs") => MountType::Tmpfs,
                Some("secret") => MountType::Secret,
                Some("ssh") => MountType::Ssh,
                other => {
                    let message = format!("unsupported mount type \"{}\"", other.unwrap_or(""));
                    return Err(Fault::new(at, message).hint("it is one of bind, cache, tmpfs, secret, ssh"));
                }
            };
        } else {
            mount.options.push((name, value.map(str::to_owned)));
        }
    }
    let has_target = mount.get(&["target", "dst", "destination"]).is_some();
    if !has_target && matches!(mount.kind, MountType::Bind | MountType::Cache | MountType::Tmpfs) {
        return Err(Fault::new(at, "the mount has no target").hint("add `target=/path`"));
    }
    Ok(mount)
}

fn copy(logical: &Logical, name: &str, rest: &str, escape: char) -> Result<Copy, Fault> {
    let at = logical.lines;
    let add = name == "ADD";
    let known: &[&str] = if add {
        &["chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"]
    } else {
        &["from", "chown", "chmod", "link", "parents", "exclude"]
    };
    let (flags, rest) = split::flags(rest, escape).map_err(|reason| Fault::new(at, reason))?;
    let mut copy = Copy {
        add,
        sources: Vec::new(),
        target: String::new(),
        from: None,
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        checksum: None,
        unpack: None,
        keep_git_dir: false,
    };
    for flag in flags {
        if !known.contains(&flag.name.as_str()) {
            return Err(unknown_flag(name, &flag.name, known, at));
        }
        let switch = || match flag.value.as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => {
                Err(Fault::new(at, format!("expecting boolean value for flag {}, not: {other}", flag.name)))
            }
        };
        let value = || match &flag.value {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            _ => Err(Fault::new(at, format!("missing a value on flag: {}", flag.name))),
        };
        match flag.name.as_str() {
            "from" => copy.from = Some(value()?),
            "chown" => copy.chown = Some(value()?),
            "chmod" => copy.chmod = Some(value()?),
            "link" => copy.link = switch()?,
            "parents" => copy.parents = switch()?,
            "exclude" => copy.exclude.push(value()?),
            "checksum" => copy.checksum = Some(value()?),
            "keep-git-dir" => copy.keep_git_dir = switch()?,
            _ => copy.unpack = Some(switch()?),
        }
    }
    let mut words = split::array(rest).unwrap_or_else(|| split::raw_words(rest, escape));
    let too_few = || {
        let message = format!(
            "{name} requires at least two arguments, but only {} {} provided",
            if rest.is_empty() { "zero" } else { "one" },
            if rest.is_empty() { "were" } else { "was" }
        );
        Fault::new(at, message).hint(format!("write `{name} source... target`"))
    };
    copy.target = words.pop().ok_or_else(too_few)?;
    if words.is_empty() {
        return Err(too_few());
    }
    let mut heredocs = logical.heredocs.iter();
    for word in words {
        copy.sources.push(match heredocs.as_slice().first() {
            Some(heredoc) if word.starts_with("<<") => {
                heredocs.next();
                CopySource::Heredoc(heredoc.clone())
            }
            _ => CopySource::Path(word),
        });
    }
    Ok(copy)
}
