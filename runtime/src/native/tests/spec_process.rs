//! What a process is to the kernel, and filters whose calls somebody else decides about.

use std::io::Read;
use std::os::unix::net::UnixListener;

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriorityBuilder, LinuxMemoryPolicyBuilder, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerPolicy, LinuxSeccomp, LinuxSeccompAction as Action,
    LinuxSyscallBuilder, MemoryPolicyModeType, Scheduler,
};

use super::harness::{Fixture, forked, privileged, set_args, sh};
use crate::process::fork_unchecked;
use crate::task::ExitStatus;

#[test]
fn scheduling_and_policies() {
    forked(|| {
        let fixture = Fixture::new();
        let run = fixture.run(|spec| {
            let process = spec.process_mut().as_mut().expect("process");
            let mut scheduler = Scheduler::default();
            scheduler.set_policy(LinuxSchedulerPolicy::SchedBatch).set_nice(Some(7));
            let priority = LinuxIOPriorityBuilder::default().class(IOPriorityClass::IoprioClassBe).priority(6_i64);
            process.set_scheduler(Some(scheduler)).set_io_priority(Some(priority.build().expect("valid")));
            let linux = spec.linux_mut().as_mut().expect("linux");
            let policy = LinuxMemoryPolicyBuilder::default()
                .mode(MemoryPolicyModeType::MpolBind)
                .nodes("0")
                .flags(Vec::new());
            linux.set_memory_policy(Some(policy.build().expect("valid")));
            if cfg!(target_arch = "x86_64") {
                let mut personality = LinuxPersonality::default();
                personality.set_domain(LinuxPersonalityDomain::PerLinux32);
                linux.set_personality(Some(personality));
            }
            let script = "set -- $(cat /proc/self/stat); echo ${19} ${41}; busybox ionice -p $$; busybox uname -m; grep -c bind:0 /proc/self/numa_maps > /dev/null && echo bound";
            set_args(spec, sh(script));
        });
        let machine = if cfg!(target_arch = "x86_64") { "i686" } else { "aarch64" };
        assert_eq!(
            run.output,
            format!("7 3\nbest-effort: prio 6\n{machine}\nbound\n"),
            "{:?}",
            run.result.err()
        );
    });
}

fn profile(action: Action, names: &[&str]) -> LinuxSeccomp {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let rule = LinuxSyscallBuilder::default().names(names).action(action).build().expect("valid");
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActAllow).set_syscalls(Some(vec![rule]));
    profile
}

/// What a profile forbids is forbidden to the program, not to what comes before it.
#[test]
fn a_profile_does_not_hinder_the_set_up() {
    forked(|| {
        let fixture = Fixture::new();
        let names = [
            "getcwd",
            "sendmsg",
            "recvmsg",
            "openat2",
            "capset",
            "setresuid",
            "setgroups",
            "chdir",
            "fchdir",
            "umask",
            "pread64",
            "prctl",
            "statx",
            "newfstatat",
            "fstat",
        ];
        for no_new_privileges in [false, true] {
            let run = fixture.run(|spec| {
                spec.process_mut().as_mut().expect("process").set_no_new_privileges(Some(no_new_privileges));
                let linux = spec.linux_mut().as_mut().expect("linux");
                linux.set_seccomp(Some(profile(Action::ScmpActErrno, &names)));
                set_args(spec, sh("echo there; grep -h -E '^(Seccomp|CapEff)' /proc/1/status | tr -d '\t'"));
            });
            assert!(run.output.starts_with("there\n"), "{no_new_privileges}: {:?}", run.result.err());
            let run = fixture.run(|spec| {
                spec.process_mut().as_mut().expect("process").set_no_new_privileges(Some(no_new_privileges));
                set_args(spec, sh("grep -E '^(CapEff|CapPrm|Seccomp:)' /proc/self/status | tr -d '\n\t'"));
            });
            let expected = "CapPrm:00000000a80425fbCapEff:00000000a80425fbSeccomp:2";
            assert_eq!(run.output, expected, "nothing is left of what the filter needed");
        }
        if privileged() {
            let run = fixture.run(|spec| {
                spec.process_mut().as_mut().expect("process").user_mut().set_uid(1000);
                set_args(spec, sh("grep -E '^(CapEff|CapPrm|CapAmb)' /proc/self/status | tr -d '\n\t'"));
            });
            let none = "0000000000000000";
            assert_eq!(run.output, format!("CapPrm:{none}CapEff:{none}CapAmb:{none}"));
        }
    });
}

/// The agent hears of the container and hangs up: the call does not exist then.
#[test]
fn an_agent_gets_the_listener() {
    forked(|| {
        let fixture = Fixture::new();
        let path = fixture.path().join("agent");
        for no_new_privileges in [false, true] {
            let _gone = fs_err::remove_file(&path);
            let listener = UnixListener::bind(&path).expect("a socket");
            let heard = fixture.path().join("heard");
            let agent = fork_unchecked(|| {
                let Ok((mut connection, _)) = listener.accept() else { return 1 };
                let mut text = String::new();
                // Reading as a plain stream drops the descriptor.
                if connection.read_to_string(&mut text).is_err() {
                    return 2;
                }
                u8::from(fs_err::write(&heard, text).is_err())
            });
            let agent = agent.expect("an agent");
            drop(listener);
            let run = fixture.run(|spec| {
                let mut profile = profile(Action::ScmpActNotify, &["mkdir", "mkdirat"]);
                profile.set_listener_path(Some(path.clone())).set_listener_metadata(Some("a\"b".to_owned()));
                spec.process_mut().as_mut().expect("process").set_no_new_privileges(Some(no_new_privileges));
                spec.linux_mut().as_mut().expect("linux").set_seccomp(Some(profile));
                spec.set_annotations(Some([("k".to_owned(), "v".to_owned())].into_iter().collect()));
                set_args(spec, sh("busybox mkdir /x 2>&1; echo on"));
            });
            assert_eq!(agent.wait().expect("an end"), ExitStatus::Code(0));
            assert_eq!(
                run.output,
                "mkdir: can't create directory '/x': Function not implemented\non\n",
                "{:?}",
                run.result.err()
            );
            let text = fs_err::read_to_string(&heard).expect("what was heard");
            for part in [
                "\"fds\":[\"seccompFd\"]",
                "\"metadata\":\"a\\\"b\"",
                "\"id\":\"test\"",
                "\"status\":\"creating\"",
                "\"annotations\":{\"k\":\"v\"}}}",
            ] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
            let pid = text.split("\"pid\":").nth(1).and_then(|rest| rest.split(',').next());
            assert!(pid.and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| pid > 1), "{text}");
        }
    });
}
