//! Names, and a conversation with a stand-in for systemd on a bus of its own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

use super::*;

#[test]
fn names_become_units() {
    let unit = |path: &str, rootless| Unit::new(Some(Path::new(path)), "id", None, rootless).ok();
    for (path, rootless, name, slice) in [
        ("a.slice:p:n", false, "p-n.scope", "a.slice"),
        (":p:n", false, "p-n.scope", "system.slice"),
        ("system.slice::n", true, "n.scope", "user.slice"),
        ("", false, "dhow-id.scope", "system.slice"),
        ("-.slice:p:n", false, "p-n.scope", "-.slice"),
    ] {
        let unit = unit(path, rootless).expect(path);
        assert_eq!((unit.name.as_str(), unit.slice.as_str()), (name, slice), "{path}");
    }
    for path in [
        "/a/b",
        "a:b",
        "a.slice:p:",
        "a:p:n",
        "a.slice:p:n.slice",
        "a.slice:../p:n",
        "a--b.slice:p:n",
        "a.slice:p:x y",
    ] {
        assert!(unit(path, false).is_none(), "{path}");
    }
    for (path, is) in [
        ("a.slice:p:n", true),
        ("kubepods-besteffort-pod1.slice:cri-containerd:2", true),
        (":p:n", false),
        ("a.slice", false),
        ("/a.slice:p:n", false),
        ("a.slice:p", false),
        ("a.slice:p:n:o", false),
        ("/kubepods/pod1/2", false),
    ] {
        assert_eq!(is_units(Path::new(path)), is, "{path}");
    }
    assert_eq!(expand("a-b-c.slice"), Some("a.slice/a-b.slice/a-b-c.slice".into()));
    assert_eq!(expand("-.slice"), Some(PathBuf::new()));
    let at = |path: &str| Unit::at(Path::new(path)).map(|unit| (unit.name, unit.users));
    assert_eq!(at("/sys/fs/cgroup/system.slice/x.scope"), Some(("x.scope".to_owned(), false)));
    let user = "/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/user.slice/x.scope";
    assert_eq!(at(user), Some(("x.scope".to_owned(), true)));
    assert_eq!(at("/sys/fs/cgroup/memory/dhow/x"), None);
    assert_eq!(mask("0-2,9"), Some(vec![7, 2]));
}

/// A bus that ends with the test.
struct Daemon {
    process: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("bus");
        let config = folder.path().join("config");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>session</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\" \
             eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        fs::write(&config, text).expect("config");
        let mut process = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--print-address")
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need the package dbus-daemon");
        // It listens once it has said where.
        let mut line = String::new();
        let said = process.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("its address");
        Self { process, socket, _folder: folder }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("the end of the bus");
    }
}

/// What the stand-in was called with: method and the bytes of its arguments.
type Heard = Vec<(String, Vec<u8>)>;

/// Answers as systemd does until it has heard `calls` calls.
fn stand_in(socket: &Path, calls: usize, result: &str) -> std::thread::JoinHandle<Heard> {
    let mut bus = Bus::connect(socket).expect("a connection");
    bus.own("org.freedesktop.systemd1").expect("the name");
    let result = result.to_owned();
    std::thread::spawn(move || {
        let mut heard = Heard::new();
        while heard.len() < calls {
            let Some((member, body)) = bus.serve(&result) else { continue };
            heard.push((member, body));
        }
        heard
    })
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_scope_is_made_changed_and_stopped() {
    let daemon = Daemon::start();
    let systemd = stand_in(&daemon.socket, 6, "done");
    let resources = LinuxResourcesBuilder::default()
        .memory(LinuxMemoryBuilder::default().limit(1 << 20).swap(2 << 20).build().expect("memory"))
        .cpu(
            LinuxCpuBuilder::default()
                .quota(50_000)
                .period(100_000_u64)
                .shares(512_u64)
                .cpus("0-1")
                .build()
                .expect("cpu"),
        )
        .pids(LinuxPidsBuilder::default().limit(7).build().expect("pids"))
        .build()
        .expect("resources");
    let path = Path::new("a-b.slice:p:n");
    let unit = Unit::new(Some(path), "id", Some(&resources), false).expect("a unit");
    let mut unit = unit.with_bus(&daemon.socket);
    let own = std::process::id();
    assert_eq!(unit.start(own).expect("started"), Some(resources.clone()));
    assert_eq!(unit.place(own).expect("a place"), Path::new("a.slice/a-b.slice/p-n.scope"));
    unit.update(&resources).expect("changed");
    unit.stop();
    let heard = systemd.join().expect("the stand-in");
    let members: Vec<&str> = heard.iter().map(|(member, _)| member.as_str()).collect();
    let expected =
        ["Subscribe", "StartTransientUnit", "SetUnitProperties", "Subscribe", "StopUnit", "ResetFailedUnit"];
    assert_eq!(members, expected);
    let start = &heard[1].1;
    for text in ["p-n.scope", "replace", "a-b.slice", "Delegate", "PIDs", "CPUQuotaPerSecUSec", "TasksMax"] {
        assert!(contains(start, text), "{text}");
    }
}

#[test]
fn what_systemd_refuses_is_an_error() {
    let daemon = Daemon::start();
    let systemd = stand_in(&daemon.socket, 2, "failed");
    let mut unit = Unit::new(None, "id", None, false).expect("a unit").with_bus(&daemon.socket);
    let error = unit.start(1).expect_err("the job failed").to_string();
    assert!(error.contains("StartTransientUnit") && error.contains("failed"), "{error}");
    systemd.join().expect("the stand-in");
    // Nobody has the name any more; and nobody listens.
    let error = unit.start(1).expect_err("no systemd").to_string();
    assert!(error.contains("org.freedesktop.DBus.Error"), "{error}");
    let error = unit.with_bus(Path::new("/nowhere/bus")).start(1).expect_err("no bus").to_string();
    assert!(error.contains("/nowhere/bus"), "{error}");
}

/// A bus that says nonsense does not hang or crash its caller.
#[test]
fn hostile_answers_are_errors() {
    let answers: [&[u8]; 4] = [
        b"REJECTED EXTERNAL\r\n",
        b"OK 1\r\nl\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00",
        b"OK 1\r\nl\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x05\x01v\x00\x01\x01\x01\x01",
        b"OK 1\r\n",
    ];
    for answer in answers {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("bus");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let server = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _): (UnixStream, _) = listener.accept().expect("a client");
            let mut asked = [0; 64];
            let _length = stream.read(&mut asked).expect("a question");
            stream.write_all(answer).expect("an answer");
            stream.shutdown(std::net::Shutdown::Write).expect("the end");
            stream.read_to_end(&mut Vec::new()).ok();
        });
        assert!(Bus::connect(&socket).is_err(), "{answer:?}");
        server.join().expect("the server");
    }
}
