//! Fetching a file that is no part of a registry, from an address that the user wrote.

use std::io::Read;

use super::Access;
use super::agent::Agents;
use super::patient::Patient;
use super::reply::authority_of;
use super::reply::host_of;
use super::reply::no_answer;
use super::reply::refused;
use crate::error::Result;

const MAX_REDIRECTS: usize = 5;

/// Opens a file at an `http` or `https` address. Redirects are followed, but not from HTTPS to plain HTTP, and not
/// from elsewhere to this machine. Credentials of `access` are not sent.
///
/// # Errors
/// [`crate::Error::Registry`] and [`crate::Error::Unreachable`] with the address, and whatever was answered instead.
pub fn download(url: &str, access: &Access) -> Result<Box<dyn Read + Send>> {
    let authority = authority_of(url);
    let agents = Agents::new(host_of(&authority), &access.tls, access.insecure, access);
    let mut url = url.to_owned();
    for _ in 0..=MAX_REDIRECTS {
        let response = agents.for_url(&url)?.get(&url).call().map_err(|e| no_answer(&url, &e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Box::new(Patient::new(response.into_body().into_reader(), access.timeout)));
        }
        if !status.is_redirection() {
            return Err(refused(&url, &format!("answered {status}")));
        }
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or("");
        let next = match location {
            absolute if absolute.starts_with("http://") || absolute.starts_with("https://") => {
                absolute.to_owned()
            }
            path if path.starts_with('/') && !path.starts_with("//") => {
                let scheme = url.split("://").next().unwrap_or("https");
                format!("{scheme}://{}{path}", authority_of(&url))
            }
            other => {
                return Err(refused(&url, &format!("redirect to \"{}\" refused", other.escape_default())));
            }
        };
        if url.starts_with("https://") && next.starts_with("http://") {
            return Err(refused(&url, "redirect from HTTPS to plain HTTP refused"));
        }
        url = next;
    }
    Err(refused(&url, "too many redirects"))
}
