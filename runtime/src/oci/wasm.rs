//! Bundles whose program is Wasm: which ones they are, and the process that runs one behind the runtime's verbs.
//!
//! Known by an annotation (`run.oci.handler`, `module.wasm.image/variant`, as crun and containerd's users write them), by
//! the program's name, or by its first bytes. The process is a copy of this one with the Wasm executor in it: it waits at
//! the same gate as a Linux program, is in the container's group and network namespace, and its root file system is seen
//! by the guest alone.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::error::{Error, Result};
use crate::apart::{Apart, News};
use crate::bundle::{Bundle, Module};
use crate::executor::Executor;
use crate::native::gate::Gate;
use crate::native::join::{enter_network, open_in};
use crate::native::{Birthplace, Creator, FirstGroups};
use crate::process;
use crate::stdio::Stdio;
use crate::task::Task;
use crate::wasm::{Options, Part, Wall};

/// What a binary module and a component begin with.
const MAGIC: [u8; 4] = *b"\0asm";

/// Whether the Wasm executor is to run it.
pub(super) fn is_wanted(spec: &Spec, rootfs: &Path) -> bool {
    let annotation = |name: &str| spec.annotations().as_ref()?.get(name).map(String::as_str);
    match (annotation("run.oci.handler"), annotation("module.wasm.image/variant")) {
        (Some(handler), _) if handler.starts_with("wasm") => return true,
        (_, Some("compat")) => return true,
        _ => {}
    }
    let args = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
    let Some(program) = args.first() else { return false };
    let named = [".wasm", ".wat"].iter().any(|end| program.ends_with(end));
    named || (program.starts_with('/') && begins_with_magic(rootfs, program).unwrap_or(false))
}

/// Looks into the root file system, where no link leads out of it.
fn begins_with_magic(rootfs: &Path, program: &str) -> rustix::io::Result<bool> {
    let mut head = [0; MAGIC.len()];
    let file = open_in(rootfs, Path::new(program))?;
    Ok(rustix::io::read(&file, &mut head)? == head.len() && head == MAGIC)
}

/// What the specification has no words for: the components after the first of these modules are linked with it.
pub(super) fn options(modules: &[Module]) -> Options {
    Options { parts: modules.iter().skip(1).cloned().map(Part::File).collect(), ..Options::default() }
}

/// What ends the list of groups: without it nobody is there to be born for.
const ALL: u8 = 0xff;

/// Tells the process which groups of version 1 it has to enter itself.
fn send_groups(mut place: UnixStream, groups: &FirstGroups) -> std::io::Result<()> {
    let mut list = Vec::new();
    for (_, folder) in groups.folders.iter().filter(|_| groups.enters) {
        list.extend_from_slice(folder.as_os_str().as_bytes());
        list.push(0);
    }
    list.push(ALL);
    place.write_all(&list)
}

/// Enters them: a thread that moves itself need not wait until all processors have noticed. To be called when there is one
/// thread only.
fn enter_groups(mut told: &UnixStream) -> std::io::Result<()> {
    let mut list = Vec::new();
    told.read_to_end(&mut list)?;
    let Some((&ALL, list)) = list.split_last() else {
        return Err(std::io::Error::other("the creator is gone"));
    };
    for folder in list.split(|byte| *byte == 0).filter(|folder| !folder.is_empty()) {
        let tasks = Path::new(OsStr::from_bytes(folder)).join("tasks");
        fs_err::OpenOptions::new().write(true).open(tasks)?.write_all(b"0")?;
    }
    Ok(())
}

/// How it is run.
pub(super) struct Way {
    /// Where compiled code is kept, if anywhere.
    pub(super) aot: Option<PathBuf>,
    /// The program has a terminal.
    pub(super) terminal: bool,
    /// It outlives its creator.
    pub(super) lasting: bool,
    /// Where it waits when its creator does not stay.
    pub(super) gate: Option<Gate>,
}

/// Makes the process, up to its gate.
pub(super) fn spawn(mut bundle: Bundle, stdio: Stdio, way: Way, creator: &mut dyn Creator) -> Result<Apart> {
    bundle.wasm.wall = Some(Wall::default());
    let id = bundle.id.clone();
    let lasting = way.lasting;
    let mut gate = way.gate;
    let (place, told) = UnixStream::pair().map_err(Error::of("make a socket pair"))?;
    let mut place = Some(place);
    let group = creator.birthplace().and_then(|group| group.try_clone_to_owned().ok());
    let group = group.as_ref().map(AsFd::as_fd);
    let spawned = Apart::spawn_in(&id, stdio, lasting, group, |mut talk| {
        creator.leave();
        drop(place.take());
        // Its creator makes its groups meanwhile, and is told of a failure when it has.
        let network = enter_network(&bundle.spec);
        if let Err(error) = enter_groups(&told) {
            talk.fail(format!("cannot enter the control groups: {error}").as_bytes());
            return 1;
        }
        let stdio = if way.terminal { Stdio::Terminal(None) } else { Stdio::inherit() };
        let made = network.and_then(|()| Executor::wasm(way.aot.clone()).create(&bundle, stdio));
        let mut task = match made {
            Ok(task) => task,
            Err(error) => {
                talk.fail(error.to_string().as_bytes());
                return 1;
            }
        };
        if let Task::Wasm(task) = &task {
            task.on_overrun(|status| process::exit_now(status.code()));
        }
        if !talk.pass() {
            return 0;
        }
        drop(talk);
        // Closing it tells that the program runs.
        if let Some(gate) = gate.take()
            && !gate.wait()
        {
            return 0;
        }
        // Whatever fails now has been told on the guest's standard error.
        task.start().and_then(|()| task.wait()).map_or(125, |status| status.code())
    });
    let (mut apart, in_group) = spawned.map_err(Error::Start)?;
    drop(gate);
    let groups = creator.born(apart.pid(), Birthplace { in_group, is_ours: true }).map_err(Error::Start)?;
    // One that has died meanwhile is heard of below.
    if let Some(place) = place.take() {
        send_groups(place, &groups).ok();
    }
    match apart.news()? {
        News::Ready => {}
        News::Failed(words) => {
            let action = "start the Wasm program".to_owned();
            let source = std::io::Error::other(String::from_utf8_lossy(&words).into_owned());
            return Err(Error::Start(crate::Error::Setup { action, source }));
        }
    }
    creator.mounted(apart.pid()).map_err(Error::Start)?;
    Ok(apart)
}
