//! A core module with the memories and globals of a moment: sections are copied as they are, but for those that say what
//! memories and globals begin with. The module has been found valid before.

use std::ops::Range;

use wasmparser::{DataKind, ExternalKind, Operator, Parser, Payload, TypeRef, ValType};
use wasmtime::Val;

use super::INITIALIZE;

/// Zeros that are not worth a segment of their own: one costs some bytes.
const GAP: usize = 16;
/// Segments that a module may have.
const MAX_SEGMENTS: usize = 90_000;

/// Numbers of sections.
const TYPE: u8 = 1;
const FUNCTION: u8 = 3;
const MEMORY: u8 = 5;
const GLOBAL: u8 = 6;
const EXPORT: u8 = 7;
const START: u8 = 8;
const CODE: u8 = 10;
const DATA: u8 = 11;
const DATA_COUNT: u8 = 12;

pub(super) fn name_of_memory(number: u32) -> String {
    format!("dhow:preinit/memory-{number}")
}

pub(super) fn name_of_global(number: u32) -> String {
    format!("dhow:preinit/global-{number}")
}

/// What is known of a module. Numbers of memories and globals are the module's own, as none are imported.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    code: &'a [u8],
    /// Number and content, in their order.
    sections: Vec<(u8, Range<usize>)>,
    memories: Vec<wasmparser::MemoryType>,
    /// The type, and the initial value as it is written.
    globals: Vec<(wasmparser::GlobalType, Range<usize>)>,
    exports: Vec<(&'a str, ExternalKind, u32)>,
    functions: u32,
    types: u32,
    passive: Vec<&'a [u8]>,
    counts_data: bool,
}

/// Bytes at a place of a memory.
type Filled = (usize, Vec<u8>);

/// What memories and globals are.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// How many pages, and what is in them.
    memories: Vec<(u64, Vec<Filled>)>,
    globals: Vec<(u32, Vec<u8>)>,
}

impl Image {
    /// Adds the next memory.
    pub(super) fn memory(&mut self, pages: u64, bytes: &[u8]) {
        let mut gap = GAP;
        loop {
            let parts = parts(bytes, gap);
            if parts.len() <= MAX_SEGMENTS {
                let parts = parts.into_iter().map(|part| (part.start, bytes[part].to_vec())).collect();
                self.memories.push((pages, parts));
                return;
            }
            gap *= 4;
        }
    }

    /// Adds a global's value, as an expression.
    pub(super) fn global(&mut self, number: u32, value: &Val) {
        let mut bytes = Vec::new();
        match value {
            Val::I32(value) => {
                bytes.push(0x41);
                signed(&mut bytes, i64::from(*value));
            }
            Val::I64(value) => {
                bytes.push(0x42);
                signed(&mut bytes, *value);
            }
            Val::F32(bits) => {
                bytes.push(0x43);
                bytes.extend(bits.to_le_bytes());
            }
            Val::F64(bits) => {
                bytes.push(0x44);
                bytes.extend(bits.to_le_bytes());
            }
            Val::V128(value) => {
                bytes.extend([0xfd, 0x0c]);
                bytes.extend(value.as_u128().to_le_bytes());
            }
            // Its caller knows no other.
            _ => return,
        }
        bytes.push(0x0b);
        self.globals.push((number, bytes));
    }
}

/// The parts of a memory that are not zero, with gaps of zeros up to this.
fn parts(bytes: &[u8], gap: usize) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        // Most of a memory is zero: eight bytes at a time.
        match bytes.get(at..at + 8) {
            Some([0, 0, 0, 0, 0, 0, 0, 0]) => {
                at += 8;
                continue;
            }
            _ if bytes[at] == 0 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        match all.last_mut() {
            Some(last) if at - last.end <= gap => last.end = at + 1,
            _ => all.push(at..at + 1),
        }
        at += 1;
    }
    all
}

impl<'a> Parsed<'a> {
    /// Reads a valid module.
    ///
    /// # Errors
    /// Why it cannot be initialised.
    pub(super) fn of(code: &'a [u8]) -> Result<Self, String> {
        let mut parsed = Self {
            code,
            sections: sections(code).ok_or("its sections are damaged")?,
            memories: Vec::new(),
            globals: Vec::new(),
            exports: Vec::new(),
            functions: 0,
            types: 0,
            passive: Vec::new(),
            counts_data: false,
        };
        for payload in Parser::new(0).parse_all(code) {
            parsed.look_at(payload.map_err(said)?)?;
        }
        Ok(parsed)
    }

    fn look_at(&mut self, payload: Payload<'a>) -> Result<(), String> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    let count = group.map_err(said)?.types().count();
                    self.types += u32::try_from(count).map_err(said)?;
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    match import.map_err(said)?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => self.functions += 1,
                        TypeRef::Memory(_) => return Err("it imports a memory".to_owned()),
                        TypeRef::Table(_) => return Err("it imports a table".to_owned()),
                        TypeRef::Global(_) => return Err("it imports a global".to_owned()),
                        TypeRef::Tag(_) => {}
                    }
                }
            }
            Payload::FunctionSection(section) => self.functions += section.count(),
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memories.push(memory.map_err(said)?);
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let global = global.map_err(said)?;
                    if global.ty.mutable && matches!(global.ty.content_type, ValType::Ref(_)) {
                        return Err("a global that can change is a reference".to_owned());
                    }
                    self.globals.push((global.ty, global.init_expr.get_binary_reader().range()));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(said)?;
                    self.exports.push((export.name, export.kind, export.index));
                }
            }
            Payload::DataCountSection { .. } => self.counts_data = true,
            Payload::DataSection(section) => {
                for segment in section {
                    let segment = segment.map_err(said)?;
                    // What was written to memory is in the image.
                    let is_passive = matches!(segment.kind, DataKind::Passive);
                    self.passive.push(if is_passive { segment.data } else { &[] });
                }
            }
            Payload::CodeSectionEntry(body) => {
                let mut reader = body.get_operators_reader().map_err(said)?;
                while !reader.eof() {
                    let refused = refused(&reader.read().map_err(said)?);
                    if let Some(what) = refused {
                        return Err(format!("its code {what}, which cannot be written down"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn memories(&self) -> u32 {
        u32::try_from(self.memories.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn mutable_globals(&self) -> impl Iterator<Item = u32> {
        self.globals.iter().zip(0..).filter(|((ty, _), _)| ty.mutable).map(|(_, number)| number)
    }

    /// The module with all of its memories and globals exported.
    pub(super) fn opened(&self) -> Vec<u8> {
        let mut exports =
            self.exports.iter().map(|(name, kind, index)| exported(name, *kind, *index)).collect::<Vec<_>>();
        for number in 0..self.memories() {
            exports.push(exported(&name_of_memory(number), ExternalKind::Memory, number));
        }
        for number in self.mutable_globals() {
            exports.push(exported(&name_of_global(number), ExternalKind::Global, number));
        }
        self.written(&[(EXPORT, list(&exports))], &[])
    }

    /// The module as it is at a moment. Without `function` as an export, if that is given; else nothing that others may
    /// know is missing, and what must run before all else does nothing.
    pub(super) fn with(&self, image: &Image, function: Option<&str>) -> Vec<u8> {
        let mut new: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut exports = Vec::new();
        for (name, kind, index) in &self.exports {
            match function {
                Some(function) if *name == function || *name == INITIALIZE => {}
                None if *name == INITIALIZE => {
                    // A function of nothing, with a type of its own.
                    exports.push(exported(name, *kind, self.functions));
                    new.push((TYPE, self.longer(TYPE, &[0x60, 0, 0])));
                    let mut number = Vec::new();
                    unsigned(&mut number, u64::from(self.types));
                    new.push((FUNCTION, self.longer(FUNCTION, &number)));
                    new.push((CODE, self.longer(CODE, &[2, 0, 0x0b])));
                }
                _ => exports.push(exported(name, *kind, *index)),
            }
        }
        new.push((EXPORT, list(&exports)));
        if !self.memories.is_empty() {
            let memories =
                self.memories.iter().zip(&image.memories).map(|(ty, (pages, _))| memory(ty, *pages));
            new.push((MEMORY, list(&memories.collect::<Vec<_>>())));
        }
        if !self.globals.is_empty() {
            let globals = self.globals.iter().zip(0u32..).map(|((ty, init), number)| {
                let now = image.globals.iter().find(|(other, _)| *other == number);
                let now = now.map_or(&self.code[init.clone()], |(_, value)| value);
                let before = self.type_of_global(number, init.start);
                [before, &[u8::from(ty.mutable)], now].concat()
            });
            new.push((GLOBAL, list(&globals.collect::<Vec<_>>())));
        }
        let mut segments = Vec::new();
        if self.counts_data {
            // Code may name them.
            segments.extend(self.passive.iter().map(|bytes| segment(&[1], bytes)));
        }
        for (number, (ty, (_, parts))) in self.memories.iter().zip(&image.memories).enumerate() {
            for (at, bytes) in parts {
                let mut place = vec![2];
                unsigned(&mut place, number as u64);
                place.push(if ty.memory64 { 0x42 } else { 0x41 });
                // The same bits, as signed numbers are written.
                let at = *at as u64;
                let small = u32::try_from(at).unwrap_or_default().cast_signed();
                signed(&mut place, if ty.memory64 { at.cast_signed() } else { i64::from(small) });
                place.push(0x0b);
                segments.push(segment(&place, bytes));
            }
        }
        if self.counts_data {
            let mut count = Vec::new();
            unsigned(&mut count, segments.len() as u64);
            new.push((DATA_COUNT, count));
        }
        new.push((DATA, list(&segments)));
        self.written(&new, &[START])
    }

    /// The bytes of a global's value type: from the end of the one before to its own mutability.
    fn type_of_global(&self, number: u32, init: usize) -> &'a [u8] {
        let section = self.sections.iter().find(|(id, _)| *id == GLOBAL).map(|(_, range)| range.clone());
        let Some(section) = section else { return &[] };
        let start = match number.checked_sub(1).and_then(|before| self.globals.get(before as usize)) {
            Some((_, before)) => before.end,
            None => section.start + number_at(&self.code[section.start..]).map_or(0, |(_, length)| length),
        };
        self.code.get(start..init.saturating_sub(1)).unwrap_or_default()
    }

    /// A section with one more entry; a new one where there is none.
    fn longer(&self, id: u8, entry: &[u8]) -> Vec<u8> {
        let old = self.sections.iter().find(|(number, _)| *number == id);
        let old = old.map_or(&[0][..], |(_, range)| &self.code[range.clone()]);
        let (count, length) = number_at(old).unwrap_or((0, old.len()));
        let mut new = Vec::new();
        unsigned(&mut new, count + 1);
        new.extend_from_slice(&old[length..]);
        new.extend_from_slice(entry);
        new
    }

    /// The module with new contents of some sections, and without others.
    fn written(&self, new: &[(u8, Vec<u8>)], without: &[u8]) -> Vec<u8> {
        let mut out = self.code[..8].to_vec();
        let mut left: Vec<&(u8, Vec<u8>)> = new.iter().collect();
        // Sections stand in an order, in which tags come after memories and the count of data before code.
        let place = |id: u8| match id {
            13 => 2 * MEMORY + 1,
            DATA_COUNT => 2 * CODE - 1,
            id => 2 * id,
        };
        left.sort_by_key(|(id, _)| place(*id));
        let mut left = left.into_iter().peekable();
        for (id, range) in &self.sections {
            if *id != 0 {
                while let Some((other, content)) = left.next_if(|(other, _)| place(*other) < place(*id)) {
                    section(&mut out, *other, content);
                }
                if let Some((_, content)) = left.next_if(|(other, _)| other == id) {
                    section(&mut out, *id, content);
                    continue;
                }
                if without.contains(id) {
                    continue;
                }
            }
            section(&mut out, *id, &self.code[range.clone()]);
        }
        for (id, content) in left {
            section(&mut out, *id, content);
        }
        out
    }
}

/// What an image cannot hold: changed tables and references, and what was dropped.
fn refused(operator: &Operator<'_>) -> Option<&'static str> {
    Some(match operator {
        Operator::TableCopy { .. }
        | Operator::TableInit { .. }
        | Operator::TableSet { .. }
        | Operator::TableGrow { .. }
        | Operator::TableFill { .. } => "changes a table",
        Operator::ElemDrop { .. } => "has an elem.drop",
        Operator::DataDrop { .. } => "has a data.drop",
        Operator::StructSet { .. }
        | Operator::ArraySet { .. }
        | Operator::ArrayFill { .. }
        | Operator::ArrayCopy { .. }
        | Operator::ArrayInitData { .. }
        | Operator::ArrayInitElem { .. } => "changes what references lead to",
        _ => return None,
    })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The sections of a module or component: numbers and contents. `None` where one does not end.
pub(super) fn sections(code: &[u8]) -> Option<Vec<(u8, Range<usize>)>> {
    let mut all = Vec::new();
    let mut at = 8;
    while at < code.len() {
        let (size, length) = number_at(&code[at + 1..])?;
        let start = at + 1 + length;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        code.get(start..end)?;
        all.push((code[at], start..end));
        at = end;
    }
    Some(all)
}

/// An unsigned number, and how long it is.
fn number_at(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

pub(super) fn section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    unsigned(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn list(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    unsigned(&mut out, entries.len() as u64);
    out.extend(entries.concat());
    out
}

fn exported(name: &str, kind: ExternalKind, index: u32) -> Vec<u8> {
    let mut out = Vec::new();
    unsigned(&mut out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
    out.push(match kind {
        ExternalKind::Func => 0,
        ExternalKind::Table => 1,
        ExternalKind::Memory => 2,
        ExternalKind::Global => 3,
        ExternalKind::Tag => 4,
        ExternalKind::FuncExact => 0x20,
    });
    unsigned(&mut out, u64::from(index));
    out
}

/// A memory's type, which begins with so many pages.
fn memory(ty: &wasmparser::MemoryType, pages: u64) -> Vec<u8> {
    let flags = u8::from(ty.maximum.is_some())
        | u8::from(ty.shared) << 1
        | u8::from(ty.memory64) << 2
        | u8::from(ty.page_size_log2.is_some()) << 3;
    let mut out = vec![flags];
    unsigned(&mut out, pages);
    if let Some(maximum) = ty.maximum {
        unsigned(&mut out, maximum);
    }
    if let Some(log2) = ty.page_size_log2 {
        unsigned(&mut out, u64::from(log2));
    }
    out
}

fn segment(place: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut out = place.to_vec();
    unsigned(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

fn signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let [byte, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_format_has_them() {
        for (value, expected) in
            [(0, vec![0]), (63, vec![63]), (64, vec![0xc0, 0]), (-64, vec![0x40]), (-65, vec![0xbf, 0x7f])]
        {
            let mut out = Vec::new();
            signed(&mut out, value);
            assert_eq!(out, expected, "{value}");
        }
        let mut out = Vec::new();
        unsigned(&mut out, 624_485);
        assert_eq!((out.as_slice(), number_at(&out)), (&[0xe5, 0x8e, 0x26][..], Some((624_485, 3))));
        assert_eq!(number_at(&[0xff; 9]), None);
    }

    #[test]
    fn zeros_between_are_bridged_as_far_as_it_pays() {
        let mut bytes = vec![0; 100];
        (bytes[3], bytes[10], bytes[90]) = (1, 2, 3);
        assert_eq!(parts(&bytes, GAP), [3..11, 90..91]);
        assert_eq!(parts(&bytes, 100), vec![3..91; 1]);
        assert!(parts(&[0; 17], GAP).is_empty());
    }
}
