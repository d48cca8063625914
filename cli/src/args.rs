//! The command line: global options, Docker's command groups and their short forms. Options of a command are declared
//! in the command's own file.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use dhow_engine::images::LayerForm;

use crate::commands::{
    attach, boot, build, commit, completion, convert, cp, df, diff, events, exec, export, gc, history,
    image_diff, images, import, info, inspect, kill, load, login, logs, manifest, mount, network, pause,
    plugin, port, prune, ps, pull, push, rename, rm, rmi, run, save, search, start, stats, stop, system, tag,
    top, tree, update, verify, version, volume, wait,
};

/// Run Wasm modules and Linux binaries from the same images, with the same commands
#[derive(Debug, Parser)]
#[command(name = "dhow", version, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Folder of images and containers [default: /var/lib/dhow, without root ~/.local/share/dhow]
    #[arg(
        long,
        global = true,
        env = "DHOW_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) root: Option<PathBuf>,
    /// How layers of Linux images are kept: `index`, archives that are mounted where this host can, or `files`
    #[arg(
        long,
        global = true,
        env = "DHOW_LAYERS",
        hide = true,
        value_name = "FORM",
        default_value = "index"
    )]
    pub(crate) layers: Layers,
}

/// What `dhow oci` takes is read by itself, with the rules of runc's command line; this is its line in the list.
#[derive(Debug, Args)]
pub(crate) struct OciArgs {
    /// See `dhow oci --help`
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<String>,
}

/// See [`dhow_engine::images::LayerForm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layers {
    /// Archives with an index, where this host can mount them.
    Index,
    /// Directories, always.
    Files,
}

impl From<Layers> for LayerForm {
    fn from(layers: Layers) -> Self {
        match layers {
            Layers::Index => Self::Index,
            Layers::Files => Self::Files,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Verb(Verb),
    /// Make an image of a Dockerfile
    Build(Box<build::BuildArgs>),
    /// List containers
    Ps(ps::PsArgs),
    /// Download an image from a registry
    Pull(pull::PullArgs),
    /// Upload an image to a registry
    Push(push::PushArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Log out from a registry
    Logout(login::LogoutArgs),
    /// Load images from an OCI layout or an archive of `docker save`
    Load(load::LoadArgs),
    /// Make an image of an archive of files
    Import(import::ImportArgs),
    /// Save images to an archive, or to a folder
    Save(save::SaveArgs),
    /// List images
    Images(images::ImagesArgs),
    /// Remove images
    Rmi(rmi::RmiArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Show the steps that made an image
    History(history::HistoryArgs),
    /// Show everything about containers or images
    Inspect(inspect::InspectArgs),
    /// Show what happens to containers, images, volumes and networks
    Events(events::EventsArgs),
    /// Show versions
    Version(version::VersionArgs),
    /// Show what this host offers and what is stored
    Info(info::InfoArgs),
    /// Manage containers
    #[command(subcommand)]
    Container(Container),
    /// Manage images
    #[command(subcommand)]
    Image(Image),
    /// Look at manifests at registries, and put indexes together
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Search a registry for images
    Search(search::SearchArgs),
    /// Try plugins: components that applications embed
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Manage builds
    #[command(subcommand)]
    Builder(build::Builder),
    /// Manage networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Manage the whole installation
    #[command(subcommand)]
    System(System),
    /// Run OCI bundles, as the runtime of Docker, containerd, Podman or CRI-O (Linux)
    #[command(disable_help_flag = true)]
    Oci(OciArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// What is both `dhow VERB` and `dhow container VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create and run a new container from an image or a Wasm file
    Run(Box<run::RunCommand>),
    /// Create a container without starting it
    Create(Box<run::CreateCommand>),
    /// Start containers that were created or have ended
    Start(start::StartArgs),
    /// Stop running containers
    Stop(stop::StopArgs),
    /// Stop containers and start them again
    Restart(stop::RestartArgs),
    /// Send a signal to running containers
    Kill(kill::KillArgs),
    /// Let containers stand still
    Pause(pause::PauseArgs),
    /// Let paused containers go on
    Unpause(pause::UnpauseArgs),
    /// Wait for containers to end, and print their exit codes
    Wait(wait::WaitArgs),
    /// Show what a container has written
    Logs(logs::LogsArgs),
    /// Connect this terminal to a running container
    Attach(attach::AttachArgs),
    /// Run another program in a running container
    Exec(exec::ExecArgs),
    /// Show what containers use of processors, memory, network and disks
    Stats(stats::StatsArgs),
    /// Show the processes of a container
    Top(top::TopArgs),
    /// Give containers other limits, or another restart policy
    Update(update::UpdateArgs),
    /// Give a container another name
    Rename(rename::RenameArgs),
    /// Show where ports of a container are on this host
    Port(port::PortArgs),
    /// Remove containers
    Rm(rm::RmArgs),
    /// Show which files a container has added (A), changed (C) and deleted (D)
    Diff(diff::DiffArgs),
    /// Make an image of a container
    Commit(commit::CommitArgs),
    /// Copy files between this machine and a container
    Cp(cp::CpArgs),
    /// Write the files of a container into an archive
    Export(export::ExportArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    #[command(flatten)]
    Verb(Verb),
    /// List containers
    #[command(visible_aliases = ["ps", "list"])]
    Ls(ps::PsArgs),
    /// Show everything about containers
    Inspect(inspect::InspectArgs),
    /// Remove all containers that do not run
    Prune(prune::ContainerPruneArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Make an image of a Dockerfile
    Build(Box<build::BuildArgs>),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    /// Download an image from a registry
    Pull(pull::PullArgs),
    /// Upload an image to a registry
    Push(push::PushArgs),
    /// Load images from an OCI layout or an archive of `docker save`
    Load(load::LoadArgs),
    /// Make an image of an archive of files
    Import(import::ImportArgs),
    /// Save images to an archive, or to a folder
    Save(save::SaveArgs),
    /// Make another form of an image, or an image of a Wasm file
    Convert(convert::ConvertArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Show the steps that made an image
    History(history::HistoryArgs),
    /// Show what each layer of an image holds and costs
    ///
    /// For each layer: its blob, its size packed and unpacked, how many names it adds (+), replaces (~) and deletes
    /// (-), how many bytes of it later layers hide, the command that made it, and its largest files.
    Tree(tree::TreeArgs),
    /// Mount an image read-only for programs of the host, or list what is mounted
    Mount(mount::MountArgs),
    /// Unmount images
    #[command(visible_alias = "umount")]
    Unmount(mount::UnmountArgs),
    /// Show how two images differ
    ///
    /// Settings first, then files by path. A line begins with A for what only the second image has, D for what only
    /// the first has, and C for what both have and is not the same. As of `diff`, the exit code is 0 when there is no
    /// difference, 1 when there is one, and 2 when it cannot be told.
    Diff(image_diff::DiffArgs),
    /// Show everything about images
    Inspect(inspect::InspectArgs),
    /// Show the signatures of an image, and whether they hold
    Verify(verify::VerifyArgs),
    /// Remove images that nobody uses
    Prune(prune::ImagePruneArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Verify everything below the root folder
    Check(system::CheckArgs),
    /// Start the containers whose restart policy says so, after a boot
    Start(boot::StartArgs),
    /// Stop all containers, before the system goes down
    Stop(boot::StopArgs),
    /// Show what happens to containers, images, volumes and networks
    Events(events::EventsArgs),
    /// Show what everything takes on the disk
    Df(df::DfArgs),
    /// Remove the least recently used images, as the settings' `gc` section says
    Gc(gc::GcArgs),
    /// Remove everything that nobody uses
    Prune(prune::SystemPruneArgs),
    /// Show what this host offers and what is stored
    Info(info::InfoArgs),
}

/// As [`Cli`], knowing one command.
#[derive(Debug, Parser)]
#[command(name = "dhow")]
struct Quick {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: QuickCommand,
}

/// The commands whose start is measured in microseconds.
#[derive(Debug, Subcommand)]
enum QuickCommand {
    Run(Box<run::RunCommand>),
}

/// Parses this process's command line.
///
/// To build the parser of all commands takes a third of the time of a whole Wasm container, so `run` is first tried on
/// its own: without any parser where its options are frequent ones, then with one that knows nothing else. What these
/// do not take (help among it) goes to the whole one, which has the better words.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "run") {
        if let Some(global) = Global::plain()
            && let Some(args) = run::plain::read(words)
        {
            return Ok(Cli { global, command: Command::Verb(Verb::Run(Box::new(args))) });
        }
        if let Ok(matches) = with_switches(Quick::command()).try_get_matches()
            && let Ok(Quick { global, command: QuickCommand::Run(args) }) = Quick::from_arg_matches(&matches)
        {
            return Ok(Cli { global, command: Command::Verb(Verb::Run(args)) });
        }
    }
    Cli::from_arg_matches(&with_switches(Cli::command()).try_get_matches()?)
}

impl Global {
    /// The options as the environment has them, none being on the command line. `None`: let clap look at it.
    fn plain() -> Option<Self> {
        let root = std::env::var_os("DHOW_ROOT");
        let plain =
            std::env::var_os("DHOW_LAYERS").is_none() && root.as_ref().is_none_or(|root| !root.is_empty());
        plain.then(|| Self { root: root.map(PathBuf::from), layers: Layers::Index })
    }
}

/// What clap makes of the words after `run`.
#[cfg(test)]
pub(crate) fn parse_run<'a>(words: impl Iterator<Item = &'a str>) -> Option<run::RunCommand> {
    let line = ["dhow", "run"].into_iter().chain(words);
    let matches = with_switches(Quick::command()).try_get_matches_from(line).ok()?;
    let Quick { command: QuickCommand::Run(args), .. } = Quick::from_arg_matches(&matches).ok()?;
    Some(*args)
}

/// Lets every switch also be written `--switch=false`, and be given twice, as Docker's can.
fn with_switches(command: clap::Command) -> clap::Command {
    let switch = |arg: Arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            // What follows an option that has a value is that, whatever it looks like.
            let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
            return if takes && !arg.is_positional() { arg.allow_hyphen_values(true) } else { arg };
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(clap::value_parser!(bool))
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL")
    };
    // Of an option that is given twice the last counts, as with Docker's.
    command.mut_args(switch).mut_subcommands(with_switches).args_override_self(true)
}

/// Prints help, or what is wrong with the command line. Docker ends with 125 for a bad flag and 1 for a bad command.
pub(crate) fn explain(error: &clap::Error) -> u8 {
    let code = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand | ErrorKind::MissingRequiredArgument => 1,
        // `exec` without a program.
        ErrorKind::TooFewValues => 1,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 1,
        _ => 125,
    };
    // Nobody can be told when standard error is gone.
    error.print().ok();
    code
}
