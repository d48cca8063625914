//! `create`: from what the user asked and what the image says to a record on disk.

use std::path::{Path, PathBuf};

use dhow_images::{Descriptor, Error as ImagesError, Image, Matcher, NoProgress};
use dhow_runtime::Kind;
use jiff::Timestamp;

use crate::config::{Config, HealthConfig, HostConfig};
use crate::engine::{Engine, Place};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::mounts::Requests;
use crate::names;
use crate::network::Membership;
use crate::record::{Claim, Container, ImageOrigin, ModuleOrigin, Record};
use crate::{resources, spec};

/// What a container is made from.
#[derive(Debug, Clone)]
pub enum Source {
    /// An image of the store, by name or id.
    Image(String),
    /// A Wasm file outside any image.
    Module(PathBuf),
}

/// Everything about a new container.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// What it is made from.
    pub source: Source,
    /// Its name; made up when `None`.
    pub name: Option<String>,
    /// Which variants of the image may be taken, in which order.
    pub platforms: Matcher,
    /// The portable settings.
    pub config: Config,
    /// The settings for this host.
    pub host_config: HostConfig,
    /// The network of a native container that asks for `default`; this host's usual one when `None`.
    pub default_network: Option<String>,
    /// What it asks of its networks, the one of its network mode first; empty for nothing in particular.
    pub networks: Vec<Membership>,
}

/// Where a record's content comes from, once the image is known.
struct Origin {
    kind: Kind,
    image: Option<ImageOrigin>,
    module: Option<ModuleOrigin>,
    /// The image whose files are needed.
    content: Option<Image>,
}

impl Engine {
    /// Makes a container. Nothing of it runs yet; it is the caller's until the claim is given up.
    ///
    /// # Errors
    /// Unknown image, no fitting variant, a name that is taken, or settings that make no sense; nothing is left then.
    pub fn create(&self, options: CreateOptions) -> Result<(Container, Claim)> {
        if let Some(name) = &options.name {
            names::validate(name)?;
        }
        spec::validate(&options.host_config)?;
        spec::modes::validate_shared_network(&options.config, &options.host_config)?;
        options.host_config.files()?;
        options.host_config.restart_policy.validate()?;
        if options.host_config.auto_remove && !options.host_config.restart_policy.is_none() {
            let reason = "can't create 'AutoRemove' container with restart policy";
            return Err(Error::Invalid(reason.to_owned()));
        }
        if let Some(health) = &options.config.healthcheck {
            health.validate()?;
        }
        let (id, seed) = random_id()?;
        let place = self.place_for(options.host_config.auto_remove);
        let is_kept = !options.host_config.auto_remove;
        let (folder, claim) = Container::reserve(&place.containers, &id)?;
        let reserved = if is_kept { claim.forget() } else { Ok(()) };
        match reserved.and_then(|()| self.fill(&id, seed, &folder, options)) {
            Ok(container) => {
                self.tell_later(&Event::of_container(&container.record, "create", &[]));
                // The others leave it to them.
                if id.ends_with('0') {
                    self.trim_events();
                }
                Ok((container, claim))
            }
            Err(error) => {
                // The first failure is the one to report; `system check` finds what cannot be removed.
                drop(claim);
                self.store().release(&id).ok();
                self.discard(&folder, &id).ok();
                Err(error)
            }
        }
    }

    /// Says of a container that is removed when it ends that it is meant to wait for its start. Without that it counts as
    /// left over by whoever was about to start it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep_created(&self, container: &Container) -> Result<()> {
        if container.record.host_config.auto_remove {
            container.set_state(&crate::record::State::default())?;
        }
        Ok(())
    }

    fn fill(&self, id: &str, seed: [u8; 2], folder: &Path, options: CreateOptions) -> Result<Container> {
        let CreateOptions { source, name, platforms, mut config, mut host_config, default_network, networks } =
            options;
        let requests = Requests::of(self, &host_config)?;
        let origin = match source {
            Source::Image(name) => {
                self.take_image(id, &name, &platforms, &mut config, !host_config.auto_remove)?
            }
            Source::Module(path) => module_file(&path, &mut config)?,
        };
        let mut args = config.entrypoint.clone().unwrap_or_default();
        args.extend(config.cmd.clone().unwrap_or_default());
        if args.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        spec::modes::validate_names(&config, &host_config)?;
        #[cfg(unix)]
        if host_config.uts_mode == "host" {
            config.hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        for mode in [&host_config.pid_mode, &host_config.ipc_mode] {
            if let Some(other) = spec::modes::other(mode) {
                self.container(other)?;
            }
        }
        if config.hostname.is_empty() {
            config.hostname = crate::error::short(id).to_owned();
        }
        let kind = if origin.kind == Kind::Native && spec::is_named_wasm(&args[0]) {
            Kind::Wasm
        } else {
            origin.kind
        };
        if kind == Kind::Native && !cfg!(target_os = "linux") {
            return Err(Error::Invalid(format!("{}: native containers need Linux", config.image)));
        }
        if kind == Kind::Native && matches!(host_config.network_mode.as_str(), "" | "default") {
            host_config.network_mode = default_network.unwrap_or_else(|| spec::default_network().to_owned());
        }
        match kind {
            Kind::Native => spec::validate_native(&host_config)?,
            Kind::Wasm => spec::validate_wasm(&host_config)?,
        }
        let networks = self.settle_memberships(&mut host_config, networks)?;
        resources::validate_for(&host_config, kind)?;
        if let Some(image) = &origin.content {
            match kind {
                #[cfg(target_os = "linux")]
                Kind::Native if rustix::process::geteuid().is_root() => {
                    self.store().snapshot(image, &NoProgress)?;
                }
                // For Wasm of any image: its file system is a union of directories.
                _ => self.unpack(image)?,
            }
        }
        let own = config.volumes.keys().cloned();
        let (mut mounts, in_use) = requests.make(self, kind, own, origin.content.as_ref())?;
        let place = self.place_for(host_config.auto_remove);
        if mounts.iter().any(|point| point.kind == crate::mounts::MountKind::Image) {
            let is_kept = !host_config.auto_remove;
            let data = if is_kept { folder.to_owned() } else { self.scratch_folder().join(id) };
            let settled =
                self.settle_image_mounts(id, (&data, kind), origin.image.as_ref(), &mut mounts, is_kept);
            if let Err(error) = settled {
                drop(in_use);
                self.remove_own_volumes(&mounts).ok();
                return Err(error);
            }
        }
        let discard = |error| {
            // The first failure is the one to report; a volume that stays is one that nobody uses.
            self.remove_own_volumes(&mounts).ok();
            error
        };
        let name = match self.claim_name(place, id, seed, name) {
            Ok(name) => name,
            Err(error) => {
                drop(in_use);
                return Err(discard(error));
            }
        };
        let record = Record {
            id: id.to_owned(),
            name: name.clone(),
            created: Timestamp::now(),
            image: origin.image,
            kind,
            args,
            module: origin.module,
            config,
            host_config,
            mounts: mounts.clone(),
            networks,
        };
        let written = Container::write(folder.to_owned(), record);
        drop(in_use);
        written.map_err(|error| {
            names::release(&place.names, &name, id).ok();
            discard(error)
        })
    }

    fn claim_name(&self, place: &Place, id: &str, seed: [u8; 2], wanted: Option<String>) -> Result<String> {
        if let Some(name) = wanted {
            self.claim_one(place, &name, id)?;
            return Ok(name);
        }
        let mut attempt = 0;
        loop {
            let name = names::made_up(seed, attempt);
            match self.claim_one(place, &name, id) {
                Ok(()) => return Ok(name),
                Err(Error::NameInUse { .. }) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Claims a name where this container is kept, then looks whether it is taken elsewhere: of two that do this at the
    /// same time at most one succeeds.
    pub(super) fn claim_one(&self, place: &Place, name: &str, id: &str) -> Result<()> {
        names::claim(&place.names, name, id, |owner| self.is_alive(owner))?;
        for other in self.places().filter(|other| other.names != place.names) {
            if let Some(owner) = names::owner(&other.names, name)?
                && self.is_alive(&owner)?
            {
                names::release(&place.names, name, id)?;
                return Err(Error::NameInUse { name: name.to_owned(), owner });
            }
        }
        Ok(())
    }

    /// Chooses the variant, makes sure that its layers stay, and merges its settings under the user's.
    fn take_image(
        &self,
        id: &str,
        name: &str,
        platforms: &Matcher,
        config: &mut Config,
        durable: bool,
    ) -> Result<Origin> {
        let store = self.store();
        let (target, image) = self.lease_image(id, name, platforms, durable)?;
        store.touch(&target.digest);
        merge(config, &image);
        let origin_of = |blob: &dhow_images::Descriptor| ModuleOrigin {
            path: store.blob_path(&blob.digest),
            digest: Some(blob.digest.to_string()),
            components: Vec::new(),
        };
        let module = match image.wasm.split_first() {
            Some((blob, others)) => {
                // The artifact form has no entrypoint: the program is the blob, named like the repository.
                let program = name.rsplit('/').next().unwrap_or(name);
                let program = program.split([':', '@']).next().unwrap_or(program);
                if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
                    config.entrypoint = Some(vec![program.to_owned()]);
                }
                let components = others.iter().map(origin_of).collect();
                Some(ModuleOrigin { components, ..origin_of(blob) })
            }
            None => None,
        };
        let origin = ImageOrigin {
            id: target.digest.to_string(),
            manifest: image.manifest.digest.to_string(),
            platform: image.platform.to_string(),
            layers: image.diff_ids.iter().map(ToString::to_string).collect(),
        };
        let kind = if image.platform.is_wasm() || module.is_some() { Kind::Wasm } else { Kind::Native };
        Ok(Origin { kind, image: Some(origin), module, content: Some(image) })
    }
}

impl Engine {
    /// Finds an image and keeps it for the container. What is found after the lease cannot be swept any more; what was
    /// swept between the look at its name and the lease is an image that was removed, or that has come back meanwhile.
    pub(crate) fn lease_image(
        &self,
        id: &str,
        name: &str,
        platforms: &Matcher,
        durable: bool,
    ) -> Result<(Descriptor, Image)> {
        let mut target = self.find_image(name)?;
        loop {
            self.store().lease(id, std::slice::from_ref(&target.digest), durable)?;
            let looked = self
                .check_trust(&target, name)
                .and_then(|()| self.store().image(&target, platforms).map_err(Error::from));
            let error = match looked {
                Ok(image) => return Ok((target, image)),
                Err(error @ Error::Images(ImagesError::MissingBlob { .. })) => error,
                Err(error) => return Err(error),
            };
            let again = self.find_image(name)?;
            // It is here under its name and still not whole: that is damage.
            if again == target && self.store().has_blob(&target.digest) {
                return Err(error);
            }
            target = again;
        }
    }

    /// Makes sure that an image's layers are unpacked, with their owners where there are any.
    pub(crate) fn unpack(&self, image: &Image) -> Result<()> {
        let store = self.store();
        let is_there = || store.layer_dirs(&image.diff_ids).iter().all(|layer| layer.path.is_dir());
        if !image.platform.is_wasm() && !is_there() {
            crate::owner::part_as_owner(|| Ok(store.unpack(image, &NoProgress).map(drop)?))?;
        }
        store.unpack(image, &NoProgress)?;
        Ok(())
    }
}

/// The image's settings, under the user's.
fn merge(config: &mut Config, image: &Image) {
    let defaults = &image.config.config;
    if config.user.is_empty() {
        config.user.clone_from(&defaults.user);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&defaults.working_dir);
    }
    if config.stop_signal.is_none() {
        config.stop_signal.clone_from(&defaults.stop_signal);
    }
    for port in defaults.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    for place in defaults.volumes.keys() {
        config.volumes.entry(place.clone()).or_default();
    }
    for (name, value) in &defaults.labels {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if let Some(image) = &defaults.healthcheck {
        // What an image says of it may be nonsense; then as if it said nothing.
        let image = serde_json::from_value::<HealthConfig>(image.clone()).unwrap_or_default();
        let own = config.healthcheck.take().unwrap_or_default();
        let merged = own.over(image);
        config.healthcheck = Some(merged).filter(|merged| merged.validate().is_ok());
    }
    let name_of = |entry: &str| entry.split('=').next().unwrap_or(entry).to_owned();
    let given: Vec<String> = config.env.iter().map(|entry| name_of(entry)).collect();
    // A bare name in the user's list removes the image's variable, as `docker run -e NAME` of an unset one does.
    spec::drop_bare_names(&mut config.env);
    config.env.extend(defaults.env.iter().filter(|entry| !given.contains(&name_of(entry))).cloned());
    if config.entrypoint.is_none() {
        config.entrypoint = Some(defaults.entrypoint.clone()).filter(|entrypoint| !entrypoint.is_empty());
        if config.cmd.is_none() {
            config.cmd = Some(defaults.cmd.clone()).filter(|cmd| !cmd.is_empty());
        }
    }
}

fn module_file(path: &Path, config: &mut Config) -> Result<Origin> {
    let path = match fs_err::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NoSuchModule(path.to_owned()));
        }
        other => other?,
    };
    if path.to_str().is_none() {
        return Err(Error::Invalid(format!("{}: the path is not valid UTF-8", path.display())));
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        let program = path.file_name().unwrap_or_default().to_string_lossy();
        config.entrypoint = Some(vec![program.into_owned()]);
    }
    spec::drop_bare_names(&mut config.env);
    Ok(Origin {
        kind: Kind::Wasm,
        image: None,
        module: Some(ModuleOrigin { path, digest: None, components: Vec::new() }),
        content: None,
    })
}

/// A new id, and two of its bytes to make a name from.
pub(crate) fn random_id() -> Result<(String, [u8; 2])> {
    let mut bytes = [0u8; 32];
    // In a static executable the getrandom crate cannot see libc's function and opens a device instead.
    #[cfg(unix)]
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)?;
    #[cfg(not(unix))]
    getrandom::fill(&mut bytes)
        .map_err(|error| std::io::Error::other(format!("no random numbers: {error}")))?;
    Ok((bytes.iter().map(|byte| format!("{byte:02x}")).collect(), [bytes[0], bytes[1]]))
}
