//! WASI 0.1 for core modules: an own host over the union file system. Every function is synchronous; there is no
//! async runtime and no table of boxed resources, which is what keeps a start within a millisecond.
//!
//! ```text
//! link.rs     which functions there are, and how a guest's call reaches them
//! memory.rs   the guest's memory, every access checked
//! table.rs    file descriptors             errno.rs, abi.rs   the numbers of WASI
//! process.rs  args, env, clocks, random    fd.rs, dir.rs, path.rs     files
//! sock.rs     TCP                          poll.rs                    waiting
//! ```
//!
//! Modules of the version before, `wasi_unstable`, run as well: it had no `sock_accept` and a few other numbers.
//!
//! The working directory is made of preopened directories: [`Guest::preopens`].

use std::sync::Arc;
use std::time::Instant;

use wasmtime::{Engine, Instance, InstancePre, Linker, Memory, Module, Store, Val};

use super::create::Guest;
use super::invoke::{self, Entry};
use super::limits::{Bounds, Limited, Limiter};
use super::module::invalid;
use super::stdio::Streams;
use super::task::End;
use super::union::Union;
use crate::error::{Error, Result};

mod abi;
mod dir;
mod errno;
mod fd;
pub(super) mod link;
mod memory;
mod path;
mod poll;
mod process;
mod sock;
mod table;
#[cfg(test)]
mod tests;

use table::{Fd, Table};

/// The name all functions are imported from.
const WASI: &str = "wasi_snapshot_preview1";
/// The same in the version before.
const UNSTABLE: &str = "wasi_unstable";
/// A command's main function.
const START: &str = "_start";
/// What a reactor has called before anything else.
const INITIALIZE: &str = "_initialize";

/// Everything behind a guest's calls.
struct State {
    args: Vec<String>,
    env: Vec<String>,
    union: Arc<Union>,
    streams: Streams,
    /// Which of the three streams the guest wants not to wait for.
    nonblocking: [bool; 3],
    fds: Table,
    /// The guest's memory, once it has been asked for.
    memory: Option<Memory>,
    /// Zero of the guest's monotonic clock.
    started: Instant,
    limiter: Limiter,
}

impl Limited for State {
    fn limiter(&mut self) -> &mut Limiter {
        &mut self.limiter
    }
}

/// A linked module.
pub(super) struct Program {
    pre: InstancePre<State>,
    store: Store<State>,
    call: Call,
    bounds: Bounds,
}

/// A program that has ended: its memory and open files.
pub(super) struct Remains {
    _store: Store<State>,
    _pre: InstancePre<State>,
}

/// What is called once the module is instantiated.
enum Call {
    Start,
    Function { name: String, arguments: Vec<Val>, results: usize },
}

/// How `proc_exit` leaves the guest.
#[derive(Debug, thiserror::Error)]
#[error("exit with code {0}")]
struct Exit(u32);

/// Links `module` with this host.
pub(super) fn prepare(engine: &Engine, module: &Module, shown: &str, mut guest: Guest) -> Result<Program> {
    let call = entry(module, shown, &guest)?;
    let mut linker = Linker::new(engine);
    let failed = |error: wasmtime::Error| invalid(shown, format!("{error:#}"));
    // A function may be imported twice: Go's linker does it for each package that declares it.
    linker.allow_shadowing(true);
    // Only what is imported: making all of them would cost more than running a small guest.
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        if !link::define(&mut linker, from, name).map_err(failed)? {
            return Err(invalid(
                shown,
                format!("it imports {from}.{name}, which this runtime does not have"),
            ));
        }
    }
    let pre = linker.instantiate_pre(module).map_err(failed)?;
    let (fds, listening) = descriptors(&guest)?;
    guest.env.extend(listening);
    let state = State {
        fds,
        nonblocking: [false; 3],
        args: guest.args,
        env: guest.env,
        union: guest.union,
        streams: guest.streams,
        memory: None,
        started: Instant::now(),
        limiter: guest.bounds.budget().limiter(),
    };
    Ok(Program { pre, store: Store::new(engine, state), call, bounds: guest.bounds })
}

impl Program {
    /// Runs it to its end; also gives what is left of it, for whoever has the time to take it apart.
    pub(super) fn run(self) -> (End, Option<Remains>) {
        let Self { pre, mut store, call, bounds } = self;
        let clock = match bounds.arm(&mut store) {
            Ok(clock) => clock,
            Err(error) => return (End::Trap(error.into()), None),
        };
        let result = pre.instantiate(&mut store).and_then(|instance| call.on(&instance, &mut store));
        drop(clock);
        let end = match result {
            Ok(()) => End::Exit(0),
            Err(error) => match error.downcast_ref::<Exit>() {
                Some(Exit(code)) => End::Exit(*code),
                None => End::Trap(error),
            },
        };
        (end, Some(Remains { _store: store, _pre: pre }))
    }
}

impl Call {
    /// A reactor is told to initialise itself; a command does that in its `_start`.
    fn on(self, instance: &Instance, store: &mut Store<State>) -> wasmtime::Result<()> {
        if let Some(initialize) = instance.get_func(&mut *store, INITIALIZE) {
            initialize.typed::<(), ()>(&*store)?.call(&mut *store, ())?;
        }
        match self {
            Self::Start => instance.get_typed_func::<(), ()>(&mut *store, START)?.call(&mut *store, ()),
            Self::Function { name, arguments, results } => {
                let function = instance.get_func(&mut *store, &name);
                let function = function.ok_or_else(|| wasmtime::format_err!("{name} is no function"))?;
                let mut values = vec![Val::null_func_ref(); results];
                function.call(&mut *store, &arguments, &mut values)?;
                Ok(store.data().streams.stdout.write_all(invoke::lines(&values).as_bytes())?)
            }
        }
    }
}

/// What there is to call: `_start`, or the function that was asked for. Anything else is said before it runs.
fn entry(module: &Module, shown: &str, guest: &Guest) -> Result<Call> {
    if let Entry::Function(name) = &guest.entry {
        let ty = invoke::function_type(module, shown, name)?;
        let arguments = invoke::arguments(shown, name, &ty, guest.args.get(1..).unwrap_or_default())?;
        return Ok(Call::Function { name: name.clone(), arguments, results: ty.results().len() });
    }
    let start = module.get_export(START);
    if let Some(func) = start.as_ref().and_then(|export| export.func())
        && func.params().len() == 0
        && func.results().len() == 0
    {
        return Ok(Call::Start);
    }
    let has = invoke::listed(module.exports().map(|export| export.name()));
    Err(invalid(shown, format!("no command: it exports no function _start () -> (), but {has}")))
}

/// The descriptors a guest starts with: three streams, the preopened directories, and last, as libraries stop looking
/// for directories at the first that is none, the listening sockets. With these comes what the environment says of
/// them.
fn descriptors(guest: &Guest) -> Result<(Table, Vec<String>)> {
    let mut table = Table::new(guest.descriptors);
    let full = || Error::Host {
        what: format!("{} descriptors are not enough for what the program starts with", guest.descriptors),
        hint: "allow more with `--ulimit nofile=NUMBER`".to_owned(),
    };
    let mut add = |fd| table.insert(fd).map_err(|_| full());
    add(Fd::Input)?;
    add(Fd::Output)?;
    let mut last = add(Fd::Error)?;
    for (name, node) in guest.preopens() {
        last = add(Fd::preopen(&node, &name))?;
    }
    let sockets = sock::listen(&guest.publish)?;
    if sockets.is_empty() {
        return Ok((table, Vec::new()));
    }
    let ports: Vec<_> = sockets.iter().map(|(port, _)| port.to_string()).collect();
    let env = vec![
        format!("LISTEN_FDS={}", ports.len()),
        format!("LISTEN_FDNAMES={}", ports.join(":")),
        format!("LISTEN_FD_FIRST={}", last + 1),
    ];
    for (_, socket) in sockets {
        add(Fd::Socket(socket))?;
    }
    Ok((table, env))
}
