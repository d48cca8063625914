//! Guest code as it arrives: recognising it by its first bytes, and compiled, ready to be linked.

use super::imports::Name;
use crate::error::{Error, Result};

/// The largest module or component that is read.
pub(super) const SIZE_MAX: u64 = 1 << 30;

/// Compiled code.
#[derive(Clone)]
pub(super) enum Code {
    /// A core module, for WASI 0.1.
    Module(wasmtime::Module),
    /// A component.
    Component(wasmtime::component::Component),
    /// A component that answers HTTP. Its code is of a flavor that can be interrupted, to be asked for as such.
    Service,
}

/// The two binary forms, which share their first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// Which form `bytes` are.
///
/// # Errors
/// [`Error::InvalidModule`], saying what they are instead.
pub(super) fn form(path: &str, bytes: &[u8]) -> Result<Form> {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Form::Module),
        // The last two bytes are the layer: 1 is a component; the two before count the drafts.
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(Form::Component),
        [0, b'a', b's', b'm', a, b, ..] => {
            let version = u16::from_le_bytes([*a, *b]);
            Err(invalid(path, format!("WebAssembly of unknown version {version}")))
        }
        _ => Err(invalid(path, format!("not WebAssembly but {}", guess(bytes)))),
    }
}

/// What a file that is not WebAssembly looks like.
fn guess(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "an empty file",
        [0x7f, b'E', b'L', b'F', rest @ ..] if rest.get(3) == Some(&200) => {
            "code compiled by wasmtime, which is only taken from Dhow's own cache"
        }
        [0x7f, b'E', b'L', b'F', ..] => "a native Linux executable (ELF)",
        [b'M', b'Z', ..] => "a Windows executable",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "a macOS executable",
        [b'#', b'!', ..] => "a script",
        [0x1f, 0x8b, ..] => "a gzip archive",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd archive",
        [b'P', b'K', ..] => "a zip archive",
        [0, b'a', b's', b'm', ..] => "a truncated module",
        _ if !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok() => "text",
        _ => "unknown data",
    }
}

/// Which form `bytes` are as WebAssembly text, if they look like it: a parenthesis after white space and comments.
pub(super) fn text_form(bytes: &[u8]) -> Option<Form> {
    let mut rest = bytes;
    loop {
        rest = match rest.trim_ascii_start() {
            [b';', b';', line @ ..] => &line[line.iter().position(|byte| *byte == b'\n')?..],
            [b'(', b';', comment @ ..] => &comment[comment.windows(2).position(|pair| pair == b";)")? + 2..],
            [b'(', word @ ..] if word.trim_ascii_start().starts_with(b"component") => {
                return Some(Form::Component);
            }
            [b'(', ..] => return Some(Form::Module),
            _ => return None,
        };
    }
}

/// Whether a component answers HTTP: the names of its exports tell. One that is a command as well is a service: toolchains
/// give every program a main function, and none of them a handler.
pub(super) fn is_service(component: &[u8]) -> bool {
    use wasmparser::{Parser, Payload};
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentExportSection(exports)) if depth == 0 => {
                for export in exports.into_iter().flatten() {
                    let name = Name::parse(export.name.name);
                    let handler =
                        matches!(name.interface, "wasi:http/incoming-handler" | "wasi:http/handler");
                    if handler && name.track.is_some() {
                        return true;
                    }
                }
            }
            Ok(_) => {}
            // The compiler will say what is wrong.
            Err(_) => return false,
        }
    }
    false
}

pub(super) fn invalid(path: &str, reason: impl Into<String>) -> Error {
    Error::InvalidModule { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_file_is() {
        assert_eq!(form("x", b"\0asm\x01\0\0\0").ok(), Some(Form::Module));
        assert_eq!(form("x", b"\0asm\x0d\0\x01\0rest").ok(), Some(Form::Component));
        for (bytes, words) in [
            (&b""[..], "an empty file"),
            (b"\x7fELF\x02\x01\x01\0", "ELF"),
            (b"\x7fELF\x02\x01\x01\xc8", "own cache"),
            (b"#!/bin/sh\n", "a script"),
            (b"hello\n", "text"),
            (b"\0asm", "truncated"),
            (b"\0asm\x01\0\0", "unknown version 1"),
            (b"\0asm\x63\0\0\0", "unknown version 99"),
            (b"MZ\x90", "Windows"),
            (b"\x00\xff", "unknown data"),
        ] {
            let error = form("/app.wasm", bytes).expect_err(words).to_string();
            assert!(error.contains(words) && error.contains("/app.wasm"), "{error}");
        }
    }

    #[test]
    fn services_are_recognised() {
        let exporting = |names: &[&str]| {
            let exports: Vec<_> =
                names.iter().map(|name| format!("(export \"{name}\" (instance $i))")).collect();
            let text = format!("(component (core module) (component) (instance $i) {})", exports.join(" "));
            is_service(&wat::parse_str(text).expect("valid text"))
        };
        assert!(exporting(&["wasi:http/incoming-handler@0.2.0"]));
        assert!(exporting(&["a:b/c", "wasi:http/incoming-handler@0.2.12"]));
        assert!(exporting(&["wasi:http/handler@0.3.0"]));
        assert!(exporting(&["wasi:cli/run@0.2.0", "wasi:http/incoming-handler@0.2.0"]));
        for others in [
            &[][..],
            &["wasi:cli/run@0.2.0"],
            &["wasi:http/incoming-handler@0.2.0-rc"],
            &["wasi:http/types@0.2.0"],
        ] {
            assert!(!exporting(others), "{others:?}");
        }
        assert!(!is_service(b"\0asm\x0d\0\x01\0rest") && !is_service(b""));
    }

    #[test]
    fn text_is_recognised() {
        for (text, form) in [
            ("(module)", Some(Form::Module)),
            ("(func)", Some(Form::Module)),
            ("  ;; a\n(; b ;) ( component)", Some(Form::Component)),
            ("(module (data \"(component\"))", Some(Form::Module)),
            ("", None),
            ("hello", None),
            (";; only", None),
            ("(; open", None),
            ("\0asm", None),
        ] {
            assert_eq!(text_form(text.as_bytes()), form, "{text}");
        }
    }
}
