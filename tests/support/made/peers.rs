//! The other tools' private instances: daemons and stores of their own, which nothing of the machine's is part of.
//!
//! | value | what it is |
//! |---|---|
//! | [`Containerd`] | a containerd with root, state and socket of its own; [`Containerd::ctr`] calls its client |
//! | [`Docker`] | a dockerd on a private containerd, without bridge and firewall; [`Docker::call`] calls its client |
//! | [`Podman`] | store and configuration for `podman` and `buildah`; no daemon |
//! | [`skopeo`], [`umoci`] | calls of tools that keep nothing |
//!
//! Each starts when a test makes it (containerd 0.05 s, dockerd 0.5 s) and ends with its value; if the test is
//! killed, the kernel ends the daemons. All of them need root: ask [`is_root`](super::is_root) first.
//! Addresses on the loopback are insecure registries for all of them. `made::registry` has the registries.

mod containerd;
mod docker;
mod podman;

pub(crate) use containerd::{Containerd, ctr_program};
pub(crate) use docker::Docker;
pub(crate) use podman::Podman;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A call of skopeo that trusts any signature and any certificate.
///
/// `skopeo(["copy", "oci:DIR:NAME", "docker://HOST/NAME"])`: the flags fit whatever follows.
pub(crate) fn skopeo<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy");
    let mut args = args.into_iter();
    let Some(verb) = args.next() else { return command };
    let verb = verb.as_ref();
    command.arg(verb);
    if verb == "copy" {
        command.args(["--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]);
    } else if verb == "inspect" || verb == "delete" {
        command.arg("--tls-verify=false");
    }
    command.args(args);
    command
}

/// A call of umoci: `umoci(["unpack", "--image", "LAYOUT:NAME", "BUNDLE"])`.
pub(crate) fn umoci<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let mut command = Command::new("umoci");
    command.args(args);
    command
}

/// What this variable names, or what is usual.
fn program(variable: &str, usual: &str) -> String {
    std::env::var(variable).ok().filter(|path| !path.is_empty()).unwrap_or_else(|| usual.to_owned())
}

/// Starts a daemon that ends when its parent does, with its output in `log`.
fn daemon(program: &str, log: &Path, with: impl FnOnce(&mut Command)) -> Child {
    let log = fs_err::File::create(log).expect("log of a daemon").into_parts().0;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", program]);
    with(&mut command);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Asks a daemon to end, which lets it take along what it mounted, and waits for that; kills it if it stays.
fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
    for _ in 0..500 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().ok();
    child.wait().ok();
}

/// Lazily unmounts whatever a daemon left mounted below `dir`, so that the folder can be removed.
fn unmount(dir: &Path) {
    let table = fs_err::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = table.lines().filter_map(|line| line.split(' ').nth(1));
    let below: Vec<&str> = below.filter(|path| Path::new(path).starts_with(dir)).collect();
    for path in below.into_iter().rev() {
        drop(Command::new("umount").args(["-l", path]).output());
    }
}
