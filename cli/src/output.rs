//! Where an archive goes: standard output, unless that is a terminal, or a file that appears when it is whole. And
//! where one comes from, if not from a file.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::error::hinted;

/// An open output.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// The name that the file shall get.
    target: Option<PathBuf>,
    /// The name that it has until then; it has none where the system knows files without names.
    temporary: Option<PathBuf>,
}

impl Output {
    /// Opens `path`, or standard output. `what` says what is done, for the refusal to do it to a terminal.
    pub(crate) fn open(path: Option<&Path>, what: &str) -> Result<Self> {
        let Some(path) = path else {
            if std::io::stdout().is_terminal() {
                return Err(hinted(
                    format!("cowardly refusing to {what} to a terminal"),
                    "use the -o flag or redirect the output",
                ));
            }
            return Ok(Self { file: standard_output()?, target: None, temporary: None });
        };
        let target = match std::fs::symlink_metadata(path) {
            // What the link leads to is replaced, and not the link.
            Ok(meta) if meta.is_symlink() => fs_err::canonicalize(path)?,
            _ => path.to_owned(),
        };
        match std::fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_dir() => anyhow::bail!("{}: is a directory", path.display()),
            // A pipe or a device is written to as it is.
            Ok(meta) if !meta.is_file() => {
                let file = fs_err::OpenOptions::new().write(true).open(&target)?.into_parts().0;
                return Ok(Self { file, target: None, temporary: None });
            }
            _ => {}
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(hinted(
                format!("invalid output path: directory \"{}\" does not exist", folder.display()),
                "make the directory first, or name another file",
            ));
        }
        if let Some(file) = nameless(folder) {
            return Ok(Self { file, target: Some(target), temporary: None });
        }
        let temporary = temporary(&target);
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&temporary)?.into_parts().0;
        Ok(Self { file, target: Some(target), temporary: Some(temporary) })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        let Some(target) = self.target.take() else { return Ok(()) };
        if self.temporary.is_none() {
            let name = temporary(&target);
            give_name(&self.file, &name).with_context(|| format!("cannot write {}", target.display()))?;
            self.temporary = Some(name);
        }
        if let Some(temporary) = &self.temporary {
            fs_err::rename(temporary, &target)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What was not finished must not stay; the failure itself is reported elsewhere.
            fs_err::remove_file(temporary).ok();
        }
    }
}

/// A name beside the target that nobody else uses.
fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.dhow-{}", std::process::id()))
}

/// Standard input as a file: if it is one, an archive in it need not be copied to be read.
pub(crate) fn standard_input() -> Result<File> {
    #[cfg(unix)]
    let own = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    #[cfg(windows)]
    let own = std::os::windows::io::AsHandle::as_handle(&std::io::stdin()).try_clone_to_owned()?;
    Ok(File::from(own))
}

fn standard_output() -> Result<File> {
    #[cfg(unix)]
    let own = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let own = std::os::windows::io::AsHandle::as_handle(&std::io::stdout()).try_clone_to_owned()?;
    Ok(File::from(own))
}

/// A file that vanishes with this process unless it gets a name.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(0o600)).ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_folder: &Path) -> Option<File> {
    None
}

#[cfg(target_os = "linux")]
fn give_name(file: &File, name: &Path) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    let open = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    Ok(linkat(CWD, open, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn give_name(_file: &File, _name: &Path) -> std::io::Result<()> {
    Ok(())
}
