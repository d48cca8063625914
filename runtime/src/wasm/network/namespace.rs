//! Joining a network namespace that somebody else has made (Linux).

use std::path::Path;

use crate::error::Result;

/// Moves this thread, and those it will start, into the network namespace at `path`.
///
/// # Errors
/// When there is none, or this process may not join it.
#[cfg(target_os = "linux")]
pub(in crate::wasm) fn enter(path: &Path) -> Result<()> {
    use crate::error::Error;
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd as _;
    let file =
        fs_err::File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?.into_file();
    let join = || move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
    let joined = match join() {
        // It belongs to a user namespace of this user's, whose root may.
        Err(rustix::io::Errno::PERM) => become_its_root(file.as_fd()).and_then(|()| join()).and_then(|()| {
            // More than its creator had is not for the program, but for any port of a network that is its own.
            let kept = rustix::thread::CapabilitySet::NET_BIND_SERVICE;
            rustix::thread::set_capabilities(
                None,
                rustix::thread::CapabilitySets {
                    effective: kept,
                    permitted: kept,
                    inheritable: rustix::thread::CapabilitySet::empty(),
                },
            )
        }),
        joined => joined,
    };
    joined.map_err(|errno| Error::Setup {
        action: format!("join the network namespace {}", path.display()),
        source: errno.into(),
    })
}

/// Joins the user namespace that a network namespace belongs to.
#[cfg(target_os = "linux")]
fn become_its_root(network: std::os::fd::BorrowedFd<'_>) -> rustix::io::Result<()> {
    let owner = crate::native::owner_of(network)?;
    crate::native::idmap::join(std::os::fd::AsFd::as_fd(&owner))
}

/// There are none elsewhere.
#[cfg(not(target_os = "linux"))]
pub(in crate::wasm) fn enter(_: &Path) -> Result<()> {
    Err(crate::error::Error::Unsupported { verb: "join a network namespace", executor: "wasm" })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Elsewhere(Child);

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    fn place(path: impl AsRef<Path>) -> Option<PathBuf> {
        fs_err::read_link(path.as_ref()).ok()
    }

    #[test]
    fn a_thread_goes_there_and_no_other_does() {
        let ours = place("/proc/self/ns/net");
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "60"]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut other = Elsewhere(command.spawn().unwrap());
        let path = format!("/proc/{}/ns/net", other.0.id());
        while place(&path) == ours {
            if other.0.try_wait().unwrap().is_some() {
                println!("skipped: only root may make a network namespace");
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let there = place(&path);
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (of_thread, of_its_child) = std::thread::spawn(move || {
            enter(Path::new(&path)).unwrap();
            let child = std::thread::spawn(|| place("/proc/thread-self/ns/net")).join().unwrap();
            // A port that is taken here is free there.
            std::net::UdpSocket::bind(address).unwrap();
            (place("/proc/thread-self/ns/net"), child)
        })
        .join()
        .unwrap();
        assert!(there.is_some() && there != ours);
        assert_eq!((of_thread, of_its_child), (there.clone(), there));
        assert_eq!(place("/proc/thread-self/ns/net"), ours);
        assert!(enter(Path::new("/proc/self/ns/none")).is_err());
        assert!(enter(Path::new("/dev/null")).is_err());
    }
}
