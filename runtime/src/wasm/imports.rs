//! What guest code imports and exports, by name, and what it would be given: read from its binary form without
//! compiling or running anything.
//!
//! `p2/link.rs` and `p3/link.rs` are what gives; a test compares what is said here with what they have.

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds};

use super::module::{Form, form, invalid};
use super::union::Union;
use super::{create, p1};
use crate::bundle::{Layer, Module, Root};
use crate::error::Result;

/// The most names that are listed of each kind.
const NAMES: usize = 1000;
/// The longest name that is listed.
const NAME: usize = 512;

/// What guest code asks for and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// A core module or a component.
    pub form: Form,
    /// What it asks for, in its order: interfaces of a component, functions (`module.name`) of a core module.
    pub imports: Vec<Import>,
    /// What it offers.
    pub exports: Vec<String>,
    /// Whether there is more than is listed here: some guests have no end of names.
    pub truncated: bool,
}

/// Something that guest code asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its name, with a version if it has one.
    pub name: String,
    /// What it gets by default.
    pub grant: Grant,
    /// What gives it, or more of it; empty where nothing can.
    pub by: &'static str,
}

/// What an import gets by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// It works.
    Granted,
    /// It is there, and its functions answer that they may not.
    Denied,
    /// Nothing here provides it: the program does not start, unless it is composed with something that does.
    Unmet,
}

impl Grant {
    /// As it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Unmet => "unmet",
        }
    }
}

/// Reads what the module or component in a file imports and exports.
///
/// # Errors
/// [`crate::Error::InvalidModule`] when it is none, [`crate::Error::Io`] when it cannot be read.
pub fn interface_of(module: &Module) -> Result<Interface> {
    interface(&module.path.display().to_string(), &create::read_module(module)?)
}

/// As [`interface_of`], for a program of a root file system that is found as `run` would: `command` from `cwd`, by
/// `PATH` of `env`.
///
/// # Errors
/// As [`interface_of`], and [`crate::Error::CommandNotFound`] or [`crate::Error::CommandNotExecutable`].
pub fn interface_in(lower: &[Layer], cwd: &str, env: &[String], command: &str) -> Result<Interface> {
    interface(command, &code_in(lower, cwd, env, command)?)
}

/// The content of a module's or component's file.
///
/// # Errors
/// [`crate::Error::CommandNotFound`], [`crate::Error::CommandNotExecutable`] or [`crate::Error::Io`].
pub fn code_of(module: &Module) -> Result<Vec<u8>> {
    create::read_module(module)
}

/// As [`code_of`], for a program that is found as for [`interface_in`].
///
/// # Errors
/// As [`code_of`].
pub fn code_in(lower: &[Layer], cwd: &str, env: &[String], command: &str) -> Result<Vec<u8>> {
    // An upper directory that is not there is none.
    let root = Root::Layers {
        lower: lower.to_vec(),
        upper: std::path::PathBuf::new(),
        work: std::path::PathBuf::new(),
        merged: std::path::PathBuf::new(),
    };
    let union = match &root {
        Root::Layers { upper, lower, .. } => Union::layered(upper, lower)?,
        Root::Dir(path) => Union::plain(path)?,
    };
    create::read_program(&union, cwd, env, command)
}

/// What `bytes` import and export.
///
/// # Errors
/// [`crate::Error::InvalidModule`] when they are no module or component.
pub(super) fn interface(shown: &str, bytes: &[u8]) -> Result<Interface> {
    let form = form(shown, bytes)?;
    let mut found = Interface { form, imports: Vec::new(), exports: Vec::new(), truncated: false };
    let failed = |error: wasmparser::BinaryReaderError| invalid(shown, error.to_string());
    // Within modules and components of a component nothing is of interest.
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(failed)? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 && (encoding == Encoding::Component) != (form == Form::Component) {
                    return Err(invalid(shown, "neither a module nor a component"));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 1 => {
                for import in section.into_imports() {
                    let import = import.map_err(failed)?;
                    let (grant, by) = core_grant(import.module, import.name);
                    found.import(format!("{}.{}", import.module, import.name), grant, by);
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import.map_err(failed)?;
                    if matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        // A name for a type that it has itself.
                        continue;
                    }
                    let name = import.name.name;
                    let (grant, by) = grant(name);
                    found.import(name.to_owned(), grant, by);
                }
            }
            Payload::ExportSection(section) if depth == 1 => {
                for export in section {
                    found.export(export.map_err(failed)?.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    found.export(export.map_err(failed)?.name.name);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

impl Interface {
    fn import(&mut self, name: String, grant: Grant, by: &'static str) {
        if self.imports.len() == NAMES || name.len() > NAME {
            self.truncated = true;
        } else {
            self.imports.push(Import { name, grant, by });
        }
    }

    fn export(&mut self, name: &str) {
        if self.exports.len() == NAMES || name.len() > NAME {
            self.truncated = true;
        } else {
            self.exports.push(name.to_owned());
        }
    }
}

/// What opens a guest's way to the network.
const NETWORK: &str = "--network host, -p or --allow-net";
/// What gives a guest more files.
const FILES: &str = "-v, --mount or --tmpfs for more than the image's files";

/// The interfaces of a package that components are given.
fn known(package: &str, track: Track) -> &'static [&'static str] {
    match (package, track) {
        ("wasi:io", Track::V2) => &["error", "poll", "streams"],
        ("wasi:cli", _) => &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        ("wasi:clocks", Track::V2) => &["monotonic-clock", "wall-clock"],
        ("wasi:clocks", Track::V3) => &["monotonic-clock", "system-clock"],
        ("wasi:filesystem", _) => &["preopens", "types"],
        ("wasi:random", _) => &["random", "insecure", "insecure-seed"],
        ("wasi:sockets", Track::V2) => &[
            "instance-network",
            "network",
            "ip-name-lookup",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
        ("wasi:sockets", Track::V3) => &["types", "ip-name-lookup"],
        ("wasi:http", Track::V2) => &["types", "outgoing-handler"],
        ("wasi:http", Track::V3) => &["types", "client"],
        _ => &[],
    }
}

/// Interfaces that are nothing but types, which need nobody to give them.
const TYPES: [(&str, &str, Track); 2] =
    [("wasi:cli", "types", Track::V3), ("wasi:clocks", "types", Track::V3)];

/// What a component gets for an import.
fn grant(import: &str) -> (Grant, &'static str) {
    let name = Name::parse(import);
    let Some(((package, interface), track)) = name.interface.split_once('/').zip(name.track) else {
        return (Grant::Unmet, "");
    };
    if TYPES.contains(&(package, interface, track)) {
        return (Grant::Granted, "");
    }
    match (known(package, track).contains(&interface), package) {
        (false, _) => (Grant::Unmet, ""),
        (true, "wasi:sockets") => (Grant::Denied, NETWORK),
        (true, "wasi:http") if interface != "types" => (Grant::Denied, NETWORK),
        (true, "wasi:filesystem") => (Grant::Granted, FILES),
        (true, _) => (Grant::Granted, ""),
    }
}

/// Whether this host provides an import of a component.
pub(super) fn is_provided(import: &str) -> bool {
    grant(import).0 != Grant::Unmet
}

/// What a core module gets for an import.
fn core_grant(module: &str, name: &str) -> (Grant, &'static str) {
    if !p1::link::provides(module, name) {
        return (Grant::Unmet, "");
    }
    match name {
        _ if name.starts_with("sock_") => (Grant::Granted, "-p, which gives it sockets to accept from"),
        "path_open" => (Grant::Granted, FILES),
        _ => (Grant::Granted, ""),
    }
}

/// A name of an import or export of a component: `wasi:cli/run@0.2.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// Everything before the version.
    pub(super) interface: &'a str,
    /// The version, if there is one.
    pub(super) version: Option<&'a str>,
    /// The WASI release it belongs to, if it is one that was released.
    pub(super) track: Option<Track>,
}

/// The WASI releases that components speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Track {
    /// 0.2
    V2,
    /// 0.3
    V3,
}

impl<'a> Name<'a> {
    pub(super) fn parse(name: &'a str) -> Self {
        let (interface, version) = match name.rsplit_once('@') {
            Some((interface, version)) => (interface, Some(version)),
            None => (name, None),
        };
        let numbers: Option<Vec<u32>> =
            version.and_then(|version| version.split('.').map(|part| part.parse().ok()).collect());
        let track = match numbers.as_deref() {
            Some([0, 2, _]) => Some(Track::V2),
            Some([0, 3, _]) => Some(Track::V3),
            _ => None,
        };
        Self { interface, version, track }
    }

    /// Whether it is WASI of a version that was only a draft.
    pub(super) fn is_draft(&self) -> bool {
        self.interface.starts_with("wasi:") && self.version.is_some_and(|version| version.contains('-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Interface {
        interface("x", &wat::parse_str(text).expect("text")).expect("an interface")
    }

    #[test]
    fn what_is_asked_for_and_offered() {
        let module = of(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func))
                (import "env" "f" (func)) (memory (export "memory") 1) (func (export "_start")))"#);
        assert_eq!(module.form, Form::Module);
        let imports: Vec<_> =
            module.imports.iter().map(|import| (import.name.as_str(), import.grant.as_str())).collect();
        assert_eq!(imports, [("wasi_snapshot_preview1.fd_write", "granted"), ("env.f", "unmet")]);
        assert_eq!(module.exports, ["memory", "_start"]);

        let component = of(r#"(component
                (import "wasi:sockets/tcp@0.2.6" (instance))
                (import "wasi:filesystem/types@0.3.0" (instance))
                (import "wasi:cli/run@0.2.0" (instance))
                (import "app:thing/x" (instance $x))
                (type $found (record (field "words" u32)))
                (import "found" (type (eq $found)))
                (component (import "inner:not/shown" (instance)) (core module (import "a" "b" (func))))
                (export "app:thing/y" (instance $x)))"#);
        let imports: Vec<_> = component
            .imports
            .iter()
            .map(|import| (import.name.as_str(), import.grant.as_str(), import.by))
            .collect();
        assert_eq!(
            imports,
            [
                ("wasi:sockets/tcp@0.2.6", "denied", NETWORK),
                ("wasi:filesystem/types@0.3.0", "granted", FILES),
                ("wasi:cli/run@0.2.0", "unmet", ""),
                ("app:thing/x", "unmet", ""),
            ]
        );
        assert_eq!(component.exports, ["app:thing/y"]);
    }

    /// What is said here is what the linkers give: every name that they, or this file, know of.
    #[test]
    fn what_is_said_is_what_is_given() {
        let sources = [include_str!("p2/link.rs"), include_str!("p3/link.rs"), include_str!("imports.rs")];
        let quoted = sources.iter().flat_map(|text| text.split('"'));
        let mut names: Vec<String> = quoted
            .filter(|text| text.starts_with("wasi:") && text.contains('/'))
            .map(str::to_owned)
            .collect();
        let packages = [
            "wasi:io",
            "wasi:cli",
            "wasi:clocks",
            "wasi:filesystem",
            "wasi:random",
            "wasi:sockets",
            "wasi:http",
        ];
        for package in packages {
            for track in [Track::V2, Track::V3] {
                let known = known(package, track).iter();
                names.extend(known.map(|interface| format!("{package}/{interface}")));
            }
        }
        names.retain(|name| !name.contains('@') && !name.ends_with('/'));
        names.sort();
        names.dedup();
        assert!(names.len() > 30, "{names:#?}");
        let mut config = wasmtime::Config::new();
        config.wasm_component_model_async(true);
        let engine = wasmtime::Engine::new(&config).expect("an engine");
        for name in &names {
            for (track, version) in [(Track::V2, "0.2.12"), (Track::V3, "0.3.0")] {
                let mut linker = wasmtime::component::Linker::new(&engine);
                let given = match track {
                    Track::V2 => super::super::p2::link::add(&mut linker, name),
                    Track::V3 => super::super::p3::link::add(&mut linker, name),
                };
                let types = TYPES.iter().any(|(package, interface, of)| {
                    *of == track && *name == format!("{package}/{interface}")
                });
                let said = is_provided(&format!("{name}@{version}"));
                assert_eq!(said, given.is_some() || types, "{name}@{version}");
                given.transpose().unwrap_or_else(|error| panic!("{name}@{version}: {error:#}"));
            }
        }
    }

    #[test]
    fn functions_that_wasi_has_not() {
        let module = of(r#"(module (import "wasi_snapshot_preview1" "fd_dance" (func))
                (import "wasi_unstable" "sock_accept" (func (param i32 i32 i32) (result i32)))
                (import "wasi_unstable" "proc_exit" (func (param i32))))"#);
        let grants: Vec<_> = module.imports.iter().map(|import| import.grant.as_str()).collect();
        assert_eq!(grants, ["unmet", "unmet", "granted"]);
        let component = of(r#"(component (import "wasi:http/types@0.2.3" (instance))
                (import "wasi:http/outgoing-handler@0.2.3" (instance)) (import "wasi:http/client@0.3.0" (instance))
                (import "wasi:http/client@0.2.3" (instance)))"#);
        let grants: Vec<_> = component.imports.iter().map(|import| import.grant.as_str()).collect();
        assert_eq!(grants, ["granted", "denied", "denied", "unmet"]);
    }

    #[test]
    fn there_is_an_end_to_what_is_listed() {
        let exports: String =
            (0..2 * NAMES).map(|number| format!("(export \"f{number}\" (func 0))")).collect();
        let module = of(&format!("(module (func) {exports})"));
        assert_eq!((module.exports.len(), module.truncated), (NAMES, true));
        let long = of(&format!("(module (func (export \"{}\")))", "x".repeat(NAME + 1)));
        assert_eq!((long.exports.len(), long.truncated), (0, true));
    }

    #[test]
    fn names() {
        for (name, interface, track) in [
            ("wasi:cli/run@0.2.6", "wasi:cli/run", Some(Track::V2)),
            ("wasi:cli/run@0.3.0", "wasi:cli/run", Some(Track::V3)),
            ("wasi:cli/run@0.3.0-rc-2026-01-06", "wasi:cli/run", None),
            ("wasi:cli/run", "wasi:cli/run", None),
            ("wasi:cli/run@", "wasi:cli/run", None),
            ("run", "run", None),
            ("a:b/c@1.0.0", "a:b/c", None),
        ] {
            let parsed = Name::parse(name);
            assert_eq!((parsed.interface, parsed.track), (interface, track), "{name}");
        }
        assert!(Name::parse("wasi:cli/run@0.3.0-rc-2026-01-06").is_draft());
    }
}
