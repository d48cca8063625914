//! `dhow oci`: an OCI runtime with runc's command line, for Docker, containerd, Podman and CRI-O (Linux).
//!
//! A program named `dhow-oci` (a link to `dhow`) is the same without the word `oci`, because those callers take a path and
//! no words. The command line is read here and not by the parser of all other commands: runc takes options before and
//! after the id, long ones with one dash, and none of that may cost time. What the verbs do is in
//! `dhow_engine::runtime::oci`.
//!
//! Errors go to the log and to standard error as runc's do: callers read them.

mod args;
mod checkpoint;
mod events;
mod help;
mod limits;
mod list;
mod log;
mod ps;
mod spec;
mod verbs;

use std::path::{Path, PathBuf};

use args::Given;
use log::Log;

use crate::ui::Ui;

/// The name under which no word `oci` is needed.
const NAME: &str = "dhow-oci";

/// Options before the verb.
#[derive(Debug, Default)]
pub(crate) struct Global {
    /// The folder of all containers.
    pub(crate) root: PathBuf,
    /// It was given, not the default.
    pub(crate) root_given: bool,
    pub(crate) log: Log,
    pub(crate) systemd: bool,
    pub(crate) rootless: bool,
    /// The program that checkpoints.
    pub(crate) criu: PathBuf,
}

/// Runs the command when this process was called as the runtime.
pub(crate) fn main(ui: Ui) -> Option<u8> {
    let mut words = std::env::args_os();
    let own = words.next().unwrap_or_default();
    let named = Path::new(&own).file_name().is_some_and(|name| name == NAME);
    if !named && words.next().is_none_or(|word| word != "oci") {
        return None;
    }
    let words = words.map(|word| word.to_string_lossy().into_owned()).collect();
    Some(run(ui, words))
}

/// The verbs, with what each of them takes.
const VERBS: [args::Verb; 17] = [
    args::Verb { name: "create", run: verbs::create },
    args::Verb { name: "start", run: verbs::start },
    args::Verb { name: "run", run: verbs::run },
    args::Verb { name: "state", run: list::state },
    args::Verb { name: "kill", run: verbs::kill },
    args::Verb { name: "delete", run: verbs::delete },
    args::Verb { name: "exec", run: verbs::exec },
    args::Verb { name: "ps", run: ps::ps },
    args::Verb { name: "pause", run: verbs::pause },
    args::Verb { name: "resume", run: verbs::resume },
    args::Verb { name: "update", run: limits::update },
    args::Verb { name: "events", run: events::events },
    args::Verb { name: "list", run: list::list },
    args::Verb { name: "spec", run: spec::spec },
    args::Verb { name: "features", run: spec::features },
    args::Verb { name: "checkpoint", run: checkpoint::checkpoint },
    args::Verb { name: "restore", run: checkpoint::restore },
];

const GLOBAL: [args::Flag; 10] = [
    args::switch("debug", ""),
    args::value("log", ""),
    args::value("log-format", ""),
    args::value("root", ""),
    args::value("criu", ""),
    args::switch("systemd-cgroup", ""),
    args::value("cgroup-manager", ""),
    args::value("rootless", ""),
    args::switch("version", "v"),
    args::switch("help", "h"),
];

fn run(ui: Ui, words: Vec<String>) -> u8 {
    let mut global = Global { rootless: !is_root(), ..Global::default() };
    let given = match Given::parse(&GLOBAL, words, Some(0)) {
        Ok(given) => given,
        Err(error) => return global.log.fail(ui, &error.to_string(), 1),
    };
    if given.has("version") {
        ui.print(&help::version());
        return 0;
    }
    let mut rest = given.words().to_vec();
    if given.has("help") || rest.is_empty() || rest[0] == "help" {
        let verb = rest.get(1).map_or("", String::as_str);
        ui.print(&help::of(verb));
        return 0;
    }
    global.log = Log::new(given.text("log"), given.text("log-format"), given.has("debug"));
    global.systemd = given.has("systemd-cgroup") || given.text("cgroup-manager") == Some("systemd");
    if let Some(rootless) = given.text("rootless").and_then(|text| text.parse().ok()) {
        global.rootless = rootless;
    }
    global.criu = PathBuf::from(given.text("criu").filter(|path| !path.is_empty()).unwrap_or("criu"));
    global.root_given = given.text("root").is_some();
    global.root = given.text("root").map_or_else(default_root, PathBuf::from);
    let name = rest.remove(0);
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return global.log.fail(ui, &format!("No help topic for '{name}'"), 3);
    };
    // What follows the id of `exec` is another program's.
    let own = if name == "exec" { 1 } else { usize::MAX };
    let mut own = rest.iter().take(own).take_while(|word| *word != "--");
    if own.any(|word| word == "--help" || word == "-h") {
        ui.print(&help::of(&name));
        return 0;
    }
    match (verb.run)(ui, &global, rest) {
        Ok(code) => code,
        Err(failure) => global.log.fail(ui, &failure.text, failure.code),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn default_root() -> PathBuf {
    let run = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !is_root() && !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from("/run"),
    };
    run.join("dhow/oci")
}

/// Why a verb failed, and the exit code for it.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { text: error.to_string(), code: 1 }
    }
}

/// What a verb gives: the exit code.
pub(crate) type Outcome = Result<u8, Failure>;

fn failed(text: impl Into<String>) -> Failure {
    Failure { text: text.into(), code: 1 }
}
