//! The verbs that change a container's life: `create`, `start`, `run`, `exec`, `kill`, `delete`, `pause`, `resume`.

use std::path::PathBuf;

use dhow_engine::runtime::Signal;
use dhow_engine::runtime::oci::create::{self, Request};
use dhow_engine::runtime::oci::exec::{self, ExecRequest};
use dhow_engine::runtime::oci::{Container, Error, container, foreground};

use super::args::{Flag, Given, switch, value};
use super::{Failure, Global, Outcome, failed};
use crate::ui::Ui;

pub(super) const CREATE: [Flag; 7] = [
    value("bundle", "b"),
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("pid-file", ""),
    switch("no-pivot", ""),
    switch("no-new-keyring", ""),
    value("preserve-fds", ""),
];

pub(super) fn request(global: &Global, given: &Given, verb: &str) -> Result<Request, Failure> {
    let path = |name: &str| given.text(name).map(PathBuf::from);
    let listen_fds = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let preserved = given.number("preserve-fds")?.unwrap_or(0);
    only_these(preserved + listen_fds)?;
    Ok(Request {
        root: global.root.clone(),
        id: given.id(verb)?.to_owned(),
        bundle: path("bundle").unwrap_or_else(|| PathBuf::from(".")),
        systemd: global.systemd,
        systemd_by_path: false,
        rootless: global.rootless,
        console_socket: path("console-socket"),
        console_channel: None,
        pidfd_socket: path("pidfd-socket"),
        pid_file: path("pid-file"),
        preserved,
        no_pivot: given.has("no-pivot"),
        no_new_keyring: given.has("no-new-keyring"),
        aot: Some(compiled()),
        modules: Vec::new(),
        listen_fds,
    })
}

/// Where compiled code of Wasm programs is kept.
fn compiled() -> PathBuf {
    super::default_root().with_file_name("oci-aot")
}

/// Closes what this process has inherited and nobody wants to be passed on: a container that waits must not keep a pipe
/// of its creator's open. Before anything else is opened, so that what is to be passed on is what the caller means.
pub(super) fn only_these(preserved: u32) -> Result<(), Failure> {
    let kept = dhow_engine::runtime::process::keep_descriptors(preserved);
    kept.map_err(|number| {
        failed(format!("unable to pass fd {number}: it is not open (please check --preserve-fds)"))
    })
}

fn created(error: &Error) -> Failure {
    failed(format!("create failed: {error}"))
}

/// `create`
pub(super) fn create(_ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&CREATE, words, None)?;
    create::create(&request(global, &given, "create")?).map_err(|error| created(&error))?;
    Ok(0)
}

/// `run`
pub(super) fn run(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let own = [switch("detach", "d"), switch("keep", ""), switch("no-subreaper", "")];
    let known: Vec<Flag> = CREATE.into_iter().chain(own).collect();
    let given = Given::parse(&known, words, None)?;
    let request = request(global, &given, "run")?;
    let ran = |error: Error| failed(format!("run failed: {error}"));
    if given.has("detach") {
        create::create(&request).map_err(ran)?;
        let started = Container::open(&request.root, &request.id).and_then(|mut made| made.start());
        match started {
            Ok(complaints) => complain(ui, global, &complaints),
            Err(error) => {
                Container::open(&request.root, &request.id).and_then(|made| made.delete(true)).ok();
                return Err(ran(error));
            }
        }
        return Ok(0);
    }
    let signals = foreground::watch().map_err(ran)?;
    let made = create::make_here(&request, foreground::terminal_size).map_err(ran)?;
    if !given.has("no-subreaper") {
        made.adopt_orphans().map_err(ran)?;
    }
    let (started, complaints) = made.start().map_err(ran)?;
    complain(ui, global, &complaints);
    let (code, complaints) = started.attend(&signals, given.has("keep")).map_err(ran)?;
    complain(ui, global, &complaints);
    Ok(code)
}

pub(super) fn complain(ui: Ui, global: &Global, complaints: &[String]) {
    for complaint in complaints {
        global.log.warn(ui, complaint);
    }
}

/// `start`
pub(super) fn start(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[], words, None)?;
    let mut container = Container::open(&global.root, given.id("start")?)?;
    complain(ui, global, &container.start()?);
    Ok(0)
}

/// `kill`
pub(super) fn kill(_ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[switch("all", "a")], words, None)?;
    let (id, signal) = match given.words() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        _ => return Err(failed("kill: \"dhow oci kill\" requires a minimum of 1 argument")),
    };
    let signal: Signal = signal.parse().map_err(|_| failed(format!("unknown signal {signal:?}")))?;
    Container::open(&global.root, id)?.kill(signal, given.has("all"))?;
    Ok(0)
}

/// `delete`
pub(super) fn delete(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[switch("force", "f")], words, None)?;
    let (id, force) = (given.id("delete")?, given.has("force"));
    let deleted = Container::open(&global.root, id).and_then(|container| container.delete(force));
    match deleted {
        Ok(complaints) => complain(ui, global, &complaints),
        Err(Error::NotExist(_)) if force => container::remove_remains(&global.root, id)?,
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}

/// `pause`
pub(super) fn pause(_ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[], words, None)?;
    Container::open(&global.root, given.id("pause")?)?.pause()?;
    Ok(0)
}

/// `resume`
pub(super) fn resume(_ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[], words, None)?;
    Container::open(&global.root, given.id("resume")?)?.resume()?;
    Ok(0)
}

const EXEC: [Flag; 18] = [
    value("console-socket", ""),
    value("pidfd-socket", ""),
    value("cwd", ""),
    value("env", "e"),
    switch("tty", "t"),
    value("user", "u"),
    value("additional-gids", "g"),
    value("process", "p"),
    switch("detach", "d"),
    value("pid-file", ""),
    value("process-label", ""),
    value("apparmor", ""),
    switch("no-new-privs", ""),
    value("cap", "c"),
    value("preserve-fds", ""),
    value("cgroup", ""),
    switch("ignore-paused", ""),
    // Whom it leaves behind is the container's, not this process's.
    switch("no-subreaper", ""),
];

/// `exec`; what fails before there is a program ends with 255, as runc's.
pub(super) fn exec(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    run_exec(ui, global, words)
        .map_err(|failure| Failure { text: format!("exec failed: {}", failure.text), code: 255 })
}

fn run_exec(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&EXEC, words, Some(1))?;
    let Some((id, args)) = given.words().split_first() else {
        return Err(failed("\"dhow oci exec\" requires a minimum of 1 argument"));
    };
    let path = |name: &str| given.text(name).map(PathBuf::from);
    let process = match path("process") {
        Some(path) => {
            let text = fs_err::read(&path)?;
            let process = serde_json::from_slice(&text);
            Some(process.map_err(|error| failed(format!("{}: {error}", path.display())))?)
        }
        None => None,
    };
    let groups = given.all("additional-gids").map(|text| {
        text.parse().map_err(|_| failed(format!("additional-gids must be a positive number {text}")))
    });
    let request = ExecRequest {
        process,
        args: args.to_vec(),
        env: given.all("env").map(str::to_owned).collect(),
        cwd: path("cwd").filter(|cwd| !cwd.as_os_str().is_empty()),
        user: given.text("user").filter(|user| !user.is_empty()).map(str::to_owned),
        additional_gids: groups.collect::<Result<_, _>>()?,
        capabilities: given.all("cap").map(str::to_owned).collect(),
        terminal: given.has("tty"),
        no_new_privileges: given.text("no-new-privs").is_some().then(|| given.has("no-new-privs")),
        apparmor: given.text("apparmor").map(str::to_owned),
        label: given.text("process-label").map(str::to_owned),
        ignore_paused: given.has("ignore-paused"),
        detach: given.has("detach"),
        console_socket: path("console-socket"),
        console_channel: None,
        pidfd_socket: path("pidfd-socket"),
        pid_file: path("pid-file"),
        preserved: given.number("preserve-fds")?.unwrap_or(0),
        cgroups: given.all("cgroup").map(str::to_owned).collect(),
        aot: Some(compiled()),
        modules: Vec::new(),
    };
    only_these(request.preserved)?;
    let container = Container::open(&global.root, id)?;
    global.log.debug(ui, &format!("exec in container {id}"));
    let started = |session: &exec::Session| {
        for list in session.processors.iter().filter(|list| !list.is_empty()) {
            let mask = list.iter().filter(|cpu| **cpu < 128).fold(0_u128, |mask, cpu| mask | 1 << cpu);
            global.log.debug(ui, &format!("affinity: {mask:#x}"));
        }
    };
    if request.detach {
        started(&exec::exec(&container, &request, None)?);
        return Ok(0);
    }
    let signals = foreground::watch()?;
    let session = exec::exec(&container, &request, foreground::terminal_size())?;
    started(&session);
    Ok(session.attend(&signals)?)
}
