//! How this user reaches registries: the settings file, certificates, proxies of the environment, credentials. The
//! only place of the command that reads them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dhow_engine::Error;
use dhow_engine::images::registry::{Access, Credentials, Proxies, docker_credentials};
use dhow_engine::settings::{Settings, mirror_host};

use crate::context;

/// Everything about one registry, `docker.io` or `host[:port]`.
pub(crate) fn access(registry: &str) -> Result<Access> {
    let file = context::settings_file();
    let settings = Settings::load(&file)?;
    let mut access = settings.access(registry, &certificate_folders(&file), proxies())?;
    access.credentials = credentials(registry)?;
    for mirror in &mut access.mirrors {
        mirror.credentials = credentials(mirror_host(&mirror.url))?;
    }
    Ok(access)
}

fn credentials(registry: &str) -> Result<Option<Credentials>> {
    Ok(match context::docker_config() {
        Some(file) => docker_credentials(&file, registry).map_err(Error::from)?,
        None => None,
    })
}

/// Folders with a folder for each registry, ours last: there the last word counts.
fn certificate_folders(settings: &Path) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/etc/docker/certs.d"), PathBuf::from("/etc/dhow/certs.d")];
    if let Some(docker) = context::docker_config() {
        folders.push(docker.with_file_name("certs.d"));
    }
    let own = settings.with_file_name("certs.d");
    folders.retain(|folder| *folder != own);
    folders.push(own);
    folders
}

/// The variables that every tool reads, in both spellings; the lower one first, as curl has it.
fn proxies() -> Proxies {
    let from = |name: &str| {
        [name.to_ascii_lowercase(), name.to_owned()].into_iter().find_map(|name| std::env::var(name).ok())
    };
    Proxies {
        http: from("HTTP_PROXY"),
        https: from("HTTPS_PROXY"),
        all: from("ALL_PROXY"),
        none_for: from("NO_PROXY").unwrap_or_default(),
    }
}
