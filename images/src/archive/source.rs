//! The members of an archive, by name and in any order.
//!
//! A tar file is walked once and its members are then read where they lie. A compressed one, or a stream, is first
//! written to a plain file in the session. A directory is read through its handle, so links cannot lead out of it.

use std::collections::HashMap;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use fs_err as fs;

use super::Source;
use super::invalid;
use crate::Error;
use crate::MAX_MANIFEST;
use crate::error::Result;
use crate::layer::Fault;
use crate::layer::MAX_UNPACKED;
use crate::layer::compression;
use crate::layer::tar::Kind;
use crate::layer::tar::TarReader;
use crate::media::Compression;
use crate::store::private;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

/// Most members: an archive of many images has thousands of blobs.
const MAX_MEMBERS: usize = 200_000;
/// Links among members lead to another member at most this often.
const MAX_LINKS: usize = 8;

/// An archive whose members can be read.
#[derive(Debug)]
pub(super) struct Archive {
    name: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Dir(Dir),
    Tar { file: fs::File, members: HashMap<Vec<u8>, Member> },
}

#[derive(Debug)]
enum Member {
    File { offset: u64, size: u64 },
    Link(Vec<u8>),
}

impl Archive {
    pub(super) fn open(source: Source<'_>, session: &Session) -> Result<Self> {
        match source {
            Source::Path(path) if path.is_dir() => {
                let dir = Dir::open_ambient_dir(path, ambient_authority())
                    .map_err(|e| Error::io(path.display(), e))?;
                Ok(Self { name: path.display().to_string(), form: Form::Dir(dir) })
            }
            Source::Path(path) => {
                let name = path.display().to_string();
                let mut file = fs::File::open(path)?;
                let mut start = [0; 4];
                let n = read_start(&mut file, &mut start)?;
                file.seek(SeekFrom::Start(0))?;
                let compression = compression::detect(&start[..n]);
                // A pipe cannot be read twice.
                if compression == Compression::None && file.metadata()?.is_file() {
                    return Self::index(name, file);
                }
                let spooled = spool(&name, &mut file, compression, session)?;
                Self::index(name, spooled)
            }
            Source::Reader(reader) => {
                let name = "standard input".to_owned();
                let mut start = [0; 4];
                let n = read_start(reader, &mut start)?;
                let compression = compression::detect(&start[..n]);
                let spooled = spool(&name, &mut start[..n].chain(reader), compression, session)?;
                Self::index(name, spooled)
            }
        }
    }

    fn index(name: String, mut file: fs::File) -> Result<Self> {
        let mut members = HashMap::new();
        let failed = |fault| match fault {
            Fault::Bad { entry, reason } => invalid(
                &name,
                entry.map(|e| format!("{}: ", e.escape_default())).unwrap_or_default() + &reason,
            ),
            Fault::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => invalid(&name, e.to_string()),
            Fault::Io(e) => Error::io(&name, e),
        };
        {
            let mut tar = TarReader::new(Skipping(BufReader::new(&mut file)));
            while let Some(entry) = tar.next_entry().map_err(failed)? {
                let member = match entry.kind {
                    // Its content is not in one piece, and nobody saves an image like that.
                    Kind::File if entry.sparse.is_some() => continue,
                    Kind::File => {
                        let offset = tar.get_mut().0.stream_position()?;
                        tar.skip_content(|reader, bytes| reader.skip(bytes)).map_err(failed)?;
                        Member::File { offset, size: entry.size }
                    }
                    Kind::HardLink => Member::Link(entry.link),
                    // Docker once linked equal layers: `../<id>/layer.tar`.
                    Kind::Symlink => match resolve(&entry.path, &entry.link) {
                        Some(target) => Member::Link(target),
                        None => continue,
                    },
                    _ => continue,
                };
                if members.len() == MAX_MEMBERS {
                    return Err(invalid(&name, format!("has more than {MAX_MEMBERS} members")));
                }
                members.insert(entry.path, member);
            }
        }
        Ok(Self { name, form: Form::Tar { file, members } })
    }

    pub(super) fn invalid(&self, reason: impl Into<String>) -> Error {
        invalid(&self.name, reason)
    }

    pub(super) fn has(&self, member: &str) -> bool {
        match &self.form {
            Form::Dir(dir) => dir.metadata(member).is_ok_and(|m| m.is_file()),
            Form::Tar { .. } => self.find(member).is_some(),
        }
    }

    /// A member's content and size.
    pub(super) fn open_member(&self, member: &str) -> Result<(Box<dyn Read + Send + '_>, u64)> {
        let missing = || self.invalid(format!("{} is not in it", member.escape_default()));
        match &self.form {
            Form::Dir(dir) => {
                let failed = |e: io::Error| match e.kind() {
                    io::ErrorKind::NotFound => missing(),
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
            Form::Tar { file, .. } => {
                let (offset, size) = self.find(member).ok_or_else(missing)?;
                // An own handle with an own position.
                let mut own = fs::File::open(file.path())?;
                own.seek(SeekFrom::Start(offset))?;
                Ok((Box::new(own.take(size)), size))
            }
        }
    }

    /// The whole content of a small member.
    pub(super) fn read_member(&self, member: &str) -> Result<Vec<u8>> {
        let (reader, size) = self.open_member(member)?;
        if size > MAX_MANIFEST {
            return Err(self.invalid(format!("{member} is larger than 4 MiB")));
        }
        let mut bytes = Vec::new();
        reader.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(|e| Error::io(&self.name, e))?;
        Ok(bytes)
    }

    fn find(&self, member: &str) -> Option<(u64, u64)> {
        let Form::Tar { members, .. } = &self.form else { return None };
        let mut name = member.as_bytes();
        for _ in 0..MAX_LINKS {
            match members.get(name)? {
                Member::File { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => name = target,
            }
        }
        None
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

fn read_start(reader: &mut (impl Read + ?Sized), start: &mut [u8]) -> Result<usize> {
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

/// Writes the plain form to a file that goes away with the session.
fn spool(name: &str, reader: &mut dyn Read, compression: Compression, session: &Session) -> Result<fs::File> {
    let path = session.path();
    let mut file = private().read(true).write(true).create_new(true).open(path)?;
    let mut plain = compression::local_decoder(BufReader::with_capacity(256 << 10, reader), compression)?
        .take(MAX_UNPACKED + 1);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let n = match plain.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unwrap_io(e, |e| invalid(name, e.to_string()))),
        };
        total += n as u64;
        io::Write::write_all(&mut file, &buffer[..n])?;
    }
    if total > MAX_UNPACKED {
        return Err(invalid(name, "unpacks to more than 64 GiB"));
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
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
pub(super) fn blob_member(digest: &crate::Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Whether a name in a document of the archive may be looked up at all.
pub(super) fn is_plain_path(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)))
}
