//! Addresses of git repositories, as contexts and `ADD` have them. Nothing is fetched here.
//!
//! ```text
//! https://host/a.git#REF:FOLDER    REF a branch, tag, commit or full name of a reference; both may be missing
//! https://host/a.git?ref=..&subdir=..   or branch=, tag=, commit=
//! git@host:a.git   ssh://git@host/a.git   git://host/a   github.com/a/b
//! ```

/// A git repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// As `git` takes it.
    pub address: String,
    /// Branch, tag or commit; the repository's own choice if none.
    pub reference: Option<String>,
    /// A directory of it.
    pub folder: Option<String>,
}

impl Remote {
    /// Reads an address; `None` for what is no git repository.
    ///
    /// # Errors
    /// One that `git` could take for an option or that nobody means.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let (before, fragment) = text.split_once('#').map_or((text, None), |(a, b)| (a, Some(b)));
        let lower = before.to_ascii_lowercase();
        let is_http = lower.starts_with("http://") || lower.starts_with("https://");
        let (plain, query) = match before.split_once('?') {
            Some((plain, query)) if is_http => (plain, Some(query)),
            _ => (before, None),
        };
        let is_git = (is_http && plain.to_ascii_lowercase().ends_with(".git"))
            || ["git://", "ssh://"].iter().any(|start| lower.starts_with(start))
            || is_scp(before);
        let address = if is_git {
            plain.to_owned()
        } else if lower.starts_with("github.com/") && lower.matches('/').count() >= 2 {
            format!("https://{plain}")
        } else {
            return Ok(None);
        };
        let (mut reference, mut folder) = (None, None);
        for part in query.unwrap_or("").split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("ref" | "branch" | "tag" | "commit" | "checksum", value)) => {
                    reference = Some(value.to_owned());
                }
                Some(("subdir", value)) => folder = Some(value.to_owned()),
                _ => return Err(format!("unexpected query {part} of the git repository {address}")),
            }
        }
        if let Some(fragment) = fragment {
            let (name, below) = fragment.split_once(':').unwrap_or((fragment, ""));
            reference = Some(name.to_owned()).filter(|name| !name.is_empty()).or(reference);
            folder = Some(below.to_owned()).filter(|below| !below.is_empty()).or(folder);
        }
        let bad = |c: char| c.is_control() || c.is_whitespace();
        if address.contains(bad) || address.starts_with('-') {
            return Err(format!("invalid address of a git repository: {}", address.escape_debug()));
        }
        if let Some(name) = &reference
            && (name.starts_with(['-', '+'])
                || name.contains(bad)
                || name.contains([':', '^', '~', '*', '\\']))
        {
            return Err(format!("invalid git reference: {}", name.escape_debug()));
        }
        // A path of the repository, whatever it begins with.
        let folder =
            folder.map(|folder| folder.trim_matches('/').to_owned()).filter(|folder| !folder.is_empty());
        Ok(Some(Self { address, reference, folder }))
    }
}

/// `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let Some((host, path)) = rest.split_once(':') else { return false };
    word(user) && word(host) && !user.starts_with('-') && !host.starts_with('-') && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, address, reference, folder) in [
            ("https://h/a.git", "https://h/a.git", None, None),
            ("https://h/a.git#v1:sub/dir", "https://h/a.git", Some("v1"), Some("sub/dir")),
            ("https://h/a.git#:sub", "https://h/a.git", None, Some("sub")),
            ("https://h/a.git?ref=x&subdir=/y/", "https://h/a.git", Some("x"), Some("y")),
            ("git@h:a/b.git#main", "git@h:a/b.git", Some("main"), None),
            ("git://h/a", "git://h/a", None, None),
            ("ssh://git@h:22/a", "ssh://git@h:22/a", None, None),
            ("github.com/a/b#c", "https://github.com/a/b", Some("c"), None),
        ] {
            let remote = Remote::parse(text).unwrap().unwrap();
            let found = (remote.address.as_str(), remote.reference.as_deref(), remote.folder.as_deref());
            assert_eq!(found, (address, reference, folder), "{text}");
        }
        for text in
            ["https://h/a.tar", "a.git", "./git", "file:///a.git", "github.com", "a@b", "ext::sh -c x"]
        {
            assert_eq!(Remote::parse(text), Ok(None), "{text}");
        }
        for text in [
            "https://h/a.git#--upload-pack=x",
            "https://h/a.git#a b",
            "https://h/a.git#+refs/*",
            "https://h/a.git?exec=x",
            "https://h/ a.git",
        ] {
            assert!(Remote::parse(text).is_err(), "{text}");
        }
    }
}
