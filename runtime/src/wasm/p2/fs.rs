//! `wasi:filesystem` over the union.
//!
//! Directories are our own objects. Regular files are wasmtime's, around the host file that the union opened, so that
//! reading, writing and streams are its code. Both live in one table, and a guest's handle is a number in it: what it
//! is there under decides which of the two it means.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, File, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{self, ErrorCode, HostDescriptor};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};
use wasmtime_wasi::{FsPerms, OpenMode};

use super::State;
use super::listing::Listing;
use crate::wasm::create::Guest;
use crate::wasm::union::{About, Kind, Metadata, Node, Open, Opened, Union};

type Fd = Resource<Descriptor>;

/// What this host keeps besides the table.
pub(super) struct Files {
    union: Arc<Union>,
    preopens: Vec<(String, Arc<Node>)>,
    /// What the files in the table are in the union, by their number there.
    about: HashMap<u32, About>,
}

impl Files {
    pub(super) fn new(guest: &Guest) -> Self {
        Self { union: Arc::clone(&guest.union), preopens: guest.preopens(), about: HashMap::new() }
    }
}

/// An open directory.
struct Dir {
    node: Arc<Node>,
    /// What it was opened for.
    flags: types::DescriptorFlags,
}

/// Names this host to the linker.
pub(super) struct UnionFs;

impl HasData for UnionFs {
    type Data<'a> = View<'a>;
}

/// What the calls work on.
pub(super) struct View<'a> {
    files: &'a mut Files,
    pub(super) table: &'a mut ResourceTable,
    stock: &'a mut WasiFilesystemCtx,
}

pub(super) fn view(state: &mut State) -> View<'_> {
    View { files: &mut state.files, table: &mut state.table, stock: state.ctx.filesystem() }
}

impl View<'_> {
    /// wasmtime's own host, for files.
    fn stock(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView { ctx: self.stock, table: self.table }
    }

    fn get_dir(&self, fd: &Fd) -> Option<&Dir> {
        self.table.get(&Resource::<Dir>::new_borrow(fd.rep())).ok()
    }

    fn get_file(&self, fd: &Fd) -> FsResult<(&File, &About)> {
        match (self.table.get(fd)?, self.files.about.get(&fd.rep())) {
            (Descriptor::File(file), Some(about)) => Ok((file, about)),
            _ => Err(ErrorCode::BadDescriptor.into()),
        }
    }

    /// The directory behind `fd`.
    fn node(&self, fd: &Fd) -> FsResult<Arc<Node>> {
        self.get_dir(fd).map(|dir| Arc::clone(&dir.node)).ok_or_else(|| ErrorCode::NotDirectory.into())
    }

    /// The directory behind `fd`, to change something in it.
    fn changing(&self, fd: &Fd) -> FsResult<Arc<Node>> {
        let dir = self.get_dir(fd).ok_or(ErrorCode::NotDirectory)?;
        if dir.flags.contains(types::DescriptorFlags::MUTATE_DIRECTORY) {
            Ok(Arc::clone(&dir.node))
        } else {
            Err(ErrorCode::ReadOnly.into())
        }
    }

    /// What only files can do.
    fn only_file(&self, fd: &Fd, otherwise: ErrorCode) -> FsResult<()> {
        if self.get_dir(fd).is_some() { Err(otherwise.into()) } else { Ok(()) }
    }

    fn push_dir(&mut self, node: Arc<Node>, flags: types::DescriptorFlags) -> FsResult<Fd> {
        let resource = self.table.push(Dir { node, flags })?;
        Ok(Resource::new_own(resource.rep()))
    }

    fn metadata(&self, fd: &Fd) -> FsResult<Metadata> {
        if let Some(dir) = self.get_dir(fd) {
            return Ok(dir.node.metadata()?);
        }
        let (file, about) = self.get_file(fd)?;
        Ok(about.metadata(&file.file)?)
    }
}

impl preopens::Host for View<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let mut directories = Vec::new();
        for (name, node) in self.files.preopens.clone() {
            let mut flags = types::DescriptorFlags::READ;
            if !node.readonly() {
                flags |= types::DescriptorFlags::MUTATE_DIRECTORY;
            }
            let resource = self.table.push(Dir { node, flags })?;
            directories.push((Resource::new_own(resource.rep()), name));
        }
        Ok(directories)
    }
}

impl types::Host for View<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        types::Host::filesystem_error_code(&mut self.stock(), error)
    }
}

impl HostDescriptor for View<'_> {
    async fn advise(&mut self, fd: Fd, offset: u64, length: u64, advice: types::Advice) -> FsResult<()> {
        self.only_file(&fd, ErrorCode::BadDescriptor)?;
        self.stock().advise(fd, offset, length, advice).await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        match self.get_dir(&fd) {
            Some(dir) => Ok(dir.node.sync()?),
            None => self.stock().sync_data(fd).await,
        }
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        match self.get_dir(&fd) {
            Some(dir) => Ok(dir.node.sync()?),
            None => self.stock().sync(fd).await,
        }
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<types::DescriptorFlags> {
        match self.get_dir(&fd) {
            Some(dir) => Ok(dir.flags),
            None => self.stock().get_flags(fd).await,
        }
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<types::DescriptorType> {
        Ok(descriptor_type(self.metadata(&fd)?.stat.kind))
    }

    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        self.only_file(&fd, ErrorCode::BadDescriptor)?;
        self.stock().set_size(fd, size).await
    }

    async fn set_times(
        &mut self,
        fd: Fd,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        let times = (new_time(accessed)?, new_time(modified)?);
        if self.get_dir(&fd).is_some() {
            return Ok(self.changing(&fd)?.set_times(times)?);
        }
        let (file, about) = self.get_file(&fd)?;
        Ok(about.set_times(&file.file, times)?)
    }

    async fn read(&mut self, fd: Fd, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        self.only_file(&fd, ErrorCode::IsDirectory)?;
        self.stock().read(fd, length, offset).await
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
        self.only_file(&fd, ErrorCode::IsDirectory)?;
        self.stock().write(fd, bytes, offset).await
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        self.only_file(&fd, ErrorCode::IsDirectory)?;
        self.stock().read_via_stream(fd, offset)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        self.only_file(&fd, ErrorCode::IsDirectory)?;
        self.stock().write_via_stream(fd, offset)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        self.only_file(&fd, ErrorCode::IsDirectory)?;
        self.stock().append_via_stream(fd)
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<types::DirectoryEntryStream>> {
        let listing = Listing(self.node(&fd)?.list()?.into_iter());
        let resource = self.table.push(listing)?;
        Ok(Resource::new_own(resource.rep()))
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<types::DescriptorStat> {
        Ok(descriptor_stat(&self.metadata(&fd)?))
    }

    async fn stat_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::DescriptorStat> {
        let metadata = self.files.union.stat(&self.node(&fd)?, &path, follows(flags))?;
        Ok(descriptor_stat(&metadata))
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        let times = (new_time(accessed)?, new_time(modified)?);
        Ok(self.files.union.set_times(&self.changing(&fd)?, &path, follows(flags), times)?)
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        Ok(self.files.union.mkdir(&self.changing(&fd)?, &path)?)
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        Ok(self.files.union.rmdir(&self.changing(&fd)?, &path)?)
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        Ok(self.files.union.unlink(&self.changing(&fd)?, &path)?)
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        old: String,
        new_fd: Fd,
        new: String,
    ) -> FsResult<()> {
        let (from, to) = (self.node(&fd)?, self.changing(&new_fd)?);
        Ok(self.files.union.link((&from, &old), follows(flags), (&to, &new))?)
    }

    async fn rename_at(&mut self, fd: Fd, old: String, new_fd: Fd, new: String) -> FsResult<()> {
        let (from, to) = (self.changing(&fd)?, self.changing(&new_fd)?);
        Ok(self.files.union.rename((&from, &old), (&to, &new))?)
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, path: String) -> FsResult<()> {
        Ok(self.files.union.symlink(&target, &self.changing(&fd)?, &path)?)
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        let target = self.files.union.readlink(&self.node(&fd)?, &path)?;
        // WASI knows no absolute targets; an image's links may have them.
        if target.starts_with('/') { Err(ErrorCode::NotPermitted.into()) } else { Ok(target) }
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
        open_flags: types::OpenFlags,
        flags: types::DescriptorFlags,
    ) -> FsResult<Fd> {
        let how = Open {
            read: flags.contains(types::DescriptorFlags::READ),
            write: flags.contains(types::DescriptorFlags::WRITE),
            append: false,
            create: open_flags.contains(types::OpenFlags::CREATE),
            exclusive: open_flags.contains(types::OpenFlags::EXCLUSIVE),
            truncate: open_flags.contains(types::OpenFlags::TRUNCATE),
            directory: open_flags.contains(types::OpenFlags::DIRECTORY),
            follow: follows(path_flags),
        };
        let changes = how.write || how.create || how.truncate;
        let wants_changes = changes || flags.contains(types::DescriptorFlags::MUTATE_DIRECTORY);
        let node = if wants_changes { self.changing(&fd)? } else { self.node(&fd)? };
        match self.files.union.open(&node, &path, &how)? {
            Opened::Dir(node) => self.push_dir(node, flags),
            Opened::File(open) => {
                let mut mode = OpenMode::empty();
                mode.set(OpenMode::READ, how.read || !how.write);
                mode.set(OpenMode::WRITE, how.write);
                let perms = if how.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
                let file = self.table.push(Descriptor::File(File::new(open.file, perms, mode, true)))?;
                self.files.about.insert(file.rep(), open.about);
                Ok(file)
            }
        }
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        if self.get_dir(&fd).is_some() {
            self.table.delete(Resource::<Dir>::new_own(fd.rep()))?;
        } else {
            self.files.about.remove(&fd.rep());
            self.table.delete(fd)?;
        }
        Ok(())
    }

    async fn is_same_object(&mut self, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        let (a, b) = (self.metadata(&a), self.metadata(&b));
        Ok(matches!((a, b), (Ok(a), Ok(b)) if (a.dev, a.ino) == (b.dev, b.ino)))
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<types::MetadataHashValue> {
        Ok(hash(&self.metadata(&fd)?))
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
    ) -> FsResult<types::MetadataHashValue> {
        Ok(hash(&self.files.union.stat(&self.node(&fd)?, &path, follows(flags))?))
    }
}

fn follows(flags: types::PathFlags) -> bool {
    flags.contains(types::PathFlags::SYMLINK_FOLLOW)
}

/// An object's identity, which is unique as it is.
fn hash(metadata: &Metadata) -> types::MetadataHashValue {
    types::MetadataHashValue { lower: metadata.ino, upper: metadata.dev }
}

pub(super) fn descriptor_type(kind: Kind) -> types::DescriptorType {
    match kind {
        Kind::File => types::DescriptorType::RegularFile,
        Kind::Dir => types::DescriptorType::Directory,
        Kind::Symlink => types::DescriptorType::SymbolicLink,
        Kind::CharDevice => types::DescriptorType::CharacterDevice,
        Kind::BlockDevice => types::DescriptorType::BlockDevice,
        Kind::Fifo => types::DescriptorType::Fifo,
        Kind::Socket => types::DescriptorType::Socket,
        Kind::Unknown => types::DescriptorType::Unknown,
    }
}

fn descriptor_stat(metadata: &Metadata) -> types::DescriptorStat {
    let stat = &metadata.stat;
    types::DescriptorStat {
        type_: descriptor_type(stat.kind),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: stat.accessed.and_then(datetime),
        data_modification_timestamp: stat.modified.and_then(datetime),
        status_change_timestamp: stat.changed.and_then(datetime),
    }
}

/// A time before 1970 has no form in WASI and is left out.
fn datetime(time: SystemTime) -> Option<Datetime> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() })
}

fn new_time(time: types::NewTimestamp) -> FsResult<Option<SystemTime>> {
    match time {
        types::NewTimestamp::NoChange => Ok(None),
        types::NewTimestamp::Now => Ok(Some(SystemTime::now())),
        types::NewTimestamp::Timestamp(at) => {
            let nanos = Duration::from_nanos(u64::from(at.nanoseconds));
            let since = Duration::from_secs(at.seconds).checked_add(nanos);
            let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
            time.map(Some).ok_or_else(|| ErrorCode::Overflow.into())
        }
    }
}
