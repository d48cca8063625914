//! From the command line's words to what a build is asked for.

use std::collections::BTreeMap;

use anyhow::Result;
use dhow_engine::Error;
use dhow_engine::build::dockerfile::Dockerfile;
use dhow_engine::build::{Build, CachePlace, CacheTo, Origin, Output, Provenance};
use dhow_engine::images::Reference;

use super::BuildArgs;
use super::agents;
use super::inputs::{self, Inputs};
use crate::args::Global;
use crate::error::hinted;

pub(super) fn build(
    global: &Global,
    args: &BuildArgs,
    dockerfile: Dockerfile,
    inputs: &Inputs,
    wanted: &Wanted,
) -> Result<Build> {
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
    let contexts =
        args.build_context.iter().map(|text| inputs::named(global, inputs, text)).collect::<Result<_>>()?;
    let secrets = args.secret.iter().map(|text| inputs::secret(text)).collect::<Result<_>>()?;
    let mut agents = BTreeMap::new();
    for text in &args.ssh {
        let (id, socket, own) = agents::agent(text)?;
        inputs.agents.borrow_mut().extend(own);
        agents.insert(id, socket);
    }
    Ok(Build {
        dockerfile,
        context: inputs.context.clone(),
        ignore: inputs.ignore.clone(),
        contexts,
        build_args,
        target: args.target.clone(),
        labels: labels.collect(),
        no_cache: args.no_cache,
        fresh: args.no_cache_filter.clone(),
        pull: args.pull,
        platforms: args.platform.clone(),
        network: args.network.clone(),
        default_network: crate::commands::run::default_network(),
        namespace: false,
        hosts: args.add_host.clone(),
        limits: args.steps.limits()?,
        insecure: insecure(args)?,
        secrets,
        agents,
        squash: args.squash,
        wasm_artifact: args.wasm_artifact,
        preinit: args.preinit.clone(),
        precompile: args.precompile,
        cache_from: args.cache_from.iter().map(|text| cache_from(text)).collect::<Result<_>>()?,
        cache_to: args.cache_to.iter().map(|text| cache_to(text)).collect::<Result<_>>()?,
        provenance: provenance(args)?,
        sbom: sbom(args)?,
        origin: Origin {
            name: inputs.name.clone(),
            text: inputs.text.clone(),
            address: inputs.address.clone(),
            commit: inputs.commit.clone(),
        },
        epoch,
        rewrite_times: args.rewrite_timestamp || wanted.rewrite_times,
    })
}

/// What is to become of the result.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) outputs: Vec<Output>,
    pub(super) names: Vec<Reference>,
    pub(super) push: bool,
    rewrite_times: bool,
}

/// What `--allow` allows besides what is allowed anyway.
fn insecure(args: &BuildArgs) -> Result<bool> {
    let known = ["security.insecure", "network.host"];
    if let Some(other) = args.allow.iter().find(|right| !known.contains(&right.as_str())) {
        return Err(hinted(
            format!("invalid entitlement {other}"),
            "there are security.insecure and network.host",
        ));
    }
    Ok(args.allow.iter().any(|right| right == known[0]))
}

pub(super) fn wanted(args: &BuildArgs) -> Result<Wanted> {
    let names = args.tag.iter().map(|name| Reference::parse(name)).collect::<Result<Vec<_>, _>>();
    let mut wanted = Wanted { names: names.map_err(Error::from)?, push: args.push, ..Wanted::default() };
    wanted.outputs = args.output.iter().map(|text| output(text, &mut wanted)).collect::<Result<_>>()?;
    if wanted.names.iter().any(|name| name.digest().is_some()) {
        return Err(hinted("refusing to create a tag with a digest reference", "name the image NAME[:TAG]"));
    }
    if wanted.push && wanted.names.is_empty() {
        return Err(hinted("tag is needed when pushing to registry", "name the image with `-t NAME[:TAG]`"));
    }
    if args.disable_content_trust == Some(false) {
        return Err(hinted(
            "--disable-content-trust=false is not supported: that trust service is no more",
            "see docs/trust.md for signatures",
        ));
    }
    Ok(wanted)
}

/// One `--output`.
fn output(text: &str, wanted: &mut Wanted) -> Result<Output> {
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
            Some(("name", value)) => wanted.names.push(Reference::parse(value).map_err(Error::from)?),
            Some(("push", value)) => wanted.push |= is_on("output", value)?,
            Some(("rewrite-timestamp", value)) => wanted.rewrite_times |= is_on("output", value)?,
            // What is so in any case.
            Some(("compression", "gzip") | ("oci-mediatypes" | "tar" | "unpack" | "store", "true")) => {}
            _ => {
                return Err(hinted(
                    format!("--output: {part} is not supported"),
                    "it is `type=TYPE`, and as the type needs `dest=PATH`, `name=NAME`, `push=true`, `rewrite-timestamp=true`",
                ));
            }
        }
    }
    let file = to.filter(|to| *to != "-").map(Into::into);
    match (kind, to) {
        (Some("image"), _) => Ok(Output::Image),
        (Some("registry"), _) => {
            wanted.push = true;
            Ok(Output::Image)
        }
        (Some("oci"), _) => Ok(Output::Archive { oci: true, to: file }),
        (Some("docker"), None) => Ok(Output::Image),
        (Some("docker"), _) => Ok(Output::Archive { oci: false, to: file }),
        (Some("tar"), _) => Ok(Output::Tar(file)),
        (Some("local"), Some(to)) => Ok(Output::Local(to.into())),
        (Some("local"), None) => Err(hinted("dest is required for the local output", "add `dest=DIR`")),
        (kind, _) => Err(hinted(
            format!("invalid output type \"{}\"", kind.unwrap_or("")),
            "the types are image, registry, oci, docker, tar and local",
        )),
    }
}

/// `type=..,key=value`, or a name alone.
fn settings<'a>(text: &'a str, option: &str) -> Result<BTreeMap<&'a str, &'a str>> {
    if !text.contains('=') {
        return Ok([("type", "registry"), ("ref", text)].into());
    }
    text.split(',')
        .map(|part| {
            part.split_once('=').ok_or_else(|| {
                hinted(format!("invalid value {part} in --{option} {text}"), "write `type=TYPE,NAME=VALUE`")
            })
        })
        .collect()
}

fn place(text: &str, option: &str, folder: &str) -> Result<(CachePlace, BTreeMap<String, String>)> {
    let settings = settings(text, option)?;
    let need = |name: &str| {
        settings.get(name).copied().ok_or_else(|| {
            hinted(format!("--{option} {text}: {name} is missing"), format!("add `{name}=...`"))
        })
    };
    let place = match settings.get("type").copied().unwrap_or("registry") {
        "registry" => CachePlace::Registry(Reference::parse(need("ref")?).map_err(Error::from)?),
        "local" => CachePlace::Directory(std::path::absolute(need(folder)?)?),
        kind => {
            return Err(hinted(
                format!("--{option}: a cache of type {kind} is not supported"),
                "the types are registry and local",
            ));
        }
    };
    let rest = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok((place, rest.collect()))
}

fn cache_from(text: &str) -> Result<CachePlace> {
    Ok(place(text, "cache-from", "src")?.0)
}

fn cache_to(text: &str) -> Result<CacheTo> {
    let (place, settings) = place(text, "cache-to", "dest")?;
    let mode = settings.get("mode").map_or("min", String::as_str);
    if !matches!(mode, "min" | "max") {
        return Err(hinted(format!("--cache-to: invalid mode {mode}"), "the modes are min and max"));
    }
    let ignore_error = settings.get("ignore-error").is_some_and(|value| value == "true");
    Ok(CacheTo { place, all: mode == "max", ignore_error })
}

fn is_on(option: &str, text: &str) -> Result<bool> {
    match text {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(hinted(format!("--{option}: invalid value {text}"), "it is `true` or `false`")),
    }
}

fn provenance(args: &BuildArgs) -> Result<Option<Provenance>> {
    let attested = args.attest.iter().filter_map(|text| text.strip_prefix("type=provenance"));
    let Some(text) =
        attested.map(|text| text.trim_start_matches(',')).next_back().or(args.provenance.as_deref())
    else {
        return Ok(None);
    };
    match text.strip_prefix("mode=") {
        Some("min") => Ok(Some(Provenance::Min)),
        Some("max") => Ok(Some(Provenance::Max)),
        Some(mode) => Err(hinted(format!("--provenance: invalid mode {mode}"), "the modes are min and max")),
        None => Ok(is_on("provenance", text)?.then_some(Provenance::Min)),
    }
}

fn sbom(args: &BuildArgs) -> Result<bool> {
    for text in &args.attest {
        let kind = text.split(',').next().unwrap_or_default();
        if !matches!(kind, "type=provenance" | "type=sbom") {
            return Err(hinted(
                format!("--attest: unknown type in {text}"),
                "the types are `type=provenance` and `type=sbom`",
            ));
        }
    }
    if args.attest.iter().any(|text| text.starts_with("type=sbom")) {
        return Ok(true);
    }
    args.sbom.as_deref().map_or(Ok(false), |text| is_on("sbom", text))
}
