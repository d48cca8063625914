//! Hard links to files of layers below: an overlay has none, so the layer gets copies, as the kernel makes when such a
//! file is changed.

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::BUFFER;
use super::Fault;
use super::Kind;
use super::LinuxSink;
use super::Meta;
use super::Rights;
use super::below::Below;
use super::below::Found;
use super::split;
use super::stat;
use crate::layer::MAX_UNPACKED;
use crate::layer::extract::Sink as _;

impl LinuxSink {
    /// Makes a copy of a file of a layer below. A second name for it becomes a link to the copy.
    pub(super) fn borrow(&mut self, below: &mut Below, path: &[u8], target: &[u8]) -> Result<(), Fault> {
        let Some(found) = below.find(target)? else {
            return Err(Fault::bad("hard link to something that is not in this layer and not below it"));
        };
        let place = (found.stat.st_dev, found.stat.st_ino);
        if let Some((copy, inode)) = below.copies.get(&place)
            && self.inode(copy) == Some(*inode)
            && (copy == path || self.link(path, copy)?)
        {
            return Ok(());
        }
        let mut meta = found.meta()?;
        if self.rights == Rights::User {
            // It is the user's, as everything is.
            (meta.uid, meta.gid) = (0, 0);
        }
        let device = (rustix::fs::major(found.stat.st_rdev), rustix::fs::minor(found.stat.st_rdev));
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => {
                below.bytes =
                    below.bytes.saturating_add(u64::try_from(found.stat.st_size).unwrap_or(u64::MAX));
                if below.bytes > MAX_UNPACKED {
                    return Err(Fault::bad(format!("has links to more than {MAX_UNPACKED} bytes below it")));
                }
                self.copy(path, &found, &meta)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&*found.dir, &found.name[..], Vec::new())?;
                self.symlink(path, target.as_bytes(), &meta)?;
            }
            FileType::CharacterDevice => self.node(path, Kind::Char, device, &meta)?,
            FileType::BlockDevice => self.node(path, Kind::Block, device, &meta)?,
            FileType::Fifo => self.node(path, Kind::Fifo, device, &meta)?,
            _ => return Err(Fault::bad("hard link to something that no layer can have")),
        }
        if let Some(inode) = self.inode(path) {
            below.copies.insert(place, (path.to_vec(), inode));
        }
        Ok(())
    }

    /// Copies the content of a file, holes as holes.
    fn copy(&mut self, path: &[u8], found: &Found, meta: &Meta) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(&*found.dir, &found.name[..], flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let to = self.replacing(path, |sink, name| rustix::fs::openat(sink.at(), name, flags, mode))?;
        if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
            let mut at = 0;
            loop {
                match rustix::fs::seek(&from, SeekFrom::Data(at)) {
                    Ok(data) => at = data,
                    Err(Errno::NXIO) => break,
                    Err(e) => return Err(e.into()),
                }
                let end = rustix::fs::seek(&from, SeekFrom::Hole(at))?;
                while at < end {
                    let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
                    let n = rustix::io::pread(&from, &mut self.buffer[..most], at)?;
                    if n == 0 {
                        return Err(Errno::IO.into());
                    }
                    let mut rest = &self.buffer[..n];
                    while !rest.is_empty() {
                        let written = rustix::io::pwrite(&to, rest, at)?;
                        rest = &rest[written..];
                        at += written as u64;
                    }
                }
            }
            rustix::fs::ftruncate(&to, u64::try_from(found.stat.st_size).unwrap_or_default())?;
        }
        self.set_meta(&to, meta)
    }

    /// The inode of a name of this layer.
    fn inode(&self, path: &[u8]) -> Option<u64> {
        let (parent, name) = split(path);
        let dir = self.open_in_root(parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        Some(stat(&dir, name).ok()?.st_ino)
    }
}
