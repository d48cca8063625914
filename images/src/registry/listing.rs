//! Finding repositories: the list of all, page by page, and the search of Docker Hub and those who speak its old API.

use std::collections::HashSet;

use serde::Deserialize;
use ureq::http::StatusCode;

use super::Access;
use super::Scope;
use super::http::Call;
use super::http::Client;
use super::http::read_limited;
use super::http::refused;
use super::token::query_encode;
use crate::DEFAULT_REGISTRY;
use crate::Reference;
use crate::descriptor::or_default;
use crate::error::Result;

/// Most pages of one list.
const MAX_PAGES: usize = 1000;
/// Largest page, in bytes.
const MAX_PAGE: u64 = 4 << 20;
/// Most names of one list.
const MAX_NAMES: usize = 1_000_000;
/// Where Docker Hub is searched.
const HUB: &str = "https://index.docker.io";

/// A repository that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name, without the registry.
    pub name: String,
    /// What its owner says about it.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    /// How many users like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Kept by Docker itself.
    #[serde(rename = "is_official")]
    pub official: bool,
    /// Built by Docker Hub from a source repository. Docker Hub no longer says so of any.
    #[serde(rename = "is_automated")]
    pub automated: bool,
}

/// Searches a registry for repositories: by Docker Hub's search API, or, at a registry without it, in the list of all
/// its repositories. At most `limit` are given, the best first.
///
/// # Errors
/// The registry's, also when it offers neither.
pub fn search(registry: &str, term: &str, limit: usize, access: &Access) -> Result<Vec<Found>> {
    let client = connect(registry, access)?;
    let origin = if registry == DEFAULT_REGISTRY { HUB } else { "" };
    let url = format!("{origin}/v1/search?q={}&n={limit}", query_encode(term));
    let also = &[StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::GONE];
    let response = client.call(&Call { also, ..Call::get(&url) })?;
    if response.status().is_success() {
        #[derive(Deserialize)]
        struct Results {
            #[serde(default, deserialize_with = "or_default")]
            results: Vec<Found>,
        }
        let bytes = read_limited(response, MAX_PAGE);
        let found = bytes.and_then(|bytes| serde_json::from_slice::<Results>(&bytes).ok());
        if let Some(mut found) = found {
            found.results.truncate(limit);
            return Ok(found.results);
        }
        // Some answer everything with a page for people.
        if registry == DEFAULT_REGISTRY {
            return Err(refused(&url, "the answer is no list of results"));
        }
    }
    let mut found = Vec::new();
    catalog_pages(&client, |name| {
        if name.contains(term) {
            found.push(Found { name, ..Found::default() });
        }
        found.len() < limit
    })?;
    Ok(found)
}

/// All repositories of a registry that the user may see. Docker Hub and other large ones do not tell.
///
/// # Errors
/// The registry's.
pub fn catalog(registry: &str, access: &Access) -> Result<Vec<String>> {
    let client = connect(registry, access)?;
    let mut all = Vec::new();
    catalog_pages(&client, |name| {
        all.push(name);
        true
    })?;
    Ok(all)
}

fn connect(registry: &str, access: &Access) -> Result<Client> {
    // A repository is needed for a name, and not asked for.
    let name = Reference::parse(&format!("{registry}/x"))?;
    Client::connect(&name, access, &Scope::Registry)
}

fn catalog_pages(client: &Client, mut take: impl FnMut(String) -> bool) -> Result<()> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default, deserialize_with = "or_default")]
        repositories: Vec<String>,
    }
    pages(client, client.resolve("/", "/v2/_catalog?n=1000")?, |page: Page| {
        page.repositories.into_iter().all(&mut take)
    })
}

/// Reads page after page, until `take` has enough or there are no more.
fn pages<T: serde::de::DeserializeOwned>(
    client: &Client,
    first: String,
    mut take: impl FnMut(T) -> bool,
) -> Result<()> {
    let mut url = first;
    let mut seen = HashSet::new();
    let mut bytes_in_all = 0;
    while seen.len() < MAX_PAGES && seen.insert(url.clone()) {
        let response = client.call(&Call::get(&url))?;
        let next = client.next_page(&url, &response)?;
        let bytes = read_limited(response, MAX_PAGE)
            .ok_or_else(|| refused(&url, "the list is too long, or was cut off"))?;
        bytes_in_all += bytes.len();
        let page =
            serde_json::from_slice(&bytes).map_err(|e| refused(&url, &format!("not a valid list: {e}")))?;
        if !take(page) || bytes_in_all > MAX_NAMES * 64 {
            return Ok(());
        }
        match next {
            Some(next) => url = next,
            None => return Ok(()),
        }
    }
    Ok(())
}
