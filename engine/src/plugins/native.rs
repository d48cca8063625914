//! The native variant of a plugin (Linux): a Linux program of the image in a container of its own, which answers calls at a
//! socket as [`dhow_runtime::plugins::wire`] says, and has nothing else of this host: no network, no capabilities, a root
//! that it cannot write to. The program connects to the socket that the variable `DHOW_PLUGIN` names.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dhow_images::{Matcher, Platform};
use fs_err as fs;

use super::Limits;
use super::wire::Remote;
use crate::attach;
use crate::config::{Config, HostConfig};
use crate::container::create::{CreateOptions, Source, random_id};
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::record::Container;

/// Where the socket's folder is in the container.
const PLACE: &str = "/run/dhow-plugin";
/// So many processes and threads.
const PROCESSES: i64 = 64;
/// How long it may take to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// A native plugin that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Native<'e> {
    engine: &'e Engine,
    container: Option<Container>,
    folder: PathBuf,
    remote: Option<Remote>,
}

impl Engine {
    /// Whether what this host takes of an image is a Linux program; not where the image cannot be found.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_native_plugin(&self, reference: &str) -> Result<bool> {
        let Ok(target) = self.find_image(reference) else { return Ok(false) };
        let image = self.store().image(&target, &Matcher::host())?;
        Ok(!image.platform.is_wasm() && image.wasm.is_empty())
    }

    /// Starts the native variant of a plugin's image. Of the limits it has the memory; a deadline is each call's own. The
    /// calling process must have one thread, since it forks.
    ///
    /// # Errors
    /// When the image has no variant for this host, or its program does not connect in time.
    pub fn native_plugin(&self, reference: &str, limits: &Limits) -> Result<Native<'_>> {
        let (id, _) = random_id()?;
        make_folder(&self.root().join("plugins"))?;
        let folder = self.root().join("plugins").join(format!(".{}", &id[..12]));
        make_folder(&folder)?;
        let mut native = Native { engine: self, container: None, folder, remote: None };
        let listener = attach::listen(&native.folder)?;
        // Whoever the image's user is; only the container gets to see the folder.
        for (path, mode) in [(native.folder.clone(), 0o711), (native.folder.join("socket"), 0o666)] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        let host_config = HostConfig {
            binds: vec![format!("{}:{PLACE}:ro", native.folder.display())],
            network_mode: "none".to_owned(),
            auto_remove: true,
            readonly_rootfs: true,
            cap_drop: vec!["ALL".to_owned()],
            security_opt: vec!["no-new-privileges".to_owned()],
            memory: limits.memory.unwrap_or(0),
            pids_limit: Some(PROCESSES),
            ..HostConfig::default()
        };
        let env = vec![format!("DHOW_PLUGIN={PLACE}/socket")];
        let (container, claim) = self.create(CreateOptions {
            source: Source::Image(reference.to_owned()),
            name: None,
            platforms: Matcher::only(&Platform::host()),
            config: Config { env, ..Config::default() },
            host_config,
            default_network: None,
            networks: Vec::new(),
        })?;
        native.container = Some(container.clone());
        self.start(&container, claim)?;
        let since = Instant::now();
        let stream: UnixStream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if since.elapsed() > PATIENCE || !container.is_supervised()? => {
                    return Err(Error::Invalid(format!(
                        "{reference}: its program does not connect to the socket that DHOW_PLUGIN names"
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        stream.set_nonblocking(false)?;
        native.remote = Some(Remote::over(stream)?);
        Ok(native)
    }
}

impl Native<'_> {
    /// The way to call it.
    ///
    /// # Errors
    /// Never once it was started.
    pub fn remote(&self) -> Result<&Remote> {
        self.remote.as_ref().ok_or_else(|| Error::Invalid("the plugin does not run".to_owned()))
    }
}

impl Drop for Native<'_> {
    fn drop(&mut self) {
        self.remote.take();
        if let Some(container) = &self.container {
            self.engine.remove(container, true, true).ok();
        }
        attach::unlisten(&self.folder);
        fs::remove_dir(&self.folder).ok();
    }
}
