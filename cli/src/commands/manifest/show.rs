//! `manifest inspect`: what a name stands for at its registry, in Docker's layout.
//!
//! A manifest is shown as it is, only indented; an index in Docker's order of fields. With `-v` there is everything
//! about each manifest, its bytes included.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use dhow_engine::images::manifest_list::ManifestList;
use dhow_engine::images::registry::{RemoteManifest, manifest, manifest_with_platform, referrers};
use dhow_engine::images::{Error as ImagesError, Reference, media};
use dhow_engine::{Engine, Error};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Reach, check_type, parse};
use crate::error::hinted;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    reach: Reach,
    /// Show also what each manifest runs on, and its bytes
    #[arg(short, long)]
    verbose: bool,
    /// Show the artifacts that are about this image instead: signatures, bills of materials, … [TYPE: only those of it]
    #[arg(
        long,
        value_name = "TYPE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with = "verbose"
    )]
    referrers: Option<String>,
    /// A name at a registry or of a list in the making; or such a list, and one of its entries
    #[arg(value_name = "[MANIFEST_LIST] MANIFEST", required = true, num_args = 1..=2)]
    names: Vec<String>,
}

pub(super) fn run(ui: &Ui, engine: &Engine, args: &InspectArgs) -> Result<u8> {
    let text = match &args.names[..] {
        [list, name] => entry_of(engine, list, name, args.verbose)?,
        names => look_up(engine, &parse(&names[0])?, args)?,
    };
    ui.print(&text);
    Ok(0)
}

fn entry_of(engine: &Engine, list: &str, name: &str, verbose: bool) -> Result<String> {
    let (list, name) = (parse(list)?, parse(name)?);
    let found = engine.store().manifest_list(&list).map_err(Error::from)?;
    let entry = found.as_ref().and_then(|found| found.entries().iter().find(|entry| entry.reference == name));
    let Some(entry) = entry else { return Err(absent(&name)) };
    if !verbose {
        return Ok(indented(&entry.bytes, "\t"));
    }
    let platform = serde_json::to_value(&entry.platform)?;
    let shown = RemoteManifest { descriptor: entry.descriptor.clone(), bytes: entry.bytes.clone() };
    Ok(go_json(&everything(&entry.reference, &shown, Some(&platform)), "\t"))
}

fn look_up(engine: &Engine, name: &Reference, args: &InspectArgs) -> Result<String> {
    if let Some(kind) = &args.referrers {
        let kind = (!kind.is_empty()).then_some(kind.as_str());
        kind.map_or(Ok(()), check_type)?;
        let found = referrers(name, kind, &args.reach.access(name)?).map_err(Error::from)?;
        let found: Vec<Value> = found.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        let index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": found });
        return Ok(go_json(&index, "   "));
    }
    if let Some(list) = engine.store().manifest_list(name).map_err(Error::from)? {
        return of_list(&list, args.verbose);
    }
    let access = args.reach.access(name)?;
    let unknown = |error| match error {
        ImagesError::ManifestUnknown { .. } => absent(name),
        other => Error::from(other).into(),
    };
    if !args.verbose {
        let found = manifest(name, &access).map_err(unknown)?;
        return if media::is_index(&found.descriptor.media_type) {
            Ok(go_json(&index(&serde_json::from_slice(&found.bytes)?), "   "))
        } else {
            Ok(indented(&found.bytes, "\t"))
        };
    }
    let (top, entries) = manifest_with_platform(name, &access).map_err(unknown)?;
    if !media::is_index(&top.descriptor.media_type) {
        let platform = top.descriptor.platform.as_ref().map(serde_json::to_value).transpose()?;
        return Ok(go_json(&everything(name, &top, platform.as_ref()), "\t"));
    }
    // What an index says of a platform may be more than what is known here.
    let document: Value = serde_json::from_slice(&top.bytes)?;
    let said = document["manifests"].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let digest = entry.descriptor.digest.to_string();
            let platform = said.iter().find(|said| said["digest"] == digest).map(|said| &said["platform"]);
            let platform = platform.filter(|platform| platform.is_object());
            everything(&with_digest(name, entry), entry, platform)
        })
        .collect();
    Ok(go_json(&Value::Array(all), "\t"))
}

/// Docker names an entry by the list's name, its tag included.
fn with_digest(name: &Reference, entry: &RemoteManifest) -> Reference {
    let text = match name.tag() {
        Some(tag) => format!("{}:{tag}@{}", name.familiar_name(), entry.descriptor.digest),
        None => format!("{}@{}", name.familiar_name(), entry.descriptor.digest),
    };
    Reference::parse(&text).unwrap_or_else(|_| name.clone())
}

fn of_list(list: &ManifestList, verbose: bool) -> Result<String> {
    if !verbose {
        let mut text = list.to_bytes();
        text.push(b'\n');
        return Ok(String::from_utf8(text)?);
    }
    let entries = list.entries().iter().map(|entry| {
        let shown = RemoteManifest { descriptor: entry.descriptor.clone(), bytes: entry.bytes.clone() };
        let platform = serde_json::to_value(&entry.platform)?;
        Ok(everything(&entry.reference, &shown, Some(&platform)))
    });
    Ok(go_json(&Value::Array(entries.collect::<Result<_>>()?), "\t"))
}

fn absent(name: &Reference) -> anyhow::Error {
    hinted(format!("no such manifest: {}", name.canonical()), "check the name and the tag")
}

/// What `-v` shows of a manifest.
fn everything(name: &Reference, found: &RemoteManifest, platform: Option<&Value>) -> Value {
    let blob = &found.descriptor;
    let mut descriptor = json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size });
    if let Some(platform) = platform {
        descriptor["platform"] = ordered(platform, PLATFORM);
    }
    let mut shown = json!({
        "Ref": name.canonical(),
        "Descriptor": descriptor,
        "Raw": STANDARD.encode(&found.bytes),
    });
    let document: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
    let key = if blob.media_type == media::DOCKER_MANIFEST { "SchemaV2Manifest" } else { "OCIManifest" };
    let key = if media::is_index(&blob.media_type) { "Index" } else { key };
    shown[key] = of_manifest(&document);
    shown
}

const DESCRIPTOR: &[&str] =
    &["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];
const ENTRY: &[&str] = &["mediaType", "size", "digest", "urls", "annotations", "platform"];
const PLATFORM: &[&str] = &["architecture", "os", "os.version", "os.features", "variant"];
const MANIFEST: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
];

/// A manifest with its fields in Docker's order.
fn of_manifest(document: &Value) -> Value {
    let mut shown = ordered(document, MANIFEST);
    for key in ["config", "subject"] {
        if shown[key].is_object() {
            shown[key] = ordered(&shown[key], DESCRIPTOR);
        }
    }
    for key in ["layers", "manifests"] {
        if let Some(blobs) = shown.get_mut(key).and_then(Value::as_array_mut) {
            blobs.iter_mut().for_each(|blob| *blob = ordered(blob, DESCRIPTOR));
        }
    }
    if let Value::Object(fields) = &mut shown {
        fields.retain(|_, value| !value.is_null());
    }
    shown
}

/// An index with its fields in Docker's order. What Docker leaves out, annotations for example, follows.
fn index(document: &Value) -> Value {
    let mut shown = ordered(document, &["schemaVersion", "mediaType", "manifests"]);
    if let Some(entries) = shown.get_mut("manifests").and_then(Value::as_array_mut) {
        for entry in entries {
            *entry = ordered(entry, ENTRY);
            if entry["platform"].is_object() {
                entry["platform"] = ordered(&entry["platform"], PLATFORM);
            }
            if let Value::Object(fields) = entry {
                fields.retain(|_, value| !value.is_null());
            }
        }
    }
    shown
}

/// The same object, these fields first.
fn ordered(object: &Value, first: &[&str]) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let named = first.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone())));
    let mut sorted: Map<String, Value> = named.collect();
    for (key, value) in fields {
        if !sorted.contains_key(key) {
            sorted.insert(key.clone(), value.clone());
        }
    }
    Value::Object(sorted)
}

/// JSON as Go writes it, with a line break at the end: `<`, `>` and `&` are escaped.
fn go_json(value: &Value, indent: &str) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a JSON value to memory cannot fail.
    value.serialize(&mut serializer).ok();
    let text = String::from_utf8(text).unwrap_or_default();
    // Outside of strings there are none of these.
    let escapes = [
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ];
    let mut text = escapes.iter().fold(text, |text, (from, to)| text.replace(from, to));
    text.push('\n');
    text
}

/// The same document with other white space, as Go's `json.Indent` makes it: numbers and strings stay byte for byte.
fn indented(document: &[u8], indent: &str) -> String {
    let document = String::from_utf8_lossy(document);
    let mut text = String::with_capacity(document.len() * 2);
    let mut depth: usize = 0;
    let (mut in_string, mut escaped, mut fresh) = (false, false, false);
    for c in document.chars() {
        if in_string {
            text.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if fresh && !closes {
            depth += 1;
            line(&mut text, depth, indent);
        }
        match c {
            '{' | '[' => text.push(c),
            '}' | ']' => {
                if !fresh {
                    depth = depth.saturating_sub(1);
                    line(&mut text, depth, indent);
                }
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth, indent);
            }
            ':' => text.push_str(": "),
            c => {
                in_string = c == '"';
                // What is no JSON must not reach a terminal as it is.
                text.push(if c.is_control() { ' ' } else { c });
            }
        }
        fresh = matches!(c, '{' | '[');
    }
    text.push('\n');
    text
}

fn line(text: &mut String, depth: usize, indent: &str) {
    text.push('\n');
    text.extend(std::iter::repeat_n(indent, depth));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{go_json, indented, ordered};

    #[test]
    fn only_white_space_changes() {
        let cases = [
            ("{}", "{}\n"),
            (" { } ", "{}\n"),
            ("[ [],{} ]", "[\n\t[],\n\t{}\n]\n"),
            (
                r#"{"a":1.50,"b":["x\"}{","<é>"]}"#,
                "{\n\t\"a\": 1.50,\n\t\"b\": [\n\t\t\"x\\\"}{\",\n\t\t\"<é>\"\n\t]\n}\n",
            ),
            (r#"{"a":"\\","b":null}"#, "{\n\t\"a\": \"\\\\\",\n\t\"b\": null\n}\n"),
        ];
        for (document, expected) in cases {
            assert_eq!(indented(document.as_bytes(), "\t"), expected, "{document}");
        }
        assert_eq!(indented(b"}]\x1b[2J", "\t").matches('\u{1b}').count(), 0);
    }

    #[test]
    fn as_go_writes_it() {
        let value = ordered(&json!({"z": "<&>", "b": 1, "a": []}), &["a", "b"]);
        assert_eq!(
            go_json(&value, "   "),
            "{\n   \"a\": [],\n   \"b\": 1,\n   \"z\": \"\\u003c\\u0026\\u003e\"\n}\n"
        );
    }
}
