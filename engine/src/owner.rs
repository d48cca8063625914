//! Files that belong to a user's other ids: what an image's files are without root.
//!
//! A container without root runs in a user namespace whose root is the user and whose other users are the user's
//! subordinate ids (`/etc/subuid`, `/etc/subgid`). For an image's files to have the owners there that they are meant to
//! have, they must belong to those ids outside, and then only a process in such a namespace can write and remove them.
//! So work on them is done by a forked child that is root in one. A user without such ids owns everything alone.
//!
//! Layers of Wasm images are unpacked by `run` without a namespace: their programs run as the user.

#[cfg(target_os = "linux")]
use std::io::{Read as _, Write as _};

#[cfg(target_os = "linux")]
use dhow_runtime::native::idmap::{DefaultMaps, Maps, Reason, default_maps, in_user_namespace};

#[cfg(target_os = "linux")]
use crate::error::Error;
use crate::error::Result;

/// What this process may do with files of other owners.
#[derive(Debug)]
pub enum Standing {
    /// What it needs, or there are no owners here: root, and systems other than Linux.
    Direct,
    /// What the user's ranges of ids allow, in a user namespace.
    #[cfg(target_os = "linux")]
    Namespace(Box<Maps>),
    /// Nothing: everything belongs to the user. The text says why.
    Alone(&'static str),
}

/// Finds out how this process stands. Reads a few small files, unless it is root.
pub fn standing() -> Standing {
    #[cfg(target_os = "linux")]
    {
        if rustix::process::geteuid().is_root() {
            return Standing::Direct;
        }
        match default_maps() {
            DefaultMaps::Ranges(maps) => Standing::Namespace(Box::new(maps)),
            DefaultMaps::Single(_, Reason::NoRange) => {
                Standing::Alone("/etc/subuid and /etc/subgid have no range of ids for this user")
            }
            DefaultMaps::Single(_, Reason::NoHelper) => {
                Standing::Alone("newuidmap and newgidmap are not installed (package uidmap)")
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    Standing::Direct
}

/// Does something as the owner of every file that images may have here, and returns its code: in a child of this
/// process where that takes a namespace, and in this process where it does not or where the namespace is refused. The
/// child ends with this process.
///
/// # Errors
/// None that `work` does not return.
pub fn as_owner(work: impl FnOnce() -> u8) -> Result<u8> {
    #[cfg(target_os = "linux")]
    if let Standing::Namespace(maps) = standing() {
        let mut work = Some(work);
        let in_child = || {
            let killed = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(killed).ok();
            work.take().map_or(u8::MAX, |work| work())
        };
        if let Ok(status) = in_user_namespace(&maps, in_child) {
            return Ok(status.code());
        }
        // The host forbids it. Whatever else needs a namespace will say so.
        return Ok(work.take().map_or(u8::MAX, |work| work()));
    }
    Ok(work())
}

/// Does something as root, and returns its code: in this process where that is root's, else in a child that is root of a
/// user namespace with what ids this user has, be it one alone. There it may mount and have files of several owners. The
/// child ends with this process.
///
/// # Errors
/// When the namespace is refused.
#[cfg(target_os = "linux")]
pub fn as_root(work: impl FnOnce() -> u8) -> Result<u8> {
    if rustix::process::geteuid().is_root() {
        return Ok(work());
    }
    let in_child = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
        // Who may not leave the mount namespace may not mount in it. If this fails, the first mount says so.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).ok();
        work()
    };
    Ok(in_user_namespace(default_maps().maps(), in_child)?.code())
}

/// As [`as_owner`], for work that is a part of something that goes on in this process.
///
/// # Errors
/// What `work` failed with, as [`Error::Start`]: only words come out of another process.
pub fn part_as_owner(work: impl FnOnce() -> Result<()>) -> Result<()> {
    #[cfg(target_os = "linux")]
    if let Standing::Namespace(_) = standing() {
        let (mut reader, writer) = std::io::pipe()?;
        let code = as_owner(|| match work() {
            Ok(()) => 0,
            Err(error) => {
                let words = serde_json::json!([error.to_string(), error.hint()]).to_string();
                // Without words the code alone says that it failed. A pipe takes this much at once.
                (&writer).write_all(&words.as_bytes()[..words.len().min(60_000)]).ok();
                error.exit_code()
            }
        })?;
        drop(writer);
        if code == 0 {
            return Ok(());
        }
        let mut words = String::new();
        reader.read_to_string(&mut words)?;
        let (message, hint) = serde_json::from_str(&words)
            .unwrap_or_else(|_| ("the process that was to do it ended without a word".to_owned(), None));
        return Err(Error::Start { message, hint, code });
    }
    work()
}
