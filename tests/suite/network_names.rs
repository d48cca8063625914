//! Names in networks: who finds whom, by which name; containers that come and go; questions that others answer; hostile
//! ones.

use std::net::UdpSocket;
use std::time::Duration;

use super::network::networked;
use crate::support::*;

fn made(host: &Host, network: &str) {
    host.dhow(["network", "create", network]).ok();
}

fn sleeper(host: &Host, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox:1", "sleep", "1000"]].concat();
    host.dhow(line).ok();
}

fn exec(host: &Host, name: &str, script: &str) -> Outcome {
    host.dhow(["exec", name, "sh", "-c", script]).outcome()
}

/// The addresses that a container finds for a name, in a line.
fn found(host: &Host, container: &str, name: &str) -> String {
    let said = exec(host, container, &format!("nslookup {name} 2>&1")).stdout;
    let addresses = said.lines().filter_map(|line| line.strip_prefix("Address: "));
    addresses.map(str::trim).collect::<Vec<_>>().join(" ")
}

fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    host.dhow(["inspect", container, "--format", &format]).ok().trim().to_owned()
}

#[test]
fn containers_find_each_other() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    made(host, "back");
    made(host, "front");
    sleeper(host, "db", &["--network", "back", "--network-alias", "sql", "--hostname", "store"]);
    sleeper(host, "web", &["--network", "name=back,alias=www", "--network", "front"]);
    let db = address(host, "db", "back");
    let id = host.dhow(["inspect", "db", "--format", "{{.Id}}"]).ok();
    for name in ["db", "DB", "db.", "sql", "store", "db.back", &id[..12]] {
        assert_eq!(found(host, "web", name), db, "{name}");
    }
    assert_eq!(found(host, "db", "www"), address(host, "web", "back"));
    assert_eq!(found(host, "db", "nobody"), "");
    let script = "cat /etc/resolv.conf; ping -c 1 -W 5 db >/dev/null && echo reached";
    let said = exec(host, "web", script).stdout;
    assert!(said.contains("nameserver 127.0.0.11\n") && said.contains("ndots:0"), "{said}");
    assert!(said.ends_with("reached\n"), "{said}");
    // Backwards, with the network's name.
    let said = exec(host, "web", &format!("nslookup {db}")).stdout;
    assert!(said.contains("name = db.back"), "{said}");
    // Who shares a network shares its names.
    let shared = ["run", "--rm", "--network", "container:web", "busybox:1", "nslookup", "db"];
    assert!(host.dhow(shared).ok().contains(&db));
    // Another network's containers are not found, nor reached.
    sleeper(host, "far", &["--network", "front"]);
    assert_eq!(found(host, "far", "db"), "");
    assert_ne!(found(host, "far", "web"), "");
    assert_eq!(exec(host, "far", &format!("ping -c 1 -W 1 {db}")).code, 1);
    // The default network has no names.
    sleeper(host, "plain", &["--network", "bridge"]);
    assert!(!exec(host, "plain", "cat /etc/resolv.conf").stdout.contains("127.0.0.11"));
    // A new name is found at once, the old one no more; so is one that has ended.
    host.dhow(["rename", "db", "db2"]).ok();
    assert_eq!((found(host, "web", "db2"), found(host, "web", "db")), (db, String::new()));
    host.dhow(["rm", "-f", "db2"]).ok();
    assert_eq!(found(host, "web", "sql"), "");
}

#[test]
fn containers_are_connected_and_disconnected() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    made(host, "back");
    host.dhow(["network", "create", "--subnet", "10.254.61.0/24", "fixed"]).ok();
    sleeper(host, "one", &["--network", "bridge"]);
    sleeper(host, "two", &["--network", "back", "--mac-address", "02:42:00:00:00:07"]);
    assert!(exec(host, "two", "ip link show eth0").stdout.contains("02:42:00:00:00:07"));
    // While it runs, and it finds names from then on.
    host.dhow(["network", "connect", "--alias", "uno", "back", "one"]).ok();
    assert_eq!(found(host, "two", "uno"), address(host, "one", "back"));
    assert_eq!(found(host, "one", "two"), address(host, "two", "back"));
    host.dhow(["network", "connect", "--ip", "10.254.61.77", "fixed", "one"]).ok();
    assert_eq!(address(host, "one", "fixed"), "10.254.61.77");
    assert!(exec(host, "one", "ip -4 -o addr; cat /etc/hosts").stdout.contains("10.254.61.77"));
    // Out again: the way out is another network's.
    host.dhow(["network", "disconnect", "bridge", "one"]).ok();
    let routes = exec(host, "one", "ip route").stdout;
    assert!(routes.contains("default via") && !routes.contains("eth0"), "{routes}");
    assert!(!exec(host, "one", "ip link").stdout.contains("eth0"));
    let names = host.dhow(["ps", "--filter", "name=one", "--format", "{{.Networks}}"]).ok();
    assert_eq!(names, "back,fixed\n");
    // It is so after the next start, too, and one that does not run is changed as well.
    host.dhow(["stop", "-t", "0", "one"]).ok();
    host.dhow(["network", "disconnect", "back", "one"]).ok();
    host.dhow(["start", "one"]).ok();
    assert_eq!(address(host, "one", "fixed"), "10.254.61.77");
    assert!(!exec(host, "one", "ip link").stdout.contains("eth1"));
    for (args, message) in [
        (&["network", "connect", "fixed", "one"][..], "already exists in network fixed"),
        (&["network", "connect", "nope", "one"], "network nope not found"),
        (&["network", "connect", "fixed", "nobody"], "No such container"),
        (&["network", "disconnect", "back", "one"], "is not connected to network back"),
        (&["network", "connect", "--ip", "10.254.61.77", "fixed", "two"], "Address already in use"),
        (
            &["network", "connect", "--ip", "10.1.1.1", "fixed", "two"],
            "does not belong to any of this network's",
        ),
        (&["network", "connect", "--ip", "10.1.1.1", "back", "one"], "networks with user configured subnets"),
        (&["network", "connect", "host", "two"], "disconnected from host network"),
        (&["network", "disconnect", "-f", "fixed", "nobody"], "No such container"),
    ] {
        host.dhow(args).rejected(1, message);
    }
    // A taken address stays with who has it, and is free when that one has ended.
    let again = ["run", "--rm", "--network", "fixed", "--ip", "10.254.61.77", "busybox:1", "true"];
    host.dhow(again).rejected(125, "Address already in use");
    host.dhow(["rm", "-f", "one"]).ok();
    host.dhow(again).ok();
    for (options, message) in [
        (&["--ip", "10.254.61.9"][..], "supported on user defined networks only"),
        (&["--network-alias", "x"], "supported only for containers in user defined networks"),
        (
            &["--network", "none", "--network-alias", "x"],
            "supported only for containers in user defined networks",
        ),
        (&["--network", "fixed", "--mac-address", "zz"], "invalid MAC address: zz"),
        (
            &["--network", "fixed", "--network", "host"],
            "cannot attach both user-defined and non-user-defined",
        ),
        (&["--network", "fixed", "--network", "fixed"], "specified multiple times"),
        (&["--network", "name=fixed,nonsense=1"], "invalid field key nonsense"),
    ] {
        let line = [&["run", "--rm"], options, &["busybox:1", "true"]].concat();
        let network = if options.contains(&"--network") { "none" } else { "bridge" };
        host.dhow(line).env("DHOW_NETWORK", network).rejected(125, message);
    }
}

#[test]
fn what_is_not_known_is_asked_elsewhere() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    made(host, "back");
    // A server that knows one answer, and is asked from this host's network.
    let server = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let at = server.local_addr().expect("address").to_string();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, client)) = server.recv_from(&mut question) {
            let mut answer = question[..length].to_vec();
            answer[2] |= 0x80;
            if answer[length - 3] == 1 {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 33]);
            }
            server.send_to(&answer, client).ok();
        }
    });
    sleeper(
        host,
        "one",
        &["--network", "back", "--dns", &at, "--dns-search", "corp.test", "--dns-option", "ndots:2"],
    );
    assert_eq!(found(host, "one", "example.test."), "192.0.2.33");
    let file = exec(host, "one", "cat /etc/resolv.conf").stdout;
    assert_eq!(file, "nameserver 127.0.0.11\nsearch corp.test\noptions ndots:2\n");
    // In a network that leads nowhere nobody else is asked.
    host.dhow(["network", "create", "--internal", "vault"]).ok();
    sleeper(host, "two", &["--network", "vault", "--dns", &at]);
    assert_eq!(found(host, "two", "example.test."), "");
    assert_ne!(found(host, "two", "two"), "");
    // Names that are given, and this host.
    let given =
        ["run", "--rm", "--network", "back", "--hostname", "h", "--domainname", "d.test", "--add-host"];
    let script = "cat /etc/hosts; hostname";
    let line =
        [&given[..], &["x:192.0.2.1", "--add-host", "up:host-gateway", "busybox:1", "sh", "-c", script]];
    let said = host.dhow(line.concat()).ok();
    assert!(said.contains("192.0.2.1\tx\n") && said.contains("\th.d.test h\n"), "{said}");
    let gateway =
        host.dhow(["network", "inspect", "back", "--format", "{{(index .IPAM.Config 0).Gateway}}"]).ok();
    assert!(said.contains(&format!("{}\tup\n", gateway.trim())), "{said}");
}

#[test]
fn hostile_questions_harm_nobody() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    made(host, "back");
    sleeper(host, "one", &["--network", "back"]);
    sleeper(host, "evil", &["--network", "back", "--dns", "192.0.2.1"]);
    // Nonsense, in datagrams and connections, and more questions than anybody answers; busybox' nc has no better words.
    let script = "for n in $(seq 60); do head -c $((n * 9)) /dev/urandom | nc -u -w 1 127.0.0.11 53 & \
        head -c 300 /dev/urandom | nc -w 1 127.0.0.11 53 & done >/dev/null 2>&1; \
        for n in $(seq 200); do nslookup -timeout=1 x$n.example.test & done >/dev/null 2>&1; sleep 3; kill %1; true";
    exec(host, "evil", script);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while found(host, "evil", "one").is_empty() {
        assert!(std::time::Instant::now() < deadline, "it serves names no more");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(found(host, "one", "evil"), address(host, "evil", "back"));
    // Its own server may have the port on all addresses.
    let own =
        "nc -u -l -p 53 </dev/null >/dev/null & sleep 1; nc -l -p 53 </dev/null & sleep 1; nslookup one";
    assert!(exec(host, "evil", own).stdout.contains(&address(host, "one", "back")));
}
