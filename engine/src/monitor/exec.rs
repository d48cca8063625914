//! The monitor of an exec session: a small one, without a claim, a record or a log.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use dhow_runtime::{Bundle, ExitStatus, Kind, Signal, Stdio, Task, process};
use nix::sys::signal::SigSet;

use super::client::Client;
use super::peer::Peer;
use super::pump::{self, Company, Ends};
use super::{Routes, block_signals, let_go, sandbox};
use crate::attach::{Failure, Frame, Wish};
use crate::container::exec::SessionRecord;
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::record::Container;
use crate::resources::{self, Group};
use crate::spec;
use crate::survivor::Held;

/// What tells one session from another.
#[derive(Debug)]
pub(crate) struct Session {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Where sessions are written down.
    pub(crate) folder: PathBuf,
    /// The container's first process, with which it ends.
    pub(crate) process: Held,
    /// The signals its program has blocked, where that is not what this process has.
    pub(crate) mask: Option<SigSet>,
}

/// Starts the monitor of a session.
pub(crate) fn launch(
    engine: &Engine,
    container: &Container,
    session: Session,
    bundle: &Bundle,
    routes: Routes,
    detached: bool,
    leave: &mut dyn FnMut(),
) -> Result<Client> {
    make_folder(&session.folder)?;
    let path = session.folder.join(format!("{}.json", session.id));
    let mut options = fs_err::OpenOptions::new();
    let file = options.write(true).create_new(true).open(&path)?.into_parts().0;
    // Held by the monitor, which inherits it, for as long as it lives.
    file.lock()?;
    note(&file, container, 0)?;
    let (ours, theirs) = UnixStream::pair()?;
    let ours = Cell::new(Some(ours));
    let blocked = block_signals()?;
    let before = session.mask.unwrap_or(blocked);
    process::default_child_signal()?;
    let command = container.record.args.join(" ");
    // As Docker has it, with a space after a program that has no arguments.
    let command = if container.record.args.len() == 1 { format!("{command} ") } else { command };
    let about = [("execID", session.id.as_str())];
    let record = &container.record;
    engine.tell_later(&Event::of_container(record, &format!("exec_create: {command}"), &about));
    engine.tell_of(record, &format!("exec_start: {command}"), &about);
    let child = process::fork(|| {
        leave();
        drop(ours.take());
        // Fails only for a process that leads a session already, which a fresh fork does not.
        rustix::process::setsid().ok();
        let wish = Wish { stdin: true, stdout: true, stderr: true };
        let starter = Peer::starter(theirs, Some(wish).filter(|_| !detached));
        let lives_with = Some(session.process);
        let mut company =
            Company { peers: vec![starter], stdin_once: true, lives_with, ..Company::default() };
        let inside = Inside { engine, container, id: &session.id, file: &file };
        let code = match inside.run(bundle, routes, detached, &mut company, &before) {
            Ok(status) => status.code(),
            Err(error) => {
                for peer in &mut company.peers {
                    peer.output(Frame::Failed, &Failure::of(&error).encode());
                }
                error.exit_code()
            }
        };
        let ended = code.to_string();
        engine.tell_of(record, "exec_die", &[("execID", &session.id), ("exitCode", &ended)]);
        // What stays is nobody's and goes with the container.
        fs_err::remove_file(&path).ok();
        drop(file);
        company.dismiss(code);
        code
    })?;
    let ours = ours.take().ok_or_else(|| Error::MonitorLost { id: container.record.id.clone() })?;
    Ok(Client::of_monitor(child, ours, routes, true))
}

/// A session in its monitor.
struct Inside<'a> {
    engine: &'a Engine,
    container: &'a Container,
    id: &'a str,
    file: &'a File,
}

impl Inside<'_> {
    fn run(
        &self,
        bundle: &Bundle,
        routes: Routes,
        detached: bool,
        company: &mut Company,
        before: &SigSet,
    ) -> Result<ExitStatus> {
        let (stdio, ends) = pump::connect(routes)?;
        let mut group = resources::find(self.engine, &self.container.record);
        let (mut task, ends) = match self.container.record.kind {
            Kind::Native => (self.enter(bundle, stdio, group.as_mut(), company)?, ends),
            Kind::Wasm => self.spawn(bundle, (routes, stdio, ends), company, before)?,
        };
        note(self.file, self.container, task.pid())?;
        let kills_before = group.as_ref().map_or(0, Group::out_of_memory_kills);
        if let Some(group) = &mut group {
            // What it uses is the container's. Not before: it may have been compiled just now, which takes more than it
            // may have.
            group.add(task.pid())?;
        }
        task.start()?;
        let_go()?;
        if detached {
            for peer in company.peers.drain(..) {
                peer.dismiss(Frame::Started, &[]);
            }
        }
        let status = pump::until_end(&mut task, ends, company, None)?;
        let killed = status == ExitStatus::Signaled(Signal::KILL)
            && group.as_ref().map_or(0, Group::out_of_memory_kills) > kills_before;
        if task.out_of_memory() || killed {
            self.container.note_out_of_memory()?;
        }
        Ok(status)
    }

    /// A Linux binary in the container's namespaces and group.
    fn enter(
        &self,
        bundle: &Bundle,
        stdio: Stdio,
        mut group: Option<&mut Group>,
        company: &Company,
    ) -> Result<Task> {
        let record = &self.container.record;
        let gone = || Error::NotRunning { id: record.id.clone() };
        let first = company.lives_with.as_ref().ok_or_else(gone)?;
        let mut place = |pid| group.as_mut().map_or(Ok(()), |group| group.add(pid));
        let task = spec::native_executor(record)?.enter(bundle, first.as_fd(), stdio, &mut place)?;
        Ok(Task::Native(task))
    }

    /// A Wasm program in a child.
    fn spawn(
        &self,
        bundle: &Bundle,
        (routes, stdio, mut ends): (Routes, Stdio, Ends),
        company: &mut Company,
        before: &SigSet,
    ) -> Result<(Task, Ends)> {
        let guest = sandbox::Guest {
            bundle,
            aot: self.engine.aot_folder(),
            terminal: matches!(routes, Routes::Terminal { .. }),
            before,
        };
        let leave = || {
            *company = Company::default();
            ends = Ends::default();
            Ok(())
        };
        let task = sandbox::spawn(self.id, stdio, leave, guest)?;
        Ok((task, ends))
    }
}

/// Writes down what runs in the session.
fn note(file: &File, container: &Container, pid: u32) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let record = SessionRecord { args: container.record.args.clone(), pid };
    let text = serde_json::to_vec(&record).map_err(std::io::Error::from)?;
    // With a process number the text is longer, so nothing of the old one stays.
    match file.write_all_at(&text, 0) {
        // Nobody is kept from looking at what fills the disk; `top` shows less then.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
        other => Ok(other?),
    }
}
