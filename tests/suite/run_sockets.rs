//! `wasi:sockets`: nothing is open unless it is published or allowed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::support::{Host, Run, guest};

fn host() -> Host {
    let host = Host::new();
    host.file("sockets.wasm", guest("sockets.wasm"));
    host
}

/// `dhow run --rm OPTIONS ./sockets.wasm WORDS`.
fn run(host: &Host, options: &[&str], words: &[&str]) -> Run {
    let all = [&["run", "--rm"], options, &["./sockets.wasm"], words].concat();
    host.dhow(all)
}

#[test]
fn a_published_port_is_the_programs_own() {
    let host = host();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut echo = run(&host, &["-p", &format!("127.0.0.1:{port}:7")], &["echo", "7"]).spawn();
    echo.until("listening on 127.0.0.1:7\n");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    drop(stream);
    let outcome = echo.outcome();
    assert_eq!((outcome.code, outcome.stdout.ends_with("over\n")), (0, true), "{outcome:#?}");
}

#[test]
fn datagrams_come_to_a_published_port() {
    let host = host();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut udp = run(&host, &["-p", &format!("127.0.0.1:{port}:53/udp")], &["udp", "53"]).spawn();
    udp.until("bound to 127.0.0.1:53\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"datagram", ("127.0.0.1", port)).unwrap();
    let outcome = udp.outcome();
    assert!(outcome.code == 0 && outcome.stdout.ends_with("datagram\n"), "{outcome:#?}");
}

#[test]
fn nothing_else_is_open() {
    let host = host();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(b"welcome\n").ok();
        }
    });
    for (options, words, code, said) in [
        (&[][..], &["connect", &address][..], 1, "access-denied\n"),
        (&["--allow-net", "*"], &["connect", &address], 1, "access-denied\n"),
        (&["--allow-net", "127.0.0.1:1"], &["connect", &address], 1, "access-denied\n"),
        (&["--allow-net", "127.0.0.0/8"], &["connect", &address], 0, "welcome\n"),
        (&["--allow-net", "localhost"], &["connect", &address], 0, "welcome\n"),
        (&["--network", "host"], &["connect", &address], 0, "welcome\n"),
        (&["--network", "none", "--allow-net", "localhost"], &["connect", &address], 1, "access-denied\n"),
        (&[], &["echo", "7"], 1, "access-denied\n"),
        (&["-p", "127.0.0.1::8"], &["echo", "7"], 1, "access-denied\n"),
        (&[], &["echo", "0"], 1, "access-denied\n"),
    ] {
        let outcome = run(&host, options, words).outcome();
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (code, said),
            "{options:?} {words:?}: {outcome:#?}"
        );
        let told = outcome.stderr.contains("--allow-net");
        // Without any network there are no sockets, and so nothing to tell of.
        let asked = code == 1 && words[0] == "connect" && options.first() == Some(&"--allow-net");
        assert_eq!(told, asked, "{options:?}: {outcome:#?}");
    }
}

#[test]
fn names_are_looked_up_by_rules() {
    let host = host();
    let options = [
        "--add-host",
        "db.test:192.0.2.5",
        "--add-host",
        "other.test:192.0.2.6",
        "--allow-net",
        "db.test",
        "--allow-net",
        "localhost",
        "--allow-net",
        "*.none.invalid",
        "--dns",
        "127.0.0.1:9",
    ];
    let words = ["names", "db.test", "DB.test.", "other.test", "localhost", "192.0.2.7", "a b"];
    let said = run(&host, &options, &words).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "db.test: 192.0.2.5",
            "DB.test.: 192.0.2.5",
            "other.test: access-denied",
            "localhost: 127.0.0.1",
            "192.0.2.7: 192.0.2.7",
            "a b: invalid-argument",
        ]
    );
}

#[test]
fn sockets_are_bounded_by_open_files() {
    let host = host();
    let mut shell = std::process::Command::new("sh");
    let command = run(&host, &["--network", "host"], &["many", "1000"]).into_command();
    shell
        .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().expect("a folder of its own"));
    let said = Run::new(shell).ok();
    assert!(said.ends_with(" after some\n"), "{said}");
}
