//! Requests to one registry: scheme, authorization, redirects and retries.
//!
//! Redirects are followed here and not by the HTTP library, because the rules matter: credentials stay with the
//! host they are for, HTTPS never becomes HTTP, and a registry on the network cannot send this machine to itself
//! or to a link-local (metadata) address.

use std::io::Read;
use std::time::Duration;
use std::time::SystemTime;

use ureq::Body;
use ureq::SendBody;
use ureq::http::Method;
use ureq::http::Request;
use ureq::http::Response;
use ureq::http::StatusCode;

use super::Access;
use super::Mirror;
use super::Scope;
use super::address;
use super::address::is_loopback;
use super::agent::Agents;
use super::challenge;
use super::challenge::Challenge;
use super::reply;
use super::reply::REFUSED_ADDRESS;
use super::reply::authority_of;
use super::reply::host_of;
use super::reply::is_refused;
use super::reply::is_transient;
use super::reply::no_answer;
use super::reply::prefixed;
pub(crate) use super::reply::read_limited;
pub(crate) use super::reply::refused;
use super::reply::registry_words;
use super::reply::same_origin;
use super::reply::words;
use super::tls;
use super::token::Authorizer;
use crate::DEFAULT_REGISTRY;
use crate::Error;
use crate::Reference;
use crate::error::Result;

const MAX_REDIRECTS: usize = 5;
/// Largest answer of a token service, and largest error text, in bytes.
pub(super) const MAX_SMALL: u64 = 64 << 10;
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Longest pause that a registry may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Docker Hub's host.
const HUB: &str = "registry-1.docker.io";

/// One registry, or a mirror of it, and one repository there. It may be used by several threads at once.
#[derive(Debug)]
pub struct Client {
    agents: Agents,
    auth: Authorizer,
    /// `http://host:port` or `https://host:port`.
    origin: String,
    registry: String,
    repository: String,
    /// For a mirror: whose images are meant, and what comes before the repository.
    mirror_of: Option<(String, String)>,
    attempts: u32,
    backoff: Duration,
    insecure: bool,
    verb: &'static str,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Absolute, or a path from the root of the registry: `/v2/…`.
    pub(crate) url: &'a str,
    /// `Accept`; empty for none.
    pub(crate) accept: &'a str,
    /// Of a `GET`: start at this byte.
    pub(crate) offset: u64,
    /// More headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Payload<'a>,
    /// What else is an answer and no failure, besides success.
    pub(crate) also: &'a [StatusCode],
    /// Not to be sent again when there is no answer, because nobody knows whether it was carried out.
    pub(crate) once: bool,
}

/// What a request carries.
pub(crate) enum Payload<'a> {
    /// Nothing.
    None,
    /// Bytes and their media type.
    Bytes(&'a [u8], &'a str),
    /// So many bytes, of `application/octet-stream`, from a reader that is opened for each attempt.
    #[allow(dead_code, reason = "for uploads of blobs")]
    Stream(u64, &'a (dyn Fn() -> Result<Box<dyn Read + 'a>> + Sync)),
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bytes(bytes, _) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(length, _) => write!(f, "Stream({length})"),
        }
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: &'a str) -> Self {
        Self { method, url, accept: "", offset: 0, headers: &[], body: Payload::None, also: &[], once: false }
    }

    pub(crate) fn get(url: &'a str) -> Self {
        Self::new(Method::GET, url)
    }
}

/// Whether it makes sense to try again.
enum Failure {
    Transient(Error, Option<Duration>),
    Final(Error),
}

impl Client {
    /// Finds out how the registry wants to be spoken to. Mirrors are not looked at.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Certificate`].
    pub fn connect(name: &Reference, access: &Access, scope: &Scope) -> Result<Self> {
        Self::open(name.registry(), name.repository(), access, scope)
    }

    /// As [`Client::connect`], to a registry as such: `docker.io` or `host[:port]`.
    ///
    /// # Errors
    /// The same.
    pub fn connect_registry(registry: &str, access: &Access) -> Result<Self> {
        Self::open(registry, "", access, &Scope::Registry)
    }

    fn open(registry: &str, repository: &str, access: &Access, scope: &Scope) -> Result<Self> {
        let host = if registry == DEFAULT_REGISTRY { HUB } else { registry };
        let mut client = Self {
            agents: Agents::new(host_of(host), &access.tls, access.insecure, access),
            auth: Authorizer::new(access.credentials.clone(), scope, repository),
            origin: String::new(),
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            mirror_of: None,
            attempts: access.attempts.max(1),
            backoff: access.backoff,
            insecure: access.insecure,
            verb: scope.verb(),
        };
        // A TLS server answers plain text at once; a plain server may wait for more of a TLS greeting. So what may
        // be plain is tried plain first, except where that would send credentials over the network.
        let schemes: &[&str] = match (is_loopback(host_of(host)), access.insecure) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let mut reason = String::new();
        for scheme in schemes {
            client.origin = format!("{scheme}://{host}");
            match client.greet() {
                // What Go's servers say to plain text on a TLS port.
                Ok(response) if *scheme == "http" && response.status() == StatusCode::BAD_REQUEST => {
                    reason = "it does not speak plain HTTP".into();
                }
                Ok(response) => {
                    client.auth.remember(asked(&response));
                    return Ok(client);
                }
                Err(Error::Io(e)) => match e.downcast::<ureq::Error>() {
                    Ok(e) if tls::complaint(&e).is_some() => return Err(no_answer(&client.origin, &e)),
                    Ok(e) => {
                        // Of two failures the first names the cause, unless it is about the wrong scheme.
                        if reason.is_empty() || !is_refused(&e) {
                            reason = words(&e);
                        }
                        if is_refused(&e) {
                            break;
                        }
                    }
                    Err(e) => return Err(Error::Io(e)),
                },
                Err(e) => return Err(e),
            }
        }
        Err(Error::Unreachable { registry: registry.to_owned(), reason })
    }

    /// The same repository at a mirror, which has credentials of its own.
    pub(super) fn connect_mirror(name: &Reference, access: &Access, mirror: &Mirror) -> Result<Self> {
        let url = mirror.url.trim_end_matches('/');
        let parts = url.split_once("://").filter(|(scheme, rest)| {
            matches!(*scheme, "http" | "https") && !rest.is_empty() && !rest.contains(['?', '#', '@'])
        });
        let Some((scheme, rest)) = parts else {
            return Err(refused(url, "not an address of a mirror: expected `https://host[:port][/prefix]`"));
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let repository = format!("{prefix}{}", name.repository());
        let client = Self {
            agents: Agents::new(host_of(host), &mirror.tls, mirror.insecure, access),
            auth: Authorizer::new(mirror.credentials.clone(), &Scope::Pull, &repository),
            origin: format!("{scheme}://{host}"),
            registry: host.to_owned(),
            repository,
            mirror_of: Some((name.registry().to_owned(), prefix)),
            // The next one is a better choice than patience.
            attempts: access.attempts.clamp(1, 2),
            backoff: access.backoff,
            insecure: mirror.insecure,
            verb: Scope::Pull.verb(),
        };
        match client.greet() {
            Ok(response) => client.auth.remember(asked(&response)),
            Err(Error::Io(e)) => {
                return Err(e
                    .downcast::<ureq::Error>()
                    .map_or_else(Error::Io, |e| no_answer(&client.origin, &e)));
            }
            Err(e) => return Err(e),
        }
        Ok(client)
    }

    /// `/v2/`, without credentials. What the HTTP library says is inside an [`Error::Io`].
    fn greet(&self) -> Result<Response<Body>> {
        let url = format!("{}/v2/", self.origin);
        let agent = self.agents.for_url(&url)?;
        let request = Request::get(&url).header("Accept-Encoding", "identity").body(());
        let request = request.map_err(|e| refused(&url, &e.to_string()))?;
        agent.run(request).map_err(|e| Error::Io(std::io::Error::other(e)))
    }

    /// Proves the credentials to the registry. The token service may give a token to keep in place of the password.
    ///
    /// # Errors
    /// [`Error::Denied`] when they are not accepted; the registry's.
    pub fn login(&self) -> Result<Option<String>> {
        let refresh = self.auth.login(self)?;
        self.call(&Call::get("/v2/"))?;
        Ok(refresh)
    }

    /// Host and optional port, as in references.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, as this registry names it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The address of something of the repository: `blobs/uploads/`, `tags/list`, `referrers/sha256:…`.
    pub(crate) fn url(&self, path: &str) -> String {
        let mut url = format!("{}/v2/{}/{path}", self.origin, self.repository);
        if let Some((registry, _)) = &self.mirror_of {
            let separator = if path.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{separator}ns={}", super::token::query_encode(registry)));
        }
        url
    }

    pub(crate) fn manifest_url(&self, tag_or_digest: &str) -> String {
        self.url(&format!("manifests/{tag_or_digest}"))
    }

    pub(crate) fn blob_url(&self, digest: &crate::Digest) -> String {
        self.url(&format!("blobs/{digest}"))
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long this registry may say nothing.
    pub(super) fn patience(&self) -> Duration {
        self.agents.timeout()
    }

    /// The pause before attempt `n`, 2 for the first retry.
    pub(crate) fn pause_before(&self, attempt: u32) -> Duration {
        self.backoff.saturating_mul(1 << attempt.saturating_sub(2).min(16)).min(MAX_BACKOFF)
    }

    /// Sends a request until it succeeds or there is no point in going on. The answer is a success, or one of
    /// [`Call::also`].
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Response<Body>> {
        let mut attempt = 1;
        loop {
            match self.try_call(call) {
                Ok(response) => return Ok(response),
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Transient(e, _)) if attempt >= self.attempts => return Err(e),
                Err(Failure::Transient(_, wish)) => {
                    attempt += 1;
                    let wish = wish.unwrap_or_default().min(MAX_RETRY_AFTER);
                    std::thread::sleep(self.pause_before(attempt).max(wish));
                }
            }
        }
    }

    fn try_call(&self, call: &Call<'_>) -> std::result::Result<Response<Body>, Failure> {
        let mut url = if call.url.starts_with('/') {
            format!("{}{}", self.origin, call.url)
        } else {
            call.url.to_owned()
        };
        let mut answered_challenge = false;
        let mut redirects = 0;
        loop {
            let own = same_origin(&url, &self.origin);
            let authorization = if own { self.auth.header(self).map_err(Failure::Final)? } else { None };
            let response = self.send(call, &url, authorization.as_deref()).map_err(|e| {
                let error = no_answer(&url, &e);
                // A request that did not get as far as the registry had no effect.
                if is_transient(&e) && (!call.once || is_refused(&e)) {
                    Failure::Transient(error, None)
                } else {
                    Failure::Final(error)
                }
            })?;
            let status = response.status();
            if status.is_success() || call.also.contains(&status) {
                return Ok(response);
            }
            match status {
                StatusCode::UNAUTHORIZED if own && !answered_challenge => {
                    answered_challenge = true;
                    self.auth
                        .challenged(self, asked(&response), authorization.as_deref())
                        .map_err(Failure::Final)?;
                }
                status if status.is_redirection() => {
                    redirects += 1;
                    if redirects > MAX_REDIRECTS {
                        return Err(Failure::Final(refused(&url, "too many redirects")));
                    }
                    let keeps_body = matches!(status.as_u16(), 307 | 308);
                    if !keeps_body && !matches!(call.method, Method::GET | Method::HEAD) {
                        return Err(Failure::Final(refused(
                            &url,
                            &format!("redirect {status} of a change refused"),
                        )));
                    }
                    url = self.location(&url, &response).map_err(Failure::Final)?;
                }
                _ => return Err(self.failure(&url, response)),
            }
        }
    }

    /// One request, as it is.
    pub(super) fn send(
        &self,
        call: &Call<'_>,
        url: &str,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let agent = self.agents.for_url(url).map_err(|e| ureq::Error::Other(Box::new(e)))?;
        let mut request =
            Request::builder().method(&call.method).uri(url).header("Accept-Encoding", "identity");
        if !call.accept.is_empty() {
            request = request.header("Accept", call.accept);
        }
        if call.offset > 0 {
            request = request.header("Range", format!("bytes={}-", call.offset));
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        match call.body {
            // A change without a body says so: some servers wait for one.
            Payload::None if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                agent.run(request.body(&[][..])?)
            }
            Payload::None => agent.run(request.body(())?),
            Payload::Bytes(bytes, media_type) => {
                agent.run(request.header("Content-Type", media_type).body(bytes)?)
            }
            Payload::Stream(length, open) => {
                let mut reader = open().map_err(|e| ureq::Error::Other(Box::new(e)))?.take(length);
                let request = request
                    .header("Content-Type", "application/octet-stream")
                    .header("Content-Length", length.to_string());
                agent.run(request.body(SendBody::from_reader(&mut reader))?)
            }
        }
    }

    /// Where the `Location` header of an answer leads, if it may.
    pub(crate) fn location(&self, from: &str, response: &Response<Body>) -> Result<String> {
        self.resolve(from, response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or(""))
    }

    /// Where a reference in an answer from the address `from` leads, if it may.
    pub(crate) fn resolve(&self, from: &str, location: &str) -> Result<String> {
        let from = if from.starts_with('/') { format!("{}{from}", self.origin) } else { from.to_owned() };
        let from = from.as_str();
        let (scheme, rest) = from.split_once("://").unwrap_or(("https", from));
        let target = if location.starts_with("http://") || location.starts_with("https://") {
            location.to_owned()
        } else if let Some(host_and_path) = location.strip_prefix("//") {
            format!("{scheme}://{host_and_path}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", rest.split('/').next().unwrap_or(rest))
        } else {
            return Err(refused(from, &format!("redirect to \"{}\" refused", location.escape_default())));
        };
        if scheme == "https" && target.starts_with("http://") && !self.insecure {
            return Err(refused(from, "redirect from HTTPS to plain HTTP refused"));
        }
        self.check_address(&target)?;
        Ok(target)
    }

    /// The address of the next page of a list, from the `Link` header (RFC 8288). Only the registry itself goes on
    /// with its lists.
    pub(super) fn next_page(&self, from: &str, response: &Response<Body>) -> Result<Option<String>> {
        let header = response.headers().get("link").and_then(|v| v.to_str().ok()).unwrap_or("");
        let Some((target, parameters)) = header.trim().strip_prefix('<').and_then(|h| h.split_once('>'))
        else {
            return Ok(None);
        };
        let is_next = parameters.split([';', ',']).any(|p| {
            let p = p.trim().to_ascii_lowercase();
            p == "rel=next" || p == "rel=\"next\""
        });
        if !is_next {
            return Ok(None);
        }
        let next = match target {
            path if path.starts_with('/') && !path.starts_with("//") => format!("{}{path}", self.origin),
            query if query.starts_with('?') => format!("{}{query}", from.split('?').next().unwrap_or(from)),
            url => url.to_owned(),
        };
        if same_origin(&next, &self.origin) {
            Ok(Some(next))
        } else {
            Err(refused(from, "the list goes on at another host"))
        }
    }

    /// Whether credentials may go to this token service.
    pub(super) fn check_token_service(&self, realm: &str) -> Result<()> {
        let plain_allowed = self.origin.starts_with("http://");
        if !(realm.starts_with("https://") || plain_allowed && realm.starts_with("http://")) {
            return Err(refused(realm, "not an acceptable address of a token service"));
        }
        self.check_address(realm)
    }

    /// A registry on the network does not decide what this machine asks of itself or of its cloud. What a name
    /// stands for is looked at by the [`address::Guard`] when the connection is made.
    fn check_address(&self, url: &str) -> Result<()> {
        let (own, host) = (authority_of(&self.origin), authority_of(url));
        if address::may_be_asked(host_of(&host), host_of(&own)) {
            Ok(())
        } else {
            Err(refused(url, REFUSED_ADDRESS))
        }
    }

    /// What an answer that is no success means.
    fn failure(&self, url: &str, response: Response<Body>) -> Failure {
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let wish = header("retry-after").and_then(|v| reply::retry_after(v, SystemTime::now()));
        // Docker Hub counts pulls by the hour; seconds do not help then.
        let used_up = header("ratelimit-remaining").is_some_and(|v| v.split(';').next() == Some("0"));
        let body = read_limited(response, MAX_SMALL).unwrap_or_default();
        let said = registry_words(&body);
        let general = || refused(url, &format!("the registry answered {status}{}", prefixed(&said)));
        match status {
            StatusCode::NOT_FOUND if url.contains("/manifests/") => {
                let path = url.split('?').next().unwrap_or(url);
                let tag = path.rsplit('/').next().unwrap_or_default();
                let separator = if tag.contains(':') { '@' } else { ':' };
                let reference = format!("{}/{}{separator}{tag}", self.registry, self.repository);
                Failure::Final(Error::ManifestUnknown { reference })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::Final(self.denied(if said.is_empty() { "access is not allowed" } else { &said }))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let error = self.rate_limited(&body);
                let hopeless = used_up || wish.is_some_and(|wish| wish > MAX_RETRY_AFTER);
                if hopeless { Failure::Final(error) } else { Failure::Transient(error, wish) }
            }
            StatusCode::REQUEST_TIMEOUT => Failure::Transient(general(), wish),
            status if status.is_server_error() => Failure::Transient(general(), wish),
            _ => Failure::Final(general()),
        }
    }

    pub(super) fn rate_limited(&self, body: &[u8]) -> Error {
        Error::RateLimited { registry: self.registry.clone(), reason: registry_words(body) }
    }

    pub(super) fn denied(&self, reason: &str) -> Error {
        let repository = match self.verb {
            "registry" => self.registry.clone(),
            _ => format!("{}/{}", self.registry, self.repository),
        };
        Error::Denied { action: self.verb, repository, reason: reason.into() }
    }
}

/// The challenge of an answer.
fn asked(response: &Response<Body>) -> Option<Challenge> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let headers = response.headers().get_all("www-authenticate");
    challenge::choose(headers.iter().filter_map(|v| v.to_str().ok()))
}
