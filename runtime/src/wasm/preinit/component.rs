//! Which core module of a component a function is in, and the component with another module in its place.

use std::ops::Range;

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentTypeRef,
    ExternalKind, Instance, Parser, Payload,
};

use super::super::invoke::listed;
use super::module::{section, sections};

/// Number of the section of a core module.
const CORE_MODULE: u8 = 1;

/// Where a component's function really is.
#[derive(Debug)]
pub(super) struct Found {
    /// The bytes of the core module.
    pub(super) module: Range<usize>,
    /// The name by which that exports it.
    pub(super) export: String,
    /// Which of the sections of core modules it is.
    number: usize,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Reason {
    /// It is the component.
    Invalid(String),
    /// It is the function.
    Function(String),
}

/// An export of a core instance, by its number.
type Place = Option<(u32, String)>;

/// What an instance of a component has.
#[derive(Debug, Default, Clone)]
struct Names(Vec<(String, u32)>);

/// The index spaces of a component, as far as they lead to functions.
#[derive(Debug, Default)]
struct Spaces {
    /// The section that a core module is in.
    modules: Vec<Option<usize>>,
    /// The core module that a core instance is of.
    core_instances: Vec<Option<u32>>,
    core_functions: Vec<Place>,
    functions: Vec<Place>,
    instances: Vec<Names>,
    exports: Vec<(String, ComponentExternalKind, u32)>,
    sections: usize,
}

/// Finds the core function behind `NAME` or `INTERFACE#NAME`.
pub(super) fn find(code: &[u8], function: &str) -> Result<Found, Reason> {
    let invalid = |error: wasmparser::BinaryReaderError| Reason::Invalid(error.to_string());
    let mut spaces = Spaces::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(code) {
        let payload = payload.map_err(invalid)?;
        if depth == 0 {
            spaces.look_at(&payload).map_err(invalid)?;
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) if depth > 0 => depth -= 1,
            _ => {}
        }
    }
    let (interface, name) = function.rsplit_once('#').map_or((None, function), |(a, b)| (Some(a), b));
    let exported = |name: &str, kind: ComponentExternalKind| {
        let fits = |(other, of, _): &&(String, ComponentExternalKind, u32)| other == name && *of == kind;
        spaces.exports.iter().find(fits).map(|(_, _, index)| *index as usize)
    };
    let number = match interface {
        None => exported(name, ComponentExternalKind::Func),
        Some(interface) => exported(interface, ComponentExternalKind::Instance)
            .and_then(|index| spaces.instances.get(index))
            .and_then(|names| names.0.iter().find(|(other, _)| other == name))
            .map(|(_, index)| *index as usize),
    };
    let Some(number) = number else {
        let has = listed(spaces.exports.iter().map(|(name, _, _)| name.as_str()));
        return Err(Reason::Function(format!("it exports no such function, but {has}")));
    };
    let found = spaces.functions.get(number).cloned().flatten().and_then(|(instance, export)| {
        let module = (*spaces.core_instances.get(instance as usize)?)?;
        Some(((*spaces.modules.get(module as usize)?)?, export))
    });
    let Some((number, export)) = found else {
        return Err(Reason::Function("it is not in a core module of the component itself".to_owned()));
    };
    let all = sections(code).into_iter().flatten().filter(|(id, _)| *id == CORE_MODULE);
    let module = all.map(|(_, range)| range).nth(number);
    let module = module.ok_or_else(|| Reason::Invalid("its sections are damaged".to_owned()))?;
    Ok(Found { module, export, number })
}

/// The component with another core module.
pub(super) fn replace(code: &[u8], found: &Found, module: &[u8]) -> Option<Vec<u8>> {
    let mut out = code[..8].to_vec();
    let mut number = 0;
    for (id, range) in sections(code)? {
        let is_it = id == CORE_MODULE && number == found.number;
        number += usize::from(id == CORE_MODULE);
        section(&mut out, id, if is_it { module } else { &code[range] });
    }
    Some(out)
}

impl Spaces {
    fn look_at(&mut self, payload: &Payload<'_>) -> Result<(), wasmparser::BinaryReaderError> {
        match payload {
            Payload::ModuleSection { .. } => {
                self.modules.push(Some(self.sections));
                self.sections += 1;
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    self.core_instances.push(match instance? {
                        Instance::Instantiate { module_index, .. } => Some(module_index),
                        Instance::FromExports(_) => None,
                    });
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    self.alias(&alias?);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => self.modules.push(None),
                        ComponentTypeRef::Func(_) => self.functions.push(None),
                        ComponentTypeRef::Instance(_) => self.instances.push(Names::default()),
                        _ => {}
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    match function? {
                        CanonicalFunction::Lift { core_func_index, .. } => {
                            let place = self.core_functions.get(core_func_index as usize).cloned().flatten();
                            self.functions.push(place);
                        }
                        _ => self.core_functions.push(None),
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    let names = match instance? {
                        ComponentInstance::FromExports(exports) => exports
                            .iter()
                            .filter(|export| export.kind == ComponentExternalKind::Func)
                            .map(|export| (export.name.name.to_owned(), export.index))
                            .collect(),
                        // A component that only gives what it is given other types, as toolchains make it for interfaces.
                        ComponentInstance::Instantiate { args, .. } => args
                            .iter()
                            .filter(|arg| arg.kind == ComponentExternalKind::Func)
                            .map(|arg| (arg.name.trim_start_matches("import-func-").to_owned(), arg.index))
                            .collect(),
                    };
                    self.instances.push(Names(names));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    self.exports.push((export.name.name.to_owned(), export.kind, export.index));
                    let index = export.index as usize;
                    // An export is a new thing of its kind.
                    match export.kind {
                        ComponentExternalKind::Func => {
                            self.functions.push(self.functions.get(index).cloned().flatten());
                        }
                        ComponentExternalKind::Instance => {
                            self.instances.push(self.instances.get(index).cloned().unwrap_or_default());
                        }
                        ComponentExternalKind::Module => {
                            self.modules.push(self.modules.get(index).copied().flatten());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) {
        match alias {
            ComponentAlias::CoreInstanceExport { kind: ExternalKind::Func, instance_index, name } => {
                self.core_functions.push(Some((*instance_index, (*name).to_owned())));
            }
            ComponentAlias::InstanceExport { kind, instance_index, name } => match kind {
                ComponentExternalKind::Func => {
                    let of = self.instances.get(*instance_index as usize);
                    let index = of.and_then(|names| names.0.iter().find(|(other, _)| other == name));
                    let place = index.and_then(|(_, index)| self.functions.get(*index as usize).cloned());
                    self.functions.push(place.flatten());
                }
                ComponentExternalKind::Instance => self.instances.push(Names::default()),
                ComponentExternalKind::Module => self.modules.push(None),
                _ => {}
            },
            ComponentAlias::Outer { kind: wasmparser::ComponentOuterAliasKind::CoreModule, .. } => {
                self.modules.push(None);
            }
            _ => {}
        }
    }
}
