//! WebAssembly programs in networks: an address and a name of their own, beside native containers.

use super::network::networked;
use crate::support::*;

#[test]
fn a_program_is_in_a_network_like_any_other() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.file("sockets.wasm", guest("sockets.wasm"));
    host.dhow(["network", "create", "back"]).ok();
    let script = "while true; do echo word | nc -l -p 80; done";
    host.dhow(["run", "-d", "--name", "native", "--network", "back", "busybox:1", "sh", "-c", script]).ok();
    let of = |name: &str| {
        let format = "{{.NetworkSettings.Networks.back.IPAddress}}";
        host.dhow(["inspect", name, "--format", format]).ok().trim().to_owned()
    };
    // It finds and reaches a native container.
    let wasm =
        |words: &[&str]| host.dhow([&["run", "--rm", "--network", "back", "./sockets.wasm"], words].concat());
    assert_eq!(wasm(&["names", "native"]).ok(), format!("native: {}\n", of("native")));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while wasm(&["connect", &format!("{}:80", of("native"))]).outcome().stdout != "word\n" {
        assert!(std::time::Instant::now() < deadline, "not reached");
    }
    // And the reverse, by name and by a published port.
    let ports = ["-p", "127.0.0.1::7", "--network-alias", "alias"];
    host.dhow(
        [&["run", "-d", "--name", "wasm", "--network", "back"][..], &ports, &["./sockets.wasm", "echo", "7"]]
            .concat(),
    )
    .ok();
    assert_eq!(host.dhow(["exec", "native", "nslookup", "alias"]).ok().matches(&of("wasm")).count(), 1);
    until("it listens", || host.dhow(["logs", "wasm"]).ok().contains("listening on 0.0.0.0:7").then_some(()));
    let port = host.dhow(["port", "wasm", "7"]).ok();
    let mut stream = std::net::TcpStream::connect(port.trim()).expect("a published port");
    std::io::Write::write_all(&mut stream, b"hello").expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stream, &mut said).expect("answer");
    assert_eq!(said, "hello");
    assert_eq!(host.dhow(["wait", "wasm"]).ok(), "0\n");
    host.dhow(["start", "wasm"]).ok();
    let script = "until nc alias 7 </dev/null; do sleep 0.05; done";
    host.dhow(["exec", "native", "sh", "-c", script]).ok();
    // What it reaches is the network's to say.
    host.dhow(["run", "--rm", "--network", "back", "--allow-net", "*", "./sockets.wasm", "names"])
        .rejected(125, "conflicting options: --allow-net");
    // Without a network it has what it had: nothing.
    assert_eq!(host.dhow(["run", "--rm", "./sockets.wasm", "echo", "7"]).fails(1).stdout, "access-denied\n");
}
