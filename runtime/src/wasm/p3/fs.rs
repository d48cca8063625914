//! `wasi:filesystem@0.3` over the union: this version's types to and from [`crate::wasm::p2::files`].

use std::time::SystemTime;

use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};
use wasmtime_wasi::p3::bindings::clocks::system_clock::Instant;
use wasmtime_wasi::p3::bindings::filesystem::preopens;
use wasmtime_wasi::p3::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::filesystem::{FilesystemError, FilesystemResult};

use super::streams::{Listing, Reader, Verdict, Writer};
use crate::wasm::p2::files::{Fd, Flags, How, Times, UnionFs, View, instant};
use crate::wasm::union::{Errno, Kind, Metadata, Result};

/// A stream, and how it ends.
type Streaming<T> = wasmtime::Result<(StreamReader<T>, Ending)>;
type Ending = FutureReader<std::result::Result<(), ErrorCode>>;

impl preopens::Host for View<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        self.preopens()
    }
}

impl types::Host for View<'_> {
    fn convert_error_code(&mut self, error: FilesystemError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl types::HostDescriptor for View<'_> {
    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.remove(&fd)
    }
}

/// Does something with the files; it blocks this thread and is done when it returns.
fn with<T: 'static, R>(
    store: &Accessor<T, UnionFs>,
    work: impl FnOnce(&mut View<'_>) -> Result<R>,
) -> FilesystemResult<R> {
    Ok(store.with(|mut store| work(&mut store.get()))?)
}

impl<T: 'static> types::HostDescriptorWithStore<T> for UnionFs {
    fn read_via_stream(mut store: Access<'_, T, Self>, fd: Fd, offset: u64) -> Streaming<u8> {
        let (mut verdict, outcome) = Verdict::new();
        let file = store
            .get()
            .file(&fd, Errno::IsDir)
            .and_then(|file| if file.flags.read { Ok(file) } else { Err(Errno::BadFd) });
        let stream = match file {
            Ok(file) => StreamReader::new(&mut store, Reader { file, offset, verdict })?,
            Err(errno) => {
                verdict.failed(errno);
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, FutureReader::new(&mut store, outcome)?))
    }

    fn write_via_stream(
        store: Access<'_, T, Self>,
        fd: Fd,
        data: StreamReader<u8>,
        offset: u64,
    ) -> wasmtime::Result<Ending> {
        write(store, &fd, data, Some(offset))
    }

    fn append_via_stream(
        store: Access<'_, T, Self>,
        fd: Fd,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<Ending> {
        write(store, &fd, data, None)
    }

    /// Advice may be ignored, and is.
    async fn advise(store: &Accessor<T, Self>, fd: Fd, _: u64, _: u64, _: Advice) -> FilesystemResult<()> {
        with(store, |files| files.file(&fd, Errno::BadFd).map(drop))
    }

    async fn sync_data(store: &Accessor<T, Self>, fd: Fd) -> FilesystemResult<()> {
        with(store, |files| files.flush(&fd, true))
    }

    async fn sync(store: &Accessor<T, Self>, fd: Fd) -> FilesystemResult<()> {
        with(store, |files| files.flush(&fd, false))
    }

    async fn get_flags(store: &Accessor<T, Self>, fd: Fd) -> FilesystemResult<DescriptorFlags> {
        let flags = with(store, |files| files.flags(&fd))?;
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

    async fn get_type(store: &Accessor<T, Self>, fd: Fd) -> FilesystemResult<DescriptorType> {
        with(store, |files| files.kind(&fd)).map(descriptor_type)
    }

    async fn set_size(store: &Accessor<T, Self>, fd: Fd, size: u64) -> FilesystemResult<()> {
        with(store, |files| files.resize(&fd, size))
    }

    async fn set_times(
        store: &Accessor<T, Self>,
        fd: Fd,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FilesystemResult<()> {
        with(store, |files| files.touch(&fd, times(accessed, modified)?))
    }

    fn read_directory(mut store: Access<'_, T, Self>, fd: Fd) -> Streaming<DirectoryEntry> {
        let (mut verdict, outcome) = Verdict::new();
        let stream = match store.get().list(&fd) {
            Ok(entries) => StreamReader::new(&mut store, Listing { entries: entries.into_iter(), verdict })?,
            Err(errno) => {
                verdict.failed(errno);
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, FutureReader::new(&mut store, outcome)?))
    }

    async fn create_directory_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FilesystemResult<()> {
        with(store, |files| files.mkdir(&fd, &path))
    }

    async fn stat(store: &Accessor<T, Self>, fd: Fd) -> FilesystemResult<DescriptorStat> {
        with(store, |files| files.metadata(&fd)).map(|metadata| descriptor_stat(&metadata))
    }

    async fn stat_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        path: String,
    ) -> FilesystemResult<DescriptorStat> {
        let metadata = with(store, |files| files.metadata_at(&fd, follows(flags), &path))?;
        Ok(descriptor_stat(&metadata))
    }

    async fn set_times_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FilesystemResult<()> {
        with(store, |files| files.touch_at(&fd, follows(flags), &path, times(accessed, modified)?))
    }

    async fn link_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        old: String,
        new_fd: Fd,
        new: String,
    ) -> FilesystemResult<()> {
        with(store, |files| files.link((&fd, &old), follows(flags), (&new_fd, &new)))
    }

    async fn open_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        open: OpenFlags,
        flags: DescriptorFlags,
    ) -> FilesystemResult<Resource<wasmtime_wasi::filesystem::Descriptor>> {
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
        with(store, |files| files.open(&fd, &path, how, flags))
    }

    async fn readlink_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FilesystemResult<String> {
        with(store, |files| files.readlink(&fd, &path))
    }

    async fn remove_directory_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FilesystemResult<()> {
        with(store, |files| files.rmdir(&fd, &path))
    }

    async fn rename_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        old: String,
        new_fd: Fd,
        new: String,
    ) -> FilesystemResult<()> {
        with(store, |files| files.rename((&fd, &old), (&new_fd, &new)))
    }

    async fn symlink_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        target: String,
        path: String,
    ) -> FilesystemResult<()> {
        with(store, |files| files.symlink(&target, &fd, &path))
    }

    async fn unlink_file_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FilesystemResult<()> {
        with(store, |files| files.unlink(&fd, &path))
    }

    async fn is_same_object(store: &Accessor<T, Self>, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        Ok(store.with(|mut store| store.get().is_same(&a, &b)))
    }

    async fn metadata_hash(store: &Accessor<T, Self>, fd: Fd) -> FilesystemResult<MetadataHashValue> {
        with(store, |files| files.metadata(&fd)).map(|metadata| hash(&metadata))
    }

    async fn metadata_hash_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        path: String,
    ) -> FilesystemResult<MetadataHashValue> {
        with(store, |files| files.metadata_at(&fd, follows(flags), &path)).map(|metadata| hash(&metadata))
    }
}

/// Writes a guest's stream to a file, at an offset or at its end.
fn write<T: 'static>(
    mut store: Access<'_, T, UnionFs>,
    fd: &Fd,
    mut data: StreamReader<u8>,
    offset: Option<u64>,
) -> wasmtime::Result<Ending> {
    let (mut verdict, outcome) = Verdict::new();
    let file = store.get().file(fd, Errno::BadFd).and_then(|file| file.may_write().map(|()| file));
    match file {
        Ok(file) => data.pipe(&mut store, Writer { file, offset, verdict })?,
        Err(errno) => {
            verdict.failed(errno);
            data.close(&mut store)?;
        }
    }
    FutureReader::new(&mut store, outcome)
}

fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

/// An object's identity, which is unique as it is.
fn hash(metadata: &Metadata) -> MetadataHashValue {
    MetadataHashValue { lower: metadata.ino, upper: metadata.dev }
}

pub(super) fn descriptor_type(kind: Kind) -> DescriptorType {
    match kind {
        Kind::File => DescriptorType::RegularFile,
        Kind::Dir => DescriptorType::Directory,
        Kind::Symlink => DescriptorType::SymbolicLink,
        Kind::CharDevice => DescriptorType::CharacterDevice,
        Kind::BlockDevice => DescriptorType::BlockDevice,
        Kind::Fifo => DescriptorType::Fifo,
        Kind::Socket => DescriptorType::Socket,
        Kind::Unknown => DescriptorType::Other(None),
    }
}

fn descriptor_stat(metadata: &Metadata) -> DescriptorStat {
    let stat = &metadata.stat;
    DescriptorStat {
        type_: descriptor_type(stat.kind),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: stat.accessed.and_then(datetime),
        data_modification_timestamp: stat.modified.and_then(datetime),
        status_change_timestamp: stat.changed.and_then(datetime),
    }
}

/// Nanoseconds count upwards on both sides of the epoch.
fn datetime(time: SystemTime) -> Option<Instant> {
    Some(match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Instant { seconds: after.as_secs().try_into().ok()?, nanoseconds: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).ok()?;
            match before.subsec_nanos() {
                0 => Instant { seconds: -seconds, nanoseconds: 0 },
                nanos => Instant { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanos },
            }
        }
    })
}

fn times(accessed: NewTimestamp, modified: NewTimestamp) -> Result<Times> {
    let one = |time| match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(SystemTime::now())),
        NewTimestamp::Timestamp(at) => instant(at.seconds, at.nanoseconds).map(Some),
    };
    Ok((one(accessed)?, one(modified)?))
}
