//! `build`: make an image of a Dockerfile.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use dhow_engine::images::Platform;

use crate::args::Global;
use crate::ui::Ui;

mod agents;
mod git;
mod inputs;
mod options;
mod perform;
mod report;
mod steps;

/// The options are those of `docker build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Name of the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// The Dockerfile, `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Value for an ARG; a bare NAME is taken from this environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Another place to copy from or begin with: a folder, a git repository, `docker-image://IMAGE`, or `oci-layout://FOLDER[:TAG|@DIGEST]`
    #[arg(long, value_name = "NAME=PATH")]
    build_context: Vec<String>,
    /// The stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set a label of the image
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Take nothing from the cache
    #[arg(long)]
    no_cache: bool,
    /// Take nothing from the cache for a stage; may be given several times
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask registries for newer base images
    #[arg(long)]
    pull: bool,
    /// What it is for: `linux/amd64`, `wasi/wasm`; several make one index [default: this host]
    #[arg(long, value_name = "OS/ARCH,...", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Network of RUN: `default`, `none`, `host`, or a network of `dhow network create`
    #[arg(long, value_name = "NETWORK", default_value = "default")]
    network: String,
    /// Give a name an address
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// What steps may ask for: `security.insecure` all rights, by `RUN --security=insecure`; `network.host` they always may
    #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
    allow: Vec<String>,
    #[command(flatten)]
    steps: steps::StepArgs,
    /// Secret for RUN --mount=type=secret: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh: `default` is that of SSH_AUTH_SOCK, `ID=SOCKET` another one, `ID=KEY,...` has the keys of files
    #[arg(long, value_name = "default|ID[=SOCKET|KEY,...]")]
    ssh: Vec<String>,
    /// Take steps from a cache of others: `type=registry,ref=NAME`, `type=local,src=DIR`, or an image's NAME
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Write the cache for others: `type=registry,ref=NAME` or `type=local,dest=DIR`, with `mode=max` of all stages
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Attest how the image came about: `mode=min`, or `mode=max` with the values of build arguments and the Dockerfile
    #[arg(long, value_name = "true|false|mode=MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// Attest what is in the image, as SPDX
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    /// As both: `type=provenance[,mode=max]`, `type=sbom`
    #[arg(long, value_name = "TYPE")]
    attest: Vec<String>,
    /// Variants for Wasm become CNCF Wasm artifacts of the program in their ENTRYPOINT
    #[arg(long)]
    wasm_artifact: bool,
    /// Initialise the programs of Wasm variants now, by calling a function of theirs [default: wizer-initialize]
    ///
    /// It takes and gives nothing and calls nothing of its host. The image's program begins where it ended.
    #[arg(long, value_name = "FUNCTION", num_args = 0..=1, require_equals = true, default_missing_value = dhow_engine::build::PREINIT)]
    preinit: Option<String>,
    /// Compile the programs of Wasm variants now, so that their first run need not
    #[arg(long)]
    precompile: bool,
    /// Where to: `type=image`, `type=oci,dest=FILE`, `type=docker,dest=FILE`, `type=tar,dest=FILE`, `type=local,dest=DIR`
    ///
    /// A path alone is a folder, and `-` a tar archive on standard output.
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Push the image by its names
    #[arg(long)]
    push: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write what came of the build to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// How to show what is going on
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Style::Auto)]
    progress: Style,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Look for mistakes in the Dockerfile, and build nothing
    #[arg(long)]
    check: bool,
    /// Make one layer of all new ones
    #[arg(long)]
    squash: bool,
    /// No file of a new layer is newer than SOURCE_DATE_EPOCH
    #[arg(long)]
    rewrite_timestamp: bool,
    /// Keep the image: it always is
    #[arg(long, hide = true)]
    load: bool,
    /// Pack the context on its way to a daemon, which there is none of
    #[arg(long, hide = true)]
    compress: bool,
    /// That trust service is no more
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    /// Remove containers of steps: they always are
    #[arg(long, hide = true)]
    rm: bool,
    /// As --rm, of failed steps
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Folder, git repository, `-` for a tar archive or a Dockerfile on standard input, or the http address of either
    #[arg(value_name = "PATH|URL|-", required = true)]
    context: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Style {
    /// Steps on a terminal, a log elsewhere
    Auto,
    /// A log
    Plain,
    /// Steps
    Tty,
    /// Nothing
    Quiet,
    #[value(hide = true)]
    Rawjson,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Builder {
    /// Make an image of a Dockerfile
    Build(Box<BuildArgs>),
    /// Forget what steps of builds made
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Cache mounts too
    #[arg(short, long)]
    all: bool,
    /// Only what fits: `until=24h`
    #[arg(long, value_name = "FILTER", value_parser = crate::filter::parse)]
    filter: Vec<crate::filter::Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &BuildArgs) -> Result<u8> {
    perform::run(ui, global, args)
}

pub(crate) fn prune(ui: &Ui, global: &Global, args: &PruneArgs) -> Result<u8> {
    perform::prune(ui, global, args)
}
