//! Programs against a plain reading of the rules, and once in the kernel.

use std::path::PathBuf;

use oci_spec::runtime::LinuxDeviceCgroupBuilder;

use super::*;
use crate::cgroup::sys::Code;

fn given(allow: bool, kind: LinuxDeviceType, numbers: (i64, i64), access: &str) -> LinuxDeviceCgroup {
    let builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    let builder = if numbers.0 >= 0 { builder.major(numbers.0) } else { builder };
    let builder = if numbers.1 >= 0 { builder.minor(numbers.1) } else { builder };
    builder.build().expect("valid")
}

/// Runs a program as the kernel would.
fn interpret(program: &[Code], question: [u32; 3]) -> u32 {
    let mut registers = [0_u32; 11];
    let mut at = 0_usize;
    loop {
        let Code { operation, registers: pair, offset, constant } = program[at];
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        at += 1;
        let value = constant.cast_unsigned();
        let jump = |holds: bool| if holds { usize::try_from(offset).expect("forward") } else { 0 };
        match operation {
            0x61 => registers[to] = question[usize::try_from(offset).expect("inside") / 4],
            0x54 => registers[to] &= value,
            0x74 => registers[to] >>= value,
            0xb4 => registers[to] = value,
            0xbc => registers[to] = registers[from],
            0x15 => at += jump(registers[to] == value),
            0x55 => at += jump(registers[to] != value),
            0x95 => return registers[0],
            other => panic!("{other:#x}"),
        }
    }
}

/// Each kind of access on its own: the last rule about it.
fn expected(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let about = |rule: &&Rule| {
            (rule.kind == Kind::Any || rule.kind == kind)
                && rule.major.is_none_or(|number| number == major)
                && rule.minor.is_none_or(|number| number == minor)
                && rule.access & bit != 0
        };
        rules.iter().rev().find(about).is_some_and(|rule| rule.allow)
    })
}

fn lists() -> Vec<Vec<LinuxDeviceCgroup>> {
    use LinuxDeviceType::{A, B, C};
    vec![
        vec![],
        vec![given(true, A, (-1, -1), "rwm")],
        vec![given(false, A, (-1, -1), "rwm"), given(true, C, (10, 229), "rw")],
        vec![
            given(true, C, (10, -1), "r"),
            given(true, C, (10, 200), "w"),
            given(false, C, (10, 229), "rwm"),
        ],
        vec![given(true, A, (-1, -1), "rwm"), given(false, B, (8, -1), "w"), given(true, B, (8, 1), "")],
    ]
}

#[test]
fn programs_say_what_the_rules_say() {
    for list in lists() {
        let rules = rules(&list).expect("valid");
        let program = program::assemble(&rules);
        for kind in [Kind::Block, Kind::Character] {
            for (major, minor) in
                [(1, 3), (1, 4), (5, 2), (8, 0), (8, 1), (10, 200), (10, 229), (136, 7), (200, 0)]
            {
                for access in 1..=ALL {
                    let word = u32::from(access) << 16 | if kind == Kind::Block { 1 } else { 2 };
                    let said = interpret(&program, [word, major, minor]) == 1;
                    let wanted = expected(&rules, kind, major, minor, access);
                    assert_eq!(said, wanted, "{kind:?} {major}:{minor} {access} by {list:?}");
                }
            }
        }
    }
}

#[test]
fn rules_are_checked_and_written() {
    use LinuxDeviceType::{A, B, C, P};
    for bad in [given(true, C, (1, 3), "x"), given(true, P, (1, 3), "r"), given(true, C, (1 << 40, 3), "r")] {
        assert!(rules(&[bad]).is_err());
    }
    let line = |rule| Rule::parse(&rule).expect("valid").line();
    assert_eq!(line(given(true, C, (1, 3), "rm")), "c 1:3 rm");
    assert_eq!(line(given(true, B, (8, -1), "")), "b 8:* rwm");
    assert_eq!(line(given(false, A, (-1, -1), "rwm")), "a");
}

/// The kernel checks and takes the programs; filters work without any controller, on hybrid hosts, too.
#[test]
fn the_kernel_takes_the_programs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = crate::cgroup::hosts::Host::of_this_process().expect("hierarchies");
    let Some((point, _)) = host.second else { return };
    let folder: PathBuf = point.join(format!("dhow-devices-{}", std::process::id()));
    fs_err::create_dir(&folder).expect("a group");
    let attached: Result<Vec<usize>> = lists()
        .iter()
        .map(|list| {
            attach(&folder, list)?;
            let group = rustix::fs::open(&folder, OFlags::RDONLY, Mode::empty()).expect("open");
            Ok(sys::device_programs(group.as_fd()).expect("query").len())
        })
        .collect();
    // A process in the group: what is denied, and what is not.
    let open = "echo $$ > \"$0/cgroup.procs\"; head -c 1 /dev/zero | wc -c; head -c 1 /dev/kmsg 2>&1 | grep -c 'not permitted'";
    let seen = attach(&folder, &[]).map(|()| {
        std::process::Command::new("sh").arg("-c").arg(open).arg(&folder).output().expect("sh").stdout
    });
    fs_err::remove_dir(&folder).expect("removed");
    assert_eq!(attached.expect("attached"), [1, 1, 1, 1, 1], "the old one goes");
    let seen = String::from_utf8(seen.expect("attached")).expect("text");
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["1", "1"]);
}
