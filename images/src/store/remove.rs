//! Removing a directory tree of hostile shape: of any depth, with directories that nobody may enter.

use std::io;
use std::path::Path;

use crate::error::Result;

/// Removes a file or a tree of any depth and shape. That it is gone already is no error.
///
/// On Unix, symbolic links are removed and never followed, at most about 40 files are open however deep the tree
/// is, and directories that may not be entered are made enterable when they are ours. On Linux, what is mounted
/// within the tree is not touched: it makes the removal fail. Elsewhere this is [`std::fs::remove_dir_all`].
///
/// # Errors
/// When something cannot be removed; the message names `path`. What was removed by then is gone.
pub fn remove_tree(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    remove(path).map_err(|e| io::Error::new(e.kind(), format!("cannot remove {}: {e}", path.display())))
}

pub(crate) fn tree(path: &Path) -> Result<()> {
    Ok(remove_tree(path)?)
}

#[cfg(unix)]
fn remove(path: &Path) -> io::Result<()> {
    Ok(unix::tree(path)?)
}

#[cfg(not(unix))]
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(unix)]
mod unix {
    use std::ffi::CStr;
    use std::ffi::CString;
    use std::os::fd::AsFd as _;
    use std::os::fd::BorrowedFd;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::AtFlags;
    use rustix::fs::CWD;
    use rustix::fs::Dir;
    use rustix::fs::FileType;
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    use rustix::io::Result;

    /// Below this the next directory is moved to the top, so that the number of open files stays small.
    const MAX_DEPTH: usize = 32;

    pub(super) fn tree(path: &Path) -> Result<()> {
        match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Linux says EISDIR, POSIX allows EPERM.
            Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
            Err(e) => return Err(e),
        }
        let top = open_top(path)?;
        let mut moved = 0;
        loop {
            let before = moved;
            empty(&top, &top, 0, &mut moved)?;
            if moved == before {
                break;
            }
        }
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn empty(dir: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> Result<()> {
        // Names are collected first: what readdir says while entries vanish differs between file systems.
        let mut names: Vec<(CString, bool)> = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push((entry.file_name().to_owned(), entry.file_type() == FileType::Directory));
            }
        }
        for (name, is_dir) in names {
            if !is_dir {
                match unlink(dir, &name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    other => {
                        other?;
                        continue;
                    }
                }
            }
            if depth == MAX_DEPTH {
                lift(dir, &name, top, moved)?;
                continue;
            }
            let inner = match open_inner(dir, &name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            empty(&inner, top, depth + 1, moved)?;
            drop(inner);
            unlink(dir, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    /// Moves a directory to the top, under a name that is free there: the tree may have any names itself, also
    /// those of an earlier removal that was interrupted.
    fn lift(dir: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Result<()> {
        let mut opened = false;
        loop {
            *moved += 1;
            match rustix::fs::renameat(dir, name, top, format!(".moved-{moved}")) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                // To be moved a directory must be writable itself, because its `..` changes.
                Err(Errno::ACCESS) if !opened => {
                    opened = true;
                    drop(open_inner(dir, name)?);
                }
                other => return other,
            }
        }
    }

    fn unlink(dir: &OwnedFd, name: &CStr, flags: AtFlags) -> Result<()> {
        match rustix::fs::unlinkat(dir, name, flags) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    const DIRECTORY: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// Opens the directory that is to be removed, wherever it is.
    fn open_top(path: &Path) -> Result<OwnedFd> {
        unlocked(CWD, path, |flags| rustix::fs::openat(CWD, path, flags, Mode::empty()))
    }

    /// Opens a directory below it. What is mounted there belongs to somebody else.
    fn open_inner(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
        unlocked(dir.as_fd(), name, |flags| {
            #[cfg(target_os = "linux")]
            loop {
                let resolve = rustix::fs::ResolveFlags::NO_XDEV;
                match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
                    // Something was renamed meanwhile, somewhere on the system.
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    other => return other,
                }
            }
            #[cfg(not(target_os = "linux"))]
            rustix::fs::openat(dir, name, flags, Mode::empty())
        })
    }

    /// Opens a directory and makes sure that its owner can list it and remove what is in it. Without privilege
    /// this needs all three bits.
    fn unlocked(
        dir: BorrowedFd<'_>,
        name: impl rustix::path::Arg,
        open: impl Fn(OFlags) -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        #[cfg(target_os = "linux")]
        drop((dir, name));
        let fd = match open(DIRECTORY) {
            // A handle that gives no access to the content needs no permission, and cannot become another file.
            #[cfg(target_os = "linux")]
            Err(Errno::ACCESS) => {
                use std::os::fd::AsRawFd as _;
                let handle = open(DIRECTORY | OFlags::PATH)?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)?;
                open(DIRECTORY)?
            }
            #[cfg(not(target_os = "linux"))]
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)?;
                open(DIRECTORY)?
            }
            other => other?,
        };
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        if !mode.contains(Mode::RWXU) {
            // Not ours: then what follows says whether it matters.
            let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
        }
        Ok(fd)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn removes_deep_trees_and_leaves_link_targets() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, keep) = (dir.path().join("victim"), dir.path().join("keep"));
        fs::create_dir(&keep).unwrap();
        fs::write(keep.join("file"), "x").unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "x").unwrap();
        fs_err::os::unix::fs::symlink(&keep, victim.join("link")).unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 1500).collect();
        fs::create_dir_all(victim.join(&deep)).unwrap();
        fs::write(victim.join(&deep).join("f"), "x").unwrap();
        tree(&victim).unwrap();
        assert!(!victim.exists());
        assert!(keep.join("file").exists());
        tree(&victim).unwrap();
        tree(&keep.join("file")).unwrap();
        assert!(!keep.join("file").exists());
    }

    /// Makes a chain of directories named `d`, deeper than a path can be long.
    fn chain(at: &Path, depth: usize) -> rustix::io::Result<()> {
        use rustix::fs::Mode;
        use rustix::fs::OFlags;
        let mut fd = rustix::fs::open(at, OFlags::DIRECTORY, Mode::empty())?;
        for _ in 0..depth {
            rustix::fs::mkdirat(&fd, "d", Mode::RWXU)?;
            fd = rustix::fs::openat(&fd, "d", OFlags::DIRECTORY, Mode::empty())?;
        }
        Ok(())
    }

    #[test]
    fn few_files_are_open_however_deep_the_tree_is() {
        use rustix::process::Resource;
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        chain(&victim, 3000).unwrap();
        let before = rustix::process::getrlimit(Resource::Nofile);
        let few = rustix::process::Rlimit { current: Some(256), ..before };
        rustix::process::setrlimit(Resource::Nofile, few).unwrap();
        let removed = remove_tree(&victim);
        rustix::process::setrlimit(Resource::Nofile, before).unwrap();
        removed.unwrap();
        assert!(!victim.exists());
    }

    #[test]
    fn names_that_are_taken_at_the_top_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        for taken in [".moved-1/full", ".moved-2/full", ".moved-3"] {
            fs::create_dir_all(victim.join(taken)).unwrap();
        }
        fs::write(victim.join(".moved-4"), "a file").unwrap();
        chain(&victim, 200).unwrap();
        chain(&victim.join(".moved-3"), 100).unwrap();
        remove_tree(&victim).unwrap();
        assert!(!victim.exists());
    }

    /// Root may do everything, so this says something only where the tests run as somebody else, or without the
    /// capabilities: then it gives them up for its own thread.
    #[cfg(target_os = "linux")]
    #[test]
    fn directories_that_may_not_be_entered_are_opened() {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;

        use rustix::thread::CapabilitySet;
        let sets = rustix::thread::capabilities(None).unwrap();
        let override_access = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let few = rustix::thread::CapabilitySets { effective: sets.effective - override_access, ..sets };
        rustix::thread::set_capabilities(None, few).unwrap();
        for mode in [0, 0o400, 0o500, 0o100, 0o200, 0o300] {
            let dir = tempfile::tempdir().unwrap();
            let victim = dir.path().join("victim");
            fs::create_dir(&victim).unwrap();
            chain(&victim, 80).unwrap();
            let path =
                |depth: usize| victim.join(std::iter::repeat_n("d", depth).collect::<std::path::PathBuf>());
            for depth in (0..=80).rev() {
                fs::write(path(depth).join("file"), "x").unwrap();
                fs::set_permissions(path(depth), Permissions::from_mode(mode)).unwrap();
            }
            remove_tree(&victim).unwrap();
            assert!(fs::symlink_metadata(&victim).is_err(), "{mode:o}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_mounted_below_keeps_its_files() {
        use rustix::mount::UnmountFlags;
        let dir = tempfile::tempdir().unwrap();
        let (victim, keep) = (dir.path().join("victim"), dir.path().join("keep"));
        fs::create_dir_all(victim.join("a/mounted")).unwrap();
        fs::create_dir(&keep).unwrap();
        fs::write(keep.join("file"), "x").unwrap();
        if rustix::mount::mount_bind(&keep, victim.join("a/mounted")).is_err() {
            return;
        }
        let removed = remove_tree(&victim);
        rustix::mount::unmount(victim.join("a/mounted"), UnmountFlags::DETACH).unwrap();
        let message = removed.unwrap_err().to_string();
        assert!(message.contains("victim"), "{message}");
        assert!(keep.join("file").exists());
        remove_tree(&victim).unwrap();
    }
}
