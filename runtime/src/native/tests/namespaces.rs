//! Namespaces of every kind: made, with clocks of their own, and joined by path.

use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxIdMappingBuilder, LinuxNamespaceType, LinuxTimeOffsetBuilder, Spec};

use super::harness::{Fixture, forked, privileged, read_some, set_args, sh};
use crate::native::{Executor, defaults, sys};
use crate::stdio::{Stdio, Stream};

/// Puts a namespace of this kind into the specification in place of another.
fn put(spec: &mut Spec, kind: LinuxNamespaceType, path: Option<&Path>) {
    let list = spec.linux_mut().as_mut().expect("linux").namespaces_mut().as_mut().expect("list");
    list.retain(|namespace| namespace.typ() != kind);
    let mut namespace = defaults::namespace(kind);
    namespace.set_path(path.map(Path::to_path_buf));
    list.push(namespace);
}

/// All ids as they are, as far as a test needs them.
fn map_ids(spec: &mut Spec) {
    let maps = || Some(vec![LinuxIdMappingBuilder::default().size(65_536_u32).build().expect("valid")]);
    spec.linux_mut().as_mut().expect("linux").set_uid_mappings(maps()).set_gid_mappings(maps());
}

/// Root sets clocks by way of another process; without root the container's own process does.
#[test]
fn clocks_are_set() {
    forked(|| {
        let fixture = Fixture::new();
        let own = fs_err::read_link("/proc/self/ns/time").expect("a namespace");
        let run = fixture.run(|spec| {
            put(spec, LinuxNamespaceType::Time, None);
            let offset =
                |seconds: i64| LinuxTimeOffsetBuilder::default().secs(seconds).build().expect("valid");
            let offsets =
                [("boottime".to_owned(), offset(1_000_000)), ("monotonic".to_owned(), offset(86_400))];
            spec.linux_mut().as_mut().expect("linux").set_time_offsets(Some(offsets.into_iter().collect()));
            set_args(spec, sh("readlink /proc/self/ns/time; tr -s ' ' < /proc/self/timens_offsets"));
        });
        let mut lines = run.output.lines();
        let theirs = lines.next().unwrap_or_else(|| panic!("{:?}", run.result.err()));
        assert_ne!(Path::new(theirs), own);
        let rest: Vec<&str> = lines.collect();
        assert_eq!(rest, ["monotonic 86400 0", "boottime 1000000 0"]);
        // The creator has not moved.
        assert_eq!(fs_err::read_link("/proc/self/ns/time_for_children").expect("a namespace"), own);
    });
}

/// One container, and another one in its namespaces.
#[test]
fn every_kind_is_joined() {
    if !privileged() {
        return;
    }
    use LinuxNamespaceType::{Cgroup, Ipc, Network, Pid, Time, User, Uts};
    forked(|| {
        let fixture = Fixture::new();
        // Without the user namespace, with it, and with a new one beside others that are joined.
        for (user, kinds) in [
            (None, vec![Ipc, Network, Uts, Cgroup, Time, Pid]),
            (Some(true), vec![User, Ipc, Network, Uts, Cgroup, Pid]),
            (Some(false), vec![Ipc, Network]),
        ] {
            let mut spec = fixture.spec();
            if user == Some(true) {
                put(&mut spec, User, None);
                map_ids(&mut spec);
            }
            put(&mut spec, Time, None);
            set_args(&mut spec, sh("echo up; sleep 60"));
            let (read, write) = std::io::pipe().expect("a pipe");
            let stdio = Stdio::Streams {
                stdin: Stream::Null,
                stdout: Stream::File(std::os::fd::OwnedFd::from(write).into()),
                stderr: Stream::Null,
            };
            let mut holder =
                Executor::new().create(&fixture.bundle(spec, fixture.dir_root()), stdio).expect("holder");
            holder.start().expect("start");
            assert_eq!(read_some(&read), "up\n");
            let names: Vec<&str> = kinds
                .iter()
                .map(|kind| match kind {
                    Network => "net",
                    Cgroup => "cgroup",
                    Ipc => "ipc",
                    Uts => "uts",
                    User => "user",
                    Pid => "pid",
                    _ => "time",
                })
                .collect();
            let there = |name: &str| format!("/proc/{}/ns/{name}", holder.pid());
            let script =
                names.iter().map(|name| format!("readlink /proc/self/ns/{name};")).collect::<String>();
            let run = fixture.run(|spec| {
                for (kind, name) in kinds.iter().zip(&names) {
                    put(spec, *kind, Some(Path::new(&there(name))));
                }
                if user == Some(false) {
                    put(spec, User, None);
                    map_ids(spec);
                    // Not mounted by whom the network namespace does not belong to.
                    spec.mounts_mut()
                        .as_mut()
                        .expect("mounts")
                        .retain(|mount| mount.destination() != Path::new("/dev/mqueue"));
                }
                set_args(spec, sh(&format!("{script} id -u")));
            });
            let expected: String = names
                .iter()
                .map(|name| format!("{}\n", fs_err::read_link(there(name)).expect("link").display()))
                .collect();
            assert_eq!(run.output, format!("{expected}0\n"), "{user:?}: {:?}", run.result.err());
            holder.delete().expect("end");
        }
    });
}

/// Addresses and names go with a device; the other end of a pair stays.
#[test]
fn network_devices_are_moved() {
    if !privileged() {
        return;
    }
    forked(|| {
        sys::tune::unshare(libc::CLONE_NEWNET).expect("a network namespace");
        let ip = |line: &str| {
            let status = std::process::Command::new("busybox").arg("ip").args(line.split(' ')).status();
            assert!(status.expect("busybox").success(), "{line}");
        };
        let fixture = Fixture::new();
        let host =
            std::process::Command::new("ip").args("link add one type veth peer name two".split(' ')).status();
        if !host.is_ok_and(|status| status.success()) {
            println!("skipped: no ip program, or no pairs of devices in this kernel");
            return;
        }
        ip("addr add 192.0.2.7/24 dev one");
        ip("addr add 2001:db8::7/64 dev one");
        let with = |devices: &[(&str, Option<&str>)], script: &str| {
            fixture.run(|spec| {
                let device = |name: Option<&str>| {
                    let mut device = oci_spec::runtime::LinuxNetDevice::default();
                    device.set_name(name.map(str::to_owned));
                    device
                };
                let all = devices.iter().map(|(host, inside)| ((*host).to_owned(), device(*inside)));
                spec.linux_mut().as_mut().expect("linux").set_net_devices(Some(all.collect()));
                set_args(spec, sh(script));
            })
        };
        for (devices, reason) in [
            (&[("none", None)][..], "no network device none"),
            (&[("one", Some("a/b"))], "no name"),
            (&[("one", Some("x")), ("two", Some("x"))], "two devices"),
            (&[("one", Some("lo"))], "already"),
        ] {
            let error = with(devices, "true").error();
            assert!(error.contains(reason), "{error}");
        }
        let run = with(
            &[("one", Some("eth0"))],
            "busybox ip -o addr show dev eth0 | grep -o -E '192.0.2.7/24|2001:db8::7/64'; cat /sys/class/net/eth0/flags",
        );
        assert_eq!(run.output, "192.0.2.7/24\n2001:db8::7/64\n0x1003\n", "{:?}", run.result.err());
    });
}

/// The container's root replaces the one of the namespace, which is there for it.
#[test]
fn a_mount_namespace_is_joined() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let (gate, hold) = std::io::pipe().expect("a pipe");
        let (ready, tell) = std::io::pipe().expect("a pipe");
        let birth =
            sys::Birth { namespaces: libc::CLONE_NEWNS.cast_unsigned().into(), ..sys::Birth::default() };
        let sys::Cloned::Parent { pid, pidfd } = sys::clone3(birth).expect("a namespace") else {
            drop(hold);
            let _told = rustix::io::write(tell.as_fd(), b"x");
            let _end = rustix::io::read(gate.as_fd(), &mut [0]);
            sys::exit_now(0);
        };
        drop((gate, tell));
        assert_eq!(read_some(&ready), "x");
        let path = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
        let expected = fs_err::read_link(&path).expect("link");
        let run = fixture.run(|spec| {
            put(spec, LinuxNamespaceType::Mount, Some(Path::new(&path)));
            set_args(spec, sh("readlink /proc/self/ns/mnt; ls /; grep -c ' / ' /proc/mounts"));
        });
        assert_eq!(
            run.output,
            format!("{}\nbin\ndev\nproc\nsys\n1\n", expected.display()),
            "{:?}",
            run.result.err()
        );
        assert!(fixture.mounts().is_empty(), "the host sees nothing of it");
        drop(hold);
        super::wait_for(&pidfd).expect("an end");
    });
}
