//! One file per command: its options (the doc comments are the help text) and what it does with the engine.

pub(crate) mod attach;
pub(crate) mod boot;
pub(crate) mod build;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod convert;
pub(crate) mod cp;
pub(crate) mod df;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod history;
pub(crate) mod image_diff;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod manifest;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod pause;
pub(crate) mod plugin;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rename;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod tree;
pub(crate) mod update;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod wait;

use anyhow::Result;

use crate::args::{Cli, Command, Container, Global, Image, System, Verb};
use crate::context::as_owner;
use crate::ui::Ui;

/// Runs the command; returns its exit code.
pub(crate) fn dispatch(ui: &Ui, cli: Cli) -> Result<u8> {
    let global = &cli.global;
    match cli.command {
        Command::Verb(verb) | Command::Container(Container::Verb(verb)) => act(ui, global, verb),
        Command::Build(args)
        | Command::Image(Image::Build(args))
        | Command::Builder(build::Builder::Build(args)) => build::run(ui, global, &args),
        Command::Builder(build::Builder::Prune(args)) => as_owner(ui, || build::prune(ui, global, &args)),
        Command::Ps(args) | Command::Container(Container::Ls(args)) => ps::run(ui, global, &args),
        Command::Pull(args) | Command::Image(Image::Pull(args)) => {
            as_owner(ui, || pull::run(ui, global, &args))
        }
        Command::Push(args) | Command::Image(Image::Push(args)) => push::run(ui, global, &args),
        Command::Manifest(command) => manifest::run(ui, global, &command),
        Command::Search(args) => search::run(ui, &args),
        Command::Load(args) | Command::Image(Image::Load(args)) => {
            as_owner(ui, || load::run(ui, global, &args))
        }
        Command::Import(args) | Command::Image(Image::Import(args)) => {
            as_owner(ui, || import::run(ui, global, &args))
        }
        Command::Image(Image::Convert(args)) => as_owner(ui, || convert::run(ui, global, &args)),
        Command::Save(args) | Command::Image(Image::Save(args)) => save::run(ui, global, &args),
        Command::Images(args) | Command::Image(Image::Ls(args)) => images::run(ui, global, &args),
        Command::Rmi(args) | Command::Image(Image::Rm(args)) => as_owner(ui, || rmi::run(ui, global, &args)),
        Command::Tag(args) | Command::Image(Image::Tag(args)) => tag::run(ui, global, &args),
        Command::History(args) | Command::Image(Image::History(args)) => history::run(ui, global, &args),
        Command::Inspect(args) => inspect::run(ui, global, &args, args.kind),
        Command::Container(Container::Inspect(args)) => {
            inspect::run(ui, global, &args, Some(inspect::ObjectKind::Container))
        }
        Command::Image(Image::Inspect(args)) => {
            inspect::run(ui, global, &args, Some(inspect::ObjectKind::Image))
        }
        Command::Image(Image::Tree(args)) => tree::run(ui, global, &args),
        Command::Image(Image::Mount(args)) => mount::mount(ui, global, &args),
        Command::Image(Image::Unmount(args)) => mount::unmount(ui, global, &args),
        Command::Image(Image::Diff(args)) => image_diff::run(ui, global, &args),
        Command::Image(Image::Verify(args)) => verify::run(ui, global, &args),
        Command::Version(args) => version::run(ui, &args),
        Command::Info(args) | Command::System(System::Info(args)) => info::run(ui, global, &args),
        Command::Container(Container::Prune(args)) => as_owner(ui, || prune::containers(ui, global, &args)),
        Command::Image(Image::Prune(args)) => as_owner(ui, || prune::images(ui, global, &args)),
        Command::Plugin(command) => plugin::run(ui, global, &command),
        Command::Network(command) => network::run(ui, global, command),
        Command::Volume(command) => volume::run(ui, global, command),
        Command::System(System::Prune(args)) => as_owner(ui, || prune::system(ui, global, &args)),
        Command::Events(args) | Command::System(System::Events(args)) => events::run(ui, global, &args),
        Command::System(System::Start(args)) => boot::start(ui, global, &args),
        Command::System(System::Stop(args)) => boot::stop(ui, global, &args),
        Command::System(System::Gc(args)) => as_owner(ui, || gc::run(ui, global, &args)),
        Command::System(System::Df(args)) => df::run(ui, global, &args),
        Command::System(System::Check(args)) => {
            let first = system::check_networks(global, &args)?;
            as_owner(ui, || system::check(ui, global, &args, first))
        }
        Command::Login(args) => login::login(ui, &args),
        Command::Logout(args) => login::logout(ui, &args),
        // Where there is one it has been run before.
        Command::Oci(_) => anyhow::bail!("`dhow oci` is for Linux, as the first word"),
        Command::Completion(args) => completion::run(ui, &args),
    }
}

/// The verbs on containers.
fn act(ui: &Ui, global: &Global, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Run(args) => run::run(ui, global, &args).map_err(crate::error::of_run),
        Verb::Create(args) => run::create(ui, global, &args),
        Verb::Start(args) => start::run(ui, global, &args),
        Verb::Stop(args) => stop::stop(ui, global, &args),
        Verb::Restart(args) => stop::restart(ui, global, &args),
        Verb::Kill(args) => kill::run(ui, global, &args),
        Verb::Pause(args) => pause::pause(ui, global, &args),
        Verb::Unpause(args) => pause::unpause(ui, global, &args),
        Verb::Wait(args) => wait::run(ui, global, &args),
        Verb::Logs(args) => logs::run(ui, global, &args),
        Verb::Attach(args) => attach::run(ui, global, &args),
        Verb::Exec(args) => exec::run(ui, global, &args),
        Verb::Stats(args) => stats::run(ui, global, &args),
        Verb::Top(args) => top::run(ui, global, &args),
        Verb::Update(args) => update::run(ui, global, &args),
        Verb::Rename(args) => rename::run(global, &args),
        Verb::Rm(args) => rm::run(ui, global, &args),
        Verb::Port(args) => port::run(ui, global, &args),
        Verb::Export(args) => as_owner(ui, || export::run(ui, global, &args)),
        Verb::Cp(args) => cp::run(ui, global, &args),
        Verb::Diff(args) => as_owner(ui, || diff::run(ui, global, &args)),
        Verb::Commit(args) => as_owner(ui, || commit::run(ui, global, &args)),
    }
}

/// Does something for each argument; one failure does not keep the others from being done. Docker's exit code is 1 then.
fn each(ui: &Ui, wanted: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for wanted in wanted {
        if let Err(error) = act(wanted) {
            crate::error::print(ui, &error);
            code = 1;
        }
    }
    Ok(code)
}

/// As [`each`], for what waits most of the time: many are done at once, and told in the order of the arguments. `act`
/// must not fork.
fn beside(ui: &Ui, wanted: &[String], act: impl Fn(&str) -> Result<()> + Sync) -> Result<u8> {
    /// As many as Docker's command does at once.
    const AT_ONCE: usize = 50;
    let act = &act;
    let mut code = 0;
    for some in wanted.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            // One needs no thread.
            let started: Vec<_> = match some {
                [_] => Vec::new(),
                some => some.iter().map(|wanted| scope.spawn(move || act(wanted))).collect(),
            };
            let mut started = started.into_iter();
            for wanted in some {
                let done = match started.next().map(std::thread::ScopedJoinHandle::join) {
                    Some(Ok(done)) => done,
                    Some(Err(panic)) => std::panic::resume_unwind(panic),
                    None => act(wanted),
                };
                match done {
                    Ok(()) => ui.line(wanted),
                    Err(error) => {
                        crate::error::print(ui, &error);
                        code = 1;
                    }
                }
            }
        });
    }
    Ok(code)
}
