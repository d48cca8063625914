//! Networks without root: a program of the user's own, pasta or slirp4netns, copies between a container's namespace and this
//! host's network. Neither is a part of Dhow; without them such a container has a loopback and no more.
//!
//! The program lives as long as the container's monitor. Between them stands a keeper, a process that waits for the end of
//! either: the monitor's, however it comes, is the end of a pipe.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dhow_runtime::process;
use dhow_runtime::wasm::{Protocol, Publish};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::json;

use crate::error::{Error, Result};

/// Where the programs are; nobody's environment is asked.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// What both of them need.
const TUNNELS: &str = "/dev/net/tun";
/// How long one may take to set a network up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The most of its complaints that is told.
pub(super) const WORDS: u64 = 2048;

/// The programs that can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Pasta,
    Slirp,
}

impl Tool {
    /// By the name that is also its network mode.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Pasta, Self::Slirp].into_iter().find(|tool| tool.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp => "slirp4netns",
        }
    }

    pub(super) fn path(self) -> Option<PathBuf> {
        FOLDERS.iter().map(|folder| Path::new(folder).join(self.name())).find(|path| path.is_file())
    }

    /// The better one of those that are installed, where this user may use it.
    pub(crate) fn usable() -> Option<Self> {
        let may = || fs::OpenOptions::new().read(true).write(true).open(TUNNELS).is_ok();
        [Self::Pasta, Self::Slirp].into_iter().find(|tool| tool.path().is_some()).filter(|_| may())
    }

    /// Whether it can publish there.
    pub(crate) fn publishes(self, port: &Publish) -> bool {
        self == Self::Pasta || port.host.is_ipv4()
    }

    /// The command that connects the network of this process.
    pub(super) fn command(self, program: &Path, pid: u32, ports: &[Publish], socket: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Pasta => {
                // The container reaches nothing of this host's loopback, and this host of it only what is published.
                command.args([
                    "--foreground",
                    "--quiet",
                    "--config-net",
                    "--no-map-gw",
                    "-T",
                    "none",
                    "-U",
                    "none",
                ]);
                for (protocol, option) in [(Protocol::Tcp, "-t"), (Protocol::Udp, "-u")] {
                    let mut none = true;
                    for port in ports.iter().filter(|port| port.protocol == protocol) {
                        none = false;
                        let (host, guest) = (port.host, port.guest_port);
                        // Without an address it is for both families.
                        let both = |other: &Publish| {
                            other.host == SocketAddr::from((Ipv4Addr::UNSPECIFIED, host.port()))
                        };
                        match host.ip() {
                            ip if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && ports.iter().any(both) => {}
                            ip if ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                                command.arg(option).arg(format!("{}:{guest}", host.port()));
                            }
                            ip => {
                                command.arg(option).arg(format!("{ip}/{}:{guest}", host.port()));
                            }
                        }
                    }
                    if none {
                        command.args([option, "none"]);
                    }
                }
            }
            Self::Slirp => {
                command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
                command.arg(format!("--userns-path=/proc/{pid}/ns/user"));
                command.arg("--api-socket").arg(socket);
            }
        }
        command.arg(pid.to_string());
        if self == Self::Slirp {
            command.arg("tap0");
        }
        command
    }
}

/// A program that copies for one container; ended with this.
#[derive(Debug)]
pub(crate) struct Copier {
    /// The keeper waits for its end.
    life: Option<OwnedFd>,
    keeper: Option<process::Child>,
    /// What the program says, also when all is well: it would be killed for saying so to nobody. What does not fit is lost.
    _words: OwnedFd,
}

impl Copier {
    /// Connects the container with this first process, which waits at its gate. Back when the network is there.
    pub(crate) fn start(tool: Tool, pid: u32, ports: &[Publish], folder: &Path) -> Result<Self> {
        let Some(program) = tool.path() else {
            return Err(Error::Invalid(format!(
                "{} is not installed: a network without root needs it",
                tool.name()
            )));
        };
        let pipe = |more| pipe_with(PipeFlags::CLOEXEC | more).map_err(std::io::Error::from);
        let ((ended, life), (words, complaints)) = (pipe(PipeFlags::empty())?, pipe(PipeFlags::NONBLOCK)?);
        let socket = folder.join("slirp");
        let command = std::cell::Cell::new(Some(tool.command(&program, pid, ports, &socket)));
        let keeper =
            process::fork(|| command.take().map_or(127, |command| keep(command, &ended, &complaints)))?;
        drop((ended, complaints));
        let copier = Self { life: Some(life), keeper: Some(keeper), _words: words.try_clone()? };
        let deadline = Instant::now() + PATIENCE;
        // A network has a route; which one is the program's affair.
        while !is_up(tool, pid) {
            let mut fds = [PollFd::new(&words, PollFlags::IN)];
            let blink = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            let spoke = poll(&mut fds, Some(&blink)).unwrap_or(0) > 0;
            let gone = spoke && fds[0].revents().contains(PollFlags::HUP);
            if gone || Instant::now() > deadline {
                drop(copier);
                let mut said = String::new();
                fs_err::File::from_parts(words.into(), "complaints")
                    .take(WORDS)
                    .read_to_string(&mut said)
                    .ok();
                let said = said.trim();
                return Err(Error::Invalid(format!("{} made no network: {said}", tool.name())));
            }
        }
        if tool == Tool::Slirp {
            ports.iter().try_for_each(|port| forward(&socket, port, deadline))?;
        }
        Ok(copier)
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.life = None;
        if let Some(keeper) = self.keeper.take() {
            // It ends what it keeps, and then the ports are free.
            keeper.wait().ok();
        }
    }
}

/// The keeper's whole life: from the start of the program to the end of it or of the pipe.
fn keep(mut command: Command, life: &OwnedFd, complaints: &OwnedFd) -> u8 {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let arranged = rustix::stdio::dup2_stdin(life)
        .and_then(|()| rustix::stdio::dup2_stderr(complaints))
        .and_then(|()| null.map_or(Ok(()), |null| rustix::stdio::dup2_stdout(null.file())));
    // Nothing of the monitor's may outlive it here.
    if arranged.is_err() || process::keep_descriptors(0).is_err() {
        return 126;
    }
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else { return 127 };
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let Some(ended) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        child.kill().ok();
        return 126;
    };
    let stdin = std::io::stdin();
    let mut fds =
        [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
    while matches!(poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
    child.kill().ok();
    child.wait().ok();
    0
}

/// Whether this program has set the network of a process up. slirp4netns gives an address first, which is a route, and then
/// the way out; pasta copies what routes there are at once.
pub(super) fn is_up(tool: Tool, pid: u32) -> bool {
    match tool {
        Tool::Pasta => routes(pid) > 0,
        Tool::Slirp => {
            let table = fs::read_to_string(format!("/proc/{pid}/net/route")).unwrap_or_default();
            table.lines().any(|line| line.split_ascii_whitespace().nth(1) == Some("00000000"))
        }
    }
}

/// How many ways a process has to anywhere.
pub(super) fn routes(pid: u32) -> usize {
    let lines = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let v6 = lines("ipv6_route");
    let leads = |line: &&str| line.starts_with(&"0".repeat(32)) && !line.ends_with("lo");
    lines("route").lines().count().saturating_sub(1) + v6.lines().filter(leads).count()
}

/// Tells slirp4netns of a port.
fn forward(socket: &Path, port: &Publish, deadline: Instant) -> Result<()> {
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            other => break other?,
        }
    };
    let protocol = if port.protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let wish = json!({ "execute": "add_hostfwd", "arguments": {
        "proto": protocol, "host_addr": port.host.ip().to_string(),
        "host_port": port.host.port(), "guest_port": port.guest_port } });
    stream.write_all(wish.to_string().as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut said = String::new();
    stream.take(WORDS).read_to_string(&mut said)?;
    if said.contains("\"error\"") {
        return Err(Error::Invalid(format!("cannot publish on {}: {}", port.host, said.trim())));
    }
    Ok(())
}
