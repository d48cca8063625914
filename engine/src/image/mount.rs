//! Images that are mounted for programs of the host to look at.
//!
//! ```text
//! mounts/<id>/mount.json   which image is mounted where; there before the mount is
//! mounts/<id>/fs           where it is mounted, unless the user named a directory
//! mounts/<id>/empty        lowest layer
//! ```
//! A lease `mount-<id>` keeps the content. A record whose mount is gone (a reboot, `umount` by hand) is a leftover that
//! `system check` names and `--repair` removes.

use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use dhow_images::Snapshot;
use dhow_images::{Digest, Matcher};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::system::Problem;

/// An image that is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// 16 hexadecimal digits.
    pub id: String,
    /// As the user named it.
    pub image: String,
    /// The image's id.
    pub digest: String,
    /// The variant.
    pub platform: String,
    /// Where it is mounted.
    pub path: PathBuf,
}

const FOLDER: &str = "mounts";
const RECORD: &str = "mount.json";
/// How leases of mounts begin.
const LEASE: &str = "mount-";

impl Engine {
    /// Mounts an image read-only: at `at`, an empty directory, or else at a place of its own, where it stays the only
    /// one of this image.
    ///
    /// # Errors
    /// Unknown image, a directory that is not empty, or a system that does not let this user mount.
    pub fn mount_image(&self, wanted: &str, platforms: &Matcher, at: Option<&Path>) -> Result<ImageMount> {
        let target = self.find_image(wanted)?;
        let digest = target.digest.to_string();
        let image = self.store().image(&target, platforms)?;
        let platform = image.platform.to_string();
        let at = at.map(fs::canonicalize).transpose()?;
        if let Some(at) = &at
            && fs::read_dir(at)?.next().is_some()
        {
            return Err(Error::Invalid(format!("{}: directory is not empty", at.display())));
        }
        if at.is_none() {
            let same = |mount: &ImageMount| {
                mount.digest == digest && mount.platform == platform && self.is_own(mount)
            };
            if let Some(mount) = self.mounted_images()?.into_iter().find(same) {
                return Ok(mount);
            }
        }
        make_folder(&self.root().join(FOLDER))?;
        let id = random_id()?;
        let folder = self.mount_folder(&id);
        make_folder(&folder)?;
        let path = at.unwrap_or_else(|| folder.join("fs"));
        let mount = ImageMount { id, image: wanted.to_owned(), digest, platform, path };
        let mounted = self.mount(&mount, &target.digest, &image);
        if mounted.is_err() {
            // The first error is the one to report; `system check` finds what stays.
            self.forget_mount(&mount.id).ok();
        }
        mounted.map(|()| mount)
    }

    fn mount(&self, mount: &ImageMount, digest: &Digest, image: &dhow_images::Image) -> Result<()> {
        let folder = self.mount_folder(&mount.id);
        for part in ["empty", "fs"] {
            make_folder(&folder.join(part))?;
        }
        let record = serde_json::to_vec(mount).map_err(std::io::Error::other)?;
        let draft = folder.join(".mount.json");
        fs::write(&draft, record)?;
        fs::rename(draft, folder.join(RECORD))?;
        self.store().lease(&format!("{LEASE}{}", mount.id), std::slice::from_ref(digest), true)?;
        #[cfg(target_os = "linux")]
        {
            let layers = self.layers_of(image)?;
            // Of a layer that occurs twice only the upper one shows, and the kernel refuses the other.
            let mut paths: Vec<&Path> = Vec::new();
            for layer in layers.iter().rev() {
                if !paths.contains(&layer.as_path()) {
                    paths.push(layer);
                }
            }
            Ok(dhow_runtime::native::view::mount(&paths, &folder.join("empty"), &mount.path)?)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = image;
            Err(Error::NotYet {
                what: "mounting an image on this system".to_owned(),
                hint: "look into it with `dhow image tree`".to_owned(),
            })
        }
    }

    /// Directories with the image's files, lowest first.
    #[cfg(target_os = "linux")]
    fn layers_of(&self, image: &dhow_images::Image) -> Result<Vec<PathBuf>> {
        Ok(match self.store().snapshot(image, &dhow_images::NoProgress)? {
            Snapshot::Files(layers) => layers.into_iter().map(|layer| layer.path).collect(),
            Snapshot::Index(indexed) => vec![self.store().mount(&indexed)?],
        })
    }

    /// Every image that is mounted, oldest first.
    ///
    /// # Errors
    /// When the folder of records cannot be read.
    pub fn mounted_images(&self) -> Result<Vec<ImageMount>> {
        let there = mount_points();
        let mut mounts: Vec<(std::time::SystemTime, ImageMount)> = Vec::new();
        for id in self.mount_ids()? {
            let Some(mount) = self.mount_record(&id) else { continue };
            if there.contains(&mount.path) {
                let made = fs::metadata(self.mount_folder(&id).join(RECORD))?.modified()?;
                mounts.push((made, mount));
            }
        }
        mounts.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
        Ok(mounts.into_iter().map(|(_, mount)| mount).collect())
    }

    /// Unmounts an image, by its name, id or the directory where it is: every mount that this means. With `force` also
    /// one that is in use.
    ///
    /// # Errors
    /// When it is not mounted, or busy.
    pub fn unmount_image(&self, wanted: &str, force: bool) -> Result<Vec<ImageMount>> {
        let path = fs::canonicalize(wanted).ok();
        let found = self.find_image(wanted).ok().map(|image| image.digest.to_string());
        let is_meant = |mount: &ImageMount| {
            mount.image == wanted
                || Some(&mount.path) == path.as_ref()
                || Some(&mount.digest) == found.as_ref()
        };
        let meant: Vec<_> = self.mounted_images()?.into_iter().filter(is_meant).collect();
        if meant.is_empty() {
            return Err(Error::Invalid(format!("image {wanted} is not mounted")));
        }
        for mount in &meant {
            self.unmount(mount, force)?;
        }
        Ok(meant)
    }

    /// Unmounts one.
    ///
    /// # Errors
    /// When it is busy, and not forced.
    pub fn unmount(&self, mount: &ImageMount, force: bool) -> Result<()> {
        #[cfg(target_os = "linux")]
        dhow_runtime::native::view::unmount_view(&mount.path, force)?;
        #[cfg(not(target_os = "linux"))]
        let _ = force;
        self.forget_mount(&mount.id)
    }

    /// Removes a record whose mount is gone.
    fn forget_mount(&self, id: &str) -> Result<()> {
        let folder = self.mount_folder(id);
        // A mount that is there after all makes this fail, and nothing of it is touched.
        for part in ["fs", "empty"] {
            match fs::remove_dir(folder.join(part)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.store().release(&format!("{LEASE}{id}"))?;
        Ok(dhow_images::remove_tree(folder)?)
    }

    /// Mounts without a record, records without a mount, and leases without either.
    pub(crate) fn check_mounts(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let there = mount_points();
        let ids = self.mount_ids()?;
        for id in &ids {
            if self.mount_record(id).is_some_and(|mount| there.contains(&mount.path)) {
                continue;
            }
            // One that is being made has a record and no mount yet.
            std::thread::sleep(crate::system::A_MOMENT);
            if self.mount_record(id).is_some_and(|mount| mount_points().contains(&mount.path)) {
                continue;
            }
            if repair {
                self.forget_mount(id)?;
            }
            let what = "record of a mounted image that is not mounted".to_owned();
            problems.push(Problem::new(format!("{FOLDER}/{id}"), what, repair));
        }
        for lease in self.store().lease_ids()? {
            let Some(id) = lease.strip_prefix(LEASE) else { continue };
            if ids.iter().any(|other| other == id) || self.mount_folder(id).exists() {
                continue;
            }
            if repair {
                self.store().release(&lease)?;
            }
            let what = "lease of a mounted image that is not mounted".to_owned();
            problems.push(Problem::new(format!("leases/{lease}"), what, repair));
        }
        Ok(())
    }

    /// What the lease of a mount should keep.
    pub(crate) fn mount_keeps(&self, lease: &str) -> Option<Vec<Digest>> {
        Some(vec![self.mount_record(lease.strip_prefix(LEASE)?)?.digest.parse().ok()?])
    }

    fn mount_ids(&self) -> Result<Vec<String>> {
        match fs::read_dir(self.root().join(FOLDER)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => Ok(entries?
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<_>>()?),
        }
    }

    fn mount_folder(&self, id: &str) -> PathBuf {
        self.root().join(FOLDER).join(id)
    }

    fn mount_record(&self, id: &str) -> Option<ImageMount> {
        serde_json::from_slice(&fs::read(self.mount_folder(id).join(RECORD)).ok()?).ok()
    }

    /// Whether it is where images are mounted when nobody says where.
    fn is_own(&self, mount: &ImageMount) -> bool {
        mount.path.starts_with(self.mount_folder(&mount.id))
    }
}

/// Every place where something is mounted. Empty where there is no such list.
fn mount_points() -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescaped).collect()
}

/// A path as the kernel writes it: spaces, tabs, line breaks and backslashes as `\` and three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let code = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    #[cfg(unix)]
    return PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(path));
    #[cfg(not(unix))]
    PathBuf::from(String::from_utf8_lossy(&path).into_owned())
}

fn random_id() -> Result<String> {
    let number = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(format!("{number:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_spelling_of_paths() {
        assert_eq!(unescaped(br"/a\040b\134c\011"), Path::new("/a b\\c\t"));
        assert_eq!(unescaped(br"/a\04"), Path::new(r"/a\04"));
        assert_eq!(unescaped(br"/a\\"), Path::new(r"/a\\"));
    }

    /// The EROFS mount of a stored image, and an overlay on top of it, with owners as a user namespace has them.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_indexed_image_mounted_for_a_user_namespace() {
        use std::io::{Read as _, Write as _};
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::MetadataExt as _;
        use std::process::{Command, Stdio};

        use dhow_images::compose::{ImageBuilder, LayerBuilder};
        use dhow_images::{LayerForm, NoProgress, Store};
        use dhow_runtime::native::view;

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let store = Store::open(at("store")).unwrap();
        let store = store.with_mounts(at("mounts")).with_layer_form(LayerForm::Index);
        let mut layer = LayerBuilder::new();
        layer.dir("d", 0o755).file("d/f", 0o640, "content");
        let platform = "linux/amd64".parse().unwrap();
        let mut image = ImageBuilder::new(&platform);
        image.layer(layer);
        let image = store.image(&image.build(&store).unwrap(), &Matcher::only(&platform)).unwrap();
        let Ok(Snapshot::Index(indexed)) = store.snapshot(&image, &NoProgress) else {
            assert!(!rustix::process::geteuid().is_root(), "root on this machine mounts no index");
            return;
        };
        let tree = store.mount(&indexed).unwrap();
        // A namespace lives as long as somebody is in it.
        let mut inside = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        inside.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        for (map, first) in [("uid_map", 100_000), ("gid_map", 200_000)] {
            fs::write(format!("/proc/{}/{map}", inside.id()), format!("0 {first} 65536")).unwrap();
        }
        let users = fs::File::open(format!("/proc/{}/ns/user", inside.id())).unwrap();
        let (shifted, over) = (at("shifted"), at("over"));
        view::mount_shifted(&tree, users.file().as_fd(), &shifted).unwrap();
        view::mount(&[&shifted], &at("empty"), &over).unwrap();
        let owner = |tree: &Path, name: &str| {
            let found = fs::symlink_metadata(tree.join(name)).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        let seen = [&tree, &shifted, &over].map(|tree| (owner(tree, "d/f"), owner(tree, "d")));
        let content = fs::read(over.join("d/f")).unwrap();
        let written = fs::write(shifted.join("d/f"), "x").is_ok();
        for path in [&over, &shifted, &tree] {
            view::unmount_view(path, true).unwrap();
        }
        inside.stdin.take().unwrap().write_all(b"end\n").unwrap();
        inside.wait().unwrap();
        let there = ((100_000, 200_000, 0o640), (100_000, 200_000, 0o755));
        assert_eq!(seen, [((0, 0, 0o640), (0, 0, 0o755)), there, there]);
        assert!(content == b"content" && !written);
    }
}
