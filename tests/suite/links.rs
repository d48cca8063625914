//! `--link`, and the network of another container: names that one container has for another.

use super::network::networked;
use crate::support::*;

fn sleeper(host: &Host, name: &str, options: &[&str]) {
    host.dhow([&["run", "-d", "--name", name], options, &["busybox:1", "sleep", "1000"]].concat()).ok();
}

fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    host.dhow(["inspect", container, "--format", &format]).ok().trim().to_owned()
}

#[test]
fn links_in_the_default_network() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.file("probe.wasm", guest("probe.wasm"));
    let default = ["--network", "bridge"];
    sleeper(
        host,
        "db",
        &[&default[..], &["--expose", "5432", "--expose", "53/udp", "-e", "PASS=x"]].concat(),
    );
    let id = host.dhow(["inspect", "db", "--format", "{{.Id}}"]).ok();
    let db = address(host, "db", "bridge");
    let script =
        "grep -w sql /etc/hosts; env | grep ^SQL_ | sort; ping -c 1 -W 5 sql >/dev/null && echo reached";
    let line = ["run", "--rm", "--name", "web", "--link", "db:sql"];
    let said = host.dhow([&line[..], &default, &["busybox:1", "sh", "-c", script]].concat()).ok();
    let expected = [
        format!("{db}\tsql {} db", &id[..12]),
        "SQL_ENV_PASS=x".to_owned(),
        "SQL_NAME=/web/sql".to_owned(),
        format!("SQL_PORT=udp://{db}:53"),
        format!("SQL_PORT_53_UDP=udp://{db}:53"),
        format!("SQL_PORT_53_UDP_ADDR={db}"),
        "SQL_PORT_53_UDP_PORT=53".to_owned(),
        "SQL_PORT_53_UDP_PROTO=udp".to_owned(),
        format!("SQL_PORT_5432_TCP=tcp://{db}:5432"),
        format!("SQL_PORT_5432_TCP_ADDR={db}"),
        "SQL_PORT_5432_TCP_PORT=5432".to_owned(),
        "SQL_PORT_5432_TCP_PROTO=tcp".to_owned(),
        "reached".to_owned(),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    // A Wasm program in the network has the name and the variables, too.
    host.file("sockets.wasm", guest("sockets.wasm"));
    let wasm = [&["run", "--rm", "--link", "db:sql"][..], &default].concat();
    assert_eq!(
        host.dhow([&wasm[..], &["./sockets.wasm", "names", "sql"]].concat()).ok(),
        format!("sql: {db}\n")
    );
    let env = host.dhow([&wasm[..], &["./probe.wasm", "env", "SQL_ENV_PASS"]].concat()).ok();
    assert!(env.contains('x'), "{env}");
    // Inspected, and started again after the other one has moved.
    let line = [&["create", "--name", "later", "--link", "db"][..], &default].concat();
    host.dhow([&line[..], &["busybox:1", "grep", "-w", "db", "/etc/hosts"]].concat()).ok();
    assert_eq!(
        host.dhow(["inspect", "later", "--format", "{{.HostConfig.Links}}"]).ok(),
        "[/db:/later/db]\n"
    );
    host.dhow(["stop", "-t", "0", "db"]).ok();
    host.dhow(["start", "later"]).rejected(1, "Cannot link to a non running container: /db AS /later/db");
    sleeper(host, "first", &default);
    host.dhow(["start", "db"]).ok();
    let moved = host.dhow(["start", "-a", "later"]).ok();
    assert!(moved.starts_with(&format!("{}\tdb", address(host, "db", "bridge"))), "{moved}");
    for (args, message) in [
        (&["--link", "nosuch"][..], "could not get container for nosuch"),
        (&["--link", "db:"], "bad format for links: db:"),
        (&["--link", "a:b:c"], "bad format for links: a:b:c"),
        (&["--network", "host", "--link", "db"], "host type networking can't be used with links"),
        (&["--network", "container:db", "--link", "db"], "container type network can't be used with links"),
    ] {
        let network = if args[0] == "--network" { &[][..] } else { &default };
        let line = [&["run", "--rm"], network, args, &["busybox:1", "true"]].concat();
        host.dhow(line).rejected(125, message);
    }
}

#[test]
fn links_in_a_network_are_one_container_s_own_names() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.dhow(["network", "create", "back"]).ok();
    // The other one may come later.
    sleeper(host, "web", &["--network", "back", "--link", "db:sql"]);
    sleeper(host, "late", &["--network", "bridge"]);
    sleeper(host, "db", &["--network", "back"]);
    host.dhow(["network", "connect", "--link", "db:store", "back", "late"]).ok();
    let db = address(host, "db", "back");
    let found = |container: &str, name: &str| {
        let said = host.dhow(["exec", container, "nslookup", name]).outcome().stdout;
        said.lines().any(|line| line == format!("Address: {db}"))
    };
    assert!(found("web", "sql") && found("web", "db") && found("late", "store"));
    assert!(!found("web", "store") && !found("late", "sql") && !found("db", "sql"));
    let links = "{{(index .NetworkSettings.Networks \"back\").Links}}";
    assert_eq!(host.dhow(["inspect", "web", "--format", links]).ok(), "[db:sql]\n");
}

#[test]
fn which_network_leads_out_and_how_its_interface_is_called() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    for name in ["one", "two"] {
        host.dhow(["network", "create", name]).ok();
    }
    let gateway = |name: &str| {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        host.dhow(["network", "inspect", name, "--format", format]).ok().trim().to_owned()
    };
    let route = |networks: &[&str]| {
        let script = ["busybox:1", "sh", "-c", "ip route | grep default"];
        host.dhow([&["run", "--rm"], networks, &script].concat()).ok()
    };
    let plain = route(&["--network", "one", "--network", "two"]);
    assert!(plain.contains(&format!("via {} dev eth0", gateway("one"))), "{plain}");
    let ifname = "name=two,gw-priority=1,driver-opt=com.docker.network.endpoint.ifname=up0";
    let chosen = route(&["--network", "one", "--network", ifname]);
    assert!(chosen.contains(&format!("via {} dev up0", gateway("two"))), "{chosen}");
    let bad = "name=two,driver-opt=com.docker.network.endpoint.ifname=../x";
    host.dhow(["run", "--rm", "--network", bad, "busybox:1", "true"]).rejected(125, "invalid interface name");
}

#[test]
fn the_way_out_follows_the_priority_while_it_runs() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    for name in ["one", "two", "three"] {
        host.dhow(["network", "create", name]).ok();
    }
    let server = ["busybox:1", "sh", "-c", super::network::SERVER];
    host.dhow(
        [&["run", "-d", "--name", "it", "--network", "one", "-p", "127.0.0.1::80"], &server[..]].concat(),
    )
    .ok();
    let port = host.dhow(["port", "it", "80"]).ok();
    let leads = |name: &str| {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = host.dhow(["network", "inspect", name, "--format", format]).ok();
        let route = host.dhow(["exec", "it", "sh", "-c", "ip route | grep default"]).ok();
        assert!(route.lines().count() == 1 && route.contains(gateway.trim()), "{name}: {route}");
        // The ports are where the way out is.
        assert_eq!(super::network::answer(port.trim()), "word\n", "{name}");
    };
    let connect =
        |more: &[&str], name| host.dhow([&["network", "connect"], more, &[name, "it"]].concat()).ok();
    leads("one");
    connect(&[], "two");
    leads("one");
    connect(&["--gw-priority", "5"], "three");
    leads("three");
    host.dhow(["network", "disconnect", "one", "it"]).ok();
    leads("three");
    host.dhow(["network", "disconnect", "three", "it"]).ok();
    leads("two");
    connect(&["--gw-priority", "-1"], "one");
    leads("two");
    // The same after a start.
    host.dhow(["restart", "-t", "0", "it"]).ok();
    let port_now = host.dhow(["port", "it", "80"]).ok();
    assert_eq!(super::network::answer(port_now.trim()), "word\n");
}

#[test]
fn further_addresses() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.dhow(["network", "create", "one"]).ok();
    host.dhow(["network", "create", "two"]).ok();
    let more = ["--network", "one", "--link-local-ip", "169.254.8.8", "--link-local-ip", "fe80::77"];
    host.dhow([&["run", "-d", "--name", "it"], &more[..], &["busybox:1", "sleep", "600"]].concat()).ok();
    host.dhow(["network", "connect", "--link-local-ip", "169.254.9.9", "two", "it"]).ok();
    let shown = host.dhow(["exec", "it", "ip", "-o", "addr"]).ok();
    for (interface, address) in
        [("eth0", "169.254.8.8/16"), ("eth0", "fe80::77/64"), ("eth1", "169.254.9.9/16")]
    {
        let is_it = |line: &str| line.contains(interface) && line.contains(address);
        assert!(shown.lines().any(is_it), "{interface} {address}: {shown}");
    }
    let format = "{{json (index .NetworkSettings.Networks \"two\").IPAMConfig.LinkLocalIPs}}";
    assert_eq!(host.dhow(["inspect", "it", "--format", format]).ok(), "[\"169.254.9.9\"]\n");
    host.dhow(["create", "--link-local-ip", "zz", "busybox:1"])
        .rejected(125, "Invalid link-local IP address: [zz]");
}

#[test]
fn a_network_may_come_after_its_container() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.dhow(["create", "--name", "it", "--network", "late", "busybox:1", "true"]).ok();
    host.dhow(["start", "it"]).rejected(1, "network late not found");
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
    assert_eq!(host.dhow(["inspect", "it", "--format", format]).ok(), "created 128 network late not found\n");
    host.dhow(["run", "--name", "other", "--network", "late", "busybox:1", "true"])
        .rejected(125, "network late not found");
    assert_eq!(
        host.dhow(["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).ok(),
        "other Created\nit Created\n"
    );
    host.dhow(["run", "--rm", "--network", "late", "busybox:1", "true"])
        .rejected(125, "network late not found");
    host.dhow(["network", "create", "late"]).ok();
    assert_eq!(host.dhow(["start", "-a", "it"]).ok(), "");
}

#[test]
fn a_wasm_program_in_another_container_s_network() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.file("sockets.wasm", guest("sockets.wasm"));
    host.dhow(["network", "create", "back"]).ok();
    sleeper(host, "db", &["--network", "back"]);
    sleeper(host, "web", &["--network", "back"]);
    let wasm = |other: &str, words: &[&str]| {
        let network = format!("container:{other}");
        host.dhow([&["run", "--rm", "--network", &network, "./sockets.wasm"], words].concat())
    };
    let db = address(host, "db", "back");
    assert_eq!(wasm("web", &["names", "db"]).ok(), format!("db: {db}\n"));
    // It reaches what listens on the other one's loopback.
    host.dhow(["exec", "-d", "web", "sh", "-c", "while true; do echo word | nc -l -p 81; done"]).ok();
    until("it answers", || {
        (wasm("web", &["connect", "127.0.0.1:81"]).outcome().stdout == "word\n").then_some(())
    });
    assert_ne!(wasm("db", &["connect", "127.0.0.1:81"]).outcome().stdout, "word\n");
    // A Wasm program's network may be shared, by either kind; one that has none of its own is the host's.
    let line = ["run", "-d", "--name", "echo", "--network", "back", "./sockets.wasm", "echo", "7"];
    host.dhow(line).ok();
    until("it listens", || host.dhow(["logs", "echo"]).ok().contains("listening").then_some(()));
    let script = ["busybox:1", "sh", "-c", "ip address show eth0 | grep -o 'inet [0-9.]*'"];
    let shown = host.dhow([&["run", "--rm", "--network", "container:echo"][..], &script].concat()).ok();
    assert_eq!(shown, format!("inet {}\n", address(host, "echo", "back")));
    host.dhow(["run", "-d", "--name", "alone", "./sockets.wasm", "echo", "7"]).outcome();
    for program in [&["busybox:1", "true"][..], &["./sockets.wasm", "names"]] {
        let line = [&["run", "--rm", "--network", "container:alone"][..], program].concat();
        let refused = host.dhow(line).outcome();
        assert_eq!(refused.code, 125, "{refused:#?}");
    }
    wasm("nosuch", &["names"]).rejected(125, "No such container: nosuch");
    host.dhow(["run", "--rm", "--network", "container:web", "-p", "80", "./sockets.wasm", "names"])
        .rejected(125, "conflicting options: port publishing and the container type network mode");
}
