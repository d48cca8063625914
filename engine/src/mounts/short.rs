//! Docker's short form, `-v [SOURCE:]TARGET[:OPTIONS]`.

use std::path::Path;

use super::{MountKind, target};
use crate::error::{Error, Result};
use crate::volume;

/// One `-v` as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// A path of the host's, or a volume's name; `None` for a volume of the container's own.
    pub source: Option<String>,
    /// Path in the container, clean.
    pub target: String,
    /// The options as they were given.
    pub mode: String,
    /// Whether the container may write.
    pub writable: bool,
    /// An empty volume gets what the image has at the target.
    pub copy: bool,
    /// Mount propagation, `rprivate` when not given.
    pub propagation: &'static str,
}

impl Bind {
    /// Whether the source is a path or the name of a volume.
    pub fn kind(&self) -> MountKind {
        match &self.source {
            Some(source) if Path::new(source).is_absolute() => MountKind::Bind,
            _ => MountKind::Volume,
        }
    }

    /// Parses the short form.
    ///
    /// # Errors
    /// Docker's messages for what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        // A Windows drive's colon belongs to the source.
        let drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
        let split_from = if drive { 2 } else { 0 };
        let colon = text.get(split_from..).and_then(|rest| rest.find(':')).map(|at| at + split_from);
        let (source, rest) = match colon {
            Some(colon) => (Some(&text[..colon]), &text[colon + 1..]),
            None => (None, text),
        };
        let (place, mode) = match source {
            Some(_) => rest.split_once(':').unwrap_or((rest, "")),
            None => (rest, ""),
        };
        if source.is_some_and(str::is_empty) || place.is_empty() {
            return Err(Error::Invalid(format!("invalid spec: {text}: empty section between colons")));
        }
        let mut bind = Self {
            source: source.map(str::to_owned),
            target: String::new(),
            mode: mode.to_owned(),
            writable: true,
            copy: true,
            propagation: "rprivate",
        };
        let kind = bind.kind();
        bind.target = target(kind, place)
            .map_err(|error| Error::Invalid(format!("invalid volume specification: '{text}': {error}")))?;
        if let (MountKind::Volume, Some(name)) = (kind, &bind.source) {
            volume::validate(name).map_err(|error| match error {
                Error::Invalid(why) if name.starts_with('.') || name.contains(['/', '\\']) => Error::Invalid(
                    format!("{why}. If you intended to pass a host directory, use absolute path"),
                ),
                other => other,
            })?;
        }
        for option in mode.split(',').filter(|option| !option.is_empty()) {
            let of_bind = kind == MountKind::Bind;
            match option {
                "ro" => bind.writable = false,
                "rw" => bind.writable = true,
                "nocopy" if !of_bind => bind.copy = false,
                // SELinux labels concern hosts we do not have, and these words are hints to Docker Desktop.
                "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
                "nocopy" => {}
                "rprivate" if of_bind => bind.propagation = "rprivate",
                "private" if of_bind => bind.propagation = "private",
                "rslave" if of_bind => bind.propagation = "rslave",
                "slave" if of_bind => bind.propagation = "slave",
                "rshared" if of_bind => bind.propagation = "rshared",
                "shared" if of_bind => bind.propagation = "shared",
                _ => return Err(Error::Invalid(format!("invalid mode: {option}"))),
            }
        }
        Ok(bind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form() {
        let bind = Bind::parse("/src:/dst/:ro,rslave").unwrap();
        assert_eq!((bind.source.as_deref(), bind.target.as_str()), (Some("/src"), "/dst"));
        assert_eq!((bind.writable, bind.propagation, bind.kind()), (false, "rslave", MountKind::Bind));
        assert!(Bind::parse("/a b:/c d").unwrap().writable);
        let volume = Bind::parse("data:/srv:nocopy").unwrap();
        assert_eq!((volume.kind(), volume.copy), (MountKind::Volume, false));
        let own = Bind::parse("/only").unwrap();
        assert_eq!((own.kind(), own.source, own.target.as_str()), (MountKind::Volume, None, "/only"));
        for bad in [
            "",
            "only",
            ":",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/b:what",
            "/a:/b:ro:rw",
            "/a://",
            "x:/data",
            "../x:/data",
            "a/b:/data",
            "data:/x:rslave",
            "/",
            "é:/x",
        ] {
            assert!(Bind::parse(bad).is_err(), "{bad}");
        }
    }
}
