//! `exec`: another process in a container, with a process description of its own or the container's with changes.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{Capabilities, Capability, Process, Spec};

use super::container::Container;
use super::create::{CONSOLE, send_console, send_process, send_through, write_pid};
use super::error::{Error, Result};
use super::state::Status;
use super::wasm::{self, Way};
use crate::bundle::{Bundle, Module, Root};
use crate::cgroup::oci::OciGroup;
use crate::native::affinity;
use crate::native::join::{Target, join};
use crate::native::{Birthplace, Creator, FirstGroups, Settings, Wishes};
use crate::stdio::{Stdio, TerminalSize};
use crate::task::Task;

/// What the command line says about a process.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// A whole description, in place of the container's own with the changes below.
    pub process: Option<Process>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Over the container's.
    pub env: Vec<String>,
    /// In place of the container's.
    pub cwd: Option<PathBuf>,
    /// `uid[:gid]`, numbers only.
    pub user: Option<String>,
    /// Beside the container's.
    pub additional_gids: Vec<u32>,
    /// Beside the container's.
    pub capabilities: Vec<String>,
    /// It has a terminal.
    pub terminal: bool,
    /// In place of the container's.
    pub no_new_privileges: Option<bool>,
    /// In place of the container's.
    pub apparmor: Option<String>,
    /// In place of the container's.
    pub label: Option<String>,
    /// Also in a container that is paused; it waits until that goes on.
    pub ignore_paused: bool,
    /// Nobody of this process stays with it.
    pub detach: bool,
    /// Where the master of its terminal is sent.
    pub console_socket: Option<PathBuf>,
    /// A connected socket that it is sent through instead.
    pub console_channel: Option<Arc<OwnedFd>>,
    /// Where a handle of it (`pidfd_open(2)`) is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where its number is written.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after the standard streams it gets.
    pub preserved: u32,
    /// Where compiled code of Wasm programs is kept, if anywhere.
    pub aot: Option<PathBuf>,
    /// As [`super::create::Request::modules`].
    pub modules: Vec<Module>,
    /// Groups below the container's, `[controller,...:]path`.
    pub cgroups: Vec<String>,
}

/// A process that was started in a container.
#[derive(Debug)]
pub struct Session {
    pub(super) task: Task,
    /// The master of its terminal, where it was not sent elsewhere.
    pub console: Option<OwnedFd>,
    /// The processors it was told to begin on and to stay on; empty where nothing was said.
    pub processors: [Vec<u32>; 2],
}

impl Session {
    /// Its number, as the host counts.
    pub fn pid(&self) -> u32 {
        self.task.pid()
    }
}

/// Starts a process in a container.
///
/// # Errors
/// When the container does not run, or the process cannot be made or executed.
pub fn exec(container: &Container, request: &ExecRequest, size: Option<TerminalSize>) -> Result<Session> {
    match container.status() {
        Status::Stopped => {
            return Err(Error::Invalid("cannot exec in a stopped container".to_owned()));
        }
        Status::Paused if !request.ignore_paused => {
            return Err(Error::Invalid(
                "cannot exec in a paused container (use --ignore-paused to override)".to_owned(),
            ));
        }
        _ => {}
    }
    let spec = container.spec()?;
    let process = process(&spec, request)?;
    let processors = affinity::lists(&process)?;
    let terminal = process.terminal().unwrap_or(false);
    match (terminal, request.detach, &request.console_socket) {
        (true, true, None) if request.console_channel.is_none() => {
            return Err(Error::Invalid(
                "cannot allocate tty if the runtime will detach without setting console socket".to_owned(),
            ));
        }
        (false, _, Some(_)) => {
            return Err(Error::Invalid(
                "cannot use console socket if the runtime will not detach or allocate tty".to_owned(),
            ));
        }
        _ => {}
    }
    let gone = || Error::NotRunning(container.saved().id.clone());
    let first = container.process()?.ok_or_else(gone)?;
    let stdio = if terminal { Stdio::Terminal(size) } else { Stdio::inherit() };
    let mut founder = Joiner { group: below(&container.group(), &request.cgroups)? };
    let mut task = if container.saved().wasm {
        let mut spec = spec;
        spec.set_process(Some(process));
        let bundle = Bundle {
            id: container.saved().id.clone(),
            spec,
            root: Root::Dir(container.saved().rootfs.clone()),
            module: request.modules.first().cloned(),
            wasm: wasm::options(&request.modules),
        };
        let way = Way { aot: request.aot.clone(), terminal, lasting: request.detach, gate: None };
        Task::Apart(wasm::spawn(bundle, stdio, way, &mut founder)?)
    } else {
        let settings = Settings { has_group: true, preserved: request.preserved, ..Settings::default() };
        let target = Target::of(&spec, first.as_fd());
        let joined = join(&target, (&spec, &process), &Wishes::default(), stdio, settings, &mut founder);
        Task::Native(joined.map_err(Error::Start)?)
    };
    drop(first);
    let mut console = task.take_console();
    if let Some(channel) = &request.console_channel
        && let Some(master) = console.take()
    {
        send_through(channel, master.as_fd(), CONSOLE).map_err(Error::of("hand over the terminal"))?;
    }
    if let Some(socket) = &request.console_socket
        && let Some(master) = console.take()
    {
        send_console(socket, &master)?;
    }
    if let (Some(socket), Some(process)) = (&request.pidfd_socket, task.pidfd()) {
        send_process(socket, process, "setns")?;
    }
    if let Some(path) = &request.pid_file {
        write_pid(path, task.pid())?;
    }
    task.start().map_err(Error::Start)?;
    Ok(Session { task, console, processors })
}

struct Joiner {
    group: OciGroup,
}

impl Creator for Joiner {
    fn birthplace(&mut self) -> Option<BorrowedFd<'_>> {
        self.group.clone_into()
    }

    fn born(&mut self, pid: u32, place: Birthplace) -> crate::Result<FirstGroups> {
        self.group.add(pid, place.in_group, place.is_ours)?;
        Ok(FirstGroups { folders: self.group.first_folders(), enters: place.is_ours })
    }
}

/// The groups below a container's, `[controller,...:]path` each; they have to exist.
fn below(group: &OciGroup, wanted: &[String]) -> Result<OciGroup> {
    let mut paths = group.saved();
    for one in wanted {
        let (names, path) =
            one.split_once(':').map_or((None, one.as_str()), |(names, path)| (Some(names), path));
        let path = Path::new(path.trim_start_matches('/'));
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Error::Invalid(format!("--cgroup {one} is not below the container's")));
        }
        if let Some(unknown) =
            names.and_then(|names| names.split(',').find(|name| !paths.contains_key(*name)))
        {
            return Err(Error::Invalid(format!("unknown controller {unknown} in --cgroup {one}")));
        }
        for (name, folder) in &mut paths {
            if names.is_none_or(|names| names.split(',').any(|wanted| wanted == name)) {
                folder.push(path);
            }
        }
    }
    Ok(OciGroup::open(&paths).held())
}

/// The description of what is to run.
fn process(spec: &Spec, request: &ExecRequest) -> Result<Process> {
    if let Some(process) = &request.process {
        return Ok(process.clone());
    }
    if request.args.is_empty() {
        return Err(Error::Invalid("exec args cannot be empty".to_owned()));
    }
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(request.args.clone())).set_terminal(Some(request.terminal));
    if let Some(cwd) = &request.cwd {
        process.set_cwd(cwd.clone());
    }
    if !request.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        for entry in &request.env {
            let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
            // Most programs take the first of two.
            env.retain(|other| other.split_once('=').map_or(other.as_str(), |(name, _)| name) != name);
            env.push(entry.clone());
        }
        process.set_env(Some(env));
    }
    if let Some(wanted) = request.no_new_privileges {
        process.set_no_new_privileges(Some(wanted));
    }
    if let Some(profile) = &request.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &request.label {
        process.set_selinux_label(Some(label.clone()));
    }
    let mut user = process.user().clone();
    if let Some(text) = &request.user {
        let (uid, gid) = parse_user(text)?;
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !request.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&request.additional_gids);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    if !request.capabilities.is_empty() {
        add_capabilities(&mut process, &request.capabilities)?;
    }
    Ok(process)
}

/// Numbers as they are written, nothing else: neither empty, nor signed, nor in another base.
fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |what: &str, text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // The last number is the kernel's word for "leave it as it is".
        let number = text.parse().ok().filter(|number| digits && *number != u32::MAX);
        number.ok_or_else(|| Error::Invalid(format!("bad {what}: {text:?}")))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number("uid", uid)?, Some(number("gid", gid)?))),
        None => Ok((number("uid", text)?, None)),
    }
}

/// To the sets that do not outlive the program: what is inheritable or ambient stays as it is.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    let added = names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            serde_json::from_value::<Capability>(name.clone().into())
                .map_err(|_| Error::Invalid(format!("unknown capability {name:?}")))
        })
        .collect::<Result<Capabilities>>()?;
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(parse_user("1").ok(), Some((1, None)));
        assert_eq!(parse_user("01:4294967294").ok(), Some((1, Some(4_294_967_294))));
        for text in ["", "1:", ":1", "-1", "+1", "0x1", "root", "1:2:3", "4294967295", "4294967296", " 1"] {
            assert!(parse_user(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_process_is_the_container_s_with_changes() {
        let mut spec = Spec::default();
        let mut own = Process::default();
        own.set_args(Some(vec!["sh".into()])).set_env(Some(vec!["A=1".into()])).set_terminal(Some(true));
        let mut sets = oci_spec::runtime::LinuxCapabilities::default();
        let some = Some([Capability::Chown].into_iter().collect::<Capabilities>());
        sets.set_bounding(some.clone()).set_inheritable(some.clone()).set_ambient(None);
        own.set_capabilities(Some(sets));
        spec.set_process(Some(own));
        let request = ExecRequest {
            args: vec!["ls".into()],
            env: vec!["B=2".into()],
            user: Some("7:8".into()),
            additional_gids: vec![9],
            capabilities: vec!["kill".into()],
            ..ExecRequest::default()
        };
        let made = process(&spec, &request).expect("a process");
        assert_eq!(made.env().as_deref().unwrap_or_default(), ["A=1", "B=2"]);
        assert_eq!((made.user().uid(), made.user().gid(), made.terminal()), (7, 8, Some(false)));
        let sets = made.capabilities().clone().expect("sets");
        assert!(sets.bounding().as_ref().is_some_and(|set| set.contains(&Capability::Kill)));
        assert_eq!((sets.inheritable(), sets.ambient()), (&some, &None));
        assert!(process(&spec, &ExecRequest::default()).is_err());
    }
}
