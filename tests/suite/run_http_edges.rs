//! HTTP services and clients that want too much, or go: connections without end, no descriptors left, requests that
//! never end, nonsense in the middle of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};

use super::run_http::{Service, get, status};
use crate::support::until;

const HELLO: (u16, &str) = (200, "Hello from Wasm\n");

fn greets(service: &Service) -> bool {
    let (code, text) = service.get("/");
    (code, text.as_str()) == HELLO
}

/// The process that serves, and what it has used of a processor, in clock ticks.
fn pid(service: &Service) -> i32 {
    service.host.dhow(["inspect", "-f", "{{.State.Pid}}", "web"]).ok().trim().parse().unwrap()
}

fn ticks(pid: i32) -> u64 {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn ten_thousand_idle_connections() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    // Each one is a descriptor on either side.
    let count = usize::try_from(hard.unwrap_or(1 << 20)).unwrap().saturating_sub(500).min(10_000);
    let service = Service::start(&[]);
    assert!(greets(&service));
    let mut idle = Vec::new();
    for number in 0..count {
        let stream = TcpStream::connect(("127.0.0.1", service.port));
        idle.push(stream.unwrap_or_else(|error| panic!("connection {number}: {error}")));
    }
    assert!(greets(&service), "with {count} others connected");
    // They are served as others are when they say something at last.
    let mut last = idle.pop().unwrap();
    last.write_all(b"GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(HELLO.1), "{answer}");
    let status = fs_err::read_to_string(format!("/proc/{}/status", pid(&service))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 400 << 10, "{count} connections take {kilobytes} kB");
    drop(idle);
    assert_eq!(service.stop().0, 0);
}

#[test]
fn a_service_without_descriptors_waits_for_some() {
    let service = Service::start(&[]);
    assert!(greets(&service));
    let pid = pid(&service);
    let process = rustix::process::Pid::from_raw(pid);
    let used = fs_err::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let limit = Rlimit { current: Some(used + 8), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(process, Resource::Nofile, limit).unwrap();
    let many: Vec<TcpStream> = (0..100).map(|_| service.connect()).collect();
    until("it has none left", || {
        (fs_err::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64 >= used + 8).then_some(())
    });
    // It waits, and does not try without end.
    let before = ticks(pid);
    thread::sleep(Duration::from_secs(2));
    let spent = ticks(pid) - before;
    assert!(spent < 100, "{spent} ticks in two seconds");
    drop(many);
    until("it serves again", || greets(&service).then_some(()));
    assert_eq!(service.stop().0, 0);
}

#[test]
fn requests_that_never_end_hold_up_nobody() {
    let service = Service::start(&["--timeout", "1s"]);
    // More than are answered at once; each waits for a body that does not come.
    let mut slow: Vec<TcpStream> = (0..150).map(|_| service.connect()).collect();
    for stream in &mut slow {
        stream
            .write_all(b"POST /length HTTP/1.1\r\nHost: w\r\nContent-Length: 1000\r\n\r\nbeginning")
            .unwrap();
    }
    for stream in &mut slow {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        let code = status(&String::from_utf8_lossy(&answer));
        assert!([504, 503].contains(&code), "{code}");
    }
    until("its turn comes", || greets(&service).then_some(()));
    // A byte at a time is no better.
    let mut stream = service.connect();
    stream.write_all(b"POST /length HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..30 {
        if stream.write_all(b"1\r\nx\r\n").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok();
    assert!(answer.is_empty() || status(&answer) == 504, "{answer}");
    assert_eq!(service.stop().0, 0);
}

#[test]
fn requests_behind_each_other_are_answered_in_order() {
    let service = Service::start(&["-e", "A=one", "-e", "B=two"]);
    let pipelined = b"GET /env?A HTTP/1.1\r\nHost: w\r\n\r\nGET /env?B HTTP/1.1\r\nHost: w\r\n\r\n\
        GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n";
    let answers = service.raw(pipelined);
    let places: Vec<_> = ["one", "two", HELLO.1].iter().map(|text| answers.find(text)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answers}");
    assert_eq!(service.stop().0, 0);
}

#[test]
fn bodies_that_are_nonsense() {
    let service = Service::start(&[]);
    let post = |rest: &str| format!("POST /length HTTP/1.1\r\nHost: w\r\nConnection: close\r\n{rest}");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    for (rest, codes) in [
        (format!("{chunked}zz\r\nabc\r\n0\r\n\r\n"), &[400, 500, 0][..]),
        (format!("{chunked}ffffffffffffffffff\r\nabc\r\n"), &[400, 500, 0]),
        (format!("{chunked}-1\r\nabc\r\n0\r\n\r\n"), &[400, 500, 0]),
        (format!("{chunked}3\r\nabcdef\r\n0\r\n\r\n"), &[400, 500, 0]),
        (format!("{chunked}3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(100_000)), &[400, 500, 0]),
        (format!("{chunked}0\r\n{}\r\n", "T: t\r\n".repeat(50_000)), &[200, 400, 431, 500, 0]),
        ("Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde".to_owned(), &[400]),
        ("Content-Length: 99999999999999999999\r\n\r\nabc".to_owned(), &[400]),
        ("Content-Length: -3\r\n\r\nabc".to_owned(), &[400]),
        ("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n".to_owned(), &[400]),
        ("Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n".to_owned(), &[400]),
        // Both say where the body ends: the chunks count, and nothing behind them is another request.
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".to_owned(),
            &[200, 400],
        ),
    ] {
        let answer = service.raw(post(&rest).as_bytes());
        let shown = &rest[..rest.len().min(60)];
        assert!(codes.contains(&status(&answer)), "{shown}: {answer}");
        assert!(answer.matches("HTTP/1.1").count() < 2, "{shown}: {answer}");
        assert!(greets(&service), "after {shown}");
    }
    assert_eq!(service.stop().0, 0);
}

#[test]
fn clients_that_go_leave_nothing_behind() {
    let service = Service::start(&[]);
    // More than are answered at once, each in the middle of its answer.
    for _ in 0..150 {
        let mut stream = service.connect();
        stream.write_all(b"GET /stream?2000 HTTP/1.1\r\nHost: w\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
    }
    until("all of them are gone", || greets(&service).then_some(()));
    let (code, _, stderr) = service.stop();
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn one_that_fails_does_not_disturb_the_others() {
    let service = Service::start(&[]);
    let port = service.port;
    thread::scope(|scope| {
        let streams: Vec<_> = (0..8).map(|_| scope.spawn(move || get(port, "/stream?40"))).collect();
        for _ in 0..8 {
            assert_eq!(service.get("/trap").0, 500);
            assert_eq!(service.get("/exit").0, 500);
        }
        for stream in streams {
            let (code, text) = stream.join().unwrap();
            assert!(code == 200 && text.contains("line 39") && text.ends_with("0\r\n\r\n"), "{text}");
        }
    });
    // All that are being answered are finished when it stops, and no other is begun.
    let mut open: Vec<TcpStream> = (0..20).map(|_| service.connect()).collect();
    for stream in &mut open {
        stream.write_all(b"GET /stream?8 HTTP/1.1\r\nHost: w\r\n\r\n").unwrap();
    }
    for stream in &mut open {
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
    }
    service.running.signal(Signal::TERM);
    for stream in &mut open {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("line 7") && rest.ends_with("0\r\n\r\n"), "{rest}");
    }
    assert_eq!(service.running.outcome().code, 0);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
