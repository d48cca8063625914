//! Requests to one registry: scheme, authorization, redirects, retries, and errors in words.
//!
//! Redirects are followed here and not by the HTTP library, because the rules matter: credentials stay with the
//! host they are for, HTTPS never becomes HTTP, and a registry on the network cannot send this machine to itself
//! or to a link-local (metadata) address.

use std::io::Read as _;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use ureq::Body;
use ureq::http::Response;
use ureq::http::StatusCode;
use ureq::http::Uri;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;

use super::Credentials;
use super::PullOptions;
use super::address;
use super::address::Guard;
use super::address::is_loopback;
use super::auth;
use super::auth::Challenge;
use crate::DEFAULT_REGISTRY;
use crate::Error;
use crate::Reference;
use crate::error::Result;

const MAX_REDIRECTS: usize = 5;
const REFUSED_ADDRESS: &str = "redirect to this address refused";
/// Largest answer of a token service, and largest error text, in bytes.
const MAX_SMALL: u64 = 64 << 10;
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Longest pause that a registry may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// One registry and one repository of it.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    /// `http://host:port` or `https://host:port`.
    origin: String,
    registry: String,
    repository: String,
    credentials: Option<Credentials>,
    /// The `Authorization` header that was accepted last.
    authorization: Mutex<Option<String>>,
    attempts: u32,
    backoff: Duration,
    insecure: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Get<'a> {
    pub(super) accept: &'a str,
    /// Start at this byte.
    pub(super) offset: u64,
}

/// Whether it makes sense to try again.
enum Failure {
    Transient(Error, Option<Duration>),
    Final(Error),
}

impl Client {
    /// Finds out how the registry wants to be spoken to.
    pub(super) fn connect(name: &Reference, options: &PullOptions) -> Result<Self> {
        let registry = name.registry().to_owned();
        let host = if registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &registry };
        let loopback = is_loopback(host_of(host));
        // A TLS server answers plain text at once; a plain server may wait for more of a TLS greeting. So what may
        // be plain is tried plain first, except where that would send credentials over the network.
        let schemes: &[&str] = match (loopback, options.insecure) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .disable_verification(options.insecure)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("dhow/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(options.timeout.min(Duration::from_secs(20))))
            .timeout_recv_response(Some(options.timeout))
            .timeout_per_read(Some(options.timeout))
            .max_response_header_size(64 << 10)
            .build();
        let guard = Guard::new(host_of(host));
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), guard);
        let mut client = Self {
            agent,
            origin: String::new(),
            registry: registry.clone(),
            repository: name.repository().to_owned(),
            credentials: options.credentials.clone(),
            authorization: Mutex::new(None),
            attempts: options.attempts.max(1),
            backoff: options.backoff,
            insecure: options.insecure,
        };
        let mut reason = String::new();
        for scheme in schemes {
            client.origin = format!("{scheme}://{host}");
            match client.send(&format!("{}/v2/", client.origin), Get::default(), None) {
                // What Go's servers say to plain text on a TLS port.
                Ok(response) if *scheme == "http" && response.status() == StatusCode::BAD_REQUEST => {
                    reason = "it does not speak plain HTTP".into();
                }
                Ok(_) => return Ok(client),
                Err(e) => {
                    // Of two failures the first names the cause, unless it is about the wrong scheme.
                    if reason.is_empty() || !is_refused(&e) {
                        reason = words(&e);
                    }
                    if is_refused(&e) {
                        break;
                    }
                }
            }
        }
        Err(Error::Unreachable { registry, reason })
    }

    pub(super) fn manifest_url(&self, tag_or_digest: &str) -> String {
        format!("{}/v2/{}/manifests/{tag_or_digest}", self.origin, self.repository)
    }

    pub(super) fn blob_url(&self, digest: &crate::Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.origin, self.repository)
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The pause before attempt `n`, 2 for the first retry.
    pub(super) fn pause_before(&self, attempt: u32) -> Duration {
        self.backoff.saturating_mul(1 << attempt.saturating_sub(2).min(16)).min(MAX_BACKOFF)
    }

    /// Sends a request until it succeeds or there is no point in going on. The answer is 200 or 206.
    pub(super) fn get(&self, url: &str, get: Get<'_>) -> Result<Response<Body>> {
        let mut attempt = 1;
        loop {
            match self.try_get(url, get) {
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

    fn try_get(&self, url: &str, get: Get<'_>) -> std::result::Result<Response<Body>, Failure> {
        let mut url = url.to_owned();
        let mut asked_for_token = false;
        let mut redirects = 0;
        loop {
            let own = same_origin(&url, &self.origin);
            let authorization = if own { self.authorization() } else { None };
            let response = self.send(&url, get, authorization.as_deref()).map_err(|e| {
                let error = no_answer(&url, &e);
                if is_transient(&e) { Failure::Transient(error, None) } else { Failure::Final(error) }
            })?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                StatusCode::UNAUTHORIZED if own && !asked_for_token => {
                    asked_for_token = true;
                    self.authorize(&response, authorization.is_some()).map_err(Failure::Final)?;
                }
                status if status.is_redirection() => {
                    redirects += 1;
                    if redirects > MAX_REDIRECTS {
                        return Err(Failure::Final(refused(&url, "too many redirects")));
                    }
                    let location =
                        response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or("");
                    url = self.redirect(&url, location).map_err(Failure::Final)?;
                }
                _ => return Err(self.failure(&url, response)),
            }
        }
    }

    fn send(
        &self,
        url: &str,
        get: Get<'_>,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if !get.accept.is_empty() {
            request = request.header("Accept", get.accept);
        }
        if get.offset > 0 {
            request = request.header("Range", format!("bytes={}-", get.offset));
        }
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        request.call()
    }

    fn authorization(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Answers a challenge. `again`: what we had was refused.
    fn authorize(&self, response: &Response<Body>, again: bool) -> Result<()> {
        let headers = response.headers().get_all("www-authenticate");
        let denied = |reason: &str| self.denied(reason);
        let header = match auth::parse_challenges(headers.iter().filter_map(|v| v.to_str().ok())) {
            Some(Challenge::Basic) => match &self.credentials {
                Some(Credentials::Basic { user, password }) if !again => auth::basic_header(user, password),
                Some(_) => return Err(denied("the credentials were not accepted")),
                None => return Err(denied("authentication required")),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                self.token(&realm, service.as_deref(), scope.as_deref())?
            }
            None => return Err(denied("authentication required, of an unknown kind")),
        };
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(header);
        Ok(())
    }

    /// Asks a token service. Credentials go there because the registry says so, and only over HTTPS, unless the
    /// registry itself may speak plain HTTP.
    fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String> {
        let plain_allowed = self.origin.starts_with("http://");
        if !(realm.starts_with("https://") || plain_allowed && realm.starts_with("http://")) {
            return Err(refused(realm, "not an acceptable address of a token service"));
        }
        self.check_address(realm)?;
        let default_scope = format!("repository:{}:pull", self.repository);
        let scope = scope.unwrap_or(&default_scope);
        let answer = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=dhow&service={}&scope={}&refresh_token={}",
                    auth::query_encode(service.unwrap_or("")),
                    auth::query_encode(scope),
                    auth::query_encode(token)
                );
                self.agent
                    .post(realm)
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .send(form.as_bytes())
            }
            credentials => {
                let url = auth::token_url(realm, service, scope);
                let header = match credentials {
                    Some(Credentials::Basic { user, password }) => Some(auth::basic_header(user, password)),
                    _ => None,
                };
                self.send(&url, Get::default(), header.as_deref())
            }
        };
        let response = answer.map_err(|e| no_answer(realm, &e))?;
        let status = response.status();
        let body = read_limited(response, MAX_SMALL);
        match status {
            StatusCode::OK => body
                .and_then(|body| auth::bearer_header(&body))
                .ok_or_else(|| refused(realm, "the token service's answer holds no token")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied("the token service refused")),
            other => Err(refused(realm, &format!("the token service answered {other}"))),
        }
    }

    fn redirect(&self, from: &str, location: &str) -> Result<String> {
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

    /// A registry on the network does not decide what this machine asks of itself or of its cloud. What a name
    /// stands for is looked at by the [`Guard`] when the connection is made.
    fn check_address(&self, url: &str) -> Result<()> {
        let (own, host) = (host_of_url(&self.origin), host_of_url(url));
        if address::may_be_asked(host_of(&host), host_of(&own)) {
            Ok(())
        } else {
            Err(refused(url, REFUSED_ADDRESS))
        }
    }

    /// What an answer that is no success means.
    fn failure(&self, url: &str, response: Response<Body>) -> Failure {
        let status = response.status();
        let wish = response
            .headers()
            .get("retry-after")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse().ok())
            .map(Duration::from_secs);
        let body = read_limited(response, MAX_SMALL).unwrap_or_default();
        let said = registry_words(&body);
        let general = || refused(url, &format!("the registry answered {status}{}", prefixed(&said)));
        match status {
            StatusCode::NOT_FOUND if url.contains("/manifests/") => {
                let tag = url.rsplit('/').next().unwrap_or_default();
                let separator = if tag.contains(':') { '@' } else { ':' };
                let reference = format!("{}/{}{separator}{tag}", self.registry, self.repository);
                Failure::Final(Error::ManifestUnknown { reference })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::Final(self.denied(if said.is_empty() { "access is not allowed" } else { &said }))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Failure::Transient(general(), wish)
            }
            status if status.is_server_error() => Failure::Transient(general(), wish),
            _ => Failure::Final(general()),
        }
    }

    fn denied(&self, reason: &str) -> Error {
        Error::Denied { repository: format!("{}/{}", self.registry, self.repository), reason: reason.into() }
    }
}

pub(super) fn refused(url: &str, reason: &str) -> Error {
    Error::Registry { url: without_query(url).into(), reason: reason.into() }
}

/// Queries of signed addresses are secrets.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// The whole body, or `None` when it is longer or breaks off.
pub(super) fn read_limited(response: Response<Body>, limit: u64) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    response.into_body().into_reader().take(limit + 1).read_to_end(&mut body).ok()?;
    (body.len() as u64 <= limit).then_some(body)
}

/// The registry's own explanation, made safe to print.
fn registry_words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        message: String,
    }
    let message = serde_json::from_slice::<Errors>(body).ok().and_then(|e| e.errors.into_iter().next());
    message.map_or_else(String::new, |m| m.message.chars().filter(|c| !c.is_control()).take(200).collect())
}

fn prefixed(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn same_origin(url: &str, origin: &str) -> bool {
    url.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/'))
}

/// `host:port` of an address, or nothing.
fn host_of_url(url: &str) -> String {
    let uri: Option<Uri> = without_query(url).parse().ok();
    uri.and_then(|u| u.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default().to_owned()))
        .unwrap_or_default()
}

/// The host of `host:port`, `[v6]:port` or `host`.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn no_answer(url: &str, error: &ureq::Error) -> Error {
    if address::is_refusal(error) {
        return refused(url, REFUSED_ADDRESS);
    }
    Error::Unreachable { registry: host_of_url(url), reason: words(error) }
}

fn is_refused(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        _ => false,
    }
}

fn is_transient(error: &ureq::Error) -> bool {
    !address::is_refusal(error)
        && !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::HostNotFound)
}

fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "host not found".into(),
        ureq::Error::ConnectionFailed => "connection failed".into(),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".into()
        }
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}
