//! A blob of a registry as one stream: broken connections are resumed where they stopped.

use std::io;
use std::io::Read;

use ureq::BodyReader;
use ureq::http::StatusCode;

use super::http::Call;
use super::http::Client;
use super::http::refused;
use super::patient::Patient;
use crate::BlobKind;
use crate::Descriptor;
use crate::Error;
use crate::Event;
use crate::Progress;
use crate::State;
use crate::error::Result;

/// So many bytes after a break make it forgotten: a long download over a bad line is many short ones.
const PROGRESS: u64 = 1 << 20;

/// Reads exactly the bytes that the descriptor promises, from `offset` to the end, or fails. The digest is the caller's to check.
pub(super) struct BlobReader<'a> {
    client: &'a Client,
    blob: &'a Descriptor,
    url: String,
    body: Option<Patient<BodyReader<'static>>>,
    offset: u64,
    attempt: u32,
    /// Where the last break was.
    broke_at: u64,
    kind: BlobKind,
    progress: &'a dyn Progress,
}

impl<'a> BlobReader<'a> {
    pub(super) fn new(
        client: &'a Client,
        blob: &'a Descriptor,
        offset: u64,
        kind: BlobKind,
        progress: &'a dyn Progress,
    ) -> Self {
        let url = client.blob_url(&blob.digest);
        Self { client, blob, url, body: None, offset, attempt: 1, broke_at: offset, kind, progress }
    }

    fn event(&self, state: State<'_>) {
        self.progress.event(&Event::Blob { digest: &self.blob.digest, kind: self.kind, state });
    }

    fn mismatch(&self, actual: u64) -> Error {
        Error::SizeMismatch { what: self.url.clone(), expected: self.blob.size, actual }
    }

    /// Opens the stream at the current offset.
    fn open(&mut self) -> Result<()> {
        let response = self.client.call(&Call { offset: self.offset, ..Call::get(&self.url) })?;
        let mut skip = 0;
        if self.offset > 0 {
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    let range =
                        response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or("");
                    if !range.starts_with(&format!("bytes {}-", self.offset)) {
                        return Err(refused(&self.url, "the registry resumes at another byte"));
                    }
                }
                // It does not know ranges.
                _ => skip = self.offset,
            }
        } else if response.status() == StatusCode::PARTIAL_CONTENT {
            return Err(refused(&self.url, "the registry answered a part that was not asked for"));
        }
        if let Some(length) = response.body().content_length() {
            // What the answer holds of the blob begins at `offset`, or at 0 when that much is to be skipped.
            match length.checked_add(self.offset - skip) {
                Some(whole) if whole == self.blob.size => {}
                whole => return Err(self.mismatch(whole.unwrap_or(u64::MAX))),
            }
        }
        let mut body = Patient::new(response.into_body().into_reader(), self.client.patience());
        if io::copy(&mut (&mut body).take(skip), &mut io::sink())? < skip {
            return Err(self.mismatch(self.offset));
        }
        self.body = Some(body);
        Ok(())
    }

    /// The connection broke. Waits, unless it broke too often.
    fn broke(&mut self, reason: &str) -> Result<()> {
        self.body = None;
        if self.offset - self.broke_at >= PROGRESS {
            self.attempt = 1;
        }
        self.broke_at = self.offset;
        if self.attempt >= self.client.attempts() {
            return Err(self.mismatch(self.offset));
        }
        self.event(State::Retrying { attempt: self.attempt, reason });
        self.attempt += 1;
        std::thread::sleep(self.client.pause_before(self.attempt));
        Ok(())
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let Some(body) = &mut self.body else {
                match self.open() {
                    Ok(()) => continue,
                    Err(Error::Io(e)) => self.broke(&e.to_string())?,
                    Err(e) => return Err(e),
                }
                continue;
            };
            if self.offset == self.blob.size {
                // A registry that sends more than it should, without saying how much.
                let mut extra = [0];
                return match body.read(&mut extra) {
                    Ok(n) if n > 0 => Err(self.mismatch(self.offset + 1)),
                    _ => Ok(0),
                };
            }
            let left = usize::try_from(self.blob.size - self.offset).unwrap_or(usize::MAX);
            let limit = buffer.len().min(left);
            match body.read(&mut buffer[..limit]) {
                Ok(0) => self.broke("the connection was closed")?,
                Ok(n) => {
                    self.offset += n as u64;
                    self.event(State::Fetching { done: self.offset, total: self.blob.size });
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.broke(&e.to_string())?,
            }
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(io::Error::other)
    }
}
