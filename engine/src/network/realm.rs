//! The realm of a user without root: a user namespace and a network namespace, in which that user's bridges, cables and
//! packet filter are as root's are on the host. One for each root folder, for as long as a container needs it.
//!
//! Containers in networks join its user namespace, so that cables between both can be laid. The realm's own way out is
//! pasta or slirp4netns, beside it as they are beside a single container; without either, its containers reach each other.
//!
//! ```text
//! networks/.realm/lock          held by who makes, joins or ends it
//! networks/.realm/socket        its anchor listens; whoever needs the realm is connected
//! networks/.realm/namespaces    its two namespaces, by the kernel's numbers
//! ```
//! The anchor is a process in both namespaces that ends when nobody has been connected for a moment. A keeper in the host's
//! namespaces has the anchor and the program that copies, and none of the three outlives another. When they were killed,
//! the namespaces live on in the monitors that hold them, and the next who needs the realm finds them there.
//!
//! Work in the realm is done by forked children: there is no way back from a user namespace.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dhow_runtime::native::idmap;
use dhow_runtime::process;
use fs_err as fs;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space, set_capabilities,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::anchor;
use crate::attach::{self, Failure};
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};

const FOLDER: &str = ".realm";
const LOCK: &str = "lock";
pub(super) const NAMESPACES: &str = "namespaces";
/// The most descriptors that a child hands over at once.
const HANDED: usize = 16;
/// The first byte of an answer.
const DONE: u8 = b'+';
const FAILED: u8 = b'-';

/// A realm that is there.
#[derive(Debug)]
pub(crate) struct Realm {
    users: OwnedFd,
    network: OwnedFd,
    /// The anchor stays while this is open; `None` of one that was killed.
    life: Option<UnixStream>,
}

impl Engine {
    fn realm_folder(&self) -> PathBuf {
        self.networks_folder().join(FOLDER)
    }

    /// This user's realm, made where there is none. The process must have one thread.
    pub(crate) fn realm(&self) -> Result<Realm> {
        let folder = self.realm_folder();
        make_folder(&folder)?;
        let _lock = lock(&folder)?;
        if let Some(realm) = Realm::join(&folder)? {
            return Ok(realm);
        }
        let (users, network) = match Realm::find(&folder)? {
            Some(realm) => (realm.users, Some(realm.network)),
            None => (idmap::default_maps().maps().namespace()?, None),
        };
        anchor::begin(&folder, &users, network.as_ref())?;
        Realm::join(&folder)?.ok_or_else(|| gone("has ended"))
    }

    /// This user's realm, if there is one, and whether it is kept.
    fn living_realm(&self) -> Result<Option<Realm>> {
        let folder = self.realm_folder();
        if !folder.is_dir() {
            return Ok(None);
        }
        let _lock = lock(&folder)?;
        match Realm::join(&folder)? {
            None => Realm::find(&folder),
            found => Ok(found),
        }
    }

    /// Does something in the network namespace in which this root's bridges are, or nothing when there is none.
    pub(super) fn there<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<Option<T>> {
        if is_there() {
            return work().map(Some);
        }
        if !crate::spec::needs_user_namespace() {
            // In another user namespace, for the sake of files (see `owner`): there is no way from here.
            return Ok(None);
        }
        match self.living_realm()? {
            Some(realm) => realm.inside(work).map(Some),
            None => Ok(None),
        }
    }

    /// The same, and the realm is made for it.
    pub(super) fn there_in_any_case<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if is_there() { work() } else { self.realm()?.inside(work) }
    }

    /// Does something as root of the user namespace of this user's networks, and returns its code: in a child, in which
    /// what is made can be connected to them. See [`crate::owner::as_root`] for the rest. The process must have one thread.
    ///
    /// # Errors
    /// When the networks cannot be had.
    pub fn as_root_of_networks(&self, work: impl FnOnce() -> u8) -> Result<u8> {
        let realm = self.realm()?;
        let child = process::fork(|| {
            let killed = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(killed).ok();
            if realm.join_users().is_err() {
                return u8::MAX;
            }
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).ok();
            work()
        })?;
        // The networks stay as long as this holds on to them.
        let status = child.wait()?;
        drop(realm);
        Ok(status.code())
    }

    /// Whether containers are in a realm whose anchor was killed: it leads nowhere until somebody joins it.
    pub(super) fn has_lost_anchor(&self) -> Result<bool> {
        if is_there() {
            return Ok(false);
        }
        Ok(self.living_realm()?.is_some_and(|realm| realm.life.is_none()))
    }
}

/// Whether this process may change the network it is in, as who has root's rights may.
pub(crate) fn is_there() -> bool {
    crate::spec::may_make_networks() && dhow_runtime::native::owns_network()
}

/// Whether this process may do something in its networks, here or in its realm.
pub(crate) fn reaches_networks() -> bool {
    crate::spec::needs_user_namespace() || is_there()
}

fn lock(folder: &Path) -> Result<fs::File> {
    let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))?;
    lock.file().lock()?;
    Ok(lock)
}

/// The right to end it, unless somebody is about to join.
pub(super) fn try_lock(folder: &Path) -> Option<fs::File> {
    let lock = fs::OpenOptions::new().write(true).open(folder.join(LOCK)).ok()?;
    lock.file().try_lock().ok().map(|()| lock)
}

fn gone(what: &'static str) -> Error {
    Error::Network { action: "use this user's networks", source: std::io::Error::other(what) }
}

impl Realm {
    /// Joins one that is kept.
    fn join(folder: &Path) -> Result<Option<Self>> {
        let life = match attach::connect(folder) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            other => other?,
        };
        let anchor = rustix::net::sockopt::socket_peercred(&life).map_err(std::io::Error::from)?.pid;
        let open = |name: &str| fs::File::open(format!("/proc/{}/ns/{name}", anchor.as_raw_nonzero()));
        let (users, network) = (open("user")?, open("net")?);
        Ok(Some(Self {
            users: users.into_parts().0.into(),
            network: network.into_parts().0.into(),
            life: Some(life),
        }))
    }

    /// Finds one whose anchor was killed: whoever needs it holds it.
    fn find(folder: &Path) -> Result<Option<Self>> {
        let Ok(names) = fs::read_to_string(folder.join(NAMESPACES)) else { return Ok(None) };
        let Some((users, network)) = names.split_once(' ') else { return Ok(None) };
        for process in fs::read_dir("/proc")?.flatten() {
            // Those of others say nothing, and those that end now neither.
            let Ok(held) = fs::read_dir(process.path().join("fd")) else { continue };
            let held: Vec<PathBuf> = held.flatten().map(|entry| entry.path()).collect();
            let open = |wanted: &str| {
                let is_it =
                    |path: &&PathBuf| fs::read_link(path).is_ok_and(|name| name.as_os_str() == wanted);
                let file = fs::File::open(held.iter().find(is_it)?).ok()?;
                // It may be another one's by now.
                let own = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
                (own.as_os_str() == wanted).then(|| OwnedFd::from(file.into_parts().0))
            };
            if let (Some(users), Some(network)) = (open(users), open(network)) {
                return Ok(Some(Self { users, network, life: None }));
            }
        }
        Ok(None)
    }

    /// Its user namespace, for a specification; good in this process as long as this lives.
    pub(crate) fn users(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.users.as_raw_fd()))
    }

    /// Becomes root of its user namespace. Steps of a build are connected by who is that already, and nobody can join the
    /// namespace that he is in.
    fn join_users(&self) -> rustix::io::Result<()> {
        let (own, wanted) = (rustix::fs::stat("/proc/self/ns/user")?, rustix::fs::fstat(&self.users)?);
        if (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(());
        }
        idmap::join(self.users.as_fd())
    }

    fn enter(&self) -> Result<()> {
        self.join_users()
            .and_then(|()| move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network)))
            .map_err(|errno| Error::Network { action: "enter this user's networks", source: errno.into() })
    }

    /// Makes this process one of a network namespace in it for good, without more rights than to take any port.
    pub(crate) fn settle_in(&self, network: &OwnedFd) -> Result<()> {
        let kept = CapabilitySet::NET_BIND_SERVICE;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        idmap::join(self.users.as_fd())
            .and_then(|()| move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)))
            .and_then(|()| set_capabilities(None, sets))
            .map_err(|errno| Error::Network { action: "enter the container's network", source: errno.into() })
    }

    /// Does something in it, in a child. The process must have one thread.
    pub(crate) fn inside<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        Ok(self.fetch(|| Ok((work()?, Vec::new())))?.0)
    }

    /// The same, with descriptors that come out of it, [`HANDED`] at most.
    pub(crate) fn fetch<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<(T, Vec<OwnedFd>)>,
    ) -> Result<(T, Vec<OwnedFd>)> {
        let (mut ours, mut theirs) = UnixStream::pair()?;
        let child = process::fork(move || {
            let answer = self.enter().and_then(|()| work());
            let told = match answer {
                Ok((value, handed)) => {
                    let words = serde_json::to_vec(&value).unwrap_or_default();
                    hand(&theirs, DONE, &handed).and_then(|()| theirs.write_all(&words))
                }
                Err(error) => {
                    hand(&theirs, FAILED, &[]).and_then(|()| theirs.write_all(&Failure::of(&error).encode()))
                }
            };
            u8::from(told.is_err())
        })?;
        let answer = take(&mut ours);
        child.wait()?;
        let (outcome, handed, words) = answer?;
        let read = |error: serde_json::Error| Error::Network {
            action: "use this user's networks",
            source: std::io::Error::other(error),
        };
        if outcome == DONE {
            return Ok((serde_json::from_slice(&words).map_err(read)?, handed));
        }
        Err(serde_json::from_slice::<Failure>(&words).map_err(read)?.into_error())
    }
}

fn hand(to: &UnixStream, outcome: u8, handed: &[OwnedFd]) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handed: Vec<_> = handed.iter().map(|fd| fd.as_fd()).collect();
    if !handed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&handed)) {
        return Err(std::io::Error::other("too many descriptors"));
    }
    sendmsg(to, &[IoSlice::new(&[outcome])], &mut control, SendFlags::empty())?;
    Ok(())
}

fn take(from: &mut UnixStream) -> std::io::Result<(u8, Vec<OwnedFd>, Vec<u8>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut outcome = [0];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&*from, &mut [IoSliceMut::new(&mut outcome)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut handed = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            handed.extend(fds);
        }
    }
    let mut words = Vec::new();
    from.read_to_end(&mut words)?;
    Ok((outcome[0], handed, words))
}
