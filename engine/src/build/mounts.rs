//! `RUN --mount`: what is mounted for one step. Files of a context, a stage or an image are copied to a folder of ours, by
//! handle: so nothing that changes or links elsewhere meanwhile has a part in it.

mod files;

use std::path::{Path, PathBuf};

use dhow_images::media::Compression;
use dhow_runtime::Kind;
use fs_err as fs;

use super::Secret;
#[cfg(target_os = "linux")]
use super::agent::Agent;
use super::builder::Builder;
use super::copy::{How, Source, Sources, Target, print, put};
use super::dockerfile::{Mount, MountType, expand};
use super::layer::{Layer, Made as MadeDir, Print};
use super::root::Root;
use super::run::{Held, bind, memory};
use super::stage::Stage;
use super::work::{FOLDER, open_to_all};
use crate::engine::make_folder;
use crate::error::{Error, Result};

/// Largest secret.
const MAX_SECRET: u64 = 512 << 10;

const TARGET: [&str; 3] = ["target", "dst", "destination"];

/// Prepares a mount, and adds what the step's result depends on to its key. `None` for one that is not there and need not
/// be.
pub(super) fn hold(
    builder: &mut Builder<'_, '_>,
    stage: &mut Stage,
    mount: &Mount,
    at: usize,
    (key, env): (&mut Print, &mut Vec<String>),
) -> Result<Option<Held>> {
    let scope_of = stage.clone();
    let word = |text: &str| {
        expand::word(text, scope_of.escape, &|name: &str| scope_of.variable(name)).map_err(Error::Invalid)
    };
    let get = |names: &[&str]| mount.get(names).map(word).transpose();
    let target = get(&TARGET)?;
    let absolute = |target: &str| super::settings::joined(&scope_of.config.config.working_dir, target);
    let target = target.map(|target| absolute(&target));
    key.text(target.as_deref().unwrap_or("").as_bytes());
    let number = |names: &[&str]| -> Result<Option<u32>> {
        let Some(text) = get(names)? else { return Ok(None) };
        let parsed = text.parse().map_err(|_| Error::Invalid(format!("invalid {} \"{text}\"", names[0])));
        parsed.map(Some)
    };
    let mode = get(&["mode"])?
        .map(|text| {
            u32::from_str_radix(&text, 8).map_err(|_| Error::Invalid(format!("invalid mode \"{text}\"")))
        })
        .transpose()?;
    let mut owner = (number(&["uid"])?, number(&["gid"])?);
    if stage.kind() == Kind::Wasm {
        // Its program is the user who builds.
        owner = (None, None);
    }
    let needed = || target.clone().ok_or_else(|| Error::Invalid("the mount has no target".to_owned()));
    match mount.kind {
        MountType::Tmpfs => memory(&needed()?, get(&["size"])?.as_deref()).map(Some),
        MountType::Bind => {
            let writable =
                mount.is(&["rw", "readwrite"]) == Some(true) || mount.is(&["ro", "readonly"]) == Some(false);
            let from = get(&["from"])?;
            let path = get(&["source", "src"])?.unwrap_or_else(|| "/".to_owned());
            let all = [one(builder, from.as_deref(), &path, at)?];
            print(&all, &How::default(), key)?;
            key.text(&[u8::from(writable)]);
            if !writable {
                let place = copied(builder, &all)?;
                return bind(&needed()?, &place, true).map(Some);
            }
            // What the step writes to it is gone with the step.
            let place = builder.work.path("bind");
            fs::create_dir(&place)?;
            open_to_all(&place)?;
            fill(builder, &all, &place)?;
            let mut held = bind(&needed()?, &place.join(NAME), false)?;
            held.copy = Some(place);
            Ok(Some(held))
        }
        MountType::Cache => {
            let path = get(&["source", "src"])?;
            let first = match (get(&["from"])?, path) {
                (Some(from), path) => Some(one(builder, Some(&from), path.as_deref().unwrap_or("/"), at)?),
                (None, Some(path)) if !path.trim_matches('/').is_empty() => {
                    return Err(Error::Invalid(format!(
                        "cache mount source {path}: only what `from` names has sources"
                    )));
                }
                (None, _) => None,
            };
            let target = needed()?;
            let id = get(&["id"])?.unwrap_or_else(|| target.clone());
            let wanted = Cache { id: &id, first, mode: mode.unwrap_or(0o755), owner };
            cache(builder, &target, mount, &wanted).map(Some)
        }
        MountType::Ssh => agent(builder, mount, target, &get, (mode, owner), env),
        _ => secret(builder, mount, target, &get, (mode, owner), env),
    }
}

#[cfg(not(target_os = "linux"))]
fn agent(
    _: &mut Builder<'_, '_>,
    mount: &Mount,
    _: Option<String>,
    _: &Get<'_>,
    _: Wanted,
    _: &mut Vec<String>,
) -> Result<Option<Held>> {
    if mount.is(&["required"]) == Some(true) {
        return Err(Error::Invalid("RUN --mount=type=ssh needs Linux".to_owned()));
    }
    Ok(None)
}

#[cfg(target_os = "linux")]
fn agent(
    builder: &mut Builder<'_, '_>,
    mount: &Mount,
    target: Option<String>,
    get: &Get<'_>,
    (mode, owner): Wanted,
    env: &mut Vec<String>,
) -> Result<Option<Held>> {
    let id = get(&["id"])?.filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned());
    let Some(socket) = builder.build.agents.get(&id).cloned() else {
        if mount.is(&["required"]) == Some(true) {
            return Err(Error::Invalid(format!("ssh {id}: no agent was handed in with --ssh")));
        }
        return Ok(None);
    };
    let target = target.unwrap_or_else(|| "/run/buildkit/ssh_agent.0".to_owned());
    let place = builder.work.path("agent");
    let owner = (owner.0.unwrap_or(0), owner.1.unwrap_or(0));
    let agent = Agent::start(&socket, &place, mode.unwrap_or(0o600), owner)?;
    let mut held = bind(&target, &place, false)?;
    (held.copy, held._agent) = (Some(place), Some(agent));
    env.push(format!("SSH_AUTH_SOCK={}", held.target));
    Ok(Some(held))
}

/// What a copy for a mount is called.
const NAME: &str = "mounted";

/// The one file or directory that is to be mounted.
fn one(
    builder: &mut Builder<'_, '_>,
    from: Option<&str>,
    path: &str,
    at: usize,
) -> Result<(Sources, Source)> {
    let sources = builder.sources(from, at)?;
    let found = sources.find(path, false)?;
    let [source @ Source::Path { .. }] = found.as_slice() else {
        return Err(Error::Invalid(format!("mount source {path} is not one file or directory")));
    };
    Ok((sources.clone(), source.clone()))
}

/// A copy of what is to be mounted, as a layer of its own.
fn copied(builder: &mut Builder<'_, '_>, all: &[(Sources, Source)]) -> Result<PathBuf> {
    let new = archived(builder, all)?;
    Ok(builder.engine.store().layer_files(&new.blob, &new.diff_id)?.join(NAME))
}

/// A copy of what is to be mounted, in a folder of ours, where it may be written to.
fn fill(builder: &mut Builder<'_, '_>, all: &[(Sources, Source)], to: &Path) -> Result<()> {
    let new = archived(builder, all)?;
    let archive = fs::File::open(builder.engine.store().blob_path(&new.blob.digest))?;
    dhow_images::assemble::extract_archive(archive, to)?;
    Ok(())
}

fn archived(builder: &mut Builder<'_, '_>, all: &[(Sources, Source)]) -> Result<dhow_images::NewLayer> {
    let empty = Root::open(&builder.work.empty())?;
    let made = MadeDir { owner: (0, 0), mtime: (builder.now.as_second(), 0) };
    let mut layer = Layer::new(made);
    let target = Target { path: NAME.as_bytes().to_vec(), is_dir: false };
    let work = &mut builder.work;
    put(all, &How::default(), (&empty, &target), &mut layer, &mut || work.spool())?;
    let store = builder.engine.store();
    let new = store.new_layer(Compression::None, |out| layer.write(out, None))?;
    builder.work.keep([&new.blob.digest, &new.diff_id])?;
    Ok(new)
}

/// A cache that is asked for.
struct Cache<'a> {
    id: &'a str,
    /// What is in it at first.
    first: Option<(Sources, Source)>,
    mode: u32,
    owner: (Option<u32>, Option<u32>),
}

fn cache(builder: &mut Builder<'_, '_>, target: &str, mount: &Mount, wanted: &Cache<'_>) -> Result<Held> {
    let sharing = mount.get(&["sharing"]).unwrap_or("shared");
    if !matches!(sharing, "shared" | "private" | "locked") {
        return Err(Error::Invalid(format!("unsupported sharing value \"{sharing}\"")));
    }
    let all = builder.engine.root().join(FOLDER).join("mounts");
    make_folder(&all)?;
    // By a hash: an id is any text.
    let mut print = Print::new("cache mount");
    print.text(wanted.id.as_bytes());
    if let Some(first) = &wanted.first {
        // Other content at first is another cache.
        super::copy::print(std::slice::from_ref(first), &How::default(), &mut print)?;
    }
    let name = print.finish().hex().to_owned();
    let mut number = 0;
    loop {
        let place = all.join(if number == 0 { name.clone() } else { format!("{name}-{number}") });
        if !place.is_dir() {
            // Made elsewhere and renamed: whoever finds it has one with the right owner.
            let parent = builder.work.path("cache");
            fs::create_dir(&parent)?;
            let draft = parent.join(NAME);
            match &wanted.first {
                Some(first) => fill(builder, std::slice::from_ref(first), &parent)?,
                None => fs::create_dir(&draft)?,
            }
            if !draft.is_dir() {
                return Err(Error::Invalid("a cache mount begins with a directory, not with a file".into()));
            }
            let owner = (wanted.owner.0.unwrap_or(0), wanted.owner.1.unwrap_or(0));
            files::dress_directory(&draft, owner, wanted.mode & 0o7777)?;
            match fs::rename(&draft, &place) {
                // Somebody else was faster; ours goes with the build's folder.
                Err(_) if place.is_dir() => {}
                other => other?,
            }
        }
        let mut lock = None;
        if sharing != "shared" {
            let file = files::lock_of(&place)?;
            if sharing == "locked" {
                file.lock()?;
            } else if file.try_lock().is_err() {
                // Somebody has it: there is another one.
                number += 1;
                continue;
            }
            lock = Some(file);
        }
        let read_only = mount.is(&["ro", "readonly"]) == Some(true);
        let mut held = bind(target, &place, read_only)?;
        held._lock = lock;
        return Ok(held);
    }
}

/// An option by its names, variables replaced.
type Get<'a> = dyn Fn(&[&str]) -> Result<Option<String>> + 'a;

/// Mode and owner.
type Wanted = (Option<u32>, (Option<u32>, Option<u32>));

fn secret(
    builder: &mut Builder<'_, '_>,
    mount: &Mount,
    target: Option<String>,
    get: &Get<'_>,
    (mode, owner): Wanted,
    env: &mut Vec<String>,
) -> Result<Option<Held>> {
    let by_target = || target.as_ref().and_then(|target| target.rsplit('/').next()).map(str::to_owned);
    let id = get(&["id"])?.or_else(by_target).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Error::Invalid("a secret needs an id".to_owned()))?;
    let content = match builder.build.secrets.get(&id) {
        Some(Secret::Value(value)) => value.clone().into_bytes(),
        Some(Secret::File(path)) => {
            let size = fs::metadata(path)?.len();
            if size > MAX_SECRET {
                return Err(Error::Invalid(format!("secret {id}: is larger than {MAX_SECRET} bytes")));
            }
            fs::read(path)?
        }
        None if mount.is(&["required"]) == Some(true) => {
            return Err(Error::Invalid(format!("secret {id}: not found")));
        }
        None => return Ok(None),
    };
    if let Some(name) = get(&["env"])? {
        // Not a part of the key: another value of a secret is no other step.
        env.push(format!("{name}={}", String::from_utf8_lossy(&content)));
        if target.is_none() {
            return Ok(None);
        }
    }
    let target = target.unwrap_or_else(|| format!("/run/secrets/{id}"));
    let copy = builder.work.path("secret");
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&copy)?;
    std::io::Write::write_all(&mut file, &content)?;
    files::dress(file.file(), (owner.0.unwrap_or(0), owner.1.unwrap_or(0)), mode.unwrap_or(0o400) & 0o7777)?;
    let mut held = bind(&target, &copy, true)?;
    held.copy = Some(copy);
    Ok(Some(held))
}
