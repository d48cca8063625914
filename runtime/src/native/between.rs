//! The process in between: it joins what a container's process must be born in, and has it on its creator's behalf.
//!
//! A user namespace that is joined has to be joined first, so that it owns the new namespaces; there is no way back from
//! it, nor from a mount namespace, so the creator cannot do it itself. The container's process is its sibling: the creator
//! waits for it as for any other. Only containers that join such namespaces, or set clocks, need it.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::error::Result;
use crate::native::child::write_clocks;
use crate::native::plan::Plan;
use crate::native::report::{Channel, Doing, Failure, News};
use crate::native::sys::{self, Birth, Cloned, tune};
use crate::native::{clone, setup, wait_for};

/// As [`super::spawn`].
pub(super) fn spawn(plan: &Plan, ours: &Channel, theirs: &Channel) -> Result<Cloned> {
    born_by(ours, theirs, &plan.command.name, || have_sibling(plan))
}

/// Lets a process in between have another one, as its sibling.
pub(super) fn born_by(
    ours: &Channel,
    theirs: &Channel,
    command: &str,
    have: impl FnOnce() -> std::result::Result<Cloned, Failure>,
) -> Result<Cloned> {
    const BORN: &str = "make the container's process";
    match sys::clone3(Birth::default()).map_err(setup(BORN))? {
        Cloned::Child => match have() {
            Ok(Cloned::Child) => Ok(Cloned::Child),
            Ok(Cloned::Parent { pid, pidfd }) => {
                let told = theirs.born(pid, &pidfd);
                sys::exit_now(u8::from(told.is_err()))
            }
            Err(failure) => {
                theirs.failed(&failure);
                sys::exit_now(1)
            }
        },
        Cloned::Parent { pidfd: between, .. } => {
            // It ends right after its word, or with it.
            wait_for(&between)?;
            match ours.news_if_any().map_err(setup("hear from the container's process"))? {
                Some(News::Born { pid, pidfd }) => Ok(Cloned::Parent { pid, pidfd }),
                Some(News::Failed(failure)) => Err(failure.into_error(command)),
                _ => Err(setup(BORN)(Errno::CHILD)),
            }
        }
    }
}

fn have_sibling(plan: &Plan) -> std::result::Result<Cloned, Failure> {
    let join = || "join a namespace";
    let user = |kind: i32| kind == libc::CLONE_NEWUSER;
    // Who is root here may join anything now; what belongs to the user namespace that is joined has to wait for it.
    let mut later = Vec::new();
    for (fd, kind) in plan.namespaces.early.iter().filter(|(_, kind)| !user(*kind)) {
        if *kind == libc::CLONE_NEWNS {
            later.push((fd, *kind));
            continue;
        }
        match sys::setns(fd.as_fd(), *kind) {
            Err(Errno::PERM) => later.push((fd, *kind)),
            joined => joined.doing(join)?,
        }
    }
    if let Some(offsets) = &plan.namespaces.clocks
        && plan.namespaces.sets_clocks_early()
    {
        tune::unshare(libc::CLONE_NEWTIME).doing(|| "make a time namespace")?;
        write_clocks(offsets)?;
    }
    for (fd, kind) in plan.namespaces.early.iter().filter(|(_, kind)| user(*kind)) {
        sys::setns(fd.as_fd(), *kind).doing(join)?;
    }
    // The mount namespace is the last one: with it paths mean something else.
    later.sort_by_key(|(_, kind)| *kind == libc::CLONE_NEWNS);
    for (fd, kind) in later {
        sys::setns(fd.as_fd(), kind).doing(join)?;
    }
    let birth = Birth { namespaces: plan.namespaces.new, sibling: true, ..Birth::default() };
    clone(plan, birth).doing(|| "make the container's process")
}
