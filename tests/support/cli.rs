//! One call of the real command: arguments and input in, exit code and output out.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A command that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(90);

/// A call being put together, or already running.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    shown: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A call that runs while the test goes on.
#[derive(Debug)]
pub(crate) struct Running {
    shown: String,
    limit: Duration,
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    seen_error: Vec<u8>,
}

impl Run {
    pub(crate) fn new(command: Command) -> Self {
        Self { command, stdin: None, limit: LIMIT }
    }

    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Feeds these bytes to standard input, then closes it. Without this it is empty.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Grants it the time to compile a language's interpreter, on a machine that does other things too.
    pub(crate) fn patiently(mut self) -> Self {
        self.limit = 4 * LIMIT;
        self
    }

    /// The command itself, for a test that has a terminal for it.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Starts the call; input, if any, is written at once and the stream stays open otherwise.
    pub(crate) fn spawn(mut self) -> Running {
        let shown = shown(&self.command);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        if let Some(bytes) = self.stdin {
            let mut stdin = child.stdin.take().expect("piped");
            // The guest may well not read it all.
            thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let stdout = follow(child.stdout.take().expect("piped"));
        let stderr = follow(child.stderr.take().expect("piped"));
        Running { shown, limit: self.limit, child, stdout, stderr, seen: Vec::new(), seen_error: Vec::new() }
    }

    /// Runs it to its end.
    pub(crate) fn outcome(mut self) -> Outcome {
        self.stdin.get_or_insert_default();
        self.spawn().outcome()
    }

    /// Runs it, expects success and nothing on standard error, and gives standard output.
    pub(crate) fn ok(self) -> String {
        let outcome = self.outcome();
        assert!(outcome.code == 0 && outcome.stderr.is_empty(), "{outcome:#?}");
        outcome.stdout
    }

    /// Runs it, expects this exit code, and gives the rest.
    pub(crate) fn fails(self, code: i32) -> Outcome {
        let outcome = self.outcome();
        assert_eq!(outcome.code, code, "{outcome:#?}");
        outcome
    }

    /// Runs it and expects the one kind of failure a user may meet: this code, nothing on standard output, one
    /// line that says what is wrong and contains `message`, and one hint that says what to do.
    pub(crate) fn refused(self, code: i32, message: &str) -> Outcome {
        let outcome = self.fails(code);
        outcome.is_refusal(message);
        outcome
    }

    /// As [`Run::refused`], where there is no more to say than what is wrong: the hint may be missing.
    pub(crate) fn rejected(self, code: i32, message: &str) -> Outcome {
        let outcome = self.fails(code);
        outcome.is_rejection(message);
        outcome
    }

    /// As [`Run::refused`] with code 1, of a pull, which may have printed what it was doing.
    pub(crate) fn refused_by_pull(self, message: &str) -> Outcome {
        self.refused(1, message)
    }
}

impl Outcome {
    /// See [`Run::refused`].
    pub(crate) fn is_refusal(&self, message: &str) {
        self.is_rejection(message);
        assert!(self.stderr.lines().any(|line| line.starts_with("hint: ")), "there is no hint: {self:#?}");
    }

    /// See [`Run::rejected`].
    pub(crate) fn is_rejection(&self, message: &str) {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !is_progress(line)).collect();
        let (Some(error), hints) = (lines.first(), lines.get(1..).unwrap_or_default()) else {
            panic!("there is no message: {self:#?}");
        };
        assert!(error.starts_with("error: ") && error.contains(message), "`{message}` is missing: {self:#?}");
        assert!(!error.ends_with('.'), "no full stop: {self:#?}");
        assert!(hints.len() <= 1 && hints.iter().all(|line| line.starts_with("hint: ")), "{self:#?}");
        for word in ["panicked", "RUST_BACKTRACE", "unwrap", "Os {", "os error 2): "] {
            assert!(!self.stderr.contains(word), "{self:#?}");
        }
    }

    /// As [`Outcome::is_refusal`], of a command that did a part of its work.
    pub(crate) fn is_refusal_after_output(&self, message: &str) {
        assert!(!self.stdout.is_empty(), "{self:#?}");
        self.is_refusal(message);
    }

    /// Standard output's lines.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy()).map(|word| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=@,+".contains(&byte));
        if plain && !word.is_empty() { word.into_owned() } else { format!("{word:?}") }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Notes that a pull prints before it fails are no part of the error.
fn is_progress(line: &str) -> bool {
    line.starts_with("Unable to find image ")
        || line.contains("Pulling from ")
        || line.contains(": Pulling ")
        || line.contains(": Retrying (")
}

impl Drop for Running {
    /// A test that gives up takes its command along.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to the command, as a shell's `kill` does.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the command is still running");
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("standard input is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("write to standard input");
    }

    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until standard output contains `text`.
    pub(crate) fn until(&mut self, text: &str) {
        if !await_text(&self.stdout, &mut self.seen, text) {
            self.seen_error.extend(self.stderr.try_iter().flatten());
            let [seen, said] = [&self.seen, &self.seen_error].map(|bytes| String::from_utf8_lossy(bytes));
            panic!("{}: no {text:?} but {seen:?}, and on standard error {said:?}", self.shown);
        }
    }

    /// Waits until standard error contains `text`.
    pub(crate) fn until_error(&mut self, text: &str) {
        if !await_text(&self.stderr, &mut self.seen_error, text) {
            panic!("{}: no {text:?} but {:?}", self.shown, String::from_utf8_lossy(&self.seen_error));
        }
    }

    /// Waits for the end of the process; standard input stays as it is.
    pub(crate) fn outcome(mut self) -> Outcome {
        let (sender, done) = channel();
        let (pid, shown, limit) = (self.pid(), self.shown.clone(), self.limit);
        let watchdog = thread::spawn(move || {
            let hung = done.recv_timeout(limit).is_err();
            if hung {
                eprintln!("{shown}: still running after {limit:?}, killing it");
                kill_process(pid, Signal::KILL).ok();
            }
            hung
        });
        let stdin = self.child.stdin.take();
        let status = self.child.wait().expect("wait");
        drop(stdin);
        sender.send(()).ok();
        let hung = watchdog.join().expect("watchdog");
        let mut stdout = std::mem::take(&mut self.seen);
        stdout.extend(rest(&self.stdout, &self.shown));
        let mut stderr = std::mem::take(&mut self.seen_error);
        stderr.extend(rest(&self.stderr, &self.shown));
        let outcome = Outcome {
            code: status
                .code()
                .unwrap_or_else(|| -std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            shown: std::mem::take(&mut self.shown),
        };
        assert!(!hung, "{} hung: {outcome:#?}", outcome.shown);
        outcome
    }
}

/// Reads on until `text` has been seen; whether it was, before the stream's end or too long a silence.
fn await_text(stream: &Receiver<Vec<u8>>, seen: &mut Vec<u8>, text: &str) -> bool {
    while !String::from_utf8_lossy(seen).contains(text) {
        match stream.recv_timeout(Duration::from_secs(20)) {
            Ok(bytes) if !bytes.is_empty() => seen.extend(bytes),
            _ => return false,
        }
    }
    true
}

/// Everything up to the stream's end. A process left behind that still holds the stream is an error.
fn rest(stream: &Receiver<Vec<u8>>, shown: &str) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match stream.recv_timeout(Duration::from_secs(10)) {
            Ok(bytes) if bytes.is_empty() => return all,
            Ok(bytes) => all.extend(bytes),
            Err(_) => panic!(
                "{shown}: ended, but something still holds its output: {}",
                String::from_utf8_lossy(&all)
            ),
        }
    }
}

/// Reads a stream in the background; an empty piece marks its end.
fn follow(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = stream.read(&mut buffer).unwrap_or(0);
            if sender.send(buffer[..count].to_vec()).is_err() || count == 0 {
                return;
            }
        }
    });
    receiver
}
