//! `wasi:filesystem` called as a guest's calls arrive, and whole components in text.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Descriptor, DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor as _,
    HostDirectoryEntryStream as _, NewTimestamp, OpenFlags, PathFlags,
};

use super::{Given, State, files};
use crate::error::{Error, Result};
use crate::spec::{ProcessBuilder, SpecBuilder};
use crate::stdio::{Stdio, Stream};
use crate::wasm::Executor;
use crate::wasm::create::Guest;
use crate::wasm::limits::Bounds;
use crate::wasm::stdio::Streams;
use crate::wasm::union::Union;
use crate::{Bundle, Layer, Module, Root};

fn nothing() -> Stdio {
    Stdio::Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null }
}

/// A host over one layer with `dir/file`.
pub(in crate::wasm) fn state() -> (State, tempfile::TempDir) {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("layer");
    fs_err::create_dir_all(path.join("dir")).expect("layer");
    fs_err::create_dir(temp.path().join("upper")).expect("upper");
    fs_err::write(path.join("dir/file"), "lower").expect("file");
    let union = Union::layered(&temp.path().join("upper"), &[Layer { path, id: None }]).expect("union");
    let union = Arc::new(union);
    let guest = Guest {
        args: Vec::new(),
        env: Vec::new(),
        cwd: Arc::clone(union.root()),
        cwd_path: "/".to_owned(),
        union,
        streams: Streams::new(nothing()),
        policy: Arc::new(crate::wasm::network::Policy::new(
            crate::wasm::Network::default(),
            Box::new(|| None),
        )),
        entry: Default::default(),
        bounds: Bounds::default(),
        publish: Vec::new(),
        descriptors: 1024,
    };
    let limiter = guest.bounds.budget().limiter();
    (State::new(Arc::new(Given::of(&guest)), limiter), temp)
}

/// Runs a future as a component's.
pub(in crate::wasm) fn on_this_thread<F: Future>(future: F) -> Result<F::Output> {
    super::driver::block_on(future, false)
}

fn root(state: &mut State) -> Resource<Descriptor> {
    let mut directories = files::view(state).get_directories().expect("preopens");
    assert_eq!(directories.len(), 1);
    let (fd, name) = directories.remove(0);
    assert_eq!(name, "/");
    fd
}

/// The same handle once more: a guest may use one as often as it likes.
fn same(fd: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_own(fd.rep())
}

fn refused<T>(result: FsResult<T>, code: ErrorCode) {
    let error = result.err().expect("refused").downcast().expect("no trap");
    assert_eq!(error, code);
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn files_and_directories_in_one_table() {
    let (mut state, temp) = state();
    let root = root(&mut state);
    block_on(async {
        let follow = PathFlags::SYMLINK_FOLLOW;
        let mut view = files::view(&mut state);
        let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
        let file = view
            .open_at(same(&root), follow, "dir/file".into(), OpenFlags::empty(), flags)
            .await
            .expect("copied up");
        assert_eq!(view.write(same(&file), b"+up".to_vec(), 5).await.expect("write"), 3);
        assert_eq!(view.read(same(&file), 100, 0).await.expect("read").0, b"lower+up");
        assert_eq!(view.get_type(same(&file)).await.expect("type"), DescriptorType::RegularFile);
        assert_eq!(view.stat_at(same(&root), follow, "dir/file".into()).await.expect("stat").size, 8);
        let by_fd = view.metadata_hash(same(&file)).await.expect("hash");
        let by_path = view.metadata_hash_at(same(&root), follow, "dir/file".into()).await.expect("hash");
        assert_eq!((by_fd.lower, by_fd.upper), (by_path.lower, by_path.upper));
        let at = NewTimestamp::Timestamp(wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime {
            seconds: 1000,
            nanoseconds: 5,
        });
        view.set_times(same(&file), NewTimestamp::NoChange, at).await.expect("times");

        let dir = view
            .open_at(same(&root), follow, "dir".into(), OpenFlags::DIRECTORY, DescriptorFlags::READ)
            .await
            .expect("a directory");
        assert_eq!(view.get_type(same(&dir)).await.expect("type"), DescriptorType::Directory);
        let stream = view.read_directory(same(&dir)).await.expect("listing");
        let entry =
            view.read_directory_entry(Resource::new_own(stream.rep())).await.expect("entry").expect("one");
        assert_eq!((entry.name.as_str(), entry.type_), ("file", DescriptorType::RegularFile));
        let end = view.read_directory_entry(Resource::new_own(stream.rep())).await.expect("end");
        assert!(end.is_none());

        // Translated WASI 0.1 guests never ask for the right to change a directory, and change it.
        view.create_directory_at(same(&dir), "x".into()).await.expect("made");
        view.remove_directory_at(same(&dir), "x".into()).await.expect("removed");
        // What was opened for reading is not written, and the other way round.
        let read_only = DescriptorFlags::READ;
        let reader = view
            .open_at(same(&dir), follow, "file".into(), OpenFlags::empty(), read_only)
            .await
            .expect("open");
        refused(view.write(same(&reader), b"x".to_vec(), 0).await, ErrorCode::BadDescriptor);
        refused(view.write_via_stream(same(&reader), 0), ErrorCode::BadDescriptor);
        refused(view.set_size(same(&reader), 1).await, ErrorCode::Invalid);
        refused(view.read(same(&reader), 1, u64::MAX).await, ErrorCode::Invalid);
        let create = OpenFlags::CREATE | OpenFlags::DIRECTORY;
        refused(view.open_at(same(&dir), follow, "y".into(), create, flags).await, ErrorCode::Invalid);
        types::HostDescriptor::drop(&mut view, reader).expect("drop");
        // Directories do not do files' work, nor files theirs.
        refused(view.read(same(&dir), 1, 0).await, ErrorCode::IsDirectory);
        refused(view.read_via_stream(same(&dir), 0), ErrorCode::IsDirectory);
        refused(view.set_size(same(&dir), 1).await, ErrorCode::BadDescriptor);
        refused(view.stat_at(same(&file), follow, "x".into()).await, ErrorCode::NotDirectory);
        refused(view.stat_at(same(&root), follow, "../x".into()).await, ErrorCode::NotPermitted);
        refused(view.stat_at(same(&root), follow, "none".into()).await, ErrorCode::NoEntry);

        view.rename_at(same(&root), "dir/file".into(), same(&root), "moved".into()).await.expect("rename");
        assert!(view.is_same_object(same(&root), same(&root)).await.expect("same"));
        assert!(!view.is_same_object(same(&root), same(&dir)).await.expect("same"));
        for fd in [file, dir, root] {
            types::HostDescriptor::drop(&mut view, fd).expect("drop");
        }
        types::HostDirectoryEntryStream::drop(&mut view, stream).expect("drop");
    });
    assert!(state.wasi().table.is_empty(), "nothing is left in the table");
    let moved = fs_err::metadata(temp.path().join("upper/moved")).expect("moved");
    assert_eq!(moved.modified().expect("time"), SystemTime::UNIX_EPOCH + Duration::new(1000, 5));
    assert_eq!(fs_err::read_to_string(temp.path().join("layer/dir/file")).expect("read"), "lower");
}

fn run(text: &str) -> Result<u8> {
    let temp = tempfile::tempdir().expect("a directory");
    fs_err::write(temp.path().join("guest.wat"), text).expect("guest");
    let process = ProcessBuilder::default().args(vec!["guest".to_owned()]).cwd("/").env(Vec::new()).build();
    let spec = SpecBuilder::default().process(process.expect("process")).mounts(Vec::new()).build();
    let bundle = Bundle {
        id: "test".to_owned(),
        spec: spec.expect("spec"),
        root: Root::Dir(temp.path().to_owned()),
        module: Some(Module { path: temp.path().join("guest.wat"), id: None }),
        wasm: crate::wasm::Options::default(),
    };
    let mut task = Executor::new(None).create(&bundle, nothing())?;
    task.start()?;
    task.wait().map(crate::ExitStatus::code)
}

/// A command whose `run` is this core function body.
fn command(body: &str) -> String {
    format!(
        r#"(component
            (core module $m (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $c (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $c)))"#
    )
}

#[test]
fn how_components_end() {
    assert_eq!(run(&command("i32.const 0")).expect("run"), 0);
    assert_eq!(run(&command("i32.const 1")).expect("run"), 1);
    assert_eq!(run(&command("unreachable")).expect("run"), 134);
}

#[test]
fn what_cannot_run_is_said_before_it_runs() {
    for (text, words) in [
        ("(component)", "exports no wasi:cli/run, but nothing"),
        (r#"(component (core module $m) (export "app:thing/x" (core module $m)))"#, "but app:thing/x"),
        (r#"(component (import "app:thing/y@1.2.0" (instance (export "f" (func)))))"#, "app:thing/y@1.2.0"),
    ] {
        let error = run(text).expect_err(text);
        assert!(matches!(error, Error::InvalidModule { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(words) && message.contains("guest.wat"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// A component whose `echo` gives back a value of this type, which `define` defines. It is passed flat, as one value.
fn echo(define: &str, ty: &str, flat: &str) -> String {
    format!(
        r#"(component
            {define}
            (core module $m (func (export "echo") (param {flat}) (result {flat}) local.get 0))
            (core instance $i (instantiate $m))
            (func $echo (param "v" {ty}) (result {ty}) (canon lift (core func $i "echo")))
            (export "echo" (func $echo)))"#
    )
}

fn invoke(text: &str, function: &str, args: &[&str]) -> Result<String> {
    let temp = tempfile::tempdir().expect("a directory");
    fs_err::write(temp.path().join("guest.wat"), text).expect("guest");
    let args = std::iter::once("guest").chain(args.iter().copied()).map(str::to_owned).collect::<Vec<_>>();
    let process = ProcessBuilder::default().args(args).cwd("/").env(Vec::new()).build();
    let spec = SpecBuilder::default().process(process.expect("process")).mounts(Vec::new()).build();
    let bundle = Bundle {
        id: "test".to_owned(),
        spec: spec.expect("spec"),
        root: Root::Dir(temp.path().to_owned()),
        module: Some(Module { path: temp.path().join("guest.wat"), id: None }),
        wasm: crate::wasm::Options { invoke: Some(function.to_owned()), ..crate::wasm::Options::default() },
    };
    let output = temp.path().join("output");
    let file = fs_err::File::create(&output).expect("output").into_parts().0;
    let stdio = Stdio::Streams { stdin: Stream::Null, stdout: Stream::File(file), stderr: Stream::Null };
    let mut task = Executor::new(None).create(&bundle, stdio)?;
    task.start()?;
    assert_eq!(task.wait()?.code(), 0);
    Ok(fs_err::read_to_string(output).expect("output"))
}

#[test]
fn functions_are_called_with_values_as_text() {
    let direction = r#"(type $e' (enum "north" "south")) (export $e "direction" (type $e'))"#;
    let flags = r#"(type $f' (flags "read" "write")) (export $f "access" (type $f'))"#;
    for (define, ty, flat, given, printed) in [
        ("", "u32", "i32", "7", "7"),
        ("", "s64", "i64", "-9", "-9"),
        ("", "f64", "f64", "1.5", "1.5"),
        ("", "f32", "f32", "-inf", "-inf"),
        ("", "bool", "i32", "true", "true"),
        ("", "char", "i32", r"'\u{263a}'", "'\u{263a}'"),
        ("(type $t (tuple u8))", "$t", "i32", "( 3, ) // three", "(3)"),
        (direction, "$e", "i32", "south", "south"),
        (flags, "$f", "i32", "{write, read}", "{read, write}"),
    ] {
        let text = echo(define, ty, flat);
        assert_eq!(invoke(&text, "echo", &[given]).expect(given), format!("{printed}\n"), "{ty}");
        let call = format!("echo({given}\n)");
        assert_eq!(invoke(&text, &call, &[]).expect(given), format!("{printed}\n"), "{ty} in one");
    }
}

#[test]
fn what_cannot_be_called_is_said() {
    let text = echo("", "u8", "i32");
    for (function, args, words) in [
        ("none", &[][..], "it exports no such function, but echo"),
        ("a:b/c#echo", &[], "no such function"),
        ("echo", &[], "too few arguments, it takes 1"),
        ("echo", &["256"], "\"256\" is no u8"),
        ("echo", &["1 2"], "\"2\" is too much"),
        ("echo", &[""], "a value is missing at the end"),
        ("echo(1", &[], "\")\" is missing at the end"),
        ("echo(1) 2", &[], "is too much"),
        ("echo(1, 2)", &[], "it takes 1 arguments"),
        ("echo()", &[], "too few arguments"),
    ] {
        let error = invoke(&text, function, args).expect_err(words).to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{function}: {error}");
    }
}

#[test]
fn an_open_file_of_a_layer_knows_its_copy() {
    let (mut state, _temp) = state();
    let root = root(&mut state);
    block_on(async {
        let mut view = files::view(&mut state);
        let follow = PathFlags::SYMLINK_FOLLOW;
        let path = || "dir/file".to_owned();
        let read = DescriptorFlags::READ;
        let file = view.open_at(same(&root), follow, path(), OpenFlags::empty(), read).await.expect("open");
        let before = view.metadata_hash(same(&file)).await.expect("hash");
        view.link_at(same(&root), PathFlags::empty(), path(), same(&root), "link".into())
            .await
            .expect("link");
        let at = NewTimestamp::Timestamp(wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime {
            seconds: 42,
            nanoseconds: 0,
        });
        view.set_times_at(same(&root), follow, path(), NewTimestamp::NoChange, at).await.expect("times");
        let stat = view.stat(same(&file)).await.expect("stat");
        assert_eq!((stat.size, stat.link_count), (5, 2));
        assert_eq!(stat.data_modification_timestamp.map(|time| time.seconds), Some(42));
        let after = view.metadata_hash(same(&file)).await.expect("hash");
        assert_eq!((before.lower, before.upper), (after.lower, after.upper));
    });
}
