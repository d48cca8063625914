//! A program that is linked with other components before it runs: where each of them is, and the name under which the
//! result is kept, so that it is linked once and not at every start.

use sha2::{Digest, Sha256};

use super::compose::{self, compose};
use super::create::{not_executable, not_found, read_all, read_module};
use super::engine::Flavor;
use super::module::{Code, invalid};
use super::options::Part;
use super::union::mount::{describe, layer_of};
use super::union::{Program, Union};
use super::{Executor, aot, engine};
use crate::bundle::{Bundle, Module, Root};
use crate::error::Result;

/// A component's file.
pub(super) enum Source<'a> {
    File(&'a Module),
    /// As the user knows it, and as it was found.
    InRoot(&'a str, Box<Program>),
}

impl Executor {
    /// The code of a bundle whose program is linked with other components.
    pub(super) fn linked_code(
        &self,
        bundle: &Bundle,
        union: &Union,
        program: Source<'_>,
        flavor: Flavor,
    ) -> Result<Code> {
        let mut sources = vec![program];
        for part in &bundle.wasm.parts {
            sources.push(match part {
                Part::File(module) => Source::File(module),
                Part::InRoot(path) => {
                    let found = union.program(union.root(), path.trim_start_matches('/'));
                    Source::InRoot(path, Box::new(found.map_err(|errno| not_found(path, errno))?))
                }
            });
        }
        self.linked(&sources, &bundle.root, flavor)
    }

    fn linked(&self, sources: &[Source<'_>], root: &Root, flavor: Flavor) -> Result<Code> {
        let shown = sources.first().map(Source::shown).unwrap_or_default();
        if sources.len() > compose::PARTS {
            return Err(invalid(&shown, format!("linked with more than {} components", compose::PARTS - 1)));
        }
        let ids: Option<Vec<String>> = sources.iter().map(|source| source.id(root)).collect();
        let name = ids.and_then(|ids| {
            // Named after the program, and so removed with it.
            let program = sources.first()?.made_of(root)?;
            let all = Sha256::digest(format!("linked\n{}", ids.join("\n")));
            Some(format!("{program}.{}", engine::hex(&all)))
        });
        if name.is_some() {
            let read = || compose(read(sources)?);
            return self
                .cache
                .code(self.engine(flavor)?, aot::Wanted { name, path: &shown, text: false, flavor, read });
        }
        // What may change is looked into each time.
        let parts = read(sources)?;
        let mut all = Sha256::new_with_prefix("linked");
        for part in &parts {
            all.update(Sha256::digest(&part.bytes));
        }
        let name = Some(format!("file-{}", engine::hex(&all.finalize())));
        let read = || compose(parts);
        self.cache.code(self.engine(flavor)?, aot::Wanted { name, path: &shown, text: false, flavor, read })
    }
}

impl Source<'_> {
    fn shown(&self) -> String {
        match self {
            Self::File(module) => module.path.display().to_string(),
            Self::InRoot(path, _) => (*path).to_owned(),
        }
    }

    /// The cache's name for what it belongs to, which never changes: a blob or a layer.
    fn made_of(&self, root: &Root) -> Option<String> {
        let id = match self {
            Self::File(module) => module.id.as_deref(),
            Self::InRoot(_, program) => {
                program.layer.and_then(|number| layer_of(root, number)).and_then(|layer| layer.id.as_deref())
            }
        };
        id.map(aot::name_of_id)
    }

    /// A name for its content that never changes meaning.
    fn id(&self, root: &Root) -> Option<String> {
        let made_of = self.made_of(root)?;
        Some(match self {
            Self::File(_) => made_of,
            Self::InRoot(_, program) => format!("{made_of} {}", program.path),
        })
    }
}

fn read(sources: &[Source<'_>]) -> Result<Vec<compose::Part>> {
    let read = |source: &Source<'_>| {
        let shown = source.shown();
        let bytes = match source {
            Source::File(module) => read_module(module)?,
            Source::InRoot(_, program) => {
                let file = program.open().map_err(|errno| not_executable(&shown, describe(errno)))?;
                read_all(&shown, file)?
            }
        };
        Ok(compose::Part { shown, bytes })
    };
    sources.iter().map(read).collect()
}
