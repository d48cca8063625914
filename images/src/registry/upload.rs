//! One blob on its way to a registry: there already, mounted from another repository, or sent.
//!
//! Small blobs are sent with one PUT. Larger ones are sent as one long PATCH and closed by a PUT, as every registry
//! knows it from Docker; a registry that names a smallest chunk (`OCI-Chunk-Min-Length`) speaks of chunks and gets
//! those. When a connection breaks, the registry is asked how much it has, and the rest is sent; the address of the
//! upload is kept in the store meanwhile, so that this also works for the next process after a kill. What goes wrong
//! with a session is never worse than a new one. Distribution specification 1.1, "Push".

use std::io;
use std::io::Read;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ureq::http::Method;
use ureq::http::StatusCode;

use super::answer::Answer;
use super::answer::LOOKED_AT;
use super::http::Call;
use super::http::Client;
use super::http::Payload;
use super::http::refused;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::HashingReader;
use crate::Progress;
use crate::State;
use crate::Store;
use crate::error::Result;
use crate::store::uploads::UploadRecord;

/// Up to this size a blob is sent with a single request: to begin again costs less than to ask.
const SINGLE: u64 = 1 << 20;
/// Smallest chunk that is sent to a registry which speaks of chunks, and what is tried after "too large".
const CHUNK: u64 = 16 << 20;
/// So many bytes after a break make it forgotten: a long upload over a bad line is many short ones.
const PROGRESS: u64 = 1 << 20;
/// Most sessions for one blob, whatever happens.
const MAX_SESSIONS: u32 = 8;
/// Most repositories that a blob is asked to be mounted from.
const MAX_MOUNTS: usize = 3;

/// How a blob came to be in the repository.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It was there.
    Exists,
    /// From another repository of the same registry.
    Mounted,
    /// Sent from here; so many bytes of it by this process.
    Sent(u64),
}

/// What is needed to send blobs.
pub(super) struct Uploader<'a> {
    pub(super) client: &'a Client,
    pub(super) store: &'a Store,
    pub(super) progress: &'a dyn Progress,
    /// Send chunks of this size, whatever the registry says.
    pub(super) chunk: Option<u64>,
}

/// An upload that the registry has opened.
#[derive(Debug)]
struct Session {
    url: String,
    /// Bytes that the registry has.
    offset: u64,
    /// Smallest chunk, if the registry named one.
    least: Option<u64>,
}

/// Why a request of an upload did not do what it should.
enum Trouble {
    /// Whether the registry has what was sent is not known. It can be asked, after this pause.
    Broken(Error, Option<Duration>),
    /// There is no such upload any more.
    Lost(Error),
    /// The registry does not want it in this way.
    Unwanted(Error),
    /// There is no point in going on.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// How the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All in the last request.
    Single,
    /// All in one PATCH.
    Stream,
    /// PATCHes of this many bytes.
    Chunks(u64),
}

impl Uploader<'_> {
    /// Makes a blob be in the repository. `from` are repositories of the same registry that may have it; `local` says
    /// whether it is in the store. `None`: it is in neither.
    pub(super) fn upload(
        &self,
        blob: &Descriptor,
        kind: BlobKind,
        from: &[String],
        local: bool,
    ) -> Result<Option<Arrival>> {
        let event = |state: State<'_>| self.event(blob, kind, state);
        if self.exists(&blob.digest)? {
            event(State::Exists);
            return Ok(Some(Arrival::Exists));
        }
        let mut record = match local && blob.size > SINGLE {
            true => {
                self.store.upload_record(self.client.registry(), self.client.repository(), &blob.digest)?
            }
            false => None,
        };
        let known = record.as_mut().and_then(UploadRecord::address);
        let resumed = known.and_then(|url| self.ask(&url, blob).ok().flatten());
        let session = match resumed {
            Some(session) => Some(session),
            None => match self.mount(blob, from)? {
                Mount::Mounted(repository) => {
                    if let Some(record) = record {
                        record.finish();
                    }
                    event(State::Mounted { from: &repository });
                    return Ok(Some(Arrival::Mounted));
                }
                Mount::Session(session) => Some(session),
                Mount::NotTried => None,
            },
        };
        if !local {
            self.cancel(session);
            return Ok(None);
        }
        let sent = self.send(blob, kind, session, &mut record)?;
        if let Some(record) = record {
            record.finish();
        }
        event(State::Pushed);
        Ok(Some(Arrival::Sent(sent)))
    }

    fn event(&self, blob: &Descriptor, kind: BlobKind, state: State<'_>) {
        self.progress.event(&Event::Blob { digest: &blob.digest, kind, state });
    }

    fn exists(&self, digest: &Digest) -> Result<bool> {
        let url = self.client.blob_url(digest);
        let call = Call { also: &[StatusCode::NOT_FOUND], ..Call::new(Method::HEAD, &url) };
        Ok(self.client.call(&call)?.status().is_success())
    }

    /// Asks for the blob to be taken from a repository that has it.
    fn mount(&self, blob: &Descriptor, from: &[String]) -> Result<Mount> {
        let mut session = None;
        for repository in from.iter().take(MAX_MOUNTS) {
            self.cancel(session.take());
            let query = format!("blobs/uploads/?mount={}&from={repository}", blob.digest);
            // Not allowed, not known, not supported: then it is sent.
            let Ok(answer) = self.ask_for(Method::POST, &self.client.url(&query)) else { continue };
            match answer.status {
                StatusCode::CREATED => return Ok(Mount::Mounted(repository.clone())),
                StatusCode::ACCEPTED => session = Some(self.opened(&answer)?),
                _ => {}
            }
        }
        Ok(session.map_or(Mount::NotTried, Mount::Session))
    }

    fn start(&self) -> Result<Session> {
        let answer = self.ask_for(Method::POST, &self.client.url("blobs/uploads/"))?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(answer.to_error());
        }
        self.opened(&answer)
    }

    /// A request without a body, repeated if need be.
    fn ask_for(&self, method: Method, url: &str) -> Result<Answer> {
        Ok(Answer::new(url, self.client.call(&Call::new(method, url))?))
    }

    /// The session that an answer tells of.
    fn opened(&self, answer: &Answer) -> Result<Session> {
        let url = self.location(answer)?;
        let least = answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        Ok(Session { url, offset: 0, least })
    }

    /// Where the next request of an upload goes: relative or absolute, with or without a query.
    fn location(&self, answer: &Answer) -> Result<String> {
        match answer.header("location") {
            Some(location) if !location.is_empty() => self.client.resolve(&answer.url, location),
            _ => Err(refused(&answer.url, "the registry does not say where the upload goes on")),
        }
    }

    /// How far an upload is, or `None` when the registry does not know it any more.
    fn ask(&self, url: &str, blob: &Descriptor) -> Result<Option<Session>> {
        // It may come from a file.
        let url = self.client.resolve(url, url)?;
        let call = Call { also: LOOKED_AT, ..Call::get(&url) };
        let answer = Answer::new(&url, self.client.call(&call)?);
        if !answer.status.is_success() {
            return Ok(None);
        }
        let Some(offset) = answer.header("range").and_then(end_of_range) else { return Ok(None) };
        if offset > blob.size {
            return Ok(None);
        }
        let url = if answer.header("location").is_some() { self.location(&answer)? } else { url };
        let least = answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        Ok(Some(Session { url, offset, least }))
    }

    /// Tells the registry that an upload is not wanted. Registries forget uploads anyway.
    fn cancel(&self, session: Option<Session>) {
        if let Some(session) = session {
            let call = Call { also: LOOKED_AT, once: true, ..Call::new(Method::DELETE, &session.url) };
            drop(self.client.call(&call));
        }
    }

    /// Sends a blob's bytes; how many.
    fn send(
        &self,
        blob: &Descriptor,
        kind: BlobKind,
        mut session: Option<Session>,
        record: &mut Option<UploadRecord>,
    ) -> Result<u64> {
        let mut way = match self.chunk {
            Some(size) => Way::Chunks(size.max(1)),
            None if blob.size <= SINGLE => Way::Single,
            None => Way::Stream,
        };
        let mut sent = 0;
        let (mut sessions, mut attempt, mut broke_at) = (0, 1, 0);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None if sessions >= MAX_SESSIONS => {
                    let url = self.client.url("blobs/uploads/");
                    return Err(refused(&url, "the registry does not keep its uploads"));
                }
                None => self.start()?,
            };
            sessions += 1;
            if let Some(record) = record {
                record.save(&current.url)?;
            }
            let begun_at = current.offset;
            let (error, pause) = match self.rest(blob, kind, &mut current, way, record, &mut sent) {
                Ok(()) => return Ok(sent),
                Err(Trouble::Final(e)) => return Err(e),
                Err(Trouble::Unwanted(e)) => {
                    // Another way, from the beginning.
                    way = match way {
                        Way::Stream => Way::Chunks(CHUNK),
                        Way::Chunks(_) if self.chunk.is_none() => Way::Single,
                        _ => return Err(e),
                    };
                    self.cancel(Some(current));
                    continue;
                }
                Err(Trouble::Lost(e)) => (e, None),
                Err(Trouble::Broken(e, pause)) => (e, Some(pause)),
            };
            if current.offset.abs_diff(broke_at) >= PROGRESS && current.offset > begun_at {
                attempt = 1;
            }
            if attempt >= self.client.attempts() {
                return Err(error);
            }
            self.event(blob, kind, State::Retrying { attempt, reason: &error.to_string() });
            attempt += 1;
            if let Some(pause) = pause {
                std::thread::sleep(self.client.pause_before(attempt).max(pause.unwrap_or_default()));
                // The break may have come after the last byte.
                if current.offset == blob.size && self.exists(&blob.digest)? {
                    return Ok(sent);
                }
                session = self.ask(&current.url, blob)?;
                if session.is_some() {
                    // It is the same one.
                    sessions -= 1;
                }
            }
            broke_at = session.as_ref().map_or(0, |s| s.offset);
            if session.is_none()
                && let Some(record) = record
            {
                record.clear()?;
            }
        }
    }

    /// Sends what the registry does not have yet, and closes the upload.
    fn rest(
        &self,
        blob: &Descriptor,
        kind: BlobKind,
        session: &mut Session,
        way: Way,
        record: &mut Option<UploadRecord>,
        sent: &mut u64,
    ) -> std::result::Result<(), Trouble> {
        let resumed = session.offset > 0;
        let way = match (way, session.least) {
            (Way::Stream, Some(least)) => Way::Chunks(least.max(CHUNK)),
            // What was begun with chunks cannot be closed with all bytes.
            (Way::Single, _) if resumed => Way::Stream,
            (Way::Chunks(size), Some(least)) => Way::Chunks(size.max(least)),
            (way, _) => way,
        };
        let mut body = if way == Way::Single { blob.size } else { 0 };
        if way != Way::Single {
            while session.offset < blob.size {
                let left = blob.size - session.offset;
                let length = if let Way::Chunks(size) = way { left.min(size) } else { left };
                self.chunk(blob, kind, session, length, sent)?;
                if let Some(record) = record {
                    record.save(&session.url)?;
                }
            }
            body = 0;
        }
        self.close(blob, kind, session, body, resumed, sent)
    }

    /// Sends one piece.
    fn chunk(
        &self,
        blob: &Descriptor,
        kind: BlobKind,
        session: &mut Session,
        length: u64,
        sent: &mut u64,
    ) -> std::result::Result<(), Trouble> {
        let end = session.offset + length;
        let range = format!("{}-{}", session.offset, end - 1);
        let headers = [("Content-Range", range.as_str())];
        let answer = self.with_body(Method::PATCH, blob, kind, session, length, &headers, sent)?;
        match answer.status {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
                if answer.header("location").is_some() {
                    session.url = self.location(&answer)?;
                }
                // It may have taken less than it was sent.
                let taken = answer.header("range").and_then(end_of_range).unwrap_or(end);
                if taken > end || taken <= session.offset {
                    let reason =
                        format!("the registry has {taken} bytes of {} after {end} were sent", blob.size);
                    return Err(Trouble::Lost(refused(&session.url, &reason)));
                }
                session.offset = taken;
                Ok(())
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Trouble::Broken(answer.to_error(), None)),
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::LENGTH_REQUIRED => Err(Trouble::Unwanted(answer.to_error())),
            _ => Err(trouble(&answer)),
        }
    }

    /// Closes the upload, with the last `length` bytes of the blob.
    fn close(
        &self,
        blob: &Descriptor,
        kind: BlobKind,
        session: &Session,
        length: u64,
        resumed: bool,
        sent: &mut u64,
    ) -> std::result::Result<(), Trouble> {
        let separator = if session.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}digest={}", session.url, blob.digest);
        let closing = Session { url, offset: session.offset, least: None };
        let answer = self.with_body(Method::PUT, blob, kind, &closing, length, &[], sent)?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => {
                match answer.header("docker-content-digest") {
                    Some(said) if said != blob.digest.to_string() => {
                        let reason =
                            format!("the registry stored {} as {}", blob.digest, said.escape_default());
                        Err(Trouble::Final(refused(&answer.url, &reason)))
                    }
                    _ => Ok(()),
                }
            }
            StatusCode::PAYLOAD_TOO_LARGE if length > 0 => Err(Trouble::Unwanted(answer.to_error())),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Trouble::Lost(answer.to_error())),
            StatusCode::BAD_REQUEST if answer.code() == "DIGEST_INVALID" => {
                // Whose fault is it?
                let file = self.store.open_blob(&blob.digest)?;
                let mut reader = HashingReader::new(file, blob.digest.algorithm());
                io::copy(&mut reader, &mut io::sink()).map_err(Error::from)?;
                reader.verify(
                    &format!("blob {} of the store", blob.digest),
                    &blob.digest,
                    Some(blob.size),
                )?;
                let error = answer.to_error();
                // The pieces of a resumed upload may not fit together.
                Err(if resumed { Trouble::Lost(error) } else { Trouble::Final(error) })
            }
            _ => Err(trouble(&answer)),
        }
    }

    /// A request with a part of the blob, from the session's offset on. Not repeated here: the registry may have some
    /// of it.
    #[expect(clippy::too_many_arguments, reason = "private, called twice")]
    fn with_body(
        &self,
        method: Method,
        blob: &Descriptor,
        kind: BlobKind,
        session: &Session,
        length: u64,
        headers: &[(&str, &str)],
        sent: &mut u64,
    ) -> std::result::Result<Answer, Trouble> {
        let total = AtomicU64::new(0);
        let open = || -> Result<Box<dyn Read + '_>> {
            let mut file = self.store.open_blob(&blob.digest)?;
            file.seek(SeekFrom::Start(session.offset))?;
            let watch = |done| {
                total.store(done, Ordering::Relaxed);
                self.event(blob, kind, State::Pushing { done: session.offset + done, total: blob.size });
            };
            Ok(Box::new(Watched { inner: file.take(length), done: 0, on_read: watch }))
        };
        let body = if length == 0 { Payload::None } else { Payload::Stream(length, &open) };
        let call = Call { headers, body, also: LOOKED_AT, once: true, ..Call::new(method, &session.url) };
        let answer = self.client.call(&call);
        *sent += total.into_inner();
        match answer {
            Ok(response) => Ok(Answer::new(&session.url, response)),
            Err(e @ Error::Unreachable { .. }) => Err(Trouble::Broken(e, None)),
            Err(e) => Err(Trouble::Final(e)),
        }
    }
}

/// What became of the wish to mount a blob.
enum Mount {
    /// It is there now.
    Mounted(String),
    /// It has to be sent, here.
    Session(Session),
    /// There was nothing to mount it from.
    NotTried,
}

/// What an answer means that is not the one hoped for.
fn trouble(answer: &Answer) -> Trouble {
    match answer.status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Trouble::Lost(answer.to_error()),
        _ if answer.is_transient() => Trouble::Broken(answer.to_error(), answer.retry_after()),
        _ => Trouble::Final(answer.to_error()),
    }
}

/// How many bytes a registry has that answers `0-99`: 100. `0-0` is what it says that has none.
fn end_of_range(text: &str) -> Option<u64> {
    let text = text.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    match (first, last) {
        ("0", 0) => Some(0),
        ("0", last) => last.checked_add(1),
        _ => None,
    }
}

/// Tells how much has been read.
struct Watched<R, F> {
    inner: R,
    done: u64,
    on_read: F,
}

impl<R: Read, F: Fn(u64)> Read for Watched<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.on_read)(self.done);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("0-0", Some(0)),
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            (" 0-1 ", Some(2)),
            ("1-99", None),
            ("0-", None),
            ("-", None),
            ("", None),
            ("0-x", None),
            ("0-18446744073709551615", None),
            ("0--1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(end_of_range(text), expected, "{text}");
        }
    }
}
