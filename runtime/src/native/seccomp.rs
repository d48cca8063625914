//! Seccomp profiles: from the OCI runtime specification's `linux.seccomp` to the kernel's BPF.
//!
//! No library does this for us: compiling Docker's profile with libseccomp costs 8 ms per start, this costs some
//! tens of microseconds. The program looks at the architecture first, finds the call's number by binary
//! search, and only then looks at arguments. Names an architecture does not have are ignored, as the
//! specification wants; the same goes for architectures that this machine does not run.

pub(in crate::native) mod agent;
mod assemble;
mod table;

use std::os::fd::OwnedFd;

pub(crate) use oci_spec::runtime::LinuxSeccompOperator as Operator;
use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::native::sys::{self, Instruction};

use assemble::{Check, Section};

/// A compiled filter, ready to be installed any number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    flags: u32,
    program: Vec<Instruction>,
}

/// A column of the number table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each machine has only some of them")]
enum Column {
    X86_64,
    Arm64,
    X86,
}

impl Column {
    /// The kernel's name for the architecture: ELF machine, with bits for 64 bit and little endian.
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Arm64 => 0xc000_00b7,
            Self::X86 => 0x4000_0003,
        }
    }

    /// The highest number the table has.
    fn newest(self) -> u32 {
        table::TABLE.iter().filter_map(|row| self.of(row)).max().unwrap_or(0)
    }

    fn of(self, row: &(&str, i16, i16, i16)) -> Option<u32> {
        let number = match self {
            Self::X86_64 => row.1,
            Self::Arm64 => row.2,
            Self::X86 => row.3,
        };
        u32::try_from(number).ok()
    }
}

/// This program's own architecture.
#[cfg(target_arch = "x86_64")]
const NATIVE: Column = Column::X86_64;
/// This program's own architecture.
#[cfg(target_arch = "aarch64")]
const NATIVE: Column = Column::Arm64;

/// `ENOSYS`: what a kernel without x32 says to its calls, and an older kernel to new ones.
const NO_SUCH_CALL: u32 = RET_ERRNO | 38;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
/// The filter has a listener (`SECCOMP_FILTER_FLAG_NEW_LISTENER`), and only killing interrupts who waits for it.
const NEW_LISTENER: u32 = 1 << 3;
const WAIT_KILLABLE: u32 = 1 << 5;
const EPERM: u32 = 1;
/// The kernel takes no longer programs (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

impl Filter {
    /// Compiles a profile for this machine: its own architecture, and 32 bit x86 on x86-64 when the profile
    /// names it. Calls of any other architecture kill the process; x32 calls do not exist, and neither do calls
    /// newer than this program where the profile's default is an error.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`] for an action, flag or argument that cannot be compiled.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self> {
        if profile.default_action() == Action::ScmpActNotify {
            return Err(invalid("SCMP_ACT_NOTIFY cannot be the default action".to_owned()));
        }
        if profile.listener_metadata().is_some() && profile.listener_path().is_none() {
            return Err(invalid("listenerMetadata is there without listenerPath".to_owned()));
        }
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        let wants_x86 = profile.architectures().iter().flatten().any(|arch| *arch == Arch::ScmpArchX86);
        let mut columns = vec![NATIVE];
        if NATIVE == Column::X86_64 && wants_x86 {
            columns.push(Column::X86);
        }
        let mut builder = Builder::new(&columns);
        let mut notifies = false;
        for entry in profile.syscalls().iter().flatten() {
            let result = action(entry.action(), entry.errno_ret())?;
            if entry.names().is_empty() {
                return Err(invalid("a rule has no names".to_owned()));
            }
            let notify = result == RET_NOTIFY;
            // The listener is handed over by this call, under the filter already.
            if notify && entry.names().iter().any(|name| name == "sendmsg") {
                return Err(invalid("SCMP_ACT_NOTIFY cannot be the action for sendmsg".to_owned()));
            }
            notifies |= notify;
            let alternatives = alternatives(entry.args().as_deref().unwrap_or_default())?;
            for name in entry.names() {
                builder.add(name, result, &alternatives);
            }
        }
        let flags = flags(profile);
        builder.finish(default, if notifies { flags | NEW_LISTENER } else { flags & !WAIT_KILLABLE })
    }

    /// The profile of [`super::defaults::seccomp`] for these capabilities, without the detour over the
    /// specification's form.
    ///
    /// # Errors
    /// None that a caller could cause; the signature is that of [`Filter::compile`].
    pub fn docker_default(capabilities: &Capabilities) -> Result<Self> {
        let mut columns = vec![NATIVE];
        if NATIVE == Column::X86_64 {
            columns.push(Column::X86);
        }
        let mut builder = Builder::new(&columns);
        let mut result = Ok(());
        super::defaults::seccomp_rules(capabilities, |names, act, value, args| {
            let one = action(act, value).and_then(|act| Ok((act, alternatives(args)?)));
            match one {
                Ok((act, alternatives)) => {
                    for name in names {
                        builder.add(name, act, &alternatives);
                    }
                }
                Err(error) => result = Err(error),
            }
        });
        result?;
        builder.finish(RET_ERRNO | EPERM, 0)
    }

    /// How many instructions it has.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.program.len()
    }

    /// Whether it has a listener.
    pub(in crate::native) fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    /// Puts the calling thread under this filter, for good. Needs `CAP_SYS_ADMIN` or no-new-privileges. With a listener
    /// for a filter that has one.
    pub(crate) fn install(&self) -> std::result::Result<Option<OwnedFd>, Errno> {
        sys::seccomp_filter(self.flags, self.notifies(), &self.program)
    }
}

/// What a call gets by a filter of [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// It ends the process.
    Kill,
}

/// Puts a filter together from this machine's own numbers, for our own processes: what has no rule fails with `EPERM`,
/// and every call of another architecture ends the process.
pub(crate) struct Host(Section);

impl Host {
    pub(crate) fn new() -> Self {
        let x32 = (NATIVE == Column::X86_64).then_some(RET_KILL_PROCESS);
        Self(Section::new(NATIVE.audit(), x32).newer_than(NATIVE.newest(), NO_SUCH_CALL))
    }

    /// A rule for a call, if all conditions hold: argument, comparison, value, and for the masked one what must be left
    /// under the mask `value`.
    pub(crate) fn add(&mut self, call: libc::c_long, verdict: Verdict, when: &[(u32, Operator, u64, u64)]) {
        let result = match verdict {
            Verdict::Allow => RET_ALLOW,
            Verdict::Errno(number) => RET_ERRNO | u32::from(number),
            Verdict::Kill => RET_KILL_PROCESS,
        };
        let check = |&(index, operator, value, second): &(u32, Operator, u64, u64)| Check {
            index,
            operator,
            value,
            second,
        };
        let checks: Vec<Check> = when.iter().map(check).collect();
        if let Ok(number) = u32::try_from(call) {
            self.0.add(number, result, &checks);
        }
    }

    /// The filter, with these flags of the system call.
    pub(crate) fn finish(self, flags: u32) -> Result<Filter> {
        let program = assemble::assemble(std::iter::once(self.0), RET_ERRNO | EPERM, RET_KILL_PROCESS);
        Ok(Filter { flags, program })
    }
}

/// Collects rules per architecture.
struct Builder {
    sections: Vec<(Column, Section)>,
}

impl Builder {
    fn new(columns: &[Column]) -> Self {
        let section = |column: &Column| {
            let x32 = (*column == Column::X86_64).then_some(NO_SUCH_CALL);
            (*column, Section::new(column.audit(), x32))
        };
        Self { sections: columns.iter().map(section).collect() }
    }

    fn add(&mut self, name: &str, result: u32, alternatives: &[Vec<Check>]) {
        let Ok(row) = table::TABLE.binary_search_by(|row| row.0.cmp(name)) else { return };
        for (column, section) in &mut self.sections {
            let Some(number) = column.of(&table::TABLE[row]) else { continue };
            for checks in alternatives {
                section.add(number, result, checks);
            }
        }
    }

    fn finish(self, default: u32, flags: u32) -> Result<Filter> {
        // A profile that refuses what it does not name cannot have meant calls that are newer than it. Programs
        // try those first, and fall back only when they do not exist; runc does the same.
        let refuses = default & !0xffff == RET_ERRNO;
        let sections = self.sections.into_iter().map(|(column, section)| match refuses {
            true => section.newer_than(column.newest(), NO_SUCH_CALL),
            false => section,
        });
        let program = assemble::assemble(sections, default, RET_KILL_PROCESS);
        if program.len() > LONGEST {
            let length = program.len();
            return Err(invalid(format!(
                "the profile needs {length} instructions, the kernel takes {LONGEST}"
            )));
        }
        Ok(Filter { flags, program })
    }
}

fn invalid(reason: String) -> Error {
    Error::InvalidSpec { field: "linux.seccomp", reason }
}

/// What the filter returns for an action. `value` is the error number, or the tracer's message.
fn action(action: Action, value: Option<u32>) -> Result<u32> {
    let takes_value = matches!(action, Action::ScmpActErrno | Action::ScmpActTrace);
    let value = match value {
        None => EPERM,
        Some(_) if !takes_value => return Err(invalid(format!("{action} takes no errnoRet"))),
        Some(value) if value <= 0xffff => value,
        Some(value) => return Err(invalid(format!("errnoRet {value} is larger than 65535"))),
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => RET_TRAP,
        Action::ScmpActErrno => RET_ERRNO | value,
        Action::ScmpActTrace => RET_TRACE | value,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
        Action::ScmpActNotify => RET_NOTIFY,
    })
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    profile.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                // One thread, so there is nothing to synchronise.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE,
            }
    })
}

/// The sets of checks of which one has to hold. Conditions on different arguments hold together; several on
/// the same argument are alternatives, which is how runc reads profiles.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Check>>> {
    let checks = args
        .iter()
        .map(|arg| match u32::try_from(arg.index()) {
            Ok(index @ 0..=5) => Ok(Check {
                index,
                operator: arg.op(),
                value: arg.value(),
                second: arg.value_two().unwrap_or(0),
            }),
            _ => Err(invalid(format!("a call has no argument {}", arg.index()))),
        })
        .collect::<Result<Vec<_>>>()?;
    let repeated = checks
        .iter()
        .enumerate()
        .any(|(at, check)| checks[..at].iter().any(|other| other.index == check.index));
    Ok(if repeated { checks.into_iter().map(|check| vec![check]).collect() } else { vec![checks] })
}

#[cfg(test)]
mod tests;
