//! `wasi:filesystem@0.3` called as a guest's calls arrive.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use wasmtime::component::{Accessor, Resource, Source, StreamConsumer, StreamReader, StreamResult};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi::p3::bindings::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, HostDescriptorWithStore,
    OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::filesystem::FilesystemResult;

use crate::wasm::p2::files::{UnionFs, view};
use crate::wasm::p2::{State, on_this_thread, test_state};

/// Takes everything that comes out of a stream.
struct Sink<T>(Arc<Mutex<Vec<T>>>);

impl<T: Send + 'static, D> StreamConsumer<D> for Sink<T>
where
    T: wasmtime::component::Lift,
{
    type Item = T;

    fn poll_consume(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        mut source: Source<'_, T>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut some = Vec::with_capacity(64);
        source.read(store, &mut some)?;
        self.0.lock().expect("alone").extend(some);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The same handle once more: a guest may use one as often as it likes.
fn same(fd: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_own(fd.rep())
}

fn refused<T>(result: FilesystemResult<T>, code: &str) {
    let error: ErrorCode = result.err().expect("refused").downcast().expect("no trap");
    assert_eq!(format!("{error:?}").to_lowercase(), format!("errorcode::{code}").to_lowercase());
}

type Host<'a> = Accessor<State, UnionFs>;

async fn open(
    host: &Host<'_>,
    root: &Resource<Descriptor>,
    path: &str,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FilesystemResult<Resource<Descriptor>> {
    UnionFs::open_at(host, same(root), PathFlags::SYMLINK_FOLLOW, path.to_owned(), open, flags).await
}

/// Everything of a stream, once it has ended.
async fn all<T>(host: &Host<'_>, make: impl FnOnce(&Host<'_>) -> wasmtime::Result<StreamReader<T>>) -> Vec<T>
where
    T: wasmtime::component::Lift + Send + 'static,
{
    let found = Arc::new(Mutex::new(Vec::new()));
    let stream = make(host).expect("a stream");
    host.with(|store| stream.pipe(store, Sink(Arc::clone(&found)))).expect("piped");
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    let mut found = found.lock().expect("alone");
    std::mem::take(&mut *found)
}

async fn check(host: &Host<'_>) {
    let root = host.with(|mut store| store.get().preopens()).expect("preopens").remove(0).0;
    let both = DescriptorFlags::READ | DescriptorFlags::WRITE;
    let file = open(host, &root, "dir/file", OpenFlags::empty(), both).await.expect("copied up");
    let stat = UnionFs::stat(host, same(&file)).await.expect("stat");
    assert_eq!((stat.size, stat.link_count), (5, 1));

    let words: StreamReader<u8> =
        host.with(|store| StreamReader::new(store, b"+up".to_vec())).expect("a stream");
    host.with(|store| UnionFs::append_via_stream(store, same(&file), words).map(|_| ())).expect("taken");
    let bytes =
        all(host, |host| Ok(host.with(|store| UnionFs::read_via_stream(store, same(&file), 2))?.0)).await;
    assert_eq!(String::from_utf8(bytes).expect("text"), "wer+up");

    let dir = open(host, &root, "dir", OpenFlags::DIRECTORY, DescriptorFlags::READ).await.expect("open");
    assert!(matches!(UnionFs::get_type(host, same(&dir)).await, Ok(DescriptorType::Directory)));
    let entries: Vec<DirectoryEntry> =
        all(host, |host| Ok(host.with(|store| UnionFs::read_directory(store, same(&dir)))?.0)).await;
    assert_eq!(entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["file"]);

    refused(open(host, &root, "none", OpenFlags::empty(), both).await, "NoEntry");
    refused(open(host, &root, "/etc", OpenFlags::empty(), both).await, "NotPermitted");
    refused(open(host, &dir, "../dir", OpenFlags::empty(), DescriptorFlags::READ).await, "NotPermitted");
    refused(UnionFs::stat_at(host, same(&file), PathFlags::empty(), ".".to_owned()).await, "NotDirectory");
    refused(UnionFs::set_size(host, same(&dir), 1).await, "BadDescriptor");
    let made = open(host, &root, "new", OpenFlags::CREATE, DescriptorFlags::empty()).await.expect("made");
    assert_eq!(UnionFs::get_flags(host, same(&made)).await.expect("flags"), both);
    UnionFs::rename_at(host, same(&root), "new".into(), same(&dir), "moved".into()).await.expect("moved");
    assert!(!UnionFs::is_same_object(host, same(&made), same(&file)).await.expect("two files"));
    UnionFs::unlink_file_at(host, same(&dir), "moved".into()).await.expect("removed");
}

#[test]
fn files_directories_and_their_streams() {
    let (state, temp) = test_state();
    let engine = crate::wasm::engine::run(crate::wasm::engine::Flavor::default()).expect("an engine");
    let mut store = Store::new(&engine, state);
    let done = on_this_thread(async move {
        store.run_concurrent(async |store| check(&store.with_getter::<UnionFs>(view)).await).await
    });
    done.expect("a runtime").expect("done");
    let upper = fs_err::read_to_string(temp.path().join("upper/dir/file")).expect("read");
    assert_eq!(upper, "lower+up");
}
