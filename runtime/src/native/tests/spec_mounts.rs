//! Mount options, propagation, mapped owners and devices, as the container sees them.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use oci_spec::runtime::{
    Capability, LinuxDeviceBuilder, LinuxDeviceType, LinuxIdMappingBuilder, Mount, Spec,
};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use super::harness::{Fixture, forked, privileged, set_args, sh};
use crate::native::sys::tune;
use crate::native::{defaults, rootfs};

fn add(spec: &mut Spec, mount: Mount) {
    spec.mounts_mut().as_mut().expect("mounts").push(mount);
}

/// A directory of the fixture.
fn dir(fixture: &Fixture, name: &str) -> String {
    let path = fixture.path().join(name);
    fs_err::create_dir_all(&path).expect("directory");
    path.to_str().expect("text").to_owned()
}

/// Mounts made by a test must not be the machine's.
fn own_mounts() {
    tune::unshare(libc::CLONE_NEWNS).expect("a mount namespace");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
}

/// What `mountinfo` says of `/v` and of `/v/below`: options of the mounts.
const BOTH: &str = "while read a b c d at options rest; do case $at in /v|/v/below) echo $at $options;; esac; done < /proc/self/mountinfo";

#[test]
fn attributes_for_a_mount_and_for_a_tree() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        own_mounts();
        let source = dir(&fixture, "tree");
        mount("tmpfs", &source, "tmpfs", MountFlags::empty(), c"mode=755").expect("tmpfs");
        let below = dir(&fixture, "tree/below");
        mount("tmpfs", &below, "tmpfs", MountFlags::NOEXEC | MountFlags::NOATIME, c"mode=755")
            .expect("tmpfs");
        for (options, top, under) in [
            ("rbind", "rw,relatime", "rw,noexec,noatime"),
            ("rbind,ro,nosuid", "ro,nosuid,relatime", "rw,noexec,noatime"),
            ("rbind,rro,rnosuid,rnodev", "ro,nosuid,nodev,relatime", "ro,nosuid,nodev,noexec,noatime"),
            ("rbind,rexec,rrelatime", "rw,relatime", "rw,relatime"),
            ("rbind,rstrictatime,rnodiratime", "rw,nodiratime", "rw,noexec,nodiratime"),
            ("rbind,rnoatime,rnosymfollow", "rw,noatime,nosymfollow", "rw,noexec,noatime,nosymfollow"),
            ("rbind,ro,rrw", "ro,relatime", "rw,noexec,noatime"),
        ] {
            let run = fixture.run(|spec| {
                let options: Vec<&str> = options.split(',').collect();
                add(spec, defaults::mount("/v", "bind", &source, &options));
                set_args(spec, sh(BOTH));
            });
            assert_eq!(
                run.output,
                format!("/v {top}\n/v/below {under}\n"),
                "{options}: {:?}",
                run.result.err()
            );
        }
        let run = fixture.run(|spec| {
            add(spec, defaults::mount("/v", "bind", &source, &["bind"]));
            add(spec, defaults::mount("/v", "none", "none", &["remount", "bind", "ro", "nodev"]));
            add(spec, defaults::mount("relative/path", "tmpfs", "tmpfs", &["nosuid", "size=64k", "dirsync"]));
            set_args(
                spec,
                sh(&format!("{BOTH}; grep -c ' /relative/path .*nosuid.*dirsync' /proc/self/mountinfo")),
            );
        });
        assert_eq!(run.output, "/v ro,nodev,relatime\n1\n", "{:?}", run.result.err());
    });
}

#[test]
fn a_tmpfs_starts_with_what_was_there() {
    forked(|| {
        let fixture = Fixture::new();
        let root = fixture.rootfs();
        fs_err::create_dir_all(root.join("data/deep")).expect("directories");
        fs_err::write(root.join("data/deep/file"), "text").expect("file");
        fs_err::set_permissions(root.join("data/deep/file"), PermissionsExt::from_mode(0o640)).expect("mode");
        fs_err::set_permissions(root.join("data"), PermissionsExt::from_mode(0o1770)).expect("mode");
        symlink("/etc/passwd", root.join("data/link")).expect("link");
        let look = "cd /data; cat deep/file; stat -c ' %a' deep/file .; readlink link; echo new > deep/file && echo changed";
        for (options, expected) in [
            (&["tmpcopyup"][..], "text 640\n 1770\n/etc/passwd\nchanged\n"),
            (&["tmpcopyup", "ro"], "text 640\n 1770\n/etc/passwd\n"),
        ] {
            let run = fixture.run(|spec| {
                add(spec, defaults::mount("/data", "tmpfs", "tmpfs", options));
                set_args(spec, sh(&format!("({look}) 2>/dev/null")));
            });
            assert_eq!(run.output, expected, "{options:?}: {:?}", run.result.err());
        }
        assert_eq!(fs_err::read_to_string(root.join("data/deep/file")).expect("file"), "text");
        // Without it only the mode is kept, unless another one is asked for.
        for (options, expected) in [(&["size=1m"][..], "1770\n"), (&["mode=700"], "700\n")] {
            let run = fixture.run(|spec| {
                add(spec, defaults::mount("/data", "tmpfs", "tmpfs", options));
                set_args(spec, sh("stat -c %a /data; ls /data"));
            });
            assert_eq!(run.output, expected, "{options:?}: {:?}", run.result.err());
        }
    });
}

#[test]
fn links_as_sources() {
    forked(|| {
        let fixture = Fixture::new();
        let source = fixture.path().join("link");
        symlink("/somewhere/else", &source).expect("link");
        let source = source.to_str().expect("text");
        let run = fixture.run(|spec| {
            add(spec, defaults::mount("/a/link", "bind", source, &["bind", "copy-symlink"]));
            set_args(spec, sh("readlink /a/link"));
        });
        assert_eq!(run.output, "/somewhere/else\n", "{:?}", run.result.err());
    });
}

#[test]
fn owners_are_mapped() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let source = dir(&fixture, "owned");
        fs_err::write(format!("{source}/file"), "").expect("file");
        std::os::unix::fs::chown(format!("{source}/file"), Some(1000), Some(1000)).expect("owner");
        let map = |inside: u32, outside: u32| {
            let map = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(1000_u32);
            Some(vec![map.build().expect("valid")])
        };
        let mut mount = defaults::mount("/v", "bind", &source, &["bind", "idmap"]);
        // On the disk 1000, in the mount 5000.
        mount.set_uid_mappings(map(1000, 5000)).set_gid_mappings(map(1000, 5001));
        let run = fixture.run(|spec| {
            add(spec, mount.clone());
            add(spec, defaults::mount("/w", "bind", &source, &["bind"]));
            set_args(spec, sh("stat -c '%u %g' /v/file /w/file; ls -n /v | grep -c file"));
        });
        assert_eq!(run.output, "5000 5001\n1000 1000\n1\n", "{:?}", run.result.err());
        mount.set_gid_mappings(None);
        let run = fixture.run(|spec| add(spec, mount));
        assert!(run.error().contains("needs both"), "{}", run.error());
        // The container's own maps.
        for name in ["proc", "dev", "sys", "v"] {
            fs_err::create_dir_all(fixture.rootfs().join(name)).expect("mount point");
        }
        let run = fixture.run(|spec| {
            let linux = spec.linux_mut().as_mut().expect("linux");
            linux.set_uid_mappings(map(0, 200_000)).set_gid_mappings(map(0, 200_000));
            let list = linux.namespaces_mut().as_mut().expect("list");
            list.push(defaults::namespace(oci_spec::runtime::LinuxNamespaceType::User));
            add(spec, defaults::mount("/v", "bind", &source, &["rbind", "ridmap"]));
            set_args(spec, sh("echo x > /v/new && stat -c '%u' /v/new"));
        });
        std::os::unix::fs::chown(format!("{source}/file"), Some(0), Some(0)).expect("owner");
        assert!(run.output == "0\n" || run.result.is_ok(), "{}: {:?}", run.output, run.result.err());
        if let Ok(made) = fs_err::metadata(format!("{source}/new")) {
            assert_eq!(made.uid(), 0, "root of the container is root on the disk");
        }
    });
}

#[test]
fn propagation_of_the_root() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        own_mounts();
        let root = fixture.rootfs();
        mount(&root, &root, "", MountFlags::BIND, None).expect("bind");
        mount_change(&root, MountPropagationFlags::SHARED).expect("shared");
        for (name, field) in [
            ("", ""),
            ("private", ""),
            ("rprivate", ""),
            ("shared", "shared:N"),
            ("slave", "master:N"),
            ("rslave", "master:N"),
            ("unbindable", "unbindable"),
        ] {
            let run = fixture.run(|spec| {
                spec.linux_mut().as_mut().expect("linux").set_rootfs_propagation(Some(name.to_owned()));
                let script = "while read a b c d at options field rest; do test $at = / && echo ${field%-}; done < /proc/self/mountinfo";
                set_args(spec, sh(script));
            });
            let seen = run.output.trim().split(':').next().unwrap_or_default().to_owned();
            assert_eq!(seen, field.split(':').next().unwrap_or_default(), "{name}: {:?}", run.result.err());
        }
        unmount(&root, UnmountFlags::DETACH).expect("unmount");
    });
}

/// `rshared` reaches the host, `rslave` does not.
#[test]
fn propagation_of_a_volume() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        own_mounts();
        let source = dir(&fixture, "shared");
        mount("tmpfs", &source, "tmpfs", MountFlags::empty(), c"mode=755").expect("tmpfs");
        mount_change(&source, MountPropagationFlags::SHARED).expect("shared");
        dir(&fixture, "shared/inner");
        for (way, reaches) in [("rshared", true), ("rslave", false), ("rprivate", false)] {
            let run = fixture.run(|spec| {
                add(spec, defaults::mount("/v", "bind", &source, &["rbind", way]));
                let process = spec.process_mut().as_mut().expect("process");
                let all = defaults::CAPABILITIES.into_iter().chain([Capability::SysAdmin]).collect();
                process.set_capabilities(Some(defaults::capability_sets(&all)));
                spec.linux_mut().as_mut().expect("linux").set_seccomp(Some(Default::default()));
                set_args(spec, sh("mount -t tmpfs x /v/inner && echo y > /v/inner/y && echo done"));
            });
            assert_eq!(run.output, "done\n", "{way}: {:?}", run.result.err());
            let seen = fs_err::metadata(format!("{source}/inner/y")).is_ok();
            assert_eq!(seen, reaches, "{way}");
            if seen {
                unmount(format!("{source}/inner"), UnmountFlags::DETACH).expect("unmount");
            }
        }
        unmount(&source, UnmountFlags::DETACH).expect("unmount");
    });
}

#[test]
fn devices_of_every_kind() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let device = |path: &str, kind, numbers: (i64, i64), mode: u32| {
            let builder =
                LinuxDeviceBuilder::default().path(path).typ(kind).major(numbers.0).minor(numbers.1);
            builder.file_mode(mode).uid(5_u32).gid(6_u32).build().expect("valid")
        };
        let run = |devices: Vec<_>, script: &str| {
            fixture.run(|spec| {
                for mount in spec.mounts_mut().as_mut().expect("mounts") {
                    if let Some(options) = mount.options_mut() {
                        options.retain(|option| option != "nodev");
                    }
                }
                spec.linux_mut().as_mut().expect("linux").set_devices(Some(devices));
                set_args(spec, sh(script));
            })
        };
        use LinuxDeviceType::{B, C, P, U};
        let all = vec![
            device("/dev/c", C, (1, 5), 0o604),
            device("/dev/u", U, (1, 7), 0o600),
            device("/dev/deep/b", B, (7, 200), 0o640),
            device("/dev/p", P, (0, 0), 0o622),
        ];
        let seen = run(all, "stat -c '%F %a %u %g %t:%T' /dev/c /dev/u /dev/deep/b /dev/p");
        assert_eq!(
            seen.output,
            "character special file 604 5 6 1:5\ncharacter special file 600 5 6 1:7\nblock special file 640 5 6 7:c8\nfifo 622 5 6 0:0\n",
            "{:?}",
            seen.result.err()
        );
        // Twice the same is one, and another device of that name is none.
        let twice = vec![device("/dev/c", C, (1, 5), 0o604), device("/dev/c", C, (1, 5), 0o604)];
        assert_eq!(run(twice, "echo fine").output, "fine\n");
        let other = vec![device("/dev/c", C, (1, 5), 0o604), device("/dev/c", B, (1, 5), 0o604)];
        assert!(run(other, "true").error().contains("/dev/c"));
        assert!(
            rootfs::is_null(
                rustix::fs::open("/dev/null", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
                    .expect("null")
            )
            .expect("a device")
        );
    });
}
