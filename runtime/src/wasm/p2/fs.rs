//! `wasi:filesystem@0.2` over the union: this version's types to and from [`super::files`].

use std::time::SystemTime;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::errno::code;
use super::files::{Fd, Flags, How, READ_MAX, Times, View, instant};
use super::listing::Listing;
use super::streams::{Failure, Reader, Writer};
use crate::wasm::union::{Errno, Kind, Metadata};

impl preopens::Host for View<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        self.preopens()
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
        let error = self.table.get(&error)?;
        let own = error.downcast_ref::<Failure>().map(|failure| failure.0);
        // Standard input may be anything, a directory for example.
        let system = || error.downcast_ref::<std::io::Error>()?.raw_os_error();
        let of_system = || system().map(|raw| std::io::Error::from_raw_os_error(raw).into());
        Ok(own.or_else(of_system).map(code))
    }
}

impl HostDescriptor for View<'_> {
    /// Advice may be ignored, and is.
    async fn advise(&mut self, fd: Fd, _: u64, _: u64, _: types::Advice) -> FsResult<()> {
        self.file(&fd, Errno::BadFd)?;
        Ok(())
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        Ok(self.flush(&fd, true)?)
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        Ok(self.flush(&fd, false)?)
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        let flags = self.flags(&fd)?;
        let each = [
            (DescriptorFlags::READ, flags.read),
            (DescriptorFlags::WRITE, flags.write),
            (DescriptorFlags::MUTATE_DIRECTORY, flags.mutate),
            (DescriptorFlags::FILE_INTEGRITY_SYNC, flags.file_sync),
            (DescriptorFlags::DATA_INTEGRITY_SYNC, flags.data_sync),
            (DescriptorFlags::REQUESTED_WRITE_SYNC, flags.read_sync),
        ];
        let set = each.into_iter().filter(|(_, set)| *set);
        Ok(set.fold(DescriptorFlags::empty(), |all, (flag, _)| all | flag))
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<types::DescriptorType> {
        Ok(descriptor_type(self.kind(&fd)?))
    }

    async fn set_size(&mut self, fd: Fd, size: u64) -> FsResult<()> {
        Ok(self.resize(&fd, size)?)
    }

    async fn set_times(
        &mut self,
        fd: Fd,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        Ok(self.touch(&fd, times(accessed, modified)?)?)
    }

    async fn read(&mut self, fd: Fd, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        let file = self.file(&fd, Errno::IsDir)?;
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(READ_MAX).min(READ_MAX)];
        let read = file.read_at(&mut buffer, offset)?;
        buffer.truncate(read);
        Ok((buffer, read == 0))
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
        Ok(self.file(&fd, Errno::IsDir)?.write_at(&bytes, offset)? as u64)
    }

    fn read_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let file = self.file(&fd, Errno::IsDir)?;
        if !file.flags.read {
            return Err(Errno::BadFd.into());
        }
        let stream: DynInputStream = Box::new(Reader { file, offset });
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        self.push_writer(&fd, Some(offset))
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        self.push_writer(&fd, None)
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<types::DirectoryEntryStream>> {
        let listing = Listing(self.list(&fd)?.into_iter());
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
        Ok(descriptor_stat(&self.metadata_at(&fd, follows(flags), &path)?))
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        path: String,
        accessed: types::NewTimestamp,
        modified: types::NewTimestamp,
    ) -> FsResult<()> {
        Ok(self.touch_at(&fd, follows(flags), &path, times(accessed, modified)?)?)
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        Ok(self.mkdir(&fd, &path)?)
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        Ok(self.rmdir(&fd, &path)?)
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        Ok(self.unlink(&fd, &path)?)
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: types::PathFlags,
        old: String,
        new_fd: Fd,
        new: String,
    ) -> FsResult<()> {
        Ok(self.link((&fd, &old), follows(flags), (&new_fd, &new))?)
    }

    async fn rename_at(&mut self, fd: Fd, old: String, new_fd: Fd, new: String) -> FsResult<()> {
        Ok(self.rename((&fd, &old), (&new_fd, &new))?)
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, path: String) -> FsResult<()> {
        Ok(self.symlink(&target, &fd, &path)?)
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        Ok(self.readlink(&fd, &path)?)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: types::PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let how = How {
            create: open.contains(OpenFlags::CREATE),
            directory: open.contains(OpenFlags::DIRECTORY),
            exclusive: open.contains(OpenFlags::EXCLUSIVE),
            truncate: open.contains(OpenFlags::TRUNCATE),
            follow: follows(path_flags),
        };
        let flags = Flags {
            read: flags.contains(DescriptorFlags::READ),
            write: flags.contains(DescriptorFlags::WRITE),
            mutate: flags.contains(DescriptorFlags::MUTATE_DIRECTORY),
            file_sync: flags.contains(DescriptorFlags::FILE_INTEGRITY_SYNC),
            data_sync: flags.contains(DescriptorFlags::DATA_INTEGRITY_SYNC),
            read_sync: flags.contains(DescriptorFlags::REQUESTED_WRITE_SYNC),
        };
        Ok(self.open(&fd, &path, how, flags)?)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.remove(&fd)
    }

    async fn is_same_object(&mut self, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        Ok(self.is_same(&a, &b))
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
        Ok(hash(&self.metadata_at(&fd, follows(flags), &path)?))
    }
}

impl View<'_> {
    fn push_writer(&mut self, fd: &Fd, offset: Option<u64>) -> FsResult<Resource<DynOutputStream>> {
        let file = self.file(fd, Errno::IsDir)?;
        file.may_write()?;
        let stream: DynOutputStream = Box::new(Writer { file, offset });
        Ok(self.table.push(stream)?)
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

/// A time before 1970 has no form in this version and is left out.
fn datetime(time: SystemTime) -> Option<Datetime> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() })
}

fn times(accessed: types::NewTimestamp, modified: types::NewTimestamp) -> Result<Times, Errno> {
    let one = |time| match time {
        types::NewTimestamp::NoChange => Ok(None),
        types::NewTimestamp::Now => Ok(Some(SystemTime::now())),
        types::NewTimestamp::Timestamp(at) => {
            let seconds = i64::try_from(at.seconds).map_err(|_| Errno::Overflow)?;
            instant(seconds, at.nanoseconds).map(Some)
        }
    };
    Ok((one(accessed)?, one(modified)?))
}
