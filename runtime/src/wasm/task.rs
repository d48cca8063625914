//! The verbs on a Wasm program. It runs on the thread that waits for it, in this process.

use std::fmt;
use std::sync::Arc;

use super::limits::{Bounds, Exceeded};
use super::network::Policy;
use super::stdio::Output;
use super::union::Union;
use super::wall::Wall;
use super::{http, p1, p2};
use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::task::{ExitStatus, Status};

/// What wasmtime's own command, and a shell after `SIGABRT`, answer for a trap.
const TRAPPED: u8 = 134;

/// A Wasm program.
pub struct Task {
    id: String,
    /// The program as the user knows it, for messages.
    program: String,
    stderr: Output,
    bounds: Bounds,
    wall: Option<(Wall, Arc<Union>)>,
    policy: Arc<Policy>,
    state: State,
    out_of_memory: bool,
    /// Kept until somebody has time to take it apart: the kernel needs some for four gigabytes of addresses.
    remains: Option<p1::Remains>,
}

enum State {
    Created(Prepared),
    Running(Prepared),
    Ended(ExitStatus),
    /// Only while the guest runs.
    Busy,
}

/// A linked program and everything it will use.
pub(super) enum Prepared {
    P1(p1::Program),
    P2(p2::Program),
    Http(http::Program),
}

/// How a guest's run ended.
pub(super) enum End {
    /// By itself, with this code.
    Exit(u32),
    /// Stopped by an error, which carries the guest's stack.
    Trap(wasmtime::Error),
}

impl Task {
    pub(super) fn new(
        id: String,
        program: String,
        stderr: Output,
        policy: Arc<Policy>,
        bounds: Bounds,
        wall: Option<(Wall, Arc<Union>)>,
        prepared: Prepared,
    ) -> Self {
        Self {
            id,
            program,
            stderr,
            policy,
            bounds,
            wall,
            state: State::Created(prepared),
            out_of_memory: false,
            remains: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        std::process::id()
    }

    pub(crate) fn status(&self) -> Status {
        match self.state {
            State::Created(_) => Status::Created,
            State::Running(_) | State::Busy => Status::Running,
            State::Ended(_) => Status::Stopped,
        }
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Busy) {
            State::Created(prepared) => State::Running(prepared),
            other => other,
        };
        Ok(())
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let prepared = match std::mem::replace(&mut self.state, State::Busy) {
            State::Running(prepared) => prepared,
            State::Ended(status) => {
                self.state = State::Ended(status);
                return Ok(status);
            }
            other => {
                self.state = other;
                return Err(Error::NotRunning { id: self.id.clone() });
            }
        };
        if let Some((wall, union)) = self.wall.take() {
            // What wasmtime's WASI uses opens them.
            let devices = !matches!(prepared, Prepared::P1(_));
            wall.raise(&union, devices)?;
        }
        let end = match prepared {
            Prepared::P1(program) => {
                let (end, remains) = program.run();
                self.remains = remains;
                end
            }
            Prepared::P2(program) => program.run(),
            Prepared::Http(program) => program.run(),
        };
        let status = match end {
            // As every system does: what is above eight bits is cut off.
            End::Exit(code) => ExitStatus::Code(code.to_le_bytes()[0]),
            End::Trap(error) => match self.bounds.exceeded(&error) {
                Some(exceeded) => {
                    self.say(&ended(&self.program, &exceeded));
                    self.out_of_memory = matches!(exceeded, Exceeded::Memory { .. });
                    exceeded.status()
                }
                None => {
                    self.report(&error);
                    ExitStatus::Code(TRAPPED)
                }
            },
        };
        // A program that fails may well have failed for that.
        if status != ExitStatus::Code(0)
            && let Some(denied) = self.policy.denials()
        {
            drop(self.stderr.write_all(denied.as_bytes()));
        }
        self.state = State::Ended(status);
        Ok(status)
    }

    /// Tells whoever reads the guest's standard error what went wrong and where.
    fn report(&self, error: &wasmtime::Error) {
        self.say(&format!("error: {} failed\n{}", self.program, render(error)));
    }

    fn say(&self, text: &str) {
        // Nobody is left to be told when this fails.
        drop(self.stderr.write_all(text.as_bytes()));
    }

    /// What is done when the guest's time is over while it is in a host call that does not come back: `action` runs on
    /// another thread, with how the task is to end, and had better end this process. Without one the guest goes on
    /// until the host call has come back.
    pub fn on_overrun(&self, action: impl FnOnce(ExitStatus) + Send + 'static) {
        let (program, stderr) = (self.program.clone(), self.stderr.clone());
        self.bounds.overrun.set(Box::new(move |exceeded| {
            drop(stderr.write_all(ended(&program, &exceeded).as_bytes()));
            action(exceeded.status());
        }));
    }

    /// Whether it was ended because it wanted more memory than it may have.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    pub(crate) fn kill(&self, signal: Signal) -> Result<()> {
        if self.status() == Status::Stopped {
            return Err(Error::NotRunning { id: self.id.clone() });
        }
        send_to_self(signal)
    }

    pub(crate) fn delete(self) -> Result<()> {
        drop(self);
        Ok(())
    }
}

fn ended(program: &str, exceeded: &Exceeded) -> String {
    format!("error: {program} was ended: {exceeded}\n")
}

/// The causes of an error, one below the other.
pub(super) fn render(error: &wasmtime::Error) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (number, cause) in error.chain().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{number:>5}: {}", cause.to_string().trim_end().replace('\n', "\n       "));
    }
    text
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("program", &self.program)
            .field("status", &status)
            .finish()
    }
}

#[cfg(unix)]
fn send_to_self(signal: Signal) -> Result<()> {
    use rustix::process::{Signal as Os, getpid, kill_process};
    // By name: numbers differ between systems. The real-time signals have none.
    let os = match signal.number() {
        1 => Os::HUP,
        2 => Os::INT,
        3 => Os::QUIT,
        4 => Os::ILL,
        5 => Os::TRAP,
        6 => Os::ABORT,
        7 => Os::BUS,
        8 => Os::FPE,
        9 => Os::KILL,
        10 => Os::USR1,
        11 => Os::SEGV,
        12 => Os::USR2,
        13 => Os::PIPE,
        14 => Os::ALARM,
        15 => Os::TERM,
        17 => Os::CHILD,
        18 => Os::CONT,
        19 => Os::STOP,
        20 => Os::TSTP,
        21 => Os::TTIN,
        22 => Os::TTOU,
        23 => Os::URG,
        24 => Os::XCPU,
        25 => Os::XFSZ,
        26 => Os::VTALARM,
        27 => Os::PROF,
        28 => Os::WINCH,
        29 => Os::IO,
        31 => Os::SYS,
        _ => return Err(Error::Unsupported { verb: "kill with this signal", executor: "wasm" }),
    };
    kill_process(getpid(), os).map_err(|errno| Error::Setup {
        action: format!("send {signal} to process {}", std::process::id()),
        source: errno.into(),
    })
}

#[cfg(not(unix))]
fn send_to_self(_signal: Signal) -> Result<()> {
    Err(Error::Unsupported { verb: "kill", executor: "wasm" })
}
