//! Types and values in words, as WIT writes them, for errors; and whether a value is of a type.

use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{Type, Val};

/// A function's type: `func(string, list<u8>) -> u32`.
pub(super) fn function(ty: &ComponentFunc) -> String {
    let params: Vec<_> = ty.params().map(|(_, ty)| text(&ty)).collect();
    let results: Vec<_> = ty.results().map(|ty| text(&ty)).collect();
    let arrow = if results.is_empty() { "" } else { " -> " };
    format!("func({}){arrow}{}", params.join(", "), results.join(", "))
}

/// A type.
pub(super) fn text(ty: &Type) -> String {
    let of = |name: &str, parts: Vec<String>| format!("{name}<{}>", parts.join(", "));
    let maybe = |ty: Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| text(&ty));
    let braced = |name: &str, parts: Vec<String>| format!("{name} {{{}}}", parts.join(", "));
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::S8 => "s8".to_owned(),
        Type::U8 => "u8".to_owned(),
        Type::S16 => "s16".to_owned(),
        Type::U16 => "u16".to_owned(),
        Type::S32 => "s32".to_owned(),
        Type::U32 => "u32".to_owned(),
        Type::S64 => "s64".to_owned(),
        Type::U64 => "u64".to_owned(),
        Type::Float32 => "f32".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Char => "char".to_owned(),
        Type::String => "string".to_owned(),
        Type::List(list) => of("list", vec![text(&list.ty())]),
        Type::Tuple(tuple) => of("tuple", tuple.types().map(|ty| text(&ty)).collect()),
        Type::Option(option) => of("option", vec![text(&option.ty())]),
        Type::Result(result) => of("result", vec![maybe(result.ok()), maybe(result.err())]),
        Type::Record(record) => {
            let field =
                |field: wasmtime::component::types::Field<'_>| format!("{}: {}", field.name, text(&field.ty));
            braced("record", record.fields().map(field).collect())
        }
        Type::Variant(variant) => {
            let case = |case: wasmtime::component::types::Case<'_>| match case.ty {
                Some(ty) => format!("{}({})", case.name, text(&ty)),
                None => case.name.to_owned(),
            };
            braced("variant", variant.cases().map(case).collect())
        }
        Type::Enum(names) => braced("enum", names.names().map(str::to_owned).collect()),
        Type::Flags(names) => braced("flags", names.names().map(str::to_owned).collect()),
        Type::Own(_) => "own<resource>".to_owned(),
        Type::Borrow(_) => "borrow<resource>".to_owned(),
        _ => "another type".to_owned(),
    }
}

/// What a value is, as far as it shows.
pub(super) fn kind(value: &Val) -> String {
    match value {
        Val::Bool(_) => "bool",
        Val::S8(_) => "s8",
        Val::U8(_) => "u8",
        Val::S16(_) => "s16",
        Val::U16(_) => "u16",
        Val::S32(_) => "s32",
        Val::U32(_) => "u32",
        Val::S64(_) => "s64",
        Val::U64(_) => "u64",
        Val::Float32(_) => "f32",
        Val::Float64(_) => "f64",
        Val::Char(_) => "char",
        Val::String(_) => "string",
        Val::List(items) => {
            return items.first().map_or("list".to_owned(), |first| format!("list<{}>", kind(first)));
        }
        Val::Tuple(items) => {
            let items: Vec<_> = items.iter().map(kind).collect();
            return format!("tuple<{}>", items.join(", "));
        }
        Val::Record(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name}: {}", kind(value))).collect();
            return format!("record {{{}}}", fields.join(", "));
        }
        Val::Variant(case, _) => return format!("variant {{{case}}}"),
        Val::Enum(case) => return format!("enum {{{case}}}"),
        Val::Option(value) => {
            return value.as_ref().map_or("option".to_owned(), |value| format!("option<{}>", kind(value)));
        }
        Val::Result(_) => "result",
        Val::Flags(names) => return format!("flags {{{}}}", names.join(", ")),
        Val::Resource(_) => "resource",
        _ => "another type",
    }
    .to_owned()
}

/// Whether a value is of a type.
pub(super) fn fits(value: &Val, ty: &Type) -> bool {
    let maybe = |value: &Option<Box<Val>>, ty: Option<Type>| match (value, ty) {
        (Some(value), Some(ty)) => fits(value, &ty),
        (None, None) => true,
        _ => false,
    };
    match (value, ty) {
        (Val::Bool(_), Type::Bool)
        | (Val::S8(_), Type::S8)
        | (Val::U8(_), Type::U8)
        | (Val::S16(_), Type::S16)
        | (Val::U16(_), Type::U16)
        | (Val::S32(_), Type::S32)
        | (Val::U32(_), Type::U32)
        | (Val::S64(_), Type::S64)
        | (Val::U64(_), Type::U64)
        | (Val::Float32(_), Type::Float32)
        | (Val::Float64(_), Type::Float64)
        | (Val::Char(_), Type::Char)
        | (Val::String(_), Type::String)
        | (Val::Resource(_), Type::Own(_) | Type::Borrow(_)) => true,
        (Val::List(items), Type::List(list)) => {
            let ty = list.ty();
            items.iter().all(|item| fits(item, &ty))
        }
        (Val::Tuple(items), Type::Tuple(tuple)) => {
            items.len() == tuple.types().len()
                && items.iter().zip(tuple.types()).all(|(item, ty)| fits(item, &ty))
        }
        (Val::Record(fields), Type::Record(record)) => {
            let both = || fields.iter().zip(record.fields());
            fields.len() == record.fields().len()
                && both().all(|((name, value), field)| name == field.name && fits(value, &field.ty))
        }
        (Val::Variant(name, payload), Type::Variant(variant)) => {
            variant.cases().find(|case| case.name == name).is_some_and(|case| maybe(payload, case.ty))
        }
        (Val::Enum(name), Type::Enum(names)) => names.names().any(|one| one == name),
        (Val::Option(value), Type::Option(option)) => {
            value.as_ref().is_none_or(|value| fits(value, &option.ty()))
        }
        (Val::Result(Ok(value)), Type::Result(result)) => maybe(value, result.ok()),
        (Val::Result(Err(value)), Type::Result(result)) => maybe(value, result.err()),
        (Val::Flags(set), Type::Flags(names)) => set.iter().all(|one| names.names().any(|name| name == one)),
        _ => false,
    }
}
