//! Compiled programs against a second, naive reading of the same profile, and once against the kernel.

use super::*;
use crate::native::defaults;
use crate::process::fork_unchecked;
use crate::task::ExitStatus;
use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompOperator as Operator, LinuxSyscall};

/// Runs a program as the kernel would.
fn interpret(program: &[Instruction], architecture: u32, number: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => architecture,
        _ => {
            let argument = args[((offset - 16) / 8) as usize];
            if offset.is_multiple_of(8) { (argument & 0xffff_ffff) as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            0x20 => accumulator = word(operand),
            0x54 => accumulator &= operand,
            0x05 => at += operand as usize,
            0x15 => branch(accumulator == operand),
            0x25 => branch(accumulator > operand),
            0x35 => branch(accumulator >= operand),
            0x06 => return operand,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What a profile says about a call, read from top to bottom.
fn expected(profile: &LinuxSeccomp, name: &str, args: [u64; 6]) -> u32 {
    let holds = |arg: &LinuxSeccompArg| {
        let value = args[arg.index()];
        match arg.op() {
            Operator::ScmpCmpEq => value == arg.value(),
            Operator::ScmpCmpNe => value != arg.value(),
            Operator::ScmpCmpLt => value < arg.value(),
            Operator::ScmpCmpLe => value <= arg.value(),
            Operator::ScmpCmpGt => value > arg.value(),
            Operator::ScmpCmpGe => value >= arg.value(),
            Operator::ScmpCmpMaskedEq => value & arg.value() == arg.value_two().unwrap_or(0),
        }
    };
    let rules =
        || profile.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|other| other == name));
    let bare = rules().find(|rule| rule.args().as_ref().is_none_or(Vec::is_empty));
    let rule = bare.or_else(|| rules().find(|rule| rule.args().iter().flatten().all(holds)));
    let result = rule.map(|rule| action(rule.action(), rule.errno_ret()));
    result.unwrap_or_else(|| action(profile.default_action(), profile.default_errno_ret())).expect("valid")
}

fn default_capabilities() -> Capabilities {
    defaults::CAPABILITIES.into_iter().collect()
}

#[test]
fn numbers_are_sorted_and_unique() {
    let names: Vec<&str> = table::TABLE.iter().map(|row| row.0).collect();
    assert!(names.is_sorted_by(|a, b| a < b));
    for column in [Column::X86_64, Column::Arm64, Column::X86] {
        let mut numbers: Vec<u32> = table::TABLE.iter().filter_map(|row| column.of(row)).collect();
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{column:?}");
        assert!(numbers.len() > 300, "{column:?}");
    }
}

/// The table against the constants libc has for this machine.
#[test]
fn numbers_agree_with_libc() {
    let sample = [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("seccomp", libc::SYS_seccomp),
        ("newfstatat", libc::SYS_newfstatat),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
        ("prlimit64", libc::SYS_prlimit64),
    ];
    for (name, number) in sample {
        let row = table::TABLE.iter().find(|row| row.0 == name).expect(name);
        assert_eq!(NATIVE.of(row).map(i64::from), Some(number), "{name}");
    }
}

#[test]
fn dockers_profile_is_compiled_exactly() {
    let mut privileged = default_capabilities();
    privileged.insert(oci_spec::runtime::Capability::SysAdmin);
    for capabilities in [default_capabilities(), privileged] {
        let profile = defaults::seccomp(&capabilities);
        let filter = Filter::compile(&profile).expect("compiles");
        assert_eq!(
            filter,
            Filter::docker_default(&capabilities).expect("compiles"),
            "both ways are the same"
        );
        let firsts = [
            0,
            1,
            8,
            40,
            0x2_0008,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0028,
            0x7e02_0000,
            0x0001_1200,
            u64::MAX,
        ];
        for row in table::TABLE {
            let mut columns = vec![NATIVE];
            if NATIVE == Column::X86_64 {
                columns.push(Column::X86);
            }
            for column in columns {
                let Some(number) = column.of(row) else { continue };
                for first in firsts {
                    let args = [first, 0, 0, 0, 0, 0];
                    let got = interpret(&filter.program, column.audit(), number, args);
                    assert_eq!(got, expected(&profile, row.0, args), "{} {column:?} {first:#x}", row.0);
                }
            }
        }
    }
}

/// A new libc tries the new call first and must be told that there is none.
#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let filter = Filter::docker_default(&default_capabilities()).expect("compiles");
    let ask = |number| interpret(&filter.program, NATIVE.audit(), number, [0; 6]);
    assert_eq!(ask(470), RET_ERRNO | EPERM, "listns is known and not allowed");
    for number in [471, 511, 512, 600, 1000, 0x3fff_ffff] {
        assert_eq!(ask(number), NO_SUCH_CALL, "{number}");
    }
    if NATIVE == Column::X86_64 {
        assert_eq!(interpret(&filter.program, Column::X86.audit(), 471, [0; 6]), NO_SUCH_CALL);
    }
    // A default that is no error is meant for everything.
    for (default, result) in
        [(Action::ScmpActAllow, RET_ALLOW), (Action::ScmpActKillProcess, RET_KILL_PROCESS)]
    {
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(default);
        let filter = Filter::compile(&profile).expect("compiles");
        assert_eq!(interpret(&filter.program, NATIVE.audit(), 1000, [0; 6]), result);
    }
}

/// The kernel's argument is an int: what else the register holds is no way around the rule.
#[test]
fn hypervisor_sockets_stay_closed() {
    let filter = Filter::docker_default(&default_capabilities()).expect("compiles");
    let row = table::TABLE.iter().find(|row| row.0 == "socket").expect("socket");
    let number = NATIVE.of(row).expect("a number");
    for (family, result) in [
        (40, RET_ERRNO | EPERM),
        (0x1_0000_0028, RET_ERRNO | EPERM),
        (0xffff_ffff_0000_0028, RET_ERRNO | EPERM),
        (2, RET_ALLOW),
        (0x1_0000_0002, RET_ALLOW),
        (41, RET_ALLOW),
    ] {
        let got = interpret(&filter.program, NATIVE.audit(), number, [family, 1, 0, 0, 0, 0]);
        assert_eq!(got, result, "{family:#x}");
    }
}

#[test]
fn foreign_architectures_and_x32_are_out() {
    let filter = Filter::docker_default(&default_capabilities()).expect("compiles");
    assert_eq!(interpret(&filter.program, 0x1234, 0, [0; 6]), RET_KILL_PROCESS);
    if NATIVE == Column::X86_64 {
        assert_eq!(interpret(&filter.program, NATIVE.audit(), 0x4000_0000, [0; 6]), NO_SUCH_CALL);
        assert_eq!(interpret(&filter.program, NATIVE.audit(), u32::MAX, [0; 6]), NO_SUCH_CALL);
        // Also where everything is allowed that is not named.
        let mut open = LinuxSeccomp::default();
        open.set_default_action(Action::ScmpActAllow);
        let open = Filter::compile(&open).expect("compiles");
        assert_eq!(interpret(&open.program, NATIVE.audit(), 0x4000_0001, [0; 6]), NO_SUCH_CALL);
        assert_eq!(interpret(&open.program, NATIVE.audit(), 1, [0; 6]), RET_ALLOW);
        assert_eq!(
            interpret(&open.program, Column::X86.audit(), 1, [0; 6]),
            RET_KILL_PROCESS,
            "not asked for"
        );
    }
}

fn rule(
    name: &str,
    action: Action,
    errno: Option<u32>,
    args: &[(usize, Operator, u64, u64)],
) -> LinuxSyscall {
    let args = args.iter().map(|(index, operator, value, second)| {
        let arg =
            LinuxSeccompArgBuilder::default().index(*index).op(*operator).value(*value).value_two(*second);
        arg.build().expect("valid")
    });
    let mut rule = LinuxSyscall::default();
    rule.set_names(vec![name.to_owned(), "no_such_call".to_owned()])
        .set_action(action)
        .set_errno_ret(errno)
        .set_args(Some(args.collect()));
    rule
}

fn profile(rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActAllow).set_syscalls(Some(rules));
    profile
}

#[test]
fn every_comparison_holds_where_it_should() {
    let values =
        [0, 1, 5, 6, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x5_0000_0000, u64::MAX - 1, u64::MAX];
    for operator in [
        Operator::ScmpCmpEq,
        Operator::ScmpCmpNe,
        Operator::ScmpCmpLt,
        Operator::ScmpCmpLe,
        Operator::ScmpCmpGt,
        Operator::ScmpCmpGe,
        Operator::ScmpCmpMaskedEq,
    ] {
        for value in values {
            let profile = profile(vec![rule(
                "read",
                Action::ScmpActErrno,
                Some(7),
                &[(3, operator, value, value & 5)],
            )]);
            let filter = Filter::compile(&profile).expect("compiles");
            let row = table::TABLE.iter().find(|row| row.0 == "read").expect("read");
            for argument in values {
                let args = [9, 9, 9, argument, 9, 9];
                let got = interpret(&filter.program, NATIVE.audit(), NATIVE.of(row).expect("read"), args);
                assert_eq!(got, expected(&profile, "read", args), "{operator:?} {value:#x} {argument:#x}");
            }
        }
    }
}

#[test]
fn several_conditions_and_actions() {
    let equal = Operator::ScmpCmpEq;
    let filter = |rules| Filter::compile(&profile(rules)).expect("compiles");
    let row = table::TABLE.iter().find(|row| row.0 == "write").expect("write");
    let ask = |filter: &Filter, first, second| {
        interpret(
            &filter.program,
            NATIVE.audit(),
            NATIVE.of(row).expect("write"),
            [first, second, 0, 0, 0, 0],
        )
    };
    // Different arguments: both must hold. The same argument: either.
    let both = filter(vec![rule("write", Action::ScmpActTrap, None, &[(0, equal, 1, 0), (1, equal, 2, 0)])]);
    assert_eq!([ask(&both, 1, 2), ask(&both, 1, 3), ask(&both, 0, 2)], [RET_TRAP, RET_ALLOW, RET_ALLOW]);
    let either =
        filter(vec![rule("write", Action::ScmpActTrace, Some(9), &[(0, equal, 1, 0), (0, equal, 2, 0)])]);
    assert_eq!(
        [ask(&either, 1, 0), ask(&either, 2, 0), ask(&either, 3, 0)],
        [RET_TRACE | 9, RET_TRACE | 9, RET_ALLOW]
    );
    // The first rule that holds decides.
    let rules = vec![
        rule("write", Action::ScmpActLog, None, &[(0, equal, 1, 0)]),
        rule("write", Action::ScmpActKillProcess, None, &[(1, equal, 2, 0)]),
    ];
    let ordered = filter(rules);
    assert_eq!(
        [ask(&ordered, 1, 2), ask(&ordered, 0, 2), ask(&ordered, 0, 0)],
        [RET_LOG, RET_KILL_PROCESS, RET_ALLOW]
    );
}

#[test]
fn bad_profiles_are_refused() {
    let equal = Operator::ScmpCmpEq;
    for (rule, reason) in [
        (rule("sendmsg", Action::ScmpActNotify, None, &[]), "NOTIFY"),
        (rule("read", Action::ScmpActAllow, Some(1), &[]), "takes no errnoRet"),
        (rule("read", Action::ScmpActErrno, Some(0x1_0000), &[]), "65535"),
        (rule("read", Action::ScmpActAllow, None, &[(6, equal, 0, 0)]), "no argument 6"),
    ] {
        let error = Filter::compile(&profile(vec![rule])).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let mut notify = profile(vec![]);
    notify.set_default_action(Action::ScmpActNotify);
    assert!(Filter::compile(&notify).is_err());
    let mut told = profile(vec![]);
    told.set_listener_metadata(Some(String::new()));
    assert!(Filter::compile(&told).is_err(), "told to nobody");
    let notifies =
        |action| Filter::compile(&profile(vec![rule("read", action, None, &[])])).map(|it| it.notifies());
    assert!(matches!(notifies(Action::ScmpActNotify), Ok(true)));
    assert!(matches!(notifies(Action::ScmpActLog), Ok(false)));
    let many = (0..300).map(|value| rule("read", Action::ScmpActTrap, None, &[(0, equal, value, 0)]));
    assert!(Filter::compile(&profile(many.collect())).is_ok(), "long, and within the kernel's limit");
    let many = (0..2000).map(|value| rule("read", Action::ScmpActTrap, None, &[(0, equal, value, 0)]));
    assert!(Filter::compile(&profile(many.collect())).is_err());
}

#[test]
fn the_kernel_agrees() {
    let filter = Filter::compile(&profile(vec![
        rule("mkdirat", Action::ScmpActErrno, Some(77), &[(2, Operator::ScmpCmpEq, 0o711, 0)]),
        rule("symlinkat", Action::ScmpActKillProcess, None, &[]),
    ]))
    .expect("compiles");
    let child = fork_unchecked(|| {
        let ready = rustix::thread::set_no_new_privs(true).and_then(|()| filter.install());
        let make =
            |mode| rustix::fs::mkdirat(rustix::fs::CWD, "/proc/nope", rustix::fs::Mode::from_raw_mode(mode));
        let refused = make(0o711).map_err(Errno::raw_os_error) == Err(77);
        let passed = make(0o700) == Err(Errno::NOENT);
        if ready.is_err() || !refused || !passed {
            return 1;
        }
        let _killed = rustix::fs::symlinkat("x", rustix::fs::CWD, "/proc/nope");
        2
    });
    let status = child.and_then(crate::process::Child::wait).expect("a child");
    assert_eq!(status, ExitStatus::Signaled("SYS".parse().expect("a signal")));
}
