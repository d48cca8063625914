//! `dhow build --check`: what is valid in a Dockerfile and probably not meant. The names of rules are BuildKit's.

use std::collections::BTreeSet;

use super::dockerfile::{Command, Dockerfile, Instruction, Lines};

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

/// Looks at a whole file.
pub fn check(file: &Dockerfile) -> Vec<Finding> {
    let skipped = skipped(file);
    let mut all = Vec::new();
    let mut find = |rule: &'static str, lines: Lines, message: String| {
        if !skipped.contains("all") && !skipped.contains(&rule.to_ascii_lowercase()) {
            all.push(Finding { rule, message, lines });
        }
    };
    let globals: BTreeSet<&str> = file.globals.iter().map(|(name, ..)| name.as_str()).collect();
    for stage in &file.stages {
        let words: Vec<&str> = stage.text.split_whitespace().collect();
        if let (Some(from), Some(word)) =
            (words.first(), words.iter().find(|word| word.eq_ignore_ascii_case("as")))
            && is_upper(from) != is_upper(word)
        {
            let message = format!("'{word}' and '{from}' keywords' casing do not match");
            find("FromAsCasing", stage.lines, message);
        }
        if let Some(name) = &stage.name {
            if matches!(name.as_str(), "scratch" | "context") {
                let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
                find("ReservedStageName", stage.lines, message);
            }
            let written = words.last().copied().unwrap_or_default();
            if written != name {
                let message = format!("Stage name '{written}' should be lowercase");
                find("StageNameCasing", stage.lines, message);
            }
        }
        if let Some(name) = stage.base.strip_prefix('$').map(|name| name.trim_matches(['{', '}']))
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !globals.contains(name)
            && !is_automatic(name)
        {
            let message = format!("FROM argument '{name}' is not declared");
            find("UndefinedArgInFrom", stage.lines, message);
        }
        let (mut commands, mut entrypoints, mut checks) = (Vec::new(), Vec::new(), Vec::new());
        let mut absolute = false;
        for step in &stage.steps {
            let name = step.text.split_whitespace().next().unwrap_or_default();
            if name.chars().any(char::is_uppercase) && name.chars().any(char::is_lowercase) {
                let message = format!("Command '{name}' should be consistently cased");
                find("ConsistentInstructionCasing", step.lines, message);
            }
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
                Instruction::Maintainer(_) => {
                    let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                    find("MaintainerDeprecated", step.lines, message);
                }
                Instruction::Workdir(path) => {
                    if !absolute && !path.starts_with(['/', '$', '"']) {
                        let message = format!(
                            "Relative workdir \"{path}\" can have unexpected results if the base image changes"
                        );
                        find("WorkdirRelativePath", step.lines, message);
                    }
                    absolute |= path.starts_with('/');
                }
                Instruction::Env(pairs) => {
                    for (name, _) in pairs {
                        secret("ENV", name, step.lines, &mut find);
                    }
                    if !step.text.contains('=') {
                        let message =
                            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format"
                                .to_owned();
                        find("LegacyKeyValueFormat", step.lines, message);
                    }
                }
                Instruction::Arg(args) => {
                    for (name, _) in args {
                        secret("ARG", name, step.lines, &mut find);
                    }
                }
                Instruction::Label(_) if !step.text.contains('=') => {
                    let message =
                        "\"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format"
                            .to_owned();
                    find("LegacyKeyValueFormat", step.lines, message);
                }
                Instruction::Expose(words) => {
                    for word in words.iter().filter(|word| word.contains(':')) {
                        let message = format!(
                            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                        );
                        find("ExposeInvalidFormat", step.lines, message);
                    }
                }
                _ => {}
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
    }
    all.sort_by_key(|finding| finding.lines.first);
    all
}

fn json(command: &Command, name: &str, lines: Lines, find: &mut impl FnMut(&'static str, Lines, String)) {
    if matches!(command, Command::Shell(_)) {
        let message = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            name.to_ascii_uppercase()
        );
        find("JSONArgsRecommended", lines, message);
    }
}

fn secret(instruction: &str, name: &str, lines: Lines, find: &mut impl FnMut(&'static str, Lines, String)) {
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
        check(&file).into_iter().map(|finding| (finding.rule, finding.lines.first)).collect()
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
        assert_eq!(rules("# check=skip=all\nFROM a as B\n"), []);
        assert_eq!(rules("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER me\n"), []);
    }
}
