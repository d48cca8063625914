//! Against a server of our own, which answers as a table says, badly if it is told to.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket as Socket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

/// Answers questions by UDP, and by TCP for names that begin with `long`.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        // A port that is free by UDP may not be by TCP.
        let both = || {
            let socket = Socket::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            Some((TcpListener::bind(address).ok()?, socket, address))
        };
        let (listener, socket, address) = (0..100).find_map(|_| both()).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                counter.fetch_add(1, Ordering::Relaxed);
                for reply in replies(&buffer[..length], false) {
                    socket.send_to(&reply, from).ok();
                }
            }
        });
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_ok() {
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question).unwrap();
                    let reply = replies(&question, true).concat();
                    let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length[..], &reply].concat()).ok();
                }
            }
        });
        Self { address, asked }
    }

    fn resolver(&self) -> Resolver {
        let search = vec!["corp.example".to_owned()];
        Resolver::new(
            vec![("db".to_owned(), "10.0.0.5".parse().unwrap())],
            vec![self.address],
            search,
            Box::new(|| Some(b"192.0.2.9 inside # c\nnonsense\n::5 inside other\n".to_vec())),
        )
    }
}

/// What the server says to one question.
fn replies(question: &[u8], tcp: bool) -> Vec<Vec<u8>> {
    let mut name = String::new();
    let mut at = 12;
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        name.push_str(std::str::from_utf8(&question[at + 1..end]).unwrap());
        name.push('.');
        at = end;
    }
    let v4 = question[at + 2] == 1;
    let question = &question[..at + 5];
    let address = |last: u8| {
        let mut record =
            vec![0xc0, 12, 0, if v4 { 1 } else { 28 }, 0, 1, 0, 0, 0, 60, 0, if v4 { 4 } else { 16 }];
        record.extend(if v4 {
            vec![192, 0, 2, last]
        } else {
            [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat()
        });
        record
    };
    let reply = |flags: u16, records: &[Vec<u8>]| {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[7] = u8::try_from(records.len()).unwrap();
        message.extend(records.concat());
        message
    };
    match name.as_str() {
        "www.example.com." | "short.corp.example." => vec![reply(0, &[address(1)])],
        "v4.example.com." => vec![reply(0, &[]), reply(0, &[address(9)])],
        "alias.example.com." => {
            let mut record = vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 17];
            record.extend(b"\x03www\x07example\x03com\0");
            vec![reply(0, &[record])]
        }
        "circle.example.com." => {
            vec![reply(0, &[[&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2][..], &[0xc0, 12]].concat()])]
        }
        "long.example.com." if !tcp => vec![reply(0x200, &[])],
        "long.example.com." => vec![reply(0, &(0..40).map(address).collect::<Vec<_>>())],
        "forged.example.com." => {
            let mut other = reply(0, &[address(66)]);
            other[0] ^= 0xff;
            vec![vec![], b"nonsense".to_vec(), other, reply(0, &[address(2)])]
        }
        "broken.example.com." => vec![reply(2, &[])],
        _ => vec![reply(3, &[])],
    }
}

fn look_up(resolver: &Resolver, name: &str) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let candidates = resolver.candidates(name).ok_or(Failure::Invalid)?;
    let (found, _) = runtime.block_on(resolver.lookup(&candidates))?;
    Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

#[test]
fn names() {
    let server = Server::start();
    let resolver = server.resolver();
    for (name, expected) in [
        ("www.example.com", Ok("192.0.2.1 2001:db8::1")),
        ("WWW.Example.Com.", Ok("192.0.2.1 2001:db8::1")),
        ("alias.example.com", Ok("192.0.2.1 2001:db8::1")),
        ("short", Ok("192.0.2.1 2001:db8::1")),
        ("forged.example.com", Ok("192.0.2.2 2001:db8::2")),
        ("db", Ok("10.0.0.5")),
        ("inside", Ok("192.0.2.9 ::5")),
        ("localhost", Ok("127.0.0.1 ::1")),
        ("nothing.example.com", Err(Failure::NoName)),
        ("v4.example.com", Err(Failure::NoName)),
        ("circle.example.com", Err(Failure::Refused)),
        ("broken.example.com", Err(Failure::Refused)),
        ("", Err(Failure::Invalid)),
        ("a b", Err(Failure::Invalid)),
        ("a\0b", Err(Failure::Invalid)),
    ] {
        assert_eq!(look_up(&resolver, name).as_deref(), expected.as_ref().map(|text| *text), "{name:?}");
    }
    let long = look_up(&resolver, "long.example.com").unwrap();
    assert_eq!(long.split(' ').count(), 80, "by a connection where datagrams are too small");
}

#[test]
fn answers_are_kept() {
    let server = Server::start();
    let resolver = server.resolver();
    for _ in 0..5 {
        look_up(&resolver, "www.example.com").unwrap();
        look_up(&resolver, "nothing.example.com.").unwrap_err();
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 4, "two kinds of addresses for two names");
}

#[test]
fn configuration() {
    let text = "# c\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver bad\nsearch a.example b.example\n\
                options ndots:2 timeout:99 attempts:0 rotate\n";
    let servers = parse_resolv_conf(text);
    assert_eq!(servers.addresses, ["10.0.0.1:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
    assert_eq!(servers.search, ["a.example", "b.example"]);
    assert_eq!((servers.dots, servers.wait.as_secs(), servers.attempts), (2, 10, 1));
    assert_eq!(parse_resolv_conf("").addresses, ["127.0.0.1:53".parse().unwrap()]);
}
