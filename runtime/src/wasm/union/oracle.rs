//! The same random operations on the union and on the kernel's overlay of equal layers must answer the same, error for
//! error, and leave the same tree; also when both are opened anew over what the first round left behind.
//!
//! Needs the privilege to mount. Without it there is nothing to compare with, and the test says so and ends.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::side::{Dice, Side, act, tree};
use super::{Errno, Kind, Open, Union};
use crate::bundle::Layer;

/// A mounted overlay, or a plain directory.
struct Kernel {
    root: PathBuf,
    mounted: bool,
}

impl Kernel {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.mounted {
            rustix::mount::unmount(&self.root, rustix::mount::UnmountFlags::DETACH).expect("unmount");
        }
    }
}

impl Side for Kernel {
    fn read(&self, path: &str) -> Result<String, Errno> {
        let mut file = std::fs::File::from(rustix::fs::open(self.at(path), OFlags::RDONLY, Mode::empty())?);
        if file.metadata()?.is_dir() {
            return Ok("a directory".to_owned());
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }
    fn write(&self, path: &str, text: &str, how: Open) -> Result<(), Errno> {
        let mut flags = OFlags::WRONLY;
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::CREATE, how.create);
        flags.set(OFlags::EXCL, how.exclusive);
        flags.set(OFlags::TRUNC, how.truncate);
        let fd = rustix::fs::open(self.at(path), flags, Mode::from_raw_mode(0o644))?;
        Ok(std::fs::File::from(fd).write_all(text.as_bytes())?)
    }
    fn unlink(&self, path: &str) -> Result<(), Errno> {
        Ok(rustix::fs::unlink(self.at(path))?)
    }
    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        Ok(rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(0o755))?)
    }
    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        Ok(rustix::fs::rmdir(self.at(path))?)
    }
    fn rename(&self, old: &str, new: &str) -> Result<(), Errno> {
        Ok(rustix::fs::rename(self.at(old), self.at(new))?)
    }
    fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        Ok(rustix::fs::linkat(CWD, self.at(old), CWD, self.at(new), AtFlags::empty())?)
    }
    fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        Ok(rustix::fs::symlink(target, self.at(path))?)
    }
    fn readlink(&self, path: &str) -> Result<String, Errno> {
        let target = rustix::fs::readlink(self.at(path), Vec::new())?;
        Ok(target.into_string().expect("text"))
    }
    fn cut(&self, path: &str, size: u64) -> Result<(), Errno> {
        let fd = rustix::fs::open(self.at(path), OFlags::WRONLY, Mode::empty())?;
        Ok(rustix::fs::ftruncate(fd, size)?)
    }
    fn kind(&self, path: &str, follow: bool) -> Result<(Kind, u64, u64), Errno> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let stat = rustix::fs::statat(CWD, self.at(path), flags)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::File,
        };
        Ok((kind, u64::try_from(stat.st_size).expect("a size"), stat.st_nlink))
    }
    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let fd = rustix::fs::open(self.at(path), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let names = rustix::fs::Dir::read_from(fd)?.map(|entry| {
            let entry = entry.expect("an entry");
            entry.file_name().to_str().expect("text").to_owned()
        });
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }
}

#[test]
fn the_kernel_agrees() {
    for seed in 1..=120 {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = |name: &str| {
            let path = temp.path().join(name);
            fs_err::create_dir_all(path.join(if name.starts_with('l') { "x/y" } else { "" })).expect("dir");
            path
        };
        let layers: Vec<PathBuf> = ["l0", "l1", "l2"].into_iter().map(dir).collect();
        for (layer, steps) in layers.iter().zip([80, 30, 15]) {
            let plain = Kernel { root: layer.clone(), mounted: false };
            let mut dice = Dice(seed * 1000 + steps);
            for number in 0..u32::try_from(steps).expect("small") {
                act(&plain, &mut dice, number);
            }
        }
        let (upper, theirs, work, merged) = (dir("upper"), dir("theirs"), dir("work"), dir("merged"));
        for round in 1..=3u64 {
            let lower = layers.iter().map(|path| Layer { path: path.clone(), id: None }).collect::<Vec<_>>();
            let union = Union::layered(&upper, &lower).expect("union");
            let Some(kernel) = mount(&layers, &theirs, &work, &merged) else {
                println!("no privilege to mount an overlay: nothing to compare with");
                return;
            };
            let (mut one, mut two) = (Dice(seed * 10 + round), Dice(seed * 10 + round));
            let mut log = Vec::new();
            for number in 0..150 {
                let (ours, theirs) = (act(&union, &mut one, number), act(&kernel, &mut two, number));
                log.push(theirs.clone());
                assert_eq!(ours, theirs, "seed {seed}, round {round}: ours, the kernel's, after {log:#?}");
            }
            // As it is seen now, and by whoever opens the same directories later.
            let later = Union::layered(&upper, &lower).expect("union");
            let mut expected = Vec::new();
            tree(&kernel, ".", &mut expected);
            for union in [union, later] {
                let mut found = Vec::new();
                tree(&union, ".", &mut found);
                assert_eq!(found, expected, "seed {seed}, round {round}: the tree left behind");
            }
        }
    }
}

/// The kernel's overlay in the place of the union answers as the same overlay mounted by hand.
#[test]
fn the_kernel_in_our_place() {
    for seed in 1..=2 {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = |name: &str| {
            let path = temp.path().join(name);
            fs_err::create_dir_all(path.join(if name.starts_with('l') { "x/y" } else { "" })).expect("dir");
            path
        };
        let layers = [dir("l0"), dir("l1")];
        for (layer, steps) in layers.iter().zip([60, 30]) {
            let plain = Kernel { root: layer.clone(), mounted: false };
            let mut dice = Dice(seed * 1000 + steps);
            for number in 0..60 {
                act(&plain, &mut dice, number);
            }
        }
        let lower: Vec<_> = layers.iter().map(|path| Layer { path: path.clone(), id: None }).collect();
        let off = "redirect_dir=off,index=off,metacopy=off";
        let Some(kernel) = mount_with(&layers, &dir("theirs"), &dir("work"), &dir("merged"), off) else {
            println!("no privilege to mount an overlay: nothing to compare with");
            return;
        };
        let ours = || {
            let (upper, work, merged) = (dir("upper"), dir("ourwork"), dir("note"));
            Union::kernel(&lower, &upper, &work, &merged).expect("an overlay")
        };
        let union = ours();
        let (mut one, mut two) = (Dice(seed), Dice(seed));
        for number in 0..150 {
            let (ours, theirs) = (act(&union, &mut one, number), act(&kernel, &mut two, number));
            assert_eq!(ours, theirs, "seed {seed}: ours, the kernel's");
        }
        // Whoever comes later finds the same overlay; when nobody has it any more, it is mounted again.
        let second = ours();
        let mut expected = Vec::new();
        tree(&kernel, ".", &mut expected);
        for union in [&union, &second] {
            let mut found = Vec::new();
            tree(union, ".", &mut found);
            assert_eq!(found, expected, "seed {seed}: the tree left behind");
        }
        second.mkdir(second.root(), "late").expect("mkdir");
        union.directory(union.root(), "late").expect("one overlay, not two");
        drop((union, second));
        let again = ours();
        again.directory(again.root(), "late").expect("still there");
    }
}

fn mount(layers: &[PathBuf], upper: &Path, work: &Path, merged: &Path) -> Option<Kernel> {
    mount_with(layers, upper, work, merged, "redirect_dir=on,index=on,metacopy=off")
}

fn mount_with(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    merged: &Path,
    features: &str,
) -> Option<Kernel> {
    let lower: Vec<_> = layers.iter().rev().map(|path| path.to_str().expect("text")).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{features}",
        lower.join(":"),
        upper.display(),
        work.display()
    );
    let options = std::ffi::CString::new(options).expect("no NUL");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("overlay", merged, "overlay", flags, options.as_c_str()).ok()?;
    Some(Kernel { root: merged.to_owned(), mounted: true })
}
