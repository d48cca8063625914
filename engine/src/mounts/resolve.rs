//! From what was asked for to one [`MountPoint`] for each place: volumes are made and filled, paths are checked.
//!
//! Docker's order of precedence: `--volumes-from` is covered by `-v`, `--mount` and `--tmpfs`, of which no two may have the
//! same target; the image's own volumes (and `-v TARGET`) take what is left.

use std::collections::{BTreeMap, BTreeSet};

use dhow_images::Image;
use dhow_runtime::Kind;

use super::long::MountRequest;
use super::short::Bind;
use super::{MountKind, MountPoint, clean, make_source, target, tmpfs};
use crate::config::HostConfig;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::volume::{self, CreateVolume, InUse, Place};

/// Mounts that were asked for and make sense.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    wanted: BTreeMap<String, Wanted>,
    /// Targets of `--tmpfs`, which are mounted from the configuration.
    taken: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Wanted {
    point: MountPoint,
    /// A volume that is empty gets what the image has there.
    copy: bool,
    labels: BTreeMap<String, String>,
    /// What the volume's driver is told.
    options: BTreeMap<String, String>,
}

impl Requests {
    /// Reads what the user asked for. Makes nothing but missing sources of `-v`, as Docker does.
    pub(crate) fn of(engine: &Engine, host: &HostConfig) -> Result<Self> {
        let mut requests = Self::default();
        for from in &host.volumes_from {
            requests.take_over(engine, from)?;
        }
        let mut asked = BTreeSet::new();
        let mut add = |requests: &mut Self, wanted: Wanted| {
            let place = wanted.point.destination.clone();
            if !asked.insert(place.clone()) {
                return Err(Error::Invalid(format!("Duplicate mount point: {place}")));
            }
            requests.wanted.insert(place, wanted);
            Ok(())
        };
        for text in &host.binds {
            add(&mut requests, short(&Bind::parse(text)?)?)?;
        }
        for request in &host.mounts {
            add(&mut requests, long(request)?)?;
        }
        for (place, options) in &host.tmpfs {
            tmpfs(place, options)?;
            let place = clean(place);
            if requests.wanted.remove(&place).is_some_and(|_| asked.contains(&place)) {
                return Err(Error::Invalid(format!("Duplicate mount point: {place}")));
            }
            requests.taken.insert(place);
        }
        Ok(requests)
    }

    /// `--volumes-from CONTAINER[:ro|rw]`.
    fn take_over(&mut self, engine: &Engine, from: &str) -> Result<()> {
        let (name, mode) = from.split_once(':').unwrap_or((from, ""));
        if name.is_empty() {
            return Err(Error::Invalid(format!("malformed volumes-from specification: {from}")));
        }
        let mut readonly = false;
        for option in mode.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => readonly = true,
                "rw" | "z" | "Z" | "nocopy" => {}
                other => return Err(Error::Invalid(format!("invalid mode: {other}"))),
            }
        }
        for point in engine.container(name)?.record.mounts {
            // An image's files are kept for one container.
            if matches!(point.kind, MountKind::Tmpfs | MountKind::Image) {
                continue;
            }
            let writable = point.writable && !readonly;
            let point = MountPoint { writable, anonymous: false, ..point };
            self.wanted.insert(
                point.destination.clone(),
                Wanted { point, copy: false, labels: BTreeMap::new(), options: BTreeMap::new() },
            );
        }
        Ok(())
    }

    /// Makes the volumes, also those that the image wants (`own`), and fills those that are empty. The guard is to be
    /// held until a record says that they are in use.
    pub(crate) fn make(
        mut self,
        engine: &Engine,
        kind: Kind,
        own: impl Iterator<Item = String>,
        image: Option<&Image>,
    ) -> Result<(Vec<MountPoint>, Option<InUse>)> {
        for place in own {
            let place = target(MountKind::Volume, &place)?;
            if !self.taken.contains(&place) {
                self.wanted.entry(place.clone()).or_insert_with(|| {
                    let point = volume_point(String::new(), place, String::new(), true);
                    Wanted { point, copy: true, labels: BTreeMap::new(), options: BTreeMap::new() }
                });
            }
        }
        let has_volumes = self.wanted.values().any(|wanted| wanted.point.kind == MountKind::Volume);
        let guard = if has_volumes { Some(engine.volumes_in_use()?) } else { None };
        let mut points: Vec<MountPoint> = Vec::new();
        for wanted in self.wanted.into_values() {
            match make_volume(engine, kind, wanted, image) {
                Ok(point) => points.push(point),
                Err(error) => {
                    // The first failure is the one to report; what stays is an unused volume.
                    drop(guard);
                    engine.remove_own_volumes(&points).ok();
                    return Err(error);
                }
            }
        }
        Ok((points, guard))
    }
}

fn make_volume(engine: &Engine, kind: Kind, wanted: Wanted, image: Option<&Image>) -> Result<MountPoint> {
    let Wanted { mut point, copy, labels, options } = wanted;
    if point.kind != MountKind::Volume {
        return Ok(point);
    }
    // Those of another container have their source already.
    let is_new = point.source.is_empty();
    let name = Some(point.name.clone()).filter(|name| !name.is_empty());
    let volume = engine.create_volume(CreateVolume { name, labels, options, ..CreateVolume::default() })?;
    let place = volume.place()?;
    if is_new
        && copy
        && matches!(place, Place::Own)
        && let Some(image) = image
    {
        let filled = engine.fill_volume(&volume, kind, image, &point.destination);
        if filled.is_err() && volume.is_anonymous() {
            engine.remove_volume(&volume.name, false).ok();
        }
        filled?;
    }
    point.anonymous = point.name.is_empty();
    point.name.clone_from(&volume.name);
    match place {
        Place::Own => point.source = engine.volume_data(&volume.name)?,
        Place::Folder { path, writable } => {
            if let Err(error) = fs_err::metadata(&path) {
                return Err(Error::Invalid(format!("failed to mount local volume: mount {path}: {error}")));
            }
            point.source = path;
            point.writable &= writable;
        }
        Place::Memory(options) => {
            tmpfs(&point.destination, &options)?;
            if volume::shares_memory() {
                point.source = engine.volume_data(&volume.name)?;
                point.memory = Some(options);
            } else {
                point.mode = options;
            }
        }
    }
    Ok(point)
}

fn volume_point(name: String, destination: String, mode: String, writable: bool) -> MountPoint {
    MountPoint {
        kind: MountKind::Volume,
        name,
        source: String::new(),
        destination,
        driver: volume::LOCAL.to_owned(),
        mode,
        writable,
        propagation: String::new(),
        recursive: true,
        anonymous: false,
        memory: None,
        subpath: String::new(),
        image: None,
    }
}

fn short(bind: &Bind) -> Result<Wanted> {
    let point = match (bind.kind(), &bind.source) {
        (MountKind::Bind, Some(source)) => {
            make_source(source)?;
            MountPoint {
                kind: MountKind::Bind,
                name: String::new(),
                source: source.clone(),
                destination: bind.target.clone(),
                driver: String::new(),
                mode: bind.mode.clone(),
                writable: bind.writable,
                propagation: bind.propagation.to_owned(),
                recursive: true,
                anonymous: false,
                memory: None,
                subpath: String::new(),
                image: None,
            }
        }
        (_, name) => volume_point(
            name.clone().unwrap_or_default(),
            bind.target.clone(),
            bind.mode.clone(),
            bind.writable,
        ),
    };
    Ok(Wanted { point, copy: bind.copy, labels: BTreeMap::new(), options: BTreeMap::new() })
}

fn long(request: &MountRequest) -> Result<Wanted> {
    let kind = request.kind;
    let invalid =
        |why: String| Error::Invalid(format!("invalid mount config for type \"{}\": {why}", kind.as_str()));
    let destination = target(kind, &request.target)?;
    let writable = !request.read_only;
    let plain = |source: String, mode: String, propagation: String, recursive: bool| MountPoint {
        kind,
        name: String::new(),
        source,
        destination: destination.clone(),
        driver: String::new(),
        mode,
        writable,
        propagation,
        recursive,
        anonymous: false,
        memory: None,
        subpath: String::new(),
        image: None,
    };
    match kind {
        MountKind::Bind => {
            let options = request.bind_options.clone().unwrap_or_default();
            if request.source.is_empty() {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            if !std::path::Path::new(&request.source).is_absolute() {
                return Err(invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    request.source
                )));
            }
            if options.create_mountpoint {
                make_source(&request.source)?;
            } else if fs_err::metadata(&request.source).is_err() {
                return Err(invalid(format!("bind source path does not exist: {}", request.source)));
            }
            let propagation =
                if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
            let point = plain(request.source.clone(), String::new(), propagation, !options.non_recursive);
            Ok(Wanted { point, copy: false, labels: BTreeMap::new(), options: BTreeMap::new() })
        }
        MountKind::Tmpfs => {
            if !request.source.is_empty() {
                return Err(invalid("field Source must not be specified".to_owned()));
            }
            let options = request.tmpfs_options.clone().unwrap_or_default().to_text();
            tmpfs(&destination, &options)?;
            let point = plain(String::new(), options, String::new(), true);
            Ok(Wanted { point, copy: false, labels: BTreeMap::new(), options: BTreeMap::new() })
        }
        MountKind::Volume => {
            let options = request.volume_options.clone().unwrap_or_default();
            if !request.source.is_empty() {
                volume::validate(&request.source)?;
            }
            let subpath = subpath(&options.subpath).map_err(invalid)?;
            if !subpath.is_empty() && request.source.is_empty() {
                return Err(invalid("must not set Subpath when using anonymous volumes".to_owned()));
            }
            if let Some(driver) = &options.driver_config {
                volume::check_driver(&driver.name, &driver.options)?;
            }
            let point = volume_point(request.source.clone(), destination, String::new(), writable);
            let copy = !options.no_copy && subpath.is_empty();
            let point = MountPoint { subpath, ..point };
            let told = options.driver_config.map(|driver| driver.options).unwrap_or_default();
            Ok(Wanted { point, copy, labels: options.labels, options: told })
        }
        MountKind::Image => {
            if request.source.is_empty() {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            let options = request.image_options.clone().unwrap_or_default();
            let mut point = plain(String::new(), String::new(), String::new(), true);
            point.name.clone_from(&request.source);
            point.subpath = subpath(&options.subpath).map_err(invalid)?;
            point.writable = false;
            Ok(Wanted { point, copy: false, labels: BTreeMap::new(), options: BTreeMap::new() })
        }
    }
}

/// Checks a folder within a source: where it leads is found out at each start.
fn subpath(text: &str) -> Result<String, String> {
    let leaves = text.starts_with('/') || text.split('/').any(|part| part == "..");
    if leaves || text.contains('\0') {
        return Err("subpath must be a relative path within the volume".to_owned());
    }
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(parts.join("/"))
}
