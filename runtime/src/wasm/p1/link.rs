//! Which functions there are, and how a guest's call reaches them.

use wasmtime::{Caller, Extern, Linker, Memory, Result, bail};

use super::errno::{Answer, Code};
use super::memory::Guest;
use super::{Exit, State, UNSTABLE, WASI, dir, fd, path, poll, process, sock};

/// Gives the guest one function: it takes the state, the memory and its own arguments.
macro_rules! give {
    ($linker:ident, $from:expr, $name:expr, ($($arg:ident: $ty:ty),*) => $host:path) => {
        $linker.func_wrap($from, $name, |mut caller: Caller<'_, State>, $($arg: $ty),*| {
            call(&mut caller, |state, guest| $host(state, guest, $($arg),*))
        })?
    };
}

/// Makes [`define_in`] from a list.
macro_rules! functions {
    ($($name:ident($($arg:ident: $ty:ty),*) => $host:path;)*) => {
        fn define_in(linker: &mut Linker<State>, from: &str, name: &str) -> Result<bool> {
            match name {
                $(stringify!($name) => give!(linker, from, stringify!($name), ($($arg: $ty),*) => $host),)*
                // The two that do not answer with an error number.
                "proc_exit" => {
                    linker.func_wrap(from, "proc_exit", |code: u32| -> Result<()> { Err(Exit(code).into()) })?
                }
                "sched_yield" => linker.func_wrap(from, "sched_yield", || -> u32 {
                    std::thread::yield_now();
                    0
                })?,
                _ => return Ok(false),
            };
            Ok(true)
        }

        /// All of them.
        pub(super) const NAMES: &[&str] = &[$(stringify!($name),)* "proc_exit", "sched_yield"];

        /// What those take that answer with an error number.
        #[cfg(test)]
        pub(super) const PARAMETERS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($ty)),*]),)*];
    };
}

/// Gives the guest the function `name` of the module `from`; `false` when WASI 0.1 has none.
pub(super) fn define(linker: &mut Linker<State>, from: &str, name: &str) -> Result<bool> {
    match (from, name) {
        (WASI, _) => define_in(linker, WASI, name),
        // What the older version has otherwise.
        (UNSTABLE, "sock_accept") => Ok(false),
        (UNSTABLE, "fd_filestat_get") => {
            give!(linker, from, name, (fd: u32, out: u32) => fd::old_filestat_get);
            Ok(true)
        }
        (UNSTABLE, "fd_seek") => {
            give!(linker, from, name, (fd: u32, offset: i64, whence: u32, out: u32) => fd::old_seek);
            Ok(true)
        }
        (UNSTABLE, "path_filestat_get") => {
            give!(linker, from, name, (fd: u32, flags: u32, path: u32, length: u32, out: u32) => path::old_filestat_get);
            Ok(true)
        }
        (UNSTABLE, "poll_oneoff") => {
            give!(linker, from, name, (subscriptions: u32, events: u32, count: u32, out: u32) => poll::old_oneoff);
            Ok(true)
        }
        (UNSTABLE, _) => define_in(linker, UNSTABLE, name),
        _ => Ok(false),
    }
}

/// Whether WASI 0.1 has the function `name` of the module `from`.
pub(in crate::wasm) fn provides(from: &str, name: &str) -> bool {
    let sockets_of_old = from == UNSTABLE && name == "sock_accept";
    matches!(from, WASI | UNSTABLE) && !sockets_of_old && NAMES.contains(&name)
}

functions! {
    args_get(argv: u32, buffer: u32) => process::args_get;
    args_sizes_get(count: u32, size: u32) => process::args_sizes_get;
    clock_res_get(clock: u32, out: u32) => process::clock_res_get;
    clock_time_get(clock: u32, precision: u64, out: u32) => process::clock_time_get;
    environ_get(environ: u32, buffer: u32) => process::environ_get;
    environ_sizes_get(count: u32, size: u32) => process::environ_sizes_get;
    fd_advise(fd: u32, offset: u64, length: u64, advice: u32) => fd::advise;
    fd_allocate(fd: u32, offset: u64, length: u64) => fd::allocate;
    fd_close(fd: u32) => fd::close;
    fd_datasync(fd: u32) => fd::datasync;
    fd_fdstat_get(fd: u32, out: u32) => fd::fdstat_get;
    fd_fdstat_set_flags(fd: u32, flags: u32) => fd::fdstat_set_flags;
    fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64) => fd::fdstat_set_rights;
    fd_filestat_get(fd: u32, out: u32) => fd::filestat_get;
    fd_filestat_set_size(fd: u32, size: u64) => fd::filestat_set_size;
    fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, which: u32) => fd::filestat_set_times;
    fd_pread(fd: u32, vectors: u32, count: u32, offset: u64, out: u32) => fd::pread;
    fd_prestat_dir_name(fd: u32, buffer: u32, length: u32) => dir::prestat_dir_name;
    fd_prestat_get(fd: u32, out: u32) => dir::prestat_get;
    fd_pwrite(fd: u32, vectors: u32, count: u32, offset: u64, out: u32) => fd::pwrite;
    fd_read(fd: u32, vectors: u32, count: u32, out: u32) => fd::read;
    fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, out: u32) => dir::readdir;
    fd_renumber(from: u32, to: u32) => fd::renumber;
    fd_seek(fd: u32, offset: i64, whence: u32, out: u32) => fd::seek;
    fd_sync(fd: u32) => fd::sync;
    fd_tell(fd: u32, out: u32) => fd::tell;
    fd_write(fd: u32, vectors: u32, count: u32, out: u32) => fd::write;
    path_create_directory(fd: u32, path: u32, length: u32) => path::create_directory;
    path_filestat_get(fd: u32, flags: u32, path: u32, length: u32, out: u32) => path::filestat_get;
    path_filestat_set_times(
        fd: u32, flags: u32, path: u32, length: u32, accessed: u64, modified: u64, which: u32
    ) => path::filestat_set_times;
    path_link(
        old_fd: u32, flags: u32, old: u32, old_length: u32, new_fd: u32, new: u32, new_length: u32
    ) => path::link;
    path_open(
        fd: u32, lookup: u32, path: u32, length: u32, oflags: u32, base: u64, inheriting: u64, fdflags: u32, out: u32
    ) => path::open;
    path_readlink(fd: u32, path: u32, length: u32, buffer: u32, size: u32, out: u32) => path::readlink;
    path_remove_directory(fd: u32, path: u32, length: u32) => path::remove_directory;
    path_rename(old_fd: u32, old: u32, old_length: u32, new_fd: u32, new: u32, new_length: u32) => path::rename;
    path_symlink(target: u32, target_length: u32, fd: u32, path: u32, length: u32) => path::symlink;
    path_unlink_file(fd: u32, path: u32, length: u32) => path::unlink_file;
    poll_oneoff(subscriptions: u32, events: u32, count: u32, out: u32) => poll::oneoff;
    proc_raise(signal: u32) => process::raise;
    random_get(buffer: u32, length: u32) => process::random_get;
    sock_accept(fd: u32, flags: u32, out: u32) => sock::accept;
    sock_recv(fd: u32, data: u32, count: u32, flags: u32, out: u32, out_flags: u32) => sock::recv;
    sock_send(fd: u32, data: u32, count: u32, flags: u32, out: u32) => sock::send;
    sock_shutdown(fd: u32, how: u32) => sock::shutdown;
}

/// Runs one call with the guest's memory and tells the guest what came of it.
fn call(
    caller: &mut Caller<'_, State>,
    work: impl FnOnce(&mut State, &mut Guest<'_>) -> Answer,
) -> Result<u32> {
    let memory = memory(caller)?;
    let (bytes, state) = memory.data_and_store_mut(caller);
    Ok(match work(state, &mut Guest(bytes)) {
        Ok(()) => 0,
        Err(Code(code)) => u32::from(code),
    })
}

/// The memory a guest's pointers mean: its export of that name.
fn memory(caller: &mut Caller<'_, State>) -> Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        bail!("the module exports no memory, so it cannot be given anything");
    };
    caller.data_mut().memory = Some(memory);
    Ok(memory)
}
