//! A function that a plugin exports: where it is, what it takes, what its answer means.

use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Type, Val};

use super::bytes::Shape;
use super::{Error, json, values};

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
        let differs = |place: &str, expected: String, found: String| Error::Incompatible {
            what: format!("{}{place}", self.name),
            expected,
            found,
        };
        let expected = || values::function(&self.ty);
        let args: Vec<serde_json::Value> = serde_json::from_str(text)
            .map_err(|error| differs("", "a JSON array".to_owned(), error.to_string()))?;
        if args.len() != self.ty.params().len() {
            return Err(differs("", expected(), format!("{} arguments", args.len())));
        }
        let read = |(arg, (name, ty)): (_, (&str, _))| {
            json::read(arg, &ty, name)
                .map_err(|wrong| differs(&format!(", {}", wrong.place), wrong.expected, wrong.found))
        };
        args.into_iter().zip(self.ty.params()).map(read).collect()
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

/// Every function that a component exports.
pub(super) fn entries(engine: &Engine, component: &Component) -> Vec<Entry> {
    let mut all = Vec::new();
    let mut add = |name: String, index: Option<ComponentExportIndex>, ty: ComponentFunc| {
        let may_fail = matches!(ty.results().next(), Some(Type::Result(_))) && ty.results().len() == 1;
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
