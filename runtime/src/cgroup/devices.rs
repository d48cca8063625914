//! Which devices a container may use: `linux.resources.devices`, in the order given, then what every container may.
//!
//! Version 1 has files for it. Version 2 has a BPF program for each group, which is assembled here: the last rule about a
//! device decides, for each kind of access on its own, and what no rule names is denied.

mod program;

use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fs::{Mode, OFlags};

use super::{oci, sys};
use crate::error::{Error, Result};

/// Kinds of access, as the kernel's bits.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Kind,
    /// Any when missing.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Block,
    Character,
}

/// What runc allows every container: to make any node, and to use the usual ones and terminals.
const ALWAYS: [(Kind, Option<u32>, Option<u32>, u8); 10] = [
    (Kind::Character, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Character, Some(1), Some(3), ALL),
    (Kind::Character, Some(1), Some(5), ALL),
    (Kind::Character, Some(1), Some(7), ALL),
    (Kind::Character, Some(1), Some(8), ALL),
    (Kind::Character, Some(1), Some(9), ALL),
    (Kind::Character, Some(5), Some(0), ALL),
    (Kind::Character, Some(5), Some(2), ALL),
    (Kind::Character, Some(136), None, ALL),
];

impl Rule {
    fn parse(given: &LinuxDeviceCgroup) -> Result<Self> {
        let invalid = |reason: String| Error::InvalidSpec { field: "linux.resources.devices", reason };
        let kind = match given.typ() {
            None | Some(LinuxDeviceType::A) => Kind::Any,
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Character,
            Some(LinuxDeviceType::P) => return Err(invalid("a fifo is no device".to_owned())),
        };
        let number = |value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => match u32::try_from(value) {
                Ok(value) if value <= i32::MAX.cast_unsigned() => Ok(Some(value)),
                _ => Err(invalid(format!("there is no device number {value}"))),
            },
        };
        let words = given.access().as_deref().unwrap_or("rwm");
        let access = words.chars().try_fold(0, |access, word| match word {
            'r' => Ok(access | READ),
            'w' => Ok(access | WRITE),
            'm' => Ok(access | MKNOD),
            _ => Err(invalid(format!("access {words} is not of r, w and m"))),
        })?;
        // Nothing said means all of it, as in the kernel's words.
        let access = if access == 0 { ALL } else { access };
        Ok(Self {
            allow: given.allow(),
            kind,
            major: number(given.major())?,
            minor: number(given.minor())?,
            access,
        })
    }

    /// `c 1:3 rwm`
    fn line(&self) -> String {
        let kind = match self.kind {
            Kind::Any => return "a".to_owned(),
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let number = |value: Option<u32>| value.map_or("*".to_owned(), |value| value.to_string());
        let words = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            words.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, word)| *word).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// All rules in their order: none, the given ones, the usual ones.
fn rules(given: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let nothing = Rule { allow: false, kind: Kind::Any, major: None, minor: None, access: ALL };
    let always = ALWAYS
        .iter()
        .map(|&(kind, major, minor, access)| Ok(Rule { allow: true, kind, major, minor, access }));
    let all = std::iter::once(Ok(nothing)).chain(given.iter().map(Rule::parse)).chain(always);
    let mut all = all.collect::<Result<Vec<_>>>()?;
    // Most specifications begin with denying everything, too.
    all.dedup();
    Ok(all)
}

/// Version 1: writes them, one after the other.
pub(super) fn write_first(folder: &Path, given: &[LinuxDeviceCgroup]) -> Result<()> {
    rules(given)?.chunk_by(|one, next| one.allow == next.allow).try_for_each(|rules| {
        let file = if rules.iter().all(|rule| rule.allow) { "devices.allow" } else { "devices.deny" };
        let lines: Vec<String> = rules.iter().map(Rule::line).collect();
        oci::write_all(folder, file, &lines)
    })
}

/// Version 2: attaches a program in place of those that are there.
pub(super) fn attach(folder: &Path, given: &[LinuxDeviceCgroup]) -> Result<()> {
    let code = program::assemble(&rules(given)?);
    let attached = || {
        let group =
            rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let program = sys::load_device_program(&code)?;
        let old = sys::device_programs(group.as_fd())?;
        match old.as_slice() {
            // One step: at no time is everything allowed, or nothing.
            [one] => sys::attach_device_program(group.as_fd(), program.as_fd(), Some(one.as_fd())),
            _ => {
                sys::attach_device_program(group.as_fd(), program.as_fd(), None)?;
                old.iter().try_for_each(|one| sys::detach_device_program(group.as_fd(), one.as_fd()))
            }
        }
    };
    attached().map_err(|errno: rustix::io::Errno| Error::Setup {
        action: format!("attach a device filter to {}", folder.display()),
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests;
