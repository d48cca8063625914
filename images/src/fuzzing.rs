//! What is fuzzed: one plain function for each reader of what others wrote. Each fails by panicking.
//!
//! There in tests and with the feature `fuzzing` only. The tests run every target over its seeds and some thousand
//! mutations of them that are the same each time; `images/fuzz` runs them with libFuzzer.

use std::io::Read as _;
use std::path::Path;

use crate::Digest;
use crate::ImageConfig;
use crate::Index;
use crate::Manifest;
use crate::Reference;
use crate::layer::Fault;
use crate::layer::extract::extract;
use crate::layer::inflate::Inflate;
use crate::layer::inflate::WINDOW;
use crate::layer::tar::Content as _;
use crate::layer::tar::Entry;
use crate::layer::tar::Kind;
use crate::layer::tar::TarReader;
use crate::layer::write::TarWriter;
use crate::registry::Credentials;
use crate::registry::DockerConfig;

#[cfg(test)]
mod tests;

/// Reads some bytes in one way.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("reference", reference),
    ("documents", documents),
    ("challenge", challenge),
    ("docker_config", docker_config),
    ("inflate", inflate),
    ("tar", tar),
    ("extract", unpack),
    ("whiteouts", whiteouts),
    ("erofs", erofs),
    ("policy", policy),
    ("signature", signature),
];

/// Names of images and digests: what is accepted means the same when it is written out and read again.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = Reference::parse(text) {
        for written in [reference.canonical(), reference.familiar()] {
            let again =
                Reference::parse(&written).unwrap_or_else(|e| panic!("{text:?} became {written:?}: {e}"));
            assert_eq!(again.canonical(), reference.canonical(), "{text:?} by way of {written:?}");
        }
        assert!(!reference.registry().is_empty() && !reference.repository().is_empty(), "{text:?}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
}

/// Manifests, indexes and configurations: what is accepted can be written and read again.
pub fn documents(data: &[u8]) {
    fn again<T: serde::Serialize>(value: &T, parse: impl Fn(&[u8]) -> crate::Result<T>) {
        let write = |value: &T| serde_json::to_string(value).unwrap_or_else(|e| panic!("{e}"));
        let written = write(value);
        let read = parse(written.as_bytes()).unwrap_or_else(|e| panic!("{written}: {e}"));
        assert_eq!(write(&read), written);
    }
    if let Ok(manifest) = Manifest::parse("it", data) {
        again(&manifest, |bytes| Manifest::parse("it", bytes));
    }
    if let Ok(index) = Index::parse("it", data) {
        again(&index, |bytes| Index::parse("it", bytes));
    }
    if let Ok(config) = ImageConfig::parse("it", data) {
        again(&config, |bytes| ImageConfig::parse("it", bytes));
        config.platform().to_string();
    }
}

/// `WWW-Authenticate` headers, one a line.
pub fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    crate::registry::fuzz_challenge(text);
}

/// Docker's `config.json`: what is stored is found again, and nobody's credentials are lost by that.
pub fn docker_config(data: &[u8]) {
    const OTHER: &str = "docker.io";
    const REGISTRY: &str = "registry.example:5000";
    let no_helper = |_: &str, _: &str, input: &[u8]| Ok((true, input.to_vec()));
    in_folder(|dir| {
        let file = dir.join("config.json");
        fs_err::write(&file, data).unwrap_or_else(|e| panic!("{e}"));
        let Ok(mut config) = DockerConfig::load(&file) else { return };
        for (registry, repository) in [(OTHER, None), (OTHER, Some("library/x")), (REGISTRY, Some("a/b"))] {
            drop(config.credentials(registry, repository, &no_helper));
        }
        let before = config.user(OTHER);
        let secret = Credentials::Basic { user: "someone".into(), password: "secret:with a colon".into() };
        let stored = config.store(REGISTRY, "someone", &secret, &no_helper);
        if stored.is_ok() && config.helper(REGISTRY).is_none() {
            config.save().unwrap_or_else(|e| panic!("{e}"));
            let again = DockerConfig::load(&file).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again.user(REGISTRY).as_deref(), Some("someone"));
            assert_eq!(again.user(OTHER), before);
        }
    });
}

/// DEFLATE streams: what zlib accepts is accepted, with the same bytes, and nothing else.
pub fn inflate(data: &[u8]) {
    let (mut inflate, mut input) = (Inflate::new(), data);
    let mut buffer = crate::layer::inflate::buffer();
    let mut ours = Vec::new();
    let mut have = 0;
    let mut undo = || -> std::io::Result<()> {
        while !inflate.is_done() {
            let end = inflate.fill(&mut input, &mut buffer, 0, have, usize::MAX)?;
            ours.extend_from_slice(&buffer[have..end]);
            have = end.min(WINDOW);
            buffer.copy_within(end - have..end, 0);
        }
        Ok(())
    };
    let result = undo();
    let mut theirs = Vec::new();
    let other = flate2::bufread::DeflateDecoder::new(data).read_to_end(&mut theirs);
    match (result, other) {
        (Ok(()), Ok(_)) => assert!(ours == theirs, "other bytes"),
        (Err(_), Err(_)) => {}
        // It takes nothing at all for a stream of nothing.
        (Err(_), Ok(0)) => assert!(ours.is_empty()),
        (ours, theirs) => panic!("{ours:?} and {theirs:?}"),
    }
}

/// The reader of archives: names are clean, content is what the archive has, and writing it gives the same again.
pub fn tar(data: &[u8]) {
    let mut reader = TarReader::new(data);
    let mut read = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        for path in [&entry.path, &entry.link] {
            let dirty = path
                .split(|byte| *byte == b'/')
                .any(|name| matches!(name, b"." | b"..") || name.contains(&0));
            assert!(entry.kind == Kind::Symlink || !dirty, "{entry:?}");
        }
        let mut content = Vec::new();
        // Holes are not read: a few bytes can mean exabytes of them.
        let (mut holes, mut buffer) = (0_u64, [0; 4096]);
        loop {
            holes = holes.saturating_add(reader.skip_hole());
            match reader.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => content.extend_from_slice(&buffer[..count]),
            }
        }
        read += content.len();
        assert!(read <= data.len(), "more content than archive");
        if holes == 0 && content.len() as u64 == entry.size {
            written_and_read(&entry, &content);
        }
    }
}

fn written_and_read(entry: &Entry, content: &[u8]) {
    let plain = Entry { sparse: None, ..entry.clone() };
    let mut writer = TarWriter::new(Vec::new());
    let mut rest = content;
    writer.append(&plain, &mut rest).unwrap_or_else(|e| panic!("{entry:?}: {e}"));
    let bytes = writer.finish().unwrap_or_else(|e| panic!("{e}"));
    let mut reader = TarReader::new(bytes.as_slice());
    let read = reader.next_entry().unwrap_or_else(|fault| panic!("{entry:?}: {fault:?}"));
    let read = read.unwrap_or_else(|| panic!("{entry:?} is not there"));
    let same = (&read.path, read.kind, &read.link, read.size, &read.meta, read.device);
    assert_eq!(same, (&plain.path, plain.kind, &plain.link, plain.size, &plain.meta, plain.device));
    let mut again = Vec::new();
    reader.read_to_end(&mut again).unwrap_or_else(|e| panic!("{entry:?}: {e}"));
    assert_eq!(again, content);
}

/// Extraction: whatever the archive, nothing outside its folder changes.
pub fn unpack(data: &[u8]) {
    // A header may ask for a file as large as the disk.
    if asks_too_much(data) {
        return;
    }
    in_folder(|dir| {
        for name in ["root", "outside"] {
            fs_err::create_dir(dir.join(name)).unwrap_or_else(|e| panic!("{e}"));
        }
        let outside = dir.join("outside/file");
        fs_err::write(&outside, "untouched").unwrap_or_else(|e| panic!("{e}"));
        drop(extract(data, &dir.join("root")));
        let names = |dir: &Path| fs_err::read_dir(dir).unwrap_or_else(|e| panic!("{e}")).count();
        assert_eq!((names(dir), names(&dir.join("outside"))), (2, 1), "something was made outside");
        assert_eq!(fs_err::read(&outside).unwrap_or_default(), b"untouched");
    });
}

fn asks_too_much(data: &[u8]) -> bool {
    let mut reader = TarReader::new(data);
    while let Ok(Some(entry)) = reader.next_entry() {
        if entry.size > 1 << 20 {
            return true;
        }
    }
    false
}

/// Names that remove: an extracted layer, written as a layer and extracted again, is written as the same layer.
///
/// The bytes are a script: each pair makes one entry, so that most scripts are archives that are accepted.
pub fn whiteouts(data: &[u8]) {
    const NAMES: [&str; 12] = [
        "a",
        "b",
        "a/b",
        "a/b/c",
        ".wh.a",
        "a/.wh.b",
        "a/.wh..wh..opq",
        ".wh..wh..opq",
        "a/b/.wh.c",
        "a/.wh..wh.x",
        ".wh.",
        "a/.wh...",
    ];
    let mut writer = TarWriter::new(Vec::new());
    for pair in data.chunks_exact(2).take(64) {
        let kind = [Kind::File, Kind::Dir, Kind::Symlink, Kind::HardLink][usize::from(pair[1] % 4)];
        let link = match kind {
            Kind::Symlink | Kind::HardLink => NAMES[usize::from(pair[1] / 4) % NAMES.len()],
            _ => "",
        };
        let path = NAMES[usize::from(pair[0]) % NAMES.len()].into();
        let meta = crate::layer::tar::Meta { mode: 0o755, ..Default::default() };
        let entry = Entry { path, kind, link: link.into(), size: 0, sparse: None, meta, device: (0, 0) };
        writer.append(&entry, &mut std::io::empty()).unwrap_or_else(|e| panic!("{e}"));
    }
    let archive = writer.finish().unwrap_or_else(|e| panic!("{e}"));
    unpack(&archive);
    #[cfg(target_os = "linux")]
    in_folder(|dir| {
        let Some(first) = repacked(&archive, &dir.join("first")) else { return };
        let second = repacked(&first, &dir.join("second"));
        assert_eq!(second.as_deref(), Some(first.as_slice()), "{:?}", names(&archive));
    });
}

/// Extracts and writes again; `None` when the archive is refused, which only the first may be.
#[cfg(target_os = "linux")]
fn repacked(archive: &[u8], to: &Path) -> Option<Vec<u8>> {
    fs_err::create_dir(to).unwrap_or_else(|e| panic!("{e}"));
    match extract(archive, to) {
        Ok(_) => {}
        Err(Fault::Bad { .. }) => return None,
        // Without root no device can be made, and with it none of this fails.
        Err(Fault::Io(_)) => return None,
    }
    let mut bytes = Vec::new();
    crate::write_diff(to, &crate::DiffOptions::default(), &mut bytes).unwrap_or_else(|e| panic!("{e}"));
    Some(bytes)
}

#[cfg(target_os = "linux")]
fn names(archive: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(archive);
    let mut names = Vec::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        names.push(format!("{:?} {}", entry.kind, String::from_utf8_lossy(&entry.path)));
    }
    names
}

/// The index of a layer, alone and on top of itself: the same bytes each time, and no more of them than names,
/// attributes and blocks of such an archive can need.
pub fn erofs(data: &[u8]) {
    // The position of every block of a file is written down, and a header may ask for any number of them.
    if asks_too_much(data) {
        return;
    }
    #[cfg(target_os = "linux")]
    for layers in [&[data][..], &[data, data]] {
        let Ok(index) = crate::erofs::index_of_tars(layers) else { return };
        assert_eq!(index.get(1024..1028), Some(&[0xe2, 0xe1, 0xf5, 0xe0][..]), "no EROFS");
        assert!(index.len() % 512 == 0, "{} bytes are no blocks", index.len());
        assert!(index.len() <= (64 << 10) + 64 * data.len(), "{} of {}", index.len(), data.len());
        assert!(crate::erofs::index_of_tars(layers).is_ok_and(|again| again == index), "another index");
    }
}

/// Policies for signatures: what is accepted has an answer for every image.
pub fn policy(data: &[u8]) {
    use crate::trust::Origin;
    use crate::trust::Policy;
    let Ok(policy) = Policy::parse(Path::new("policy.json"), data) else { return };
    let name = Reference::parse("registry.example:5000/team/app:v1").unwrap_or_else(|e| panic!("{e}"));
    let again = Policy::parse(Path::new("policy.json"), data).unwrap_or_else(|e| panic!("{e}"));
    for origin in
        [Origin::registry(&name), Origin::oci(Some(Path::new("/srv/x"))), Origin::oci(None), Origin::local()]
    {
        assert_eq!(format!("{:?}", policy.wants(&origin)), format!("{:?}", again.wants(&origin)));
    }
}

/// What comes with a signature: signed documents, messages of OpenPGP, bundles, certificates, entries of logs.
pub fn signature(data: &[u8]) {
    crate::trust::fuzz_signature(data);
}

/// A folder in memory, where there is one: a fuzzer makes thousands.
fn in_folder(act: impl FnOnce(&Path)) {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir =
        tempfile::Builder::new().prefix("dhow-fuzz-").tempdir_in(base).unwrap_or_else(|e| panic!("{e}"));
    act(dir.path());
}
