//! Answers and failures of a registry, in words.

use std::io::Read as _;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use ureq::Body;
use ureq::http::Response;
use ureq::http::Uri;

use super::address;
use super::patient::Patient;
use super::tls;
use crate::Error;
use crate::trust::time::compact;

/// How long documents may trickle in.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const REFUSED_ADDRESS: &str = "redirect to this address refused";

pub(crate) fn refused(url: &str, reason: &str) -> Error {
    Error::Registry { url: without_query(url).into(), reason: reason.into() }
}

/// Queries of signed addresses are secrets.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// The whole body, or `None` when it is longer or breaks off.
pub(crate) fn read_limited(response: Response<Body>, limit: u64) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let reader = Patient::new(response.into_body().into_reader(), PATIENCE);
    reader.take(limit + 1).read_to_end(&mut body).ok()?;
    (body.len() as u64 <= limit).then_some(body)
}

/// The registry's own explanation, made safe to print: its message, or the error's code in words, or nothing.
pub(super) fn registry_words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        /// Token services say it so.
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else { return String::new() };
    let text = match errors.errors.into_iter().next() {
        Some(first) if first.message.is_empty() => first.code.to_ascii_lowercase().replace('_', " "),
        Some(first) => first.message,
        None => errors.details,
    };
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

pub(super) fn prefixed(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Whether an address belongs to an origin, `https://host[:port]`.
pub(super) fn same_origin(url: &str, origin: &str) -> bool {
    url.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/'))
}

/// `host:port` of an address, or nothing.
pub(super) fn authority_of(url: &str) -> String {
    let uri: Option<Uri> = without_query(url).parse().ok();
    uri.and_then(|u| u.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default().to_owned()))
        .unwrap_or_default()
}

/// The host of `host:port`, `[v6]:port` or `host`.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// The port of an address, given or implied.
pub(super) fn port_of(url: &str) -> u16 {
    let implied = if url.starts_with("http://") { 80 } else { 443 };
    let uri: Option<Uri> = without_query(url).parse().ok();
    uri.and_then(|u| u.port_u16()).unwrap_or(implied)
}

pub(super) fn no_answer(url: &str, error: &ureq::Error) -> Error {
    if address::is_refusal(error) {
        return refused(url, REFUSED_ADDRESS);
    }
    let registry = authority_of(url);
    match tls::complaint(error) {
        Some((fault, reason)) => Error::Certificate { registry, fault, reason },
        None => Error::Unreachable { registry, reason: words(error) },
    }
}

/// How long a `Retry-After` header asks to wait: seconds, or a date (RFC 9110, 10.2.3) as everybody writes it now.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (_, date) = header.split_once(", ")?;
    let mut parts = date.split(' ');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let time = parts.next()?.replace(':', "");
    if parts.next() != Some("GMT") || parts.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let at = u64::try_from(compact(&format!("{year}{month:02}{day}{time}Z"))?).ok()?;
    // A date that is over asks for nothing.
    Some((UNIX_EPOCH + Duration::from_secs(at)).duration_since(now).unwrap_or_default())
}

pub(super) fn is_refused(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        _ => false,
    }
}

pub(super) fn is_transient(error: &ureq::Error) -> bool {
    !address::is_refusal(error)
        && tls::complaint(error).is_none()
        && !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::HostNotFound)
}

pub(super) fn words(error: &ureq::Error) -> String {
    if let Some((_, complaint)) = tls::complaint(error) {
        return complaint;
    }
    match error {
        ureq::Error::HostNotFound => "host not found".into(),
        ureq::Error::ConnectionFailed => "connection failed".into(),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".into()
        }
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::ConnectProxyFailed(reason) => format!("the proxy refused: {reason}"),
        ureq::Error::InvalidProxyUrl => "the proxy's address is not valid".into(),
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 20);
        let seconds = |header: &str| retry_after(header, now).map(|pause| pause.as_secs());
        assert_eq!(seconds(" 7 "), Some(7));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(20));
        assert_eq!(seconds("Sat, 05 Nov 1994 08:49:37 GMT"), Some(0));
        for header in [
            "",
            "soon",
            "-1",
            "1.5",
            "Sun, 6 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "x, 06 Ünf 1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(header), None, "{header}");
        }
    }
}
