//! The shim asked directly, as every version of containerd asks: bootstrap, both names of the task service, and requests that
//! nobody should make. Events go to a server of the test's own. The sandbox service is in `sandbox`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::made::{is_root, until};
use crate::messages::events::Forward;
use crate::messages::{
    Any, BootstrapParams, BootstrapResult, Connected, CreateTask, Deleted, ExecProcess, Id, Kill, Pid, Pids,
    Request, ResizePty, Response, State, Stats, Target, UpdateTask, Waited,
};
use crate::support::SHIM;
use crate::wire::Message;

/// A shim that no containerd has started.
pub(crate) struct Shim {
    pub(crate) dir: tempfile::TempDir,
    socket: UnixStream,
    pub(crate) address: String,
    pub(crate) service: &'static str,
    next: u32,
    topics: Arc<Mutex<Vec<String>>>,
}

/// A code and words.
pub(crate) type Refusal = (i32, String);

impl Shim {
    pub(crate) fn new() -> Option<Self> {
        Self::with(&json!({}))
    }

    /// With annotations.
    pub(crate) fn with(annotations: &Value) -> Option<Self> {
        if !is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("dhow-ask-").tempdir().unwrap();
        let topics = Arc::new(Mutex::new(Vec::new()));
        let events = UnixListener::bind(dir.path().join("events")).unwrap();
        let heard = Arc::clone(&topics);
        std::thread::spawn(move || listen(&events, &heard));
        bundle(&dir.path().join("one"), annotations);
        let address = String::from_utf8(start(dir.path(), "one", None)).unwrap();
        let socket = UnixStream::connect(address.strip_prefix("unix://").unwrap()).unwrap();
        Some(Self { dir, socket, address, service: "containerd.task.v2.Task", next: 1, topics })
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    pub(crate) fn send(&mut self, service: &str, method: &str, message: &impl Message) -> u32 {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano: 0,
        };
        let stream = self.next;
        self.next += 2;
        put(&mut self.socket, stream, 1, &request.encode_to_vec());
        stream
    }

    /// The next answer, whoever's it is.
    pub(crate) fn hear(&mut self) -> (u32, Result<Vec<u8>, Refusal>) {
        let (stream, payload) = take(&mut self.socket).expect("an answer");
        let response = Response::decode(&payload).unwrap();
        let refusal = response.status.filter(|status| status.code != 0);
        (stream, refusal.map_or(Ok(response.payload), |status| Err((status.code, status.message))))
    }

    pub(crate) fn ask(&mut self, method: &str, message: &impl Message) -> Result<Vec<u8>, Refusal> {
        self.ask_of(self.service, method, message)
    }

    pub(crate) fn ask_of(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> Result<Vec<u8>, Refusal> {
        let stream = self.send(service, method, message);
        let (heard, answer) = self.hear();
        assert_eq!(heard, stream);
        answer
    }

    /// Whether nothing comes and nobody hangs up meanwhile.
    pub(crate) fn is_open_for(&mut self, time: std::time::Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let came = self.socket.read(&mut [0]);
        self.socket.set_read_timeout(None).unwrap();
        came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(crate) fn create(&self, id: &str) -> CreateTask {
        let bundle = self.path(id).to_str().unwrap().to_owned();
        CreateTask { id: id.to_owned(), bundle, ..CreateTask::default() }
    }

    fn topics(&self) -> Vec<String> {
        self.topics.lock().unwrap().clone()
    }

    /// Ends everything and expects the process to end.
    pub(crate) fn end(mut self) {
        self.ask("Shutdown", &Id::default()).unwrap();
        let path = PathBuf::from(self.address.strip_prefix("unix://").unwrap());
        until("the server has ended", || (!path.exists()).then_some(()));
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}

impl Drop for Shim {
    /// A test that has failed leaves no server behind.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(mut socket) = UnixStream::connect(self.address.trim_start_matches("unix://"))
        {
            let request = Request {
                service: self.service.to_owned(),
                method: "Connect".to_owned(),
                payload: Vec::new(),
                timeout_nano: 0,
            };
            put(&mut socket, 1, 1, &request.encode_to_vec());
            let answer = take(&mut socket).and_then(|(_, payload)| Response::decode(&payload).ok());
            let pid =
                answer.and_then(|answer| Connected::decode(&answer.payload).ok()).map(|said| said.shim_pid);
            if let Some(pid) = pid.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
        let name = self.dir.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        super::support::remove_group(name);
    }
}

pub(crate) fn start(dir: &std::path::Path, id: &str, asked: Option<Vec<u8>>) -> Vec<u8> {
    let mut command = Command::new(SHIM);
    let namespace = dir.file_name().unwrap();
    command.args(["-address", dir.to_str().unwrap(), "-publish-binary", "none", "-id", id, "-namespace"]);
    command.arg(namespace).arg("start").current_dir(dir.join(id)).env("TTRPC_ADDRESS", dir.join("events"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&asked.unwrap_or_default()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn put(socket: &mut UnixStream, stream: u32, kind: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap();
    let head = [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat();
    // One that ends does not read any more.
    socket.write_all(&[&head, payload].concat()).ok();
}

fn take(socket: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut head = [0; 10];
    socket.read_exact(&mut head).ok()?;
    let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; number(0) as usize];
    socket.read_exact(&mut payload).ok()?;
    Some((number(4), payload))
}

/// containerd's side of events.
fn listen(listener: &UnixListener, topics: &Mutex<Vec<String>>) {
    while let Ok((mut socket, _)) = listener.accept() {
        while let Some((stream, payload)) = take(&mut socket) {
            let request = Request::decode(&payload).unwrap();
            let envelope = Forward::decode(&request.payload).unwrap().envelope.unwrap();
            topics.lock().unwrap().push(envelope.topic);
            put(&mut socket, stream, 2, &Response::default().encode_to_vec());
        }
    }
}

/// A bundle whose program is `sleep`.
pub(crate) fn bundle(path: &std::path::Path, annotations: &Value) {
    fs_err::create_dir_all(path.join("rootfs/bin")).unwrap();
    fs_err::create_dir_all(path.join("rootfs/proc")).unwrap();
    fs_err::copy("/bin/busybox", path.join("rootfs/bin/busybox")).unwrap();
    for name in ["sleep", "sh", "true"] {
        std::os::unix::fs::symlink("busybox", path.join("rootfs/bin").join(name)).unwrap();
    }
    let name = path.parent().and_then(|dir| dir.file_name()).unwrap().to_str().unwrap();
    let group = format!("/{name}/{}", path.file_name().unwrap().to_str().unwrap());
    let kinds = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["sleep", "600"], "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] }
        ],
        "annotations": annotations,
        "linux": { "cgroupsPath": group, "namespaces": kinds, "resources": { "pids": { "limit": 50 } } }
    });
    fs_err::write(path.join("config.json"), spec.to_string()).unwrap();
}

fn change(path: &std::path::Path, args: &[&str]) {
    let mut spec: Value = serde_json::from_slice(&fs_err::read(path.join("config.json")).unwrap()).unwrap();
    spec["process"]["args"] = json!(args);
    fs_err::write(path.join("config.json"), spec.to_string()).unwrap();
}

pub(crate) fn target(id: &str) -> Target {
    Target { id: id.to_owned(), exec_id: String::new() }
}

fn exec(id: &str, exec_id: &str) -> Target {
    Target { id: id.to_owned(), exec_id: exec_id.to_owned() }
}

pub(crate) fn kill(id: &str, exec_id: &str) -> Kill {
    Kill { id: id.to_owned(), exec_id: exec_id.to_owned(), signal: 9, all: false }
}

pub(crate) const INVALID: i32 = 3;
pub(crate) const NOT_FOUND: i32 = 5;
pub(crate) const EXISTS: i32 = 6;
const PRECONDITION: i32 = 9;
pub(crate) const UNIMPLEMENTED: i32 = 12;

/// What containerd 1.6 to 2.2 and 2.3 say and expect.
#[test]
fn every_version_of_containerd_is_answered() {
    let Some(old) = Shim::new() else { return };
    assert_eq!(fs_err::read_to_string(old.path("one").join("address")).unwrap(), old.address);
    // A second start for the same pod finds the same server.
    assert_eq!(start(old.dir.path(), "one", None), old.address.as_bytes());
    old.end();
    // The new question.
    let dir = tempfile::Builder::new().prefix("dhow-ask-").tempdir().unwrap();
    bundle(&dir.path().join("one"), &json!({}));
    let namespace = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    let params = BootstrapParams { instance_id: "one".into(), namespace, ..BootstrapParams::default() };
    let said = start(dir.path(), "one", Some(params.encode_to_vec()));
    let said = BootstrapResult::decode(&said).unwrap();
    assert_eq!((said.version, said.protocol.as_str()), (3, "ttrpc"));
    let socket = UnixStream::connect(said.address.strip_prefix("unix://").unwrap()).unwrap();
    let topics = Arc::default();
    let shim =
        Shim { dir, socket, address: said.address, service: "containerd.task.v3.Task", next: 1, topics };
    shim.end();
}

#[test]
fn a_task_s_life_is_told_in_order() {
    let Some(mut shim) = Shim::new() else { return };
    let create = shim.create("one");
    let pid = Pid::decode(&shim.ask("Create", &create).unwrap()).unwrap().pid;
    assert!(pid > 0);
    let state = |shim: &mut Shim| State::decode(&shim.ask("State", &target("one")).unwrap()).unwrap();
    assert_eq!((state(&mut shim).status, state(&mut shim).pid), (1, pid));
    // Who waits before the start is answered after the end.
    let waits = shim.send(shim.service, "Wait", &target("one"));
    assert_eq!(Pid::decode(&shim.ask("Start", &target("one")).unwrap()).unwrap().pid, pid);
    assert_eq!(state(&mut shim).status, 2);
    let process = json!({ "args": ["sh", "-c", "exit 4"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"] });
    let spec = Some(Any { type_url: "process".into(), value: process.to_string().into_bytes() });
    let added = ExecProcess { id: "one".into(), exec_id: "two".into(), spec, ..ExecProcess::default() };
    shim.ask("Exec", &added).unwrap();
    assert_eq!(shim.ask("Exec", &added).unwrap_err().0, EXISTS);
    shim.ask("Start", &exec("one", "two")).unwrap();
    let waited = Waited::decode(&shim.ask("Wait", &exec("one", "two")).unwrap()).unwrap();
    assert_eq!(waited.exit_status, 4);
    // After the end it is answered at once, again and again.
    for _ in 0..3 {
        let again = Waited::decode(&shim.ask("Wait", &exec("one", "two")).unwrap()).unwrap();
        assert_eq!(again, waited);
    }
    let deleted = Deleted::decode(&shim.ask("Delete", &exec("one", "two")).unwrap()).unwrap();
    assert_eq!((deleted.exit_status, deleted.exited_at), (4, waited.exited_at));
    assert_eq!(shim.ask("Delete", &exec("one", "two")).unwrap_err().0, NOT_FOUND);
    shim.ask("Kill", &kill("one", "")).unwrap();
    let (stream, answer) = shim.hear();
    assert_eq!(stream, waits);
    assert_eq!(Waited::decode(&answer.unwrap()).unwrap().exit_status, 137);
    assert_eq!(shim.ask("Kill", &kill("one", "")).unwrap_err().0, NOT_FOUND);
    assert_eq!(state(&mut shim).status, 3);
    // A containerd that comes back removes what has no processes.
    let pids = Pids::decode(&shim.ask("Pids", &Id { id: "one".into() }).unwrap()).unwrap().processes;
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
    // Asked after every container; it stays as long as there is one.
    shim.ask("Shutdown", &Id::default()).unwrap();
    assert_eq!(Deleted::decode(&shim.ask("Delete", &target("one")).unwrap()).unwrap().exit_status, 137);
    assert_eq!(shim.ask("Delete", &target("one")).unwrap_err().0, NOT_FOUND);
    let all = ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"];
    until("all is told", || (shim.topics().len() == all.len()).then_some(()));
    assert_eq!(shim.topics(), all.map(|word| format!("/tasks/{word}")));
    shim.end();
}

#[test]
fn what_fails_leaves_nothing() {
    let Some(mut shim) = Shim::new() else { return };
    let refused = |shim: &mut Shim, create: &CreateTask, code: i32, words: &str| {
        let (found, text) = shim.ask("Create", create).unwrap_err();
        assert!(found == code && text.contains(words), "{code} {words}: {found} {text}");
        assert_eq!(shim.ask("State", &target(&create.id)).unwrap_err().0, NOT_FOUND);
    };
    let good = shim.create("one");
    for id in ["", "..", "a/b", "../../etc", "a b"] {
        refused(&mut shim, &CreateTask { id: id.into(), ..good.clone() }, INVALID, "invalid container id");
    }
    let options =
        |type_url: &str, value: &[u8]| Some(Any { type_url: type_url.into(), value: value.to_vec() });
    for given in [options("some.Options", b""), options("containerd.runc.v1.Options", b"\xff")] {
        refused(&mut shim, &CreateTask { options: given, ..good.clone() }, INVALID, "runtime options");
    }
    let missing = CreateTask { stdout: "/none/at/all".into(), ..good.clone() };
    refused(&mut shim, &missing, 2, "cannot open the stream /none/at/all");
    let missing = CreateTask { bundle: "/none/at/all".into(), ..good.clone() };
    refused(&mut shim, &missing, INVALID, "no such file");
    let restored = CreateTask { checkpoint: "/x".into(), ..good.clone() };
    refused(&mut shim, &restored, 2, "no image of a container in /x");
    let rootfs = vec![crate::messages::Mount { kind: "none-such".into(), ..Default::default() }];
    refused(&mut shim, &CreateTask { rootfs, ..good.clone() }, 2, "mount the root file system");
    fs_err::write(shim.path("one").join("bad.json"), "").unwrap();
    change(&shim.path("one"), &["/nothing/here"]);
    // A program that is not there: noticed when it is made or when it is started, and then it is removed.
    let failed = match shim.ask("Create", &good) {
        Err((_, text)) => text,
        Ok(_) => {
            let (_, text) = shim.ask("Start", &target("one")).unwrap_err();
            assert_eq!(Waited::decode(&shim.ask("Wait", &target("one")).unwrap()).unwrap().exit_status, 127);
            shim.ask("Delete", &target("one")).unwrap();
            text
        }
    };
    assert!(failed.contains("/nothing/here"), "{failed}");
    for (method, code) in [("Checkpoint", NOT_FOUND), ("Nothing", UNIMPLEMENTED), ("Pids", NOT_FOUND)] {
        assert_eq!(shim.ask(method, &target("one")).unwrap_err().0, code, "{method}");
    }
    assert_eq!(shim.ask_of("some.Service", "Create", &good).unwrap_err().0, UNIMPLEMENTED);
    // Bytes that are no message are refused, and the connection lives.
    let stream = shim.next;
    shim.next += 2;
    put(&mut shim.socket, stream, 1, b"\xff\xff");
    assert!(shim.hear().1.is_err());
    // Whoever sends what is no message at all, or goes away, disturbs nobody.
    let address = shim.address.strip_prefix("unix://").unwrap().to_owned();
    for bytes in [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 9, 0]] {
        UnixStream::connect(&address).unwrap().write_all(bytes).unwrap();
    }
    change(&shim.path("one"), &["sleep", "600"]);
    shim.ask("Create", &good).unwrap();
    assert_eq!(shim.ask("Create", &good).unwrap_err().0, EXISTS);
    assert_eq!(shim.ask("Start", &exec("one", "none")).unwrap_err().0, NOT_FOUND);
    shim.ask("Start", &target("one")).unwrap();
    assert_eq!(shim.ask("Start", &target("one")).unwrap_err().0, PRECONDITION);
    assert_eq!(shim.ask("Delete", &target("one")).unwrap_err().0, PRECONDITION);
    assert_eq!(shim.ask("Resume", &Id { id: "one".into() }).unwrap_err().0, PRECONDITION);
    let wrong = Kill { signal: 200, ..kill("one", "") };
    assert_eq!(shim.ask("Kill", &wrong).unwrap_err().0, INVALID);
    // A client that asks and goes away: what it asked for happens.
    let mut other = UnixStream::connect(&address).unwrap();
    let request = Request {
        service: shim.service.to_owned(),
        method: "Kill".to_owned(),
        payload: kill("one", "").encode_to_vec(),
        timeout_nano: 0,
    };
    put(&mut other, 1, 1, &request.encode_to_vec());
    drop(other);
    assert_eq!(Waited::decode(&shim.ask("Wait", &target("one")).unwrap()).unwrap().exit_status, 137);
    shim.ask("Delete", &target("one")).unwrap();
    shim.end();
}

#[test]
fn one_that_was_never_started_can_be_removed() {
    let Some(mut shim) = Shim::new() else { return };
    let create = shim.create("one");
    let pid = Pid::decode(&shim.ask("Create", &create).unwrap()).unwrap().pid;
    shim.ask("Delete", &target("one")).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    shim.end();
}

#[test]
fn limits_and_counts() {
    let Some(mut shim) = Shim::new() else { return };
    let create = shim.create("one");
    shim.ask("Create", &create).unwrap();
    shim.ask("Start", &target("one")).unwrap();
    let stats = Stats::decode(&shim.ask("Stats", &Id { id: "one".into() }).unwrap()).unwrap().stats.unwrap();
    assert!(stats.type_url.starts_with("io.containerd.cgroups.v"), "{stats:?}");
    if stats.type_url.contains("v1") {
        let first = crate::messages::metrics::First::decode(&stats.value).unwrap();
        assert_eq!(first.pids.unwrap().limit, 50);
        assert!(first.memory.unwrap().usage.unwrap().usage > 0);
    }
    let resources = |text: &str| UpdateTask {
        id: "one".into(),
        resources: Some(Any { type_url: "resources".into(), value: text.into() }),
    };
    shim.ask("Update", &resources(r#"{ "pids": { "limit": 40 } }"#)).unwrap();
    assert_eq!(shim.ask("Update", &resources("7")).unwrap_err().0, INVALID);
    let stats = Stats::decode(&shim.ask("Stats", &Id { id: "one".into() }).unwrap()).unwrap().stats.unwrap();
    if stats.type_url.contains("v1") {
        let first = crate::messages::metrics::First::decode(&stats.value).unwrap();
        assert_eq!(first.pids.unwrap().limit, 40);
    }
    shim.ask("Kill", &kill("one", "")).unwrap();
    shim.ask("Wait", &target("one")).unwrap();
    shim.ask("Delete", &target("one")).unwrap();
    shim.end();
}

/// The kernel's word is told before the end that it brings.
#[test]
fn lack_of_memory_is_told() {
    let Some(mut shim) = Shim::new() else { return };
    let path = shim.path("one").join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    spec["process"]["args"] = json!(["sh", "-c", "x=x; while :; do x=$x$x; done"]);
    spec["linux"]["resources"] = json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } });
    fs_err::write(&path, spec.to_string()).unwrap();
    let create = shim.create("one");
    shim.ask("Create", &create).unwrap();
    shim.ask("Start", &target("one")).unwrap();
    shim.ask("Wait", &target("one")).unwrap();
    shim.ask("Delete", &target("one")).unwrap();
    until("all is told", || shim.topics().contains(&"/tasks/delete".to_owned()).then_some(()));
    let topics = shim.topics();
    let place = |word: &str| topics.iter().position(|topic| topic == word);
    assert!(place("/tasks/oom") < place("/tasks/exit") && place("/tasks/oom").is_some(), "{topics:?}");
    shim.end();
}

/// Paused and going on, which is told, and an end in between.
#[test]
fn paused_containers_are_said_to_be() {
    let Some(mut shim) = Shim::new() else { return };
    let create = shim.create("one");
    shim.ask("Create", &create).unwrap();
    shim.ask("Start", &target("one")).unwrap();
    let id = Id { id: "one".into() };
    let status = |shim: &mut Shim| State::decode(&shim.ask("State", &target("one")).unwrap()).unwrap().status;
    shim.ask("Pause", &id).unwrap();
    assert_eq!(status(&mut shim), 4);
    assert_eq!(shim.ask("Pause", &id).unwrap_err().0, PRECONDITION);
    shim.ask("Resume", &id).unwrap();
    assert_eq!(status(&mut shim), 2);
    shim.ask("Pause", &id).unwrap();
    shim.ask("Kill", &kill("one", "")).unwrap();
    shim.ask("Resume", &id).ok();
    shim.ask("Wait", &target("one")).unwrap();
    assert_eq!(status(&mut shim), 3);
    shim.ask("Delete", &target("one")).unwrap();
    let told = ["create", "start", "paused", "resumed", "paused"].map(|word| format!("/tasks/{word}"));
    until("all is told", || shim.topics().contains(&"/tasks/delete".to_owned()).then_some(()));
    assert_eq!(shim.topics()[..told.len()], told);
    shim.end();
}

/// A terminal: what is typed is heard, what is said is shown, and its size is what it was set to.
#[test]
fn terminals_are_passed_on() {
    let Some(mut shim) = Shim::new() else { return };
    let pipe = |name: &str| {
        let path = shim.path(name);
        crate::made::tool(Command::new("mkfifo").arg(&path));
        path.to_str().unwrap().to_owned()
    };
    let (input, output) = (pipe("in"), pipe("out"));
    change(&shim.path("one"), &["sh", "-c", "stty size; read line; echo got $line; stty size; exit 3"]);
    let path = shim.path("one").join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(true);
    fs_err::write(&path, spec.to_string()).unwrap();
    std::os::unix::fs::symlink("busybox", shim.path("one").join("rootfs/bin/stty")).unwrap();
    let create = shim.create("one");
    let create = CreateTask { terminal: true, stdin: input.clone(), stdout: output.clone(), ..create };
    // Both ends, so that nobody waits for the other.
    let open = |path: &str| fs_err::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (mut typed, shown) = (open(&input), open(&output));
    let said = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&said);
    std::thread::spawn(move || {
        let mut shown = shown;
        let mut buffer = [0; 1024];
        while let Ok(length) = shown.read(&mut buffer) {
            heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    shim.ask("Create", &create).unwrap();
    let size = |width, height| ResizePty { id: "one".into(), exec_id: String::new(), width, height };
    shim.ask("ResizePty", &size(90, 30)).unwrap();
    shim.ask("Start", &target("one")).unwrap();
    until("it has said its size", || said.lock().unwrap().contains("30 90").then_some(()));
    shim.ask("ResizePty", &size(100, 40)).unwrap();
    typed.write_all(b"word\n").unwrap();
    let waited = Waited::decode(&shim.ask("Wait", &target("one")).unwrap()).unwrap();
    assert_eq!(waited.exit_status, 3);
    until("it has said the rest", || {
        let said = said.lock().unwrap();
        (said.contains("got word") && said.contains("40 100")).then_some(())
    });
    shim.ask("Delete", &target("one")).unwrap();
    shim.end();
}

/// Containers of one pod have one server, which ends after the last of them.
#[test]
fn a_pod_has_one_server() {
    let annotations = json!({ "io.kubernetes.cri.sandbox-id": "pod" });
    let Some(mut shim) = Shim::with(&annotations) else { return };
    bundle(&shim.path("two"), &annotations);
    assert_eq!(start(shim.dir.path(), "two", None), shim.address.as_bytes());
    for id in ["one", "two"] {
        let create = shim.create(id);
        shim.ask("Create", &create).unwrap();
        shim.ask("Start", &target(id)).unwrap();
    }
    for id in ["one", "two"] {
        shim.ask("Kill", &kill(id, "")).unwrap();
        shim.ask("Wait", &target(id)).unwrap();
        shim.ask("Delete", &target(id)).unwrap();
        if id == "one" {
            shim.ask("Shutdown", &Id::default()).unwrap();
            assert!(shim.ask("State", &target("two")).is_ok());
        }
    }
    shim.end();
}
