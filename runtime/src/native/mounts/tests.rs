//! Options, and mounts that must not be.

use super::*;
use crate::native::defaults;

const ROOT: Context =
    Context { user_namespace: false, new_namespaces: u64::MAX, tty_group: true, own_groups: true };

fn plan(spec: &Mount, context: Context) -> Result<Step> {
    super::plan(spec, context, &mut Preparation::default())
}

#[test]
fn options_become_flags() {
    let parse = |text: &str| Options::parse(text.split(',').filter(|option| !option.is_empty()));
    let ro = libc::MOUNT_ATTR_RDONLY;
    assert_eq!(parse("").own, Default::default());
    assert_eq!(parse("ro,nosuid").own.set, ro | libc::MOUNT_ATTR_NOSUID);
    assert_eq!(parse("ro,rw").own.set, 0, "the later one counts");
    assert_eq!(parse("noatime,strictatime").own.access_time, Some(libc::MOUNT_ATTR_STRICTATIME));
    assert_eq!(parse("noatime,relatime").flags(), MountFlags::empty());
    assert_eq!(parse("rro").tree.set, ro);
    assert_eq!((parse("rro,rrw").tree.set, parse("rro,rrw").tree.clear), (0, ro));
    let (_, tree) = parse("rbind,rrelatime").attributes();
    assert_eq!((tree.set, tree.clear), (0, libc::MOUNT_ATTR__ATIME), "the usual mode is set, too");
    assert_eq!(parse("rbind,rslave").bind, Some(true));
    assert_eq!(parse("bind,slave").bind, Some(false));
    assert_eq!(parse("rprivate").propagation, Some((libc::MS_PRIVATE, true)));
    assert_eq!(parse("unbindable").propagation, Some((libc::MS_UNBINDABLE, false)));
    assert_eq!(parse("mode=755,size=64k").data, ["mode=755", "size=64k"]);
    assert_eq!(parse("sync,async,iversion,noiversion,silent,loud,defaults").flags(), MountFlags::empty());
    assert_eq!(
        parse("ro,noexec,sync").flags(),
        MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::SYNCHRONOUS
    );
    let all = "tmpcopyup,idmap,remount,copy-symlink,src-nofollow";
    let options = parse(all);
    assert_eq!((options.id_map, options.copy_up, options.remount), (Some(false), true, true));
    assert!(options.data.is_empty() && options.copy_link && options.no_follow);
}

/// Every row of the specification's table is known, and known to be.
#[test]
fn all_options_of_the_specification_are_known() {
    let table = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
        nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind \
        rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
        rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
        silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap";
    let names: Vec<String> = options::names().collect();
    for option in table.split_whitespace() {
        assert!(Options::parse([option].into_iter()).data.is_empty(), "{option}");
        assert!(names.iter().any(|name| name == option), "{option} is not among the names");
    }
}

#[test]
fn hostile_mounts_are_refused() {
    let cases = [
        ("/proc/self/attr", "bind", "bind", "nothing may be mounted"),
        ("/proc/sys", "tmpfs", "", "nothing may be mounted"),
        ("/x/../proc/kcore", "bind", "rbind", "nothing may be mounted"),
        ("/proc", "tmpfs", "", "only procfs"),
        ("//proc/.", "tmpfs", "", "only procfs"),
        ("proc/sys", "tmpfs", "", "nothing may be mounted"),
        ("/v", "tmpfs", "idmap", "no bind mount"),
        ("/v", "bind", "idmap", "the container has none"),
        ("/", "bind", "bind", "over the root"),
        ("/a/..", "tmpfs", "", "over the root"),
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
