//! `dhow oci`: very many containers at once, and what is left of them: nothing.

use std::process::Stdio;

use crate::support::{Bundle, is_root, until};

/// 40 here; `DHOW_STORM=500` elsewhere.
fn many() -> usize {
    std::env::var("DHOW_STORM").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// The mounts, network devices and processes of this host that have to do with a bundle.
fn traces(bundle: &Bundle) -> (usize, usize) {
    let name = bundle.text("bundle/rootfs");
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(&name)).count();
    let processes = fs_err::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let info = fs_err::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        info.contains(&name) || {
            let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\x00617\x00")
        }
    });
    (mounts, processes.count())
}

/// Network namespaces that somebody lives in.
fn networks() -> std::collections::BTreeSet<std::path::PathBuf> {
    let all = fs_err::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| fs_err::read_link(entry.path().join("ns/net")).ok()).collect()
}

#[test]
fn many_containers_at_once_leave_nothing() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let count = many();
    let bundle = Bundle::new(&["sleep", "617"]);
    // Each has a group of its own, as those of any caller.
    bundle.change(|spec| drop(spec["linux"].as_object_mut().unwrap().remove("cgroupsPath")));
    let ids: Vec<String> =
        (0..count).map(|number| format!("storm-{}-{number}", std::process::id())).collect();
    let at_once = |verb: &[&str]| {
        let started = std::time::Instant::now();
        let calls: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut command = bundle.command(&[verb, &[id]].concat());
                command.stdin(Stdio::null()).stdout(Stdio::null());
                // Streams that a container keeps would be waited for.
                let file = fs_err::File::create(bundle.path(&format!("{id}.{}", verb[0]))).unwrap();
                command.stderr(file.into_parts().0).spawn().unwrap()
            })
            .collect();
        let mut failed = Vec::new();
        for (mut call, id) in calls.into_iter().zip(&ids) {
            if !call.wait().unwrap().success() {
                failed.push(fs_err::read_to_string(bundle.path(&format!("{id}.{}", verb[0]))).unwrap());
            }
        }
        assert!(failed.is_empty(), "{verb:?}: {} of {count} failed: {failed:?}", failed.len());
        println!("{count} times {}: {:?}", verb.join(" "), started.elapsed());
    };
    at_once(&["run", "-d"]);
    let (mounts, processes) = traces(&bundle);
    assert_eq!((mounts, processes), (0, count));
    let during = networks().len();
    assert!(during > count, "each has a network namespace");
    assert_eq!(bundle.oci(&["list", "-q"]).ok().lines().count(), count);
    at_once(&["delete", "--force"]);
    until("no process is left", || (traces(&bundle) == (0, 0)).then_some(()));
    assert_eq!(bundle.oci(&["list", "-q"]).ok(), "");
    bundle.is_clean();
    // Groups in any hierarchy, by any of the ids.
    for hierarchy in fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for group in ids.iter().map(|id| hierarchy.path().join(format!("dhow-{id}"))) {
            assert!(!group.exists(), "{}", group.display());
        }
    }
}
