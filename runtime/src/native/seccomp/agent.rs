//! The seccomp agent: who decides about calls whose action is `SCMP_ACT_NOTIFY`.
//!
//! The connection is made before the container's process exists; the process itself hands the listener over right after
//! it has put itself under the filter, so that it does not matter who opens the gate, and when. What it says is the
//! specification's container process state.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::invalid;
use crate::error::{Error, Result};
use crate::native::report::send_with_fd;

/// A connection to the agent, and what it is told.
#[derive(Debug)]
pub(in crate::native) struct Agent {
    connection: OwnedFd,
    /// The state in three parts; the process id goes between them.
    parts: [String; 3],
}

impl Agent {
    /// Connects to a profile's agent. `bundle` is where the container's specification lies.
    ///
    /// # Errors
    /// When the profile names no agent, or nobody listens there.
    pub(in crate::native) fn connect(
        profile: &LinuxSeccomp,
        (id, bundle): (&str, &Path),
        spec: &Spec,
    ) -> Result<Self> {
        let path = profile.listener_path().as_deref().filter(|path| !path.as_os_str().is_empty());
        let Some(path) = path else {
            return Err(invalid("SCMP_ACT_NOTIFY needs listenerPath".to_owned()));
        };
        let connected = SocketAddrUnix::new(path).and_then(|address| {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            connect(&socket, &address)?;
            Ok(socket)
        });
        let connection = connected.map_err(|errno| Error::Setup {
            action: format!("connect to the seccomp agent at {}", path.display()),
            source: errno.into(),
        })?;
        let version = spec.version();
        let metadata = profile.listener_metadata().as_deref().unwrap_or_default();
        let annotations =
            spec.annotations().iter().flatten().map(|(key, value)| format!("{}:{}", text(key), text(value)));
        let annotations = annotations.collect::<Vec<_>>().join(",");
        let parts = [
            format!("{{\"ociVersion\":{},\"fds\":[\"seccompFd\"],\"pid\":", text(version)),
            format!(
                ",\"metadata\":{},\"state\":{{\"ociVersion\":{},\"id\":{},\"status\":\"creating\",\"pid\":",
                text(metadata),
                text(version),
                text(id)
            ),
            format!(",\"bundle\":{},\"annotations\":{{{annotations}}}}}}}", text(&bundle.to_string_lossy())),
        ];
        Ok(Self { connection, parts })
    }

    /// Hands the listener over. `pid` is the process as the host counts.
    pub(in crate::native) fn hand_over(
        &self,
        listener: &OwnedFd,
        pid: u32,
    ) -> std::result::Result<(), Errno> {
        let [start, middle, end] = &self.parts;
        let message = format!("{start}{pid}{middle}{pid}{end}");
        let mut rest = message.as_bytes();
        // A stream may take it in pieces; the descriptor goes with the first.
        let mut fd = Some(listener.as_fd());
        while !rest.is_empty() {
            let sent = send_with_fd(&self.connection, rest, fd.take())?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

/// JSON's form of a text.
fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(text("a\"b\\c\n\u{1}é"), "\"a\\\"b\\\\c\\u000a\\u0001é\"");
    }

    #[test]
    fn an_agent_is_needed_and_must_listen() {
        let mut profile = LinuxSeccomp::default();
        let bundle = Path::new("/bundle");
        let error = Agent::connect(&profile, ("id", bundle), &Spec::default()).expect_err("no agent");
        assert!(error.to_string().contains("listenerPath"), "{error}");
        profile.set_listener_path(Some("/nowhere/agent".into()));
        let error = Agent::connect(&profile, ("id", bundle), &Spec::default()).expect_err("nobody listens");
        assert!(error.to_string().contains("/nowhere/agent"), "{error}");
    }
}
