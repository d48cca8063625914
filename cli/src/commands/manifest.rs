//! `manifest`: look at manifests at registries, and put manifest lists together there. Lists in the making are kept in
//! the store until they are pushed.

mod show;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use dhow_engine::images::manifest_list::{ListEntry, ListPlatform, ManifestList};
use dhow_engine::images::registry::{Access, manifest_with_platform, push_list};
use dhow_engine::images::{Error as ImagesError, Reference, Store, media};
use dhow_engine::{Engine, Error};

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::registries;
use crate::ui::Ui;

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Say more about an entry of a manifest list in the making
    Annotate(AnnotateArgs),
    /// Begin a manifest list of images that are at a registry
    Create(CreateArgs),
    /// Show a manifest or an index, as the registry has it or as it is in the making
    Inspect(show::InspectArgs),
    /// Push a manifest list, with the manifests it is made of
    Push(PushArgs),
    /// Give up manifest lists in the making
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Add to the list, or replace entries of it, if it exists
    #[arg(short, long)]
    amend: bool,
    #[command(flatten)]
    reach: Reach,
    /// What the list will be pushed as
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// Images at the registry; they may be in other repositories
    #[arg(value_name = "MANIFEST", required = true)]
    manifests: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// Set the architecture, for example `arm64` or `wasm`
    #[arg(long, value_name = "ARCH", default_value = "", hide_default_value = true)]
    arch: String,
    /// Set the operating system, for example `linux` or `wasip1`
    #[arg(long, value_name = "OS", default_value = "", hide_default_value = true)]
    os: String,
    /// Set features of the operating system, separated by commas
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Set the version of the operating system
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    os_version: String,
    /// Set the variant of the architecture, for example `v7`
    #[arg(long, value_name = "VARIANT", default_value = "", hide_default_value = true)]
    variant: String,
    /// A list in the making
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// One of its entries, as it was named when it was added
    #[arg(value_name = "MANIFEST")]
    manifest: String,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    reach: Reach,
    /// Give up the list in the making once it is pushed
    #[arg(short, long)]
    purge: bool,
    /// A list in the making
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Lists in the making
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    lists: Vec<String>,
}

/// How far a registry is trusted.
#[derive(Debug, Args)]
struct Reach {
    /// Accept any certificate, and plain HTTP where there is no HTTPS
    #[arg(long)]
    insecure: bool,
}

impl Reach {
    fn access(&self, name: &Reference) -> Result<Access> {
        let mut access = registries::access(name)?;
        access.insecure |= self.insecure;
        Ok(access)
    }
}

pub(crate) fn run(ui: &Ui, global: &Global, command: &ManifestCommand) -> Result<u8> {
    let engine = context::engine(global)?;
    match command {
        ManifestCommand::Annotate(args) => annotate(&engine, args),
        ManifestCommand::Create(args) => create(ui, &engine, args),
        ManifestCommand::Inspect(args) => show::run(ui, &engine, args),
        ManifestCommand::Push(args) => push(ui, &engine, args),
        ManifestCommand::Rm(args) => remove(ui, &engine, args),
    }
}

fn parse(name: &str) -> Result<Reference> {
    Ok(Reference::parse(name).map_err(Error::from)?)
}

fn create(ui: &Ui, engine: &Engine, args: &CreateArgs) -> Result<u8> {
    let name = parse(&args.list)?;
    let store = engine.store();
    let refused = || {
        hinted("refusing to amend an existing manifest list with no --amend flag", "use --amend to add to it")
    };
    if !args.amend && store.manifest_list(&name).map_err(Error::from)?.is_some() {
        return Err(refused());
    }
    let mut entries = Vec::new();
    for manifest in &args.manifests {
        let reference = parse(manifest)?;
        entries.push(entry(store, &reference, &args.reach)?);
    }
    store.change_manifest_list(&name, |list| -> Result<_, Failure> {
        let mut list = match list {
            // Another process made it meanwhile.
            Some(_) if !args.amend => return Err(Failure(refused())),
            Some(list) => list,
            None => ManifestList::new(name.clone()),
        };
        for entry in entries {
            list.add(entry)?;
        }
        Ok(list)
    })?;
    ui.line(&format!("Created manifest list {}", name.canonical()));
    Ok(0)
}

/// An entry for what is at the registry under this name.
fn entry(store: &Store, reference: &Reference, reach: &Reach) -> Result<ListEntry> {
    let (found, _) = match manifest_with_platform(reference, &reach.access(reference)?) {
        Ok(found) => found,
        Err(ImagesError::ManifestUnknown { .. }) => {
            let here = store.resolve(reference).map_err(Error::from)?.is_some();
            let message = format!("no such manifest: {}", reference.canonical());
            return Err(if here {
                hinted(
                    message,
                    format!("it is only here; push it first: `dhow push {}`", reference.familiar()),
                )
            } else {
                hinted(message, "check the name and the tag")
            });
        }
        Err(error) => return Err(Error::from(error).into()),
    };
    if media::is_index(&found.descriptor.media_type) {
        return Err(hinted(
            format!("{} is a manifest list", reference.canonical()),
            "name its entries by their digests; `dhow manifest inspect` shows them",
        ));
    }
    let platform = found.descriptor.platform.clone().unwrap_or_else(|| {
        // An artifact: `annotate` can say what it runs on.
        dhow_engine::images::Platform::new("", "", None)
    });
    let platform = ListPlatform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant.unwrap_or_default(),
        ..ListPlatform::default()
    };
    let reference = reference.clone();
    Ok(ListEntry { reference, descriptor: found.descriptor, platform, bytes: found.bytes })
}

fn annotate(engine: &Engine, args: &AnnotateArgs) -> Result<u8> {
    let (name, reference) = (parse(&args.list)?, parse(&args.manifest)?);
    let absent = || {
        hinted(
            format!("manifest for image {} does not exist in {}", reference.canonical(), name.canonical()),
            "`dhow manifest create --amend` adds it",
        )
    };
    let store = engine.store();
    if store.manifest_list(&name).map_err(Error::from)?.is_none() {
        return Err(absent());
    }
    store.change_manifest_list(&name, |list| -> Result<_, Failure> {
        let mut list = list.ok_or_else(|| Failure(absent()))?;
        let entry = list.entry_mut(&reference).ok_or_else(|| Failure(absent()))?;
        let platform = &mut entry.platform;
        let set = |field: &mut String, value: &str| {
            if !value.is_empty() {
                value.clone_into(field);
            }
        };
        set(&mut platform.architecture, &args.arch);
        set(&mut platform.os, &args.os);
        set(&mut platform.variant, &args.variant);
        set(&mut platform.os_version, &args.os_version);
        for feature in args.os_features.iter().filter(|feature| !feature.is_empty()) {
            if !platform.os_features.contains(feature) {
                platform.os_features.push(feature.clone());
            }
        }
        if !platform.is_known() {
            let (os, arch) = (&platform.os, &platform.architecture);
            return Err(Failure(hinted(
                format!("manifest entry for image has unsupported os/arch combination: {os}/{arch}"),
                "Go's names are used, such as linux/amd64; Wasm is wasip1/wasm",
            )));
        }
        Ok(list)
    })?;
    Ok(0)
}

fn push(ui: &Ui, engine: &Engine, args: &PushArgs) -> Result<u8> {
    let name = parse(&args.list)?;
    let store = engine.store();
    let Some(list) = store.manifest_list(&name).map_err(Error::from)? else {
        return Err(no_such_list(&name));
    };
    for entry in list.entries() {
        if entry.platform.os.is_empty() || entry.platform.architecture.is_empty() {
            return Err(hinted(
                format!(
                    "manifest {} must have an OS and Architecture to be pushed to a registry",
                    entry.reference
                ),
                "say what it runs on with `dhow manifest annotate`",
            ));
        }
    }
    let pushed = push_list(store, &list, &args.reach.access(&name)?, |entry| {
        if let Some(digest) = entry.digest() {
            ui.line(&format!("Pushed ref {} with digest: {digest}", entry.canonical()));
        }
    });
    ui.line(&pushed.map_err(Error::from)?.digest.to_string());
    if args.purge {
        store.remove_manifest_list(&name).map_err(Error::from)?;
    }
    Ok(0)
}

fn remove(ui: &Ui, engine: &Engine, args: &RmArgs) -> Result<u8> {
    crate::commands::each(ui, &args.lists, |list| {
        let name = parse(list)?;
        if engine.store().remove_manifest_list(&name).map_err(Error::from)? {
            Ok(())
        } else {
            Err(no_such_list(&name))
        }
    })
}

fn no_such_list(name: &Reference) -> anyhow::Error {
    hinted(
        format!("No such manifest: {}", name.canonical()),
        "only lists in the making can be named here: `dhow manifest create` begins one",
    )
}

/// Carries an error out of the change of a list.
#[derive(Debug)]
struct Failure(anyhow::Error);

impl From<ImagesError> for Failure {
    fn from(error: ImagesError) -> Self {
        Self(Error::from(error).into())
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// Docker's limit is none; this one keeps a typing mistake from becoming a request.
fn check_type(kind: &str) -> Result<()> {
    if kind.is_empty() || kind.len() > 255 || !kind.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("invalid artifact type \"{kind}\"");
    }
    Ok(())
}
