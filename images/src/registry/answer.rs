//! An answer to a request that changes something: its status is looked at by the caller, whatever it is.

use std::time::Duration;

use serde::Deserialize;
use ureq::Body;
use ureq::http::HeaderMap;
use ureq::http::Response;
use ureq::http::StatusCode;

use super::http::read_limited;
use super::http::refused;
use super::reply::prefixed;
use super::reply::registry_words;
use crate::Error;

/// Longest explanation that is read, in bytes.
const MAX_WORDS: u64 = 64 << 10;
/// Longest pause that a registry may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What a change may be answered with besides success. Everything else, a denial for example, is an error at once.
pub(super) const LOOKED_AT: &[StatusCode] = &[
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::GONE,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::RANGE_NOT_SATISFIABLE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::NOT_IMPLEMENTED,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Status, headers and the registry's explanation.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) url: String,
    headers: HeaderMap,
    words: Vec<u8>,
}

impl Answer {
    pub(super) fn new(url: &str, response: Response<Body>) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        // The connection can be used again only when the answer was read to its end.
        let words = read_limited(response, MAX_WORDS).unwrap_or_default();
        Self { status, url: url.to_owned(), headers, words }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    /// The pause that the registry asks for, if it does.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_PAUSE))
    }

    /// The code of the registry's explanation, for example `DIGEST_INVALID`.
    pub(super) fn code(&self) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
        }
        let errors = serde_json::from_slice::<Errors>(&self.words).ok();
        errors.and_then(|e| e.errors.into_iter().next()).map(|one| one.code).unwrap_or_default()
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            || self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
    }

    pub(super) fn to_error(&self) -> Error {
        let said = prefixed(&registry_words(&self.words));
        refused(&self.url, &format!("the registry answered {}{said}", self.status))
    }
}
