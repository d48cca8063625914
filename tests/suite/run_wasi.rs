//! WASI 0.1 end to end: what modules find when `dhow run` starts them, beyond streams and files. The public tests are
//! run by hand with `tests/conformance/wasi`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::support::{Host, Image, Run, Tree, guest, source};

fn reactor() -> Vec<u8> {
    fs_err::read(source("reactor.wat")).unwrap()
}

#[test]
fn one_function_can_be_called() {
    let host = Host::new();
    host.file("reactor.wat", reactor());
    assert_eq!(host.dhow(["run", "--rm", "--invoke", "add", "./reactor.wat", "2", "0x20"]).ok(), "134\n");
    let run = host.dhow(["run", "--rm", "--invoke", "sub", "./reactor.wat"]);
    run.refused(126, "cannot call sub: it exports no such function, but _initialize, add");
    host.dhow(["run", "--rm", "--invoke", "add", "./reactor.wat", "1"]).refused(126, "it takes (i32, i32)");
    host.dhow(["run", "--rm", "./reactor.wat"]).refused(126, "exports no function _start");
}

#[test]
fn an_image_s_entry_point_may_name_a_function() {
    for platform in ["wasi/wasm", "linux/amd64"] {
        let image = Image::new(platform)
            .layer(Tree::new().file("reactor.wasm", 0o644, &*wat::parse_bytes(&reactor()).unwrap()))
            .entrypoint(&["/reactor.wasm#add"])
            .cmd(&["1", "2"]);
        let host = Host::with(&[("reactor:1", image)]);
        assert_eq!(host.dhow(["run", "--rm", "reactor:1"]).ok(), "103\n", "{platform}");
        assert_eq!(host.dhow(["run", "--rm", "reactor:1", "-1", "1"]).ok(), "100\n", "{platform}");
        let run = host.dhow(["run", "--rm", "--invoke", "none", "reactor:1"]);
        run.refused(126, "cannot call none: it exports no such function");
        host.dhow(["run", "--rm", "--entrypoint", "/none.wasm#add", "reactor:1"]).refused(127, "/none.wasm");
    }
}

/// Starts a guest and waits for its first line.
fn start(run: Run) -> (Child, String) {
    let mut command = run.into_command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        if child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 0 {
            break;
        }
        line.extend(byte);
    }
    (child, String::from_utf8(line).unwrap())
}

#[test]
fn functions_answer_as_they_should_on_every_file_system() {
    let image = Image::wasm()
        .layer(
            Tree::new()
                .file("lower.txt", 0o644, "lower\n")
                .symlink("link", "lower.txt")
                .dir("dir", 0o755)
                .file("dir/a", 0o644, "")
                .file("dir/gone", 0o644, ""),
        )
        .layer(Tree::new().dir("dir", 0o755).whiteout("dir/gone").file("dir/b", 0o644, ""))
        .layer(Tree::new().file("wasi.wasm", 0o644, guest("wasi.wasm")))
        .entrypoint(&["/wasi.wasm"]);
    let host = Host::with(&[("wasi:1", image)]);
    assert_eq!(host.dhow(["run", "--rm", "wasi:1"]).ok(), "", "layers");
    assert_eq!(host.dhow(["run", "--rm", "wasi:1"]).ok(), "", "layers, which nobody has changed");
    host.file("d/lower.txt", "lower\n");
    host.file("d/dir/a", "");
    host.file("d/dir/b", "");
    #[cfg(unix)]
    std::os::unix::fs::symlink("lower.txt", host.path("d/link")).unwrap();
    host.file("wasi.wasm", guest("wasi.wasm"));
    let mount = format!("{}:/scratch", host.text("d"));
    let run = host.dhow(["run", "--rm", "-v", &mount, "-w", "/scratch", "./wasi.wasm", "/scratch"]);
    assert_eq!(run.ok(), "", "a mount");
}

#[test]
fn standard_input_need_not_block() {
    let host = Host::new();
    host.file("wasi.wasm", guest("wasi.wasm"));
    let (mut child, line) = start(host.dhow(["run", "--rm", "-i", "./wasi.wasm", "stdin"]));
    assert_eq!(line, "ready\n");
    child.stdin.as_mut().unwrap().write_all(b"line\n").unwrap();
    let mut rest = String::new();
    child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(0), ""));
}

/// Ports that were free a moment ago.
fn ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[test]
fn published_ports_are_listening_sockets() {
    let host = Host::new();
    host.file("echo.wasm", guest("echo.wasm"));
    let [one, two] = ports();
    let publish = [format!("127.0.0.1:{one}:7"), format!("127.0.0.1:{two}:9/tcp")];
    for mode in ["", "poll"] {
        let run = host.dhow(["run", "--rm", "-p", &publish[0], "-p", &publish[1], "./echo.wasm"]);
        let (mut child, line) = start(run.args([mode, "4"].iter().filter(|arg| !arg.is_empty())));
        assert_eq!(line, "2 sockets for 7:9\n", "{mode}");
        let busy = host.dhow(["run", "--rm", "-p", &publish[0], "./echo.wasm"]).outcome();
        assert!(busy.code == 125 && busy.stderr.contains(&one.to_string()), "{busy:#?}");
        let mut open = Vec::new();
        for port in [one, two, one, two] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"hello ").unwrap();
            open.push(stream);
        }
        for stream in &mut open {
            stream.write_all(b"world").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "hello world", "{mode}");
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{mode}");
    }
    assert_eq!(host.dhow(["run", "--rm", "./echo.wasm"]).ok(), "0 sockets for nothing\n");
}

#[test]
fn descriptors_are_limited() {
    let host = Host::new();
    host.file("hello.wat", fs_err::read(source("hello.wat")).unwrap());
    let run = host.dhow(["run", "--rm", "--ulimit", "nofile=3", "./hello.wat"]);
    run.refused(125, "3 descriptors are not enough for what the program starts with");
    assert_eq!(host.dhow(["run", "--rm", "--ulimit", "nofile=4", "./hello.wat"]).ok(), "hello from text\n");
}

#[test]
fn a_server_in_go() {
    let host = Host::new();
    host.file("go.wasm", guest("go.wasm"));
    let [port] = ports();
    let publish = format!("127.0.0.1:{port}:7");
    let run = host.dhow(["run", "--rm", "-p", &publish, "./go.wasm", "-echo"]);
    let (mut child, line) = start(run);
    assert_eq!(line, "listening\n");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!((&back, rest.as_str(), child.wait().unwrap().code()), (b"hello", "sent back 5\n", Some(0)));
}
