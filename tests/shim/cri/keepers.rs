//! What keeps a pod together: whose namespaces its containers are in, and what becomes of it when containerd or its shim is killed.

use std::path::{Path, PathBuf};

use super::{ALONE, APP, Ask, BOX, EXITED, Node, Pod, PodAnswer, parent};
use crate::made::until;

/// The namespaces that a pod's containers share with each other, and not with the host.
const SHARED: [&str; 4] = ["net", "ipc", "uts", "pid"];

fn namespace(pid: &str, kind: &str) -> PathBuf {
    fs_err::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

fn output(pod: &Pod<'_>, id: &str, command: &[&str]) -> String {
    let done = pod.exec(id, command);
    assert_eq!(done.exit_code, 0, "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn is_shared_within(pod: &Pod<'_>) {
    let ids = ["one", "two"].map(|name| pod.start(name, BOX, &["sleep", "600"], false));
    let [first, second] = ids.each_ref().map(|id| pod.pid(id).to_string());
    for kind in SHARED {
        assert_eq!(namespace(&first, kind), namespace(&second, kind), "{kind}");
        assert_ne!(namespace(&first, kind), namespace("self", kind), "{kind} is the host's");
    }
    let [one, two] = ids.each_ref().map(String::as_str);
    output(pod, one, &["sh", "-c", "echo shared > /dev/shm/file"]);
    assert_eq!(output(pod, two, &["cat", "/dev/shm/file"]), "shared\n");
    assert!(!Path::new("/dev/shm/file").exists());
    assert_eq!(output(pod, one, &["cat", "/etc/hostname"]), "pod\n");
    let hosts = output(pod, one, &["cat", "/etc/hosts"]);
    assert_eq!(hosts, fs_err::read_to_string("/etc/hosts").unwrap());
    output(pod, one, &["test", "-e", "/etc/resolv.conf"]);
    assert_eq!(
        output(pod, one, &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).trim(),
        pod.ports()
    );
    let count = output(pod, one, &["sh", "-c", "(sleep 0.1 &) ; sleep 0.5; ps | grep -c '[Z] '; true"]);
    assert_eq!(count, "0\n", "what is left to the first process is buried");
    for id in ids {
        pod.end(&id);
    }
}

impl Pod<'_> {
    /// From which port on programs without rights may listen: containerd 1.6 leaves that to the kernel.
    fn ports(&self) -> &'static str {
        if self.node.is_second() { "0" } else { "1024" }
    }

    /// `None` where containerd has just lost the connection that it asks by.
    fn state(&self) -> Option<i32> {
        let asked = Ask { id: self.id.clone(), verbose: true };
        let answer: Result<PodAnswer, String> = self.node.ask("RuntimeService/PodSandboxStatus", &asked);
        Some(answer.ok()?.status?.state)
    }
}

fn handlers(node: &Node) -> Vec<&'static str> {
    if node.has_alone() { vec!["dhow", ALONE] } else { vec!["dhow"] }
}

#[test]
fn containers_share_what_is_the_pod_s() {
    let Some(node) = Node::new() else { return };
    for handler in handlers(&node) {
        let pod = node.pod(handler);
        is_shared_within(&pod);
        pod.remove();
    }
}

/// containerd is killed and comes back: the pod is there, and goes on.
#[test]
fn pods_outlive_containerd() {
    let Some(mut node) = Node::new() else { return };
    for handler in handlers(&node) {
        let (pod, app, car) = {
            let pod = node.pod(handler);
            let app = pod.start("app", APP, &["/app.wasm"], false);
            let car = pod.start("car", BOX, &["sleep", "600"], false);
            (pod.id.clone(), app, car)
        };
        node.containerd.kill();
        node.containerd.restart();
        let pod = node.known(&pod, handler);
        until("the pod is known", || {
            let asked = Ask { id: pod.id.clone(), verbose: false };
            let answer: Result<PodAnswer, String> = node.ask("RuntimeService/PodSandboxStatus", &asked);
            answer.ok().and_then(|answer| answer.status).filter(|status| status.state == 0)
        });
        assert_eq!(output(&pod, &car, &["hostname"]), "pod\n");
        let late = pod.start("late", BOX, &["sleep", "600"], false);
        assert_eq!(parent(pod.pid(&late)), parent(pod.pid(&car)), "one shim for a pod");
        for id in [app, car, late] {
            pod.end(&id);
        }
        pod.remove();
    }
}

/// The shim is killed: so are the pod's processes, all of them, and it can be removed.
#[test]
fn a_killed_shim_takes_its_pod_along() {
    let Some(node) = Node::new() else { return };
    for handler in handlers(&node) {
        let pod = node.pod(handler);
        let ids =
            [pod.start("app", APP, &["/app.wasm"], false), pod.start("car", BOX, &["sleep", "600"], false)];
        let pids = ids.each_ref().map(|id| pod.pid(id));
        let shim = parent(pids[1]).split_whitespace().nth(1).unwrap().to_owned();
        let group = node.network.clone();
        crate::made::tool(std::process::Command::new("kill").args(["-KILL", &shim]));
        until("all processes have ended", || processes(&group).is_empty().then_some(()));
        until("the pod is not ready", || pod.state().filter(|state| *state == 1));
        // containerd 2.3 first tries to delete them by a connection that is gone, and then again some seconds later.
        for id in ids {
            until("its end is known", || (pod.status(&id).status.unwrap().state == EXITED).then_some(()));
        }
        pod.remove();
    }
}

/// All that are in the control group of a pod.
fn processes(group: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let Ok(text) = fs_err::read_to_string(entry.path().join("cgroup")) else { continue };
        let stat = fs_err::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if text.contains(group) && !stat.contains(") Z ") {
            found.push(stat);
        }
    }
    found
}
