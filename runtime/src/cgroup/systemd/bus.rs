//! As much of D-Bus as it takes to call systemd: one connection, calls that are answered, and the signal of a finished job.
//!
//! The wire format of the D-Bus specification, little endian. What comes from the other side is bounded and checked; what
//! is of no interest is skipped unread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// systemd answers within a moment, or is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// No message that is waited for is longer.
const LONGEST: usize = 1 << 20;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Builds the body of a message. Values are aligned to their size, counted from its start.
#[derive(Debug, Default, Clone)]
pub(super) struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, value: &str) {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.bytes.extend(value.as_bytes());
        self.byte(0);
    }

    fn signature(&mut self, value: &str) {
        self.byte(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.bytes.extend(value.as_bytes());
        self.byte(0);
    }

    /// An array: its length in bytes, without the padding before its first element.
    pub(super) fn array(&mut self, align: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// A property `(sv)`: its name, and a value of this type.
    pub(super) fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.text(name);
        self.signature(signature);
        value(self);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.array(1, |body| body.bytes.extend(value));
    }
}

/// A message that came.
#[derive(Default)]
struct Message {
    kind: u8,
    /// To be answered.
    #[cfg_attr(not(test), expect(dead_code, reason = "only a stand-in for systemd answers"))]
    serial: u32,
    reply_to: u32,
    member: String,
    error: String,
    sender: String,
    body: Vec<u8>,
}

/// Fields of a message's header: their codes, types and texts.
type Fields<'a> = [(u8, &'a str, &'a str)];

/// A connection to a bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// Of the arguments.
    pub(super) signature: &'a str,
}

/// The bus itself.
const BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
    signature: "",
};

fn failed(action: &str) -> impl FnOnce(std::io::Error) -> Error {
    let action = action.to_owned();
    move |source| {
        // What a socket says when its time is over.
        let late = matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let text = || format!("no answer within {} s", PATIENCE.as_secs());
        let source = if late { std::io::Error::new(ErrorKind::TimedOut, text()) } else { source };
        Error::Setup { action, source }
    }
}

fn broken() -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, "an answer that is no D-Bus message")
}

impl Bus {
    /// Connects to the bus at a socket, as the current user.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let doing = format!("connect to D-Bus at {}", socket.display());
        let stream = UnixStream::connect(socket).map_err(failed(&doing))?;
        let mut bus = Self { stream, serial: 0 };
        bus.greet().map_err(failed(&doing))?;
        bus.call(Method { member: "Hello", ..BUS }, &Body::default())?;
        Ok(bus)
    }

    /// The kernel vouches for the user; the number is only repeated.
    fn greet(&mut self) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
            if line.len() > 512 {
                return Err(broken());
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(std::io::Error::new(ErrorKind::PermissionDenied, "D-Bus does not let this user in"));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn send(&mut self, method: Method<'_>, body: &Body) -> std::io::Result<u32> {
        let fields = [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", method.destination),
            (8, "g", method.signature),
        ];
        self.write(CALL, &fields, None, body)
    }

    fn write(
        &mut self,
        kind: u8,
        given: &Fields<'_>,
        reply_to: Option<u32>,
        body: &Body,
    ) -> std::io::Result<u32> {
        self.serial += 1;
        let mut out = Body::default();
        out.bytes.extend([b'l', kind, 0, 1]);
        out.u32(u32::try_from(body.bytes.len()).unwrap_or(u32::MAX));
        out.u32(self.serial);
        out.array(8, |fields| {
            for (code, signature, value) in given.iter().filter(|(_, _, value)| !value.is_empty()) {
                fields.align(8);
                fields.byte(*code);
                fields.signature(signature);
                match *signature {
                    "g" => fields.signature(value),
                    _ => fields.text(value),
                }
            }
            if let Some(serial) = reply_to {
                fields.align(8);
                fields.byte(5);
                fields.signature("u");
                fields.u32(serial);
            }
        });
        out.align(8);
        out.bytes.extend(&body.bytes);
        self.stream.write_all(&out.bytes)?;
        Ok(self.serial)
    }

    fn receive(&mut self) -> std::io::Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            bytes.map_or(0, u32::from_le_bytes) as usize
        };
        let (length, serial, fields) = (number(4), number(8), number(12));
        if head[0] != b'l' || length > LONGEST || fields > LONGEST {
            return Err(broken());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + length];
        self.stream.read_exact(&mut rest)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        rest.truncate(fields);
        let serial = u32::try_from(serial).unwrap_or(0);
        let mut message = Message { kind: head[1], serial, body, ..Message::default() };
        let mut at = Reader { bytes: &rest, at: 0 };
        while at.at < rest.len() {
            at.align(8);
            let code = at.byte().ok_or_else(broken)?;
            let signature = at.signature().ok_or_else(broken)?;
            match signature.as_str() {
                "u" => {
                    let value = at.u32().ok_or_else(broken)?;
                    if code == 5 {
                        message.reply_to = value;
                    }
                }
                "s" | "o" => {
                    let value = at.text().ok_or_else(broken)?;
                    match code {
                        3 => message.member = value,
                        4 => message.error = value,
                        7 => message.sender = value,
                        _ => {}
                    }
                }
                "g" => drop(at.signature().ok_or_else(broken)?),
                _ => return Err(broken()),
            }
        }
        Ok(message)
    }

    /// Has the bus pass on what a service says to all: nobody hears of it without.
    pub(super) fn listen(&mut self, to: Method<'_>) -> Result<()> {
        let mut rule = Body::default();
        rule.text(&format!(
            "type='signal',sender='{}',path='{}',interface='{}',member='{}'",
            to.destination, to.path, to.interface, to.member
        ));
        let method = Method { member: "AddMatch", signature: "s", ..BUS };
        self.call(method, &rule).map(drop)
    }

    /// Calls, and waits for the answer; gives its first value if that is a text.
    pub(super) fn call(&mut self, method: Method<'_>, body: &Body) -> Result<Option<String>> {
        self.call_and_wait(method, body, false)
    }

    /// The same for a call that starts a job: waits until that is done, too. Whoever [listens](Bus::listen) for `JobRemoved`
    /// hears of it.
    pub(super) fn call_job(&mut self, method: Method<'_>, body: &Body) -> Result<()> {
        self.call_and_wait(method, body, true).map(drop)
    }

    fn call_and_wait(&mut self, method: Method<'_>, body: &Body, job: bool) -> Result<Option<String>> {
        let doing = format!("call {} of {}", method.member, method.destination);
        let serial = self.send(method, body).map_err(failed(&doing))?;
        let mut own_job: Option<String> = None;
        // Jobs may be over before the answer comes.
        let mut over: Vec<(String, String)> = Vec::new();
        loop {
            let message = self.receive().map_err(failed(&doing))?;
            let mut reader = Reader { bytes: &message.body, at: 0 };
            match message.kind {
                RETURN if message.reply_to == serial => {
                    let text = reader.text();
                    if !job {
                        return Ok(text);
                    }
                    own_job = Some(text.unwrap_or_default());
                }
                ERROR if message.reply_to == serial => {
                    let text = reader.text().unwrap_or_default();
                    let said = format!("{}: {text}", message.error);
                    return Err(failed(&doing)(std::io::Error::other(said)));
                }
                SIGNAL if job && message.member == "JobRemoved" && over.len() < 1024 => {
                    // JobRemoved(u id, o job, s unit, s result)
                    let values = (reader.u32(), reader.text(), reader.text(), reader.text());
                    if let (Some(_), Some(path), Some(_), Some(result)) = values {
                        over.push((path, result));
                    }
                }
                _ => {}
            }
            let result =
                over.iter().find(|(path, _)| Some(path) == own_job.as_ref()).map(|(_, result)| result);
            match result.map(String::as_str) {
                None => {}
                Some("done") => return Ok(None),
                Some(result) => {
                    return Err(failed(&doing)(std::io::Error::other(format!(
                        "the job ended with {result}"
                    ))));
                }
            }
        }
    }
}

/// The other side, for a stand-in.
#[cfg(test)]
impl Bus {
    /// Takes a name on the bus.
    pub(super) fn own(&mut self, name: &str) -> Result<()> {
        let mut body = Body::default();
        body.text(name);
        body.u32(0);
        let method = Method { member: "RequestName", signature: "su", ..BUS };
        self.call(method, &body).map(drop)
    }

    /// Answers one call, with a job and its end where systemd would; gives what was called.
    pub(super) fn serve(&mut self, result: &str) -> Option<(String, Vec<u8>)> {
        let call = self.receive().expect("a message");
        if call.kind != CALL {
            return None;
        }
        let job = "/org/freedesktop/systemd1/job/1";
        let starts = matches!(call.member.as_str(), "StartTransientUnit" | "StopUnit");
        let mut removed = Body::default();
        removed.u32(1);
        for text in [job, "some.scope", result] {
            removed.text(text);
        }
        let signal = [
            (1, "o", "/org/freedesktop/systemd1"),
            (2, "s", "org.freedesktop.systemd1.Manager"),
            (3, "s", "JobRemoved"),
            // To nobody in particular, as systemd says it.
            (8, "g", "uoss"),
        ];
        if call.member == "StopUnit" {
            // Over before it was answered.
            self.write(SIGNAL, &signal, None, &removed).expect("a signal");
        }
        let mut answer = Body::default();
        if starts {
            answer.text(job);
        }
        let fields = [(6, "s", call.sender.as_str()), (8, "g", if starts { "o" } else { "" })];
        self.write(RETURN, &fields, Some(call.serial), &answer).expect("an answer");
        if call.member == "StartTransientUnit" {
            self.write(SIGNAL, &signal, None, &removed).expect("a signal");
        }
        Some((call.member, call.body))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let part = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(part)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn string(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.string(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.string(length.into())
    }
}
