//! Progress as Docker's Engine API streams it: one JSON object for each line, which Docker's clients draw.

use std::collections::HashMap;
use std::io;
use std::io::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use super::Event;
use super::Progress;
use super::State;
use crate::BlobKind;
use crate::Digest;

/// How often the same blob's bytes are reported.
const PACE: Duration = Duration::from_millis(100);

/// Writes Docker's progress messages: `{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"…"}`.
///
/// A writer that fails is not written to any more; [`JsonProgress::finish`] tells.
#[derive(Debug)]
pub struct JsonProgress<W> {
    inner: Mutex<Inner<W>>,
}

#[derive(Debug)]
struct Inner<W> {
    writer: W,
    failed: Option<io::Error>,
    /// What was said last about a blob, and when.
    last: HashMap<Digest, (&'static str, Instant)>,
}

impl<W: Write + Send> JsonProgress<W> {
    /// Writes to `writer`, one message at a time and flushed.
    pub fn new(writer: W) -> Self {
        Self { inner: Mutex::new(Inner { writer, failed: None, last: HashMap::new() }) }
    }

    /// A message about the whole: `Digest: …`, `Status: …`.
    pub fn status(&self, text: &str) {
        self.lock().write(&json!({ "status": text }));
    }

    /// The message that ends a stream that failed.
    pub fn error(&self, text: &str) {
        self.lock().write(&json!({ "errorDetail": { "message": text }, "error": text }));
    }

    /// The writer again.
    ///
    /// # Errors
    /// The first error that writing ended with.
    pub fn finish(self) -> io::Result<W> {
        let inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.failed.map_or(Ok(inner.writer), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> Inner<W> {
    fn write(&mut self, message: &Value) {
        if self.failed.is_none() {
            let line = format!("{message}\r\n");
            self.failed = self.writer.write_all(line.as_bytes()).and_then(|()| self.writer.flush()).err();
        }
    }
}

impl<W: Write + Send> Progress for JsonProgress<W> {
    fn event(&self, event: &Event<'_>) {
        let mut inner = self.lock();
        match event {
            Event::Resolving { reference } => {
                let id = reference.tag().map(str::to_owned);
                let id = id.or_else(|| reference.digest().map(ToString::to_string));
                let status = format!("Pulling from {}", reference.repository());
                inner.write(&json!({ "status": status, "id": id }));
            }
            Event::MirrorFailed { mirror, reason } => {
                inner.write(&json!({ "status": format!("Mirror {mirror} passed over: {reason}") }));
            }
            // As Docker, no word about the small blobs that only describe the image.
            Event::Blob { kind: BlobKind::Manifest | BlobKind::Config, .. } => {}
            Event::Blob { digest, state, .. } => {
                let (status, detail) = words(state);
                let counts = detail != json!({});
                let now = Instant::now();
                if let Some((before, at)) = inner.last.get(*digest)
                    && *before == status
                    && (!counts || now.duration_since(*at) < PACE)
                {
                    return;
                }
                inner.last.insert((*digest).clone(), (status, now));
                let status = match state {
                    State::Retrying { reason, .. } => format!("Retrying: {reason}"),
                    State::Mounted { from } => format!("Mounted from {from}"),
                    _ => status.to_owned(),
                };
                inner.write(&json!({ "status": status, "progressDetail": detail, "id": digest.short() }));
            }
            _ => {}
        }
    }
}

fn words(state: &State<'_>) -> (&'static str, Value) {
    let bytes = |done: &u64, total: &u64| json!({ "current": done, "total": total });
    match state {
        State::Waiting { .. } => ("Pulling fs layer", json!({})),
        State::Exists => ("Already exists", json!({})),
        State::Fetching { done, total } => ("Downloading", bytes(done, total)),
        State::Retrying { .. } => ("Retrying", json!({})),
        State::Fetched => ("Download complete", json!({})),
        State::Unpacking { done, total } => ("Extracting", bytes(done, total)),
        State::Complete => ("Pull complete", json!({})),
        State::Preparing => ("Preparing", json!({})),
        State::Pushing { done, total } => ("Pushing", bytes(done, total)),
        State::Mounted { .. } => ("Mounted from", json!({})),
        State::Pushed => ("Pushed", json!({})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    #[test]
    fn messages_are_dockers() {
        let progress = JsonProgress::new(Vec::new());
        let digest = Digest::of(b"a");
        let reference: Reference = "127.0.0.1:5000/some/hello:1".parse().unwrap();
        progress.event(&Event::Resolving { reference: &reference });
        let blob = |kind, state| progress.event(&Event::Blob { digest: &digest, kind, state });
        blob(BlobKind::Config, State::Complete);
        for state in [
            State::Waiting { total: 9 },
            State::Waiting { total: 9 },
            State::Fetching { done: 1, total: 9 },
            State::Fetching { done: 2, total: 9 },
            State::Fetched,
            State::Unpacking { done: 9, total: 9 },
            State::Complete,
        ] {
            blob(BlobKind::Layer, state);
        }
        progress.status("Digest: x");
        progress.error("no \"more\"");
        let text = String::from_utf8(progress.finish().unwrap()).unwrap();
        let id = digest.short();
        let expected = [
            r#"{"status":"Pulling from some/hello","id":"1"}"#.to_owned(),
            format!(r#"{{"status":"Pulling fs layer","progressDetail":{{}},"id":"{id}"}}"#),
            format!(r#"{{"status":"Downloading","progressDetail":{{"current":1,"total":9}},"id":"{id}"}}"#),
            format!(r#"{{"status":"Download complete","progressDetail":{{}},"id":"{id}"}}"#),
            format!(r#"{{"status":"Extracting","progressDetail":{{"current":9,"total":9}},"id":"{id}"}}"#),
            format!(r#"{{"status":"Pull complete","progressDetail":{{}},"id":"{id}"}}"#),
            r#"{"status":"Digest: x"}"#.to_owned(),
            r#"{"errorDetail":{"message":"no \"more\""},"error":"no \"more\""}"#.to_owned(),
        ];
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_reader_that_left_is_no_reason_to_stop() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let progress = JsonProgress::new(Full);
        progress.status("a");
        progress.status("b");
        assert_eq!(progress.finish().err().map(|e| e.kind()), Some(io::ErrorKind::BrokenPipe));
    }
}
