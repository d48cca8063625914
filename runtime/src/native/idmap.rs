//! Id maps of user namespaces: which ones a user may have, and writing them for a new process.
//!
//! A user may always map one id, the own one. More come from `/etc/subuid` and `/etc/subgid` and need the
//! setuid helpers `newuidmap` and `newgidmap`, the only programs the native executor ever runs, and only then.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use fs_err as fs;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, dumpable_behavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::{Error, Result};
use crate::native::report::{Channel, Order};
use crate::native::sys::{self, Birth, Cloned};
use crate::process::{exit_status, single_threaded};
use crate::task::ExitStatus;

/// The maps of a user namespace, in the specification's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    /// User ids.
    pub uids: Vec<LinuxIdMapping>,
    /// Group ids.
    pub gids: Vec<LinuxIdMapping>,
}

/// What [`default_maps`] found for the current user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultMaps {
    /// The user is root inside, and the subordinate ranges follow from id 1.
    Ranges(Maps),
    /// The user is root inside and there are no other ids: files of an image cannot have other owners.
    Single(Maps, Reason),
}

/// Why there is only the single map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `/etc/subuid` or `/etc/subgid` gives this user nothing.
    NoRange,
    /// `newuidmap` or `newgidmap` is not installed.
    NoHelper,
}

impl DefaultMaps {
    /// The maps, whichever they are.
    pub fn maps(&self) -> &Maps {
        match self {
            Self::Ranges(maps) | Self::Single(maps, _) => maps,
        }
    }
}

/// Where the helpers are looked for; `PATH` is the user's and not asked.
const HELPER_FOLDERS: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];
const NEW_USER: u64 = libc::CLONE_NEWUSER.cast_unsigned() as u64;
/// Subordinate id files and the user list are not read beyond this.
const LARGEST_FILE: u64 = 1 << 20;

/// The maps a container of the current user gets without being told otherwise.
pub fn default_maps() -> DefaultMaps {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let single = Maps { uids: vec![range(0, uid, 1)], gids: vec![range(0, gid, 1)] };
    let name = user_name(&read(Path::new("/etc/passwd")), uid);
    let uids = subordinate(&read(Path::new("/etc/subuid")), uid, name.as_deref());
    let gids = subordinate(&read(Path::new("/etc/subgid")), uid, name.as_deref());
    if uids.is_empty() || gids.is_empty() {
        return DefaultMaps::Single(single, Reason::NoRange);
    }
    if helper("newuidmap").is_none() || helper("newgidmap").is_none() {
        return DefaultMaps::Single(single, Reason::NoHelper);
    }
    DefaultMaps::Ranges(Maps { uids: with_own(uid, &uids), gids: with_own(gid, &gids) })
}

fn range(container: u32, host: u32, size: u32) -> LinuxIdMapping {
    let mapping = LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size);
    // Every field has a default, so this cannot fail.
    mapping.build().unwrap_or_default()
}

/// The own id as 0, the ranges from 1 on, as far as ids go.
fn with_own(own: u32, ranges: &[(u32, u32)]) -> Vec<LinuxIdMapping> {
    let mut next = 1;
    let mut maps = vec![range(0, own, 1)];
    for (start, count) in ranges {
        let count = (*count).min(u32::MAX - next);
        if count > 0 {
            maps.push(range(next, *start, count));
            next += count;
        }
    }
    maps
}

/// A small text file, or nothing.
fn read(path: &Path) -> String {
    let small = fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= LARGEST_FILE);
    if small { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// A user's name in `/etc/passwd`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    })
}

/// A user's ranges in `/etc/subuid` or `/etc/subgid`: start and count. Broken lines count as absent.
fn subordinate(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let entry = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != number && Some(owner) != name {
            return None;
        }
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (fields.next().is_none() && count > 0 && start.checked_add(count - 1).is_some())
            .then_some((start, count))
    };
    text.lines().filter_map(entry).collect()
}

fn helper(name: &str) -> Option<String> {
    let paths = HELPER_FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    paths.into_iter().find(|path| fs::metadata(path).is_ok())
}

impl Maps {
    /// Refuses maps the kernel would refuse, in better words.
    pub(super) fn check(&self) -> Result<()> {
        /// The kernel's limit.
        const MOST: usize = 340;
        for (field, maps) in [("linux.uidMappings", &self.uids), ("linux.gidMappings", &self.gids)] {
            let invalid = |reason: String| Err(Error::InvalidSpec { field, reason });
            if maps.len() > MOST {
                return invalid(format!("there are {} mappings, the kernel takes {MOST}", maps.len()));
            }
            for (at, map) in maps.iter().enumerate() {
                let (inside, outside, size) = (map.container_id(), map.host_id(), map.size());
                let ends = inside.checked_add(size).and(outside.checked_add(size));
                if size == 0 || ends.is_none() {
                    return invalid(format!("{inside} {outside} {size} is no range of ids"));
                }
                let meets = |one: u32, other: u32, length: u32| one < other + length && other < one + size;
                let overlap = maps.iter().take(at).find(|other| {
                    meets(inside, other.container_id(), other.size())
                        || meets(outside, other.host_id(), other.size())
                });
                if overlap.is_some() {
                    return invalid(format!("{inside} {outside} {size} overlaps another range"));
                }
            }
        }
        Ok(())
    }

    /// A user namespace with these maps and nobody in it.
    ///
    /// # Errors
    /// When the caller has more than one thread, or the namespace or its maps are refused.
    pub fn namespace(&self) -> Result<OwnedFd> {
        single_threaded()?;
        let setup = |action: &str| {
            let action = action.to_owned();
            move |errno: rustix::io::Errno| Error::Setup { action, source: errno.into() }
        };
        let (ours, theirs) = Channel::pair().map_err(setup("make a socket pair"))?;
        let birth = Birth { namespaces: NEW_USER, ..Birth::default() };
        match clone_mappable(birth).map_err(setup("make a user namespace"))? {
            Cloned::Child => {
                drop(ours);
                theirs.wait_for(Order::Mapped);
                sys::exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let made = self.write(pid).and_then(|()| {
                    let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
                    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .map_err(setup("open a user namespace"))
                });
                // It ends when nobody can give it an order any more.
                drop(ours);
                super::wait_for(&pidfd)?;
                made
            }
        }
    }

    /// Whether an id exists inside.
    pub(super) fn has(maps: &[LinuxIdMapping], id: u32) -> bool {
        maps.iter().any(|map| id.checked_sub(map.container_id()).is_some_and(|offset| offset < map.size()))
    }

    /// Whether these are the two maps every user may write alone.
    fn is_single(&self) -> bool {
        let own = |maps: &[LinuxIdMapping], id: u32| matches!(maps, [map] if map.size() == 1 && map.host_id() == id);
        own(&self.uids, geteuid().as_raw()) && own(&self.gids, getegid().as_raw())
    }

    /// Whether a process inside may set its supplementary groups. To be asked outside: inside everybody is root.
    pub(super) fn allows_setgroups(&self) -> bool {
        if self.is_single() { may_map_any() && may_set_groups() } else { true }
    }

    /// Writes the maps for a process in a new user namespace.
    pub(super) fn write(&self, pid: Pid) -> Result<()> {
        let process = pid.as_raw_nonzero();
        if may_map_any() {
            put(&format!("/proc/{process}/uid_map"), &lines(&self.uids))?;
            put(&format!("/proc/{process}/gid_map"), &lines(&self.gids))
        } else if self.is_single() {
            put(&format!("/proc/{process}/setgroups"), "deny")?;
            put(&format!("/proc/{process}/uid_map"), &lines(&self.uids))?;
            put(&format!("/proc/{process}/gid_map"), &lines(&self.gids))
        } else {
            // Both at once: each is a process of its own.
            let uids = Helper::start("newuidmap", pid, &self.uids)?;
            let gids = Helper::start("newgidmap", pid, &self.gids)?;
            uids.finish().and(gids.finish())
        }
    }
}

/// Whether this process may write any map itself. Root of a container may not be.
fn may_map_any() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Whether groups can be set at all in this user namespace.
fn may_set_groups() -> bool {
    read_all(Path::new("/proc/self/setgroups")).trim() != "deny"
}

/// The ids of this process's own user namespace, as maps for one within it in which everybody is who they are outside.
/// `None` in the first namespace of the system.
pub fn same_ids() -> Option<Maps> {
    let ids = |name: &str| -> Option<Vec<LinuxIdMapping>> {
        let text = read_all(Path::new(name));
        let mut maps = Vec::new();
        for line in text.lines() {
            let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
            let (inside, _, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
            maps.push(range(inside, inside, size));
        }
        let all = maps.first().is_some_and(|map| map.size() == u32::MAX);
        (!all && !maps.is_empty()).then_some(maps)
    };
    Some(Maps { uids: ids("/proc/self/uid_map")?, gids: ids("/proc/self/gid_map")? })
}

/// A file of the kernel's, which says that its length is 0.
fn read_all(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A whole map in one write, as the kernel wants it.
fn put(path: &str, text: &str) -> Result<()> {
    use std::io::Write;
    let written =
        fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| Error::Setup { action: format!("write the id map {path}"), source })
}

fn lines(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())).collect()
}

/// A running `newuidmap` or `newgidmap`.
struct Helper {
    name: &'static str,
    child: std::process::Child,
}

impl Helper {
    fn start(name: &'static str, pid: Pid, maps: &[LinuxIdMapping]) -> Result<Self> {
        let path = helper(name).ok_or_else(|| Error::Host {
            what: format!("{name} is not installed"),
            hint: "install the package uidmap, or run with a single user id".to_owned(),
        })?;
        let mut command = Command::new(path);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.arg(pid.as_raw_nonzero().to_string());
        for map in maps {
            command.args([map.container_id(), map.host_id(), map.size()].map(|number| number.to_string()));
        }
        let child =
            command.spawn().map_err(|source| Error::Setup { action: format!("run {name}"), source })?;
        Ok(Self { name, child })
    }

    fn finish(self) -> Result<()> {
        let output = self
            .child
            .wait_with_output()
            .map_err(|source| Error::Setup { action: format!("wait for {}", self.name), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::Host {
            what: format!("{} refused the id map: {}", self.name, said.trim()),
            hint: "check this user's lines in /etc/subuid and /etc/subgid".to_owned(),
        })
    }
}

/// Runs a closure in a forked child that is root in a new user namespace with these maps, and waits for it.
/// So the files of a rootless container, which belong to subordinate ids, can be changed and removed.
///
/// # Errors
/// When the caller has more than one thread, or the namespace or its maps are refused.
pub fn in_user_namespace(maps: &Maps, work: impl FnOnce() -> u8) -> Result<ExitStatus> {
    single_threaded()?;
    let setup = |action: &str| {
        let action = action.to_owned();
        move |errno: rustix::io::Errno| Error::Setup { action, source: errno.into() }
    };
    let may_set_groups = maps.allows_setgroups();
    let (ours, theirs) = Channel::pair().map_err(setup("make a socket pair"))?;
    match clone_mappable(Birth { namespaces: NEW_USER, ..Birth::default() })
        .map_err(setup("make a user namespace"))?
    {
        Cloned::Child => {
            drop(ours);
            let ready = theirs.wait_for(Order::Mapped) && enter(maps, may_set_groups).is_ok();
            let work = || if ready { work() } else { u8::MAX };
            sys::exit_now(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(u8::MAX));
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mapped = maps.write(pid);
            if mapped.is_ok() {
                ours.order(Order::Mapped);
            }
            // Without the order the child ends at once.
            drop(ours);
            let status = super::wait_for(&pidfd)?;
            mapped.map(|()| exit_status(status.exit_status(), status.terminating_signal()))
        }
    }
}

/// [`sys::clone3`] with a child whose id maps this process may write: the kernel gives the files of a process
/// that hides from its user (not dumpable) to root.
pub(super) fn clone_mappable(birth: Birth<'_>) -> rustix::io::Result<Cloned> {
    let hidden = dumpable_behavior()? != DumpableBehavior::Dumpable;
    if hidden {
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    }
    let cloned = sys::clone3(birth);
    if hidden && !matches!(cloned, Ok(Cloned::Child)) {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    cloned
}

/// Moves this process, which must have one thread, into a user namespace below its own, as root if there is one. There is
/// no way back.
///
/// # Errors
/// What the kernel says, most often that it is another user's.
pub fn join(users: BorrowedFd<'_>) -> rustix::io::Result<()> {
    sys::setns(users, libc::CLONE_NEWUSER)?;
    enter_joined()
}

/// Becomes root of a user namespace that was joined, if there is a root in it.
pub(super) fn enter_joined() -> rustix::io::Result<()> {
    use rustix::io::Errno;
    // Where a single user mapped its own id alone, groups cannot be set at all.
    match sys::setgroups(&[]) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    for become_root in [sys::setresgid, sys::setresuid] {
        match become_root(0) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Becomes root of the user namespace this process is in.
pub(super) fn enter(maps: &Maps, may_set_groups: bool) -> rustix::io::Result<()> {
    if may_set_groups {
        sys::setgroups(&[])?;
    }
    if Maps::has(&maps.gids, 0) {
        sys::setresgid(0)?;
    }
    if Maps::has(&maps.uids, 0) {
        sys::setresuid(0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let text = "alice:100000:65536\n1000:200000:10\nbob:1:1\nalice:x:1\nalice:5\nalice:4294967295:2\nalice:1:0\nalice:7:1:9\n";
        assert_eq!(subordinate(text, 1000, Some("alice")), [(100_000, 65536), (200_000, 10)]);
        assert_eq!(subordinate(text, 1000, None), [(200_000, 10)]);
        assert_eq!(subordinate(text, 100, Some("ali")), []);
    }

    #[test]
    fn names_are_found_by_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nbroken\n1000:x:1:1::/:\nal:x:1000:1000::/:\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("al"));
        assert_eq!(user_name(passwd, 1).as_deref(), Some("1000"));
        assert_eq!(user_name(passwd, 2), None);
    }

    #[test]
    fn own_id_comes_first() {
        let maps = with_own(1000, &[(100_000, 65536), (300_000, 5)]);
        assert_eq!(lines(&maps), "0 1000 1\n1 100000 65536\n65537 300000 5\n");
        assert_eq!(lines(&with_own(1, &[(0, u32::MAX), (7, 7)])), format!("0 1 1\n1 0 {}\n", u32::MAX - 1));
        assert!(Maps::has(&maps, 0) && Maps::has(&maps, 65541) && !Maps::has(&maps, 65542));
    }
}
