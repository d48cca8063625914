//! A function that a plugin exports: where it is, what it takes, what its answer means.

use std::collections::HashMap;

use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Type, Val};

use super::bytes::Shape;
use super::{Error, json, values};
use crate::wasm::p2::{invoke, wave};

/// Where an exported function is.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) index: ComponentExportIndex,
    pub(super) ty: ComponentFunc,
    /// It gives a `result`, whose error is the plugin's own.
    pub(super) may_fail: bool,
    /// It takes and gives bytes and texts.
    pub(super) shape: Option<Shape>,
}

impl Entry {
    /// The arguments that a JSON array stands for.
    pub(super) fn json(&self, text: &str) -> Result<Vec<Val>, Error> {
        json_arguments(&self.name, &self.ty, text)
    }

    /// The arguments that words of a command line stand for.
    pub(super) fn words(&self, words: &[String]) -> Result<Vec<Val>, Error> {
        word_arguments(&self.name, &self.ty, words)
    }

    /// Of a function that gives a `result`, its two ways to end.
    pub(super) fn answer(&self, mut values: Vec<Val>) -> Result<Vec<Val>, Error> {
        if !self.may_fail {
            return Ok(values);
        }
        match values.pop() {
            Some(Val::Result(Ok(value))) => Ok(value.into_iter().map(|value| *value).collect()),
            Some(Val::Result(Err(value))) => Err(Error::Guest(value)),
            other => Ok(other.into_iter().collect()),
        }
    }

    /// Says that it was the arguments, if it was.
    pub(super) fn blame(&self, args: &[Val], error: Error) -> Error {
        let fits = || {
            args.len() == self.ty.params().len()
                && args.iter().zip(self.ty.params()).all(|(value, (_, ty))| values::fits(value, &ty))
        };
        if !matches!(error, Error::Trap { .. }) || fits() {
            return error;
        }
        let found: Vec<_> = args.iter().map(values::kind).collect();
        Error::Incompatible {
            what: self.name.clone(),
            expected: values::function(&self.ty),
            found: format!("({})", found.join(", ")),
        }
    }
}

/// The arguments of a function `name` that a JSON array stands for.
pub(super) fn json_arguments(name: &str, ty: &ComponentFunc, text: &str) -> Result<Vec<Val>, Error> {
    let differs = |place: &str, expected: String, found: String| Error::Incompatible {
        what: format!("{name}{place}"),
        expected,
        found,
    };
    let args: Vec<serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| differs("", "a JSON array".to_owned(), error.to_string()))?;
    if args.len() != ty.params().len() {
        return Err(differs("", values::function(ty), format!("{} arguments", args.len())));
    }
    let read = |(arg, (name, ty)): (_, (&str, _))| {
        json::read(arg, &ty, name)
            .map_err(|wrong| differs(&format!(", {}", wrong.place), wrong.expected, wrong.found))
    };
    args.into_iter().zip(ty.params()).map(read).collect()
}

/// The arguments of a function `name` that words in WAVE stand for.
pub(super) fn word_arguments(name: &str, ty: &ComponentFunc, words: &[String]) -> Result<Vec<Val>, Error> {
    let types: Vec<_> = ty.params().map(|(_, ty)| ty).collect();
    invoke::separate(&types, words).map_err(|found| Error::Incompatible {
        what: name.to_owned(),
        expected: values::function(ty),
        found,
    })
}

/// Answers in WAVE, a line each.
pub(super) fn lines(answer: &[Val]) -> String {
    answer.iter().map(|value| wave::print(value) + "\n").collect()
}

/// Whether a function gives a `result`, whose error is the plugin's own.
pub(super) fn may_fail(ty: &ComponentFunc) -> bool {
    matches!(ty.results().next(), Some(Type::Result(_))) && ty.results().len() == 1
}

/// Where in a list of functions one is: by its full name, and by the name alone where that is enough.
pub(super) fn by_name<'a>(names: impl Iterator<Item = &'a str> + Clone) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    let mut ambiguous = Vec::new();
    for (number, name) in names.clone().enumerate() {
        let alone = name.rsplit('#').next().unwrap_or_default();
        if found.insert(alone.to_owned(), number).is_some() {
            ambiguous.push(alone.to_owned());
        }
    }
    for name in ambiguous {
        found.remove(&name);
    }
    // A function that is in no interface is meant by its name, whatever interfaces have.
    found.extend(names.enumerate().map(|(number, name)| (name.to_owned(), number)));
    found
}

/// Every function that a component exports.
pub(super) fn entries(engine: &Engine, component: &Component) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut add = |name: String, index: Option<ComponentExportIndex>, ty: ComponentFunc| {
        let may_fail = may_fail(&ty);
        let shape = Shape::of(&ty);
        all.extend(index.map(|index| Entry { name, index, ty, may_fail, shape }));
    };
    for (name, item) in component.component_type().exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(ty) => {
                add(name.to_owned(), component.get_export_index(None, name), ty);
            }
            ComponentItem::ComponentInstance(interface) => {
                let Some(parent) = component.get_export_index(None, name) else { continue };
                for (function, item) in interface.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = item.ty {
                        let index = component.get_export_index(Some(&parent), function);
                        add(format!("{name}#{function}"), index, ty);
                    }
                }
            }
            _ => {}
        }
    }
    all
}
