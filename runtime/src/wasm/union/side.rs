//! What the union is compared with, and how: one list of operations, done on both sides, must get the same answers and
//! leave the same tree. The other side is the kernel's overlay (`oracle.rs`) or a model in memory (`model.rs`).

use std::io::{Read as _, Write as _};

use super::{Entry, Errno, Kind, Open, Opened, Union};

/// What both sides can do; paths are relative.
pub(crate) trait Side {
    fn read(&self, path: &str) -> Result<String, Errno>;
    fn write(&self, path: &str, text: &str, how: Open) -> Result<(), Errno>;
    fn unlink(&self, path: &str) -> Result<(), Errno>;
    fn mkdir(&self, path: &str) -> Result<(), Errno>;
    fn rmdir(&self, path: &str) -> Result<(), Errno>;
    fn rename(&self, old: &str, new: &str) -> Result<(), Errno>;
    fn link(&self, old: &str, new: &str) -> Result<(), Errno>;
    fn symlink(&self, target: &str, path: &str) -> Result<(), Errno>;
    fn readlink(&self, path: &str) -> Result<String, Errno>;
    /// Kind, size and number of names.
    fn kind(&self, path: &str, follow: bool) -> Result<(Kind, u64, u64), Errno>;
    fn cut(&self, path: &str, size: u64) -> Result<(), Errno>;
    fn list(&self, path: &str) -> Result<Vec<String>, Errno>;
}

impl Side for Union {
    fn read(&self, path: &str) -> Result<String, Errno> {
        match self.open(self.root(), path, &Open { read: true, follow: true, ..Open::default() })? {
            Opened::Dir(_) => Ok("a directory".to_owned()),
            Opened::File(mut open) => {
                let mut text = String::new();
                open.file.read_to_string(&mut text)?;
                Ok(text)
            }
        }
    }
    fn write(&self, path: &str, text: &str, how: Open) -> Result<(), Errno> {
        match self.open(self.root(), path, &how)? {
            Opened::Dir(_) => Err(Errno::IsDir),
            Opened::File(mut open) => Ok(open.file.write_all(text.as_bytes())?),
        }
    }
    fn unlink(&self, path: &str) -> Result<(), Errno> {
        self.unlink(self.root(), path)
    }
    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        self.mkdir(self.root(), path)
    }
    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        self.rmdir(self.root(), path)
    }
    fn rename(&self, old: &str, new: &str) -> Result<(), Errno> {
        self.rename((self.root(), old), (self.root(), new))
    }
    fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        self.link((self.root(), old), false, (self.root(), new))
    }
    fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        self.symlink(target, self.root(), path)
    }
    fn readlink(&self, path: &str) -> Result<String, Errno> {
        self.readlink(self.root(), path)
    }
    fn kind(&self, path: &str, follow: bool) -> Result<(Kind, u64, u64), Errno> {
        let found = self.stat(self.root(), path, follow)?.stat;
        Ok((found.kind, found.size, found.links))
    }
    fn cut(&self, path: &str, size: u64) -> Result<(), Errno> {
        match self.open(self.root(), path, &Open { write: true, follow: true, ..Open::default() })? {
            Opened::Dir(_) => Err(Errno::IsDir),
            Opened::File(open) => Ok(open.file.set_len(size)?),
        }
    }
    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        match self.resolve(self.root(), path, true)?.entry.ok_or(Errno::NotFound)? {
            Entry::Leaf(_) => Err(Errno::NotDir),
            Entry::Dir(node) => Ok(node.list()?.iter().map(|entry| entry.name.to_owned()).collect()),
        }
    }
}

/// A small generator of its own, so that a seed means the same for ever.
pub(crate) struct Dice(pub(crate) u64);

impl Choose for Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Choices written down beforehand, as a fuzzer does: one byte each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a> {
    left: &'a [u8],
    /// Whether hard links are made.
    pub(crate) links: bool,
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(left: &'a [u8]) -> Self {
        Self { left, links: true }
    }
}

impl Choose for Bytes<'_> {
    fn roll(&mut self, sides: u64) -> u64 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        u64::from(*first) % sides
    }

    fn links(&self) -> bool {
        self.links
    }
}

/// What decides what is done next.
pub(crate) trait Choose {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64;

    /// Whether hard links are made.
    fn links(&self) -> bool {
        true
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let index = self.roll(of.len() as u64);
        usize::try_from(index).ok().and_then(|index| of.get(index)).copied().unwrap_or_default()
    }

    /// One or two names, two directories down: links with `..` then stay below the root on both sides.
    fn path(&mut self) -> String {
        let mut path = "x/y".to_owned();
        for _ in 0..=self.roll(2) {
            path = format!("{path}/{}", self.one(&["a", "b", "c", "d"]));
        }
        path
    }
}

/// Does one random thing; what it was and what the answer is.
pub(crate) fn act(side: &impl Side, dice: &mut impl Choose, number: u32) -> String {
    let (path, other) = (dice.path(), dice.path());
    let target = dice.one(&["a", "../b", "b/c", "../a/c", "c", "."]);
    let text = format!("{number},");
    let write = Open { write: true, follow: true, ..Open::default() };
    let append = Open { append: true, ..write };
    let what = dice.roll(20);
    let answer = match what {
        0 | 1 => format!("{:?}", side.read(&path)),
        2 => format!("{:?}", side.write(&path, &text, append)),
        3 => format!("{:?}", side.write(&path, &text, Open { create: true, ..append })),
        4 => format!("{:?}", side.write(&path, &text, Open { create: true, truncate: true, ..write })),
        5 => format!("{:?}", side.write(&path, &text, Open { create: true, exclusive: true, ..write })),
        6 => format!("{:?}", side.unlink(&path)),
        7 | 15 | 16 => format!("{:?}", side.mkdir(&path)),
        8 | 17 => format!("{:?}", side.rmdir(&path)),
        9 | 10 | 18 => format!("{:?}", side.rename(&path, &other)),
        11 if dice.links() => format!("{:?}", side.link(&path, &other)),
        12 => format!("{:?}", side.symlink(target, &path)),
        13 => format!("{:?}", side.readlink(&path)),
        19 => format!("{:?}", side.cut(&path, dice.roll(6))),
        _ => {
            // A directory's size means nothing, and neither does the number of names where layers share a link.
            let known = |(kind, size, _)| (kind, if kind == Kind::Dir { 0 } else { size });
            format!("{:?}", side.kind(&path, true).map(known))
        }
    };
    format!("{number}: {what} {path} {other} {target}: {answer}")
}

/// The whole tree as text.
pub(crate) fn tree(side: &impl Side, path: &str, out: &mut Vec<String>) {
    let mut names = side.list(path).expect(path);
    names.sort();
    for name in names {
        let path = if path == "." { name } else { format!("{path}/{name}") };
        let (kind, ..) = side.kind(&path, false).expect(&path);
        let content = match kind {
            Kind::Dir => String::new(),
            Kind::Symlink => side.readlink(&path).expect(&path),
            _ => side.read(&path).expect(&path),
        };
        out.push(format!("{path} {kind:?} {content}"));
        if kind == Kind::Dir {
            tree(side, &path, out);
        }
    }
}
