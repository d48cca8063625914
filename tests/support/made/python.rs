//! A larger image for measurements: a minimal Debian; Python, pip and git; 5,000 small files; one tiny file.
//!
//! An OCI layout with two tags of the same four layers, `gz` and `zstd` (level 3): 535 MB and 20,000 entries unpacked.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{cache, debian, digest_of, once, tool, umoci};

/// The layout's folder, made at the first use; that takes a minute, root, and a Debian mirror.
pub(crate) fn python() -> Option<PathBuf> {
    let dir = cache("python");
    if !dir.join(".made").exists() {
        // The lowest layer.
        debian()?;
    }
    let layout = dir.join("layout");
    once(&dir, "bookworm 1", || {
        for folder in ["layout", "bundle"] {
            tool(Command::new("rm").arg("-rf").arg(dir.join(folder)));
        }
        make(&layout, &dir.join("bundle"));
        tool(Command::new("rm").arg("-rf").arg(dir.join("bundle")));
        zstd_variant(&layout);
    });
    Some(layout)
}

fn make(layout: &Path, bundle: &Path) {
    let image = format!("{}:gz", layout.display());
    tool(umoci(["init", "--layout"]).arg(layout));
    tool(&mut umoci(["new", "--image", &image]));
    tool(umoci(["unpack", "--image", &image]).arg(bundle));
    let root = bundle.join("rootfs");
    let repack = || {
        tool(umoci(["repack", "--refresh-bundle", "--image", &image]).arg(bundle));
    };
    tool(Command::new("tar").args(["-xpf"]).arg(cache("debian").join("minbase.tar")).arg("-C").arg(&root));
    repack();
    fs_err::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).expect("resolv.conf");
    // The archive of the Debian has no devices.
    let null = root.join("dev/null");
    tool(Command::new("mknod").args(["-m", "666"]).arg(&null).args(["c", "1", "3"]));
    let install = "apt-get -qq update && apt-get -qq install -y python3 python3-pip git && apt-get clean && \
                   rm -rf /var/lib/apt/lists/*";
    let mut apt = Command::new("chroot");
    apt.arg(&root).args(["sh", "-c", install]).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    tool(apt.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"));
    fs_err::remove_file(&null).expect("device");
    repack();
    for n in 0..5000 {
        let folder = root.join(format!("srv/small/{}", n / 10));
        fs_err::create_dir_all(&folder).expect("folder");
        // About 1.5 kB each that compress a little.
        let text: String = (0..24).map(|part| digest_of(format!("{n} {part}").as_bytes())).collect();
        fs_err::write(folder.join(format!("{n}.txt")), text).expect("small file");
    }
    repack();
    fs_err::write(root.join("srv/main.py"), "print('hello from python')\n").expect("program");
    repack();
    tool(&mut umoci([
        "config",
        "--image",
        &image,
        "--config.cmd",
        "python3",
        "--config.cmd",
        "/srv/main.py",
    ]));
    tool(&mut umoci(["gc", "--layout", &layout.display().to_string()]));
}

/// Adds the tag `zstd`: the same tars compressed differently.
fn zstd_variant(layout: &Path) {
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs_err::read(path).expect("blob")).expect("a JSON document")
    };
    let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
    let store = |descriptor: &mut Value, bytes: &[u8]| {
        let digest = digest_of(bytes);
        fs_err::write(blob(&digest), bytes).expect("blob");
        descriptor["digest"] = digest.into();
        descriptor["size"] = bytes.len().into();
    };
    let mut index = read(&layout.join("index.json"));
    let mut tagged = index["manifests"][0].clone();
    let mut manifest = read(&blob(tagged["digest"].as_str().expect("digest")));
    for layer in manifest["layers"].as_array_mut().expect("layers") {
        let file = fs_err::File::open(blob(layer["digest"].as_str().expect("digest"))).expect("layer");
        let tar = flate2::read::MultiGzDecoder::new(file);
        store(layer, &zstd::encode_all(tar, 3).expect("zstd to memory"));
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
    }
    store(&mut tagged, manifest.to_string().as_bytes());
    tagged["annotations"] = json!({ "org.opencontainers.image.ref.name": "zstd" });
    index["manifests"].as_array_mut().expect("manifests").push(tagged);
    fs_err::write(layout.join("index.json"), index.to_string()).expect("index.json");
}
