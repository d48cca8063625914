//! Networks of native containers: addresses, what reaches what, published ports, and what is left afterwards.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::*;

/// An installation whose networks are taken out of the kernel at the end.
pub(super) struct Networked(pub(super) Host);

impl Drop for Networked {
    fn drop(&mut self) {
        for id in self.0.dhow(["ps", "-q"]).outcome().stdout.lines() {
            self.0.dhow(["rm", "-f", id]).outcome();
        }
        let listed = self.0.dhow(["network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"]).outcome();
        for line in listed.stdout.lines() {
            let Some((id, name)) = line.split_once(' ') else { continue };
            if name == "bridge" {
                drop(
                    std::process::Command::new("ip")
                        .args(["link", "del", &format!("br-{}", &id[..12])])
                        .output(),
                );
            } else {
                self.0.dhow(["network", "rm", name]).outcome();
            }
        }
        // The table goes with the last network; the default one cannot be removed by itself.
        self.0.dhow(["network", "create", "last"]).outcome();
        self.0.dhow(["network", "rm", "last"]).outcome();
    }
}

pub(super) fn networked() -> Option<Networked> {
    is_root().then(|| Networked(Host::with_busybox()))
}

fn run(host: &Host, args: &[&str]) -> Outcome {
    host.dhow(["run", "--rm"]).args(args).env("DHOW_NETWORK", "default").outcome()
}

/// What a server sends to whoever connects.
pub(super) fn asked(address: &str) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
        stream.write_all(b"x\n").ok();
        stream.read_to_string(&mut text).ok();
    }
    text
}

/// The same, as soon as it is there.
pub(super) fn answer(address: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = asked(address);
        if !text.is_empty() || Instant::now() > deadline {
            return text;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server that answers with a word, forever.
pub(super) const SERVER: &str = "while true; do echo word | nc -l -p 80; done";

#[test]
fn a_native_container_has_an_address_and_a_way_out() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    let script = "ip -4 -o addr show eth0; ip route; cat /etc/hosts";
    let out = run(host, &["--hostname", "me", "busybox:1", "sh", "-c", script]).stdout;
    assert!(out.contains("inet 10.210.") || out.contains("inet 172.30."), "{out}");
    assert!(out.contains("default via "), "{out}");
    let address =
        out.split("inet ").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
    assert!(out.contains(&format!("{address}\tme\n")), "{out}");
    // The gateway is this host.
    let script = "ping -c 1 -W 5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')";
    assert_eq!(run(host, &["busybox:1", "sh", "-c", script]).code, 0);
    assert_eq!(run(host, &["--network", "none", "busybox:1", "sh", "-c", "ip link | grep eth0"]).code, 1);
    // Nobody has an address any more.
    let inspect = host.dhow(["network", "inspect", "bridge", "--format", "{{len .Containers}}"]).ok();
    assert_eq!(inspect, "0\n");
}

#[test]
fn published_ports_lead_to_the_container() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    let id = host
        .dhow([
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "bridge",
            "-p",
            "80",
            "-p",
            "127.0.0.1::80",
            "busybox:1",
            "sh",
            "-c",
            SERVER,
        ])
        .ok();
    let ports = host.dhow(["port", "web"]).ok();
    let of = |begin: &str| {
        let line =
            ports.lines().find(|line| line.starts_with(&format!("80/tcp -> {begin}"))).expect("published");
        line.rsplit(':').next().expect("a port").to_owned()
    };
    let (any, loopback) = (of("0.0.0.0"), of("127.0.0.1"));
    assert_eq!(answer(&format!("127.0.0.1:{any}")), "word\n");
    assert_eq!(answer(&format!("127.0.0.1:{loopback}")), "word\n");
    // From another container, by way of the host's address.
    let gateway = host.dhow(["inspect", "web", "--format", "{{.NetworkSettings.Gateway}}"]).ok();
    assert_eq!(answer(&format!("{}:{any}", gateway.trim())), "word\n");
    let from = |network: &str, address: &str| {
        run(host, &["--network", network, "busybox:1", "sh", "-c", &format!("echo | nc -w 3 {address}")])
    };
    assert_eq!(from("bridge", &format!("{} {any}", gateway.trim())).stdout, "word\n");
    // One that is published on loopback is for this host alone.
    assert_eq!(from("bridge", &format!("{} {loopback}", gateway.trim())).stdout, "");
    // Directly, on the same network; not from another one.
    let address = host.dhow(["inspect", "web", "--format", "{{.NetworkSettings.IPAddress}}"]).ok();
    assert_eq!(from("bridge", &format!("{} 80", address.trim())).stdout, "word\n");
    host.dhow(["network", "create", "other"]).ok();
    assert_eq!(from("other", &format!("{} 80", address.trim())).stdout, "");
    assert_eq!(from("other", &format!("{} {any}", gateway.trim())).stdout, "word\n");
    // The port is taken, for others and for us.
    assert!(std::net::TcpListener::bind(format!("0.0.0.0:{any}")).is_err());
    let twice = run(host, &["-p", &format!("{any}:80"), "busybox:1", "true"]);
    assert_eq!(twice.code, 125, "{twice:#?}");
    assert!(twice.stderr.contains("port is already allocated"), "{twice:#?}");
    let shared =
        run(host, &["--network", "container:web", "busybox:1", "sh", "-c", "echo | nc -w 3 127.0.0.1 80"]);
    assert_eq!(shared.stdout, "word\n", "{shared:#?}");
    host.dhow(["rm", "-f", id.trim()]).ok();
    // Another test may have got the port meanwhile, but nothing leads to the container any more.
    assert_ne!(asked(&format!("127.0.0.1:{any}")), "word\n");
    host.check();
}

#[test]
fn networks_are_made_listed_and_removed() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    let id = host.dhow(["network", "create", "--label", "a=b", "--internal", "inner"]).ok();
    let rows = host.dhow(["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]).ok();
    assert_eq!(rows, "bridge bridge local\nhost host local\ninner bridge local\nnone null local\n");
    assert_eq!(host.dhow(["network", "ls", "-q", "--no-trunc", "-f", "label=a=b"]).ok(), id);
    let subnet =
        host.dhow(["network", "inspect", &id[..12], "--format", "{{(index .IPAM.Config 0).Subnet}}"]).ok();
    assert!(subnet.ends_with("/24\n"), "{subnet}");
    // An internal network leads nowhere.
    let out = run(host, &["--network", "inner", "busybox:1", "ip", "route"]).stdout;
    assert!(!out.contains("default") && out.contains("dev eth0"), "{out}");
    host.dhow(["run", "-d", "--name", "one", "--network", "inner", "busybox:1", "sleep", "1000"]).ok();
    host.dhow(["network", "rm", "inner"]).rejected(1, "has active endpoints");
    host.dhow(["rm", "-f", "one"]).ok();
    host.dhow(["network", "create", "--subnet", subnet.trim(), "again"]).rejected(1, "Pool overlaps");
    assert_eq!(host.dhow(["network", "rm", "inner"]).ok(), "inner\n");
    for (args, message) in [
        (&["network", "rm", "inner"][..], "network inner not found"),
        (&["network", "rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
        (&["network", "create", "host"], "operation is not permitted on predefined host network"),
        (&["network", "create", "a/b"], "invalid network name: a/b"),
        (&["network", "create", "-d", "weird", "x"], "plugin \"weird\" not found"),
        (&["network", "create", "--subnet", "10.1.1.1/24", "x"], "it should be 10.1.1.0/24"),
        (&["network", "inspect", "nope"], "network nope not found"),
    ] {
        host.dhow(args).rejected(1, message);
    }
    host.dhow(["run", "--network", "nope", "busybox:1", "true"]).rejected(125, "network nope not found");
    host.dhow(["network", "create", "used"]).ok();
    host.dhow(["network", "create", "unused"]).ok();
    host.dhow(["create", "--name", "user", "--network", "used", "busybox:1", "true"]).ok();
    assert_eq!(host.dhow(["network", "prune", "-f"]).ok(), "Deleted Networks:\nunused\n\n");
    host.dhow(["rm", "user"]).ok();
    host.dhow(["network", "rm", "used"]).ok();
}

#[test]
fn addresses_of_killed_monitors_are_free_again() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.dhow(["network", "create", "--subnet", "10.253.77.0/30", "tiny"]).ok();
    // Two addresses, of which one is this host's.
    host.dhow(["run", "-d", "--name", "one", "--network", "tiny", "-p", "80", "busybox:1", "sleep", "1000"])
        .ok();
    host.dhow(["run", "--rm", "--network", "tiny", "busybox:1", "true"])
        .rejected(125, "no available IPv4 addresses");
    let pid: i32 =
        host.dhow(["inspect", "one", "--format", "{{.State.Pid}}"]).ok().trim().parse().expect("a number");
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let parent =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().to_owned();
    tool(std::process::Command::new("kill").args(["-9", &parent]));
    let deadline = Instant::now() + Duration::from_secs(20);
    while host.dhow(["inspect", "one", "--format", "{{.State.Status}}"]).ok() == "running\n" {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    let found = host.dhow(["system", "check"]).fails(1).stdout;
    assert!(found.contains("networks/tiny/endpoints/10.253.77.2: address of container"), "{found}");
    host.dhow(["system", "check", "--repair"]).outcome();
    host.check();
    host.dhow(["run", "--rm", "--network", "tiny", "busybox:1", "true"]).ok();
}
