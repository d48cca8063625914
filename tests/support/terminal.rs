//! A command on a pseudo terminal of its own, driven as a person drives it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// The master side and the command behind it.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    master: fs_err::File,
    /// Kept open so that the terminal's settings can be looked at after the command has ended.
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    seen: String,
    /// Up to here [`Terminal::expect`] has consumed.
    mark: usize,
}

impl Terminal {
    /// Starts the command with the terminal as its controlling terminal and all three streams.
    pub(crate) fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlock terminal");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(&name, flags, Mode::empty()).expect("open terminal");
        tcsetwinsize(&master, size(rows, columns)).expect("window size");

        // setsid(1) makes the session and takes the terminal, which std's Command cannot.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                session.env(name, value);
            }
        }
        session.env("TERM", "xterm");
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        let stream = || slave.try_clone().expect("duplicate terminal");
        let child = session.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("setsid");

        let master = fs_err::File::from_parts(std::fs::File::from(master), "the test's terminal");
        let mut reader = master.try_clone().expect("duplicate terminal");
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The read fails with EIO once nobody holds the other side.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, master, slave, output, seen: String::new(), mark: 0 }
    }

    /// Types something.
    pub(crate) fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    /// Waits until the terminal shows `text` after what was expected before.
    pub(crate) fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen[self.mark..].find(text) {
                self.mark += at + text.len();
                return;
            }
            match self.output.recv_timeout(Duration::from_secs(20)) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => {
                    self.child.kill().ok();
                    panic!("the terminal does not show {text:?}; it shows {:?}", self.seen);
                }
            }
        }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).expect("window size");
    }

    /// Whether the terminal echoes and edits lines, as a shell's user expects to find it.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("terminal attributes").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for the command's end; gives its exit code.
    pub(crate) fn code(&mut self) -> i32 {
        let status = super::until("the command on the terminal", || self.child.try_wait().expect("wait"));
        status.code().expect("an exit code")
    }

    /// Everything shown so far.
    pub(crate) fn shown(&mut self) -> &str {
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        &self.seen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
