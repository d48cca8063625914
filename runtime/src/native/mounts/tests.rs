//! Options, and mounts that must not be.

use super::*;
use crate::native::defaults;

const ROOT: Context = Context { user_namespace: false, new_namespaces: u64::MAX, tty_group: true };

#[test]
fn options_become_flags() {
    let parse = |text: &str| Options::parse(text.split(',').filter(|option| !option.is_empty()));
    let ro = libc::MOUNT_ATTR_RDONLY;
    assert_eq!(parse(""), Options::default());
    assert_eq!(parse("ro,nosuid").attr, ro | libc::MOUNT_ATTR_NOSUID);
    assert_eq!(parse("ro,rw").attr, 0, "the later one counts");
    assert_eq!(parse("noatime,strictatime").attr, libc::MOUNT_ATTR_STRICTATIME);
    assert_eq!(parse("rro").tree_set, ro);
    assert_eq!((parse("rro,rrw").tree_set, parse("rro,rrw").tree_clear), (0, ro));
    assert_eq!(parse("rbind,rslave").bind, Some(true));
    assert_eq!(parse("bind,slave").bind, Some(false));
    assert_eq!(parse("rprivate").propagation, Some(libc::MS_PRIVATE));
    assert_eq!(parse("mode=755,size=64k").data, ["mode=755", "size=64k"]);
    assert_eq!(
        parse("ro,noexec,sync").flags(),
        MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::SYNCHRONOUS
    );
}

#[test]
fn hostile_mounts_are_refused() {
    let cases = [
        ("/proc/self/attr", "bind", "bind", "nothing may be mounted"),
        ("/proc/sys", "tmpfs", "", "nothing may be mounted"),
        ("/x/../proc/kcore", "bind", "rbind", "nothing may be mounted"),
        ("/proc", "tmpfs", "", "only procfs"),
        ("//proc/.", "tmpfs", "", "only procfs"),
        ("relative", "tmpfs", "", "not absolute"),
        ("/", "bind", "bind", "over the root"),
        ("/a/..", "tmpfs", "", "over the root"),
        ("/v", "bind", "bind,shared", "shared propagation"),
        ("/v", "bind", "bind,nonsense", "unknown option"),
    ];
    for (target, kind, options, reason) in cases {
        let options: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
        let error =
            plan(&defaults::mount(target, kind, "/tmp", &options), ROOT).expect_err(target).to_string();
        assert!(error.contains(reason), "{target}: {error}");
    }
    assert!(plan(&defaults::mount("/proc/meminfo", "bind", "/tmp/x", &["bind"]), ROOT).is_ok());
}

#[test]
fn only_guarded_places_refuse_links() {
    for (target, links) in [
        ("/proc", Links::Refused),
        ("/dev/pts", Links::Refused),
        ("/sys/fs/cgroup", Links::Refused),
        ("/etc/resolv.conf", Links::Inside),
        ("/processes", Links::Inside),
    ] {
        let kind = if target == "/proc" { "proc" } else { "tmpfs" };
        assert_eq!(
            plan(&defaults::mount(target, kind, "x", &[]), ROOT).expect(target).links,
            links,
            "{target}"
        );
    }
}

#[test]
fn the_terminal_group_is_dropped_when_it_is_not_mapped() {
    let step = |tty_group| {
        let spec = defaults::mount("/dev/pts", "devpts", "devpts", &["mode=0620", "gid=5"]);
        match plan(&spec, Context { tty_group, ..ROOT }).expect("valid").what {
            What::New { data, .. } => data.into_string().expect("text"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(step(true), "mode=0620,gid=5");
    assert_eq!(step(false), "mode=0620");
}
