//! Directory handles of the host. Every call names one entry of one open directory and never follows a symbolic
//! link; whatever path a guest gives is taken apart above this (`resolve.rs`).
//!
//! `unix` is exact and costs one system call per operation. `portable` does the same over cap-std and is what Windows
//! uses; it is compiled for tests everywhere so that it cannot rot.

use std::ffi::OsStr;
use std::time::SystemTime;

mod memory;
#[cfg(any(test, not(unix)))]
mod portable;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod xattr;

pub(crate) use memory::memory;
#[cfg(not(unix))]
pub(crate) use portable::{
    Dir, LockFile, copy_attributes, copy_data, mark_of, name_from, name_str, set_mark, stat_file,
};
#[cfg(unix)]
pub(crate) use unix::{
    Dir, LockFile, copy_attributes, copy_data, mark_of, name_from, name_str, set_mark, stat_file,
};

/// What kind of object a name stands for.
#[cfg_attr(not(unix), expect(dead_code, reason = "other systems know fewer kinds"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
    /// The host's directory did not say.
    Unknown,
}

/// An object's metadata.
#[cfg_attr(not(unix), expect(dead_code, reason = "other systems have neither modes nor owners"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    /// Bytes.
    pub(crate) size: u64,
    /// Hard links.
    pub(crate) links: u64,
    pub(crate) dev: u64,
    /// 0 where the host has no such number.
    pub(crate) ino: u64,
    /// Permission bits; 0 where the host has none.
    pub(crate) mode: u32,
    /// Owner and group; `None` where the host has none.
    pub(crate) owner: Option<(u32, u32)>,
    /// Whether this is the kernel overlay's mark for a removed name (character device 0/0).
    pub(crate) whiteout: bool,
    pub(crate) accessed: Option<SystemTime>,
    pub(crate) modified: Option<SystemTime>,
    pub(crate) changed: Option<SystemTime>,
}

/// One entry as the host lists it; never `.` or `..`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawEntry<'a> {
    pub(crate) name: &'a OsStr,
    pub(crate) kind: Kind,
    pub(crate) ino: u64,
}

/// How to open a regular file.
#[cfg_attr(not(unix), expect(dead_code, reason = "other systems have no modes"))]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OpenHow {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    /// Fails with `Exists` when the name is taken.
    pub(crate) create_new: bool,
    /// Permission bits of a created file.
    pub(crate) mode: u32,
}

#[cfg(test)]
mod tests {
    //! Both hosts behave alike where both can.

    use super::*;
    use crate::wasm::union::errno::Errno;
    use std::io::{Read as _, Write as _};

    macro_rules! same_on {
        ($name:ident, $host:ident) => {
            #[test]
            fn $name() {
                let temp = tempfile::tempdir().expect("a directory");
                let dir = $host::Dir::open_ambient(temp.path()).expect("open");
                dir.mkdir("sub", 0o755).expect("mkdir");
                assert_eq!(dir.mkdir("sub", 0o755), Err(Errno::Exists));
                let sub = dir.open_dir("sub").expect("open sub");
                let create = OpenHow { write: true, create_new: true, mode: 0o644, ..OpenHow::default() };
                let mut file = sub.open_file("f", &create).expect("create");
                file.write_all(b"hello").expect("write");
                assert_eq!(sub.open_file("f", &create).err(), Some(Errno::Exists));
                assert_eq!($host::stat_file(&file).expect("fstat").size, 5);
                drop(file);
                assert_eq!(sub.stat("f").map(|stat| (stat.kind, stat.size)), Ok((Kind::File, 5)));
                let when = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
                sub.set_times("f", None, Some(when)).expect("times");
                assert_eq!(sub.stat("f").expect("stat").modified, Some(when));
                sub.link("f", &dir, "g").expect("link");
                sub.rename("f", &dir, "h").expect("rename");
                assert_eq!(sub.stat("f").err(), Some(Errno::NotFound));
                dir.symlink("sub/../h", "s").expect("symlink");
                assert_eq!(dir.readlink("s"), Ok("sub/../h".into()));
                assert_eq!(dir.stat("s").map(|stat| stat.kind), Ok(Kind::Symlink));
                let mut names = Vec::new();
                let list = dir.list(|entry| {
                    names.push(entry.name.to_owned());
                    Ok(())
                });
                list.expect("list");
                names.sort();
                assert_eq!(names, ["g", "h", "s", "sub"]);
                let mut text = String::new();
                let read = OpenHow { read: true, ..OpenHow::default() };
                dir.open_file("g", &read).expect("open").read_to_string(&mut text).expect("read");
                assert_eq!(text, "hello");
                assert_eq!(dir.unlink("sub").err(), Some(Errno::IsDir));
                assert_eq!(dir.rmdir("g").err(), Some(Errno::NotDir));
                dir.unlink("g").expect("unlink");
                dir.rmdir("sub").expect("rmdir");
                assert_eq!(dir.open_dir("sub").err(), Some(Errno::NotFound));
            }
        };
    }
    same_on!(portable_host, portable);
    #[cfg(unix)]
    same_on!(unix_host, unix);
}
