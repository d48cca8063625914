//! Calls over a stream of bytes, between processes: those of a plugin that runs by itself, and of a native one.
//!
//! Each side sends frames: four bytes of length, little-endian, then so much JSON. Values are written as in docs/plugins.md,
//! by the types of the function.
//!
//! ```text
//! client   {"id": 1, "call": "api#handle", "args": ["x"], "within": 50}     milliseconds; without it, as long as it takes
//! client   {"id": 1, "cancel": true}                                        the answer still comes
//! client   {"id": 2, "ask": "functions"}                                    or "stats"; what a server knows besides is its own
//! server   {"id": 2, "ok": [{"name": "api#handle", "type": "func(text: string) -> result<u32, string>"}]}
//! server   {"id": 1, "ok": "y"}                                             null where a function gives nothing
//! server   {"id": 1, "error": {"kind": "guest", "message": "...", "value": 7}}
//! ```
//!
//! Ids are the client's choice. Calls of one stream run beside each other, and are answered as they end.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use super::options::{CallOptions, Cancel};
use super::remote::Callee;

/// The longest frame.
const LONGEST: usize = 64 << 20;
/// So many calls of one stream run beside each other; those behind wait.
const BESIDE: usize = 64;
/// How long after its deadline a server may keep a call's answer to itself.
const GRACE: Duration = Duration::from_secs(2);

/// What a client sends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Question {
    /// What the answer will be known by.
    pub id: u64,
    /// The function to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Value>,
    /// Milliseconds that it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<u64>,
    /// The call of this id is given up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// Something other than a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
}

/// What a server sends: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Of the question.
    pub id: u64,
    /// It is well.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub ok: Option<Value>,
    /// It is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Why there is no good answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// `guest`, `trap`, `deadline`, `cancelled`, `out-of-memory`, `out-of-fuel`, `denied`, `incompatible`, `no-function`,
    /// `busy`, `resting`, or anything else. `ended` is said by the client's side, of a stream that is over,
    /// and `unsent` where that was so before.
    pub kind: String,
    /// In words.
    pub message: String,
    /// What else is known.
    #[serde(flatten)]
    pub details: Box<Details>,
}

/// What is known of some kinds of failure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Of `guest`: the error that the function itself answers with.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub value: Option<Value>,
    /// Of `denied`: what was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Of `trap`: the guest's functions, the last one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// Of `out-of-memory` bytes, of `out-of-fuel` fuel, of `resting` the milliseconds that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Of `no-function`: those there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<String>,
}

/// A `null` that is there is a value.
fn given<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.message.is_empty() { &self.kind } else { &self.message })
    }
}

impl std::error::Error for Failure {}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::Deadline { .. } => "deadline",
            Error::Cancelled => "cancelled",
            Error::OutOfMemory { .. } => "out-of-memory",
            Error::OutOfFuel { .. } => "out-of-fuel",
            Error::Trap { .. } => "trap",
            Error::Denied { .. } => "denied",
            Error::Guest(_) => "guest",
            Error::Incompatible { .. } => "incompatible",
            Error::NoFunction { .. } => "no-function",
            Error::Busy(_) => "busy",
            Error::Resting { .. } => "resting",
            Error::Host(_) | Error::Panic(_) => "host",
            Error::Load(_) => "load",
        };
        let mut failure = failure(kind, error.to_string());
        match error {
            Error::Guest(value) => {
                failure.details.value =
                    Some(value.as_ref().map_or(Value::Null, |value| super::json::write(value)));
            }
            Error::Denied { capability } => failure.details.capability = Some(capability.clone()),
            Error::Trap { backtrace, .. } => failure.details.backtrace.clone_from(backtrace),
            Error::OutOfMemory { limit } | Error::OutOfFuel { limit } => failure.details.limit = Some(*limit),
            Error::Resting { left } => {
                failure.details.limit = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            }
            Error::NoFunction { has, .. } => failure.details.has.clone_from(has),
            _ => {}
        }
        failure
    }
}

/// Sends a frame.
///
/// # Errors
/// The stream's; when it is longer than 64 MiB.
pub fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message is longer than 64 MiB"));
    }
    frame[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    stream.write_all(&frame)?;
    stream.flush()
}

/// Reads a frame; `None` at the end of the stream.
///
/// # Errors
/// The stream's; what is too long or is not what was expected.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut known = 0;
    while known < length.len() {
        match stream.read(&mut length[known..]) {
            Ok(0) if known == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => known += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than 64 MiB"));
    }
    // Not set aside at once: who announces much may send nothing.
    let mut text = Vec::new();
    stream.take(length as u64).read_to_end(&mut text)?;
    if text.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Answers the questions of one stream with a plugin, until the stream ends. `other` answers what a plugin cannot.
///
/// # Errors
/// The stream's.
pub fn serve(
    plugin: &dyn Callee,
    mut from: impl Read,
    to: impl Write + Send,
    other: &(dyn Fn(&str) -> Option<Value> + Sync),
) -> io::Result<()> {
    let to = Mutex::new(to);
    let running: Mutex<HashMap<u64, Cancel>> = Mutex::default();
    let ended = Condvar::new();
    let say = |answer: &Answer| {
        // Whoever is gone wants no answer.
        send(&mut *lock(&to), answer).ok();
    };
    std::thread::scope(|scope| {
        let served = loop {
            let Question { id, call, args, within, cancel, ask } = match receive(&mut from) {
                Ok(Some(question)) => question,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if cancel {
                if let Some(cancel) = lock(&running).get(&id) {
                    cancel.cancel();
                }
                continue;
            }
            let Some(function) = call else {
                say(&about(plugin, id, ask.as_deref().unwrap_or_default(), other));
                continue;
            };
            let cancel = Cancel::new();
            let mut all = lock(&running);
            while all.len() >= BESIDE {
                all = ended.wait(all).unwrap_or_else(PoisonError::into_inner);
            }
            all.insert(id, cancel.clone());
            drop(all);
            let (running, ended, say) = (&running, &ended, &say);
            scope.spawn(move || {
                let options = CallOptions {
                    deadline: within.map(Duration::from_millis),
                    cancel: Some(cancel),
                    ..CallOptions::default()
                };
                let args = Value::Array(args).to_string();
                let called = plugin.call_json(&options, &function, &args);
                let answer = match called {
                    Ok(text) => {
                        Answer { id, ok: Some(serde_json::from_str(&text).unwrap_or_default()), error: None }
                    }
                    Err(error) => Answer { id, ok: None, error: Some(Failure::from(&error)) },
                };
                lock(running).remove(&id);
                ended.notify_all();
                say(&answer);
            });
        };
        for cancel in lock(&running).values() {
            cancel.cancel();
        }
        served
    })
}

fn about(plugin: &dyn Callee, id: u64, ask: &str, other: &dyn Fn(&str) -> Option<Value>) -> Answer {
    let ok = match ask {
        "functions" => {
            let told =
                |function: super::Function| serde_json::json!({ "name": function.name, "type": function.ty });
            Some(plugin.functions().into_iter().map(told).collect())
        }
        "stats" => {
            let stats = plugin.stats();
            Some(serde_json::json!({
                "calls": stats.calls, "errors": stats.errors, "traps": stats.traps, "deadlines": stats.deadlines,
                "exhausted": stats.exhausted, "denied": stats.denied, "cancelled": stats.cancelled, "host": stats.host,
                "refused": stats.refused, "instances": stats.instances, "warm": stats.warm, "reloads": stats.reloads,
                "memory": stats.memory, "largest": stats.largest, "busy": micros(stats.busy), "longest": micros(stats.longest),
                "p50": micros(stats.percentile(50.0)), "p99": micros(stats.percentile(99.0)),
            }))
        }
        ask => other(ask),
    };
    let error = ok.is_none().then(|| failure("incompatible", format!("nothing is known about {ask:?}")));
    Answer { id, ok, error }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The client's side of a stream. Any number of threads may call.
pub struct Remote {
    to: Mutex<Box<dyn Write + Send>>,
    shared: Arc<Shared>,
    /// Ends the stream, and with it the thread that reads.
    close: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    answered: Condvar,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// Answers that nobody has taken yet, by whose question; those that are waited for are there, and empty.
    waiting: HashMap<u64, Option<Answer>>,
    /// Why there will be no more.
    over: Option<String>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(close) = &self.close {
            close();
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    /// A client of what is at the other end. A thread reads until the stream ends.
    pub fn new(mut from: impl Read + Send + 'static, to: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || {
            let over = loop {
                match receive::<Answer>(&mut from) {
                    Ok(Some(answer)) => {
                        // What nobody waits for is dropped.
                        if let Some(place) = lock(&reader.inner).waiting.get_mut(&answer.id) {
                            *place = Some(answer);
                            reader.answered.notify_all();
                        }
                    }
                    Ok(None) => break "the plugin's process has ended".to_owned(),
                    Err(error) => break error.to_string(),
                }
            };
            lock(&reader.inner).over = Some(over);
            reader.answered.notify_all();
        });
        Self { to: Mutex::new(Box::new(to)), shared, close: None }
    }

    /// The same over a socket, which is closed when this is dropped.
    ///
    /// # Errors
    /// When there is no room for another descriptor.
    #[cfg(unix)]
    pub fn over(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        let (from, end) = (stream.try_clone()?, stream.try_clone()?);
        let close: Box<dyn Fn() + Send + Sync> = Box::new(move || {
            end.shutdown(std::net::Shutdown::Both).ok();
        });
        let mut remote = Self::new(from, stream);
        remote.close = Some(close);
        Ok(remote)
    }

    /// Calls a function and waits for its answer.
    ///
    /// # Errors
    /// What the other side says; `deadline` and `cancelled` at the latest two seconds after they have come, `ended` when the
    /// stream has ended.
    pub fn call(&self, options: &CallOptions, function: &str, args: Vec<Value>) -> Result<Value, Failure> {
        let within = options.deadline.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let question = Question { call: Some(function.to_owned()), args, within, ..Question::default() };
        self.answer(question, options)
    }

    /// Asks for something other than a call: `functions`, `stats`.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub fn ask(&self, what: &str) -> Result<Value, Failure> {
        let options = CallOptions { deadline: Some(Duration::from_secs(10)), ..CallOptions::default() };
        self.answer(Question { ask: Some(what.to_owned()), ..Question::default() }, &options)
    }

    /// Whether the stream has ended: nothing will be answered any more.
    pub fn is_over(&self) -> bool {
        lock(&self.shared.inner).over.is_some()
    }

    fn answer(&self, mut question: Question, options: &CallOptions) -> Result<Value, Failure> {
        let id = {
            let mut inner = lock(&self.shared.inner);
            inner.next += 1;
            let id = inner.next;
            inner.waiting.insert(id, None);
            id
        };
        question.id = id;
        let sent = send(&mut *lock(&self.to), &question);
        let answered = match sent {
            Ok(()) => self.wait(id, options),
            // It is the message's fault, and the stream is as good as before.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(failure("incompatible", error.to_string()))
            }
            Err(error) => {
                lock(&self.shared.inner).over.get_or_insert_with(|| error.to_string());
                Err(failure("unsent", error.to_string()))
            }
        };
        lock(&self.shared.inner).waiting.remove(&id);
        let answer = answered?;
        match (answer.ok, answer.error) {
            (_, Some(error)) => Err(error),
            (Some(value), None) => Ok(value),
            (None, None) => Err(failure("host", "an answer without content")),
        }
    }

    /// Waits for one answer; asks to give the call up when its time is over.
    fn wait(&self, id: u64, options: &CallOptions) -> Result<Answer, Failure> {
        /// How often it is asked whether a call was given up.
        const LOOK: Duration = Duration::from_millis(5);
        let started = Instant::now();
        let mut told = None;
        let mut inner = lock(&self.shared.inner);
        loop {
            if let Some(answer) = inner.waiting.get_mut(&id).and_then(Option::take) {
                return Ok(answer);
            }
            if let Some(over) = &inner.over {
                return Err(failure("ended", over.clone()));
            }
            let now = Instant::now();
            let late = options.deadline.is_some_and(|limit| now.duration_since(started) > limit + LOOK * 4);
            let given_up = options.cancel.as_ref().is_some_and(Cancel::is_cancelled);
            match told {
                None if late || given_up => {
                    told = Some((now, if given_up { "cancelled" } else { "deadline" }));
                    drop(inner);
                    let question = Question { id, cancel: true, ..Question::default() };
                    send(&mut *lock(&self.to), &question).ok();
                    inner = lock(&self.shared.inner);
                    continue;
                }
                Some((since, kind)) if now.duration_since(since) > GRACE => {
                    return Err(failure(kind, "no answer in time"));
                }
                _ => {}
            }
            let watches = options.cancel.is_some() || options.deadline.is_some() || told.is_some();
            let pause = if watches { LOOK } else { Duration::from_secs(3600) };
            inner = self.shared.answered.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn failure(kind: &str, message: impl Into<String>) -> Failure {
    Failure { kind: kind.to_owned(), message: message.into(), ..Failure::default() }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::{Config, Host, Source};
    use super::*;

    const TEXT: &str = r#"(component
        (core module $m
            (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
            (func (export "trap") unreachable)
            (func (export "loop") (loop $again (br $again))))
        (core instance $i (instantiate $m))
        (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (func (export "trap") (canon lift (core func $i "trap")))
        (func (export "loop") (canon lift (core func $i "loop"))))"#;

    /// A client of a plugin that is served by a thread.
    fn remote() -> (Remote, std::thread::JoinHandle<io::Result<()>>) {
        let host = Host::new(Config { instances: 16, ..Config::default() }).expect("a host");
        let plugin = host.plugin(Source::Bytes(TEXT.as_bytes().to_vec())).load().expect("loaded");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let server = std::thread::spawn(move || {
            let to = theirs.try_clone().expect("a handle");
            serve(&plugin, &theirs, to, &|ask| (ask == "mine").then(|| "yes".into()))
        });
        (Remote::over(ours).expect("a client"), server)
    }

    #[test]
    fn calls_cross_and_fail_as_they_do_here() {
        let (remote, server) = remote();
        let options = CallOptions::default();
        assert_eq!(remote.call(&options, "add", vec![2.into(), 3.into()]), Ok(Value::from(5)));
        let kind = |function: &str, args: Vec<Value>| remote.call(&options, function, args).unwrap_err().kind;
        assert_eq!(kind("trap", Vec::new()), "trap");
        assert_eq!(kind("none", Vec::new()), "no-function");
        assert_eq!(kind("add", vec![2.into()]), "incompatible");
        let soon = CallOptions { deadline: Some(Duration::from_millis(50)), ..CallOptions::default() };
        assert_eq!(remote.call(&soon, "loop", Vec::new()).unwrap_err().kind, "deadline");
        let cancel = Cancel::new();
        let (other, given_up) =
            (cancel.clone(), CallOptions { cancel: Some(cancel), ..CallOptions::default() });
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| remote.call(&given_up, "loop", Vec::new()));
            // Others are answered meanwhile.
            assert_eq!(remote.call(&options, "add", vec![1.into(), 1.into()]), Ok(Value::from(2)));
            other.cancel();
            assert_eq!(calling.join().expect("ended").unwrap_err().kind, "cancelled");
        });
        assert_eq!(remote.ask("mine"), Ok("yes".into()));
        assert_eq!(remote.ask("theirs").unwrap_err().kind, "incompatible");
        assert_eq!(remote.ask("functions").expect("functions").as_array().map(Vec::len), Some(3));
        assert_eq!(remote.ask("stats").expect("stats")["traps"], 1);
        drop(remote);
        server.join().expect("served").expect("to the end");
    }

    #[test]
    fn frames_that_mean_harm_are_errors() {
        let read = |bytes: &[u8]| receive::<Question>(&mut &*bytes);
        assert!(matches!(read(b""), Ok(None)));
        for bad in [&b"\x01"[..], b"\xff\xff\xff\xff", b"\x10\0\0\0{}", b"\x02\0\0\0{x"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(read(b"\x02\0\0\0{}").expect("read"), Some(Question::default()));
        let mut sent = Vec::new();
        let answer = Answer { id: 7, ok: Some(Value::Null), error: None };
        send(&mut sent, &answer).expect("sent");
        assert_eq!(receive::<Answer>(&mut sent.as_slice()).expect("read"), Some(answer));
    }
}
