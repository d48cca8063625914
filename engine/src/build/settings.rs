//! Instructions that change no files: what they make of an image's configuration, and what its history says of them.

use std::fmt::Write as _;

use dhow_images::RunConfig;

use super::dockerfile::Command;

/// Sets a variable of an image's environment.
pub(super) fn set_env(config: &mut RunConfig, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match config.env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = entry,
        None => config.env.push(entry),
    }
}

/// A command as a list, with the shell where it is a line.
pub(super) fn list(command: &Command, shell: &[String]) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(line) => shell.iter().cloned().chain([line.clone()]).collect(),
    }
}

/// A command as Docker's history shows it.
pub(super) fn shown(name: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("{name} [{}]", words.join(" "))
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A working directory: what is not absolute begins at the one before.
pub(super) fn joined(before: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{before}/{path}") };
    crate::mounts::clean(&whole)
}

/// A target of `COPY`: as [`joined`], but a slash at the end says that it is a directory, and so does `.`.
pub(super) fn target(working_dir: &str, path: &str) -> String {
    let is_dir = path.ends_with('/') || path == "." || path.ends_with("/.") || path.is_empty();
    let mut whole = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    if !whole.starts_with('/') {
        whole.insert(0, '/');
    }
    if is_dir && !whole.ends_with('/') {
        whole.push('/');
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_go_does() {
        let words = ["/bin/sh".to_owned(), "-c".to_owned(), "echo \"a\"\n".to_owned()];
        assert_eq!(shown("CMD", &words), "CMD [\"/bin/sh\" \"-c\" \"echo \\\"a\\\"\\n\"]");
    }

    #[test]
    fn targets() {
        for (dir, path, expected) in [
            ("/w", "a", "/w/a"),
            ("/w", ".", "/w/./"),
            ("/w", "./", "/w/./"),
            ("", "a/", "/a/"),
            ("/w", "/x", "/x"),
        ] {
            assert_eq!(target(dir, path), expected, "{path}");
        }
        assert_eq!(joined("/a", "../b"), "/b");
        assert_eq!(joined("", "b"), "/b");
    }
}
