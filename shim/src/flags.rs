//! The command line, as Go programs take theirs: flags with one dash or two, values after `=` or a space, then a verb.

/// What containerd says about itself and a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// The container's folder, where this program is called.
    pub(crate) bundle: String,
    /// containerd's own socket.
    pub(crate) address: String,
    pub(crate) debug: bool,
    pub(crate) version: bool,
    pub(crate) info: bool,
    /// `start` or `delete`.
    pub(crate) verb: String,
}

impl Flags {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                flags.verb = word;
                break;
            };
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let switch = match name {
                "debug" => Some(&mut flags.debug),
                "v" | "version" => Some(&mut flags.version),
                "info" => Some(&mut flags.info),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = attached.as_deref() != Some("false");
                continue;
            }
            let value = match attached {
                Some(value) => value,
                None => words.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            match name {
                "namespace" => flags.namespace = value,
                "id" => flags.id = value,
                "bundle" => flags.bundle = value,
                "address" => flags.address = value,
                // The socket is always the one that is made here, and events go by ttrpc.
                "socket" | "publish-binary" => {}
                _ => return Err(format!("flag provided but not defined: -{name}")),
            }
        }
        Ok(flags)
    }
}

/// Whether a word of containerd's can be the name of a folder: what it allows itself.
pub(crate) fn is_name(word: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
    !word.is_empty() && word.len() <= 128 && !matches!(word, "." | "..") && word.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn containerd_s_line_is_read() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a -debug start";
        let flags = parse(line).unwrap();
        assert_eq!((flags.namespace.as_str(), flags.id.as_str()), ("k8s.io", "a"));
        assert_eq!((flags.verb.as_str(), flags.debug), ("start", true));
        let flags = parse("--namespace=a -debug=false --bundle=/b delete").unwrap();
        assert_eq!((flags.bundle.as_str(), flags.debug, flags.verb.as_str()), ("/b", false, "delete"));
        assert!(parse("-v").unwrap().version);
        for wrong in ["-nope x", "-id"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_names() {
        for name in ["default", "k8s.io", "a_b-c.1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../a", "a b", "a\0", &"x".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
