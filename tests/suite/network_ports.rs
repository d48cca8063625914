//! Published ports and packet filters: IPv6, ranges, who reaches what, and what happens when somebody flushes the rules.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use super::network::{Networked, SERVER, answer, networked};
use crate::support::*;

fn served(host: &Host, name: &str, options: &[&str]) {
    let line = [&["run", "-d", "--name", name], options, &["busybox:1", "sh", "-c", SERVER]].concat();
    host.dhow(line).ok();
}

fn port(host: &Host, name: &str, begin: &str) -> String {
    let ports = host.dhow(["port", name]).ok();
    let line = ports.lines().find(|line| line.contains(begin)).unwrap_or_else(|| panic!("{begin}: {ports}"));
    line.rsplit(':').next().expect("a port").to_owned()
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn ports_are_reached_by_ipv6() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    if !has_ipv6() {
        println!("skipped: this host has no IPv6");
        return;
    }
    // With and without addresses of IPv6 in the container.
    host.dhow(["network", "create", "--ipv6", "six"]).ok();
    host.dhow(["network", "create", "four"]).ok();
    for network in ["six", "four"] {
        served(host, network, &["--network", network, "-p", "80"]);
        let any = port(host, network, "0.0.0.0");
        assert_eq!(port(host, network, "[::]"), any, "the same one");
        assert_eq!(answer(&format!("[::1]:{any}")), "word\n", "{network}");
        assert_eq!(answer(&format!("127.0.0.1:{any}")), "word\n", "{network}");
        assert!(TcpListener::bind(format!("[::]:{any}")).is_err());
    }
    let gateway = "{{(index .NetworkSettings.Networks \"six\").IPv6Gateway}}";
    let gateway = host.dhow(["inspect", "six", "--format", gateway]).ok().trim().to_owned();
    assert!(gateway.starts_with("fd"), "{gateway}");
    let any = port(host, "six", "[::]");
    assert_eq!(answer(&format!("[{gateway}]:{any}")), "word\n");
    // From another container, of the same network and of another one, and by its name.
    let from = |network: &str, address: &str| {
        let script = format!("echo | nc -w 5 {address}");
        host.dhow(["run", "--rm", "--network", network, "busybox:1", "sh", "-c", &script]).outcome().stdout
    };
    let four = host.dhow(["inspect", "four", "--format", "{{.NetworkSettings.Networks.four.Gateway}}"]).ok();
    assert_eq!(from("four", &format!("{} {any}", four.trim())), "word\n");
    assert_eq!(from("six", &format!("{gateway} {any}")), "word\n");
    let named = ["run", "--rm", "--network", "six", "busybox:1", "ping", "-6", "-c", "1", "-W", "5", "six"];
    host.dhow(named).ok();
    let long = "{{(index .IPAM.Config 1).Subnet}} {{.EnableIPv6}}";
    assert!(host.dhow(["network", "inspect", "six", "--format", long]).ok().ends_with("::/64 true\n"));
}

#[test]
fn ranges_and_addresses() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.dhow(["network", "create", "back"]).ok();
    // Of a range the first port that is free.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let first = taken.local_addr().expect("address").port();
    let range = format!("127.0.0.1:{first}-{}:80", first.saturating_add(20));
    served(host, "one", &["--network", "back", "-p", &range]);
    let got: u16 = port(host, "one", "127.0.0.1").parse().expect("a number");
    assert!(got > first && got <= first + 20, "{first} {got}");
    assert_eq!(answer(&format!("127.0.0.1:{got}")), "word\n");
    let exact = format!("127.0.0.1:{got}:80");
    let line = ["run", "--rm", "--network", "back", "-p", &exact, "busybox:1", "true"];
    host.dhow(line).rejected(125, "port is already allocated");
    // An address that this host does not have.
    let absent = ["run", "--rm", "--network", "back", "-p", "192.0.2.77:0:80", "busybox:1", "true"];
    host.dhow(absent).rejected(125, "cannot publish on 192.0.2.77");
    // All that are exposed.
    let exposed =
        ["run", "-d", "--name", "all", "--network", "back", "-P", "--expose", "80", "--expose", "90-91/udp"];
    host.dhow([&exposed[..], &["busybox:1", "sleep", "1000"]].concat()).ok();
    let ports = host.dhow(["port", "all"]).ok();
    for wanted in ["80/tcp -> 0.0.0.0:", "90/udp -> 0.0.0.0:", "91/udp -> 0.0.0.0:"] {
        assert!(ports.contains(wanted), "{ports}");
    }
    // Where a network says on which address.
    let option = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1";
    host.dhow(["network", "create", "-o", option, "local"]).ok();
    served(host, "near", &["--network", "local", "-p", "80"]);
    let ports = host.dhow(["port", "near"]).ok();
    assert!(ports.starts_with("80/tcp -> 127.0.0.1:") && ports.lines().count() == 1, "{ports}");
}

/// The table of this installation: its name has the root's own marks.
fn table(host: &Host) -> [String; 2] {
    use std::os::unix::fs::MetadataExt as _;
    let marker = fs_err::metadata(host.root().join("oci-layout")).expect("a root");
    let made = marker.created().or_else(|_| marker.modified()).expect("a time");
    let made = made.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    ["inet".to_owned(), format!("dhow-{:x}-{made:x}", marker.ino())]
}

fn drop_table(host: &Host) {
    tool(Command::new("nft").args(["delete", "table"]).args(table(host)));
}

#[test]
fn rules_that_are_flushed_come_back() {
    let Some(Networked(ref host)) = networked() else { return };
    served(host, "web", &["--network", "bridge", "-p", "80"]);
    let any = port(host, "web", "0.0.0.0");
    assert_eq!(answer(&format!("127.0.0.1:{any}")), "word\n");
    drop_table(host);
    // Connections are copied meanwhile.
    assert_eq!(answer(&format!("127.0.0.1:{any}")), "word\n");
    let said = host.dhow(["system", "check"]).fails(1).stdout;
    assert!(said.contains("table of the packet filter is gone"), "{said}");
    host.dhow(["system", "check", "--repair"]).outcome();
    host.check();
    assert!(tool(Command::new("nft").args(["list", "table"]).args(table(host))).contains(&any));
    // The next container puts everything back, too.
    drop_table(host);
    host.dhow(["run", "--rm", "--network", "bridge", "busybox:1", "true"]).ok();
    host.check();
    let address: SocketAddr = format!("127.0.0.1:{any}").parse().expect("an address");
    drop(TcpStream::connect(address).expect("it is reached"));
    assert_eq!(answer(&address.to_string()), "word\n");
}

#[test]
fn networks_with_options() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    let silent = "com.docker.network.bridge.enable_icc=false";
    let mtu = "com.docker.network.driver.mtu=1400";
    host.dhow(["network", "create", "-o", silent, "-o", mtu, "quiet"]).ok();
    served(host, "one", &["--network", "quiet"]);
    let address =
        host.dhow(["inspect", "one", "--format", "{{.NetworkSettings.Networks.quiet.IPAddress}}"]).ok();
    let gateway =
        host.dhow(["inspect", "one", "--format", "{{.NetworkSettings.Networks.quiet.Gateway}}"]).ok();
    assert_eq!(answer(&format!("{}:80", address.trim())), "word\n");
    let script = format!(
        "ip link show eth0; ping -c 1 -W 5 {0} && echo up; ping -c 1 -W 1 {1} || echo alone",
        gateway.trim(),
        address.trim()
    );
    let said = host.dhow(["run", "--rm", "--network", "quiet", "busybox:1", "sh", "-c", &script]).ok();
    assert!(said.contains("mtu 1400") && said.contains("up\n") && said.ends_with("alone\n"), "{said}");
    // Addresses that are kept from containers, and a part of the subnet.
    let subnet =
        ["--subnet", "10.254.62.0/24", "--ip-range", "10.254.62.128/29", "--gateway", "10.254.62.129"];
    let kept = ["--aux-address", "router=10.254.62.128", "--aux-address", "other=10.254.62.130", "part"];
    host.dhow([&["network", "create", "--attachable"][..], &subnet, &kept].concat()).ok();
    let show = ["run", "--rm", "--network", "part", "busybox:1", "ip", "-4", "-o", "addr", "show", "eth0"];
    assert!(host.dhow(show).ok().contains("10.254.62.131/24"));
    let format = "{{(index .IPAM.Config 0).IPRange}} {{(index .IPAM.Config 0).AuxiliaryAddresses.router}} {{.Attachable}}";
    let said = host.dhow(["network", "inspect", "part", "--format", format]).ok();
    assert_eq!(said, "10.254.62.128/29 10.254.62.128 true\n");
    for (args, message) in [
        (
            &["--subnet", "10.254.63.0/24", "--ip-range", "10.1.0.0/24"][..],
            "no matching subnet for range 10.1.0.0/24",
        ),
        (&["--subnet", "10.254.63.0/24", "--gateway", "10.1.0.1"], "no matching subnet for gateway 10.1.0.1"),
        (
            &["--subnet", "10.254.63.0/24", "--aux-address", "a=10.1.0.1"],
            "no matching subnet for aux-address 10.1.0.1",
        ),
        (&["--subnet", "10.254.63.0/24", "--subnet", "10.254.64.0/24"], "multiple overlapping subnet"),
        (&["--subnet", "10.254.62.128/25"], "Pool overlaps with other one on this address space"),
        (&["--subnet", "fd00:9::/64"], "needs --ipv6"),
        (&["-o", "com.docker.network.bridge.enable_icc=perhaps"], "enable_icc"),
        (&["-o", "com.docker.network.bridge.name=name-that-is-too-long"], "invalid interface name"),
    ] {
        host.dhow([&["network", "create"], args, &["bad"]].concat()).rejected(1, message);
    }
}
