//! The members of an archive, by name and in any order.
//!
//! A plain tar file is walked once and its members are then read where they lie. Of a stream, or of a compressed
//! file, each member becomes a file of the session, hashed on the way: what turns out to be a blob is linked to its
//! place and not written again, and what the store has already is not written at all. A directory is read through
//! its handle, so links cannot lead out of it.

use std::collections::HashMap;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use fs_err as fs;

use super::Source;
use super::invalid;
use super::packed;
use super::packed::Packing;
use crate::Algorithm;
use crate::Digest;
use crate::Error;
use crate::Hasher;
use crate::MAX_MANIFEST;
use crate::error::Result;
use crate::layer::Fault;
use crate::layer::MAX_UNPACKED;
use crate::layer::tar::Kind;
use crate::layer::tar::TarReader;
use crate::store::private;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

/// Most members: an archive of many images has thousands of blobs.
const MAX_MEMBERS: usize = 200_000;
/// Links among members lead to another member at most this often.
const MAX_LINKS: usize = 8;
/// Two readers of an archive that has one of these twice would not see the same images.
const ONCE: [&[u8]; 4] = [b"index.json", b"manifest.json", b"oci-layout", b"repositories"];

/// An archive whose members can be read.
#[derive(Debug)]
pub(super) struct Archive {
    name: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Dir(Dir),
    /// `file` is the tar, where it can be read again.
    Tar {
        file: Option<fs::File>,
        members: Members,
    },
}

type Members = HashMap<Vec<u8>, Member>;

#[derive(Debug)]
enum Member {
    /// A part of the tar.
    Part {
        offset: u64,
        size: u64,
    },
    /// A file of the session.
    Spooled(Spooled),
    /// A blob that the store has already; it is claimed.
    Stored(PathBuf, u64),
    Link(Vec<u8>),
}

/// A member that is a file of the session.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) sha256: Digest,
}

impl Archive {
    pub(super) fn open(source: Source<'_>, session: &Session) -> Result<Self> {
        match source {
            Source::Path(path) if path.is_dir() => {
                let dir = Dir::open_ambient_dir(path, ambient_authority())
                    .map_err(|e| Error::io(path.display(), e))?;
                Ok(Self { name: path.display().to_string(), form: Form::Dir(dir) })
            }
            Source::Path(path) => Self::of_file(path.display().to_string(), fs::File::open(path)?, session),
            Source::File(file) => {
                let name = "standard input";
                Self::of_file(name.into(), fs::File::from_parts(file, name), session)
            }
            Source::Reader(reader) => Self::of_stream("standard input".into(), reader, session),
        }
    }

    fn of_file(name: String, mut file: fs::File, session: &Session) -> Result<Self> {
        // A pipe cannot be read twice.
        if !file.metadata()?.is_file() {
            return Self::of_stream(name, &mut file, session);
        }
        let at = file.stream_position()?;
        let mut start = [0; packed::START];
        let n = read_start(&mut file, &mut start)?;
        file.seek(SeekFrom::Start(at))?;
        if !Packing::detect(&start[..n]).is_plain() {
            return Self::of_stream(name, &mut file, session);
        }
        let members = members(&name, Skipping(BufReader::new(&mut file)), |tar, entry| {
            let offset = tar.get_mut().0.stream_position()?;
            tar.skip_content(|reader, bytes| reader.skip(bytes))?;
            Ok(Member::Part { offset, size: entry.size })
        })?;
        Ok(Self { name, form: Form::Tar { file: Some(file), members } })
    }

    fn of_stream(name: String, reader: &mut dyn Read, session: &Session) -> Result<Self> {
        let mut start = [0; packed::START];
        let n = read_start(reader, &mut start)?;
        let packing = Packing::detect(&start[..n]);
        let input = BufReader::with_capacity(256 << 10, start[..n].chain(reader));
        let plain = packing.decoder(input).map_err(|e| invalid(&name, e.to_string()))?;
        let mut buffer = vec![0; 256 << 10];
        let members = members(&name, Bounded { inner: plain, left: MAX_UNPACKED }, |tar, entry| {
            spool(session, tar, entry, &mut buffer)
        })?;
        Ok(Self { name, form: Form::Tar { file: None, members } })
    }

    pub(super) fn invalid(&self, reason: impl Into<String>) -> Error {
        invalid(&self.name, reason)
    }

    pub(super) fn has(&self, member: &str) -> bool {
        match &self.form {
            // Something odd of this name is an error, and not a member that is missing.
            Form::Dir(dir) => dir.metadata(member).is_ok(),
            Form::Tar { members, .. } => find(members, member).is_some(),
        }
    }

    /// A member's content and size.
    pub(super) fn open_member(&self, member: &str) -> Result<(Box<dyn Read + Send + '_>, u64)> {
        let missing = || self.invalid(format!("{} is not in it", member.escape_default()));
        let (file, members) = match &self.form {
            Form::Dir(dir) => return self.open_in(dir, member),
            Form::Tar { file, members } => (file, members),
        };
        match find(members, member).ok_or_else(missing)? {
            Member::Part { offset, size } => {
                let file = file.as_ref().ok_or_else(missing)?;
                Ok((Box::new(Part { file, at: *offset, left: *size }), *size))
            }
            Member::Spooled(Spooled { path, size, .. }) | Member::Stored(path, size) => {
                Ok((Box::new(fs::File::open(path)?), *size))
            }
            Member::Link(_) => Err(missing()),
        }
    }

    fn open_in(&self, dir: &Dir, member: &str) -> Result<(Box<dyn Read + Send + '_>, u64)> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => self.invalid(format!("{} is not in it", member.escape_default())),
            _ => Error::io(format_args!("{}/{member}", self.name), e),
        };
        let odd = || self.invalid(format!("{} is not a regular file", member.escape_default()));
        // Opening a device may do something already, so it is looked at before as well as after.
        if !dir.metadata(member).map_err(failed)?.is_file() {
            return Err(odd());
        }
        let mut options = cap_std::fs::OpenOptions::new();
        options.read(true);
        // Without this, opening a pipe waits for its writer. It means nothing to a regular file.
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        );
        let file = dir.open_with(member, &options).map_err(failed)?.into_std();
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(odd());
        }
        Ok((Box::new(file), meta.len()))
    }

    /// The member as a file of the session, where it is one.
    pub(super) fn spooled(&self, member: &str) -> Option<&Spooled> {
        let Form::Tar { members, .. } = &self.form else { return None };
        match find(members, member)? {
            Member::Spooled(spooled) => Some(spooled),
            _ => None,
        }
    }

    /// The whole content of a small member.
    pub(super) fn read_member(&self, member: &str) -> Result<Vec<u8>> {
        let (reader, size) = self.open_member(member)?;
        if size > MAX_MANIFEST {
            return Err(self.invalid(format!("{} is larger than 4 MiB", member.escape_default())));
        }
        let mut bytes = Vec::new();
        reader.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(|e| Error::io(&self.name, e))?;
        Ok(bytes)
    }
}

/// Walks a tar; `take` says where the content of a file is then.
fn members<R: Read>(
    name: &str,
    tar: R,
    mut take: impl FnMut(&mut TarReader<R>, &crate::layer::tar::Entry) -> std::result::Result<Member, Fault>,
) -> Result<Members> {
    let failed = |fault| match fault {
        Fault::Bad { entry, reason } => {
            invalid(name, entry.map(|e| format!("{}: ", e.escape_default())).unwrap_or_default() + &reason)
        }
        Fault::Io(e) => unwrap_io(e, |e| match e.kind() {
            // What decoders say about broken content, and the early end of an entry.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::Other => invalid(name, e.to_string()),
            _ => Error::io(name, e),
        }),
    };
    let mut members = Members::new();
    let mut tar = TarReader::new(tar);
    while let Some(entry) = tar.next_entry().map_err(failed)? {
        let member = match entry.kind {
            // Its content is not in one piece, and nobody saves an image like that.
            Kind::File if entry.sparse.is_some() => continue,
            Kind::File => take(&mut tar, &entry).map_err(failed)?,
            Kind::HardLink => Member::Link(entry.link),
            // Docker once linked equal layers: `../<id>/layer.tar`.
            Kind::Symlink => match resolve(&entry.path, &entry.link) {
                Some(target) => Member::Link(target),
                None => continue,
            },
            _ => continue,
        };
        if members.len() == MAX_MEMBERS {
            return Err(invalid(name, format!("has more than {MAX_MEMBERS} members")));
        }
        if ONCE.contains(&entry.path.as_slice()) && members.contains_key(&entry.path) {
            return Err(invalid(name, format!("{} is in it twice", String::from_utf8_lossy(&entry.path))));
        }
        members.insert(entry.path, member);
    }
    Ok(members)
}

/// Writes a member of a stream to a file of the session, unless it is a blob that is in the store.
fn spool<R: Read>(
    session: &Session,
    tar: &mut TarReader<R>,
    entry: &crate::layer::tar::Entry,
    buffer: &mut [u8],
) -> std::result::Result<Member, Fault> {
    let stored = std::str::from_utf8(&entry.path)
        .ok()
        .and_then(|path| path.strip_prefix("blobs/"))
        .and_then(|rest| rest.replacen('/', ":", 1).parse::<Digest>().ok())
        .map(|digest| crate::Descriptor::new("", digest, entry.size))
        .filter(|blob| session.store().has_blob_of(blob));
    if let Some(blob) = stored {
        session.claim([&blob.digest]).map_err(io::Error::other)?;
        // Looked at again, now that nobody can sweep it.
        if session.store().has_blob_of(&blob) {
            return Ok(Member::Stored(session.store().blob_path(&blob.digest), entry.size));
        }
    }
    let path = session.path();
    let mut file = private().write(true).create_new(true).open(&path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        let n = match tar.read(buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        io::Write::write_all(&mut file, &buffer[..n])?;
        hasher.update(&buffer[..n]);
    }
    Ok(Member::Spooled(Spooled { path, size: entry.size, sha256: hasher.finish() }))
}

fn find<'m>(members: &'m Members, member: &str) -> Option<&'m Member> {
    let mut name = member.as_bytes();
    for _ in 0..MAX_LINKS {
        match members.get(name)? {
            Member::Link(target) => name = target,
            found => return Some(found),
        }
    }
    None
}

/// A part of a file, read by position: several threads read the same archive.
struct Part<'f> {
    file: &'f fs::File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        #[cfg(unix)]
        let n = std::os::unix::fs::FileExt::read_at(self.file.file(), &mut buffer[..length], self.at)?;
        #[cfg(windows)]
        let n = std::os::windows::fs::FileExt::seek_read(self.file.file(), &mut buffer[..length], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A reader that may give only so much.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unpacks to more than 64 GiB"))?;
        Ok(n)
    }
}

/// A seekable reader that skips by seeking.
struct Skipping<R>(R);

impl<R: Read> Read for Skipping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Skipping<BufReader<&mut fs::File>> {
    /// `false` when the file ends before.
    fn skip(&mut self, bytes: u64) -> io::Result<bool> {
        let end = self.0.get_ref().metadata()?.len();
        let at = self.0.stream_position()?;
        if end - at.min(end) < bytes {
            return Ok(false);
        }
        self.0.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)?;
        Ok(true)
    }
}

pub(super) fn read_start(reader: &mut (impl Read + ?Sized), start: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < start.len() {
        match reader.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(filled)
}

/// The member that a symbolic link in an archive leads to; nothing outside of it.
fn resolve(link: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut path: Vec<&[u8]> = link.split(|b| *b == b'/').collect();
    path.pop();
    if target.starts_with(b"/") {
        return None;
    }
    for component in target.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(path.pop()?),
            name => path.push(name),
        }
    }
    Some(path.join(&b'/'))
}

/// The path of a blob within an OCI layout.
pub(super) fn blob_member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Whether a name in a document of the archive may be looked up at all.
pub(super) fn is_plain_path(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)))
}
