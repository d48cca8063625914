//! The union over directories made for each test: layers as text, operations, and what is on disk afterwards.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::node::Node;
use super::{Errno, Kind, Open, Opened, Union};
use crate::bundle::Layer;

mod copies;
mod sharing;

/// A tree whose layers exist as long as it.
struct Tree {
    union: Union,
    temp: tempfile::TempDir,
}

/// Makes entries: `dir/`, `name=content`, `name>target`.
fn make(dir: &Path, entries: &[&str]) {
    for entry in entries {
        let path = |name: &str| {
            let path = dir.join(name);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("parents");
            path
        };
        if let Some((name, target)) = entry.split_once('>') {
            #[cfg(unix)]
            std::os::unix::fs::symlink(target, path(name)).expect("symlink");
            #[cfg(not(unix))]
            let _ = (name, target);
        } else if let Some((name, content)) = entry.split_once('=') {
            fs_err::write(path(name), content).expect("file");
        } else {
            fs_err::create_dir_all(dir.join(entry)).expect("dir");
        }
    }
}

/// A tree of layers, lowest first.
fn tree(layers: &[&[&str]]) -> Tree {
    let temp = tempfile::tempdir().expect("a directory");
    let mut lower = Vec::new();
    for (index, entries) in layers.iter().enumerate() {
        let path = temp.path().join(format!("layer{index}"));
        fs_err::create_dir(&path).expect("layer");
        make(&path, entries);
        lower.push(Layer { path, id: None });
    }
    fs_err::create_dir(temp.path().join("upper")).expect("upper");
    let union = Union::layered(&temp.path().join("upper"), &lower).expect("union");
    Tree { union, temp }
}

impl Tree {
    /// The same directories, opened anew, as another process or a later one does.
    fn again(&self) -> Union {
        let mut lower = Vec::new();
        while let path = self.temp.path().join(format!("layer{}", lower.len()))
            && path.is_dir()
        {
            lower.push(Layer { path, id: None });
        }
        Union::layered(&self.temp.path().join("upper"), &lower).expect("union")
    }

    fn root(&self) -> Arc<Node> {
        Arc::clone(self.union.root())
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.temp.path().join("upper").join(name)
    }

    /// The names of a directory, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let dir = self.union.directory(&self.root(), path).expect(path);
        let mut names: Vec<_> = dir.list().expect(path).iter().map(|entry| entry.name.to_owned()).collect();
        names.sort();
        names
    }

    fn read(&self, path: &str) -> Result<String, Errno> {
        let how = Open { read: true, follow: true, ..Open::default() };
        match self.union.open(&self.root(), path, &how)? {
            Opened::Dir(_) => Err(Errno::IsDir),
            Opened::File(mut open) => {
                let mut text = String::new();
                open.file.read_to_string(&mut text).expect(path);
                Ok(text)
            }
        }
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let how = Open { write: true, create: true, truncate: true, follow: true, ..Open::default() };
        self.put(path, text, how)
    }

    fn append(&self, path: &str, text: &str) -> Result<(), Errno> {
        self.put(path, text, Open { write: true, append: true, follow: true, ..Open::default() })
    }

    fn put(&self, path: &str, text: &str, how: Open) -> Result<(), Errno> {
        match self.union.open(&self.root(), path, &how)? {
            Opened::Dir(_) => Err(Errno::IsDir),
            Opened::File(mut open) => {
                open.file.write_all(text.as_bytes()).expect(path);
                Ok(())
            }
        }
    }

    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        self.union.mkdir(&self.root(), path)
    }

    fn unlink(&self, path: &str) -> Result<(), Errno> {
        self.union.unlink(&self.root(), path)
    }

    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        self.union.rmdir(&self.root(), path)
    }

    fn rename(&self, old: &str, new: &str) -> Result<(), Errno> {
        self.union.rename((&self.root(), old), (&self.root(), new))
    }

    fn kind(&self, path: &str) -> Result<Kind, Errno> {
        self.union.stat(&self.root(), path, false).map(|metadata| metadata.stat.kind)
    }

    fn ino(&self, path: &str) -> u64 {
        self.union.stat(&self.root(), path, false).expect(path).ino
    }
}

#[test]
fn higher_layers_win() {
    let tree =
        tree(&[&["etc/a=1", "etc/b=1", "x/y=1", "f=file"], &["etc/b=2", "etc/c=2", "x=now a file", "f/"]]);
    assert_eq!(tree.names("etc"), ["a", "b", "c"]);
    assert_eq!(tree.read("etc/a").as_deref(), Ok("1"));
    assert_eq!(tree.read("etc/b").as_deref(), Ok("2"));
    assert_eq!(tree.read("x").as_deref(), Ok("now a file"));
    assert_eq!(tree.read("x/y"), Err(Errno::NotDir));
    assert_eq!(tree.kind("f"), Ok(Kind::Dir));
    assert_eq!(tree.names("f"), [""; 0]);
}

#[test]
fn whiteouts_of_both_forms_hide() {
    let tree = tree(&[
        &["a/one=1", "a/two=1", "b/one=1", "c/one=1", "d/one=1"],
        &["a/.wh.one=", "a/three=2", "b/.wh..wh..opq=", "b/two=2", ".wh.c=", "d/"],
    ]);
    assert_eq!(tree.names("a"), ["three", "two"]);
    assert_eq!(tree.read("a/one"), Err(Errno::NotFound));
    assert_eq!(tree.names("b"), ["two"]);
    assert_eq!(tree.read("b/one"), Err(Errno::NotFound));
    assert_eq!(tree.names("."), ["a", "b", "d"]);
    assert_eq!(tree.kind("c"), Err(Errno::NotFound));
    assert_eq!(tree.names("d"), ["one"]);
    // The marks themselves are nobody's business.
    for mark in ["a/.wh.one", "b/.wh..wh..opq", ".wh.c"] {
        assert_eq!(tree.kind(mark), Err(Errno::NotFound), "{mark}");
        assert_eq!(tree.write(mark, "x"), Err(Errno::NotPermitted), "{mark}");
        assert_eq!(tree.mkdir(&format!("{mark}x")), Err(Errno::NotPermitted), "{mark}");
        assert_eq!(tree.rename("a/two", mark), Err(Errno::NotPermitted), "{mark}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernels_whiteouts_hide() {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
    let tree = tree(&[&["a/one=1", "a/two=1", "b/one=1"], &["a/three=2", "b/two=2"]]);
    let layer = tree.temp.path().join("layer1");
    mknodat(CWD, layer.join("a/one"), FileType::CharacterDevice, Mode::empty(), 0).expect("mknod 0/0");
    setxattr(layer.join("b"), "user.overlay.opaque", b"y", XattrFlags::empty()).expect("xattr");
    assert_eq!(tree.names("a"), ["three", "two"]);
    assert_eq!(tree.kind("a/one"), Err(Errno::NotFound));
    assert_eq!(tree.names("b"), ["two"]);
    assert_eq!(tree.kind("b/one"), Err(Errno::NotFound));
    // One in the writable directory makes room, and the lower object stays hidden.
    fs_err::create_dir(tree.upper("a")).expect("dir");
    mknodat(CWD, tree.upper("a/two"), FileType::CharacterDevice, Mode::empty(), 0).expect("mknod 0/0");
    let again = Union::layered(
        &tree.temp.path().join("upper"),
        &[Layer { path: tree.temp.path().join("layer0"), id: None }],
    );
    let tree = Tree { union: again.expect("union"), temp: tree.temp };
    assert_eq!(tree.names("a"), ["one"]);
    tree.mkdir("a/two").expect("mkdir over the mark");
    assert_eq!(tree.names("a/two"), [""; 0]);
    tree.rmdir("a/two").expect("rmdir");
    assert_eq!(tree.kind("a/two"), Err(Errno::NotFound));
}

#[test]
fn copy_up_keeps_the_layer_and_the_number() {
    let tree = tree(&[&["dir/sub/file=lower"], &[]]);
    let (file, dir) = (tree.ino("dir/sub/file"), tree.ino("dir/sub"));
    let old = Open { read: true, ..Open::default() };
    let Ok(Opened::File(mut before)) = tree.union.open(&tree.root(), "dir/sub/file", &old) else {
        panic!("a file");
    };
    tree.append("dir/sub/file", "+upper").expect("append");
    assert_eq!(tree.read("dir/sub/file").as_deref(), Ok("lower+upper"));
    assert_eq!(fs_err::read_to_string(tree.temp.path().join("layer0/dir/sub/file")).expect("read"), "lower");
    assert_eq!(fs_err::read_to_string(tree.upper("dir/sub/file")).expect("read"), "lower+upper");
    assert_eq!((tree.ino("dir/sub/file"), tree.ino("dir/sub")), (file, dir));
    let listed = tree.union.directory(&tree.root(), "dir/sub").expect("dir").list().expect("list");
    assert_eq!(listed.get(0).map(|entry| entry.ino), Some(file));
    let listed = tree.union.directory(&tree.root(), "dir").expect("dir").list().expect("list");
    assert_eq!(listed.get(0).map(|entry| entry.ino), Some(dir));
    // As with the kernel's overlay, who had it open reads on in the layer.
    let mut text = String::new();
    before.file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "lower");
    let metadata = before.about.metadata(&before.file).expect("metadata");
    assert_eq!((metadata.ino, metadata.stat.size), (file, 5));
    // What is set through it is set on the file that everybody sees.
    let when = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    before.about.set_times(&before.file, (None, Some(when))).expect("times");
    let stat = tree.union.stat(&tree.root(), "dir/sub/file", false).expect("stat").stat;
    assert_eq!((stat.modified, stat.links), (Some(when), 1));
}

#[cfg(unix)]
#[test]
fn copy_up_keeps_mode_and_time() {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = tree(&[&["dir/file=data"]]);
    let lower = tree.temp.path().join("layer0/dir/file");
    let when = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs_err::set_permissions(&lower, std::fs::Permissions::from_mode(0o751)).expect("chmod");
    std::fs::File::options().write(true).open(&lower).and_then(|file| file.set_modified(when)).expect("time");
    let root = tree.root();
    tree.union.link((&root, "dir/file"), false, (&root, "dir/second")).expect("link");
    let copied = fs_err::metadata(tree.upper("dir/file")).expect("copied up");
    assert_eq!(copied.permissions().mode() & 0o7777, 0o751);
    assert_eq!(copied.modified().expect("time"), when);
    assert_eq!(tree.union.stat(&tree.root(), "dir/second", false).expect("stat").stat.links, 2);
    // A file cut to nothing is not copied first.
    tree.write("dir/file", "").expect("truncate");
    assert_eq!(tree.read("dir/second").as_deref(), Ok(""));
}

#[test]
fn removing_leaves_marks_only_where_needed() {
    let tree = tree(&[&["a=1", "dir/x=1", "dir/y=1"]]);
    tree.write("new", "n").expect("write");
    tree.unlink("new").expect("unlink");
    assert!(!tree.upper(".wh.new").exists());
    tree.unlink("a").expect("unlink");
    assert!(tree.upper(".wh.a").exists());
    assert_eq!(tree.unlink("a"), Err(Errno::NotFound));
    assert_eq!(tree.rmdir("dir"), Err(Errno::NotEmpty));
    tree.unlink("dir/x").expect("unlink");
    tree.append("dir/y", "2").expect("append");
    tree.unlink("dir/y").expect("unlink");
    assert_eq!(tree.names("dir"), [""; 0]);
    let held = tree.union.directory(&tree.root(), "dir").expect("dir");
    tree.rmdir("dir").expect("rmdir");
    assert_eq!(tree.names("."), [""; 0]);
    assert!(tree.upper(".wh.dir").exists() && !tree.upper("dir").exists());
    // Who still has it open finds nothing and can make nothing.
    assert_eq!(held.list().map(|list| list.len()), Ok(0));
    assert_eq!(tree.union.mkdir(&held, "z"), Err(Errno::NotFound));
    // A new one of the same name does not show the old content, and its mark is gone.
    tree.mkdir("dir").expect("mkdir");
    assert_eq!(tree.names("dir"), [""; 0]);
    assert!(tree.upper("dir/.wh..wh..opq").exists() && !tree.upper(".wh.dir").exists());
    tree.write("a", "again").expect("write");
    assert!(!tree.upper(".wh.a").exists());
    assert_eq!(tree.names("."), ["a", "dir"]);
    assert_eq!(tree.rmdir("a"), Err(Errno::NotDir));
    assert_eq!(tree.unlink("dir"), Err(Errno::IsDir));
}

#[test]
fn renaming() {
    let tree = tree(&[&["a=1", "b=2", "dir/x=1", "full/x=1"]]);
    let ino = tree.ino("a");
    tree.rename("a", "b").expect("file over file");
    assert_eq!(tree.read("b").as_deref(), Ok("1"));
    assert_eq!(tree.ino("b"), ino);
    assert_eq!(tree.names("."), ["b", "dir", "full"]);
    assert!(tree.upper(".wh.a").exists());
    assert_eq!(tree.rename("b", "dir"), Err(Errno::IsDir));
    tree.rename("dir", "moved").expect("with what the layer has in it");
    assert_eq!(tree.names("moved"), ["x"]);
    tree.rename("moved", "dir").expect("and back");
    tree.mkdir("own").expect("mkdir");
    tree.write("own/f", "own").expect("write");
    assert_eq!(tree.rename("own", "b"), Err(Errno::NotDir));
    assert_eq!(tree.rename("own", "full"), Err(Errno::NotEmpty));
    assert_eq!(tree.rename("own", "own/inside"), Err(Errno::Invalid));
    assert_eq!(tree.rename("own/.", "other"), Err(Errno::Busy));
    assert_eq!(tree.rename("nothing", "other"), Err(Errno::NotFound));
    tree.unlink("dir/x").expect("unlink");
    let held = tree.union.directory(&tree.root(), "own").expect("dir");
    tree.rename("own", "dir").expect("directory over an empty one of a layer");
    assert_eq!(tree.names("dir"), ["f"]);
    assert_eq!(held.path(), "/dir");
    assert_eq!(tree.read("dir/f").as_deref(), Ok("own"));
    tree.rename("dir", "elsewhere").expect("away");
    assert_eq!(tree.kind("dir"), Err(Errno::NotFound));
    assert_eq!(tree.names("."), ["b", "elsewhere", "full"]);
    tree.rename("b", "b").expect("onto itself");
    tree.rename("full/x", "full/z").expect("within");
    assert_eq!(tree.names("full"), ["z"]);
}

#[cfg(unix)]
#[test]
fn links_are_resolved_in_the_merged_tree() {
    let tree = tree(&[
        &["usr/bin/tool=t", "bin>usr/bin", "etc/abs>/usr/bin/tool", "deep/link>../../../../etc/target"],
        &[
            "etc/target=top",
            "loop>loop",
            "dangling>new",
            "dir>usr",
            "self>.",
            "secret>/../../../../../../etc/passwd",
        ],
    ]);
    assert_eq!(tree.read("bin/tool").as_deref(), Ok("t"));
    assert_eq!(tree.read("etc/abs").as_deref(), Ok("t"));
    assert_eq!(tree.read("deep/link").as_deref(), Ok("top"));
    assert_eq!(tree.read("self/self/self/bin/tool").as_deref(), Ok("t"));
    assert_eq!(tree.read("loop"), Err(Errno::Loop));
    assert_eq!(tree.read("secret"), Err(Errno::NotFound));
    assert_eq!(tree.kind("bin"), Ok(Kind::Symlink));
    assert_eq!(tree.kind("bin/"), Ok(Kind::Dir));
    assert_eq!(tree.read("dangling"), Err(Errno::NotFound));
    tree.write("dangling", "made").expect("through the link");
    assert_eq!(tree.read("new").as_deref(), Ok("made"));
    let nofollow = Open { read: true, ..Open::default() };
    assert_eq!(tree.union.open(&tree.root(), "bin", &nofollow).err(), Some(Errno::Loop));
    assert_eq!(tree.union.readlink(&tree.root(), "etc/abs").as_deref(), Ok("/usr/bin/tool"));
    assert_eq!(tree.union.readlink(&tree.root(), "etc"), Err(Errno::Invalid));
    assert_eq!(tree.union.symlink("/abs", &tree.root(), "s"), Err(Errno::NotPermitted));
    tree.union.symlink("etc/target", &tree.root(), "s").expect("symlink");
    assert_eq!(tree.read("s").as_deref(), Ok("top"));
    tree.rename("bin", "bin2").expect("rename a layer's link");
    assert_eq!(tree.read("bin2/tool").as_deref(), Ok("t"));
    tree.unlink("bin2").expect("unlink");
    assert_eq!(tree.kind("usr/bin"), Ok(Kind::Dir));
}

#[test]
fn hostile_paths() {
    let tree = tree(&[&["dir/f=1"]]);
    let long = "x".repeat(300);
    let longer = "d/".repeat(3000);
    for (path, errno) in [
        ("", Errno::NotFound),
        ("/", Errno::NotPermitted),
        ("/dir/f", Errno::NotPermitted),
        ("..", Errno::NotPermitted),
        ("dir/../..", Errno::NotPermitted),
        ("dir/../../dir/f", Errno::NotPermitted),
        ("dir/f/", Errno::NotDir),
        ("dir/f/.", Errno::NotDir),
        ("dir/f/..", Errno::NotDir),
        ("dir\0/f", Errno::Invalid),
        (&long, Errno::NameTooLong),
        (&longer, Errno::NameTooLong),
    ] {
        assert_eq!(tree.read(path), Err(errno), "{path:?}");
        assert_eq!(tree.write(path, "").err(), Some(errno), "{path:?}");
    }
    assert_eq!(tree.read("dir/../dir//./f").as_deref(), Ok("1"));
    assert_eq!(tree.mkdir("."), Err(Errno::Exists));
    assert_eq!(tree.rmdir("dir/."), Err(Errno::Invalid));
    assert_eq!(tree.unlink("dir/."), Err(Errno::IsDir));
    assert_eq!(tree.write("new/", "x"), Err(Errno::IsDir));
    tree.mkdir("new/").expect("a slash is right for a directory");
    // Below an open directory `..` still ends at the root.
    let dir = tree.union.directory(&tree.root(), "dir").expect("dir");
    assert_eq!(tree.union.stat(&dir, "../dir/f", true).map(|metadata| metadata.stat.size), Ok(1));
    assert_eq!(tree.union.stat(&dir, "../../dir", true).err(), Some(Errno::NotPermitted));
}

#[test]
fn opening() {
    let tree = tree(&[&["dir/f=1"]]);
    let open = |path: &str, how: Open| tree.union.open(&tree.root(), path, &how).map(|_| ());
    let read = Open { read: true, follow: true, ..Open::default() };
    assert_eq!(open("dir", Open { directory: true, ..read }), Ok(()));
    assert_eq!(open("dir/f", Open { directory: true, ..read }), Err(Errno::NotDir));
    assert_eq!(open("dir", Open { write: true, ..read }), Err(Errno::IsDir));
    assert_eq!(open("dir", Open { create: true, ..read }), Err(Errno::IsDir));
    assert_eq!(open("dir/f", Open { create: true, exclusive: true, ..read }), Err(Errno::Exists));
    assert_eq!(open("dir/g", Open { create: true, directory: true, ..read }), Err(Errno::Invalid));
    assert_eq!(open("dir/g", read), Err(Errno::NotFound));
    assert_eq!(open("dir/g", Open { create: true, exclusive: true, ..read }), Ok(()));
    assert_eq!(open("none/g", Open { create: true, ..read }), Err(Errno::NotFound));
    assert_eq!(tree.names("dir"), ["f", "g"]);
}

#[cfg(unix)]
#[test]
fn devices_and_fifos_of_a_layer_are_not_opened() {
    let tree = tree(&[&["dir/f=1"]]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.temp.path().join("layer0/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("mkfifo");
    assert_eq!(tree.kind("fifo"), Ok(Kind::Fifo));
    assert_eq!(tree.read("fifo"), Err(Errno::NotSupported));
    assert_eq!(tree.append("fifo", "x"), Err(Errno::NotSupported));
    tree.unlink("fifo").expect("removing is fine");
}

#[test]
fn mounts() {
    let mut tree = tree(&[&["etc/hosts=image", "etc/passwd=p"]]);
    let host = tree.temp.path().join("host");
    make(&host, &["data/f=host", "hosts=mounted", ".wh.odd=plain"]);
    tree.union.bind(&host, Path::new("/mnt/deep/host"), false).expect("bind");
    tree.union.bind(&host.join("hosts"), Path::new("/etc/hosts"), true).expect("bind a file");
    tree.union.bind(&host.join("data"), Path::new("/ro"), true).expect("bind read-only");
    assert_eq!(tree.names("."), ["etc", "mnt", "ro"]);
    assert_eq!(tree.names("mnt/deep/host"), [".wh.odd", "data", "hosts"]);
    assert_eq!(tree.read("mnt/deep/host/data/f").as_deref(), Ok("host"));
    assert_eq!(tree.read("mnt/deep/host/../../../etc/passwd").as_deref(), Ok("p"));
    assert_eq!(tree.read("etc/hosts").as_deref(), Ok("mounted"));
    assert_eq!(tree.append("etc/hosts", "x"), Err(Errno::ReadOnly));
    assert_eq!(tree.read("ro/f").as_deref(), Ok("host"));
    for failed in [
        tree.write("ro/new", "x"),
        tree.append("ro/f", "x"),
        tree.mkdir("ro/d"),
        tree.unlink("ro/f"),
        tree.rename("ro/f", "ro/g"),
    ] {
        assert_eq!(failed, Err(Errno::ReadOnly));
    }
    tree.write("mnt/deep/host/made", "by a guest").expect("write");
    assert_eq!(fs_err::read_to_string(host.join("made")).expect("read"), "by a guest");
    // What others do there is seen at once.
    fs_err::create_dir_all(host.join("sub")).expect("dir");
    fs_err::write(host.join("sub/late"), "late").expect("write");
    assert_eq!(tree.read("mnt/deep/host/sub/late").as_deref(), Ok("late"));
    assert_eq!(tree.rename("mnt/deep/host/made", "etc/made"), Err(Errno::CrossDevice));
    for busy in [
        tree.rmdir("mnt/deep/host"),
        tree.unlink("etc/hosts"),
        tree.rename("etc/hosts", "etc/h"),
        tree.rename("etc/passwd", "etc/hosts"),
    ] {
        assert_eq!(busy, Err(Errno::Busy));
    }
    assert!(tree.rename("mnt/deep", "mnt/d").is_err());
    assert_ne!(
        tree.union.stat(&tree.root(), "ro", false).expect("stat").dev,
        tree.union.stat(&tree.root(), "etc", false).expect("stat").dev
    );
    assert!(tree.union.bind(&host, Path::new("/"), false).is_err());
    assert!(tree.union.bind(&host.join("nothing"), Path::new("/x"), false).is_err());
    assert!(tree.union.bind(&host.join("hosts"), Path::new("/etc"), false).is_err());
}

#[test]
fn many_entries_are_listed_once() {
    let names: Vec<String> = (0..300).map(|number| format!("dir/f{number}=x")).collect();
    let entries: Vec<&str> = names.iter().map(String::as_str).collect();
    let tree = tree(&[&entries, &entries[..150], &["dir/.wh.f0=", "dir/only=x"]]);
    assert_eq!(tree.names("dir").len(), 300);
    assert_eq!(tree.kind("dir/f0"), Err(Errno::NotFound));
}

#[test]
fn a_plain_directory_keeps_every_name() {
    let temp = tempfile::tempdir().expect("a directory");
    make(temp.path(), &[".wh.x=mark", "x=there", "dir/"]);
    let tree = Tree { union: Union::plain(temp.path()).expect("union"), temp };
    assert_eq!(tree.names("."), [".wh.x", "dir", "x"]);
    tree.unlink("x").expect("unlink");
    tree.rename("dir", "renamed").expect("rename");
    tree.write("renamed/.wh.y", "fine").expect("write");
    assert_eq!(tree.names("."), [".wh.x", "renamed"]);
    tree.union.set_readonly();
    assert_eq!(tree.write("z", "x"), Err(Errno::ReadOnly));
}

#[test]
fn times() {
    let tree = tree(&[&["dir/f=1"]]);
    let when = SystemTime::UNIX_EPOCH + Duration::new(1_234_567, 500_000_000);
    tree.union.set_times(&tree.root(), "dir/f", true, (None, Some(when))).expect("times");
    let stat = tree.union.stat(&tree.root(), "dir/f", true).expect("stat").stat;
    assert_eq!(stat.modified, Some(when));
    #[cfg(unix)]
    {
        let early = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
        tree.union.set_times(&tree.root(), "dir", true, (Some(when), Some(early))).expect("times");
        let stat = tree.union.stat(&tree.root(), "dir", true).expect("stat").stat;
        assert_eq!((stat.accessed, stat.modified), (Some(when), Some(early)));
    }
}
