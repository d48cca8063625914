//! `dhow build --check`: what is valid in a Dockerfile and probably not meant. The names of rules are BuildKit's.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::dockerfile::{Command, CopySource, Dockerfile, Instruction, Lines, Stage, Step, expand, nearest};
use super::ignore::Ignore;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// What it says.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

/// Looks at a whole file. What `ignore` leaves out of the context cannot be copied.
pub fn check(file: &Dockerfile, ignore: &Ignore) -> Vec<Finding> {
    let skipped = skipped(file);
    let mut all = Vec::new();
    let mut find = |rule: &'static str, lines: Lines, message: String| {
        if !skipped.contains("all") && !skipped.contains(&rule.to_ascii_lowercase()) {
            all.push(Finding { rule, message, lines });
        }
    };
    for lines in &file.gaps {
        find("NoEmptyContinuation", *lines, "Empty continuation line".to_owned());
    }
    casing(file, &mut find);
    for (at, stage) in file.stages.iter().enumerate() {
        from(file, at, &mut find);
        let (mut commands, mut entrypoints, mut checks) = (Vec::new(), Vec::new(), Vec::new());
        let mut absolute = false;
        for step in &stage.steps {
            let name = step.text.split_whitespace().next().unwrap_or_default();
            match &step.instruction {
                Instruction::Cmd(command) => {
                    commands.push(step.lines);
                    json(command, name, step.lines, &mut find);
                }
                Instruction::Entrypoint(command) => {
                    entrypoints.push(step.lines);
                    json(command, name, step.lines, &mut find);
                }
                Instruction::Healthcheck(_) => checks.push(step.lines),
                Instruction::Workdir(path) => {
                    if !absolute && !path.starts_with(['/', '$', '"']) {
                        let message = format!(
                            "Relative workdir \"{path}\" can have unexpected results if the base image changes"
                        );
                        find("WorkdirRelativePath", step.lines, message);
                    }
                    absolute |= path.starts_with('/');
                }
                _ => one(step, ignore, &mut find),
            }
        }
        for (name, all) in [("CMD", commands), ("ENTRYPOINT", entrypoints), ("HEALTHCHECK", checks)] {
            for lines in all.iter().rev().skip(1).rev() {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                );
                find("MultipleInstructionsDisallowed", *lines, message);
            }
        }
        variables(file, at, &mut find);
    }
    all.sort_by_key(|finding| finding.lines.first);
    all
}

type Find<'a> = dyn FnMut(&'static str, Lines, String) + 'a;

/// A `FROM`.
fn from(file: &Dockerfile, at: usize, find: &mut Find<'_>) {
    let stage = &file.stages[at];
    let globals: BTreeSet<&str> = file.globals.iter().map(|(name, ..)| name.as_str()).collect();
    let words: Vec<&str> = stage.text.split_whitespace().collect();
    if let (Some(from), Some(word)) =
        (words.first(), words.iter().find(|word| word.eq_ignore_ascii_case("as")))
        && is_upper(from) != is_upper(word)
    {
        find("FromAsCasing", stage.lines, format!("'{word}' and '{from}' keywords' casing do not match"));
    }
    if let Some(name) = &stage.name {
        if matches!(name.as_str(), "scratch" | "context") {
            let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
            find("ReservedStageName", stage.lines, message);
        }
        let written = words.last().copied().unwrap_or_default();
        if written != name {
            find("StageNameCasing", stage.lines, format!("Stage name '{written}' should be lowercase"));
        }
    }
    if let Some(platform) = &stage.platform {
        match platform.strip_prefix('$').map(|name| name.trim_matches(['{', '}'])) {
            Some("TARGETPLATFORM") => find(
                "RedundantTargetPlatform",
                stage.lines,
                format!(
                    "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
                ),
            ),
            None if !platform.contains('$') && !is_in_name(stage, platform) => find(
                "FromPlatformFlagConstDisallowed",
                stage.lines,
                format!("FROM --platform flag should not use constant value \"{platform}\""),
            ),
            _ => {}
        }
    }
    let escape = file.directives.escape;
    let mut undeclared = false;
    for name in used(&stage.base, escape) {
        if !globals.contains(name.as_str()) && !is_automatic(&name) {
            undeclared = true;
            find("UndefinedArgInFrom", stage.lines, format!("FROM argument '{name}' is not declared"));
        }
    }
    if undeclared || !stage.base.contains('$') {
        return;
    }
    // As it is without `--build-arg`.
    let known = |name: &str| {
        let default = file.globals.iter().rev().find(|(global, ..)| global == name)?.1.clone();
        default.map(|text| text.trim_matches(['"', '\'']).to_owned())
    };
    let scope = |name: &str| known(name).or_else(|| is_automatic(name).then(|| "x".to_owned()));
    let plain = expand::word(&stage.base, escape, &scope).unwrap_or_default();
    if !plain.contains('$') && dhow_images::Reference::parse(&plain).is_err() {
        let message =
            format!("Default value for ARG {} results in an empty or invalid base image name", stage.base);
        find("InvalidDefaultArgInFrom", stage.lines, message);
    }
}

/// A constant platform in a stage that is called so is meant.
fn is_in_name(stage: &Stage, platform: &str) -> bool {
    let architecture = platform.split('/').nth(1).unwrap_or(platform);
    stage.name.as_ref().is_some_and(|name| name.contains(architecture))
}

/// Whether names of instructions are written as most of them are.
fn casing(file: &Dockerfile, find: &mut Find<'_>) {
    let stages = file.stages.iter().flat_map(|stage| {
        let steps = stage.steps.iter().map(|step| (step.text.as_str(), step.lines));
        std::iter::once((stage.text.as_str(), stage.lines)).chain(steps)
    });
    let all: Vec<(&str, Lines)> =
        stages.map(|(text, lines)| (text.split_whitespace().next().unwrap_or_default(), lines)).collect();
    let is_lower = |name: &str| !name.chars().any(char::is_uppercase);
    let is_all_upper = |name: &str| !name.chars().any(char::is_lowercase);
    let lower = all.iter().filter(|(name, _)| is_lower(name)).count();
    let upper = all.iter().filter(|(name, _)| is_all_upper(name)).count();
    let (fits, wanted): (&dyn Fn(&str) -> bool, _) =
        if lower > upper { (&is_lower, "lowercase") } else { (&is_all_upper, "uppercase") };
    for (name, lines) in all.into_iter().filter(|(name, _)| !fits(name)) {
        let message = format!("Command '{name}' should match the case of the command majority ({wanted})");
        find("ConsistentInstructionCasing", lines, message);
    }
}

/// An instruction that says all by itself.
fn one(step: &Step, ignore: &Ignore, find: &mut Find<'_>) {
    let legacy = |name: &str| {
        format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format")
    };
    match &step.instruction {
        Instruction::Maintainer(_) => {
            let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
            find("MaintainerDeprecated", step.lines, message);
        }
        Instruction::Env(pairs) => {
            for (name, _) in pairs {
                secret("ENV", name, step.lines, find);
            }
            if !step.text.contains('=') {
                find("LegacyKeyValueFormat", step.lines, legacy("ENV"));
            }
        }
        Instruction::Arg(args) => {
            for (name, _) in args {
                secret("ARG", name, step.lines, find);
            }
        }
        Instruction::Label(_) if !step.text.contains('=') => {
            find("LegacyKeyValueFormat", step.lines, legacy("LABEL"));
        }
        Instruction::Expose(words) => {
            for word in words {
                if word.contains(':') {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                    );
                    find("ExposeInvalidFormat", step.lines, message);
                }
                if word
                    .split_once('/')
                    .is_some_and(|(_, protocol)| is_upper(protocol) && !protocol.contains('$'))
                {
                    let message =
                        format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
                    find("ExposeProtoCasing", step.lines, message);
                }
            }
        }
        Instruction::Copy(copy) if copy.from.is_none() => {
            for source in &copy.sources {
                let CopySource::Path(path) = source else { continue };
                let clean = path.trim_start_matches("./").trim_matches('/');
                let is_plain = !clean.is_empty() && !clean.contains(['*', '?', '[', '$', ':']);
                if is_plain && ignore.ignores(clean) && !ignore.may_take_back_below(clean) {
                    let message =
                        format!("Attempting to Copy file \"{path}\" that is excluded by .dockerignore");
                    find("CopyIgnoredFile", step.lines, message);
                }
            }
        }
        _ => {}
    }
}

/// Variables that nothing gives a value. What a base image has in its environment is not known here, so upon one only
/// names are found that are almost those of another variable.
fn variables(file: &Dockerfile, at: usize, find: &mut Find<'_>) {
    let escape = file.directives.escape;
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut base = at;
    let mut from_scratch = false;
    // What the stages below have set.
    for _ in 0..=at {
        let stage = &file.stages[base];
        if base != at {
            for step in &stage.steps {
                if let Instruction::Env(pairs) = &step.instruction {
                    known.extend(pairs.iter().map(|(name, _)| name.clone()));
                }
            }
        }
        from_scratch = stage.base == "scratch";
        let earlier = file.stages[..base].iter().rposition(|other| {
            other.name.as_deref().is_some_and(|name| stage.base.eq_ignore_ascii_case(name))
        });
        let Some(earlier) = earlier else { break };
        base = earlier;
    }
    for step in &file.stages[at].steps {
        let texts: Vec<&str> = match &step.instruction {
            Instruction::Env(pairs) | Instruction::Label(pairs) => {
                pairs.iter().map(|(_, value)| value.as_str()).collect()
            }
            Instruction::Arg(args) => args.iter().filter_map(|(_, value)| value.as_deref()).collect(),
            Instruction::Workdir(text) | Instruction::User(text) | Instruction::StopSignal(text) => {
                vec![text]
            }
            Instruction::Expose(words) | Instruction::Volume(words) => {
                words.iter().map(String::as_str).collect()
            }
            Instruction::Copy(copy) => {
                let sources = copy.sources.iter().filter_map(|source| match source {
                    CopySource::Path(path) => Some(path.as_str()),
                    CopySource::Heredoc(_) => None,
                });
                sources.chain([copy.target.as_str()]).collect()
            }
            _ => Vec::new(),
        };
        for name in texts.into_iter().flat_map(|text| used(text, escape)) {
            let others: Vec<&str> = known.iter().map(String::as_str).collect();
            let near = nearest(&name, &others);
            if known.contains(&name) || super::is_proxy(&name) || (!from_scratch && near.is_none()) {
                continue;
            }
            let meant = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            find("UndefinedVar", step.lines, format!("Usage of undefined variable '${name}'{meant}"));
        }
        match &step.instruction {
            Instruction::Env(pairs) => known.extend(pairs.iter().map(|(name, _)| name.clone())),
            Instruction::Arg(args) => known.extend(args.iter().map(|(name, _)| name.clone())),
            _ => {}
        }
    }
}

/// The variables that a text takes the values of, and has no words for if they have none.
fn used(text: &str, escape: char) -> Vec<String> {
    let names = RefCell::new(Vec::new());
    let scope = |name: &str| {
        names.borrow_mut().push(name.to_owned());
        None
    };
    // `${A:-b}` and the like are meant for variables without a value.
    if text.contains("${") && text.contains([':', '-', '+', '?']) {
        return Vec::new();
    }
    // What cannot be read is an error elsewhere.
    expand::word(text, escape, &scope).ok();
    names.into_inner()
}

fn json(command: &Command, name: &str, lines: Lines, find: &mut Find<'_>) {
    if matches!(command, Command::Shell(_)) {
        let message = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            name.to_ascii_uppercase()
        );
        find("JSONArgsRecommended", lines, message);
    }
}

fn secret(instruction: &str, name: &str, lines: Lines, find: &mut Find<'_>) {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(['_', '-']).collect();
    let known = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    let public = words.contains(&"public");
    if !public && words.iter().any(|word| known.contains(word)) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
        find("SecretsUsedInArgOrEnv", lines, message);
    }
}

fn is_upper(word: &str) -> bool {
    word.chars().any(char::is_uppercase)
}

fn is_automatic(name: &str) -> bool {
    name.starts_with("TARGET") || name.starts_with("BUILD")
}

/// `# check=skip=A,B`.
fn skipped(file: &Dockerfile) -> BTreeSet<String> {
    let text = file.directives.check.as_deref().unwrap_or("");
    let skip = text.split(';').find_map(|part| part.trim().strip_prefix("skip="));
    skip.unwrap_or("").split(',').map(|rule| rule.trim().to_ascii_lowercase()).collect()
}

/// Whether findings are to fail a build: `# check=error=true`.
pub fn is_strict(file: &Dockerfile) -> bool {
    let text = file.directives.check.as_deref().unwrap_or("");
    text.split(';').any(|part| part.trim() == "error=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(&'static str, usize)> {
        let file = Dockerfile::parse(text).unwrap();
        let ignore = Ignore::parse("left-out").unwrap();
        check(&file, &ignore).into_iter().map(|finding| (finding.rule, finding.lines.first)).collect()
    }

    #[test]
    fn what_is_found() {
        assert_eq!(rules("FROM a AS b\nWORKDIR /x\nCMD [\"y\"]\n"), []);
        assert_eq!(
            rules(
                "FROM a as B\nMAINTAINER me\nWORKDIR x\nCMD y\nCMD [\"z\"]\nENV DB_PASSWORD=1\nENV A 1\nCopy a b\n"
            ),
            [
                ("FromAsCasing", 1),
                ("StageNameCasing", 1),
                ("MaintainerDeprecated", 2),
                ("WorkdirRelativePath", 3),
                ("JSONArgsRecommended", 4),
                ("MultipleInstructionsDisallowed", 4),
                ("SecretsUsedInArgOrEnv", 6),
                ("LegacyKeyValueFormat", 7),
                ("ConsistentInstructionCasing", 8),
            ]
        );
        assert_eq!(
            rules(
                "ARG V\nARG W=1\nFROM --platform=$TARGETPLATFORM a:$V\nRUN a \\\n\n  b\nEXPOSE 80/TCP 1:2\nCOPY left-out /x\n\
                FROM --platform=linux/amd64 a:$W\nFROM $X\nFROM scratch\nENV AB=1\nENV C=$AB D=$PATH E=${F:-g}\nFROM a\nENV NAME=1\nWORKDIR /$NAMEE$PATH\n"
            ),
            [
                ("RedundantTargetPlatform", 3),
                ("InvalidDefaultArgInFrom", 3),
                ("NoEmptyContinuation", 5),
                ("ExposeProtoCasing", 7),
                ("ExposeInvalidFormat", 7),
                ("CopyIgnoredFile", 8),
                ("FromPlatformFlagConstDisallowed", 9),
                ("UndefinedArgInFrom", 10),
                ("UndefinedVar", 13),
                ("UndefinedVar", 16),
            ]
        );
        assert_eq!(rules("from a\nrun b\nRUN c\n"), [("ConsistentInstructionCasing", 3)]);
        assert_eq!(rules("FROM --platform=linux/amd64 a AS for-amd64\n"), []);
        assert_eq!(rules("# check=skip=all\nFROM a as B\n"), []);
        assert_eq!(rules("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER me\n"), []);
    }
}
