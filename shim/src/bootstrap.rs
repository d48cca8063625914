//! What containerd is answered before there is a connection, in the words that its version understands.
//!
//! | containerd | on standard input of `start` | understood |
//! |---|---|---|
//! | 1.6 | the runtime's options, or nothing | the address and nothing else |
//! | 1.7, 2.0 to 2.2 | the same | that too |
//! | 2.3 and later | `BootstrapParams` | `BootstrapResult`, and what was before |
//!
//! The server has both versions of the task service, so the bare address is right wherever the question is not clearly
//! the new one. Options may look like the new question by accident; its id and namespace tell.

use crate::wire::Message as _;

use crate::flags::Flags;
use crate::messages::{Any, BootstrapParams, BootstrapResult, RuntimeInfo, RuntimeVersion};

/// The version of the task service that new callers are told.
const TASK_VERSION: i32 = 3;

/// The question, when it is the new one.
pub(crate) fn params(asked: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    let params = BootstrapParams::decode(asked).ok()?;
    (params.instance_id == flags.id && params.namespace == flags.namespace).then_some(params)
}

/// The answer to `start`.
pub(crate) fn answer(address: &str, params: Option<&BootstrapParams>) -> Vec<u8> {
    if params.is_none() {
        return address.as_bytes().to_vec();
    }
    let protocol = "ttrpc".to_owned();
    BootstrapResult { version: TASK_VERSION, address: address.to_owned(), protocol }.encode_to_vec()
}

/// For `-v`.
pub(crate) fn version() -> String {
    format!("containerd-shim-dhow-v1:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"))
}

/// For `-info`: what this runtime can do.
pub(crate) fn info() -> Vec<u8> {
    let features =
        dhow_runtime::native::features().ok().and_then(|features| serde_json::to_vec(&features).ok());
    RuntimeInfo {
        name: "containerd-shim-dhow-v1".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        features: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned(),
            value: features.unwrap_or_default(),
        }),
        annotations: std::collections::HashMap::new(),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::RuncOptions;

    fn flags() -> Flags {
        Flags { id: "one".into(), namespace: "default".into(), ..Flags::default() }
    }

    /// What containerd 1.6 to 2.2 write: nothing, or options.
    #[test]
    fn old_questions_get_the_bare_address() {
        let options = RuncOptions { systemd_cgroup: true, ..RuncOptions::default() };
        let options = Any::of("containerd.runc.v1.Options", &options).encode_to_vec();
        // Options that decode as the new question, too.
        let close = BootstrapParams { instance_id: "other".into(), ..BootstrapParams::default() };
        for asked in [Vec::new(), options, close.encode_to_vec(), b"\xff\xff nothing at all".to_vec()] {
            let params = params(&asked, &flags());
            assert_eq!(params, None);
            assert_eq!(answer("unix:///s", params.as_ref()), b"unix:///s");
        }
    }

    #[test]
    fn the_new_question_gets_the_new_answer() {
        let asked = BootstrapParams {
            instance_id: "one".into(),
            namespace: "default".into(),
            containerd_ttrpc_address: "/run/ttrpc".into(),
            socket_dir: Some("/run/dir".into()),
        };
        let params = params(&asked.encode_to_vec(), &flags()).expect("the new question");
        let answer = BootstrapResult::decode(&answer("unix:///s", Some(&params))).unwrap();
        assert_eq!((answer.version, answer.address.as_str()), (3, "unix:///s"));
        assert_eq!(answer.protocol, "ttrpc");
    }

    #[test]
    fn what_it_can_do_is_said() {
        let said = RuntimeInfo::decode(&info()).unwrap();
        let features: serde_json::Value = serde_json::from_slice(&said.features.unwrap().value).unwrap();
        assert_eq!(features["ociVersionMin"], "1.0.0");
    }
}
