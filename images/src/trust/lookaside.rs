//! Where simple signatures lie: containers-registries.d(5), as far as it says that.
//!
//! These files are YAML. What is read of it is what such files consist of: mappings of plain or quoted text, one in
//! another by indentation. Anything else is an error that names file and line, so nothing is misread. Of the keys
//! only `lookaside` and its old name `sigstore` matter here; sigstore attachments are always looked for.

use std::collections::BTreeMap;
use std::path::Path;

use super::Checked;
use super::origin::Origin;
use super::policy;
use crate::Error;
use crate::Reference;
use crate::error::Result;

/// Deepest nesting of mappings.
const MAX_DEPTH: usize = 16;

/// Addresses of simple signatures, by image name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookaside {
    default: Option<String>,
    scopes: BTreeMap<String, String>,
}

impl Lookaside {
    /// One address for all images.
    #[must_use]
    pub fn of(base: &str) -> Self {
        Self { default: Some(base.to_owned()), scopes: BTreeMap::new() }
    }

    /// Reads the `*.yaml` files of a folder; nothing where there is no folder.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`] for a file that cannot be read or says something twice.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut all = Self::default();
        let entries = match fs_err::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            Err(e) => return Err(e.into()),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            policy::read_file(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8".into()))
                .and_then(|text| all.add(&text))
                .map_err(|reason| Error::InvalidPolicy { path: path.display().to_string(), reason })?;
        }
        Ok(all)
    }

    fn add(&mut self, text: &str) -> Checked<()> {
        for (path, value) in scalars(text)? {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let twice = || format!("\"{}\" is there twice, or in two files", path.join("/"));
            let before = match path.as_slice() {
                ["default-docker", "lookaside" | "sigstore"] => self.default.replace(value),
                ["docker", scope, "lookaside" | "sigstore"] => self.scopes.insert((*scope).to_owned(), value),
                _ => None,
            };
            if before.is_some() {
                return Err(twice());
            }
        }
        Ok(())
    }

    /// The address for an image: that of the most specific scope.
    pub(super) fn base(&self, name: &Reference) -> Option<&str> {
        let scopes = Origin::registry(name).scopes();
        scopes.iter().find_map(|scope| self.scopes.get(scope)).or(self.default.as_ref()).map(String::as_str)
    }
}

/// Every text of a document, with the keys that lead to it.
fn scalars(text: &str) -> Checked<Vec<(Vec<String>, String)>> {
    let mut found = Vec::new();
    // Indentation and key of the mappings that are open.
    let mut open: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let fail = |reason: &str| format!("line {}: {reason}", number + 1);
        let content = without_comment(line).trim_end();
        if content.trim().is_empty() || content == "---" {
            continue;
        }
        let indent = content.len() - content.trim_start_matches(' ').len();
        let content = content.trim_start_matches(' ');
        if content.starts_with('\t') {
            return Err(fail("a tab is no indentation"));
        }
        let (key, value) = split(content).ok_or_else(|| fail("only `key: value` is understood"))?;
        let key = plain(key).ok_or_else(|| fail("a key that is not understood"))?;
        while open.last().is_some_and(|(level, _)| *level >= indent) {
            open.pop();
        }
        if value.is_empty() {
            if open.len() == MAX_DEPTH {
                return Err(fail("nested too deeply"));
            }
            open.push((indent, key));
            continue;
        }
        let value = plain(value).ok_or_else(|| fail("a value that is not understood"))?;
        let path = open.iter().map(|(_, key)| key.clone()).chain([key]).collect();
        found.push((path, value));
    }
    Ok(found)
}

/// Key and value, at the first colon that ends a word outside of quotes.
fn split(content: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in content.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == ':' => {
                let rest = &content[at + 1..];
                if rest.is_empty() || rest.starts_with(' ') {
                    return Some((content[..at].trim_end(), rest.trim()));
                }
            }
            _ => {}
        }
    }
    None
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' && before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

/// Text that means itself.
fn plain(text: &str) -> Option<String> {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            let inner = inner.strip_suffix(quote)?;
            return (!inner.contains(['\\', '"', '\''])).then(|| inner.to_owned());
        }
    }
    let first = text.chars().next()?;
    let special = "-?:,[]{}#&*!|>%@`\"'";
    (!special.contains(first) && !text.contains(" #")).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_scope_has_the_address() {
        let text = "# Signatures\n---\ndefault-docker:\n  lookaside: file:///var/lib/sig  # local\n\ndocker:\n    localhost:5000:\n        sigstore: \"https://sig.example.com/a#b\"\n        use-sigstore-attachments: true\n    'registry.example.com/team':\n        lookaside: https://sig.example.com/team\n        lookaside-staging: file:///tmp/x\n";
        let mut lookaside = Lookaside::default();
        lookaside.add(text).unwrap();
        for (name, base) in [
            ("busybox", "file:///var/lib/sig"),
            ("localhost:5000/x:1", "https://sig.example.com/a#b"),
            ("registry.example.com/team/app", "https://sig.example.com/team"),
            ("registry.example.com/other", "file:///var/lib/sig"),
        ] {
            assert_eq!(lookaside.base(&name.parse().unwrap()), Some(base), "{name}");
        }
        assert_eq!(Lookaside::default().base(&"x".parse().unwrap()), None);
        assert!(lookaside.add("default-docker:\n  sigstore: file:///other\n").unwrap_err().contains("twice"));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for bad in [
            "docker:\n  - a\n",
            "docker: {a: b}\n",
            "docker:\n  a: &x y\n",
            "docker:\n  a: *x\n",
            "docker:\n  a: |\n    text\n",
            "docker:\n\ta: b\n",
            "just text\n",
            "a: \"b\\n\"\n",
            "\"a: b\n",
        ] {
            assert!(scalars(bad).unwrap_err().starts_with("line "), "{bad}");
        }
        let deep: String = (0..40).map(|depth| format!("{}k:\n", " ".repeat(depth))).collect();
        assert!(scalars(&deep).unwrap_err().contains("deeply"));
    }
}
