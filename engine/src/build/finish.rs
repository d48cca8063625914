//! What becomes of the last stage: an image or a Wasm artifact, attestations about it, and compiled programs.

use std::collections::BTreeMap;
use std::io::Read as _;

use dhow_images::assemble::EntryKind;
use dhow_images::{Descriptor, Image, IndexBuilder, Matcher, NoProgress};
use dhow_runtime::{Kind, Layer};

use super::Build;
use super::attest::{About, Material, attest};
use super::builder::Builder;
use super::root::{Found, Root};
use super::sbom::bill;
use super::stage::Stage;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Largest program of an artifact.
const MAX_PROGRAM: u64 = 1 << 30;

impl Builder<'_, '_> {
    /// The variant that a stage has become; with what is in it, if that is wanted.
    pub(super) fn variant(&mut self, stage: &mut Stage) -> Result<(Descriptor, Option<serde_json::Value>)> {
        if let Some(function) = &self.build.preinit
            && stage.kind() == Kind::Wasm
        {
            self.preinit(stage, function)?;
        }
        if self.build.squash {
            self.squash(stage)?;
        }
        self.date(stage)?;
        let bill = match self.build.sbom {
            true => {
                let view = stage.view(self.engine, &self.work)?;
                let name = self.build.target.clone().unwrap_or_else(|| self.build.origin.name.clone());
                Some(bill(&view, &name, self.now)?)
            }
            false => None,
        };
        let store = self.engine.store();
        if self.build.wasm_artifact && stage.kind() == Kind::Wasm {
            let program = program(self, stage)?;
            let name = program.name.rsplit('/').next().unwrap_or_default().to_owned();
            return Ok((dhow_images::convert::wasm_artifact(store, &name, &program.code)?, bill));
        }
        Ok((store.new_image(&stage.config, &stage.blobs(), BTreeMap::new())?, bill))
    }
}

/// The program that an image of Wasm runs.
pub(super) struct Program {
    /// As its settings name it.
    pub(super) name: String,
    /// Where it is, without links.
    pub(super) path: Vec<u8>,
    pub(super) found: Found,
    pub(super) code: Vec<u8>,
}

pub(super) fn program(builder: &Builder<'_, '_>, stage: &mut Stage) -> Result<Program> {
    let config = &stage.config.config;
    let Some(path) = config.entrypoint.first().or_else(|| config.cmd.first()).cloned() else {
        return Err(Error::Invalid("no ENTRYPOINT says which file the program is".to_owned()));
    };
    let name = super::settings::joined(&config.working_dir, &path);
    let view = stage.view(builder.engine, &builder.work)?;
    let mut resolved = view.resolve(name.as_bytes())?;
    if resolved.found.is_none()
        && let Some((file, _)) = name.rsplit_once('#')
    {
        // One of its functions is run.
        resolved = view.resolve(file.as_bytes())?;
    }
    let Some(found) = resolved.found.filter(|found| found.kind == EntryKind::File) else {
        return Err(Error::Invalid(format!("the ENTRYPOINT {name} is no file of the image")));
    };
    if found.size > MAX_PROGRAM {
        return Err(Error::Invalid(format!("{name}: is larger than {MAX_PROGRAM} bytes")));
    }
    let mut code = Vec::new();
    view.read(&resolved.path)?.take(MAX_PROGRAM).read_to_end(&mut code)?;
    Ok(Program { name, path: resolved.path, found, code })
}

/// One variant, with what is known of it.
pub(super) struct Variant {
    pub(super) image: Descriptor,
    pub(super) bill: Option<serde_json::Value>,
    pub(super) materials: std::collections::BTreeSet<Material>,
}

/// What the name will stand for: the one variant, or an index of all and what is attested of them.
pub(super) fn whole(
    engine: &Engine,
    build: &Build,
    variants: &[Variant],
    began: jiff::Timestamp,
) -> Result<Descriptor> {
    let attested = build.provenance.is_some() || build.sbom;
    if let ([one], false) = (variants, attested) {
        return Ok(one.image.clone());
    }
    let mut index = IndexBuilder::new();
    for variant in variants {
        index.add(variant.image.clone());
    }
    if attested {
        for variant in variants {
            let (image, materials, bill) = (&variant.image, &variant.materials, variant.bill.clone());
            index.add(attest(engine, &About { build, variant: image, materials, began, bill })?);
        }
    }
    Ok(index.build(engine.store())?)
}

/// Compiles the program of a Wasm variant. The compiler has threads of its own, so nothing may be forked after this.
pub(super) fn precompile(engine: &Engine, variant: &Descriptor) -> Result<()> {
    let Some(platform) = variant.platform.as_ref().filter(|platform| platform.is_wasm()) else {
        return Ok(());
    };
    let image = engine.store().image(variant, &Matcher::only(platform))?;
    let Some(path) = image.config.config.entrypoint.first().or_else(|| image.config.config.cmd.first())
    else {
        return Ok(());
    };
    let path = super::settings::joined(&image.config.config.working_dir, path);
    if let Some(layer) = layer_of(engine, &image, &path)? {
        let executor = dhow_runtime::wasm::Executor::new(Some(engine.aot_folder()));
        executor.precompile_in_layer(&layer, &path)?;
    }
    Ok(())
}

/// The uppermost layer that has a file.
fn layer_of(engine: &Engine, image: &Image, path: &str) -> Result<Option<Layer>> {
    for layer in engine.store().unpack(image, &NoProgress)?.into_iter().rev() {
        let root = Root::open(&layer.path)?;
        let found = root.resolve_to(path.as_bytes(), false)?.found;
        if found.is_some_and(|found| found.kind == EntryKind::File) {
            return Ok(Some(Layer { path: layer.path, id: Some(layer.id.to_string()) }));
        }
    }
    Ok(None)
}
