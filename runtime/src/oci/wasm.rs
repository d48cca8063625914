//! Bundles whose program is Wasm: which ones they are, and the process that runs one behind the runtime's verbs.
//!
//! Known by an annotation (`run.oci.handler`, `module.wasm.image/variant`, as crun and containerd's users write them), by
//! the program's name, or by its first bytes. The process is a copy of this one with the Wasm executor in it: it waits at
//! the same gate as a Linux program, is in the container's group and network namespace, and its root file system is seen
//! by the guest alone.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::error::{Error, Result};
use crate::apart::{Apart, News};
use crate::bundle::Bundle;
use crate::executor::Executor;
use crate::native::gate::Gate;
use crate::native::join::{enter_network, open_in};
use crate::native::{Birthplace, Creator};
use crate::process;
use crate::stdio::Stdio;
use crate::task::Task;
use crate::wasm::Wall;

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
    let mut apart = Apart::spawn_as(&id, stdio, lasting, |mut talk| {
        creator.leave();
        let stdio = if way.terminal { Stdio::Terminal(None) } else { Stdio::inherit() };
        let made =
            enter_network(&bundle.spec).and_then(|()| Executor::wasm(way.aot.clone()).create(&bundle, stdio));
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
    })
    .map_err(Error::Start)?;
    drop(gate);
    creator.born(apart.pid(), Birthplace::default()).map_err(Error::Start)?;
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
