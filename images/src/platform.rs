//! Platforms, and which variant of an image fits.
//!
//! A Wasm platform has a Wasm architecture (`wasm`, `wasm32`); its operating system names the WASI version.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

use crate::Error;

/// What a variant of an image runs on: `os/architecture[/variant]`, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// For example `linux`, `wasip1`.
    #[serde(default)]
    pub os: String,
    /// For example `amd64`, `wasm`.
    #[serde(default)]
    pub architecture: String,
    /// For example `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The canonical form of these names: `x86_64` is `amd64`, `arm` is `arm/v7`, `arm64/v8` is `arm64`.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            (a, v) => (a, v),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// The native platform of this build: its operating system and architecture.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// `wasi/wasm`, the name of "any WASI".
    #[must_use]
    pub fn wasm() -> Self {
        Self::new("wasi", "wasm", None)
    }

    /// Whether this is a Wasm platform, whatever its WASI version.
    #[must_use]
    pub fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm32" | "wasm64")
    }

    /// Whether this names nothing that runs, as the entries of attestations do.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    pub(crate) fn normalised(&self) -> Self {
        Self::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Parses `os/architecture[/variant]`. A single word is an operating system (`linux`, `wasi`) or an
    /// architecture (`amd64`), completed from the host as Docker does.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidPlatform { text: text.into(), reason };
        let parts: Vec<&str> = text.split('/').collect();
        let word = |p: &&str| {
            p.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
                && p.len() <= 64
                && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if !parts.iter().all(word) {
            return Err(invalid("expected os/architecture[/variant]"));
        }
        match parts[..] {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            ["wasm" | "wasm32" | "wasi"] => Ok(Self::wasm()),
            [os @ ("wasip1" | "wasip2" | "wasip3")] => Ok(Self::new(os, "wasm", None)),
            [os @ ("linux" | "windows" | "darwin" | "macos" | "freebsd")] => {
                Ok(Self::new(os, &Self::host().architecture, None))
            }
            [architecture] if KNOWN_ARCHITECTURES.contains(&architecture) => {
                Ok(Self::new("linux", architecture, None))
            }
            [_] => Err(invalid("unknown operating system or architecture")),
            _ => Err(invalid("expected os/architecture[/variant]")),
        }
    }
}

const KNOWN_ARCHITECTURES: &[&str] = &[
    "amd64", "x86_64", "386", "i386", "arm", "arm64", "aarch64", "armhf", "armel", "loong64", "mips64le",
    "ppc64le", "riscv64", "s390x",
];

/// Which platforms are acceptable, and which of them is best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Host { wasm_first: bool },
    Only(Platform),
}

/// Better than any rank of the other kind of workload, worse than any of its own.
const SECOND_CHOICE: u32 = 100;

impl Matcher {
    /// What this host can run, Wasm before native: `wasi/wasm`, `wasip2`, `wasip1`, other Wasm, and on Linux
    /// hosts `linux/<host architecture>`.
    #[must_use]
    pub fn host() -> Self {
        Self(Kind::Host { wasm_first: true })
    }

    /// What this host can run, native before Wasm.
    #[must_use]
    pub fn native_first() -> Self {
        Self(Kind::Host { wasm_first: false })
    }

    /// This platform alone. `wasi/wasm` stands for any WASI version; an `arm` variant accepts lower ones.
    #[must_use]
    pub fn only(platform: &Platform) -> Self {
        Self(Kind::Only(platform.normalised()))
    }

    /// How good a platform is: 0 is best, `None` does not fit.
    #[must_use]
    pub fn rank(&self, platform: &Platform) -> Option<u32> {
        let platform = platform.normalised();
        match &self.0 {
            Kind::Only(wanted) => rank_only(wanted, &platform),
            Kind::Host { wasm_first } => {
                let second = |is_second: bool| if is_second { SECOND_CHOICE } else { 0 };
                if platform.is_wasm() {
                    return Some(rank_wasm(&platform) + second(!wasm_first));
                }
                if !cfg!(target_os = "linux") {
                    return None;
                }
                let host = Platform { os: "linux".into(), ..Platform::host() };
                rank_only(&host, &platform).map(|rank| rank + second(*wasm_first))
            }
        }
    }

    /// Whether a platform fits.
    #[must_use]
    pub fn matches(&self, platform: &Platform) -> bool {
        self.rank(platform).is_some()
    }
}

impl fmt::Display for Matcher {
    /// What an error says was wanted: `linux/amd64`, or `wasi/wasm or linux/amd64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Only(platform) => platform.fmt(f),
            Kind::Host { .. } if cfg!(target_os = "linux") => {
                write!(f, "wasi/wasm or linux/{}", Platform::host().architecture)
            }
            Kind::Host { .. } => f.write_str("wasi/wasm"),
        }
    }
}

fn rank_wasm(platform: &Platform) -> u32 {
    match platform.os.as_str() {
        "wasi" => 0,
        "wasip2" => 1,
        "wasip1" => 2,
        _ => 3,
    }
}

fn rank_only(wanted: &Platform, platform: &Platform) -> Option<u32> {
    if wanted.is_wasm() {
        let fits = platform.is_wasm() && (wanted.os == "wasi" || wanted.os == platform.os);
        return fits.then(|| rank_wasm(platform));
    }
    if wanted.os != platform.os || wanted.architecture != platform.architecture {
        return None;
    }
    if wanted.variant == platform.variant {
        return Some(0);
    }
    // Processors run what was built for lower levels of their architecture; no variant is the lowest.
    let level = |p: &Platform| match p.variant.as_deref() {
        None => Some(0),
        Some(v) => v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()).filter(|n| *n < SECOND_CHOICE),
    };
    let (wanted, found) = (level(wanted)?, level(platform)?);
    wanted.checked_sub(found).filter(|distance| *distance > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_normalises() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("wasi", "wasi/wasm"),
            ("wasip1", "wasip1/wasm"),
            ("arm64", "linux/arm64"),
            ("macos/arm64", "darwin/arm64"),
        ];
        for (text, canonical) in cases {
            assert_eq!(p(text).to_string(), canonical);
        }
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "nonsense", "linux/../x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_platform() {
        let cases = [
            ("wasi/wasm", "wasip1/wasm", true),
            ("wasi/wasm", "wasi/wasm32", true),
            ("wasip1/wasm", "wasip2/wasm", false),
            ("wasi/wasm", "linux/amd64", false),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64/v3", "linux/amd64", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/amd64", "linux/386", false),
            ("linux/amd64", "windows/amd64", false),
        ];
        for (wanted, found, fits) in cases {
            assert_eq!(Matcher::only(&p(wanted)).matches(&p(found)), fits, "{wanted} {found}");
        }
    }

    #[test]
    fn wasm_comes_first_and_native_falls_back() {
        let order = |matcher: &Matcher| {
            let native = format!("linux/{}", Platform::host().architecture);
            let mut all: Vec<Platform> = [&native, "wasip1/wasm", "wasi/wasm", "linux/s390x", "wasip2/wasm"]
                .iter()
                .map(|t| p(t))
                .collect();
            all.retain(|x| matcher.matches(x));
            all.sort_by_key(|x| matcher.rank(x));
            all.iter().map(|x| x.os.clone()).collect::<Vec<_>>()
        };
        let wasm = ["wasi", "wasip2", "wasip1"];
        if cfg!(target_os = "linux") {
            assert_eq!(order(&Matcher::host()), [&wasm[..], &["linux"]].concat());
            assert_eq!(order(&Matcher::native_first()), [&["linux"], &wasm[..]].concat());
        } else {
            assert_eq!(order(&Matcher::host()), wasm);
        }
    }
}
