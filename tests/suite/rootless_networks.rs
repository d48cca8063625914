//! Networks of several containers without any privilege: names, addresses, published ports, and what is left of them.

use std::io::{Read as _, Write as _};
use std::process::Command;

use super::network::{SERVER, answer};
use super::rootless::with_tunnels;
use crate::support::*;

/// A user's installation, and what lets that user have a way out.
struct Own {
    host: Host,
    device: String,
}

impl Own {
    fn new() -> Option<Self> {
        if !is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            println!("skipped: opening /dev/net/tun to everybody needs root, and the device");
            return None;
        }
        let host = Host::unprivileged()?;
        host.load(&[("busybox:1", busybox())]);
        let device = host.text("tun");
        tool(Command::new("mknod").args(["-m", "666", &device, "c", "10", "200"]));
        Some(Self { host, device })
    }

    fn dhow(&self, args: &[&str]) -> Run {
        with_tunnels(self.host.dhow(args), &self.device)
    }

    fn address(&self, name: &str, network: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        self.dhow(&["inspect", name, "--format", &format]).ok().trim().to_owned()
    }

    /// The processes that have this folder's realm, by the socket that the anchor listens at.
    fn anchor(&self) -> Option<u32> {
        let socket = self.host.root().join("networks/.realm/socket");
        let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        peer.pid.as_raw_nonzero().get().try_into().ok()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let listed = self.dhow(&["ps", "-aq"]).outcome().stdout;
        for id in listed.lines() {
            self.dhow(&["rm", "-f", id]).outcome();
        }
        // It goes by itself, a moment after the last container.
        let socket = self.host.root().join("networks/.realm/socket");
        until("nothing of the networks runs any more", || (!socket.exists()).then_some(()));
    }
}

#[test]
fn containers_find_and_reach_each_other() {
    let Some(own) = Own::new() else { return };
    own.dhow(&["network", "create", "back"]).ok();
    own.dhow(&["network", "create", "other"]).ok();
    let server = ["--network", "back", "--network-alias", "www", "-p", "127.0.0.1::80", "busybox:1"];
    own.dhow(&[&["run", "-d", "--name", "web"][..], &server, &["sh", "-c", SERVER]].concat()).ok();
    // By name, by alias, by address, and with a way out.
    let look = "nslookup www; until nc web 80 </dev/null; do sleep 0.05; done; ip route";
    let said = own.dhow(&["run", "--rm", "--network", "back", "busybox:1", "sh", "-c", look]).ok();
    assert!(said.contains(&own.address("web", "back")), "{said}");
    assert!(said.contains("word\n") && said.contains("default via"), "{said}");
    // From this host.
    let port = own.dhow(&["port", "web", "80"]).ok();
    assert_eq!(answer(port.trim()), "word\n");
    // Not from another network, until it is connected, and not any more after that.
    own.dhow(&["run", "-d", "--name", "late", "--network", "other", "busybox:1", "sleep", "600"]).ok();
    let address = own.address("web", "back");
    let reach = format!("nc -w 1 {address} 80 </dev/null");
    assert_ne!(own.dhow(&["exec", "late", "sh", "-c", &reach]).outcome().code, 0);
    own.dhow(&["network", "connect", "--alias", "soon", "back", "late"]).ok();
    let reach = "until nc www 80 </dev/null; do sleep 0.05; done";
    assert_eq!(own.dhow(&["exec", "late", "sh", "-c", reach]).ok(), "word\n");
    assert!(own.dhow(&["exec", "web", "nslookup", "soon"]).ok().contains(&own.address("late", "back")));
    own.dhow(&["network", "disconnect", "back", "late"]).ok();
    assert_ne!(own.dhow(&["exec", "late", "nslookup", "web"]).outcome().code, 0);
    // Another container's network, and its processes.
    let shared = ["run", "--rm", "--network", "container:web", "--pid", "container:web", "busybox:1"];
    let said = own.dhow(&[&shared[..], &["sh", "-c", "ip -o -4 addr; ps"]].concat()).ok();
    assert!(said.contains(&address) && said.contains("while true"), "{said}");
    let run = ["run", "--rm", "--network", "back", "-p", "80/sctp", "busybox:1", "true"];
    own.dhow(&run).rejected(125, "without root: pasta and slirp4netns carry TCP and UDP only");
    // The port is free with the end of its container, and the network can go.
    own.dhow(&["network", "rm", "back"]).rejected(1, "has active endpoints");
    own.dhow(&["rm", "-f", "web"]).ok();
    std::net::TcpListener::bind(port.trim()).expect("a free port");
    own.dhow(&["network", "rm", "back"]).ok();
    own.host.check();
}

#[test]
fn wasm_programs_are_in_them() {
    let Some(own) = Own::new() else { return };
    own.host.file("sockets.wasm", guest("sockets.wasm"));
    own.dhow(&["network", "create", "back"]).ok();
    own.dhow(&["run", "-d", "--name", "native", "--network", "back", "busybox:1", "sh", "-c", SERVER]).ok();
    let module = "./sockets.wasm";
    let found = own.dhow(&["run", "--rm", "--network", "back", module, "names", "native"]).ok();
    assert_eq!(found, format!("native: {}\n", own.address("native", "back")));
    let run = ["run", "-d", "--name", "wasm", "--network", "back", "-p", "127.0.0.1::7", module, "echo", "7"];
    own.dhow(&run).ok();
    until("it listens", || own.dhow(&["logs", "wasm"]).ok().contains("listening on").then_some(()));
    let port = own.dhow(&["port", "wasm", "7"]).ok();
    let mut stream = std::net::TcpStream::connect(port.trim()).expect("a published port");
    stream.write_all(b"hello").expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("answer");
    assert_eq!(said, "hello");
    assert_eq!(own.dhow(&["wait", "wasm"]).ok(), "0\n");
    own.host.check();
}

#[test]
fn whoever_is_killed_leaves_nothing() {
    let Some(own) = Own::new() else { return };
    own.dhow(&["network", "create", "back"]).ok();
    let run = ["run", "-d", "--name", "web", "--network", "back", "-p", "127.0.0.1::80", "busybox:1"];
    own.dhow(&[&run[..], &["sh", "-c", SERVER]].concat()).ok();
    // The realm's own processes: its containers go on, and it is made whole.
    let anchor = own.anchor().expect("an anchor");
    tool(Command::new("kill").args(["-9", &anchor.to_string()]));
    until("nobody listens", || own.anchor().is_none().then_some(()));
    let finds = |what: &str| {
        let check = own.dhow(&["system", "check"]).fails(1);
        assert!(check.stdout.contains(what), "{check:#?}");
    };
    finds("their processes were ended");
    own.dhow(&["system", "check", "--repair"]).ok();
    assert!(own.anchor().is_some_and(|now| now != anchor));
    own.dhow(&["system", "check"]).fails(0);
    let reach = "until nc web 80 </dev/null; do sleep 0.05; done";
    let beside = |script| own.dhow(&["run", "--rm", "--network", "back", "busybox:1", "sh", "-c", script]);
    assert_eq!(beside(reach).ok(), "word\n");
    // A monitor: its container ends with it, and what it had is taken back.
    let pid = own.dhow(&["inspect", "web", "--format", "{{.State.Pid}}"]).ok();
    let status = fs_err::read_to_string(format!("/proc/{}/status", pid.trim())).expect("its process");
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    tool(Command::new("kill").args(["-9", monitor]));
    until("it is over", || (!fs_err::exists(format!("/proc/{}/root", pid.trim())).ok()?).then_some(()));
    finds("which does not run");
    own.dhow(&["system", "check", "--repair"]).ok();
    own.dhow(&["start", "web"]).ok();
    assert_eq!(beside(reach).ok(), "word\n");
    let port = own.dhow(&["port", "web", "80"]).ok();
    assert_eq!(answer(port.trim()), "word\n");
}

#[test]
fn without_a_way_out_they_reach_each_other() {
    let Some(own) = Own::new() else { return };
    // No device for tunnels, as most hosts have it for no user but root.
    let host = &own.host;
    host.dhow(["network", "create", "--internal", "back"]).ok();
    host.dhow(["run", "-d", "--name", "web", "--network", "back", "busybox:1", "sh", "-c", SERVER]).ok();
    let reach = "until nc web 80 </dev/null; do sleep 0.05; done";
    let said = host.dhow(["run", "--rm", "--network", "back", "busybox:1", "sh", "-c", reach]).ok();
    assert_eq!(said, "word\n");
}

/// Steps of a build have what containers have: a way out, and the names of a network that is asked for.
#[test]
fn steps_of_builds_are_in_them() {
    let Some(own) = Own::new() else { return };
    let dockerfile = "FROM busybox:1\nRUN ip route > /routes\n";
    for network in ["default", "pasta", "slirp4netns"] {
        let line = ["build", "-q", "--no-cache", "--network", network, "-o", "out", "-"];
        // What the test's own environment says is that there be none.
        own.dhow(&line).env("DHOW_NETWORK", "").stdin(dockerfile).ok();
        let routes = fs_err::read_to_string(own.host.path("out/routes")).unwrap();
        assert!(routes.contains("default via"), "{network}: {routes}");
        // The same for a container that publishes nothing.
        let network = if network == "default" { "pasta" } else { network };
        let routes = own.dhow(&["run", "--rm", "--network", network, "busybox:1", "ip", "route"]).ok();
        assert!(routes.contains("default via"), "{network}: {routes}");
    }
    own.dhow(&["network", "create", "back"]).ok();
    let server = ["run", "-d", "--name", "web", "--network", "back", "busybox:1", "sh", "-c", SERVER];
    own.dhow(&server).ok();
    // Two stages at once.
    let dockerfile = "FROM busybox:1 AS a\nRUN until nc web 80 </dev/null > /a && test -s /a; do sleep 0.05; done\nRUN nslookup web >> /a\n\
        FROM busybox:1 AS b\nRUN until nc web 80 </dev/null > /b && test -s /b; do sleep 0.05; done\n\
        FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let line = ["build", "-q", "--network", "back", "-o", "out", "-"];
    own.dhow(&line).stdin(dockerfile).ok();
    let read = |name: &str| fs_err::read_to_string(own.host.path("out").join(name)).unwrap();
    assert!(
        read("a").starts_with("word\n") && read("a").contains(&own.address("web", "back")),
        "{}",
        read("a")
    );
    assert_eq!(read("b"), "word\n");
    // One that is killed keeps none of them.
    let dockerfile = "FROM busybox:1\nRUN echo now; sleep 600\n";
    let line = ["build", "--progress=plain", "--network", "back", "-"];
    let mut running = own.dhow(&line).stdin(dockerfile).spawn();
    running.until_error("now\n");
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    until("its addresses are free", || (own.dhow(&["system", "check"]).outcome().code == 0).then_some(()));
    // Its addresses are free again.
    own.dhow(&["rm", "-f", "web"]).ok();
    own.dhow(&["network", "rm", "back"]).ok();
    own.host.check();
}
