//! The same without any privilege: as an ordinary user with one id, and with subordinate ids where there are.

use oci_spec::runtime::LinuxNamespaceType;

use super::harness::{Fixture, forked, privileged, set_args, sh};
use crate::native::idmap::{self, DefaultMaps, Maps};
use crate::native::{defaults, sys};
use crate::task::ExitStatus;

/// A user id that has no name, no files and no subordinate ids.
const NOBODY: u32 = 61_234;

/// Becomes somebody without privilege, if this is root.
fn drop_privileges() {
    if privileged() {
        sys::setgroups(&[])
            .and_then(|()| sys::setresgid(NOBODY))
            .and_then(|()| sys::setresuid(NOBODY))
            .expect("drop");
    }
}

#[test]
fn an_ordinary_user_runs_containers() {
    forked(|| {
        drop_privileges();
        let maps = idmap::default_maps();
        let fixture = Fixture::new();
        for root in [fixture.dir_root(), fixture.layers(2)] {
            let script = "id -u; echo x > /x && rm /x; ls /dev | wc -l; echo y > /dev/null; grep -c cgroup /proc/mounts; stat -c %u /bin/busybox";
            let run = fixture.run_root(root, |spec| set_args(spec, sh(script)));
            assert_eq!(run.output, "0\n15\n0\n0\n", "{:?}", run.result.err());
        }
        if matches!(maps, DefaultMaps::Single(..)) {
            let run = fixture.run(|spec| {
                spec.process_mut().as_mut().expect("process").user_mut().set_uid(1000);
                set_args(spec, sh("true"));
            });
            assert!(run.error().contains("1000:0 does not exist"), "{}", run.error());
        }
    });
}

/// As in another container: root, without what it takes to make namespaces and mounts.
#[test]
fn root_in_a_container_is_an_ordinary_user() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let dockers = rustix::thread::CapabilitySet::from_bits_retain(0xa804_25fb);
        let none = rustix::thread::CapabilitySet::empty();
        let sets =
            rustix::thread::CapabilitySets { effective: dockers, permitted: dockers, inheritable: none };
        rustix::thread::set_capabilities(None, sets).expect("drop");
        let run = fixture.run(|spec| set_args(spec, sh("true")));
        assert!(run.error().contains("CAP_SYS_ADMIN"), "{}", run.error());
        let root = fixture.layers(1);
        let run = fixture.run_root(root, |spec| {
            let range = || oci_spec::runtime::LinuxIdMappingBuilder::default().size(1_u32).build();
            let linux = spec.linux_mut().as_mut().expect("linux");
            linux.set_uid_mappings(range().ok().map(|range| vec![range]));
            linux.set_gid_mappings(range().ok().map(|range| vec![range]));
            linux
                .namespaces_mut()
                .as_mut()
                .expect("list")
                .push(defaults::namespace(LinuxNamespaceType::User));
            set_args(spec, sh("id -u; echo x > /new; cat /new"));
        });
        assert_eq!(run.output, "0\nx\n", "{:?}", run.result.err());
    });
}

#[test]
fn opaque_directories_and_removed_files_work_without_privilege() {
    forked(|| {
        drop_privileges();
        let fixture = Fixture::new();
        let root = fixture.layers(1);
        let run =
            fixture.run_root(root.clone(), |spec| set_args(spec, sh("rm -r /bin/extra /layer1; ls /layer1")));
        assert!(run.output.contains("No such file"), "{}", run.output);
        // The same upper directory again: what was removed stays removed.
        let run = fixture
            .run_root(root, |spec| set_args(spec, sh("ls /layer1 /bin/extra 2>&1 | grep -c 'No such'")));
        assert_eq!(run.output, "2\n");
    });
}

#[test]
fn work_in_a_user_namespace() {
    forked(|| {
        drop_privileges();
        let maps: Maps = idmap::default_maps().maps().clone();
        let inside =
            idmap::in_user_namespace(&maps, || if rustix::process::geteuid().is_root() { 7 } else { 1 });
        assert_eq!(inside.expect("a namespace"), ExitStatus::Code(7));
        let mut foreign = maps;
        foreign.uids = idmap::default_maps().maps().uids.iter().map(|_| Default::default()).collect();
        assert!(idmap::in_user_namespace(&foreign, || 0).is_err(), "an empty map is refused");
    });
}

#[test]
fn without_a_user_namespace_the_hint_says_so() {
    forked(|| {
        drop_privileges();
        let fixture = Fixture::new();
        let run = fixture.run(|spec| {
            let linux = spec.linux_mut().as_mut().expect("linux");
            linux.set_namespaces(Some(defaults::namespaces()));
        });
        assert!(run.error().contains("user namespace"), "{}", run.error());
    });
}

#[test]
fn namespaces_can_be_shared_with_the_host() {
    forked(|| {
        drop_privileges();
        let fixture = Fixture::new();
        for (kind, script, output) in [
            (
                LinuxNamespaceType::Network,
                "ls /sys/class/net | grep -c lo; (echo x > /sys/x) 2>/dev/null || echo ro",
                "1\nro\n",
            ),
            (LinuxNamespaceType::Pid, "test $$ -gt 1 && test -d /proc/$$ && echo host", "host\n"),
            (LinuxNamespaceType::Ipc, "test -d /dev/mqueue && echo there", "there\n"),
            (LinuxNamespaceType::Uts, "hostname > /dev/null && echo named", "named\n"),
        ] {
            let run = fixture.run(|spec| {
                let linux = spec.linux_mut().as_mut().expect("linux");
                linux.namespaces_mut().as_mut().expect("list").retain(|namespace| namespace.typ() != kind);
                spec.set_hostname(None);
                set_args(spec, sh(script));
            });
            assert_eq!(run.output, output, "{kind:?}: {:?}", run.result.err());
        }
    });
}

/// Root's own containers may have a user namespace too.
#[test]
fn root_maps_any_range() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let maps = |text: &str| {
            let mut map = Vec::new();
            for line in text.lines() {
                let mut numbers = line.split(' ').map(|number| number.parse::<u32>().expect("a number"));
                let mut next = || numbers.next().expect("three numbers");
                let builder = oci_spec::runtime::LinuxIdMappingBuilder::default();
                map.push(builder.container_id(next()).host_id(next()).size(next()).build().expect("valid"));
            }
            Some(map)
        };
        let run = fixture.run(|spec| {
            let linux = spec.linux_mut().as_mut().expect("linux");
            linux.set_uid_mappings(maps("0 200000 1000")).set_gid_mappings(maps("0 200000 1000"));
            linux
                .namespaces_mut()
                .as_mut()
                .expect("list")
                .push(defaults::namespace(LinuxNamespaceType::User));
            let process = spec.process_mut().as_mut().expect("process");
            process.user_mut().set_uid(5).set_gid(6).set_additional_gids(Some(vec![7, 5000]));
            set_args(spec, sh("id -u; id -G; tr -s ' ' < /proc/self/uid_map"));
        });
        // Mount points cannot be made by somebody else in root's directory.
        assert!(run.error().contains("mount point"), "{}", run.error());
        for name in ["proc", "dev", "sys"] {
            fs_err::create_dir_all(fixture.rootfs().join(name)).expect("mount point");
        }
        let run = fixture.run(|spec| {
            let linux = spec.linux_mut().as_mut().expect("linux");
            linux.set_uid_mappings(maps("0 200000 1000")).set_gid_mappings(maps("0 200000 1000"));
            linux
                .namespaces_mut()
                .as_mut()
                .expect("list")
                .push(defaults::namespace(LinuxNamespaceType::User));
            let process = spec.process_mut().as_mut().expect("process");
            process.user_mut().set_uid(5).set_gid(6).set_additional_gids(Some(vec![7, 5000]));
            set_args(spec, sh("id -u; id -G; tr -s ' ' < /proc/self/uid_map"));
        });
        assert_eq!(run.output, "5\n6 7\n 0 200000 1000\n", "{:?}", run.result.err());
    });
}
