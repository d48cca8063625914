//! The whole `--help` tree: complete, in Docker's words, and changed only on purpose.

use crate::support::Host;

/// Every command path, found by walking the "Commands:" sections.
fn paths(host: &Host, path: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let text = host.dhow(path).args(["--help"]).ok();
    let mut below = Vec::new();
    let mut in_commands = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            in_commands = line.ends_with("ommands:");
        } else if in_commands
            && let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))
        {
            below.push(name.split([' ', ',', '*']).next().unwrap_or_default().to_owned());
        }
    }
    found.push((path.to_vec(), text));
    for name in below.into_iter().filter(|name| name != "help" && !name.is_empty()) {
        paths(host, &[path, &[name]].concat(), found);
    }
}

#[test]
fn the_help_tree_is_as_it_was() {
    let host = Host::new();
    let mut found = Vec::new();
    paths(&host, &[], &mut found);
    let all: String =
        found.iter().map(|(path, text)| format!("## dhow {}\n\n{text}\n", path.join(" "))).collect();
    insta::assert_snapshot!("help", all);
}

#[test]
fn the_commands_of_today_are_there_and_described() {
    let host = Host::new();
    let mut found = Vec::new();
    paths(&host, &[], &mut found);
    for command in
        ["run", "pull", "load", "images", "ps", "rm", "rmi", "inspect", "version", "info", "system check"]
    {
        let path: Vec<String> = command.split(' ').map(str::to_owned).collect();
        assert!(found.iter().any(|(known, _)| *known == path), "dhow {command} is not in the help");
    }
    for (path, text) in &found {
        assert!(!text.contains("TODO") && text.contains("sage:"), "{path:?}: {text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 140, "{path:?}: {line}");
        }
    }
}

#[test]
fn help_is_the_same_however_it_is_asked_for() {
    let host = Host::new();
    let long = host.dhow(["run", "--help"]).ok();
    assert_eq!(host.dhow(["help", "run"]).ok(), long);
    let bare = host.dhow([""; 0]).outcome();
    assert!(bare.stdout.contains("Usage:") || bare.stderr.contains("Usage:"), "{bare:#?}");
}

#[test]
fn completions_for_the_usual_shells() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = host.dhow(["completion", shell]).ok();
        assert!(script.contains("dhow") && script.len() > 1000, "{shell}");
    }
}
