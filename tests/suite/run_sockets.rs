//! `wasi:sockets`: nothing is open unless it is published or allowed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

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
    let mut back = [0; 100];
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = socket.recv(&mut back).unwrap();
    assert_eq!(&back[..length], b"datagram", "who asks is answered, whatever else is denied");
    let outcome = udp.outcome();
    let said = "datagram\nsent back: true\n";
    assert!(outcome.code == 0 && outcome.stdout.ends_with(said), "{outcome:#?}");
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
            "localhost: 127.0.0.1 ::1",
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

#[test]
fn everything_by_ipv6_as_well() {
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        println!("skipped: this host has no IPv6");
        return;
    };
    let host = host();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let mut echo = run(&host, &["-p", &format!("[::1]:{port}:7")], &["echo6", "7"]).spawn();
    echo.until("listening on [::1]:7\n");
    // The other side is a program as well.
    let rule = format!("[::1]:{port}");
    let said = run(&host, &["--allow-net", &rule], &["connect", &rule]).ok();
    assert_eq!(said, "hello\n");
    assert_eq!(echo.outcome().code, 0);

    let port = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    let mut udp = run(&host, &["-p", &format!("[::1]:{port}:53/udp")], &["udp6", "53"]).spawn();
    udp.until("bound to [::1]:53\n");
    let place = format!("[::1]:{port}");
    assert_eq!(run(&host, &["--allow-net", "::1"], &["send", &place, "by six"]).ok(), "by six\n");
    let outcome = udp.outcome();
    assert!(outcome.code == 0 && outcome.stdout.contains("by six\n"), "{outcome:#?}");
    let denied = run(&host, &["--allow-net", "127.0.0.1"], &["send", &place, "x"]).fails(1);
    assert_eq!(denied.stdout, "access-denied\n");
}

/// A server of names: answers A and AAAA for what it knows, in a datagram or, if it is long, over a connection only.
fn names_server() -> String {
    // A port that is free for both.
    let both = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        TcpListener::bind(address).ok().map(|listener| (socket, listener, address))
    };
    let (socket, listener, address) = std::iter::repeat_with(both).take(100).flatten().next().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for reply in replies(&buffer[..length], false) {
                socket.send_to(&reply, from).ok();
            }
        }
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            for reply in replies(&question, true) {
                let length = u16::try_from(reply.len()).unwrap();
                stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).ok();
            }
        }
    });
    address.to_string()
}

fn replies(question: &[u8], connected: bool) -> Vec<Vec<u8>> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap();
    let (name, kind) = (question[12..=end].to_vec(), question[end + 2]);
    let reply = |flags: u16, records: &[Vec<u8>]| {
        let mut all = question[..end + 5].to_vec();
        all[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        all[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        [all, records.concat()].concat()
    };
    let address = |last: u8| match kind {
        1 => [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &[198, 51, 100, last]].concat(),
        _ => {
            [&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16, 0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat()
        }
    };
    match name.as_slice() {
        b"\x03one\x04test\0" | b"\x05short\x04corp\x04test\0" => vec![reply(0, &[address(1)])],
        b"\x04long\x04test\0" if !connected => vec![reply(0x200, &[address(9)])],
        b"\x04long\x04test\0" => vec![reply(0, &(1..=60).map(address).collect::<Vec<_>>())],
        // A name that is made of itself, one that goes round, an answer to another question, none at all.
        b"\x04loop\x04test\0" => {
            let own = question.len().to_le_bytes()[0];
            vec![reply(0, &[vec![0xc0, own, 0, kind, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]])]
        }
        b"\x06circle\x04test\0" => vec![reply(0, &[vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]])],
        b"\x06forged\x04test\0" => {
            let mut other = reply(0, &[address(66)]);
            other[0] ^= 0xff;
            vec![vec![0; 700], other, reply(0, &[address(2)])]
        }
        _ => vec![reply(3, &[])],
    }
}

#[test]
fn names_are_asked_of_the_servers_that_are_given() {
    let host = host();
    let server = names_server();
    let base = ["--dns", &server, "--dns-search", "corp.test", "--add-host", "two.test:192.0.2.77"];
    let open = [&base[..], &["--allow-net", "*.test", "--allow-net", "short"]].concat();
    let words =
        ["names", "one.test", "ONE.Test.", "short", "forged.test", "circle.test", "none.test", "two.test"];
    let said = run(&host, &open, &words).ok();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "one.test: 198.51.100.1 2001:db8::1",
            "ONE.Test.: 198.51.100.1 2001:db8::1",
            "short: 198.51.100.1 2001:db8::1",
            "forged.test: 198.51.100.2 2001:db8::2",
            "circle.test: permanent-resolver-failure",
            "none.test: name-unresolvable",
            "two.test: 192.0.2.77",
        ]
    );
    let long = run(&host, &open, &["names", "long.test"]).ok();
    assert_eq!(long.matches("198.51.100.").count(), 60, "{long}");
    // What the server says of a name that the user has given an address is not asked.
    let given = [&base[..], &["--add-host", "one.test:192.0.2.78", "--allow-net", "*.test"]].concat();
    assert_eq!(run(&host, &given, &["names", "one.test"]).ok(), "one.test: 192.0.2.78\n");
}
