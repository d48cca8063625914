//! Docker's seccomp profiles (`--security-opt seccomp=FILE`) in the words of the OCI runtime specification: what is only for
//! some architecture, kernel or capability is decided here.

use std::collections::BTreeSet;

use dhow_runtime::spec::LinuxSeccomp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The largest profile; Docker's own has 14 KB.
const LARGEST: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Architectures>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architectures {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Value>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: String,
}

/// What a container's process is, for the conditions of a profile.
pub(super) struct Subject<'a> {
    /// Its capabilities, as `CAP_SYS_ADMIN`.
    pub(super) capabilities: &'a BTreeSet<String>,
    /// Major and minor number of the kernel.
    pub(super) kernel: (u32, u32),
}

/// Reads a profile.
pub(super) fn read(text: &str, subject: &Subject<'_>) -> Result<LinuxSeccomp> {
    let refused = |reason: String| Error::Invalid(format!("decoding seccomp profile failed: {reason}"));
    if text.len() > LARGEST {
        return Err(refused(format!("it has more than {LARGEST} bytes")));
    }
    let profile: Profile = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        let reason = "use either 'architectures' or 'archMap'";
        return Err(refused(reason.to_owned()));
    }
    let own = format!("SCMP_ARCH_{}", if cfg!(target_arch = "aarch64") { "AARCH64" } else { "X86_64" });
    let mut architectures = profile.architectures;
    for entry in profile.arch_map.into_iter().filter(|entry| entry.architecture == own) {
        architectures.push(entry.architecture);
        architectures.extend(entry.sub_architectures);
    }
    let mut calls = Vec::new();
    for mut entry in profile.syscalls {
        let fits = entry.includes.holds(subject, true) && !entry.excludes.holds(subject, false);
        if !fits {
            continue;
        }
        if !entry.name.is_empty() {
            if !entry.names.is_empty() {
                return Err(refused("use either 'name' or 'names'".to_owned()));
            }
            entry.names.push(entry.name);
        }
        if entry.names.is_empty() {
            continue;
        }
        let mut call = json!({ "names": entry.names, "action": entry.action });
        if let Some(number) = entry.errno_ret {
            call["errnoRet"] = number.into();
        }
        if let Some(args) = entry.args.filter(|args| !args.is_null()) {
            call["args"] = args;
        }
        calls.push(call);
    }
    let mut all = json!({ "defaultAction": profile.default_action, "syscalls": calls });
    if let Some(number) = profile.default_errno_ret {
        all["defaultErrnoRet"] = number.into();
    }
    if !architectures.is_empty() {
        all["architectures"] = json!(architectures);
    }
    if !profile.flags.is_empty() {
        all["flags"] = json!(profile.flags);
    }
    serde_json::from_value(all).map_err(|error| refused(error.to_string()))
}

impl Condition {
    /// Whether it holds: an including one in all its parts, an excluding one in any.
    fn holds(&self, subject: &Subject<'_>, including: bool) -> bool {
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let has = |cap: &String| subject.capabilities.contains(cap);
        let new_enough = || {
            let mut numbers = self.min_kernel.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
            subject.kernel >= (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
        };
        let is_own = |arch: &String| arch == own || (arch == "x32" && own == "amd64" && !including);
        if including {
            self.caps.iter().all(has)
                && (self.arches.is_empty() || self.arches.iter().any(is_own))
                && (self.min_kernel.is_empty() || new_enough())
        } else {
            self.caps.iter().any(has)
                || self.arches.iter().any(|arch| arch == own)
                || (!self.min_kernel.is_empty() && new_enough())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_decided() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [
                { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] },
                { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] },
                { "architecture": "SCMP_ARCH_S390X" }
            ],
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
                { "names": ["futurecall"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "99.1" } },
                { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"] },
                  "args": [{ "index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ" }] },
                { "name": "write", "action": "SCMP_ACT_ALLOW" }
            ] }"#;
        let names = |capabilities: &[&str]| {
            let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
            let profile = read(text, &Subject { capabilities: &capabilities, kernel: (6, 1) }).unwrap();
            assert_eq!(profile.architectures().as_ref().unwrap().len(), 2);
            let calls = profile.syscalls().as_ref().unwrap();
            calls.iter().flat_map(|call| call.names().clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["read", "ptrace", "clone", "write"]);
        assert_eq!(names(&["CAP_SYS_ADMIN"]), ["read", "ptrace", "mount", "write"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let none = BTreeSet::new();
        let subject = Subject { capabilities: &none, kernel: (6, 1) };
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"defaultAction": "FOO"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"]}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "x"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "x", "names": ["y"], "action": "SCMP_ACT_ALLOW"}]}"#,
        ] {
            assert!(read(text, &subject).is_err(), "{text}");
        }
        let endless = format!("{{\"defaultAction\": \"{}\"}}", "x".repeat(LARGEST));
        assert!(read(&endless, &subject).is_err());
    }
}
