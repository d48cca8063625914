//! Every flag of Docker's commands on containers, volumes, networks and the system is known here: taken, or refused with
//! the reason. What is not known at all is in a table of `docs/compat.md`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::support::{Host, repository};

const GROUPS: [&str; 5] = ["container", "volume", "network", "system", ""];

/// Docker's other commands: of images, which have tests of their own, and those that manage many hosts or its daemon.
const OTHERS: [&str; 16] = [
    "checkpoint",
    "config",
    "context",
    "history",
    "images",
    "import",
    "load",
    "login",
    "logout",
    "pull",
    "push",
    "rmi",
    "save",
    "search",
    "tag",
    "version",
];

fn help(docker: &str, words: &[&str]) -> String {
    let output = Command::new(docker).args(words).arg("--help").stdin(Stdio::null()).output();
    String::from_utf8_lossy(&output.expect("docker (Debian package docker.io)").stdout).into_owned()
}

/// The commands below a group, without those that manage swarms, and without groups.
fn commands(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut wanted = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            wanted = line.ends_with("ommands:") && !line.contains("Management") && !line.contains("Swarm");
        } else if wanted && let Some(name) = line.split_whitespace().next() {
            let is_entry = line.starts_with("  ") && !line.starts_with("   ");
            names.extend(is_entry.then(|| name.trim_end_matches('*').to_owned()));
        }
    }
    names
}

/// The options of a command, short and long.
fn options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("  ")) {
        let mut words = line.split_whitespace();
        let Some(mut word) = words.next() else { continue };
        if let Some(short) = word.strip_suffix(',').filter(|short| short.len() == 2 && short.starts_with('-'))
        {
            found.insert(short.to_owned());
            word = words.next().unwrap_or_default();
        }
        if word.starts_with("--") {
            found.insert(word.to_owned());
        }
    }
    found
}

/// `dhow X --flag` is absent on purpose, and why is told to users.
fn absences() -> BTreeSet<String> {
    let text = fs_err::read_to_string(repository().join("docs/compat.md")).expect("docs/compat.md");
    let table = text.split("\n## ").find_map(|part| part.strip_prefix("Not there\n")).expect("a table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn every_flag_of_docker_is_known() {
    let host = Host::new();
    let absent = absences();
    let mut used = BTreeSet::new();
    let mut unknown = Vec::new();
    let mut looked = 0;
    for docker in ["/usr/bin/docker", "/usr/local/bin/docker"] {
        if !std::path::Path::new(docker).exists() {
            continue;
        }
        for group in GROUPS {
            let group: Vec<&str> = Some(group).into_iter().filter(|group| !group.is_empty()).collect();
            for verb in commands(&help(docker, &group)) {
                if group.is_empty() && OTHERS.contains(&verb.as_str()) {
                    continue;
                }
                let path = [&group[..], &[&verb]].concat();
                let name = path.join(" ");
                // What there is no command for says so before it looks at any option.
                for option in options(&help(docker, &path)) {
                    looked += 1;
                    let given = if option.starts_with("--") { format!("{option}=1") } else { option.clone() };
                    let said = host.dhow(&path).args([&given, "--no-such-option"]).outcome().stderr;
                    let is_unknown = said.contains(&format!("unexpected argument '{option}'"))
                        || said.contains("unrecognized subcommand");
                    let shown = format!("{name} {option}");
                    let reason = [shown.as_str(), &name].into_iter().find(|entry| absent.contains(*entry));
                    match reason {
                        Some(reason) if is_unknown => drop(used.insert(reason.to_owned())),
                        _ if is_unknown => unknown.push(shown),
                        _ => {}
                    }
                }
            }
        }
    }
    assert!(looked > 300, "only {looked} options of Docker's were found");
    assert!(unknown.is_empty(), "neither known nor in docs/compat.md: {unknown:#?}");
    // An entry that is not needed any more goes.
    if std::path::Path::new("/usr/local/bin/docker").exists() {
        let idle: Vec<_> = absent.difference(&used).collect();
        assert!(idle.is_empty(), "docs/compat.md names as absent what is known: {idle:?}");
    }
}
