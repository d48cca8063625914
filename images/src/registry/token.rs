//! The `Authorization` header: what answers a registry's challenge, and tokens, kept until they expire.
//!
//! The protocol of token services is the distribution project's: `GET` with basic authentication, and the OAuth2
//! `POST` for refresh tokens.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::Method;
use ureq::http::StatusCode;

use super::Credentials;
use super::Scope;
use super::challenge::Challenge;
use super::http::Call;
use super::http::Client;
use super::http::MAX_SMALL;
use super::http::Payload;
use super::http::read_limited;
use super::reply::no_answer;
use super::reply::refused;
use crate::error::Result;

/// As whom tokens are asked for. Token services know Docker's name and may know no other.
const CLIENT: &str = "docker";
/// A token that says nothing is good for this long, by the specification.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest life of a token that is believed.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Credentials, and the header they led to.
#[derive(Debug)]
pub(super) struct Authorizer {
    pub(super) credentials: Option<Credentials>,
    /// What tokens must allow, as `repository:name:actions`.
    scopes: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the registry asked for last.
    challenge: Option<Challenge>,
    header: Option<String>,
    /// When the header will be refused.
    ends: Option<Instant>,
}

impl Authorizer {
    pub(super) fn new(credentials: Option<Credentials>, scope: &Scope, repository: &str) -> Self {
        let state = Mutex::new(State {
            header: match &credentials {
                Some(Credentials::RegistryToken(token)) if fits_header(token) => {
                    Some(format!("Bearer {token}"))
                }
                _ => None,
            },
            ..State::default()
        });
        Self { credentials, scopes: scope.words(repository), state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what the registry asked for when it was greeted.
    pub(super) fn remember(&self, challenge: Option<Challenge>) {
        self.state().challenge = challenge;
    }

    /// The header for a request; a token that expired, or that the greeting asked for, is fetched first.
    pub(super) fn header(&self, client: &Client) -> Result<Option<String>> {
        let mut state = self.state();
        let stale = state.ends.is_some_and(|ends| ends <= Instant::now());
        if (state.header.is_none() || stale) && state.challenge.is_some() {
            self.answer(&mut state, client, false)?;
        }
        Ok(state.header.clone())
    }

    /// Answers a challenge to a request that was sent with `used`.
    pub(super) fn challenged(
        &self,
        client: &Client,
        challenge: Option<Challenge>,
        used: Option<&str>,
    ) -> Result<()> {
        let mut state = self.state();
        // Another thread was faster.
        if state.header.as_deref() != used && state.header.is_some() {
            return Ok(());
        }
        if challenge.is_none() {
            return Err(client.denied("authentication required, of an unknown kind"));
        }
        state.challenge = challenge;
        self.answer(&mut state, client, used.is_some())
    }

    /// `again`: what there was has been refused.
    fn answer(&self, state: &mut State, client: &Client, again: bool) -> Result<()> {
        match &state.challenge {
            Some(Challenge::Basic) => {
                state.header = Some(match &self.credentials {
                    Some(Credentials::Basic { user, password }) if !again => basic_header(user, password),
                    Some(_) => return Err(client.denied("the credentials were not accepted")),
                    None => return Err(client.denied("authentication required")),
                });
                state.ends = None;
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scopes = join(&self.scopes, scope.as_deref());
                let begun = Instant::now();
                let token = self.fetch(client, realm, service.as_deref(), &scopes)?;
                state.header = Some(token.header);
                state.ends = begun.checked_add(token.life);
            }
            None => {}
        }
        Ok(())
    }

    /// Asks a token service. Credentials go there because the registry says so, and only over HTTPS, unless the
    /// registry itself may speak plain HTTP.
    fn fetch(
        &self,
        client: &Client,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<Fetched> {
        client.check_token_service(realm)?;
        let service_pair = service.map(|service| ("service", service));
        let scope_pairs = scopes.iter().map(|scope| ("scope", scope.as_str()));
        let identity = ("client_id", CLIENT);
        let (url, form, header);
        let call = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let joined = scopes.join(" ");
                let pairs = [("grant_type", "refresh_token"), identity, ("refresh_token", token.as_str())];
                let pairs = pairs.into_iter().chain(service_pair).chain([("scope", joined.as_str())]);
                form = encode(pairs);
                header = None;
                let body = Payload::Bytes(form.as_bytes(), "application/x-www-form-urlencoded");
                Call { method: Method::POST, body, ..Call::get(realm) }
            }
            credentials => {
                let mut pairs: Vec<_> = service_pair.into_iter().chain(scope_pairs).collect();
                header = match credentials {
                    Some(Credentials::Basic { user, password }) => {
                        pairs.extend([("account", user.as_str()), identity]);
                        if scopes.is_empty() {
                            // A login: the service may give something to keep in place of the password.
                            pairs.push(("offline_token", "true"));
                        }
                        Some(basic_header(user, password))
                    }
                    _ => None,
                };
                url = with_query(realm, pairs.into_iter());
                Call::get(&url)
            }
        };
        let answer = client.send(&call, call.url, header.as_deref());
        let response = answer.map_err(|e| no_answer(realm, &e))?;
        let status = response.status();
        let body = read_limited(response, MAX_SMALL);
        match status {
            StatusCode::OK => body
                .and_then(|body| Fetched::parse(&body))
                .ok_or_else(|| refused(realm, "the token service's answer holds no token")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let said = body.map(|body| super::reply::registry_words(&body)).unwrap_or_default();
                let reason = if said.is_empty() { "the token service refused".to_owned() } else { said };
                Err(client.denied(&reason))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(client.rate_limited(&body.unwrap_or_default())),
            other => Err(refused(realm, &format!("the token service answered {other}"))),
        }
    }

    /// Proves the credentials to the registry; what the token service gives in place of a password, if it does.
    pub(super) fn login(&self, client: &Client) -> Result<Option<String>> {
        let challenge = self.state().challenge.clone();
        match challenge {
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scopes = join(&[], scope.as_deref());
                let token = self.fetch(client, &realm, service.as_deref(), &scopes)?;
                let mut state = self.state();
                state.ends = Instant::now().checked_add(token.life);
                state.header = Some(token.header);
                Ok(token.refresh)
            }
            _ => Ok(None),
        }
    }
}

/// What the token must allow, each repository once: our own wish and the registry's.
fn join(own: &[String], asked: Option<&str>) -> Vec<String> {
    let mut all = own.to_vec();
    for scope in asked.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
        let Some((name, actions)) = scope.rsplit_once(':') else {
            all.push(scope.to_owned());
            continue;
        };
        match all.iter_mut().find(|known| known.rsplit_once(':').is_some_and(|(n, _)| n == name)) {
            Some(known) => {
                let more: Vec<&str> = actions
                    .split(',')
                    .filter(|a| known.rsplit(':').next().is_some_and(|k| k.split(',').all(|k| k != *a)))
                    .collect();
                let more: String = more.iter().map(|a| format!(",{a}")).collect();
                known.push_str(&more);
            }
            None => all.push(scope.to_owned()),
        }
    }
    all
}

pub(super) fn basic_header(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// An address with these added to its query, RFC 3986.
fn with_query<'a>(url: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let query = encode(pairs);
    let separator = if url.contains('?') { "&" } else { "?" };
    if query.is_empty() { url.to_owned() } else { format!("{url}{separator}{query}") }
}

fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", query_encode(value))).collect();
    pairs.join("&")
}

pub(crate) fn query_encode(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// It becomes part of a header.
fn fits_header(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// What a token service gave.
struct Fetched {
    header: String,
    life: Duration,
    refresh: Option<String>,
}

impl Fetched {
    fn parse(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
            refresh_token: Option<String>,
            expires_in: Option<serde_json::Value>,
        }
        let token: Token = serde_json::from_slice(answer).ok()?;
        let header =
            token.token.filter(|t| !t.is_empty()).or(token.access_token).filter(|t| fits_header(t))?;
        let life = token.expires_in.and_then(|n| n.as_u64()).map_or(DEFAULT_LIFE, Duration::from_secs);
        let life = life.min(MAX_LIFE);
        // Renewed a little earlier than it must be, however short it lives.
        let life = life.saturating_sub((life / 10).min(Duration::from_secs(30)));
        let refresh = token.refresh_token.filter(|t| !t.is_empty());
        Some(Self { header: format!("Bearer {header}"), life, refresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_must_fit_a_header() {
        let parse = |text: &[u8]| Fetched::parse(text).map(|t| (t.header, t.life.as_secs()));
        let good: [(&[u8], u64); 5] = [
            (br#"{"access_token":"abc"}"#, 54),
            (br#"{"token":"abc","access_token":"x","expires_in":300}"#, 270),
            (br#"{"token":"","access_token":"abc","expires_in":99999999}"#, 86370),
            (br#"{"token":"abc","expires_in":"soon"}"#, 54),
            (br#"{"token":"abc","expires_in":0}"#, 0),
        ];
        for (text, life) in good {
            assert_eq!(parse(text), Some(("Bearer abc".into(), life)));
        }
        for bad in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#, "[]", r#"{"token":1}"#] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn scopes_are_joined() {
        let own = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let cases = [
            ("repository:a:pull", None, "repository:a:pull"),
            ("repository:a:pull", Some("repository:a:pull"), "repository:a:pull"),
            ("repository:a:pull", Some("repository:a:push,pull"), "repository:a:pull,push"),
            ("repository:a:pull", Some("repository:b:pull odd"), "repository:a:pull repository:b:pull odd"),
        ];
        for (ours, asked, expected) in cases {
            assert_eq!(join(&own(ours), asked), own(expected));
        }
        assert_eq!(Scope::Pull.words("a"), ["repository:a:pull"]);
        let push = Scope::Push { from: vec!["b".into(), "a".into()] };
        assert_eq!(push.words("a"), ["repository:a:pull,push", "repository:b:pull"]);
        assert_eq!(
            with_query("https://a/t", [("service", "s p"), ("scope", "repository:x/y:pull")].into_iter()),
            "https://a/t?service=s%20p&scope=repository%3Ax%2Fy%3Apull"
        );
        assert_eq!(with_query("https://a/t?x=1", [("a", "s")].into_iter()), "https://a/t?x=1&a=s");
        assert_eq!(with_query("https://a/t", std::iter::empty()), "https://a/t");
    }
}
