//! Old files of a log, packed: `<log>.1.gz`.

use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use fs_err as fs;

use crate::error::Result;

/// More than any file of a log may have; a packed one that holds more was not made by us.
const LARGEST: u64 = 8 << 30;

/// The packed form's name.
pub(super) fn name(plain: &Path) -> PathBuf {
    let mut name = plain.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Packs a file and removes it. Whenever this is cut short, one of the two is there in whole.
#[cfg(target_os = "linux")]
pub(super) fn pack(plain: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut from = fs::File::open(plain)?;
    let place = name(plain);
    let draft = place.with_extension("new");
    {
        let to = fs::File::create(&draft)?;
        let mut packed = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
        std::io::copy(&mut from, &mut packed)?;
        packed.finish()?.flush()?;
    }
    fs::rename(&draft, &place)?;
    Ok(fs::remove_file(plain)?)
}

/// A packed file as it was, in a file without a name.
pub(super) fn unpack(packed: &Path) -> Result<Option<fs::File>> {
    let from = match fs::File::open(packed) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let draft = packed.with_extension(format!(
        "read-{:016x}",
        getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?
    ));
    let mut to = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&draft)?;
    // Open it stays.
    fs::remove_file(&draft)?;
    // What is damaged ends where it is damaged.
    std::io::copy(&mut GzDecoder::new(BufReader::new(from)).take(LARGEST), &mut to).ok();
    to.seek(SeekFrom::Start(0))?;
    Ok(Some(to))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.1");
        let text = "line\n".repeat(10_000);
        fs::write(&path, &text).unwrap();
        pack(&path).unwrap();
        assert!(!path.exists() && fs::metadata(name(&path)).unwrap().len() < 2000);
        let mut file = unpack(&name(&path)).unwrap().unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert!(read == text);
        // A damaged one gives what it has.
        let whole = fs::read(name(&path)).unwrap();
        for length in [0, 5, whole.len() / 2] {
            fs::write(name(&path), &whole[..length]).unwrap();
            unpack(&name(&path)).unwrap().unwrap();
        }
        assert!(unpack(&dir.path().join("nosuch.gz")).unwrap().is_none());
    }
}
