//! What guest code imports and exports, by name.

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
