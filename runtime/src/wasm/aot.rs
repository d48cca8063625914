//! The cache of compiled code.
//!
//! ```text
//! <aot>/<engine key>/<code name>         machine code in wasmtime's ELF form, then 48 bytes: its SHA-256, form, length
//! <aot>/<engine key>/<code name>.lock    held while it is being compiled
//! ```
//!
//! The engine key names everything about the engine that code depends on (`engine::compatibility`). The code name
//! begins with what the code was made of, so that whoever removes that can remove the code as well:
//! `sha256-<hex>` for content with a known digest, `sha256-<hex>.<hash of the path>` for a file of the layer of that
//! diff id (`.p<path in hexadecimal>` for short ones), `file-<hash of the content>` for a file of which nothing is known.
//!
//! **Trust.** Loading machine code is running it, so a file is only loaded when it can have been written by this user
//! alone: it is a regular file owned by this process's effective user, neither group nor others may write it, and the
//! same holds for the directory it is in. That is checked on open handles, and the handle that was checked is the one
//! that is mapped. (Windows has no owners in this sense: there the directory's access list must do the same.)
//! A file that fails this, is cut short, or was made by another wasmtime or for another processor, is ignored and
//! made anew. Files appear by rename after their data is on disk, so a crash leaves none half-written.
//!
//! It is not a defence against this user. The checksum is for disks that forget: it is looked at by `system check`
//! ([`is_whole`]) and not at each start, where it would cost more than everything else.
#![expect(unsafe_code, reason = "taking machine code from a file is unsafe in wasmtime's interface")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::engine::{self, Flavor};
use super::module::{Code, Form, form, invalid, is_service, text_form};
use crate::error::{Error, Result};

/// The marks between the checksum and the length of the code.
const MODULE: &[u8; 8] = b"DhowAot\x03";
const COMPONENT: &[u8; 8] = b"DhowAot\x04";
/// In the place of a service's code: it is of the flavor that can be interrupted, under the same name.
const SERVICE: &[u8; 8] = b"DhowAot\x05";
const TRAILER: u64 = SUM + 16;
const SUM: u64 = 32;
const SUM_SIZE: usize = 32;
/// In bytes: with an identity of SHA-512 and what is put behind a temporary file's name, names stay below 255.
const SHORT_PATH: usize = 48;

/// Where compiled code is kept, or nowhere.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: Option<PathBuf>,
}

/// Guest code to be had: from the cache if it is there, else from its source.
pub(super) struct Wanted<'a, F> {
    /// The cache's name for it, where that is known without reading it.
    pub(super) name: Option<String>,
    /// The file, as the user knows it.
    pub(super) path: &'a str,
    /// Whether WebAssembly text will do.
    pub(super) text: bool,
    /// The flavor of the engine that it is for.
    pub(super) flavor: Flavor,
    /// Reads the source.
    pub(super) read: F,
}

impl Cache {
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Compiled code for `engine`. What had to be compiled is kept for next time, where that is possible.
    pub(super) fn code<F>(&self, engine: &Engine, wanted: Wanted<'_, F>) -> Result<Code>
    where
        F: FnOnce() -> Result<Vec<u8>>,
    {
        let dir = self.dir.as_ref().map(|dir| dir.join(engine::compatibility(engine)));
        if let (Some(dir), Some(name)) = (&dir, &wanted.name)
            && let Some(code) = load(engine, dir, name)
        {
            return Ok(code);
        }
        let bytes = (wanted.read)()?;
        let form = match text_form(&bytes).filter(|_| wanted.text) {
            Some(form) => form,
            None => form(wanted.path, &bytes)?,
        };
        if form == Form::Component && !wanted.flavor.epoch && is_service(&bytes) {
            let flavor = Flavor { epoch: true, ..wanted.flavor };
            let (path, name) = (wanted.path, wanted.name);
            if let (Some(dir), Some(name)) = (&dir, &name) {
                // Without it, this is found out again.
                drop(store(dir, name, SERVICE, &[]));
            }
            let read: Box<dyn FnOnce() -> Result<Vec<u8>>> = Box::new(move || Ok(bytes));
            self.code(&engine::run(flavor)?, Wanted { name, path, text: wanted.text, flavor, read })?;
            return Ok(Code::Service);
        }
        let Some(dir) = dir else {
            return deserialize(engine, form, &compile(wanted.flavor, wanted.path, form, &bytes)?);
        };
        let name = match wanted.name {
            Some(name) => name,
            None => {
                let name = format!("file-{}", engine::hex(&Sha256::digest(&bytes)));
                if let Some(code) = load(engine, &dir, &name) {
                    return Ok(code);
                }
                name
            }
        };
        // Whoever holds the lock compiles; the others find the result. Without a lock both compile, which is only slow.
        let lock = lock(&dir, &name);
        if lock.is_some()
            && let Some(code) = load(engine, &dir, &name)
        {
            return Ok(code);
        }
        let compiled = compile(wanted.flavor, wanted.path, form, &bytes);
        let stored =
            compiled.as_ref().is_ok_and(|compiled| store(&dir, &name, mark_of(form), compiled).is_ok());
        if let Some(lock) = lock {
            // Whoever waits for it holds it open and looks for the code first.
            drop(fs_err::remove_file(dir.join(lock_name(&name))));
            drop(lock);
        }
        let compiled = compiled?;
        // A cache that cannot be written must not keep a program from running.
        match stored.then(|| load(engine, &dir, &name)).flatten() {
            Some(code) => Ok(code),
            None => deserialize(engine, form, &compiled),
        }
    }
}

/// Whether a file of the cache is whole, as its length and checksum tell, and to be trusted: what is not
/// would be ignored and made anew. Whether it fits this engine and processor is found out when it is loaded.
pub(super) fn is_whole(path: &Path) -> bool {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return false;
    };
    let read = || {
        let (file, length) = open_trusted(dir, name)?;
        let length = length.checked_sub(TRAILER)?;
        let mut trailer = [0; 16];
        read_at(&file, &mut trailer, length + SUM)?;
        let (mark, said) = trailer.split_at(8);
        let mut sum = [0; SUM_SIZE];
        read_at(&file, &mut sum, length)?;
        let known = [MODULE, COMPONENT, SERVICE].iter().any(|known| mark == *known);
        let is_ours = known && said == length.to_le_bytes();
        Some(is_ours && checksum(file, length)? == sum)
    };
    read().unwrap_or(false)
}

fn checksum(file: File, length: u64) -> Option<[u8; SUM_SIZE]> {
    use std::io::Read as _;
    let (mut hasher, mut file, mut chunk) = (Sha256::new(), file.take(length), vec![0; 1 << 16]);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => return Some(hasher.finalize().into()),
            count => hasher.update(&chunk[..count]),
        }
    }
}

/// The cache's name for content whose digest or id the caller knows.
pub(super) fn name_of_id(id: &str) -> String {
    match id.split_once(':') {
        Some((algorithm @ ("sha256" | "sha512"), hex))
            if matches!(hex.len(), 64 | 128)
                && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            format!("{algorithm}-{hex}")
        }
        _ => format!("id-{}", engine::hex(&Sha256::digest(id))),
    }
}

/// The cache's name for a file in a layer that never changes.
pub(super) fn name_in_layer(layer: &str, path: &str) -> String {
    // A path as it is where there is room: hashing one costs as much as the rest of finding the code.
    let path = match path.as_bytes() {
        short if short.len() <= SHORT_PATH => format!("p{}", engine::hex(short)),
        long => engine::hex(&Sha256::digest(long)),
    };
    format!("{}.{path}", name_of_id(layer))
}

fn compile(flavor: Flavor, path: &str, form: Form, bytes: &[u8]) -> Result<Vec<u8>> {
    let engine = engine::compile(flavor)?;
    let compiled = match form {
        Form::Module => engine.precompile_module(bytes),
        Form::Component => engine.precompile_component(bytes),
    };
    compiled.map_err(|error| {
        // Errors in text come with the line and a drawing of it; the first two lines say all.
        let text = format!("{error:#}");
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
        invalid(path, lines.join(" "))
    })
}

/// Loads cached code if it is there and to be trusted.
fn load(engine: &Engine, dir: &Path, name: &str) -> Option<Code> {
    let (file, length) = open_trusted(dir, name)?;
    let length = length.checked_sub(TRAILER)?;
    let mut trailer = [0; 16];
    read_at(&file, &mut trailer, length + SUM)?;
    let (mark, said) = trailer.split_at(8);
    if said != length.to_le_bytes() {
        return None;
    }
    if mark == MODULE {
        // SAFETY: the file was written by this user's Dhow alone, as `open_trusted` checked on this very handle, and
        // it is complete. wasmtime checks that it was made by its own version for this processor.
        unsafe { Module::deserialize_open_file(engine, file) }.ok().map(Code::Module)
    } else if mark == COMPONENT {
        load_component(engine, file).map(Code::Component)
    } else if mark == SERVICE {
        Some(Code::Service)
    } else {
        None
    }
}

#[cfg(target_os = "linux")]
fn load_component(engine: &Engine, file: File) -> Option<Component> {
    use std::os::fd::AsRawFd as _;
    // wasmtime takes components by path only; this path is the checked handle.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: as for modules in `load`; `file` keeps the descriptor's number until after the call.
    let loaded = unsafe { Component::deserialize_file(engine, path) }.ok();
    loaded.or_else(|| copy_component(engine, file))
}

#[cfg(not(target_os = "linux"))]
fn load_component(engine: &Engine, file: File) -> Option<Component> {
    copy_component(engine, file)
}

fn copy_component(engine: &Engine, mut file: File) -> Option<Component> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).ok()?;
    // SAFETY: as for modules in `load`: these bytes come from the checked handle.
    unsafe { Component::deserialize(engine, bytes) }.ok()
}

/// Takes code over that was compiled just now, in this process.
fn deserialize(engine: &Engine, form: Form, compiled: &[u8]) -> Result<Code> {
    let code = match form {
        // SAFETY: `compiled` comes from `compile` without having left this process.
        Form::Module => unsafe { Module::deserialize(engine, compiled) }.map(Code::Module),
        // SAFETY: as above.
        Form::Component => unsafe { Component::deserialize(engine, compiled) }.map(Code::Component),
    };
    code.map_err(|error| Error::Host {
        what: format!("cannot load code that was just compiled: {error:#}"),
        hint: "this is a fault in dhow".to_owned(),
    })
}

/// Opens a file of the cache, if nobody but this user can have written it; with its length.
#[cfg(unix)]
fn open_trusted(dir: &Path, name: &str) -> Option<(File, u64)> {
    use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open, openat};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let user = rustix::process::geteuid().as_raw();
    let trusted = |stat: &Stat, kind| {
        FileType::from_raw_mode(stat.st_mode) == kind && stat.st_uid == user && stat.st_mode & 0o022 == 0
    };
    let dir = open(dir, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    if !trusted(&fstat(&dir).ok()?, FileType::Directory) {
        return None;
    }
    let file = openat(&dir, name, flags | OFlags::NONBLOCK, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let length = u64::try_from(stat.st_size).ok()?;
    trusted(&stat, FileType::RegularFile).then(|| (file.into(), length))
}

#[cfg(windows)]
fn open_trusted(dir: &Path, name: &str) -> Option<(File, u64)> {
    use std::os::windows::fs::OpenOptionsExt as _;
    // FILE_GENERIC_READ | FILE_GENERIC_EXECUTE, which mapping code needs.
    let access = 0x0012_0089 | 0x0012_00a0;
    let file = File::options().access_mode(access).open(dir.join(name)).ok()?;
    let length = file.metadata().ok()?.len();
    Some((file, length))
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Option<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset).ok()
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Option<()> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.read_exact(buffer).ok()?;
    file.rewind().ok()
}

fn lock_name(name: &str) -> String {
    format!("{name}.lock")
}

/// Makes the directory and takes the lock; `None` where that cannot be.
fn lock(dir: &Path, name: &str) -> Option<File> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).ok()?;
    let file = File::options().create(true).append(true).open(dir.join(lock_name(name))).ok()?;
    file.lock().ok()?;
    Some(file)
}

fn mark_of(form: Form) -> &'static [u8; 8] {
    match form {
        Form::Module => MODULE,
        Form::Component => COMPONENT,
    }
}

fn store(dir: &Path, name: &str, mark: &[u8; 8], compiled: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join(format!("{name}.{}.tmp", std::process::id()));
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(compiled)?;
        file.write_all(&Sha256::digest(compiled))?;
        file.write_all(mark)?;
        file.write_all(&u64::try_from(compiled.len()).unwrap_or(0).to_le_bytes())?;
        file.sync_data()
    });
    let renamed = written.and_then(|()| fs_err::rename(&temporary, dir.join(name)));
    if renamed.is_err() {
        // A leftover of a process with the same number would be in the way for ever.
        drop(fs_err::remove_file(&temporary));
    }
    renamed
}

#[cfg(test)]
mod tests;
