//! From the command line to a build, and from its result to names and files.

use std::path::Path;

use anyhow::Result;
use dhow_engine::build::dockerfile::{Dockerfile, excerpt, marked};
use dhow_engine::build::git::Remote;
use dhow_engine::build::{Build, Built, Failure, Helper, Output, check, write_output};
use dhow_engine::images::{Descriptor, Manifest, NoProgress, Platform, Reference, registry};
use dhow_engine::{Engine, Error};
use serde_json::json;

use super::inputs::{self, Inputs};
use super::options::Wanted;
use super::report::{Kind, Report};
use super::{BuildArgs, PruneArgs, Style};
use super::{git, options};
use crate::args::Global;
use crate::commands::{gc, prune, pull};
use crate::context;
use crate::error::{WithCode, hinted};
use crate::filter;
use crate::output;
use crate::registries;
use crate::ui::Ui;
use crate::units;

pub(super) fn run(ui: &Ui, global: &Global, args: &BuildArgs) -> Result<u8> {
    let wanted = options::wanted(args)?;
    let inputs = inputs::find(global, args)?;
    let file = Dockerfile::parse(&inputs.text).map_err(|fault| explain(ui, &inputs, fault.into()))?;
    let findings = check::check(&file, &inputs.ignore);
    if args.check {
        for finding in &findings {
            ui.line(&format!("WARNING: {} - {}", finding.rule, finding.message));
            ui.print(&format!("{}\n", excerpt(&inputs.name, &inputs.text, finding.lines, None)));
        }
        if findings.is_empty() {
            ui.line("Check complete, no warnings found.");
            return Ok(0);
        }
        let plural = if findings.len() == 1 { "warning has" } else { "warnings have" };
        ui.line(&format!("Check complete, {} {plural} been found!", findings.len()));
        return Ok(1);
    }
    if check::is_strict(&file)
        && let Some(first) = findings.first()
    {
        let failure = Failure {
            message: format!("lint violation found for rules: {}", first.rule),
            hint: Some("see all with `dhow build --check`".to_owned()),
            lines: Some(first.lines),
            word: None,
            code: 1,
        };
        return Err(explain(ui, &inputs, failure));
    }
    let kind = match args.progress {
        _ if args.quiet => Kind::Nothing,
        Style::Quiet => Kind::Nothing,
        Style::Tty => Kind::Steps,
        Style::Auto if ui.interactive => Kind::Steps,
        Style::Auto | Style::Plain => Kind::Log,
        Style::Rawjson => {
            return Err(hinted("--progress=rawjson is not supported yet", "use `--progress=plain`"));
        }
    };
    let mut build = options::build(global, args, file, &inputs, &wanted)?;
    let built = match apart(ui, global, &mut build, &inputs, kind)? {
        Ok(built) => built,
        Err(code) => return Ok(code),
    };
    let engine = context::engine(global)?;
    for name in &wanted.names {
        engine.store().tag(name, &built.image).map_err(Error::from)?;
    }
    gc::after(ui, &engine, &wanted.names)?;
    finish(ui, &engine, args, &wanted, &built, kind)
}

/// Builds in this process; or, for a user who may not mount, as root of a user namespace in a child of it. An exit code
/// in the place of a result is a failure that has been told.
fn apart(
    ui: &Ui,
    global: &Global,
    build: &mut Build,
    inputs: &Inputs,
    kind: Kind,
) -> Result<Result<Built, u8>> {
    #[cfg(target_os = "linux")]
    if !context::may_mount() && build.mounts() {
        if build.default_network.is_none() {
            // In the namespace it would seem that everything is allowed.
            build.default_network = Some(dhow_engine::spec::default_network().to_owned());
        }
        build.namespace = true;
        let (mut reader, mut writer) = std::io::pipe()?;
        let work = || {
            let built = perform(ui, global, build, inputs, kind)?;
            // A few descriptors: a pipe takes this much at once.
            std::io::Write::write_all(&mut writer, &serde_json::to_vec(&built)?)?;
            Ok(0)
        };
        let code = if build.joins_networks() {
            context::as_root_of_networks(ui, &context::engine(global)?, work)
        } else {
            context::as_root(ui, work)
        }?;
        drop(writer);
        if code != 0 {
            return Ok(Err(code));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes)?;
        return Ok(Ok(serde_json::from_slice(&bytes)?));
    }
    perform(ui, global, build, inputs, kind).map(Ok)
}

fn perform(ui: &Ui, global: &Global, build: &Build, inputs: &Inputs, kind: Kind) -> Result<Built> {
    let engine = context::engine(global)?;
    let mut report = Report::new(*ui, kind);
    let mut helper = Network { ui, engine: &engine, quiet: kind == Kind::Nothing };
    match engine.build(build, &mut helper, &mut |event| report.event(event)) {
        Ok(built) => Ok(built),
        Err(Error::Build(failure)) => {
            report.failed();
            Err(explain(ui, inputs, *failure))
        }
        Err(error) => Err(error.into()),
    }
}

/// Names, files and words at the end.
fn finish(
    ui: &Ui,
    engine: &Engine,
    args: &BuildArgs,
    Wanted { outputs, names, push, .. }: &Wanted,
    built: &Built,
    kind: Kind,
) -> Result<u8> {
    let id = built.image.digest.to_string();
    let mut stdout = standard_output()?;
    for output in outputs {
        // A file is there in whole or not at all.
        let (path, plain) = match output {
            Output::Archive { oci, to: Some(path) } => (path, Output::Archive { oci: *oci, to: None }),
            Output::Tar(Some(path)) => (path, Output::Tar(None)),
            other => {
                write_output(engine, other, &built.image, names, &mut stdout)?;
                continue;
            }
        };
        let mut file = output::Output::open(Some(path), "write the image")?;
        write_output(engine, &plain, &built.image, names, file.file())?;
        file.finish()?;
    }
    if *push {
        for name in names {
            let options = registry::PushOptions {
                access: registries::access(name)?,
                ..registry::PushOptions::default()
            };
            registry::push(engine.store(), &built.image, name, &options, &NoProgress).map_err(Error::from)?;
        }
    }
    if let Some(path) = &args.iidfile {
        fs_err::write(path, &id)?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = names.iter().map(Reference::canonical).collect();
        let document = json!({
            "containerimage.digest": id,
            "containerimage.descriptor": built.image,
            "image.name": names.join(","),
        });
        fs_err::write(path, format!("{document:#}\n"))?;
    }
    match kind {
        Kind::Nothing if args.quiet => ui.line(&id),
        Kind::Nothing => {}
        Kind::Steps | Kind::Log => {
            ui.note(&format!("Successfully built {id}"));
            for name in names {
                ui.note(&format!("Successfully tagged {}", name.familiar()));
            }
        }
    }
    Ok(0)
}

fn standard_output() -> std::io::Result<std::fs::File> {
    #[cfg(unix)]
    let own = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let own = std::os::windows::io::AsHandle::as_handle(&std::io::stdout()).try_clone_to_owned()?;
    Ok(own.into())
}

/// Shows the lines that are meant; gives the error that is left to say.
fn explain(ui: &Ui, inputs: &Inputs, failure: Failure) -> anyhow::Error {
    if let Some(lines) = failure.lines {
        let word = failure.word.clone().or_else(|| marked(&failure.message, &inputs.text, lines));
        ui.note(&excerpt(&inputs.name, &inputs.text, lines, word.as_deref()));
    }
    let code = failure.code;
    WithCode { code, error: Error::Build(Box::new(failure)).into() }.into()
}

/// Registries and servers, as this user reaches them.
struct Network<'a> {
    ui: &'a Ui,
    engine: &'a Engine,
    quiet: bool,
}

impl Helper for Network<'_> {
    fn pull(&mut self, image: &Reference, platform: Option<&Platform>) -> dhow_engine::Result<()> {
        pull::fetch(self.ui, self.engine, image, platform.cloned(), self.quiet).map_err(told)
    }

    fn download(&mut self, url: &str) -> dhow_engine::Result<Box<dyn std::io::Read>> {
        inputs::open_url(url).map_err(told)
    }

    fn clone(&mut self, remote: &Remote, keep_git_dir: bool, to: &Path) -> dhow_engine::Result<String> {
        git::clone(remote, keep_git_dir, to).map_err(told)
    }

    fn cache_list(&mut self, name: &Reference, media_type: &str, most: u64) -> dhow_engine::Result<Vec<u8>> {
        let access = registries::access(name).map_err(told)?;
        let remote = registry::Remote::new(name, &access);
        let wanted =
            name.digest().map_or_else(|| name.tag().unwrap_or("latest").to_owned(), ToString::to_string);
        let (descriptor, bytes) = remote.manifest(&wanted)?;
        let manifest = Manifest::parse(&descriptor.digest, &bytes)?;
        if manifest.config.media_type != media_type || manifest.config.size > most {
            return Err(Error::Invalid(format!("{}: no build cache of dhow", name.familiar())));
        }
        Ok(remote.blob(&manifest.config)?)
    }

    fn fetch_blob(&mut self, name: &Reference, blob: &Descriptor) -> dhow_engine::Result<()> {
        let access = registries::access(name).map_err(told)?;
        Ok(registry::Remote::new(name, &access).fetch_blob(self.engine.store(), blob)?)
    }

    fn push(&mut self, artifact: &Descriptor, name: &Reference) -> dhow_engine::Result<()> {
        let access = registries::access(name).map_err(told)?;
        let options = registry::PushOptions { access, ..registry::PushOptions::default() };
        registry::push(self.engine.store(), artifact, name, &options, &NoProgress)?;
        Ok(())
    }
}

fn told(error: anyhow::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::Invalid(format!("{error:#}")),
    }
}

pub(super) fn prune(ui: &Ui, global: &Global, args: &PruneArgs) -> Result<u8> {
    let filters = filter::understand(&args.filter, &["until"], jiff::Timestamp::now())?.filters;
    let question = if args.all {
        "WARNING! This will remove all build cache, cache mounts included."
    } else {
        "WARNING! This will remove all build cache."
    };
    if !args.force && !prune::confirmed(ui, question)? {
        return Ok(0);
    }
    let engine = context::engine(global)?;
    let before = filters.until.map(std::time::SystemTime::from);
    let pruned = engine.prune_build_cache(before, args.all)?;
    if !pruned.ids.is_empty() {
        ui.line("Deleted build cache objects:");
        for id in &pruned.ids {
            ui.line(id);
        }
        ui.line("");
    }
    ui.line(&format!("Total reclaimed space: {}", units::human_size(pruned.size)));
    Ok(0)
}
