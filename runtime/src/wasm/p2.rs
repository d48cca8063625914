//! WASI 0.2 for components that are commands (`wasi:cli/command`): wasmtime's own host, with the union in the place of
//! its file system (`p2/fs.rs`).
//!
//! Components need an async runtime. It is made only for them, has no worker thread, and file access blocks it, as a
//! program has nothing else to do meanwhile. Waiting for input that is no regular file takes a helper thread.
//!
//! Sockets are the host's when the bundle shares the host's network, and refused otherwise.

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::add_to_linker_async;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::create::Guest;
use super::module::invalid;
use super::task::End;
use crate::error::{Error, Result};

mod errno;
mod fs;
mod listing;
mod stdio;
#[cfg(test)]
mod tests;

/// Everything behind a guest's calls.
struct State {
    ctx: WasiCtx,
    table: ResourceTable,
    files: fs::Files,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }
}

/// A linked component.
pub(super) struct Program {
    pre: CommandPre<State>,
    store: Store<State>,
    runtime: tokio::runtime::Runtime,
}

/// Links `component` with this host.
pub(super) fn prepare(engine: &Engine, component: &Component, shown: &str, guest: &Guest) -> Result<Program> {
    let failed = |error: wasmtime::Error| invalid(shown, format!("{error:#}"));
    let mut linker = Linker::<State>::new(engine);
    add_to_linker_async(&mut linker).map_err(failed)?;
    linker.allow_shadowing(true);
    types::add_to_linker::<State, fs::UnionFs>(&mut linker, fs::view).map_err(failed)?;
    preopens::add_to_linker::<State, fs::UnionFs>(&mut linker, fs::view).map_err(failed)?;
    let pre = linker.instantiate_pre(component).map_err(failed)?;
    let pre = CommandPre::new(pre).map_err(|_| no_command(engine, component, shown))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Setup { action: "start the async runtime".to_owned(), source })?;
    let mut builder = WasiCtxBuilder::new();
    builder.args(&guest.args).allow_blocking_current_thread(true).initial_cwd(&guest.cwd_path);
    for variable in &guest.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        builder.env(name, value);
    }
    stdio::connect(&mut builder, &guest.streams, runtime.handle());
    if guest.network {
        builder.inherit_network().allow_ip_name_lookup(true);
    } else {
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    }
    let files = fs::Files::new(guest);
    let state = State { ctx: builder.build(), table: ResourceTable::new(), files };
    Ok(Program { pre, store: Store::new(engine, state), runtime })
}

impl Program {
    /// Runs it to its end.
    pub(super) fn run(self) -> End {
        let Self { pre, mut store, runtime } = self;
        let result = runtime.block_on(async {
            let command = pre.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        });
        drop(store);
        // A helper thread may still wait for input that nobody wants any more.
        runtime.shutdown_background();
        match result {
            Ok(Ok(())) => End::Exit(0),
            Ok(Err(())) => End::Exit(1),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => End::Exit(u32::from_le_bytes(code.to_le_bytes())),
                None => End::Trap(error),
            },
        }
    }
}

fn no_command(engine: &Engine, component: &Component, shown: &str) -> Error {
    let kind = component.component_type();
    let mut names: Vec<_> = kind.exports(engine).map(|(name, _)| name.to_owned()).take(9).collect();
    if names.len() == 9 {
        names[8] = "...".to_owned();
    }
    let has = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    invalid(shown, format!("no command: it exports no wasi:cli/run, but {has}"))
}
