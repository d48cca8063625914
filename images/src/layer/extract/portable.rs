//! Writing a layer where the kernel has no overlay, or where it is not Linux's: plain files, and whiteouts under
//! the names that OCI gives them (`.wh.NAME`, `.wh..wh..opq`).
//!
//! `cap-std` keeps every path below the layer's directory; symbolic links that would lead out of it are errors
//! when something is written through them. Owners, devices, pipes and extended attributes are not kept. Modes and
//! times are, where the system has them.

use std::collections::BTreeMap;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use cap_std::fs::OpenOptions;

use super::Content;
use super::Fault;
use super::Finished;
use super::Kind;
use super::Meta;
use super::OPAQUE;
use super::Sink;
use super::WHITEOUT;
use super::join;
use super::split;

#[derive(Debug)]
pub(super) struct PortableSink {
    root: Dir,
    dirs: BTreeMap<Vec<u8>, Meta>,
}

impl PortableSink {
    pub(super) fn new(root: &Path) -> Result<Self, Fault> {
        Ok(Self { root: Dir::open_ambient_dir(root, ambient_authority())?, dirs: BTreeMap::new() })
    }

    /// Makes room for an entry: its parents exist, and nothing that is in the way.
    fn prepare(&mut self, path: &[u8]) -> Result<PathBuf, Fault> {
        let (parent, _) = split(path);
        if !parent.is_empty() {
            self.root.create_dir_all(native(parent)?)?;
        }
        let native = native(path)?;
        match self.root.symlink_metadata(&native) {
            Ok(found) if found.is_dir() => {
                self.root.remove_dir_all(&native)?;
                let below = join(path, b"/");
                self.dirs.retain(|dir, _| dir != path && !dir.starts_with(&below));
            }
            Ok(_) => self.root.remove_file(&native)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        Ok(native)
    }

    fn marker(&mut self, path: &[u8]) -> Result<(), Fault> {
        let path = self.prepare(path)?;
        self.root.write(path, b"")?;
        Ok(())
    }
}

impl Sink for PortableSink {
    fn dir(&mut self, path: &[u8], meta: Meta) -> Result<(), Fault> {
        if !path.is_empty() {
            let is_dir = self.root.symlink_metadata(native(path)?).is_ok_and(|found| found.is_dir());
            if !is_dir {
                let path = self.prepare(path)?;
                self.root.create_dir(path)?;
            }
        }
        self.dirs.insert(path.to_vec(), meta);
        Ok(())
    }

    fn file(&mut self, path: &[u8], meta: &Meta, size: u64, content: &mut dyn Content) -> Result<(), Fault> {
        let path = self.prepare(path)?;
        let mut file = self.root.open_with(path, OpenOptions::new().write(true).create_new(true))?;
        let mut at = 0;
        let mut buffer = vec![0; 64 << 10];
        while at < size {
            let hole = content.skip_hole();
            if hole > 0 {
                at += hole;
                file.seek(SeekFrom::Start(at))?;
                // Also for a file that ends with a hole.
                file.set_len(at)?;
                continue;
            }
            let n = content.read(&mut buffer)?;
            file.write_all(&buffer[..n])?;
            at += n as u64;
        }
        set_meta(&file.into_std(), meta)
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], _meta: &Meta) -> Result<(), Fault> {
        let path = self.prepare(path)?;
        #[cfg(unix)]
        self.root.symlink_contents(native(target)?, path)?;
        // What a link leads to may not exist yet, so it cannot be known whether it is a directory.
        #[cfg(windows)]
        self.root.symlink_file(native(target)?, path)?;
        Ok(())
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Fault> {
        let target = native(target)?;
        match self.root.symlink_metadata(&target) {
            Ok(found) if found.is_dir() => return Err(Fault::bad("hard link to a directory")),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Fault::bad("hard link to something that is not in this layer"));
            }
            Err(e) => return Err(e.into()),
        }
        let path = self.prepare(path)?;
        Ok(self.root.hard_link(target, &self.root, path)?)
    }

    fn node(&mut self, _path: &[u8], _kind: Kind, _device: (u32, u32), _meta: &Meta) -> Result<(), Fault> {
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, name) = split(path);
        self.marker(&join(parent, &[WHITEOUT, name].concat()))
    }

    fn opaque(&mut self, dir: &[u8]) -> Result<(), Fault> {
        self.marker(&join(dir, OPAQUE))
    }

    fn finish(self) -> Result<Finished, Fault> {
        for (path, meta) in self.dirs.iter().rev() {
            let path = if path.is_empty() { PathBuf::from(".") } else { native(path)? };
            // Opened as a file: the handle of a `Dir` may not be good for changing anything. Windows refuses, and
            // has nothing to set.
            if let Ok(dir) = self.root.open(path) {
                set_meta(&dir.into_std(), meta)?;
            }
        }
        // Owners mean nothing to whoever reads this form.
        Ok(Finished::default())
    }
}

fn set_meta(file: &std::fs::File, meta: &Meta) -> Result<(), Fault> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Programs for another system: their set-user-id bits would mean this system's users.
        file.set_permissions(std::fs::Permissions::from_mode(meta.mode & 0o1777))?;
        let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::new(
            u64::try_from(meta.mtime.0).unwrap_or_default(),
            meta.mtime.1,
        ));
        if let Some(time) = time {
            file.set_modified(time)?;
        }
    }
    #[cfg(not(unix))]
    let _ = (file, meta);
    Ok(())
}

/// A name of the archive as this system has names.
fn native(path: &[u8]) -> Result<PathBuf, Fault> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
    }
    #[cfg(not(unix))]
    {
        let text = std::str::from_utf8(path).map_err(|_| Fault::bad("name is not valid Unicode"))?;
        if text.contains(['\\', ':', '<', '>', '"', '|', '?', '*']) || text.contains(|c: char| c < ' ') {
            return Err(Fault::bad("name is not possible on this system"));
        }
        Ok(PathBuf::from(text))
    }
}
