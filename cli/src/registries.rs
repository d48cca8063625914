//! How this user reaches registries: the settings file, certificates, proxies of the environment, credentials. The
//! only place of the command that reads them, and that runs credential helpers.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use dhow_engine::Error;
use dhow_engine::images::Reference;
use dhow_engine::images::registry::{Access, Credentials, DockerConfig, Proxies};
use dhow_engine::settings::{Settings, mirror_host};

use crate::context;

/// Everything about the registry of an image.
pub(crate) fn access(name: &Reference) -> Result<Access> {
    let mut access = without_credentials(name.registry())?;
    let config = docker_config()?;
    let find = |registry: &str, repository: Option<&str>| match &config {
        Some(config) => config.credentials(registry, repository, &run_helper).map_err(Error::from),
        None => Ok(None),
    };
    access.credentials = find(name.registry(), Some(name.repository()))?;
    for mirror in &mut access.mirrors {
        mirror.credentials = find(mirror_host(&mirror.url), None)?;
    }
    Ok(access)
}

/// Everything about a registry, `docker.io` or `host[:port]`, but who the user is there.
pub(crate) fn without_credentials(registry: &str) -> Result<Access> {
    let file = context::settings_file();
    Ok(Settings::load(&file)?.access(registry, &certificate_folders(&file), proxies())?)
}

/// The credentials that are kept for a registry.
pub(crate) fn stored(registry: &str) -> Result<Option<Credentials>> {
    Ok(match docker_config()? {
        Some(config) => config.credentials(registry, None, &run_helper).map_err(Error::from)?,
        None => None,
    })
}

/// Docker's client configuration of this user, if there is a home for it.
pub(crate) fn docker_config() -> Result<Option<DockerConfig>> {
    context::docker_config().map(|file| Ok(DockerConfig::load(&file).map_err(Error::from)?)).transpose()
}

/// Runs `docker-credential-NAME`; what it says on standard error is the user's to see.
pub(crate) fn run_helper(name: &str, action: &str, input: &[u8]) -> io::Result<(bool, Vec<u8>)> {
    let mut command = Command::new(format!("docker-credential-{name}"));
    let mut child = command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that wants no input may be gone already.
        stdin
            .write_all(input)
            .or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })?;
    }
    let output = child.wait_with_output()?;
    Ok((output.status.success(), output.stdout))
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
