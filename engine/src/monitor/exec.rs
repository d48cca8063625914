//! The monitor of an exec session: a small one, without a claim, a record or a log.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use dhow_runtime::{Bundle, process};
use nix::sys::signal::SigSet;

use super::client::Client;
use super::peer::Peer;
use super::pump::{self, Company, Ends};
use super::{Routes, block_signals, let_go, sandbox};
use crate::attach::{Failure, Frame, Wish};
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::record::Container;
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
}

/// Starts the monitor of a session.
pub(crate) fn launch(
    engine: &Engine,
    container: &Container,
    session: Session,
    bundle: &Bundle,
    routes: Routes,
    detached: bool,
) -> Result<Client> {
    make_folder(&session.folder)?;
    let path = session.folder.join(format!("{}.json", session.id));
    let mut options = fs_err::OpenOptions::new();
    let file = options.write(true).create_new(true).open(&path)?.into_parts().0;
    // Held by the monitor, which inherits it, for as long as it lives.
    file.lock()?;
    serde_json::to_writer(&file, &container.record.args).map_err(std::io::Error::from)?;
    let (ours, theirs) = UnixStream::pair()?;
    let ours = Cell::new(Some(ours));
    let before = block_signals()?;
    process::default_child_signal()?;
    let child = process::fork(|| {
        drop(ours.take());
        // Fails only for a process that leads a session already, which a fresh fork does not.
        rustix::process::setsid().ok();
        let wish = Wish { stdin: true, stdout: true, stderr: true };
        let starter = Peer::starter(theirs, Some(wish).filter(|_| !detached));
        let lives_with = Some(session.process);
        let mut company =
            Company { peers: vec![starter], stdin_once: true, lives_with, ..Company::default() };
        let code = match run(engine, &session.id, bundle, routes, detached, &mut company, &before) {
            Ok(code) => code,
            Err(error) => {
                for peer in &mut company.peers {
                    peer.output(Frame::Failed, &Failure::of(&error).encode());
                }
                error.exit_code()
            }
        };
        // What stays is nobody's and goes with the container.
        fs_err::remove_file(&path).ok();
        drop(file);
        company.dismiss(code);
        code
    })?;
    let ours = ours.take().ok_or_else(|| Error::MonitorLost { id: container.record.id.clone() })?;
    Ok(Client::of_monitor(child, ours, routes, true))
}

fn run(
    engine: &Engine,
    id: &str,
    bundle: &Bundle,
    routes: Routes,
    detached: bool,
    company: &mut Company,
    before: &SigSet,
) -> Result<u8> {
    let (stdio, mut ends) = pump::connect(routes)?;
    let guest = sandbox::Guest {
        bundle,
        aot: engine.aot_folder(),
        terminal: matches!(routes, Routes::Terminal { .. }),
        before,
    };
    let leave = || {
        *company = Company::default();
        ends = Ends::default();
    };
    let mut task = sandbox::spawn(id, stdio, leave, guest)?;
    task.start()?;
    let_go()?;
    if detached {
        for peer in company.peers.drain(..) {
            peer.dismiss(Frame::Started, &[]);
        }
    }
    Ok(pump::until_end(&mut task, ends, company)?.code())
}
