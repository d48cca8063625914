//! Two trees, name by name.

use super::ImageTree;
use super::NodeInfo;
use super::Object;
use super::absolute;

/// One name that two trees do not agree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path; bytes that are no text are replaced.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// What differs, for a name that both have.
    pub aspects: Vec<Aspect>,
    /// In the first tree.
    pub before: Option<NodeInfo>,
    /// In the second tree.
    pub after: Option<NodeInfo>,
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the second tree has it.
    Added,
    /// Both have it, differently.
    Changed,
    /// Only the first tree has it.
    Removed,
}

/// What can differ between two objects of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// A file became a directory, and the like. Nothing else is compared then.
    Type,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Length of a file.
    Size,
    /// Bytes of a file, at the same or another length.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// Numbers of a device.
    Device,
    /// Extended attributes.
    Xattrs,
    /// Modification time.
    Time,
}

impl Aspect {
    /// In one lower-case word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Size => "size",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Xattrs => "xattrs",
            Self::Time => "time",
        }
    }
}

pub(super) fn compare(a: &ImageTree, b: &ImageTree, times: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut left, mut right) = (a.names.iter().peekable(), b.names.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return changes,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order.is_le() { left.next() } else { None };
        let after = if order.is_ge() { right.next() } else { None };
        let Some((path, _)) = before.or(after) else { return changes };
        let before = before.and_then(|(_, object)| a.objects.get(*object));
        let after = after.and_then(|(_, object)| b.objects.get(*object));
        let (kind, aspects) = match (before, after) {
            (None, _) => (ChangeKind::Added, Vec::new()),
            (_, None) => (ChangeKind::Removed, Vec::new()),
            (Some(before), Some(after)) => (ChangeKind::Changed, differences(before, after, times)),
        };
        if kind == ChangeKind::Changed && aspects.is_empty() {
            continue;
        }
        let info = |object: Option<&Object>| object.map(|object| object.info.clone());
        changes.push(Change {
            path: absolute(path),
            kind,
            aspects,
            before: info(before),
            after: info(after),
        });
    }
}

fn differences(before: &Object, after: &Object, times: bool) -> Vec<Aspect> {
    let (a, b) = (&before.info, &after.info);
    if a.kind != b.kind {
        return vec![Aspect::Type];
    }
    let candidates = [
        (Aspect::Mode, a.mode != b.mode),
        (Aspect::Owner, (a.uid, a.gid) != (b.uid, b.gid)),
        (Aspect::Size, a.size != b.size),
        (Aspect::Content, before.digest != after.digest),
        (Aspect::Target, a.raw_target != b.raw_target),
        (Aspect::Device, a.device != b.device),
        (Aspect::Xattrs, a.xattrs != b.xattrs),
        (Aspect::Time, times && a.mtime != b.mtime),
    ];
    candidates.into_iter().filter(|(_, differs)| *differs).map(|(aspect, _)| aspect).collect()
}
