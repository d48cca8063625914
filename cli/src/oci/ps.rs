//! `ps`: a container's processes, as numbers or as the host's `ps` shows them.

use std::process::Command;

use dhow_engine::runtime::oci::Container;

use super::args::{Given, value};
use super::{Global, Outcome, failed};
use crate::ui::Ui;

/// `ps`
pub(super) fn ps(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[value("format", "f")], words, Some(1))?;
    let Some((id, options)) = given.words().split_first() else {
        return Err(failed("ps: \"dhow oci ps\" requires a minimum of 1 argument"));
    };
    let mut pids = Container::open(&global.root, id)?.pids()?;
    pids.sort_unstable();
    match given.text("format").unwrap_or("table") {
        "json" => {
            ui.line(&serde_json::to_string(&pids)?);
            return Ok(0);
        }
        "table" => {}
        _ => return Err(failed("invalid format option")),
    }
    let mut command = Command::new("ps");
    if options.is_empty() {
        command.arg("-ef");
    } else {
        command.args(options);
    }
    let output = command.output().map_err(|error| failed(format!("ps: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, said.trim_end())));
    }
    ui.print(&filter(&String::from_utf8_lossy(&output.stdout), &pids)?);
    Ok(0)
}

/// The heading, and the lines of these processes.
fn filter(text: &str, pids: &[u32]) -> Result<String, super::Failure> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|word| word == "PID") else {
        return Err(failed("couldn't find PID field in ps output"));
    };
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_container_s_lines_are_shown() {
        let text = "UID   PID CMD\nroot    1 a\nroot   17 b\nroot  170 17\n";
        assert_eq!(super::filter(text, &[17]).unwrap(), "UID   PID CMD\nroot   17 b\n");
        assert!(super::filter("UID CMD\n", &[17]).is_err());
    }
}
