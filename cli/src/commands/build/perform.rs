//! From the command line to a build, and from its result to names and files.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use anyhow::Result;
use dhow_engine::build::dockerfile::{Dockerfile, excerpt};
use dhow_engine::build::{Build, Built, Failure, Helper, Output, check, write_output};
use dhow_engine::images::{Platform, Reference};
use dhow_engine::{Engine, Error};
use serde_json::json;

use super::inputs::{self, Inputs};
use super::report::{Kind, Report};
use super::{BuildArgs, PruneArgs, Style};
use crate::args::Global;
use crate::commands::{gc, prune, pull};
use crate::context;
use crate::error::{WithCode, hinted};
use crate::filter;
use crate::ui::Ui;
use crate::units;

pub(super) fn run(ui: &Ui, global: &Global, args: &BuildArgs) -> Result<u8> {
    if args.squash {
        return Err(hinted(
            "--squash is not supported yet",
            "leave it out, or COPY the result into a last stage",
        ));
    }
    if !args.ssh.is_empty() {
        return Err(hinted("--ssh is not supported yet", "hand a key in with `--secret id=key,src=FILE`"));
    }
    let names = args.tag.iter().map(|name| Reference::parse(name)).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(Error::from)?;
    if names.iter().any(|name| name.digest().is_some()) {
        return Err(hinted("refusing to create a tag with a digest reference", "name the image NAME[:TAG]"));
    }
    let outputs = outputs(args)?;
    let inputs = inputs::find(args)?;
    let file = Dockerfile::parse(&inputs.text).map_err(|fault| explain(ui, &inputs, fault.into()))?;
    let findings = check::check(&file);
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
    let engine = context::engine(global)?;
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
    let build = options(args, file, &inputs)?;
    let mut report = Report::new(*ui, kind);
    let mut helper = Network { ui, engine: &engine, quiet: kind == Kind::Nothing };
    let built = engine.build(&build, &mut helper, &mut |event| report.event(event));
    let built = match built {
        Ok(built) => built,
        Err(Error::Build(failure)) => {
            report.failed();
            return Err(explain(ui, &inputs, *failure));
        }
        Err(error) => return Err(error.into()),
    };
    for name in &names {
        engine.store().tag(name, &built.image).map_err(Error::from)?;
    }
    gc::after(ui, &engine, &names)?;
    finish(ui, &engine, args, (&names, &outputs), &built, kind)
}

/// Names, files and words at the end.
fn finish(
    ui: &Ui,
    engine: &Engine,
    args: &BuildArgs,
    (names, outputs): (&[Reference], &[Output]),
    built: &Built,
    kind: Kind,
) -> Result<u8> {
    let id = built.image.digest.to_string();
    let mut stdout = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    for output in outputs {
        write_output(engine, output, &built.image, names, &mut stdout)?;
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

fn options(args: &BuildArgs, dockerfile: Dockerfile, inputs: &Inputs) -> Result<Build> {
    let mut build_args = BTreeMap::new();
    for text in &args.build_arg {
        match text.split_once('=') {
            Some((name, value)) => {
                build_args.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Ok(value) = std::env::var(text) {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    let labels = args.label.iter().map(|text| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    });
    let epoch = match build_args
        .get("SOURCE_DATE_EPOCH")
        .cloned()
        .or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok())
    {
        Some(text) if !text.is_empty() => Some(text.parse().map_err(|_| {
            hinted(format!("invalid SOURCE_DATE_EPOCH: {text}"), "give it in seconds since 1970")
        })?),
        _ => None,
    };
    let contexts = args.build_context.iter().map(|text| inputs::named(text)).collect::<Result<_>>()?;
    let secrets = args.secret.iter().map(|text| inputs::secret(text)).collect::<Result<_>>()?;
    Ok(Build {
        dockerfile,
        context: inputs.context.clone(),
        ignore: inputs.ignore.clone(),
        contexts,
        build_args,
        target: args.target.clone(),
        labels: labels.collect(),
        no_cache: args.no_cache,
        pull: args.pull,
        platforms: args.platform.clone(),
        network: args.network.clone(),
        default_network: crate::commands::run::default_network(),
        hosts: args.add_host.clone(),
        secrets,
        epoch,
        rewrite_times: args.rewrite_timestamp,
    })
}

fn outputs(args: &BuildArgs) -> Result<Vec<Output>> {
    args.output
        .iter()
        .map(|text| {
            if text == "-" {
                return Ok(Output::Tar(None));
            }
            if !text.contains('=') {
                return Ok(Output::Local(text.into()));
            }
            let (mut kind, mut to) = (None, None);
            for part in text.split(',') {
                match part.split_once('=') {
                    Some(("type", value)) => kind = Some(value),
                    Some(("dest", value)) => to = Some(value),
                    Some(("name" | "push" | "compression" | "rewrite-timestamp", _)) => {}
                    _ => {}
                }
            }
            let file = to.filter(|to| *to != "-").map(Into::into);
            match (kind, to) {
                (Some("image"), _) => Ok(Output::Image),
                (Some("oci"), _) => Ok(Output::Archive { oci: true, to: file }),
                (Some("docker"), None) => Ok(Output::Image),
                (Some("docker"), _) => Ok(Output::Archive { oci: false, to: file }),
                (Some("tar"), _) => Ok(Output::Tar(file)),
                (Some("local"), Some(to)) => Ok(Output::Local(to.into())),
                (Some("local"), None) => {
                    Err(hinted("dest is required for the local output", "add `dest=DIR`"))
                }
                (kind, _) => Err(hinted(
                    format!("invalid output type \"{}\"", kind.unwrap_or("")),
                    "the types are image, oci, docker, tar and local",
                )),
            }
        })
        .collect()
}

/// Shows the lines that are meant; gives the error that is left to say.
fn explain(ui: &Ui, inputs: &Inputs, failure: Failure) -> anyhow::Error {
    if let Some(lines) = failure.lines {
        ui.note(&excerpt(&inputs.name, &inputs.text, lines, failure.word.as_deref()));
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
