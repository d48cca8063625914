//! `top`: the processes of a container, as the host's `ps` shows them.
//!
//! The options are those of `ps`, so it is `ps` that is asked, as Docker does it. A process that runs a Wasm program
//! shows the program's command line in the place of ours.

use std::process::{Command, Stdio};

use dhow_runtime::Kind;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::processes;
use crate::record::{Container, Status};

/// A table of processes: Docker's answer of `GET /containers/{id}/top`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// What is above the columns.
    pub titles: Vec<String>,
    /// For each process as many fields as there are titles.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// The processes of a running container, in the columns that these options of `ps` ask for; none means `-ef`.
    ///
    /// # Errors
    /// When the container does not run, `ps` refuses or is missing, or its output has no column `PID`.
    pub fn top(&self, container: &Container, options: &[String]) -> Result<Top> {
        let gone = || Error::NotRunning { id: container.record.id.clone() };
        if !matches!(container.state()?.status, Status::Running | Status::Paused) {
            return Err(gone());
        }
        if let Some(renamed) = renamed_pid(options) {
            return Err(Error::Invalid(format!("specifying \"{renamed}\" is not allowed")));
        }
        let pids = processes::of(container);
        if pids.is_empty() {
            return Err(gone());
        }
        let default = ["-ef".to_owned()];
        let options = if options.is_empty() { &default[..] } else { options };
        let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        // Without the list `ps` may leave out what belongs to another terminal; not every `ps` knows it.
        let text = match ps(options, Some(&list)) {
            Err(Error::Invalid(_)) => ps(options, None),
            other => other,
        }?;
        let mut top = parse(&text, &pids)?;
        if container.record.kind == Kind::Wasm {
            show_guests(&mut top, container);
        }
        self.tell_of(&container.record, "top", &[]);
        Ok(top)
    }
}

/// Docker refuses another title for the column by which it knows processes.
fn renamed_pid(options: &[String]) -> Option<String> {
    options.iter().flat_map(|option| option.split([' ', ','])).find_map(|word| {
        let (name, title) = word.split_once('=')?;
        title.starts_with("PID").then(|| format!("{name}={title}"))
    })
}

fn ps(options: &[String], list: Option<&str>) -> Result<String> {
    let mut command = Command::new("ps");
    command.args(options);
    if let Some(list) = list {
        command.arg(format!("-q{list}"));
    }
    // Lines are as long as they are.
    command.env_remove("COLUMNS").env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|error| Error::NotYet {
        what: format!("top without the host's ps ({error})"),
        hint: "install it, on Debian by `apt install procps`".to_owned(),
    })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim();
        return Err(Error::Invalid(format!("ps: {first}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines of these processes, and of threads below them.
fn parse(text: &str, pids: &[u32]) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::Invalid("Couldn't find PID field in ps output".to_owned()));
    };
    let mut processes = Vec::new();
    let mut within = false;
    for line in lines {
        let mut fields: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        let Some(pid) = fields.get(column) else { continue };
        within = match pid.as_str() {
            // A thread of the process above.
            "-" => within,
            pid => pid.parse().is_ok_and(|pid| pids.contains(&pid)),
        };
        if !within {
            continue;
        }
        if fields.len() > titles.len() {
            let last = fields.split_off(titles.len() - 1).join(" ");
            fields.push(last);
        }
        processes.push(fields);
    }
    Ok(Top { titles, processes })
}

/// Puts the command lines of Wasm programs where those of their hosts are.
fn show_guests(top: &mut Top, container: &Container) {
    let Some(last) = top.titles.last().filter(|title| matches!(title.as_str(), "CMD" | "COMMAND")) else {
        return;
    };
    let short = top.titles.len() < 5 && last == "CMD" && !top.titles.iter().any(|title| title == "UID");
    let Some(column) = top.titles.iter().position(|title| title == "PID") else { return };
    let sessions = container.sessions();
    let width = top.titles.len();
    for process in &mut top.processes {
        let pid = process.get(column).and_then(|pid| pid.parse::<u32>().ok());
        let session = sessions.iter().find(|session| Some(session.pid) == pid);
        let args = session.map_or(&container.record.args, |session| &session.args);
        // `ps` without `-f` shows a name, not a command line.
        let words = if short { args.first().cloned().unwrap_or_default() } else { args.join(" ") };
        if process.len() == width
            && let Some(field) = process.last_mut()
        {
            *field = words;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_others_are_left_out() {
        let text = "UID PID CMD\nroot 1 init\nroot 22 sh -c  x\nroot - t\nroot 3 y\nroot - u\nroot x z\n\n";
        let top = parse(text, &[22]).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "22", "sh -c x"], ["root", "-", "t"]]);
        assert!(parse("UID CMD\n", &[1]).is_err());
        assert!(parse("", &[1]).is_err());
    }

    #[test]
    fn the_pid_keeps_its_title() {
        let words =
            |text: &[&str]| renamed_pid(&text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["-o", "pid=PID,cmd"]).as_deref(), Some("pid=PID"));
        assert_eq!(words(&["-o cmd=PIDX"]).as_deref(), Some("cmd=PIDX"));
        assert_eq!(words(&["-o", "pid,cmd=X"]), None);
    }
}
