//! Files of a container as a tar archive, and the other way round.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::place::{Info, Kind, Place};
use super::{MAX_DEPTH, Source, at};
use crate::error::{Error, Result};

/// Writes what was found, under its own name.
pub(super) fn write(source: &Source<'_>, out: &mut dyn io::Write) -> Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.sparse(false);
    let shown = source.shown.as_str();
    let failed = |error| at(shown, error);
    let directory = source.directory().map_err(failed)?;
    match &source.name {
        Some(name) if source.info.kind != Kind::Directory => {
            if let Some(file) = &source.file {
                let size = source.info.size;
                let mut header = header(&source.info, tar::EntryType::Regular, size);
                archive
                    .append_data(&mut header, Path::new(name), io::Read::take(file, size))
                    .map_err(failed)?;
            } else {
                entry(&mut archive, &source.place, name, &PathBuf::from(name), shown, 0)?;
            }
        }
        name => {
            let top = PathBuf::from(name.as_deref().unwrap_or(OsStr::new(".")));
            let mut header = header(&source.info, tar::EntryType::Directory, 0);
            archive.append_data(&mut header, top.join(""), io::empty()).map_err(failed)?;
            contents(&mut archive, directory.as_ref().unwrap_or(&source.place), &top, shown, 0)?;
        }
    }
    archive.into_inner().and_then(|out| out.flush()).map_err(failed)
}

type Out<'a> = tar::Builder<&'a mut dyn io::Write>;

fn contents(archive: &mut Out<'_>, from: &Place<'_>, path: &Path, shown: &str, depth: usize) -> Result<()> {
    for name in from.names().map_err(|error| at(shown, error))? {
        let shown = format!("{}/{}", shown.trim_end_matches('/'), name.display());
        entry(archive, from, &name, &path.join(&name), &shown, depth + 1)?;
    }
    Ok(())
}

fn entry(
    archive: &mut Out<'_>,
    from: &Place<'_>,
    name: &OsStr,
    path: &Path,
    shown: &str,
    depth: usize,
) -> Result<()> {
    let failed = |error| at(shown, error);
    if depth > MAX_DEPTH {
        return Err(Error::Invalid(format!("{shown}: more than {MAX_DEPTH} directories within each other")));
    }
    let info = from.stat(name).map_err(failed)?;
    match info.kind {
        Kind::Directory => {
            let mut header = header(&info, tar::EntryType::Directory, 0);
            archive.append_data(&mut header, path.join(""), io::empty()).map_err(failed)?;
            contents(archive, &from.enter(name).map_err(failed)?, path, shown, depth)
        }
        Kind::File => {
            // The archive says the size first: a file that grows is cut there, and one that shrinks is filled with zeros.
            let file = from.read(name).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            let mut header = header(&info, tar::EntryType::Regular, size);
            let content = io::Read::take(io::Read::chain(file, io::repeat(0)), size);
            archive.append_data(&mut header, path, content).map_err(failed)
        }
        Kind::Symlink => {
            let target = from.readlink(name).map_err(failed)?;
            let mut header = header(&info, tar::EntryType::Symlink, 0);
            archive.append_link(&mut header, path, Path::new(&target)).map_err(failed)
        }
        Kind::Other => Ok(()),
    }
}

fn header(info: &Info, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(info.mode);
    header.set_uid(info.owner.0.into());
    header.set_gid(info.owner.1.into());
    header.set_size(size);
    let since = info.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    header.set_mtime(since.as_secs());
    header
}

/// Unpacks an archive into `to`. Each entry is reached from there one name at a time, so a link in the archive or in the
/// container leads nowhere.
pub(super) fn read(input: &mut dyn io::Read, to: &Place<'_>, archive: bool) -> Result<()> {
    let mut tar = tar::Archive::new(input);
    let wrong = |error: io::Error| Error::Invalid(format!("the archive cannot be read: {error}"));
    for found in tar.entries().map_err(wrong)? {
        let mut found = found.map_err(wrong)?;
        let path = found.path().map_err(wrong)?.into_owned();
        let names = names(&path)?;
        let Some((last, parents)) = names.split_last() else { continue };
        let failed = |error| at(path.display(), error);
        let mut walked = Vec::<Place<'_>>::new();
        for name in parents {
            let inner = walked.last().unwrap_or(to).mkdir(name).map_err(failed)?;
            walked.push(inner);
        }
        let place = walked.last().unwrap_or(to);
        let header = found.header();
        let owner = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
        let ids = (owner(header.uid()), owner(header.gid()));
        let modified =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(header.mtime().unwrap_or_default()));
        let mut info = Info {
            kind: Kind::File,
            size: 0,
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            owner: ids,
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
        };
        match header.entry_type() {
            tar::EntryType::Directory => {
                info.kind = Kind::Directory;
                place.mkdir(last).map_err(failed)?;
            }
            tar::EntryType::Symlink => {
                info.kind = Kind::Symlink;
                let target = found.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
                place.symlink(target.as_os_str(), last).map_err(failed)?;
            }
            kind if kind.is_file() => {
                let mut file = place.create(last).map_err(failed)?;
                if let Err(error) = io::copy(&mut found, &mut file) {
                    // A full disk, or an archive that ends early: half a file helps nobody.
                    place.clear(last).ok();
                    return Err(failed(error));
                }
            }
            tar::EntryType::Link => {
                // A file of the archive, or one that is there already; it has its owner and mode.
                let target = found.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
                let target = self::names(&target)?;
                let Some((old, parents)) = target.split_last() else { continue };
                let mut from = Vec::<Place<'_>>::new();
                for name in parents {
                    let inner = from.last().unwrap_or(to).enter(name).map_err(failed)?;
                    from.push(inner);
                }
                place.link(from.last().unwrap_or(to), old, last).map_err(failed)?;
                continue;
            }
            // As when files are copied: pipes and devices stay out.
            _ => continue,
        }
        let owner = if archive { ids } else { (0, 0) };
        place.describe(last, &info, Some(owner)).map_err(failed)?;
    }
    Ok(())
}

/// The names of an entry's path, from the directory it is unpacked in.
fn names(path: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Invalid(format!("the archive has an entry outside: {}", path.display())));
            }
        }
    }
    if names.len() > MAX_DEPTH || path.as_os_str().as_bytes().contains(&0) {
        return Err(Error::Invalid(format!(
            "{}: more than {MAX_DEPTH} directories within each other",
            path.display()
        )));
    }
    Ok(names)
}
