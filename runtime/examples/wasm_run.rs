//! Runs one Wasm module, component or text file in an empty container: the library's shortest way in.
//!
//! ```text
//! cargo run -p dhow-runtime --example wasm_run -- [--root DIR] [--lower DIR ...] [-v HOST:GUEST[:ro]] [-w DIR] FILE [ARG ...]
//! ```
//!
//! With `--lower` the root is the writable directory above these read-only ones, given lowest first.
//!
//! Compiled code is kept in a directory beside the temporary files, so a second run shows what a start costs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dhow_runtime::spec::{MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder};
use dhow_runtime::{Bundle, Executor, Layer, Module, Root, Stdio};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[expect(clippy::print_stderr, reason = "an example's way to say what failed")]
fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<u8> {
    let mut args = std::env::args().skip(1).peekable();
    let state = std::env::temp_dir().join(format!("dhow-wasm-run-{}", user()));
    let mut root = state.join("root");
    let mut lower = Vec::new();
    let mut mounts = Vec::new();
    let mut cwd = "/".to_owned();
    while let Some(option) = args.next_if(|arg| arg.starts_with('-')) {
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--root" => root = PathBuf::from(value),
            "--lower" => lower.push(Layer { path: PathBuf::from(value), id: None }),
            "-v" => mounts.push(mount(&value)?),
            "-w" => cwd = value,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let file = args.peek().ok_or("usage: wasm_run [options] FILE [ARG ...]")?.clone();
    private_directory(&state)?;
    private_directory(&root)?;

    let process =
        ProcessBuilder::default().cwd(&cwd).args(args.collect::<Vec<_>>()).env(Vec::new()).build()?;
    let writable = RootBuilder::default().path(&root).readonly(false).build()?;
    let spec: Spec = SpecBuilder::default().root(writable).process(process).mounts(mounts).build()?;
    let module = Module { path: Path::new(&file).to_owned(), id: None };
    let root = if lower.is_empty() {
        Root::Dir(root)
    } else {
        Root::Layers { lower, upper: root, work: PathBuf::new(), merged: PathBuf::new() }
    };
    let bundle =
        Bundle { id: "example".to_owned(), spec, root, module: Some(module), wasm: Default::default() };

    let executor = Executor::wasm(Some(state.join("aot")));
    let mut task = executor.create(&bundle, Stdio::inherit())?;
    task.start()?;
    let status = task.wait()?;
    task.delete()?;
    Ok(status.code())
}

fn mount(text: &str) -> Result<dhow_runtime::spec::Mount> {
    let mut parts = text.split(':');
    let (source, destination) = parts.next().zip(parts.next()).ok_or("-v wants HOST:GUEST[:ro]")?;
    let mut options = vec!["bind".to_owned()];
    options.extend(parts.map(str::to_owned));
    Ok(MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(options)
        .build()?)
}

fn private_directory(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    Ok(builder.create(path)?)
}

/// Keeps users of one machine out of each other's way.
fn user() -> u32 {
    #[cfg(unix)]
    return rustix::process::geteuid().as_raw();
    #[cfg(not(unix))]
    0
}
