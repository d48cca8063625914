//! A step's program where there is no fork: in a thread of this process.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use dhow_images::media::Compression;
use dhow_runtime::spec::Spec;
use dhow_runtime::{Bundle, Executor, ExitStatus, Kind, Stdio, Stream};

use super::super::cache::Made;
use super::super::root::Root;
use super::upper;
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Container;

/// The layer of what a program has written.
pub(super) fn changed(
    engine: &Engine,
    (upper, _): (&Root, &Path),
    _: Kind,
    latest: Option<i64>,
) -> Result<Made> {
    let layer = upper::layer(upper)?;
    let new = engine.store().new_layer(Compression::Gzip, |out| layer.write(out, latest))?;
    Ok(Made { blob: new.blob, diff_id: new.diff_id })
}

/// There are no such namespaces.
pub(super) fn within(_: &mut Spec) {}

/// Runs the step, its output to `output`.
pub(super) fn execute(
    engine: &Engine,
    _: &Container,
    bundle: &Bundle,
    _: Kind,
    output: &mut dyn FnMut(&[u8]),
) -> Result<ExitStatus> {
    let (mut reader, writer) = std::io::pipe()?;
    std::thread::scope(|scope| {
        let running = scope.spawn(move || -> Result<ExitStatus> {
            let stdio = Stdio::Streams {
                stdin: Stream::Null,
                stdout: Stream::File(file(writer.try_clone()?)),
                stderr: Stream::File(file(writer)),
            };
            let mut task = Executor::wasm(Some(engine.aot_folder())).create(bundle, stdio)?;
            task.start()?;
            let status = task.wait()?;
            task.delete()?;
            Ok(status)
        });
        let mut buffer = vec![0; 32 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => output(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What is said of a pipe whose other end is closed.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error.into()),
            }
        }
        let lost = |_| std::io::Error::other("the thread of a step failed");
        running.join().map_err(lost)?
    })
}

fn file(writer: std::io::PipeWriter) -> std::fs::File {
    #[cfg(unix)]
    return std::os::fd::OwnedFd::from(writer).into();
    #[cfg(windows)]
    return std::os::windows::io::OwnedHandle::from(writer).into();
}
