//! Linking several components into one: what the program imports and another component exports comes from that one.
//!
//! The first component is the program; its exports are the result's. Each other one is instantiated once, whoever uses
//! it, and only if somebody does. An import is looked for in the other components first, in their order, by its exact
//! name and then by a compatible version; what none of them has and WASI provides is left for the host. So a component
//! may stand between the program and the host, for example with a file system of its own.
//!
//! This runs before the program is compiled for the first time, not at its start: the result is kept as one piece of
//! code. What it takes apart may be hostile, so there are limits, and every component is validated as for running
//! before the composing library, which asserts much, sees it.

use wac_graph::types::{ItemKind, Package, Type, are_semver_compatible};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId, PackageId};
use wasmparser::{Validator, WasmFeatures};

use super::imports::is_provided;
use super::module::{Form, form, invalid};
use crate::error::{Error, Result};

/// The most components in one program.
pub(super) const PARTS: usize = 64;
/// The most bytes of all of them together.
const SIZE_MAX: usize = 1 << 28;

/// A component to be linked.
#[derive(Debug)]
pub(super) struct Part {
    /// As the user knows it.
    pub(super) shown: String,
    /// Its binary form.
    pub(super) bytes: Vec<u8>,
}

/// Links `parts`, of which the first is the program.
///
/// # Errors
/// [`Error::InvalidModule`] naming the component, the import that is not met and what the others have, or a circle.
pub(super) fn compose(parts: Vec<Part>) -> Result<Vec<u8>> {
    let program = parts.first().map(|part| part.shown.clone()).unwrap_or_default();
    let size = parts.iter().map(|part| part.bytes.len()).sum::<usize>();
    if parts.len() > PARTS || size > SIZE_MAX {
        let reason = format!(
            "a program of {} components and {size} bytes; at most {PARTS} and {SIZE_MAX} can be linked",
            parts.len()
        );
        return Err(invalid(&program, reason));
    }
    let mut composer = Composer { graph: CompositionGraph::new(), members: Vec::new() };
    for (number, part) in parts.into_iter().enumerate() {
        composer.add(number, part)?;
    }
    let root = composer.instantiate(0)?;
    let exports = composer.members.first().map(|member| member.exports.clone()).unwrap_or_default();
    let failed =
        |error: &dyn std::error::Error| invalid(&program, format!("cannot be linked: {}", chain(error)));
    for name in exports {
        let export = composer.graph.alias_instance_export(root, &name).map_err(|error| failed(&error))?;
        composer.graph.export(export, &name).map_err(|error| failed(&error))?;
    }
    composer.graph.encode(EncodeOptions::default()).map_err(|error| failed(&error))
}

/// The components' types and what has become of them.
struct Composer {
    graph: CompositionGraph,
    members: Vec<Member>,
}

struct Member {
    shown: String,
    package: PackageId,
    imports: Vec<String>,
    exports: Vec<String>,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Untouched,
    /// Its imports are being looked for.
    Open,
    Done(NodeId),
}

impl Composer {
    /// Takes a component in.
    fn add(&mut self, number: usize, part: Part) -> Result<()> {
        let Part { shown, bytes } = part;
        if form(&shown, &bytes)? != Form::Component {
            return Err(invalid(&shown, "a core module; only components can be linked with each other"));
        }
        let features = WasmFeatures::default() & !WasmFeatures::THREADS;
        Validator::new_with_features(features)
            .validate_all(&bytes)
            .map_err(|error| invalid(&shown, error.to_string()))?;
        let failed = |error: String| invalid(&shown, format!("cannot be linked: {error}"));
        let package = Package::from_bytes(&format!("part:p{number}"), None, bytes, self.graph.types_mut())
            .map_err(|error| failed(format!("{error:#}")))?;
        let types = self.graph.types();
        let world = &types[package.ty()];
        let mut names = Vec::new();
        for items in [&world.imports, &world.exports] {
            for (name, kind) in items {
                let inside = match kind {
                    ItemKind::Func(_) => continue,
                    ItemKind::Instance(interface) => &types[*interface].exports,
                    _ => return Err(failed(format!("{name} is neither an interface nor a function"))),
                };
                // What WIT has no words for the library cannot write down: it would end this process.
                if let Some((odd, _)) = inside.iter().find(|(_, kind)| !is_of_wit(kind)) {
                    return Err(failed(format!(
                        "{odd} of {name} is neither a type of values nor a function"
                    )));
                }
            }
            names.push(items.keys().cloned().collect::<Vec<_>>());
        }
        let package = self.graph.register_package(package).map_err(|error| failed(error.to_string()))?;
        let exports = names.pop().unwrap_or_default();
        let imports = names.pop().unwrap_or_default();
        self.members.push(Member { shown, package, imports, exports, state: State::Untouched });
        Ok(())
    }

    /// Instantiates a component, and before it those that it needs.
    fn instantiate(&mut self, number: usize) -> Result<NodeId> {
        match self.members[number].state {
            State::Done(node) => return Ok(node),
            State::Open => {
                let open = self.members.iter().filter(|member| matches!(member.state, State::Open));
                let names: Vec<_> = open.map(|member| member.shown.clone()).collect();
                let reason = format!("components that need each other in a circle: {}", names.join(", "));
                return Err(invalid(&self.members[number].shown, reason));
            }
            State::Untouched => self.members[number].state = State::Open,
        }
        let mut arguments = Vec::new();
        for import in self.members[number].imports.clone() {
            if let Some((other, export)) = self.provider(number, &import) {
                let instance = self.instantiate(other)?;
                arguments.push((import, other, instance, export));
            } else if !is_provided(&import) {
                return Err(self.unmet(number, &import));
            }
        }
        let node = self.graph.instantiate(self.members[number].package);
        for (import, other, instance, export) in arguments {
            let given = self.graph.alias_instance_export(instance, &export);
            let linked = given.map_err(|error| chain(&error)).and_then(|given| {
                let set = self.graph.set_instantiation_argument(node, &import, given);
                set.map_err(|error| chain(&error))
            });
            linked.map_err(|error| {
                let other = &self.members[other].shown;
                let reason = format!("imports {import}, which {other} exports with another type: {error}");
                invalid(&self.members[number].shown, reason)
            })?;
        }
        self.members[number].state = State::Done(node);
        Ok(node)
    }

    /// The component, other than `number`, that an import comes from, and the name of its export.
    fn provider(&self, number: usize, import: &str) -> Option<(usize, String)> {
        let others = || self.members.iter().enumerate().filter(|(other, _)| *other != number);
        let find = |fits: &dyn Fn(&str) -> bool| {
            others().find_map(|(other, member)| {
                let export = member.exports.iter().find(|export| fits(export))?;
                Some((other, export.clone()))
            })
        };
        find(&|export| export == import).or_else(|| find(&|export| are_semver_compatible(export, import)))
    }

    fn unmet(&self, number: usize, import: &str) -> Error {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != number);
        let have: Vec<_> = others
            .map(|(_, member)| {
                let exports = match member.exports.as_slice() {
                    [] => "nothing".to_owned(),
                    some => some.iter().take(8).cloned().collect::<Vec<_>>().join(", "),
                };
                format!("{} exports {exports}", member.shown)
            })
            .take(8)
            .collect();
        let mut reason = format!("imports {import}, which neither WASI nor any of its components has");
        if !have.is_empty() {
            reason.push_str(&format!(" ({})", have.join("; ")));
        }
        invalid(&self.members[number].shown, reason)
    }
}

/// What an interface may have in it.
fn is_of_wit(kind: &ItemKind) -> bool {
    matches!(kind, ItemKind::Func(_) | ItemKind::Type(Type::Resource(_) | Type::Value(_)))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::wasm) mod fuzz;
#[cfg(test)]
mod tests;
