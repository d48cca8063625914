//! What an unprivileged user's store holds, entry by entry, against `umoci unpack` by root and `umoci unpack --rootless`.
//!
//! The former has the owners that the image names: here they are the ids of the user's range that stand for them. The
//! latter gives everything to the user and writes the owner down in `user.rootlesscontainers`.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Host, Layout, differences, is_root, listing, odd, tool, umoci};

/// Only root and root of a namespace that owns the file system can make them.
const DEVICES: [&str; 2] = ["block", "null"];

/// The user's own id, and where the range begins; the same for users and groups.
struct Ids {
    own: u64,
    first: u64,
    count: u64,
}

impl Ids {
    fn of(host: &Host) -> Self {
        let own = u64::from(fs_err::metadata(host.root()).unwrap().uid());
        let [users, groups] = ["/etc/subuid", "/etc/subgid"].map(|file| {
            let text = fs_err::read_to_string(file).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("dhow-test:")).expect("a range of ids");
            line.split(':').map(|number| number.parse().unwrap()).collect::<Vec<u64>>()
        });
        assert_eq!(users, groups, "this test is written for equal ranges");
        Self { own, first: users[0], count: users[1] }
    }

    /// Who has a file outside that belongs to these in the image. Both must exist, or it is the user's.
    fn outside(&self, user: u64, group: u64) -> (u64, u64) {
        if user > self.count || group > self.count {
            return (self.own, self.own);
        }
        let one = |id| if id == 0 { self.own } else { self.first + id - 1 };
        (one(user), one(group))
    }
}

/// The second word of a line: the owner.
fn owner(line: &str) -> (u64, u64) {
    let (user, group) = line.split(' ').nth(1).unwrap().split_once(':').unwrap();
    (user.parse().unwrap(), group.parse().unwrap())
}

fn with_owner(line: &str, (user, group): (u64, u64)) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    let owner = format!("{user}:{group}");
    words[1] = &owner;
    words.join(" ")
}

/// A line without an attribute, and its value.
fn without(line: &str, attribute: &str) -> (String, Option<String>) {
    // It is the only one of its file here, and values may have spaces.
    match line.split_once(&format!(" {attribute}=")) {
        Some((rest, value)) => (rest.to_owned(), Some(value.to_owned())),
        None => (line.to_owned(), None),
    }
}

/// `user.rootlesscontainers`: a message with the fields 1 (user) and 2 (group), both varints.
fn rootless_owner(escaped: &str) -> (u64, u64) {
    let mut bytes = Vec::new();
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (_, true) => match rest.next().unwrap() {
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                other => other,
            },
            (plain, false) => plain,
        });
    }
    let mut numbers = BTreeMap::new();
    let mut bytes = bytes.into_iter();
    while let Some(tag) = bytes.next() {
        let (mut value, mut shift) = (0, 0);
        for byte in bytes.by_ref() {
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        numbers.insert(tag >> 3, value);
    }
    let number = |field| numbers.get(&field).copied().unwrap_or(0);
    (number(1), number(2))
}

#[test]
fn an_unprivileged_store_has_what_umoci_unpacks() {
    if !is_root() {
        println!("skipped: the reference needs root");
        return;
    }
    let Some(host) = Host::unprivileged() else { return };
    let layout = Layout::new();
    layout.tag(&layout.image(&odd()), "odd:1");
    fs_err::set_permissions(layout.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let image = format!("{}:odd:1", layout.path().display());
    host.dhow(["load", "-q", "-i", layout.path().to_str().unwrap()]).ok();
    // Unpacks it.
    host.dhow(["create", "--network", "none", "odd:1", "-c", "true"]).ok();
    let folders = host
        .dhow([
            "image",
            "inspect",
            "--format",
            "{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}",
            "odd:1",
        ])
        .ok();
    let mounted = tempfile::tempdir().unwrap();
    let options = format!("ro,userxattr,lowerdir={}", folders.trim());
    tool(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(mounted.path()));
    let ours = std::panic::catch_unwind(|| listing(mounted.path()));
    tool(Command::new("umount").arg(mounted.path()));
    let mut ours = ours.unwrap();

    let bundle = tempfile::tempdir().unwrap();
    tool(umoci(["unpack", "--image", &image]).arg(bundle.path().join("bundle")));
    let mut reference = listing(&bundle.path().join("bundle/rootfs"));
    for name in DEVICES {
        assert!(reference.remove(name).is_some());
    }
    let ids = Ids::of(&host);
    let expected: BTreeMap<String, String> = reference
        .iter()
        .map(|(name, line)| {
            let (user, group) = owner(line);
            let (line, capability) = without(line, "security.capability");
            let mut line = with_owner(&line, ids.outside(user, group));
            if let Some(value) = capability {
                // Version 3: that of root of a namespace, which is the user.
                let id = u32::try_from(ids.own).unwrap().to_le_bytes();
                let value = value.replacen("\\x00\\x00\\x02", "\\x00\\x00\\x03", 1);
                line += &format!(" security.capability={value}{}", id.escape_ascii());
            }
            (name.clone(), line)
        })
        .collect();
    let differ = differences(&expected, &ours);
    assert!(differ.is_empty() && ours.len() > 30, "{}", differ.join("\n"));

    let place: PathBuf = host.path("bundle");
    let mut unpack = Command::new("setpriv");
    unpack.args(["--reuid", "dhow-test", "--regid", "dhow-test", "--init-groups", "--"]);
    unpack.args(["umoci", "unpack", "--rootless", "--image", &image]).arg(&place);
    tool(unpack.env("HOME", host.path("")).env_remove("XDG_RUNTIME_DIR"));
    let theirs = listing(&place.join("rootfs"));
    let mut rootless = BTreeMap::new();
    for (name, line) in theirs.into_iter().filter(|(name, _)| !DEVICES.contains(&name.as_str())) {
        assert_eq!(owner(&line), (ids.own, ids.own), "{name}");
        let (line, noted) = without(&line, "user.rootlesscontainers");
        let (user, group) = noted.as_deref().map_or((0, 0), rootless_owner);
        // A link cannot carry it.
        if !line.contains(" -> ") {
            assert_eq!((user, group), owner(&reference[&name]), "{name}: {noted:?}");
        }
        rootless.insert(name, line);
    }
    for line in ours.values_mut() {
        *line = with_owner(&without(line, "security.capability").0, (ids.own, ids.own));
    }
    let differ = differences(&rootless, &ours);
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    host.dhow(["rm", host.dhow(["ps", "-aq"]).ok().trim()]).ok();
}
