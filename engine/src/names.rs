//! Container names: Docker's grammar, exclusive claims on disk, and made-up ones.
//!
//! A claim is `names/<name>`, a symbolic link whose target is an id and leads nowhere: one system call makes it
//! exclusively and in whole, one reads it. The id's 32 bytes are in base64 there: file systems keep links of up to 59 bytes
//! in the inode, and take a block of the disk for 64. Where such links need rights (Windows) it is a file that holds the id.
//! It is made between the container's folder and its record, so a claim is stale, and may be taken over, when its container
//! has no record and nobody is working on it.

use std::io::ErrorKind;
use std::path::Path;

#[cfg(unix)]
use base64::Engine as _;
#[cfg(unix)]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fs_err as fs;

use crate::error::{Error, Result};

/// Checks Docker's grammar for names.
pub(crate) fn validate(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && (2..=128).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 128 characters"
    )))
}

/// Who owns a name.
pub(crate) fn owner(names: &Path, name: &str) -> Result<Option<String>> {
    if validate(name).is_err() {
        return Ok(None);
    }
    match read(&names.join(name)) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(unix)]
fn read(claim: &Path) -> std::io::Result<String> {
    match fs::read_link(claim) {
        Ok(target) => Ok(long(&target.to_string_lossy())),
        // Earlier versions made files.
        Err(error) if error.kind() == ErrorKind::InvalidInput => fs::read_to_string(claim),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn read(claim: &Path) -> std::io::Result<String> {
    fs::read_to_string(claim)
}

/// Makes a claim, if there is none of this name.
#[cfg(unix)]
fn make(_names: &Path, claim: &Path, id: &str) -> std::io::Result<()> {
    std::os::unix::fs::symlink(short(id), claim)
}

/// An id as a link's target.
#[cfg(unix)]
fn short(id: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(id.get(at..at + 2)?, 16).ok();
    match (0..32).map(|number| byte(2 * number)).collect::<Option<Vec<u8>>>() {
        Some(bytes) if id.len() == 64 => URL_SAFE_NO_PAD.encode(bytes),
        _ => id.to_owned(),
    }
}

/// The id of a link's target. Earlier versions wrote ids as they are.
#[cfg(unix)]
fn long(target: &str) -> String {
    use std::fmt::Write as _;
    match URL_SAFE_NO_PAD.decode(target) {
        Ok(bytes) if bytes.len() == 32 => bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
            write!(id, "{byte:02x}").ok();
            id
        }),
        _ => target.to_owned(),
    }
}

#[cfg(not(unix))]
fn make(names: &Path, claim: &Path, id: &str) -> std::io::Result<()> {
    // No name begins with a dot, so this one is nobody's.
    let own = names.join(format!(".{id}"));
    fs::write(&own, id)?;
    let made = fs::hard_link(&own, claim);
    fs::remove_file(&own)?;
    made
}

/// Gives a name to a container whose folder is reserved. `is_alive` tells whether a claim by this id holds.
pub(crate) fn claim(
    names: &Path,
    name: &str,
    id: &str,
    is_alive: impl Fn(&str) -> Result<bool>,
) -> Result<()> {
    let place = names.join(name);
    loop {
        match make(names, &place, id) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(std::io::Error::new(error.kind(), format!("{}: {error}", place.display())).into());
            }
        }
        let Some(owner) = owner(names, name)? else { continue };
        // Left by a rename that was cut off.
        if owner == id {
            return Ok(());
        }
        if is_alive(&owner)? {
            return Err(Error::NameInUse { name: name.to_owned(), owner });
        }
        release(names, name, &owner)?;
    }
}

/// Takes a name back, if it is still this container's; whether it was.
pub(crate) fn release(names: &Path, name: &str, id: &str) -> Result<bool> {
    if owner(names, name)?.as_deref() != Some(id) {
        return Ok(false);
    }
    match fs::remove_file(names.join(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(true),
    }
}

/// A name for people: two words and, after a clash, a number.
pub(crate) fn made_up(seed: [u8; 2], attempt: u32) -> String {
    let pick = |words: &[&'static str], byte: u8| words[usize::from(byte) % words.len()];
    let base = format!("{}_{}", pick(&QUALITIES, seed[0]), pick(&SHIPS, seed[1]));
    if attempt == 0 { base } else { format!("{base}{attempt}") }
}

const QUALITIES: [&str; 48] = [
    "able", "agile", "amber", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm", "clear",
    "clever", "crisp", "daring", "deft", "eager", "early", "fair", "fleet", "fresh", "gentle", "glad",
    "golden", "hardy", "hearty", "honest", "jolly", "keen", "kind", "light", "lively", "lucid", "lucky",
    "mellow", "merry", "nimble", "noble", "patient", "proud", "quick", "quiet", "ready", "silver", "steady",
    "sunny", "swift", "trusty", "wise",
];

const SHIPS: [&str; 48] = [
    "albatross",
    "anchor",
    "atoll",
    "bark",
    "beacon",
    "bosun",
    "bowsprit",
    "brig",
    "buoy",
    "canvas",
    "caravel",
    "clipper",
    "compass",
    "coral",
    "cutter",
    "dolphin",
    "dory",
    "felucca",
    "frigate",
    "galleon",
    "gull",
    "halyard",
    "harbour",
    "helmsman",
    "jetty",
    "junk",
    "keel",
    "ketch",
    "lagoon",
    "lantern",
    "lateen",
    "lugger",
    "mast",
    "monsoon",
    "navigator",
    "oar",
    "pearl",
    "pelican",
    "pilot",
    "quay",
    "rudder",
    "schooner",
    "sextant",
    "skiff",
    "sloop",
    "spar",
    "tiller",
    "yawl",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for good in ["ab", "a1", "web_1.x-y", "0a"] {
            assert!(validate(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "_a", ".a", "a/b", "a b", "../x", "é1", &"a".repeat(129)] {
            assert!(validate(bad).is_err(), "{bad}");
        }
        assert!((0..=255).all(|byte| validate(&made_up([byte, byte], 7)).is_ok()));
    }

    #[cfg(unix)]
    #[test]
    fn ids_are_short_in_links() {
        let id: String = (0..32).map(|number: u8| format!("{:02x}", number.wrapping_mul(37))).collect();
        assert_eq!(short(&id).len(), 43);
        assert_eq!(long(&short(&id)), id);
        // As earlier versions have written it.
        assert_eq!(long(&id), id);
        assert_eq!((short("one"), long("one")), ("one".to_owned(), "one".to_owned()));
    }

    #[test]
    fn one_owner_until_it_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let names = root.path();
        let living = |id: &str| Ok(id == "one");
        claim(names, "web", "one", living).unwrap();
        assert!(
            matches!(claim(names, "web", "two", living), Err(Error::NameInUse { owner, .. }) if owner == "one")
        );
        claim(names, "web", "one", living).unwrap();
        release(names, "web", "two").unwrap();
        assert_eq!(owner(names, "web").unwrap().as_deref(), Some("one"));
        claim(names, "web", "two", |_| Ok(false)).unwrap();
        assert_eq!(owner(names, "web").unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_dir(names).unwrap().count(), 1);
    }
}
